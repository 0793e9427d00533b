"""The part `bursts` of `hark bench`: two machines whose three axes never pause, through a real broker into a real agent.

One second of 25.6 kHz from each axis in every second, in chunks as PROTOCOL.md has them. What was sent must be found again,
as a complete burst or in a counter of the agent. Memory is read from outside, once a second.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.frames import CRC, HEADER
from simulator.process import cpu_s, rss_mib
from simulator.stage import Part, PartFailed, embedded_broker, free_port, free_ports, part, wait_port

SAMPLE_RATE_HZ = 25_600
N_AXES = 3
LEAST_S = 5.0
WARM_UP_S = 300.0  # baselines are learned, caches and rings of durations are full; of a shorter run its first half
LEAST_FOR_SLOPE_S = 120.0  # a slope of less is noise
LOOK_S = 1.0
CONNECT_TIMEOUT_S = 20.0
LAST_BURSTS_S = 3.0  # for what is still on its way
MESSAGES_LOST = ("inbox_dropped", "too_large", "retained", "corrupt", "duplicate", "oversized", "foreign")
UNITS = {
    "bursts_sent": ("bursts sent: a second of an axis each, six axes without a pause", ""),
    "bursts_complete": ("of them complete at the agent", ""),
    "bursts_incomplete": ("of them incomplete: counted, dropped whole", ""),
    "bursts_lost": ("of them with no chunk that came through, all of which are counted", ""),
    "burst_windows": ("windows computed, three axes each", ""),
    "burst_bytes_per_s": ("over the wire, as sent", "B/s"),
    "burst_rss_start_mib": ("memory of the agent before the first burst", "MiB"),
    "burst_rss_warm_mib": ("after warm-up", "MiB"),
    "burst_rss_end_mib": ("at the end", "MiB"),
    "burst_rss_slope_mib_h": ("slope from warm-up to the end", "MiB/h"),
    "burst_cpu_pct": ("of one core: chunks, windows, features, model, of two machines without a pause", "%"),
}


def bursts(root: Path, seconds: float, engine: str) -> dict[str, Any]:
    """The part: two machines for `seconds`.

    Raises: PartFailed: a part ended, or a burst that was sent is neither complete nor counted.
    """
    seconds = max(seconds, LEAST_S)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hark-bench-")))
        name, port = stack.enter_context(broker(folder))
        modbus_port = free_ports(1)
        site, scenario = folder / "site.toml", folder / "bursts.toml"
        version = "5" if name == "mosquitto" else "3.1.1"
        site.write_text(SITE.format(mqtt=port, modbus=modbus_port, version=version, engine=engine), "utf-8")
        scenario.write_text(SCENARIO, "utf-8")
        agent = stack.enter_context(part("run", site, "--root", root, "--json", folder=folder))
        _wait_connected(agent)
        ports = ("--modbus-port", modbus_port, "--mqtt-port", port, "--duration", seconds)
        plant = stack.enter_context(part("simulate", scenario, "--root", root, *ports, "--json", folder=folder))
        seen = _watched(agent, plant, min(WARM_UP_S, seconds / 2))
        sent = plant.finish()["bursts"]
        threading.Event().wait(LAST_BURSTS_S)
        ledger = agent.finish()
    return {"burst_broker": name, "burst_s": seconds, **account(sent, ledger), **seen, **_rate(sent, seconds)}


def account(sent: Mapping[str, Any], ledger: Mapping[str, Any]) -> dict[str, Any]:
    """What became of every burst of the publisher's ledger, by the agent's ledger.

    A burst of which some chunks came is complete or incomplete; one of which none came shows only in the messages that were
    dropped, as many for it as it has chunks.
    Raises: PartFailed: the sum is not right.
    """
    counts, drops = ledger["counts"], ledger["drops"]
    n_sent = N_AXES * sum(sent["published"].values())
    n_complete, n_incomplete = counts.get("bursts:complete", 0), counts.get("bursts:incomplete", 0)
    n_lost = n_sent - n_complete - n_incomplete
    n_messages = sent["chunks"] + sent["dropped_queue"]
    n_dropped = sent["dropped_queue"] + sum(counts.get(f"bursts:{why}", 0) for why in MESSAGES_LOST)
    if n_lost < 0 or n_lost * n_messages > n_dropped * n_sent:
        raise PartFailed(
            f"{n_sent} bursts sent, {n_complete} complete, {n_incomplete} incomplete, {n_dropped} of {n_messages} messages "
            f"dropped and counted: that does not add up. Did the broker drop some? Counters: {drops}"
        )
    return {
        "bursts_sent": n_sent,
        "bursts_complete": n_complete,
        "bursts_incomplete": n_incomplete,
        "bursts_lost": n_lost,
        "burst_windows": ledger["windows"],
        "burst_drops": {name: n for name, n in drops.items() if not name.startswith("line:")},
    }


def _rate(sent: Mapping[str, Any], seconds: float) -> dict[str, float]:
    n_bursts = N_AXES * sum(sent["published"].values())
    n_bytes = n_bursts * 2 * SAMPLE_RATE_HZ + sent["chunks"] * (HEADER.size + CRC.size)
    return {"burst_bytes_per_s": round(n_bytes / seconds)}


def _watched(agent: Part, plant: Part, warm_up_s: float) -> dict[str, float]:
    """The agent's memory and processor time for as long as the plant runs."""
    pid, pause, started_s = agent.process.pid, threading.Event(), time.monotonic()
    looks = [(0.0, rss_mib(pid), cpu_s(pid))]
    while plant.process.poll() is None:
        pause.wait(LOOK_S)
        agent.check()
        looks.append((time.monotonic() - started_s, rss_mib(pid), cpu_s(pid)))
    plant.check()
    return memory(looks, warm_up_s)


