"""The Modbus part of `hark bench`: values a second over TCP loopback, requests per value, a device at 50 Hz, wrong maps."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from firmware_bridge.device import load_device
from simulator.miswired import miswired_report
from simulator.modbus_device import Unit
from simulator.serve_modbus import ModbusServer

N_POINTS = 100
N_UNITS = 20
AS_FAST_AS_IT_GOES_S = 0.01
FIFTY_HZ_S = 0.02
N_MISWIRED = 200
MISWIRED_SEED = 201
UNITS = {
    "modbus_tags_per_s": ("Modbus values read by TCP loopback", "1/s"),
    "modbus_tags_per_cpu_s": ("the same, a second of the reader's processor time", "1/s"),
    "modbus_requests_per_100_tags": ("requests for 100 registers in a row", ""),
    "modbus_50_hz_lost": ("polls lost, bad or of one stamp, one device at 50 Hz", ""),
    "modbus_50_hz_interval_p99_ms": ("interval of its polls, 99th percentile", "ms"),
    "miswired_first_pct": ("200 miswired maps: right reading first", "%"),
    "miswired_listed_pct": ("the same: right reading in the list", "%"),
}


def modbus(root: Path, seconds: float, engine: str) -> dict[str, Any]:
    """Twenty units of a hundred registers as fast as they go, then one of them at 50 Hz; and wrong maps found.

    The reader has a process of its own; the server is this one, so its processor time is not the reader's.
    """
    outcomes = miswired_report(root / "config", MISWIRED_SEED, N_MISWIRED)
    with tempfile.TemporaryDirectory(prefix="hark-bench-") as folder:
        devices = Path(folder) / "devices"
        devices.mkdir()
        (devices / "bench.toml").write_text(_device(), "utf-8")
        profile = load_device(Path(folder), "bench")
        units = {i: Unit(profile, _values) for i in range(1, N_UNITS + 1)}
        with ModbusServer(units) as server:
            fast = _read(folder, server, N_UNITS, AS_FAST_AS_IT_GOES_S, seconds)
            fifty = _read(folder, server, 1, FIFTY_HZ_S, max(seconds, 2.0))
    return {
        "modbus_tags_per_s": fast["tags_per_s"],
        "modbus_tags_per_cpu_s": fast["tags_per_cpu_s"],
        "modbus_requests_per_100_tags": 100 * fast["requests_per_tag"],
        "modbus_50_hz_lost": fifty["polls_missed"] + fifty["bad"] + fifty["same_stamp"],
        "modbus_50_hz_interval_p99_ms": 1e3 * fifty["interval_s_p99"],
        "miswired_first_pct": 100 * sum(outcome.place == 1 for outcome in outcomes) / len(outcomes),
        "miswired_listed_pct": 100 * sum(outcome.place > 0 for outcome in outcomes) / len(outcomes),
    }


def _read(folder: str, server: ModbusServer, n_units: int, interval_s: float, seconds: float) -> dict[str, float]:
    arguments = [folder, server.host, server.port, n_units, interval_s, seconds]
    command = [sys.executable, "-m", "firmware_bridge.pollbench", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    return dict(json.loads(answer.stdout))


def _values() -> dict[str, float]:
    """A ramp that is new ten times a second, as on a fast device."""
    now = math.floor(10 * time.monotonic()) % 1000
    return {f"p{i}_v": float(now + i) for i in range(N_POINTS)}


def _device() -> str:
    head = 'vendor = "none"\nmodel = "bench"\ntitle = "a hundred registers"\nsource = "none"\nsees = "nothing"\n'
    point = '[[points]]\nname = "p{0}_v"\naddress = {0}\ntype = "uint16"\nplausible = [0.0, 65535.0]\n'
    return head + "update_interval_s = 0.1\n" + "".join(point.format(i) for i in range(N_POINTS))
