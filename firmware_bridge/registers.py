"""Pure codec between Modbus words and values: word order, scale, "not available", plausibility. No I/O.

pymodbus's own conversion swaps words but not bytes and reverses lists of values, so the decoder is ours and one NumPy
pass per poll. `encode` is the device's side of the same map, for the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.device import BITS, MAX_BITS, DeviceProfile, Point
from firmware_bridge.measurement import F32, U8, Quality

U16 = NDArray[np.uint16]
Words = Mapping[int, "U16 | None"]
NO_SENTINEL = 1 << 32  # beyond any raw value
SWAPPED_WORDS = ("CDAB", "DCBA")
SWAPPED_BYTES = ("BADC", "DCBA")
FLOAT_NAN = 0x7FC00000
FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Read:
    """One request: function 1 to 4, wire address from 0, count of registers (or bits)."""

    function: int
    address: int
    count: int


def plan_reads(profile: DeviceProfile) -> tuple[Read, ...]:
    """The fewest legal requests that cover every point, sorted by function and address.

    Greedy by address is optimal here: points are intervals on a line and every request covers a contiguous stretch.
    """
    reads: list[Read] = []
    for point in sorted(profile.points, key=lambda p: (profile.function_of(p), profile.wire_address(p))):
        function, first = profile.function_of(point), profile.wire_address(point)
        end = first + point.n_words
        last = reads[-1] if reads else None
        if last and last.function == function and _joins(profile, last, first, end):
            reads[-1] = Read(function, last.address, max(last.count, end - last.address))
        else:
            reads.append(Read(function, first, point.n_words))
    return tuple(reads)


def _joins(profile: DeviceProfile, last: Read, first: int, end: int) -> bool:
    limit = profile.max_registers if last.function >= 3 else MAX_BITS
    touches = first <= last.address + last.count or profile.allow_gaps
    return touches and end - last.address <= limit


class Decoder:
    """The map of one device as arrays, made once; `decode` is then a handful of NumPy calls however many points.

    Attributes:
        reads: the requests whose answers `decode` takes, by position.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        points = profile.points
        self.reads = plan_reads(profile)
        starts = np.concatenate(([0], np.cumsum([read.count for read in self.reads])))
        self._slices = tuple(slice(int(a), int(b)) for a, b in pairwise(starts))
        self._words = np.zeros(int(starts[-1]), np.uint16)
        self._read_of = np.array([_read_of(self.reads, profile, point) for point in points])
        first = np.array(
            [
                starts[r] + profile.wire_address(p) - self.reads[r].address
                for p, r in zip(points, self._read_of, strict=True)
            ]
        )
        wide = np.array([point.n_words == 2 for point in points])
        swapped = wide & np.array([profile.order_of(point) in SWAPPED_WORDS for point in points])
        self._wide = wide
        self._low = first + (wide & ~swapped)
        self._high = first + (wide & swapped)
        self._bytes = np.flatnonzero(wide & np.array([profile.order_of(p) in SWAPPED_BYTES for p in points]))
        self._kind = {kind: np.array([i for i, p in enumerate(points) if p.type == kind], int) for kind in BITS}
        self._scale = np.array([point.scale for point in points])
        self._offset = np.array([point.offset for point in points])
        self._lowest = np.array([point.plausible[0] for point in points])
        self._highest = np.array([point.plausible[1] for point in points])
        self._smallest = np.array([point.smallest if point.type == "float32" else 0.0 for point in points])
        self._absent = _padded([point.absent for point in points])

    def decode(self, words: Words) -> tuple[F32, U8]:
        """Words of each read to values and qualities of each point.

        Args:
            words: read index -> uint16, shape (count,); None or missing where the read failed. Bits are words 0 or 1.
        Returns: values float32 (n_points,), NaN wherever quality is BAD or worse; quality uint8 (n_points,).
        """
        failed = np.ones(len(self.reads), bool)
        for index, place in enumerate(self._slices):
            answer = words.get(index)
            if answer is not None:
                assert len(answer) == place.stop - place.start, "an answer's length is checked where it is received"
                self._words[place] = answer
                failed[index] = False
        raw = self._raw()
        measured = self._numbers(raw)
        value = measured * self._scale + self._offset
        quality = np.zeros(len(raw), np.uint8)
        tiny = (measured != 0) & (np.abs(measured) < self._smallest)
        quality[(value < self._lowest) | (value > self._highest) | tiny] = Quality.BAD_RANGE
        quality[(raw[:, None] == self._absent).any(axis=1) | ~np.isfinite(measured)] = Quality.BAD_SENTINEL
        quality[failed[self._read_of]] = Quality.BAD_COMM
        value[quality >= Quality.BAD] = np.nan
        return value.astype(np.float32), quality

    def _raw(self) -> NDArray[np.uint32]:
        """The bits of each point, right-aligned, byte and word order undone."""
        low = self._words[self._low]
        high = np.where(self._wide, self._words[self._high], np.uint16(0))
        low[self._bytes] = low[self._bytes].byteswap()
        high[self._bytes] = high[self._bytes].byteswap()
        raw: NDArray[np.uint32] = (high.astype(np.uint32) << np.uint32(16)) | low
        return raw

    def _numbers(self, raw: NDArray[np.uint32]) -> NDArray[np.float64]:
        """The bits read as each point's type, before scale."""
        numbers = raw.astype(np.float64)
        for kind, view in (("int32", np.int32), ("float32", np.float32)):
            numbers[self._kind[kind]] = raw[self._kind[kind]].view(view)
        numbers[self._kind["int16"]] = raw[self._kind["int16"]].astype(np.uint16).view(np.int16)
        numbers[self._kind["bit"]] = raw[self._kind["bit"]] != 0
        return numbers


