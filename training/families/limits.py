"""Limits family: every column against its own robust limit, and nothing about how columns move together.

contribution_i = (z_i / c_i)^2 with c_i what the column exceeds in one healthy window of a hundred. Squares and not a higher
power, which would let one column stand out more clearly: on simulated pumps the fourth power found no more at the same rate of
false alarms, and its tail was heavier than the tail that thresholds come from can follow (shape at its bound of 0.35).
It needs no covariance, so it can be made without any data: `without_training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from agent.baseline import Baseline, reference_score
from agent.decision.threshold import Tail, fit_tail
from training.families import F64, GRID, LIMIT_PROBABILITY, Settings, on_grid
from training.graph import Graph, Node, anomaly_model

SETTINGS: Settings = {}
NORMAL_LIMIT = float(-ndtri(LIMIT_PROBABILITY / 2))  # 2.58: of a normal distribution, either side
STANDARD_MACHINES = 100  # drawn for the tail of a model without data
STANDARD_WINDOWS = 200  # of each of them, after its baseline


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


def fit(
    z: NDArray[np.floating],
    mask: NDArray[np.floating],
    *,
    names: Sequence[str] = (),
    seed: int = 0,
    starts: Sequence[int] = (0,),
) -> LimitsFit:
    """Each column's limit from healthy windows, never below a normal distribution's. Arguments: see `training.families`."""
    distances = np.where(np.asarray(mask) > 0, np.abs(z), np.nan)
    limits = np.full(distances.shape[1], NORMAL_LIMIT)
    seen = np.asarray(mask).any(axis=0)
    limits[seen] = np.maximum(np.nanquantile(distances[:, seen], 1 - LIMIT_PROBABILITY, axis=0), NORMAL_LIMIT)
    return LimitsFit(limits, len(distances))


def without_training(n_columns: int) -> LimitsFit:
    """The model of a machine type of which there are no data: a normal distribution's limit for every column."""
    return LimitsFit(np.full(n_columns, NORMAL_LIMIT), 0)


def standard_tail(graph: Graph, learn_windows: int, seed: int = 1) -> Tail:
    """The tail of healthy scores, as multiples of the reference score, where no healthy machine is at hand.

    The score of independent normal columns is chi-square distributed; but a machine knows its normal only from its first
    windows, so machines are drawn that learn baseline and reference score as the agent does, and the uncertainty of a short
    learning time is in the tail. It is an optimistic tail all the same: real columns are heavier and move together.
    """
    rng = np.random.default_rng(seed)
    n_columns = graph.inputs["z"]
    ratios = []
    for _ in range(STANDARD_MACHINES):
        values = rng.standard_normal((learn_windows + STANDARD_WINDOWS, n_columns)).astype(np.float32)
        present = np.ones(values.shape, bool)
        linear = ["linear"] * n_columns
        baseline = Baseline.fit(values[:learn_windows], present[:learn_windows], linear, [0.0] * n_columns)
        z, judged = baseline.refer(values, present, linear)
        scores = graph.run(z, judged.astype(np.float32))["score"][:, 0]
        ratios.append(scores[learn_windows:] / reference_score(scores[:learn_windows]))
    return fit_tail(np.concatenate(ratios))
