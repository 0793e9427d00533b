"""Sensor faults, ruled out first: a machine whose sensor is stuck, silent or absurd is not watched, never "healthy".

Pure. Looks at what the tag bank knows of every channel (how long since its bits changed, how long since a good value,
the last quality), at when each burst sensor was last heard, at the values themselves (signals.py) and at bursts (bursts.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from agent.decision.bursts import BurstWatch, look_at
from agent.decision.drift import EVERY_S, bound_pairs
from agent.decision.signals import BIAS, NONE, SPIKES, SWAPPED, UNIT, SignalWatch
from agent.decision.threshold import Change, ConditionTracker
from agent.features.nameplate import Nameplate
from agent.vocabulary import F64, Mask, Severity, Window
from firmware_bridge.measurement import U8, Block, Channel, Quality

N_STUCK_POLLS = 10  # unchanged to the bit for this many polls
N_STUCK_UPDATES = 5  # and for this many of the device's own update intervals (it may renew slower than we poll)
N_SILENT_INTERVALS = 3
STARTUP_S = 10.0  # devices that came on with us may take so long before they are called silent
N_BAD_INTERVALS = 10
LONG_SILENCE_S = 3600.0  # of a sensor that comes and goes: for so long it has gone
N_BACK_INTERVALS = 3
N_BOUTS, BOUTS_WITHIN_S = 4, 6 * 3600.0  # good, bad, good, bad: a cable or a plug, however short each bout
BAD, BAD_RANGE, BAD_SENTINEL, BAD_COMM = (  # NumPy takes five times as long to compare with an enum
    int(code) for code in (Quality.BAD, Quality.BAD_RANGE, Quality.BAD_SENTINEL, Quality.BAD_COMM)
)
NOTHING: tuple[None, tuple[str, ...], float] = (None, (), 0.0)
_NS = 1e9


class SensorFault(StrEnum):
    """What is wrong with a measurement, in the order in which they are believed: the first that holds is told."""

    SILENT = "silent"  # no value at all
    RANGE = "range"  # values that cannot be: word order, scale, broken cable
    ABSENT = "absent"  # the device says "not available"
    INTERMITTENT = "intermittent"  # good and bad by turns
    STUCK = "stuck"  # the same bits while the machine runs
    UNIT = "unit"  # suddenly another unit or scale: an exact factor
    SWAPPED = "swapped"  # two axes took each other's level
    BIAS = "bias"  # a step that no machine makes
    DRIFT = "drift"  # it and another instrument of the same thing have come apart
    SPIKES = "spikes"  # single readings that cannot be, and return at once
    GAPS = "gaps"  # bursts arrive with parts missing
    CLIPPED = "clipped"  # bursts reach full scale
    SKI_SLOPE = "ski_slope"  # most of a burst lies below 5 Hz: overload, or a knock it still recovers from
    OFFSET = "offset"  # the mean acceleration moved: turned, hanging, or without bias
    LOOSE = "loose"  # high frequencies are lost on the way
    RATE = "rate"  # its clock is wrong


SEVERITY: dict[SensorFault, Severity] = {
    fault: Severity.HIGH if fault in (SensorFault.RANGE, SensorFault.UNIT) else Severity.NO_DATA
    for fault in SensorFault
}
FAULT_OF_SIGNAL = {
    UNIT: SensorFault.UNIT,
    SWAPPED: SensorFault.SWAPPED,
    BIAS: SensorFault.BIAS,
    SPIKES: SensorFault.SPIKES,
}
CODE_OF_FAULT = {fault: code for code, fault in FAULT_OF_SIGNAL.items()}
# Spikes are taken out one by one, lost bursts are no wrong bursts, and what comes and goes is right while it is there: such a
# sensor is told of, and what it says is believed.
STILL_BELIEVED = (SensorFault.SPIKES, SensorFault.GAPS, SensorFault.INTERMITTENT)


@dataclass(frozen=True, slots=True)
class SensorChange:
    """A sensor fault that began or ended. `condition` names its alarm; `points` are the channels concerned."""

    sensor: str
    fault: SensorFault
    change: Change
    points: tuple[str, ...]
    duration_s: float
    onset_utc_ns: int

    @property
    def condition(self) -> str:
        return f"sensor:{self.sensor}:{self.fault}"


@dataclass(frozen=True, slots=True)
class TagView:
    """What the watch reads of every channel of the process, in the order of its channel table; all of shape (n,).

    Attributes:
        since_change_s: since the value's bits last changed. since_good_s: since the last good value, inf for never.
        quality: the last one heard.
    """

    since_change_s: F64
    since_good_s: F64
    quality: NDArray[np.uint8]


class _Sensor:
    """One sensor's channels and trackers."""

    def __init__(self, name: str, interval_s: float, indices: Sequence[int], channels: Sequence[Channel]) -> None:
        self.name = name
        self.indices = np.asarray(indices, np.intp)
        self.points = tuple(channels[i].point for i in indices)
        self.live = np.asarray([channels[i].live for i in indices], np.bool_)
        slowest_s = max([interval_s, *(channels[i].update_interval_s for i in indices)])
        self.interval_s = slowest_s
        updates_s = np.asarray([channels[i].update_interval_s for i in indices], np.float64)
        self.stuck_after_s = np.maximum(N_STUCK_POLLS * interval_s, N_STUCK_UPDATES * updates_s)
        self.running_since_ns: int | None = None
        self.bursts = BurstWatch()
        self.was_bad = False
        self.bouts_ns: deque[int] = deque(maxlen=N_BOUTS)
        self.trackers = {fault: ConditionTracker(off_delay_s=N_BACK_INTERVALS * slowest_s) for fault in SensorFault}
        self.stands = False  # any of them

    @property
    def lies(self) -> bool:
        """Whether anything but a drift stands: that it is far from another instrument is then no news."""
        return self.stands and any(
            tracker.standing for fault, tracker in self.trackers.items() if fault is not SensorFault.DRIFT
        )

    @property
    def has_past(self) -> bool:
        """Whether it must be looked at although its channels show nothing now; one of bursts has no channels to show it."""
        return self.stands or not self.indices.size or bool(self.bursts.faults) or len(self.bouts_ns) == N_BOUTS


