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
            (
                "envelope.spectral_kurtosis_ratio",
                "vibration.skewness_ratio",
                "vibration.kurtosis_ratio",
                "spectrum.band_rms_m_s2",
                "envelope.rms_m_s2",
                "vibration.peak_m_s2",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
                "vibration.crest_ratio",
                "spectrum.entropy_ratio",
                "vibration.rms_m_s2",
                "envelope.bpfo_ratio",
                "spectrum.noise_floor_m_s2",
                "spectrum.centroid_hz",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "bearing_inner_race",
            "B02",
            "spall on the bearing's inner race",
            BEARING_PLACES,
            (
                "envelope.spectral_kurtosis_ratio",
                "vibration.skewness_ratio",
                "vibration.kurtosis_ratio",
                "spectrum.band_rms_m_s2",
                "envelope.rms_m_s2",
                "vibration.peak_m_s2",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
                "vibration.crest_ratio",
                "envelope.bpfi_sidebands_ratio",
                "envelope.bpfi_ratio",
                "spectrum.entropy_ratio",
                "vibration.rms_m_s2",
                "spectrum.noise_floor_m_s2",
                "spectrum.centroid_hz",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "lubrication",
            "B04",
            "bearing short of grease",
            BEARING_PLACES,
            (
                "spectrum.band_rms_m_s2",
                "vibration.rms_m_s2",
                "spectrum.noise_floor_m_s2",
                "envelope.rms_m_s2",
                "vibration.peak_m_s2",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
                "thermal.residual_k",
                "thermal.rise_k",
                "thermal.rate_k_min",
                "spectrum.entropy_ratio",
                "spectrum.centroid_hz",
            ),
        ),
        FaultMode(
            "unbalance",
            "M01",
            "unbalance",
            BEARING_PLACES,
            (
                "velocity_rms_x_mm_s:tag.amplitude",
                "velocity_rms_z_mm_s:tag.amplitude",
                "spectrum.band_rms_m_s2",
                "spectrum.velocity_rms_mm_s",
                "spectrum.line_1x_mm_s",
                "spectrum.zone_ratio",
                "spectrum.displacement_rms_um",
                "vibration.rms_m_s2",
                "vibration.peak_m_s2",
                "spectrum.entropy_ratio",
                "spectrum.centroid_hz",
            ),
        ),
        FaultMode(
            "misalignment",
            "M02",
            "misaligned coupling",
            BEARING_PLACES,
            (
                "spectrum.band_rms_m_s2",
                "velocity_rms_x_mm_s:tag.amplitude",
                "spectrum.line_2x_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "spectrum.entropy_ratio",
                "spectrum.velocity_rms_mm_s",
                "spectrum.line_3x_mm_s",
                "vibration.skewness_ratio",
                "spectrum.zone_ratio",
                "spectrum.line_1x_mm_s",
                "spectrum.centroid_hz",
                "vibration.rms_m_s2",
                "spectrum.displacement_rms_um",
                "thermal.residual_k",
                "thermal.rise_k",
                "vibration.peak_m_s2",
            ),
        ),
        FaultMode(
            "looseness",
            "M03",
            "mechanical looseness",
            BEARING_PLACES,
            (
                "spectrum.band_rms_m_s2",
                "vibration.skewness_ratio",
                "spectrum.harmonics_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "spectrum.vane_pass_mm_s",
                "spectrum.vane_sidebands_mm_s",
                "velocity_rms_x_mm_s:tag.amplitude",
                "spectrum.line_2x_mm_s",
                "spectrum.line_3x_mm_s",
                "spectrum.velocity_rms_mm_s",
                "spectrum.line_1x_mm_s",
                "spectrum.zone_ratio",
                "vibration.peak_m_s2",
                "vibration.rms_m_s2",
                "spectrum.entropy_ratio",
                "spectrum.displacement_rms_um",
                "vibration.kurtosis_ratio",
                "spectrum.centroid_hz",
                "spectrum.line_half_mm_s",
            ),
        ),
        FaultMode(
            "cavitation",
            "P01",
            "cavitation from lost suction pressure",
            ("pump",),
            (
                "hydraulic.npsh_available_m",
                "suction_pressure_bar:tag.level",
                "hydraulic.npsh_margin_ratio",
                "discharge_pressure_bar:tag.level",
                "envelope.rms_m_s2",
                "hf_acceleration_rms_x_g:tag.amplitude",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hydraulic.efficiency_ratio",
                "hydraulic.efficiency_residual_ratio",
                "hydraulic.head_at_rated_speed_m",
                "hydraulic.head_m",
                "hydraulic.head_residual_m",
                "spectrum.band_rms_m_s2",
                "spectrum.centroid_hz",
                "spectrum.entropy_ratio",
                "spectrum.noise_floor_m_s2",
                "spectrum.vane_pass_mm_s",
                "vibration.peak_m_s2",
                "vibration.rms_m_s2",
            ),
        ),
        FaultMode(
            "dry_run",
            "P04",
            "pump runs dry",
            ("pump",),
            (
                "hydraulic.head_residual_m",
                "hydraulic.head_at_rated_speed_m",
                "hydraulic.head_m",
                "hydraulic.efficiency_ratio",
                "hydraulic.dry_run_ratio",
                "hydraulic.flow_at_rated_speed_m3_h",
                "flow_m3_h:tag.level",
                "discharge_pressure_bar:tag.level",
                "hydraulic.flow_over_best_ratio",
                "hydraulic.power_at_rated_speed_kw",
                "hydraulic.efficiency_residual_ratio",
                "active_power_kw:tag.level",
                "spectrum.vane_pass_mm_s",
                "spectrum.harmonics_mm_s",
                "motor_current_a:tag.level",
                "electrical.load_ratio",
                "hydraulic.npsh_margin_ratio",
                "spectrum.band_rms_m_s2",
                "hydraulic.npsh_available_m",
                "suction_pressure_bar:tag.level",
            ),
        ),
        FaultMode(
            "wear",
            "P08",
            "worn impeller and wear ring",
            ("pump",),
            (
                "hydraulic.head_residual_m",
                "hydraulic.head_at_rated_speed_m",
                "hydraulic.power_at_rated_speed_kw",
                "hydraulic.flow_at_rated_speed_m3_h",
                "flow_m3_h:tag.level",
                "hydraulic.flow_over_best_ratio",
                "hydraulic.head_m",
                "hydraulic.efficiency_ratio",
                "electrical.load_ratio",
                "hydraulic.efficiency_residual_ratio",
                "hydraulic.specific_energy_kwh_m3",
            ),
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
