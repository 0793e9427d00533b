"""What `hark check` looks at beyond the site file: models on this very engine and CPU, the data folder, sensors, brokers.

One finding a line: what, how it is, and what to do where it is not well.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from agent.app import open_bundle_for, sparkplug_of, upstream_of
from agent.clock import SystemClock
from agent.config import Site
from firmware_bridge.errors import HarkError
from firmware_bridge.measurement import Block, Quality
from firmware_bridge.source import AnySpec, MqttSpec, Source, open_source
from firmware_bridge.topics import unshared

FIRST_ANSWER_S = 3.0
CONNECT_S = 2.0
REMEDIES = (
    (Quality.BAD_RANGE, "impossible values; check word order and scale in the device file"),
    (Quality.BAD_SENTINEL, "the device says it has no value; check that it is on and its own sensor is connected"),
    (Quality.BAD, "the device marks its value as bad; look at its own display"),
    (Quality.BAD_COMM, "these registers are not answered; check the device file against the device"),
)
MQTT_REMEDIES = (
    (Quality.BAD_RANGE, "impossible values; check scale and plausible in the payload file, or the range in points"),
    (Quality.BAD_SENTINEL, "the sensor says it has no value; check that its own probe is connected"),
    (Quality.BAD, "no numbers; check the paths in the payload file against a message"),
    (Quality.BAD_COMM, "the edge node or device behind it is gone; look at it there"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `hark check`."""

    what: str
    ok: bool
    says: str
    exit_code: int = 1

    def __str__(self) -> str:
        return f"{'ok     ' if self.ok else 'PROBLEM'} {self.what}: {self.says}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_site(site: Site, *, offline: bool) -> list[Finding]:
    """Every finding, in the order of the data path."""
    findings = [Finding("site file", True, f"{len(site.machines)} machines, {len(site.channels)} channels")]
    findings += _models(site)
    findings.append(_data_dir(site))
    if not offline:
        for i, spec in enumerate(site.config.sources):
            findings += _source(site, i, spec.name)
        findings += _upstream(site)
        findings += _sparkplug(site)
    return findings


def _models(site: Site) -> Iterator[Finding]:
    for machine in site.machines:
        what = f"model of {machine.tag}"
        try:
            bundle = open_bundle_for(machine, site.config.site.engine)
        except HarkError as error:
            yield Finding(what, False, _one_line(error), error.exit_code)
        else:
            yield Finding(what, True, f"{bundle.label}, self-test passed on {bundle.runtime.engine}")


def _data_dir(site: Site) -> Finding:
    folder = site.data_dir
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(parent, os.W_OK):
        return Finding("data folder", False, f"{folder} cannot be written; give it to the user that runs hark")
    free_mib = os.statvfs(parent).f_bavail * os.statvfs(parent).f_frsize / 2**20
    needed_mib = site.config.site.buffer_mib
    if free_mib < 1.2 * needed_mib:
        return Finding(
            "data folder",
            False,
            f"{free_mib:.0f} MiB free at {parent}, the buffer may take {needed_mib}; lower buffer_mib or free space",
        )
    return Finding("data folder", True, f"{folder}, {free_mib:.0f} MiB free, buffer at most {needed_mib} MiB")


def _source(site: Site, position: int, name: str) -> Iterator[Finding]:
    """Opens a source and waits for its connection and the first block of each of its polled sensors."""
    # A name of its own towards a broker: under the running agent's name it would take over that one's session and bursts.
    context = site.context(position, SystemClock())
    context = replace(context, gateway=f"{context.gateway}-check")
    try:
        source = open_source(_for_a_look(site.config.sources[position]), context)
    except HarkError as error:
        yield _lost(name, error)
        return
    spec = site.config.sources[position]
    heard: dict[str, Block] = {}
    expected = {channel.sensor for channel in source.channels}
    deadline = time.monotonic() + FIRST_ANSWER_S
    try:
        while time.monotonic() < deadline and (expected - heard.keys() or not source.counters.get("connects", 1)):
            for item in source.read(timeout_s=0.5):
                if isinstance(item, Block) and len(item.channels):
                    heard.setdefault(site.channels[int(item.channels[0])].sensor, item)
    except HarkError as error:
        yield _lost(name, error)
        return
    finally:
        source.close()
    if not expected:
        yield Finding(f"source {name}", True, "broker reached and subscribed; bursts come when the sensors send")
    if isinstance(spec, MqttSpec):
        yield from _publishers(site, spec, source, heard)
        return
    for sensor in sorted(expected):
        if trouble := source.troubles.get(sensor):
            yield Finding(f"sensor {sensor}", False, trouble.removeprefix(f"{sensor}, "), 3)
        elif sensor in heard:
            yield _sensor(site, sensor, heard[sensor], REMEDIES)
        else:
            says = f"no answer in {FIRST_ANSWER_S:.0f} s; check its power, cable and unit id"
            yield Finding(f"sensor {sensor}", False, says, 3)


