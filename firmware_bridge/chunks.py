"""Pure codec of sample chunks: a minute to ten of polls as one small, checksummed blob. The layout is PROTOCOL.md's; no I/O.

A blob is written once, by the gateway's store, goes upstream as it is and is read by the collector. It says itself whose
samples it holds. Values and quality come back bit for bit, times to the microsecond: a bus does not know its own better.

Every column of one series (times, values, quality) becomes whole numbers and is packed in the same way: a base, then what each
poll adds to it or to its forerunner, in the fewest bytes that hold the largest. The bytes of one rank stand together, noisy ones
last, and one zlib stream goes over all. A value that is a decimal step (registers are) is its number of steps, any other its bits.

Measured on five sensors of 20 points at 1 Hz, 70 registers of 0.1 and 30 noisy floats, with times and names: 1.1 to 1.3 bytes a
sample over 600 s, 1.2 to 1.5 over 60 s. A sensor of one point pays for its times alone, some two bytes a poll of jitter.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import FrameError
from firmware_bridge.measurement import F32, I32, U8, Quality

I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
Words = NDArray[np.uint32] | NDArray[np.uint64]

MAGIC = b"HRKS"
VERSION = 1
FLAG_CLOCK_SET = 1
HEADER = struct.Struct("<4sBBHQqqII")  # magic, version, flags, series, boot, first and last utc_us, values, body bytes
CRC = struct.Struct("<I")
N_POINTS = struct.Struct("<H")
POLLS = struct.Struct("<Iq")  # polls, utc_us of the first
MAX_VALUES = 262_144  # 436 tags at 1 Hz for 600 s; a gateway that has more folds earlier
MAX_SERIES = 1024
MAX_POINTS = 4096  # of all series together
MAX_NAME_BYTES = 255
MAX_BYTES = 7 << 20  # what these counts need if nothing compresses, packed or not; a record of upstream.py holds it

LEVEL = 6  # 9 is 1 % smaller and takes ten times as long
RAW = 7  # exponent of a column whose words are the bits of its float32
POWERS = np.array([10.0**exponent for exponent in range(RAW)])
MAX_STEPS = 1 << 23  # from about there a float32 lies as coarse as the step, and any number looks like a multiple
NAN = 0x7FC00000
EXPONENT, DELTA, HOLES = 0x07, 0x08, 0x10  # the bits of a column's kind


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The polls of one sensor that told the same points in the same order.

    Attributes:
        sensor, points: names as in the site file, each 1 to 255 bytes of UTF-8; no point twice.
        utc_us, monotonic_us: shape (n,), int64, n of 1 or more; in the order of the polls, which a clock's step may break.
        values: shape (n, n_points), float32.
        quality: shape (n, n_points), uint8, one `Quality` each.
    """

    sensor: str
    points: tuple[str, ...]
    utc_us: I64
    monotonic_us: I64
    values: F32
    quality: U8


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """What a blob holds: samples of one boot, under a clock that was set or was not."""

    boot: int
    clock_set: bool
    series: tuple[Series, ...]


class Span(NamedTuple):
    """From the earliest to the latest wall time of a chunk's polls, both included, and how many values it holds."""

    first_utc_us: int
    last_utc_us: int
    n_values: int


class _Header(NamedTuple):
    """The fields of HEADER."""

    magic: bytes
    version: int
    flags: int
    n_series: int
    boot: int
    first_utc_us: int
    last_utc_us: int
    n_values: int
    n_body_bytes: int


class _Table(NamedTuple):
    """Packed columns of one length: kinds, widths (m,); bases (m,) int64; octets (m, n, itemsize), lowest rank first."""

    kinds: U8
    widths: U8
    bases: I64
    octets: U8


class _Shape(NamedTuple):
    """What a body says of one series before its columns."""

    sensor: str
    points: tuple[str, ...]
    n_polls: int
    start_utc_us: int


