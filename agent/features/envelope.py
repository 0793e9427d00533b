"""Bearing defects in the envelope of a resonance band: how far its lines stand above their surroundings.

Each pass over a defect rings the machine's resonances for a moment. The ring's own frequency tells nothing; how often
it comes back tells which part of the bearing is damaged. So a band is cut around the resonances, squared, and its
spectrum (the squared-envelope spectrum, SES) is searched at the bearing's frequencies.

The band is cut from the spectrum that the other features already have. Its inverse transform needs only as many points
as the band is wide plus as many as keep aliases away from the lines that are looked at: 4,608 instead of 25,600 for 2
to 5 kHz in one second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent.features import fourier
from agent.features.feature import ROWS, Column, Nameplate, Plan, Rows, feature
from agent.features.scratch import SCRATCH
from agent.vocabulary import F32, F64, OperatingPoint

HARMONICS = np.array([1.0, 2.0, 3.0])  # a defect strikes in pulses: a true line brings its harmonics
HIGHEST_LINE_HZ = 1500.0  # third harmonic of the fastest defect looked for: an inner race of order 8.3 at 3600 rpm
LOWEST_BIN = 4  # the envelope's mean under a squared Hann window reaches bin 2; bin 3 is kept clear
TOLERANCE = 0.015  # slip and a speed that is only nearly known
FLOOR_BINS = 24  # to each side of a line, what its height is compared with: at least so many bins


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """RMS acceleration in the band, shape (n_rows,); peak over floor of each line's harmonics, (n_rows, n_lines)."""

    rms_m_s2: F32
    ratios: F32
    ratio_at: dict[str, int]

    def ratio(self, column: Column) -> F32:
        return self.ratios[:, self.ratio_at[column.feature]]


