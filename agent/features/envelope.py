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
from typing import NamedTuple

import numpy as np

from agent.features import fourier
from agent.features.feature import Column, Plan, Rows, feature
from agent.features.nameplate import Nameplate
from agent.features.scratch import SCRATCH
from agent.features.sums import dots, stretches, totals, within
from agent.vocabulary import F32, F64, OperatingPoint

HARMONICS = (1.0, 2.0, 3.0)  # a defect strikes in pulses: a true line brings its harmonics
HIGHEST_LINE_HZ = 1500.0  # third harmonic of the fastest defect looked for: an inner race of order 8.3 at 3600 rpm
LOWEST_BIN = 4  # the envelope's mean under a squared Hann window reaches bin 2; bin 3 is kept clear
TOLERANCE = 0.015  # slip and a speed that is only nearly known
FLOOR_BINS = 24  # to each side of a line, what its height is compared with: at least so many bins
HANN_KURTOSIS = 35 / 18  # mean of w^4 over the square of the mean of w^2: what the window alone adds to the envelope's
GAUSSIAN_KURTOSIS = 2.0  # of the squared magnitude of complex Gaussian noise


class Envelope(NamedTuple):
    """Of each row, shape (n_rows,): RMS acceleration in the band, kurtosis of its envelope and mean of its squared envelope.

    And of every column with lines, by its feature: peaks over floors, and the peaks.
    """

    rms_m_s2: F64
    kurtosis: F64
    mean: F64
    ratios: dict[str, F64]
    peaks: dict[str, F64]

    def depth(self, column: Column) -> F64:
        """How deeply a line modulates the squared envelope, 0 to 1: its amplitude over the mean."""
        return 2 * self.peaks[column.feature] / self.mean


