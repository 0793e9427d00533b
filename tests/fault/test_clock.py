"""The wall clock is set by an hour, or for the first time since the boot: an event about the time, and nothing else.

First through the whole path as plain calls, where a run with steps is compared with one without; then the real agent, with
sensors and a broker on real sockets, whose clock is the test's.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from bundles import feature_body, message, stored
from conftest import Broker
from deltalake import DeltaTable
from helpers import wait_until
from offline import START_MONOTONIC_NS, START_UTC_NS, measurements

from agent.app import App, open_bundles, run_offline
from agent.baseline import Baseline
from agent.clock import SET_SINCE_UTC_NS, ManualClock, moment_of
from agent.config import Site, load_site
from agent.decision.alarm import StandingAlarm
from agent.inference.bundle import Bundle
from agent.pipeline import Pipeline
from agent.samples import read_samples
from agent.store import Store
from agent.vocabulary import AlarmEvent, Record
from firmware_bridge.measurement import Measurement, Waveform
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_modbus import ModbusServer, units_of
from simulator.serve_mqtt import BurstPublisher
from simulator.stage import Watcher, free_ports
from training.collect import Address, collect
from training.delta import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
S = 1_000_000_000
HOUR_NS = 3600 * S
POLL_S = 0.25
SCENARIO = """
title = "one pump set: the rotor is out of balance for a while, a sensor sticks, and the tank runs empty"
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
name = "meter"
device = "eastron_sdm630"
unit_id = 3
place = "motor"
[[sets.bursts]]
name = "accel"
place = "motor_de"
interval_s = {burst_s}
[[faults]]
set = "a"
id = "unbalance"
place = "motor_de"
onset_s = {unbalance_s}
hold_s = 10
"""
FAULTS = """
[[faults]]
set = "a"
id = "sensor_stuck"
sensor = "vib"
onset_s = 30
[[faults]]
set = "a"
id = "dry_run"
place = "pump"
onset_s = 43
ramp_s = 2
"""
SITE = """
[site]
name = "test"
gateway = "gw-1"
[upstream]
host = "127.0.0.1"
port = {mqtt}
[decision]
off_delay_s = 5
[[sources]]
kind = "modbus"
name = "line"
host = "127.0.0.1"
port = {modbus}
[[sources.sensors]]
name = "vib"
device = "banner_qm30vt2"
unit_id = 1
poll_interval_s = {poll_s}
[[sources.sensors]]
name = "drive"
device = "abb_acs580"
unit_id = 2
poll_interval_s = {poll_s}
[[sources.sensors]]
name = "meter"
device = "eastron_sdm630"
unit_id = 3
poll_interval_s = {poll_s}
[[sources]]
kind = "mqtt"
name = "bursts"
host = "127.0.0.1"
port = {mqtt}
[[sources.sensors]]
name = "accel"
burst_interval_s = {burst_s}
axes = ["x", "y", "z"]
[[machines]]
tag = "M-1"
type = "motor"
sensors = ["vib", "drive", "accel"]
rated_speed_rpm = 1460
learn_windows = 10
starting_s = 0
[[machines]]
tag = "P-1"
type = "pump"
sensors = ["drive", "meter"]
rated_speed_rpm = 1460
learn_windows = 10
starting_s = 0
decide_every_s = 0.5
"""


def placed(folder: Path, *, poll_s: float, burst_s: float, unbalance_s: float, **ports: int) -> tuple[Site, Plant]:
    """A site of its own in `folder`, and its plant."""
    told = {"mqtt": 1883, "modbus": 5020, "poll_s": poll_s, "burst_s": burst_s} | ports
    (folder / "site.toml").write_text(SITE.format(**told))
    (folder / "scenario.toml").write_text(SCENARIO.format(burst_s=burst_s, unbalance_s=unbalance_s))
    return load_site(folder / "site.toml", ROOT), Plant(load_scenario(folder / "scenario.toml", ROOT))


# ---------------------------------------------------------------------------------------------- the path, as plain calls
@dataclass(frozen=True)
class Steps:
    """A wall clock that is set now and then: how far it is off at first, and from which monotonic time on how far then."""

    first_ns: int = 0
    then: tuple[tuple[int, int], ...] = ()

    def utc_ns(self, monotonic_ns: int) -> int:
        true_ns = START_UTC_NS + monotonic_ns - START_MONOTONIC_NS
        return true_ns + next((off for at, off in reversed(self.then) if monotonic_ns >= at), self.first_ns)

    @property
    def steps_s(self) -> list[float]:
        """By how much it is set each time."""
        return [(after - before) / 1e9 for before, after in pairwise([self.first_ns, *(off for _, off in self.then)])]

    def stamped(self, item: Measurement) -> Measurement:
        """The measurement as it would have been dated."""
        utc_ns = self.utc_ns(item.monotonic_ns)
        if isinstance(item, Waveform):
            return replace(item, utc_ns=utc_ns, start_utc_ns=item.start_utc_ns + utc_ns - item.utc_ns)
        return replace(item, utc_ns=utc_ns)


def at_s(seconds: float) -> int:
    return START_MONOTONIC_NS + round(seconds * S)


UNSET_NS = 60 * S - START_UTC_NS  # 1970-01-01 00:01 at the start
SCHEDULES = {
    "an hour forward, while a fault gathers its evidence": Steps(then=((at_s(22.2), HOUR_NS),)),
    "an hour back, while alarms stand": Steps(then=((at_s(32.2), -HOUR_NS),)),
    "1970 until the time server answers": Steps(UNSET_NS, ((at_s(22.2), 0),)),
    "again and again": Steps(
        then=tuple((at_s(5.2 * i), (0, HOUR_NS, -HOUR_NS, UNSET_NS)[i % 4]) for i in range(1, 11))
    ),
}


@dataclass
class Told:
    """What came of a run."""

    events: list[AlarmEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    standing: tuple[StandingAlarm, ...] = ()
    baselines: dict[tuple[str, str], Baseline] = field(default_factory=dict)

    def of(self, *streams: str) -> list[Record]:
        return [record for record in self.records if record.stream in streams]


@dataclass(frozen=True)
class Plan:
    """A recorded minute of the plant, and who watches it."""

    site: Site
    bundles: dict[str, Bundle]
    items: tuple[Measurement, ...]

    def run(self, steps: Steps, first: int = 0, last: int | None = None, after: Told | None = None) -> Told:
        """The minute, or a part of it in a process that takes up what the one before left behind."""
        told = Told(baselines=dict(after.baselines) if after else {})
        pipeline = Pipeline(
            self.site,
            self.bundles,
            started_monotonic_ns=START_MONOTONIC_NS,
            baselines=told.baselines,
            restored=after.standing if after else (),
            clock_set_since_utc_ns=SET_SINCE_UTC_NS,
        )
        for outcome in run_offline(pipeline, map(steps.stamped, self.items[first:last])):
            told.events += outcome.events
            told.records += outcome.records
            told.baselines.update({(tag, state): baseline for tag, state, baseline in outcome.baselines})
        told.standing = pipeline.standing()
        return told

    def item_after(self, seconds: float) -> int:
        return next(i for i, item in enumerate(self.items) if item.monotonic_ns >= at_s(seconds))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    site, plant = placed(tmp_path_factory.mktemp("plan"), poll_s=0.5, burst_s=1.0, unbalance_s=20)
    (site.path.parent / "scenario.toml").open("a").write(FAULTS)
    plant = Plant(load_scenario(site.path.parent / "scenario.toml", ROOT))
    return Plan(site, open_bundles(site), tuple(measurements(site, plant, ROOT, 60.0)))


@pytest.fixture(scope="module")
def undisturbed(plan: Plan) -> Told:
    told = plan.run(Steps())
    raised = {event.condition for event in told.events if event.trigger == "raise"}
    assert {"model", "limit:dry_run", "sensor:vib:stuck"} <= raised
    assert any(event.trigger == "clear" for event in told.events)
    return told


@pytest.mark.parametrize("name", SCHEDULES)
def test_alarms_and_values_are_those_of_a_clock_that_nobody_touched(plan: Plan, undisturbed: Told, name: str) -> None:
    """Condition by condition, value by value, for as long as without the step, and no sensor is blamed."""
    told = plan.run(SCHEDULES[name])

    def alarms(run: Told) -> list[tuple[object, ...]]:
        return [(e.machine, e.condition, e.trigger, e.severity, round(e.standing_s, 6)) for e in run.events]

    def measured(run: Told) -> list[tuple[object, ...]]:
        unlike = ("clock", "start_utc_ns", "alarm_id")
        return [
            (record.machine, record.arrived_monotonic_ns, {k: v for k, v in record.payload.items() if k not in unlike})
            for record in run.of("feature", "burst")
        ]

    assert alarms(told) == alarms(undisturbed)
    assert measured(told) == measured(undisturbed)
    ends = ["(lasted 23 s)" in event.text for event in told.events if event.trigger == "clear"]
    assert ends == [True]
    assert not any("1970" in event.text for event in told.events if event.utc_ns >= SET_SINCE_UTC_NS)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_time_is_what_the_clock_said_then_and_every_step_is_one_event(plan: Plan, name: str) -> None:
    """Nothing is dated anew; what the clock did is told beside it, so that somebody who needs the right time can have it."""
    steps = SCHEDULES[name]
    told = plan.run(steps)
    by_monotonic = [record for record in told.of("feature", "alarm") if record.arrived_monotonic_ns]
    assert [record.utc_ns for record in by_monotonic] == [steps.utc_ns(r.arrived_monotonic_ns) for r in by_monotonic]

    clock = told.of("clock")
    assert [record.payload["step_s"] for record in clock] == steps.steps_s
    for record in clock:
        body = record.payload
        assert (record.machine, record.utc_ns, record.urgent) == ("gateway", body["to_utc_ns"], True)
        assert body["to_utc_ns"] - body["from_utc_ns"] == round(body["step_s"] * S)
        assert body["set"] == (body["to_utc_ns"] >= SET_SINCE_UTC_NS)
    for record in told.of("feature", "burst"):
        assert ("clock" in record.payload) == (record.utc_ns < SET_SINCE_UTC_NS)
    for event, record in zip(told.events, told.of("alarm"), strict=True):
        unset = min(event.utc_ns, event.onset_utc_ns) < SET_SINCE_UTC_NS
        assert record.payload.get("clock") == ("unset" if unset else None)
        assert ("clock was not set" in record.payload["data_quality"]) == unset


@pytest.mark.parametrize("offset_ns", [HOUR_NS, -HOUR_NS, UNSET_NS])
def test_a_restart_with_another_clock_tells_nothing_again(plan: Plan, offset_ns: int) -> None:
    """The gateway comes up in 1970, or an hour off: what stood is taken up silently, and its end is told once."""
    cut = plan.item_after(25.0)
    first = plan.run(Steps(), last=cut)
    standing = [alarm for alarm in first.standing if alarm.standing]
    assert [alarm.event.condition for alarm in standing] == ["model"]
    kept = msgspec.json.decode(msgspec.json.encode(first.standing), type=tuple[StandingAlarm, ...])
    back = Steps(offset_ns, ((at_s(27.2), 0),))
    second = plan.run(back, first=cut, last=plan.item_after(42.5), after=replace(first, standing=kept))
    of_alarm = [event for event in second.events if event.alarm_id == standing[0].event.alarm_id]
    assert [event.trigger for event in of_alarm] == ["clear"]
    assert 10.0 < of_alarm[0].standing_s <= 20.0 + HOUR_NS / 1e9, "as far as the clock at the restart could be believed"


def test_a_shelf_lasts_as_long_as_it_was_to_whatever_the_clock_does(plan: Plan) -> None:
    """Also over a restart into a clock that is not set, which must not keep an alarm on the shelf for 56 years."""
    first = plan.run(Steps(), last=plan.item_after(25.0))
    (alarm,) = first.standing
    for boot_offset_ns, step_ns in ((0, HOUR_NS), (0, -HOUR_NS), (UNSET_NS, -UNSET_NS), (UNSET_NS, 0)):
        clock = ManualClock(START_UTC_NS, START_MONOTONIC_NS)
        pipeline = pipeline_of(plan, first.standing)
        assert pipeline._book.shelve(alarm.event.code, 100.0, moment_of(clock))
        clock.advance(40.0)
        pipeline = pipeline_of(plan, pipeline.standing())  # restarted
        clock.set(clock.utc_ns() + boot_offset_ns, 7 * S)
        left_s = 60.0 if boot_offset_ns == 0 else 100.0
        assert ticked(pipeline, clock, 1.0) == []
        clock.set(clock.utc_ns() + step_ns, clock.monotonic_ns())
        assert ticked(pipeline, clock, left_s - 2.0) == []
        assert ticked(pipeline, clock, 1.5) == ["return_standing"]


def pipeline_of(plan: Plan, restored: Iterable[StandingAlarm]) -> Pipeline:
    """As after a restart."""
    kept = msgspec.json.decode(msgspec.json.encode(tuple(restored)), type=tuple[StandingAlarm, ...])
    return Pipeline(
        plan.site,
        plan.bundles,
        started_monotonic_ns=0,
        restored=kept,
        clock_set_since_utc_ns=SET_SINCE_UTC_NS,
    )


def ticked(pipeline: Pipeline, clock: ManualClock, seconds: float) -> list[str]:
    """What happened to machines' alarms by then; the sensors, of which nothing is heard here, are not asked."""
    pipeline.tick(clock.utc_ns(), clock.monotonic_ns())
    clock.advance(seconds)
    outcome = pipeline.tick(clock.utc_ns(), clock.monotonic_ns())
    return [event.trigger for event in outcome.events if not event.condition.startswith("sensor:")]


