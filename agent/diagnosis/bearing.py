"""Which part of a bearing is damaged, from bursts and physics alone: nothing is trained, nothing is learned beforehand.

    verdict = name_part(rows, sample_rate_hz, shaft_speed_rpm, orders)

Three facts decide, each a number with one limit:

*Clearness.* A damaged part is heard at its own rate and at multiples of it. Their heights over the floor, added over bands
and harmonics, are compared with what the same comb finds at all the rates that belong to nothing: so many robust
standard deviations does the best place within the part's slip stand above them. No distribution is assumed.

*Depth.* Every bearing has faint lines of both races, a healthy one too. A damaged race changes the vibration of some band
at every passage, and deeply. So a line must also carry a least share of some band's squared envelope.

*Coming and going.* A damaged ball turns in its cage, so that its spot meets the races for a while and misses them for a
while. Strikes that come and go over several turns drown the rhythm of a race; where they do, and no line is deeper, the
ball is named by elimination.

What shows none of this stays unsure, and so does a line that is deeper than all of it and belongs to no part: then the speed
or the bearing is another one than was thought. Lines that a steady machine has of itself are whitened away, those at
multiples of shaft speed are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from agent.features import fourier
from agent.features.bearings import BearingOrders
from agent.features.fourier import C64
from agent.features.subbands import NOTHING, squared_envelopes, tapered_spectrum, whitened
from agent.vocabulary import F32, F64, Mask

BAND_HZ = 1000.0  # holds a ring and two sidebands of the third harmonic of a fast inner race
LOWEST_HZ, HIGHEST_HZ = 500.0, 12_000.0  # below is the machine's own movement, above most mounts carry nothing
N_HARMONICS = 3
RACE_SLIP = (-0.02, 0.02)  # races: rolling is not pure, and speed is only nearly known
BALL_SLIP = (-0.02, 0.02)
FLOOR_HZ = 40.0  # the floor of a spectrum is its median over so much
SHAFT_BINS = 1.5  # to each side of a multiple of shaft speed: the middle of a Hann line
BLOCK_TURNS = 2.0  # strikes are counted as coming and going over more than so many turns of the shaft
FEWEST_TURNS = 10.0  # in a burst, or its lines stand closer than they are wide

CLEAR = 4.0  # robust standard deviations
LEAST_DEPTH = 0.2  # of a line and its harmonics: amplitude over the band's mean squared envelope
LEAST_WANDER = 0.3  # spread of the blocks over their mean; noise alone makes 0.1 to 0.2
HARMONIC_SEEN = 4.0  # times its floor: one noise line in fifty, in a single burst
MOST_SURE, MOST_SURE_BY_ELIMINATION = 0.95, 0.7


class Part(StrEnum):
    """What can be damaged."""

    OUTER = "outer"
    INNER = "inner"
    BALL = "ball"
    UNSURE = "unsure"


WORDS = {Part.OUTER: "outer race", Part.INNER: "inner race", Part.BALL: "rolling elements", Part.UNSURE: "no part"}


@dataclass(frozen=True, slots=True)
class Family:
    """One part's line and its harmonics, where they stand out most within the part's slip.

    Attributes:
        expected_hz: without slip. line_hz: as found. harmonics: those that stand out in the deepest band.
        clearness: robust standard deviations above combs that belong to nothing.
        depth_ratio: amplitude of line and harmonics over the squared envelope's mean. band_hz: where it is deepest.
    """

    part: Part
    expected_hz: float
    line_hz: float
    harmonics: tuple[int, ...]
    clearness: float
    depth_ratio: float
    band_hz: tuple[float, float]

    def __str__(self) -> str:
        seen = ", ".join(map(str, self.harmonics)) or "none"
        low_hz, high_hz = self.band_hz
        return (
            f"{WORDS[self.part]}: line at {self.line_hz:.1f} Hz (expected {self.expected_hz:.1f}), harmonics seen: {seen}; "
            f"{100 * self.depth_ratio:.0f} % of the envelope {low_hz:.0f} to {high_hz:.0f} Hz, "
            f"{self.clearness:.1f} deviations above chance"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The named part, or unsure.

    Attributes:
        confidence: 0..1; 0 where unsure. reason: one sentence of evidence.
        families: all parts' lines, deepest first; empty where the burst cannot show them.
        wander_ratio: how much strikes come and go, the middle of all bands.
    """

    part: Part
    confidence: float
    reason: str
    families: tuple[Family, ...] = ()
    wander_ratio: float = math.nan


