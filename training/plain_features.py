"""Every burst feature in its plain, textbook form: scipy.signal, scipy.stats and NumPy in float64, one function a feature.

Nothing is shared and nothing is fast: each function computes what it needs itself, as somebody would write it from the
book who needs this one number. It is what the tests hold agent/features against, and the yardstick "naive SciPy" of
`hark bench features`. Never imported at the edge: scipy.signal and scipy.stats cost 45 MiB each.

Where a definition is ours and not the book's, the function says so. Two of them differ from agent/features by more than
rounding: the lines of the envelope, whose band here has the flanks of a Butterworth filter and there a brick wall's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import signal, stats

from agent.features import Column, FeatureSet, Nameplate
from agent.vocabulary import F64, Mask, OperatingPoint

LOWEST_LINE_BIN = 4  # lower ones are not told from the mean
HIGHEST_ENVELOPE_LINE_HZ = 1500.0
SLIP = 0.015  # a rolling bearing's lines stand up to so far beside their kinematic place
FLOOR_BINS = 24  # to each side of an envelope line: what it is compared with
FIRST_BIN = 2  # where the shape of a spectrum begins: under a Hann window the mean reaches bin 1
N_PARTS = 256  # of equal width, from which the shape of a spectrum is told


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One axis of one burst, and what its machine and its feature set say about where to look.

    Attributes:
        samples_m_s2: shape (n_samples,), finite. sample_rate_hz: the true one.
        features: whose bands are meant. nameplate, point: unknown speed, bearing or supply makes a line NaN.
    """

    samples_m_s2: F64
    sample_rate_hz: float
    features: FeatureSet
    nameplate: Nameplate
    point: OperatingPoint

    @property
    def shaft_hz(self) -> float:
        return self.point.shaft_speed_rpm / 60

    @property
    def vane_pass_hz(self) -> float:
        return math.nan if self.nameplate.n_vanes is None else self.nameplate.n_vanes * self.shaft_hz

    @property
    def gear_mesh_hz(self) -> float:
        n_teeth = self.nameplate.data.n_gear_teeth
        return math.nan if n_teeth is None else n_teeth * self.shaft_hz

    @property
    def supply_hz(self) -> float:
        measured = self.point.line_frequency_hz
        return measured if math.isfinite(measured) else self.nameplate.line_frequency_hz

    def bearing_hz(self, order: str) -> float:
        """Frequency of "bpfo", "bpfi", "bsf" or "ftf"."""
        return math.nan if self.nameplate.bearing is None else getattr(self.nameplate.bearing, order) * self.shaft_hz


def plain_value(column: Column, record: Record) -> float:
    """What one burst column should read on this axis; NaN where its line is not known.

    Raises: KeyError: the feature has no plain form here.
    """
    return float(PLAIN[column.feature](record, **dict(column.parameters)))


# --- in time


def mean_m_s2(record: Record) -> float:
    """Size of the arithmetic mean: a sensor may be screwed on either way round."""
    return float(np.abs(np.mean(record.samples_m_s2)))


def rms_m_s2(record: Record) -> float:
    """Root mean square about the mean: the population's standard deviation."""
    return float(np.std(record.samples_m_s2))


def peak_m_s2(record: Record) -> float:
    """Largest distance from the mean."""
    return float(np.max(np.abs(record.samples_m_s2 - np.mean(record.samples_m_s2))))


def crest_ratio(record: Record) -> float:
    """Peak over RMS."""
    return peak_m_s2(record) / rms_m_s2(record)


def skewness_ratio(record: Record) -> float:
    """m3 / m2^1.5; ours is that the sign is left out: a sensor may be screwed on either way round."""
    return float(np.abs(stats.skew(record.samples_m_s2)))


def kurtosis_ratio(record: Record) -> float:
    """Pearson's m4 / m2^2."""
    return float(stats.kurtosis(record.samples_m_s2, fisher=False))


# --- in the spectrum


def _periodogram(record: Record) -> tuple[F64, F64]:
    """Frequencies, and power spectral density in (m/s2)^2/Hz under a Hann window, shape (n_samples // 2 + 1,)."""
    hz, density = signal.periodogram(record.samples_m_s2, record.sample_rate_hz, "hann", detrend="constant")
    return hz, density


