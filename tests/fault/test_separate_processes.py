"""The agent, the plant and the collector as separate processes around a real Mosquitto; then the broker dies, then the agent.

What is compared at the end are keys: every record in the gateway's buffer stands in the dataset exactly once.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import Broker
from deltalake import DeltaTable
from helpers import wait_until
from paho.mqtt import publish, subscribe

from simulator.stage import Part, Watcher, answer, free_ports, part

BROKER_AWAY_S = 30.0
SCENARIO = """
title = "one pump set; its vibration sensor sticks while the broker is away"
seed = 5
site = "test"
duration_s = 600

[[sets]]
name = "a"
motor = "M-1"
pump = "P-1"
[[sets.devices]]
name = "vib"
device = "banner_qm30vt2"
unit_id = 1
place = "motor_de"
[[sets.devices]]
name = "drive"
device = "abb_acs580"
unit_id = 2
place = "motor"
[[sets.devices]]
name = "suction"
device = "keller_33x"
unit_id = 3
place = "suction"
[[sets.devices]]
name = "meter"
device = "eastron_sdm630"
unit_id = 4
place = "motor"
[[sets.bursts]]
name = "accel"
place = "motor_de"

[[faults]]
set = "a"
id = "sensor_stuck"
sensor = "vib"
onset_s = {stuck_s}
"""
SITE = """
[site]
name = "test"
gateway = "gw-1"
[upstream]
host = "127.0.0.1"
port = {mqtt}
[[sources]]
kind = "modbus"
name = "line"
host = "127.0.0.1"
port = {modbus}
[[sources.sensors]]
name = "vib"
device = "banner_qm30vt2"
unit_id = 1
poll_interval_s = 0.5
[[sources.sensors]]
name = "drive"
device = "abb_acs580"
unit_id = 2
poll_interval_s = 0.5
[[sources.sensors]]
name = "suction"
device = "keller_33x"
unit_id = 3
poll_interval_s = 0.5
[[sources.sensors]]
name = "meter"
device = "eastron_sdm630"
unit_id = 4
poll_interval_s = 0.5
[[sources]]
kind = "mqtt"
name = "bursts"
host = "127.0.0.1"
port = {mqtt}
[[sources.sensors]]
name = "accel"
burst_interval_s = 1
[[machines]]
tag = "M-1"
type = "motor"
sensors = ["vib", "drive", "accel"]
rated_speed_rpm = 1460
learn_windows = 10
starting_s = 1
[[machines]]
tag = "P-1"
type = "pump"
sensors = ["drive", "suction", "meter"]
places = {{ suction = "suction" }}
rated_speed_rpm = 1460
learn_windows = 20
starting_s = 1
decide_every_s = 0.5
"""
STUCK_S = 20.0  # after the plant's start: the broker is away by then


def stored_keys(folder: Path) -> set[tuple[str, int]]:
    """What the gateway's buffer holds, by stream and sequence."""
    with sqlite3.connect(f"file:{folder / 'data' / 'buffer.sqlite'}?mode=ro", uri=True, timeout=5) as database:
        return set(database.execute("SELECT stream, seq FROM record").fetchall())


def dataset_keys(folder: Path) -> Counter[tuple[str, int]]:
    """What the collector wrote, with how often."""
    found: Counter[tuple[str, int]] = Counter()
    for table in ("alarms", "baseline_events", "features", "bursts", "samples"):
        if (folder / "dataset" / table).is_dir():
            rows = DeltaTable(str(folder / "dataset" / table)).to_pyarrow_table(columns=["stream", "seq"])
            found.update(zip(rows["stream"].to_pylist(), rows["seq"].to_pylist(), strict=True))
    return found


def standing_topic(folder: Path) -> str:
    """Where the stuck sensor's alarm is shown."""
    with sqlite3.connect(f"file:{folder / 'data' / 'buffer.sqlite'}?mode=ro", uri=True, timeout=5) as database:
        rows = database.execute("SELECT alarm_id FROM alarm_state WHERE payload LIKE '%sensor:vib:stuck%'").fetchall()
    return f"hark/v1/test/gw-1/M-1/alarm/{rows[0][0]}"


