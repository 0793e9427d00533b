"""Fast and slow in one score: PCA's index of the window itself, and that of its exponential averages, added.

The first sees a fault that comes at once, the second one that creeps; each is 1 at its own limit. One model and one threshold
for both, so that a site need not choose, and the budget of false alarms is spent once.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.families import GRID, Healthy, Settings, ewma, pca
from training.graph import Graph, Node, anomaly_model, squared_projection

SETTINGS: Settings = ewma.SETTINGS


@dataclass(frozen=True, slots=True, eq=False)
class PcaEwmaFit:
    """Both models."""

    fast: pca.PcaFit
    slow: ewma.EwmaFit

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        n_columns = len(self.fast.matrix)
        nodes = (
            *ewma.averages(),
            Node("multiply", ("z", "mask"), "present"),
            *squared_projection("present", "fast_matrix", "fast"),
            Node("multiply", ("next_state", "mask"), "mean_present"),
            *squared_projection("mean_present", "slow_matrix", "slow"),
            Node("add", ("fast", "slow"), "contributions"),
        )
        constants = ewma.memory_rows(n_columns, self.slow.weight) | {
            "fast_matrix": self.fast.matrix,
            "slow_matrix": self.slow.matrix,
        }
        return anomaly_model(name, n_columns, constants, nodes)

    def settings(self) -> dict[str, float | int | str]:
        """For the manifest's provenance."""
        return {
            "weight": self.slow.weight,
            "n_components": self.fast.n_components,
            "n_components_of_averages": self.slow.n_components,
            "grid": GRID,
        }


def fit(healthy: Healthy, *, weight: float = ewma.WEIGHT) -> PcaEwmaFit:
    """Both on the same healthy windows. Arguments and errors: see `training.families` and `ewma.fit`."""
    return PcaEwmaFit(pca.fit(healthy), ewma.fit(healthy, weight=weight))
