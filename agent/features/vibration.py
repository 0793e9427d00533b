"""Vibration in time: how strong, how peaked. Broad-band acceleration with its mean removed, not windowed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.features.feature import Column, Plan, Rows, feature
from agent.vocabulary import F32


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Central moments of each row, shape (n_rows,): RMS, largest distance from the mean, mean of fourth powers."""

    rms_m_s2: F32
    peak_m_s2: F32
    mean_fourth: F32


class Analysis:
    """One buffer of squares serves all: their mean, their maximum, and then, squared once more, their own mean.

    Sums along a row are NumPy's pairwise ones: as exact as float32 gets, and the same bits whatever rows stand beside and
    however many threads BLAS has (an einsum over rows is neither).
    """

    def __init__(self, plan: Plan) -> None:
        """Moments need no plan."""

    def __call__(self, rows: Rows) -> Moments:
        squares = np.square(rows.centred, out=rows.scratch)
        rms_m_s2, peak_m_s2 = np.sqrt(squares.mean(axis=1)), np.sqrt(squares.max(axis=1))
        return Moments(rms_m_s2, peak_m_s2, np.square(squares, out=squares).mean(axis=1))


@feature(
    version=1,
    words="overall acceleration",
    source="ISO 13373-1, broad-band RMS; root of the central second moment",
    moved_by=(
        "lubrication",
        "cavitation",
        "bearing_outer_race",
        "bearing_inner_race",
        "bearing_ball_cage",
        "looseness",
    ),
    over_axes="root_sum_square",
)
def rms_m_s2(moments: Moments, column: Column) -> F32:
    """Root mean square of the acceleration, all frequencies of the sensor."""
    return moments.rms_m_s2


@feature(
    version=1,
    words="largest acceleration",
    source="ISO 13373-1, true zero-to-peak value (not RMS times root 2)",
    moved_by=("bearing_outer_race", "bearing_inner_race", "bearing_ball_cage", "looseness"),
)
def peak_m_s2(moments: Moments, column: Column) -> F32:
    """Largest distance of a sample from the mean."""
    return moments.peak_m_s2


@feature(
    version=1,
    words="crest factor",
    source="ISO 13373-1, peak over RMS; 3 to 4.5 on healthy machines, falls again when damage spreads",
    moved_by=("bearing_outer_race", "bearing_inner_race", "bearing_ball_cage"),
)
def crest_ratio(moments: Moments, column: Column) -> F32:
    """Peak over RMS: root 2 for a sine."""
    ratio: F32 = moments.peak_m_s2 / moments.rms_m_s2
    return ratio


@feature(
    version=1,
    words="impulsiveness (kurtosis)",
    source="Pearson's kurtosis m4 / m2^2; 3 for Gaussian noise, 4 to 10 with an early spall, 3 again late",
    moved_by=("bearing_outer_race", "bearing_inner_race", "bearing_ball_cage"),
)
def kurtosis_ratio(moments: Moments, column: Column) -> F32:
    """Fourth central moment over the square of the second: 1.5 for a sine, 3 for Gaussian noise."""
    return np.divide(moments.mean_fourth, np.square(np.square(moments.rms_m_s2)), dtype=np.float32)
