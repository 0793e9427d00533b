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


def choose_band(bursts: F32, sample_rate_hz: float) -> tuple[float, float] | None:
    """The band whose envelope is most uneven, in hertz; None where no band stands out over noise.

    Args: bursts: shape (n_bursts, n_samples), of one point in one operating state, in any unit; some ten are plenty.
    Source: Antoni 2007, Fast computation of the kurtogram: its tree of halves and thirds, with bands cut out of the spectrum.
        Gaussian noise: the squared envelope is exponential, so that its second moment over its mean's square is 2 with
        variance 4 / n for n independent points.
    """
    spectra = tapered_spectrum(np.ascontiguousarray(bursts, np.float32))
    n_bursts, n_samples = bursts.shape
    found: list[tuple[float, float, float]] = []
    for parts in PARTS:
        width_hz = sample_rate_hz / (2 * parts)
        first, beyond = math.ceil(LOWEST_HZ / width_hz), min(parts, math.floor(HIGHEST_HZ / width_hz))
        if width_hz < LEAST_WIDTH_HZ or first >= beyond:
            continue
        kurtosis = np.median([_kurtosis(spectrum, parts, range(first, beyond)) for spectrum in spectra], axis=0)
        n_independent = (1 - 2 * TAPER) * n_samples / (2 * parts)
        noise = MEDIAN_SPREAD * 2 / math.sqrt(n_independent * n_bursts)
        best = int(kurtosis.argmax())
        if kurtosis[best] > max(LEAST_KURTOSIS, CLEAR * noise):
            found.append((float(kurtosis[best]), (first + best) * width_hz, (first + best + 1) * width_hz))
    return max(found)[1:] if found else None


def _kurtosis(spectrum: C64, parts: int, bands: range) -> F64:
    """Of the complex envelopes of some of the bands that are one of `parts` equal ones each. Shape (n_bands,)."""
    n_bins = (spectrum.size - 1) // parts
    envelopes = BandCutter(n_bins).squared_envelopes(spectrum, [band * n_bins for band in bands])
    kurtosis: F64 = np.square(envelopes).mean(axis=1, dtype=np.float64) - 2
    return kurtosis