def _inside(hz: F64, band_hz: tuple[float, float]) -> Mask:
    """Lower edge within, upper edge without; mean and Nyquist never belong."""
    mask: Mask = (hz >= band_hz[0]) & (hz < band_hz[1]) & (hz > 0) & (hz < hz[-1])
    return mask


def band_rms_m_s2(record: Record, band: float) -> float:
    """RMS acceleration in one of the set's bands."""
    hz, density = _periodogram(record)
    return math.sqrt(hz[1] * np.sum(density[_inside(hz, record.features.bands_hz[int(band)])]))


def velocity_rms_mm_s(record: Record) -> float:
    """Acceleration over 2 pi f; ours is that the share (bin/f)^2 that a Hann line's skirt adds is taken out."""
    hz, density = _periodogram(record)
    inside = _inside(hz, record.features.velocity_band_hz)
    f = hz[inside]
    skirt = np.square(hz[1] / f)
    return 1e3 * math.sqrt(hz[1] * np.sum(density[inside] * np.maximum(1 - skirt, 0) / (2 * np.pi * f) ** 2))


def displacement_rms_um(record: Record) -> float:
    """Acceleration over (2 pi f)^2, in the band of velocity; the skirt of a Hann line adds 10/3 (bin/f)^2 here."""
    hz, density = _periodogram(record)
    inside = _inside(hz, record.features.velocity_band_hz)
    f = hz[inside]
    skirt = 10 / 3 * np.square(hz[1] / f)
    return 1e6 * math.sqrt(hz[1] * np.sum(density[inside] * np.maximum(1 - skirt, 0) / (2 * np.pi * f) ** 4))


def zone_ratio(record: Record, boundary_mm_s: float) -> float:
    """RMS velocity over a zone's boundary."""
    return velocity_rms_mm_s(record) / boundary_mm_s


def _lines_mm_s(record: Record, lines_hz: Iterable[float]) -> float:
    """RMS velocity of lines together: five bins about each, over 2 pi f of the line itself; NaN where one is not there."""
    hz, density = _periodogram(record)
    total = 0.0
    for line_hz in lines_hz:
        if not LOWEST_LINE_BIN * hz[1] <= line_hz <= hz[-1] - 2 * hz[1]:
            return math.nan
        at = int(np.rint(line_hz / hz[1]))
        total += np.sum(density[at - 2 : at + 3]) * hz[1] / (2 * np.pi * line_hz) ** 2
    return 1e3 * math.sqrt(total)


def line_half_mm_s(record: Record) -> float:
    """Half of shaft speed."""
    return _lines_mm_s(record, [0.5 * record.shaft_hz])


def line_1x_mm_s(record: Record) -> float:
    """Shaft speed."""
    return _lines_mm_s(record, [record.shaft_hz])


def line_2x_mm_s(record: Record) -> float:
    """Twice shaft speed."""
    return _lines_mm_s(record, [2 * record.shaft_hz])


def line_3x_mm_s(record: Record) -> float:
    """Three times shaft speed."""
    return _lines_mm_s(record, [3 * record.shaft_hz])


def harmonics_mm_s(record: Record) -> float:
    """Four to ten times shaft speed, together."""
    return _lines_mm_s(record, [order * record.shaft_hz for order in range(4, 11)])


def vane_pass_mm_s(record: Record) -> float:
    """Vanes times shaft speed."""
    return _lines_mm_s(record, [record.vane_pass_hz])


def vane_sidebands_mm_s(record: Record) -> float:
    """One shaft speed to each side of vane pass, together."""
    return _lines_mm_s(record, [record.vane_pass_hz - record.shaft_hz, record.vane_pass_hz + record.shaft_hz])


def line_1xlf_mm_s(record: Record) -> float:
    """Supply frequency."""
    return _lines_mm_s(record, [record.supply_hz])


def line_2xlf_mm_s(record: Record) -> float:
    """Twice supply frequency."""
    return _lines_mm_s(record, [2 * record.supply_hz])


def gear_mesh_mm_s(record: Record) -> float:
    """Teeth of the shaft's wheel times shaft speed."""
    return _lines_mm_s(record, [record.gear_mesh_hz])


