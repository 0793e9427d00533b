"""Why an alarm stands and what to do about it: scores, limits, sensor faults and first looks explained to people.

The catalogue (catalogue.toml, faults.py) is read as a table, causes are ranked with an honest "unknown" among them
(ranking.py), the part of a bearing is judged from bursts by physics alone (bearing.py), and a machine that is already bad
is recognised without any learned normal (day_one.py). Below 60 % the message says what was seen instead of a cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.decision.alarm import clear_cause
from agent.decision.sensorwatch import SensorChange
from agent.decision.threshold import LimitChange
from agent.diagnosis.bearing_evidence import is_in_question, verdict_of, with_verdict
from agent.diagnosis.day_one import findings
from agent.diagnosis.faults import Fault, catalogue
from agent.diagnosis.ranking import Ranked, Shown, columns_of, faults_of, ranked, with_kin
from agent.diagnosis.view import View, known, limits_of, normals_of, parts_of, printed_unit, quantity_of, view_of
from agent.vocabulary import (
    Cause,
    Evidence,
    Explanation,
    FeatureVector,
    OperatingPoint,
    Score,
    Severity,
    Window,
)
from agent.words import Words

if TYPE_CHECKING:
    from agent.baseline import Baseline
    from agent.config import Machine

__all__ = ["Diagnosis", "Explained", "View", "catalogue", "diagnose", "explain", "limits_of", "parts_of"]

MIN_TOLD = 0.05
CRITICAL_H = 24.0  # in zone D damage is being done
SURELY_HIGH = 3.0  # an unclear deviation is high from this many times its threshold
N_EVIDENCE = 3
N_CAUSES = 3
# Lines for, and as many against, the leading cause and each other one: a message is to stay about 2 kB.
N_LINES, N_LINES_OF_OTHERS = 3, 1
CERTAIN = 1.0  # a limit says by itself what is wrong


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation, how bad it is, and the fault's id where it is clear enough to be named."""

    explanation: Explanation
    severity: Severity
    clear_cause: str


def diagnose(machine_type: str, score: Score, view: View, words: Words) -> tuple[Cause, ...]:
    """Likely faults of a machine, most likely first; empty when nothing of the catalogue fits at all.

    Where no fault is clear but several of one kin are together, their wider name leads, with their confidence in sum.
    """
    found = with_kin(ranked(faults_of(machine_type), view.names, score.deviations, score.present))
    likely = [one for one in found if one.confidence >= MIN_TOLD][:N_CAUSES]
    return tuple(_cause(one, view, words, N_LINES_OF_OTHERS if at else N_LINES) for at, one in enumerate(likely))


