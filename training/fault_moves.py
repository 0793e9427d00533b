"""Which features each simulated fault moves: at three speeds and three loads, severity by severity, against the declarations.

Every faulty moment is compared with the very same moment without the fault (same noise, same water, same weather), in robust
healthy standard deviations under the feature's own transform. What is left is the fault's doing and no chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from agent.features import Column, FeatureSet, known_features
from agent.vocabulary import F64
from simulator.duty import Duty
from simulator.faults import FAULTS, SENSOR_FAULTS
from training.simulated_duties import DUTIES, End, SimulatedSet

SEVERITIES = (0.15, 0.3, 0.5, 0.7, 1.0)
HALF = 0.5
N_HEALTHY = 20  # moments of each duty that tell the healthy spread
N_FAULTY = 3  # of them, with every fault
MAD_TO_STD = 1.4826
MOVED = 5.0  # healthy standard deviations
STRONGLY = 20.0
FALL_BACK_RATIO = (
    0.15  # of its largest move, that a value may lose again with more severity and still count as monotone
)

# The least healthy spread that is believed: what a fitter would not call a change. The example set is quieter than a real one,
# and a quantity that stands at 0 while healthy has no spread at all.
LEAST_LOG_SPREAD = 0.05  # 5 %, as in the shipped machine types
LEAST_SPREAD = {
    "": 0.01,
    "%": 0.5,
    "K": 1.0,
    "K/min": 0.05,
    "m": 0.1,
    "m/s²": 0.02,
    "m³/h": 0.5,
    "l/min": 10.0,
    "bar": 0.02,
    "kW": 0.05,
    "A": 0.1,
}

MEASURED_AT: dict[str, End] = {
    "motor_de": "motor_de",
    "pump_de": "pump_de",
    "motor": "motor_de",
    "pump": "pump_de",
}  # place -> burst sensor

STRAINED = (
    "hydraulic.npsh_available_m",
    "hydraulic.npsh_margin_ratio",
    "hydraulic.head_m",
    "hydraulic.head_at_rated_speed_m",
    "hydraulic.power_at_rated_speed_kw",
    "suction_pressure_bar:tag.level",
    "discharge_pressure_bar:tag.level",
    "active_power_kw:tag.level",
    "motor_current_a:tag.level",
)

# What does not follow the rule of `disagreements`, by reason: (fault, its features).
EXCEPTIONS: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "lines of these bearings fall together with others: 3.02 and 3 times shaft speed, 6.04 and 6, 4.98 and 5, 3.96 and 3.91": (
        (
            "bearing_outer_race",
            (
                "envelope.bpfi_ratio",
                "envelope.bpfi_sidebands_ratio",
                "spectrum.line_3x_mm_s",
                "spectrum.vane_pass_mm_s",
            ),
        ),
        (
            "bearing_inner_race",
            (
                "envelope.bpfo_ratio",
                "envelope.bsf_ratio",
                "envelope.bsf_sidebands_ratio",
                "spectrum.vane_sidebands_mm_s",
            ),
        ),
        ("bearing_ball_cage", ("envelope.bpfi_ratio", "envelope.bpfi_sidebands_ratio")),
        ("cavitation", ("envelope.bpfo_ratio", "envelope.bpfi_sidebands_ratio")),
        (
            "bearing_fluting",
            ("envelope.bpfi_sidebands_ratio", "spectrum.line_3x_mm_s", "spectrum.vane_sidebands_mm_s"),
        ),
    ),
    "twice the speed of a four-pole motor lies beside its supply frequency, four times the speed beside twice of that": (
        ("misalignment", ("spectrum.line_1xlf_mm_s",)),
        ("looseness", ("spectrum.line_1xlf_mm_s", "spectrum.line_2xlf_mm_s")),
        ("bent_shaft", ("spectrum.line_1xlf_mm_s",)),
        ("coupling_wear", ("spectrum.line_1xlf_mm_s",)),
        ("air_gap_eccentricity", ("spectrum.vane_sidebands_mm_s",)),
    ),
    "two families of lines are each other's floor": (("bearing_fluting", ("envelope.bpfi_ratio",)),),
    "one turn of the cage is 5 to 9 bins of a second, where the envelope's own slow unrest lies": (
        ("bearing_ball_cage", ("envelope.ftf_ratio",)),
    ),
    "the half order comes and goes: every other burst has none": (("looseness", ("spectrum.line_half_mm_s",)),),
    "moves the spectrum's shape by a tenth to a sixth, which is within what is believed to be healthy": (
        ("bearing_ball_cage", ("spectrum.entropy_ratio",)),
        ("lubrication", ("spectrum.centroid_hz", "spectrum.entropy_ratio")),
        ("cavitation", ("spectrum.centroid_hz", "spectrum.entropy_ratio")),
    ),
    "a slow line has little acceleration: seen at high speed only": (
        (
            "unbalance",
            ("vibration.rms_m_s2", "vibration.peak_m_s2", "spectrum.centroid_hz", "spectrum.entropy_ratio"),
        ),
        ("misalignment", ("vibration.peak_m_s2", "vibration.crest_ratio")),
        ("looseness", ("vibration.kurtosis_ratio",)),
        ("bent_shaft", ("spectrum.centroid_hz", "spectrum.entropy_ratio")),
        ("coupling_wear", ("spectrum.entropy_ratio", "vibration.peak_m_s2", "vibration.rms_m_s2")),
        ("clogged_impeller", ("spectrum.entropy_ratio",)),
    ),
    "the skewness of tones follows from how they stand to each other, which is chance": (
        ("unbalance", ("vibration.skewness_ratio",)),
        ("cavitation", ("vibration.skewness_ratio",)),
        *(
            (fault, ("vibration.skewness_ratio",))
            for fault in (
                "bearing_fluting",
                "bent_shaft",
                "coupling_wear",
                "air_gap_eccentricity",
                "recirculation",
                "dead_head",
                "clogged_impeller",
            )
        ),
    ),
    "simulated cavitation is a hiss that comes and goes with the vanes, and no line": (
        ("cavitation", ("spectrum.vane_pass_mm_s",)),
    ),
    "simulated cavitation takes power and head down together": (
        ("cavitation", ("hydraulic.efficiency_ratio", "hydraulic.efficiency_residual_ratio")),
    ),
    "head falls only where the suction reserve is used up: by 3 % at a margin of 1": (
        ("cavitation", ("hydraulic.head_m", "hydraulic.head_at_rated_speed_m", "hydraulic.head_residual_m")),
    ),
    "vane pass lies in the lowest band at low speed and in the next one above": (
        ("dry_run", ("spectrum.band_rms_m_s2",)),
    ),
    "an empty pump has no flow, and its curve no efficiency there": (
        ("dry_run", ("hydraulic.efficiency_residual_ratio",)),
    ),
    "less flow needs less suction head": (
        ("dry_run", ("hydraulic.npsh_margin_ratio",)),
        ("impeller_wear", ("hydraulic.npsh_margin_ratio",)),
    ),
    "head goes with the square of speed and power with its cube: at low speed little can be lost": (
        (
            "impeller_wear",
            (
                "electrical.load_ratio",
                "active_power_kw:tag.level",
                "motor_current_a:tag.level",
                "discharge_pressure_bar:tag.level",
            ),
        ),
        ("clogged_strainer", STRAINED),
        ("air_entrainment", ("electrical.load_ratio", "motor_current_a:tag.level")),
        (
            "recirculation",
            (
                "electrical.load_ratio",
                "motor_current_a:tag.level",
                "active_power_kw:tag.level",
                "discharge_pressure_bar:tag.level",
            ),
        ),
        ("dead_head", ("electrical.load_ratio", "motor_current_a:tag.level", "discharge_pressure_bar:tag.level")),
        (
            "clogged_impeller",
            (
                "electrical.load_ratio",
                "hydraulic.power_at_rated_speed_kw",
                "motor_current_a:tag.level",
                "active_power_kw:tag.level",
            ),
        ),
        ("stator_electrical", ("active_power_kw:tag.level",)),
        ("cooling_blocked", ("thermal.residual_k", "thermal.rise_k")),
    ),
    "a worn pump lacks head and power as a dry one does, a seventh as much": (
        ("impeller_wear", ("hydraulic.dry_run_ratio",)),
    ),
    "wear takes one point of efficiency at low speed, four at full speed": (
        ("impeller_wear", ("hydraulic.efficiency_residual_ratio",)),
    ),
    "flow that turns back and gas are noise, and a line stands out of it or drowns in it by chance": (
        ("recirculation", ("spectrum.vane_sidebands_mm_s",)),
        (
            "dead_head",
            (
                "spectrum.vane_sidebands_mm_s",
                "spectrum.line_2xlf_mm_s",
                "spectrum.line_3x_mm_s",
                "envelope.cavitation_index_m_s2",
            ),
        ),
        ("air_entrainment", ("spectrum.vane_sidebands_mm_s",)),
    ),
    "efficiency is lost at full speed, and hidden in the curve's slope at less": (
        ("air_entrainment", ("hydraulic.efficiency_residual_ratio",)),
    ),
    "simulated shorted turns pull at twice line frequency only": (("stator_electrical", ("spectrum.line_1xlf_mm_s",)),),
    "half as much load again is one per cent of slip and two kelvin at the drive end": (
        ("overload", ("electrical.slip_ratio", "thermal.rise_k")),
    ),
    "a broken bar slips more the more it pulls": (("broken_rotor_bar", ("electrical.slip_ratio",)),),
    "at a fixed valve the power falls about as the flow does": (
        ("impeller_wear", ("hydraulic.specific_energy_kwh_m3",)),
    ),
}


class Verdict(IntEnum):
    """What a fault does to a column."""

    NOT = 0  # stays within 5 healthy standard deviations at full severity
    SEVERE = 1  # moved by a severe fault only: not at half severity, anywhere
    PARTLY = 2  # moved at half severity somewhere, but not everywhere even at full, or not in step with severity
    MOVED = 3  # at every speed and load, in one direction, growing with severity
    STRONGLY = 4  # so, and at half severity by 20 healthy standard deviations already


@dataclass(frozen=True, slots=True, eq=False)
class Healthy:
    """One end of the healthy set.

    Attributes:
        values: shape (n_duties, n_moments, n_columns), in the columns' units.
        spread: shape (n_duties, n_columns), robust standard deviations within a duty, under the columns' transforms; of the
            duties of one speed together, as load hardly changes them.
    """

    duties: tuple[Duty, ...]
    values: F64
    spread: F64


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """What a fault at one place does.

    Attributes:
        values: shape (n_duties, n_severities, n_columns), medians over the moments, in the columns' units.
        deviations: the same shape, signed, in healthy standard deviations.
    """

    severities: tuple[float, ...]
    values: F64
    deviations: F64


def healthy(machine: SimulatedSet, duties: Sequence[Duty] = DUTIES) -> Healthy:
    """The healthy set at these duties."""
    values = np.array([[machine.vector(duty, k) for k in range(N_HEALTHY)] for duty in duties], np.float64)
    seen = transformed(machine.features, values)
    away = MAD_TO_STD * np.abs(seen - np.median(seen, axis=1, keepdims=True))
    least = np.array([least_spread(column) for column in machine.features.columns])
    speeds_hz = np.array([duty.frequency_hz for duty in duties])
    spread = np.array([np.median(away[speeds_hz == speed_hz], axis=(0, 1)) for speed_hz in speeds_hz])
    return Healthy(tuple(duties), values, np.fmax(spread, least))


def move_of(
    machine: SimulatedSet, usual: Healthy, fault: str, place: str, severities: tuple[float, ...] = SEVERITIES
) -> Move:
    """The same set with a fault, against its own healthy moments."""
    values = np.array(
        [
            [[machine.vector(duty, k, fault, place, severity) for k in range(N_FAULTY)] for severity in severities]
            for duty in usual.duties
        ],
        np.float64,
    )
    away = transformed(machine.features, values)
    away -= transformed(machine.features, usual.values[:, None, :N_FAULTY])
    return Move(severities, np.median(values, axis=2), np.median(away, axis=2) / usual.spread[:, None])


def transformed(features: FeatureSet, values: F64) -> F64:
    """Under each column's transform; the last axis is columns."""
    logs = np.array([column.transform == "log" for column in features.columns])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(logs, np.log(values), values)


