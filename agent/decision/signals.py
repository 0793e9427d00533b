"""What a sensor's values give away about the sensor itself: spikes, exact factors, exchanged axes, steps that no body makes.

Pure. Only what a machine cannot do is called a sensor's fault: a temperature jumps, an RMS rises and its own peak does not,
all values are suddenly 25.4 times what they were, a pressure steps and neither flow nor power nor the other pressure knows of
it. Where nothing else tells (a whole vibration sensor that reads a third more, a drift that no second instrument sees) the
machine is believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.vocabulary import F64, Mask
from firmware_bridge.measurement import F32, I32, U8, Channel, Quality
from firmware_bridge.units import suffix_of

N_HALF = 8  # samples on each side of a step
N_RING = 2 * N_HALF
SHARP = 3.0  # a step is so many times what the samples on either side differ from their median
SPIKE_SPREADS, SPIKE_SHARE = 8.0, 0.5  # of the recent spread, and of the value itself: an excursion that cannot be
GAUGE_ZERO = {
    "bar": 1.0,
    "kpa": 100.0,
}  # shares of a pressure are of the absolute one: a suction gauge reads next to nothing
IMPACT_SHARE = 10.0  # the same of a vibration: one blow to a pipe makes three times of it
N_SURE = N_HALF + 1  # polls: whoever pretends that a machine starts or stops has been found by then
N_KNOWN = 100  # samples after which the range of a channel is known well enough to find another value strange
N_REPEATS = 5  # the same bits so often are a value that stands still, and no slow device
BAD = int(Quality.BAD)  # NumPy takes five times as long to compare with an enum
N_SPIKES, SPIKES_WITHIN_S = 3, 3 * 86_400.0
FACTOR_TOLERANCE = 0.05  # eight samples of a noisy amplitude tell their ratio within 2 to 3 %
SPREAD_TOLERANCE = 5.0  # a change of scale scales what flutters, too; the largest of eight tells it no better
# mm/s and in/s, g and m/s2, bar and psi, rpm and Hz, and slips of the decimal point (kPa and bar are 100)
FACTORS = np.array([25.4, 9.80665, 14.5038, 60.0, 10.0, 100.0, 1000.0])
INERT_K_S = 0.5  # no winding or liquid is heated faster (a seal that runs dry: 10 K/min)
BODY_K_S = 0.05  # and no housing that a sensor is bolted to
LEAST_STEP_K = 3.0
AXIS = re.compile(r"_([xyz])_")
RMS_STEP_SHARE = 0.25  # by which an RMS must rise before its peak is asked
PEAK_SHARE = 0.3  # of the amplitude that was added, by which the peak of the same signal would at least have risen
DEGREES = ("degc",)
# What a pump and its motor do shows in all of these at once: a step in one sensor alone is the sensor's.
VIBRATION_UNITS = ("mm_s", "m_s2", "g")
DUTY_UNITS = ("bar", "kpa", "m3_h", "l_min", "kw", "w", "a", "nm")
DUTY_STEP_SHARE = 0.05  # of the value: smaller steps are left to the detector
SUSPECT_SHARE = DUTY_STEP_SHARE  # of the value: what moves by less is not waited for
DUTY_ALONE_SHARE = 0.1  # of that share, which the others would have moved by at least
REST_SHARE = 0.5  # of the most that a quantity has been: what shares are of while it is at rest
TELLS_REST_SHARE = (
    0.25  # of the most that it has been: who has moved by so much tells a machine at rest from one that runs
)
MACHINE_STEP_SHARE = 0.25  # of a duty quantity, which moves at least so far when the machine starts or stops
N_WITNESS = 4  # readings of a witness on each side of the step
NONE, SPIKES, UNIT, SWAPPED, BIAS = range(5)
_NS = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Before and after the middle of some channels' last samples; all of shape (n,).

    Attributes: spread: the largest distance from the own half's median. jump: after less before.
    """

    before: F64
    after: F64
    spread_before: F64
    spread_after: F64

    @property
    def jump(self) -> F64:
        return self.after - self.before

    @property
    def sharp(self) -> Mask:
        """Where the two differ by far more than either varies in itself, and a ramp does not."""
        spread = np.maximum(self.spread_before, self.spread_after)
        sharp: Mask = np.abs(self.jump) > np.maximum(SHARP * spread, 1e-9)
        return sharp