def name_part(rows: F32, sample_rate_hz: float, shaft_speed_rpm: float, orders: BearingOrders) -> Verdict:
    """Name the damaged part of a bearing that is known to be in trouble, or say that it is unsure.

    Args:
        rows: shape (n_rows, n_samples): bursts of one point at one speed, axes or times, in any unit; finite.
        shaft_speed_rpm: NaN where unknown; then nothing is named.
    Source: Randall and Antoni 2011 (squared envelope spectrum, slip); Borghesani et al. 2013 (whitening); the limits are
        chosen as round numbers on the recordings that `hark evaluate bearings` names, whose docstring says what they give.
    """
    shaft_hz = shaft_speed_rpm / 60
    n_turns = rows.shape[1] / sample_rate_hz * shaft_hz
    if not n_turns >= FEWEST_TURNS:
        return Verdict(Part.UNSURE, 0.0, f"a burst must hold {FEWEST_TURNS:.0f} turns of a known speed")
    bands = Bands(rows.shape[1], sample_rate_hz)
    if not bands.first_bins:
        return Verdict(Part.UNSURE, 0.0, f"the bursts hold no band of {BAND_HZ:.0f} Hz above {LOWEST_HZ:.0f} Hz")
    spectra = tapered_spectrum(np.ascontiguousarray(rows, np.float32))
    lines = Lines(bands, np.mean([bands.power(whitened(spectrum)) for spectrum in spectra], axis=0), shaft_hz)
    families, stray = lines.families(orders)
    return _verdict(families, stray, bands.wander(spectra, shaft_hz))


def _verdict(families: tuple[Family, ...], stray: Family, wander_ratio: float) -> Verdict:
    """The deepest clear line that carries more than the coming and going; else the coming and going; else unsure."""
    least_depth = max(LEAST_DEPTH, wander_ratio)
    for family in families:
        if family.clearness >= CLEAR and family.depth_ratio >= least_depth:
            confidence = min(1 - 0.5 * (least_depth / family.depth_ratio) ** 2, MOST_SURE)
            return Verdict(family.part, confidence, str(family), families, wander_ratio)
    if stray.clearness >= CLEAR and stray.depth_ratio >= least_depth:
        return Verdict(Part.UNSURE, 0.0, f"{stray}; look at speed and bearing again", families, wander_ratio)
    if wander_ratio >= LEAST_WANDER:
        confidence = min(1 - 0.5 * (LEAST_WANDER / wander_ratio) ** 2, MOST_SURE_BY_ELIMINATION)
        reason = f"{WORDS[Part.BALL]}: strikes come and go ({100 * wander_ratio:.0f} %), and no race has a line as deep"
        return Verdict(Part.BALL, confidence, reason, families, wander_ratio)
    return Verdict(Part.UNSURE, 0.0, "no line of a part is both clear and deep", families, wander_ratio)


