"""The fault catalogue as a table: what each fault does to the columns of a machine, how bad it is, what it is mistaken for.

catalogue.toml holds it; words, actions and the checks that tell two faults apart are in agent/words.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import as_file, files
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from firmware_bridge.checked import Table, load

MAX_STRENGTH = 4.0  # from 8 times the minimum on, more deviation says no more

Name = Annotated[str, Meta(min_length=1)]


class Sign(Table, frozen=True):
    """One column's evidence for (weight above 0) or against a fault: it is high, low, or as normal."""

    column: Name
    sign: Literal["high", "low", "normal"]
    weight: float
    min_deviation: Annotated[float, Meta(gt=0)] = 4.0

    def matches(self, name: str) -> bool:
        """Whether a column of this name is meant."""
        return name.startswith(self.column[:-1]) if self.column.endswith("*") else name == self.column

    def strength(self, deviation: float) -> float:
        """0 up to half the minimum, 1 at it, 1 more for every doubling, at most 4; "normal": 1 up to half, 0 from it on."""
        if self.sign == "normal":
            return float(np.clip(2.0 - 2.0 * abs(deviation) / self.min_deviation, 0.0, 1.0))
        towards = deviation if self.sign == "high" else -deviation
        if towards <= self.min_deviation / 2:
            return 0.0
        return min(MAX_STRENGTH, float(np.log2(towards / self.min_deviation)) + 1.0)


class Fault(Table, frozen=True):
    """One row of the catalogue.

    Attributes:
        code: of the fault tables of the field: M machine, B bearing, E electrical, P pump.
        must: of each of these groups of columns at least one has to show its evidence, or the fault is not named.
        kin: the wider name of it and its like, for when it is one of them and nobody knows which.
        rarity: how much more evidence it needs than a common fault that looks like it.
        confused_with: what it is mistaken for; each pair has a sentence in [tell_apart] of the words.
    """

    id: str
    code: str
    machines: tuple[str, ...]
    severity: Literal["crit", "high", "low"]
    act_within_h: Annotated[float, Meta(gt=0)]
    source: str
    must: tuple[tuple[Name, ...], ...] = ()
    evidence: tuple[Sign, ...] = ()
    kin: str = ""
    rarity: Annotated[float, Meta(ge=0)] = 0.0
    confused_with: tuple[str, ...] = ()

    def applies_to(self, machine_type: str) -> bool:
        """Whether machines of this type can have it, and signals can show it."""
        return bool(self.evidence) and any(word in self.machines for word in machine_type.split("_"))

    @property
    def own_columns(self) -> frozenset[str]:
        """The columns that speak for it by themselves: those it must show."""
        return frozenset(column for group in self.must for column in group)


class Catalogue(Table, frozen=True):
    """The whole of catalogue.toml."""

    faults: tuple[Fault, ...]


@cache
def catalogue() -> Mapping[str, Fault]:
    """The faults by id."""
    with as_file(files(__package__) / "catalogue.toml") as path:
        return {fault.id: fault for fault in load(path, Catalogue).faults}
