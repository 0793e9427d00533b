"""From deviations to ranked causes: evidence added up, and confidences that mean what they say.

Each fault collects evidence: how far a column deviates in the direction that the fault moves it, on a logarithmic scale
that begins at the catalogue's minimum, times the catalogue's weight; and a share for how much of all that deviates it explains.
A softmax over all faults and an explicit competitor "unknown" makes confidences of it, so that weak or contradictory evidence
names no fault. Its temperature and the competitor are fitted on simulated faults of machines with other seeds, some of which
the catalogue was made to forget (training/confidence.py): of the causes told with 80 to 90 %, so many are right. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from agent.decision.alarm import CLEAR_CONFIDENCE
from agent.diagnosis.faults import Fault, Sign, catalogue
from agent.vocabulary import F32, F64, Mask

NOTICED = Sign("", "high", 1.0)  # how much of a deviation has to be explained at all


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes confidences of evidence.

    Attributes:
        unknown: what a fault's evidence has to beat. temperature: evidence per factor e of odds.
        explaining: evidence for a fault that explains everything that deviates.
    """

    unknown: float = 7.0
    temperature: float = 1.4
    explaining: float = 6.0
    most: float = 0.95


CALIBRATION = Calibration()


@dataclass(frozen=True, slots=True)
class Shown:
    """A sign, the column that shows it best, and how strongly."""

    sign: Sign
    column: int
    strength: float

    @property
    def speaks_for(self) -> bool:
        return self.sign.weight > 0 and self.strength >= 1

    @property
    def contradicts(self) -> bool:
        return self.sign.weight < 0 and self.strength >= 1

    @property
    def lacks(self) -> bool:
        """Measured, of weight, and not to be seen."""
        return self.sign.weight >= 0.4 and self.sign.sign != "normal" and self.strength == 0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A fault with its evidence in sum and its confidence, 0..1."""

    fault: Fault
    shown: tuple[Shown, ...]
    evidence: float
    confidence: float


def ranked(
    faults: Sequence[Fault],
    names: tuple[str, ...],
    deviations: F32 | F64,
    present: Mask,
    calibration: Calibration = CALIBRATION,
) -> tuple[Ranked, ...]:
    """The faults that show what they must, most likely first; their confidences and that of "unknown" sum to at most 1.

    Args: deviations, present: shape (n_columns,), in robust standard deviations.
    """
    noticed = np.array([NOTICED.strength(abs(float(z))) for z in deviations]) * present
    weighed = []
    for fault in faults:
        shown = _shown(fault, names, deviations, present)
        if _shows_what_it_must(fault, shown):
            weighed.append((fault, shown, _evidence(fault, shown, noticed, names, deviations, calibration)))
    if not weighed:
        return ()
    totals = np.array([calibration.unknown, *(evidence for _, _, evidence in weighed)]) / calibration.temperature
    likelihood = np.exp(totals - totals.max())
    confidences = np.minimum(likelihood / likelihood.sum(), calibration.most)[1:].tolist()
    found = [Ranked(*one, confidence) for one, confidence in zip(weighed, confidences, strict=True)]
    return tuple(sorted(found, key=lambda one: -one.confidence))


def with_kin(found: Sequence[Ranked]) -> tuple[Ranked, ...]:
    """Where no fault is clear, but the leading one and its kin are together, their wider name leads."""
    if not found or found[0].confidence >= CLEAR_CONFIDENCE or not found[0].fault.kin:
        return tuple(found)
    kin = catalogue()[found[0].fault.kin]
    together = min(sum(one.confidence for one in found if one.fault.kin == kin.id), CALIBRATION.most)
    if together < CLEAR_CONFIDENCE:
        return tuple(found)
    return (Ranked(kin, found[0].shown, found[0].evidence, together), *found)


def faults_of(machine_type: str) -> tuple[Fault, ...]:
    """The rows of the catalogue that machines of this type can have."""
    return tuple(fault for fault in catalogue().values() if fault.applies_to(machine_type))


def _shown(fault: Fault, names: tuple[str, ...], deviations: F32 | F64, present: Mask) -> tuple[Shown, ...]:
    """Every sign of a fault that is measured, by the column that shows it best."""
    shown = []
    for sign in fault.evidence:
        measured = [column for column in columns_of(sign, names) if present[column]]
        if measured:
            strength, column = max((sign.strength(float(deviations[column])), column) for column in measured)
            shown.append(Shown(sign, column, strength))
    return tuple(shown)


@lru_cache(maxsize=4096)
def columns_of(sign: Sign, names: tuple[str, ...]) -> tuple[int, ...]:
    """Where a sign may be seen."""
    return tuple(at for at, name in enumerate(names) if sign.matches(name))


def _shows_what_it_must(fault: Fault, shown: Sequence[Shown]) -> bool:
    seen = {item.sign.column for item in shown if item.speaks_for}
    return all(seen.intersection(group) for group in fault.must)


def _evidence(
    fault: Fault,
    shown: Sequence[Shown],
    noticed: F64,
    names: tuple[str, ...],
    deviations: F32 | F64,
    calibration: Calibration,
) -> float:
    """Weights times strengths, what it explains of all that deviates, less how rare it is."""
    own = {
        column
        for sign in fault.evidence
        if sign.weight > 0
        for column in columns_of(sign, names)
        if sign.sign != "normal" and sign.strength(float(deviations[column])) > 0
    }
    share = float(noticed[sorted(own)].sum()) / max(float(noticed.sum()), 1.0)
    return sum(item.sign.weight * item.strength for item in shown) + calibration.explaining * share - fault.rarity
