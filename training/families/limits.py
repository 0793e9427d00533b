"""Limits family: every column against its own robust limit, and nothing about how columns move together.

contribution_i = (z_i / c_i)^2 with c_i what the column exceeds in one healthy window of a hundred. Squares and not a higher
power, which would let one column stand out more clearly: on simulated pumps the fourth power found no more at the same rate of
false alarms, and its tail was heavier than the tail that thresholds come from can follow (shape at its bound of 0.35).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from training.families import F64, GRID, LIMIT_PROBABILITY, Healthy, Settings, on_grid
from training.graph import Graph, Node, anomaly_model

SETTINGS: Settings = {}
NORMAL_LIMIT = float(-ndtri(LIMIT_PROBABILITY / 2))  # 2.58: of a normal distribution, either side


@dataclass(frozen=True, slots=True, eq=False)
class LimitsFit:
    """Every column's limit, shape (n_columns,), robust standard deviations, and how many windows told it."""

    limits: F64
    n_windows: int

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        nodes = (
            Node("multiply", ("z", "mask"), "present"),
            Node("multiply", ("present", "per_limit"), "of_limit"),
            Node("multiply", ("of_limit", "of_limit"), "contributions"),
        )
        return anomaly_model(name, len(self.limits), {"per_limit": on_grid(1.0 / self.limits)[None]}, nodes)

    def settings(self) -> dict[str, float | int | str]:
        """For the manifest's provenance."""
        return {"largest_limit": round(float(self.limits.max()), 3), "fit_windows": self.n_windows, "grid": GRID}


def fit(healthy: Healthy) -> LimitsFit:
    """Each column's limit from healthy windows, never below a normal distribution's."""
    z, mask = healthy.z, healthy.mask
    distances = np.where(np.asarray(mask) > 0, np.abs(z), np.nan)
    limits = np.full(distances.shape[1], NORMAL_LIMIT)
    seen = np.asarray(mask).any(axis=0)
    limits[seen] = np.maximum(np.nanquantile(distances[:, seen], 1 - LIMIT_PROBABILITY, axis=0), NORMAL_LIMIT)
    return LimitsFit(limits, len(distances))
