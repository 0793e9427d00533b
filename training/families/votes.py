"""Votes family: how many columns agree that something rose. For machines of which only a few levels are known.

contribution_i = min(max(z_i, 0), 1)^2: a column that has risen by its own `scale_floor` (or by its own healthy spread, where
that is wider) counts one, and never more, however far it goes. What rises in one column alone is of that column (lubrication in
the highest band, a loose fit in the lowest), and so is what its sensor does; damage shows in several. A fall counts nothing.

Nothing is fitted, so there is no `fit`, and `hark train` does not compare it: it has no notion of how healthy machines scatter. The
threshold is a number of columns, stated with the machine type's bundle, and means the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.families import Settings
from training.graph import Graph, Node, anomaly_model, clipped, row

SETTINGS: Settings = {}
AGREEING = 1.75  # columns: two, of which one may still be a little short


@dataclass(frozen=True, slots=True)
class VotesModel:
    """Of `n_columns` columns."""

    n_columns: int

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        nodes = (
            *clipped("z", "held"),
            Node("multiply", ("held", "mask"), "vote"),
            Node("multiply", ("vote", "vote"), "contributions"),
        )
        constants = {"lowest": row(0.0, self.n_columns), "highest": row(1.0, self.n_columns)}
        return anomaly_model(name, self.n_columns, constants, nodes)

    def settings(self) -> dict[str, float | int | str]:
        """For the manifest's provenance."""
        return {"agreeing_columns": AGREEING}


def without_training(n_columns: int) -> VotesModel:
    """The model of a machine type; nothing else is needed."""
    return VotesModel(n_columns)
