"""Windower: waveforms of one sensor and one burst become a Window, all axes or none.

A burst whose axes do not all arrive is dropped and counted; nothing is ever patched together from two bursts, two
sample rates or two lengths.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from agent.vocabulary import OperatingPoint, Window
from firmware_bridge.measurement import Quality, Waveform

MAX_OPEN = 4  # bursts of one sensor that may wait for axes at the same time
MAX_AGE_S = 60.0  # as long as the bridge waits for a burst's chunks
MAX_AXES = 4  # rows of the feature core
N_LEARNING = 2  # bursts whose axes are taken as the sensor's own, where the site file does not say


@dataclass(slots=True)
class _Bursts:
    """What is known of one sensor: expected axes (None while learning), open bursts, and which are done with."""

    axes: frozenset[str] | None
    open: OrderedDict[int, dict[str, Waveform]] = field(default_factory=OrderedDict)
    done: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=2 * MAX_OPEN))  # (burst id, monotonic ns)
    seen: list[frozenset[str]] = field(default_factory=list)


class Windower:
    """Groups waveforms by sensor and burst id.

    `counts` says what became of waveforms and bursts: windows, incomplete (bursts), and waveforms that were mismatched,
    duplicate, unexpected_axis, bad, unknown_sensor; learning counts bursts that only taught the axes.
    """

    def __init__(self, sensors: Mapping[str, str], axes: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """Args: sensors: burst sensor -> machine's tag. axes: sensor -> its axes, where the site states them."""
        self._machines = dict(sensors)
        stated = axes or {}
        self._bursts = {name: _Bursts(frozenset(stated[name]) if name in stated else None) for name in sensors}
        self.counts: Counter[str] = Counter()
        self.incomplete_by_sensor: Counter[str] = Counter()

    def step(self, waveform: Waveform, point: OperatingPoint, monotonic_ns: int) -> list[Window]:
        """Take in one axis.

        Args: point: what the machine is doing now. monotonic_ns: now.
        Returns: the window that this axis completed, or nothing.
        """
        bursts = self._bursts.get(waveform.sensor)
        if bursts is None:
            self.counts["unknown_sensor"] += 1
            return []
        self._age_out(waveform.sensor, bursts, monotonic_ns)
        if (reason := self._unwanted(waveform, bursts)) is not None:
            self.counts[reason] += 1
            return []
        return self._add(waveform, bursts, point, monotonic_ns)

    def tick(self, monotonic_ns: int) -> None:
        """Drop what has waited too long; for sensors that have fallen silent."""
        for name, bursts in self._bursts.items():
            self._age_out(name, bursts, monotonic_ns)

    def _unwanted(self, waveform: Waveform, bursts: _Bursts) -> str | None:
        if waveform.quality >= Quality.BAD or waveform.samples.ndim != 1 or not waveform.samples.size:
            return "bad"
        if any(burst_id == waveform.burst_id for burst_id, _ in bursts.done):
            return "duplicate"
        if bursts.axes is not None and waveform.axis not in bursts.axes:
            return "unexpected_axis"
        opened = bursts.open.get(waveform.burst_id, {})
        if waveform.axis in opened:
            return "duplicate"
        return "unexpected_axis" if len(opened) >= MAX_AXES else None

    def _add(self, waveform: Waveform, bursts: _Bursts, point: OperatingPoint, monotonic_ns: int) -> list[Window]:
        if waveform.burst_id not in bursts.open:
            self._learn(bursts, monotonic_ns)
            while len(bursts.open) >= MAX_OPEN:
                self._drop(waveform.sensor, bursts, next(iter(bursts.open)), monotonic_ns)
        gathered = bursts.open.setdefault(waveform.burst_id, {})
        if any(not _alike(waveform, other) for other in gathered.values()):
            self.counts["mismatched"] += 1
            self._drop(waveform.sensor, bursts, waveform.burst_id, monotonic_ns)
            return []
        gathered[waveform.axis] = waveform
        if bursts.axes is None or gathered.keys() != bursts.axes:
            return []
        del bursts.open[waveform.burst_id]
        bursts.done.append((waveform.burst_id, monotonic_ns))
        self.counts["windows"] += 1
        return [_window(self._machines[waveform.sensor], gathered, point)]

    def _learn(self, bursts: _Bursts, monotonic_ns: int) -> None:
        """A new burst begins: the one before has shown its axes. We may have joined the first halfway, so two count."""
        if bursts.axes is not None or not bursts.open:
            return
        burst_id, gathered = bursts.open.popitem()
        bursts.done.append((burst_id, monotonic_ns))
        bursts.seen.append(frozenset(gathered))
        self.counts["learning"] += 1
        if len(bursts.seen) >= N_LEARNING:
            bursts.axes = frozenset().union(*bursts.seen)

    def _age_out(self, sensor: str, bursts: _Bursts, monotonic_ns: int) -> None:
        oldest_ns = monotonic_ns - round(MAX_AGE_S * 1e9)
        while bursts.done and bursts.done[0][1] < oldest_ns:
            bursts.done.popleft()
        if bursts.axes is None:
            return  # at most one burst is open, and what it shows does not age
        waiting = [(key, max(w.monotonic_ns for w in axes.values())) for key, axes in bursts.open.items()]
        for burst_id, last_ns in waiting:
            if last_ns < oldest_ns:
                self._drop(sensor, bursts, burst_id, monotonic_ns)

    def _drop(self, sensor: str, bursts: _Bursts, burst_id: int, monotonic_ns: int) -> None:
        del bursts.open[burst_id]
        bursts.done.append((burst_id, monotonic_ns))
        self.counts["incomplete"] += 1
        self.incomplete_by_sensor[sensor] += 1


def _alike(one: Waveform, other: Waveform) -> bool:
    return one.sample_rate_hz == other.sample_rate_hz and one.samples.size == other.samples.size


def _window(machine: str, gathered: Mapping[str, Waveform], point: OperatingPoint) -> Window:
    axes = tuple(sorted(gathered))
    waveforms = [gathered[axis] for axis in axes]
    first = waveforms[0]
    return Window(
        machine=machine,
        sensor=first.sensor,
        axes=axes,
        samples=np.stack([waveform.samples for waveform in waveforms]).astype(np.float32, copy=False),
        sample_rate_hz=first.sample_rate_hz,
        burst_id=first.burst_id,
        utc_ns=min(waveform.start_utc_ns for waveform in waveforms),
        arrived_monotonic_ns=max(waveform.monotonic_ns for waveform in waveforms),
        point=point,
        clipped=any(waveform.quality != Quality.GOOD for waveform in waveforms),
    )
