"""A fault is named only with its own evidence, and the confidence says how sure that is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from agent.decision.alarm import CLEAR_CONFIDENCE
from agent.diagnosis import View, catalogue, diagnose, explain, limits_of
from agent.diagnosis.bearing_evidence import COLUMN_OF_PART
from agent.diagnosis.faults import MAX_STRENGTH, Sign
from agent.diagnosis.view import QUANTITY_OF_NAME, QUANTITY_OF_UNIT, printed_unit, quantity_of
from agent.features import feature_set_of, known_features
from agent.machine import load_machine_profile
from agent.vocabulary import Score
from agent.words import Words

CONFIG = Path(__file__).parents[2] / "config"
MOTOR, PUMP = (feature_set_of(load_machine_profile(CONFIG, kind)).names for kind in ("motor", "pump"))
SCALARS = tuple(name for name in MOTOR if not name.startswith(("envelope", "spectrum", "vibration", "thermal")))
WORDS = Words("en")
LOUD = {"spectrum.velocity_rms_mm_s": 12, "spectrum.band_rms_m_s2[band=0]": 10}
HISS = {"envelope.rms_m_s2": 18, "spectrum.noise_floor_m_s2": 18, "spectrum.band_rms_m_s2[band=3]": 18,
        "spectrum.band_rms_m_s2[band=4]": 18, "vibration.rms_m_s2": 10}  # fmt: skip
STRIKES = {"envelope.rms_m_s2": 12, "vibration.kurtosis_ratio": 12, "envelope.spectral_kurtosis_ratio": 30}

# What each fault does to the columns, in robust standard deviations: shapes seen on the simulator, faults at half severity.
SYNTHETIC = {
    ("motor", "bearing_outer_race"): STRIKES | {"envelope.bpfo_ratio": 16, "envelope.bpfi_ratio": 5},
    ("motor", "bearing_inner_race"): STRIKES | {"envelope.bpfi_ratio": 15, "envelope.bpfi_sidebands_ratio": 12},
    ("pump", "bearing_ball_cage"): STRIKES | {"envelope.bsf_ratio": 12, "envelope.bsf_sidebands_ratio": 11,
                                              "envelope.ftf_ratio": 7},
    ("motor", "lubrication"): HISS | {"thermal.rise_k": 5},
    ("motor", "unbalance"): LOUD | {"spectrum.line_1x_mm_s": 22},
    ("pump", "misalignment"): LOUD | {"spectrum.line_2x_mm_s": 20, "spectrum.line_1x_mm_s": 5,
                                      "spectrum.line_3x_mm_s": 14},
    ("motor", "looseness"): LOUD | {"spectrum.line_3x_mm_s": 18, "spectrum.line_2x_mm_s": 12,
                                    "spectrum.line_1x_mm_s": 10, "spectrum.harmonics_mm_s": 14,
                                    "spectrum.band_rms_m_s2[band=1]": 12},
    ("motor", "bent_shaft"): LOUD | {"spectrum.line_1x_mm_s": 18, "spectrum.line_2x_mm_s": 11},
    ("motor", "overload"): {"motor_current_a:tag.level": 15, "active_power_kw:tag.level": 15,
                            "electrical.slip_ratio": 12},
    ("motor", "load_loss"): {"motor_current_a:tag.level": -15, "active_power_kw:tag.level": -15},
    ("motor", "supply_unbalance"): {"electrical.voltage_unbalance_pct": 15, "electrical.current_unbalance_pct": 20,
                                    "spectrum.line_2xlf_mm_s": 10},
    ("motor", "phase_loss"): {"electrical.voltage_unbalance_pct": 80, "electrical.current_unbalance_pct": 100,
                              "spectrum.line_2xlf_mm_s": 10},
    ("motor", "stator_electrical"): {"spectrum.line_2xlf_mm_s": 20, "electrical.current_unbalance_pct": 12,
                                     "electrical.current_unbalance_excess_pct": 11, "motor_current_a:tag.level": 6},
    ("motor", "air_gap_eccentricity"): {"spectrum.line_2xlf_mm_s": 22, "spectrum.harmonics_mm_s": 10},
    ("motor", "broken_rotor_bar"): {"motor_current_a:tag.std": 14, "electrical.slip_ratio": 10,
                                    "spectrum.line_1x_mm_s": 9},
    ("motor", "cooling_blocked"): {"thermal.rise_k": 12, "thermal.residual_k": 12},
    ("pump", "cavitation"): HISS | {"suction_pressure_bar:tag.level": -25, "envelope.cavitation_index_m_s2": 12},
    ("pump", "dry_run"): {"active_power_kw:tag.level": -60, "discharge_pressure_bar:tag.level": -80,
                          "hydraulic.head_at_rated_speed_m": -90, "spectrum.vane_pass_mm_s": -15,
                          "suction_pressure_bar:tag.level": -10},
    ("pump", "clogged_strainer"): {"suction_pressure_bar:tag.level": -18, "discharge_pressure_bar:tag.level": -10,
                                   "active_power_kw:tag.level": -5},
    ("pump", "recirculation"): {"spectrum.vane_pass_mm_s": 10, "discharge_pressure_bar:tag.level": 10,
                                "active_power_kw:tag.level": -12, "hydraulic.flow_over_best_ratio": -20},
    ("pump", "clogged_impeller"): {"spectrum.line_1x_mm_s": 18, "discharge_pressure_bar:tag.level": -12,
                                   "hydraulic.head_at_rated_speed_m": -20, "spectrum.vane_sidebands_mm_s": 16},
    ("pump", "impeller_wear"): {"discharge_pressure_bar:tag.level": -7, "hydraulic.head_at_rated_speed_m": -11,
                                "active_power_kw:tag.level": -10, "hydraulic.head_residual_m": -17,
                                "flow_m3_h:tag.level": -6, "hydraulic.efficiency_residual_ratio": -5},
    ("pump", "air_entrainment"): {"discharge_pressure_bar:tag.std": 24, "active_power_kw:tag.std": 20,
                                  "hydraulic.head_at_rated_speed_m": -10},
    ("pump", "seal_leak"): {"leak_flow_l_min:tag.level": 20},
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
    loud = {"hf_acceleration_rms_z_g:tag.amplitude": 20, "velocity_rms_z_mm_s:tag.amplitude": 12}
    score = score_of(SCALARS, loud)
    assert diagnose("motor", score, view_of(SCALARS, score), WORDS) == ()
    score = score_of(MOTOR, STRIKES)
    assert not any(
        cause.fault.startswith("bearing_") for cause in diagnose("motor", score, view_of(MOTOR, score), WORDS)
    )


@pytest.mark.parametrize(
    ("deviations", "fault"),
    [
        ({"motor_current_a:tag.level": 12, "active_power_kw:tag.level": 12}, "overload"),
        ({"motor_current_a:tag.level": -12, "active_power_kw:tag.level": -12}, "load_loss"),
        ({"electrical.voltage_unbalance_pct": 15, "electrical.current_unbalance_pct": 20}, "supply_unbalance"),
        ({"velocity_rms_z_mm_s:tag.amplitude": 15, "velocity_rms_x_mm_s:tag.amplitude": 15}, ""),
    ],
)
def test_scalars_alone_get_the_best_honest_name(deviations: dict[str, float], fault: str) -> None:
    """Load and supply show in them; what shakes a machine does not, and stays "cause unclear, vibration"."""
    score = score_of(SCALARS, deviations)
    view = view_of(SCALARS, score)
    explanation = explain(score, view, diagnose("motor", score, view, WORDS), WORDS)
    if fault:
        assert explanation.causes[0].fault == fault
        assert explanation.causes[0].confidence >= CLEAR_CONFIDENCE
    else:
        assert explanation.causes == ()
        assert explanation.action == WORDS.unclear_action("vibration")


def test_weak_evidence_stays_below_sixty_per_cent() -> None:
    """A sign at its minimum is a hint: the message then says what was seen."""
    score = score_of(MOTOR, {"envelope.bpfo_ratio": 4.5})
    causes = diagnose("motor", score, view_of(MOTOR, score), WORDS)
    assert all(cause.confidence < CLEAR_CONFIDENCE for cause in causes)
    explanation = explain(score, view_of(MOTOR, score), causes, WORDS)
    assert explanation.action == WORDS.unclear_action("impacts")
    assert explanation.act_within_h is None


def test_a_bearing_whose_part_is_not_clear_is_still_a_bearing() -> None:
    """Lines of two parts, one as high as the other: it is grease and a new bearing either way, and the parts stand behind."""
    both = STRIKES | {"envelope.bpfo_ratio": 12, "envelope.bsf_ratio": 12, "envelope.bsf_sidebands_ratio": 8}
    score = score_of(MOTOR, both)
    view = view_of(MOTOR, score)
    causes = diagnose("motor", score, view, WORDS)
    assert causes[0].fault == "bearing_damage"
    assert causes[0].confidence >= CLEAR_CONFIDENCE > causes[1].confidence
    explanation = explain(score, view, causes, WORDS)
    assert explanation.evidence[0].feature.startswith("envelope.b")
    assert "side lines" in explanation.tell_apart or "come and go" in explanation.tell_apart


def test_a_sign_grows_with_the_logarithm_and_as_normal_fades() -> None:
    """1 at the minimum, 1 more for every doubling, an end; "normal" is the other way round and has no side."""
    high, normal = Sign("a_ratio", "high", 1.0), Sign("a_ratio", "normal", 1.0)
    assert [high.strength(z) for z in (1.9, 4.0, 8.0, 16.0, 1e4, -50.0)] == [0.0, 1.0, 2.0, 3.0, MAX_STRENGTH, 0.0]
    assert [normal.strength(z) for z in (0.0, -2.0, 3.0, -4.0, 9.0)] == [1.0, 1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("leading", "quantity"),
    [
        ("spectrum.velocity_rms_mm_s", "vibration"),
        ("envelope.bpfo_ratio", "impacts"),
        ("hf_acceleration_rms_z_g:tag.amplitude", "impacts"),
        ("acceleration_rms_1_g:tag.amplitude", "vibration"),
        ("kurtosis_z_ratio:tag.level", "impacts"),
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
    alone = score_of(MOTOR, HISS)
    both = score_of(MOTOR, HISS | {"envelope.bpfo_ratio": 5})
    confidence = {
        key: {cause.fault: cause for cause in diagnose("motor", score, view_of(MOTOR, score), WORDS)}
        for key, score in (("alone", alone), ("both", both))
    }
    assert confidence["both"]["lubrication"].confidence < confidence["alone"]["lubrication"].confidence
    assert "outer-race envelope line" in confidence["both"]["lubrication"].evidence_against[0]


def test_what_would_tell_two_causes_apart_is_said() -> None:
    """Each pair that is confused has its check, the same whichever leads, and none for a pair that nobody confuses."""
    for fault in catalogue().values():
        for other in fault.confused_with:
            assert WORDS.tell_apart(fault.id, other, {}), (fault.id, other)
            assert WORDS.tell_apart(fault.id, other, {}) == WORDS.tell_apart(other, fault.id, {})
            assert fault.id in catalogue()[other].confused_with or not catalogue()[other].evidence, (fault.id, other)
    assert WORDS.tell_apart("seal_leak", "broken_rotor_bar", {}) == ""
    score = score_of(MOTOR, HISS | {"envelope.bpfo_ratio": 8})
    causes = diagnose("motor", score, view_of(MOTOR, score), WORDS)
    explanation = explain(score, view_of(MOTOR, score), causes, WORDS)
    assert {cause.fault for cause in causes} >= {"lubrication", "bearing_fluting"}
    assert "DE bearing" in explanation.tell_apart or "shaft voltage" in explanation.tell_apart


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
        assert fault.own_columns <= {sign.column for sign in fault.evidence if sign.weight > 0}
        assert bool(fault.must) == bool(fault.evidence), fault.id
        assert not fault.kin or fault.kin in catalogue()
        for sign in fault.evidence:
            feature = sign.column.rpartition(":")[2].split("[")[0]
            assert feature in features or sign.column.endswith("*") or sign.column in COLUMN_OF_PART.values(), (
                sign.column
            )
    limits = [
        limit["fault"]
        for path in (root / "config" / "machines").glob("*.toml")
        for limit in tomllib.loads(path.read_text("utf-8")).get("limits", [])
    ]
    assert all(WORDS.entry("faults", fault, "action") for fault in limits)
