"""The disk fills while alarms are written, and is freed: nothing acknowledged or waiting is lost, and nobody restarts anything.

Two ways a disk is full, in turns: a small tmpfs and a filler file ("database or disk is full"), and RLIMIT_FSIZE ("disk I/O
error"). Where tmpfs may not be mounted, all turns take the second way, and that is said.
"""

from __future__ import annotations

import contextlib
import logging
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import power
from ledger import EVERYTHING, OPEN_WITHIN_S, Opened, Run, cycles, integrity
from store_writer import CHANNELS, GATEWAY, alarm, block, feature

from agent.errors import StoreError
from agent.store import Store
from agent.vocabulary import Record
from firmware_bridge.measurement import Block

DISK_BYTES = 8 << 20
BUDGET_BYTES = 3 << 19  # reached by every run
FILLS = 3  # of one store, one after another
RECOVERY_WITHIN_S = 10.0
BATCHES_BEFORE, BATCHES_WHILE_FULL = 150, 60
BLOCKS = 20  # in one batch
FILLER_STEP_BYTES = 64 << 10

Batch = list[Record | Block]


def fills(folder: Path, seed: int, n: int, within_s: float = float("inf")) -> Iterator[Run]:
    """`n` times full and freed; each run is a new store whose disk is filled and freed three times."""
    small = folder / "small"
    small.mkdir(exist_ok=True)
    with contextlib.ExitStack() as down:
        mounts = True
        try:
            power.sh("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", small)
            down.callback(power.sh, "umount", small)
        except (RuntimeError, OSError) as error:
            mounts = False
            print(f"NO tmpfs: disks are full by RLIMIT_FSIZE only ({error})", file=sys.stderr, flush=True)
        log = logging.getLogger("agent.store")
        down.callback(setattr, log, "disabled", log.disabled)
        log.disabled = True  # it says so each time, as it should

        def one(seed: int) -> Run:
            if mounts and seed % 2 == 0:
                return _run(seed, "tmpfs and a filler file", small, lambda path: _filled(small / "filler"))
            return _run(seed, "RLIMIT_FSIZE", folder, _limited)

        yield from cycles(one, seed, -(-n // FILLS), within_s)


@contextlib.contextmanager
def _filled(filler: Path) -> Iterator[None]:
    """Not one byte is free."""
    step_bytes = FILLER_STEP_BYTES
    with filler.open("ab", buffering=0) as file:
        while step_bytes:
            try:
                if file.write(b"\1" * step_bytes) < step_bytes:
                    step_bytes //= 2
            except OSError:
                step_bytes //= 2
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def _limited(path: Path) -> Iterator[None]:
    """No file grows beyond what the database has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class _Client:
    """Whoever writes: a batch that was refused waits, and is offered again before anything newer."""

    def __init__(self, store: Store, run: Run) -> None:
        self._store, self._run = store, run
        self.waiting: list[Batch] = []
        self.owed: dict[tuple[str, int], str] = {}
        self.refused = 0

    def offer(self, batch: Batch) -> None:
        self.waiting.append(batch)
        with contextlib.suppress(StoreError):
            self.drain()

    def drain(self) -> None:
        """Raises: StoreError: the disk is still full."""
        while self.waiting:
            try:
                kept = self._store.write(self.waiting[0])
            except StoreError:
                self.refused += 1
                raise
            for record in kept:
                if record.key in self.owed:
                    self._run.alerts_doubled += 1
                self.owed[record.key] = record.body()["id"]
            self._run.samples_committed += sum(isinstance(item, Block) for item in self.waiting[0])
            del self.waiting[0]
            used_bytes = self._store.used_bytes()
            self._run.extra["used_most_bytes"] = max(self._run.extra.get("used_most_bytes", 0), used_bytes)


def _run(seed: int, how: str, folder: Path, full: Callable[[Path], contextlib.AbstractContextManager[None]]) -> Run:
    run, rng = Run("full", seed, how, faults=FILLS), random.Random(seed)
    path = folder / f"full-{seed}.sqlite"
    store = Store.open(path, gateway=GATEWAY, channels=CHANNELS, max_bytes=BUDGET_BYTES)
    client, names = _Client(store, run), (f"{seed}.{number}" for number in range(EVERYTHING))

    def batch() -> Batch:
        items: Batch = [block(rng) for _ in range(BLOCKS)]
        return [*items, feature(f"{next(names)}.f", rng), alarm(f"{next(names)}.a", rng)]

    try:
        for _ in range(FILLS):
            for _ in range(BATCHES_BEFORE):
                client.offer(batch())
            if client.waiting:
                run.problems.append("refused with space on the disk")
            with full(path):
                for _ in range(BATCHES_WHILE_FULL):
                    client.offer(batch())
            freed_s = time.perf_counter()
            _recover(client, freed_s, run)
    finally:
        store.close()
    with Opened(path) as opened:
        run.extra["opened_s"] = opened.took_s
        kept = {record.key: record.body()["id"] for record in opened.store.pending(EVERYTHING)}
        owed = {key: name for key, name in client.owed.items() if key[0] == "alarm"}
        run.alerts_committed = len(owed)
        run.alerts_kept = sum(kept.get(key) == name for key, name in owed.items())
        run.alerts_lost = len(owed) - run.alerts_kept
        stats = opened.store.stats()
        run.extra["samples_dropped_declared"] = run.samples_committed - stats["polls"]
        gone = run.samples_committed - stats["polls"] + len(client.owed) - len(kept)
        run.samples_lost = abs(gone - stats["gaps"])
        if opened.took_s > OPEN_WITHIN_S:
            run.problems.append(f"opened in {opened.took_s:.1f} s")
    run.extra["refusals"] = client.refused
    if (found := integrity(path)) != "ok":
        run.problems.append(f"integrity_check: {found}")
    numbers = sorted(seq for _, seq in owed)
    if numbers != list(range(1, len(numbers) + 1)):
        run.problems.append("a refused batch took numbers: the collector would wait for them")
    if run.alerts_lost or run.alerts_doubled:
        run.problems.append(f"{run.alerts_lost} alarms lost, {run.alerts_doubled} numbers given twice")
    if run.samples_lost:
        run.problems.append(f"{gone} rows gone, gaps say {stats['gaps']}")
    if run.extra["used_most_bytes"] > BUDGET_BYTES:
        run.problems.append(f"{run.extra['used_most_bytes']} bytes used of {BUDGET_BYTES}")
    for left in folder.glob(f"{path.name}*"):
        left.unlink()
    return run


def _recover(client: _Client, freed_s: float, run: Run) -> None:
    """The same batches again, without a restart, until all are taken or the time is up."""
    while client.waiting and time.perf_counter() - freed_s < RECOVERY_WITHIN_S:
        with contextlib.suppress(StoreError):
            client.drain()
    run.recovery_s = max(run.recovery_s, time.perf_counter() - freed_s)
    if client.waiting:
        run.problems.append(
            f"{len(client.waiting)} batches still refused {RECOVERY_WITHIN_S:.0f} s after the disk was freed"
        )
        client.waiting.clear()