class Analysis:
    """Zoom envelope: spectrum's band -> analytic signal on few points -> |z|^2 -> spectrum up to the highest line."""

    def __init__(self, plan: Plan) -> None:
        self._names, self._at, self._first = plan.lines_of("envelope")
        self._only_rms = {feature.id for feature in plan.features if feature.family == "envelope"} <= {rms_m_s2.id}
        self._highest_bin = HIGHEST_LINE_HZ / plan.bin_hz
        self._whitened = plan.envelope_whitened
        self._band = plan.bins(plan.envelope_band_hz)
        self._width = self._band.stop - self._band.start
        self._parts = slice(2 * self._band.start, 2 * self._band.stop)
        widest_bins = math.ceil(TOLERANCE * HIGHEST_LINE_HZ / plan.bin_hz)
        side = max(FLOOR_BINS, widest_bins + 1)
        self._n_around = 2 * side + 1
        self._around = np.arange(self._n_around)
        self._last = max(math.ceil(HIGHEST_LINE_HZ / plan.bin_hz) + side, LOWEST_BIN + 2 * side)
        # Points of the two small transforms: a band of `width` bins beats at up to width - 1 bins, and folded at so many
        # that stays above `last`.
        self.n_points = fourier.fast_length(max(self._width + self._last, 2 * (self._last + 1)))

    def __call__(self, rows: Rows) -> Envelope:
        power = rows.power[:, self._parts]
        rms = np.sqrt(totals(power))
        if self._only_rms:
            return Envelope(rms, np.full_like(rms, np.nan), np.zeros_like(rms), {}, {})
        squared = self._squared_envelope(rows.spectrum[:, self._band])
        spectrum = fourier.rfft(squared)[: len(power)]
        mean = spectrum[:, 0].real.astype(np.float64)
        kurtosis = self._kurtosis(squared[: len(power)], mean)
        return Envelope(rms, kurtosis, mean, *self._lines(spectrum, rows.line_bins))

    def _squared_envelope(self, band: np.ndarray) -> F32:
        """Shape (ROWS, n_points). Its window is Hann squared: both factors of |z|^2 bring one."""
        analytic = SCRATCH.rows("analytic", self.n_points, np.complex64)
        analytic[: len(band), : self._width] = fourier.whitened(band) if self._whitened else band
        analytic[: len(band), self._width :] = 0
        analytic[len(band) :] = 0
        signal = fourier.ifft(analytic)[: len(band)].view(np.float32)
        squares = np.square(signal, out=signal).reshape(len(band), self.n_points, 2)
        squared: F32 = SCRATCH.rows("envelope", self.n_points, np.float32)
        np.add(squares[..., 0], squares[..., 1], out=squared[: len(band)])
        squared[len(band) :] = 0
        return squared

    def _kurtosis(self, squared: F32, total: F64) -> F64:
        """Spectral kurtosis of the band (Antoni 2006): mean of |z|^4 over the square of the mean of |z|^2, less 2."""
        kurtosis: F64 = dots(squared, squared) * (self.n_points / HANN_KURTOSIS) / np.square(total) - GAUSSIAN_KURTOSIS
        return kurtosis

    def _lines(self, spectrum: np.ndarray, line_bins: F64) -> tuple[dict[str, F64], dict[str, F64]]:
        """Of every column: the sum of its lines' peaks within tolerance over the sum of the medians about them, and the peaks.

        1 to 3 where no line is. A column with a line outside the range from LOWEST_BIN to HIGHEST_LINE_HZ is NaN: not measured
        is not healthy.
        """
        if not self._names:
            return {}, {}
        centre = within(line_bins[:, self._at], LOWEST_BIN, self._highest_bin)
        start = np.rint(np.fmax(centre, LOWEST_BIN)).astype(np.intp) - self._n_around // 2
        start = np.minimum(np.maximum(start, LOWEST_BIN), self._last - self._n_around + 1)
        heights = stretches(np.abs(spectrum[:, : self._last + 1]), start, self._n_around)
        reach = np.maximum(TOLERANCE * centre, 1.0)
        near = np.abs(self._around - (centre - start)[..., None]) <= reach[..., None]
        peaks = (
            np.maximum.reduce(heights * near.astype(np.float32), axis=-1) + 0 * centre
        )  # NaN where the line is not known
        heights.partition(self._n_around // 2, axis=-1)
        sums = np.add.reduceat(peaks, self._first, axis=1)
        ratios = sums / np.add.reduceat(heights[..., self._n_around // 2], self._first, axis=1)
        return dict(zip(self._names, ratios.T, strict=True)), dict(zip(self._names, sums.T, strict=True))


@dataclass(frozen=True, slots=True)
class BearingLines:
    """The harmonics of one of the bearing's orders; NaN where the site names no bearing or no speed is known."""

    order: str
    times: float = 1.0

    def __call__(self, nameplate: Nameplate, point: OperatingPoint) -> tuple[float, ...]:
        first_hz = self.times * _order(nameplate, self.order) * point.shaft_speed_rpm / 60
        return tuple(first_hz * harmonic for harmonic in HARMONICS)


@dataclass(frozen=True, slots=True)
class Sidebands:
    """The lines one modulation below and above the first two harmonics of one of the bearing's orders."""

    order: str
    by: str  # the order that modulates; "shaft" is 1
    times: float = 1.0

    def __call__(self, nameplate: Nameplate, point: OperatingPoint) -> tuple[float, ...]:
        first, by = self.times * _order(nameplate, self.order), _order(nameplate, self.by)
        shaft_hz = point.shaft_speed_rpm / 60
        return tuple((harmonic * first + side * by) * shaft_hz for harmonic in HARMONICS[:2] for side in (-1, 1))


def _order(nameplate: Nameplate, name: str) -> float:
    if nameplate.bearing is None:
        return float("nan")
    return 1.0 if name == "shaft" else float(getattr(nameplate.bearing, name))


_SOURCE = (
    "Randall and Antoni 2011, squared envelope spectrum: peaks of harmonics 1 to 3 within 1.5 % (at least one bin) "
    "over the median of at least 24 bins to each side"
)


@feature(
    version=1,
    words="bearing band acceleration",
    source="Parseval's theorem on the Hann spectrum, band of the envelope",
    moved_by=(
        "lubrication",
        "bearing_outer_race",
        "bearing_inner_race",
        "bearing_ball_cage",
        "cavitation",
        "bearing_fluting",
        "dead_head",
        "over_greasing",
        "recirculation",
    ),
    over_axes="root_sum_square",
)
def rms_m_s2(envelope: Envelope, column: Column) -> F64:
    """RMS acceleration in the envelope's band. The ratios saturate early and only detect; this grows with severity."""
    return envelope.rms_m_s2


@feature(
    version=1,
    words="bearing band shock content",
    source="Antoni 2006, spectral kurtosis of one band, the Hann window's own part taken out; 0 for noise, -1 for a tone",
    moved_by=("bearing_outer_race", "bearing_inner_race", "bearing_ball_cage", "bearing_fluting"),
    transform="linear",
)
def spectral_kurtosis_ratio(envelope: Envelope, column: Column) -> F64:
    """How unevenly the band's power comes: kurtosis where it tells most, free of the strong lines below the band."""
    return envelope.kurtosis


@feature(
    version=1,
    words="outer-race envelope line",
    source=_SOURCE,
    moved_by=("bearing_outer_race", "bearing_fluting"),
    line_hz=BearingLines("bpfo"),
    n_lines=3,
)
def bpfo_ratio(envelope: Envelope, column: Column) -> F64:
    """Ball pass frequency of the outer race."""
    return envelope.ratios[column.feature]


@feature(
    version=1,
    words="inner-race envelope line",
    source=_SOURCE,
    moved_by=("bearing_inner_race", "bearing_fluting"),
    line_hz=BearingLines("bpfi"),
    n_lines=3,
)
def bpfi_ratio(envelope: Envelope, column: Column) -> F64:
    """Ball pass frequency of the inner race."""
    return envelope.ratios[column.feature]


@feature(
    version=1,
    words="rolling-element envelope line",
    source=_SOURCE,
    moved_by=("bearing_ball_cage",),
    line_hz=BearingLines("bsf", times=2),
    n_lines=3,
)
def bsf_ratio(envelope: Envelope, column: Column) -> F64:
    """Twice the ball spin frequency: a defect on a ball strikes outer and inner race in one spin."""
    return envelope.ratios[column.feature]


@feature(
    version=1,
    words="cage envelope line",
    source=_SOURCE,
    moved_by=("bearing_ball_cage",),
    line_hz=BearingLines("ftf"),
    n_lines=3,
)
def ftf_ratio(envelope: Envelope, column: Column) -> F64:
    """Fundamental train frequency: one turn of the cage."""
    return envelope.ratios[column.feature]


_SIDEBAND_SOURCE = (
    "Randall and Antoni 2011: peaks of the four lines beside harmonics 1 and 2, over their floors as above"
)


@feature(
    version=1,
    words="shaft sidebands of the inner-race line",
    source=_SIDEBAND_SOURCE + "; an inner-race defect passes the load zone once a turn",
    moved_by=("bearing_inner_race",),
    line_hz=Sidebands("bpfi", "shaft"),
    n_lines=4,
)
def bpfi_sidebands_ratio(envelope: Envelope, column: Column) -> F64:
    """Lines one shaft turn beside the inner race's: they tell an inner race from a tone of the same frequency."""
    return envelope.ratios[column.feature]


@feature(
    version=1,
    words="cage sidebands of the ball line",
    source=_SIDEBAND_SOURCE + "; a ball passes the load zone once a turn of the cage",
    moved_by=("bearing_ball_cage",),
    line_hz=Sidebands("bsf", "ftf", times=2),
    n_lines=4,
)
def bsf_sidebands_ratio(envelope: Envelope, column: Column) -> F64:
    """Lines one turn of the cage beside the balls'."""
    return envelope.ratios[column.feature]


@feature(
    version=1,
    words="hiss in step with the vanes (cavitation index)",
    source="broad-band RMS times the depth of its modulation at vane pass, as its squared envelope shows it",
    moved_by=(
        "cavitation",
        "lubrication",
        "bearing_outer_race",
        "bearing_inner_race",
        "bearing_ball_cage",
        "bearing_fluting",
    ),
    over_axes="root_sum_square",
    line_hz=Nameplate.vane_pass_hz,
)
def cavitation_index_m_s2(envelope: Envelope, column: Column) -> F64:
    """Bubbles collapse where a vane passes: their noise is broad, and swells and fades with the vanes."""
    return envelope.rms_m_s2 * envelope.depth(column)
