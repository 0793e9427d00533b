"""Squared envelopes of many bands of one burst, all cut out of one spectrum.

A ring that comes back modulates the band of its resonance, and which band that is, nobody knows beforehand. So several are
cut out of the burst's spectrum, each by a short inverse transform: a row of bands side by side costs about one transform
of the whole burst. `agent.diagnosis.bearing` looks for lines in them, `agent.features.kurtogram` for the band that rings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agent.features import fourier
from agent.features.fourier import C64, NOTHING
from agent.vocabulary import F32

LOWEST_HZ, HIGHEST_HZ = 500.0, 12_000.0  # below is the machine's own movement, above most mounts carry nothing
TAPER = 0.05  # of a burst, at each end: the ends do not meet, and a strong slow line would ring in every band there


def tapered_spectrum(rows: F32) -> C64:
    """Spectrum of every burst, its ends faded in and out by half a cosine. Shape (n_rows, n) -> (n_rows, n // 2 + 1)."""
    n = rows.shape[1]
    n_fade = math.ceil(TAPER * n)
    fade = (0.5 - 0.5 * np.cos(np.pi * (np.arange(n_fade) + 0.5) / n_fade)).astype(np.float32)
    level: F32 = rows - rows.mean(axis=1, keepdims=True)
    level[:, :n_fade] *= fade
    level[:, n - n_fade :] *= fade[::-1]
    return fourier.rfft(level)


class BandCutter:
    """Cuts bands of one width out of spectra.

    Attributes:
        n_bins: how many lines of the spectrum a band is wide.
        points_per_burst: how many points its envelope would have over the whole burst, faded ends and all.
        n_points: how many it has.
    """

    def __init__(self, n_bins: int) -> None:
        self.n_bins = n_bins
        self.points_per_burst = fourier.fast_length(2 * n_bins)
        self._n_fade = math.ceil(TAPER * self.points_per_burst)
        self.n_points = self.points_per_burst - 2 * self._n_fade

    def squared_envelopes(self, spectrum: C64, first_bins: Sequence[int]) -> F32:
        """Squared envelope of each band over its own mean, without the faded ends.

        Args: one burst's tapered spectrum, shape (n_lines,); where the bands begin.
        Returns: shape (n_bands, n_points); mean 1, or 0 for a band that holds nothing.
        """
        bands = np.zeros((len(first_bins), self.points_per_burst), np.complex64)
        for band, first in zip(bands, first_bins, strict=True):
            band[: self.n_bins] = spectrum[first : first + self.n_bins]
        signal = fourier.ifft(bands)[:, self._n_fade : self._n_fade + self.n_points]
        squared: F32 = np.square(signal.real) + np.square(signal.imag)
        squared /= np.maximum(squared.mean(axis=1, keepdims=True), NOTHING)
        return squared
