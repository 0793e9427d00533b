"""Which part of a bearing is damaged, from bursts and physics alone: nothing is trained, nothing is learned beforehand.

    verdict = name_part(rows, sample_rate_hz, shaft_speed_rpm, orders)

Four facts decide, each one number with one limit:

*Clearness.* A damaged part is heard at its own rate and at multiples of it. The heights of these lines over the floor, added
over bands and harmonics, are compared with what the same comb finds at all the rates that belong to no part: by so many
robust standard deviations the best place within the part's slip stands above their best. No distribution is assumed.

*Depth.* Every bearing has faint lines of its races, a healthy one too. A damaged race changes the vibration of some band at
every passage, and deeply. So a line must also carry a least share of some band's squared envelope.

*Coming and going.* A damaged ball turns about itself as it runs, so that its spot meets the races for a while and misses them
for a while. Strikes that come and go over several turns hide every rhythm. Where they do, and no line is deeper, the rolling
elements are named by elimination, and never with much confidence.

*Both races at once.* What runs on both races is heard at both, about as deeply, and at one speed of the cage, for what slip adds
to one line it takes from the other. A damaged race drowns the other's line. Such an even pair names the rolling elements too.

What shows none of this stays unsure. So does a bearing with a line that is clear, deep and no part's: then the speed or the
bearing is another one than was thought. Lines that a steady machine has of itself are whitened away; what stands at a
multiple of shaft speed is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from agent.features import fourier
from agent.features.bearings import BearingOrders
from agent.features.fourier import C64, NOTHING, whitened
from agent.features.subbands import HIGHEST_HZ, LOWEST_HZ, BandCutter, tapered_spectrum
from agent.vocabulary import F32, F64, Mask

BAND_HZ = 1000.0  # holds a ring and the third harmonic of an inner race at 3600 rpm, up to order 5.5
HIGHEST_LINE_HZ = 900.0  # a band's squared envelope ends where the band is wide, and fades towards it
N_HARMONICS = 3
SLIP = 0.02  # rolling is not pure, and speed is only nearly known
FLOOR_HZ = 40.0  # the floor of a spectrum is its median over so much
SHAFT_BINS = 1.5  # to each side of a multiple of shaft speed: the middle of a Hann line
BLOCK_TURNS = 2.0  # of the shaft: strikes that come and go, do so from one such block to the next
FEWEST_TURNS = 10.0  # in a burst, or its lines are wider than they stand apart

CLEAR = 4.0  # robust standard deviations
LEAST_DEPTH_RATIO = 0.2  # of a line with its harmonics; healthy bearings have half of it
LEAST_WANDER_RATIO = 0.3  # spread of the blocks over their mean; noise alone makes 0.1 to 0.2
HARMONIC_SEEN = 4.0  # times its floor
EVEN_RATIO = 0.7  # of the depths of two lines: a race that is damaged itself is about twice as deep as the other
MOST_SURE, MOST_SURE_BY_ELIMINATION = 0.95, 0.7


class Part(StrEnum):
    """What can be damaged."""

    OUTER = "outer"
    INNER = "inner"
    BALL = "ball"
    UNSURE = "unsure"


WORDS = {Part.OUTER: "outer race", Part.INNER: "inner race", Part.BALL: "rolling elements", Part.UNSURE: "no part's"}


@dataclass(frozen=True, slots=True)
class Family:
    """One part's line and its harmonics, where they stand out most within its slip; part UNSURE: of no part.

    Attributes:
        expected_hz: without slip. line_hz: as found. harmonics: those that stand out in the band where they are deepest.
        clearness: robust standard deviations above the combs of no part.
        depth_ratio: amplitude of line and harmonics over the squared envelope's mean. band_hz: where it is deepest.
    """

    part: Part
    expected_hz: float
    line_hz: float
    harmonics: tuple[int, ...]
    clearness: float
    depth_ratio: float
    band_hz: tuple[float, float]

    @property
    def is_told(self) -> bool:
        return self.clearness >= CLEAR and self.depth_ratio >= LEAST_DEPTH_RATIO

    def __str__(self) -> str:
        seen = ", ".join(map(str, self.harmonics)) or "none"
        low_hz, high_hz = self.band_hz
        return (
            f"{WORDS[self.part]} line at {self.line_hz:.1f} Hz, harmonics {seen}, "
            f"{100 * self.depth_ratio:.0f} % of the envelope from {low_hz:.0f} to {high_hz:.0f} Hz"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The named part, or unsure.

    Attributes:
        confidence: 0..1, and 0 where unsure. reason: the evidence in words.
        families: of all three parts, deepest first; empty where the bursts cannot show them.
        wander_ratio: how much strikes come and go, in the middle one of all bands.
        pair_clearness: of the lines of both races at one speed of the cage.
    """

    part: Part
    confidence: float
    reason: str
    families: tuple[Family, ...] = ()
    wander_ratio: float = math.nan
    pair_clearness: float = math.nan


