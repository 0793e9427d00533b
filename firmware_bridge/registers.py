"""Pure codec between Modbus words and values: planning, word order, scale, "not available", plausibility. No I/O.

pymodbus's own conversion swaps words but not bytes and reverses lists of values, so the decoder is ours and one NumPy
pass per poll. `encode` is the device's side of the same map, for the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.device import BITS, MAX_BITS, DeviceProfile, Point, Span, Text
from firmware_bridge.measurement import F32, U8, Quality

F64 = NDArray[np.float64]
U16 = NDArray[np.uint16]
U64 = NDArray[np.uint64]
Words = Mapping[int, "U16 | None"]
MAX_WORDS = 4  # of one value: 64 bits
SWAPPED_WORDS = ("CDAB", "DCBA")
SWAPPED_BYTES = ("BADC", "DCBA")
NAN_BITS = {"float32": 0x7FC0_0000, "float64": 0x7FF8_0000_0000_0000}
FLOAT_MAX = float(np.finfo(np.float32).max)
MAX_EXPONENT = 10  # SunSpec information model: sunssf is -10 to 10, 0x8000 where it is not implemented
BLOCK_SIZES = (63, 29, 10, 4, 2, 1)  # what real devices take at most: ATV320 63, ATV312 29, Danfoss 10, ATV212 1


# ---------------------------------------------------------------------- which requests
@dataclass(frozen=True, slots=True)
class Limits:
    """What a device turned out to refuse, beside what its file says.

    Attributes:
        max_registers: the most that one read may ask for. holes: stretches that it does not give; one of no length is a
            border that no read may cross.
    """

    max_registers: int
    holes: frozenset[Span] = frozenset()

    def smaller(self, refused_count: int) -> Limits | None:
        """The next smaller block after `refused_count` registers at once were too many; None where 1 was."""
        size = next((size for size in BLOCK_SIZES if size < refused_count), None)
        return replace(self, max_registers=size) if size else None

    def has_hole(self, span: Span) -> bool:
        """Whether any of `span` lies in a hole."""
        return any(
            hole.function == span.function and hole.address < span.end and span.address < hole.end
            for hole in self.holes
        )


def plan_reads(profile: DeviceProfile, limits: Limits | None = None) -> tuple[Span, ...]:
    """The fewest legal requests that cover every point outside holes, sorted by function and address.

    Greedy by address is optimal here: values are intervals on a line and every request covers a contiguous stretch. A
    value is only cut in two where the device cannot give it in one request.
    """
    limits = limits or Limits(profile.max_registers)
    reads: list[Span] = []
    for span in _pieces(profile, limits):
        last = reads[-1] if reads else None
        if last and _joins(last, span, profile.allow_gaps, limits):
            reads[-1] = Span(last.function, last.address, max(last.end, span.end) - last.address)
        else:
            reads.append(span)
    return tuple(reads)


def _pieces(profile: DeviceProfile, limits: Limits) -> list[Span]:
    """What must be read, by address; values longer than one request in pieces."""
    wanted = {span for point in profile.points for span in profile.spans_of(point) if not limits.has_hole(span)}
    pieces = {
        Span(span.function, first, min(_most(span, limits), span.end - first))
        for span in wanted
        for first in range(span.address, span.end, _most(span, limits))
    }
    return sorted(pieces)


def _most(span: Span, limits: Limits) -> int:
    return limits.max_registers if span.function >= 3 else MAX_BITS


def _joins(last: Span, span: Span, allow_gaps: bool, limits: Limits) -> bool:
    if span.function != last.function or max(last.end, span.end) - last.address > _most(span, limits):
        return False
    touches = span.address <= last.end
    joined = Span(span.function, last.address, max(last.end, span.end) - last.address)
    return (touches or allow_gaps) and not limits.has_hole(joined)


def values_in(profile: DeviceProfile, read: Span) -> list[Span]:
    """The values' stretches that lie in one request, by address, those that overlap as one."""
    inside = sorted({s for point in profile.points for s in profile.spans_of(point) if read.covers(s)})
    merged: list[Span] = []
    for span in inside:
        if merged and span.address < merged[-1].end:
            last = merged.pop()
            span = Span(last.function, last.address, max(last.end, span.end) - last.address)  # noqa: PLW2901
        merged.append(span)
    return merged


