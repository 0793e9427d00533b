"""Plays a recording as if it were live: the same rows give the same blocks, whatever the speed and whenever it runs.

A mapping in config/recordings says which column is which quantity, so a new data set is one file and no code.
"""

from __future__ import annotations

import csv
import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TextIO

import numpy as np
from msgspec import Meta

from firmware_bridge.checked import Table, load
from firmware_bridge.device import PointName
from firmware_bridge.errors import ConfigError, Problem, RecordingError
from firmware_bridge.measurement import F32, U8, Block, Channel, Measurement, Quality
from firmware_bridge.source import AnySpec, ReplaySpec, SourceContext
from firmware_bridge.units import suffix_of

START_MONOTONIC_NS = 1_000_000_000  # of the first row; the clock then runs as the recording's own


class RecordingColumn(Table, frozen=True):
    """One column of a recording: value = cell * scale + offset, in the unit of the point's name."""

    column: str
    point: PointName
    plausible: tuple[float, float]
    scale: float = 1.0
    offset: float = 0.0
    live: bool = False

    def __post_init__(self) -> None:
        """Raises: ValueError: a point without unit, or an empty range."""
        suffix_of(self.point)
        if not self.plausible[0] < self.plausible[1]:
            raise ValueError(f"plausible = {list(self.plausible)} is no range; write [lowest, highest]")


