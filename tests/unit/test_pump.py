"""The pump's physics against its duty point and the affinity laws."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.effects import hydraulics_of
from simulator.pump import Hydraulics, PumpParameters, PumpPoint, operate

PUMP = PumpParameters()
DUTY = operate(PUMP, 1460.0)


def test_the_duty_point_is_where_the_curves_meet() -> None:
    """80 m3/h at 20 m with 5.74 kW at the shaft and NPSH3 of 3.0 m."""
    assert DUTY.flow_m3_h == pytest.approx(80.0, abs=0.1)
    assert DUTY.head_m == pytest.approx(20.0, abs=0.05)
    assert DUTY.shaft_power_kw == pytest.approx(5.74, abs=0.03)
    assert DUTY.npsh_margin_ratio == pytest.approx(12.9 / 3.0, abs=0.1)
    assert DUTY.cavitation_db == 0.0


def test_affinity_laws_hold_without_static_head() -> None:
    """On a pure friction circuit flow goes with speed, head with its square, power with its cube."""
    circuit = PumpParameters(static_head_m=0.0)
    full, half = operate(circuit, 1460.0), operate(circuit, 730.0)
    assert half.flow_m3_h / full.flow_m3_h == pytest.approx(0.5, rel=1e-6)
    assert half.head_m / full.head_m == pytest.approx(0.25, rel=1e-6)
    assert half.shaft_power_kw / full.shaft_power_kw == pytest.approx(0.125, rel=1e-6)


def test_throttling_lowers_flow_and_power_and_raises_head() -> None:
    """A radial pump takes least power against a shut valve: about 61 % of duty power, the limit of its formula."""
    throttled = operate(PUMP, 1460.0, Hydraulics(valve_ratio=4.0))
    assert throttled.flow_m3_h < DUTY.flow_m3_h
    assert throttled.head_m > DUTY.head_m
    shut = operate(PUMP, 1460.0, Hydraulics(valve_ratio=1e9))
    assert shut.shaft_power_kw / DUTY.shaft_power_kw == pytest.approx(0.61, abs=0.03)


@pytest.mark.parametrize("severity", [0.2, 0.5, 0.9])
def test_cavitation_is_lost_suction_pressure_first(severity: float) -> None:
    """Suction pressure falls at once, noise follows when the reserve is used up, head hardly moves before the end."""
    point = operate(PUMP, 1460.0, Hydraulics(suction_loss=severity))
    assert point.suction_pressure_bar < DUTY.suction_pressure_bar - 0.15
    assert point.head_m == pytest.approx(DUTY.head_m, rel=0.03)
    assert (point.cavitation_db > 0.0) == (point.npsh_margin_ratio < PUMP.incipient_ratio)


def test_at_npsh3_the_head_has_dropped_by_three_percent() -> None:
    """That is what NPSH3 means (ISO 9906); with less, the head falls off a cliff."""
    at_npsh3 = operate(PUMP, 1460.0, Hydraulics(suction_loss=1.0))
    assert at_npsh3.npsh_margin_ratio == pytest.approx(1.0, abs=1e-6)
    shutoff_m = at_npsh3.head_m + PUMP.head_slope * at_npsh3.flow_m3_h**2
    assert 1.0 - shutoff_m / PUMP.shutoff_head_m == pytest.approx(0.03, abs=1e-6)


def test_a_dry_pump_gives_no_pressure_and_takes_little_power() -> None:
    """P04: differential pressure about 0, power down by 40 to 70 %."""
    dry = operate(PUMP, 1460.0, Hydraulics(dry=1.0))
    assert dry.discharge_pressure_bar - dry.suction_pressure_bar == pytest.approx(0.0, abs=1e-9)
    assert 0.30 <= dry.shaft_power_kw / DUTY.shaft_power_kw <= 0.60
    assert dry.flow_m3_h == 0.0


def test_a_stopped_pump_needs_nothing_and_shows_its_static_pressure() -> None:
    """At standstill the formula's quotients have no meaning; they must not leak out as NaN."""
    still = operate(PUMP, 0.0)
    assert (still.flow_m3_h, still.head_m, still.shaft_power_kw, still.cavitation_db) == (0.0, 0.0, 0.0, 0.0)
    assert still.discharge_pressure_bar == still.suction_pressure_bar


def test_varied_pumps_are_all_workable_and_quiet() -> None:
    """Every pump of a fleet runs at a sane duty, loads its motor below rating and does not cavitate when healthy."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        pump = PUMP.varied(rng, 0.3)
        point = operate(pump, 1465.0)
        assert 0.8 <= point.flow_m3_h / pump.best_flow_m3_h <= 1.1
        assert 4.0 <= point.shaft_power_kw <= 7.5
        assert point.cavitation_db == 0.0


def with_fault(fault: str, severity: float) -> PumpPoint:
    return operate(PUMP, 1460.0, hydraulics_of(1.0, 0.0, {"pump": {fault: severity}}))


def test_a_strainer_takes_suction_pressure_long_before_it_makes_cavitation() -> None:
    """Days of warning: pressure before the pump falls with the flow through the dirt, the noise comes last."""
    half, full = with_fault("clogged_strainer", 0.5), with_fault("clogged_strainer", 1.0)
    assert half.suction_pressure_bar < DUTY.suction_pressure_bar - 0.2
    assert half.flow_m3_h < 0.97 * DUTY.flow_m3_h
    assert half.cavitation_db == 0.0
    assert full.cavitation_db > 0.0


def test_fibres_in_the_impeller_cost_head_and_flow_and_take_more_power() -> None:
    """What tells ragging from wear, which takes power down with the head."""
    ragged, worn = with_fault("clogged_impeller", 0.5), with_fault("impeller_wear", 0.5)
    for point in (ragged, worn):
        assert point.flow_m3_h < DUTY.flow_m3_h
        assert point.head_m < DUTY.head_m
    assert ragged.shaft_power_kw > DUTY.shaft_power_kw > worn.shaft_power_kw


def test_gas_takes_flow_head_and_power_and_makes_them_swing() -> None:
    """Per cent by volume cost two to ten times as much; 0.1 to 2 Hz of swing is what cavitation does not have."""
    gassed = with_fault("air_entrainment", 0.5)
    for name in ("flow_m3_h", "head_m", "shaft_power_kw"):
        lost = 1.0 - getattr(gassed, name) / getattr(DUTY, name)
        assert 2.0 <= lost / 0.03 <= 12.0, name
    assert 0.05 <= gassed.surge_ratio <= 0.2
    assert (DUTY.surge_ratio, gassed.cavitation_db) == (0.0, 0.0)


def test_a_throttled_pump_runs_at_a_third_of_its_flow_and_a_shut_one_warms_its_liquid() -> None:
    """Recirculation is a low flow; a dead head is none, at the highest pressure, with 61 % of the power going into the liquid."""
    throttled, shut = with_fault("recirculation", 1.0), with_fault("dead_head", 1.0)
    assert 0.25 <= throttled.flow_m3_h / PUMP.best_flow_m3_h <= 0.35
    assert shut.flow_m3_h < 0.01
    assert shut.head_m == pytest.approx(PUMP.shutoff_head_m, rel=0.01)
    assert 0.55 <= shut.shaft_power_kw / DUTY.shaft_power_kw <= 0.65
    assert 20.0 <= shut.liquid_rise_k <= 70.0
    assert DUTY.liquid_rise_k == 0.0
