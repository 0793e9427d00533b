"""How much of a column's healthy change is speed, load and ambient temperature: a robust line, believed only where it helps.

Fitted once with the baseline and frozen with it. Outside what was learned the covariates count as at its edge: a pump that runs
dry is compared with its lightest healthy load, not with what a line would say of no load at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.vocabulary import F64, Mask

MIN_WINDOWS = 40
LEAST_RANGE = np.array([0.005, 0.03, 2.0])  # of speed and load as shares, of ambient in K: less explains nothing
LEAST_GAIN = 0.10  # of the spread in windows that it was not fitted to, before a column's line is believed
N_BLOCKS = 8  # of neighbouring windows, fitted and checked in turns
HUBER = 1.5  # robust standard deviations, beyond which a window counts less
N_ROUNDS = 8
RIDGE = 1e-3  # of the covariates' own variance: two that always move together share what they explain
MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation for a normal distribution


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """What to add to a column's location under other covariates.

    Attributes:
        centre, low, high: shape (3,), of `Covariates`: the middle and the edges of what was learned.
        slope: shape (n_columns, 3), transformed units per unit of the covariate; 0 where it is not believed.
    """

    centre: F64
    low: F64
    high: F64
    slope: F64

    def known(self, covariates: F64) -> Mask:
        """Which columns can be judged: all that they follow is known now. Shape (..., n_columns)."""
        known: Mask = ~((self.slope != 0) & ~np.isfinite(covariates)[..., None, :]).any(axis=-1)
        return known

    def shift(self, covariates: F64) -> F64:
        """Shape (..., n_columns) for covariates of shape (..., 3); one that is not known shifts nothing."""
        known = np.where(np.isfinite(covariates), covariates, self.centre)
        shift: F64 = (np.clip(known, self.low, self.high) - self.centre) @ self.slope.T
        return shift


def fit_regression(table: F64, covariates: F64, explained: Mask) -> Regression | None:
    """The lines of all columns, or None where no covariate moved or no column follows one.

    Args:
        table: shape (n_windows, n_columns), transformed values, NaN where absent. covariates: shape (n_windows, 3).
        explained: shape (n_columns, 3), which column may follow which covariate.
    """
    known = np.isfinite(covariates).mean(axis=0) >= 0.9
    if len(table) < MIN_WINDOWS or not known.any():
        return None
    filled = np.where(known, covariates, 0.0)
    whole = np.isfinite(filled).all(axis=1)
    filled, table = filled[whole], table[whole]
    centre = np.median(filled, axis=0)
    low, high = np.quantile(filled, (0.02, 0.98), axis=0)
    least = LEAST_RANGE * np.where([True, True, False], np.abs(centre), 1.0)
    moved = known & (high - low > least)
    if not moved.any():
        return None
    x = (np.clip(filled, low, high) - centre) / np.where(moved, high - low, 1.0)
    slope = np.zeros((table.shape[1], 3))
    for column in range(table.shape[1]):
        use = moved & explained[column]
        present = np.isfinite(table[:, column])
        if use.any() and present.sum() >= MIN_WINDOWS:
            slope[column, use] = _line(x[present][:, use], table[present, column]) / (high - low)[use]
    return Regression(centre, low, high, slope) if slope.any() else None


def _line(x: F64, y: F64) -> F64:
    """Slopes, shape (n_covariates,), or zeros where they do not narrow the windows that they were not fitted to."""
    turn = np.arange(len(y)) * N_BLOCKS // len(y) % 2 == 0
    gains = []
    for fitted in (turn, ~turn):
        trial = _robust(x[fitted], y[fitted])
        left = y[~fitted] - x[~fitted] @ trial
        gains.append(1.0 - _spread(left) / max(_spread(y[~fitted]), 1e-12))
    return _robust(x, y) if min(gains) >= LEAST_GAIN else np.zeros(x.shape[1])


def _robust(x: F64, y: F64) -> F64:
    """Huber's line by re-weighted least squares, about the medians. Source: Huber 1964; Holland & Welsch 1977."""
    x = x - np.median(x, axis=0)
    y = y - np.median(y)
    weight: F64 = np.ones(len(y))
    slope: F64 = np.zeros(x.shape[1])
    for _ in range(N_ROUNDS):
        a = np.column_stack([x, np.ones(len(y))])
        normal = (a * weight[:, None]).T @ a
        normal[np.diag_indices(x.shape[1])] += RIDGE * np.trace(normal)
        solved = np.linalg.solve(normal, (a * weight[:, None]).T @ y)
        left: F64 = y - a @ solved
        slope = np.asarray(solved[:-1], np.float64)
        bound = HUBER * max(_spread(left), 1e-12)
        weight = np.minimum(1.0, bound / np.maximum(np.abs(left), 1e-12))
    return slope


def _spread(values: F64) -> float:
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))
