"""Clock: wall and monotonic time, as one thing that a test or a replay can own."""

from __future__ import annotations

import time
from typing import Protocol


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
