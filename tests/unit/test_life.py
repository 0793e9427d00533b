"""Months in steps: the set of a scenario, its service, and that jumping through time is the same physics as walking."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from simulator.duty import DAY_S, Duty, Schedule, Service
from simulator.effects import NO_FAULTS
from simulator.life import Life
from simulator.machine_set import MachineSet
from simulator.scenario import FaultSpec, SetSpec, load_scenario, parameters_of

MINUTE_S = 60.0


@pytest.fixture(scope="module")
def spec() -> SetSpec:
    """The demo's first set, as other machines."""
    return msgspec.structs.replace(load_scenario("demo").sets[0], seed=4711, spread=0.3)


def lived(life: Life, n_minutes: int) -> list[dict[str, dict[str, float]]]:
    return [life.step(MINUTE_S * k) for k in range(1, n_minutes + 1)]


def sent(life: Life, sensor: str) -> bytes:
    """The burst at the last step, which must be there."""
    taken = life.burst(sensor)
    assert taken is not None
    return taken[0].tobytes()


def fault(fault_id: str, *, onset_s: float = 3600.0, peak: float = 0.5, **where: str) -> FaultSpec:
    return FaultSpec(set="a", id=fault_id, onset_s=onset_s, peak=peak, **where)


def test_a_jumped_hour_ends_where_a_walked_hour_does(spec: SetSpec) -> None:
    """The same operating point and, lag by lag, the same temperatures as half-second steps make."""
    walker = MachineSet(parameters_of(spec), 7, "a", ambient_degc=spec.ambient_degc)
    jumper = Life(spec, 7, Service.quiet())
    warmer = walker.state_at(3600.0).ambient_degc - spec.ambient_degc
    lived(jumper, 60)
    walked, jumped = walker.state_at(3600.0), jumper.state
    assert jumped.mode == walked.mode == "running"
    assert jumped.pump.flow_m3_h == pytest.approx(walked.pump.flow_m3_h, rel=0.05)
    assert jumped.motor.supply_power_kw == pytest.approx(walked.motor.supply_power_kw, rel=0.05)
    assert jumped.temperatures.frame_degc + warmer == pytest.approx(walked.temperatures.frame_degc, abs=2.0)


@pytest.mark.parametrize("step_s", [60.0, 300.0])
def test_a_step_length_does_not_change_how_a_fault_warms(spec: SetSpec, step_s: float) -> None:
    """Lags are exact for any interval, so a coarse month is the month of a fine one."""

    def bearing_degc(step_s: float) -> float:
        still = msgspec.structs.replace(spec, valve_wander_ratio=0.0)
        life = Life(still, 7, Service.quiet(), [fault("over_greasing", place="motor_de", onset_s=0.0)])
        for k in range(1, round(3600.0 / step_s) + 1):
            life.step(k * step_s)
        return life.state.temperatures.bearing_degc

    assert bearing_degc(step_s) == pytest.approx(bearing_degc(20.0), abs=0.1)


def test_a_stopped_set_cools_and_a_started_one_runs_up(spec: SetSpec) -> None:
    """Starts and stops fall between two steps: off is off with the supply's standby, and the first minute is run up."""
    service = Service(stops_per_day=6.0, changes_per_day=0.0)
    schedule = Schedule(service, 7, "a")
    off_s, on_s = schedule.edges(0.0, DAY_S)[:2]
    life = Life(spec, 7, service)
    life.step(off_s - 1.0)
    running = life.state
    life.step(off_s + 3.0)
    assert (life.state.mode, life.state.motor.supply_power_kw < 0.1) == ("coasting", True)
    life.step(on_s - 1.0)
    assert (life.state.mode, life.state.speed_rpm, life.state.pump.flow_m3_h) == ("off", 0.0, 0.0)
    assert life.state.temperatures.bearing_degc < running.temperatures.bearing_degc - 3.0
    life.step(on_s + 5.0)
    assert life.state.mode == "starting"
    assert life.state.frequency_hz == pytest.approx(25.0)
    life.step(on_s + 60.0)
    assert life.state.mode == "running"