class Bands:
    """Bands of BAND_HZ side by side, and what is asked of their squared envelopes."""

    def __init__(self, n_samples: int, sample_rate_hz: float) -> None:
        self._bin_hz = sample_rate_hz / n_samples
        self._n_bins = round(BAND_HZ / self._bin_hz)
        top_hz = min(HIGHEST_HZ, sample_rate_hz / 2)
        n_bands = max(0, math.floor((top_hz - LOWEST_HZ) / BAND_HZ))
        self.first_bins = [round((LOWEST_HZ + band * BAND_HZ) / self._bin_hz) for band in range(n_bands)]
        n_points = fourier.fast_length(2 * self._n_bins)
        self._rate_hz = n_points * self._bin_hz

    def limits_hz(self, band: int) -> tuple[float, float]:
        low_hz = LOWEST_HZ + band * BAND_HZ
        return low_hz, low_hz + BAND_HZ

    def power(self, spectrum: C64) -> F64:
        """Squared amplitude of every line of every band's squared envelope, shape (n_bands, n_lines)."""
        envelopes = squared_envelopes(spectrum, self.first_bins, self._n_bins)
        n = envelopes.shape[1]
        self.line_hz = self._rate_hz / n
        window = (np.hanning(n) * (4 / n)).astype(np.float32)  # a line's amplitude is read off directly
        lines = fourier.rfft((envelopes - 1) * window)
        power: F64 = (np.square(lines.real) + np.square(lines.imag)).astype(np.float64)
        return power

    def wander(self, spectra: C64, shaft_hz: float) -> float:
        """How much strikes come and go: spread of the squared envelope's blocks over their mean, the middle of all bands."""
        n_block = round(BLOCK_TURNS / shaft_hz * self._rate_hz)
        blocks = np.concatenate([self._blocks(spectrum, n_block) for spectrum in spectra], axis=1)
        return float(np.median(blocks.std(axis=1) / np.maximum(blocks.mean(axis=1), NOTHING)))

    def _blocks(self, spectrum: C64, n_block: int) -> F32:
        envelopes = squared_envelopes(spectrum, self.first_bins, self._n_bins)
        n_blocks = envelopes.shape[1] // n_block
        blocks: F32 = envelopes[:, : n_blocks * n_block].reshape(len(envelopes), n_blocks, n_block).mean(axis=2)
        return blocks


class Lines:
    """The lines of all bands' squared envelopes: over their floors, and as combs at every fundamental."""

    def __init__(self, bands: Bands, power: F64, shaft_hz: float) -> None:
        self._bands = bands
        self._line_hz = bands.line_hz
        self._shaft_hz = shaft_hz
        self._floor = _floor(power, max(3, round(FLOOR_HZ / self._line_hz)))
        self._power = np.where(_apart_from_shaft(power.shape[1], shaft_hz / self._line_hz), power, 0.0)
        heights = np.log1p(self._power / np.maximum(self._floor, NOTHING))
        self._heights = (heights - np.median(heights, axis=1, keepdims=True)).clip(0).mean(axis=0)

    def families(self, orders: BearingOrders) -> tuple[tuple[Family, ...], Family]:
        """Every part's family, deepest first, and the strongest that belongs to no part."""
        own = [
            (Part.OUTER, orders.bpfo * self._shaft_hz, RACE_SLIP),
            (Part.INNER, orders.bpfi * self._shaft_hz, RACE_SLIP),
            (Part.BALL, 2 * orders.bsf * self._shaft_hz, BALL_SLIP),
        ]
        comb = Comb(self._heights, self._line_hz, [expected_hz for _, expected_hz, _ in own])
        found = []
        for part, expected_hz, slip in own:
            line_hz, clearness = comb.best(expected_hz, slip)
            found.append(self._family(part, expected_hz, line_hz, clearness))
        stray_hz, clearness = comb.strongest_stray()
        stray = self._family(Part.UNSURE, math.nan, stray_hz, clearness)
        return tuple(sorted(found, key=lambda family: -family.depth_ratio)), stray

    def _family(self, part: Part, expected_hz: float, line_hz: float, clearness: float) -> Family:
        at = [round(harmonic * line_hz / self._line_hz) for harmonic in range(1, N_HARMONICS + 1)]
        at = [line for line in at if line + 1 < self._power.shape[1]]
        peaks = np.stack([self._power[:, line - 1 : line + 2].max(axis=1) for line in at], axis=1)
        floors = self._floor[:, at]
        depths = np.sqrt((peaks - floors).clip(0).sum(axis=1))
        band = int(depths.argmax())
        seen = np.flatnonzero(peaks[band] >= HARMONIC_SEEN * floors[band]) + 1
        depth_ratio = float(depths[band])
        return Family(
            part, expected_hz, line_hz, tuple(seen.tolist()), clearness, depth_ratio, self._bands.limits_hz(band)
        )