def test_a_sensor_whose_own_clock_is_off_is_heard_all_the_same(plan: Plan, undisturbed: Told) -> None:
    """Two hours off, or in 1970: its bursts make the same windows and alarms; only their own times are its clock's."""
    items = tuple(
        replace(item, start_utc_ns=item.start_utc_ns - 2 * HOUR_NS) if isinstance(item, Waveform) else item
        for item in plan.items
    )
    told = replace(plan, items=items).run(Steps())
    assert [(e.condition, e.trigger) for e in told.events] == [(e.condition, e.trigger) for e in undisturbed.events]
    assert len(told.of("feature")) == len(undisturbed.of("feature"))
    assert told.of("clock") == []


def test_a_buffer_begun_anew_in_1970_uses_no_number_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers begun at the time of a clock that says the same after every boot would be known upstream, and dropped there."""
    monkeypatch.setattr("agent.store.time.time_ns", lambda: 60 * S)
    begun = []
    for _ in range(2):
        (tmp_path / "buffer.sqlite").write_bytes(b"this is not a database" * 100)
        store = Store.open(tmp_path / "buffer.sqlite", gateway="test/gw-1")
        begun += [record.seq for record in store.write([Record("alarm", "M-1", 1, {})])]
        store.close()
    assert begun[0] != begun[1]
    assert min(begun) > SET_SINCE_UTC_NS // 10**6


def test_a_dataset_of_an_earlier_version_takes_marked_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tables have no column for the mark; they get it, and what was there stays as it was."""
    column = pa.field("clock", pa.string())
    before = {stream: pa.schema([one for one in schema if one != column]) for stream, schema in SCHEMAS.items()}
    body = feature_body(np.ones(3))
    with monkeypatch.context() as earlier:
        earlier.setattr("training.delta.SCHEMAS", before)
        stored(tmp_path, iter([message("feature", 1, body)]))
        assert "clock" not in DeltaTable(str(tmp_path / "features")).to_pyarrow_table().column_names
    stored(tmp_path, iter([message("feature", seq, body | {"clock": "unset"}) for seq in (1, 2)]))
    rows_now = DeltaTable(str(tmp_path / "features")).to_pyarrow_table(columns=["seq", "clock"]).to_pylist()
    assert sorted(rows_now, key=lambda row: row["seq"]) == [{"seq": 1, "clock": None}, {"seq": 2, "clock": "unset"}]


