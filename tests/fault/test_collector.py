"""At least once on the wire, exactly once in the dataset: whatever crashes, whatever comes twice."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from bundles import GATEWAY, SITE, alarm_body, feature_body, message, stored
from helpers import wait_until
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from firmware_bridge.chunks import Series, encode_chunk
from firmware_bridge.errors import FrameError, SourceLost
from training.check import check_dataset
from training.collect import Address, Collector, Ledger, collect
from training.delta import Dataset, DatasetError, open_table
from training.keys import RangeSet
from training.wire import decode

VECTOR = np.array([1.0, np.nan, 3.0], np.float32)


def features(first: int, last: int) -> list[tuple[str, bytes]]:
    return [message("feature", seq, feature_body(VECTOR)) for seq in range(first, last + 1)]


def offered(collector: Collector, messages: list[tuple[str, bytes]]) -> None:
    for topic, payload in messages:
        collector.offer(topic, payload)


class Confirmations:
    """Takes confirmations; may die when the first one is sent."""

    def __init__(self, dies: bool = False) -> None:
        self.dies = dies
        self.ranges: list[tuple[str, list[list[int]]]] = []

    def __call__(self, topic: str, payload: bytes) -> None:
        if self.dies:
            raise SystemExit("killed between commit and confirm")
        said = json.loads(payload)
        assert topic == f"hark/v1/{SITE}/{GATEWAY}/confirm"
        self.ranges.append((said["stream"], said["ranges"]))


def keys_in(folder: Path, stream: str) -> list[str]:
    table = open_table(folder, stream)
    assert table is not None
    return sorted(table.to_pyarrow_dataset().to_table(columns=["key"])["key"].to_pylist())


def test_what_is_committed_is_confirmed_in_ranges(tmp_path: Path) -> None:
    """One message for many records, so that confirming costs the link nothing."""
    said = Confirmations()
    collector = Collector(Dataset(tmp_path), said)
    offered(collector, [*features(0, 9), *features(20, 24)])
    collector.flush()
    assert said.ranges == [("feature", [[0, 9], [20, 24]])]
    assert collector.ledger.written == 15


def test_a_crash_between_commit_and_confirm_doubles_nothing(tmp_path: Path) -> None:
    """The gateway sends again what was not confirmed; the dataset knows the keys and only confirms them."""
    dying = Collector(Dataset(tmp_path), Confirmations(dies=True))
    offered(dying, features(0, 9))
    with pytest.raises(SystemExit):
        dying.flush()
    said = Confirmations()
    again = Collector(Dataset(tmp_path), said)
    offered(again, features(0, 12))
    again.flush()
    assert (again.ledger.written, again.ledger.duplicates) == (3, 10)
    assert said.ranges == [("feature", [[0, 12]])]
    assert keys_in(tmp_path, "feature") == sorted(f"{SITE}/{GATEWAY}/feature/{seq}" for seq in range(13))


def test_a_crash_before_the_commit_confirms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not in the dataset may not be deleted on the gateway."""
    said = Confirmations()
    collector = Collector(Dataset(tmp_path), said)
    offered(collector, features(0, 3))

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("training.delta.write_deltalake", full_disk)
        with pytest.raises(DatasetError, match="No space left"):
            collector.flush()
    assert said.ranges == []
    collector.flush()
    assert said.ranges == [("feature", [[0, 3]])]
    assert check_dataset(tmp_path)["duplicates"] == 0


