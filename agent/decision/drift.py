"""Drift of one instrument against another: the only drift that is told from a machine's own slow change.

Pure. A pressure that falls by a percent a day may be the pump's wear, a temperature that rises the bearing's: one instrument
alone is believed, and the detector judges it. Where two sensors measure what is bound together by physics, their ratio is
frozen in the first day and watched; which of the two drifts is not told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import log
from statistics import median

from agent.vocabulary import F64
from firmware_bridge.measurement import Channel

# The electrical power that a motor takes in, and the shaft power that its drive estimates: their ratio is the efficiency, which
# falls by a point or two before a motor fails.
BOUND = (("active_power_kw", "motor_shaft_power_kw"),)
EVERY_S = 60.0
MEAN_S = 3600.0  # of running makes one mean
LONGEST_S = 600.0  # that one ratio may stand for
N_MOST = 120  # ratios that make one mean at most, where a machine starts and stops all the time
N_REFERENCE, N_RECENT = 24, 6  # means: the first day, the last quarter of one
LEAST_SHARE = 0.03  # that a ratio must have moved by: six times what a meter of class 0.5 may be wrong by
APART_SHARE, N_APART = 0.1, 20  # no motor loses a tenth of its efficiency and runs on: told after so many ratios
N_SPREADS = 6.0  # and so many times what it moved in the first day
SAME_LOAD = 0.10  # efficiency follows the load: only ratios at the load of the first day are compared
_NS = 1e9


@dataclass(slots=True)
class BoundPair:
    """Two channels of different sensors and their ratio so far."""

    first: int
    second: int
    _last_ns: int | None = None
    _so_far_s: float = 0.0
    _now: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=N_MOST))  # logarithms of both
    _latest: deque[float] = field(default_factory=lambda: deque(maxlen=N_APART))
    _reference: list[tuple[float, float]] = field(default_factory=list)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=N_RECENT))

    def step(self, levels: F64, running: bool, monotonic_ns: int) -> None:
        """About every EVERY_S. Args: levels: of all channels; NaN where not known."""
        one, other = float(levels[self.first]), float(levels[self.second])
        if not running or not (one > 0 and other > 0):
            self._last_ns = None
            return
        since_s = (monotonic_ns - self._last_ns) / _NS if self._last_ns is not None else 0.0
        self._last_ns = monotonic_ns
        self._so_far_s += min(since_s, LONGEST_S)
        now = log(one), log(other)
        self._now.append(now)
        if len(self._reference) == N_REFERENCE and self._is_same_load(now):
            self._latest.append(now[0] - now[1])
        if self._so_far_s >= MEAN_S:
            self._end_mean()

    def _end_mean(self) -> None:
        one, other = (median(values) for values in zip(*self._now, strict=True))
        self._so_far_s = 0.0
        self._now.clear()
        if len(self._reference) < N_REFERENCE:
            self._reference.append((one, other))
        elif self._is_same_load((one, other)):
            self._recent.append(one - other)

    def _is_same_load(self, now: tuple[float, float]) -> bool:
        """Whether one of the two, at least, says that the load is that of the first day."""
        usual = (median(each) for each in zip(*self._reference, strict=True))
        return any(abs(value - own) <= SAME_LOAD for value, own in zip(now, usual, strict=True))

    @property
    def drifted(self) -> bool:
        """Whether the ratio has left that of the first day for a quarter of a day, or by far for less."""
        if len(self._reference) < N_REFERENCE:
            return False
        ratios = [one - other for one, other in self._reference]
        usual = median(ratios)
        spread = median(abs(ratio - usual) for ratio in ratios)
        bounds = ((self._recent, max(LEAST_SHARE, N_SPREADS * spread)), (self._latest, APART_SHARE))
        return any(len(ratios) == ratios.maxlen and abs(median(ratios) - usual) > bound for ratios, bound in bounds)

    def forget(self) -> None:
        """One of the two was changed."""
        self._last_ns, self._so_far_s = None, 0.0
        self._now.clear()
        self._latest.clear()
        self._reference.clear()
        self._recent.clear()


def bound_pairs(channels: Sequence[Channel], machines: Iterable[Sequence[int]]) -> list[BoundPair]:
    """The pairs that the machines have, of different sensors."""
    pairs = []
    for indices in machines:
        at = {channels[index].point: index for index in indices}
        for first, second in BOUND:
            if first in at and second in at and channels[at[first]].sensor != channels[at[second]].sensor:
                pairs.append(BoundPair(at[first], at[second]))
    return pairs
