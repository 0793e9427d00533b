"""From numbers to conditions: a threshold that keeps a false-alarm budget, persistence, delays, protective limits.

Pure: both clocks are passed in. Delays run on the monotonic one; the onset that people read is UTC.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from agent.clock import Moment
from agent.machine import Limit
from agent.vocabulary import F64

MIN_SCORES = 20
MIN_EXCESSES = 50  # for the fit, where the scores allow it (domain practice: 50 to 100 peaks)
SHAPE_MIN, SHAPE_MAX = 0.0, 0.35
LEAST_READINGS = 3  # that break a limit
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Tail:
    """The upper tail of healthy scores: a generalised Pareto distribution above `location`.

    Attributes:
        location: the score above which the tail is modelled.
        scale: > 0, in units of the score. shape: 0 is exponential.
        exceedance_rate: share of healthy scores above `location`, 0..1. n: how many healthy scores were seen.
    Source: Siffer et al., KDD 2017, section 3 (the use); Hosking & Wallis, Technometrics 29 (1987) (the distribution).
    """

    location: float
    scale: float
    shape: float
    exceedance_rate: float
    n: int

    def quantile(self, p: float) -> float:
        """The score that a healthy decision exceeds with probability `p`.

        Args: p: in (0, 1]. From `exceedance_rate` up the answer is `location`: the body of the scores is not modelled.
        """
        if not 0 < p <= 1:
            raise ValueError(f"a probability is in (0, 1], not {p}")
        if p >= self.exceedance_rate:
            return self.location
        returns = math.log(self.exceedance_rate / p)
        if abs(self.shape) < 1e-9:
            return self.location + self.scale * returns
        return self.location + self.scale * math.expm1(self.shape * returns) / self.shape

    def exceedance(self, score: float) -> float:
        """The probability that a healthy decision exceeds `score`; at most `exceedance_rate`."""
        excess = max(0.0, score - self.location) / self.scale
        if abs(self.shape) < 1e-9:
            return self.exceedance_rate * math.exp(-excess)
        return self.exceedance_rate * math.pow(1 + self.shape * excess, -1 / self.shape)


def fit_tail(scores: F64, q0: float | None = None) -> Tail:
    """Fit the tail of healthy scores by probability-weighted moments.

    The shape is held to 0..0.35: below 0 a short sample would claim that the tail ends, and the first score beyond it
    would break the budget; above 0.35 one outlier would make the detector blind. The scale is then set by the mean.

    Args:
        scores: shape (n,), finite, at least 20 of them, healthy time only.
        q0: quantile where the tail starts; by default 0.98, down to 0.90 where that leaves fewer than 50 excesses.
    Raises: ValueError: too few scores.
    Source: Hosking & Wallis 1987, section 3, plotting positions (j - 0.35)/n; re-implemented from the paper.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    if ordered.size < MIN_SCORES or not np.isfinite(ordered).all():
        raise ValueError(f"a tail needs at least {MIN_SCORES} finite healthy scores, not {ordered.size}")
    if q0 is None:
        q0 = min(0.98, max(0.90, 1 - MIN_EXCESSES / ordered.size))
    location = float(np.quantile(ordered, q0))
    excesses = ordered[ordered > location] - location
    if excesses.size < 2:
        return Tail(location, max(abs(location) * 0.01, 1e-12), 0.0, 1 - q0, ordered.size)
    mean = float(excesses.mean())
    shape = min(SHAPE_MAX, max(SHAPE_MIN, _shape(excesses, mean)))
    return Tail(location, max(mean * (1 - shape), 1e-12), shape, excesses.size / ordered.size, ordered.size)


def _shape(excesses: F64, mean: float) -> float:
    """Hosking & Wallis's estimate, in the sign where positive is heavy-tailed."""
    n = excesses.size
    weight = 1 - (np.arange(1, n + 1) - 0.35) / n
    first = float((weight * excesses).mean())
    divisor = mean - 2 * first
    return SHAPE_MAX if divisor <= 0 else 2 - mean / divisor


