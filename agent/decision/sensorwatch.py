"""Sensor faults, ruled out first: a machine whose sensor is stuck, silent or absurd is not watched, never "healthy".

Pure. Looks at what the tag bank knows of every channel (how long since its bits changed, how long since a good value,
the last quality) and at when each burst sensor was last heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from agent.decision.threshold import Change, ConditionTracker
from agent.vocabulary import F64, Severity
from firmware_bridge.measurement import Channel, Quality

N_STUCK_POLLS = 10  # unchanged to the bit for this many polls
N_STUCK_UPDATES = 5  # and for this many of the device's own update intervals (it may renew slower than we poll)
N_SILENT_INTERVALS = 3
STARTUP_S = 10.0  # devices that came on with us may take so long before they are called silent
N_BAD_INTERVALS = 10
N_BACK_INTERVALS = 3
_NS = 1e9


class SensorFault(StrEnum):
    """What is wrong with a measurement, in the order in which they are believed: the first that holds is told."""

    SILENT = "silent"  # no value at all
    RANGE = "range"  # values that cannot be: word order, scale, broken cable
    ABSENT = "absent"  # the device says "not available"
    STUCK = "stuck"  # the same bits while the machine runs


SEVERITY: dict[SensorFault, Severity] = {
    SensorFault.SILENT: Severity.NO_DATA,
    SensorFault.RANGE: Severity.HIGH,
    SensorFault.ABSENT: Severity.NO_DATA,
    SensorFault.STUCK: Severity.NO_DATA,
}


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
        self.trackers = {fault: ConditionTracker(off_delay_s=N_BACK_INTERVALS * slowest_s) for fault in SensorFault}


class SensorWatch:
    """Every sensor of the process.

    Args:
        channels: the process's channel table.
        interval_s: how often each sensor is polled; a sensor without channels (bursts) by how often a burst is due.
    """

    def __init__(self, channels: Sequence[Channel], interval_s: Mapping[str, float], started_monotonic_ns: int) -> None:
        own: dict[str, list[int]] = {name: [] for name in interval_s}
        for index, channel in enumerate(channels):
            own.setdefault(channel.sensor, []).append(index)
        self._sensors = [_Sensor(name, interval_s.get(name, 1.0), indices, channels) for name, indices in own.items()]
        self._started_ns = started_monotonic_ns

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
        for sensor in self._sensors:
            sensor.running_since_ns = _since(sensor.running_since_ns, running.get(sensor.name), monotonic_ns)
            fault, points, duration_s = self._judge(sensor, tags, since_burst_s, monotonic_ns)
            for kind, tracker in sensor.trackers.items():
                onset_utc_ns = utc_ns - round(min(duration_s, (monotonic_ns - self._started_ns) / _NS) * _NS)
                change = tracker.step(1.0 if kind is fault else -1.0, monotonic_ns, onset_utc_ns)
                if change:
                    changes.append(SensorChange(sensor.name, kind, change, points, duration_s, tracker.onset_utc_ns))
        return changes

    def muted(self) -> frozenset[str]:
        """The sensors whose columns must not be judged now."""
        return frozenset(sensor.name for sensor in self._sensors if any(t.standing for t in sensor.trackers.values()))

    def hold(self, condition: str, onset_utc_ns: int) -> None:
        """Take up a sensor fault that stood before a restart, by its condition's name."""
        for sensor in self._sensors:
            for fault, tracker in sensor.trackers.items():
                if condition == f"sensor:{sensor.name}:{fault}":
                    tracker.hold(onset_utc_ns)

    def _judge(
        self, sensor: _Sensor, tags: TagView, since_burst_s: Mapping[str, float], monotonic_ns: int
    ) -> tuple[SensorFault | None, tuple[str, ...], float]:
        """The first fault that holds, the points concerned, and for how long it has."""
        watched_s = (monotonic_ns - self._started_ns) / _NS
        if not sensor.indices.size:
            quiet_s = min(since_burst_s.get(sensor.name, np.inf), watched_s)
            silent = quiet_s >= max(N_SILENT_INTERVALS * sensor.interval_s, _grace_s(watched_s))
            return (SensorFault.SILENT if silent else None), (), quiet_s
        since_good_s = np.minimum(tags.since_good_s[sensor.indices], watched_s)
        quality = tags.quality[sensor.indices]
        named = np.isin(quality, (Quality.BAD_RANGE, Quality.BAD_SENTINEL))
        silent_after_s = max(N_SILENT_INTERVALS * sensor.interval_s, _grace_s(watched_s))
        if not named.any() and since_good_s.min() >= silent_after_s:
            return SensorFault.SILENT, sensor.points, float(since_good_s.min())
        for fault, code in ((SensorFault.RANGE, Quality.BAD_RANGE), (SensorFault.ABSENT, Quality.BAD_SENTINEL)):
            bad = (quality == code) & (since_good_s >= N_BAD_INTERVALS * sensor.interval_s)
            if bad.any():
                return fault, _names(sensor.points, bad), float(since_good_s[bad].max())
        return self._judge_stuck(sensor, tags, monotonic_ns)

    @staticmethod
    def _judge_stuck(
        sensor: _Sensor, tags: TagView, monotonic_ns: int
    ) -> tuple[SensorFault | None, tuple[str, ...], float]:
        """All live channels unchanged, counted from when the machine came to run: at rest nothing needs to move."""
        if sensor.running_since_ns is None or not sensor.live.any():
            return None, (), 0.0
        running_s = (monotonic_ns - sensor.running_since_ns) / _NS
        frozen_s = np.minimum(tags.since_change_s[sensor.indices], running_s)[sensor.live]
        if (frozen_s >= sensor.stuck_after_s[sensor.live]).all():
            return SensorFault.STUCK, _names(sensor.points, sensor.live), float(frozen_s.min())
        return None, (), 0.0


def _grace_s(watched_s: float) -> float:
    """How long a silence must last at least while everything is only coming on."""
    return STARTUP_S if watched_s < STARTUP_S else 0.0


def _since(since_ns: int | None, running: bool | None, monotonic_ns: int) -> int | None:
    if running is not True:
        return None
    return monotonic_ns if since_ns is None else since_ns


def _names(points: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(point for point, keep in zip(points, chosen, strict=True) if keep)
