"""Electrical quantities from the RMS values of a meter or drive: unbalance, load, power factor, slip, supply.

RMS values hold no spectrum: broken bars and eccentricity need a current waveform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.features.feature import quantity
from agent.features.nameplate import NAN, Nameplate
from agent.features.readings import (
    PHASE_CURRENTS,
    SHAFT_POWER,
    Readings,
    first_known,
    load_ratio_of,
    mean,
    quotient,
    shaft_power_kw,
)

LINE_TO_LINE = ("voltage_l1_l2_v", "voltage_l2_l3_v", "voltage_l3_l1_v")
LINE_TO_NEUTRAL = ("voltage_l1_v", "voltage_l2_v", "voltage_l3_v")
VOLTAGES = (*LINE_TO_LINE, *LINE_TO_NEUTRAL)
EXPLAINED_BY_VOLTAGE = 10.0  # NEMA MG 1, 14.36: current unbalance is 6 to 10 times the voltage's


def unbalance_pct(phases: Sequence[float]) -> float:
    """Largest deviation of a phase from the mean of the three, over that mean; not (highest - lowest) / mean."""
    middle = mean(phases)
    return 100.0 * quotient(max(abs(phase - middle) for phase in phases), middle)


def voltage_unbalance_of(now: Readings) -> float:
    """Of the line-to-line voltages, as the norm has it; of those to neutral where the meter has no others.

    To neutral it also holds the neutral's own shift, which no motor feels.
    """
    to_line, to_neutral = ([now[name] for name in names] for names in (LINE_TO_LINE, LINE_TO_NEUTRAL))
    return first_known(unbalance_pct(to_line), unbalance_pct(to_neutral))


def deviation_pct(measured: float, rated: float) -> float:
    """How far from rated, of rated."""
    return 100.0 * quotient(measured - rated, rated)


def motor_power_factor(load_ratio: float, rated_ratio: float, no_load_current_ratio: float) -> float:
    """Power factor of an induction motor on the mains at a load.

    Active current grows with load; reactive current grows from the magnetising current as leakage does, with its square.

    Args:
        rated_ratio: power factor at rated load. no_load_current_ratio: current at no load over rated current.
    """
    active = rated_ratio * load_ratio
    at_rated = math.sqrt(1.0 - rated_ratio**2)
    reactive = no_load_current_ratio + (at_rated - no_load_current_ratio) * load_ratio * load_ratio
    return quotient(active, math.hypot(active, reactive))


@quantity(
    version=1,
    words="voltage unbalance",
    source="NEMA MG 1, 12.45: largest deviation from the mean of the line-to-line voltages, over the mean",
    moved_by=("supply_unbalance", "phase_loss"),
    may_use=VOLTAGES,
)
def voltage_unbalance_pct(now: Readings, plate: Nameplate) -> float:
    """Of the supply. A motor wants at most 1 % and is derated above it: 2 % to 0.95 of its power, 3 % to 0.9."""
    return voltage_unbalance_of(now)


@quantity(
    version=1,
    words="current unbalance",
    source="NEMA MG 1, 12.45, the same formula on the phase currents",
    moved_by=("stator_electrical", "supply_unbalance", "phase_loss"),
    needs=PHASE_CURRENTS,
)
def current_unbalance_pct(now: Readings, plate: Nameplate) -> float:
    """Of the supply's currents, which behind a drive are the rectifier's and not the motor's."""
    return unbalance_pct([now[name] for name in PHASE_CURRENTS])


@quantity(
    version=1,
    words="current unbalance beyond what the voltage explains",
    source="NEMA MG 1, 14.36: current unbalance of 6 to 10 times the voltage unbalance; 10 is taken off",
    moved_by=("stator_electrical",),
    needs=PHASE_CURRENTS,
    may_use=VOLTAGES,
)
def current_unbalance_excess_pct(now: Readings, plate: Nameplate) -> float:
    """What is the motor's or its terminals' own: 0 while ten times the voltage unbalance explains all of it."""
    own_pct = unbalance_pct([now[name] for name in PHASE_CURRENTS]) - EXPLAINED_BY_VOLTAGE * voltage_unbalance_of(now)
    return 0.0 if own_pct < 0.0 else own_pct