def middles(rows: F64) -> tuple[F64, F64]:
    """Median and largest distance from it of each of the last axis's N_HALF samples; the distance is NaN where one is missing."""
    ordered = np.sort(rows, axis=-1)
    median = (ordered[..., N_HALF // 2 - 1] + ordered[..., N_HALF // 2]) / 2
    spread: F64 = np.maximum(ordered[..., -1] - median, median - ordered[..., 0])
    return median, spread


def rescaled(two: Halves, is_degrees: Mask) -> Mask:
    """Where one half is the other by a known factor, flutter included; or Celsius and Fahrenheit of each other."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = two.after / two.before
        flutter = np.abs(np.log(two.spread_after / two.spread_before / ratio))
        size = np.maximum(ratio, 1 / ratio)
    known = (np.abs(size[:, None] / FACTORS - 1) <= FACTOR_TOLERANCE).any(axis=1) & (ratio > 0)
    alike = ~(flutter > np.log(SPREAD_TOLERANCE))  # what does not flutter at all says nothing against it
    to_fahrenheit = np.abs(two.after - (1.8 * two.before + 32)) <= 1.0
    to_celsius = np.abs(two.before - (1.8 * two.after + 32)) <= 1.0
    found: Mask = np.where(is_degrees, to_fahrenheit | to_celsius, known & alike)
    return found


def exchanged(two: Halves, one: int, other: int) -> bool | None:
    """Whether two channels took each other's level; None where their levels are too alike to tell."""
    apart = abs(two.before[one] - two.before[other])
    near = max(two.spread_before[one], two.spread_before[other], two.spread_after[one], two.spread_after[other])
    if apart <= SHARP * near:
        return None
    errors = (abs(two.after[one] - two.before[other]), abs(two.after[other] - two.before[one]))
    return bool(max(errors) <= max(near, 0.15 * apart))


@dataclass(slots=True)
class _Runs:
    """Whether a sensor's machine runs, as far as anybody tells."""

    running: bool | None
    _now: bool | None = None
    _n_other: int = 0  # polls that said otherwise, less those that did not
    _was_told: bool = False

    def step(self, running: bool | None) -> bool:
        """One more poll. Gives whether it began or ceased to run, for several polls: one odd reading of a speed is no stop.

        Where a plug comes and goes its state flickers: then it takes as many polls more.
        """
        self._now = running
        self._was_told |= running is not None
        self._n_other = max(0, self._n_other - 1) if running is self.running else self._n_other + 1
        changed = self._n_other >= N_SURE
        if changed:
            self.running, self._n_other = running, 0
        return changed

    @property
    def changing(self) -> bool:
        """Whether it seems to begin or to cease to run: what steps then is accused only by witnesses that stand or run on."""
        return self._n_other > 0

    @property
    def unseen(self) -> bool:
        """Whether a machine whose starts and stops were known may start and stop unseen now: then no step accuses a sensor."""
        return self._was_told and (self._now is None or self.running is None)


class SignalWatch:
    """The recent samples of every scalar channel of the process, and what is wrong with each."""

    def __init__(self, channels: Sequence[Channel], machines: Iterable[Sequence[int]] = ()) -> None:
        """Args: machines: the channels of each machine; they bear witness for each other."""
        n = len(channels)
        self.fault = np.zeros(n, np.int8)  # NONE, SPIKES, ...
        self.since_ns = np.zeros(n, np.int64)
        self._level = np.full(n, np.nan)  # before the step
        self._jump = np.full(n, np.nan)  # the step, of a bias
        self._ring = np.full((n, N_RING), np.nan)
        self._median = np.full((n, 2), np.nan)  # of the ring's halves
        self._spread = np.full((n, 2), np.nan)  # likewise; NaN until a half is full
        self._n_believed = np.zeros(n, np.int64)
        self._lowest, self._highest = np.full(n, np.inf), np.full(n, -np.inf)  # of all that was believed so far
        self._time_ns = np.zeros((n, N_RING), np.int64)
        self._held = np.full(n, np.nan)  # an excursion that the next sample must confirm
        self._last = np.full(n, np.nan)
        self._quantum = np.full(n, np.inf)  # the smallest change that was seen: what the sensor resolves
        self._repeats = np.zeros(n, np.int32)
        self._spikes_ns = np.full((n, N_SPIKES), -(1 << 62))
        self._left = np.full(n, np.nan)  # the level that the excursion left
        self._runs: dict[str, _Runs] = {}
        self._sensor = [channel.sensor for channel in channels]
        self._is_degrees = np.array([_unit(channel.point) in DEGREES for channel in channels], np.bool_)
        vibrates = np.array([_unit(channel.point) in VIBRATION_UNITS for channel in channels], np.bool_)
        on_bodies = {name for name, shakes in zip(self._sensor, vibrates, strict=True) if shakes}
        self._inert_k_s = np.array([BODY_K_S if name in on_bodies else INERT_K_S for name in self._sensor])
        self._spike_share = np.where(vibrates, IMPACT_SHARE, SPIKE_SHARE)
        self._gauge_zero = np.array([GAUGE_ZERO.get(_unit(channel.point), 0.0) for channel in channels])
        self._pairs = _axis_pairs(channels)
        self._witnesses = _witnesses(channels, machines)
        self._peak_of = _peaks(channels)
        tells = {index for _, one, other in self._pairs for index in (one, other)} | set(self._peak_of)
        self._is_duty = np.array([_unit(channel.point) in DUTY_UNITS for channel in channels], np.bool_)
        tells |= {index for index, others in self._witnesses.items() if others and self._is_duty[index]}
        self._is_witnessed = np.isin(np.arange(n), sorted(tells))
        self._n_since_step = np.zeros(n, np.int32)
        self._n_doubted = np.zeros(
            n, np.int8
        )  # samples until a temperature is believed again that no body can have taken
        self.doubted: frozenset[int] = frozenset()

    def see(self, channels: I32, values: F32, quality: U8, monotonic_ns: int, running: bool | None) -> U8:
        """Take in one block of one sensor.

        Args: running: whether the sensor's machine runs; samples of before a start are not compared with those after.
        Returns: the quality with excursions made BAD that the next sample has not confirmed yet: one odd sample costs a
            statistic minutes, a true step is believed one sample later.
        """
        if not channels.size:
            return quality
        sensor = self._sensor[int(channels[0])]
        runs = self._runs.setdefault(sensor, _Runs(running))
        if runs.step(running):
            self._begin_anew(channels)
        good = np.isfinite(values) & (quality < BAD)
        where, seen = channels[good].astype(np.intp), values[good].astype(np.float64)
        fresh = self._is_fresh(where, seen)
        odd, waiting = self._odd(where, seen), np.isfinite(self._held[where])
        # what has not returned with the second reading is a step, and believed
        taken = np.where(fresh, ~odd | waiting, ~waiting)
        if waiting.any():
            returned = np.abs(seen - self._left[where]) < np.abs(self._held[where] - self._left[where]) / 2
            self._note_spikes(where[fresh & waiting & returned], monotonic_ns)
        self._held[where] = np.where(taken, np.nan, seen)
        news = taken & fresh
        pushed = where[news]
        self._push(pushed, seen[news], monotonic_ns)
        self._watch_departures(pushed)
        self._judge_steps(pushed, runs)
        if taken.all():
            return quality
        told = quality.copy()
        told[np.flatnonzero(good)[~taken]] = BAD
        return told

    def suspect(self) -> NDArray[np.intp]:
        """Channels that have just stepped: it takes as many samples again to tell the sensor's steps from the machine's."""
        stepped = (self._n_since_step > 0) & (self._n_since_step <= N_HALF)
        return np.flatnonzero(stepped | np.isfinite(self._held))

    def levels(self) -> F64:
        """Median of the last half of each channel's samples; NaN where there are not so many. Shape (n_channels,)."""
        levels: F64 = np.where(np.isfinite(self._spread[:, 1]), self._median[:, 1], np.nan)
        return levels

    def sensor_of(self, channel: int) -> str:
        return self._sensor[channel]

    def hold(self, channels: I32 | NDArray[np.intp], fault: int, monotonic_ns: int) -> None:
        """Take up a fault that stood before a restart: of the level that was left nothing is known, so the next step ends it."""
        self.fault[channels], self.since_ns[channels], self._level[channels] = fault, monotonic_ns, np.nan

    def forget(self, channels: I32 | NDArray[np.intp]) -> None:
        """The sensor was changed or set anew: what it says from now on is its normal."""
        self.fault[channels] = NONE
        self._held[channels] = np.nan
        self._n_believed[channels], self._lowest[channels], self._highest[channels] = 0, np.inf, -np.inf
        self._begin_anew(channels)

    def step(self, monotonic_ns: int) -> None:
        """Spikes end when there have been none for long."""
        over = (self.fault == SPIKES) & (monotonic_ns - self._spikes_ns[:, 0] > SPIKES_WITHIN_S * _NS)
        self.fault[over] = NONE

    def _begin_anew(self, channels: I32 | NDArray[np.intp]) -> None:
        self._ring[channels] = self._median[channels] = self._spread[channels] = np.nan
        self._n_since_step[channels] = self._n_doubted[channels] = 0

    def _is_fresh(self, where: NDArray[np.intp], seen: F64) -> Mask:
        """Values that the device renewed: we may poll faster than it measures. What stands still for long counts again."""
        self._repeats[where] = np.where(seen == self._last[where], self._repeats[where] + 1, 0)
        step = np.abs(seen - self._last[where])
        self._quantum[where] = np.fmin(self._quantum[where], np.where(step > 0, step, np.inf))
        self._last[where] = seen
        repeats = self._repeats[where]
        fresh: Mask = (repeats == 0) | (repeats > N_REPEATS)
        return fresh

    def _odd(self, where: NDArray[np.intp], seen: F64) -> Mask:
        """Samples far from both the recent median and the one before: beyond the spread, and by half of what they are about.

        Where there is no recent median, samples that are unheard of.
        """
        median, spread = self._median[where, 1], self._spread[where, 1]
        far = np.maximum(
            SPIKE_SPREADS * np.maximum(spread, self._quantum[where]), self._spike_share[where] * np.abs(median)
        )
        away = np.minimum(np.abs(seen - median), np.abs(seen - self._ring[where, -1]))
        odd: Mask = (away > far) & (far > 0)  # NaN, a ring that is not full, compares as False
        young = np.isnan(spread)
        if young.any():
            odd |= young & self._unheard_of(where, seen)
        if not odd.any():
            return odd
        news = odd & np.isnan(self._held[where])
        self._left[where[news]] = median[news]
        return odd

    def _unheard_of(self, where: NDArray[np.intp], seen: F64) -> Mask:
        """Samples beyond all that the channel ever said by half of that range: all that can be told soon after a start."""
        lowest, highest = self._lowest[where], self._highest[where]
        beyond = np.maximum(seen - highest, lowest - seen)
        found: Mask = (beyond > SPIKE_SHARE * (highest - lowest)) & (self._n_believed[where] >= N_KNOWN)
        return found

    def _note_spikes(self, where: NDArray[np.intp], monotonic_ns: int) -> None:
        if not where.size:
            return
        self._spikes_ns[where, 1:] = self._spikes_ns[where, :-1]
        self._spikes_ns[where, 0] = monotonic_ns
        many = monotonic_ns - self._spikes_ns[where, -1] <= SPIKES_WITHIN_S * _NS
        self._raise(where[many & (self.fault[where] == NONE)], SPIKES, self._spikes_ns[where, -1].max(initial=0))

    def _push(self, where: NDArray[np.intp], seen: F64, monotonic_ns: int) -> None:
        self._doubt(where, seen, monotonic_ns)
        self._ring[where, :-1], self._time_ns[where, :-1] = self._ring[where, 1:], self._time_ns[where, 1:]
        self._ring[where, -1], self._time_ns[where, -1] = seen, monotonic_ns
        self._median[where], self._spread[where] = middles(self._ring[where].reshape(-1, 2, N_HALF))
        self._lowest[where] = np.minimum(self._lowest[where], seen)
        self._highest[where] = np.maximum(self._highest[where], seen)
        self._n_believed[where] += 1

    def _doubt(self, where: NDArray[np.intp], seen: F64, monotonic_ns: int) -> None:
        """Temperatures that leapt as no body does: not even a limit is asked until the second half has told whose step it was."""
        since_s = (monotonic_ns - self._time_ns[where, -1]) / _NS
        leap = self._is_degrees[where] & (
            np.abs(seen - self._ring[where, -1]) > LEAST_STEP_K + self._inert_k_s[where] * since_s
        )
        if leap.any() or self.doubted:
            self._n_doubted[where] = np.where(leap, N_HALF, np.maximum(self._n_doubted[where] - 1, 0))
            self.doubted = frozenset(np.flatnonzero(self._n_doubted).tolist())

    def _end_held(self, sensor: str) -> None:
        """A sensor's fault of before a restart is over: nobody knows any more which of its channels it was."""
        own = np.array([name == sensor for name in self._sensor], np.bool_)
        self.fault[own & np.isnan(self._level)] = NONE

    def _watch_departures(self, where: NDArray[np.intp]) -> None:
        """Count the samples since a channel left the level of its older half; one that stands still since may be stuck."""
        median = self._median[where, 0]
        away = np.abs(self._ring[where, -1] - median)
        departed = away > SHARP * self._spread[where, 0]  # a ring that is not full: False
        if not departed.any():
            self._n_since_step[where] = 0
            return
        departed &= self._may_be_the_sensors(where, median, away)
        n_so_far = np.maximum(self._n_since_step[where] + (self._repeats[where] == 0), 1)
        self._n_since_step[where] = np.where(departed, n_so_far, 0)

    def _may_be_the_sensors(self, where: NDArray[np.intp], median: F64, away: F64) -> Mask:
        """Steps that the second half may yet show to be the sensor's; for any other nobody need wait."""
        share = away / np.maximum(np.abs(median), 1e-9)
        lasting = np.abs(self._ring[where, -1]) < np.abs(median) * (1 + FACTOR_TOLERANCE) / FACTORS.min()
        may: Mask = np.where(
            self._is_degrees[where],
            away > LEAST_STEP_K,
            (share > FACTORS.min() - 2) | lasting | (self._is_witnessed[where] & (share >= SUSPECT_SHARE)),
        )
        return may

    def _judge_steps(self, where: NDArray[np.intp], runs: _Runs) -> None:
        full = where[np.isfinite(self._spread[where, 0])]
        if not full.size:
            return
        two = Halves(*self._median[full].T, *self._spread[full].T)
        sharp = two.sharp
        if not sharp.any():
            return
        held = np.isnan(self._level[full])
        returned = _near(two.after, self._level[full], two) | _near(-two.jump, self._jump[full], two)
        back = sharp & (self.fault[full] > SPIKES) & (held | returned)
        self.fault[full[back]] = NONE
        if (back & held).any():
            self._end_held(self._sensor[int(full[0])])
        if runs.unseen:
            return
        fresh = sharp & ~back & (self.fault[full] <= SPIKES)
        found = np.zeros(full.size, np.int8)
        found[fresh & self._unwitnessed(full, two, sharp, runs.changing)] = BIAS
        if not runs.changing:
            found[fresh & (self._too_fast(full, two) | self._without_peak(full, two, sharp))] = BIAS
            found[fresh & self._swapped(full, two)] = SWAPPED
            found[fresh & rescaled(two, self._is_degrees[full])] = UNIT
        for at in np.flatnonzero(found):
            if self._machine_stepped(int(full[at])):
                found[at] = NONE
        for fault in (BIAS, SWAPPED, UNIT):
            chosen = found == fault
            self._level[full[chosen]] = two.before[chosen]
            self._jump[full[chosen]] = two.jump[chosen] if fault == BIAS else np.nan
            self._raise(full[chosen], fault, self._time_ns[full[chosen], N_HALF].max(initial=0))

    def _raise(self, where: NDArray[np.intp], fault: int, since_ns: int) -> None:
        self.fault[where], self.since_ns[where] = fault, since_ns

    def _machine_stepped(self, channel: int) -> bool:
        """Whether the machine began or ceased to run with the step, whatever its state says: then no sensor is accused of it."""
        at_ns = self._time_ns[channel, N_HALF]
        moved = (self._moved(witness, at_ns) for witness in self._witnesses.get(channel, ()))
        return any(each is not None and each > MACHINE_STEP_SHARE for each in moved)

    def _too_fast(self, where: NDArray[np.intp], two: Halves) -> Mask:
        """Temperatures that changed between two readings by more than any body does in that time."""
        between_s = (self._time_ns[where, N_HALF] - self._time_ns[where, N_HALF - 1]) / _NS
        fast: Mask = self._is_degrees[where] & (np.abs(two.jump) > LEAST_STEP_K + self._inert_k_s[where] * between_s)
        return fast

    def _without_peak(self, where: NDArray[np.intp], two: Halves, sharp: Mask) -> Mask:
        """RMS values that rose while the peak of the same signal hardly did: no signal does that. The reverse is an impact.

        What was added to an RMS by squares has an amplitude of its own, and a peak that hides most of it would be a strange chance.
        """
        added = np.sqrt(2 * np.maximum(np.square(two.after) - np.square(two.before), 0.0))
        position = {int(channel): at for at, channel in enumerate(where)}
        alone = np.zeros(where.size, np.bool_)
        for at in np.flatnonzero(sharp & (two.after >= (1 + RMS_STEP_SHARE) * two.before)):
            peak = position.get(self._peak_of.get(int(where[at]), -1))
            if peak is not None:
                least = PEAK_SHARE * added[at]
                alone[at] = two.jump[peak] < least and least > two.spread_after[peak]
        return alone

    def _unwitnessed(self, where: NDArray[np.intp], two: Halves, sharp: Mask, changing: bool) -> Mask:
        """Duty quantities that stepped while those of the machine's other sensors stayed where they were.

        Args: changing: whether the machine seems to start or stop: then only those are asked that tell its rest from its running.
        """
        share = np.abs(two.jump) / self._size(where, two.before)
        alone = np.zeros(where.size, np.bool_)
        for at in np.flatnonzero(sharp & self._is_duty[where] & (share >= DUTY_STEP_SHARE)):
            channel = int(where[at])
            moved = [
                self._moved(witness, self._time_ns[channel, N_HALF])
                for witness in self._witnesses.get(channel, ())
                if not changing or self._tells_rest(witness)
            ]
            told = [each for each in moved if each is not None]
            alone[at] = bool(told) and max(told) < DUTY_ALONE_SHARE * share[at]
        return alone

    def _moved(self, channel: int, at_ns: int) -> float | None:
        """By what share a channel changed at a time; None where it was not heard well on both sides of it."""
        heard, last, n_repeats = np.isfinite(self._ring[channel]), self._last[channel], int(self._repeats[channel])
        if n_repeats > N_REPEATS and abs(last) > DUTY_ALONE_SHARE * self._highest[channel]:
            return None  # it may be stuck: at rest alone a value stands still to the bit
        before, after = (
            self._ring[channel][heard & side]
            for side in (self._time_ns[channel] < at_ns, self._time_ns[channel] >= at_ns)
        )
        if before.size < N_WITNESS or after.size + n_repeats < N_WITNESS:
            return None
        was, now = np.median(before), np.median(after) if after.size >= N_WITNESS else last
        return float(abs(now - was) / self._size(channel, was))

    def _tells_rest(self, channel: int) -> bool:
        """Whether a duty quantity has ever moved as far as one does when the machine stands; behind a check valve none need."""
        moved = self._highest[channel] - self._lowest[channel]
        return bool(moved > TELLS_REST_SHARE * (self._highest[channel] + self._gauge_zero[channel]))

    def _size(self, where: NDArray[np.intp] | int, values: F64) -> F64:
        """What shares of a duty quantity are of: its value, and of one that is at rest a good part of what it has been."""
        zero = self._gauge_zero[where]
        size: F64 = np.maximum(np.abs(values + zero), REST_SHARE * np.abs(self._highest[where] + zero))
        return np.maximum(size, 1e-9)

    def _swapped(self, where: NDArray[np.intp], two: Halves) -> Mask:
        """Axes of one sensor that took each other's level, in every quantity that tells them apart."""
        position = {int(channel): at for at, channel in enumerate(where)}
        verdicts: dict[tuple[str, str, str], list[tuple[int, int, bool]]] = {}
        for key, one, other in self._pairs:
            if one in position and other in position:
                verdict = exchanged(two, position[one], position[other])
                if verdict is not None:
                    verdicts.setdefault(key, []).append((position[one], position[other], verdict))
        swapped = np.zeros(where.size, np.bool_)
        for told in verdicts.values():
            if all(verdict for _, _, verdict in told):
                swapped[[at for one, other, _ in told for at in (one, other)]] = True
        return swapped


def _near(values: F64, levels: F64, two: Halves) -> Mask:
    """Whether values are back at levels, within what they vary or a small share of the step."""
    near: Mask = np.abs(values - levels) <= np.maximum(SHARP * two.spread_after, 0.15 * np.abs(two.jump))
    return near


def _axis_pairs(channels: Sequence[Channel]) -> list[tuple[tuple[str, str, str], int, int]]:
    """Channels of one sensor that differ in their axis alone: ((sensor, axis, axis), index, index)."""
    named: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for index, channel in enumerate(channels):
        if found := AXIS.search(channel.point):
            named.setdefault((channel.sensor, AXIS.sub("_?_", channel.point)), []).append((found[1], index))
    return [
        ((sensor, first, second), one, other)
        for (sensor, _), axes in named.items()
        for at, (first, one) in enumerate(sorted(axes))
        for second, other in sorted(axes)[at + 1 :]
    ]


def _peaks(channels: Sequence[Channel]) -> dict[int, int]:
    """For each RMS the peak of the same signal of the same sensor."""
    at = {(channel.sensor, channel.point): index for index, channel in enumerate(channels)}
    pairs = (
        (index, at.get((sensor, point.replace("_rms_", "_peak_"))))
        for (sensor, point), index in at.items()
        if "_rms_" in point
    )
    return {index: peak for index, peak in pairs if peak is not None}


def _witnesses(channels: Sequence[Channel], machines: Iterable[Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """For each channel the duty quantities of the other sensors on its machines."""
    found: dict[int, set[int]] = {}
    for indices in machines:
        duty = [index for index in indices if _unit(channels[index].point) in DUTY_UNITS]
        for index in indices:
            others = (other for other in duty if channels[other].sensor != channels[index].sensor)
            found.setdefault(index, set()).update(others)
    return {index: tuple(sorted(others)) for index, others in found.items()}


def _unit(point: str) -> str:
    """The unit's suffix; "" where the name has none."""
    try:
        return suffix_of(point)
    except ValueError:
        return ""
