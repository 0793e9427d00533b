"""Figures that evaluations report. NumPy only."""

from __future__ import annotations

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
