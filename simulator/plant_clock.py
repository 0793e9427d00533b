"""Scenario time against the wall: 0 when the plant starts serving, and as many times faster as it is told."""

from __future__ import annotations

import time
from collections.abc import Callable


class PlantClock:
    """Scenario seconds since `start`, from a monotonic clock; UTC stamps run at real speed from the same instant.

    Args:
        speed: scenario seconds per real second. now_s: a monotonic clock in seconds, so that a test owns time.
    """

    def __init__(
        self, speed: float = 1.0, now_s: Callable[[], float] = time.monotonic, utc_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.speed = speed
        self._now_s = now_s
        self._start_s = now_s()
        self._start_utc_ns = utc_ns()

    def t_s(self) -> float:
        """Scenario time now."""
        return (self._now_s() - self._start_s) * self.speed

    def until_s(self, t_s: float) -> float:
        """Real seconds until scenario time `t_s`; negative when it is past."""
        return (t_s - self.t_s()) / self.speed

    def utc_ns(self, t_s: float) -> int:
        """The UTC stamp of a scenario time."""
        return self._start_utc_ns + round(t_s / self.speed * 1e9)
