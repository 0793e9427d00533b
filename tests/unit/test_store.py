"""The buffer: keys that are never used twice, policy when it is full, one owner, and damage that stops nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import wait_until

from agent.clock import Moment
from agent.decision.alarm import AlarmBook, Condition
from agent.errors import StoreError
from agent.store import LIVE_S, PAGE_BYTES, Store, StoredRecord, sequence_start
from agent.store_thread import StoreThread
from agent.vocabulary import AlarmClass, Explanation, Record, Severity
from firmware_bridge.measurement import Block

CHANNELS = [f"vib-a.point_{i}" for i in range(20)]


def opened(folder: Path, **options: int) -> Store:
    return Store.open(folder / "buffer.sqlite", gateway="demo/gw-01", channels=CHANNELS, **options)


def block(utc_ns: int, bad: bool = False) -> Block:
    quality = np.zeros(20, np.uint8)
    quality[3] = 130 if bad else 0
    return Block(np.arange(20, dtype=np.int32), np.full(20, utc_ns, np.float32), quality, utc_ns, utc_ns)


def record(stream: str, utc_ns: int = 1, size: int = 10, alarm_id: str | None = None) -> Record:
    body = {"alarm_id": alarm_id, "samples": b"s" * size} if stream == "burst" else {"text": "x" * size}
    return Record(stream, "M-1", utc_ns, body, urgent=stream == "alarm")


def rows(store: Store, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{store.path}?mode=ro", uri=True) as reader:
        return reader.execute(sql).fetchall()


def test_a_sample_can_be_read_with_any_tool(tmp_path: Path) -> None:
    """Names beside the packed values, quality only where it is not good."""
    store = opened(tmp_path)
    store.write([block(5), block(6, bad=True)])
    found = rows(
        store, "SELECT s.utc_ns, c.names, s.value, s.quality FROM sample s JOIN channel_set c ON c.id = s.channel_set"
    )
    assert [row[0] for row in found] == [5, 6]
    assert "vib-a.point_19" in str(found[0][1])
    assert np.frombuffer(found[0][2], np.float32).tolist() == [5.0] * 20  # type: ignore[call-overload]
    assert found[0][3] is None
    assert np.frombuffer(found[1][3], np.uint8)[3] == 130  # type: ignore[call-overload]
    store.close()


def test_a_sequence_number_is_never_given_twice(tmp_path: Path) -> None:
    """Neither after confirmation, nor retention, nor a restart, nor a write that failed."""
    store = opened(tmp_path)
    assert [r.seq for r in store.write([record("feature"), record("feature"), record("alarm")])] == [1, 2, 1]
    store.mark_confirmed("feature", [(1, 2)])
    with pytest.raises(TypeError):
        store.write([Record("feature", "M-1", 1, {"what": object()})])
    store.close()
    store = opened(tmp_path)
    with sqlite3.connect(store.path) as other:
        other.execute("DELETE FROM record")
    assert [r.seq for r in store.write([record("feature")])] == [3]
    store.close()


def test_pending_leaves_in_the_stated_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alarms, clock events, live features, backfill oldest first, bursts. How old they are, no wall clock has a say in."""
    now = [1000.0]
    monkeypatch.setattr("agent.store.time.monotonic", lambda: now[0])
    store = opened(tmp_path)
    store.write([record("burst", 9), record("feature", 9), record("feature", 9)])
    now[0] += LIVE_S + 1
    store.write([record("feature", 1)])
    store.write([record("clock", 5), record("alarm", 5)])
    assert [(r.key, r.late) for r in store.pending(10)] == [
        (("alarm", 1), False), (("clock", 1), False), (("feature", 3), False), (("feature", 1), True), (("feature", 2), True),
        (("burst", 1), True),
    ]  # fmt: skip
    assert [r.key for r in store.pending(3)] == [("alarm", 1), ("clock", 1), ("feature", 3)]
    store.mark_confirmed("clock", [(1, 1)])
    store.mark_published([("alarm", 1), ("feature", 3)])
    store.mark_dead([("burst", 1)])
    assert store.pending(10)[0].key == ("feature", 1)
    assert store.mark_confirmed("alarm", [(1, 1)]) == 1
    assert store.stats()["outbox"] == {"pending": 2, "published": 1, "dead": 1}
    store.close()
    store = opened(tmp_path)
    again = {r.key: r.late for r in store.pending(10)}
    assert again["feature", 3], "nobody remembers when it was sent: send it again, and it has waited"
    store.close()


