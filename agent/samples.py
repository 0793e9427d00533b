"""Samples in the buffer: one hot row a poll, folded every ten minutes into a compressed chunk for each sensor.

A hot row costs one page of flash a second and loses nothing with the process; a chunk takes a fiftieth of what rows of numbers
with an index would. Rows are deleted all together: whole pages become free, which costs next to nothing, where the rows of one
sensor alone would dirty every page that they share with the others'.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from agent.clock import SET_SINCE_UTC_NS
from firmware_bridge.chunks import MAX_VALUES, Series, decode_chunk, encode_chunk
from firmware_bridge.measurement import Block

FOLD_EVERY_S = 600.0
MAX_HOT_ROWS = 20_000  # fast polls are folded sooner
MAX_CHANNEL_SETS = 4096
NS_PER_US = 1000
LAST_ID = (1 << 63) - 1
STREAM = "sample"

_INSERT = "INSERT INTO sample (utc_ns, monotonic_ns, boot, channel_set, value, quality) VALUES (?, ?, ?, ?, ?, ?)"
_ROWS = (
    "SELECT utc_ns, monotonic_ns, value, quality, id FROM sample"
    " WHERE channel_set = ? AND boot = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?"
)
Row = tuple[int, int, bytes, bytes | None, int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one sensor said in a while, as it is kept: `utc_ns` of its last poll."""

    sensor: str
    utc_ns: int
    blob: bytes


@dataclass(slots=True)
class Fold:
    """Polls up to `last_id` on their way into chunks: series that are still to be encoded, and what was made of the others."""

    last_id: int
    waiting: list[tuple[int, int, int]]  # channel set, boot, the last row of it that is in a chunk
    chunks: list[Chunk] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # why some became none