def name_part(rows: F32, sample_rate_hz: float, shaft_speed_rpm: float, orders: BearingOrders) -> Verdict:
    """Name the damaged part of a bearing that is in trouble, or say that it is unsure.

    Args:
        rows: shape (n_rows, n_samples): bursts of one point at one speed, axes or times, in any unit; finite.
        shaft_speed_rpm: right to half a percent, or a line cannot be told from shaft speed's; NaN names nothing.
    Source: Randall and Antoni 2011 (squared envelope spectrum, slip); Borghesani et al. 2013 (whitening). The limits are
        round numbers; what they give on recordings of real damage, training/protocols/bearings.py measures.
    """
    shaft_hz = shaft_speed_rpm / 60
    if not rows.shape[1] / sample_rate_hz * shaft_hz >= FEWEST_TURNS:
        return Verdict(Part.UNSURE, 0.0, f"the bursts hold less than {FEWEST_TURNS:.0f} turns of a known speed")
    bands = Bands(rows.shape[1], sample_rate_hz)
    if not bands.first_bins:
        return Verdict(Part.UNSURE, 0.0, f"the bursts hold no band of {BAND_HZ:.0f} Hz above {LOWEST_HZ:.0f} Hz")
    if max(orders.bpfo, orders.bpfi, 2 * orders.bsf) * shaft_hz > HIGHEST_LINE_HZ:
        return Verdict(Part.UNSURE, 0.0, f"the bearing's lines lie above {HIGHEST_LINE_HZ:.0f} Hz")
    spectra = tapered_spectrum(np.ascontiguousarray(rows, np.float32))
    lines = Lines(bands, bands.mean_power(whitened(spectra)), shaft_hz)
    families, stray, pair_clearness = lines.families(orders)
    wander_ratio = bands.wander_ratio(spectra, shaft_hz)
    part, confidence, reason = _name(families, stray, pair_clearness, wander_ratio)
    return Verdict(part, confidence, reason, families, wander_ratio, pair_clearness)


def _name(
    families: tuple[Family, ...], stray: Family, pair_clearness: float, wander_ratio: float
) -> tuple[Part, float, str]:
    """Part, confidence, reason: an even pair of races; the deepest line that is told; what the ball alone can do; else unsure."""
    races = [family.depth_ratio for family in families if family.part in (Part.OUTER, Part.INNER)]
    if pair_clearness >= CLEAR and min(races) >= EVEN_RATIO * max(races):
        reason = "lines of both races at one speed of the cage, one as deep as the other: rolling elements"
        return Part.BALL, _confidence(pair_clearness / CLEAR, MOST_SURE_BY_ELIMINATION), reason
    for family in families:
        if family.is_told and family.depth_ratio >= wander_ratio:
            times_limit = family.depth_ratio / max(LEAST_DEPTH_RATIO, wander_ratio)
            return family.part, _confidence(times_limit, MOST_SURE), str(family)
    if stray.is_told and stray.depth_ratio >= wander_ratio:
        return Part.UNSURE, 0.0, f"{stray}; look at speed and bearing again"
    if wander_ratio >= LEAST_WANDER_RATIO:
        reason = f"strikes come and go by {100 * wander_ratio:.0f} % and no line is as deep: rolling elements"
        return Part.BALL, _confidence(wander_ratio / LEAST_WANDER_RATIO, MOST_SURE_BY_ELIMINATION), reason
    return Part.UNSURE, 0.0, "no line is both clear and deep"


def _confidence(times_limit: float, most: float) -> float:
    """One half at the limit; what lacks to 1 falls with the power, so that twice the limit is 0.88."""
    return min(1 - 0.5 / times_limit**2, most)


