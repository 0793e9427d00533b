"""How fast tags get into the buffer, beside the barest thing that could be done with the same rows."""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from agent.store import PAGE_BYTES, WAL_LIMIT_BYTES, WAL_PAGES, Store
from firmware_bridge.measurement import Block

N_TAGS = 20
BATCH = 200  # blocks a commit: ten machines' polls of a second and then some


def store_benchmark(seconds: float) -> dict[str, float]:
    """Write blocks of 20 tags through `Store.write`, and the same packed rows with bare `executemany`, in turns.

    Returns: tags_per_s of the store, and its rate over that of bare executemany (same pragmas, same rows, same commits).
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(
            Path(folder) / "store.sqlite", gateway="bench", channels=[f"bench.tag_{i}" for i in range(N_TAGS)]
        )
        bare = _bare(Path(folder) / "bare.sqlite")
        blocks = _blocks()
        rows = [(block.utc_ns, 1, block.values.tobytes(), None) for block in blocks]
        n_rounds = 10
        ours, theirs = [], []
        for _ in range(n_rounds):  # in turns, so that a noisy neighbour meets both
            ours.append(_rate(lambda: store.write(blocks), seconds / n_rounds / 2))
            theirs.append(_rate(lambda: _insert(bare, rows), seconds / n_rounds / 2))
        store.close()
        bare.close()
    ratio = float(np.median(np.array(ours) / np.array(theirs)))
    return {"tags_per_s": float(np.median(ours)) * N_TAGS, "sqlite_over_executemany": ratio}


def _rate(write: Callable[[], object], seconds: float) -> float:
    """Rows per second."""
    started = time.perf_counter()
    n_batches = 0
    while (elapsed := time.perf_counter() - started) < seconds or not n_batches:
        write()
        n_batches += 1
    return n_batches * BATCH / elapsed


def _blocks() -> list[Block]:
    rng = np.random.default_rng(1)
    channels, quality = np.arange(N_TAGS, dtype=np.int32), np.zeros(N_TAGS, np.uint8)
    return [Block(channels, rng.random(N_TAGS, np.float32), quality, i, i) for i in range(BATCH)]


def _bare(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in (
        f"page_size={PAGE_BYTES}",
        "journal_mode=WAL",
        f"wal_autocheckpoint={WAL_PAGES}",
        f"journal_size_limit={WAL_LIMIT_BYTES}",
        "synchronous=NORMAL",
    ):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(
        "CREATE TABLE sample (id INTEGER PRIMARY KEY, utc_ns INT, channel_set INT, value BLOB, quality BLOB)"
    )
    return connection


def _insert(connection: sqlite3.Connection, rows: list[tuple[int, int, bytes, None]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO sample (utc_ns, channel_set, value, quality) VALUES (?, ?, ?, ?)", rows)
    connection.execute("COMMIT")


if __name__ == "__main__":  # as every part of `hark bench`: ROOT SECONDS
    print(json.dumps(store_benchmark(float(sys.argv[2]))))
