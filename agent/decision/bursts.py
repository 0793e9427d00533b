"""What a burst gives away about its sensor: the same one again, overload, another scale, an offset that moved, a loose mount,
exchanged axes, a wrong clock.

Pure. Each burst is reduced to a few numbers per axis. They are judged against the sensor's own first good bursts, taken while
the machine ran and then frozen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from agent.features.core import mean_square_hann
from agent.features.fourier import C64, rfft
from agent.features.nameplate import Nameplate
from agent.features.speed import LEAST_CONFIDENCE, SURE, SpeedTag, comb_orders, estimate_speed, supply_hz
from agent.vocabulary import F64, Window

K_BAD, M_BAD = 3, 5  # bursts
N_OWN = 10  # good bursts of the running machine that make the sensor's own normal
OFFSET_M_S2 = 0.3 * 9.80665  # a sensor that was turned, or whose bias is gone; gravity itself is part of its own normal
SLOW_HZ, MACHINE_HZ, HIGH_HZ = 5.0, 10.0, 2000.0
STUCK = "stuck"
ORDER = ("gaps", STUCK, "clipped", "ski_slope", "unit", "offset", "swapped", "loose", "rate")
LEAST_HZ = 1.0
LEAST_M_S2 = 1e-9  # stands for nothing at all
DB_PER_NEPER = 20 / np.log(10)
HIGH_LOST_DB = 6.0  # a loose sensor hears less above 2 kHz, by 6 to 20 dB (domain practice), and not less below
LOW_KEPT_DB = 3.0
EXCHANGED_SHARE = 0.15  # of a level: so near must each axis come to what another one was
KEPT_SHARE = 0.25  # within which the load moves the level of all axes
SCALES = np.array([9.80665, 1000.0, 9806.65])  # g, m/s2 and mg for each other
RATE_TOLERANCE = 0.02  # a drive's own estimate of speed is within 0.5 %, a crystal within 0.01 %
RATE_SEARCH = 0.08  # and MEMS clocks within 6 %


@dataclass(frozen=True, slots=True, eq=False)
class BurstLook:
    """One burst in numbers; each of shape (n_axes,).

    Attributes:
        mean_m_s2: offset. slow, machine, high: RMS of 1 to 5 Hz, 10 Hz to 2 kHz and above, m/s2.
        rate_error: by how much its clock is wrong, as a share; None where it is right, or nobody can tell.
    """

    axes: tuple[str, ...]
    clipped: bool
    mean_m_s2: F64
    slow_m_s2: F64
    machine_m_s2: F64
    high_m_s2: F64
    rate_error: float | None = None


def look_at(window: Window, nameplate: Nameplate | None = None) -> BurstLook:
    """Reduce a burst to what is judged here. One windowed FFT per axis.

    Args: nameplate: the machine's, where its clock shall be checked too.
    """
    samples = window.samples.astype(np.float32, copy=False)
    mean = samples.mean(axis=1, dtype=np.float64)
    n = samples.shape[1]
    spectrum = rfft((samples - mean[:, None].astype(np.float32)) * mean_square_hann(n))
    power = np.square(np.abs(spectrum))
    at_hz = np.arange(power.shape[1]) * window.sample_rate_hz / n

    def rms(low_hz: float, high_hz: float) -> F64:
        band: F64 = np.sqrt(power[:, (at_hz >= low_hz) & (at_hz < high_hz)].sum(axis=1, dtype=np.float64))
        return band

    bands = (rms(LEAST_HZ, SLOW_HZ), rms(MACHINE_HZ, HIGH_HZ), rms(HIGH_HZ, np.inf))
    error = rate_error(spectrum, window, nameplate) if nameplate is not None else None
    return BurstLook(window.axes, window.clipped, mean, *bands, error)


def is_ski_slope(look: BurstLook) -> bool:
    """More below 5 Hz than in all of the machine's own band: an overload or a knock that the sensor still recovers from."""
    return bool((look.slow_m_s2 > look.machine_m_s2).any())


def is_offset(look: BurstLook, own: BurstLook) -> bool:
    """The mean acceleration moved by a good part of gravity: turned, hanging on its cable, or without its bias."""
    return bool((np.abs(look.mean_m_s2 - own.mean_m_s2) > OFFSET_M_S2).any())


def is_loose(look: BurstLook, own: BurstLook) -> bool:
    """High frequencies are lost while the machine shakes as ever: all axes, for a mount holds all of them."""
    low_db, high_db = DB_PER_NEPER * (_levels(look) - _levels(own))
    return bool((high_db <= -HIGH_LOST_DB).all() and (low_db >= -LOW_KEPT_DB).all())


def is_rescaled(look: BurstLook, own: BurstLook) -> bool:
    """Every axis in every band changed by the same known factor, the sensor's own noise with them: no machine does that."""
    nepers = _levels(look) - _levels(own)
    known = np.abs(np.abs(nepers[..., None]) - np.log(SCALES)).max(axis=(0, 1)) <= np.log1p(KEPT_SHARE)
    return bool(known.any() and np.ptp(nepers) <= np.log1p(KEPT_SHARE))


