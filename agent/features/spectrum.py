"""Lines and bands of the shared Hann spectrum: velocity severity, band levels, shaft, vane and supply lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.features.feature import ROWS, Column, Nameplate, Plan, Rows, feature
from agent.vocabulary import F32, OperatingPoint

MM_PER_M = 1000.0
LINE_BINS = np.arange(-2, 3)  # a Hann line is four bins wide; two to each side hold 99.9 % of it wherever it falls
LOWEST_LINE_BIN = 4  # below, a line is not told from the mean and the window's own width


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """RMS velocity of the severity band, (n_rows,); RMS acceleration per band and RMS velocity per line, (n_rows, n)."""

    velocity_mm_s: F32
    bands_m_s2: F32
    lines_mm_s: F32
    line_at: dict[str, int]

    def line_mm_s(self, column: Column) -> F32:
        return self.lines_mm_s[:, self.line_at[column.feature]]


class Analysis:
    """All sums run over squares of real and imaginary parts as they lie in memory: no complex magnitude is taken."""

    def __init__(self, plan: Plan) -> None:
        self._bin_hz = plan.bin_hz
        self._velocity = _interleaved(plan.bins(plan.velocity_band_hz))
        self._velocity_weight = np.repeat(velocity_weights_mm_s(plan, plan.velocity_band_hz), 2)
        bands = [_interleaved(plan.bins(band)) for band in plan.bands_hz]
        self._edges = np.array([edge for band in bands for edge in (band.start, band.stop - 1)], dtype=np.intp)
        self._ends = np.array([band.stop - 1 for band in bands], dtype=np.intp)
        self._width = max((band.stop for band in bands), default=0)
        lines = [(at, f.id) for at, f in enumerate(plan.features) if f.line_hz is not None and f.family == "spectrum"]
        self._columns = [at for at, _ in lines]
        self._line_at = {name: place for place, (_, name) in enumerate(lines)}
        self._row = np.arange(ROWS)[:, None, None]
        self._last_line_bin = plan.n_samples // 2 - int(LINE_BINS[-1])

    def __call__(self, rows: Rows) -> Levels:
        parts = rows.spectrum.view(np.float32)
        return Levels(self._velocity_rms(parts), self._band_rms(parts, rows.scratch), self._lines(rows), self._line_at)

    def _velocity_rms(self, parts: F32) -> F32:
        velocity = parts[:, self._velocity] * self._velocity_weight
        rms: F32 = np.sqrt(np.square(velocity, out=velocity).sum(axis=1))
        return rms

    def _band_rms(self, parts: F32, scratch: F32) -> F32:
        """`reduceat` sums from each edge to the next; every second sum is a band less its last term, added afterwards.

        (So a band that ends with the array still has an end to name, and bands may overlap or leave gaps.)
        """
        if not self._edges.size:
            return np.empty((len(scratch), 0), np.float32)
        squares = np.square(parts[:, : self._width], out=scratch[:, : self._width])
        rms: F32 = np.sqrt(np.add.reduceat(squares, self._edges, axis=1)[:, ::2] + squares[:, self._ends])
        return rms

    def _lines(self, rows: Rows) -> F32:
        """Root of the sum of the five bins about each line, over 2 pi f of the line itself."""
        line_hz = rows.line_hz[:, self._columns]
        centre = line_hz / self._bin_hz
        known = (centre >= LOWEST_LINE_BIN) & (centre <= self._last_line_bin)
        bins = np.rint(np.where(known, centre, LOWEST_LINE_BIN)).astype(np.intp)[:, :, None] + LINE_BINS
        found = rows.spectrum[self._row[: len(bins)], bins].view(np.float32)
        rms_m_s2 = np.sqrt(np.square(found, out=found).sum(axis=-1))
        to_velocity = np.where(known, MM_PER_M / (2 * np.pi * np.where(known, line_hz, 1.0)), np.nan)
        rms_mm_s: F32 = rms_m_s2 * to_velocity.astype(np.float32)
        return rms_mm_s


def velocity_weights_mm_s(plan: Plan, band_hz: tuple[float, float]) -> F32:
    """What turns each bin's acceleration (m/s2) into velocity (mm/s): 1000 / (2 pi f), less what the Hann window
    smears.

    A line leaks to its neighbours, where 1/f^2 is not the line's own: on average it gains (bin / f)^2, because a Hann
    window's spectrum has the variance of one third bin^2 and 1/f^2 the curvature 6/f^4. Taking that out makes a tone of
    24 Hz in a one-second window read 0.001 % off instead of 0.09 %.
    """
    bins = plan.bins(band_hz)
    frequency_hz = np.arange(bins.start, bins.stop) * plan.bin_hz
    unsmeared = np.sqrt(np.maximum(1 - np.square(plan.bin_hz / frequency_hz), 0))
    weights: F32 = (MM_PER_M / (2 * np.pi * frequency_hz) * unsmeared).astype(np.float32)
    return weights


def _interleaved(bins: slice) -> slice:
    """The same bins where real and imaginary parts lie side by side."""
    return slice(2 * bins.start, 2 * bins.stop)


@dataclass(frozen=True, slots=True)
class ShaftLine:
    """A line at a fixed multiple of shaft speed."""

    order: float

    def __call__(self, nameplate: Nameplate, point: OperatingPoint) -> float:
        return self.order * point.shaft_speed_rpm / 60


def _vane_pass_hz(nameplate: Nameplate, point: OperatingPoint) -> float:
    return (nameplate.n_vanes or float("nan")) * point.shaft_speed_rpm / 60


def _twice_line_hz(nameplate: Nameplate, point: OperatingPoint) -> float:
    measured = point.line_frequency_hz
    return 2 * (measured if np.isfinite(measured) else nameplate.line_frequency_hz)


@feature(
    version=1,
    words="vibration velocity",
    source="ISO 20816-1, broad-band RMS velocity 10 Hz to 1 kHz; Parseval's theorem, divided by 2 pi f in the spectrum",
    moved_by=("unbalance", "misalignment", "looseness"),
    over_axes="root_sum_square",
)
def velocity_rms_mm_s(levels: Levels, column: Column) -> F32:
    """The quantity that vibration zones are stated in. Integrated in the spectrum, so an offset cannot become drift."""
    return levels.velocity_mm_s


@feature(
    version=1,
    words="acceleration in a frequency band",
    source="Parseval's theorem on the Hann spectrum, lower edge within, upper edge without",
    moved_by=("lubrication", "cavitation", "bearing_outer_race", "bearing_inner_race", "bearing_ball_cage"),
    over_axes="root_sum_square",
    parameters=("band",),
)
def band_rms_m_s2(levels: Levels, column: Column) -> F32:
    """RMS acceleration in one of the profile's bands; the parameter `band` counts them from 0."""
    return levels.bands_m_s2[:, int(column.parameter("band"))]