class Analysis:
    """Zoom envelope: spectrum's band -> analytic signal on few points -> |z|^2 -> spectrum up to the highest line."""

    def __init__(self, plan: Plan) -> None:
        lines = [(at, f.id) for at, f in enumerate(plan.features) if f.line_hz is not None and f.family == "envelope"]
        self._columns = [at for at, _ in lines]
        self._ratio_at = {name: place for place, (_, name) in enumerate(lines)}
        self._bin_hz = plan.bin_hz
        self._band = plan.bins(plan.envelope_band_hz)
        self._width = self._band.stop - self._band.start
        widest_bins = math.ceil(TOLERANCE * HIGHEST_LINE_HZ / plan.bin_hz)
        side = max(FLOOR_BINS, widest_bins + 1)
        self._around = np.arange(2 * side + 1)
        last = max(math.ceil(HIGHEST_LINE_HZ / plan.bin_hz) + side, LOWEST_BIN + 2 * side)
        self._last_start = last - 2 * side
        # Points of the two small transforms: a band of `width` bins beats at up to width - 1 bins, and folded at so many
        # that stays above `last`.
        self.n_points = fourier.fast_length(max(self._width + last, 2 * (last + 1)))
        self._row = np.arange(ROWS)[:, None, None, None]

    def __call__(self, rows: Rows) -> Envelope:
        band = rows.spectrum[:, self._band]
        squares = np.square(band.view(np.float32), out=rows.scratch[:, : 2 * self._width])
        rms_m_s2: F32 = np.sqrt(squares.sum(axis=1))
        if not self._columns:
            return Envelope(rms_m_s2, np.empty((len(band), 0), np.float32), self._ratio_at)
        ratios = self._peaks_over_floor(self._squared_envelope_spectrum(band), rows.line_hz)
        return Envelope(rms_m_s2, ratios, self._ratio_at)

    def _squared_envelope_spectrum(self, band: np.ndarray) -> np.ndarray:
        """Shape (n_rows, n_points // 2 + 1). Its window is Hann squared: both factors of |z|^2 bring one."""
        analytic = SCRATCH.rows("analytic", self.n_points, np.complex64)
        analytic[: len(band), : self._width] = band
        analytic[: len(band), self._width :] = 0
        analytic[len(band) :] = 0
        signal = fourier.ifft(analytic)
        squared = np.square(signal.real)
        squared += np.square(signal.imag)
        return fourier.rfft(squared)[: len(band)]

    def _peaks_over_floor(self, spectrum: np.ndarray, line_hz: F64) -> F32:
        """Sum of the harmonics' peaks within tolerance over the sum of their local medians: 1 to 3 where no line is.

        A line whose harmonics leave the range from LOWEST_BIN to HIGHEST_LINE_HZ is NaN: not measured is not healthy.
        """
        first = line_hz[:, self._columns, None] / self._bin_hz
        known = (first >= LOWEST_BIN) & (first * (HARMONICS[-1] * self._bin_hz) <= HIGHEST_LINE_HZ)
        centre = np.where(known, first, LOWEST_BIN) * HARMONICS
        start = np.clip(np.rint(centre).astype(np.intp) - self._around.size // 2, LOWEST_BIN, self._last_start)
        bins = start[..., None] + self._around
        lines = spectrum[self._row[: len(bins)], bins]
        squares = np.square(lines.real) + np.square(lines.imag)  # its order is that of the heights
        near = np.abs(bins - centre[..., None]) <= np.maximum(TOLERANCE * centre, 1.0)[..., None]
        peaks = np.sqrt((squares * near).max(axis=-1)).sum(axis=-1)
        squares.sort(axis=-1)
        floors = np.sqrt(squares[..., self._around.size // 2]).sum(axis=-1)
        return np.where(known[..., 0], peaks / floors, np.float32(np.nan))


@dataclass(frozen=True, slots=True)
class BearingLine:
    """A line at one of the bearing's orders; NaN where the site names no bearing or no speed is known."""

    order: str
    times: float = 1.0

    def __call__(self, nameplate: Nameplate, point: OperatingPoint) -> float:
        if nameplate.bearing is None:
            return float("nan")
        return float(self.times * getattr(nameplate.bearing, self.order) * point.shaft_speed_rpm / 60)


_SOURCE = (
    "Randall and Antoni 2011, squared envelope spectrum: peaks of harmonics 1 to 3 within 1.5 % (at least one bin) "
    "over the median of at least 24 bins to each side"
)


@feature(
    version=1,
    words="acceleration in the bearing band",
    source="Parseval's theorem on the Hann spectrum, band of the envelope",
    moved_by=("lubrication", "bearing_outer_race", "bearing_inner_race", "bearing_ball_cage", "cavitation"),
    over_axes="root_sum_square",
)
def rms_m_s2(envelope: Envelope, column: Column) -> F32:
    """RMS acceleration in the envelope's band. The ratios saturate early and only detect; this grows with severity."""
    return envelope.rms_m_s2


@feature(
    version=1,
    words="envelope line at the bearing's outer race",
    source=_SOURCE,
    moved_by=("bearing_outer_race",),
    line_hz=BearingLine("bpfo"),
)
def bpfo_ratio(envelope: Envelope, column: Column) -> F32:
    """Ball pass frequency of the outer race."""
    return envelope.ratio(column)


@feature(
    version=1,
    words="envelope line at the bearing's inner race",
    source=_SOURCE,
    moved_by=("bearing_inner_race",),
    line_hz=BearingLine("bpfi"),
)
def bpfi_ratio(envelope: Envelope, column: Column) -> F32:
    """Ball pass frequency of the inner race."""
    return envelope.ratio(column)


@feature(
    version=1,
    words="envelope line at the bearing's balls",
    source=_SOURCE,
    moved_by=("bearing_ball_cage",),
    line_hz=BearingLine("bsf", times=2),
)
def bsf_ratio(envelope: Envelope, column: Column) -> F32:
    """Twice the ball spin frequency: a defect on a ball strikes outer and inner race in one spin."""
    return envelope.ratio(column)


@feature(
    version=1,
    words="envelope line at the bearing's cage",
    source=_SOURCE,
    moved_by=("bearing_ball_cage",),
    line_hz=BearingLine("ftf"),
)
def ftf_ratio(envelope: Envelope, column: Column) -> F32:
    """Fundamental train frequency: one turn of the cage."""
    return envelope.ratio(column)