def is_exchanged(look: BurstLook, own: BurstLook) -> bool:
    """The axes shake as one another did, in both bands: by what all of them have in common the load may differ a little."""
    now, then = _levels(look), _levels(own)
    common = np.mean(now - then, axis=1, keepdims=True)
    if np.abs(common).max() > np.log1p(KEPT_SHARE):
        return False
    as_before, *exchanged = (
        np.abs(now - common - then[:, order]).max() for order in map(list, permutations(range(then.shape[1])))
    )
    tolerance = np.log1p(EXCHANGED_SHARE)
    return bool(exchanged and min(exchanged) <= tolerance and as_before > 2 * tolerance)


def rate_error(spectrum: C64, window: Window, nameplate: Nameplate) -> float | None:
    """By how much a burst's clock is wrong, as a share, by its own lines against a speed signal; None where it is right or unknown.

    A line that stands at 1.03 times the shaft's speed was sampled 3 % slower than the sensor says.

    Args: spectrum: shape (n_axes, n_bins), of the windowed samples.
    """
    point, bin_hz = window.point, window.sample_rate_hz / window.samples.shape[1]
    if not SpeedTag(point.shaft_speed_rpm, point.speed_age_s, point.speed_spread_ratio).trusted:
        return None
    shaft_hz = point.shaft_speed_rpm / 60
    search_hz = (shaft_hz * (1 - RATE_SEARCH), shaft_hz * (1 + RATE_SEARCH))
    seen = estimate_speed(spectrum, bin_hz, search_hz, comb_orders(nameplate), 2 * supply_hz(nameplate, point))
    if not seen.confidence > LEAST_CONFIDENCE:
        return None
    error = seen.rpm / point.shaft_speed_rpm - 1.0
    sure = abs(error) > max(RATE_TOLERANCE, SURE * seen.sigma_rpm / point.shaft_speed_rpm)
    return error if sure else None


def _levels(look: BurstLook) -> F64:
    """Of the machine's band and of what lies above it; natural logarithm, shape (2, n_axes)."""
    levels: F64 = np.log(np.maximum((look.machine_m_s2, look.high_m_s2), LEAST_M_S2))
    return levels


def is_repeated(look: BurstLook, before: BurstLook, running: bool) -> bool:
    """The very samples of the burst before, told by sums that no two share; at rest a coarse sensor may say nothing twice."""
    same = all(np.array_equal(now, then) for now, then in zip(_sums(look), _sums(before), strict=True))
    return same and (running or bool(look.machine_m_s2.any()))


def _sums(look: BurstLook) -> tuple[F64, ...]:
    return look.mean_m_s2, look.slow_m_s2, look.machine_m_s2, look.high_m_s2


@dataclass(slots=True)
class BurstWatch:
    """The bursts of one sensor: which of the faults above shows in K_BAD of the last M_BAD of them.

    Attributes: faults: what shows often enough, in the order in which it is believed. A burst that comes again is stuck at once.
    """

    own: BurstLook | None = None
    faults: tuple[str, ...] = ()
    _before: BurstLook | None = None
    _first: list[BurstLook] = field(default_factory=list)
    _seen: deque[frozenset[str]] = field(default_factory=lambda: deque(maxlen=M_BAD))

    def see(self, look: BurstLook, running: bool) -> bool:
        """Take in one whole burst. What needs a running machine is judged only then, and only with its own normal.

        Returns: whether it shows a fault of the sensor, so that nothing should be concluded from it.
        """
        found = self._look(look, running)
        self._before = look
        self._note(found)
        if running and not found and self.own is None:
            self._learn(look)
        return bool(found)

    def missed(self) -> None:
        """A burst did not arrive whole."""
        self._note({"gaps"})

    def forget(self) -> None:
        """Mounted anew: its normal is learned again."""
        self.own = self._before = None
        self.faults = ()
        self._first.clear()
        self._seen.clear()

    def _note(self, found: set[str]) -> None:
        self._seen.append(frozenset(found))
        self.faults = tuple(
            name
            for name in ORDER
            if sum(name in seen for seen in self._seen) >= K_BAD or (name == STUCK and name in found)
        )

    def _look(self, look: BurstLook, running: bool) -> set[str]:
        """Everything that one burst shows."""
        if self._before is not None and is_repeated(look, self._before, running):
            return {STUCK}
        found = {"clipped"} if look.clipped else set()
        if not look.clipped:
            found |= {"ski_slope"} if running and is_ski_slope(look) else set()
            found |= self._against_own(look, running)
        return found | ({"rate"} if look.rate_error is not None else set())

    def _against_own(self, look: BurstLook, running: bool) -> set[str]:
        if self.own is None or look.axes != self.own.axes:
            return set()
        if running and is_rescaled(look, self.own):
            return {"unit"}
        found = {"offset"} if is_offset(look, self.own) else set()
        if running:
            found |= {"loose"} if is_loose(look, self.own) else set()
            found |= {"swapped"} if is_exchanged(look, self.own) else set()
        return found

    def _learn(self, look: BurstLook) -> None:
        self._first = [kept for kept in self._first if kept.axes == look.axes] + [look]
        if len(self._first) < N_OWN:
            return
        medians = (np.median(sums, axis=0) for sums in zip(*map(_sums, self._first), strict=True))
        self.own = BurstLook(look.axes, False, *medians)
        self._first = []
