"""Bearing frequencies as multiples of shaft speed, from the bearing's geometry: config/bearings.toml."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from firmware_bridge.checked import Table, load
from firmware_bridge.errors import ConfigError, Problem

Positive = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class BearingOrders:
    """How often per shaft turn a ball passes an outer or inner defect (bpfo, bpfi), spins (bsf), the cage turns (ftf).

    A defect on a ball strikes both races, so it is heard at twice `bsf`. Slip makes the real values differ by 1 to 2 %.
    """

    bpfo: float
    bpfi: float
    bsf: float
    ftf: float


class Bearing(Table, frozen=True, kw_only=True):
    """One row of the table: geometry is the definition, the printed factors are there to check it against."""

    designation: str
    n_elements: Annotated[int, Meta(ge=3)]
    element_mm: Positive
    pitch_mm: Positive
    source: str
    contact_angle_deg: Annotated[float, Meta(ge=0, lt=90)] = 0.0
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


def load_bearings(root: Path) -> tuple[Bearing, ...]:
    """All rows of <root>/bearings.toml.

    Raises: ConfigError: the file is wrong.
    """
    return load(root / "bearings.toml", BearingTable).bearings


def bearing_orders(root: Path, designation: str) -> BearingOrders:
    """The orders of a bearing by its designation; suffixes for seals and clearance ("6308-2Z/C3") do not change them.

    Args: root: the config folder.
    Raises: ConfigError: not in the table; the message lists near ones and says what to write instead.
    """
    rows = {row.designation: row for row in load_bearings(root)}
    asked = designation.strip().upper()
    row = rows.get(asked) or rows.get(asked.partition("/")[0].partition("-")[0].strip())
    if row is None:
        near = difflib.get_close_matches(asked, rows, 3, 0.5) or sorted(rows)
        text = (
            f"is not in the table; it has {', '.join(near)}. Add its geometry (n_elements, element_mm, pitch_mm) there"
        )
        raise ConfigError(root / "bearings.toml", [Problem(0, f'bearing "{designation}"', text)])
    return orders_of_geometry(row.n_elements, row.element_mm, row.pitch_mm, row.contact_angle_deg)
