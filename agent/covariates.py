"""Covariates: what normal depends on within one operating state. Speed, load and ambient temperature, in this order.

Load explains what hangs on it, vibration, temperature, head and pressure, never the electrical quantities that it is itself
measured by: an overload would explain itself away. Lines end where learning ended (regression.py), so that a pump that runs dry is
still compared with its lightest healthy load.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from agent.machine import StateRule
from agent.vocabulary import NO_COVARIATES, Covariates, Mask
from firmware_bridge.units import suffix_of

LOAD = Covariates._fields.index("load")
FOLLOWS_LOAD = (
    "vibration.",
    "spectrum.",
    "envelope.",
    "thermal.",
    "hydraulic.",
    "kurtosis",
    "crest",
)  # beginnings of column names
UNITS_THAT_FOLLOW_LOAD = ("mm_s", "m_s2", "g", "um", "degc", "k", "bar", "kpa", "m", "m3_h", "l_min")


def covariates_of(rule: StateRule, values: Mapping[str, float], has: Collection[str], speed_rpm: float) -> Covariates:
    """What the machine runs under now.

    Args: values: its channels that have a usable value. has: all its channels; a silent load channel has no stand-in, because
        another one counts in another unit.
    """

    def first(channels: Sequence[str]) -> float:
        own = next((channel for channel in channels if channel in has), "")
        return values.get(own, math.nan)

    return Covariates(speed_rpm, first(rule.load_channels), first(rule.ambient_channels))


def explained(names: Sequence[str]) -> Mask:
    """Which column may be explained by which covariate. Shape (n_columns, 3)."""
    table = np.ones((len(names), len(NO_COVARIATES)), np.bool_)
    table[:, LOAD] = [_follows_load(name) for name in names]
    return table


def _follows_load(name: str) -> bool:
    if name.startswith(FOLLOWS_LOAD):
        return True
    try:
        return suffix_of(name.partition(":")[0].partition("[")[0]) in UNITS_THAT_FOLLOW_LOAD
    except ValueError:
        return False
