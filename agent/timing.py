"""CPU time of several ways to do a thing, in turns: what the machine does beside hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved_us(
    candidates: Mapping[str, Callable[[], object]], seconds: float, turn_s: float = 0.0
) -> dict[str, float]:
    """Median microseconds of the calling thread's CPU time of a call.

    Args:
        candidates: by name; each is called once beforehand, and then has a turn in every round, at least one.
        seconds: how long to measure. turn_s: a quick one is called again for so long within its turn, so that its own caches are
            warm as in its own program.
    """
    took: dict[str, list[float]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        candidate()
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s or not all(took.values()):
        for name, candidate in candidates.items():
            took[name] += _turn_us(candidate, turn_s)
    return {name: statistics.median(times) for name, times in took.items()}


def _turn_us(candidate: Callable[[], object], turn_s: float) -> list[float]:
    times: list[float] = []
    until_s = time.monotonic() + turn_s
    while not times or time.monotonic() < until_s:
        start_ns = time.thread_time_ns()
        candidate()
        times.append((time.thread_time_ns() - start_ns) / 1000)
    return times