# ---------------------------------------------------------------------- words to values
class Decoder:
    """The map of one device as arrays, made once; `decode` is then a handful of NumPy calls however many points.

    Attributes:
        reads: the requests whose answers `decode` takes, by position.
    """

    def __init__(self, profile: DeviceProfile, limits: Limits | None = None) -> None:
        points = profile.points
        self.reads = plan_reads(profile, limits)
        starts = np.concatenate(([0], np.cumsum([read.count for read in self.reads], dtype=np.intp)))
        self._slices = tuple(slice(int(a), int(b)) for a, b in pairwise(starts))
        self._words = np.zeros(int(starts[-1]) + 1, np.uint16)  # the last one stays 0: what narrow values lack
        self._places = np.full((len(points), MAX_WORDS), -1, np.intp)
        self._exponents = np.full(len(points), -1, np.intp)
        self._needs = np.zeros((len(points), len(self.reads) + 1), np.bool_)  # the last column: never read
        for i, point in enumerate(points):
            self._place(i, point, profile, starts)
        orders = [profile.order_of(p) if p.n_words > 1 else "ABCD" for p in points]
        self._bytes = np.flatnonzero([order in SWAPPED_BYTES for order in orders])
        self._kind = {kind: np.array([i for i, p in enumerate(points) if p.type == kind], np.intp) for kind in BITS}
        self._field_first = np.array([p.bits[0] if p.bits else 0 for p in points], np.uint64)
        self._field_mask = np.array([(1 << (p.bits[1] if p.bits else 64)) - 1 for p in points], np.uint64)
        self._scale = np.array([point.scale for point in points])
        self._offset = np.array([point.offset for point in points])
        self._lowest = np.array([point.plausible[0] for point in points])
        self._highest = np.array([point.plausible[1] for point in points])
        self._smallest = np.array([point.smallest if point.type.startswith("float") else 0.0 for point in points])
        self._absent, self._is_absent = _padded([point.absent for point in points])

    def decode(self, words: Words) -> tuple[F32, U8]:
        """Words of each read to values and qualities of each point.

        Args:
            words: read index -> uint16, shape (count,); None or missing where the read failed. Bits are words 0 or 1.
        Returns: values float32 (n_points,), NaN wherever quality is BAD or worse; quality uint8 (n_points,).
        """
        value, quality = self.measure(words)
        return value.astype(np.float32), quality

    def measure(self, words: Words) -> tuple[F64, U8]:
        """As `decode`, in float64: what a person who compares with a panel wants to see."""
        failed = self._take(words)
        raw = self._raw()
        with np.errstate(invalid="ignore", over="ignore"):  # signalling NaN and numbers without end are data here
            measured = self._numbers(raw)
            value = measured * self._scale + self._offset
        quality = np.zeros(len(raw), np.uint8)
        tiny = (measured != 0) & (np.abs(measured) < self._smallest)
        quality[(value < self._lowest) | (value > self._highest) | tiny] = Quality.BAD_RANGE
        absent = ((raw[:, None] == self._absent) & self._is_absent).any(axis=1)
        quality[absent | ~np.isfinite(measured)] = Quality.BAD_SENTINEL
        quality[(self._needs & failed).any(axis=1)] = Quality.BAD_COMM
        value[quality >= Quality.BAD] = np.nan
        return value, quality

    def raw(self, words: Words) -> list[str]:
        """Each point's bits as they stood on the wire, "44B6 9000"; empty where its read failed. For people."""
        failed: list[bool] = np.any(self._needs & self._take(words), axis=1).tolist()
        return [
            "" if lost else " ".join(f"{self._words[place]:04X}" for place in places)
            for lost, places in zip(failed, self._on_wire, strict=True)
        ]

    @property
    def _on_wire(self) -> list[list[int]]:
        """Each point's places in the order of their addresses."""
        return [sorted(int(place) for place in row if place >= 0) for row in self._places]

    def _place(self, i: int, point: Point, profile: DeviceProfile, starts: NDArray[np.intp]) -> None:
        """Where the words of one point stand, highest first and right-aligned, and which reads it needs."""
        spans = profile.spans_of(point)
        found = [self._find(span, starts, i) for span in spans]
        if any(place is None for place in found):
            self._needs[i, -1] = True
            return
        value = found[0] or []
        swapped = len(value) > 1 and profile.order_of(point) in SWAPPED_WORDS
        self._places[i, MAX_WORDS - len(value) :] = value[::-1] if swapped else value
        if len(found) > 1 and found[1]:
            self._exponents[i] = found[1][0]

    def _find(self, span: Span, starts: NDArray[np.intp], i: int) -> list[int] | None:
        """The words' places in the buffer, from one read where one holds them all; None where they are not read."""
        whole = [r for r, read in enumerate(self.reads) if read.covers(span)]
        places = []
        for address in range(span.address, span.end):
            word = Span(span.function, address, 1)
            holder = next(iter(whole), None)
            if holder is None:
                holder = next((r for r, read in enumerate(self.reads) if read.covers(word)), None)
            if holder is None:
                return None
            self._needs[i, holder] = True
            places.append(int(starts[holder]) + address - self.reads[holder].address)
        return places

    def _take(self, words: Words) -> NDArray[np.bool_]:
        """Put the answers into the buffer; which reads have none, the last entry always."""
        failed = np.ones(len(self.reads) + 1, np.bool_)
        for index, place in enumerate(self._slices):
            answer = words.get(index)
            if answer is not None:
                assert len(answer) == place.stop - place.start, "an answer's length is checked where it is received"
                self._words[place] = answer
                failed[index] = False
        return failed

    def _raw(self) -> U64:
        """The bits of each point, right-aligned, byte and word order undone."""
        taken = self._words[self._places]
        taken[self._bytes] = taken[self._bytes].byteswap()
        raw = np.zeros(len(taken), np.uint64)
        for column in range(MAX_WORDS):
            raw = (raw << np.uint64(16)) | taken[:, column]
        return raw

    def _numbers(self, raw: U64) -> F64:
        """The bits read as each point's type and taken to its power of ten, before scale."""
        numbers = ((raw >> self._field_first) & self._field_mask).astype(np.float64)
        for kind, read in _READ_AS.items():
            if len(rows := self._kind[kind]):
                numbers[rows] = read(raw[rows])
        exponent = self._words[self._exponents].view(np.int16).astype(np.float64)
        exponent[np.abs(exponent) > MAX_EXPONENT] = np.nan
        return numbers * np.power(10.0, exponent)


