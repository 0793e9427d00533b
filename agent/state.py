"""StateTracker: what a machine is doing, from speed, power, current, or from its vibration alone. State first, detector second.

Baselines belong to a state, so the state must be sure before it is said: a run counts once its speed has held for the
dwell, a stop counts almost at once. Everything between is STARTING or COASTING, in which nothing is judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from agent.machine import StateRule
from agent.vocabulary import Mode, OperatingState

TURNS_ABOVE, STOPS_BELOW = 0.10, 0.05  # of rated speed: what is turning, what stands still
POWERED_ABOVE, IDLE_BELOW = 0.08, 0.05  # of rated power
COASTS_BELOW = 0.98  # of the speed at which power was last seen
BINS_PER_RATED = 10  # speed bins of a tenth of rated speed
STICKS = 0.15  # of a bin: how far speed may leave its bin before another one is thought of
STOP_DWELL_S = 1.0  # one odd reading is no stop
UNRATED_RPM = 600.0  # stands for rated speed where the site states none: only turning or not is told then
IDLE_KW = 0.1  # below, and without a rated power, it may be a drive that waits
IDLE_A = 0.2  # likewise of current
# Vibration tells only where nothing better does: a neighbour on the same floor gives a quarter of a running machine's level.
FLOOR_OF_UNIT = {
    "mm_s": 0.2,
    "m_s2": 0.15,
    "g": 0.015,
}  # no machine that runs is quieter, no sensor's own noise is louder
SURELY_RUNNING = 3.0  # floors
LOUD_AND_QUIET_S = 86_400.0  # within a day a machine's loudest and quietest are forgotten by a factor of e


class _Seen(Enum):
    """What one reading shows."""

    NOTHING = "nothing"
    STANDING = "standing"
    FALLING = "falling"
    TURNING = "turning"


@dataclass(slots=True)
class _Threshold:
    """A yes/no with hysteresis; None until it has been told anything."""

    rises_above: float
    falls_below: float
    state: bool | None = None

    def step(self, share: float) -> bool | None:
        if math.isnan(share):
            return None
        was_on = bool(self.state)
        self.state = share >= (self.falls_below if was_on else self.rises_above)
        return self.state


@dataclass(slots=True)
class _LoudAndQuiet:
    """Whether a machine's vibration is that of running: above the middle of its loudest and quietest, within what is sensible.

    In floors of the quantity: a level below one is standing for certain, above `SURELY_RUNNING` running. Between, the geometric
    middle of what was seen decides. Both extremes are forgotten slowly, so that a repaired machine is not taken for standing.
    """

    loud: float = math.nan
    quiet: float = math.nan
    last_ns: int = 0
    running: bool | None = None

    def step(self, floors: float, monotonic_ns: int) -> bool | None:
        if math.isnan(floors):
            return None
        level = math.log(max(floors, 1e-3))
        if math.isnan(self.loud):
            self.loud = self.quiet = level
        keep = math.exp(-max(0, monotonic_ns - self.last_ns) / 1e9 / LOUD_AND_QUIET_S)
        self.last_ns = monotonic_ns
        self.loud = max(level, level + (self.loud - level) * keep)
        self.quiet = min(level, level + (self.quiet - level) * keep)
        bound = min(max((self.loud + self.quiet) / 2, 0.0), math.log(SURELY_RUNNING))
        stays = math.log(0.8) if self.running else 0.0  # a little below, before a running machine is said to stand
        self.running = level >= bound + stays
        return self.running


# (turning?, powered?) -> what is seen; None is "no sensor tells". FALLING is settled by the speed itself.
SEEN: dict[tuple[bool | None, bool | None], _Seen] = {
    (None, None): _Seen.NOTHING,
    (None, False): _Seen.STANDING,
    (None, True): _Seen.TURNING,
    (False, None): _Seen.STANDING,
    (False, False): _Seen.STANDING,
    (False, True): _Seen.NOTHING,  # power on a shaft that stands: first moment of a run-up, or a dead speed signal
    (True, None): _Seen.TURNING,
    (True, False): _Seen.FALLING,
    (True, True): _Seen.TURNING,
}


class StateTracker:
    """Tracks one machine; `step` is called with every new reading of speed or power."""

    def __init__(
        self,
        rule: StateRule,
        rated_speed_rpm: float = float("nan"),
        rated_power_kw: float = float("nan"),
        assume_running: bool = False,
        rated_current_a: float = float("nan"),
    ) -> None:
        """Args: assume_running: the site says so of a machine of which no channel tells."""
        self._rule = rule
        self._rated_speed_rpm = rated_speed_rpm
        self._rated_power_kw = rated_power_kw
        self._rated_current_a = rated_current_a
        self._assume_running = assume_running
        self._turning = _Threshold(TURNS_ABOVE, STOPS_BELOW)
        self._powered = _Threshold(POWERED_ABOVE, IDLE_BELOW)
        self._highest_power_kw = IDLE_KW / POWERED_ABOVE
        self._highest_current_a = IDLE_A / POWERED_ABOVE
        self._vibrates = _LoudAndQuiet()
        self._powered_speed_rpm = float("nan")
        self._told = False
        self.contradicts = False  # power on a shaft that stands: one of the two signals is wrong
        self._stopped_before = False  # a run-up was or will be seen; otherwise it ran before we came
        self._run_since_ns = 0
        self._candidate: tuple[_Seen, int] = (_Seen.NOTHING, 0)
        self._candidate_since_ns: int | None = None
        self._kept_bin = 0
        self.state = OperatingState(Mode.UNKNOWN)

    def step(
        self,
        speed_rpm: float,
        power_kw: float,
        monotonic_ns: int,
        *,
        current_a: float = math.nan,
        vibration_floors: float = math.nan,
    ) -> OperatingState:
        """The state after one more reading; NaN where the machine has no such channel or its value is not good now.

        Args:
            current_a: asked where power does not tell.
            vibration_floors: its vibration over the least that a running machine has (FLOOR_OF_UNIT); asked where nothing
                else tells.
        """
        if self._assume_running:
            current_a = vibration_floors = math.nan  # the site says that these do not tell
        seen = self._look(abs(speed_rpm), self._power_share(power_kw, abs(current_a)))
        vibrates = self._vibrates.step(vibration_floors, monotonic_ns)
        if seen is _Seen.NOTHING and vibrates is not None and math.isnan(speed_rpm):
            seen = _Seen.TURNING if vibrates else _Seen.STANDING
        if seen is _Seen.NOTHING and self._assume_running and not self._told:
            self.state = self._assumed(monotonic_ns)
            return self.state
        self._told = self._told or seen is not _Seen.NOTHING
        held_s = self._held_s((seen, self._bin(abs(speed_rpm)) if seen is _Seen.TURNING else 0), monotonic_ns)
        self.state = self._next(held_s, monotonic_ns)
        return self.state

    def has_run_s(self, monotonic_ns: int) -> float:
        """Since its start; infinite where no start was seen, because it ran before we came."""
        return (monotonic_ns - self._run_since_ns) / 1e9 if self._stopped_before else math.inf

    def _assumed(self, monotonic_ns: int) -> OperatingState:
        """A machine of which nothing tells may have started with us: its first minute is a start."""
        if self._candidate_since_ns is None:
            self._candidate_since_ns = monotonic_ns
        run_s = (monotonic_ns - self._candidate_since_ns) / 1e9
        return OperatingState(Mode.STARTING if run_s < self._rule.starting_s else Mode.RUNNING)

    def _look(self, speed_rpm: float, power_share: float) -> _Seen:
        rated_rpm = UNRATED_RPM if math.isnan(self._rated_speed_rpm) else self._rated_speed_rpm
        turning = self._turning.step(speed_rpm / rated_rpm)
        powered = self._powered.step(power_share)
        self.contradicts = turning is False and powered is True
        if powered and turning:
            self._powered_speed_rpm = speed_rpm
        seen = SEEN[turning, powered]
        if seen is _Seen.FALLING and not speed_rpm < COASTS_BELOW * self._powered_speed_rpm:
            return _Seen.TURNING  # idling steadily, or never seen under power
        return seen

    def _power_share(self, power_kw: float, current_a: float) -> float:
        """Power over rated power, or current where no power tells; where no rating is known, over the highest that was seen."""
        if math.isnan(power_kw):
            self._highest_current_a = max(self._highest_current_a, current_a)  # in this order NaN changes nothing
            return current_a / (self._highest_current_a if math.isnan(self._rated_current_a) else self._rated_current_a)
        self._highest_power_kw = max(self._highest_power_kw, power_kw)
        return power_kw / (self._highest_power_kw if math.isnan(self._rated_power_kw) else self._rated_power_kw)

    def _bin(self, speed_rpm: float) -> int:
        """The speed bin; the present one is kept a little beyond its edges."""
        if math.isnan(speed_rpm) or math.isnan(self._rated_speed_rpm):
            return 0
        tenths = speed_rpm / self._rated_speed_rpm * BINS_PER_RATED
        if abs(tenths - self._kept_bin) > 0.5 + STICKS:
            self._kept_bin = max(1, math.floor(tenths + 0.5))
        return self._kept_bin

    def _held_s(self, candidate: tuple[_Seen, int], monotonic_ns: int) -> float:
        """How long the same thing has been seen without a break."""
        if candidate != self._candidate or self._candidate_since_ns is None:
            self._candidate = candidate
            self._candidate_since_ns = monotonic_ns
        return (monotonic_ns - self._candidate_since_ns) / 1e9

    def _next(self, held_s: float, monotonic_ns: int) -> OperatingState:
        seen, speed_bin = self._candidate
        if seen is _Seen.TURNING:
            return self._turning_state(speed_bin, held_s, monotonic_ns)
        if seen is _Seen.NOTHING:
            return OperatingState(Mode.UNKNOWN) if held_s >= self._rule.dwell_s else self.state
        if held_s < STOP_DWELL_S and self.state.mode is not Mode.UNKNOWN:
            return self.state
        self._stopped_before = True
        return OperatingState(Mode.OFF if seen is _Seen.STANDING else Mode.COASTING)

    def _turning_state(self, speed_bin: int, held_s: float, monotonic_ns: int) -> OperatingState:
        if self.state.mode in (Mode.OFF, Mode.COASTING):
            self._run_since_ns = monotonic_ns
        run_s = (monotonic_ns - self._run_since_ns) / 1e9
        steady = held_s >= self._rule.dwell_s
        if steady and (run_s >= self._rule.starting_s or not self._stopped_before):
            return OperatingState(Mode.RUNNING, speed_bin)
        if self.state == OperatingState(Mode.RUNNING, speed_bin):
            return self.state  # one odd reading between two of the same bin
        return self.state if self.state.mode is Mode.UNKNOWN else OperatingState(Mode.STARTING)
