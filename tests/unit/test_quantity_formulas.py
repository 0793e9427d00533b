"""Electrical, hydraulic and thermal quantities against numbers worked by hand and against the simulator's truth.

The example machine: 7.5 kW, 4 poles, 14.4 A, efficiency 0.904; its pump moves 80 m3/h to 20 m at 76 %.
"""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest

from agent.features import DataPlate, Nameplate, known_features, water
from agent.features.hydraulic import on_curve
from simulator import motor as motors
from simulator import pump as pumps
from simulator.machine_set import SetParameters
from simulator.motor import MotorParameters
from simulator.pump import Hydraulics, PumpParameters, PumpPoint
from training.dataset import plate_of

SET = SetParameters()
DATA = plate_of(SET)
PLATE = Nameplate(1460.0, 50.0, data=DATA)
BARE = Nameplate()


def value(feature: str, plate: Nameplate = PLATE, **channels: float) -> float:
    """A quantity where the machine has these channels and no others; a statistic's name is written slope__temperature."""
    tags = {}
    for name, reading in channels.items():
        statistic, _, channel = name.rpartition("__")
        tags[f"{channel}:tag.{statistic or 'level'}"] = (reading, True)
    return known_features()[feature].quantity_of(tags, plate)


def phases(kind: str, *values: float) -> dict[str, float]:
    names = ("l1_l2", "l2_l3", "l3_l1") if kind == "line" else ("l1", "l2", "l3")
    quantity, unit = ("current", "a") if kind == "current" else ("voltage", "v")
    return {f"{quantity}_{name}_{unit}": number for name, number in zip(names, values, strict=True)}


# ---------------------------------------------------------------------------------------------- electrical
def test_voltage_unbalance_is_the_norms_own_example() -> None:
    """NEMA MG 1: 460, 467 and 450 V have a mean of 459 and 9 V of deviation, 1.96 %; (max - min) / mean would say 3.7."""
    assert value("electrical.voltage_unbalance_pct", **phases("line", 460, 467, 450)) == pytest.approx(1.9608, abs=1e-4)


def test_line_to_line_voltages_come_before_those_to_neutral() -> None:
    """A shifted neutral unbalances the voltages to it, and no motor feels that."""
    both = phases("line", 400, 400, 400) | phases("neutral", 240, 230, 220)
    assert value("electrical.voltage_unbalance_pct", **both) == 0.0
    assert value("electrical.voltage_unbalance_pct", **phases("neutral", 240, 230, 220)) == pytest.approx(
        4.3478, abs=1e-4
    )


def test_only_the_current_unbalance_that_the_voltage_does_not_explain_is_the_motors() -> None:
    """1.7 % of voltage gave 17 % of current in a published case: nothing of it is the motor's."""
    mild = phases("line", 400, 400, 400 * 1.017)
    currents = phases("current", 11.7, 10.0, 8.3)
    assert value("electrical.current_unbalance_pct", **currents) == pytest.approx(17.0)
    explained_pct = 10 * value("electrical.voltage_unbalance_pct", **mild)
    assert value("electrical.current_unbalance_excess_pct", **currents, **mild) == pytest.approx(17.0 - explained_pct)
    supply = phases("line", 406.8, 400, 393.2)
    assert value("electrical.current_unbalance_excess_pct", **currents, **supply) == pytest.approx(0.0, abs=1e-9)


def test_load_is_power_over_rated_power_and_current_where_no_power_is_known() -> None:
    """6.35 kW from the mains at 0.904 are 5.74 kW at the shaft, 0.765 of 7.5 kW; the drive's own figure comes first."""
    plate = Nameplate(data=DataPlate(rated_power_kw=7.5, rated_efficiency_ratio=0.904, rated_current_a=14.4))
    assert value("electrical.load_ratio", plate, active_power_kw=6.35) == pytest.approx(0.7654, abs=1e-4)
    both = value("electrical.load_ratio", plate, active_power_kw=6.35, motor_shaft_power_kw=6.0)
    assert both == pytest.approx(0.8)
    assert value("electrical.load_ratio", plate, motor_current_a=12.24) == pytest.approx(0.85)
    assert value("electrical.load_ratio", plate, **phases("current", 12.0, 12.24, 12.48)) == pytest.approx(0.85)