@quantity(
    version=1,
    words="motor load",
    source="US DOE, Determining Electric Motor Load and Efficiency: power over rated power, else current over rated current",
    moved_by=("overload", "load_loss", "dry_run", "dead_head", "impeller_wear"),
    may_use=(*SHAFT_POWER, "motor_current_a", *PHASE_CURRENTS),
)
def load_ratio(now: Readings, plate: Nameplate) -> float:
    """1 at rated load; above it the motor lives shorter by every kelvin."""
    power_kw = shaft_power_kw(now["motor_shaft_power_kw"], now["active_power_kw"], plate.data)
    current_a = first_known(now["motor_current_a"], mean([now[name] for name in PHASE_CURRENTS]))
    return load_ratio_of(power_kw, current_a, plate.data)


@quantity(
    version=1,
    words="power factor against the motor's own at this load",
    source="equivalent circuit reduced to rated and no-load current (tests of IEC 60034-2-1)",
    moved_by=("stator_electrical",),
    needs=("power_factor_ratio", "active_power_kw"),
)
def power_factor_shift_ratio(now: Readings, plate: Nameplate) -> float:
    """0 on a healthy motor at any load; below 0 it takes more magnetising current than it used to.

    Of motors on the mains: before a drive the meter sees the drive's rectifier.
    """
    data = plate.data
    load = load_ratio_of(shaft_power_kw(NAN, now["active_power_kw"], data), NAN, data)
    no_load_ratio = quotient(data.no_load_current_a, data.rated_current_a)
    return now["power_factor_ratio"] - motor_power_factor(load, data.rated_power_factor_ratio, no_load_ratio)


@quantity(
    version=1,
    words="slip",
    source="IEC 60034-1: (synchronous speed - speed) / synchronous speed, synchronous speed 120 f / poles",
    moved_by=("overload", "load_loss", "broken_rotor_bar"),
    needs=("shaft_speed_rpm",),
    may_use=("output_frequency_hz", "line_frequency_hz"),
)
def slip_ratio(now: Readings, plate: Nameplate) -> float:
    """Of an induction motor, from a measured speed and the frequency that feeds it: the drive's, else the line's."""
    frequency_hz = first_known(now["output_frequency_hz"], now["line_frequency_hz"])
    synchronous_rpm = quotient(120.0 * frequency_hz, float(plate.data.n_poles or NAN))
    return quotient(synchronous_rpm - now["shaft_speed_rpm"], synchronous_rpm)


@quantity(
    version=1,
    words="supply voltage against rated",
    source="NEMA MG 1, 12.44: runs within 10 % of rated voltage",
    moved_by=(),
    may_use=VOLTAGES,
)
def voltage_deviation_pct(now: Readings, plate: Nameplate) -> float:
    """Mean line-to-line voltage against the plate's; from the voltages to neutral times the root of 3 without it."""
    line_v = first_known(
        mean([now[name] for name in LINE_TO_LINE]), math.sqrt(3.0) * mean([now[name] for name in LINE_TO_NEUTRAL])
    )
    return deviation_pct(line_v, plate.data.rated_voltage_v)


@quantity(
    version=1,
    words="supply frequency against rated",
    source="NEMA MG 1, 12.44: runs within 5 % of rated frequency",
    moved_by=(),
    needs=("line_frequency_hz",),
)
def frequency_deviation_pct(now: Readings, plate: Nameplate) -> float:
    """A works generator shows here first; the public grid stays within 1 %."""
    return deviation_pct(now["line_frequency_hz"], plate.line_frequency_hz)