def least_spread(column: Column) -> float:
    """The least healthy spread that is believed, under the column's transform."""
    return LEAST_LOG_SPREAD if column.transform == "log" else LEAST_SPREAD[column.unit]


def machine_faults() -> tuple[str, ...]:
    """The simulated faults of machines; those of sensors move no feature, they take it away."""
    return tuple(fault for fault in FAULTS if fault not in SENSOR_FAULTS)


# ---------------------------------------------------------------------------------------------- verdicts
def verdict(moves: Sequence[Move], column: int, moved: float = MOVED) -> tuple[Verdict, int]:
    """One column under one fault at all its places: what it does, and whether up (1) or down (-1)."""
    if not measured(moves, [column]):
        return Verdict.NOT, 1
    deviations = np.concatenate([move.deviations[..., column] for move in moves])
    last = deviations[:, -1]
    sign = -1 if np.median(last) < 0 else 1
    at_half = np.abs(deviations[:, moves[0].severities.index(HALF)])
    largest = np.abs(deviations).max(axis=1)
    in_step = (sign * last > 0).all() and (fall_back(sign * deviations) <= FALL_BACK_RATIO * largest).all()
    if in_step and largest.min() >= moved:
        return (Verdict.STRONGLY if at_half.min() >= STRONGLY else Verdict.MOVED), sign
    if at_half.max() >= moved:
        return Verdict.PARTLY, sign
    return (Verdict.SEVERE if largest.max() >= moved else Verdict.NOT), sign


