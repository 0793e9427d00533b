"""Trend: when a rising quantity reaches its limit, if operation stays as it is; three quantiles, or nothing.

Damage that feeds on itself grows in proportion to itself, so the logarithm of an amplitude rises along a line. Its path
wanders about that line (healing, changing load) and every reading is noisy on top:

    ln y = w(t) + e,   w a Wiener process with drift,   e independent

Without wander this is the exponential degradation model (Gebraeel 2005), without noise the Wiener process whose first
passage of the limit is inverse Gaussian (domain practice §7.5). Which share is wander is not known: it is weighed over a
fixed grid by its likelihood, and the line by its posterior, so that ignorance widens the interval and is not hidden.
What no line knows is that damage quickens: on bearings run to failure, forecasts of an even growth came too late. So growth may
go on as it was or twice as fast, one as likely as the other; and nothing is said of more time ahead than was seen so far.

Pure: time is passed in. Memory is bounded: old points are merged in pairs, each with its count. Time is that of operation:
a pause counts for no more than a few usual intervals, because nothing grows while a machine stands.

Sources: Gebraeel et al., IIE Transactions 37 (2005); Whitmore, Scandinavian Journal of Statistics 13 (1986), the inverse
Gaussian with normally distributed drift; Harville, Biometrika 61 (1974), the restricted likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from agent.vocabulary import F64, Forecast

MIN_POINTS = 20  # readings above ALERT, before anything is said
SLOPE_SIGMA = 1.645  # one-sided 95 %: below it the slope may be none
LONGEST_H = 180 * 24.0
WIDEST_RATIO = 10.0  # of P90 to P10; beyond it the answer is "not known"
FURTHEST_RATIO = 1.0  # of P50 to the time that was seen: a line is not followed further ahead than it has been followed
PER_SIZE = 16  # points of one size that are kept before the two oldest of them become one
MAX_SIZES = 20  # 16 x 2^20 readings: a reading a second for half a year
PAUSE_INTERVALS = 5.0  # usual intervals that a pause counts for at most
WANDER = (0.0, 0.1, 1.0, 10.0)  # variance of one usual interval's wander over that of one reading's noise
NOISE_FLOOR = 1e-4  # of ln y: no vibration sensor repeats better than 0.01 %
QUANTILES = (0.10, 0.50, 0.90)
SHORTEST_H = 1e-4
BISECTIONS = 24  # to a millionth of the time
QUICKENED = (1.0, 2.0)  # speed of growth from now on, over that so far: as likely the one as the other
NEGLIGIBLE = 1e-3  # likelihood of a share of wander, over that of the likeliest
_NS_PER_H = 3.6e12


@dataclass(slots=True)
class _Point:
    """The mean of `n` readings that follow each other over `span_h`: operating hours and logarithm."""

    at_h: float
    log: float
    n: int = 1
    span_h: float = 0.0

    def merged(self, later: _Point) -> _Point:
        """Both as one."""
        n = self.n + later.n
        share, apart_h = later.n / n, later.at_h - self.at_h
        span_h = apart_h + (self.span_h + later.span_h) / 2
        return _Point(self.at_h + share * apart_h, self.log + share * (later.log - self.log), n, span_h)


@dataclass(frozen=True, slots=True)
class _Line:
    """Where the path stands now and how it drifts, under one share of wander: normal posterior of both.

    Attributes:
        level, drift_per_h: means, of ln y. var_level, var_drift, covariance: of them.
        diffusion_per_h: variance of the wander in an hour. log_likelihood: restricted, up to a constant.
    """

    level: float
    drift_per_h: float
    var_level: float
    var_drift: float
    covariance: float
    diffusion_per_h: float
    log_likelihood: float

    @property
    def is_rising(self) -> bool:
        return self.drift_per_h > SLOPE_SIGMA * math.sqrt(self.var_drift)

    def quickened(self, ratio: float) -> _Line:
        """The same path, but its drift from now on is `ratio` times what it was."""
        return replace(
            self,
            drift_per_h=ratio * self.drift_per_h,
            var_drift=ratio**2 * self.var_drift,
            covariance=ratio * self.covariance,
        )

    def reached(self, log_limit: float, in_h: float) -> float:
        """Probability that the path has passed the limit within `in_h`."""
        gap = log_limit - self.level
        if gap <= 0:
            return 1.0
        variance = self.diffusion_per_h * in_h
        slope_variance = self.var_drift * in_h**2
        spread = math.sqrt(variance + slope_variance + max(self.var_level + 2 * self.covariance * in_h, 0.0))
        beyond = _normal((self.drift_per_h * in_h - gap) / spread) if spread > 0 else 0.0
        if variance < 1e-9 * max(slope_variance, gap**2):
            return beyond
        back = 2 * gap / self.diffusion_per_h  # it was beyond the limit and came back
        lift = back * (self.drift_per_h + back * self.var_drift / 2)
        depth = (gap + self.drift_per_h * in_h + back * self.var_drift * in_h) / math.sqrt(variance + slope_variance)
        return min(1.0, beyond + math.exp(min(lift + _log_normal_tail(depth), 0.0)))


@dataclass(slots=True)
class Trend:
    """One rising quantity of one machine, followed while it is above `alert`.

    Args:
        feature: the column's name, for the forecast. alert: above it the quantity is followed, in its own unit, > 0.
    """

    feature: str
    alert: float
    _sizes: list[list[_Point]] = field(default_factory=list)  # newest size first, oldest point first
    _hours: float = 0.0
    _usual_h: float = 0.0
    _last_ns: int | None = None

    def step(self, value: float, monotonic_ns: int) -> None:
        """One reading; what is no positive number is left out. Time that goes back counts as none."""
        if not (math.isfinite(value) and value > 0):
            return
        self._tell_time(monotonic_ns)
        if value > self.alert or self._sizes:
            self._keep(_Point(self._hours, math.log(value)))

    def forecast(self, limit: float) -> Forecast | None:
        """When `limit` (in the quantity's unit) is reached if operation stays as it is.

        None where nothing can be said: below ALERT or beyond the limit, too few readings, no sure rise, an interval too wide,
        or a limit too far away.
        """
        points = [point for size in reversed(self._sizes) for point in size]
        if sum(point.n for point in points) < MIN_POINTS or limit <= self.alert:
            return None
        seen_h = points[-1].at_h - points[0].at_h + points[0].span_h / 2
        if seen_h <= 0:
            return None
        lines = _likely(_lines(points, self._usual_h))
        log_limit = math.log(limit)
        level = sum(weight * line.level for weight, line in lines)
        sure = sum(weight for weight, line in lines if line.is_rising)
        if not math.log(self.alert) < level < log_limit or sure < 0.5:
            return None
        onward = [(w / len(QUICKENED), line.quickened(ratio)) for w, line in lines for ratio in QUICKENED]
        p10_h, p50_h, p90_h = (_quantile_h(onward, log_limit, share) for share in QUANTILES)
        if p10_h >= LONGEST_H or p90_h > WIDEST_RATIO * p10_h or p50_h > FURTHEST_RATIO * seen_h:
            return None
        return Forecast(self.feature, limit, p10_h, p50_h, p90_h)

    def _tell_time(self, monotonic_ns: int) -> None:
        if self._last_ns is not None:
            elapsed_h = max(monotonic_ns - self._last_ns, 0) / _NS_PER_H
            self._usual_h = self._usual_h or elapsed_h
            counted_h = min(elapsed_h, PAUSE_INTERVALS * self._usual_h)
            self._usual_h += 0.1 * (counted_h - self._usual_h)
            self._hours += counted_h
        self._last_ns = monotonic_ns

    def _keep(self, point: _Point) -> None:
        """Points of one size at most PER_SIZE + 1; the two oldest become one of the next size."""
        for size in self._sizes:
            size.append(point)
            if len(size) <= PER_SIZE:
                return
            point = size.pop(0).merged(size.pop(0))
        if len(self._sizes) < MAX_SIZES:
            self._sizes.append([point])


def _lines(points: list[_Point], usual_h: float) -> list[_Line]:
    """The line through the points under every share of wander."""
    at_h = np.array([point.at_h for point in points]) - points[-1].at_h
    logs = np.array([point.log for point in points])
    counts = np.array([point.n for point in points], np.float64)
    spans_h = np.array([point.span_h for point in points])
    since_h = at_h - at_h[0] + spans_h[0]
    path = np.minimum.outer(since_h, since_h) - np.diag(spans_h * (counts + 1) / (6 * counts))
    interval_h = max(usual_h, 1e-9)
    return [_line(at_h, logs, counts, path, wander / interval_h) for wander in WANDER]


def _line(at_h: F64, logs: F64, counts: F64, path: F64, wander_per_h: float) -> _Line:
    """Generalised least squares: level and slope at the last point, and how likely the points are.

    Args:
        at_h, logs, counts: shape (n_points,); hours before the last point are negative.
        path: shape (n_points, n_points), covariance of a Wiener process of unit diffusion at the points, means of several
            readings as such. wander_per_h: variance of the wander in an hour over one reading's noise.
    """
    wander = wander_per_h * path
    root = np.linalg.cholesky(wander + np.diag(1.0 / counts))
    design = np.stack([np.ones_like(at_h), at_h], axis=1)
    whitened = np.linalg.solve(root, np.column_stack([design, logs, wander[-1]]))
    regressors, values, now = whitened[:, :2], whitened[:, 2], whitened[:, 3]
    information = regressors.T @ regressors
    covariance = np.linalg.inv(information)
    estimate = covariance @ (regressors.T @ values)
    residual = values - regressors @ estimate
    n_free = len(logs) - 2
    squares = max(float(residual @ residual), n_free * NOISE_FLOOR**2)
    noise = squares / (n_free - 2)  # a Student's variance, where the normal's is not known
    towards = np.array([1.0, 0.0]) - regressors.T @ now  # what of the level the wander does not explain
    log_likelihood = -(float(np.log(np.diag(root)).sum()) + 0.5 * math.log(np.linalg.det(information)))
    return _Line(
        level=float(estimate[0] + now @ residual),
        drift_per_h=float(estimate[1]),
        var_level=noise * float(wander[-1, -1] - now @ now + towards @ covariance @ towards),
        var_drift=noise * float(covariance[1, 1]),
        covariance=noise * float(towards @ covariance[:, 1]),
        diffusion_per_h=noise * wander_per_h,
        log_likelihood=log_likelihood - 0.5 * n_free * math.log(squares),
    )


def _likely(lines: list[_Line]) -> list[tuple[float, _Line]]:
    """The lines that count, each with its posterior weight, all being equally likely before. Weights sum to 1."""
    best = max(line.log_likelihood for line in lines)
    likelihoods = [math.exp(line.log_likelihood - best) for line in lines]
    kept = [(likelihood, line) for likelihood, line in zip(likelihoods, lines, strict=True) if likelihood > NEGLIGIBLE]
    total = sum(likelihood for likelihood, _ in kept)
    return [(likelihood / total, line) for likelihood, line in kept]


def _quantile_h(lines: list[tuple[float, _Line]], log_limit: float, share: float) -> float:
    """The time by which the limit is reached with probability `share`; at most LONGEST_H."""
    low, high = math.log(SHORTEST_H), math.log(LONGEST_H)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        reached = sum(weight * line.reached(log_limit, math.exp(middle)) for weight, line in lines)
        low, high = (low, middle) if reached >= share else (middle, high)
    return math.exp(high)


def _normal(z: float) -> float:
    """Standard normal distribution."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _log_normal_tail(z: float) -> float:
    """Logarithm of the normal's upper tail beyond z; by its leading term where the tail itself is too small for a float."""
    if z < 30:
        return math.log(_normal(-z))
    return -0.5 * z * z - math.log(z * math.sqrt(2 * math.pi))