def test_payloads_come_back_as_they_were_given(tmp_path: Path) -> None:
    """Samples stay bytes."""
    store = opened(tmp_path)
    store.write([record("burst", size=3, alarm_id="a1"), record("alarm", size=2)])
    bodies = {r.stream: r.body() for r in store.pending(10)}
    assert bodies == {"burst": {"alarm_id": "a1", "samples": b"sss"}, "alarm": {"text": "xx"}}
    store.close()


def test_the_byte_budget_drops_the_least_valuable_first_and_writes_every_gap_down(tmp_path: Path) -> None:
    """Samples, delivered records, features, bursts; the alarm, its burst and what dates them outlive them all."""
    store = opened(tmp_path, max_bytes=400 * PAGE_BYTES)
    store.write([record("alarm"), record("clock"), record("burst", size=5000, alarm_id="a1")])
    store.write([block(i) for i in range(600)])
    store.write([record("feature", i, size=1000) for i in range(30)])
    store.mark_confirmed("feature", [(1, 10)])
    for i in range(100):
        store.write([record("burst", i, size=8000)])
        assert store.used_bytes() <= 400 * PAGE_BYTES
    kept = {(r[0], r[1]) for r in rows(store, "SELECT stream, alarm_id FROM record")}
    assert kept == {("alarm", None), ("clock", None), ("burst", "a1"), ("burst", None)}
    gaps = rows(store, "SELECT what, n, reason, from_id, to_id FROM gap ORDER BY id")
    assert ("poll", 600, "byte budget, oldest first", 1, 600) in gaps
    assert ("feature", 10, "byte budget, oldest first", 1, 10) in gaps
    assert ("feature", 20, "byte budget, not yet delivered", 11, 30) in gaps
    lost = sum(gap[1] for gap in gaps if gap[0] == "burst")  # type: ignore[misc]
    assert lost + len(rows(store, "SELECT 1 FROM record WHERE stream = 'burst'")) == 101
    assert {key for (key,) in rows(store, "SELECT stream FROM outbox")} == {"alarm", "clock", "burst"}
    store.close()


