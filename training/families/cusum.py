"""CUSUM family: change that neither a window nor an average shows. Cumulative sums of what each column deviates lastingly.

    s' = the sum of s and z, moved towards zero by the allowance k, not beyond it        contribution_i = (s'_i / h_i)^2

Crosier's two-sided form: one signed sum a column instead of two, with nearly the same run lengths. It finds a lasting shift of
one standard deviation some ten windows after it began, and one that stays below k never. A column's k is widened by how far
healthy machines stand from their own baselines, because a sum never forgets an offset.

Source: Crosier, Technometrics 28 (1986), 187-194 (the form); Siegmund, Sequential Analysis (1985) (run lengths).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from training.families import F64, GRID, LIMIT_PROBABILITY, MEMORY_CLIP, Healthy, Settings, on_grid, spread
from training.graph import Graph, Node, anomaly_model, clipped, row

ALLOWANCE = 0.5  # half of the shift that is looked for: one standard deviation
SETTINGS: Settings = {"allowance": (ALLOWANCE, 0.25, 1.0)}
WINDOWS_PER_FALSE_ALARM = 4320.0  # of all columns together: a month of windows every ten minutes
FULL_X = 2.0  # a sum stops at twice its limit, so that it comes back soon after the machine does
OFFSET_QUANTILE = 0.9  # of healthy sequences, whose offset is allowed for
SIEGMUND_SHIFT = 1.166  # the mean overshoot of a normal random walk at both ends


@dataclass(frozen=True, slots=True, eq=False)
class CusumFit:
    """By column, shape (n_columns,): healthy standard deviation about zero; and in units of it, allowance and limit."""

    spread: F64
    allowance: F64
    limit: F64

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        n_columns = len(self.limit)
        full = FULL_X * self.limit[None]
        constants: Mapping[str, NDArray[np.floating]] = {
            "per_spread": on_grid(1.0 / self.spread)[None],
            "lowest": row(-MEMORY_CLIP, n_columns),
            "highest": row(MEMORY_CLIP, n_columns),
            "allowance": on_grid(self.allowance)[None],
            "nothing": row(0.0, n_columns),
            "lowest_sum": on_grid(-full),
            "highest_sum": on_grid(full),
            "per_limit": on_grid(1.0 / self.limit)[None],
        }
        return anomaly_model(name, n_columns, constants, NODES)

    def settings(self) -> dict[str, float | int | str]:
        """For the manifest's provenance."""
        return {
            "largest_allowance": round(float(self.allowance.max()), 3),
            "smallest_limit": round(float(self.limit.min()), 3),
            "largest_limit": round(float(self.limit.max()), 3),
            "grid": GRID,
        }


# A column that is absent neither gains nor loses: what it would add and what it would be allowed are both multiplied by 0.
NODES = (
    Node("multiply", ("z", "per_spread"), "scaled"),
    *clipped("scaled", "held"),
    Node("multiply", ("held", "mask"), "added"),
    Node("add", ("state", "added"), "sum"),
    Node("multiply", ("allowance", "mask"), "allowed"),
    Node("subtract", ("sum", "allowed"), "sum_less_allowed"),
    Node("maximum", ("sum_less_allowed", "nothing"), "risen"),
    Node("add", ("sum", "allowed"), "sum_and_allowed"),
    Node("minimum", ("sum_and_allowed", "nothing"), "fallen"),
    Node("add", ("risen", "fallen"), "unbounded"),
    *clipped("unbounded", "next_state", "lowest_sum", "highest_sum"),
    Node("multiply", ("next_state", "per_limit"), "of_limit"),
    Node("multiply", ("of_limit", "mask"), "present"),
    Node("multiply", ("present", "present"), "contributions"),
)


def fit(healthy: Healthy, *, allowance: float = ALLOWANCE) -> CusumFit:
    """Spread, allowance and limit of each column from healthy sequences.

    The limit is the one of independent windows for the wanted rate of false alarms, or what the sum of a healthy column
    exceeds in one window of a hundred where that is more: windows that follow each other are not independent.

    Args: allowance: in healthy standard deviations. Others, and errors: see `training.families`.
    """
    z, mask, starts = healthy.z, healthy.mask, healthy.starts
    n_columns = z.shape[1]
    if len(z) < 2:
        raise ValueError(f"{len(z)} healthy windows; at least 2 are needed")
    deviation = spread(z, mask, MEMORY_CLIP)
    allowances = allowance + _offsets(z / deviation, mask, starts)
    least = limit_for(2 * n_columns * WINDOWS_PER_FALSE_ALARM, allowance)
    draft = CusumFit(deviation, allowances, np.full(n_columns, least * 100))
    sums = np.abs(draft.graph("sums").run(z, mask, starts)["next_state"])
    usual = np.quantile(sums, 1 - LIMIT_PROBABILITY, axis=0)
    return CusumFit(deviation, allowances, np.maximum(least, usual))


def _offsets(scaled: F64, mask: NDArray[np.floating], starts: Sequence[int]) -> F64:
    """How far from their baselines nine of ten healthy sequences stand on average, by column. Shape (n_columns,)."""
    present = np.asarray(mask, np.float64)
    kept = np.clip(scaled, -MEMORY_CLIP, MEMORY_CLIP) * present
    begins = np.asarray(starts, int)
    sums, counts = np.add.reduceat(kept, begins, axis=0), np.add.reduceat(present, begins, axis=0)
    offsets: F64 = np.quantile(np.abs(sums) / np.maximum(counts, 1.0), OFFSET_QUANTILE, axis=0)
    return offsets


def limit_for(run_length: float, allowance: float) -> float:
    """The limit h at which one side of a healthy sum alarms once in `run_length` windows on average.

    Source: Siegmund's approximation, (exp(2 k b) - 2 k b - 1) / (2 k^2) with b = h + 1.166.
    """

    def excess(limit: float) -> float:
        reach = 2 * allowance * (limit + SIEGMUND_SHIFT)
        return float(np.log((np.expm1(reach) - reach) / (2 * allowance**2)) - np.log(run_length))

    return float(brentq(excess, 0.1, 200.0))
