"""The core's spectrum where a test has samples and no core."""

from __future__ import annotations

import numpy as np

from agent.features import fourier
from agent.features.core import mean_square_hann


def hann_spectrum(samples: np.ndarray) -> np.ndarray:
    """Shape (n_axes, n_samples) -> (n_axes, n_samples // 2 + 1)."""
    centred = samples - samples.mean(axis=1, keepdims=True)
    return fourier.rfft(centred * mean_square_hann(samples.shape[1]))
