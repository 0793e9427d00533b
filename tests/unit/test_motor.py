"""The motor's physics against its nameplate and textbook numbers: everything else in the simulator stands on it."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.effects import electrics_of
from simulator.motor import MotorParameters, operate, power_factor_ratio, settled, speed_rpm, torque_ratio_of, warm

MOTOR = MotorParameters()


def test_the_nameplate_point_is_reproduced() -> None:
    """7.5 kW at 1460 rpm draws 14.4 A at 0.904 efficiency: five numbers that must agree with each other."""
    point = operate(MOTOR, 50.0, 7.5, speed_rpm(MOTOR, 50.0, 1.0))
    assert speed_rpm(MOTOR, 50.0, 1.0) == pytest.approx(1460.0)
    assert point.torque_ratio == pytest.approx(1.0)
    assert point.current_a == pytest.approx(14.4, rel=1e-6)
    before_drive_kw = (point.supply_power_kw - MOTOR.drive_standby_kw) * MOTOR.drive_efficiency_ratio
    assert 7.5 / before_drive_kw == pytest.approx(0.904, abs=0.002)
    assert MOTOR.rated_torque_nm == pytest.approx(49.05, abs=0.1)


@pytest.mark.parametrize(("load", "factor", "within"), [(1.0, 0.83, 0.001), (0.6, 0.75, 0.03), (0.25, 0.5, 0.07)])
def test_power_factor_falls_with_load(load: float, factor: float, within: float) -> None:
    """The magnetising current stays when the load goes: what power and current say together."""
    assert power_factor_ratio(MOTOR, load) == pytest.approx(factor, abs=within)


def test_slip_in_rpm_follows_torque_at_any_frequency() -> None:
    """At constant flux a drive's motor keeps its slip speed: 40 rpm at rated torque, at 25 Hz as at 50 Hz."""
    assert 1500.0 - speed_rpm(MOTOR, 50.0, 0.5) == pytest.approx(20.0)
    assert 750.0 - speed_rpm(MOTOR, 25.0, 0.5) == pytest.approx(20.0)
    assert torque_ratio_of(MOTOR, 5.0, 0.0) == 0.0


def test_a_stopped_motor_takes_standby_power_only() -> None:
    """Off is a state that the agent must recognise from power: it must not look like a light load."""
    point = operate(MOTOR, 0.0, 0.0, 0.0)
    assert (point.current_a, point.shaft_power_kw) == (0.0, 0.0)
    assert point.supply_power_kw < 0.01 * MOTOR.rated_power_kw


def test_winding_rises_60_to_80_kelvin_at_rated_load() -> None:
    """Class B rise, as IE3 motors of this size have it; the bearing stays between 15 and 35 K."""
    end = settled(MOTOR, 1.0, 1.0, 0.0, 25.0)
    assert 60.0 <= end.winding_degc - 25.0 <= 80.0
    assert 15.0 <= end.bearing_degc - 25.0 <= 35.0


def test_warming_does_not_depend_on_the_step_length() -> None:
    """Each lag is integrated exactly, so a faster simulation is not another simulation (the winding follows its frame)."""
    start = settled(MOTOR, 0.0, 0.0, 0.0, 20.0)

    def after(step_s: float) -> list[float]:
        now = start
        for _ in range(round(1200 / step_s)):
            now = warm(
                MOTOR, now, loss_ratio=0.8, friction_ratio=1.0, extra_bearing_k=0.0, ambient_degc=20.0, step_s=step_s
            )
        return [now.winding_degc, now.frame_degc, now.bearing_degc]

    assert after(1.0) == pytest.approx(after(10.0), abs=0.15)
    assert after(1.0)[1] == pytest.approx(20.0 + 39.0 * 0.8 * (1.0 - np.exp(-1200 / 2700)), abs=0.01)


def test_varied_motors_differ_and_keep_their_nameplate() -> None:
    """Training needs many machines of one size, not one machine many times."""
    rng = np.random.default_rng(1)
    motors = [MOTOR.varied(rng, 0.3) for _ in range(20)]
    assert len({motor.frame_rise_k for motor in motors}) == 20
    assert all(motor.rated_speed_rpm == 1460.0 for motor in motors)
    assert all(abs(motor.frame_time_constant_s / 2700.0 - 1.0) <= 0.3 for motor in motors)


def unbalance_ratio(shares: tuple[float, float, float]) -> float:
    """Largest deviation from the mean, over the mean (NEMA MG 1, 12.45)."""
    return max(abs(share - sum(shares) / 3.0) for share in shares) / (sum(shares) / 3.0)


def test_unbalanced_voltages_make_the_currents_six_to_ten_times_as_unbalanced() -> None:
    """NEMA MG 1, 14.36: what tells a bad supply from a bad winding, whose currents have no such reason."""
    supply = operate(MOTOR, 50.0, 5.0, 1470.0, electrics=electrics_of({"motor": {"supply_unbalance": 0.5}}))
    winding = operate(MOTOR, 50.0, 5.0, 1470.0, electrics=electrics_of({"motor": {"stator_electrical": 0.5}}))
    volts = unbalance_ratio(supply.voltage_shares)
    assert volts == pytest.approx(0.03)
    assert 6.0 <= unbalance_ratio(supply.current_shares) / volts <= 10.0
    assert unbalance_ratio(winding.voltage_shares) == 0.0
    assert unbalance_ratio(winding.current_shares) > 0.05
    assert winding.loss_ratio > operate(MOTOR, 50.0, 5.0, 1470.0).loss_ratio


def test_a_motor_without_air_is_hotter_and_slower_to_warm() -> None:
    """Heat that the fan does not take: the frame rises by as much again, at the same load and in the same room."""
    sound, blocked = settled(MOTOR, 0.8, 1.0, 0.0, 20.0), settled(MOTOR, 0.8, 1.0, 0.0, 20.0, lost_cooling=1.0)
    assert 1.7 <= (blocked.frame_degc - 20.0) / (sound.frame_degc - 20.0) <= 2.1
    assert 5.0 <= blocked.bearing_degc - sound.bearing_degc <= 25.0
    start = settled(MOTOR, 0.0, 0.0, 0.0, 20.0)
    same = {"loss_ratio": 0.8, "friction_ratio": 1.0, "extra_bearing_k": 0.0, "ambient_degc": 20.0, "step_s": 1800.0}
    share = (warm(MOTOR, start, **same).frame_degc - 20.0) / (sound.frame_degc - 20.0)
    share_without_air = (warm(MOTOR, start, **same, lost_cooling=1.0).frame_degc - 20.0) / (blocked.frame_degc - 20.0)
    assert share_without_air < 0.8 * share
