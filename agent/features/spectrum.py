"""The shared Hann spectrum: velocity severity, bands, lines of shaft, vanes, supply and gears, and its shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agent.features.feature import Column, Plan, Rows, feature
from agent.features.nameplate import Nameplate
from agent.features.sums import dots, stretches, within
from agent.vocabulary import F32, F64, OperatingPoint

MM_PER_M = 1000.0
LINE_BINS = 5  # a Hann line is four bins wide; two to each side hold 99.9 % of it wherever it falls
LOWEST_LINE_BIN = 4  # below, a line is not told from the mean and the window's own width
FIRST_BIN = 2  # where the shape of the spectrum begins: the mean under a Hann window reaches bin 1
N_CELLS = 256  # equal parts of the spectrum that its shape is told from
UNKNOWN = float("nan")


class Levels(NamedTuple):
    """What the bands, cells and lines of each row hold.

    Attributes:
        velocity_mm_s, displacement_um: shape (n_rows,), RMS of the severity band.
        bands_m_s2: shape (n_rows, n_bands), RMS acceleration.
        cells: shape (n_rows, n_cells), mean square acceleration of equal parts of the spectrum, (m/s2)^2; total: their sums,
            shape (n_rows,); centroid_hz: shape (n_rows,), their mean place.
        lines_mm_s: by feature, shape (n_rows,), RMS velocity.
    """

    velocity_mm_s: F64
    displacement_um: F64
    bands_m_s2: F32
    cells: F32
    total: F64
    centroid_hz: F64
    lines_mm_s: dict[str, F64]


class Analysis:
    """All sums run over squares of real and imaginary parts as they lie in memory: no complex magnitude is taken.

    One pass adds the bins between all edges of bands and cells; both are then sums of a few hundred numbers.
    """

    def __init__(self, plan: Plan) -> None:
        self._velocity = _interleaved(plan.bins(plan.velocity_band_hz))
        weights = [integration_weights(plan, plan.velocity_band_hz, times) for times in (1, 2)]
        self._integrated = np.repeat(np.stack(weights), 2, axis=1)
        self._edges, self._cells, self._bands = _grid(plan)
        edges = self._edges[self._cells] / 2
        middles_hz = (edges[1:] + edges[:-1] - 1) / 2 * plan.bin_hz
        self._total_and_first = np.stack([np.ones_like(middles_hz), middles_hz]).astype(np.float32)
        self._lines = Lines(plan)

    def __call__(self, rows: Rows) -> Levels:
        severity = np.sqrt(dots(rows.power[:, None, self._velocity], self._integrated))
        parts = np.add.reduceat(rows.power, self._edges, axis=1)
        cells = np.add.reduceat(parts, self._cells, axis=1)[:, :-1]
        total_and_first = dots(cells[:, None], self._total_and_first)
        return Levels(
            velocity_mm_s=severity[:, 0],
            displacement_um=severity[:, 1],
            bands_m_s2=np.sqrt(np.add.reduceat(parts, self._bands, axis=1)[:, ::2])
            if self._bands.size
            else cells[:, :0],
            cells=cells,
            total=total_and_first[:, 0],
            centroid_hz=total_and_first[:, 1] / total_and_first[:, 0],
            lines_mm_s=self._lines(rows),
        )


class Lines:
    """RMS velocity of every line column: root of the sum of the five bins about each line, over 2 pi f of the line itself.

    A column of several lines is their root sum of squares, NaN where one of them is not within the spectrum.
    """

    def __init__(self, plan: Plan) -> None:
        self._names, self._at, self._first = plan.lines_of("spectrum")
        self._bin_mm = MM_PER_M / (2 * np.pi * plan.bin_hz)  # m/s2 in bin 1 to mm/s
        self._last_bin = plan.n_samples // 2 - LINE_BINS // 2

    def __call__(self, rows: Rows) -> dict[str, F64]:
        if not self._names:
            return {}
        centre = within(rows.line_bins[:, self._at], LOWEST_LINE_BIN, self._last_bin)
        start = np.rint(np.fmax(centre, LOWEST_LINE_BIN)).astype(np.intp) - LINE_BINS // 2
        square_m2_s4 = np.add.reduce(stretches(rows.power, 2 * start, 2 * LINE_BINS), axis=-1)
        square_mm2_s2 = square_m2_s4 * np.square(self._bin_mm / centre)
        rms = np.sqrt(np.add.reduceat(square_mm2_s2, self._first, axis=1))
        return dict(zip(self._names, rms.T, strict=True))


def integration_weights(plan: Plan, band_hz: tuple[float, float], times: int) -> F32:
    """What a bin's square acceleration, (m/s2)^2, is multiplied with to be a square velocity, (mm/s)^2, or, integrated
    twice, a square displacement, um^2: (1000 / (2 pi f))^(2 times), less what the Hann window smears.

    A line leaks to its neighbours, where 1/f^2k is not the line's own: on average it gains k (2k + 1) / 3 (bin / f)^2, because
    a Hann window's spectrum has the variance of one third bin^2 and 1/f^2k the curvature 2k (2k + 1) / f^(2k + 2). Taking that
    out makes the velocity of a tone of 24 Hz in a one-second window read 0.001 % off instead of 0.09 %.
    """
    bins = plan.bins(band_hz)
    frequency_hz = np.arange(bins.start, bins.stop) * plan.bin_hz
    smeared = times * (2 * times + 1) / 3 * np.square(plan.bin_hz / frequency_hz)
    weights: F32 = ((MM_PER_M / (2 * np.pi * frequency_hz)) ** (2 * times) * np.maximum(1 - smeared, 0)).astype(
        np.float32
    )
    return weights


def _grid(plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of one pass over the power, and where cells and bands begin (and bands end) among its sums.

    Cells: N_CELLS of equal width, to the bin, over the whole spectrum. Each list ends so that the last sum of all, from
    there to the array's end, is nobody's.
    """
    n_cells = min(N_CELLS, plan.last_bin - FIRST_BIN)
    cells = np.rint(np.linspace(FIRST_BIN, plan.last_bin, n_cells + 1)).astype(np.intp)
    bands = np.array([edge for band in map(plan.bins, plan.bands_hz) for edge in (band.start, band.stop)], np.intp)
    edges = np.array(sorted({*cells.tolist(), *bands.tolist()}))  # np.unique would load numpy.ma, 1.3 MiB
    return 2 * edges, np.searchsorted(edges, cells), np.searchsorted(edges, bands)


