"""Alarms per machine-month with their exact Poisson interval: what a budget of false alarms is held against.

Whether an alarm was a false one only people can tell; the agent counts all that its models raised, over the time in which they
judged. So the figure is an upper one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MONTH_S = 30 * 86_400.0
PRECISION = 1e-9


def poisson_interval(n_events: int, exposure: float = 1.0, confidence: float = 0.90) -> tuple[float, float]:
    """Exact interval of a rate of which `n_events` were counted in `exposure`: lower and upper limit, per unit of exposure.

    At the usual 90 % each end is a one-sided 95 % limit, which is what a promise is proved with: no event in three
    machine-months shows a rate of at most 1 a month, ten events in seventeen do.
    Raises: ValueError: a count below 0, no exposure, or a confidence outside (0, 1).
    Source: Garwood, Biometrika 28 (1936).
    """
    if n_events < 0 or not exposure > 0 or not 0 < confidence < 1:
        raise ValueError("a count is at least 0, an exposure above 0, a confidence between 0 and 1")
    beside = (1.0 - confidence) / 2.0
    lower = _mean_with(n_events - 1, 1.0 - beside) if n_events else 0.0
    return lower / exposure, _mean_with(n_events, beside) / exposure


def _mean_with(n_events: int, probability: float) -> float:
    """The mean of a Poisson law that gives at most `n_events` with this probability. Bisection: the law falls with its mean."""
    low, high = 0.0, 10.0 * (n_events + 10.0)
    while high - low > PRECISION * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(n_events, middle) > probability else (low, middle)
    return (low + high) / 2


def _at_most(n_events: int, mean: float) -> float:
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(n_events + 1))


@dataclass(slots=True)
class AlarmRate:
    """Of one machine or of many together: alarms of its model, and how long that judged it."""

    n_alarms: int = 0
    watched_s: float = 0.0

    def add(self, other: AlarmRate) -> None:
        self.n_alarms += other.n_alarms
        self.watched_s += other.watched_s

    def as_dict(self) -> dict[str, float | int | None]:
        """Per machine-month, with a one-sided 95 % limit at each end; None where nothing was judged yet."""
        months = self.watched_s / MONTH_S
        low, high = poisson_interval(self.n_alarms, months) if months > 0 else (math.nan, math.nan)
        return {
            "alarms": self.n_alarms,
            "machine_months": round(months, 4),
            "per_machine_month": round(self.n_alarms / months, 3) if months > 0 else None,
            "lower95": round(low, 3) if months > 0 else None,
            "upper95": round(high, 3) if months > 0 else None,
        }