def memory(looks: Sequence[tuple[float, float, float]], warm_up_s: float) -> dict[str, float]:
    """Figures of a run. Args: looks: seconds since the start, MiB and processor seconds, once a second."""
    warm = [look for look in looks if look[0] >= warm_up_s] or [looks[-1]]
    at_s, rss, used_s = zip(*warm, strict=True)
    watched_s = at_s[-1] - at_s[0]
    found = {
        "burst_rss_start_mib": round(looks[0][1], 1),
        "burst_rss_warm_mib": round(rss[0], 1),
        "burst_rss_end_mib": round(rss[-1], 1),
        "burst_cpu_pct": round(100 * (used_s[-1] - used_s[0]) / max(watched_s, LOOK_S), 1),
    }
    if watched_s >= LEAST_FOR_SLOPE_S:
        found["burst_rss_slope_mib_h"] = round(3600 * float(np.polyfit(at_s, rss, 1)[0]), 2)
    return found


def _wait_connected(agent: Part) -> None:
    """Until its source has subscribed: what is sent before is not for it. Raises: PartFailed."""
    deadline_s, pause = time.monotonic() + CONNECT_TIMEOUT_S, threading.Event()
    while "mqtt connected: source=bursts" not in agent.log.read_text("utf-8", "replace"):
        agent.check()
        if time.monotonic() > deadline_s:
            raise PartFailed(f"the agent did not connect within {CONNECT_TIMEOUT_S:.0f} s\n{agent.last_words()}")
        pause.wait(0.05)


@contextmanager
def broker(folder: Path) -> Iterator[tuple[str, int]]:
    """Mosquitto as a process of its own where it is installed, else the embedded one. Gives its name and port."""
    binary = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if binary is None:
        with embedded_broker() as port:
            yield "embedded", port
        return
    port, config, log = free_port(), folder / "mosquitto.conf", folder / "mosquitto.log"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n", "utf-8")
    with log.open("wb") as words:
        process = subprocess.Popen([binary, "-c", str(config)], stdout=words, stderr=words, text=True)
    try:
        wait_port(port, Part("mosquitto", process, log))
        yield "mosquitto", port
    finally:
        process.terminate()
        process.wait()


SITE = """
[site]
name = "bench"
gateway = "gw-01"
engine = "{engine}"
[upstream]
host = "127.0.0.1"
port = {mqtt}
version = "{version}"
confirm = "broker"
[[sources]]
kind = "modbus"
name = "line"
host = "127.0.0.1"
port = {modbus}
[[sources.sensors]]
name = "drive"
device = "abb_acs580"
unit_id = 1
[[sources]]
kind = "mqtt"
name = "bursts"
host = "127.0.0.1"
port = {mqtt}
version = "{version}"
[[sources.sensors]]
name = "accel-m"
burst_interval_s = 1
axes = ["x", "y", "z"]
[[sources.sensors]]
name = "accel-p"
burst_interval_s = 1
axes = ["x", "y", "z"]
[[machines]]
tag = "M-0"
type = "motor"
sensors = ["drive", "accel-m"]
rated_speed_rpm = 1460
bearings = {{ de = "6308" }}
learn_windows = 10
starting_s = 0
[[machines]]
tag = "P-0"
type = "pump"
sensors = ["drive", "accel-p"]
rated_speed_rpm = 1460
bearings = {{ de = "6309" }}
vanes = 6
learn_windows = 10
starting_s = 0
"""
SCENARIO = """
title = "bench: two machines, bursts without a pause"
site = "bench"
seed = 7
duration_s = 86400
[[sets]]
name = "s0"
motor = "M-0"
pump = "P-0"
[[sets.devices]]
name = "drive"
device = "abb_acs580"
unit_id = 1
place = "motor"
[[sets.bursts]]
name = "accel-m"
place = "motor_de"
interval_s = 1.0
[[sets.bursts]]
name = "accel-p"
place = "pump_de"
interval_s = 1.0
"""