class Bands:
    """Bands of BAND_HZ side by side, and what is asked of their squared envelopes."""

    def __init__(self, n_samples: int, sample_rate_hz: float) -> None:
        bin_hz = sample_rate_hz / n_samples
        n_bands = math.floor((min(HIGHEST_HZ, sample_rate_hz / 2) - LOWEST_HZ) / BAND_HZ)
        self.first_bins = [round(self.limits_hz(band)[0] / bin_hz) for band in range(n_bands)]
        self._cutter = BandCutter(math.floor(BAND_HZ / bin_hz))
        self._points_hz = self._cutter.points_per_burst * bin_hz
        self.line_hz = self._points_hz / self._cutter.n_points

    @staticmethod
    def limits_hz(band: int) -> tuple[float, float]:
        low_hz = LOWEST_HZ + band * BAND_HZ
        return low_hz, low_hz + BAND_HZ

    def mean_power(self, spectra: C64) -> F64:
        """Squared amplitude of the lines of every band's squared envelope, mean of all bursts. Shape (n_bands, n_lines)."""
        n = self._cutter.n_points
        window = (np.hanning(n) * (4 / n)).astype(np.float32)  # a line's height is its amplitude
        power = np.zeros((len(self.first_bins), n // 2 + 1))
        for spectrum in spectra:
            lines = fourier.rfft((self._cutter.squared_envelopes(spectrum, self.first_bins) - 1) * window)
            power += np.square(lines.real) + np.square(lines.imag)
        return power / len(spectra)

    def wander_ratio(self, spectra: C64, shaft_hz: float) -> float:
        """Spread of blocks of the squared envelope over their mean: the middle one of all bands."""
        n_block = round(BLOCK_TURNS / shaft_hz * self._points_hz)
        blocks = np.concatenate([self._blocks(spectrum, n_block) for spectrum in spectra], axis=1)
        return float(np.median(blocks.std(axis=1) / np.maximum(blocks.mean(axis=1), NOTHING)))

    def _blocks(self, spectrum: C64, n_block: int) -> F32:
        envelopes = self._cutter.squared_envelopes(spectrum, self.first_bins)
        n_blocks = envelopes.shape[1] // n_block
        blocks: F32 = envelopes[:, : n_blocks * n_block].reshape(len(envelopes), n_blocks, n_block).mean(axis=2)
        return blocks


class Lines:
    """The lines of all bands' squared envelopes, those at multiples of shaft speed left out, and their floors."""

    def __init__(self, bands: Bands, power: F64, shaft_hz: float) -> None:
        self._bands = bands
        self._line_hz = bands.line_hz
        self._shaft_hz = shaft_hz
        self._floor = _floor(power, max(3, round(FLOOR_HZ / self._line_hz)))
        self._power = np.where(_apart_from_shaft(power.shape[1], shaft_hz / self._line_hz), power, 0.0)

    def families(self, orders: BearingOrders) -> tuple[tuple[Family, ...], Family, float]:
        """Every part's family, deepest first; the strongest that is no part's; clearness of both races as a pair."""
        expected_hz = {
            Part.OUTER: orders.bpfo * self._shaft_hz,
            Part.INNER: orders.bpfi * self._shaft_hz,
            Part.BALL: 2 * orders.bsf * self._shaft_hz,
        }
        comb = Comb(self._heights(), self._line_hz, list(expected_hz.values()))
        found = [self._family(part, own_hz, *comb.best(own_hz)) for part, own_hz in expected_hz.items()]
        stray = self._family(Part.UNSURE, math.nan, *comb.strongest_stray())
        pair_clearness = comb.pair_clearness(expected_hz[Part.OUTER], expected_hz[Part.INNER])
        return tuple(sorted(found, key=lambda family: -family.depth_ratio)), stray, pair_clearness

    def _heights(self) -> F64:
        """Logarithm of power over floor, less its median, mean of all bands: one loud band does not outvote the others."""
        heights = np.log1p(self._power / np.maximum(self._floor, NOTHING))
        mean: F64 = (heights - np.median(heights, axis=1, keepdims=True)).clip(0).mean(axis=0)
        return mean

    def _family(self, part: Part, expected_hz: float, line_hz: float, clearness: float) -> Family:
        lines = [round(harmonic * line_hz / self._line_hz) for harmonic in range(1, N_HARMONICS + 1)]
        lines = [line for line in lines if line + 1 < self._power.shape[1]]
        peaks = np.stack([self._power[:, line - 1 : line + 2].max(axis=1) for line in lines], axis=1)
        floors = self._floor[:, lines]
        depths = np.sqrt((peaks - floors).clip(0).sum(axis=1))
        deepest = int(depths.argmax())
        seen = np.flatnonzero(peaks[deepest] > HARMONIC_SEEN * floors[deepest]) + 1
        band_hz = self._bands.limits_hz(deepest)
        return Family(part, expected_hz, line_hz, tuple(seen.tolist()), clearness, float(depths[deepest]), band_hz)


class Comb:
    """Heights added over harmonics, for fundamentals from below the slowest part to above the fastest."""

    MARGIN = 1.5  # how many times below and above

    def __init__(self, heights: F64, line_hz: float, own_hz: Sequence[float]) -> None:
        self._heights, self._line_hz, self._own_hz = heights, line_hz, own_hz
        low_hz, high_hz = min(own_hz) / self.MARGIN, max(own_hz) * self.MARGIN
        self._step = line_hz / (2 * N_HARMONICS * max(own_hz))  # half a line at the highest harmonic
        self._fundamentals_hz = np.exp(np.arange(math.log(low_hz), math.log(high_hz), self._step))
        self._sums = self._sums_at(self._fundamentals_hz)

    def _sums_at(self, fundamentals_hz: F64) -> F64:
        sums = np.zeros(fundamentals_hz.shape)
        for harmonic in range(1, N_HARMONICS + 1):
            lines = np.rint(harmonic * fundamentals_hz / self._line_hz).astype(np.intp)
            sums += np.where(lines < self._heights.size, self._heights[np.minimum(lines, self._heights.size - 1)], 0.0)
        return sums

    def best(self, expected_hz: float) -> tuple[float, float]:
        """The highest comb within the slip: its fundamental, and by how many robust deviations it is above its strays.

        The flank of a higher one, less than a line beside the slip, is nothing of its own: clearness 0.
        """
        low, high = self._within(expected_hz, SLIP)
        at = int(low + self._sums[low:high].argmax())
        around_low, around_high = self._within(expected_hz, SLIP + self._line_hz / expected_hz)
        if self._sums[at] < self._sums[around_low:around_high].max():
            return float(self._fundamentals_hz[at]), 0.0
        return self._told(at)

    def strongest_stray(self) -> tuple[float, float]:
        """The same of the highest comb that is no part's."""
        return self._told(int(np.where(self._is_stray(1), self._sums, -np.inf).argmax()))

    def pair_clearness(self, outer_hz: float, inner_hz: float) -> float:
        """By how many robust deviations the lower of both races' combs stands above that of pairs that are no races.

        bpfo + bpfi is the number of elements, whatever the slip: the lines move against each other. The other pairs are
        the same one at other speeds.
        """
        shift_hz = outer_hz * np.arange(-SLIP, SLIP, self._step)
        limit = math.log(self.MARGIN)
        scales = np.exp(np.concatenate([[0.0], np.arange(-limit, limit, SLIP / 2)]))[:, None]
        lower = np.minimum(self._sums_at(scales * (outer_hz + shift_hz)), self._sums_at(scales * (inner_hz - shift_hz)))
        best = lower.max(axis=1)
        both_hz = np.concatenate([scales * outer_hz, scales * inner_hz], axis=1)[:, :, None]
        strays = (np.abs(both_hz / np.array(self._own_hz) - 1) > 2 * SLIP).all(axis=(1, 2))
        return _robust_deviations(best[0], best[strays])

    def _within(self, expected_hz: float, slip: float) -> tuple[int, int]:
        low, high = np.searchsorted(self._fundamentals_hz, [expected_hz * (1 - slip), expected_hz * (1 + slip)])
        return int(low), int(high)

    def _told(self, at: int) -> tuple[float, float]:
        width = max(2, round(2 * SLIP / self._step))
        every = width // 2
        windows = np.lib.stride_tricks.sliding_window_view(self._sums, width)[::every]
        best_strays = windows[self._is_stray(width)[::every]].max(axis=1)
        return float(self._fundamentals_hz[at]), _robust_deviations(self._sums[at], best_strays)

    def _is_stray(self, width: int) -> Mask:
        """Which windows of `width` fundamentals reach into no part's slip."""
        first_hz, last_hz = self._fundamentals_hz[: self._sums.size - width + 1], self._fundamentals_hz[width - 1 :]
        reach = [(last_hz >= own_hz * (1 - SLIP)) & (first_hz <= own_hz * (1 + SLIP)) for own_hz in self._own_hz]
        stray: Mask = ~np.any(reach, axis=0)
        return stray


def _robust_deviations(value: float, others: F64) -> float:
    """How many standard deviations, were the others Gaussian: their median and 1.4826 times its median deviation."""
    middle = np.median(others)
    return float((value - middle) / max(1.4826 * np.median(np.abs(others - middle)), NOTHING))


def _floor(power: F64, n_block: int) -> F64:
    """Medians of blocks side by side, joined by straight lines: a line that stands in a block does not lift it."""
    n_blocks = power.shape[1] // n_block
    medians = np.median(power[:, : n_blocks * n_block].reshape(len(power), n_blocks, n_block), axis=2)
    centres = (np.arange(n_blocks) + 0.5) * n_block - 0.5
    return np.stack([np.interp(np.arange(power.shape[1]), centres, row) for row in medians])


def _apart_from_shaft(n_lines: int, shaft_lines: float) -> Mask:
    """Which lines stand at no multiple of shaft speed; the envelope's mean, at 0, is one."""
    lines = np.arange(n_lines)
    apart: Mask = np.abs(lines - np.rint(lines / shaft_lines) * shaft_lines) > SHAFT_BINS
    return apart