# ---------------------------------------------------------------------------------------------- the agent itself
class SetClock:
    """The machine's clocks, but for somebody who sets the wall clock."""

    def __init__(self, utc_ns: int) -> None:
        self.set_at_ns: list[int] = []
        self.offsets_ns: list[int] = []
        self.set(utc_ns)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def utc_ns(self) -> int:
        return time.monotonic_ns() + self.offsets_ns[-1]

    def set(self, utc_ns: int) -> None:
        self.set_at_ns.append(time.monotonic_ns())
        self.offsets_ns.append(utc_ns - time.monotonic_ns())

    def put(self, by_ns: int) -> None:
        self.set(self.utc_ns() + by_ns)

    def monotonic_of(self, utc_ns: int) -> int:
        """When it was that it said so, which is in one of the times between two settings."""
        ends = [*self.set_at_ns[1:], time.monotonic_ns()]
        slack_ns = S // 100  # a reading is not quite at the same instant as the setting
        (found,) = {
            utc_ns - offset
            for start, end, offset in zip(self.set_at_ns, ends, self.offsets_ns, strict=True)
            if start - slack_ns <= utc_ns - offset < end + slack_ns
        }
        return found


@contextmanager
def collecting(port: int, folder: Path) -> Iterator[None]:
    """`hark data collect`, in a thread."""
    stop, ready = threading.Event(), threading.Event()
    arguments = (Address("127.0.0.1", port, client_id="collector"), folder, "test", stop)
    thread = threading.Thread(target=collect, args=arguments, kwargs={"flush_interval_s": 0.2, "ready": ready})
    thread.start()
    assert ready.wait(10.0)
    try:
        yield
    finally:
        stop.set()
        thread.join(10.0)


