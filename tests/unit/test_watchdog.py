"""Who stands still, and what is said of it: the watchdog's pure core, sd_notify on a real socket, the gateway's own health."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import wait_until

from agent.clock import ManualClock
from agent.health import GatewayHealth, sensor_of
from agent.watchdog import (
    RESOLVE_S,
    STALLED_S,
    WATCHDOG_S,
    Progress,
    StageWatch,
    Stall,
    Supervisor,
    Watchdog,
    slack_of,
    where,
)
from firmware_bridge.measurement import Block, Quality
from firmware_bridge.source import ModbusSensor, ModbusSpec

S = 1_000_000_000
ASKED_FOR = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}


class Listener:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        words = []
        while True:
            try:
                words.append(self._socket.recv(256).decode())
            except BlockingIOError:
                return words

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "notify")
    yield made
    made.close()


class Process:
    """Stages, the watchdog that looks at them, and what it ended."""

    def __init__(self, *stages: Progress, supervisor: Supervisor | None = None) -> None:
        self.clock = ManualClock()
        self.stages = stages
        self.ended: list[Stall] = []
        self.watchdog = Watchdog(stages, supervisor or Supervisor({}), self.clock, end=self.ended.append)

    def live(self, seconds: int, *moving: Progress, rest_s: float = 0.0) -> None:
        """So many seconds, a look in each, while these move."""
        for _ in range(seconds):
            for stage in moving:
                stage.moved(rest_s)
            self.clock.advance(1.0)
            self.watchdog.look()


def test_a_stage_that_stands_still_ends_the_process_and_is_named() -> None:
    """The others move on: only the one that hangs is told, and not before its time."""
    store, pipeline = Progress("store"), Progress("pipeline")
    process = Process(store, pipeline)
    process.live(10, store, pipeline)
    process.live(round(WATCHDOG_S), pipeline)
    assert process.ended == []
    process.live(2, pipeline)
    assert process.ended[0].stage == "store"
    assert process.ended[0].still_s == pytest.approx(WATCHDOG_S + 1)


def test_a_commit_of_ten_seconds_again_and_again_is_no_hang() -> None:
    """A worn flash card is slow for hours; a restart would only add to it."""
    store, pipeline = Progress("store"), Progress("pipeline")
    process = Process(store, pipeline)
    for _ in range(20):
        store.moved()
        process.live(10, pipeline)
    assert process.ended == []


def test_a_stage_that_waits_on_purpose_is_given_that_time_and_no_more() -> None:
    """A lost source is tried again every minute: that is rest. When it does not come back from it, it hangs."""
    source = Progress("source-line")
    process = Process(source)
    source.moved(rest_s=60.0)
    process.live(91)
    assert process.ended == []
    process.live(1)
    assert process.ended == [Stall("source-line", WATCHDOG_S + 1)]
    source.moved()  # the next turn has no rest
    process.ended.clear()
    process.live(32)
    assert process.ended == [Stall("source-line", WATCHDOG_S + 1)]


def test_a_source_whose_recording_is_over_may_stand_still_for_ever() -> None:
    """The agent goes on without it."""
    source = Progress("source-recording")
    process = Process(source)
    source.end()
    process.live(3600)
    assert process.ended == []


def test_a_stopped_process_that_goes_on_does_not_end_itself() -> None:
    """SIGSTOP for a minute, or a starved box: nobody moved, the watchdog did not look either, and all is well afterwards."""
    store, pipeline = Progress("store"), Progress("pipeline")
    process = Process(store, pipeline)
    process.live(5, store, pipeline)
    process.clock.advance(60.0)
    process.watchdog.look()
    assert process.ended == []
    process.live(32, pipeline)
    assert process.ended[0].stage == "store", "and one that hangs since is still found"


def test_a_look_that_comes_late_counts_as_two_at_most() -> None:
    """By itself it proves that the watchdog was away, and no more."""
    watch = StageWatch([Progress("store")], 0.0, look_s=0.5)
    assert watch.look(1000.0).still_s == 1.0


@pytest.mark.parametrize(
    ("host", "slack_s"), [("192.0.2.10", 4.0), ("fd00::10", 4.0), ("gateway.plant", 4.0 + RESOLVE_S), (None, 4.0)]
)
def test_a_line_with_a_name_is_given_the_time_of_dead_name_servers(host: str | None, slack_s: float) -> None:
    """They take half a minute a name and search domain: a restart every time would silence every other source too."""
    sensors = (ModbusSensor("drive", "abb_acs580", 1),)
    serial = None if host else "/dev/ttyUSB0"
    assert slack_of(ModbusSpec(name="line", sensors=sensors, host=host, serial=serial, timeout_s=1.0)) == slack_s


def test_the_last_words_say_where_the_thread_stands() -> None:
    """Whoever reads the log tomorrow has no debugger in it today."""
    stands, release = threading.Event(), threading.Event()

    def commit_that_hangs() -> None:
        stands.set()
        release.wait()

    thread = threading.Thread(target=commit_that_hangs, name="test-store")
    thread.start()
    stands.wait(5.0)
    said = wait_until(lambda: "commit_that_hangs" in where("test-store") and where("test-store"), 5.0, "the stack")
    release.set()
    thread.join(5.0)
    assert "test_watchdog.py:" in said
    assert said.count(" < ") <= 7
    assert where("test-store") == "its thread has ended"


# ---------------------------------------------------------------------- systemd
def test_systemd_is_fed_only_while_every_stage_moves(listener: Listener) -> None:
    """It kills what our own thread cannot: so it must not be told "all is well" by a thread that has nothing to do with it."""
    store, pipeline = Progress("store"), Progress("pipeline")
    process = Process(store, pipeline, supervisor=Supervisor({"NOTIFY_SOCKET": listener.path, **ASKED_FOR}))
    process.live(5, store, pipeline)
    assert listener.heard() == ["WATCHDOG=1"] * 5
    process.live(round(STALLED_S), pipeline)
    assert listener.heard() == ["WATCHDOG=1"] * 10, "a slow commit is no stall"
    process.live(10, pipeline)
    assert listener.heard() == []
    process.live(1, store, pipeline)
    assert listener.heard() == ["WATCHDOG=1"], "and it moves again"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({}, ["READY=1", "WATCHDOG=1"], id="asked for"),
        pytest.param({"WATCHDOG_USEC": ""}, ["READY=1"], id="no watchdog"),
        pytest.param({"WATCHDOG_USEC": "soon"}, ["READY=1"], id="nonsense"),
        pytest.param({"WATCHDOG_PID": "1"}, ["READY=1"], id="another process is watched"),
        pytest.param({"NOTIFY_SOCKET": ""}, [], id="nobody listens"),
    ],
)
def test_systemd_hears_what_it_asked_for(listener: Listener, change: dict[str, str], words: list[str]) -> None:
    """Started by hand, in a container or by systemd without WatchdogSec, the same agent says nothing that is not wanted."""
    supervisor = Supervisor({"NOTIFY_SOCKET": listener.path, **ASKED_FOR, **change})
    stage = Progress("pipeline")
    process = Process(stage, supervisor=supervisor)
    told = supervisor.tell("READY=1")
    process.live(1, stage)
    assert listener.heard() == words
    assert told is bool(words)


def test_an_abstract_socket_is_reached_and_a_dead_one_does_no_harm(tmp_path: Path) -> None:
    """systemd may give either; in a container the path may lead nowhere."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(f"\0hark-{os.getpid()}")
        abstract.settimeout(5.0)
        assert Supervisor({"NOTIFY_SOCKET": f"@hark-{os.getpid()}"}).tell("STOPPING=1")
        assert abstract.recv(64) == b"STOPPING=1"
    assert not Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")


