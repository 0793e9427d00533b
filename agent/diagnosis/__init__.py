"""From a score to a likely fault: the catalogue read as a table, causes ranked with an honest "unknown" among them.

Each fault collects evidence: how far a column deviates in the direction that the fault moves it, on a logarithmic scale
that begins at the catalogue's minimum, times the catalogue's weight. A softmax over all faults and an explicit
competitor "unknown" makes confidences of it, so that weak or contradictory evidence names no fault (below 60 % the
message says what was seen instead). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta

from agent.decision.alarm import clear_cause
from agent.decision.sensorwatch import SensorChange
from agent.decision.threshold import LimitChange
from agent.features.bearings import designation_of
from agent.vocabulary import F64, Cause, Evidence, Explanation, FeatureVector, OperatingPoint, Score, Severity
from agent.words import Words
from firmware_bridge.checked import Table, load
from firmware_bridge.units import suffix_of, unit_of

if TYPE_CHECKING:
    from agent.baseline import Baseline
    from agent.config import Machine

MAX_STRENGTH = 4.0  # beyond 8 times the minimum, more deviation says no more
UNKNOWN = 3.0  # what evidence has to beat: two shown columns of weight 1.5, or one of weight 2 at half as much again
MAX_CONFIDENCE = 0.95
MIN_TOLD = 0.05
SURELY_HIGH = 3.0  # an unclear deviation is high from this many times its threshold
N_EVIDENCE = 4
N_CAUSES = 3
# What kind of quantity a column is, so that an unclear alarm sends people to the right place: by its unit's suffix, and by the
# beginning of its name where the unit does not tell.
QUANTITY_OF_UNIT = {
    **dict.fromkeys(("m_s2", "mm_s", "g", "um"), "vibration"),
    **dict.fromkeys(("bar", "kpa", "m3_h", "l_min", "m"), "hydraulic"),
    **dict.fromkeys(("a", "v", "kw", "w", "kvar", "kva", "kwh", "nm", "wh_m3"), "electrical"),
    **dict.fromkeys(("rpm", "hz"), "speed"),
    **dict.fromkeys(("degc", "k"), "temperature"),
}
QUANTITY_OF_NAME = {
    **dict.fromkeys(
        ("vibration.", "spectrum.", "envelope.", "kurtosis", "crest", "peak_velocity_frequency"), "vibration"
    ),
    **dict.fromkeys(("power_factor", "motor_torque"), "electrical"),
}


class Sign(Table, frozen=True):
    """One column's evidence for (weight above 0) or against a fault."""

    column: str
    sign: Literal["high", "low"]
    weight: float
    min_deviation: Annotated[float, Meta(gt=0)]

    def matches(self, name: str) -> bool:
        """Whether a column of this name is meant."""
        return name.startswith(self.column[:-1]) if self.column.endswith("*") else name == self.column

    def strength(self, deviation: float) -> float:
        """0 up to half the minimum, 1 at it, 1 more for every doubling, at most 4."""
        towards = deviation if self.sign == "high" else -deviation
        if towards <= self.min_deviation / 2:
            return 0.0
        return min(MAX_STRENGTH, float(np.log2(towards / self.min_deviation)) + 1.0)


class Fault(Table, frozen=True):
    """One row of the catalogue."""

    id: str
    machines: tuple[str, ...]
    severity: Literal["crit", "high", "low"]
    act_within_h: Annotated[float, Meta(gt=0)]
    must: tuple[str, ...]
    source: str
    evidence: tuple[Sign, ...]

    def applies_to(self, machine_type: str) -> bool:
        return any(word in self.machines for word in machine_type.split("_"))


class Catalogue(Table, frozen=True):
    """The whole of catalogue.toml."""

    faults: tuple[Fault, ...]


@cache
def catalogue() -> Mapping[str, Fault]:
    """The faults by id."""
    with as_file(files(__name__) / "catalogue.toml") as path:
        return {fault.id: fault for fault in load(path, Catalogue).faults}


