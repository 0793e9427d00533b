"""What a store owes: every acknowledgement of every life, held against what is there after a fault.

Set algebra, no sampling: each record carries an id of its own, so a number that was given twice, a record that is gone and one
that came back after it was confirmed are three different findings.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from store_writer import CHANNELS, GATEWAY, MAX_BLOCKS

from agent.store import Key, Store

OPEN_WITHIN_S = 5.0
DURABLE_WITHIN_S = 10.0  # bulk that is older survives a power cut
LEFT_UNCONFIRMED = 300  # of each stream; the rest leaves the outbox, and must not come back
EVERYTHING = 10**9


@dataclass
class Run:
    """One fault and what it cost. `problems`: promises that were not kept, in words; none is the only pass.

    Attributes:
        alerts_doubled: numbers of urgent records given twice, and confirmed ones that came back.
        samples_lost: beyond what is declared. extra: figures of this kind; those ending in _s or _bytes are maxima.
    """

    kind: str
    seed: int
    how: str
    faults: int = 1
    alerts_committed: int = 0
    alerts_kept: int = 0
    alerts_lost: int = 0
    alerts_doubled: int = 0
    samples_committed: int = 0
    samples_lost: int = 0
    recovery_s: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """As JSON on one line."""
        return json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(self).items()})


def total(runs: Iterable[Run]) -> dict[str, Any]:
    """Sums over runs of one kind; times and sizes are the worst."""
    summed: dict[str, Any] = {}
    for run in runs:
        row = asdict(run)
        row |= row.pop("extra")
        for name, value in row.items():
            if name in ("kind", "how"):
                continue
            if name == "seed":
                summed.setdefault("first_seed", value)
            elif name == "problems":
                summed["problems"] = summed.get("problems", 0) + len(value)
            elif name.endswith(("_s", "_bytes")):
                summed[name] = max(summed.get(name, 0), round(value, 3))
            else:
                summed[name] = summed.get(name, 0) + value
    return summed


class Opened:
    """A store opened as the agent would, and how long that took."""

    def __init__(self, path: Path) -> None:
        began_s = time.perf_counter()
        self.store = Store.open(path, gateway=GATEWAY, channels=CHANNELS)
        self.took_s = time.perf_counter() - began_s

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()


def integrity(path: Path) -> str:
    """SQLite's own full check of the file: "ok", or the first thing it says."""
    with closing(sqlite3.connect(path)) as reader:
        return str(reader.execute("PRAGMA integrity_check(1)").fetchone()[0])


