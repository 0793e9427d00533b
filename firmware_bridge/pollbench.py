"""How many values a second one process reads over Modbus, and whether any poll is lost: `python -m firmware_bridge.pollbench`.

Run by `hark bench` beside a simulated server in a process of its own; prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from firmware_bridge.measurement import Block, Quality
from firmware_bridge.source import ModbusSensor, ModbusSpec, SourceContext, open_source


class _Clock:
    """The machine's own clocks."""

    def utc_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


def measure(spec: ModbusSpec, config_dir: Path, seconds: float) -> dict[str, float]:
    """Read a source for a time and count; processor time is this process's own."""
    source = open_source(spec, SourceContext(config_dir, "bench", 0, _Clock()))
    for _ in source.read(2.0 * spec.sensors[0].poll_interval_s):
        pass  # connected, and every unit known
    before = dict(source.counters)
    n_good = n_bad = 0
    stamps: dict[int, list[int]] = {}
    wall_s, cpu_s = time.monotonic(), time.process_time()
    for item in source.read(seconds):
        assert isinstance(item, Block)
        good = int((item.quality == Quality.GOOD).sum())
        n_good, n_bad = n_good + good, n_bad + len(item.quality) - good
        stamps.setdefault(int(item.channels[0]), []).append(item.monotonic_ns)
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    counted = {name: count - before[name] for name, count in source.counters.items()}
    source.close()
    gaps_s = np.concatenate([np.diff(ns) for ns in stamps.values()]) / 1e9
    return {
        "tags_per_s": n_good / wall_s,
        "tags_per_cpu_s": n_good / cpu_s,
        "bad": n_bad,
        "requests": counted["requests"],
        "requests_per_tag": counted["requests"] / max(n_good, 1),
        "polls": counted["polls"],
        "polls_missed": counted["polls_missed"],
        "same_stamp": sum(len(ns) - len(set(ns)) for ns in stamps.values()),
        "interval_s_p50": float(np.median(gaps_s)),
        "interval_s_p99": float(np.quantile(gaps_s, 0.99)),
        "cpu_share": cpu_s / wall_s,
    }


def main(config_dir: str, host: str, port: str, n_units: str, interval_s: str, seconds: str) -> None:
    """Arguments as on the command line; device "bench" of `config_dir` behind each unit id."""
    sensors = tuple(
        ModbusSensor(name=f"u{i}", device="bench", unit_id=i, poll_interval_s=float(interval_s))
        for i in range(1, int(n_units) + 1)
    )
    spec = ModbusSpec(name="bench", host=host, port=int(port), sensors=sensors)
    print(json.dumps(measure(spec, Path(config_dir), float(seconds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