def measured(moves: Sequence[Move], columns: Sequence[int]) -> bool:
    """Whether these columns have a value in every moment, with and without the fault."""
    return all(bool(np.isfinite(move.deviations[..., columns]).all()) for move in moves)


def fall_back(deviations: F64) -> F64:
    """By how much the last axis falls below what it had reached before, from 0 on: 0 where it only rises."""
    reached = np.maximum.accumulate(np.maximum(deviations, 0.0), axis=-1)
    fallen: F64 = (reached - deviations).max(axis=-1)
    return fallen


def declared(fault: str) -> set[str]:
    """What should move: features by `moved_by` of their declaration, statistics of channels by the simulator's table."""
    known = known_features().values()
    features = {feature.id for feature in known if fault in feature.moved_by}
    return features | {name for name in FAULTS[fault].moves if ":" in name}


def of_columns(features: FeatureSet) -> dict[str, list[int]]:
    """The columns of each feature (one, or one a band) and of each statistic of a channel."""
    found: dict[str, list[int]] = {}
    for at, column in enumerate(features.columns):
        found.setdefault(column.feature if ":" not in column.name else column.name, []).append(at)
    return found


def disagreements(
    features: FeatureSet, moves: Mapping[str, Sequence[Move]], margin: float = 1.0
) -> Iterator[tuple[str, str, str]]:
    """Where declaration and simulation do not say the same: (fault, feature, what is wrong), exceptions among them.

    Declared: one column of the feature is moved at every speed and load, in step with severity. Not declared: no column is moved
    at half severity, at any speed or load.
    Args: margin: by which factor either must be clear of MOVED.
    """
    for fault, of_fault in moves.items():
        expected = declared(fault)
        for name, columns in of_columns(features).items():
            if not measured(of_fault, columns):
                continue
            best = max(verdict(of_fault, column, MOVED * margin)[0] for column in columns)
            half = max(_largest_at_half(move, column) for move in of_fault for column in columns)
            if name in expected and best < Verdict.MOVED:
                yield fault, name, "declared, but not moved at every speed and load in step with severity"
            if name not in expected and half >= MOVED / margin:
                yield fault, name, f"not declared, but moved by {half:.1f} healthy standard deviations at half severity"


def _largest_at_half(move: Move, column: int) -> float:
    return float(np.abs(move.deviations[:, move.severities.index(HALF), column]).max())


def excused() -> dict[tuple[str, str], str]:
    """(fault, feature) -> why it may disagree."""
    return {(fault, name): reason for reason, pairs in EXCEPTIONS.items() for fault, names in pairs for name in names}