def _interleaved(bins: slice) -> slice:
    """The same bins where real and imaginary parts lie side by side."""
    return slice(2 * bins.start, 2 * bins.stop)


@dataclass(frozen=True, slots=True)
class ShaftLines:
    """Lines at fixed multiples of shaft speed."""

    orders: tuple[float, ...]

    def __call__(self, nameplate: Nameplate, point: OperatingPoint) -> tuple[float, ...]:
        return tuple(order * point.shaft_speed_rpm / 60 for order in self.orders)


@dataclass(frozen=True, slots=True)
class SupplyLine:
    """A line at a multiple of the frequency that the motor is fed with: the measured one, else the plate's."""

    times: float

    def __call__(self, nameplate: Nameplate, point: OperatingPoint) -> float:
        measured = point.line_frequency_hz
        return self.times * (measured if math.isfinite(measured) else nameplate.line_frequency_hz)


def _vane_sidebands_hz(nameplate: Nameplate, point: OperatingPoint) -> tuple[float, float]:
    vane_pass_hz, shaft_hz = nameplate.vane_pass_hz(point), point.shaft_speed_rpm / 60
    return vane_pass_hz - shaft_hz, vane_pass_hz + shaft_hz


def _gear_mesh_hz(nameplate: Nameplate, point: OperatingPoint) -> float:
    return (nameplate.data.n_gear_teeth or UNKNOWN) * point.shaft_speed_rpm / 60


_SEVERITY_SOURCE = "ISO 20816-1, broad-band RMS {} 10 Hz to 1 kHz; Parseval's theorem, divided by {} in the spectrum"


@feature(
    version=1,
    words="vibration velocity",
    source=_SEVERITY_SOURCE.format("velocity", "2 pi f"),
    moved_by=(
        "unbalance",
        "misalignment",
        "looseness",
        "bent_shaft",
        "dead_head",
        "clogged_impeller",
        "air_gap_eccentricity",
        "stator_electrical",
        "coupling_wear",
        "supply_unbalance",
        "broken_rotor_bar",
        "recirculation",
    ),
    over_axes="root_sum_square",
)
def velocity_rms_mm_s(levels: Levels, column: Column) -> F64:
    """The quantity that vibration zones are stated in. Integrated in the spectrum, so an offset cannot become drift."""
    return levels.velocity_mm_s