class Comb:
    """Heights added over harmonics, for fundamentals from below the slowest part to above the fastest."""

    MARGIN = 1.5  # how far below and above

    def __init__(self, heights: F64, line_hz: float, own_hz: Iterable[float]) -> None:
        self._own_hz = np.array(list(own_hz))
        low_hz, high_hz = self._own_hz.min() / self.MARGIN, self._own_hz.max() * self.MARGIN
        self._step = line_hz / (
            2 * N_HARMONICS * self._own_hz.max()
        )  # half a line, at the highest harmonic of the fastest part
        n = math.ceil(math.log(high_hz / low_hz) / self._step)
        self._fundamentals_hz = low_hz * np.exp(self._step * np.arange(n))
        self._sums = np.zeros(n)
        for harmonic in range(1, N_HARMONICS + 1):
            lines = np.rint(harmonic * self._fundamentals_hz / line_hz).astype(np.intp)
            self._sums += np.where(lines < heights.size, heights[np.minimum(lines, heights.size - 1)], 0.0)

    def best(self, expected_hz: float, slip: tuple[float, float]) -> tuple[float, float]:
        """The fundamental within the slip whose comb is highest, and how clearly: robust deviations above the best of others."""
        low, high = np.searchsorted(self._fundamentals_hz, [expected_hz * (1 + part) for part in slip])
        at = int(low + self._sums[low:high].argmax())
        return float(self._fundamentals_hz[at]), self._clearness(self._sums[at], int(high - low))

    def strongest_stray(self) -> tuple[float, float]:
        """The same of the highest comb of all that belong to no part."""
        at = int(np.where(self._stray(1), self._sums, -np.inf).argmax())
        return float(self._fundamentals_hz[at]), self._clearness(self._sums[at], round(2 * RACE_SLIP[1] / self._step))

    def _clearness(self, height: float, width: int) -> float:
        windows = np.lib.stride_tricks.sliding_window_view(self._sums, width)
        others = windows[self._stray(width)].max(axis=1)
        middle = np.median(others)
        spread = 1.4826 * np.median(np.abs(others - middle))
        return float((height - middle) / max(spread, 1e-9))

    def _stray(self, width: int) -> Mask:
        """Which windows of `width` reach into no part's slip."""
        first_hz, last_hz = self._fundamentals_hz[: len(self._sums) - width + 1], self._fundamentals_hz[width - 1 :]
        reach = [
            (last_hz >= own_hz * (1 + BALL_SLIP[0])) & (first_hz <= own_hz * (1 + RACE_SLIP[1]))
            for own_hz in self._own_hz
        ]
        return ~np.any(reach, axis=0)


def _floor(power: F64, n_block: int) -> F64:
    """Medians of blocks side by side, joined by straight lines: a line that stands in a block does not lift it."""
    n_blocks = power.shape[1] // n_block
    medians = np.median(power[:, : n_blocks * n_block].reshape(len(power), n_blocks, n_block), axis=2)
    centres = (np.arange(n_blocks) + 0.5) * n_block - 0.5
    lines = np.arange(power.shape[1])
    return np.stack([np.interp(lines, centres, row) for row in medians])


def _apart_from_shaft(n_lines: int, shaft_lines: float) -> Mask:
    """Which lines belong to no multiple of shaft speed; the envelope's own mean, at 0, is one."""
    lines = np.arange(n_lines)
    nearest = np.rint(lines / shaft_lines) * shaft_lines
    apart: Mask = np.abs(lines - nearest) > SHAFT_BINS
    return apart
