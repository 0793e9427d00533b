"""Shaft speed of a burst, without a tachometer where there is none: from a tag, from slip, from the burst's own lines.

    speed = shaft_speed(spectrum, bin_hz, nameplate, point, tag)
    if speed.moved: samples = resample_to_angle(samples, sample_rate_hz, speed.profile(duration_s)).samples

The burst is asked for the comb that a shaft leaves in it: lines at 1, 2, 3 times its speed (and at vane pass, where the
vanes are counted). A first look takes, among all speeds of a window, the one whose lines stand out together. A second takes
the speed and the steady change of speed under which these lines hold the most energy over their floor: the estimate of
maximum likelihood. What comes out has a standard deviation, and a confidence below one half where noise could have done it.

A Hann line is told to 0.49 bins over the root of its power over the floor, divided by its order. In one second a bin is
60 rpm: a healthy motor's 1x, 2x and 3x on three axes, some 15 dB over their floor, give 0.5 to 1 rpm, one axis alone 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from agent.features import fourier
from agent.features.fourier import C64
from agent.features.nameplate import Nameplate
from agent.features.readings import load_ratio_of, shaft_power_kw
from agent.vocabulary import F32, F64, OperatingPoint

Source = Literal["tag", "comb", "slip", "none"]
UNKNOWN = float("nan")

# -- what a speed is ---------------------------------------------------------------------------------------------------

STEADY_RATIO = 0.01  # a larger change within a burst smears its lines (domain practice: track orders, or reject)
SURE = 4.0  # standard deviations that a change must have to be believed
LEAST_CONFIDENCE = 0.5
LARGEST_SLIP = 0.08  # at rated load, of small motors
LONGEST_TAG_AGE_S = 2.0
LARGEST_TAG_SPREAD_RATIO = 0.005
TAG_SIGMA_RATIO = 0.002  # a drive's own estimate of speed, without an encoder
SLIP_SPREAD_RATIO = 0.15  # rated slip of a warm motor against its nameplate (IEC 60034-1 grants 20 % either way)


@dataclass(frozen=True, slots=True)
class SpeedProfile:
    """Speed through a burst: straight lines between instants, shape (n_instants,) each; before and after, it stands still."""

    instants_s: F64
    shaft_speed_rpm: F64


@dataclass(frozen=True, slots=True)
class ShaftSpeed:
    """Mean speed of a burst and how far to believe it.

    Attributes:
        rpm: NaN where the source is "none": never guessed. sigma_rpm: its standard deviation.
        source: "tag", "comb" (the burst's own lines), "slip" (computed from supply frequency and load) or "none".
        confidence: 0..1 that it is the shaft's speed at all, and not another line or noise; 1 for a tag.
        change_ratio: how much faster the end of the burst is than its beginning, over the mean; NaN where no line tells.
        change_sigma_ratio: its standard deviation.
    """

    rpm: float = UNKNOWN
    sigma_rpm: float = UNKNOWN
    source: Source = "none"
    confidence: float = 0.0
    change_ratio: float = UNKNOWN
    change_sigma_ratio: float = UNKNOWN

    @property
    def moved(self) -> bool:
        """Whether speed changed by more than 1 % within the burst, for certain: then orders must be tracked."""
        return abs(self.change_ratio) > max(STEADY_RATIO, SURE * self.change_sigma_ratio)

    def profile(self, duration_s: float) -> SpeedProfile:
        """The steady change as a profile."""
        half = (self.change_ratio if self.moved else 0.0) / 2
        return SpeedProfile(np.array([0.0, duration_s]), self.rpm * np.array([1 - half, 1 + half]))


NOT_KNOWN = ShaftSpeed()


@dataclass(frozen=True, slots=True)
class SpeedTag:
    """What a drive or an encoder said about the time of the burst.

    Attributes:
        age_s: of the reading, at the burst. spread_ratio: largest less smallest of the last readings, over their mean.
    """

    rpm: float
    age_s: float
    spread_ratio: float

    @property
    def trusted(self) -> bool:
        """Fresh and steady; a NaN is neither."""
        return self.rpm > 0 and self.age_s <= LONGEST_TAG_AGE_S and self.spread_ratio <= LARGEST_TAG_SPREAD_RATIO

    @property
    def speed(self) -> ShaftSpeed:
        """What it says, and how closely."""
        return ShaftSpeed(self.rpm, self.rpm * math.hypot(TAG_SIGMA_RATIO, self.spread_ratio / 2), "tag", 1.0)


def shaft_speed(
    spectrum: C64,
    bin_hz: float,
    nameplate: Nameplate,
    point: OperatingPoint,
    tag: SpeedTag | None = None,
    search_hz: tuple[float, float] | None = None,
) -> ShaftSpeed:
    """The speed of one machine's burst, by the order of trust: a tag that is fresh and steady; the comb within what slip
    allows; any other tag; slip; not known.

    Args:
        spectrum: shape (n_axes, n_bins), the core's (`Rows.spectrum`).
        point: its supply frequency goes before the nameplate's, its power tells the load where the nameplate has a rated
            power; its speed is not read, `tag` says how far to trust it.
        search_hz: bounds for a machine whose nameplate does not tell; else not read.
    Source: domain practice: f (1 - s) / p with s about rated slip times load, refined by the comb of 1x, 2x, 3x.
    """
    if tag is not None and tag.trusted:
        return tag.speed  # and nothing is asked of the burst: what held its speed for seconds held it for one more
    window = slip_window_hz(nameplate, point) or search_hz or (UNKNOWN, UNKNOWN)
    seen = estimate_speed(spectrum, bin_hz, window, comb_orders(nameplate), 2 * supply_hz(nameplate, point))
    if seen.source == "comb":
        return seen
    if tag is not None and tag.rpm > 0:
        return replace(tag.speed, confidence=LEAST_CONFIDENCE)
    power_kw = shaft_power_kw(UNKNOWN, point.active_power_kw, nameplate.data)
    return slip_speed(nameplate, point, load_ratio_of(power_kw, UNKNOWN, nameplate.data))


def comb_orders(nameplate: Nameplate) -> tuple[int, ...]:
    """The shaft's harmonics that are looked for: vane pass, where it is known, tells speed best of all."""
    return tuple(sorted({1, 2, 3} | ({nameplate.n_vanes} if nameplate.n_vanes else set())))


# -- what the nameplate allows -----------------------------------------------------------------------------------------


def nominal_supply_hz(rated_speed_rpm: float) -> float:
    """50 or 60, whichever an induction motor of this rated speed must be made for; NaN where both or neither fit.

    1460 rpm is 2.7 % below a synchronous speed of 50 Hz and 19 % below one of 60 Hz; no motor has such a slip.
    """
    fitting = []
    for hz in (50.0, 60.0):
        n_pairs = math.floor(60 * hz / rated_speed_rpm)
        if n_pairs and 1 - rated_speed_rpm * n_pairs / (60 * hz) < LARGEST_SLIP:
            fitting.append(hz)
    return fitting[0] if len(fitting) == 1 else UNKNOWN


def pole_pairs(nameplate: Nameplate) -> float:
    """From the number of poles, else the most pairs whose synchronous speed is not below the rated one; NaN: not known."""
    if nameplate.data.n_poles is not None:
        return nameplate.data.n_poles / 2
    pairs = 60 * nameplate.line_frequency_hz / nameplate.rated_speed_rpm
    return math.floor(pairs + 1e-6) if pairs >= 1 else UNKNOWN


def supply_hz(nameplate: Nameplate, point: OperatingPoint) -> float:
    """What the motor is fed with: as a meter or drive says, else the nominal line frequency."""
    measured = point.line_frequency_hz
    return measured if math.isfinite(measured) else nameplate.line_frequency_hz


def _synchronous_and_slip_hz(nameplate: Nameplate, point: OperatingPoint) -> tuple[float, float]:
    """Synchronous speed at the present supply, and slip at rated torque: in hertz, the same at every frequency."""
    pairs = pole_pairs(nameplate)
    return supply_hz(nameplate, point) / pairs, nameplate.line_frequency_hz / pairs - nameplate.rated_speed_rpm / 60


def slip_window_hz(nameplate: Nameplate, point: OperatingPoint) -> tuple[float, float] | None:
    """Between one and a half times rated slip and none: 24 to 25 Hz for 1460 rpm at 50 Hz; None: not known."""
    synchronous_hz, slip_hz = _synchronous_and_slip_hz(nameplate, point)
    low_hz = synchronous_hz - 1.5 * slip_hz
    return (low_hz, synchronous_hz) if low_hz > 0 else None


def slip_speed(nameplate: Nameplate, point: OperatingPoint, load_ratio: float = UNKNOWN) -> ShaftSpeed:
    """Speed computed, not observed: slip is rated slip times load; without a load, the middle of the window."""
    synchronous_hz, slip_hz = _synchronous_and_slip_hz(nameplate, point)
    if not synchronous_hz > 0:
        return NOT_KNOWN
    if math.isfinite(load_ratio):
        hz, sigma_hz = synchronous_hz - load_ratio * slip_hz, SLIP_SPREAD_RATIO * load_ratio * slip_hz
    else:
        hz, sigma_hz = synchronous_hz - 0.75 * slip_hz, 1.5 * slip_hz / math.sqrt(12)  # anywhere in the window
    return ShaftSpeed(60 * hz, 60 * sigma_hz, "slip", LEAST_CONFIDENCE)


# -- what the burst shows ----------------------------------------------------------------------------------------------

STEPS = 16  # candidates to a bin
GUARD_BINS = 5.0  # looked at beside the window, and a change of speed more: does the best line only lean in?
SAME_BINS = 1.5  # candidates nearer than this are one
LOWEST_BIN = 4  # below, 1x is not told from the mean and the window's own width
FLOOR_BINS = 16  # the floor is the median of so many bins
NOTCH_BINS = 2.0  # half of a Hann line
WANDER_RATIO = 0.0002  # a shaft's speed is not told better than it keeps it
LARGEST_CHANGE = 0.15  # of speed within a burst, that is looked for
# Of a Hann line's frequency, in bins squared, times its power over the floor: from the moments of the window.
BIN_VARIANCE = 0.2374
CHANGE_VARIANCE = 18.17  # likewise, of its change from the first sample to the last
CHANGE_STEP_BINS = 0.5  # of the trials
SILENT = float(np.finfo(np.float32).tiny)


def estimate_speed(
    spectrum: C64,
    bin_hz: float,
    search_hz: tuple[float, float],
    orders: Sequence[int] = (1, 2, 3),
    hum_hz: float = UNKNOWN,
) -> ShaftSpeed:
    """The speed in a window whose comb stands out; source "none" where noise could have made it.

    Args:
        spectrum: shape (n_axes, n_bins), Hann-windowed. bin_hz: one over the burst's length.
        search_hz: lowest and highest frequency of the shaft. Less than an octave, or a strong vane pass may make twice the
            speed look like it (in one of ten simulated bursts; confidence then is mostly 0.5 to 0.8).
        hum_hz: twice the supply frequency: no shaft's line is looked for there.
    """
    low, high = max(search_hz[0] / bin_hz, LOWEST_BIN), search_hz[1] / bin_hz
    beyond = high + GUARD_BINS + LARGEST_CHANGE * high
    if not (low <= high and max(orders) * beyond < spectrum.shape[1] - 1):
        return NOT_KNOWN
    part = spectrum[:, : math.ceil(max(orders) * beyond) + 1]
    if not np.isfinite(part).all():
        return NOT_KNOWN
    hum = hum_hz / bin_hz
    white = _whitened(part, hum)
    places, combs = _combs(white, low - (beyond - high), beyond, orders)
    best = float(places[combs.argmax()])
    elsewhere = np.abs(places - best) > max(SAME_BINS, LARGEST_CHANGE / 2 * best)
    over_rival = float(combs.max() - combs[elsewhere].max())
    line = _sharpest(white, best, [order for order in orders if not abs(order * best - hum) < 2 * NOTCH_BINS])
    over_noise = line.comb - noise_comb(len(orders), len(white))
    inside = low - 0.5 <= line.bins <= high + 0.5
    confidence = 1 - math.exp(-max(min(over_rival, over_noise), 0.0)) if inside else 0.0
    if not confidence >= LEAST_CONFIDENCE:
        return replace(NOT_KNOWN, confidence=confidence)
    sigma_bins = math.hypot(line.sigma_bins, WANDER_RATIO * line.bins)
    change, change_sigma = line.change_bins / line.bins, line.change_sigma_bins / line.bins
    return ShaftSpeed(60 * bin_hz * line.bins, 60 * bin_hz * sigma_bins, "comb", confidence, change, change_sigma)


def noise_comb(n_orders: int, n_axes: int) -> float:
    """The height of a comb that noise alone reaches in one burst of a hundred: fitted to simulated noise, to 0.2."""
    return n_orders + 0.5 + 1.6 / n_axes


def _whitened(spectrum: C64, hum: float) -> C64:
    """Each row over the root of its own floor: noise has unit power in every bin, a line its power over the floor."""
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    n_blocks = power.shape[1] // FLOOR_BINS
    blocks = power[:, : n_blocks * FLOOR_BINS].reshape(len(power), n_blocks, FLOOR_BINS)
    floors = np.median(blocks, axis=2) / math.log(2)  # the mean of what is spread exponentially
    bins = np.arange(power.shape[1])
    centres = (np.arange(n_blocks) + 0.5) * FLOOR_BINS
    floor = np.array([np.interp(bins, centres, row) for row in floors])
    white: C64 = (spectrum / np.sqrt(np.maximum(floor, SILENT))).astype(np.complex64)
    white[:, np.abs(bins - hum) < NOTCH_BINS] = 0
    return white


def _combs(white: C64, low: float, high: float, orders: Sequence[int]) -> tuple[F64, F64]:
    """Candidates from `low` to `high`, in bins, and the heights of their combs, shape (n_candidates,) each.

    A comb's height is the sum over its orders of log(1 + power over floor): it wants its lines together, as a harmonic
    product does, and one strong foreign line does not make it. Between bins the spectrum is interpolated exactly: low bins,
    transformed back, padded, transformed again (by the inverse of the conjugate).
    """
    n_points = fourier.fast_length(white.shape[1])
    short = np.zeros((len(white), n_points), np.complex64)
    short[:, : white.shape[1]] = white
    padded = np.zeros((len(white), STEPS * n_points), np.complex64)
    np.conj(fourier.ifft(short), out=padded[:, :n_points])
    fine = fourier.ifft(padded)
    power = (np.square(fine.real) + np.square(fine.imag)).mean(axis=0) * padded.shape[1] ** 2
    first, last = max(math.floor(STEPS * low), 2 * STEPS), math.floor(STEPS * high)
    combs: F64 = np.sum([np.log1p(power[h * first : h * last + 1 : h]) for h in orders], axis=0, dtype=np.float64)
    return np.arange(first, last + 1) / STEPS, combs


class _Line(NamedTuple):
    """Where a comb is sharpest: mean speed and its change through the burst, in bins, and how high it stands then."""

    bins: float
    sigma_bins: float
    change_bins: float
    change_sigma_bins: float
    comb: float


def _sharpest(white: C64, bins: float, orders: Sequence[int]) -> _Line:
    """Mean speed and steady change of maximum likelihood, near a first estimate.

    Likelihood is the energy, over its floor, that all orders and axes hold once a trial's turning is taken out of them.
    """
    speeds = np.arange(-SAME_BINS, SAME_BINS, 1 / STEPS)
    n_changes = math.ceil(LARGEST_CHANGE * bins / CHANGE_STEP_BINS)
    changes: F64 = CHANGE_STEP_BINS * np.arange(-n_changes, n_changes + 1, dtype=np.float64)
    energy, weight, comb = np.zeros((3, changes.size, speeds.size))
    for order in orders:
        power = _standing(white, bins, order, speeds, changes)
        energy += power.sum(axis=1)
        weight += order**2 * power.sum(axis=1)
        comb += np.log1p(power.mean(axis=1))
    at_change, at_speed = np.unravel_index(energy.argmax(), energy.shape)
    information = max(float(weight[at_change, at_speed]), SILENT)
    return _Line(
        bins=bins + _vertex(speeds, energy[at_change]),
        sigma_bins=math.sqrt(BIN_VARIANCE / information),
        change_bins=_vertex(changes, energy[:, at_speed]),
        change_sigma_bins=math.sqrt(CHANGE_VARIANCE / information),
        comb=float(comb[at_change, at_speed]),
    )


def _standing(white: C64, bins: float, order: int, speeds: F64, changes: F64) -> F32:
    """Power over floor of one order's line under every trial of speed and change: shape (n_changes, n_axes, n_speeds).

    The bins about the line are cut out and transformed back: a short signal at a low rate, turned back by each trial.
    """
    half = math.ceil(order * (changes[-1] / 2 + SAME_BINS)) + 4
    start = round(order * bins) - half
    cut = np.zeros((len(white), 2 * half), np.complex64)
    inside = slice(max(start, 0), start + 2 * half)
    known = white[:, inside]
    cut[:, inside.start - start : inside.start - start + known.shape[1]] = known
    signal = fourier.ifft(cut)
    u = np.arange(2 * half) / (2 * half)
    turning = (order * bins - start) * u + order * changes[:, None] * (u * u - u) / 2
    back = np.exp(-2j * np.pi * turning).astype(np.complex64)
    tones = np.exp(-2j * np.pi * order * u[:, None] * speeds).astype(np.complex64)
    standing = (back[:, None, :] * signal) @ tones
    power: F32 = np.square(standing.real) + np.square(standing.imag)
    return power


def _vertex(places: F64, heights: F64) -> float:
    """Where a parabola through the highest of evenly spaced values and its neighbours has its top."""
    at = min(max(int(heights.argmax()), 1), len(heights) - 2)
    left, top, right = heights[at - 1 : at + 2]
    bend = left - 2 * top + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(places[at] + np.clip(shift, -1, 1) * (places[1] - places[0]))
