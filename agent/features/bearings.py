"""Bearing frequencies as multiples of shaft speed: from the user's own numbers, or by designation from config/bearings.toml."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from firmware_bridge.checked import Table, load
from firmware_bridge.errors import ConfigError, Problem

Positive = Annotated[float, Meta(gt=0)]
GEOMETRY = ("n_elements", "element_mm", "pitch_mm", "contact_angle_deg")
ORDERS = ("bpfo", "bpfi", "bsf", "ftf")
ROUNDED = 0.05  # of a number of elements: makers print their factors with two decimals or three
FTF_TOLERANCE = 0.02  # of bpfo against n ftf, for the same reason
BSF_RANGE = (0.5, 1.05)  # times its value at contact angle 0; 0.5 is the cosine of 60 degrees


@dataclass(frozen=True, slots=True)
class BearingOrders:
    """How often per shaft turn a ball passes an outer or inner defect (bpfo, bpfi), spins (bsf), the cage turns (ftf).

    A defect on a ball strikes both races, so it is heard at twice `bsf`. Slip makes the real values differ by 1 to 2 %.
    """

    bpfo: float
    bpfi: float
    bsf: float
    ftf: float


class Geometry(Table, frozen=True):
    """What the orders follow from: rolling elements, their diameter, that of the circle of their centres, contact angle."""

    n_elements: Annotated[int, Meta(ge=3)]
    element_mm: Positive
    pitch_mm: Positive
    contact_angle_deg: Annotated[float, Meta(ge=0, lt=90)] = 0.0

    def __post_init__(self) -> None:
        """Raises: ValueError: elements that do not fit on their circle."""
        if self.element_mm >= self.pitch_mm:
            raise ValueError(
                f"element_mm = {self.element_mm:g} is not below pitch_mm = {self.pitch_mm:g}; the pitch is the diameter "
                "of the circle of the elements' centres, about the mean of bore and outside diameter"
            )
        if self.n_elements * math.asin(self.element_mm / self.pitch_mm) > math.pi:
            raise ValueError(
                f"{self.n_elements} elements of {self.element_mm:g} mm do not fit on a circle of {self.pitch_mm:g} mm; "
                "look at n_elements, element_mm and pitch_mm again"
            )

    @property
    def orders(self) -> BearingOrders:
        return orders_of_geometry(self.n_elements, self.element_mm, self.pitch_mm, self.contact_angle_deg)


class Bearing(Geometry, frozen=True, kw_only=True):
    """One row of the table: geometry is the definition, the printed factors are there to check it against."""

    designation: str
    source: str
    bpfo: Positive
    bpfi: Positive
    bsf: Positive
    ftf: Positive


class BearingTable(Table, frozen=True):
    bearings: tuple[Bearing, ...]


def orders_of_geometry(
    n_elements: int, element_mm: float, pitch_mm: float, contact_angle_deg: float = 0.0
) -> BearingOrders:
    """Kinematics of pure rolling, outer ring at rest.

    Args: rolling elements, their diameter, the diameter of the circle of their centres, the contact angle.
    Source: NPTEL 112103024, example 15.2: with r = (d/D) cos(phi), FTF = (1 - r)/2, BPFO = n FTF, BPFI = n (1 + r)/2,
        BSF = D/(2 d) (1 - r^2).
    """
    r = element_mm / pitch_mm * math.cos(math.radians(contact_angle_deg))
    return BearingOrders(
        bpfo=n_elements / 2 * (1 - r),
        bpfi=n_elements / 2 * (1 + r),
        bsf=pitch_mm / (2 * element_mm) * (1 - r * r),
        ftf=(1 - r) / 2,
    )


@lru_cache(maxsize=4)
def load_bearings(root: Path) -> tuple[Bearing, ...]:
    """All rows of <root>/bearings.toml; read once a process, for every bearing of a site asks for them.

    Raises: ConfigError: the file is wrong.
    """
    return load(root / "bearings.toml", BearingTable).bearings


def bearing_orders(root: Path, designation: str) -> BearingOrders:
    """The orders of a bearing by its designation; suffixes for seals and clearance ("6308-2Z/C3") do not change them.

    Args: root: the config folder.
    Raises: ConfigError: not in the table; the message lists near ones and says what to write instead.
    """
    rows = {row.designation: row for row in load_bearings(root)}
    asked = designation.upper().replace(" ", "")
    row = rows.get(asked) or rows.get(asked.partition("/")[0].partition("-")[0])
    if row is None:
        near = difflib.get_close_matches(asked, rows, 3, 0.5) or sorted(rows)
        text = (
            f"is not in the table; it has {', '.join(near)}. "
            "Write its geometry instead of its name: { n_elements = 8, element_mm = 15.1, pitch_mm = 65 }"
        )
        raise ConfigError(root / "bearings.toml", [Problem(0, f'bearing "{designation}"', text)])
    return row.orders


def own_orders(own: object) -> BearingOrders:
    """The orders of a bearing that the site file describes itself: a table of GEOMETRY or of ORDERS, the maker's factors.

    Raises: ValueError: which number is missing, unknown, or does not fit the others, and what to write.
    """
    if not isinstance(own, Mapping):
        raise ValueError(f'is {own}; write its designation in quotes, "6308", or its numbers in braces')
    numbers = {name: _number(name, value) for name, value in own.items() if name != "designation"}
    if not isinstance(own.get("designation", ""), str):
        raise ValueError(f'designation = {own["designation"]}: write it in quotes, "{own["designation"]}"')
    given = ORDERS if numbers.keys() & set(ORDERS) else GEOMETRY
    if numbers.keys() - set(given):
        raise ValueError(f"gives geometry and factors; write either {', '.join(GEOMETRY)} or {', '.join(ORDERS)}")
    if missing := [name for name in given if name not in numbers and name != "contact_angle_deg"]:
        raise ValueError(f"lacks {', '.join(missing)}; write all of {', '.join(given)}")
    if given is GEOMETRY:
        return _geometry(numbers).orders
    orders = BearingOrders(**numbers)
    _check_orders(orders)
    return orders


def designation_of(bearing: str | Mapping[str, Any]) -> str:
    """What to print of a site's bearing; "" for an own one without a name."""
    return bearing if isinstance(bearing, str) else str(bearing.get("designation", ""))