class _SideBySide:
    """The channels of all sensors in one row: nearly always a glance shows that nothing is wrong with any of them."""

    def __init__(self, sensors: Sequence[_Sensor]) -> None:
        """Args: sensors: each with channels."""
        self._names = [sensor.name for sensor in sensors]
        sizes = [sensor.indices.size for sensor in sensors]
        self._row = np.concatenate([sensor.indices for sensor in sensors]) if sensors else np.zeros(0, np.intp)
        self._starts = np.cumsum([0, *sizes[:-1]]) if sensors else np.zeros(0, np.intp)
        self._interval_s = np.array([sensor.interval_s for sensor in sensors])
        self._stuck_after_s = np.concatenate(
            [np.zeros(0), *(np.where(sensor.live, sensor.stuck_after_s, -np.inf) for sensor in sensors)]
        )
        self._can_stick = np.array([sensor.live.any() for sensor in sensors], np.bool_)

    def odd(self, tags: TagView, accused: Mask, watched_s: float) -> frozenset[str]:
        """The sensors that are silent, bad, accused, or whose live values stand still.

        Args: accused: by their values, shape (n_channels,).
        """
        if not self._names:
            return frozenset()
        row, starts = self._row, self._starts
        quiet_s = np.minimum(np.minimum.reduceat(tags.since_good_s[row], starts), watched_s)
        odd = quiet_s >= np.maximum(N_SILENT_INTERVALS * self._interval_s, _grace_s(watched_s))
        odd |= np.logical_or.reduceat((tags.quality[row] >= BAD) | accused[row], starts)
        odd |= np.logical_and.reduceat(tags.since_change_s[row] >= self._stuck_after_s, starts) & self._can_stick
        return frozenset(name for name, is_odd in zip(self._names, odd.tolist(), strict=True) if is_odd)


