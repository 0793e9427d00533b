"""A register map with one of people's mistakes undone: other word order, other base, other scale, other unit. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from firmware_bridge.commissioning.quantities import UnitSlip
from firmware_bridge.device import DeviceProfile, Point, WordOrder

ORDERS: tuple[WordOrder, ...] = ("ABCD", "CDAB", "BADC", "DCBA")  # bit 0 of the place: words swapped, bit 1: bytes
AS_IT_IS = UnitSlip("", 1.0)


@dataclass(frozen=True, slots=True)
class Slip:
    """Points whose registers hold another unit or, where `unit` is AS_IT_IS, another power of ten than the map says."""

    points: tuple[str, ...]
    power: int
    unit: UnitSlip = AS_IT_IS


def has_scale(point: Point) -> bool:
    """Whether the point is a quantity; a status bit has no scale that could be wrong."""
    return point.type != "bit" and (point.bits is None or point.bits[1] > 1)


def swapped(order: WordOrder, swap: int) -> WordOrder:
    """`order` with words (1), bytes (2) or both (3) swapped."""
    return ORDERS[ORDERS.index(order) ^ swap]


def reordered(profile: DeviceProfile, swap: int) -> DeviceProfile:
    """The map with every value of two words and more in another order."""
    if not swap:
        return profile
    points = tuple(
        msgspec.structs.replace(p, word_order=swapped(p.word_order, swap)) if p.word_order else p
        for p in profile.points
    )
    return msgspec.structs.replace(profile, points=points, word_order=swapped(profile.word_order, swap), examples=())


def shifted(profile: DeviceProfile, shift: int) -> DeviceProfile | None:
    """The map with every address moved on the wire; None where that leaves the address space."""
    if not shift:
        return profile
    points = tuple(_moved(point, shift) for point in profile.points)
    try:
        return msgspec.structs.replace(profile, points=points, texts=(), examples=())
    except ValueError:
        return None


def _moved(point: Point, shift: int) -> Point:
    exponent = None if point.exponent_address is None else point.exponent_address + shift
    return msgspec.structs.replace(point, address=point.address + shift, exponent_address=exponent)


def rescaled(profile: DeviceProfile, power: int, slips: tuple[Slip, ...]) -> DeviceProfile:
    """The map with every scale times a power of ten, and single quantities put right beside that."""
    told = {name: slip for slip in slips for name in slip.points}
    points = tuple(_rescaled(point, power, told.get(point.name)) for point in profile.points)
    return msgspec.structs.replace(profile, points=points, examples=())


def _rescaled(point: Point, power: int, slip: Slip | None) -> Point:
    if not has_scale(point):
        return point
    unit = slip.unit if slip is not None else AS_IT_IS
    scale = point.scale * 10.0 ** (power + (slip.power if slip is not None else 0)) * unit.factor
    return msgspec.structs.replace(point, scale=_tidy(scale), offset=_tidy(point.offset * unit.factor + unit.offset))


def _tidy(number: float) -> float:
    """Without the dust of binary fractions: 0.1 * 10 ** -2 is 0.001."""
    return float(f"{number:.9g}")
