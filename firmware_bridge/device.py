"""DeviceProfile: a checked config/devices/<name>.toml. What a kind of sensor says, where, and what it cannot see.

A new device is one file: its register map with the source it was taken from, and raw frames worked by hand from the
manual, which the contract battery decodes. Nothing but the four reading functions of Modbus can be written down here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from firmware_bridge.checked import Table, load
from firmware_bridge.errors import ConfigError, Problem
from firmware_bridge.measurement import Channel, Quality
from firmware_bridge.units import suffix_of

Function = Literal[1, 2, 3, 4]
ValueType = Literal[
    "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bcd16", "bcd32", "m10k32", "bit"
]
WordOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]
Word = Annotated[int, Meta(ge=0, le=0xFFFF)]
PointName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="lower-case letters, digits and _")]

BITS: dict[str, int] = {
    "uint16": 16, "int16": 16, "uint32": 32, "int32": 32, "uint64": 64, "int64": 64, "float32": 32, "float64": 64,
    "bcd16": 16, "bcd32": 32,  # four decimal digits a register
    "m10k32": 32,  # a signed register of ten-thousands, then an unsigned one of units: power meters of the 1990s
    "bit": 1,
}  # fmt: skip
MAX_RAW = (1 << 64) - 1
MAX_REGISTERS = 125  # Modbus application protocol 1.1b3, 6.3: quantity of registers 1 to 125
MAX_BITS = 2000  # same, 6.1


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of one of a device's four tables: function 1 to 4, wire address from 0, how many."""

    function: int
    address: int
    count: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.count

    def covers(self, other: Span) -> bool:
        """Whether all of `other` lies in it."""
        return self.function == other.function and self.address <= other.address and other.end <= self.end