def rows(folder: Path, sql: str) -> list[Any]:
    with sqlite3.connect(f"file:{folder / 'data' / 'buffer.sqlite'}?mode=ro", uri=True, timeout=5) as database:
        return database.execute(sql).fetchall()


def live_seconds(app: App, clock: SetClock, watcher: Watcher) -> dict[str, Any]:
    """Boot in 1970; then the time server answers, an alarm comes, and the clock is put forward and back.

    Returns: what the gateway's status says of the clock at the end.
    """
    n_steps = lambda: app.pipeline.clock.n_steps  # noqa: E731
    wait_until(lambda: app.produced["feature"] >= 3, 20.0, "the first bursts, in 1970")
    clock.set(time.time_ns())
    wait_until(lambda: n_steps() == 1 and app.produced["feature"] >= 6, 10.0, "the clock to be set")
    wait_until(lambda: app.produced["alarm"], 20.0, "the alarm")
    for n_before, by_ns in enumerate((HOUR_NS, -HOUR_NS), 1):
        before = app.produced["feature"]
        clock.put(by_ns)
        wait_until(lambda n=n_before: n_steps() == n + 1, 10.0, "the step to be noticed")  # type: ignore[misc]
        wait_until(lambda n=before: app.produced["feature"] >= n + 4, 10.0, "the agent to go on")  # type: ignore[misc]
    wait_until(lambda: watcher.gateway.get("clock", {}).get("steps") == 3, 10.0, "the status of the gateway")
    wait_until(lambda: watcher.gateway.get("health") == {"state": "ok"}, 10.0, "the gateway to call itself well")
    return dict(watcher.gateway["clock"])