class Recording(Table, frozen=True):
    """How to read the files of one public or own data set; how they are watched is the site file's business.

    `ignore` names columns that must not be seen (the labels). Times in a file are dates as `time_format` says, local,
    `utc_offset_h` hours east of Greenwich; or numbers, such as an index, of which each is `time_unit_s` (from 1970 on, because a
    date is not known).
    """

    title: str
    licence: str
    time_column: str
    columns: Annotated[tuple[RecordingColumn, ...], Meta(min_length=1)]
    time_format: str = ""
    time_unit_s: Annotated[float, Meta(gt=0)] | None = None
    separator: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    utc_offset_h: Annotated[float, Meta(ge=-14, le=14)] = 0.0
    sample_interval_s: Annotated[float, Meta(gt=0)] = 1.0
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError: one point from two columns, or times that are both dates and numbers, or neither."""
        if bool(self.time_format) is (self.time_unit_s is not None):
            raise ValueError(
                'write either time_format, such as "%Y-%m-%d %H:%M:%S", or time_unit_s, the seconds that 1 in time_column is'
            )
        points = [column.point for column in self.columns]
        if twice := sorted({point for point in points if points.count(point) > 1}):
            raise ValueError(f"{twice[0]} is there twice; every point comes from one column")


def recordings_in(config_dir: Path) -> list[str]:
    """The names of the mappings; a name with a dot in it is another kind of file (a site that plays the recording)."""
    return sorted(path.stem for path in (config_dir / "recordings").glob("*.toml") if "." not in path.stem)


def load_recording(config_dir: Path, name: str) -> Recording:
    """The mapping in config/recordings/<name>.toml.

    Raises: ConfigError: unknown recording (the known ones are listed) or a wrong file.
    """
    folder = config_dir / "recordings"
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(recordings_in(config_dir)) or "no file at all"
        raise ConfigError(path, [Problem(0, f"recording {name!r}", f"not known; {folder} has {known}")])
    return load(path, Recording)


class ReplaySource:
    """One recording, one Block a row. `finished` turns True after the last one; from then on `read` only waits."""

    def __init__(self, spec: ReplaySpec, recording: Recording, context: SourceContext) -> None:
        self.name = spec.name
        self.counters = dict.fromkeys(("rows", "cells_absent", "steps_back"), 0)
        self.troubles: dict[str, str] = {}  # a recording's are errors, not states
        self.finished = False
        self.recording = recording
        self.channels = _channels(spec, recording)
        self._path = Path(spec.path)
        self._speed = spec.speed
        first = context.first_channel
        self._places = np.arange(first, first + len(self.channels), dtype=np.int32)
        self._closed = threading.Event()
        self._file = _opened(self._path)
        self._blocks = self._rows()
        self._next: Block | None = None
        self._started: tuple[float, int] | None = None
        self._peek()

    def read(self, timeout_s: float) -> Iterator[Measurement]:
        """The rows that fall due within `timeout_s` of real time.

        Raises: RecordingError: a row that does not hold what the mapping says; names file, line and column.
        """
        end_s = time.monotonic() + timeout_s
        while not self._closed.is_set() and (block := self._peek()) is not None:
            due_s = self._due_s(block)
            self._closed.wait(max(min(due_s, end_s) - time.monotonic(), 0.0))
            if due_s <= time.monotonic():
                self._next = None
                yield block
            if time.monotonic() >= end_s:
                return
        self._closed.wait(max(end_s - time.monotonic(), 0.0))

    def close(self) -> None:
        """Stop waiting and let go of the file."""
        self._closed.set()
        self._file.close()

    def _due_s(self, block: Block) -> float:
        if self._speed == 0:
            return 0.0
        if self._started is None:
            self._started = (time.monotonic(), block.monotonic_ns)
        return self._started[0] + (block.monotonic_ns - self._started[1]) / 1e9 / self._speed

    def _peek(self) -> Block | None:
        """The row whose turn it is; None after the last one."""
        if self._next is None and not self.finished:
            try:
                self._next = next(self._blocks, None)
            except (csv.Error, UnicodeDecodeError) as error:
                self.finished = True
                raise RecordingError(f"{self._path}: is not a text file with columns ({error})") from None
            self.finished = self._next is None
        return self._next

    def _rows(self) -> Iterator[Block]:
        """Every row as a Block; the monotonic clock follows the recording and never goes back."""
        rows = csv.reader(self._file, delimiter=self.recording.separator)
        header = self._header(next(rows, []))
        when = header.index(self.recording.time_column)
        where = [header.index(column.column) for column in self.recording.columns]
        previous_ns: int | None = None
        monotonic_ns = START_MONOTONIC_NS
        for line, row in enumerate(rows, 2):
            if not row:
                continue
            if len(row) != len(header):
                raise RecordingError(f"{self._path}, line {line}: {len(row)} cells under {len(header)} columns")
            utc_ns = self._utc_ns(row[when], line)
            if previous_ns is not None:
                monotonic_ns += max(utc_ns - previous_ns, 0)
                self.counters["steps_back"] += utc_ns < previous_ns
            previous_ns = utc_ns
            self.counters["rows"] += 1
            values, quality = self._values([row[i] for i in where], line)
            yield Block(self._places, values, quality, utc_ns, monotonic_ns)

    def _header(self, header: list[str]) -> list[str]:
        """The column names, all of them known."""
        wanted = [self.recording.time_column, *(column.column for column in self.recording.columns)]
        for column in wanted:
            if column not in header:
                raise RecordingError(
                    f"{self._path}, line 1: no column {column!r}; it has {', '.join(header) or 'nothing'}"
                )
        if odd := [column for column in header if column not in (*wanted, *self.recording.ignore)]:
            raise RecordingError(
                f"{self._path}, line 1: column {odd[0]!r} is not in the mapping; add it to columns or ignore"
            )
        return header

    def _utc_ns(self, cell: str, line: int) -> int:
        unit_s = self.recording.time_unit_s
        if unit_s is not None:
            return round(self._number(cell, self.recording.time_column, line) * unit_s * 1e9)
        try:
            local = datetime.strptime(cell, self.recording.time_format).replace(tzinfo=UTC)
        except ValueError:
            where = f"{self._path}, line {line}, column {self.recording.time_column!r}"
            raise RecordingError(f"{where}: {cell!r} is not a time like {self.recording.time_format}") from None
        since = local - datetime(1970, 1, 1, tzinfo=UTC)
        whole_ns = (since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
        return whole_ns - round(self.recording.utc_offset_h * 3600e9)

    def _number(self, cell: str, column: str, line: int) -> float:
        try:
            return float(cell)
        except ValueError:
            where = f"{self._path}, line {line}, column {column!r}"
            raise RecordingError(f"{where}: {cell[:40]!r} is not a number") from None

    def _values(self, cells: list[str], line: int) -> tuple[F32, U8]:
        values = np.full(len(cells), np.nan, np.float32)
        quality = np.zeros(len(cells), np.uint8)
        for i, (cell, column) in enumerate(zip(cells, self.recording.columns, strict=True)):
            value = math.nan
            if cell.strip():
                value = self._number(cell, column.column, line) * column.scale + column.offset
            if not math.isfinite(value):
                quality[i] = Quality.BAD_SENTINEL
                self.counters["cells_absent"] += 1
            elif not column.plausible[0] <= value <= column.plausible[1]:
                quality[i] = Quality.BAD_RANGE
            else:
                values[i] = value
        return values, quality


def _opened(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def _channels(spec: ReplaySpec, recording: Recording) -> tuple[Channel, ...]:
    return tuple(
        Channel(spec.sensor, column.point, recording.sample_interval_s, column.live) for column in recording.columns
    )


def channels_of(spec: AnySpec, config_dir: Path) -> tuple[Channel, ...]:
    """One channel for each mapped column.

    Raises: ConfigError: a mapping that is missing or wrong.
    """
    assert isinstance(spec, ReplaySpec)
    return _channels(spec, load_recording(config_dir, spec.recording))


def open(spec: AnySpec, context: SourceContext) -> ReplaySource:
    """The source, standing before its first row.

    Raises: ConfigError: a mapping that is missing or wrong. RecordingError: no such file, or not these columns.
    """
    assert isinstance(spec, ReplaySpec)
    return ReplaySource(spec, load_recording(context.config_dir, spec.recording), context)
