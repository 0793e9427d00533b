"""Clock: wall and monotonic time, as one thing that a test or a replay can own; and ClockWatch, which sees the wall clock set.

A gateway without a battery-backed clock boots in 1970, time servers set it minutes later, people set it by an hour: that is an
event about the time, never about what is measured. So durations and decisions are made on the monotonic clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol

SET_SINCE_UTC_NS = 1_767_225_600 * 10**9  # 2026-01-01: a live clock that says less was never set
JUMP_NS = 500_000_000  # between two looks
DRIFT_NS = 2_000_000_000  # in jumps too small to tell one by one
MAX_SLEW = 500e-6  # by so much adjtimex(2) lets a time server speed the clock up or slow it down: no step
N_READINGS = 3


class Clock(Protocol):
    """Waits and durations use `monotonic_ns`; only stamps that people read use `utc_ns`."""

    def utc_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class SystemClock:
    """The machine's own clocks."""

    def utc_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that moves when told: replay and tests."""

    def __init__(self, utc_ns: int = 0, monotonic_ns: int = 0) -> None:
        self._utc_ns = utc_ns
        self._monotonic_ns = monotonic_ns

    def utc_ns(self) -> int:
        return self._utc_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def set(self, utc_ns: int, monotonic_ns: int) -> None:
        self._utc_ns = utc_ns
        self._monotonic_ns = monotonic_ns

    def advance(self, seconds: float) -> None:
        self._utc_ns += round(seconds * 1e9)
        self._monotonic_ns += round(seconds * 1e9)


class Moment(NamedTuple):
    """One instant on both clocks: stamps are taken from the first, durations from the second."""

    utc_ns: int
    monotonic_ns: int


def moment_of(clock: Clock) -> Moment:
    """Both clocks, read together.

    A thread that is put aside between the two readings would see a step that never was: the tightest of a few pairs counts.
    """
    readings = []
    for _ in range(N_READINGS):
        before_ns, utc_ns, after_ns = clock.monotonic_ns(), clock.utc_ns(), clock.monotonic_ns()
        readings.append((after_ns - before_ns, Moment(utc_ns, after_ns)))
    return min(readings)[1]


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The wall clock was set: what it would have said and what it says, at one and the same instant."""

    from_utc_ns: int
    to_utc_ns: int
    was_set: bool
    is_set: bool

    @property
    def step_s(self) -> float:
        """Positive: put forward."""
        return (self.to_utc_ns - self.from_utc_ns) / 1e9


class ClockWatch:
    """Notices that the wall clock was set, and whether it ever was. Pure; looks about once a second.

    Args: set_since_utc_ns: the clock is set when it says this or later; 0 for a recording, whose times are all it has.
    """

    def __init__(self, set_since_utc_ns: int = 0) -> None:
        self.n_steps = 0
        self.last_step_s: float | None = None
        self._set_since_utc_ns = set_since_utc_ns
        self._seen: Moment | None = None
        self._drift_ns = 0  # small jumps since they were last told

    @property
    def is_set(self) -> bool:
        """As of the last look; True before the first."""
        return self._seen is None or self.is_set_at(self._seen.utc_ns)

    def is_set_at(self, utc_ns: int) -> bool:
        """Whether a time is of a clock that was set."""
        return utc_ns >= self._set_since_utc_ns

    def look(self, now: Moment) -> ClockStep | None:
        """The step since the last look: one jump, or many small ones since the last step that together are worth telling."""
        before, self._seen = self._seen, now
        if before is None:
            return None
        elapsed_ns = max(now.monotonic_ns - before.monotonic_ns, 0)
        moved_ns = now.utc_ns - before.utc_ns - elapsed_ns
        slewed_ns = round(MAX_SLEW * elapsed_ns)
        if abs(moved_ns) > JUMP_NS + slewed_ns:
            return self._step(moved_ns, now.utc_ns)
        self._drift_ns += moved_ns - min(max(moved_ns, -slewed_ns), slewed_ns)  # what a slew does not explain
        if abs(self._drift_ns) <= DRIFT_NS:
            return None
        drift_ns, self._drift_ns = self._drift_ns, 0
        return self._step(drift_ns, now.utc_ns)

    def _step(self, step_ns: int, utc_ns: int) -> ClockStep:
        step = ClockStep(utc_ns - step_ns, utc_ns, self.is_set_at(utc_ns - step_ns), self.is_set_at(utc_ns))
        self.n_steps += 1
        self.last_step_s = step.step_s
        return step
