"""Sessions: what one recording cannot show, how far a healthy machine lies from itself on another day.

Load, temperature of oil and water, and the sensor's seat move levels between two days more than between two minutes. A model
fitted to one session takes its narrow spread for the machine's and calls the next day a fault. Several sessions show the
difference (random effects: variance within and between); from one or two it has to be brought along. It is what a column's
scale floor states, so one standard deviation of it is one unit of deviation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def on_other_days(z: F32, judged: NDArray[np.bool_], n_windows: int, seed: int) -> tuple[F32, F32]:
    """Healthy windows as they would be on other days: drawn from `z`, each with an offset of a day of its own.

    Offsets are independent from column to column: which way days move columns together is not known, and a model told to expect
    every direction is wrong in none.

    Args: z, judged: shape (n, n_columns), robust standard deviations and what of them was measured.
    Returns: z and mask, shape (n_windows, n_columns), float32.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(z), size=n_windows)
    offsets = rng.standard_normal((n_windows, z.shape[1]))
    mask = judged[drawn]
    return np.where(mask, z[drawn] + offsets, 0.0).astype(np.float32), mask.astype(np.float32)