@pytest.mark.parametrize("load", [0.25, 0.6, 1.0])
def test_power_factor_of_a_healthy_motor_does_not_shift_with_load(load: float) -> None:
    """The simulator's motor on the mains: 0.5 at a quarter load and 0.83 at full, and both are its own."""
    motor = MotorParameters()
    data = DataPlate(
        rated_power_kw=7.5,
        rated_efficiency_ratio=0.904,
        rated_current_a=motor.rated_current_a,
        no_load_current_a=motor.magnetising_ratio * motor.rated_current_a,
        rated_power_factor_ratio=motor.rated_power_factor_ratio,
    )
    own_ratio = motors.power_factor_ratio(motor, load)
    supplied_kw = load * 7.5 / 0.904
    plate = Nameplate(data=data)
    for shift in (0.0, -0.05):
        seen = value(
            "electrical.power_factor_shift_ratio",
            plate,
            power_factor_ratio=own_ratio + shift,
            active_power_kw=supplied_kw,
        )
        assert seen == pytest.approx(shift, abs=1e-9)


def test_slip_is_taken_from_the_frequency_that_feeds_the_motor() -> None:
    """40 / 1500 at rated load; on a drive its output counts, not the line."""
    assert value("electrical.slip_ratio", shaft_speed_rpm=1460.0, line_frequency_hz=50.0) == pytest.approx(40 / 1500)
    on_drive = value("electrical.slip_ratio", shaft_speed_rpm=860.0, line_frequency_hz=50.0, output_frequency_hz=30.0)
    assert on_drive == pytest.approx(40 / 900)


def test_supply_is_told_against_the_plate() -> None:
    """380 V on a 400 V motor is 5 % low, 49 Hz 2 %; voltages to neutral count times the root of 3."""
    plate = Nameplate(line_frequency_hz=50.0, data=DataPlate(rated_voltage_v=400.0))
    assert value("electrical.voltage_deviation_pct", plate, **phases("line", 380, 380, 380)) == pytest.approx(-5.0)
    neutral_v = 380 / math.sqrt(3)
    to_neutral = phases("neutral", neutral_v, neutral_v, neutral_v)
    assert value("electrical.voltage_deviation_pct", plate, **to_neutral) == pytest.approx(-5.0)
    assert value("electrical.frequency_deviation_pct", plate, line_frequency_hz=49.0) == pytest.approx(-2.0)


# ---------------------------------------------------------------------------------------------- water
@pytest.mark.parametrize(
    ("degc", "bar", "kg_m3"),
    [(20.0, 0.02339, 998.16), (60.0, 0.1995, 983.2), (80.0, 0.4741, 971.8), (100.0, 1.0142, 958.3)],
)
def test_water_is_that_of_the_steam_tables(degc: float, bar: float, kg_m3: float) -> None:
    """Vapour pressure decides on cavitation: 2.34 kPa when cold, 47.4 kPa at 80 degrees."""
    assert water.vapour_pressure_bar(degc) == pytest.approx(bar, rel=5e-4)
    assert water.density_kg_m3(degc) == pytest.approx(kg_m3, abs=0.1)


@pytest.mark.parametrize("degc", [-5.0, 374.0, 1e9, math.nan])
def test_water_that_is_no_liquid_has_no_numbers(degc: float) -> None:
    """Ice, and what a broken sensor says."""
    assert math.isnan(water.vapour_pressure_bar(degc))
    assert math.isnan(water.density_kg_m3(degc))


# ---------------------------------------------------------------------------------------------- hydraulic
def test_the_duty_point_by_hand() -> None:
    """1.9578 bar of cold water are 20 m; 80 m3/h to there are 4.350 kW, 76 % of 5.724 kW; 6.35 kW cost 0.0794 kWh/m3."""
    duty = {"suction_pressure_bar": 0.25, "discharge_pressure_bar": 2.2078, "flow_m3_h": 80.0}
    assert value("hydraulic.head_m", **duty) == pytest.approx(20.0, abs=2e-3)
    efficiency = value("hydraulic.efficiency_ratio", **duty, motor_shaft_power_kw=5.724)
    assert efficiency == pytest.approx(0.76, abs=2e-4)
    cost = value("hydraulic.specific_energy_kwh_m3", flow_m3_h=80.0, active_power_kw=6.35)
    assert cost == pytest.approx(0.0794, abs=1e-4)
    assert cost == pytest.approx(20.0 / (367.1 * 0.76 * 0.904), rel=5e-3), "the book's short form for water"


