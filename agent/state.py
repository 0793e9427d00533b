"""StateTracker: what a machine is doing, from its speed and power alone. Operating state first, detector second.

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
    ) -> None:
        """Args: assume_running: the site says so of a machine that has neither a speed nor a power channel."""
        self._rule = rule
        self._rated_speed_rpm = rated_speed_rpm
        self._rated_power_kw = rated_power_kw
        self._assume_running = assume_running
        self._turning = _Threshold(TURNS_ABOVE, STOPS_BELOW)
        self._powered = _Threshold(POWERED_ABOVE, IDLE_BELOW)
        self._highest_power_kw = IDLE_KW / POWERED_ABOVE
        self._powered_speed_rpm = float("nan")
        self._told = False
        self._stopped_before = False  # a run-up was or will be seen; otherwise it ran before we came
        self._run_since_ns = 0
        self._candidate: tuple[_Seen, int] = (_Seen.NOTHING, 0)
        self._candidate_since_ns: int | None = None
        self._kept_bin = 0
        self.state = OperatingState(Mode.UNKNOWN)

    def step(self, speed_rpm: float, power_kw: float, monotonic_ns: int) -> OperatingState:
        """The state after one more reading.

        Args: speed_rpm, power_kw: NaN where the machine has no such channel or its value is not good now.
        """
        seen = self._look(abs(speed_rpm), power_kw)
        if seen is _Seen.NOTHING and self._assume_running and not self._told:
            self.state = self._assumed(monotonic_ns)
            return self.state
        self._told = self._told or seen is not _Seen.NOTHING
        held_s = self._held_s((seen, self._bin(abs(speed_rpm)) if seen is _Seen.TURNING else 0), monotonic_ns)
        self.state = self._next(held_s, monotonic_ns)
        return self.state

    def _assumed(self, monotonic_ns: int) -> OperatingState:
        """A machine of which nothing tells may have started with us: its first minute is a start."""
        if self._candidate_since_ns is None:
            self._candidate_since_ns = monotonic_ns
        run_s = (monotonic_ns - self._candidate_since_ns) / 1e9
        return OperatingState(Mode.STARTING if run_s < self._rule.starting_s else Mode.RUNNING)

    def _look(self, speed_rpm: float, power_kw: float) -> _Seen:
        rated_rpm = UNRATED_RPM if math.isnan(self._rated_speed_rpm) else self._rated_speed_rpm
        turning = self._turning.step(speed_rpm / rated_rpm)
        powered = self._powered.step(power_kw / self._power_reference_kw(power_kw))
        if powered and turning:
            self._powered_speed_rpm = speed_rpm
        seen = SEEN[turning, powered]
        if seen is _Seen.FALLING and not speed_rpm < COASTS_BELOW * self._powered_speed_rpm:
            return _Seen.TURNING  # idling steadily, or never seen under power
        return seen

    def _power_reference_kw(self, power_kw: float) -> float:
        """Rated power; where the site states none, the highest that was seen."""
        if not math.isnan(self._rated_power_kw):
            return self._rated_power_kw
        self._highest_power_kw = max(self._highest_power_kw, power_kw)  # in this order NaN changes nothing
        return self._highest_power_kw

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