def _number(name: str, value: object) -> float:
    known = (*GEOMETRY, *ORDERS, "designation")
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.6)
        hint = f"Did you mean {near[0]!r}?" if near else f"Here go {', '.join(known)}"
        raise ValueError(f"{name}: no such key. {hint}")
    least = "at least 0" if name == "contact_angle_deg" else "above 0"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} = {value}: write a number {least}, without quotes")
    if value < 0 or (value == 0 and least == "above 0"):
        raise ValueError(f"{name} = {value}: write a number {least}")
    return value


def _geometry(numbers: Mapping[str, float]) -> Geometry:
    n_elements, angle_deg = numbers["n_elements"], numbers.get("contact_angle_deg", 0.0)
    if n_elements != int(n_elements) or n_elements < 3:
        raise ValueError(f"n_elements = {n_elements:g}: write a whole number, at least 3")
    if angle_deg >= 90:
        raise ValueError(f"contact_angle_deg = {angle_deg:g}: write less than 90")
    return Geometry(
        n_elements=int(n_elements),
        element_mm=numbers["element_mm"],
        pitch_mm=numbers["pitch_mm"],
        contact_angle_deg=angle_deg,
    )


def _check_orders(orders: BearingOrders) -> None:
    """Whether a maker's four factors can belong to one bearing: BPFO + BPFI = n, BPFO = n FTF, BSF as r says."""
    bpfo, bpfi, bsf, ftf = astuple(orders)
    if bpfo >= bpfi:
        raise ValueError(
            f"bpfo = {bpfo:g} is not below bpfi = {bpfi:g}; they look exchanged, the outer race's is lower"
        )
    if ftf >= 0.5:
        raise ValueError(f"ftf = {ftf:g} is not below 0.5; all four are multiples of shaft speed, not Hz")
    n_elements = round(bpfo + bpfi)
    if n_elements < 3 or abs(bpfo + bpfi - n_elements) > ROUNDED:
        raise ValueError(_not_whole(orders))
    if abs(bpfo - n_elements * ftf) > FTF_TOLERANCE * bpfo:
        raise ValueError(
            f"ftf = {ftf:g} looks wrong: with {n_elements} elements and bpfo = {bpfo:g} it is {bpfo / n_elements:.3f}"
        )
    r = (bpfi - bpfo) / n_elements
    bsf_at_0_deg = (1 - r * r) / (2 * r)
    low, high = (bound * bsf_at_0_deg for bound in BSF_RANGE)
    if not low <= bsf <= high:
        raise ValueError(
            f"bsf = {bsf:g} looks wrong: by bpfo and bpfi it is at most {bsf_at_0_deg:.3f}. Write the ball's spin frequency "
            "once; some makers print the defect frequency of the ball, which is twice that"
        )


def _not_whole(orders: BearingOrders) -> str:
    """Which of bpfo and bpfi is the wrong one, told by the cage: n = BPFO / FTF = BPFI / (1 - FTF)."""
    bpfo, bpfi, _, ftf = astuple(orders)
    text = f"bpfo + bpfi = {bpfo + bpfi:g} is no whole number of elements from 3 up"
    for name, right, n_elements in (("bpfi", bpfo, bpfo / ftf), ("bpfo", bpfi, bpfi / (1 - ftf))):
        if abs(n_elements - round(n_elements)) <= 2 * ROUNDED:
            return f"{text}; by ftf there are {round(n_elements)}, so {name} would be {round(n_elements) - right:.3f}"
    return f"{text}; look at bpfo, bpfi and ftf again"