def _one_line(error: HarkError) -> str:
    """A problem inside a file keeps its line and key, and becomes part of one finding."""
    return " ".join(str(error).split())


def _for_a_look(spec: AnySpec) -> AnySpec:
    """A broker that is not there shows itself before the look ends, and one that is keeps nothing for us afterwards."""
    if not isinstance(spec, MqttSpec):
        return spec
    # a share of a shared subscription would be taken from the running agent
    sensors = tuple(
        msgspec.structs.replace(sensor, topic=unshared(sensor.topic)) if sensor.topic else sensor
        for sensor in spec.sensors
    )
    timeout_s = min(spec.timeout_s, 0.8 * FIRST_ANSWER_S)
    return msgspec.structs.replace(spec, sensors=sensors, timeout_s=timeout_s, session_expiry_s=0)


def _lost(name: str, error: HarkError) -> Finding:
    return Finding(f"source {name}", False, _one_line(error).removeprefix(f"{name}: "), error.exit_code)


def _publishers(site: Site, spec: MqttSpec, source: Source, heard: Mapping[str, Block]) -> Iterator[Finding]:
    """Sensors that publish by themselves: the silence of a slow one is no news."""
    from firmware_bridge.sources.mqtt import MqttSource

    assert isinstance(source, MqttSource)
    intervals_s = {channel.sensor: channel.update_interval_s for channel in source.channels}
    for sensor in spec.sensors:
        what = f"sensor {sensor.name}"
        if sensor.name in heard:
            yield _sensor(site, sensor.name, heard[sensor.name], MQTT_REMEDIES)
        elif trouble := source.troubles.get(sensor.name):
            says = f"its messages are dropped: {trouble.removeprefix(f'{sensor.name}: ')}; check its payload file"
            yield Finding(what, False, says)
        elif sensor.name in intervals_s:
            topic = sensor.topic or "its topic"
            yield _unheard(what, topic, intervals_s[sensor.name], sensor.name in source.passed_by)


def _unheard(what: str, topic: str, interval_s: float, passed_by: bool) -> Finding:
    quiet = f"nothing of it on {topic} in {FIRST_ANSWER_S:.0f} s"
    if interval_s > FIRST_ANSWER_S / 2:
        return Finding(what, True, f"subscribed; {quiet}, it publishes every {interval_s:g} s")
    if passed_by:
        says = f"{quiet}, but messages without its values; check select, root and the paths of its payload"
    else:
        says = f"{quiet}; check its power, its topic and its own login at the broker"
    return Finding(what, False, says, 3)


def _sensor(site: Site, sensor: str, block: Block, remedies: Sequence[tuple[Quality, str]]) -> Finding:
    what = f"sensor {sensor}"
    named = [
        (site.channels[int(c)].point, float(v), Quality(int(q)))
        for c, v, q in zip(block.channels, block.values, block.quality, strict=True)
    ]
    good = ", ".join(f"{point} {value:.4g}" for point, value, _ in named if math.isfinite(value))
    bad = [
        f"{_points(named, quality)} {quality.name}: {remedy}" for quality, remedy in remedies if _points(named, quality)
    ]
    if bad:
        return Finding(what, False, f"{'; '.join(bad)}; good: {good or 'none'}")
    return Finding(what, True, good)


def _points(named: list[tuple[str, float, Quality]], quality: Quality) -> str:
    return ", ".join(point for point, _, found in named if found is quality)


def _upstream(site: Site) -> Iterator[Finding]:
    upstream = site.config.upstream
    if upstream is None:
        yield Finding("upstream", True, "none: alarms stay on this gateway")
        return
    found = _broker("upstream", lambda: upstream_of(site, upstream), upstream.host, upstream.port)
    if found.ok and upstream.confirm == "broker":
        says = "delivered means taken by the broker, which its power cut can undo (confirm = 'collector' is safer)"
        found = replace(found, says=f"{found.says}; {says}")
    yield found


def _sparkplug(site: Site) -> Iterator[Finding]:
    section = site.config.sparkplug
    if section is not None:
        yield _broker("sparkplug", lambda: sparkplug_of(site, section, SystemClock()), section.host, section.port)


def _broker(what: str, prepared: Callable[[], object], host: str, port: int) -> Finding:
    """Whether its secrets can be read and somebody listens there."""
    try:
        prepared()
    except HarkError as error:
        return Finding(what, False, _one_line(error), error.exit_code)
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        says = f"{host}:{port} cannot be reached ({error}); check host, port and network"
        return Finding(what, False, says, 3)
    return Finding(what, True, f"{host}:{port} reached")