@feature(
    version=1,
    words="vibration displacement",
    source=_SEVERITY_SOURCE.format("displacement", "(2 pi f)^2"),
    moved_by=("unbalance", "misalignment", "looseness", "bent_shaft", "clogged_impeller", "broken_rotor_bar"),
    over_axes="root_sum_square",
)
def displacement_rms_um(levels: Levels, column: Column) -> F64:
    """What slow machines are judged by: the lowest lines weigh most."""
    return levels.displacement_um


@feature(
    version=1,
    words="vibration velocity against the norm's zone",
    source="ISO 20816-1, evaluation zones: RMS velocity of every axis by itself over a zone's boundary",
    moved_by=(
        "unbalance",
        "misalignment",
        "looseness",
        "air_gap_eccentricity",
        "bent_shaft",
        "clogged_impeller",
        "dead_head",
        "stator_electrical",
        "coupling_wear",
        "supply_unbalance",
        "broken_rotor_bar",
    ),
    parameters=("boundary_mm_s",),
)
def zone_ratio(levels: Levels, column: Column) -> F64:
    """RMS velocity of the worst axis over `boundary_mm_s`, such as that between zones B and C: 1 is not for long."""
    return levels.velocity_mm_s / column.parameter("boundary_mm_s")


@feature(
    version=1,
    words="acceleration {low} to {high} Hz",
    source="Parseval's theorem on the Hann spectrum, lower edge within, upper edge without",
    moved_by=(
        "lubrication",
        "cavitation",
        "bearing_outer_race",
        "bearing_inner_race",
        "bearing_ball_cage",
        "looseness",
        "misalignment",
        "unbalance",
        "recirculation",
        "dry_run",
        "dead_head",
        "over_greasing",
        "air_entrainment",
        "bearing_fluting",
        "broken_rotor_bar",
        "clogged_impeller",
        "air_gap_eccentricity",
        "bent_shaft",
        "coupling_wear",
        "stator_electrical",
        "supply_unbalance",
    ),
    over_axes="root_sum_square",
    parameters=("band",),
)
def band_rms_m_s2(levels: Levels, column: Column) -> F32:
    """RMS acceleration in one of the profile's bands; the parameter `band` counts them from 0."""
    return levels.bands_m_s2[:, int(column.parameter("band"))]


@feature(
    version=1,
    words="centre of the spectrum",
    source="power-weighted mean frequency of 256 equal parts of the Hann spectrum",
    moved_by=(
        "misalignment",
        "looseness",
        "unbalance",
        "bearing_outer_race",
        "bearing_inner_race",
        "bearing_ball_cage",
        "cavitation",
        "lubrication",
        "dead_head",
        "air_gap_eccentricity",
        "recirculation",
        "bearing_fluting",
        "air_entrainment",
        "stator_electrical",
    ),
)
def centroid_hz(levels: Levels, column: Column) -> F64:
    """Where the vibration's power lies: impacts, hiss and cavitation pull it up, unbalance pulls it down."""
    return levels.centroid_hz


@feature(
    version=1,
    words="evenness of the spectrum (entropy)",
    source="Shannon 1948, of the shares of power in 256 equal parts of the spectrum, over its largest possible value",
    moved_by=(
        "misalignment",
        "looseness",
        "unbalance",
        "bearing_outer_race",
        "bearing_inner_race",
        "bearing_ball_cage",
        "cavitation",
        "lubrication",
        "dead_head",
        "air_gap_eccentricity",
        "stator_electrical",
        "supply_unbalance",
        "recirculation",
        "bearing_fluting",
    ),
    transform="linear",
)
def entropy_ratio(levels: Levels, column: Column) -> F64:
    """1 for white noise, 0 for a single tone."""
    surprise = dots(levels.cells, np.log(levels.cells)) / levels.total
    return (np.log(levels.total) - surprise) / math.log(levels.cells.shape[1])