def _signed(raw: U64, width: int) -> F64:
    up = np.uint64(64 - width)
    return ((raw << up).view(np.int64) >> np.int64(64 - width)).astype(np.float64)


def _decimal(raw: U64) -> F64:
    """Binary coded decimal, four bits a digit; NaN where a digit is above 9."""
    digits = (raw[:, None] >> np.arange(0, 32, 4, dtype=np.uint64)) & np.uint64(15)
    value = (digits * 10.0 ** np.arange(8)).sum(axis=1)
    value[(digits > 9).any(axis=1)] = np.nan
    return np.asarray(value, np.float64)


def _ten_thousands(raw: U64) -> F64:
    """A register of ten-thousands and one of units, each with its sign."""
    return _signed(raw >> np.uint64(16), 16) * 10_000 + _signed(raw, 16)


def _float(raw: U64) -> F64:
    return raw.astype(np.uint32).view(np.float32).astype(np.float64)


_READ_AS: dict[str, Callable[[U64], NDArray[Any]]] = {
    "int16": lambda raw: _signed(raw, 16),
    "int32": lambda raw: _signed(raw, 32),
    "int64": lambda raw: _signed(raw, 64),
    "float32": _float,
    "float64": lambda raw: raw.view(np.float64),
    "bcd16": _decimal,
    "bcd32": _decimal,
    "m10k32": _ten_thousands,
    "bit": lambda raw: raw != 0,
}


def _padded(rows: Sequence[tuple[int, ...]]) -> tuple[U64, NDArray[np.bool_]]:
    """Rows of different length as one matrix, and which of its entries count."""
    width = max((len(row) for row in rows), default=0)
    matrix = np.zeros((len(rows), width), np.uint64)
    counts = np.zeros((len(rows), width), np.bool_)
    for i, row in enumerate(rows):
        matrix[i, : len(row)] = row
        counts[i, : len(row)] = True
    return matrix, counts


def decode_text(words: Iterable[int], text: Text) -> str:
    """The letters of a text; what is no printable ASCII is left out, as is padding."""
    data = b"".join(word.to_bytes(2, "little" if text.swapped else "big") for word in words)
    letters = data.split(b"\0", 1)[0].decode("ascii", "ignore")
    return "".join(letter for letter in letters if letter.isprintable()).strip()


