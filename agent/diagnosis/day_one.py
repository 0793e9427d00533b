"""What is wrong with a machine that nobody has learned yet: absolute physics and norms, and nothing else.

Each look compares one column with a limit that does not depend on the machine's own past, and names a cause only where the
columns beside it leave one: a machine in zone C whose vibration is almost all at once per turn is out of balance or bent, with
no line to speak of it is neither. Temperatures are not looked at here: their limits hold from the first second on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.diagnosis.bearing import LEAST_DEPTH_RATIO, Part, Verdict
from agent.diagnosis.view import View, known
from agent.vocabulary import Cause, Evidence, Severity
from agent.words import Words

if TYPE_CHECKING:
    from agent.config import Machine

N_AXES = 3  # the burst's velocity adds axes: above sqrt(3) times a zone's boundary one axis is beyond it for certain
VELOCITY = "spectrum.velocity_rms_mm_s"
VELOCITY_OF_AN_AXIS = ("velocity_rms_z_mm_s:tag.amplitude", "velocity_rms_x_mm_s:tag.amplitude")
DOMINANT = 0.85  # of the velocity: less than a third of its power is elsewhere
LEADING = 0.6  # of the velocity: a third of its power
LEAST_BEARING_CONFIDENCE = 0.8
VOLTAGE_UNBALANCE_PCT = (1.0, 5.0)  # NEMA MG 1, 14.36: derated above, not to be run above
ONE_PHASE_PCT = 50.0  # of current unbalance: with one phase gone it is 100
LEAST_NPSH_MARGIN = 1.0  # ANSI/HI 9.6.1: the head has already dropped by 3 %
FAULT_OF_PART = {
    Part.OUTER: "bearing_outer_race",
    Part.INNER: "bearing_inner_race",
    Part.BALL: "bearing_ball_cage",
}
# How sure a cause is that nothing but an absolute limit and a dominant line speaks for; measured on simulated machines that are
# bad from the first day.
SURE, LIKELY, POSSIBLE = 0.9, 0.7, 0.4
ORDER = (Severity.CRIT, Severity.HIGH, Severity.LOW)


@dataclass(frozen=True, slots=True)
class Finding:
    """One absolute limit that is broken, how bad that is, and its cause where it tells one."""

    evidence: Evidence
    severity: Severity
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """What every look needs."""

    machine: Machine
    view: View
    words: Words

    def value(self, name: str) -> float:
        """NaN where the machine has no such column, or no value in it now."""
        at = self.view.names.index(name) if name in self.view.names else -1
        return float(self.view.values[at]) if at >= 0 else math.nan

    def evidence(self, name: str, limit: float) -> Evidence:
        return replace(self.view.evidence(self.view.names.index(name), 1.0), limit=limit)

    def cause(self, fault: str, confidence: float, *speaks_for: str) -> Cause:
        names = self.view.names
        evidence = tuple(self.words.evidence(self.view.evidence(names.index(name), 0.0)) for name in speaks_for)
        return Cause(fault, self.words.fault(fault, self.view.parts), confidence, evidence)


def findings(machine: Machine, view: View, verdict: Verdict | None, words: Words) -> tuple[Finding, ...]:
    """Everything that is beyond an absolute limit: worst first, and of these the surest cause first."""
    look = _Look(machine, view, words)
    found = [one for ask in LOOKS for one in ask(look)]
    found += list(_bearing(look, verdict))
    sureness = [one.cause.confidence if one.cause else 0.0 for one in found]
    order = sorted(range(len(found)), key=lambda at: (ORDER.index(found[at].severity), -sureness[at]))
    return tuple(found[at] for at in order)


def _vibration(look: _Look) -> Iterator[Finding]:
    """The worst velocity against the norm's zones: C is limited in time, D is damage."""
    profile = look.machine.profile
    axes = dict.fromkeys(VELOCITY_OF_AN_AXIS, 1.0) | {VELOCITY: math.sqrt(N_AXES)}
    shares = {name: look.value(name) / (factor * profile.zone_bc_mm_s) for name, factor in axes.items()}
    worst = max(shares, key=lambda name: shares[name] if math.isfinite(shares[name]) else -1.0)
    if not shares[worst] > 1.0:
        return
    in_zone_d = look.value(worst) > axes[worst] * profile.zone_cd_mm_s
    limit = axes[worst] * (profile.zone_cd_mm_s if in_zone_d else profile.zone_bc_mm_s)
    yield Finding(look.evidence(worst, limit), Severity.CRIT if in_zone_d else Severity.HIGH, _cause_of_velocity(look))


def _cause_of_velocity(look: _Look) -> Cause | None:
    """What the lines leave of a velocity, where they leave one thing."""
    total = look.value(VELOCITY)
    lines = ("1x", "2x", "3x", "2xlf")
    once, twice, thrice, magnetic = (look.value(f"spectrum.line_{line}_mm_s") / total for line in lines)
    harmonics = look.value("spectrum.harmonics_mm_s") / total
    if once >= DOMINANT:
        return look.cause("unbalance", LIKELY, "spectrum.line_1x_mm_s")
    if magnetic >= LEADING and not twice >= LEADING:
        return look.cause("air_gap_eccentricity", POSSIBLE, "spectrum.line_2xlf_mm_s")
    if harmonics >= LEADING / 2 and thrice >= LEADING / 4:
        return look.cause("looseness", LIKELY, "spectrum.harmonics_mm_s")
    if twice >= LEADING and twice >= once:
        return look.cause("misalignment", LIKELY, "spectrum.line_2x_mm_s")
    return None


def _supply(look: _Look) -> Iterator[Finding]:
    derated_pct, most_pct = VOLTAGE_UNBALANCE_PCT
    if look.value("electrical.current_unbalance_pct") > ONE_PHASE_PCT:
        name = "electrical.current_unbalance_pct"
        yield Finding(look.evidence(name, ONE_PHASE_PCT), Severity.CRIT, look.cause("phase_loss", SURE, name))
        return
    name = "electrical.voltage_unbalance_pct"
    value_pct = look.value(name)
    if value_pct > derated_pct:
        bad = value_pct > most_pct
        evidence = look.evidence(name, most_pct if bad else derated_pct)
        severity = Severity.HIGH if bad else Severity.LOW
        yield Finding(evidence, severity, look.cause("supply_unbalance", SURE, name))


def _suction(look: _Look) -> Iterator[Finding]:
    name = "hydraulic.npsh_margin_ratio"
    if look.value(name) < LEAST_NPSH_MARGIN:
        yield Finding(look.evidence(name, LEAST_NPSH_MARGIN), Severity.CRIT, look.cause("cavitation", SURE, name))


def _bearing(look: _Look, verdict: Verdict | None) -> Iterator[Finding]:
    """The part that the bursts name clearly."""
    if verdict is None or verdict.confidence < LEAST_BEARING_CONFIDENCE:
        return
    family = next(family for family in verdict.families if family.part is verdict.part)
    evidence = Evidence(
        feature=f"bearing.{verdict.part}",
        words=look.words.say("bearing", verdict.part),
        value=100 * family.depth_ratio,
        normal=None,
        limit=100 * LEAST_DEPTH_RATIO,
        unit="%",
        share=1.0,
        frequency_hz=known(family.line_hz),
    )
    fault = FAULT_OF_PART[verdict.part]
    cause = Cause(fault, look.words.fault(fault, look.view.parts), verdict.confidence, (look.words.evidence(evidence),))
    yield Finding(evidence, Severity.HIGH, cause)


LOOKS: tuple[Callable[[_Look], Iterator[Finding]], ...] = (_vibration, _supply, _suction)
