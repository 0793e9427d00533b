"""TagBank: running statistics of every scalar channel of the process, in one matrix.

One bank per process, never one per machine: a block costs about the same thirty NumPy calls for one tag or a thousand.
What never enters: a bad value, a NaN. What is never assumed: that samples come evenly, or at all.

Fast for what is usual, right for the rest: a device's channels are neighbours, so its block is a slice of the state and
NumPy works in place; they were last heard together, so one weight serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.vocabulary import F32, F64, Mask
from firmware_bridge.measurement import I32, U8, Quality

Where = slice | NDArray[np.intp]  # which channels: neighbours in order, or any
I64 = NDArray[np.int64]

ALL = slice(None)
NS_PER_S = 1e9
LONGEST_GAP_S = 1e9
NEVER_NS = -(1 << 62)  # before any monotonic clock began, and longer ago than any gap
CARPET_SHARE = 0.25  # one sample in four is believed to be free of strikes
BAD = int(Quality.BAD)  # NumPy takes five times as long to compare with an enum
FAST, SLOW, THERMAL = 0, 1, 2  # rows of the means; those before THERMAL have a variance as well
TAU_THERMAL_S = 1800.0  # of a machine's mass; not of TagPlan: with another one, tag.thermal_level is another version


@dataclass(frozen=True, slots=True)
class TagPlan:
    """Time constants of the bank; part of every feature set's identity.

    Attributes:
        tau_level_s, tau_slow_s: of the fast and the slow exponential mean (and the variance about each).
        n_median: samples that the rolling median and the carpet look back on; 0 for neither.
        n_rounds: a median is at most so many samples old.
        gap_s: after a longer silence a channel starts anew instead of bridging what nobody saw.
        settled_s: for quantities of days, whose slow mean would take weeks to forget where it began. Where it is given, a mean
            that is younger than its time constant is the plain mean of all that was seen, and deviations count from so long on;
            None: a mean begins at the first value, and deviations count after two slow time constants.
    """

    tau_level_s: float = 5.0
    tau_slow_s: float = 300.0
    n_median: int = 64
    n_rounds: int = 16
    gap_s: float = 120.0
    settled_s: float | None = None

    def __post_init__(self) -> None:
        taus = 0 < self.tau_level_s < self.tau_slow_s
        rounds = self.n_median == 0 or 1 <= self.n_rounds <= self.n_median
        settles = self.settled_s is None or self.settled_s > self.tau_level_s
        if not (taus and rounds and settles and 0 < self.gap_s <= LONGEST_GAP_S):
            raise ValueError(
                f"{self}: 0 < tau_level_s < tau_slow_s, 1 <= n_rounds <= n_median (or n_median = 0), "
                f"0 < gap_s <= {LONGEST_GAP_S:g} and tau_level_s < settled_s (or none) must hold"
            )

    @property
    def deviates_after_s(self) -> float:
        """How long a channel must be watched before its deviation from its own past counts."""
        return 2 * self.tau_slow_s if self.settled_s is None else self.settled_s


@dataclass(frozen=True, slots=True)
class Statistic:
    """How one statistic is read from the bank, and how long a channel must have been watched before it counts."""

    read: Callable[[TagBank, Where], F64]
    least_watched_s: Callable[[TagPlan], float]


class RollingMedian:
    """Median of each channel's latest samples, renewed in turns: sorting all at every sample is what costs.

    A channel's turn comes once in `n_rounds` of its own samples; while it is young, with every one.
    """

    def __init__(self, n_channels: int, n_samples: int, n_rounds: int) -> None:
        self.n_samples, self.n_rounds = n_samples, n_rounds
        self.median = np.full(n_channels, np.nan)
        self._ring = np.full((n_channels, n_samples), np.nan, np.float32)
        self._n_seen = np.zeros(n_channels, np.intp)

    def forget(self, channels: NDArray[np.intp]) -> None:
        """Begin anew."""
        self._ring[channels] = np.nan
        self._n_seen[channels] = 0

    def add(self, channels: NDArray[np.intp], values: F32) -> None:
        """One sample of each of these channels, each at most once."""
        n_seen = self._n_seen[channels]
        self._ring[channels, n_seen % self.n_samples] = values
        self._n_seen[channels] = n_seen + 1
        turn = channels[(n_seen < self.n_rounds) | ((n_seen + channels) % self.n_rounds == 0)]
        if turn.size:
            self._renew(turn)

    def carpet(self, where: Where) -> F64:
        """Lower quartile of the latest `n_samples`, linear between two of them; NaN until there are so many. Never out of date."""
        position = CARPET_SHARE * (self.n_samples - 1)
        at = int(position)
        ordered = np.sort(self._ring[where], axis=1)[:, at : at + 2].astype(np.float64)
        carpet: F64 = ordered[:, 0] + (position - at) * (ordered[:, -1] - ordered[:, 0])
        return np.where(self._n_seen[where] >= self.n_samples, carpet, np.nan)

    def _renew(self, channels: NDArray[np.intp]) -> None:
        ordered = self._ring[channels]
        ordered.sort(axis=1)  # NaN, the places not yet filled, to the end
        n_filled = np.minimum(self._n_seen[channels], self.n_samples)
        row = np.arange(channels.size)
        below, above = ordered[row, (n_filled - 1) // 2], ordered[row, n_filled // 2]
        self.median[channels] = np.add(below, above, dtype=np.float64) / 2


class TagBank:
    """State of `n_channels` channels; `update` takes what one poll brought, every other method only looks.

    Arrays it gives out are copies or computed, in the order of the process's channel table: of all channels, or of those
    that `where` names.
    """

    def __init__(self, n_channels: int, plan: TagPlan = TagPlan()) -> None:
        taus_s = np.array([[plan.tau_level_s], [plan.tau_slow_s], [TAU_THERMAL_S]])
        self.plan = plan
        self.rejected = 0  # values that were bad or no number
        self._rate_per_ns = -1 / (taus_s * NS_PER_S)
        self._gap_ns = round(plan.gap_s * NS_PER_S)
        self._mean = np.zeros((len(taus_s), n_channels))
        self._variance = np.zeros((THERMAL, n_channels))
        self._bits = np.zeros(n_channels, np.int32)
        self._quality = np.full(n_channels, BAD, np.uint8)
        self._good_ns = np.full(n_channels, NEVER_NS)
        self._changed_ns = self._good_ns.copy()
        self._since_ns = self._good_ns.copy()
        self._medians = RollingMedian(n_channels, plan.n_median, plan.n_rounds)
        self._order = np.arange(n_channels, dtype=np.int32)
        self._indices = np.arange(n_channels)

    def update(self, channels: I32, values: F32, quality: U8, monotonic_ns: int) -> None:
        """Take in one block. What it does to a channel does not depend on which others are in the block.

        Args:
            channels: shape (n,), indices, each at most once. values: shape (n,). quality: shape (n,), `Quality`.
            monotonic_ns: when it was read; the same or an earlier time than before moves no mean.
        """
        usable = np.isfinite(values) & (quality < BAD)
        n_rejected = usable.size - int(np.count_nonzero(usable))
        if n_rejected:
            self.rejected += n_rejected
            self._quality[channels[~usable]] = np.maximum(quality[~usable], BAD)
            channels, values, quality = channels[usable], values[usable], quality[usable]
        if not channels.size:
            return
        where = self._where(channels)
        self._quality[where] = quality
        elapsed_ns = self._elapsed_ns(where, values, monotonic_ns)
        self._move_moments(where, values, elapsed_ns)
        self._move_clocks(where, values, elapsed_ns)
        if self.plan.n_median:
            self._medians.add(self._indices[where], values)

    def _where(self, channels: I32) -> Where:
        """A slice, if it says the same: NumPy then works on the state itself, without a copy there and back."""
        first = int(channels[0])
        neighbours = slice(first, first + channels.size)
        same = self._order[neighbours].tobytes() == channels.tobytes()  # a fourth of what np.array_equal costs
        return neighbours if same else channels.astype(np.intp)

    def _elapsed_ns(self, where: Where, values: F32, monotonic_ns: int) -> int | I64:
        """Since the last good value, never negative: one number for a block whose channels were last heard together.

        A channel's first value, or the first after a gap, is all that is known of it: it starts there.
        """
        good_ns = self._good_ns[where]
        common_ns = monotonic_ns - int(good_ns[0])
        if common_ns <= self._gap_ns and np.count_nonzero(good_ns == good_ns[0]) == good_ns.size:
            return max(common_ns, 0)
        elapsed_ns: I64 = monotonic_ns - good_ns
        anew = elapsed_ns > self._gap_ns
        if np.count_nonzero(anew):
            self._start(self._indices[where][anew], values[anew], monotonic_ns)
            elapsed_ns[anew] = 0
        return np.maximum(elapsed_ns, 0)

    def _start(self, channels: NDArray[np.intp], values: F32, monotonic_ns: int) -> None:
        self._mean[:, channels] = values
        self._variance[:, channels] = 0
        self._good_ns[channels] = self._changed_ns[channels] = self._since_ns[channels] = monotonic_ns
        self._medians.forget(channels)

    def _move_moments(self, where: Where, values: F32, elapsed_ns: int | I64) -> None:
        """Exponential means, and variances about the first two of them; the weight of a step is 1 - exp(-dt/tau).

        Source: West 1979 (update of mean and variance), with the weight of an uneven step.
        """
        weight = -np.expm1(elapsed_ns * self._rate_per_ns)
        if self.plan.settled_s is not None:
            weight = np.maximum(weight, self._youth(where, elapsed_ns))
        mean, variance = self._mean[:, where], self._variance[:, where]
        difference = values - mean
        step = weight * difference
        mean += step
        variance += difference[:THERMAL] * step[:THERMAL]
        variance *= 1 - weight[:THERMAL]
        self._mean[:, where], self._variance[:, where] = mean, variance  # a slice is there already, which NumPy sees

    def _youth(self, where: Where, elapsed_ns: int | I64) -> F64:
        """The weight of a step in the plain mean of all that was seen, 1/n for even samples; 0 where no time has passed."""
        watched_ns = self._good_ns[where] - self._since_ns[where] + 2.0 * elapsed_ns
        weight: F64 = np.divide(elapsed_ns, watched_ns, out=np.zeros_like(watched_ns), where=watched_ns > 0)
        return weight

    def _move_clocks(self, where: Where, values: F32, elapsed_ns: int | I64) -> None:
        good_ns, changed_ns, bits = self._good_ns[where], self._changed_ns[where], values.view(np.int32)
        good_ns += elapsed_ns
        np.copyto(changed_ns, good_ns, where=bits != self._bits[where])
        self._good_ns[where], self._changed_ns[where], self._bits[where] = good_ns, changed_ns, bits

    def quality(self) -> U8:
        """The `Quality` last heard of each channel, good or bad; BAD before anything was."""
        return self._quality.copy()

    def latest_of(self, channels: NDArray[np.intp]) -> F64:
        """The values last heard of some channels; NaN where that was bad, or nothing was heard. Shape (n,)."""
        values: F64 = np.where(self._quality[channels] < BAD, self._bits[channels].view(np.float32), np.nan)
        return values

    def level(self, where: Where = ALL) -> F64:
        """Exponential mean over `tau_level_s`."""
        level: F64 = self._mean[FAST, where].copy()
        return level

    def slow_level(self, where: Where = ALL) -> F64:
        """Exponential mean over `tau_slow_s`."""
        level: F64 = self._mean[SLOW, where].copy()
        return level

    def thermal_level(self, where: Where = ALL) -> F64:
        """Exponential mean over `TAU_THERMAL_S`: what the temperature of a machine's mass follows."""
        level: F64 = self._mean[THERMAL, where].copy()
        return level

    def std(self, where: Where = ALL) -> F64:
        """Standard deviation about `level`."""
        std: F64 = np.sqrt(self._variance[FAST, where])
        return std

    def slope_per_s(self, where: Where = ALL) -> F64:
        """Per second; exact for a ramp, because a ramp lags each mean by that mean's tau."""
        apart = self._mean[FAST, where] - self._mean[SLOW, where]
        slope: F64 = apart / (self.plan.tau_slow_s - self.plan.tau_level_s)
        return slope

    def deviation(self, where: Where = ALL) -> F64:
        """Level against slow level in slow standard deviations; NaN where nothing has ever varied."""
        return self._deviation(FAST, where)

    def excursion(self, where: Where = ALL) -> F64:
        """Thermal level against slow level in slow standard deviations: as `deviation`, of the last half hour."""
        return self._deviation(THERMAL, where)

    def _deviation(self, row: int, where: Where) -> F64:
        slow_std = np.sqrt(self._variance[SLOW, where])
        apart = self._mean[row, where] - self._mean[SLOW, where]
        deviation: F64 = np.divide(apart, slow_std, out=np.full_like(apart, np.nan), where=slow_std > 0)
        return deviation

    def median(self, where: Where = ALL) -> F64:
        """Median of up to `n_median` latest samples, at most `n_rounds` samples old."""
        median: F64 = self._medians.median[where].copy()
        return median

    def carpet(self, where: Where = ALL) -> F64:
        """Lower quartile of the `n_median` latest samples: the level between strikes; NaN until there are so many."""
        return self._medians.carpet(where) if self.plan.n_median else np.full_like(self._mean[FAST, where], np.nan)

    def read(self, statistic: str, channel: int, monotonic_ns: int) -> tuple[float, bool]:
        """One statistic ("tag.level") of one channel, and whether it may be used: watched long enough, not silent."""
        known, where = STATISTICS[statistic], slice(channel, channel + 1)
        value = float(known.read(self, where)[0])
        watched = bool(self.watched(known.least_watched_s(self.plan), monotonic_ns, where)[0])
        return value, watched and math.isfinite(value)

    def watched(self, least_s: float, monotonic_ns: int, where: Where = ALL) -> Mask:
        """Which channels have been watched without a gap for `least_s` and are not silent now."""
        long_enough = self._good_ns[where] - self._since_ns[where] >= least_s * NS_PER_S
        mask: Mask = long_enough & (self.silent_s(monotonic_ns, where) <= self.plan.gap_s)
        return mask

    def silent_s(self, monotonic_ns: int, where: Where = ALL) -> F64:
        """Time since the last usable value; infinite where there has been none."""
        good_ns = self._good_ns[where]
        silent: F64 = np.where(good_ns > NEVER_NS, (monotonic_ns - good_ns) / NS_PER_S, np.inf)
        return silent

    def unchanged_s(self) -> F64:
        """How long each channel was seen to repeat the same bits: up to its last usable value; silence is not it."""
        unchanged: F64 = (self._good_ns - self._changed_ns) / NS_PER_S
        return unchanged


# The one place a statistic is added, beside its declaration in features/tag.py.
STATISTICS: dict[str, Statistic] = {
    "tag.level": Statistic(TagBank.level, lambda plan: 0.0),
    "tag.amplitude": Statistic(TagBank.level, lambda plan: 0.0),
    "tag.median": Statistic(TagBank.median, lambda plan: 0.0),
    "tag.carpet": Statistic(TagBank.carpet, lambda plan: 0.0),
    "tag.std": Statistic(TagBank.std, lambda plan: 2 * plan.tau_level_s),
    "tag.slow_level": Statistic(TagBank.slow_level, lambda plan: plan.tau_slow_s),
    "tag.thermal_level": Statistic(TagBank.thermal_level, lambda plan: TAU_THERMAL_S),
    "tag.slope": Statistic(TagBank.slope_per_s, lambda plan: 2 * plan.tau_slow_s),
    "tag.deviation": Statistic(TagBank.deviation, lambda plan: plan.deviates_after_s),
    "tag.excursion": Statistic(TagBank.excursion, lambda plan: plan.deviates_after_s),
}
