"""A real `hark run`, asked at its end what it has loaded: an agent carries what it has loaded for months."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
# Python imports a module of this name at every start; ours writes down at the end what the process had become.
WITNESS = """
import atexit, json, os, sys

def tell():
    told = {"pid": os.getpid(), "modules": sorted(sys.modules), "orders": os.environ.get("HARK_RUN_ORDERS")}
    with open(os.environ["HARK_TEST_WITNESS"], "a") as file:
        print(json.dumps(told), file=file)

atexit.register(tell)
"""
SITE = """
[site]
name = "test"
gateway = "gw-1"
engine = "{engine}"
[upstream]
host = "127.0.0.1"
port = {port}
[[sources]]
kind = "modbus"
name = "line"
host = "127.0.0.1"
port = {port}
[[sources.sensors]]
name = "drive"
device = "abb_acs580"
unit_id = 1
[[sources]]
kind = "mqtt"
name = "bursts"
host = "127.0.0.1"
port = {port}
[[sources.sensors]]
name = "accel"
burst_interval_s = 60
axes = ["x", "y", "z"]
[[machines]]
tag = "M-1"
type = "motor"
sensors = ["drive", "accel"]
rated_speed_rpm = 1460
bearings = {{ de = "6308" }}
"""
ENGINES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert"}
NEEDED = {
    "numpy",
    "agent.app",
    "agent.features.envelope",
    "firmware_bridge.sources.modbus",
    "firmware_bridge.sources.mqtt",
}
NOT_LOADED = {
    "the command line": ("typer", "click", "pydantic", "rich", "argparse"),
    "what makes the tables": ("sqlite_utils", "pluggy", "dateutil"),
    "what scipy.fft brings along": ("scipy.fft", "scipy.special", "numpy.testing", "numpy.f2py"),
    "other mathematics": ("scipy.signal", "scipy.stats", "pandas", "sklearn", "pyarrow", "onnx"),
    "tests": ("unittest", "doctest", "pytest"),
    "other rooms": ("simulator", "training"),
}  # fmt: skip


class Run:
    """`hark run` of a site whose devices and broker cannot be reached, with a witness inside."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder = folder
        self.witness = folder / "witness.jsonl"
        (folder / "sitecustomize.py").write_text(WITNESS)
        (folder / "site.toml").write_text(SITE.format(engine=engine, port=free_port()))
        self.log = folder / "run.log"
        environment = {**os.environ, "PYTHONPATH": str(folder), "HARK_TEST_WITNESS": str(self.witness)}
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", str(folder / "site.toml"), "--json"],
                stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=environment,
            )  # fmt: skip

    def stopped(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Its ledger after SIGTERM, and what its witnesses have told."""
        wait_until(lambda: "upstream not connected" in self.log.read_text(), 20.0, "the agent to be at work")
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=20.0)
        assert self.process.returncode == 0, self.log.read_text()
        return json.loads(out), [json.loads(line) for line in self.witness.read_text().splitlines()]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_running_agent_has_loaded_nothing_that_it_does_not_need(tmp_path: Path, engine: str) -> None:
    """From its very first start, with everything that could be imported installed. Typer alone is 10 MiB, scipy.fft 25.

    And it is the process that was started: a supervisor's signals and a person's `ps` find it.
    """
    run = Run(tmp_path, engine)
    ledger, told = run.stopped()
    assert ledger["failure"] == ""
    assert [(one["pid"], one["orders"]) for one in told] == [(run.process.pid, None)]
    modules = set(told[0]["modules"])
    assert modules >= {*NEEDED, ENGINES[engine]}
    unwanted = [name for names in NOT_LOADED.values() for name in names]
    unwanted += [package for name, package in ENGINES.items() if name != engine]
    assert [name for name in unwanted if name in modules] == []