class Point(Table, frozen=True):
    """One quantity of a device.

    The value is `raw * scale + offset`. `absent` lists raw bit patterns that mean "not available" (0x8000 for an
    int16); NaN, infinity and a BCD digit above 9 always do. `plausible` is what the quantity can be in the field:
    outside it the value is BAD_RANGE, which is how a wrong word order shows itself. A float that is not zero but smaller
    than `smallest` is no measurement either (1e-29 where 1460 was meant). `typical` is where a running machine mostly
    has it; it decides nothing, it ranks what commissioning proposes. `live` says that the value moves on a running
    machine: all live values of a device at rest to the bit are a stuck sensor.

    `bits = [first, count]` takes a field out of an unsigned register (bit 0 is the lowest). `exponent_address` names the
    register that holds a power of ten to multiply with (SunSpec's scale factor, -10 to 10, 0x8000 for none).
    """

    name: PointName
    address: Annotated[int, Meta(ge=0, le=65536, description="as the manual counts, without a leading 3 or 4")]
    type: ValueType
    plausible: tuple[float, float]
    typical: tuple[float, float] | None = None
    function: Function | None = None
    word_order: WordOrder | None = None
    scale: float = 1.0
    offset: float = 0.0
    bits: tuple[int, int] | None = None
    exponent_address: Annotated[int, Meta(ge=0, le=65536)] | None = None
    absent: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    smallest: Annotated[float, Meta(ge=0, description="a float's least magnitude other than 0")] = 1e-6
    update_interval_s: Annotated[float, Meta(gt=0)] | None = None
    live: bool = False

    def __post_init__(self) -> None:
        """Raises: ValueError: a name without unit, an empty range, or a scale, field or sentinel the type cannot have."""
        suffix_of(self.name)
        low, high = self.plausible
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"plausible = [{low}, {high}] is no range; write [lowest, highest]")
        if self.typical is not None and not (low <= self.typical[0] < self.typical[1] <= high):
            raise ValueError(
                f"typical = {list(self.typical)} is no range within plausible; write [usual low, usual high]"
            )
        if not (math.isfinite(self.scale) and self.scale != 0 and math.isfinite(self.offset)):
            raise ValueError("scale and offset are finite numbers, and scale is not 0")
        if too_wide := [raw for raw in self.absent if raw >> BITS[self.type]]:
            raise ValueError(f"absent = {too_wide[0]:#x} does not fit into {self.type}")
        if self.bits is not None:
            first, count = self.bits
            if not self.type.startswith("uint") or first < 0 or count < 1 or first + count > BITS[self.type]:
                raise ValueError(
                    f"bits = [{first}, {count}] is no field of {self.type}; write [lowest bit, how many] of a uint"
                )
        if self.exponent_address is not None and self.type in ("bit", "float32", "float64"):
            raise ValueError(f"exponent_address goes with whole numbers; type is {self.type}")

    @property
    def n_words(self) -> int:
        """Addresses that the value takes: 2 for the 32-bit types, 4 for the 64-bit ones."""
        return max(1, BITS[self.type] // 16)


class Text(Table, frozen=True):
    """Words that identify a device: model, serial number, firmware. Read when somebody asks, never polled."""

    name: PointName
    address: Annotated[int, Meta(ge=0, le=65536, description="as the manual counts, without a leading 3 or 4")]
    n_registers: Annotated[int, Meta(ge=1, le=MAX_REGISTERS, description="two letters each")]
    function: Function | None = None
    swapped: Annotated[bool, Meta(description="the second letter of a register comes first")] = False
    equals: Annotated[str | None, Meta(description="what this model says here: how `hark scan` knows it")] = None


class Example(Table, frozen=True):
    """A raw answer worked by hand: words by first address (as the manual counts), the values and qualities they mean.

    Every point stands either in `values` (then it is GOOD) or in `quality`. Words, not code, are the truth here: a
    codec bug that the simulator shares would cancel out, this does not.
    """

    title: str
    registers: dict[str, tuple[Word, ...]]
    values: dict[str, float] = field(default_factory=dict)
    quality: dict[str, Literal["UNCERTAIN", "BAD", "BAD_SENTINEL", "BAD_RANGE", "BAD_COMM"]] = field(
        default_factory=dict
    )
    texts: dict[str, str] = field(default_factory=dict)

    def words(self, address_base: int) -> dict[int, int]:
        """Wire address -> word."""
        return {
            int(first, 0) - address_base + i: word
            for first, words in self.registers.items()
            for i, word in enumerate(words)
        }

    def expected_quality(self, point: str) -> Quality:
        return Quality[self.quality[point]] if point in self.quality else Quality.GOOD


class DeviceProfile(Table, frozen=True):
    """A kind of sensor.

    `source` names the document the map was taken from; `sees` says in one line what the device can and cannot show. A
    manual that counts from 1 has `address_base = 1`; the wire counts from 0. `max_registers` is the most that one read
    may ask for, `allow_gaps` whether it may reach across addresses the map does not name (many devices refuse that with
    exception 02). `word_order` holds for 32- and 64-bit values only: a single register is big-endian on every device.
    `identification` lists words that such a device says of itself to function 43/14: how `hark scan` knows it.
    """

    vendor: str
    model: str
    title: str
    source: str
    sees: str
    update_interval_s: Annotated[float, Meta(gt=0)]
    points: Annotated[tuple[Point, ...], Meta(min_length=1)]
    address_base: Literal[0, 1] = 0
    function: Function = 3
    max_registers: Annotated[int, Meta(ge=1, le=MAX_REGISTERS)] = MAX_REGISTERS
    allow_gaps: bool = False
    word_order: WordOrder = "ABCD"
    texts: tuple[Text, ...] = ()
    identification: Annotated[tuple[str, ...], Meta(description="of vendor, product code or model name")] = ()
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError: points that clash, lie outside the address space, or do not fit their function."""
        names = [point.name for point in self.points]
        both = [*names, *(text.name for text in self.texts)]
        if twice := sorted({name for name in both if both.count(name) > 1}):
            raise ValueError(f"{twice[0]} is there twice; every point has its own name")
        for point in self.points:
            self._check(point)
        for text in self.texts:
            self._check_span(text.name, self.text_span(text))
        for example in self.examples:
            told = [*example.values, *example.quality]
            if sorted(told) != sorted(names):
                odd = sorted(set(told) ^ set(names)) or sorted(told)
                raise ValueError(f"example {example.title!r}: {odd[0]} must stand in values or in quality, once")

    def _check(self, point: Point) -> None:
        if (self.function_of(point) <= 2) != (point.type == "bit"):
            raise ValueError(
                f"{point.name}: functions 1 and 2 read type bit, 3 and 4 read registers (a bit of one is bits = [n, 1]); "
                f"type is {point.type}"
            )
        for span in self.spans_of(point):
            self._check_span(point.name, span)

    def _check_span(self, name: str, span: Span) -> None:
        if span.address < 0 or span.end > 65536:
            raise ValueError(f"{name}: address {span.address + self.address_base} is outside the device's 65536")
        if span.function <= 2 and span.count > 1:
            raise ValueError(f"{name}: letters stand in registers, functions 3 and 4")

    def function_of(self, point: Point) -> int:
        """The point's own reading function, or the device's."""
        return point.function or self.function

    def wire_address(self, point: Point) -> int:
        """The address as it stands in the request, from 0."""
        return point.address - self.address_base

    def spans_of(self, point: Point) -> tuple[Span, ...]:
        """Where a point's value stands, and its exponent where it has one."""
        function = self.function_of(point)
        value = Span(function, self.wire_address(point), point.n_words)
        if point.exponent_address is None:
            return (value,)
        return (value, Span(function, point.exponent_address - self.address_base, 1))

    def text_span(self, text: Text) -> Span:
        """Where a text stands."""
        return Span(text.function or self.function, text.address - self.address_base, text.n_registers)

    def order_of(self, point: Point) -> WordOrder:
        """The point's own word order, or the device's."""
        return point.word_order or self.word_order


def load_device(config_dir: Path, name: str) -> DeviceProfile:
    """The profile in config/devices/<name>.toml.

    Raises: ConfigError: unknown device (the known ones are listed) or a wrong file.
    """
    folder = config_dir / "devices"
    path = folder / f"{name}.toml"
    if not re.fullmatch(r"[a-z0-9_]{1,64}", name) or not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.toml"))) or "no file at all"
        raise ConfigError(path, [Problem(0, f"device {name!r}", f"not known; {folder} has {known}")])
    return load(path, DeviceProfile)


def channels(profile: DeviceProfile, sensor: str) -> tuple[Channel, ...]:
    """The channels of one such device, in the order of its points; `sensor` is its name in the site file."""
    return tuple(
        Channel(sensor, point.name, point.update_interval_s or profile.update_interval_s, point.live)
        for point in profile.points
    )
