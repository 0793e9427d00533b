"""A fault is named only with its own evidence, and the confidence says how sure that is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from agent.decision.alarm import CLEAR_CONFIDENCE
from agent.diagnosis import (
    QUANTITY_OF_NAME,
    QUANTITY_OF_UNIT,
    View,
    catalogue,
    diagnose,
    explain,
    limits_of,
    printed_unit,
    quantity_of,
)
from agent.features import feature_set_of, known_features
from agent.machine import load_machine_profile
from agent.vocabulary import Score
from agent.words import Words

MOTOR = (
    "vibration.rms_m_s2", "vibration.peak_m_s2", "vibration.crest_ratio", "vibration.kurtosis_ratio",
    "spectrum.velocity_rms_mm_s", "spectrum.band_rms_m_s2[band=3]", "spectrum.band_rms_m_s2[band=4]",
    "spectrum.line_1x_mm_s", "spectrum.line_2x_mm_s", "spectrum.line_3x_mm_s", "spectrum.line_2xlf_mm_s",
    "envelope.rms_m_s2", "envelope.bpfo_ratio", "envelope.bpfi_ratio", "envelope.bsf_ratio", "envelope.ftf_ratio",
    "motor_current_a:tag.level", "active_power_kw:tag.level", "velocity_rms_z_mm_s:tag.level",
)  # fmt: skip
PUMP = (
    *MOTOR, "spectrum.vane_pass_mm_s", "suction_pressure_bar:tag.level", "discharge_pressure_bar:tag.level",
)  # fmt: skip
WORDS = Words("en")

# What each fault does to the columns, in robust standard deviations: shapes seen on the simulator, faults at half severity.
SYNTHETIC = {
    ("motor", "bearing_outer_race"): {"envelope.bpfo_ratio": 25, "envelope.bpfi_ratio": 6, "envelope.rms_m_s2": 9,
                                      "vibration.kurtosis_ratio": 9, "vibration.peak_m_s2": 8},
    ("motor", "bearing_inner_race"): {"envelope.bpfi_ratio": 22, "envelope.rms_m_s2": 9, "vibration.kurtosis_ratio": 8},
    ("pump", "bearing_ball_cage"): {"envelope.bsf_ratio": 18, "envelope.ftf_ratio": 9, "envelope.rms_m_s2": 6},
    ("motor", "lubrication"): {"envelope.rms_m_s2": 20, "spectrum.band_rms_m_s2[band=3]": 18, "vibration.rms_m_s2": 8},
    ("motor", "unbalance"): {"spectrum.line_1x_mm_s": 22, "spectrum.velocity_rms_mm_s": 14},
    ("pump", "misalignment"): {"spectrum.line_2x_mm_s": 20, "spectrum.line_1x_mm_s": 5, "spectrum.velocity_rms_mm_s": 8},
    ("motor", "looseness"): {"spectrum.line_3x_mm_s": 18, "spectrum.line_2x_mm_s": 12, "spectrum.line_1x_mm_s": 8},
    ("motor", "overload"): {"motor_current_a:tag.level": 15, "active_power_kw:tag.level": 15},
    ("motor", "stator_electrical"): {"spectrum.line_2xlf_mm_s": 25},
    ("pump", "cavitation"): {"suction_pressure_bar:tag.level": -15, "envelope.rms_m_s2": 20,
                             "spectrum.band_rms_m_s2[band=3]": 20, "spectrum.band_rms_m_s2[band=4]": 20},
    ("pump", "dry_run"): {"active_power_kw:tag.level": -60, "discharge_pressure_bar:tag.level": -80},
    ("pump", "clogged_strainer"): {"suction_pressure_bar:tag.level": -18},
    ("pump", "recirculation"): {"spectrum.vane_pass_mm_s": 18, "discharge_pressure_bar:tag.level": 8,
                                "active_power_kw:tag.level": -6},
    ("pump", "clogged_impeller"): {"spectrum.line_1x_mm_s": 18, "discharge_pressure_bar:tag.level": -12},
    ("pump", "impeller_wear"): {"discharge_pressure_bar:tag.level": -14},
}  # fmt: skip


def score_of(names: tuple[str, ...], deviations: dict[str, float], absent: tuple[str, ...] = ()) -> Score:
    z = np.array([deviations.get(name, 0.3) for name in names], np.float32)
    present = np.array([not name.startswith(absent) for name in names]) if absent else np.ones(len(names), np.bool_)
    contributions = np.where(present, z * z, 0).astype(np.float32)
    return Score("M-1", float(contributions.sum()), 50.0, contributions, z, present, 0)


def words_of(name: str) -> str:
    return known_features()[name.partition(":")[2] or name.partition("[")[0]].words


def view_of(names: tuple[str, ...], score: Score) -> View:
    n = len(names)
    values = np.where(score.present, 2.0 + score.deviations, np.nan).astype(np.float64)
    units = [printed_unit(name.split(":", maxsplit=1)[0].split("[", maxsplit=1)[0]) for name in names]
    return View(
        names, [WORDS.column(name, words_of(name), (1000.0, 2500.0)) for name in names], units,
        values, np.full(n, 2.0), np.full(n, 4.0), np.full(n, np.nan), {"bearing": "DE bearing 6308", "bearing_short": "DE bearing"},
    )  # fmt: skip


@pytest.mark.parametrize(("machine_type", "fault"), SYNTHETIC, ids=[fault for _, fault in SYNTHETIC])
def test_a_fault_that_shows_itself_is_named_first_and_clearly(machine_type: str, fault: str) -> None:
    """Top rank with at least 60 %, each with its evidence in words."""
    names = MOTOR if machine_type == "motor" else PUMP
    score = score_of(names, SYNTHETIC[machine_type, fault])
    causes = diagnose(machine_type, score, view_of(names, score), WORDS)
    assert causes[0].fault == fault
    assert CLEAR_CONFIDENCE <= causes[0].confidence <= 0.95
    assert causes[0].evidence_for
    assert sum(cause.confidence for cause in causes) <= 1.0


def test_no_bearing_is_blamed_without_its_line_in_the_envelope() -> None:
    """Scalars alone cannot tell a bearing; with the burst sensor muted nothing of it is said."""
    score = score_of(
        MOTOR,
        {"envelope.bpfo_ratio": 30, "velocity_rms_z_mm_s:tag.level": 12},
        absent=("envelope", "spectrum", "vibration"),
    )
    causes = diagnose("motor", score, view_of(MOTOR, score), WORDS)
    assert causes == ()
    score = score_of(MOTOR, {"vibration.kurtosis_ratio": 30, "envelope.rms_m_s2": 5})
    assert not any(
        cause.fault.startswith("bearing") for cause in diagnose("motor", score, view_of(MOTOR, score), WORDS)
    )


def test_weak_evidence_stays_below_sixty_per_cent() -> None:
    """A sign at its minimum is a hint: the message then says what was seen."""
    score = score_of(MOTOR, {"envelope.bpfo_ratio": 4.5})
    causes = diagnose("motor", score, view_of(MOTOR, score), WORDS)
    assert causes[0].confidence < CLEAR_CONFIDENCE
    explanation = explain(score, view_of(MOTOR, score), causes, WORDS)
    assert explanation.action == WORDS.unclear_action("vibration")
    assert explanation.act_within_h is None


@pytest.mark.parametrize(
    ("leading", "quantity"),
    [
        ("spectrum.velocity_rms_mm_s", "vibration"),
        ("envelope.bpfo_ratio", "vibration"),
        ("acceleration_rms_1_g:tag.amplitude", "vibration"),
        ("kurtosis_z_ratio:tag.level", "vibration"),
        ("flow_m3_h:tag.level", "hydraulic"),
        ("flow_l_min:tag.level", "hydraulic"),
        ("suction_pressure_bar:tag.slow_level", "hydraulic"),
        ("active_power_kw:tag.level", "electrical"),
        ("motor_current_a:tag.std", "electrical"),
        ("motor_torque_pct:tag.level", "electrical"),
        ("shaft_speed_rpm:tag.level", "speed"),
        ("temperature_degc:tag.level", "temperature"),
    ],
)
def test_an_unclear_alarm_sends_people_to_where_the_leading_quantity_is(leading: str, quantity: str) -> None:
    """Too little flow is not looked for at the mounting bolts."""
    names = (leading, *(name for name in ("vibration.crest_ratio", "voltage_v:tag.level") if name != leading))
    score = score_of(names, {leading: 12.0, "vibration.crest_ratio": 2.0})
    explanation = explain(score, view_of(names, score), (), WORDS)
    assert explanation.evidence[0].feature == leading
    assert explanation.action == WORDS.entry("unclear_action", quantity)


def test_an_unclear_alarm_of_another_quantity_still_says_what_to_do() -> None:
    """A column of no known kind, or no column at all."""
    for deviations in ({"opening_pct:tag.level": 12.0}, {}):
        score = score_of(("opening_pct:tag.level",), deviations)
        assert explain(score, view_of(("opening_pct:tag.level",), score), (), WORDS).action == WORDS.action(
            "unclear", {}
        )


def test_every_quantity_has_an_action_for_when_the_cause_is_unclear(root: Path) -> None:
    """Every column of every shipped machine type leads somewhere."""
    for quantity in {*QUANTITY_OF_UNIT.values(), *QUANTITY_OF_NAME.values()}:
        assert WORDS.entry("unclear_action", quantity), quantity
    for path in (root / "config" / "machines").glob("*.toml"):
        profile = load_machine_profile(root / "config", path.stem)
        assert all(quantity_of(name) for name in feature_set_of(profile).names), path.stem


def test_contradicting_evidence_lowers_the_confidence_and_is_told() -> None:
    """Raised noise with a clear outer-race line is not a lack of grease."""
    alone = score_of(MOTOR, {"envelope.rms_m_s2": 20})
    both = score_of(MOTOR, {"envelope.rms_m_s2": 20, "envelope.bpfo_ratio": 5})
    confidence = {
        key: {cause.fault: cause for cause in diagnose("motor", score, view_of(MOTOR, score), WORDS)}
        for key, score in (("alone", alone), ("both", both))
    }
    assert confidence["both"]["lubrication"].confidence < confidence["alone"]["lubrication"].confidence
    assert "outer-race envelope line" in confidence["both"]["lubrication"].evidence_against[0]


def test_the_named_faults_own_column_stands_first_in_the_evidence() -> None:
    """The first line that a person reads must be about what the message claims."""
    score = score_of(MOTOR, {"envelope.rms_m_s2": 30, "envelope.bpfo_ratio": 28})
    view = view_of(MOTOR, score)
    explanation = explain(score, view, diagnose("motor", score, view, WORDS), WORDS)
    assert explanation.evidence[0].feature == "envelope.bpfo_ratio"
    assert {seen.feature for seen in explanation.evidence} >= {"envelope.rms_m_s2"}
    assert explanation.act_within_h == 24


def test_the_limit_in_a_message_is_where_the_score_meets_its_threshold() -> None:
    """The score is quadratic, so all deviations shrunk by sqrt(threshold / score) put it exactly there."""
    score = score_of(("a_ratio", "b_k"), {"a_ratio": 8.0, "b_k": 6.0})
    limits = limits_of(score, np.array([0.5, 10.0]), np.array([0.1, 2.0]), ("log", "linear"))
    at = np.array([(np.log(limits[0]) - 0.5) / 0.1, (limits[1] - 10.0) / 2.0])
    assert (at**2).sum() == pytest.approx(50.0)


def test_every_fault_has_words_an_action_and_evidence_that_exists(root: Path) -> None:
    """A column that no machine has, or a fault without words, would be silent for ever."""
    features = set(known_features())
    for fault in catalogue().values():
        assert WORDS.entry("faults", fault.id, "words"), fault.id
        assert WORDS.entry("faults", fault.id, "action"), fault.id
        assert set(fault.must) <= {sign.column for sign in fault.evidence if sign.weight > 0}
        for sign in fault.evidence:
            feature = sign.column.rpartition(":")[2].split("[")[0]
            assert feature in features or sign.column.endswith("*"), sign.column
    limits = [
        limit["fault"]
        for path in (root / "config" / "machines").glob("*.toml")
        for limit in tomllib.loads(path.read_text("utf-8")).get("limits", [])
    ]
    assert all(WORDS.entry("faults", fault, "action") for fault in limits)