def test_a_running_agent_measures_alarms_and_delivers_on_while_its_clock_is_set(
    tmp_path: Path, broker: Broker, plan: Plan, undisturbed: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """No gap, no sensor fault, the same alarm as ever and told once, every record delivered with the time it was given."""
    ports = {"mqtt": broker.port, "modbus": free_ports(1)}
    site, plant = placed(tmp_path, poll_s=POLL_S, burst_s=0.5, unbalance_s=3, **ports)
    with_baselines(site, undisturbed)
    clock = SetClock(100 * S)
    with ExitStack() as stack:
        stack.enter_context(collecting(broker.port, tmp_path / "dataset"))
        watcher = stack.enter_context(Watcher(broker.port))
        plant_clock = PlantClock()
        units = units_of(plant, "a", plant_clock, ROOT / "config")
        stack.enter_context(ModbusServer(units, port=ports["modbus"]))
        stack.enter_context(BurstPublisher(plant, plant_clock, port=broker.port))

        app = App(site, clock)
        app.start()
        status = live_seconds(app, clock, watcher)
        told_before = dict(rows(tmp_path, "SELECT stream || seq, utc_ns FROM record WHERE upstream"))
        ledger = app.stop()

        clock.set(50 * S)  # the power fails, and the next boot begins in 1970 too
        again = App(site, clock)
        again.start()
        wait_until(lambda: again.produced["feature"] >= 2, 20.0, "bursts after the restart")
        clock.set(time.time_ns())
        wait_until(
            lambda: again.produced["clock"] and again.produced["feature"] >= 4, 10.0, "the clock to be set again"
        )
        ledger_again = again.stop()

    assert status == {"set": True, "steps": 3, "last_step_s": pytest.approx(-3600.0, abs=0.01)}
    assert ledger["drops"] == {}
    assert (ledger["outbox"], ledger["failure"]) == ({"pending": 0, "published": 0, "dead": 0}, "")
    assert (ledger["counts"]["clock_steps"], ledger_again["counts"]["clock_steps"]) == (3, 1)
    check_measured(tmp_path, clock)
    check_told(tmp_path, clock, told_before)
    said = [record.getMessage() for record in caplog.records if record.name == "hark.shiftbook"]
    assert [line.partition(":")[0] for line in said if line.startswith("clock ")] == [
        "clock is not set, it says 1970-01-01T00", "clock is set now", "clock was put forward by 3600.0 s",
        "clock was put back by 3600.0 s", "clock is not set, it says 1970-01-01T00", "clock is set now",
    ]  # fmt: skip


def with_baselines(site: Site, told: Told) -> None:
    """What the machines' normal is, learned before; so an alarm comes within seconds."""
    channels = [channel.name for channel in site.channels]
    store = Store.open(site.data_dir / "buffer.sqlite", gateway="test/gw-1", channels=channels)
    for (machine, state), baseline in told.baselines.items():
        store.save_baseline(machine, state, baseline.as_document(), 0)
    store.close()


def check_measured(folder: Path, clock: SetClock) -> None:
    """Every device's polls, one after the other on the monotonic clock, whatever the wall clock did between them."""
    with sqlite3.connect(f"file:{folder / 'data' / 'buffer.sqlite'}?mode=ro", uri=True, timeout=5) as reader:
        samples = list(read_samples(reader))
    for device in {series.sensor for series in samples}:
        times_us = [us for series in samples if series.sensor == device for us in series.utc_us.tolist()]
        polls = [clock.monotonic_of(1000 * us) for us in times_us]
        between_s = np.diff(polls) / 1e9
        restart = int(np.argmax(between_s))  # the agent was not there
        assert np.delete(between_s, restart).max() < 3 * POLL_S, "a gap"
        assert np.median(between_s) == pytest.approx(POLL_S, rel=0.05), "the cadence"
        assert between_s.min() > 0.0, "the order"
    assert not any(series.quality.any() for series in samples), "a good value is good whatever its time"


def check_told(folder: Path, clock: SetClock, told_before: dict[str, int]) -> None:
    """Records in the order in which they happened, with the times that they were given first, here and upstream."""
    kept = rows(folder, "SELECT stream, seq, utc_ns, machine, payload FROM record WHERE upstream ORDER BY id")
    by_key = {f"{stream}{seq}": utc_ns for stream, seq, utc_ns, *_ in kept}
    assert told_before.items() <= by_key.items(), "a time was rewritten"
    by_gateway = [utc_ns for stream, _, utc_ns, machine, _ in kept if stream == "feature" and machine == "P-1"]
    assert by_gateway[0] < SET_SINCE_UTC_NS
    assert (np.diff([clock.monotonic_of(utc_ns) for utc_ns in by_gateway]) > 0).all(), "the order"
    by_sensor = [utc_ns for stream, _, utc_ns, machine, _ in kept if stream == "feature" and machine == "M-1"]
    assert min(by_sensor) > SET_SINCE_UTC_NS, "the accelerometer has a clock of its own, which was right all the time"

    bodies = [(stream, utc_ns, json.loads(payload)) for stream, _, utc_ns, _, payload in kept if stream != "burst"]
    steps = [body for stream, _, body in bodies if stream == "clock"]
    assert [round(step["step_s"] / 3600) for step in steps if abs(step["step_s"]) < 10**6] == [1, -1]
    assert [(step["from_utc_ns"] < SET_SINCE_UTC_NS, step["set"]) for step in steps] == [
        (True, True), (False, True), (False, True), (True, True),
    ]  # fmt: skip
    for stream, utc_ns, body in bodies:
        if stream == "feature":
            assert (body.get("clock") == "unset") == (utc_ns < SET_SINCE_UTC_NS)
    alarms = [(body["condition"], body["trigger"]) for stream, _, body in bodies if stream == "alarm"]
    assert alarms == [("model", "raise")], "one alarm, told once, and no sensor's fault"

    upstream = {}
    for table in ("alarms", "clock_events", "features", "bursts", "samples"):
        for row in DeltaTable(str(folder / "dataset" / table)).to_pyarrow_table().to_pylist():
            assert row["late"] is False, "a step makes nothing late"
            assert (row["clock"] == "unset") == (row["utc_ns"] < SET_SINCE_UTC_NS)
            upstream[f"{row['stream']}{row['seq']}"] = row["utc_ns"]
    assert upstream == by_key, "everything delivered"
