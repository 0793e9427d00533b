"""The faults that can be simulated, as a table: where each can sit and what it should move. And its course over time.

Ids are the agent's; codes are those of the fault catalogue (M machine, B bearing, E electrical, P pump, S sensor). `moves`
names the features that tell most, by their ids, and then every statistic of a channel that leaves its normal: which other
features do is said by their own declarations. Tests and docs/faults.md hold both against the simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PLACES = ("motor_de", "pump_de", "motor", "pump", "sensor")


@dataclass(frozen=True, slots=True)
class FaultMode:
    """One kind of fault: its name, where it can sit, and the features and channels it should move."""

    id: str
    code: str
    title: str
    places: tuple[str, ...]
    moves: tuple[str, ...]


BEARING_PLACES = ("motor_de", "pump_de")
MOTOR = ("motor",)
PUMP = ("pump",)

FAULTS: dict[str, FaultMode] = {
    mode.id: mode
    for mode in (
        FaultMode(
            "bearing_outer_race",
            "B01",
            "spall on the bearing's outer race",
            BEARING_PLACES,
            (
                "envelope.bpfo_ratio",
                "envelope.spectral_kurtosis_ratio",
                "vibration.kurtosis_ratio",
                "vibration.crest_ratio",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "bearing_inner_race",
            "B02",
            "spall on the bearing's inner race",
            BEARING_PLACES,
            (
                "envelope.bpfi_ratio",
                "envelope.bpfi_sidebands_ratio",
                "vibration.kurtosis_ratio",
                "vibration.crest_ratio",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "bearing_ball_cage",
            "B03",
            "spall on a ball of the bearing",
            BEARING_PLACES,
            (
                "envelope.bsf_ratio",
                "envelope.bsf_sidebands_ratio",
                "envelope.ftf_ratio",
                "vibration.kurtosis_ratio",
                "vibration.crest_ratio",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "lubrication",
            "B04",
            "bearing short of grease",
            BEARING_PLACES,
            (
                "envelope.rms_m_s2",
                "spectrum.noise_floor_m_s2",
                "spectrum.band_rms_m_s2",
                "thermal.residual_k",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "unbalance",
            "M01",
            "unbalance",
            BEARING_PLACES,
            (
                "spectrum.line_1x_mm_s",
                "spectrum.velocity_rms_mm_s",
                "spectrum.displacement_rms_um",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "misalignment",
            "M02",
            "misaligned coupling",
            BEARING_PLACES,
            (
                "spectrum.line_2x_mm_s",
                "spectrum.line_3x_mm_s",
                "spectrum.velocity_rms_mm_s",
                "thermal.residual_k",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "looseness",
            "M03",
            "mechanical looseness",
            BEARING_PLACES,
            (
                "spectrum.harmonics_mm_s",
                "spectrum.line_3x_mm_s",
                "spectrum.velocity_rms_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "cavitation",
            "P01",
            "cavitation from lost suction pressure",
            PUMP,
            (
                "hydraulic.npsh_margin_ratio",
                "envelope.rms_m_s2",
                "spectrum.noise_floor_m_s2",
                "suction_pressure_bar:tag.level",
                "discharge_pressure_bar:tag.level",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "dry_run",
            "P04",
            "pump runs dry",
            PUMP,
            (
                "hydraulic.dry_run_ratio",
                "hydraulic.head_residual_m",
                "spectrum.vane_pass_mm_s",
                "active_power_kw:tag.level",
                "motor_current_a:tag.level",
                "flow_m3_h:tag.level",
                "discharge_pressure_bar:tag.level",
                "suction_pressure_bar:tag.level",
            ),
        ),
        FaultMode(
            "impeller_wear",
            "P08",
            "worn impeller and wear ring",
            PUMP,
            (
                "hydraulic.head_residual_m",
                "hydraulic.head_at_rated_speed_m",
                "hydraulic.power_at_rated_speed_kw",
                "active_power_kw:tag.level",
                "motor_current_a:tag.level",
                "discharge_pressure_bar:tag.level",
                "flow_m3_h:tag.level",
            ),
        ),
        FaultMode(
            "over_greasing",
            "B05",
            "bearing with too much grease",
            BEARING_PLACES,
            (
                "thermal.residual_k",
                "thermal.rise_k",
                "spectrum.noise_floor_m_s2",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "bearing_fluting",
            "B06",
            "races fluted by shaft currents",
            BEARING_PLACES,
            (
                "envelope.bpfo_ratio",
                "envelope.bpfi_ratio",
                "envelope.rms_m_s2",
                "envelope.spectral_kurtosis_ratio",
                "spectrum.band_rms_m_s2",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "bent_shaft",
            "M04",
            "bent shaft",
            BEARING_PLACES,
            (
                "spectrum.line_1x_mm_s",
                "spectrum.line_2x_mm_s",
                "spectrum.velocity_rms_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "coupling_wear",
            "P10",
            "worn coupling",
            BEARING_PLACES,
            (
                "spectrum.line_3x_mm_s",
                "spectrum.line_2x_mm_s",
                "spectrum.velocity_rms_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "overload",
            "E05",
            "more load than the pump's",
            MOTOR,
            (
                "electrical.load_ratio",
                "hydraulic.power_at_rated_speed_kw",
                "motor_current_a:tag.level",
                "active_power_kw:tag.level",
            ),
        ),
        FaultMode(
            "supply_unbalance",
            "E01",
            "unbalanced supply voltages",
            MOTOR,
            (
                "electrical.voltage_unbalance_pct",
                "electrical.current_unbalance_pct",
                "spectrum.line_2xlf_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "stator_electrical",
            "E02",
            "shorted turns in the stator",
            MOTOR,
            (
                "electrical.current_unbalance_excess_pct",
                "electrical.current_unbalance_pct",
                "spectrum.line_2xlf_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
                "motor_current_a:tag.level",
            ),
        ),
        FaultMode(
            "air_gap_eccentricity",
            "E04",
            "eccentric air gap",
            MOTOR,
            (
                "spectrum.line_2xlf_mm_s",
                "spectrum.velocity_rms_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "broken_rotor_bar",
            "E03",
            "broken rotor bars",
            MOTOR,
            (
                "spectrum.line_1x_mm_s",
                "spectrum.velocity_rms_mm_s",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        FaultMode(
            "cooling_blocked",
            "E06",
            "no air for the motor",
            MOTOR,
            (
                "thermal.residual_k",
                "thermal.rise_k",
            ),
        ),
        FaultMode(
            "clogged_strainer",
            "P07",
            "clogged suction strainer",
            PUMP,
            (
                "hydraulic.npsh_available_m",
                "hydraulic.npsh_margin_ratio",
                "hydraulic.flow_at_rated_speed_m3_h",
                "suction_pressure_bar:tag.level",
                "flow_m3_h:tag.level",
                "discharge_pressure_bar:tag.level",
            ),
        ),
        FaultMode(
            "air_entrainment",
            "P02",
            "air in the liquid",
            PUMP,
            (
                "hydraulic.head_residual_m",
                "hydraulic.power_at_rated_speed_kw",
                "hydraulic.flow_at_rated_speed_m3_h",
                "discharge_pressure_bar:tag.level",
                "active_power_kw:tag.level",
                "flow_m3_h:tag.level",
                "motor_current_a:tag.level",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "recirculation",
            "P03",
            "flow too low, part of it turns back",
            PUMP,
            (
                "hydraulic.flow_over_best_ratio",
                "spectrum.vane_pass_mm_s",
                "spectrum.band_rms_m_s2",
                "flow_m3_h:tag.level",
                "discharge_pressure_bar:tag.level",
                "active_power_kw:tag.level",
                "motor_current_a:tag.level",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "dead_head",
            "P05",
            "discharge shut",
            PUMP,
            (
                "hydraulic.flow_over_best_ratio",
                "hydraulic.head_m",
                "hydraulic.power_at_rated_speed_kw",
                "flow_m3_h:tag.level",
                "discharge_pressure_bar:tag.level",
                "active_power_kw:tag.level",
                "motor_current_a:tag.level",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
                "hf_acceleration_rms_z_g:tag.amplitude",
                "hf_acceleration_rms_x_g:tag.amplitude",
            ),
        ),
        FaultMode(
            "clogged_impeller",
            "P06",
            "fibres in the impeller",
            PUMP,
            (
                "spectrum.line_1x_mm_s",
                "hydraulic.head_residual_m",
                "hydraulic.efficiency_residual_ratio",
                "discharge_pressure_bar:tag.level",
                "flow_m3_h:tag.level",
                "active_power_kw:tag.level",
                "motor_current_a:tag.level",
                "velocity_rms_z_mm_s:tag.amplitude",
                "velocity_rms_x_mm_s:tag.amplitude",
            ),
        ),
        *(
            FaultMode(fault, code, title, ("sensor",), ("quality",))
            for fault, code, title in (
                ("sensor_stuck", "S03", "sensor repeats its last value"),
                ("sensor_sentinel", "S02", "sensor says not available"),
                ("sensor_silent", "S02", "sensor does not answer"),
                ("sensor_dropouts", "S02", "sensor falls silent for minutes, again and again"),
                ("sensor_drift", "S04", "sensor loses its calibration"),
                ("sensor_bias", "S04", "sensor reads beside by a step"),
                ("sensor_spikes", "S05", "single readings far off"),
                ("sensor_unit", "S07", "sensor set to another unit"),
                ("sensor_swapped_axes", "S07", "axes of the sensor exchanged"),
                ("sensor_loose", "S01", "sensor loose on the machine"),
                ("sensor_clipped", "S06", "sensor overloaded"),
                ("sensor_rate", "S08", "clock of the sensor wrong"),
                ("sensor_gaps", "S02", "parts of bursts lost on the way"),
            )
        ),
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
