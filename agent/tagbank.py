"""TagBank: running statistics of every scalar channel of the process, in one matrix.

One bank per process, never one per machine: a tick costs about the same twenty NumPy calls for one tag or a thousand.
What never enters: a bad value, a NaN. What is never assumed: that samples come evenly, or at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.vocabulary import F32, F64, Mask
from firmware_bridge.measurement import I32, U8, Quality

NS_PER_S = 1e9
FAST, SLOW = 0, 1  # rows of the two time constants


@dataclass(frozen=True, slots=True)
class TagPlan:
    """Time constants of the bank; part of every feature set's identity.

    Attributes:
        tau_level_s, tau_slow_s: of the fast and the slow exponential mean (and the variance about each).
        n_median: samples that the rolling median looks back on. n_rounds: a median is at most so many samples old.
        gap_s: after a longer silence a channel starts anew instead of bridging what nobody saw.
    """

    tau_level_s: float = 5.0
    tau_slow_s: float = 300.0
    n_median: int = 64
    n_rounds: int = 16
    gap_s: float = 120.0

    def __post_init__(self) -> None:
        if not (0 < self.tau_level_s < self.tau_slow_s and 1 <= self.n_rounds <= self.n_median and self.gap_s > 0):
            raise ValueError(f"{self}: 0 < tau_level_s < tau_slow_s, 1 <= n_rounds <= n_median and gap_s > 0 must hold")


@dataclass(frozen=True, slots=True)
class Statistic:
    """How one statistic is read from the bank, and how long a channel must have been watched before it counts."""

    read: Callable[[TagBank], F64]
    least_watched_s: Callable[[TagPlan], float]


class TagBank:
    """State of `n_channels` channels; `update` takes what one poll brought, every other method only looks.

    Arrays it gives out are copies or computed; shape (n_channels,) in the order of the process's channel table.
    """

    def __init__(self, n_channels: int, plan: TagPlan = TagPlan()) -> None:
        self.plan = plan
        self.rejected = 0  # values that were bad or no number
        self._tau_s = np.array([[plan.tau_level_s], [plan.tau_slow_s]])
        self._mean = np.zeros((2, n_channels))
        self._variance = np.zeros((2, n_channels))
        self._ring = np.full((n_channels, plan.n_median), np.nan, np.float32)
        self._median = np.full(n_channels, np.nan)
        self._count = np.zeros(n_channels, np.int64)  # good values since the channel last started
        self._bits = np.zeros(n_channels, np.int32)
        self._quality = np.full(n_channels, Quality.BAD, np.uint8)
        self._good_ns = np.zeros(n_channels, np.int64)
        self._changed_ns = self._good_ns.copy()
        self._since_ns = self._good_ns.copy()

    def update(self, channels: I32, values: F32, quality: U8, monotonic_ns: int) -> None:
        """Take in one block.

        Args:
            channels: shape (n,), indices, each at most once. values: shape (n,). quality: shape (n,), `Quality`.
            monotonic_ns: when it was read; the same or an earlier time than before moves no mean.
        """
        usable = (quality < Quality.BAD) & np.isfinite(values)
        self._quality[channels] = np.where(usable, quality, np.maximum(quality, Quality.BAD))
        if not usable.all():
            self.rejected += int(usable.size - usable.sum())
            channels, values = channels[usable], values[usable]
        if not channels.size:
            return
        elapsed_s = (monotonic_ns - self._good_ns[channels]) / NS_PER_S
        anew = (self._count[channels] == 0) | (elapsed_s > self.plan.gap_s)
        self._move_means(channels, values, np.where(anew, np.inf, np.maximum(elapsed_s, 0.0)))
        self._move_clocks(channels, values, anew, monotonic_ns)
        self._move_medians(channels, values, anew)

    def _move_means(self, channels: I32, values: F32, elapsed_s: F64) -> None:
        """Exponential mean and variance, weight 1 - exp(-dt/tau): an infinite dt forgets all and starts at the value.

        Source: West 1979 (update of mean and variance), with the weight of an uneven step.
        """
        weight = -np.expm1(-elapsed_s / self._tau_s)
        mean = self._mean[:, channels]
        difference = values - mean
        step = weight * difference
        self._mean[:, channels] = mean + step
        self._variance[:, channels] = (1 - weight) * (self._variance[:, channels] + difference * step)

    def _move_clocks(self, channels: I32, values: F32, anew: Mask, monotonic_ns: int) -> None:
        bits = np.ascontiguousarray(values, np.float32).view(np.int32)
        changed = anew | (bits != self._bits[channels])
        self._bits[channels] = bits
        self._changed_ns[channels[changed]] = monotonic_ns
        self._since_ns[channels[anew]] = monotonic_ns
        self._good_ns[channels] = np.maximum(self._good_ns[channels], monotonic_ns)

    def _move_medians(self, channels: I32, values: F32, anew: Mask) -> None:
        """Each channel's turn comes once in `n_rounds` of its own samples; while it is young, with every one."""
        if anew.any():
            self._ring[channels[anew]] = np.nan
            self._count[channels[anew]] = 0
        count = self._count[channels]
        self._ring[channels, count % self.plan.n_median] = values
        self._count[channels] = count + 1
        turn = channels[(count < self.plan.n_rounds) | ((count + channels) % self.plan.n_rounds == 0)]
        if turn.size:
            ordered = np.sort(self._ring[turn], axis=1)  # NaN, the places not yet filled, sort to the end
            filled = np.minimum(self._count[turn], self.plan.n_median)
            row = np.arange(turn.size)
            self._median[turn] = (ordered[row, (filled - 1) // 2] + ordered[row, filled // 2]) / 2

    def quality(self) -> U8:
        """The `Quality` last heard of each channel, good or bad; BAD before anything was."""
        return self._quality.copy()

    def latest(self, channel: int) -> float | None:
        """The value last heard of one channel; None where that was bad, or nothing was heard."""
        value = float(self._bits[channel : channel + 1].view(np.float32)[0])
        return value if self._quality[channel] < Quality.BAD and self._count[channel] else None

    def level(self) -> F64:
        """Exponential mean over `tau_level_s`."""
        level: F64 = self._mean[FAST].copy()
        return level

    def slow_level(self) -> F64:
        """Exponential mean over `tau_slow_s`."""
        level: F64 = self._mean[SLOW].copy()
        return level

    def std(self) -> F64:
        """Standard deviation about `level`."""
        std: F64 = np.sqrt(self._variance[FAST])
        return std

    def slope_per_s(self) -> F64:
        """Per second; exact for a ramp, because a ramp lags each mean by that mean's tau."""
        slope: F64 = (self._mean[FAST] - self._mean[SLOW]) / (self.plan.tau_slow_s - self.plan.tau_level_s)
        return slope

    def deviation(self) -> F64:
        """Level against slow level in slow standard deviations; NaN where nothing has ever varied."""
        slow_std = np.sqrt(self._variance[SLOW])
        apart = self._mean[FAST] - self._mean[SLOW]
        deviation: F64 = np.divide(apart, slow_std, out=np.full_like(apart, np.nan), where=slow_std > 0)
        return deviation

    def median(self) -> F64:
        """Median of up to `n_median` latest samples, at most `n_rounds` samples old."""
        return self._median.copy()

    def read(self, statistic: str, channel: int, monotonic_ns: int) -> tuple[float, bool]:
        """One statistic ("tag.level") of one channel, and whether it may be used: watched long enough, not silent."""
        return self.read_all(statistic, np.array([channel], np.int32), monotonic_ns)[0]

    def read_all(self, statistic: str, channels: I32, monotonic_ns: int) -> list[tuple[float, bool]]:
        """As `read`, of several channels at once."""
        known = STATISTICS[statistic]
        values = known.read(self)[channels]
        usable = self.watched(known.least_watched_s(self.plan), monotonic_ns)[channels] & np.isfinite(values)
        return list(zip(values.tolist(), usable.tolist(), strict=True))

    def watched(self, least_s: float, monotonic_ns: int) -> Mask:
        """Which channels have been watched without a gap for `least_s` and are not silent now."""
        long_enough = self._good_ns - self._since_ns >= least_s * NS_PER_S
        mask: Mask = (self._count > 0) & long_enough & (self.silent_s(monotonic_ns) <= self.plan.gap_s)
        return mask

    def silent_s(self, monotonic_ns: int) -> F64:
        """Time since the last usable value; infinite where there has been none."""
        silent: F64 = np.where(self._count > 0, (monotonic_ns - self._good_ns) / NS_PER_S, np.inf)
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
    "tag.std": Statistic(TagBank.std, lambda plan: 2 * plan.tau_level_s),
    "tag.slow_level": Statistic(TagBank.slow_level, lambda plan: plan.tau_slow_s),
    "tag.slope": Statistic(TagBank.slope_per_s, lambda plan: 2 * plan.tau_slow_s),
    "tag.deviation": Statistic(TagBank.deviation, lambda plan: 2 * plan.tau_slow_s),
}
