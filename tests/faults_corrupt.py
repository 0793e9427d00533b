"""Edits of a database that nobody made on purpose: the store opens, says what is gone, and goes on.

SQLite has no checksums in its pages: a flipped bit inside a value is a wrong value and not damage that `quick_check` sees. Such
values are counted as wrong, apart from what is lost, and so are those that say which record it is (`keys_wrong`).
"""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ledger import EVERYTHING, OPEN_WITHIN_S, Opened, Run, cycles, integrity
from store_writer import alarm, block, feature

from agent.errors import StoreError
from agent.store import Key, Store

N_ALARMS, N_FEATURES, N_SAMPLES, IN_WAL = 100, 200, 300, 60
SUFFIXES = ("", "-wal", "-shm")


def _bits(file: Path, rng: random.Random, n: int) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(n):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def flip_bits(path: Path, rng: random.Random) -> None:
    """1 to 64 bits in random places of the database."""
    _bits(path, rng, 2 ** rng.randrange(7))


def scramble_page(path: Path, rng: random.Random) -> None:
    """One 4 KiB block of the disk holds something else."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data) // 4096) * 4096
    data[at : at + 4096] = rng.randbytes(4096)
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random) -> None:
    """The file ends early, at any byte."""
    with path.open("r+b") as file:
        file.truncate(rng.randrange(path.stat().st_size))


def zero_header(path: Path, rng: random.Random) -> None:
    """The first 16, 100, 1,024 or 4,096 bytes are zero."""
    with path.open("r+b") as file:
        file.write(bytes(rng.choice((16, 100, 1024, 4096))))


def garbage_wal(path: Path, rng: random.Random) -> None:
    """The log is noise."""
    wal = Path(f"{path}-wal")
    wal.write_bytes(rng.randbytes(rng.choice((1, 31, 32, 1000, wal.stat().st_size))))


def flip_wal_bits(path: Path, rng: random.Random) -> None:
    """1 to 64 bits in random places of the log."""
    _bits(Path(f"{path}-wal"), rng, 2 ** rng.randrange(7))


def truncate_wal(path: Path, rng: random.Random) -> None:
    """The log ends early."""
    wal = Path(f"{path}-wal")
    with wal.open("r+b") as file:
        file.truncate(rng.randrange(wal.stat().st_size))


def no_shm(path: Path, rng: random.Random) -> None:
    """The log's index is gone, or noise; it can be made again."""
    shm = Path(f"{path}-shm")
    shm.unlink()
    if rng.random() < 0.5:
        shm.write_bytes(rng.randbytes(32768))


EDITS: tuple[Callable[[Path, random.Random], None], ...] = (
    flip_bits, scramble_page, truncate, zero_header, garbage_wal, flip_wal_bits, truncate_wal, no_shm,
)  # fmt: skip
OF_THE_LOG = (
    garbage_wal,
    flip_wal_bits,
    truncate_wal,
)  # SQLite takes a damaged log for one that ends there, and says nothing


def edits(folder: Path, seed: int, n: int, within_s: float = float("inf")) -> Iterator[Run]:
    """Each run is a fresh copy of one database, edited by its seed."""
    template = folder / "template.sqlite"
    truth, n_samples = _template(template)

    def one(run_seed: int) -> Run:
        rng = random.Random(run_seed)
        edit = EDITS[run_seed % len(EDITS)]
        path = folder / f"{run_seed}" / "edited.sqlite"
        path.parent.mkdir()
        for suffix in SUFFIXES:
            shutil.copy(f"{template}{suffix}", f"{path}{suffix}")
        edit(path, rng)
        run = Run("corrupt", run_seed, edit.__name__, alerts_committed=N_ALARMS, samples_committed=n_samples)
        said: list[str] = []
        with _Heard(said):
            _look(path, truth, run, said, rng)
        unsaid, reused = run.extra.pop("unsaid", 0), run.extra.pop("numbers_reused", 0)
        if edit in OF_THE_LOG:
            run.extra |= {"log_edits": 1, "log_edits_unsaid": unsaid, "log_edits_numbers_reused": reused}
        elif unsaid:
            run.problems.append("records are gone, and no gap and no line of the log says so")
        elif reused:
            run.problems.append("numbers of before the damage are given again")
        shutil.rmtree(path.parent)
        return run

    yield from cycles(one, seed, n, within_s)