def explain(score: Score, view: View, causes: tuple[Cause, ...], words: Words) -> Explanation:
    """The score in the machine's own columns, the named fault's first; and what to do."""
    total = float(score.contributions[score.present].sum()) or 1.0
    shares = np.where(score.present, score.contributions, 0.0) / total
    named = clear_cause(Explanation((), causes, "", None, ""))
    own = _own_columns(named, view.names)
    by_share = sorted(np.flatnonzero(shares > 0).tolist(), key=lambda column: -shares[column])
    first = [column for column in by_share if column in own][: N_EVIDENCE // 2]
    chosen = [*first, *(column for column in by_share if column not in first)][:N_EVIDENCE]
    leading = quantity_of(view.names[chosen[0]]) if chosen else ""
    return Explanation(
        evidence=tuple(view.evidence(column, float(shares[column])) for column in chosen),
        causes=causes,
        action=words.action(named, view.parts) if named else words.unclear_action(leading),
        act_within_h=catalogue()[named].act_within_h if named else None,
        data_quality=_data_quality(score, words),
        tell_apart=_tell_apart(causes, words, view.parts),
    )


class Diagnosis:
    """Explains scores, limits, sensor faults and first looks at machines in one language."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def of_score(
        self,
        machine: Machine,
        vector: FeatureVector,
        score: Score,
        baseline: Baseline,
        point: OperatingPoint,
        bursts: Sequence[Window] = (),
    ) -> Explained:
        """Why the machine's score is where it is.

        Args: bursts: the last few of its burst sensor, newest last; looked at only where a bearing is in question.
        """
        view = self._view(machine, vector, score, baseline, point)
        causes = self._causes(machine, score, view, point, bursts)
        explanation = explain(score, view, causes, self._words)
        named = clear_cause(explanation)
        if named:
            severity = Severity(catalogue()[named].severity)
        else:
            severity = Severity.HIGH if score.value >= SURELY_HIGH * score.threshold else Severity.LOW
        return Explained(explanation, severity, named)

    def of_day_one(
        self, machine: Machine, vector: FeatureVector, point: OperatingPoint, bursts: Sequence[Window] = ()
    ) -> Explained | None:
        """What is wrong for certain, by absolute physics alone: before anything is learned, and whatever was learned.

        None where nothing is beyond an absolute limit; that does not say that the machine is well.
        """
        view = view_of(machine, vector, point, self._words)
        found = findings(machine, view, verdict_of(machine, point, bursts), self._words)
        if not found:
            return None
        causes = tuple(one.cause for one in found if one.cause is not None)[:N_CAUSES]
        named = clear_cause(Explanation((), causes, "", None, ""))
        explanation = Explanation(
            evidence=tuple(one.evidence for one in found)[:N_EVIDENCE],
            causes=causes,
            action=self._words.action(named, view.parts)
            if named
            else self._words.unclear_action(quantity_of(found[0].evidence.feature)),
            act_within_h=catalogue()[named].act_within_h if named else None,
            data_quality=self._words.say("quality", "day_one"),
            tell_apart=_tell_apart(causes, self._words, view.parts),
        )
        severity = max((one.severity for one in found), key=_RANK.index)
        if severity is Severity.CRIT and explanation.act_within_h is not None:  # a norm's last zone leaves less time
            explanation = replace(explanation, act_within_h=min(explanation.act_within_h, CRITICAL_H))
        return Explained(explanation, severity, named)

    def of_new_baseline(
        self,
        machine: Machine,
        kind: str,
        vector: FeatureVector,
        score: Score,
        baseline: Baseline,
        point: OperatingPoint,
        moved: Sequence[int] = (),
    ) -> Explanation:
        """Why what is measured now cannot be compared with what was learned, and how to confirm a new normal.

        Args: kind: a key of [new_baseline]: "remounted", "another_machine" or "serviced". moved: the columns that say so.
        """
        view = self._view(machine, vector, score, baseline, point)
        seen = explain(score, view, (), self._words)
        if moved:
            seen = replace(seen, evidence=tuple(view.evidence(column, 0.0) for column in moved))
        return replace(seen, action=self._words.say("new_baseline_action", kind, machine=machine.tag))

    def of_limit(self, machine: Machine, change: LimitChange) -> Explanation:
        """Why a protective limit spoke: it says what is wrong by itself."""
        limit, parts = change.limit, parts_of(machine)
        seen = Evidence(
            feature=limit.channel,
            words=self._words.channel(limit.channel),
            value=float(change.value),
            normal=known(change.normal) if change.normal is not None else None,
            limit=known(change.bound),
            unit=printed_unit(limit.channel),
            share=1.0,
        )
        fault = catalogue().get(limit.fault)
        return Explanation(
            evidence=(seen,),
            causes=(Cause(limit.fault, self._words.fault(limit.fault, parts), CERTAIN),),
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

    def _causes(
        self, machine: Machine, score: Score, view: View, point: OperatingPoint, bursts: Sequence[Window]
    ) -> tuple[Cause, ...]:
        if is_in_question(view.names, score):
            verdict = verdict_of(machine, point, bursts)
            if verdict is not None:
                score, view = with_verdict(score, view, verdict, self._words)
        return diagnose(machine.profile.type, score, view, self._words)

    def _view(
        self, machine: Machine, vector: FeatureVector, score: Score, baseline: Baseline, point: OperatingPoint
    ) -> View:
        transforms = [column.transform for column in machine.features.columns]
        return replace(
            view_of(machine, vector, point, self._words),
            normals=normals_of(vector, baseline, transforms),
            limits=limits_of(score, baseline.expected(vector.covariates), baseline.scale, transforms),
        )


_RANK = (Severity.INFO, Severity.LOW, Severity.HIGH, Severity.CRIT)


def _cause(one: Ranked, view: View, words: Words, n_lines: int) -> Cause:
    def told(items: Sequence[Shown]) -> tuple[str, ...]:
        strongest = sorted(items, key=lambda item: -abs(item.sign.weight * item.strength))
        columns = dict.fromkeys(item.column for item in strongest if item.sign.sign != "normal")
        return tuple(words.evidence(view.evidence(column, 0.0)) for column in columns)

    as_normal = [item.column for item in one.shown if item.sign.sign == "normal" and item.speaks_for]
    lacking = [item.column for item in one.shown if item.lacks]
    return Cause(
        fault=one.fault.id,
        words=words.fault(one.fault.id, view.parts),
        confidence=round(one.confidence, 3),
        evidence_for=(
            *told([item for item in one.shown if item.speaks_for]),
            *(words.say("evidence", "as_normal", what=view.words[column]) for column in as_normal),
        )[:n_lines],
        evidence_against=(
            *told([item for item in one.shown if item.contradicts]),
            *(words.say("evidence", "as_normal", what=view.words[column]) for column in lacking),
        )[:n_lines],
    )


def _tell_apart(causes: Sequence[Cause], words: Words, parts: Mapping[str, str]) -> str:
    """What would tell the leading cause from the next one: of a kin, its two likeliest members."""
    own = [cause.fault for cause in causes if catalogue().get(cause.fault, _NO_FAULT).evidence]
    return words.tell_apart(own[0], own[1], parts) if len(own) > 1 else ""


_NO_FAULT = Fault("", "", (), "low", 1.0, "")


def _own_columns(fault: str, names: tuple[str, ...]) -> frozenset[int]:
    """The columns that speak for a fault by themselves: those it, or one of its kin, must show."""
    rows = [row for row in catalogue().values() if fault and fault in (row.id, row.kin)]
    signs = [sign for row in rows for sign in row.evidence if sign.column in row.own_columns and sign.weight > 0]
    return frozenset(column for sign in signs for column in columns_of(sign, names))


def _data_quality(score: Score, words: Words) -> str:
    n_present, n_columns = int(score.present.sum()), len(score.present)
    complete = n_present == n_columns
    return words.say("quality", "good" if complete else "partly", present=n_present, columns=n_columns)