def test_a_chunk_of_samples_becomes_a_row_of_plain_lists_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    """Any reader of Parquet has the numbers; one that was changed on its way is counted and blocks nobody."""
    quality = np.zeros((3, 2), np.uint8)
    quality[1, 1] = 130
    times_us = np.array([1_780_000_000_000_000, 1_780_000_001_000_000, 1_780_000_002_000_000])
    values = np.array([[1.5, 2.0], [1.25, np.nan], [1.5, 2.5]], np.float32)
    series = Series("vib-a", ("velocity_mm_s", "temperature_degc"), times_us, times_us - 10**15, values, quality)
    chunk = encode_chunk([series], boot=3, clock_set=True)
    said = Confirmations()
    collector = Collector(Dataset(tmp_path), said)
    offered(
        collector,
        [message("sample", 1, {"chunk": chunk}, "vib-a"), message("sample", 2, {"chunk": chunk[:-1]}, "vib-a")],
    )
    offered(collector, [message("sample", 3, {"chunk": chunk}, "vib-b")])
    collector.flush()
    assert (collector.ledger.written, collector.ledger.malformed) == (1, 2)
    assert said.ranges == [("sample", [[1, 1]])]
    table = open_table(tmp_path, "sample")
    assert table is not None
    (row,) = table.to_pyarrow_table().to_pylist()
    assert (row["sensor"], row["boot"], row["points"], row["clock"]) == ("vib-a", 3, list(series.points), None)
    assert row["utc_us"] == times_us.tolist()
    np.testing.assert_array_equal(np.array(row["values"], np.float32).reshape(3, 2), values)
    assert row["quality"] == quality.ravel().tolist()


def test_the_same_record_twice_in_one_batch_stands_once(tmp_path: Path) -> None:
    """QoS 1 may deliver twice within a second."""
    collector = Collector(Dataset(tmp_path), Confirmations())
    offered(collector, features(5, 6) + features(5, 6))
    collector.flush()
    assert (collector.ledger.written, collector.ledger.duplicates) == (2, 2)


def test_two_collectors_on_one_dataset_write_every_key_once(tmp_path: Path) -> None:
    """A resend may reach another member of the shared subscription; the commit itself notices."""
    first, second = (Collector(Dataset(tmp_path), Confirmations()) for _ in range(2))
    offered(first, features(0, 9))
    offered(second, features(5, 14))
    first.flush()
    second.flush()
    offered(first, features(10, 19))
    first.flush()
    assert keys_in(tmp_path, "feature") == sorted(f"{SITE}/{GATEWAY}/feature/{seq}" for seq in range(20))
    assert first.ledger.duplicates + second.ledger.duplicates == 10