def test_bores_and_heights_belong_to_the_head() -> None:
    """80 m3/h are 2.829 m/s in 100 mm and 4.421 m/s in 80 mm: 0.408 and 0.996 m of velocity head."""
    pipes = DataPlate(
        suction_bore_mm=100, discharge_bore_mm=80, discharge_gauge_height_m=0.6, suction_gauge_height_m=-0.2
    )
    duty = {"differential_pressure_bar": 1.9578, "flow_m3_h": 80.0}
    assert value("hydraulic.head_m", Nameplate(data=pipes), **duty) == pytest.approx(20.0 + 0.588 + 0.8, abs=3e-3)
    in_litres = {"differential_pressure_bar": 1.9578, "flow_l_min": 80.0 / 0.06}
    assert value("hydraulic.head_m", Nameplate(data=pipes), **in_litres) == pytest.approx(20.0 + 0.588 + 0.8, abs=3e-3)
    assert math.isnan(value("hydraulic.head_m", Nameplate(data=pipes), differential_pressure_bar=1.9578))


def test_suction_reserve_by_hand() -> None:
    """(0.25 + 1.01325 - 0.02339) bar of cold water are 12.67 m; at 80 degrees the vapour takes 4.3 m of them."""
    cold = value("hydraulic.npsh_available_m", suction_pressure_bar=0.25, suction_temperature_degc=20.0)
    assert cold == pytest.approx(12.666, abs=2e-3)
    hot = value("hydraulic.npsh_available_m", suction_pressure_bar=0.25, liquid_temperature_degc=80.0)
    assert hot == pytest.approx((0.25 + 1.01325 - 0.47416) * 1e5 / (971.76 * 9.80665), abs=1e-3)
    assert math.isnan(value("hydraulic.npsh_available_m", suction_pressure_bar=0.25)), (
        "no temperature, no vapour pressure"
    )


def test_beyond_the_drawn_curve_nothing_is_claimed() -> None:
    """A straight line through two points would promise head at any flow."""
    curve = ((20.0, 24.0), (60.0, 22.0), (80.0, 20.0))
    assert on_curve(curve, 40.0) == pytest.approx(23.0)
    assert on_curve(curve, 80.0) == 20.0
    assert all(math.isnan(on_curve(curve, flow)) for flow in (19.9, 80.1, math.nan))
    assert math.isnan(on_curve((), 40.0))


def seen(point: PumpPoint, rpm: float) -> dict[str, float]:
    """What perfect sensors of a simulated pump show."""
    return {
        "suction_pressure_bar": point.suction_pressure_bar,
        "discharge_pressure_bar": point.discharge_pressure_bar,
        "flow_m3_h": point.flow_m3_h,
        "motor_shaft_power_kw": point.shaft_power_kw,
        "shaft_speed_rpm": rpm,
        "liquid_temperature_degc": 20.0,
    }


def at(feature: str, rpm: float = 1460.0, **circuit: float) -> float:
    return value(feature, **seen(pumps.operate(PumpParameters(), rpm, Hydraulics(**circuit)), rpm))


SPEEDS_RPM = (876.0, 1168.0, 1460.0)
VALVES = (0.8, 1.0, 2.0)


@pytest.mark.parametrize("rpm", SPEEDS_RPM)
@pytest.mark.parametrize("valve", VALVES)
def test_residuals_of_a_healthy_pump_are_zero_at_any_speed_and_valve(rpm: float, valve: float) -> None:
    """That is what they are for. What is left is the straight lines between the curve's eight points."""
    assert at("hydraulic.head_residual_m", rpm, valve_ratio=valve) == pytest.approx(0.0, abs=0.06)
    assert at("hydraulic.efficiency_residual_ratio", rpm, valve_ratio=valve) == pytest.approx(0.0, abs=0.012)
    assert at("hydraulic.dry_run_ratio", rpm, valve_ratio=valve) == pytest.approx(0.0, abs=0.02)


def test_only_the_speed_moves_and_nothing_referred_to_rated_speed_does() -> None:
    """On a circuit of friction alone the affinity laws are exact, and so is their inverse."""
    friction = PumpParameters(static_head_m=0.0)
    for feature in ("head_at_rated_speed_m", "flow_at_rated_speed_m3_h", "power_at_rated_speed_kw", "head_residual_m",
                    "efficiency_residual_ratio", "flow_over_best_ratio"):  # fmt: skip
        values = [value(f"hydraulic.{feature}", **seen(pumps.operate(friction, rpm), rpm)) for rpm in SPEEDS_RPM]
        assert values == pytest.approx([values[0]] * 3, abs=1e-6), feature