def test_urgent_commits_are_synced_and_bulk_ones_at_the_latest_after_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NORMAL loses acknowledged rows at a power cut, FULL does not: alarms never wait for the next FULL."""
    now = [1000.0]
    monkeypatch.setattr("agent.store.time.monotonic", lambda: now[0])
    store = opened(tmp_path)
    store.commits.clear()
    store.write([block(1)])
    store.write([record("feature")])
    assert store.commits == {"normal": 2}
    store.write([record("alarm")])
    assert store.commits == {"normal": 2, "full": 1}
    store.write([block(2)])
    store.settle(now[0])
    assert store.commits["full"] == 1
    now[0] += 10.0
    store.settle(now[0])
    store.settle(now[0])
    assert store.commits == {"normal": 3, "full": 2}
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    store.close()


def test_alarms_and_baselines_outlive_a_restart(tmp_path: Path) -> None:
    """So that nothing is told twice and nothing is learned twice."""
    book = AlarmBook(lambda event: "words")
    book.raise_(
        Condition("M-1", "model", AlarmClass.MODEL, Severity.HIGH, 5, Explanation((), (), "look", None, "good")),
        Moment(6, 6),
    )
    store = opened(tmp_path)
    store.write([], book.states())
    store.save_baseline("M-1", "running:10", {"location": [1.0, None]}, 7)
    store.add_counts({"inbox": 3})
    store.add_counts({"inbox": 4})
    store.close()
    store = opened(tmp_path)
    assert tuple(store.load_alarm_states()) == book.states()
    assert store.load_baselines() == {("M-1", "running:10"): {"location": [1.0, None]}}
    assert store.stats()["counters"] == {"inbox": 7}
    assert store.stats()["boot"] == 2
    store.close()


def test_an_alarm_and_its_state_are_kept_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two would tell the alarm again after the restart, under another id."""
    book = AlarmBook(lambda event: "words")
    book.raise_(
        Condition("M-1", "model", AlarmClass.MODEL, Severity.HIGH, 5, Explanation((), (), "", None, "")), Moment(6, 6)
    )
    store = opened(tmp_path)
    monkeypatch.setattr(store, "_replace_alarm_states", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.write([record("alarm")], book.states())
    assert store.stats()["records"] == {}
    monkeypatch.undo()
    thread = StoreThread(store, bulk_interval_s=60.0)
    thread.start()
    thread.put([record("alarm")], book.states())
    thread.put([record("feature")])
    wait_until(lambda: thread.ask(lambda store: store.stats())["records"])
    assert tuple(thread.ask(lambda store: store.load_alarm_states())) == book.states()
    thread.put([], [])
    wait_until(lambda: not thread.ask(lambda store: store.load_alarm_states()))
    thread.stop()


def test_a_second_process_is_refused_with_one_line(tmp_path: Path) -> None:
    """Two writers would give one number twice."""
    store = opened(tmp_path)
    script = f"from agent.store import Store\nStore.open({str(store.path)!r}, gateway='demo/gw-01')"
    second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "StoreError" in second.stderr
    assert "is in use by another hark" in second.stderr.splitlines()[-1]
    store.write([record("alarm")])
    store.close()
    opened(tmp_path).close()


def test_another_gateways_buffer_is_refused(tmp_path: Path) -> None:
    """A cloned card would send its records under a key that is taken."""
    opened(tmp_path).close()
    with pytest.raises(StoreError, match="belongs to gateway demo/gw-01, not demo/gw-02"):
        Store.open(tmp_path / "buffer.sqlite", gateway="demo/gw-02")


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A downgrade must not damage what the newer one wrote."""
    store = opened(tmp_path)
    store.close()
    with sqlite3.connect(store.path) as other:
        other.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="newer Hark"):
        opened(tmp_path)
    with sqlite3.connect(store.path) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (99,)


@pytest.mark.parametrize("damage", ["text", "zeros", "middle"])
def test_a_damaged_file_is_moved_aside_and_the_agent_starts(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, the old file kept whole, the loss on record, and no number of the old file used again."""
    store = opened(tmp_path)
    store.write([record("alarm", size=500) for _ in range(200)])
    store.close()
    raw = bytearray(store.path.read_bytes())
    if damage == "text":
        raw[:] = b"this is not a database" * 100
    elif damage == "zeros":
        raw[:4096] = bytes(4096)
    else:
        raw[len(raw) // 3 : len(raw) // 3 + 30_000] = b"\xff" * 30_000
    store.path.write_bytes(raw)
    store = opened(tmp_path)
    assert (tmp_path / "buffer.sqlite.damaged-1").read_bytes() == raw
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "damaged" in str(rows(store, "SELECT reason FROM gap")[0][0])
    assert store.write([record("alarm")])[0].seq > 200
    store.close()


def test_the_thread_commits_alarms_at_once_and_bulk_together(tmp_path: Path) -> None:
    """An alarm must not wait for the second that samples wait for each other."""
    committed: list[list[StoredRecord]] = []
    done = threading.Event()

    def note(stored: object, monotonic_ns: int) -> None:
        committed.append(list(stored))  # type: ignore[call-overload]
        assert monotonic_ns > 0
        done.set()

    thread = StoreThread(opened(tmp_path), note, bulk_interval_s=60.0)
    thread.start()
    thread.ask(lambda store: store.stats())
    thread.put([block(i) for i in range(10)])
    thread.put([record("feature")])
    thread.put([record("alarm")])
    assert done.wait(5.0)
    assert [[r.stream for r in batch] for batch in committed] == [["alarm"]]
    thread.stop()
    assert [[r.stream for r in batch] for batch in committed] == [["alarm"], ["feature"]]
    with pytest.raises(StoreError, match="stopped"):
        thread.ask(lambda store: store.stats())


def test_a_full_disk_gives_up_ballast_and_samples_and_keeps_the_alarm(tmp_path: Path) -> None:
    """In WAL mode not even DELETE works on a full disk; here SQLite is told that its disk ends."""
    store = opened(tmp_path)
    ballast = tmp_path / "buffer.sqlite.ballast"
    assert ballast.stat().st_size == 1 << 20
    store.write([block(i) for i in range(2000)])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")
    stored = store.write([record("alarm", size=5000)])
    assert [r.key for r in stored] == [("alarm", 1)]
    assert not ballast.exists()
    assert store.stats()["polls"] == 1000
    assert store.stats()["gaps"] == 1000
    store.close()


def test_a_failing_disk_keeps_alarms_in_memory_until_it_writes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bulk is dropped and counted; one line when it begins to fail, one when it ends."""
    caplog.set_level("INFO")
    store = opened(tmp_path)
    real, failures = store.write, iter(range(3))

    def failing(*arguments: object) -> list[StoredRecord]:
        if next(failures, None) is not None:
            raise StoreError("cannot write")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "write", failing)
    thread = StoreThread(store, bulk_interval_s=0.01)
    thread.put([block(1), record("alarm")])
    thread.start()
    wait_until(lambda: thread.ask(lambda s: s.stats())["records"].get("alarm") == 1)
    assert thread.dropped == {"store failing: sample": 1}
    assert thread.failure == ""
    assert [r.levelname for r in caplog.records if r.name == "agent.store_thread"] == ["ERROR", "INFO"]
    thread.stop()


def test_a_full_inbox_refuses_bulk_counts_it_and_still_takes_alarms(tmp_path: Path) -> None:
    """Bounded, and every drop has a name."""
    thread = StoreThread(opened(tmp_path), max_items=10, bulk_interval_s=60.0)
    assert thread.put([block(i) for i in range(15)]) == 5
    assert thread.put([record("alarm")]) == 0
    assert thread.dropped == {"store inbox: sample": 5}
    thread.start()
    wait_until(lambda: thread.ask(lambda store: store.stats())["records"].get("alarm") == 1)
    thread.stop()
    store = opened(tmp_path)
    assert store.stats()["counters"] == {"store inbox: sample": 5}
    assert store.stats()["polls"] == 10
    store.close()


def test_a_wiped_data_folder_begins_beyond_every_number_that_was_ever_given(tmp_path: Path) -> None:
    """Else the collector would take the new records for ones that it has, confirm them, and they would be gone."""
    year_2026_ns, later_ns = 1_780_000_000 * 10**9, 1_780_000_060 * 10**9
    first = Store.open(tmp_path / "a.sqlite", gateway="g", first_seq=sequence_start(year_2026_ns))
    given = [stored.seq for stored in first.write([record("alarm") for _ in range(50)])]
    first.close()
    again = Store.open(tmp_path / "a.sqlite", gateway="g", first_seq=sequence_start(later_ns))
    assert again.write([record("alarm")])[0].seq == given[-1] + 1, "a buffer that is there goes on"
    again.close()
    wiped = Store.open(tmp_path / "b.sqlite", gateway="g", first_seq=sequence_start(later_ns))
    assert wiped.write([record("alarm")])[0].seq > given[-1]
    wiped.close()
    never_set = Store.open(tmp_path / "c.sqlite", gateway="g", first_seq=sequence_start(12 * 10**9))
    assert never_set.write([record("alarm")])[0].seq > sequence_start(4_000_000_000 * 10**9)
    never_set.close()