def acknowledged(path: Path) -> list[dict[str, Any]]:
    """The complete lines of one life, in order."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _keys(said: list[dict[str, Any]], did: str) -> set[Key]:
    """Of all ranges that were confirmed, or were about to be."""
    ranges = [words for words in said if words["did"] == did]
    return {(words["stream"], seq) for words in ranges for seq in range(words["first"], words["last"] + 1)}


class Ledger:
    """All lives of one file.

    Args: power: the fault takes what the disk had not yet made durable; else only the process dies, and nothing may be lost.
        Bulk that a cut took gives its numbers back, so there they are counted and are no broken promise.
    """

    def __init__(self, power: bool) -> None:
        self._power = power
        self._ids: dict[Key, str] = {}  # every number ever told or seen, and whose it is
        self._owed: set[Key] = set()
        self._confirmed: set[Key] = set()
        self._samples = 0

    def look(self, path: Path, said: list[dict[str, Any]], run: Run) -> None:
        """Open the file after a fault, count what is there, and write into `run` what is not."""
        writes = [words for words in said if words["did"] == "write"]
        bound = self._durable_writes(said)
        confirmed = _keys(said, "confirm")
        self._confirmed |= confirmed
        with Opened(path) as opened:
            run.recovery_s = opened.took_s
            stored = opened.store.pending(EVERYTHING)
            kept = {record.key: record.body()["id"] for record in stored}
            confirmed |= _keys(said, "confirming") - set(kept)
            self._records(writes, bound, kept, confirmed, run)
            run.alerts_doubled += len(stored) - len(kept)
            n_samples = opened.store.stats()["polls"]
            self._count_samples(writes, bound, n_samples - self._samples, run)
            self._samples = n_samples
            self._confirm(opened.store, kept)
        if run.recovery_s > OPEN_WITHIN_S:
            run.problems.append(f"opened in {run.recovery_s:.1f} s")
        if (found := integrity(path)) != "ok":
            run.problems.append(f"integrity_check: {found}")
        if run.alerts_lost:
            run.problems.append(f"{run.alerts_lost} acknowledged urgent records lost")
        if run.alerts_doubled:
            run.problems.append(f"{run.alerts_doubled} urgent numbers given twice, or confirmed records came back")
        if run.samples_lost:
            run.problems.append(f"{run.samples_lost} samples lost that had to be durable")
        if run.extra.get("bulk_records_lost"):
            run.problems.append(f"{run.extra['bulk_records_lost']} bulk records lost that had to be durable")
        if run.extra.get("bulk_numbers_reused") and not self._power:
            run.problems.append(f"{run.extra['bulk_numbers_reused']} numbers of bulk records given twice")

    def _durable_writes(self, said: list[dict[str, Any]]) -> int:
        """How many of the writes, from the first, have to be there.

        All after a kill. After a power cut: all up to the last urgent one or the last confirmation, and all that began 10 s
        before a later call did.
        """
        last_s = max((words["began_s"] for words in said if "began_s" in words), default=0.0)
        n_writes, durable = 0, 0
        for words in said:
            n_writes += words["did"] == "write"
            synced = words["did"] == "confirm" or (words["did"] == "write" and words["urgent"])
            old = words["did"] == "write" and words["began_s"] <= last_s - DURABLE_WITHIN_S
            if synced or old or not self._power:
                durable = n_writes
        return durable

    def _records(
        self, writes: list[dict[str, Any]], bound: int, kept: dict[Key, str], confirmed: set[Key], run: Run
    ) -> None:
        told = [
            ((stream, seq), name, number < bound)
            for number, words in enumerate(writes)
            for stream, seq, name in words["records"]
        ]
        spread = [(key, name) for key, name, _ in told] + list(kept.items())
        reused = {key for key, name in spread if self._ids.setdefault(key, name) != name}
        self._ids |= dict(spread)
        bulk_lost, bulk_undurable = 0, 0
        for key, name, must in told:
            run.alerts_committed += key[0] == "alarm"
            if key in confirmed:
                continue
            if kept.get(key) == name:
                self._owed.add(key)
            elif key[0] == "alarm":
                run.alerts_lost += 1
            elif must:
                bulk_lost += 1
            else:
                bulk_undurable += 1
        gone = {key for key in self._owed if key not in kept}
        self._owed = (self._owed - gone) | set(kept)
        run.alerts_lost += sum(key[0] == "alarm" for key in gone)
        bulk_lost += sum(key[0] != "alarm" for key in gone)
        delivered = {key: name for key, name, _ in told if key in confirmed}
        run.alerts_kept = sum((delivered | kept).get(key) == name for key, name, _ in told if key[0] == "alarm")
        returned = self._confirmed & set(kept)
        run.alerts_doubled += sum(key[0] == "alarm" for key in reused | returned)
        run.extra["bulk_numbers_reused"] = sum(key[0] != "alarm" for key in reused | returned)
        run.extra["bulk_records_lost"] = bulk_lost
        if self._power:
            run.extra["bulk_records_lost_declared"] = bulk_undurable

    def _count_samples(self, writes: list[dict[str, Any]], bound: int, kept: int, run: Run) -> None:
        counts = [words["samples"] for words in writes]
        run.samples_committed = sum(counts)
        run.samples_lost = max(0, sum(counts[:bound]) - kept)
        lost = max(0, sum(counts) - kept)
        if kept > sum(counts) + MAX_BLOCKS:
            run.problems.append(f"{kept - sum(counts)} samples more than were written")
        if self._power:
            run.extra["samples_lost_declared"] = lost - run.samples_lost
            first = next((number for number in range(len(counts)) if sum(counts[: number + 1]) > kept), None)
            run.extra["oldest_lost_s"] = writes[-1]["began_s"] - writes[first]["began_s"] if first is not None else 0.0

    def _confirm(self, store: Store, kept: dict[Key, str]) -> None:
        """What was seen is delivered, all but the newest; it must never come back."""
        for stream in {stream for stream, _ in kept}:
            numbers = sorted(seq for name, seq in kept if name == stream)[:-LEFT_UNCONFIRMED]
            if numbers:
                store.mark_confirmed(stream, [(numbers[0], numbers[-1])])
                keys = {(stream, seq) for seq in numbers}
                self._confirmed |= keys
                self._owed -= keys


def cycles(make: Callable[[int], Run], seed: int, n: int, within_s: float) -> Iterator[Run]:
    """Runs with the seeds `seed`, `seed + 1`, ...: `n` of them, or as many as begin within the time."""
    began_s = time.monotonic()
    for number in range(n):
        if time.monotonic() - began_s > within_s:
            return
        yield make(seed + number)
