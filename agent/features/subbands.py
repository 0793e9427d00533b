"""Squared envelopes of many bands of one burst, all cut out of one spectrum.

A ring that comes back modulates the band of its resonance; which band that is, nobody knows beforehand. So several are cut
out of the burst's spectrum, each by a short inverse transform: a level of bands together costs about one transform of the
whole burst. `agent.diagnosis.bearing` looks for lines in them, `agent.features.kurtogram` for the band that rings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agent.features import fourier
from agent.features.fourier import C64
from agent.vocabulary import F32

TAPER = 0.05  # of a burst, at each end: the ends do not meet, and a strong slow line would ring in every band there
NOTHING = np.float32(1e-30)  # keeps a silent band silent instead of undefined


def tapered_spectrum(rows: F32) -> C64:
    """Spectrum of every burst, its ends faded in and out by half a cosine. Shape (n_rows, n) -> (n_rows, n // 2 + 1)."""
    n = rows.shape[1]
    n_fade = math.ceil(TAPER * n)
    fade = (0.5 - 0.5 * np.cos(np.pi * (np.arange(n_fade) + 0.5) / n_fade)).astype(np.float32)
    level: F32 = rows - rows.mean(axis=1, keepdims=True, dtype=np.float32)
    level[:, :n_fade] *= fade
    level[:, n - n_fade :] *= fade[::-1]
    return fourier.rfft(level)


def whitened(spectrum: C64) -> C64:
    """All lines of equal height, their phases kept: what is steady is gone, what comes and goes stays.

    Source: Borghesani et al. 2013, cepstrum pre-whitening by dividing the spectrum by its magnitude.
    """
    white: C64 = spectrum / np.maximum(np.abs(spectrum), NOTHING)
    return white


def squared_envelopes(spectrum: C64, first_bins: Sequence[int], n_bins: int) -> F32:
    """Squared envelope of each band over its own mean, of the burst's middle that is not faded.

    Args: one burst's spectrum, shape (n_lines,); where the bands begin; how many bins each is wide.
    Returns: shape (n_bands, n_points), mean 1 over the band's burst; two points and more for each bin of width.
    """
    n_points = fourier.fast_length(2 * n_bins)
    bands = np.zeros((len(first_bins), n_points), np.complex64)
    for band, first in zip(bands, first_bins, strict=True):
        band[:n_bins] = spectrum[first : first + n_bins]
    signal = fourier.ifft(bands)
    squared: F32 = np.square(signal.real) + np.square(signal.imag)
    n_fade = math.ceil(TAPER * n_points)
    middle = squared[:, n_fade : n_points - n_fade]
    relative: F32 = middle / np.maximum(middle.mean(axis=1, keepdims=True), NOTHING)
    return relative