def encode_chunk(series: Sequence[Series], *, boot: int, clock_set: bool) -> bytes:
    """Polls as one blob.

    Args:
        boot: number of the gateway's boot, 0 to 2**64 - 1; `monotonic_us` counts within it.
        clock_set: whether the wall clock could be right when the samples were taken.
    Raises: ValueError: nothing in it, shapes or types that do not fit together, or more than the limits of PROTOCOL.md.
    """
    if not 0 <= boot < 1 << 64:
        raise ValueError(f"boot = {boot}; it is 0 to 2**64 - 1")
    for one in series:
        _check(one)
    n_values = sum(one.values.size for one in series)
    n_points = sum(len(one.points) for one in series)
    if not (0 < len(series) <= MAX_SERIES and n_points <= MAX_POINTS and n_values <= MAX_VALUES):
        raise ValueError(
            f"{len(series)} series of {n_points} points with {n_values} values; a chunk has 1 to {MAX_SERIES}, up to "
            f"{MAX_POINTS} and up to {MAX_VALUES}: fold a shorter period"
        )
    tables = [table for one in series for table in (_pack_times(one), _pack_points(one))]
    body = b"".join(
        [
            *map(_encode_shape, series),
            *(table.kinds.tobytes() for table in tables),
            *(table.widths.tobytes() for table in tables),
            *(table.bases.astype("<i8", copy=False).tobytes() for table in tables),
            *(tables[i].octets[rows, :, rank].tobytes() for i, rows, rank in _layout([t.widths for t in tables])),
        ]
    )
    flags = FLAG_CLOCK_SET * clock_set
    head = HEADER.pack(MAGIC, VERSION, flags, len(series), boot, *_ends(series), n_values, len(body))
    blob = head + zlib.compress(body, LEVEL)
    return blob + CRC.pack(zlib.crc32(blob))


def chunk_span(blob: bytes) -> Span:
    """When a blob's samples were taken and how many there are, from its first HEADER.size bytes: more need not be there.

    Raises: FrameError: it does not begin as a sample chunk.
    """
    head = _header(blob)
    return Span(head.first_utc_us, head.last_utc_us, head.n_values)


def decode_chunk(blob: bytes) -> Chunk:
    """The inverse of `encode_chunk`. Whatever the bytes, no more memory is taken than a chunk at the limits needs.

    Raises: FrameError: damaged, cut off, of another version, beyond the limits, or contradicting itself.
    """
    head = _header(blob)
    if CRC.unpack_from(blob, len(blob) - CRC.size)[0] != zlib.crc32(memoryview(blob)[: -CRC.size]):
        raise FrameError("sample chunk has a wrong CRC-32; it was damaged or cut off")
    body = _inflate(blob, head.n_body_bytes)
    shapes, at = _decode_shapes(body, head.n_series, head.n_values)
    tables = _decode_tables(body, at, shapes)
    series = tuple(_unpack_series(shape, *tables[2 * i : 2 * i + 2]) for i, shape in enumerate(shapes))
    first, last = _ends(series)
    if (first, last) != (head.first_utc_us, head.last_utc_us):
        raise FrameError(
            f"sample chunk says it spans {head.first_utc_us} to {head.last_utc_us} us and holds {first} to {last} us"
        )
    return Chunk(head.boot, bool(head.flags & FLAG_CLOCK_SET), series)


def _ends(series: Sequence[Series]) -> tuple[int, int]:
    """The earliest and the latest wall time; a clock that is set may have turned their order."""
    return min(int(one.utc_us.min()) for one in series), max(int(one.utc_us.max()) for one in series)


def _check(series: Series) -> None:
    """Raises: ValueError: what no chunk can hold."""
    names = (series.sensor, *series.points)
    if not all(0 < len(name.encode()) <= MAX_NAME_BYTES for name in names):
        raise ValueError(f"sensor {series.sensor[:80]!r}: names are 1 to {MAX_NAME_BYTES} bytes")
    if not series.points or len(set(series.points)) != len(series.points):
        raise ValueError(f"sensor {series.sensor}: at least one point, and none twice")
    shape = (len(series.utc_us), len(series.points))
    if not shape[0] or series.monotonic_us.shape != shape[:1] or {series.values.shape, series.quality.shape} != {shape}:
        raise ValueError(
            f"sensor {series.sensor}: times {series.utc_us.shape} and {series.monotonic_us.shape}, values "
            f"{series.values.shape}, quality {series.quality.shape}; they are (n,), (n,) and twice (n, {shape[1]}), n from 1"
        )
    types = ", ".join(str(array.dtype) for array in (series.utc_us, series.monotonic_us, series.values, series.quality))
    if types != "int64, int64, float32, uint8":
        raise ValueError(f"sensor {series.sensor}: types {types}; they are int64, int64, float32, uint8")


# Columns <-> whole numbers