class SampleLog:
    """The hot rows of one open database. The caller owns the connection and its transactions.

    Args: channels: names of the channel table, "sensor.point".
    """

    def __init__(self, database: sqlite3.Connection, channels: Sequence[str], boot: int) -> None:
        self._db = database
        self._channels = tuple(channels)
        self._boot = boot
        self._ids: dict[str, int] = {}
        self._ids_by_bytes: dict[bytes, int] = {}
        self._fold: Fold | None = None
        self.forget()
        self._due_s = 0.0 if self.n_hot else math.nan  # what an earlier life left is folded at once

    def forget(self) -> None:
        """After a rollback: ids given in it do not exist."""
        self._ids_by_bytes.clear()
        self._ids = dict(self._db.execute("SELECT names, id FROM channel_set").fetchall())

    @property
    def n_hot(self) -> int:
        """Rows that are not folded yet; they go from the oldest end only, so their ids have no hole."""
        first, last = self._db.execute("SELECT MIN(id), MAX(id) FROM sample").fetchone()
        return 0 if first is None else int(last - first + 1)

    def insert(self, blocks: Sequence[Block]) -> None:
        """Within the caller's transaction."""
        if not blocks:
            return
        rows = [
            (
                block.utc_ns,
                block.monotonic_ns,
                self._boot,
                self._channel_set(block),
                block.values.tobytes(),
                _unless_good(block.quality.tobytes()),
            )
            for block in blocks
        ]
        self._db.executemany(_INSERT, rows)

    def encode_next(self, now_s: float) -> Fold | None:
        """One step of folding, some milliseconds: at most one series becomes a chunk. Call about once a second.

        Returns: the chunks once all are made; the caller then keeps them and calls `folded` in one transaction. None before.
            A series that the disk has damaged becomes none: it may not stop the others, at this start and at every later one.
        """
        if math.isnan(self._due_s):
            self._due_s = now_s + FOLD_EVERY_S
        if self._fold is None:
            n_hot = self.n_hot
            if not n_hot or (now_s < self._due_s and n_hot < MAX_HOT_ROWS):
                return None
            self._due_s = now_s + FOLD_EVERY_S
            self._fold = self._begun()
        fold = self._fold
        if fold.waiting:
            channel_set = fold.waiting[-1][0]
            try:
                fold.chunks.append(self._next_chunk(fold))
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                fold.damaged.append(f"polls of channel set {channel_set} damaged ({error})")
        return None if fold.waiting else fold

    def folded(self) -> None:
        """The chunks are kept: their rows go. Within the caller's transaction."""
        assert self._fold is not None
        self._db.execute("DELETE FROM sample WHERE id <= ?", (self._fold.last_id,))
        self._fold = None

    def give_up_fold(self) -> None:
        """Rows were dropped meanwhile, or it was not kept: it begins again with the next step."""
        self._fold, self._due_s = None, 0.0

    def _begun(self) -> Fold:
        last_id = int(self._db.execute("SELECT MAX(id) FROM sample").fetchone()[0])
        sets = self._db.execute("SELECT DISTINCT channel_set, boot, 0 FROM sample WHERE id <= ?", (last_id,)).fetchall()
        return Fold(last_id, sets)

    def _next_chunk(self, fold: Fold) -> Chunk:
        """Of the first series that waits. One that is too long for a chunk, or whose clock was set meanwhile, goes on waiting."""
        channel_set, boot, after_id = fold.waiting.pop()
        query = "SELECT names FROM channel_set WHERE id = ?"
        names = json.loads(self._db.execute(query, (channel_set,)).fetchone()[0])
        most = MAX_VALUES // max(1, len(names))
        rows: list[Row] = self._db.execute(_ROWS, (channel_set, boot, after_id, fold.last_id, most + 1)).fetchall()
        was_set = rows[0][0] >= SET_SINCE_UTC_NS
        end = next((at for at, row in enumerate(rows) if (row[0] >= SET_SINCE_UTC_NS) is not was_set), most)
        if end < len(rows):
            del rows[end:]
            fold.waiting.append((channel_set, boot, rows[-1][4]))
        series = series_of(names, rows)
        return Chunk(series.sensor, rows[-1][0], encode_chunk([series], boot=boot, clock_set=was_set))

    def _channel_set(self, block: Block) -> int:
        """The id of this combination of channels; its row names them, so that a sample can be read with any tool."""
        raw = block.channels.tobytes()
        if (known := self._ids_by_bytes.get(raw)) is not None:
            return known
        names = json.dumps(
            [self._channels[i] if i < len(self._channels) else f"channel-{i}" for i in block.channels.tolist()]
        )
        if names not in self._ids:
            cursor = self._db.execute("INSERT INTO channel_set (names) VALUES (?)", (names,))
            assert cursor.lastrowid is not None
            self._ids[names] = cursor.lastrowid
        if len(self._ids_by_bytes) >= MAX_CHANNEL_SETS:
            self._ids_by_bytes.clear()
        self._ids_by_bytes[raw] = self._ids[names]
        return self._ids[names]


def series_of(names: Sequence[str], rows: Sequence[Row]) -> Series:
    """Hot rows of one combination of channels."""
    sensor = names[0].rpartition(".")[0] if names else ""
    n = len(names)
    good = bytes(n)
    return Series(
        sensor=sensor,
        points=tuple(name.removeprefix(f"{sensor}.") for name in names),
        utc_us=np.array([row[0] // NS_PER_US for row in rows], np.int64),
        monotonic_us=np.array([row[1] // NS_PER_US for row in rows], np.int64),
        values=np.frombuffer(b"".join(row[2] for row in rows), np.float32).reshape(-1, n),
        quality=np.frombuffer(b"".join(row[3] or good for row in rows), np.uint8).reshape(-1, n),
    )


def read_samples(database: sqlite3.Connection) -> Iterator[Series]:
    """Every sample that the buffer holds, oldest first for each sensor: chunks, then the rows that are not folded yet."""
    for (payload,) in database.execute("SELECT payload FROM record WHERE stream = ? ORDER BY id", (STREAM,)):
        yield from decode_chunk(msgspec.msgpack.decode(payload)["chunk"]).series
    names = dict(database.execute("SELECT id, names FROM channel_set"))
    for channel_set, boot in database.execute("SELECT DISTINCT channel_set, boot FROM sample").fetchall():
        rows = database.execute(_ROWS, (channel_set, boot, 0, LAST_ID, -1)).fetchall()
        yield series_of(json.loads(names[channel_set]), rows)


def _unless_good(quality: bytes) -> bytes | None:
    """Nothing where every value is GOOD (0): most rows, and the cheapest way to see it."""
    return quality if quality.strip(b"\0") else None
