"""`hark bench`: latency, memory, throughput and vector time, as numbers that a reader can repeat on his own machine.

Ratios come from interleaved runs of the parts themselves, in processes of their own (`python -m agent.store_benchmark`, `python -m
training.feature_bench`); memory, start and latency from a real agent that watches ten simulated machines over the wire. It
learns them, is started again cold, and one of them then falls ill, so that the latency holds the durable commit of a real
alarm. Bursts without a pause are a part of their own (bench_bursts.py). No bars here, only what was seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from firmware_bridge.roots import find_root
from simulator import bench_bursts, bench_modbus
from simulator.process import cpu_s
from simulator.stage import (
    Part,
    PartFailed,
    Watcher,
    embedded_broker,
    free_ports,
    orderly_end,
    part,
    site_with_ports,
)

Measure = Callable[[Path, float, str], dict[str, Any]]  # root, seconds, engine -> figures by name

N_SETS = 5  # a motor and its pump each: ten machines
LEARN_WINDOWS = 10
BURST_INTERVAL_S = 2.0
LEARN_TIMEOUT_S = 90.0
FAULT_ONSET_S = 12.0  # after the plant's start; the agent has scored by then
ALARM_TIMEOUT_S = 60.0
SETTLE_S = 5.0  # an agent that has just started is not idle
NUMPY_SCIPY_FFT = """
import numpy, scipy.fft
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS:")))
"""
LEAST_IDLE_S = 5.0  # processor time is counted in hundredths of a second
UNITS = {
    "rss_mib": ("memory of the agent, ten machines, engine on", "MiB"),
    "rss_over_numpy_scipy_fft": ("over that of a Python that has imported numpy and scipy.fft", "x"),
    "cold_start_s": (
        "start of the process to the first scored window",
        "s",
    ),
    "idle_cpu_pct": ("one core, ten machines, scalars at 1 Hz, no bursts", "%"),
    "vector_over_ffts_single": ("full vector of a 3-axis 1 s window over the FFTs it needs", "x"),
    "vector_over_ffts_fours": ("the same, twelve axes in blocks of four", "x"),
    "naive_over_ours": ("naive SciPy, every feature by itself, over the full vector", "x"),
    "tsfresh_minimal_over_ours": ("tsfresh, its smallest set, over the full vector", "x"),
    "tsfresh_subset_over_ours": ("tsfresh, what answers to our features, over the full vector", "x"),
    "tsfel_subset_over_ours": ("tsfel, what answers to our features, over the full vector", "x"),
    "page_faults_per_window": ("pages from the kernel for one warm window", ""),
    "machines_per_core": ("machines that one core can watch, 1 s windows at 50 % overlap", ""),
    "tagbank_over_bare": ("TagBank without its median over a bare update of its rows, 1,000 tags", "x"),
    "tagbank_median_over_bare": ("the same with its median", "x"),
    "river_over_tagbank": ("River: mean, variance, median of 1,000 tags, over the TagBank", "x"),
    "tags_per_s": ("tags into SQLite, one core", "1/s"),
    "sqlite_over_executemany": ("of what a bare executemany of the same rows does", "x"),
    "latency_p50_ms": ("burst arrived to alarm committed, median", "ms"),
    "latency_p99_ms": ("the same, 99th percentile", "ms"),
    **bench_bursts.UNITS,
    **bench_modbus.UNITS,
}
# figures that another library is needed for
PEERS = {
    "tsfresh_minimal_over_ours": "tsfresh",
    "tsfresh_subset_over_ours": "tsfresh",
    "tsfel_subset_over_ours": "tsfel",
    "river_over_tagbank": "river",
}


class BenchPart(StrEnum):
    """What can be measured alone."""

    live = "live"
    bursts = "bursts"
    modbus = "modbus"
    store = "store"
    features = "features"


def bench(
    only: Annotated[BenchPart | None, typer.Argument(metavar="PART", help="one part alone; all without")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
    seconds: Annotated[float, typer.Option(min=0.2, help="how long each part is measured")] = 5.0,
    engine: Annotated[str, typer.Option(help="onnx or tflite")] = "onnx",
    root: Annotated[Path | None, typer.Option(help="the folder that holds config/ and models/")] = None,
) -> int:
    """Latency, memory, throughput and vector time on this very machine."""
    found = find_root(root)
    figures: dict[str, Any] = {}
    with orderly_end():
        for name, measured in PARTS.items():
            if only in (None, name):
                figures |= measured(found, seconds, engine)
    print(json.dumps(figures) if json_ else "\n".join(_lines(figures)))
    return 0


def _lines(figures: Mapping[str, Any]) -> list[str]:
    """For people: the figures in the order of UNITS, and what was dropped on the way, by the counter's name."""
    lines = [_line(name, figures[name]) for name in UNITS if name in figures]
    return lines + [f"{n:>12} {'':5} dropped: {name}" for name, n in figures.get("burst_drops", {}).items()]