# ---------------------------------------------------------------------- values to words: the device's side
def encode(profile: DeviceProfile, values: Mapping[str, float]) -> dict[tuple[int, int], int]:
    """The words that a device of this profile would hold.

    Args:
        values: by point, in the point's unit; NaN is the point's first `absent` pattern (a float's NaN without one).
            Values beyond the type are clamped. Fields of one register are given together.
    Returns: (function, wire address) -> word, a bit as 0 or 1.
    Raises: ValueError: a point that the profile has not, or NaN where the type cannot say it.
    """
    points = {point.name: point for point in profile.points}
    image: dict[tuple[int, int], int] = {}
    for name, value in values.items():
        if name not in points:
            raise ValueError(f"{profile.model} has no point {name!r}; it has {', '.join(points)}")
        point = points[name]
        exponent = _exponent(point, profile)
        for i, word in enumerate(_ordered(_bits(point, value, exponent), point, profile)):
            place = (profile.function_of(point), profile.wire_address(point) + i)
            image[place] = word | (image.get(place, 0) if point.bits else 0)
        if point.exponent_address is not None:
            image[profile.function_of(point), point.exponent_address - profile.address_base] = exponent & 0xFFFF
    return image


def encode_text(value: str, text: Text) -> list[int]:
    """The words of a text, padded with NUL, cut to its registers."""
    data = value.encode("ascii", "replace")[: 2 * text.n_registers].ljust(2 * text.n_registers, b"\0")
    order = "little" if text.swapped else "big"
    return [int.from_bytes(data[i : i + 2], order) for i in range(0, len(data), 2)]  # type: ignore[arg-type]


def _exponent(point: Point, profile: DeviceProfile) -> int:
    """The smallest power of ten with which every value that shares this exponent fits its type."""
    if point.exponent_address is None:
        return 0
    sharing = [p for p in profile.points if p.exponent_address == point.exponent_address]
    needed = [
        int(np.ceil(np.log10(max(abs(bound) for bound in p.plausible) / abs(p.scale) / _range_of(p)[1])))
        for p in sharing
    ]
    return min(MAX_EXPONENT, max(-MAX_EXPONENT, *needed))


def _range_of(point: Point) -> tuple[int, int]:
    """The lowest and highest raw number of a whole-number type."""
    width = point.bits[1] if point.bits else BITS[point.type]
    if point.type.startswith("int"):
        return -(1 << (width - 1)), (1 << (width - 1)) - 1
    if point.type.startswith("bcd"):
        return 0, 10 ** (width // 4) - 1
    if point.type == "m10k32":
        return -327_669_999, 327_669_999
    return 0, (1 << width) - 1


def _bits(point: Point, value: float, exponent: int) -> int:
    """The raw bit pattern of a value."""
    if np.isnan(value):
        if not point.absent and point.type not in NAN_BITS:
            raise ValueError(f"{point.name} has no 'not available' to stand for NaN")
        return point.absent[0] if point.absent else NAN_BITS[point.type]
    raw = (value - point.offset) / point.scale / 10.0**exponent
    if point.type.startswith("float"):
        return _float_bits(point.type, raw)
    low, high = _range_of(point)
    number = min(max(round(raw), low), high)
    if point.type.startswith("bcd"):
        return int(str(number), 16)
    if point.type == "m10k32":
        upper, lower = divmod(abs(number), 10_000)
        sign = -1 if number < 0 else 1
        return (sign * upper & 0xFFFF) << 16 | (sign * lower & 0xFFFF)
    return (number & ((1 << BITS[point.type]) - 1)) << (point.bits[0] if point.bits else 0)


def _float_bits(kind: str, raw: float) -> int:
    if kind == "float64":
        return int(np.float64(raw).view(np.uint64))
    return int(np.float32(np.clip(raw, -FLOAT_MAX, FLOAT_MAX)).view(np.uint32))


def _ordered(raw: int, point: Point, profile: DeviceProfile) -> Iterator[int]:
    """The words of a bit pattern in the order the device sends them."""
    words = [raw >> (16 * i) & 0xFFFF for i in reversed(range(point.n_words))]
    if point.n_words > 1:
        order = profile.order_of(point)
        if order in SWAPPED_BYTES:
            words = [(word >> 8) | (word & 0xFF) << 8 for word in words]
        if order in SWAPPED_WORDS:
            words.reverse()
    yield from words
