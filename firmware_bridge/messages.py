"""What an MQTT message says, looked up by path, by byte or by topic level. Pure; no clock.

One message may feed several sensors, so its JSON is read once. Whatever the bytes, the answer is a value or FrameError.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from firmware_bridge.errors import FrameError
from firmware_bridge.jsonpath import JsonPath, same
from firmware_bridge.payload import BytesIn, Ref, TimeRef

MAX_JSON_BYTES = 1 << 20  # three axes of 25 600 numbers as text are 0.6 MB; objects in memory are ten times their text
MAX_NUMBER_TEXT = 64
CLOCK_OFF_NS = 3600 * 10**9
MISSING: Any = object()
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
STRUCT = {
    "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i", "uint64": "Q", "int64": "q",
    "float32": "f", "float64": "d",
}  # fmt: skip
NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Message:
    """One message as it came. `again` is the broker's word that it may have sent this one before."""

    topic: str
    payload: bytes
    utc_ns: int = 0
    monotonic_ns: int = 0
    again: bool = False
    _tree: Any = field(default=MISSING, repr=False)
    _error: FrameError | None = field(default=None, repr=False)

    @property
    def levels(self) -> list[str]:
        """The topic's."""
        return self.topic.split("/")

    def tree(self) -> Any:
        """The payload as JSON, read once.

        Raises: FrameError: too long, too deep, or no JSON.
        """
        if self._error is not None:
            raise self._error
        if self._tree is MISSING:
            try:
                self._tree = read_json(self.payload)
            except FrameError as error:
                self._error = error
                raise
        return self._tree


def read_json(payload: bytes) -> Any:
    """JSON as Python's values; NaN and Infinity, which many write and JSON has not, become null.

    Raises: FrameError: too long, nested too deeply, or no JSON.
    """
    if len(payload) > MAX_JSON_BYTES:
        raise FrameError(f"message of {len(payload)} bytes; JSON is read up to {MAX_JSON_BYTES}")
    try:
        return json.loads(payload, parse_constant=lambda _: None)
    except RecursionError:
        raise FrameError("message is nested too deeply") from None
    except ValueError as error:  # JSON, UTF-8 and digits without end
        raise FrameError(f"message is no JSON: {str(error)[:80]}") from None


def as_number(raw: Any, decimal_comma: bool = False) -> float | None:
    """A JSON number, true or false (1 and 0), or text that is a number; None for anything else, and for infinity."""
    if isinstance(raw, str):
        text = raw.strip().replace(",", ".") if decimal_comma else raw.strip()
        if len(text) > MAX_NUMBER_TEXT or not NUMBER.fullmatch(text):
            return None
        raw = float(text)
    if not isinstance(raw, bool | int | float):
        return None
    try:
        number = float(raw)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def octets_of(text: str, encoding: Literal["hex", "base64"]) -> bytes:
    """The bytes that a text stands for.

    Raises: FrameError: the text is none of that encoding.
    """
    try:
        return bytes.fromhex(text) if encoding == "hex" else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise FrameError(f"text {text[:20]!r} is no {encoding}") from None


def number_shape(of: BytesIn | Ref) -> struct.Struct:
    """How a number stands in bytes."""
    return struct.Struct(("<" if of.byte_order == "little" else ">") + STRUCT[of.type])


def clock_off(time_ns: int, utc_ns: int) -> bool:
    """Whether a sensor's own time is none, or more than an hour from when its message came; 0 is no time at all."""
    return time_ns != 0 and abs(time_ns - utc_ns) > CLOCK_OFF_NS


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of which JSON messages is one sensor's.

    Attributes:
        root: where the payload file's paths count from. select_path, select_equals: only messages with this value there.
    """

    root: JsonPath | None = None
    select_path: JsonPath | None = None
    select_equals: str | float | bool = ""

    def of(self, message: Message) -> Any:
        """The sensor's part; MISSING where the message is another's.

        Raises: FrameError: no JSON.
        """
        tree = message.tree()
        if self.select_path is not None:
            found = self.select_path.find(tree)
            if not any(same(value, self.select_equals) for value in found):
                return MISSING
        return tree if self.root is None else self.root.last(tree, MISSING)


@dataclass(frozen=True, slots=True)
class Told:
    """A message opened at one sensor's part."""

    tree: Any
    payload: bytes
    levels: list[str]


class Reader:
    """Reads one Ref; `what` is its name in errors."""

    def __init__(self, ref: Ref, what: str) -> None:
        self._ref = ref
        self._what = what
        self._path = JsonPath.parse(ref.path) if ref.path is not None else None
        self._shape = number_shape(ref)
        self._shift = (ref.mask & -ref.mask).bit_length() - 1 if ref.mask else 0

    def value(self, told: Told) -> Any:
        """What stands there, by the table where there is one.

        Raises: FrameError: nothing stands there, or a code that the table has not.
        """
        raw = self._raw(told)
        if raw is MISSING:
            raise FrameError(f"message has no {self._what}")
        if not self._ref.table:
            return raw
        code = str(raw).lower() if isinstance(raw, bool) else str(raw)
        if code not in self._ref.table:
            raise FrameError(f"{self._what} {code[:20]!r} is not in the payload file's table")
        return self._ref.table[code]

    def number(self, told: Told) -> float:
        """The same as a number, in the unit that `scale` makes.

        Raises: FrameError: nothing there, or no number.
        """
        value = self.value(told)
        number = as_number(value)
        if number is None:
            raise FrameError(f"{self._what} {str(value)[:20]!r} is no number")
        return number * self._ref.scale

    def whole(self, told: Told) -> int:
        """The same as a whole number.

        Raises: FrameError: nothing there, or none.
        """
        number = self.number(told)
        if not number.is_integer():
            raise FrameError(f"{self._what} {number} is no whole number")
        return int(number)

    def _raw(self, told: Told) -> Any:
        if self._path is not None:
            return self._path.last(told.tree, MISSING)
        if self._ref.level is not None:
            at = self._ref.level
            return told.levels[at] if -len(told.levels) <= at < len(told.levels) else MISSING
        assert self._ref.offset is not None
        if self._ref.offset + self._shape.size > len(told.payload):
            return MISSING
        number = self._shape.unpack_from(told.payload, self._ref.offset)[0]
        return (number & self._ref.mask) >> self._shift if self._ref.mask else number


class TimeReader:
    """Reads one TimeRef."""

    def __init__(self, ref: TimeRef) -> None:
        self._reader = Reader(ref, "time")
        self._format = ref.format

    def read(self, told: Told) -> int:
        """UTC in ns since 1970; 0 where there is none, -1 where what stands there is no time."""
        try:
            raw = self._reader.value(told)
        except FrameError:
            return 0
        if raw is None:
            return 0
        time_ns = _iso_ns(raw) if self._format == "iso" else _count_ns(raw, NS[self._format])
        return time_ns if 0 <= time_ns < 1 << 63 else -1


def _iso_ns(raw: Any) -> int:
    if not isinstance(raw, str) or len(raw) > MAX_NUMBER_TEXT:
        return -1
    try:
        when = datetime.fromisoformat(raw.strip())
        since = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)) - EPOCH
    except (ValueError, OverflowError):
        return -1
    return since // timedelta(microseconds=1) * 1000


def _count_ns(raw: Any, factor: int) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw * factor
    number = as_number(raw)
    if number is None or abs(number) > 1e19:
        return -1
    whole = int(number)
    return whole * factor + round((number - whole) * factor)