class SensorWatch:
    """Every sensor of the process.

    Args:
        channels: the process's channel table.
        interval_s: how often each sensor is polled; a sensor without channels (bursts) by how often a burst is due.
        machines: the channels of each machine.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        interval_s: Mapping[str, float],
        started_monotonic_ns: int,
        machines: Iterable[Sequence[int]] = (),
    ) -> None:
        own: dict[str, list[int]] = {name: [] for name in interval_s}
        for index, channel in enumerate(channels):
            own.setdefault(channel.sensor, []).append(index)
        self._sensors = [_Sensor(name, interval_s.get(name, 1.0), indices, channels) for name, indices in own.items()]
        self._named = {sensor.name: sensor for sensor in self._sensors}
        self._side_by_side = _SideBySide([sensor for sensor in self._sensors if sensor.indices.size])
        machines = tuple(machines)
        self._signals = SignalWatch(channels, machines)
        self._pairs = bound_pairs(channels, machines)
        self._compared_ns = started_monotonic_ns
        self._drifted = np.zeros(len(channels), np.bool_)
        self._muted: frozenset[str] = frozenset()
        self._started_ns = started_monotonic_ns

    def see_block(self, block: Block, running: bool | None) -> U8:
        """Take in one block of one sensor, before anything else does.

        Returns: its quality, with readings that cannot be made BAD until the next one confirms them.
        """
        return self._signals.see(block.channels, block.values, block.quality, block.monotonic_ns, running)

    def see_window(self, window: Window, running: bool, nameplate: Nameplate | None = None) -> bool:
        """Take in one whole burst, before anything else does.

        Returns: whether it may be judged: it shows no fault of its sensor, and none stands.
        """
        sensor = self._named.get(window.sensor)
        if sensor is None or not np.isfinite(window.samples).all():
            return True
        shows_fault = sensor.bursts.see(look_at(window, nameplate), running)
        return not shows_fault and window.sensor not in self.muted()

    def missed_burst(self, sensor: str) -> None:
        """A burst of this sensor did not arrive whole."""
        if sensor in self._named:
            self._named[sensor].bursts.missed()

    def forget(self, sensor: str) -> None:
        """It was changed, mounted or set anew: what it says from now on is its normal."""
        if sensor in self._named:
            own = self._named[sensor].indices
            self._signals.forget(own)
            self._named[sensor].bursts.forget()
            for pair in self._pairs:
                if {pair.first, pair.second} & set(own.tolist()):
                    pair.forget()
            self._note_drifts()

    def step(
        self,
        tags: TagView,
        since_burst_s: Mapping[str, float],
        running: Mapping[str, bool | None],
        monotonic_ns: int,
        utc_ns: int,
    ) -> list[SensorChange]:
        """One look, about once a second.

        Args:
            since_burst_s: seconds since each burst sensor's last whole burst; absent for never.
            running: whether the machine of a sensor runs; None or absent where that is not known.
        """
        changes = []
        self._signals.step(monotonic_ns)
        self._compare(running, monotonic_ns)
        watched_s = (monotonic_ns - self._started_ns) / _NS
        accused = self._drifted | (self._signals.fault != NONE)
        odd = self._side_by_side.odd(tags, accused, watched_s)
        for sensor in self._sensors:
            sensor.running_since_ns = _since(sensor.running_since_ns, running.get(sensor.name), monotonic_ns)
            if sensor.name not in odd and not sensor.has_past:
                sensor.was_bad = False
                continue
            fault, points, duration_s = self._judge(sensor, tags, since_burst_s, monotonic_ns)
            onset_utc_ns = utc_ns - round(min(duration_s, watched_s) * _NS)
            for kind, tracker in sensor.trackers.items():
                if kind is not fault and not tracker.standing:
                    continue
                change = tracker.step(1.0 if kind is fault else -1.0, monotonic_ns, onset_utc_ns)
                if change:
                    changes.append(SensorChange(sensor.name, kind, change, points, duration_s, tracker.onset_utc_ns))
        if changes:
            self._note_standing()
        return changes

    def muted(self) -> frozenset[str]:
        """The sensors whose columns must not be judged now."""
        return self._muted

    def _note_standing(self) -> None:
        """After every change: who has a fault, and who is not believed."""
        for sensor in self._sensors:
            sensor.stands = any(tracker.standing for tracker in sensor.trackers.values())
        self._muted = frozenset(
            sensor.name
            for sensor in self._sensors
            if any(tracker.standing for fault, tracker in sensor.trackers.items() if fault not in STILL_BELIEVED)
        )

    def suspect(self) -> frozenset[str]:
        """The sensors that have just stepped: a verdict waits until it is known whose step it was, a limit does not."""
        return frozenset(self._signals.sensor_of(channel) for channel in self.suspect_channels())

    def suspect_channels(self) -> frozenset[int]:
        """The very channels that have just stepped."""
        return frozenset(self._signals.suspect().tolist())

    @property
    def doubted_channels(self) -> frozenset[int]:
        """Channels whose last step no machine can have made: nothing is concluded from them until it is known whose it was."""
        return self._signals.doubted

    def hold(self, condition: str, onset_utc_ns: int) -> None:
        """Take up a sensor fault that stood before a restart, by its condition's name."""
        for sensor in self._sensors:
            for fault, tracker in sensor.trackers.items():
                if condition == f"sensor:{sensor.name}:{fault}":
                    tracker.hold(onset_utc_ns)
                    if fault in CODE_OF_FAULT:
                        self._signals.hold(sensor.indices, CODE_OF_FAULT[fault], self._started_ns)
        self._note_standing()

    def _judge(
        self, sensor: _Sensor, tags: TagView, since_burst_s: Mapping[str, float], monotonic_ns: int
    ) -> tuple[SensorFault | None, tuple[str, ...], float]:
        """The first fault that holds, the points concerned, and for how long it has."""
        watched_s = (monotonic_ns - self._started_ns) / _NS
        if not sensor.indices.size:
            quiet_s = min(since_burst_s.get(sensor.name, np.inf), watched_s)
            silent = quiet_s >= max(N_SILENT_INTERVALS * sensor.interval_s, _grace_s(watched_s))
            return (SensorFault.SILENT, (), quiet_s) if silent else _of_bursts(sensor)
        since_good_s = np.minimum(tags.since_good_s[sensor.indices], watched_s)
        quality = tags.quality[sensor.indices]
        named = (quality == BAD_RANGE) | (quality == BAD_SENTINEL)
        silent_after_s = max(N_SILENT_INTERVALS * sensor.interval_s, _grace_s(watched_s))
        quiet_s = float(since_good_s.min())
        is_intermittent = _is_intermittent(sensor, monotonic_ns)
        _count_bouts(sensor, tags, quiet_s >= silent_after_s, monotonic_ns)
        if is_intermittent:
            silent_after_s = max(N_BAD_INTERVALS * sensor.interval_s, LONG_SILENCE_S)
        if not named.any() and quiet_s >= silent_after_s:
            return SensorFault.SILENT, sensor.points, quiet_s
        for fault, code in ((SensorFault.RANGE, BAD_RANGE), (SensorFault.ABSENT, BAD_SENTINEL)):
            bad = (quality == code) & (since_good_s >= N_BAD_INTERVALS * sensor.interval_s)
            if bad.any():
                return fault, _names(sensor.points, bad), float(since_good_s[bad].max())
        if is_intermittent:
            return SensorFault.INTERMITTENT, sensor.points, (monotonic_ns - sensor.bouts_ns[0]) / _NS
        stuck = self._judge_stuck(sensor, tags, monotonic_ns)
        return stuck if stuck[0] is not None else self._judge_signals(sensor, monotonic_ns)

    def _compare(self, running: Mapping[str, bool | None], monotonic_ns: int) -> None:
        """Once a minute: what two instruments say of the same thing."""
        if not self._pairs or monotonic_ns - self._compared_ns < EVERY_S * _NS:
            return
        self._compared_ns = monotonic_ns
        levels = self._signals.levels()
        for pair in self._pairs:
            sensors = [self._named[self._signals.sensor_of(channel)] for channel in (pair.first, pair.second)]
            runs = running.get(sensors[0].name)
            unknown = runs is None and pair.drifted  # both are muted: that they agree again must be seen all the same
            if not any(sensor.lies for sensor in sensors):
                pair.step(levels, bool(runs) or unknown, monotonic_ns)
        self._note_drifts()

    def _note_drifts(self) -> None:
        apart = [index for pair in self._pairs if pair.drifted for index in (pair.first, pair.second)]
        self._drifted[:] = False
        self._drifted[apart] = True

    def _judge_signals(self, sensor: _Sensor, monotonic_ns: int) -> tuple[SensorFault | None, tuple[str, ...], float]:
        codes = self._signals.fault[sensor.indices]
        for code, fault in FAULT_OF_SIGNAL.items():
            shown = codes == code
            if shown.any():
                since_ns = int(self._signals.since_ns[sensor.indices[shown]].min())
                return fault, _names(sensor.points, shown), (monotonic_ns - since_ns) / _NS
        drifted = self._drifted[sensor.indices]
        if drifted.any():
            return SensorFault.DRIFT, _names(sensor.points, drifted), 0.0
        return _of_bursts(sensor)

    @staticmethod
    def _judge_stuck(
        sensor: _Sensor, tags: TagView, monotonic_ns: int
    ) -> tuple[SensorFault | None, tuple[str, ...], float]:
        """All live channels unchanged, counted from when the machine came to run: at rest nothing needs to move.

        A sensor that was found to be stuck is so until it moves, whatever the machine does.
        """
        frozen_s = tags.since_change_s[sensor.indices][sensor.live]
        if not sensor.trackers[SensorFault.STUCK].standing:
            if sensor.running_since_ns is None:
                return NOTHING
            frozen_s = np.minimum(frozen_s, (monotonic_ns - sensor.running_since_ns) / _NS)
        if frozen_s.size and (frozen_s >= sensor.stuck_after_s[sensor.live]).all():
            return SensorFault.STUCK, _names(sensor.points, sensor.live), float(frozen_s.min())
        return NOTHING


