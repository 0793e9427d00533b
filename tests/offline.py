"""A scenario through the agent's whole path without a wire: what the sources would have yielded, in time's order.

The registers are encoded and decoded as on the wire, the bursts are quantised as their sensor does it; only sockets are left
out, so a story of minutes is told in seconds and always the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from agent.app import open_bundles, run_offline
from agent.baseline import Baseline
from agent.config import Site, SiteConfig, resolve
from agent.inference.bundle import Bundle
from agent.pipeline import Pipeline
from agent.vocabulary import AlarmEvent, Record
from firmware_bridge.checked import load
from firmware_bridge.device import load_device
from firmware_bridge.measurement import Block, Measurement, Quality, Waveform
from firmware_bridge.registers import Decoder, encode
from firmware_bridge.source import ModbusSpec
from simulator.scenario import Plant, load_scenario

START_UTC_NS = 1_780_000_000_000_000_000
START_MONOTONIC_NS = 1_000_000_000


@dataclass
class Story:
    """What came of a scenario: everything the agent said and kept."""

    pipeline: Pipeline
    events: list[AlarmEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    baselines: dict[tuple[str, str], Baseline] = field(default_factory=dict)

    def raised(self) -> list[tuple[str, str, float]]:
        """Alarms as (machine, last named fault or condition, seconds after the start), in order."""
        named: dict[str, tuple[str, str, float]] = {}
        for event in self.events:
            causes = event.explanation.causes
            what = causes[0].fault if causes and event.alarm_class != "sensor" else event.condition
            if event.trigger == "raise":
                named[event.alarm_id] = (event.machine, what, (event.utc_ns - START_UTC_NS) / 1e9)
            elif event.trigger == "escalate":
                named[event.alarm_id] = (event.machine, what, named[event.alarm_id][2])
        return list(named.values())


def site_of_demo(root: Path, *, engine: str = "onnx", bundles: Mapping[str, Path] | None = None) -> Site:
    """The demo's site on an engine; `bundles`: other models than the shipped ones, by machine tag."""
    path = root / "config" / "site.demo.toml"
    config = load(path, SiteConfig)
    machines = tuple(
        replace(machine, bundle=str(bundles[machine.tag])) if bundles and machine.tag in bundles else machine
        for machine in config.machines
    )
    return resolve(replace(config, site=replace(config.site, engine=engine), machines=machines), path, root)


def tell(
    site: Site,
    scenario: str,
    root: Path,
    *,
    seconds: float | None = None,
    bundles: Mapping[str, Bundle] | None = None,
    baselines: Mapping[tuple[str, str], Baseline] | None = None,
) -> Story:
    """Run a scenario through the pipeline of `site`; sensors that the plant does not have stay silent."""
    plant = Plant(load_scenario(scenario, root))
    opened = bundles if bundles is not None else open_bundles(site)
    pipeline = Pipeline(site, opened, started_monotonic_ns=START_MONOTONIC_NS, baselines=baselines)
    story = Story(pipeline)
    length_s = plant.scenario.duration_s if seconds is None else seconds
    for outcome in run_offline(pipeline, measurements(site, plant, root, length_s)):
        story.events += outcome.events
        story.records += outcome.records
        story.baselines.update({(tag, state): baseline for tag, state, baseline in outcome.baselines})
    return story


def measurements(site: Site, plant: Plant, root: Path, seconds: float) -> Iterator[Measurement]:
    """Every poll and burst in the order of time."""
    devices = _Devices(site, plant, root)
    bursts = [(spec, 0) for spec in plant.burst_sensors.values()]
    due = [(0.0, "poll", 0)] + [(spec.interval_s, "burst", at) for at, (spec, _) in enumerate(bursts)]
    while due:
        due.sort()
        time_s, kind, at = due.pop(0)
        if time_s > seconds:
            continue
        if kind == "poll":
            yield from devices.poll(time_s)
            due.append((time_s + 0.5, "poll", 0))
        else:
            spec, index = bursts[at]
            yield from _waveforms(plant, spec.name, index, time_s)
            bursts[at] = (spec, index + 1)
            due.append((time_s + spec.interval_s, "burst", at))


class _Devices:
    """Every Modbus sensor of the site: plant's values -> registers -> values, with the site's channel numbers."""

    def __init__(self, site: Site, plant: Plant, root: Path) -> None:
        self._plant = plant
        self._sets = {device.name: name for name, spec in plant.sets.items() for device in spec.devices}
        self._known = []
        for source, first in zip(site.config.sources, site.first_channels, strict=True):
            if not isinstance(source, ModbusSpec):
                continue
            at = first
            for sensor in source.sensors:
                profile = load_device(root / "config", sensor.device)
                channels = np.arange(at, at + len(profile.points), dtype=np.int32)
                at += len(profile.points)
                if sensor.name in self._sets:
                    self._known.append((sensor.name, profile, Decoder(profile), channels))

    def poll(self, time_s: float) -> Iterator[Block]:
        for name, profile, decoder, channels in self._known:
            shown = self._plant.device(self._sets[name], name, time_s)
            if shown is None:
                values = np.full(len(channels), np.nan, np.float32)
                quality = np.full(len(channels), Quality.BAD_COMM, np.uint8)
            else:
                words = encode(profile, shown)
                read = {
                    i: np.array([words.get((r.function, r.address + k), 0) for k in range(r.count)], np.uint16)
                    for i, r in enumerate(decoder.reads)
                }
                values, quality = decoder.decode(read)
            yield Block(channels, values, quality, *_stamps(time_s))


def _waveforms(plant: Plant, sensor: str, index: int, time_s: float) -> Iterator[Waveform]:
    samples, meta = plant.burst(sensor, index)
    utc_ns, monotonic_ns = _stamps(time_s)
    quality = Quality.UNCERTAIN if meta.clipped else Quality.GOOD
    for axis, row in zip(meta.axes, samples, strict=True):
        yield Waveform(sensor, axis, row, meta.sample_rate_hz, index, utc_ns, utc_ns, monotonic_ns, quality)


def _stamps(time_s: float) -> tuple[int, int]:
    return START_UTC_NS + round(time_s * 1e9), START_MONOTONIC_NS + round(time_s * 1e9)