def test_wear_takes_head_and_efficiency_in_proportion() -> None:
    """Monotone in severity, and far beyond the healthy spread when half worn."""
    heads = [at("hydraulic.head_residual_m", wear=wear) for wear in (0.0, 0.25, 0.5, 1.0)]
    assert heads == sorted(heads, reverse=True)
    assert heads[2] < -1.0
    efficiencies = [at("hydraulic.efficiency_residual_ratio", wear=wear) for wear in (0.0, 0.5, 1.0)]
    assert efficiencies == sorted(efficiencies, reverse=True)


def test_the_dry_run_index_goes_from_wet_to_dry_and_a_shut_valve_does_not_move_it() -> None:
    """A dead head takes little power too, but it has all the head there is."""
    indices = [at("hydraulic.dry_run_ratio", dry=dry) for dry in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert indices == sorted(indices)
    assert indices[0] < 0.01
    assert indices[-1] == pytest.approx(1.0)
    assert at("hydraulic.dry_run_ratio", valve_ratio=1e6) == 0.0
    without_flow = seen(pumps.operate(PumpParameters(), 1460.0, Hydraulics(dry=1.0)), 1460.0)
    del without_flow["flow_m3_h"]
    assert value("hydraulic.dry_run_ratio", **without_flow) == pytest.approx(1.0), "an empty pipe has no flow reading"


@pytest.mark.parametrize("lost", [0.0, 0.3, 0.6, 0.9])
def test_the_suction_margin_is_the_simulators(lost: float) -> None:
    """12.9 m over 3.0 m when healthy; its velocity head is a constant, so it is put into the gauge's height here."""
    pump = PumpParameters()
    data = msgspec.structs.replace(DATA, suction_gauge_height_m=pump.velocity_head_m)
    point = pumps.operate(pump, 1460.0, Hydraulics(suction_loss=lost))
    plate = replace(PLATE, data=data)
    margin = value("hydraulic.npsh_margin_ratio", plate, **seen(point, 1460.0))
    assert margin == pytest.approx(point.npsh_margin_ratio, rel=0.01)


def test_a_coasting_pump_has_no_residuals() -> None:
    """Below a fifth of its speed the affinity laws multiply noise by more than 25."""
    assert math.isnan(at("hydraulic.head_residual_m", 250.0))
    assert math.isnan(at("hydraulic.power_at_rated_speed_kw", 0.0))


# ---------------------------------------------------------------------------------------------- thermal
@pytest.mark.parametrize("load", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("ambient_degc", [5.0, 35.0])
def test_a_warm_motor_has_no_thermal_residual_at_any_load_and_weather(load: float, ambient_degc: float) -> None:
    """The simulator's settled bearing; a fault's 12 K stand out in full."""
    motor = SET.motor
    torque_losses_kw = motor.fixed_loss_kw + motor.load_loss_kw * load**2
    loss_ratio = torque_losses_kw / (motor.fixed_loss_kw + motor.load_loss_kw)
    for fault_k in (0.0, 12.0):
        degc = motors.settled(motor, loss_ratio, 1.0, fault_k, ambient_degc).bearing_degc
        channels = {"temperature_degc": degc, "ambient_temperature_degc": ambient_degc}
        residual_k = value(
            "thermal.residual_k", **channels, thermal_level__motor_shaft_power_kw=load * motor.rated_power_kw
        )
        assert residual_k == pytest.approx(fault_k, abs=1e-9)
        assert value("thermal.rise_k", **channels) == pytest.approx(degc - ambient_degc)


def test_rates_and_differences() -> None:
    """0.05 K/s is 3 K/min, more than a steady bearing may show."""
    assert value("thermal.rate_k_min", slope__temperature_degc=0.05) == pytest.approx(3.0)
    pair = {"bearing_de_temperature_degc": 61.0, "bearing_nde_temperature_degc": 52.5}
    assert value("thermal.difference_de_nde_k", **pair) == 8.5
    room = Nameplate(data=DataPlate(ambient_temperature_degc=22.0))
    assert value("thermal.rise_k", room, temperature_degc=60.0) == 38.0
    assert math.isnan(value("thermal.rise_k", BARE, temperature_degc=60.0)), "no ambient, no rise"