def _template(path: Path) -> tuple[dict[Key, str], int]:
    """A database whose last records are in the log only, as a killed process leaves it: its files stay as they are."""
    rng, truth = random.Random(0), {}
    live = path.with_name("live.sqlite")
    for first, n in ((0, N_ALARMS + N_FEATURES - IN_WAL), (N_ALARMS + N_FEATURES - IN_WAL, IN_WAL)):
        with Opened(live) as opened:
            for number in range(first, first + n):
                record = alarm(str(number), rng) if number % 3 == 0 else feature(str(number), rng)
                (kept,) = opened.store.write([record, block(rng)])
                truth[kept.key] = kept.payload
            if first:
                for suffix in SUFFIXES:
                    shutil.copy(f"{live}{suffix}", f"{path}{suffix}")
    return truth, N_SAMPLES


class _Heard(logging.Handler):
    """The lines that the store logs meanwhile, and nobody else sees."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said, self._log = said, logging.getLogger("agent.store")

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())

    def __enter__(self) -> None:
        self._propagate, self._log.propagate = self._log.propagate, False
        self._log.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
        self._log.propagate = self._propagate


def _look(path: Path, truth: dict[Key, str], run: Run, said: list[str], rng: random.Random) -> None:
    try:
        opened = Opened(path)
    except (StoreError, sqlite3.Error, OSError, ValueError) as error:
        run.problems.append(f"does not open: {type(error).__name__}: {error}")
        return
    run.recovery_s = opened.took_s
    if opened.took_s > OPEN_WITHIN_S:
        run.problems.append(f"opened in {opened.took_s:.1f} s")
    gone_again = False
    try:
        with opened:
            kept = _payloads(opened.store)
            (new_alarm, new_feature) = opened.store.write([alarm("new", rng), feature("new.f", rng), block(rng)])
            read = _payloads(opened.store)
            if any(read.get(record.key) != record.payload for record in (new_alarm, new_feature)):
                run.problems.append("what was written afterwards is not read back")
            if {new_alarm.key, new_feature.key} & set(truth):
                run.extra["numbers_reused"] = len({new_alarm.key, new_feature.key} & set(truth))
        with Opened(path) as again:
            read = _payloads(again.store)
            if any(read.get(record.key) != record.payload for record in (new_alarm, new_feature)):
                gone_again = True
            n_samples = again.store.stats()["polls"] - 1
    except (StoreError, sqlite3.Error, ValueError) as error:
        run.problems.append(f"after opening: {type(error).__name__}: {error}")
        return
    with closing(sqlite3.connect(path)) as reader:
        reader.text_factory = bytes
        reasons = [reason for (reason,) in reader.execute("SELECT reason FROM gap")]
        n_wrong_keys = _wrong_keys(reader, {*truth, new_alarm.key, new_feature.key})
    _count(truth, kept, n_samples, run)
    if (found := integrity(path)) != "ok":
        run.problems.append(f"integrity_check: {found}")
    if gone_again:
        run.problems.append("what was written afterwards is gone at the next opening")
    if n_wrong_keys:
        run.extra["keys_wrong"] = n_wrong_keys  # a wrong bit inside a value, of those that say which record it is
    if (run.samples_lost or run.extra["records_lost"] > n_wrong_keys) and not (reasons and said):
        run.extra["unsaid"] = 1


def _wrong_keys(reader: sqlite3.Connection, keys: set[Key]) -> int:
    """Rows whose stream, number or state is none that was ever written."""
    known = {(stream.encode(), seq) for stream, seq in keys}
    records = reader.execute("SELECT stream, seq FROM record").fetchall()
    entries = reader.execute("SELECT stream, seq, state FROM outbox").fetchall()
    wrong = sum((stream, seq) not in known for stream, seq in records)
    return wrong + sum((stream, seq) not in known or state not in (0, 1, 2) for stream, seq, state in entries)


def _payloads(store: Store) -> dict[Key, Any]:
    return {record.key: record.payload for record in store.pending(EVERYTHING)}


def _count(truth: dict[Key, str], kept: dict[Key, Any], n_samples: int, run: Run) -> None:
    """What survived, what is gone, what is there and not as it was written."""
    survived = {key for key, payload in truth.items() if kept.get(key) == payload}
    wrong = {key for key in truth if key in kept} - survived
    run.alerts_kept = sum(key[0] == "alarm" for key in survived)
    run.alerts_lost = sum(key[0] == "alarm" for key in truth if key not in kept)
    run.samples_lost = max(0, run.samples_committed - n_samples)
    run.extra["records"] = len(truth)
    run.extra["records_survived"] = len(survived)
    run.extra["records_lost"] = sum(key not in kept for key in truth)
    run.extra["records_wrong"] = len(wrong)
    run.extra["files_read_whole"] = int(len(survived) == len(truth))
