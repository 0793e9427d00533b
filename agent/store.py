"""The gateway's buffer: a SQLite journal and outbox, and its only writer.

What is kept, in plain tables: `record` (alarms, clock events, features, bursts and chunks of samples, each with its own sequence
number), `outbox` (what of it still has to reach the collector), `sample` (a row for each poll of the last minutes, see samples.py),
`gap` (everything that was ever dropped, and why), baselines, standing alarms and counters. `sqlite-utils` makes and migrates the
tables; the hot path takes its connection.

Durability. In WAL mode `synchronous=NORMAL` survives a killed process but loses acknowledged rows in every power cut,
FULL in none. So alarms, clock events, confirmations and configuration commit with FULL at once; bulk commits with NORMAL,
and a FULL commit at least every 10 s makes all before it durable. The WAL is kept at 256 pages / 2 MiB: cutting it shorter than
its working size doubles the flash writes.

A write of a batch is one transaction; the sequence numbers are given in it, and their counter is a row of its own, so a
number is never used twice, whatever is deleted later.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agent.clock import SET_SINCE_UTC_NS
from agent.decision.alarm import StandingAlarm
from agent.errors import StoreError
from agent.samples import STREAM as SAMPLES
from agent.samples import SampleLog
from agent.vocabulary import Record
from firmware_bridge.measurement import Block
from firmware_bridge.upstream import BINARY

if TYPE_CHECKING:
    import sqlite_utils

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
PAGE_BYTES = 1024
WAL_PAGES = 256
CACHE_KIB = 512  # SQLite's own 2 MiB are full after 15 min and write no faster (0.8 of bare executemany with either)
WAL_LIMIT_BYTES = 2 << 20
FULL_EVERY_S = 10.0
CHECKED_AT_OPEN_BYTES = 32 << 20  # a larger file is checked by its first and last rows: starting must not take minutes
LIVE_S = 60.0  # a record written longer ago, or before a restart, is backfill: it is late, and newer features leave before it
LIVE_STEP_S = 1.0  # as exactly is that known
FIRST_UNSET_START, LAST_UNSET_START = 1 << 42, 1 << 52  # milliseconds of the years 2109 and later
SLICE_ROWS = 200  # deleted in one statement by retention
BUDGET_TARGET = 0.95  # retention frees down to this share

PENDING, PUBLISHED, DEAD = 0, 1, 2
Key = tuple[str, int]  # stream, sequence
Item = Record | Block

_TABLES: dict[str, tuple[dict[str, Any], str | tuple[str, ...]]] = {
    "meta": ({"key": str, "value": str}, "key"),
    "stream": ({"name": str, "next_seq": int}, "name"),
    "record": (
        {
            "id": int, "stream": str, "seq": int, "machine": str, "utc_ns": int, "boot": int,
            "upstream": int, "alarm_id": str, "payload": bytes, "monotonic_ns": int, "clock_set": int,
        },
        "id",
    ),
    "outbox": ({"id": int, "stream": str, "seq": int, "state": int, "attempts": int}, "id"),
    "channel_set": ({"id": int, "names": str}, "id"),
    "sample": (
        {
            "id": int, "utc_ns": int, "channel_set": int, "value": bytes, "quality": bytes, "monotonic_ns": int,
            "boot": int,
        },
        "id",
    ),
    "gap": (
        {
            "id": int, "what": str, "from_id": int, "to_id": int, "from_utc_ns": int, "to_utc_ns": int, "n": int,
            "reason": str,
        },
        "id",
    ),
    "counter": ({"name": str, "value": int}, "name"),
    "baseline": ({"machine": str, "state": str, "utc_ns": int, "payload": bytes}, ("machine", "state")),
    "alarm_state": ({"alarm_id": str, "payload": str}, "alarm_id"),
}  # fmt: skip

# What goes first when the budget is reached: (table, which of its rows). Alarms come last, and what dates and explains them.
_KEPT_LAST = "('alarm', 'clock', 'baseline')"
_CONFIRMED = "upstream = 0 OR NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.id = record.id)"
RETENTION: tuple[tuple[str, str], ...] = (
    ("record", f"stream = '{SAMPLES}' AND ({_CONFIRMED})"),
    ("record", f"stream NOT IN {_KEPT_LAST} AND alarm_id IS NULL AND ({_CONFIRMED})"),
    ("record", f"stream = '{SAMPLES}'"),
    ("sample", "1"),
    ("record", f"stream NOT IN {_KEPT_LAST} AND stream <> 'burst'"),
    ("record", "stream = 'burst' AND alarm_id IS NULL"),
    ("record", "stream = 'burst'"),
    ("record", f"stream IN {_KEPT_LAST} AND ({_CONFIRMED})"),
    ("record", f"stream IN {_KEPT_LAST}"),
)
N_LEAST_VALUABLE = 4  # of these go when the disk is full: what is delivered, and samples
FREED_SLICES = 5
STREAM_ORDER = ("alarm", "clock", "baseline", "feature", "burst", SAMPLES)


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is missing: which stream (or "poll", "everything"), from when to when, how many, and why.

    `from_id` and `to_id` are sequence numbers (row ids for polls that were not folded yet), 0 where they are not known.
    """

    what: str
    from_utc_ns: int
    to_utc_ns: int
    n: int
    reason: str
    from_id: int = 0
    to_id: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredRecord:
    """A record with its key. `payload` is as stored: JSON text, or bytes (a burst's body as msgpack).

    `late`: it has waited in the buffer, by the monotonic clock.
    """

    stream: str
    seq: int
    machine: str
    utc_ns: int
    payload: str | bytes
    attempts: int = 0
    urgent: bool = False
    arrived_monotonic_ns: int = 0
    late: bool = False

    @property
    def key(self) -> Key:
        return self.stream, self.seq

    def body(self) -> Any:
        """The payload as it was given. Raises: StoreError: the disk has changed it."""
        try:
            if isinstance(self.payload, str):
                return msgspec.json.decode(self.payload)
            return msgspec.msgpack.decode(self.payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise StoreError(f"record {self.stream} {self.seq} was damaged in the buffer ({error})") from None


class Store:
    """One open database file. Not thread-safe: StoreThread owns it once it runs."""

    def __init__(self, path: Path, channels: Sequence[str], max_bytes: int, lock_fd: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.commits: Counter[str] = Counter()  # by kind: "full", "normal"
        self.made_tables = False  # at this opening; sqlite-utils has been loaded for it
        self._channels = tuple(channels)
        self._lock_fd = lock_fd
        self._full_due_s = 0.0
        self._unsettled = False
        self._db: sqlite3.Connection
        self._next_seq: dict[str, int]
        self._samples: SampleLog
        self._open_database()

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        gateway: str,
        channels: Sequence[str] = (),
        max_bytes: int = 512 << 20,
        first_seq: int = 1,
    ) -> Store:
        """Open or create the buffer.

        Args:
            gateway: whose buffer this is; another gateway's file is refused. channels: names of the channel table.
            first_seq: where the sequences of a new buffer begin. A gateway whose data folder was wiped must not begin
                at 1 again (`sequence_start`): the collector would take its records for ones that it has.
            max_bytes: what the file may hold; see RETENTION for what goes first.
        Raises: StoreError: the folder cannot be written, another process has the file, or it is another gateway's.
        """
        path = Path(path)
        lock_fd = _locked(path)
        try:
            store = cls(path, channels, max_bytes, lock_fd)
            try:
                store._claim(gateway)
                if first_seq > 1 and not store._next_seq:  # no number was ever given
                    store._begin_sequences(first_seq)
            except StoreError:
                store.close()
                raise
            return store
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(lock_fd)
            raise

    # -- writing

    def write(self, batch: Iterable[Item], standing: Iterable[StandingAlarm] | None = None) -> list[StoredRecord]:
        """Keep a batch in one transaction; durable at return when any of it is urgent.

        Args: standing: the alarms that stand after this batch, kept in the same transaction: a kill between an alarm's
            event and its state would tell it twice. None leaves them as they are.
        Returns: its records with their keys, in the batch's order (blocks get none).
        Raises: StoreError: the disk is full or failing; nothing of the batch was kept.
        """
        items = list(batch)
        states = None if standing is None else _state_rows(standing)
        urgent = states is not None or any(isinstance(item, Record) and item.urgent for item in items)
        try:
            return self._write(items, urgent, states)
        except sqlite3.OperationalError as error:
            return self._write_after_making_room(items, urgent, states, error)
        except sqlite3.DatabaseError as error:
            self._start_anew(str(error))
            return self._write(items, urgent, states)

    def save_baseline(self, machine: str, state: str, payload: Mapping[str, Any], utc_ns: int) -> None:
        """Keep what was learned of one machine in one operating state. Durable at return."""
        row = (machine, state, utc_ns, msgspec.json.encode(payload))
        with self._transaction(full=True):
            self._db.execute(
                "INSERT OR REPLACE INTO baseline (machine, state, utc_ns, payload) VALUES (?, ?, ?, ?)", row
            )

    def load_baselines(self) -> dict[tuple[str, str], Any]:
        """Everything learned, by machine and operating state."""
        rows = self._db.execute("SELECT machine, state, payload FROM baseline")
        return {(machine, state): msgspec.json.decode(payload) for machine, state, payload in rows}

    def forget_baselines(self, machine: str) -> None:
        """What was learned of a machine is no longer its normal. Durable at return."""
        with self._transaction(full=True):
            self._db.execute("DELETE FROM baseline WHERE machine = ?", (machine,))

    def load_alarm_states(self) -> list[StandingAlarm]:
        """The alarms that stood when they were last saved, oldest first."""
        rows = self._db.execute("SELECT payload FROM alarm_state ORDER BY rowid").fetchall()
        return [msgspec.json.decode(payload, type=StandingAlarm) for (payload,) in rows]

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to the counters that outlive a restart (drops, by name)."""
        if not counts:
            return
        sql = "INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ?"
        with self._transaction(full=False):
            self._db.executemany(sql, [(name, n, n) for name, n in counts.items()])

    # -- the outbox

    def pending(self, limit: int) -> list[StoredRecord]:
        """What should leave next and is neither published nor dead.

        Alarms, clock events, live features, older ones (oldest first), bursts, samples.
        """
        found = self._pending("alarm", limit, "ORDER BY o.id")
        found += self._pending("clock", limit - len(found), "ORDER BY o.id")
        found += self._pending("baseline", limit - len(found), "ORDER BY o.id")
        newest = self._pending("feature", limit - len(found), "ORDER BY o.id DESC")
        found += [record for record in reversed(newest) if not record.late]
        live = {record.key for record in found}
        for stream in ("feature", "burst", SAMPLES):
            older = self._pending(stream, limit, "ORDER BY o.id")
            found += [record for record in older if record.key not in live]
        return found[:limit]

    def fetch(self, keys: Iterable[Key]) -> list[StoredRecord]:
        """These records, where they are still in the outbox (for sending again)."""
        return [record for key in keys for record in self._select("WHERE o.stream = ? AND o.seq = ?", key)]

    def mark_published(self, keys: Iterable[Key]) -> None:
        """The broker has them; the collector has not yet said so."""
        sql = f"UPDATE outbox SET state = {PUBLISHED}, attempts = attempts + 1 WHERE stream = ? AND seq = ?"
        with self._transaction(full=False):
            self._db.executemany(sql, list(keys))

    def mark_dead(self, keys: Iterable[Key]) -> None:
        """Refused for good: kept and counted, sent no more."""
        with self._transaction(full=True):
            self._db.executemany(f"UPDATE outbox SET state = {DEAD} WHERE stream = ? AND seq = ?", list(keys))

    def mark_confirmed(self, stream: str, ranges: Iterable[tuple[int, int]]) -> int:
        """Delivered: out of the outbox, durable at return. Returns how many that were."""
        with self._transaction(full=True):
            sql = "DELETE FROM outbox WHERE stream = ? AND seq BETWEEN ? AND ?"
            return sum(self._db.execute(sql, (stream, first, last)).rowcount for first, last in ranges)

    def n_undelivered(self) -> int:
        """Records that are neither confirmed nor dead."""
        return int(self._db.execute(f"SELECT COUNT(*) FROM outbox WHERE state <> {DEAD}").fetchone()[0])

    # -- keeping house

    def settle(self, now_s: float) -> bool:
        """Make earlier bulk commits durable when the last durable one is 10 s old. Call about once a second."""
        due = self._unsettled and now_s >= self._full_due_s
        if due:
            self.sync()
        return due

    def fold_samples(self, now_s: float) -> int:
        """One step of turning polls into chunks; call about once a second. Returns how many chunks were kept."""
        fold = self._samples.encode_next(now_s)
        if fold is None:
            return 0
        next_seq = dict(self._next_seq)
        records = [Record(SAMPLES, chunk.sensor, chunk.utc_ns, {"chunk": chunk.blob}) for chunk in fold.chunks]
        try:
            with self._transaction(full=False):
                self._insert_records(records, next_seq)
                for reason in fold.damaged:
                    log.error("samples lost: %s", reason)
                    self._insert_gap(Gap("poll", 0, time.time_ns(), 0, reason))
                self._samples.folded()
                self._drop_to_budget()
        except sqlite3.Error:
            self._samples.give_up_fold()
            raise
        self._next_seq = next_seq
        return len(records)

    def sync(self) -> None:
        """One durable commit: everything written before it survives a power cut."""
        with self._transaction(full=True):
            self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('settled', ?)", (str(self._boot),))

    def used_bytes(self) -> int:
        """What the rows take in the file, free pages apart."""
        pages, free = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return int((pages - free) * self._page_bytes)

    def _drop_to_budget(self) -> int:
        """Drop the oldest of the least valuable until the budget holds; each drop is a gap. Returns how many rows.

        Within a transaction: the batch that goes over the budget and what gives way to it are kept together or not at all.
        """
        if self.used_bytes() <= self.max_bytes:
            return 0
        dropped = 0
        for table, rows in RETENTION:
            while self.used_bytes() > BUDGET_TARGET * self.max_bytes:
                n = self._drop_oldest(table, rows)
                if not n:
                    break
                dropped += n
        if dropped:
            log.warning("buffer full, oldest data dropped: rows=%d max_mib=%.0f", dropped, self.max_bytes / 2**20)
        return dropped

    def stats(self) -> dict[str, Any]:
        """What the buffer holds, for `hark status` and the page."""
        states = dict(self._db.execute("SELECT state, COUNT(*) FROM outbox GROUP BY state").fetchall())
        return {
            "used_bytes": self.used_bytes(),
            "max_bytes": self.max_bytes,
            "polls": self._samples.n_hot,
            "records": dict(self._db.execute("SELECT stream, COUNT(*) FROM record GROUP BY stream").fetchall()),
            "outbox": {
                "pending": states.get(PENDING, 0),
                "published": states.get(PUBLISHED, 0),
                "dead": states.get(DEAD, 0),
            },
            "sequences": dict(self._next_seq),
            "gaps": self._db.execute("SELECT COALESCE(SUM(n), 0) FROM gap").fetchone()[0],
            "counters": dict(self._db.execute("SELECT name, value FROM counter").fetchall()),
            "commits": dict(self.commits),
            "boot": self._boot,
        }

    def close(self) -> None:
        """Make everything durable and let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            if self._unsettled:
                self.settle(float("inf"))
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        with contextlib.suppress(OSError):
            os.close(self._lock_fd)

    # -- inside

    def _open_database(self) -> None:
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StoreError(
                    f"{self.path} cannot be opened ({error}); check the disk and the folder's owner"
                ) from None
            self._start_anew(str(error))

    def _connect(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        self._db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        self._db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        self._db.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
        self._db.text_factory = _text
        self._check()
        self.made_tables |= _migrate(self._db)
        # SQLite's check does not compare an index with its table, and what the outbox's index has lost never leaves.
        self._db.execute("REINDEX outbox")
        self._db.execute(
            f"UPDATE outbox SET state = {PENDING} WHERE state = {PUBLISHED}"
        )  # nobody remembers when: send again
        self._page_bytes = int(self._db.execute("PRAGMA page_size").fetchone()[0])
        self._next_seq = dict(self._db.execute("SELECT name, next_seq FROM stream").fetchall())
        # (monotonic seconds, first id written from then on), one a second at most
        self._live: deque[tuple[float, int]] = deque(maxlen=2 + round(LIVE_S / LIVE_STEP_S))
        self._boot = 1 + int(self._meta("boot") or 0)
        self._samples = SampleLog(self._db, self._channels, self._boot)
        with self._transaction(full=True):
            self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('boot', ?)", (str(self._boot),))

    def _check(self) -> None:
        """Raises sqlite3.DatabaseError where the file is damaged."""
        if self.path.stat().st_size <= CHECKED_AT_OPEN_BYTES:
            said = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if said != "ok":
                raise sqlite3.DatabaseError(said)
            return
        for (table,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for order in ("ASC", "DESC"):
                self._db.execute(f'SELECT * FROM "{table}" ORDER BY rowid {order} LIMIT 1').fetchall()

    def _start_anew(self, cause: str) -> None:
        """Move the damaged file aside, whole, and begin a new one; the new one says what is missing."""
        with contextlib.suppress(sqlite3.Error, AttributeError):
            self._db.close()
        aside = next(
            candidate
            for number in range(1, 10_000)
            if not (candidate := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists()
        )
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        log.error("buffer damaged, moved aside, a new one started: kept_as=%s cause=%s", aside, cause)
        self._connect()
        self._begin_sequences(sequence_start(time.time_ns()))
        with self._transaction(full=True):
            reason = f"database damaged ({cause}), kept as {aside.name}"
            self._insert_gap(Gap("everything", 0, time.time_ns(), 0, reason))

    def _begin_sequences(self, first_seq: int) -> None:
        with self._transaction(full=True):
            self._db.executemany(
                "INSERT OR REPLACE INTO stream (name, next_seq) VALUES (?, ?)",
                [(name, first_seq) for name in STREAM_ORDER],
            )
        self._next_seq = dict.fromkeys(STREAM_ORDER, first_seq)

    def _claim(self, gateway: str) -> None:
        owner = self._meta("gateway")
        if owner is not None and owner != gateway:
            raise StoreError(
                f"{self.path} belongs to gateway {owner}, not {gateway}; give this gateway its own data_dir"
            )
        with self._transaction(full=True):
            self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('gateway', ?)", (gateway,))

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    @contextlib.contextmanager
    def _transaction(self, full: bool) -> Iterator[None]:
        """One transaction, synced at its commit when `full` or when the last synced one is 10 s old."""
        now_s = time.monotonic()
        full = full or now_s >= self._full_due_s
        self._db.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self.commits["full" if full else "normal"] += 1
        self._unsettled = not full
        if full:
            self._full_due_s = now_s + FULL_EVERY_S

    def _replace_alarm_states(self, rows: list[tuple[str, str]]) -> None:
        self._db.execute("DELETE FROM alarm_state")
        self._db.executemany("INSERT INTO alarm_state (alarm_id, payload) VALUES (?, ?)", rows)

    def _write(self, items: Sequence[Item], urgent: bool, states: list[tuple[str, str]] | None) -> list[StoredRecord]:
        blocks = [item for item in items if isinstance(item, Block)]
        records = [item for item in items if isinstance(item, Record)]
        next_seq = dict(self._next_seq)
        try:
            with self._transaction(full=urgent):
                self._samples.insert(blocks)
                stored = self._insert_records(records, next_seq)
                if states is not None:
                    self._replace_alarm_states(states)
                self._drop_to_budget()
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._samples.forget()
            raise
        self._next_seq = next_seq
        return stored

    def _insert_records(self, records: Sequence[Record], next_seq: dict[str, int]) -> list[StoredRecord]:
        """Rows, outbox entries and sequence counters, all in the transaction that is open."""
        if not records:
            return []
        first_id = 1 + int(
            self._db.execute("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'record'").fetchone()[0]
        )
        stored, rows, outbox = [], [], []
        for row_id, record in enumerate(records, first_id):
            seq = next_seq.get(record.stream, 1)
            next_seq[record.stream] = seq + 1
            payload, alarm_id = _packed(record)
            rows.append(
                (
                    row_id,
                    record.stream,
                    seq,
                    record.machine,
                    record.utc_ns,
                    self._boot,
                    int(record.upstream),
                    alarm_id,
                    payload,
                    record.arrived_monotonic_ns,
                    int(record.utc_ns >= SET_SINCE_UTC_NS),
                )
            )
            if record.upstream:
                outbox.append((row_id, record.stream, seq))
            stored.append(
                StoredRecord(
                    record.stream,
                    seq,
                    record.machine,
                    record.utc_ns,
                    payload,
                    0,
                    record.urgent,
                    record.arrived_monotonic_ns,
                )
            )
        columns = "id, stream, seq, machine, utc_ns, boot, upstream, alarm_id, payload, monotonic_ns, clock_set"
        self._db.executemany(f"INSERT INTO record ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany(
            f"INSERT INTO outbox (id, stream, seq, state, attempts) VALUES (?, ?, ?, {PENDING}, 0)", outbox
        )
        touched = {(record.stream, next_seq[record.stream]) for record in records}
        self._db.executemany("INSERT OR REPLACE INTO stream (name, next_seq) VALUES (?, ?)", touched)
        self._note_written(first_id)
        return stored

    def _write_after_making_room(
        self, items: Sequence[Item], urgent: bool, states: list[tuple[str, str]] | None, cause: sqlite3.OperationalError
    ) -> list[StoredRecord]:
        """A full disk is a trap in WAL mode: not even DELETE works. The ballast file is the way out."""
        ballast = _ballast(self.path)
        with contextlib.suppress(FileNotFoundError):
            ballast.unlink()
            log.error("disk full: ballast given up, dropping samples cause=%s", cause)
        try:
            for _ in range(FREED_SLICES):
                if not any(self._drop_slice(table, rows) for table, rows in RETENTION[:N_LEAST_VALUABLE]):
                    break
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return self._write(items, urgent, states)
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot write {self.path} ({error}); free space on the disk or check that it is writable"
            ) from None

    def _pending(self, stream: str, limit: int, order: str) -> list[StoredRecord]:
        if limit <= 0:
            return []
        return self._select(f"WHERE o.state = {PENDING} AND o.stream = ? {order} LIMIT ?", (stream, limit))

    def _select(self, where: str, parameters: tuple[Any, ...]) -> list[StoredRecord]:
        columns = "r.id, r.stream, r.seq, r.machine, r.utc_ns, r.payload, o.attempts"
        sql = f"SELECT {columns} FROM outbox o JOIN record r ON r.id = o.id {where}"
        found = self._db.execute(sql, parameters).fetchall()
        first_live = self._first_live_id()
        return [
            StoredRecord(stream, seq, machine, utc_ns, payload, attempts, late=row_id < first_live)
            for row_id, stream, seq, machine, utc_ns, payload, attempts in found
        ]

    def _first_live_id(self) -> float:
        """Records from this id on were written within the last minute and since the start."""
        while self._live and time.monotonic() - self._live[0][0] > LIVE_S:
            self._live.popleft()
        return self._live[0][1] if self._live else float("inf")

    def _note_written(self, first_id: int) -> None:
        """Which records are how old, to a second."""
        now_s = time.monotonic()
        if not self._live or now_s - self._live[-1][0] >= LIVE_STEP_S:
            self._live.append((now_s, first_id))

    def _drop_slice(self, table: str, rows: str) -> int:
        """Delete the oldest few of these rows, and say so in `gap`, in one transaction."""
        with self._transaction(full=False):
            return self._drop_oldest(table, rows)

    def _drop_oldest(self, table: str, rows: str) -> int:
        """Delete the oldest few of these rows, and say so in `gap`; within a transaction."""
        columns = "id, stream, seq, utc_ns, (upstream AND id IN (SELECT id FROM outbox))"
        if table == "sample":
            columns = "id, 'poll', id, utc_ns, 0"
        limit = SLICE_ROWS if table == "sample" else SLICE_ROWS // 10
        found = self._db.execute(f"SELECT {columns} FROM {table} WHERE {rows} ORDER BY id LIMIT {limit}").fetchall()
        for gap in _gaps(found):
            self._insert_gap(gap)
        self._db.executemany(f"DELETE FROM {table} WHERE id = ?", [(row[0],) for row in found])
        if table == "sample":
            self._samples.give_up_fold()
        if table == "record":
            self._db.executemany("DELETE FROM outbox WHERE id = ?", [(row[0],) for row in found])
        return len(found)

    def _insert_gap(self, gap: Gap) -> None:
        """A new row, or the last one of its kind longer where this one follows it without a hole."""
        if gap.to_id:
            grown = self._db.execute(
                "UPDATE gap SET to_id = ?, to_utc_ns = ?, n = n + ? WHERE id = (SELECT MAX(id) FROM gap WHERE what = ?)"
                " AND reason = ? AND to_id = ?",
                (gap.to_id, gap.to_utc_ns, gap.n, gap.what, gap.reason, gap.from_id - 1),
            )
            if grown.rowcount:
                return
        columns = "what, from_utc_ns, to_utc_ns, n, reason, from_id, to_id"
        self._db.execute(f"INSERT INTO gap ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(gap))


def _gaps(rows: Iterable[tuple[int, str, int, int, int]]) -> list[Gap]:
    """Runs of consecutive numbers of one stream. A row: id, stream, sequence, UTC, whether it was still to be sent."""
    gaps: list[Gap] = []
    for _, stream, seq, utc_ns, unsent in rows:
        reason = "byte budget, not yet delivered" if unsent else "byte budget, oldest first"
        last = next((gap for gap in reversed(gaps) if gap.what == stream), None)
        if last and last.reason == reason and last.to_id == seq - 1:
            gaps[gaps.index(last)] = replace(last, to_id=seq, to_utc_ns=utc_ns, n=last.n + 1)
        else:
            gaps.append(Gap(stream, utc_ns, utc_ns, 1, reason, seq, seq))
    return gaps


def sequence_start(utc_ns: int) -> int:
    """Where the sequences of a new file begin: of a gateway's first, and of one that replaces a damaged or a wiped one.

    Not at 1 again: the collector would take its records for ones that it has. In milliseconds since 1970, which is beyond any
    number used before; by chance and beyond those where the clock is not set, which says the same after every boot.
    """
    if utc_ns >= SET_SINCE_UTC_NS:
        return utc_ns // 1_000_000
    return random.SystemRandom().randrange(FIRST_UNSET_START, LAST_UNSET_START)


def _text(stored: bytes) -> str:
    """A flipped bit may leave text that is no UTF-8: it is read all the same, or it would block everything behind it."""
    return stored.decode("utf-8", "replace")


def _state_rows(alarms: Iterable[StandingAlarm]) -> list[tuple[str, str]]:
    return [(alarm.event.alarm_id, msgspec.json.encode(alarm).decode()) for alarm in alarms]


def _packed(record: Record) -> tuple[str | bytes, str | None]:
    """The payload as stored, and the alarm that it belongs to."""
    if isinstance(record.payload, bytes):
        return record.payload, None
    alarm_id = record.payload.get("alarm_id")
    if record.stream in BINARY:
        return msgspec.msgpack.encode(record.payload), alarm_id
    return msgspec.json.encode(record.payload).decode(), alarm_id


def _migrate(connection: sqlite3.Connection) -> bool:
    """From whatever version the file has to ours; sqlite-utils (4 MiB) is loaded only where there is something to do.

    Returns: whether there was.
    Raises: StoreError: the file is from a newer Hark.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the buffer was written by a newer Hark (schema {version}, this one knows {SCHEMA_VERSION}); update"
        )
    if version == SCHEMA_VERSION:
        return False
    import sqlite_utils

    database = sqlite_utils.Database(connection)
    if version < 1:
        _create_tables(database)
    else:
        _add_columns(database.conn)
    return True


def _create_tables(database: sqlite_utils.Database) -> None:
    database.conn.execute("BEGIN IMMEDIATE")
    # AUTOINCREMENT: a record's id is never used again, so the outbox can be joined on it for ever.
    names = ", ".join(f"{name} {_SQL[kind]}" for name, kind in _TABLES["record"][0].items() if name != "id")
    database.conn.execute(f"CREATE TABLE IF NOT EXISTS record (id INTEGER PRIMARY KEY AUTOINCREMENT, {names})")
    for table, (columns, primary_key) in _TABLES.items():
        if table != "record":
            database.table(table).create(columns, pk=primary_key, if_not_exists=True)
    database.table("outbox").create_index(["state", "stream", "id"], if_not_exists=True)
    database.table("outbox").create_index(["stream", "seq"], unique=True, if_not_exists=True)
    database.table("gap").create_index(["what", "id"], if_not_exists=True)
    database.conn.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    if database.conn.in_transaction:
        database.conn.execute("COMMIT")


def _add_columns(connection: sqlite3.Connection) -> None:
    """From version 1: rows say when they were taken by the monotonic clock, and polls in which life of the agent."""
    connection.execute("BEGIN IMMEDIATE")
    for table, column in (
        ("record", "monotonic_ns"), ("record", "clock_set"), ("sample", "monotonic_ns"), ("sample", "boot"),
    ):  # fmt: skip
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.execute("COMMIT")


_SQL = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}


def _ballast(path: Path) -> Path:
    return path.with_name(f"{path.name}.ballast")


BALLAST_BYTES = 1 << 20


def _locked(path: Path) -> int:
    """An exclusive lock beside the file, held as long as the process lives; and the ballast."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(
            f"the data folder {path.parent} cannot be written ({error.strerror}); check data_dir"
        ) from None
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(lock_fd, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(lock_fd)
        raise StoreError(f"{path} is in use by another hark (process {owner}); stop that one first") from None
    os.ftruncate(lock_fd, 0)
    os.write(lock_fd, str(os.getpid()).encode())
    with contextlib.suppress(OSError):
        if not _ballast(path).exists():
            _ballast(path).write_bytes(os.urandom(BALLAST_BYTES))
    return lock_fd
