"""Model families: one file each. What a family is to the rest of training, and what several of them share.

A family file has two names:

    SETTINGS: what a search may try of each of its own settings; the first is the default
    fit(healthy: Healthy, <its own settings>) -> Fit          raises ValueError: too few windows, said in one sentence

One that is made of nothing but a number of columns has `without_training(n_columns)` instead, and is no candidate of a search.

Scores are scaled by limits that a healthy window (or, where columns are judged one by one, a healthy column) exceeds with
`LIMIT_PROBABILITY`. That is for people who compare; an alarm's threshold comes from the tail of scores that were not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.graph import Graph

F64 = NDArray[np.float64]

LIMIT_PROBABILITY = 0.01  # once in a hundred windows
# One wild window may not own a memory: a deviation counts for four standard deviations at most, however large it is (a
# lasting one adds up all the same). The clip is what bounds the state of averages and sums.
MEMORY_CLIP = 4.0
# Tensors are rounded to a grid, because linear algebra and FFT differ in the last bits between CPUs and library builds:
# on the grid a rebuild gives the same bytes unless a value sits within about 1e-8 of a step. 2^-11 costs 0.3 % of an
# element and is exact in float32.
GRID = 2.0**-11
MIN_VARIANCE = 0.05  # of the unit-variance scale: no column and no direction is trusted to be quieter than this


@dataclass(frozen=True, slots=True, eq=False)
class Healthy:
    """What a family is fitted to; it takes what it needs.

    Attributes:
        z, mask: shape (n_windows, n_columns), healthy windows in robust standard deviations from their own baselines, and 1
            where a column was present.
        names: of the columns. seed: of whatever is drawn.
        starts: rows at which another sequence of windows begins (another machine, another operating state); see `Graph.run`.
    """

    z: NDArray[np.floating]
    mask: NDArray[np.floating]
    names: Sequence[str] = ()
    seed: int = 0
    starts: Sequence[int] = (0,)


class Fit(Protocol):
    """A fitted model."""

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        ...

    def settings(self) -> dict[str, float | int | str]:
        """The figures that belong into the manifest's provenance and on the card."""
        ...


Settings = Mapping[str, tuple[float, ...]]


def on_grid(values: F64) -> F64:
    """Rounded to the grid; a zero is +0, whichever side rounding came from: -0 is another byte."""
    rounded: F64 = np.round(values / GRID) * GRID + 0.0
    return rounded


def refuse_too_few(n_windows: int, n_columns: int) -> None:
    """Raises: ValueError: fewer windows than a model of so many columns needs."""
    if n_windows < 2 * n_columns:
        raise ValueError(f"{n_windows} healthy windows for {n_columns} columns; at least {2 * n_columns} are needed")


def held(z: NDArray[np.floating], mask: NDArray[np.floating], clip: float) -> F64:
    """Deviations within +-clip, 0 where absent: no window may own what is fitted. Shape as z."""
    return np.clip(np.where(np.asarray(mask) > 0, z, 0.0), -clip, clip).astype(np.float64)


def spread(z: NDArray[np.floating], mask: NDArray[np.floating], clip: float) -> F64:
    """Root mean square about zero of each column where it was present; 1 where it never was. Shape (n_columns,).

    About zero, because a machine's offset from its own baseline is part of what is healthy.
    """
    n_present = np.asarray(mask, np.float64).sum(axis=0)
    mean_square = (held(z, mask, clip) ** 2).sum(axis=0) / np.maximum(n_present, 1.0)
    result: F64 = np.where(n_present > 1, np.sqrt(np.maximum(mean_square, MIN_VARIANCE)), 1.0)
    return result
