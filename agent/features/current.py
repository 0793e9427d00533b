"""Motor current signature: what a cage, an air gap and a supply leave in the current of a phase.

Here the rows of a block are phase currents in amperes, of ten seconds or more (1 kHz is plenty): a broken bar shows 2 to 3 Hz
beside the fundamental, 35 dB below it. The fundamental is found in the burst itself, next to the nominal supply frequency, and
all else is told from where it truly stands; before its sidebands are read, its own line is taken out of the spectrum, to as
far as the window smears it.

Signatures hold for a loaded motor on the mains. A drive's control makes sidebands of its own, a load that pulsates at twice
slip frequency looks like a broken bar, and a supply that wanders within the burst leaves a skirt that nothing takes away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agent.features.feature import Column, Plan, Rows, feature
from agent.features.fourier import C64
from agent.features.nameplate import Nameplate
from agent.features.speed import pole_pairs, supply_hz
from agent.vocabulary import F32, F64, OperatingPoint

UNKNOWN = float("nan")
SUPPLY_RATIO = 0.05  # how far the fundamental may be from the nominal frequency
LEAST_SHARE = 0.5  # of the mean square current, that the fundamental has; else this is no running motor
LOWEST_BIN = 4  # below, a line is not told from the mean
RESOLVED_BINS = (
    4.0  # sidebands nearer than this are not told from the fundamental: slip is too small, or the burst too short
)
SLIP_RATIO = 0.15  # how far twice slip frequency may be off: speed and current are not of the same second
SHAFT_BINS = 2.0  # how far f +- fr may be off
LAST_HARMONIC = 40  # IEC 61000-4-7


class Signature(NamedTuple):
    """Of one phase: where the fundamental stands; amplitudes over its own. NaN where not told."""

    fundamental_hz: float = UNKNOWN
    harmonics_ratio: float = UNKNOWN
    broken_bar_ratio: float = UNKNOWN
    eccentricity_ratio: float = UNKNOWN


@dataclass(frozen=True, slots=True, eq=False)
class Currents:
    """RMS current of each row, shape (n_rows,), and its signature."""

    rms_a: F64
    signatures: tuple[Signature, ...]

    def of(self, name: str) -> F64:
        """One number of every signature, shape (n_rows,)."""
        return np.array([getattr(signature, name) for signature in self.signatures])


class Analysis:
    """One fundamental a row, then sums of the three bins that hold a Hann line, wherever one is expected."""

    def __init__(self, plan: Plan) -> None:
        self._bin_hz = plan.bin_hz
        self._last = plan.last_bin - 3
        self._names, self._at, self._first = plan.lines_of("current")

    def __call__(self, rows: Rows) -> Currents:
        rms_a = rows.moments.rms_m_s2  # the rows are amperes here
        lines = rows.line_bins[:, self._at]
        lines = np.broadcast_to(lines, (len(rms_a), lines.shape[1]))
        return Currents(rms_a, tuple(map(self._signature, rows.spectrum, lines, np.square(rms_a))))

    def _signature(self, spectrum: C64, lines: F64, mean_square: float) -> Signature:
        """The lines of a column stand evenly about the nominal supply frequency, and are as far from it as is asked for."""
        asked = dict(zip(self._names, np.split(lines, self._first[1:]), strict=True)) if self._names else {}
        nominal = next((float(own.mean()) for own in asked.values() if np.isfinite(own).all()), UNKNOWN)
        if not LOWEST_BIN < nominal * (1 - SUPPLY_RATIO) < nominal * (1 + SUPPLY_RATIO) < self._last:
            return Signature()
        power = np.square(np.abs(spectrum))
        at = _fundamental(spectrum, nominal)
        height = math.sqrt(_line_power(power, at)) if at > 0 else 0.0
        if not height > math.sqrt(LEAST_SHARE * mean_square):
            return Signature()
        apart = {name: float(own[-1] - own[0]) / 2 for name, own in asked.items()}
        # a higher supply at the same speed is more slip
        twice_slip = apart.get(broken_bar_db.id, UNKNOWN) + 2 * (at - nominal)
        shaft = apart.get(eccentricity_db.id, UNKNOWN)
        return Signature(
            at * self._bin_hz,
            self._harmonics(power, at) / height,
            self._sidebands(spectrum, at, twice_slip) / height,
            self._beside(power, at, shaft, SHAFT_BINS) / height,
        )

    def _harmonics(self, power: F32, at: float) -> float:
        """Root sum of squares of the harmonics that the sensor's rate holds; NaN where it holds none."""
        orders = range(2, min(LAST_HARMONIC, int(self._last / at)) + 1)
        return math.sqrt(sum(_line_power(power, order * at) for order in orders)) if orders else UNKNOWN

    def _sidebands(self, spectrum: C64, at: float, twice_slip: float) -> float:
        """The stronger one of two lines at twice slip frequency to each side; NaN where they are not resolved."""
        if not twice_slip >= RESOLVED_BINS:
            return UNKNOWN
        rest = np.square(np.abs(without_line(spectrum, at)))
        return self._beside(rest, at, twice_slip, max(1.0, SLIP_RATIO * twice_slip))

    def _beside(self, power: F32, at: float, apart: float, reach: float) -> float:
        """Amplitude of the strongest line within `reach` bins of `at` - `apart` and `at` + `apart`; NaN where both are out."""
        places = [side + away for side in (at - apart, at + apart) for away in np.arange(-reach, reach + 0.5)]
        found = [_line_power(power, place) for place in places if LOWEST_BIN <= place <= self._last]
        return math.sqrt(max(found)) if found else UNKNOWN