def n_outbox(folder: Path) -> int:
    with sqlite3.connect(f"file:{folder / 'data' / 'buffer.sqlite'}?mode=ro", uri=True, timeout=5) as database:
        return int(database.execute("SELECT COUNT(*) FROM outbox").fetchone()[0])


@pytest.fixture
def plant(tmp_path: Path, broker: Broker) -> Callable[[ExitStack], tuple[Path, Watcher, Part]]:
    """Starts plant and collector around the broker; the agent is the test's own."""

    def start(stack: ExitStack) -> tuple[Path, Watcher, Part]:
        modbus = free_ports(1)
        (tmp_path / "scenario.toml").write_text(SCENARIO.format(stuck_s=STUCK_S))
        (tmp_path / "site.toml").write_text(SITE.format(mqtt=broker.port, modbus=modbus))
        watcher = stack.enter_context(Watcher(broker.port))
        words = ("data", "collect", tmp_path / "dataset", "--port", broker.port, "--json")
        collector = stack.enter_context(part(*words, folder=tmp_path))
        ports = ("--modbus-port", modbus, "--mqtt-port", broker.port)
        stack.enter_context(part("simulate", tmp_path / "scenario.toml", *ports, "--json", folder=tmp_path))
        return tmp_path, watcher, collector

    return start


def test_broker_away_and_agent_killed_lose_and_double_nothing(
    plant: Callable[[ExitStack], tuple[Path, Watcher, Part]], broker: Broker
) -> None:
    """A broker that dies keeps nothing of what it acknowledged, and a killed agent no memory: only keys are left."""
    with ExitStack() as stack:
        folder, watcher, collector = plant(stack)
        run = ("run", folder / "site.toml", "--json")
        first = stack.enter_context(part(*run, folder=folder))
        learned = lambda: {"M-1", "P-1"} <= {tag for tag, state in watcher.states.items() if state["watch"] == "ok"}  # noqa: E731
        watcher.wait(learned, 60, "both machines to be watched", first, collector)

        broker.stop(kill=True)
        before = len(stored_keys(folder))
        threading.Event().wait(BROKER_AWAY_S)  # the fault itself lasts so long; nothing is waited for
        assert len(stored_keys(folder)) > before + 20, "the agent goes on while nobody listens"
        assert any(stream == "alarm" for stream, _ in stored_keys(folder)), "an alarm is raised while nobody listens"
        broker.start()
        is_told = lambda: any(stream == "alarm" for stream, _ in dataset_keys(folder))  # noqa: E731
        wait_until(is_told, 60, "the alarm of the outage upstream")

        first.process.kill()
        first.process.wait()
        at_kill = stored_keys(folder)
        topic = standing_topic(folder)
        publish.single(topic, b"", qos=1, retain=True, port=broker.port)  # a broker that lost what it was told to keep
        second = stack.enter_context(part(*run, folder=folder))
        wait_until(lambda: len(stored_keys(folder)) > len(at_kill) + 10, 60, "records of the second life")
        shown = subscribe.simple(topic, qos=1, port=broker.port)
        assert shown.retain, "an alarm that stands is shown, whatever the broker forgot"
        ledger = second.finish()
        wait_until(lambda: n_outbox(folder) == 0 or collector.process.poll() is not None, 30, "an empty outbox")
        collected = collector.finish()

    stored, upstream = stored_keys(folder), dataset_keys(folder)
    assert at_kill <= stored
    assert set(upstream) == stored, "every key of the buffer is in the dataset, and no other"
    assert max(upstream.values()) == 1, "and exactly once"
    assert collected["malformed"] == collected["dropped"] == 0
    checked = answer("data", "check", folder / "dataset")
    assert (checked["missing"], checked["duplicates"]) == (0, 0)
    alarms = [event for event in watcher.events if event["body"]["trigger"] == "raise"]
    conditions = Counter(event["body"]["condition"] for event in alarms)
    assert conditions["sensor:vib:stuck"] == 1, "told once, although the agent was killed while it stood"
    assert ledger["records"]["stored"] == sum(stream != "sample" for stream, _ in stored)