def _line(name: str, value: float | None) -> str:
    says, unit = UNITS[name]
    if value is None:
        return f"{'-':>12} {unit:5} {says}: {PEERS[name]} is not installed: pip install {PEERS[name]}"
    return f"{value:>12.6g} {unit:5} {says}"


def _apart(module: str) -> Measure:
    """A part that is a module with ROOT and SECONDS, in a process of its own: nothing else of ours is in its memory."""

    def measure(root: Path, seconds: float, engine: str) -> dict[str, Any]:
        command = [sys.executable, "-m", module, str(root), str(seconds)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        if answer.returncode != 0:
            raise PartFailed(f"{module} ended with exit code {answer.returncode}\n{answer.stderr[-1500:]}")
        return dict(json.loads(answer.stdout))

    return measure


def _live(root: Path, seconds: float, engine: str) -> dict[str, Any]:
    """A real agent over the wire: learn; start again cold with what was learned, until an alarm; then idle, no bursts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hark-bench-")))
        broker_port = stack.enter_context(embedded_broker())
        modbus_port = free_ports(N_SETS)
        site = site_with_ports(folder / "site.toml", _site(), broker_port, modbus_port, engine)
        watcher = stack.enter_context(Watcher(broker_port))

        def plant(scenario: str, *more: str) -> AbstractContextManager[Part]:
            file = folder / "bench.toml"
            file.write_text(scenario, "utf-8")
            ports = ("--modbus-port", modbus_port, "--mqtt-port", broker_port)
            return part("simulate", file, "--root", root, *ports, "--json", *more, folder=folder)

        def agent() -> AbstractContextManager[Part]:
            return part("run", site, "--root", root, "--json", folder=folder)

        with plant(_scenario()) as served, agent() as learning:
            watcher.wait(lambda: _all_learned(watcher), LEARN_TIMEOUT_S, "ten baselines", learning, served)
            learning.finish()
        n_before = len(watcher.events)
        with plant(_scenario() + FAULT) as served, agent() as watching:
            alarmed = lambda: any(_is_model_alarm(event) for event in watcher.events[n_before:])  # noqa: E731
            watcher.wait(alarmed, ALARM_TIMEOUT_S, "an alarm", watching, served)
            _measure(watching, seconds)
            ledger = watching.finish()
        with plant(_scenario(), "--no-bursts"), agent() as idle:
            _measure(idle, SETTLE_S)
            idle_cpu_pct = _cpu_pct(idle, max(seconds, LEAST_IDLE_S))
            idle.finish()
    return {
        "rss_mib": ledger["rss_mib"],
        "rss_over_numpy_scipy_fft": round(ledger["rss_mib"] / numpy_scipy_fft_mib(), 2),
        "cold_start_s": ledger["first_score_s"],
        "idle_cpu_pct": idle_cpu_pct,
        "latency_p50_ms": ledger["latency_ms"]["p50"],
        "latency_p99_ms": ledger["latency_ms"]["p99"],
        "windows": ledger["windows"],
        "stages_ms": ledger["stages_ms"],
    }


def numpy_scipy_fft_mib() -> float:
    """The yardstick: what a fresh process of this very Python has resident with numpy and scipy.fft imported, and no more.

    Told by the process itself, as the agent tells its own (VmRSS).
    """
    command = [sys.executable, "-c", NUMPY_SCIPY_FFT]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment())
    return int(answer.stdout) / 1024


def _is_model_alarm(event: dict[str, Any]) -> bool:
    return bool(event["body"]["condition"] == "model" and event["body"]["trigger"] == "raise")


def _all_learned(watcher: Watcher) -> bool:
    states = list(watcher.states.values())
    learned = [state for state in states if state["state"] == "running" and not state["watch"].startswith("learning")]
    return len(learned) == 2 * N_SETS


def _measure(agent: Part, seconds: float) -> None:
    """Let it run for a time, and notice when it ends."""
    ended = threading.Event()
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        agent.check()
        ended.wait(0.2)


def _cpu_pct(agent: Part, seconds: float) -> float:
    """Share of one core that the process took over a time, user and system."""
    before_s, started_s = cpu_s(agent.process.pid), time.monotonic()
    _measure(agent, seconds)
    return 100 * (cpu_s(agent.process.pid) - before_s) / (time.monotonic() - started_s)


def _environment() -> dict[str, str]:
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


DEVICES = (
    ("vib", "banner_qm30vt2", "motor_de"),
    ("drive", "abb_acs580", "motor"),
    ("meter", "eastron_sdm630", "motor"),
    ("press-suction", "keller_33x", "suction"),
    ("press-discharge", "keller_33x", "discharge"),
)


def _site() -> str:
    """Five motors with their pumps, each set behind its own Modbus gateway, at 1 Hz."""
    lines = [
        "[site]\nname = 'bench'\ngateway = 'gw-01'\nengine = \"onnx\"",
        "[upstream]\nhost = '127.0.0.1'\nport = 1883\nversion = '3.1.1'\nconfirm = 'broker'",
    ]
    for i in range(N_SETS):
        lines.append(f"[[sources]]\nkind = 'modbus'\nname = 'line-{i}'\nhost = '127.0.0.1'\nport = {5020 + i}")
        lines += [
            f"[[sources.sensors]]\nname = '{name}-{i}'\ndevice = '{device}'\nunit_id = {unit}"
            for unit, (name, device, _) in enumerate(DEVICES, 1)
        ]
    lines.append("[[sources]]\nkind = 'mqtt'\nname = 'bursts'\nhost = '127.0.0.1'\nport = 1883\nversion = '3.1.1'")
    for i in range(N_SETS):
        lines += [
            f"[[sources.sensors]]\nname = 'accel-{at}{i}'\nburst_interval_s = {BURST_INTERVAL_S}\naxes = ['x', 'y', 'z']"
            for at in "mp"
        ]
    for i in range(N_SETS):
        common = f"rated_speed_rpm = 1460\nlearn_windows = {LEARN_WINDOWS}\nstarting_s = 0"
        lines += [
            f"[[machines]]\ntag = 'M-{i}'\ntype = 'motor'\nsensors = ['drive-{i}', 'meter-{i}', 'vib-{i}', 'accel-m{i}']\n"
            f"bearings = {{ de = '6308' }}\n{common}",
            f"[[machines]]\ntag = 'P-{i}'\ntype = 'pump'\nsensors = ['drive-{i}', 'meter-{i}', 'press-suction-{i}', "
            f"'press-discharge-{i}', 'accel-p{i}']\nplaces = {{ press-suction-{i} = 'suction', press-discharge-{i} = "
            f"'discharge' }}\nbearings = {{ de = '6309' }}\nvanes = 6\n{common}",
        ]
    return "\n".join(lines) + "\n"


FAULT = f"""
[[faults]]
set = "s0"
id = "unbalance"
place = "motor_de"
onset_s = {FAULT_ONSET_S}
peak = 1.0
"""


def _scenario() -> str:
    """The plant that fits `_site`, healthy for an hour."""
    lines = ["title = 'bench'\nsite = 'bench'\nseed = 7\nduration_s = 3600"]
    for i in range(N_SETS):
        lines.append(f"[[sets]]\nname = 's{i}'\nmotor = 'M-{i}'\npump = 'P-{i}'\nseed = {i}")
        lines += [
            f"[[sets.devices]]\nname = '{name}-{i}'\ndevice = '{device}'\nunit_id = {unit}\nplace = '{place}'"
            for unit, (name, device, place) in enumerate(DEVICES, 1)
        ]
        lines += [
            f"[[sets.bursts]]\nname = 'accel-{at}{i}'\nplace = '{place}'\ninterval_s = {BURST_INTERVAL_S}"
            for at, place in (("m", "motor_de"), ("p", "pump_de"))
        ]
    return "\n".join(lines) + "\n"


PARTS: dict[BenchPart, Measure] = {
    BenchPart.live: _live,
    BenchPart.bursts: bench_bursts.bursts,
    BenchPart.modbus: bench_modbus.modbus,
    BenchPart.store: _apart("agent.store_benchmark"),
    BenchPart.features: _apart("training.feature_bench"),
}