def test_racing_collectors_write_every_key_once(tmp_path: Path) -> None:
    """The same from two threads at the same time, many commits each."""

    def work(collector: Collector) -> None:
        for first in range(0, 60, 6):
            offered(collector, features(first, first + 8))
            collector.flush()

    collectors = [Collector(Dataset(tmp_path), Confirmations()) for _ in range(2)]
    threads = [threading.Thread(target=work, args=(collector,)) for collector in collectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = check_dataset(tmp_path)
    assert (found["records"], found["missing"], found["duplicates"]) == (63, 0, 0)
    assert sum(collector.ledger.written for collector in collectors) == 63


def test_a_dataset_reads_as_it_was_sent(tmp_path: Path) -> None:
    """Absent is null and not 0; times keep their place; a burst keeps its bytes; partitions carry no secret meaning."""
    samples = np.arange(-4, 4, dtype="<i2").tobytes()
    burst = {
        "sensor": "accel",
        "axis": "x",
        "sample_rate_hz": 25_600.0,
        "scale_m_s2": 0.005,
        "burst_id": 7,
        "start_utc_ns": 1_790_000_000_123_456_789,
        "samples": samples,
        "alarm_id": "ab",
    }
    names = {**feature_body(VECTOR), "columns": ["a", "b", "c"]}
    stored(
        tmp_path,
        iter(
            [
                message("feature", 1, names),
                message("burst", 1, burst),
                message("alarm", 1, alarm_body("ab", "unacknowledged", "2026-09-21T12:00:00Z")),
            ]
        ),
    )
    rows = {}
    for stream in ("feature", "burst", "alarm"):
        table = open_table(tmp_path, stream)
        assert table is not None
        rows[stream] = table.to_pyarrow_dataset().to_table().to_pylist()[0]
    assert rows["feature"]["values"] == [1.0, None, 3.0]
    assert rows["feature"]["present"] == [True, False, True]
    assert rows["feature"]["shaft_speed_rpm"] == 1470.0
    assert rows["feature"]["line_frequency_hz"] is None
    assert rows["burst"]["samples"] == samples
    assert rows["burst"]["start_utc"].isoformat() == "2026-09-21T14:13:20.123456+00:00"
    assert (rows["alarm"]["fault"], rows["alarm"]["confidence"]) == ("unbalance", 0.9)
    assert json.loads((tmp_path / "columns.json").read_text())["d" * 64]["columns"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda topic, payload: (topic, b""),
        lambda topic, payload: (topic, payload[:-3]),
        lambda topic, payload: (topic, b"[" * 100_000),
        lambda topic, payload: (topic, payload.replace(b'"v":1', b'"v":9')),
        lambda topic, payload: (topic.replace("gw-01", "gw-02"), payload),
        lambda topic, payload: (topic.replace("/features", "/event"), payload),
        lambda topic, payload: (topic, payload.replace(b'"M-1"', b'"../../x"')),
        lambda topic, payload: (topic, payload.replace(b"/feature/1", b"/feature/2")),
        lambda topic, payload: (topic, payload.replace(b'"present":[1,0,1]', b'"present":[1]')),
        lambda topic, payload: (topic, payload.replace(b'"digest"', b'"digset"')),
        lambda topic, payload: (topic, payload.replace(b"1790000010000000000", b"9000000000000000000")),
        lambda topic, payload: (topic, payload.replace(b'"motor"', b'"../motor"')),
        lambda topic, payload: ("hark/v1/plant/gw-01/status", payload),
    ],
)
def test_what_is_not_a_record_is_counted_and_blocks_nothing(tmp_path: Path, spoil: Any) -> None:
    """Poison is let go; the record behind it is written."""
    topic, payload = message("feature", 1, feature_body(VECTOR))
    with pytest.raises(FrameError):
        decode(*spoil(topic, payload))
    collector = Collector(Dataset(tmp_path), Confirmations())
    offered(collector, [spoil(topic, payload), (topic, payload)])
    collector.flush()
    assert (collector.ledger.malformed, collector.ledger.written) == (1, 1)


@given(st.lists(st.integers(0, 60)), st.lists(st.integers(0, 60)))
def test_a_range_set_is_a_set(first: list[int], second: list[int]) -> None:
    """Whatever the order; and its ranges never touch each other."""
    held = RangeSet(first)
    news = [held.add(number) for number in second]
    assert sum(news) == len(set(second) - set(first))
    assert {n for start, end in held for n in range(start, end + 1)} == set(first) | set(second)
    assert len(held) == len(set(first) | set(second))
    ranges = list(held)
    assert all(end + 1 < start for (_, end), (start, _) in pairwise(ranges))
    assert all(number in held for number in first)