@dataclass(frozen=True, slots=True)
class _Shown:
    """A sign, the column that shows it best, and how strongly."""

    sign: Sign
    column: int
    strength: float


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What is known of a machine's columns when its score is explained; arrays of shape (n_columns,).

    Attributes:
        names: as `Column.name`. words: each in words. units: as printed.
        values: physical units, NaN where absent. normals: the learned normal, NaN where there is none.
        limits: the value at which the machine's score would be at its threshold, NaN where there is none.
        lines_hz: where the column's line stands, NaN where it has none.
        parts: "bearing", "bearing_short" and "point" in words, for the fault's sentence.
    """

    names: Sequence[str]
    words: Sequence[str]
    units: Sequence[str]
    values: F64
    normals: F64
    limits: F64
    lines_hz: F64
    parts: Mapping[str, str]

    def evidence(self, column: int, share: float) -> Evidence:
        """One column as a person reads it."""
        return Evidence(
            feature=self.names[column],
            words=self.words[column],
            value=float(self.values[column]),
            normal=_known(self.normals[column]),
            limit=_known(self.limits[column]),
            unit=self.units[column],
            share=share,
            frequency_hz=_known(self.lines_hz[column]),
        )


def diagnose(machine_type: str, score: Score, view: View, words: Words) -> tuple[Cause, ...]:
    """Likely faults of a machine, most likely first; empty when nothing of the catalogue fits at all.

    The confidences and that of "unknown" sum to at most 1, so a lonely weak sign stays below 0.6.
    """
    found = [
        (fault, _shown(fault, score, view.names)) for fault in catalogue().values() if fault.applies_to(machine_type)
    ]
    found = [(fault, shown) for fault, shown in found if _shows_what_it_must(fault, shown)]
    if not found:
        return ()
    totals = np.array([UNKNOWN, *(_total(shown, score) for _, shown in found)])
    likelihood = np.exp(totals - totals.max())
    confidences = np.minimum(likelihood / likelihood.sum(), MAX_CONFIDENCE)[1:]
    ranked = sorted(zip(confidences.tolist(), found, strict=True), key=lambda item: -item[0])
    return tuple(
        _cause(fault, shown, confidence, view, words)
        for confidence, (fault, shown) in ranked[:N_CAUSES]
        if confidence >= MIN_TOLD
    )


def explain(score: Score, view: View, causes: tuple[Cause, ...], words: Words) -> Explanation:
    """The score in the machine's own columns, the named fault's first; and what to do."""
    total = float(score.contributions[score.present].sum()) or 1.0
    shares = np.where(score.present, score.contributions, 0.0) / total
    named = clear_cause(Explanation((), causes, "", None, ""))
    own = _columns_of(catalogue()[named], view.names) if named else frozenset()
    order = sorted(np.flatnonzero(shares > 0), key=lambda column: (column not in own, -shares[column]))
    first = [column for column in order if column in own][: N_EVIDENCE // 2]
    rest = sorted((column for column in order if column not in first), key=lambda column: -shares[column])
    chosen = [int(column) for column in (*first, *rest)][:N_EVIDENCE]
    n_present = int(score.present.sum())
    complete = n_present == len(view.names)
    return Explanation(
        evidence=tuple(view.evidence(column, float(shares[column])) for column in chosen),
        causes=causes,
        action=words.action(named, view.parts)
        if named
        else words.unclear_action(_leading_quantity(view.names, chosen)),
        act_within_h=catalogue()[named].act_within_h if named else None,
        data_quality=words.say("quality", "good" if complete else "partly", present=n_present, columns=len(view.names)),
    )


def quantity_of(name: str) -> str:
    """The kind of quantity behind a column's or channel's name, a key of [unclear_action]; "" for one of no such kind."""
    channel = name.partition(":")[0].partition("[")[0]
    for beginning, quantity in QUANTITY_OF_NAME.items():
        if channel.startswith(beginning):
            return quantity
    try:
        return QUANTITY_OF_UNIT.get(suffix_of(channel), "")
    except ValueError:
        return ""


def _leading_quantity(names: Sequence[str], chosen: Sequence[int]) -> str:
    return quantity_of(names[chosen[0]]) if chosen else ""


def _shown(fault: Fault, score: Score, names: Sequence[str]) -> list[_Shown]:
    """Every sign of a fault that is measured, by the column that shows it best."""
    shown = []
    for sign in fault.evidence:
        strengths = [
            (sign.strength(float(score.deviations[column])), column)
            for column, name in enumerate(names)
            if score.present[column] and sign.matches(name)
        ]
        if strengths:
            strength, column = max(strengths)
            shown.append(_Shown(sign, column, strength))
    return shown


def _shows_what_it_must(fault: Fault, shown: Sequence[_Shown]) -> bool:
    seen = {item.sign.column for item in shown if item.sign.weight > 0 and item.strength >= 1}
    return set(fault.must) <= seen


def _total(shown: Sequence[_Shown], score: Score) -> float:
    """Evidence, and a little for how much of the score the fault explains."""
    own = {item.column for item in shown if item.sign.weight > 0 and item.strength > 0}
    total = float(score.contributions[score.present].sum()) or 1.0
    share = float(sum(score.contributions[column] for column in own)) / total
    return sum(item.sign.weight * item.strength for item in shown) + 2 * min(share, 1.0) - 1


def _cause(fault: Fault, shown: Sequence[_Shown], confidence: float, view: View, words: Words) -> Cause:
    speaks_for = [item for item in shown if item.sign.weight > 0 and item.strength >= 1]
    contradicts = [item for item in shown if item.sign.weight < 0 and item.strength >= 1]
    lacks = [item for item in shown if item.sign.weight >= 0.4 and item.strength == 0]
    return Cause(
        fault=fault.id,
        words=words.fault(fault.id, view.parts),
        confidence=round(confidence, 3),
        evidence_for=tuple(words.evidence(view.evidence(item.column, 0.0)) for item in _strongest(speaks_for)),
        evidence_against=(
            *(words.evidence(view.evidence(item.column, 0.0)) for item in _strongest(contradicts)),
            *(words.say("evidence", "as_normal", what=view.words[item.column]) for item in lacks),
        ),
    )


def _strongest(items: Sequence[_Shown]) -> list[_Shown]:
    return sorted(items, key=lambda item: -abs(item.sign.weight * item.strength))


def _columns_of(fault: Fault, names: Sequence[str]) -> frozenset[int]:
    """The columns that speak for a fault by themselves: those it must show."""
    signs = [sign for sign in fault.evidence if sign.column in fault.must]
    return frozenset(column for column, name in enumerate(names) if any(sign.matches(name) for sign in signs))


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# ---------------------------------------------------------------------- what the machine's watch asks


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation, how bad it is, and the fault's id where it is clear enough to be named."""

    explanation: Explanation
    severity: Severity
    clear_cause: str


