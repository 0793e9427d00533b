"""The faults that can be simulated, as a table: where each can sit and what it should move. And its course over time.

Ids are the agent's; codes are those of the fault catalogue (M machine, B bearing, P pump, S sensor). `moves` names
burst features and channels that a detector may expect to leave their normal, the strongest first; tests read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PLACES = ("motor_de", "pump_de", "pump", "sensor")


@dataclass(frozen=True, slots=True)
class FaultMode:
    """One kind of fault: its name, where it can sit, and the features and channels it should move."""

    id: str
    code: str
    title: str
    places: tuple[str, ...]
    moves: tuple[str, ...]


BEARING_PLACES = ("motor_de", "pump_de")

FAULTS: dict[str, FaultMode] = {
    mode.id: mode
    for mode in (
        FaultMode(
            "bearing_outer_race",
            "B01",
            "spall on the bearing's outer race",
            BEARING_PLACES,
            ("envelope.bpfo_ratio", "vibration.kurtosis_ratio", "vibration.crest_ratio", "hf_acceleration_rms_z_g"),
        ),
        FaultMode(
            "bearing_inner_race",
            "B02",
            "spall on the bearing's inner race",
            BEARING_PLACES,
            ("envelope.bpfi_ratio", "vibration.kurtosis_ratio", "vibration.crest_ratio", "hf_acceleration_rms_z_g"),
        ),
        FaultMode(
            "lubrication",
            "B04",
            "bearing short of grease",
            BEARING_PLACES,
            ("band 4-10 kHz", "hf_acceleration_rms_z_g", "temperature_degc"),
        ),
        FaultMode(
            "unbalance",
            "M01",
            "unbalance",
            BEARING_PLACES,
            ("spectrum.1x_mm_s", "vibration.velocity_rms_mm_s", "velocity_rms_z_mm_s"),
        ),
        FaultMode(
            "misalignment",
            "M02",
            "misaligned coupling",
            BEARING_PLACES,
            ("spectrum.2x_mm_s", "vibration.velocity_rms_mm_s", "velocity_rms_x_mm_s", "temperature_degc"),
        ),
        FaultMode(
            "looseness",
            "M03",
            "mechanical looseness",
            BEARING_PLACES,
            ("spectrum.3x_mm_s", "vibration.velocity_rms_mm_s", "velocity_rms_z_mm_s"),
        ),
        FaultMode(
            "cavitation",
            "P01",
            "cavitation from lost suction pressure",
            ("pump",),
            ("band 4-10 kHz", "vibration.acceleration_rms_g", "suction_pressure_bar", "discharge_pressure_bar"),
        ),
        FaultMode(
            "dry_run",
            "P04",
            "pump runs dry",
            ("pump",),
            ("active_power_kw", "motor_current_a", "discharge_pressure_bar", "suction_pressure_bar"),
        ),
        FaultMode(
            "wear", "P08", "worn impeller and wear ring", ("pump",), ("discharge_pressure_bar", "active_power_kw")
        ),
        FaultMode("sensor_stuck", "S03", "sensor repeats its last value", ("sensor",), ("quality",)),
        FaultMode("sensor_sentinel", "S02", "sensor says not available", ("sensor",), ("quality",)),
        FaultMode("sensor_silent", "S02", "sensor does not answer", ("sensor",), ("quality",)),
    )
}
SENSOR_FAULTS = tuple(mode.id for mode in FAULTS.values() if mode.places == ("sensor",))

IMPULSE_FIRST_G = 0.03  # where the spectrum of the squared envelope begins to see a spall
IMPULSE_LAST_G = 20.0
LATE_LIFE = 0.85  # severity from which a spall spreads: the floor rises and kurtosis comes back down


def severity_at(
    t_s: float, *, onset_s: float, ramp_s: float, peak: float, hold_s: float | None = None, shape: str = "linear"
) -> float:
    """Severity 0..1 at a time: 0 before the onset, `peak` at the end of the ramp, 0 again after `hold_s` where given.

    `shape` "exponential" stays low for long and ends steeply, as wear does; both are exact at the ends.
    """
    since_s = t_s - onset_s
    if since_s < 0.0 or (hold_s is not None and since_s >= ramp_s + hold_s):
        return 0.0
    share = min(1.0, since_s / ramp_s) if ramp_s > 0.0 else 1.0
    if shape == "exponential":
        share = math.expm1(3.0 * share) / math.expm1(3.0)
    return peak * share


def impulse_peak_g(severity: float) -> float:
    """How hard a spall hits: 0.03 g to 20 g, even steps of severity being even factors; 0 where there is none."""
    if severity <= 0.0:
        return 0.0
    return float(IMPULSE_FIRST_G * (IMPULSE_LAST_G / IMPULSE_FIRST_G) ** severity)
