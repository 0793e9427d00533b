"""The band that rings: a kurtogram over several bursts, for the envelope band that a baseline is frozen with.

Noise and steady tones have an even envelope, strikes an uneven one. The kurtosis of a band's complex envelope says how
uneven: 0 for noise, below for tones, above for strikes. The fast kurtogram asks bands of half, a third, a quarter ... of
the spectrum for it. One odd burst picks a band at random, so every band answers with the median over the bursts.
"""

from __future__ import annotations

import math

import numpy as np

from agent.features.fourier import C64
from agent.features.subbands import HIGHEST_HZ, LOWEST_HZ, TAPER, BandCutter, tapered_spectrum
from agent.vocabulary import F32, F64

PARTS = (2, 3, 4, 6, 8, 12, 16, 24, 32)  # of the spectrum: levels 1 to 5 of the tree, halves and thirds
LEAST_WIDTH_HZ = 500.0  # a narrower band does not hold the harmonics that a line is known by
CLEAR = 6.0  # standard deviations over noise: nothing by chance among some hundred bands, whose tails are heavy
LEAST_KURTOSIS = 0.5  # what a machine's own unevenness makes of noise, a turn, a mesh, stays below
MEDIAN_SPREAD = math.sqrt(math.pi / 2)  # standard deviation of a median over that of a mean


class Kurtogram:
    """Gathers bursts of one point in one operating state; keeps a few numbers of each, not the burst."""

    def __init__(self, n_samples: int, sample_rate_hz: float) -> None:
        self._n_samples = n_samples
        self._levels: list[tuple[int, range]] = []
        self._bands_hz: list[tuple[float, float]] = []
        for parts in PARTS:
            width_hz = sample_rate_hz / (2 * parts)
            bands = range(math.ceil(LOWEST_HZ / width_hz), min(parts, math.floor(HIGHEST_HZ / width_hz)))
            if width_hz >= LEAST_WIDTH_HZ and bands:
                self._levels.append((parts, bands))
                self._bands_hz += [(band * width_hz, (band + 1) * width_hz) for band in bands]
        self._kurtosis: list[F64] = []

    def __len__(self) -> int:
        return len(self._kurtosis)

    def add(self, rows: F32) -> None:
        """Take in bursts, axes or times, shape (n_rows, n_samples), in any unit."""
        for spectrum in tapered_spectrum(np.ascontiguousarray(rows, np.float32)):
            of_level = [_kurtosis(spectrum, parts, bands) for parts, bands in self._levels]
            self._kurtosis.append(np.concatenate(of_level) if of_level else np.zeros(0))

    def band_hz(self) -> tuple[float, float] | None:
        """The band whose envelope is most uneven; None where no band stands out over noise.

        Source: Antoni 2007, Fast computation of the kurtogram: its tree of halves and thirds, with bands cut out of the
            spectrum. Gaussian noise: the squared envelope is exponential, so that its second moment over its mean's square
            is 2 with variance 4 / n for n independent points.
        """
        if not self._kurtosis or not self._bands_hz:
            return None
        widths = np.array([parts for parts, bands in self._levels for _ in bands])
        n_independent = (1 - 2 * TAPER) * self._n_samples / (2 * widths)
        noise = MEDIAN_SPREAD * 2 / np.sqrt(n_independent * len(self._kurtosis))
        kurtosis = np.median(self._kurtosis, axis=0)
        clear = np.where(kurtosis > np.maximum(LEAST_KURTOSIS, CLEAR * noise), kurtosis, -np.inf)
        best = int(clear.argmax())
        return self._bands_hz[best] if np.isfinite(clear[best]) else None


def _kurtosis(spectrum: C64, parts: int, bands: range) -> F64:
    """Of the complex envelopes of some of the bands that are one of `parts` equal ones each. Shape (n_bands,)."""
    n_bins = (spectrum.size - 1) // parts
    envelopes = BandCutter(n_bins).squared_envelopes(spectrum, [band * n_bins for band in bands])
    kurtosis: F64 = np.square(envelopes).mean(axis=1, dtype=np.float64) - 2
    return kurtosis
