"""RMS limit: what most plants have today, and the reference that everything else on the leaderboard has to beat.

The machine's vibration velocity (RMS) over its own limit, upwards only; contribution_i = max(0, z_i / c_i)^2. Where no
column is a velocity, the RMS levels of acceleration stand in, then any RMS level, then every column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from training.families import F64, GRID, LIMIT_PROBABILITY, Healthy, Settings, on_grid
from training.graph import Graph, Node, anomaly_model

SETTINGS: Settings = {}
NORMAL_LIMIT = float(-ndtri(LIMIT_PROBABILITY))  # 2.33: of a normal distribution, upwards
# What a column's name says of the quantity, best first: the broad-band levels, not single bands or lines.
LEVELS = ("velocity_rms", "vibration.rms", "acceleration_rms", "_rms")


@dataclass(frozen=True, slots=True, eq=False)
class RmsLimitFit:
    """The limit of every column that is watched, robust standard deviations; infinite for the others. Shape (n_columns,)."""

    limits: F64

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        nodes = (
            Node("multiply", ("z", "mask"), "present"),
            Node("multiply", ("present", "per_limit"), "of_limit"),
            Node("relu", ("of_limit",), "risen"),
            Node("multiply", ("risen", "risen"), "contributions"),
        )
        return anomaly_model(name, len(self.limits), {"per_limit": on_grid(1.0 / self.limits)[None]}, nodes)

    def settings(self) -> dict[str, float | int | str]:
        """For the manifest's provenance."""
        return {"watched_columns": int(np.isfinite(self.limits).sum()), "grid": GRID}


def fit(healthy: Healthy) -> RmsLimitFit:
    """Each level's limit from healthy windows. Without `names` every column is a level. Others: see `training.families`."""
    z, mask = healthy.z, healthy.mask
    seen = np.any(np.asarray(mask) > 0, axis=0)
    watched = _levels(healthy.names, seen)
    limits = np.full(len(seen), np.inf)
    risen = np.where(np.asarray(mask) > 0, z, np.nan)[:, watched & seen]
    limits[watched] = NORMAL_LIMIT
    limits[watched & seen] = np.maximum(np.nanquantile(risen, 1 - LIMIT_PROBABILITY, axis=0), NORMAL_LIMIT)
    return RmsLimitFit(limits)


def _levels(names: Sequence[str], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which columns are the machine's level: of the best quantity of which one was measured."""
    for level in LEVELS:
        named = np.array([level in name for name in names], bool)
        if named.size and (named & seen).any():
            return named
    return np.ones(len(seen), bool)