def probability_per_decision(false_alarms_per_month: float, decisions_per_month: float, k: int, m: int) -> float:
    """How often one healthy decision may exceed the threshold so that k-of-m alarms stay within the budget.

    Markov's inequality on the count of exceedances among m decisions: P(count >= k) <= m p / k, whatever the dependence
    between neighbouring windows, so p = p_alarm * k / m. A power p^k would need independence that windows lack.
    """
    if not (false_alarms_per_month > 0 and decisions_per_month > 0 and 1 <= k <= m):
        raise ValueError("a budget and a rate are above 0, and k of m has 1 <= k <= m")
    return min(1.0, false_alarms_per_month / decisions_per_month * k / m)


class Persistence:
    """k of the last m decisions."""

    def __init__(self, k: int, m: int) -> None:
        assert 1 <= k <= m
        self.k, self.m = k, m
        self._seen: deque[tuple[bool, Moment]] = deque(maxlen=m)

    def step(self, exceeds: bool, now: Moment) -> bool:
        """One more decision; True while at least k of the last m exceeded."""
        self._seen.append((exceeds, now))
        return sum(exceeded for exceeded, _ in self._seen) >= self.k

    def first(self) -> Moment | None:
        """When the oldest exceedance that still counts was seen."""
        return next((seen for exceeded, seen in self._seen if exceeded), None)


class Change(StrEnum):
    """What a tracker's step changed."""

    RAISED = "raised"
    CLEARED = "cleared"


class ConditionTracker:
    """One condition with on-delay or persistence, off-delay and dead-band (ISA-18.2, clause 16: chattering).

    Args:
        k, m: exceedances needed among the last m decisions. on_delay_s: and for how long, from the first of them on.
        off_delay_s: how long the value must be back, by `deadband`, before the condition clears.
        refractory_s: a condition that comes back within so long after it cleared is the same one that comes and goes: it
            clears only after so long.
    """

    def __init__(
        self,
        *,
        k: int = 1,
        m: int = 1,
        on_delay_s: float = 0.0,
        off_delay_s: float = 0.0,
        deadband: float = 0.0,
        refractory_s: float = 0.0,
    ) -> None:
        self._persistence = Persistence(k, m)
        self._on_delay_ns = round(on_delay_s * _NS)
        self._off_delay_ns = round(off_delay_s * _NS)
        self._refractory_ns = round(refractory_s * _NS)
        self._deadband = deadband
        self._cleared_ns: int | None = None
        self._returned = False  # within the refractory time
        self._since_ns: int | None = None  # exceeding, while not standing; back to normal, while standing
        self._onset = Moment(0, 0)
        self.standing = False
        self.standing_s = 0.0  # from the onset until it was raised, whatever was done to the wall clock meanwhile

    def step(self, excess: float | None, monotonic_ns: int, utc_ns: int) -> Change | None:
        """One decision.

        Args: excess: how far the value is above its limit (negative: below); None where it is not known, which never
            raises and never clears.
        """
        if excess is None or math.isnan(excess):
            return None
        return (
            self._step_standing(excess, monotonic_ns)
            if self.standing
            else self._step_quiet(excess, monotonic_ns, utc_ns)
        )

    @property
    def onset_utc_ns(self) -> int:
        """When it first showed, as the wall clock said then."""
        return self._onset.utc_ns

    def hold(self, onset_utc_ns: int) -> None:
        """Take up a condition that stood before a restart."""
        self.standing, self._onset, self._since_ns = True, Moment(onset_utc_ns, 0), None

    def end(self) -> bool:
        """Whatever stood is over, because what it was measured against is. Gives whether it stood."""
        stood = self.standing
        self._quieten()
        self._cleared_ns = None
        return stood

    def _step_quiet(self, excess: float, monotonic_ns: int, utc_ns: int) -> Change | None:
        now = Moment(utc_ns, monotonic_ns)
        if not self._persistence.step(excess > 0, now):
            self._since_ns = None
            return None
        if self._since_ns is None:
            self._onset = self._persistence.first() or now
            self._since_ns = self._onset.monotonic_ns
        if monotonic_ns - self._since_ns < self._on_delay_ns:
            return None
        self.standing, self.standing_s = True, (monotonic_ns - self._onset.monotonic_ns) / _NS
        self._since_ns = None
        self._returned = self._cleared_ns is not None and monotonic_ns - self._cleared_ns < self._refractory_ns
        return Change.RAISED

    def _step_standing(self, excess: float, monotonic_ns: int) -> Change | None:
        if excess > -self._deadband or excess > 0:
            self._since_ns = None
            return None
        if self._since_ns is None:
            self._since_ns = monotonic_ns
        off_delay_ns = max(self._off_delay_ns, self._refractory_ns) if self._returned else self._off_delay_ns
        if monotonic_ns - self._since_ns < off_delay_ns:
            return None
        self._quieten()
        self._cleared_ns = monotonic_ns
        return Change.CLEARED

    def _quieten(self) -> None:
        self.standing, self._since_ns, self._returned = False, None, False
        self._persistence = Persistence(self._persistence.k, self._persistence.m)


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A protective limit that began or ceased to be broken. `bound` is the limit in the channel's unit."""

    limit: Limit
    change: Change
    value: float
    bound: float
    normal: float | None
    onset_utc_ns: int
    standing_s: float


