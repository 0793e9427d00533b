"""Buffers that a core needs only while it runs: one set a thread, whatever number of cores it has.

A core of its own for every machine and true sample rate is cheap when it holds only its plan; with its own buffers it
would take 1.1 MB.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from agent.features.feature import ROWS


class Scratch(threading.local):
    """Grows to the longest rows that were asked for, and never shrinks; what is in it is anybody's."""

    def __init__(self) -> None:
        self._flat: dict[str, NDArray[Any]] = {}

    def rows(self, use: str, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Shape (ROWS, length), contiguous, its content undefined; the same memory for the same `use` every time."""
        flat = self._flat.get(use)
        if flat is None or flat.size < ROWS * length:
            flat = self._flat[use] = np.empty(ROWS * length, dtype)
        return flat[: ROWS * length].reshape(ROWS, length)


SCRATCH = Scratch()
