"""A machine that is bad on its first day gets a verdict by absolute physics; bursts that name a part are evidence later on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bearing_strikes import RATE_HZ, SHAFT_HZ, SKF_6205, noise, ringing, strikes

from agent.baseline import Baseline
from agent.config import Machine, load_site
from agent.decision.alarm import CLEAR_CONFIDENCE
from agent.diagnosis import Diagnosis
from agent.diagnosis.bearing import Part
from agent.diagnosis.day_one import LEAST_BEARING_CONFIDENCE
from agent.vocabulary import FeatureVector, Mode, OperatingPoint, OperatingState, Score, Severity, Window
from agent.words import Words

ROOT = Path(__file__).parents[2]
DIAGNOSIS = Diagnosis(Words("en"))
POINT = OperatingPoint(60 * SHAFT_HZ, 50.0, 5.0)
QUIET = {"spectrum.velocity_rms_mm_s": 0.8, "spectrum.line_1x_mm_s": 0.5, "electrical.voltage_unbalance_pct": 0.4}


@pytest.fixture(scope="module")
def machines() -> dict[str, Machine]:
    site = load_site(ROOT / "config" / "site.demo.toml", ROOT)
    return {machine.profile.type: machine for machine in site.machines}


def vector_of(machine: Machine, values: dict[str, float]) -> FeatureVector:
    named = np.array([values.get(name, np.nan) for name in machine.features.names], np.float32)
    state = OperatingState(Mode.RUNNING, 10)
    return FeatureVector(machine.tag, state, named, np.isfinite(named), machine.features.digest, 0, 0)


def bursts(samples: np.ndarray, n: int = 3) -> list[Window]:
    """One second each, of one axis."""
    rows = samples.astype(np.float32).reshape(-1, int(RATE_HZ))[:n]
    return [Window("M", "accel", ("z",), row[None], RATE_HZ, k, k, 0, POINT) for k, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("kind", "values", "fault", "severity"),
    [
        ("motor", {"spectrum.velocity_rms_mm_s": 4.0, "spectrum.line_1x_mm_s": 3.8}, "unbalance", Severity.HIGH),
        ("motor", {"spectrum.velocity_rms_mm_s": 9.0, "spectrum.line_1x_mm_s": 2.0, "spectrum.line_2x_mm_s": 8.0},
         "misalignment", Severity.CRIT),
        ("motor", {"spectrum.velocity_rms_mm_s": 4.0, "spectrum.line_1x_mm_s": 2.5, "spectrum.line_3x_mm_s": 1.5,
                   "spectrum.harmonics_mm_s": 2.0}, "looseness", Severity.HIGH),
        ("motor", {"velocity_rms_z_mm_s:tag.amplitude": 2.0}, "", Severity.HIGH),
        ("motor", {"electrical.voltage_unbalance_pct": 1.4}, "supply_unbalance", Severity.LOW),
        ("motor", {"electrical.voltage_unbalance_pct": 5.5}, "supply_unbalance", Severity.HIGH),
        ("motor", {"electrical.current_unbalance_pct": 95.0}, "phase_loss", Severity.CRIT),
        ("pump", {"hydraulic.npsh_margin_ratio": 0.9}, "cavitation", Severity.CRIT),
    ],
)  # fmt: skip
def test_what_is_beyond_an_absolute_limit_is_told_on_the_first_day(machines, kind, values, fault, severity):
    """Norm zones of the machine's own class, NEMA's supply, NPSH: with a limit in the message and a cause where lines leave one."""
    machine = machines[kind]
    told = DIAGNOSIS.of_day_one(machine, vector_of(machine, QUIET | values), POINT)
    assert (told.clear_cause, told.severity) == (fault, severity)
    assert told.explanation.evidence[0].limit is not None
    assert told.explanation.evidence[0].normal is None
    assert told.explanation.action
    assert (told.explanation.causes == ()) == (fault == "")


def test_a_machine_within_its_limits_is_not_judged_on_the_first_day(machines):
    """Silence is not "healthy": it only lets learning begin. What is not measured breaks no limit."""
    for machine in machines.values():
        assert DIAGNOSIS.of_day_one(machine, vector_of(machine, QUIET), POINT) is None
        assert DIAGNOSIS.of_day_one(machine, vector_of(machine, {}), POINT, bursts(noise(1))) is None


def test_the_worst_finding_leads_and_the_others_are_told_with_it(machines):
    """A technician goes once."""
    values = QUIET | {"spectrum.velocity_rms_mm_s": 9.0, "electrical.voltage_unbalance_pct": 1.4}
    told = DIAGNOSIS.of_day_one(machines["motor"], vector_of(machines["motor"], values), POINT)
    assert told.severity is Severity.CRIT
    assert [seen.feature for seen in told.explanation.evidence] == [
        "spectrum.velocity_rms_mm_s",
        "electrical.voltage_unbalance_pct",
    ]


def on_6205(machine: Machine) -> Machine:
    return replace(machine, nameplate=replace(machine.nameplate, bearing=SKF_6205))


@pytest.mark.parametrize(
    ("part", "fault"),
    [(Part.OUTER, "bearing_outer_race"), (Part.INNER, "bearing_inner_race"), (Part.BALL, "bearing_ball_cage")],
)
def test_a_bearing_that_is_damaged_on_the_first_day_is_named(machines, part, fault):
    """Its line, harmonics and depth need no past. From one second of noise, or without a known bearing, nothing is named."""
    machine = on_6205(machines["motor"])
    damaged = bursts(3 * ringing(*strikes(part, 1)) + noise(1))
    told = DIAGNOSIS.of_day_one(machine, vector_of(machine, QUIET), POINT, damaged)
    assert told.clear_cause == fault
    assert told.explanation.causes[0].confidence >= LEAST_BEARING_CONFIDENCE
    assert told.explanation.evidence[0].frequency_hz > 0
    assert DIAGNOSIS.of_day_one(machine, vector_of(machine, QUIET), POINT, bursts(noise(2))) is None
    nameless = replace(machine, nameplate=replace(machine.nameplate, bearing=None))
    assert DIAGNOSIS.of_day_one(nameless, vector_of(machine, QUIET), POINT, damaged) is None


def scored(machine: Machine, deviations: dict[str, float]) -> tuple[FeatureVector, Score, Baseline]:
    """A baseline of zeros and ones, so that a vector is its own deviation."""
    names = machine.features.names
    z = np.array([deviations.get(name, 0.2) for name in names], np.float32)
    present, n = np.ones(len(names), np.bool_), len(names)
    vector = FeatureVector(machine.tag, OperatingState(Mode.RUNNING, 10), z, present, machine.features.digest, 0, 0)
    baseline = Baseline(np.zeros(n), np.ones(n), np.ones(n), 60, machine.features.digest)
    return vector, Score(machine.tag, float((z * z).sum()), 50.0, z * z, z, present, 0), baseline


def test_bursts_that_name_a_part_decide_between_two_lines(machines):
    """Two lines of the envelope stand out alike; the bursts say outer race, and their line is told as evidence."""
    machine = on_6205(machines["motor"])
    both = {"envelope.bpfo_ratio": 12, "envelope.bsf_ratio": 12, "envelope.bsf_sidebands_ratio": 6, "envelope.rms_m_s2": 12,
            "envelope.spectral_kurtosis_ratio": 30, "vibration.kurtosis_ratio": 12}  # fmt: skip
    vector, score, baseline = scored(machine, both)
    alone = DIAGNOSIS.of_score(machine, vector, score, baseline, POINT)
    damaged = bursts(3 * ringing(*strikes(Part.OUTER, 1)) + noise(1))
    asked = DIAGNOSIS.of_score(machine, vector, score, baseline, POINT, damaged)
    assert alone.clear_cause != "bearing_outer_race"
    assert asked.clear_cause == "bearing_outer_race"
    assert any("outer race in the bursts" in line for line in asked.explanation.causes[0].evidence_for)
    assert asked.explanation.causes[0].confidence > CLEAR_CONFIDENCE
    assert asked.explanation.data_quality == alone.explanation.data_quality


def test_a_new_normal_is_explained_and_how_to_confirm_it(machines):
    """What was seen, no cause, and the one command."""
    machine = machines["motor"]
    vector, score, baseline = scored(machine, {"envelope.rms_m_s2": -12, "spectrum.noise_floor_m_s2": -11})
    told = DIAGNOSIS.of_new_baseline(machine, "remounted", vector, score, baseline, POINT)
    assert told.causes == ()
    assert told.evidence[0].feature == "envelope.rms_m_s2"
    assert f"hark relearn {machine.tag}" in told.action