def _of_bursts(sensor: _Sensor) -> tuple[SensorFault | None, tuple[str, ...], float]:
    faults = sensor.bursts.faults
    return (SensorFault(faults[0]), (), 0.0) if faults else NOTHING


def _count_bouts(sensor: _Sensor, tags: TagView, is_silent: bool, monotonic_ns: int) -> None:
    """Note when good turned bad: one channel's quality, or silence."""
    quality = tags.quality[sensor.indices]
    named = (quality == BAD_SENTINEL) | (quality == BAD_COMM) | (quality == BAD_RANGE)
    is_bad = is_silent or bool((named & np.isfinite(tags.since_good_s[sensor.indices])).any())
    if is_bad and not sensor.was_bad:
        sensor.bouts_ns.append(monotonic_ns)
    sensor.was_bad = is_bad


def _is_intermittent(sensor: _Sensor, monotonic_ns: int) -> bool:
    return len(sensor.bouts_ns) == N_BOUTS and monotonic_ns - sensor.bouts_ns[0] <= BOUTS_WITHIN_S * _NS


def _grace_s(watched_s: float) -> float:
    """How long a silence must last at least while everything is only coming on."""
    return STARTUP_S if watched_s < STARTUP_S else 0.0


def _since(since_ns: int | None, running: bool | None, monotonic_ns: int) -> int | None:
    if running is not True:
        return None
    return monotonic_ns if since_ns is None else since_ns


def _names(points: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(point for point, keep in zip(points, chosen, strict=True) if keep)