def _fundamental(spectrum: C64, nominal: float) -> float:
    """Where the strongest line near a nominal place stands, between the bins: exact for a single line under a Hann window."""
    low, high = (round(nominal * (1 + side * SUPPLY_RATIO)) for side in (-1, 1))
    height = np.abs(spectrum[low - 1 : high + 2])
    peak = 1 + int(height[1:-1].argmax())
    left, top, right = height[peak - 1 : peak + 2].tolist()
    return low - 1 + peak + 2 * (right - left) / (left + 2 * top + right) if top > 0 else UNKNOWN


def _line_power(power: F32, at: float) -> float:
    """Mean square of a Hann line: the three bins about it hold 98 % of it or more, wherever it falls."""
    centre = round(at)
    return float(power[centre - 1 : centre + 2].sum())


def without_line(spectrum: C64, at: float) -> C64:
    """The spectrum less one steady line at `at` bins, whose height and phase are those of the bin next to it.

    A periodic Hann window makes of a line three shifted sincs (a sinc and half of each neighbour), turned by half a turn a bin.
    """
    away = at - np.arange(spectrum.size)
    shape = np.exp(1j * np.pi * away) * (np.sinc(away) + 0.5 * np.sinc(away - 1) + 0.5 * np.sinc(away + 1))
    peak = round(at)
    rest: C64 = spectrum - (spectrum[peak] / shape[peak]) * shape
    return rest


def _bar_sidebands(nameplate: Nameplate, point: OperatingPoint) -> tuple[float, float]:
    """(1 - 2s) f and (1 + 2s) f; s f is the supply less the rotor's electrical speed."""
    supply = supply_hz(nameplate, point)
    twice_slip_hz = 2 * (supply - pole_pairs(nameplate) * point.shaft_speed_rpm / 60)
    return supply - twice_slip_hz, supply + twice_slip_hz


def _shaft_sidebands(nameplate: Nameplate, point: OperatingPoint) -> tuple[float, float]:
    """f - fr and f + fr."""
    supply, shaft_hz = supply_hz(nameplate, point), point.shaft_speed_rpm / 60
    return supply - shaft_hz, supply + shaft_hz


def _decibels(ratios: F64) -> F64:
    """20 log10 of amplitudes over the fundamental's: -35 dB is 1.8 %."""
    return 20 * np.log10(ratios)


@feature(
    version=1,
    words="current of the phase",
    source="root of the central second moment",
    moved_by=("overload", "load_loss", "stator_electrical"),
)
def rms_a(currents: Currents, column: Column) -> F64:
    """RMS current, all frequencies of the sensor, of the phase that has most."""
    return currents.rms_a


@feature(
    version=1,
    words="supply frequency, from the current",
    source="three-point interpolation of the strongest Hann line within 5 % of the nominal frequency",
    moved_by=(),
    transform="linear",
    line_hz=supply_hz,
)
def fundamental_hz(currents: Currents, column: Column) -> F64:
    """What the motor is really fed with; absent where no line holds half of the current's power."""
    return currents.of("fundamental_hz")


@feature(
    version=1,
    words="harmonic distortion of the current",
    source="IEC 61000-4-7: harmonics 2 to 40, or as many as the sample rate holds, over the fundamental",
    moved_by=("stator_electrical",),
    line_hz=supply_hz,
)
def thd_pct(currents: Currents, column: Column) -> F64:
    """Root sum of squares of the harmonics over the fundamental. High behind a drive: compare with the machine's own normal."""
    return 100 * currents.of("harmonics_ratio")


@feature(
    version=1,
    words="broken-bar sideband of the current",
    source="ISO 20958, electrical signature analysis: (1 - 2s) f and (1 + 2s) f, the stronger, against the fundamental",
    moved_by=("broken_rotor_bar",),
    transform="linear",
    line_hz=_bar_sidebands,
    n_lines=2,
)
def broken_bar_db(currents: Currents, column: Column) -> F64:
    """A gap in the cage turns with slip, and beats with twice slip frequency in the stator's current.

    n of N bars broken on p pole pairs: about sin(a) / (2p (2 pi - a)) of the fundamental, a = 2 pi p n / N: -35 dB for one of 28
    on four poles, -29 dB for two. Below -54 dB is good at half load or more. Absent where slip is too small for the burst.
    """
    return _decibels(currents.of("broken_bar_ratio"))


@feature(
    version=1,
    words="eccentricity sideband of the current",
    source="ISO 20958, electrical signature analysis: f - fr and f + fr, the stronger, against the fundamental",
    moved_by=("air_gap_eccentricity",),
    transform="linear",
    line_hz=_shaft_sidebands,
    n_lines=2,
)
def eccentricity_db(currents: Currents, column: Column) -> F64:
    """An air gap that is narrow on one side, and turns: static and dynamic eccentricity together modulate once a turn.

    So does a load that is uneven over a turn. Higher multiples of fr are left out: 2p fr - f is the broken bar's own line.
    """
    return _decibels(currents.of("eccentricity_ratio"))
