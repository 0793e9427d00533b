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

MAX_VIEWS = 64


class Scratch(threading.local):
    """Grows to the longest rows that were asked for, and never shrinks; what is in it is anybody's."""

    def __init__(self) -> None:
        self._flat: dict[str, NDArray[Any]] = {}
        self._views: dict[tuple[str, int], NDArray[Any]] = {}

    def rows(self, use: str, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Shape (ROWS, length), contiguous, its content undefined; the same memory for the same `use` every time."""
        view = self._views.get((use, length))
        return self._view(use, length, dtype) if view is None else view

    def release(self) -> None:
        """Give this thread's buffers back; for one that has done its last window."""
        self._flat.clear()
        self._views.clear()

    def _view(self, use: str, length: int, dtype: DTypeLike) -> NDArray[Any]:
        flat = self._flat.get(use)
        if flat is None or flat.size < ROWS * length or len(self._views) >= MAX_VIEWS:
            self._views.clear()  # those of a shorter buffer, or of lengths long gone
        if flat is None or flat.size < ROWS * length:
            flat = self._flat[use] = np.empty(ROWS * length, dtype)
        view = self._views[use, length] = flat[: ROWS * length].reshape(ROWS, length)
        return view


SCRATCH = Scratch()
