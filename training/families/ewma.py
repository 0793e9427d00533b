"""EWMA family: slow change. Exponential averages of the deviations, judged by the combined index of averages.

e' = e + w (z - e) by column, and then PCA's T2 and Q of e'. Noise averages out, a lasting change does not: a shift of half a
standard deviation in a few columns, which no single window shows, stands clear after some 1/w windows. The average is of
deviations from the frozen baseline, so a slow fault can never become normal. (Multivariate EWMA: Lowry et al., Technometrics
34, 1992; here with the covariance of the averages measured on healthy machines, because windows that follow each other are
not independent and sqrt(w / (2 - w)) would be too small.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.families import F64, GRID, MEMORY_CLIP, Healthy, Settings, on_grid, pca
from training.graph import F32, Graph, Node, anomaly_model, clipped, row, squared_projection

WEIGHT = 0.1  # of the newest window; practice is 0.1 to 0.2, the smaller one for the slower change
SETTINGS: Settings = {"weight": (WEIGHT, 0.05, 0.2)}


@dataclass(frozen=True, slots=True, eq=False)
class EwmaFit:
    """The weight of the newest window and the index matrix of averages, shape (n_columns, n_columns)."""

    matrix: F64
    weight: float
    n_components: int

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        n_columns = len(self.matrix)
        nodes = (
            *averages(),
            Node("multiply", ("next_state", "mask"), "present"),
            *squared_projection("present", "matrix", "contributions"),
        )
        constants = memory_rows(n_columns, self.weight) | {"matrix": self.matrix}
        return anomaly_model(name, n_columns, constants, nodes)

    def settings(self) -> dict[str, float | int | str]:
        """For the manifest's provenance."""
        return {"weight": self.weight, "n_components": self.n_components, "grid": GRID}


def fit(healthy: Healthy, *, weight: float = WEIGHT) -> EwmaFit:
    """The index of averages over healthy sequences, once their memory has filled.

    Args: weight: of the newest window, above 0 and at most 1. Others, and errors: see `training.families`.
    """
    z, mask, starts = healthy.z, healthy.mask, healthy.starts
    n_columns = z.shape[1]
    idle = EwmaFit(np.eye(n_columns), weight, 0)
    means = idle.graph("averages").run(z, mask, starts)["next_state"]
    filled = rows_since(starts, len(z)) >= 1.0 / weight
    gain = np.sqrt((2.0 - weight) / weight)  # to unit variance, if windows were independent: the scale that pca expects
    index = pca.fit(Healthy(gain * means[filled], mask[filled]))
    return EwmaFit(on_grid(gain * index.matrix), weight, index.n_components)


def averages() -> tuple[Node, ...]:
    """Nodes from z, mask and state to next_state: the exponential averages; an absent column's stands still."""
    return (
        *clipped("z", "held"),
        Node("subtract", ("held", "state"), "apart"),
        Node("multiply", ("apart", "mask"), "apart_present"),
        Node("multiply", ("apart_present", "weight"), "moved"),
        Node("add", ("state", "moved"), "next_state"),
    )


def memory_rows(n_columns: int, weight: float) -> dict[str, F32]:
    """The constants of `averages`. The averages stay within the clip, because each is a mean of clipped values."""
    return {
        "lowest": row(-MEMORY_CLIP, n_columns),
        "highest": row(MEMORY_CLIP, n_columns),
        "weight": row(weight, n_columns),
    }


def rows_since(starts: Sequence[int], n_windows: int) -> NDArray[np.int64]:
    """How many windows of the same sequence stand before each row. Shape (n_windows,)."""
    rows = np.arange(n_windows)
    begins = np.asarray(starts, np.int64)
    before: NDArray[np.int64] = rows - begins[np.searchsorted(begins, rows, side="right") - 1]
    return before