def _parts(record: Record) -> tuple[F64, F64]:
    """Middle frequency and mean square acceleration of 256 parts of the spectrum, of equal width to the bin, shape (256,)."""
    hz, density = _periodogram(record)
    edges = np.rint(np.linspace(FIRST_BIN, hz.size - 1, N_PARTS + 1)).astype(int)
    bins = [slice(start, stop) for start, stop in pairwise(edges)]
    return np.array([np.mean(hz[part]) for part in bins]), np.array([hz[1] * np.sum(density[part]) for part in bins])


def centroid_hz(record: Record) -> float:
    """Mean frequency, weighted with power; ours is that a part's power counts as if it stood in its middle."""
    hz, power = _parts(record)
    return float(np.average(hz, weights=power))


def entropy_ratio(record: Record) -> float:
    """Shannon entropy of the power in 256 parts, over its largest value: 1 for white noise."""
    _, power = _parts(record)
    return float(stats.entropy(power) / math.log(N_PARTS))


def noise_floor_m_s2(record: Record) -> float:
    """Ours: the (upper) median of the power in 256 parts, as the RMS that 256 such parts have."""
    _, power = _parts(record)
    return math.sqrt(N_PARTS * np.sort(power)[N_PARTS // 2])


# --- in the envelope


def envelope_rms_m_s2(record: Record) -> float:
    """RMS acceleration in the envelope's band."""
    hz, density = _periodogram(record)
    return math.sqrt(hz[1] * np.sum(density[_inside(hz, record.features.envelope_band_hz)]))


def spectral_kurtosis_ratio(record: Record) -> float:
    """E|z|^4 / (E|z|^2)^2 - 2 of the complex envelope z of the envelope's band: 0 for Gaussian noise, -1 for a tone.

    z is cut out of the Hann spectrum, so the window is in it; its own share 35/18 = E w^4 / (E w^2)^2 is taken out.
    Source: Antoni 2006, the spectral kurtosis.
    """
    x = record.samples_m_s2 - np.mean(record.samples_m_s2)
    spectrum = np.fft.fft(x * signal.get_window("hann", x.size))
    hz = np.fft.fftfreq(x.size, 1 / record.sample_rate_hz)
    low_hz, high_hz = record.features.envelope_band_hz
    square = np.square(np.abs(np.fft.ifft(np.where((hz >= low_hz) & (hz < high_hz), spectrum, 0))))
    return float(np.mean(np.square(square)) / np.square(np.mean(square)) / (35 / 18) - 2)


def _squared_envelope(record: Record) -> tuple[F64, F64]:
    """The band, cut by a Butterworth filter of order 4, there and back, as the square of its envelope; and the window that
    ours has: Hann squared, for both factors of |z|^2 bring one."""
    bands = signal.butter(4, record.features.envelope_band_hz, "bandpass", fs=record.sample_rate_hz, output="sos")
    analytic = signal.hilbert(signal.sosfiltfilt(bands, record.samples_m_s2))
    return np.square(np.abs(analytic)), np.square(signal.get_window("hann", record.samples_m_s2.size))


def cavitation_index_m_s2(record: Record) -> float:
    """RMS of the band times the depth of its modulation at vane pass: amplitude of the squared envelope's line over its mean.

    Ours: the line is searched within 1.5 % and at least one bin.
    """
    square, window = _squared_envelope(record)
    hz, power = signal.periodogram(square, record.sample_rate_hz, window, scaling="spectrum")
    near = np.abs(hz - record.vane_pass_hz) <= max(SLIP * record.vane_pass_hz, hz[1])
    if not near.any():
        return math.nan
    return envelope_rms_m_s2(record) * math.sqrt(2 * np.max(power[near])) / float(np.average(square, weights=window))


def _envelope_ratio(record: Record, lines_hz: Iterable[float]) -> float:
    """Peaks of the squared-envelope spectrum at the lines, summed, over the sum of their surroundings' medians.

    Ours: peaks are searched within 1.5 % and at least one bin.
    """
    square, window = _squared_envelope(record)
    hz, power = signal.periodogram(square, record.sample_rate_hz, window, scaling="spectrum")
    height = np.sqrt(power)
    side = max(FLOOR_BINS, math.ceil(SLIP * HIGHEST_ENVELOPE_LINE_HZ / hz[1]) + 1)
    peaks = floors = 0.0
    for line_hz in lines_hz:
        if not LOWEST_LINE_BIN * hz[1] <= line_hz <= HIGHEST_ENVELOPE_LINE_HZ:
            return math.nan
        centre = line_hz / hz[1]
        start = max(int(np.rint(centre)) - side, LOWEST_LINE_BIN)
        around = np.arange(start, start + 2 * side + 1)
        near = around[np.abs(around - centre) <= max(SLIP * centre, 1.0)]
        peaks += np.max(height[near])
        floors += np.median(height[around])
    return float(peaks / floors)


def _harmonics(line_hz: float) -> list[float]:
    return [line_hz, 2 * line_hz, 3 * line_hz]


def _sidebands(line_hz: float, by_hz: float) -> list[float]:
    return [line_hz - by_hz, line_hz + by_hz, 2 * line_hz - by_hz, 2 * line_hz + by_hz]


def bpfo_ratio(record: Record) -> float:
    """Outer race."""
    return _envelope_ratio(record, _harmonics(record.bearing_hz("bpfo")))


def bpfi_ratio(record: Record) -> float:
    """Inner race."""
    return _envelope_ratio(record, _harmonics(record.bearing_hz("bpfi")))


def bsf_ratio(record: Record) -> float:
    """Balls: twice their spin."""
    return _envelope_ratio(record, _harmonics(2 * record.bearing_hz("bsf")))


def ftf_ratio(record: Record) -> float:
    """Cage."""
    return _envelope_ratio(record, _harmonics(record.bearing_hz("ftf")))


def bpfi_sidebands_ratio(record: Record) -> float:
    """Inner race, one shaft speed to each side of its first two harmonics."""
    return _envelope_ratio(record, _sidebands(record.bearing_hz("bpfi"), record.shaft_hz))


def bsf_sidebands_ratio(record: Record) -> float:
    """Balls, one turn of the cage to each side of their first two harmonics."""
    return _envelope_ratio(record, _sidebands(2 * record.bearing_hz("bsf"), record.bearing_hz("ftf")))


# feature id -> its plain form; parameters of a column are passed by name
PLAIN: dict[str, Callable[..., float]] = {
    "vibration.mean_m_s2": mean_m_s2,
    "vibration.rms_m_s2": rms_m_s2,
    "vibration.peak_m_s2": peak_m_s2,
    "vibration.crest_ratio": crest_ratio,
    "vibration.skewness_ratio": skewness_ratio,
    "vibration.kurtosis_ratio": kurtosis_ratio,
    "spectrum.band_rms_m_s2": band_rms_m_s2,
    "spectrum.velocity_rms_mm_s": velocity_rms_mm_s,
    "spectrum.displacement_rms_um": displacement_rms_um,
    "spectrum.zone_ratio": zone_ratio,
    "spectrum.line_half_mm_s": line_half_mm_s,
    "spectrum.line_1x_mm_s": line_1x_mm_s,
    "spectrum.line_2x_mm_s": line_2x_mm_s,
    "spectrum.line_3x_mm_s": line_3x_mm_s,
    "spectrum.harmonics_mm_s": harmonics_mm_s,
    "spectrum.vane_pass_mm_s": vane_pass_mm_s,
    "spectrum.vane_sidebands_mm_s": vane_sidebands_mm_s,
    "spectrum.line_1xlf_mm_s": line_1xlf_mm_s,
    "spectrum.line_2xlf_mm_s": line_2xlf_mm_s,
    "spectrum.gear_mesh_mm_s": gear_mesh_mm_s,
    "spectrum.centroid_hz": centroid_hz,
    "spectrum.entropy_ratio": entropy_ratio,
    "spectrum.noise_floor_m_s2": noise_floor_m_s2,
    "envelope.rms_m_s2": envelope_rms_m_s2,
    "envelope.spectral_kurtosis_ratio": spectral_kurtosis_ratio,
    "envelope.cavitation_index_m_s2": cavitation_index_m_s2,
    "envelope.bpfo_ratio": bpfo_ratio,
    "envelope.bpfi_ratio": bpfi_ratio,
    "envelope.bsf_ratio": bsf_ratio,
    "envelope.ftf_ratio": ftf_ratio,
    "envelope.bpfi_sidebands_ratio": bpfi_sidebands_ratio,
    "envelope.bsf_sidebands_ratio": bsf_sidebands_ratio,
}