@feature(
    version=1,
    words="noise floor of the spectrum",
    source="median of the power in 256 equal parts of the spectrum, times 256: lines and humps fill few parts and move no median",
    moved_by=(
        "cavitation",
        "lubrication",
        "bearing_outer_race",
        "bearing_inner_race",
        "bearing_ball_cage",
        "bearing_fluting",
        "dead_head",
        "over_greasing",
        "recirculation",
    ),
    over_axes="root_sum_square",
)
def noise_floor_m_s2(levels: Levels, column: Column) -> F64:
    """RMS acceleration that the floor alone would have if it lay under the whole spectrum."""
    n_cells = levels.cells.shape[1]
    ordered = np.partition(levels.cells, n_cells // 2, axis=1)
    floor: F64 = np.sqrt(np.float64(n_cells) * ordered[:, n_cells // 2])
    return floor


_LINE_SOURCE = "ISO 13373-2, discrete components; RMS of the five bins of the Hann line, velocity"


@feature(
    version=1,
    words="0.5x line",
    source=_LINE_SOURCE,
    moved_by=("looseness",),
    over_axes="root_sum_square",
    line_hz=ShaftLines((0.5,)),
)
def line_half_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity at once in two turns: parts that rub or lift off come round every second turn."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="1x line",
    source=_LINE_SOURCE,
    moved_by=("unbalance", "misalignment", "looseness", "clogged_impeller", "bent_shaft", "broken_rotor_bar"),
    over_axes="root_sum_square",
    line_hz=ShaftLines((1.0,)),
)
def line_1x_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity at once per turn."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="2x line",
    source=_LINE_SOURCE,
    moved_by=("misalignment", "looseness", "coupling_wear", "bent_shaft"),
    over_axes="root_sum_square",
    line_hz=ShaftLines((2.0,)),
)
def line_2x_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity at twice per turn."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="3x line",
    source=_LINE_SOURCE,
    moved_by=("looseness", "misalignment", "coupling_wear", "air_gap_eccentricity"),
    over_axes="root_sum_square",
    line_hz=ShaftLines((3.0,)),
)
def line_3x_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity at three times per turn."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="4x to 10x lines",
    source=_LINE_SOURCE + "; root sum of squares of seven lines",
    moved_by=(
        "looseness",
        "dry_run",
        "air_gap_eccentricity",
        "dead_head",
        "stator_electrical",
        "supply_unbalance",
        "recirculation",
        "clogged_impeller",
    ),
    over_axes="root_sum_square",
    line_hz=ShaftLines((4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)),
    n_lines=7,
)
def harmonics_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity of the fourth to tenth harmonic together: what is loose strikes, and a blow has them all."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="vane pass line",
    source=_LINE_SOURCE + "; number of vanes times shaft speed",
    moved_by=("recirculation", "looseness", "dry_run", "cavitation", "dead_head"),
    over_axes="root_sum_square",
    line_hz=Nameplate.vane_pass_hz,
)
def vane_pass_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity at vanes times shaft speed: rises with recirculation, becomes unsteady with cavitation."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="sidebands of the vane pass line",
    source=_LINE_SOURCE + "; one shaft turn below and above vane pass",
    moved_by=("clogged_impeller", "recirculation", "looseness"),
    over_axes="root_sum_square",
    line_hz=_vane_sidebands_hz,
    n_lines=2,
)
def vane_sidebands_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity of the two lines beside vane pass: vanes that are not alike, one of them clogged or broken."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="line at supply frequency",
    source=_LINE_SOURCE + "; also what a cable picks up",
    moved_by=("stator_electrical",),
    over_axes="root_sum_square",
    line_hz=SupplyLine(1.0),
)
def line_1xlf_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity at the frequency that the motor is fed with; on a two-pole motor next to shaft speed."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="line at twice supply frequency",
    source=_LINE_SOURCE + "; magnetic pull follows the square of the field",
    moved_by=("stator_electrical", "supply_unbalance", "air_gap_eccentricity", "phase_loss"),
    over_axes="root_sum_square",
    line_hz=SupplyLine(2.0),
)
def line_2xlf_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity at twice the frequency the motor is fed with; needs no shaft speed."""
    return levels.lines_mm_s[column.feature]


@feature(
    version=1,
    words="gear mesh line",
    source=_LINE_SOURCE + "; teeth of the wheel on this shaft times shaft speed",
    moved_by=(),
    over_axes="root_sum_square",
    line_hz=_gear_mesh_hz,
)
def gear_mesh_mm_s(levels: Levels, column: Column) -> F64:
    """RMS velocity at gear mesh, for the machines that have a gear."""
    return levels.lines_mm_s[column.feature]
