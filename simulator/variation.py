"""Many different machines from one description, and noise that depends on the step's number only."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

T = TypeVar("T")
BLOCK_STEPS = 512


def varied_fields(parameters: T, weights: Mapping[str, float], rng: np.random.Generator, spread: float) -> T:
    """A frozen dataclass with each field of `weights` multiplied by 1 + spread * weight * u, u uniform in -1..1.

    A weight below 1 is for what differs little between machines of one size (a head), 1 for what differs as much as the
    spread says (a noise level). Fields without a weight stay as they are.
    """
    factors = {name: 1.0 + spread * weight * rng.uniform(-1.0, 1.0) for name, weight in weights.items()}
    values = {name: getattr(parameters, name) * factor for name, factor in factors.items()}
    return replace(parameters, **values)  # type: ignore[type-var]  # every caller passes a dataclass


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """The random numbers of one thing (a sensor, a burst), the same whatever was asked for before.

    SFC64 because it is NumPy's fastest; text keys enter through CRC32, which is the same on every platform.
    """
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.Generator(np.random.SFC64([seed, *words]))


class StepNoise:
    """Standard normal numbers addressed by step: row `k` is the same whether it is asked first or last.

    Drawn in blocks, because seeding a generator for each step would cost more than the step.
    """

    def __init__(self, seed: int, name: str, n_columns: int) -> None:
        self._seed = seed
        self._name = name
        self._n_columns = n_columns
        self._block = -1
        self._rows: list[list[float]] = []

    def row(self, step: int) -> list[float]:
        """`n_columns` numbers of step `step`, which is >= 0."""
        block, offset = divmod(step, BLOCK_STEPS)
        if block != self._block:
            rng = generator(self._seed, self._name, block)
            self._rows = rng.standard_normal((BLOCK_STEPS, self._n_columns)).tolist()
            self._block = block
        return self._rows[offset]