def _pack_times(series: Series) -> _Table:
    """Two columns: the step from poll to poll of utc, and monotonic less utc, which hardly moves unless a clock is set."""
    utc = series.utc_us.astype(np.uint64)
    steps = np.diff(utc, prepend=utc[:1])
    steps[:1] = steps[1:2] if len(steps) > 1 else 0  # nobody reads it, and so it shall not widen the column
    return _pack(np.stack([steps, series.monotonic_us.astype(np.uint64) - utc]), np.zeros(2, np.uint8))


def _pack_points(series: Series) -> _Table:
    """2 x n_points columns: the values, then their quality."""
    bits = np.ascontiguousarray(series.values.T).view(np.uint32)
    quality = np.ascontiguousarray(series.quality.T)
    bad = quality >= Quality.BAD
    holes = bad.any(axis=1) & ((bits == NAN) | ~bad).all(axis=1)
    if holes.any():
        # a failed poll shall not cost its column the decimal steps: what has no value repeats the one before
        has_none = bad & holes[:, None]
        source = np.maximum.accumulate(np.where(has_none, 0, np.arange(bits.shape[1])), axis=1)
        bits = np.take_along_axis(bits, np.maximum(source, has_none.argmin(axis=1)[:, None]), axis=1)
    words, exponents = _steps(bits)
    kinds = np.concatenate([exponents | np.uint8(HOLES) * holes, np.zeros(len(quality), np.uint8)])
    return _pack(np.concatenate([words, quality.astype(np.uint32)]), kinds)


def _steps(bits: U32) -> tuple[U32, U8]:
    """Float32 bits, shape (m, n), as whole numbers of the coarsest decimal step that gives every bit back, else as they are."""
    words, exponents = bits.copy(), np.full(len(bits), RAW, np.uint8)
    rest = np.arange(len(bits))
    for exponent, power in enumerate(POWERS):
        likely = rest[_n_steps(bits[rest, :16], power)[1]]  # the first polls rule most columns out
        n_steps, exact = _n_steps(bits[likely], power)
        words[likely[exact]] = n_steps[exact].view(np.uint32)
        exponents[likely[exact]] = exponent
        rest = rest[exponents[rest] == RAW]
    return words, exponents


def _n_steps(bits: U32, power: float) -> tuple[I32, NDArray[np.bool_]]:
    """Of every value the nearest whole number of 1/power, (m, n), and per row whether these give every bit back, (m,)."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        scaled = np.rint(bits.view(np.float32).astype(np.float64) * power)
    n_steps = np.where(np.abs(scaled) < MAX_STEPS, scaled, 0).astype(np.int32)
    return n_steps, ((n_steps / power).astype(np.float32).view(np.uint32) == bits).all(axis=1)


def _pack(words: Words, kinds: U8) -> _Table:
    """Columns (m, n) of unsigned words, wrapped as two's complement is, as base and octets: plain or as differences."""
    signed = words.view(np.int64 if words.dtype == np.uint64 else np.int32)
    lowest = signed.min(axis=1, keepdims=True)
    plain = _octets((signed - lowest).view(words.dtype))
    difference = np.diff(signed, axis=1, prepend=signed[:, :1])
    zigzag = _octets(((difference << 1) ^ (difference >> (8 * words.itemsize - 1))).view(words.dtype))
    rows = np.flatnonzero(plain.any(axis=(1, 2)))
    delta = np.zeros(len(words), bool)
    delta[rows] = _evenness(zigzag[rows]) > _evenness(plain[rows])
    octets = np.where(delta[:, None, None], zigzag, plain)
    ranks = np.arange(1, words.itemsize + 1, dtype=np.uint8)
    widths = (octets.any(axis=1) * ranks).max(axis=1)
    bases = np.where(delta, signed[:, 0], lowest[:, 0]).astype(np.int64)
    return _Table(kinds | np.uint8(DELTA) * delta, widths, bases, octets)