def _read_of(reads: tuple[Read, ...], profile: DeviceProfile, point: Point) -> int:
    first = profile.wire_address(point)
    return next(
        i
        for i, read in enumerate(reads)
        if read.function == profile.function_of(point)
        and read.address <= first
        and first + point.n_words <= read.address + read.count
    )


def _padded(rows: list[tuple[int, ...]]) -> NDArray[np.int64]:
    """Rows of different length as one matrix, filled up with what no raw value equals."""
    width = max((len(row) for row in rows), default=0)
    return np.array([[*row, *([NO_SENTINEL] * (width - len(row)))] for row in rows], np.int64).reshape(len(rows), width)


def encode(profile: DeviceProfile, values: Mapping[str, float]) -> dict[tuple[int, int], int]:
    """What the device would hold for `values` (point -> value in the point's unit): (function, wire address) -> word.

    A value beyond the type saturates as a device's own does; NaN becomes the point's first sentinel (a float's NaN).

    Raises: ValueError: a point the device does not have, or NaN where its map has no "not available".
    """
    points = {point.name: point for point in profile.points}
    image: dict[tuple[int, int], int] = {}
    for name, value in values.items():
        if name not in points:
            raise ValueError(f"{profile.model} has no point {name!r}; it has {', '.join(points)}")
        point = points[name]
        for i, word in enumerate(_ordered(_bits(point, value), point, profile)):
            image[profile.function_of(point), profile.wire_address(point) + i] = word
    return image


def _bits(point: Point, value: float) -> int:
    """The raw bit pattern of a value."""
    if np.isnan(value):
        if not point.absent and point.type != "float32":
            raise ValueError(f"{point.name} has no 'not available' to stand for NaN")
        return point.absent[0] if point.absent else FLOAT_NAN
    raw = (value - point.offset) / point.scale
    if point.type == "float32":
        return int(np.float32(np.clip(raw, -FLOAT_MAX, FLOAT_MAX)).view(np.uint32))
    if point.type == "bit":
        return int(raw >= 0.5)
    width = BITS[point.type]
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if point.type.startswith("int") else (0, (1 << width) - 1)
    return round(min(max(raw, low), high)) & ((1 << width) - 1)


def _ordered(raw: int, point: Point, profile: DeviceProfile) -> Iterator[int]:
    """The words of a bit pattern in the order the device sends them."""
    if point.n_words == 1:
        yield raw
        return
    order = profile.order_of(point)
    words = [raw >> 16, raw & 0xFFFF]
    if order in SWAPPED_BYTES:
        words = [(word >> 8) | (word & 0xFF) << 8 for word in words]
    yield from reversed(words) if order in SWAPPED_WORDS else words
