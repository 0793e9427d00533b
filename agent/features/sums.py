"""Sums and pieces of rows: exact enough in float32, and the same bits in any company.

A row's sum must not depend on which rows stand beside it, nor on how many threads BLAS has: replay gives the bytes of the
live run. So every row is summed by BLAS dot products of its own, in pieces too short for OpenBLAS to share out among threads,
and the pieces are added in double precision. (A matrix product blocks over rows; an einsum is slower; measured.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agent.features.feature import ROWS
from agent.vocabulary import F32, F64


def _dot_of_numpy_1(rows: F32, other: F32) -> F32:
    """What np.vecdot is from NumPy 2 on: BLAS's dot product along the last axis."""
    product: F32 = np.matmul(rows[..., None, :], other[..., None])[..., 0, 0]
    return product


_dot: Callable[[F32, F32], F32] = getattr(np, "vecdot", _dot_of_numpy_1)
LONGEST = 8192  # OpenBLAS gives dot products of more than 10,000 terms to several threads
ONES = np.ones(LONGEST, np.float32)
ROW_INDEX = np.arange(ROWS)[:, None]


def dots(rows: F32, other: F32) -> F64:
    """The sum of products along each row.

    Args: rows: shape (..., n). other: shape (n,), as `rows`, or one that broadcasts with it.
    Returns: shape (...), float64.
    """
    n = rows.shape[-1]
    if n <= LONGEST:
        return _dot(rows, other).astype(np.float64)
    width, whole = _pieces(n)
    pieces = rows[..., :whole].reshape(*rows.shape[:-1], -1, width)
    others = other[..., :whole].reshape(*other.shape[:-1], -1, width)
    found: F64 = np.add.reduce(_dot(pieces, others), axis=-1, dtype=np.float64)
    if whole < n:
        found += _dot(rows[..., whole:], other[..., whole:])
    return found


def totals(rows: F32) -> F64:
    """The sum of each row: shape (..., n) -> (...), float64."""
    n = rows.shape[-1]
    width, whole = _pieces(n)
    found: F64 = np.add.reduce(
        _dot(rows[..., :whole].reshape(*rows.shape[:-1], -1, width), ONES[:width]), axis=-1, dtype=np.float64
    )
    if whole < n:
        found += _dot(rows[..., whole:], ONES[: n - whole])
    return found


def _pieces(n: int) -> tuple[int, int]:
    """Length of equal pieces that n numbers are cut into, and how many numbers they hold; the rest is less than a piece."""
    n_pieces = -(-n // LONGEST)
    width = n // n_pieces
    return width, n_pieces * width


def stretches(rows: F32, start: NDArray[np.intp], width: int) -> F32:
    """Pieces of `width` numbers that begin at `start` in each row, copied out as memory lies.

    Args: rows: shape (n_rows, n), at most ROWS, a row's numbers side by side. start: shape (1 or n_rows, n_pieces), each from
        0 to n - width.
    Returns: shape (n_rows, n_pieces, width).
    """
    n_rows, n = rows.shape
    strides = (*rows.strides, rows.strides[1])
    overlapping = np.ndarray((n_rows, n - width + 1, width), rows.dtype, rows, 0, strides)
    found: F32 = overlapping[ROW_INDEX[:n_rows], start]
    return found


def within(numbers: F64, lowest: float, highest: float) -> F64:
    """The same numbers, NaN where they lie outside (or are NaN already)."""
    found: F64 = np.where((numbers >= lowest) & (numbers <= highest), numbers, np.nan)
    return found