class Diagnosis:
    """Explains scores, limits and sensor faults of machines in one language."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def of_score(
        self, machine: Machine, vector: FeatureVector, score: Score, baseline: Baseline, point: OperatingPoint
    ) -> Explained:
        """Why the machine's score is where it is."""
        view = self._view(machine, vector, score, baseline, point)
        causes = diagnose(machine.profile.type, score, view, self._words)
        explanation = explain(score, view, causes, self._words)
        named = clear_cause(explanation)
        if named:
            severity = Severity(catalogue()[named].severity)
        else:
            severity = Severity.HIGH if score.value >= SURELY_HIGH * score.threshold else Severity.LOW
        return Explained(explanation, severity, named)

    def of_limit(self, machine: Machine, change: LimitChange) -> Explanation:
        """Why a protective limit spoke: it says what is wrong by itself."""
        limit, parts = change.limit, parts_of(machine)
        seen = Evidence(
            feature=limit.channel,
            words=self._words.channel(limit.channel),
            value=float(change.value),
            normal=_known(change.normal) if change.normal is not None else None,
            limit=_known(change.bound),
            unit=printed_unit(limit.channel),
            share=1.0,
        )
        fault = catalogue().get(limit.fault)
        return Explanation(
            evidence=(seen,),
            causes=(Cause(limit.fault, self._words.fault(limit.fault, parts), 1.0),),
            action=self._words.action(limit.fault, parts),
            act_within_h=fault.act_within_h if fault else None,
            data_quality=self._words.say("quality", "good"),
        )

    def of_sensor(self, machine: Machine, change: SensorChange) -> Explanation:
        """What is wrong with a sensor, and what it means for its machine."""
        seen = Evidence(
            feature=f"{change.sensor}: {', '.join(change.points)}" if change.points else change.sensor,
            words=self._words.say("sensor", change.fault, sensor=change.sensor),
            value=float(change.duration_s),
            normal=None,
            limit=None,
            unit="s",
            share=1.0,
        )
        return Explanation(
            evidence=(seen,),
            causes=(),
            action=self._words.say("sensor_action", change.fault),
            act_within_h=None,
            data_quality=self._words.say("quality", "sensor"),
        )

    def _view(
        self, machine: Machine, vector: FeatureVector, score: Score, baseline: Baseline, point: OperatingPoint
    ) -> View:
        columns = machine.features.columns
        transforms = [column.transform for column in columns]
        return View(
            names=machine.features.names,
            words=[
                self._words.column(column.name, feature.words, _band_hz(machine, column.name))
                for column, feature in zip(columns, machine.features.features, strict=True)
            ],
            units=[printed_unit(column.quantity) for column in columns],
            values=np.asarray(vector.values, np.float64),
            normals=np.asarray(baseline.normal, np.float64),
            limits=limits_of(score, baseline.location, baseline.scale, transforms),
            lines_hz=np.asarray(machine.features.lines_hz(machine.nameplate, point), np.float64),
            parts=parts_of(machine),
        )


def limits_of(score: Score, location: F64, scale: F64, transforms: Sequence[str]) -> F64:
    """Where each column would stand if the whole vector were moved back until its score is at the threshold.

    The score is quadratic in the deviations, so that is at sqrt(threshold / score) of each of them. Shape (n_columns,).
    """
    if score.value <= 0:
        return np.full(len(transforms), np.nan)
    at = location + scale * score.deviations * np.sqrt(score.threshold / score.value)
    is_log = np.array([transform == "log" for transform in transforms])
    limits: F64 = np.where(is_log, np.exp(np.clip(at, -60.0, 60.0)), at)
    return limits


def parts_of(machine: Machine) -> dict[str, str]:
    """The machine's own parts in words: its first bearing and where its burst sensor sits."""
    parts = {"point": machine.profile.point_name}
    for place, bearing in machine.spec.bearings.items():
        parts["bearing_short"] = f"{place.upper()} bearing"
        parts["bearing"] = f"{place.upper()} bearing {designation_of(bearing)}".rstrip()
        break
    return parts


def printed_unit(name: str) -> str:
    """The unit behind a number; a ratio to a floor is printed as a multiple."""
    if name.startswith("envelope.") and name.endswith("_ratio"):
        return "x"
    try:
        return unit_of(name)
    except ValueError:
        return ""


def _band_hz(machine: Machine, name: str) -> tuple[float, float] | None:
    _, found, band = name.partition("[band=")
    return machine.features.bands_hz[int(band.rstrip("]"))] if found else None