def test_check_finds_gaps_and_doubles_by_gateway_and_stream(tmp_path: Path) -> None:
    """0/0 is what a user may expect of his own plant at any time; anything else is exit code 1."""
    stored(
        tmp_path,
        iter(
            [*features(3, 5), *features(8, 9), message("alarm", 1, alarm_body("a", "normal", "2026-01-01T00:00:00Z"))]
        ),
    )
    blind = Dataset(tmp_path)
    blind._held["feature"].clear()  # a writer that forgot what stands there: the damage that check must see
    collector = Collector(blind, Confirmations())
    offered(collector, features(9, 9))
    collector.flush()
    found = check_dataset(tmp_path)
    assert (found["records"], found["missing"], found["duplicates"]) == (6, 2, 1)
    assert found["sources"][1]["gaps"] == [[6, 7]]
    ended = subprocess.run(
        [sys.executable, "-m", "agent", "data", "check", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["duplicates"] == 1


# ------------------------------------------------------------------------------------------- with a real broker
class Gateway:
    """Publishes records and listens for confirmations, as an agent does."""

    def __init__(self, port: int) -> None:
        self.confirmed = RangeSet()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(f"hark/v1/{SITE}/{GATEWAY}/confirm", qos=1)
        self._client.loop_start()

    def _on_message(self, _client: Any, _data: Any, arrived: Any) -> None:
        for first, last in msgspec.json.decode(arrived.payload)["ranges"]:
            for seq in range(first, last + 1):
                self.confirmed.add(seq)

    def send(self, messages: list[tuple[str, bytes]]) -> None:
        sent = [self._client.publish(topic, payload, qos=1) for topic, payload in messages]
        for one in sent:
            one.wait_for_publish(10.0)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def collecting(port: int, out: Path) -> Iterator[list[Ledger]]:
    """A subscribed collector in a thread; its ledger is in the list once the block is left."""
    stop, ready, ledgers = threading.Event(), threading.Event(), []
    address = Address("127.0.0.1", port, client_id="collector-under-test")

    def work() -> None:
        ledgers.append(collect(address, out, "+", stop, flush_interval_s=0.2, ready=ready))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(15.0)
        yield ledgers
    finally:
        stop.set()
        thread.join(15.0)


def test_records_reach_the_dataset_and_the_gateway_hears_of_it(broker: Any, tmp_path: Path) -> None:
    """Through a broker with its default window of 20; a resend is confirmed again and not written again."""
    gateway = Gateway(broker.port)
    with collecting(broker.port, tmp_path) as ledgers:
        gateway.send(features(0, 149))
        wait_until(lambda: len(gateway.confirmed) == 150, 15.0, "150 confirmations")
        gateway.confirmed = RangeSet()
        gateway.send(features(140, 159))
        wait_until(lambda: len(gateway.confirmed) == 20, 15.0, "20 confirmations")
    gateway.close()
    ledger = ledgers[0]
    assert (ledger.received, ledger.written, ledger.duplicates, ledger.dropped) == (170, 160, 10, 0)
    found = check_dataset(tmp_path)
    assert (found["records"], found["missing"], found["duplicates"]) == (160, 0, 0)


def test_what_arrives_while_the_collector_is_away_waits_for_it(broker: Any, tmp_path: Path) -> None:
    """The session outlives the collector: stop it, send, start it, and all is there once."""
    gateway = Gateway(broker.port)
    with collecting(broker.port, tmp_path):
        gateway.send(features(0, 9))
        wait_until(lambda: len(gateway.confirmed) == 10, 15.0, "10 confirmations")
    gateway.send(features(10, 29))
    with collecting(broker.port, tmp_path):
        wait_until(lambda: len(gateway.confirmed) == 30, 15.0, "30 confirmations")
    gateway.close()
    assert check_dataset(tmp_path)["records"] == 30


def test_the_command_stops_cleanly_on_sigterm_with_its_ledger(broker: Any, tmp_path: Path) -> None:
    """What was taken is committed before it goes, and one JSON object says what happened."""
    command = [sys.executable, "-m", "agent", "data", "collect", str(tmp_path), "--json"]
    process = subprocess.Popen(
        [*command, "--port", str(broker.port), "--client-id", "collector-under-test"], stdout=subprocess.PIPE, text=True
    )
    gateway = Gateway(broker.port)

    def confirmed() -> bool:
        gateway.send(features(0, 4))  # again and again until somebody listens, as an agent does
        return len(gateway.confirmed) == 5

    wait_until(confirmed, 20.0, "5 confirmations")
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=15.0)
    gateway.close()
    assert process.returncode == 0
    ledger = json.loads(printed)
    assert ledger["written"] == 5
    assert ledger["received"] == 5 + ledger["duplicates"]
    assert check_dataset(tmp_path)["duplicates"] == 0


def test_a_broker_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    """Exit code 3, what was tried, what to check."""
    with pytest.raises(SourceLost, match=r"upstream broker 127\.0\.0\.1:9 not reached"):
        collect(Address("127.0.0.1", 9, client_id="x"), tmp_path, "+", threading.Event())
