"""What one Modbus device says now: its words by address, and every point as a row that a person can compare with a panel.

Commissioning's view of a device. It asks around the map too (one address to each side), because a map that is off by one
shows itself there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from firmware_bridge.commissioning.evidence import LARGEST, Sample
from firmware_bridge.commissioning.plausible import SHIFTS, Ranking, rank
from firmware_bridge.commissioning.remap import shifted
from firmware_bridge.device import DeviceProfile, Span
from firmware_bridge.errors import SourceLost
from firmware_bridge.measurement import Quality
from firmware_bridge.modbus_link import Link, NoAnswer, Refused
from firmware_bridge.poll import PATH_UNAVAILABLE, TARGET_SILENT, TROUBLES
from firmware_bridge.registers import Decoder, Limits, plan_reads
from firmware_bridge.source import ModbusSensor, ModbusSpec
from firmware_bridge.units import unit_of

U16 = NDArray[np.uint16]
Ask = Callable[[Span], U16]
N_POLLS = 5  # show what moves
POLL_S = 1.0


def read_map(ask: Ask, profile: DeviceProfile) -> Sample:
    """The words of a map, each value by itself where a whole block is refused; what is refused is left out.

    Raises: NoAnswer: silence, or nonsense.
    """
    words: dict[tuple[int, int], int] = {}
    for block in plan_reads(profile):
        inside = sorted({s for point in profile.points for s in profile.spans_of(point) if block.covers(s)})
        for span in [block, *inside]:
            try:
                answer = ask(span)
            except Refused:
                continue
            words |= {(span.function, span.address + i): int(word) for i, word in enumerate(answer)}
            if span == block:
                break
    return words


def read_around(ask: Ask, profile: DeviceProfile) -> Sample:
    """The words of a map, and of the same map one address lower and higher: what plausible.rank wants.

    Silence at the neighbours is as good as a refusal; some devices do not answer to addresses that they have not.

    Raises: NoAnswer: silence at the map itself.
    """
    words = dict(read_map(ask, profile))
    for shift in SHIFTS:
        moved = shifted(profile, shift) if shift else None
        if moved is not None:
            try:
                words |= read_map(ask, moved)
            except NoAnswer:
                continue
    return words


@dataclass(frozen=True, slots=True)
class Row:
    """One point now. `address` is as the manual counts, `wire_address` as it is sent; `raw` the words in hex, as sent."""

    point: str
    function: int
    address: int
    wire_address: int
    raw: str
    value: float
    unit: str
    quality: str
    plausible: tuple[float, float]


def rows(profile: DeviceProfile, sample: Sample) -> list[Row]:
    """Every point of the map; a value that is implausible is shown all the same, for that is what is looked for."""
    places = {(s.function, a) for p in profile.points for s in profile.spans_of(p) for a in range(s.address, s.end)}
    limits = Limits(profile.max_registers, frozenset(Span(*place, 1) for place in places if place not in sample))
    decoder = Decoder(profile, limits)
    words = {
        i: np.array([sample.get((read.function, a), 0) for a in range(read.address, read.end)], np.uint16)
        for i, read in enumerate(decoder.reads)
    }
    _, quality = decoder.measure(words)
    values, _ = Decoder(_unbounded(profile), limits).measure(words)
    return [
        Row(
            point.name,
            profile.function_of(point),
            point.address,
            profile.wire_address(point),
            raw,
            float(value),
            unit_of(point.name),
            Quality(int(code)).name,
            point.plausible,
        )
        for point, raw, value, code in zip(profile.points, decoder.raw(words), values, quality, strict=True)
    ]


def _unbounded(profile: DeviceProfile) -> DeviceProfile:
    """The map without a judgement on its values."""
    points = tuple(msgspec.structs.replace(p, plausible=(-LARGEST, LARGEST), smallest=0.0) for p in profile.points)
    return msgspec.structs.replace(profile, points=points, examples=())


def good(found: Sequence[Row]) -> bool:
    """Whether every point has a value that can be."""
    return all(row.quality in (Quality.GOOD.name, Quality.UNCERTAIN.name) for row in found)


def shown(row: Row) -> str:
    """A value as a person reads it off."""
    return "" if math.isnan(row.value) else f"{row.value:.6g} {row.unit}".strip()


class LiveDevice:
    """One unit of an endpoint, to be looked at by a person."""

    def __init__(self, link: Link, spec: ModbusSpec, sensor: ModbusSensor, profile: DeviceProfile) -> None:
        self.profile = profile
        self.name = sensor.name
        self.where = f"{sensor.name}, unit {sensor.unit_id} at {spec.place}"
        self._link = link
        self._unit_id = sensor.unit_id
        self._timeout_s = spec.timeout_s

    def ask(self, span: Span) -> U16:
        """One read. Raises: Refused, NoAnswer."""
        try:
            self._link.connect()
        except OSError as error:
            raise SourceLost(
                f"{self.where}: no connection ({error.strerror or error}). Check power, cable, address and port"
            ) from None
        try:
            return self._link.ask(self._unit_id, span, self._timeout_s)
        except Refused as refused:
            if refused.code in (PATH_UNAVAILABLE, TARGET_SILENT):
                raise NoAnswer(TROUBLES[refused.code].why) from None
            raise

    def poll(self, around: bool = False) -> Sample:
        """The words of the map. Raises: SourceLost: silence."""
        try:
            return (read_around if around else read_map)(self.ask, self.profile)
        except NoAnswer as silence:
            raise SourceLost(
                f"{self.where}: {silence}. Check the unit id on its label, its power and its RS-485 wiring; "
                f"hark scan modbus shows who answers"
            ) from None

    def ranking(self) -> Ranking:
        """What the map has wrong, by several polls."""
        samples = []
        for number in range(N_POLLS):
            if number:
                time.sleep(min(self.profile.update_interval_s, POLL_S))
            samples.append(self.poll(around=True))
        return rank(self.profile, samples)