class LimitWatch:
    """The fast protective limits of one machine, beside the model: dry run, over-temperature, a norm's zone.

    A limit is broken by LEAST_READINGS in a row, however slowly they come: where one comes every two minutes, two odd ones are
    no delay of ten seconds.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = tuple(limits)
        self._trackers = [
            ConditionTracker(
                k=LEAST_READINGS,
                m=LEAST_READINGS,
                on_delay_s=limit.on_delay_s,
                off_delay_s=limit.off_delay_s,
                deadband=limit.deadband,
                refractory_s=limit.refractory_s,
            )
            for limit in self._limits
        ]

    def step(
        self,
        values: Mapping[str, float],
        running: bool | None,
        normals: Mapping[str, float],
        monotonic_ns: int,
        utc_ns: int,
    ) -> list[LimitChange]:
        """One look at the machine's channels.

        Args:
            values: the channels with a usable value now; a bad one is absent (or NaN), and neither raises nor clears.
            running: None where it is not known. A machine that stands still breaks no limit that holds while running.
            normals: the learned normal of a channel, where there is one.
        """
        changes = []
        for limit, tracker in zip(self._limits, self._trackers, strict=True):
            normal = normals.get(limit.channel)
            value = values.get(limit.channel, math.nan)
            excess, bound = _excess(limit, value, normal)
            if limit.only_running and running is not True:
                excess = None if running is None else -math.inf
            if change := tracker.step(excess, monotonic_ns, utc_ns):
                onset_utc_ns, standing_s = tracker.onset_utc_ns, tracker.standing_s
                changes.append(LimitChange(limit, change, value, bound, normal, onset_utc_ns, standing_s))
        return changes

    def hold(self, name: str, onset_utc_ns: int) -> None:
        """Take up a limit that was broken before a restart, so that its return is seen."""
        for limit, tracker in zip(self._limits, self._trackers, strict=True):
            if limit.name == name:
                tracker.hold(onset_utc_ns)


def _excess(limit: Limit, value: float, normal: float | None) -> tuple[float | None, float]:
    """How far `value` is beyond the nearest bound, and that bound; None where the value or the normal is not known."""
    bounds = []
    if limit.above is not None:
        bounds.append((value - limit.above, limit.above))
    if limit.below is not None:
        bounds.append((limit.below - value, limit.below))
    if limit.below_normal_ratio is not None and normal is not None and normal > 0:
        bound = limit.below_normal_ratio * normal
        bounds.append((bound - value, bound))
    if limit.above_normal_ratio is not None and normal is not None and normal > 0:
        bound = limit.above_normal_ratio * normal
        bounds.append((value - bound, bound))
    if not bounds or math.isnan(value):
        return None, bounds[0][1] if bounds else math.nan
    return max(bounds)