_LINE_SOURCE = "ISO 13373-2, discrete components; RMS of the five bins of the Hann line, velocity"


@feature(
    version=1,
    words="line at shaft speed (1x)",
    source=_LINE_SOURCE,
    moved_by=("unbalance", "misalignment"),
    over_axes="root_sum_square",
    line_hz=ShaftLine(1),
)
def line_1x_mm_s(levels: Levels, column: Column) -> F32:
    """RMS velocity at once per turn."""
    return levels.line_mm_s(column)


@feature(
    version=1,
    words="line at twice shaft speed (2x)",
    source=_LINE_SOURCE,
    moved_by=("misalignment", "looseness"),
    over_axes="root_sum_square",
    line_hz=ShaftLine(2),
)
def line_2x_mm_s(levels: Levels, column: Column) -> F32:
    """RMS velocity at twice per turn."""
    return levels.line_mm_s(column)


@feature(
    version=1,
    words="line at three times shaft speed (3x)",
    source=_LINE_SOURCE,
    moved_by=("looseness", "misalignment"),
    over_axes="root_sum_square",
    line_hz=ShaftLine(3),
)
def line_3x_mm_s(levels: Levels, column: Column) -> F32:
    """RMS velocity at three times per turn."""
    return levels.line_mm_s(column)


@feature(
    version=1,
    words="vane pass line",
    source=_LINE_SOURCE + "; number of vanes times shaft speed",
    moved_by=("cavitation",),
    over_axes="root_sum_square",
    line_hz=_vane_pass_hz,
)
def vane_pass_mm_s(levels: Levels, column: Column) -> F32:
    """RMS velocity at vanes times shaft speed: rises with recirculation, becomes unsteady with cavitation."""
    return levels.line_mm_s(column)


@feature(
    version=1,
    words="line at twice supply frequency",
    source=_LINE_SOURCE + "; magnetic pull follows the square of the field",
    moved_by=("stator_electrical",),
    over_axes="root_sum_square",
    line_hz=_twice_line_hz,
)
def line_2xlf_mm_s(levels: Levels, column: Column) -> F32:
    """RMS velocity at twice the frequency the motor is fed with; needs no shaft speed."""
    return levels.line_mm_s(column)