# ---------------------------------------------------------------------- the gateway's own health
def told(health: GatewayHealth, now_s: float, failure: str = "") -> tuple[Any, ...]:
    said = health.verdict(now_s, failure)
    return tuple(said[key] for key in ("state", "of", "since_s") if key in said)


@pytest.fixture
def well() -> GatewayHealth:
    """A gateway at 100 s: two sources heard, stored, connected."""
    health = GatewayHealth({"line": 1.0, "slow": 60.0}, 0.0, has_upstream=True)
    health.measured("line", 100.0)
    health.measured("slow", 100.0)
    health.handed_over(100.0)
    health.committed()
    health.connection(True, 100.0)
    return health


def test_health_is_ok_only_when_every_source_was_heard(well: GatewayHealth) -> None:
    """A page that says ok before the first value would say it for a gateway with no cable too."""
    assert told(well, 100.0) == ("ok",)
    fresh = GatewayHealth({"line": 1.0}, 0.0, has_upstream=False)
    assert told(fresh, 9.0) == ("starting", "line", 9.0)
    assert told(fresh, 11.0) == ("no data", "line", 11.0)
    fresh.measured("line", 12.0)
    assert told(fresh, 12.0) == ("ok",)


def test_a_source_is_silent_after_three_of_its_own_intervals(well: GatewayHealth) -> None:
    """Ten seconds at least; a source that is heard once a minute is not missed after ten."""
    assert told(well, 110.0) == ("ok",)
    assert told(well, 111.0) == ("no data", "line", 11.0)
    well.measured("line", 280.0)
    assert told(well, 280.0) == ("ok",)
    assert told(well, 281.0) == ("no data", "slow", 181.0)


@pytest.mark.parametrize(
    ("happens", "failure", "says"),
    [
        pytest.param(lambda health: health.handed_over(70.0), "", ("not storing", 31.0), id="no commit"),
        pytest.param(lambda health: health.handed_over(95.0), "disk full", ("not storing", 6.0), id="failed"),
        pytest.param(lambda health: health.connection(False, 90.0), "", ("not delivering", 11.0), id="no broker"),
        pytest.param(lambda health: health.handed_over(80.0), "", ("ok",), id="a slow commit"),
    ],
)
def test_health_names_the_worst_thing_and_since_when(
    well: GatewayHealth, happens: Callable[[GatewayHealth], None], failure: str, says: tuple[Any, ...]
) -> None:
    """One word for a screen: without it "online" is all that anybody sees."""
    happens(well)
    assert told(well, 101.0, failure) == says
    well.committed()
    well.connection(True, 102.0)
    assert told(well, 102.0) == ("ok",), "and it is over when it is over"


def test_a_poll_without_an_answer_moves_no_data() -> None:
    """Dead devices give one Block of BAD_COMM a poll: a count of blocks would call that healthy."""
    block = Block(np.array([0, 1]), np.zeros(2, np.float32), np.array([Quality.GOOD, Quality.BAD_COMM], np.uint8), 0, 0)
    sensors = {0: "drive", 1: "drive"}
    assert sensor_of(block, sensors) == "drive"
    assert sensor_of(replace(block, quality=np.full(2, Quality.BAD_COMM, np.uint8)), sensors) is None
