"""Figures that evaluations report. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def roc_auc(healthy: ArrayLike, faulty: ArrayLike) -> float:
    """Probability that a faulty score is above a healthy one, ties counting half (Mann-Whitney)."""
    ordered = np.sort(np.asarray(healthy, np.float64))
    scores = np.asarray(faulty, np.float64)
    below = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return float(below.mean() / (2 * len(ordered)))


def share_above(scores: ArrayLike, threshold: float) -> float:
    """Share of scores above a threshold, 0..1."""
    return float(np.mean(np.asarray(scores, np.float64) > threshold))


def independent_count(sequences: Sequence[ArrayLike]) -> float:
    """How many independent values these sequences are worth: values that follow each other closely say the same thing twice.

    Source: Geyer, Statistical Science 7 (1992), 473-483, section 3.3: autocorrelations are summed as long as neighbouring pairs
    of them are positive. Each sequence is taken about its own mean.
    """
    values = [np.asarray(one, np.float64) for one in sequences]
    centred = [one - one.mean() for one in values]
    n_values = sum(map(len, centred))
    variance = sum(float(one @ one) for one in centred)
    if variance <= 0.0:
        return float(n_values)
    longest = max(map(len, centred))
    correlation = [
        sum(float(one[lag:] @ one[: max(0, len(one) - lag)]) for one in centred) / variance for lag in range(longest)
    ]
    tau = 1.0
    for first in range(1, longest - 1, 2):
        pair = correlation[first] + correlation[first + 1]
        if pair <= 0.0:
            break
        tau += 2.0 * pair
    return n_values / tau