def test_a_service_has_days_weeks_and_a_year() -> None:
    """What a baseline must not take for a fault: load by day and week, steps, one to ten starts a day, summer and winter."""
    service = Service(duties=(Duty(50.0, 1.0), Duty(40.0, 1.3)))
    schedule = Schedule(service, 3, "a")
    days = [len(schedule.edges(day * DAY_S, (day + 1) * DAY_S)) // 2 for day in range(60)]
    assert 1.0 <= np.mean(days) <= 3.0
    assert max(days) <= 10
    hours = [schedule.at(3600.0 * hour) for hour in range(24 * 365)]
    assert {order.duty.frequency_hz for order in hours} == {50.0, 40.0}
    noon = [hours[24 * day + 12].ambient_k for day in range(365)]
    assert max(noon) - min(noon) == pytest.approx(20.0, abs=0.5)
    assert max(order.water_degc for order in hours) == pytest.approx(25.0, abs=0.1)
    at_50_hz = [order.duty.valve_ratio if order.duty.frequency_hz == 50.0 else math.nan for order in hours]
    week = np.array(at_50_hz[: 24 * 364]).reshape(-1, 7, 24)
    assert np.nanmean(week[:, 5:]) - np.nanmean(week[:, :5]) == pytest.approx(0.1, abs=0.02)
    assert schedule.at(40 * DAY_S + 5.0) == Schedule(service, 3, "a").at(40 * DAY_S + 5.0)


def test_two_lives_that_differ_in_a_fault_are_one_life_before_it(spec: SetSpec) -> None:
    """Then what changes is the fault's doing and no chance: in scalars and in bursts, of machines and of sensors."""
    faults = [fault("unbalance", place="motor_de"), fault("sensor_drift", sensor="press-suction-a")]
    one, other = Life(spec, 7), Life(spec, 7, faults=faults)
    assert lived(one, 60)[:59] == lived(other, 60)[:59]
    assert one.truth() != other.truth()
    other = Life(spec, 7, faults=faults)
    other.step(3000.0)
    one = Life(spec, 7)
    one.step(3000.0)
    assert sent(one, "accel-m101a") == sent(other, "accel-m101a")


def test_the_same_seed_and_times_are_the_same_bytes(spec: SetSpec) -> None:
    """Evaluations are compared with each other: they must be of one and the same life."""
    faults = [fault("cavitation", place="pump"), fault("sensor_dropouts", sensor="vib-a", onset_s=0.0)]
    lives = [Life(spec, 7, faults=faults) for _ in range(2)]
    assert lived(lives[0], 90) == lived(lives[1], 90)
    assert sent(lives[0], "accel-p101a") == sent(lives[1], "accel-p101a")
    assert lived(Life(spec, 8), 2) != lived(Life(spec, 7), 2)


def test_what_a_life_shows_is_what_the_site_reads(spec: SetSpec) -> None:
    """Every device of the set with every point, every accelerometer with its axes, and the truth of both machines."""
    life = Life(spec, 7)
    shown = life.step(MINUTE_S)
    assert list(shown) == [device.name for device in spec.devices]
    assert all(math.isfinite(value) for points in shown.values() for value in points.values())
    taken = life.burst("accel-m101a")
    assert taken is not None
    samples, meta = taken
    assert (samples.shape, samples.dtype, meta.sample_rate_hz) == ((3, 25_600), np.float32, 25_600.0)
    assert (meta.start_s, meta.clipped) == (MINUTE_S, False)
    assert [(row.machine, row.state, row.fault) for row in life.truth()] == [
        ("M-101A", "running", None),
        ("P-101A", "running", None),
    ]
    with pytest.raises(ValueError, match="goes forward"):
        life.step(MINUTE_S)


def test_faults_of_sensors_reach_what_they_show(spec: SetSpec) -> None:
    """Stuck, silent, not available and lost, by sensor; the truth names the sensor, and the machine goes on."""
    faults = [
        fault("sensor_stuck", sensor="vib-a"),
        fault("sensor_silent", sensor="meter-a"),
        fault("sensor_sentinel", sensor="press-suction-a"),
        fault("sensor_gaps", sensor="accel-p101a", peak=1.0),
        fault("sensor_stuck", sensor="accel-m101a"),
    ]
    life = Life(spec, 7, faults=faults)
    lived(life, 60)
    bursts, readings = [], []
    for minute in (61, 62):
        readings.append(life.step(MINUTE_S * minute))
        bursts.append(sent(life, "accel-m101a"))
        assert life.burst("accel-p101a") is None
    assert readings[0]["vib-a"] == readings[1]["vib-a"]
    assert "meter-a" not in readings[0]
    assert all(math.isnan(value) for value in readings[0]["press-suction-a"].values())
    assert readings[0]["drive-a"] != readings[1]["drive-a"]
    assert bursts[0] == bursts[1]
    assert {row.sensor for row in life.truth()} == {fault.sensor for fault in faults}
    assert life.state.faults == NO_FAULTS