def _octets(words: Words) -> U8:
    """Words (m, n) as bytes (m, n, itemsize), lowest rank first."""
    return words.astype(words.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(*words.shape, -1)


def _evenness(octets: U8) -> NDArray[np.float64]:
    """Per column the sum of c log2 c over how often each byte comes, rank by rank: more means a smaller Huffman code."""
    m, n, size = octets.shape
    counted = np.arange(n + 1, dtype=np.float64)
    counted[1:] *= np.log2(counted[1:])
    place = 256 * np.arange(m)[:, None]
    counts = (np.bincount((octets[:, :, rank] + place).ravel(), minlength=256 * m) for rank in range(size))
    return sum((counted[count].reshape(m, 256).sum(axis=1) for count in counts), np.zeros(m))


def _layout(widths: Sequence[U8]) -> Iterator[tuple[int, NDArray[np.intp], int]]:
    """The order of a body's bytes: narrow columns first, of them the highest rank first, table by table -> table, rows, rank."""
    for width in range(1, 9):
        chosen = [(i, rows) for i, table in enumerate(widths) if len(rows := np.flatnonzero(table == width))]
        for rank in reversed(range(width)):
            for i, rows in chosen:
                yield i, rows, rank


def _encode_shape(series: Series) -> bytes:
    names = [name.encode() for name in (series.sensor, *series.points)]
    sensor, *points = (bytes([len(name)]) + name for name in names)
    polls = POLLS.pack(len(series.utc_us), int(series.utc_us[0]))
    return b"".join([sensor, N_POINTS.pack(len(points)), *points, polls])


# and back


def _header(blob: bytes) -> _Header:
    """Raises: FrameError: too short, another format or version, or beyond the limits."""
    if not HEADER.size <= len(blob) <= MAX_BYTES:
        raise FrameError(f"sample chunk of {len(blob)} bytes; allowed are {HEADER.size} to {MAX_BYTES}")
    head = _Header._make(HEADER.unpack_from(blob))
    if head.magic != MAGIC:
        raise FrameError(f"sample chunk begins with {head.magic.hex()}, not with {MAGIC.hex()} (HRKS)")
    if head.version != VERSION:
        raise FrameError(f"sample chunk has version {head.version}; this reader knows version {VERSION}")
    limits = ((head.n_series, MAX_SERIES), (head.n_values, MAX_VALUES), (head.n_body_bytes, MAX_BYTES))
    if not all(0 < number <= limit for number, limit in limits):
        raise FrameError(
            f"sample chunk says {head.n_series} series, {head.n_values} values and {head.n_body_bytes} bytes; allowed are "
            f"1 to {MAX_SERIES}, {MAX_VALUES} and {MAX_BYTES}"
        )
    if head.first_utc_us > head.last_utc_us:
        raise FrameError(
            f"sample chunk says it spans {head.first_utc_us} to {head.last_utc_us} us, which runs backwards"
        )
    return head


def _inflate(blob: bytes, n_body: int) -> bytes:
    """The body, never more than one byte longer than the header says.

    Raises: FrameError
    """
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(memoryview(blob)[HEADER.size : -CRC.size], n_body + 1)
    except zlib.error as error:
        raise FrameError(f"sample chunk's zlib stream is broken: {error}") from None
    if len(body) != n_body or not stream.eof or stream.unused_data:
        raise FrameError(f"sample chunk's zlib stream does not hold exactly the {n_body} bytes that the header says")
    return body


def _decode_shapes(body: bytes, n_series: int, n_values: int) -> tuple[list[_Shape], int]:
    """What the body says of its series, and where their columns begin.

    Raises: FrameError: cut off, not UTF-8, or counts that are not those of the header.
    """
    at, shapes, n_points_all, n_values_all = 0, [], 0, 0
    try:
        for _ in range(n_series):
            sensor, at = _name(body, at)
            (n_points,) = N_POINTS.unpack_from(body, at)
            at += N_POINTS.size
            n_points_all += n_points
            if not n_points or n_points_all > MAX_POINTS:
                raise FrameError(f"sample chunk has a series of {n_points} points; 1 to {MAX_POINTS} in all")
            points = []
            for _ in range(n_points):
                point, at = _name(body, at)
                points.append(point)
            n_polls, start_utc_us = POLLS.unpack_from(body, at)
            at += POLLS.size
            n_values_all += n_polls * n_points
            if not n_polls or len(set(points)) != n_points:
                raise FrameError(f"sample chunk has a series of {n_polls} polls, or a point twice in it")
            shapes.append(_Shape(sensor, tuple(points), n_polls, start_utc_us))
    except (struct.error, IndexError, UnicodeDecodeError):
        raise FrameError("sample chunk's series are cut off or their names are not UTF-8") from None
    if n_values_all != n_values:
        raise FrameError(f"sample chunk says {n_values} values and describes {n_values_all}")
    return shapes, at


def _name(body: bytes, at: int) -> tuple[str, int]:
    """One length and so many bytes of UTF-8, and where the next thing begins."""
    end = at + 1 + body[at]
    if end == at + 1 or end > len(body):
        raise IndexError
    return body[at + 1 : end].decode(), end


def _decode_tables(body: bytes, at: int, shapes: Sequence[_Shape]) -> list[_Table]:
    """Two tables a series, times and points, still as octets.

    Raises: FrameError: kinds or widths that do not exist, or another number of bytes than they need.
    """
    sizes = [size for shape in shapes for size in (2, 2 * len(shape.points))]
    m = sum(sizes)
    if len(body) - at < 10 * m:
        raise FrameError(f"sample chunk is cut off before its {m} columns")
    cuts = np.cumsum(sizes)[:-1]
    kinds = np.split(np.frombuffer(body, np.uint8, m, at), cuts)
    widths = np.split(np.frombuffer(body, np.uint8, m, at + m), cuts)
    bases = np.split(np.frombuffer(body, "<i8", m, at + 2 * m).astype(np.int64, copy=False), cuts)
    at += 10 * m
    for i, shape in enumerate(shapes):
        values, others = kinds[2 * i + 1][: len(shape.points)], (kinds[2 * i], kinds[2 * i + 1][len(shape.points) :])
        if (values > (EXPONENT | DELTA | HOLES)).any() or any((other & ~np.uint8(DELTA)).any() for other in others):
            raise FrameError(f"sample chunk has a column of an unknown kind in series {i}")
        if widths[2 * i].max() > 8 or widths[2 * i + 1].max() > 4:
            raise FrameError(
                f"sample chunk has a column too wide in series {i}: times have up to 8 bytes, others up to 4"
            )
    n_polls = [shape.n_polls for shape in shapes for _ in range(2)]
    needed = sum(int(width.sum(dtype=np.int64)) * n for width, n in zip(widths, n_polls, strict=True))
    if len(body) - at != needed:
        raise FrameError(f"sample chunk has {len(body) - at} bytes of columns and needs {needed}")
    itemsizes = (8, 4)
    octets = [np.zeros((sizes[i], n, itemsizes[i % 2]), np.uint8) for i, n in enumerate(n_polls)]
    for i, rows, rank in _layout(widths):
        count = len(rows) * n_polls[i]
        octets[i][rows, :, rank] = np.frombuffer(body, np.uint8, count, at).reshape(len(rows), -1)
        at += count
    return [_Table(*fields) for fields in zip(kinds, widths, bases, octets, strict=True)]


def _unpack(table: _Table) -> Words:
    """The inverse of `_pack`, without what kinds mean beyond DELTA."""
    unsigned = np.dtype(f"u{table.octets.shape[2]}")
    words = table.octets.view(unsigned.newbyteorder("<"))[:, :, 0].astype(unsigned, copy=False)
    rows = np.flatnonzero(table.kinds & DELTA)
    zigzag = words[rows]
    words[rows] = np.cumsum((zigzag >> 1) ^ (-(zigzag & 1)), axis=1, dtype=unsigned)
    words += table.bases.astype(unsigned)[:, None]
    return words


def _unpack_series(shape: _Shape, times: _Table, points: _Table) -> Series:
    """Raises: FrameError: a quality beyond one byte."""
    steps, offset = _unpack(times)
    steps[0] = shape.start_utc_us & ((1 << 64) - 1)
    utc = np.cumsum(steps, dtype=np.uint64)
    words = _unpack(points)
    m = len(shape.points)
    if (words[m:] > 0xFF).any():
        raise FrameError(f"sample chunk has a quality beyond one byte at sensor {shape.sensor[:80]!r}")
    quality = words[m:].astype(np.uint8)
    bits, exponents = words[:m], points.kinds[:m] & EXPONENT
    rows = np.flatnonzero(exponents != RAW)
    bits[rows] = (bits[rows].view(np.int32) / POWERS[exponents[rows]][:, None]).astype(np.float32).view(np.uint32)
    bits[((points.kinds[:m] & HOLES) != 0)[:, None] & (quality >= Quality.BAD)] = NAN
    values = np.ascontiguousarray(bits.T).view(np.float32)
    utc_us, monotonic_us = utc.view(np.int64), (utc + offset).view(np.int64)
    return Series(shape.sensor, shape.points, utc_us, monotonic_us, values, np.ascontiguousarray(quality.T))
