"""What `hark check` looks at beyond the site file: models on this very engine and CPU, the data folder, sensors, brokers.

One finding a line: what, how it is, and what to do where it is not well.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from agent.app import open_bundle_for
from agent.clock import SystemClock
from agent.config import Site
from firmware_bridge.errors import HarkError
from firmware_bridge.measurement import Block, Quality
from firmware_bridge.source import open_source

FIRST_ANSWER_S = 3.0
CONNECT_S = 2.0


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
    return findings


def _models(site: Site) -> Iterator[Finding]:
    for machine in site.machines:
        what = f"model of {machine.tag}"
        try:
            bundle = open_bundle_for(machine, site.config.site.engine)
        except HarkError as error:
            yield Finding(what, False, str(error), error.exit_code)
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
    """Opens a source and waits for the first block of each of its polled sensors."""
    try:
        source = open_source(site.config.sources[position], site.context(position, SystemClock()))
    except HarkError as error:
        yield Finding(f"source {name}", False, str(error), error.exit_code)
        return
    heard: dict[str, Block] = {}
    expected = {channel.sensor for channel in source.channels}
    deadline = time.monotonic() + FIRST_ANSWER_S
    try:
        while time.monotonic() < deadline and (expected - heard.keys() or not expected):
            for item in source.read(timeout_s=0.5):
                if isinstance(item, Block) and len(item.channels):
                    heard.setdefault(site.channels[int(item.channels[0])].sensor, item)
            if not expected:
                break
    except HarkError as error:
        yield Finding(f"source {name}", False, str(error), error.exit_code)
        return
    finally:
        source.close()
    if not expected:
        yield Finding(f"source {name}", True, "broker reached and subscribed; bursts come when the sensors send")
    for sensor in sorted(expected):
        yield _sensor(site, sensor, heard.get(sensor))


def _sensor(site: Site, sensor: str, block: Block | None) -> Finding:
    what = f"sensor {sensor}"
    if block is None:
        return Finding(what, False, f"no answer in {FIRST_ANSWER_S:.0f} s; check its power, cable and unit id", 3)
    named = [
        (site.channels[int(c)].point, float(v), Quality(int(q)))
        for c, v, q in zip(block.channels, block.values, block.quality, strict=True)
    ]
    bad = [f"{point} {quality.name}" for point, _, quality in named if quality >= Quality.BAD]
    if all(quality is Quality.BAD_COMM for _, _, quality in named):
        return Finding(
            what, False, "the gateway answers, this unit does not; check the unit id on its label, power and wiring", 3
        )
    good = ", ".join(f"{point} {value:.4g}" for point, value, _ in named if math.isfinite(value))
    if bad:
        return Finding(
            what,
            False,
            f"{', '.join(bad)}: check word order and scale in the device file, and that the machine runs; good: {good or 'none'}",
        )
    return Finding(what, True, good)


def _upstream(site: Site) -> Iterator[Finding]:
    upstream = site.config.upstream
    if upstream is None:
        yield Finding("upstream", True, "none: alarms stay on this gateway")
        return
    try:
        socket.create_connection((upstream.host, upstream.port), CONNECT_S).close()
    except OSError as error:
        yield Finding(
            "upstream",
            False,
            f"{upstream.host}:{upstream.port} cannot be reached ({error}); check host, port and network",
            3,
        )
        return
    says = f"{upstream.host}:{upstream.port} reached"
    if upstream.confirm == "broker":
        says += "; delivered means taken by the broker, which its power cut can undo (confirm = 'collector' is safer)"
    yield Finding("upstream", True, says)
