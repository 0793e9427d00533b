"""Vibration in time: how strong, how peaked. Broad-band acceleration with its mean removed, not windowed."""

from __future__ import annotations

import numpy as np

from agent.features.feature import Column, Floats, Moments, Plan, Rows, feature
from agent.vocabulary import F64


class Analysis:
    """The core has the moments already: they tell, too, whether a row can be used at all."""

    def __init__(self, plan: Plan) -> None:
        """Moments need no plan."""

    def __call__(self, rows: Rows) -> Moments:
        return rows.moments


@feature(
    version=1,
    words="constant acceleration",
    source="arithmetic mean; gravity on a vertical axis, and the bias of the sensor: a step is the sensor's, not the machine's",
    moved_by=(),
    transform="linear",
    over_axes="root_sum_square",
)
def mean_m_s2(moments: Moments, column: Column) -> F64:
    """Mean of the samples; 9.81 m/s2 over all axes of a sensor that measures down to 0 Hz."""
    return moments.mean_m_s2


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
        "misalignment",
        "unbalance",
        "dead_head",
        "bearing_fluting",
        "air_gap_eccentricity",
        "stator_electrical",
        "over_greasing",
        "supply_unbalance",
        "recirculation",
    ),
    over_axes="root_sum_square",
)
def rms_m_s2(moments: Moments, column: Column) -> F64:
    """Root mean square of the acceleration, all frequencies of the sensor."""
    return moments.rms_m_s2


@feature(
    version=1,
    words="largest acceleration",
    source="ISO 13373-1, true zero-to-peak value (not RMS times root 2)",
    moved_by=(
        "bearing_outer_race",
        "bearing_inner_race",
        "bearing_ball_cage",
        "looseness",
        "lubrication",
        "cavitation",
        "misalignment",
        "unbalance",
        "bearing_fluting",
        "dead_head",
        "air_gap_eccentricity",
        "over_greasing",
        "stator_electrical",
        "recirculation",
    ),
)
def peak_m_s2(moments: Moments, column: Column) -> Floats:
    """Largest distance of a sample from the mean."""
    return moments.peak_m_s2


@feature(
    version=1,
    words="crest factor",
    source="ISO 13373-1, peak over RMS; 3 to 4.5 on healthy machines, falls again when damage spreads",
    moved_by=("bearing_outer_race", "bearing_inner_race", "bearing_ball_cage", "bearing_fluting"),
)
def crest_ratio(moments: Moments, column: Column) -> F64:
    """Peak over RMS: root 2 for a sine."""
    ratio: F64 = moments.peak_m_s2 / moments.rms_m_s2
    return ratio


@feature(
    version=1,
    words="lopsidedness (skewness)",
    source="third standardised moment m3 / m2^1.5; 0 for every symmetric signal",
    moved_by=("looseness", "misalignment", "bearing_outer_race", "bearing_inner_race", "bearing_ball_cage"),
    transform="linear",
)
def skewness_ratio(moments: Moments, column: Column) -> F64:
    """Third central moment over the cube of the RMS, its size: a sensor may be screwed on either way round."""
    return np.abs(moments.third) / (moments.second * moments.rms_m_s2)


@feature(
    version=1,
    words="shock content (kurtosis)",
    source="Pearson's kurtosis m4 / m2^2; 3 for Gaussian noise, 4 to 10 with an early spall, 3 again late",
    moved_by=("bearing_outer_race", "bearing_inner_race", "bearing_ball_cage", "looseness", "bearing_fluting"),
)
def kurtosis_ratio(moments: Moments, column: Column) -> F64:
    """Fourth central moment over the square of the second: 1.5 for a sine, 3 for Gaussian noise."""
    return moments.fourth / np.square(moments.second)
