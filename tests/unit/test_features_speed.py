"""Shaft speed from a tag, from slip, from a burst's own lines: how close, how sure, and when not at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from spectra import hann_spectrum

from agent.features.nameplate import Nameplate
from agent.features.speed import (
    LEAST_CONFIDENCE,
    SpeedTag,
    comb_orders,
    estimate_speed,
    nominal_supply_hz,
    pole_pairs,
    shaft_speed,
    slip_speed,
    slip_window_hz,
)
from agent.vocabulary import OperatingPoint
from simulator.vibration import MOTOR_DE, PUMP_DE, Conditions, MeasuringPoint

RATE_HZ, N = 25600.0, 25600
BIN_HZ = RATE_HZ / N
U = np.arange(N) / N
MOTOR = Nameplate(1460.0, 50.0)
PUMP = Nameplate(1460.0, 50.0, n_vanes=6)
MAINS = OperatingPoint(line_frequency_hz=50.0)


class Ramped(MeasuringPoint):
    """A measuring point on a shaft that changes its speed steadily through the burst."""

    def __init__(self, parameters, change_ratio):
        super().__init__(parameters)
        self.change_ratio = change_ratio

    def _shaft_phase(self, shaft_hz, rate_hz, n, rng):
        u = np.arange(n) / n
        swing = math.pi * shaft_hz * (n / rate_hz) * self.change_ratio * (u * u - u)
        return super()._shaft_phase(shaft_hz, rate_hz, n, rng) + swing


def burst(shaft_hz, line_hz=50.0, load=0.8, seed=0, point=MOTOR_DE, change_ratio=0.0):
    """Another healthy machine for every seed."""
    rng = np.random.default_rng(seed)
    machine = Ramped(point.varied(rng), change_ratio)
    levels = machine.levels(Conditions(shaft_hz=shaft_hz, line_hz=line_hz, torque_ratio=load))
    return hann_spectrum(machine.waveform(levels, RATE_HZ, N, rng))


def noise(seed, n_axes=3):
    return hann_spectrum(np.random.default_rng(seed).standard_normal((n_axes, 4096)).astype(np.float32))


@pytest.mark.parametrize("supply_hz", [50.0, 40.0, 30.0])
@pytest.mark.parametrize("load", [0.3, 0.7, 1.0])
def test_with_its_vanes_counted_a_healthy_machine_tells_its_speed_to_a_tenth_of_a_percent(supply_hz, load):
    """Vane pass is strong and tells six times as closely: three speeds, three loads, another machine each time.

    The quietest, at 900 rpm, may say that they cannot; what is said is right.
    """
    shaft_hz = supply_hz / 2 - load * (25 - 1460 / 60)
    point = OperatingPoint(line_frequency_hz=supply_hz)
    found = [shaft_speed(burst(shaft_hz, supply_hz, load, seed, PUMP_DE), BIN_HZ, PUMP, point) for seed in range(6)]
    combs = [speed for speed in found if speed.source == "comb"]
    assert len(combs) >= 4
    assert max(abs(speed.rpm / 60 / shaft_hz - 1) for speed in combs) < 1.1e-3
    assert all(abs(speed.rpm - 60 * shaft_hz) < 4.5 * speed.sigma_rpm for speed in combs)


@pytest.mark.parametrize("load", [0.3, 0.7, 1.0])
def test_three_lines_alone_tell_a_mains_motor_to_a_quarter_of_a_percent_and_say_how_close(load):
    """1x, 2x, 3x are some 15 dB over their floor in one second: the stated sigma is the error that is made."""
    shaft_hz = 25 - load * (25 - 1460 / 60)
    found = [shaft_speed(burst(shaft_hz, load=load, seed=seed), BIN_HZ, MOTOR, MAINS) for seed in range(12)]
    errors = np.array([speed.rpm / 60 / shaft_hz - 1 for speed in found])
    sigmas = np.array([speed.sigma_rpm / speed.rpm for speed in found])
    assert [speed.source for speed in found] == ["comb"] * 12
    assert np.sqrt(np.mean(errors**2)) < 1e-3
    assert np.abs(errors).max() < 2.5e-3
    assert 0.5 < np.sqrt(np.mean((errors / sigmas) ** 2)) < 1.6


@pytest.mark.parametrize("search_hz", [(24.0, 25.0), (8.0, 60.0)])
@pytest.mark.parametrize("n_axes", [1, 3])
def test_noise_has_no_speed(n_axes, search_hz):
    """Never guessed: what noise can do in one burst of some hundreds is not believed."""
    found = [estimate_speed(noise(seed, n_axes), 1.0, search_hz) for seed in range(300)]
    told = [speed for speed in found if speed.source != "none"]
    assert len(told) <= 1
    assert all(math.isnan(speed.rpm) == (speed.confidence < LEAST_CONFIDENCE) for speed in found)


def test_a_line_beside_the_window_is_not_taken_for_the_shaft():
    """The neighbour machine's 1x at 22.5 Hz leans into a window of 24 to 25 Hz; it is not ours."""
    tones = [np.sin(2 * np.pi * order * 22.5 * U) for order in (1, 2, 3)]
    x = (sum(tones) + 0.5 * np.random.default_rng(1).standard_normal((3, N))).astype(np.float32)
    assert estimate_speed(hann_spectrum(x), BIN_HZ, (24.0, 25.0)).source == "none"
    assert estimate_speed(hann_spectrum(x), BIN_HZ, (22.0, 23.0)).rpm == pytest.approx(60 * 22.5, rel=2e-4)


def test_twice_supply_frequency_is_not_taken_for_the_second_line_of_a_two_pole_motor():
    """2x at 98.4 Hz and the hum at 100 Hz are one blur in one second; with the hum named, 1x and 3x decide."""
    two_pole = Nameplate(2950.0, 50.0)
    errors = [shaft_speed(burst(49.2, seed=seed), BIN_HZ, two_pole, MAINS).rpm / 60 / 49.2 - 1 for seed in range(6)]
    assert max(map(abs, errors)) < 1e-3


@pytest.mark.parametrize("change_ratio", [-0.10, -0.03, 0.03, 0.10])
def test_a_change_of_speed_within_the_burst_is_measured(change_ratio):
    """By which the agent knows when a line would smear, and order tracking how to undo it."""
    for seed in range(3):
        found = shaft_speed(burst(24.5, seed=seed, change_ratio=change_ratio), BIN_HZ, PUMP, MAINS)
        assert found.rpm == pytest.approx(60 * 24.5, rel=1.5e-3)
        assert found.change_ratio == pytest.approx(change_ratio, abs=0.01)
        assert found.moved


def test_a_steady_machine_has_not_moved():
    """Its own jitter is no ramp, nor is what noise makes of its lines; its profile is flat."""
    found = [shaft_speed(burst(24.5, seed=seed), BIN_HZ, plate, MAINS) for seed in range(8) for plate in (MOTOR, PUMP)]
    assert not any(speed.moved for speed in found)
    assert found[0].profile(1.0).shaft_speed_rpm.tolist() == [found[0].rpm] * 2


def test_a_fresh_and_steady_tag_goes_before_everything():
    """It is believed as it is, and the burst is not even asked."""
    found = shaft_speed(burst(24.5), BIN_HZ, PUMP, MAINS, SpeedTag(1471.0, 0.5, 0.001))
    assert (found.source, found.rpm, found.confidence) == ("tag", 1471.0, 1.0)
    assert not found.moved
    assert 2.9 < found.sigma_rpm < 3.1


@pytest.mark.parametrize(
    "tag",
    [SpeedTag(1200.0, 2.5, 0.0), SpeedTag(1200.0, 0.1, 0.02), SpeedTag(math.nan, 0.1, 0.0), SpeedTag(0.0, 0.1, 0.0)],
)
def test_a_stale_or_unsteady_tag_is_not_asked(tag):
    """Two seconds and half a percent, or the burst speaks for itself."""
    found = shaft_speed(burst(24.5), BIN_HZ, PUMP, MAINS, tag)
    assert found.source == "comb"
    assert found.rpm == pytest.approx(1470.0, rel=1e-3)


@pytest.mark.parametrize(
    ("rated_rpm", "hz"),
    [
        (2980, 50),
        (1460, 50),
        (975, 50),
        (3550, 60),
        (1750, 60),
        (1175, 60),
        (875, 60),
        (700, math.nan),
        (5000, math.nan),
    ],
)
def test_the_rated_speed_tells_the_frequency_that_a_motor_is_made_for(rated_rpm, hz):
    """Nobody in Ohio writes 60 into a site file, and 50 would be wrong there; 700 rpm is eight poles here, ten there."""
    assert nominal_supply_hz(rated_rpm) == pytest.approx(hz, nan_ok=True)


def test_without_lines_slip_is_computed_and_says_how_far_it_may_be_off():
    """Rated slip times load; without a load, the middle of the window with the window's own spread."""
    assert shaft_speed(noise(1), 6.25, MOTOR, MAINS).source == "slip"
    loaded, unloaded = slip_speed(MOTOR, MAINS, 0.5), slip_speed(MOTOR, MAINS)
    assert loaded.rpm == pytest.approx(1480.0)
    assert loaded.sigma_rpm == pytest.approx(3.0)
    assert unloaded.rpm == pytest.approx(1470.0)
    assert unloaded.sigma_rpm == pytest.approx(60 / math.sqrt(12))
    assert math.isnan(unloaded.change_ratio)


@pytest.mark.parametrize("plate", [Nameplate(), Nameplate(rated_speed_rpm=1460.0), Nameplate(line_frequency_hz=50.0)])
def test_a_machine_without_a_plate_has_no_speed_unless_bounds_are_given(plate):
    """Never guessed; with bounds less than an octave apart the burst is asked."""
    assert shaft_speed(burst(24.5), BIN_HZ, plate, OperatingPoint()).source == "none"
    found = shaft_speed(burst(24.5), BIN_HZ, plate, OperatingPoint(), search_hz=(18.0, 30.0))
    assert found.rpm == pytest.approx(1470.0, rel=3e-3)


def test_the_window_follows_the_drive_with_slip_in_hertz_as_at_rated():
    """At 40 Hz the motor still slips by up to 40 rpm at rated torque: 19.0 to 20.0 Hz, not 19.2."""
    assert slip_window_hz(MOTOR, MAINS) == pytest.approx((24.0, 25.0))
    assert slip_window_hz(MOTOR, OperatingPoint(line_frequency_hz=40.0)) == pytest.approx((19.0, 20.0))
    assert slip_window_hz(Nameplate(), MAINS) is None


@pytest.mark.parametrize(
    ("rated_rpm", "line_hz", "pairs"),
    [(2950, 50, 1), (3000, 50, 1), (1460, 50, 2), (1770, 60, 2), (965, 50, 3), (567, 50, 5)],
)
def test_poles_follow_from_rated_speed_and_supply(rated_rpm, line_hz, pairs):
    """The synchronous speed next above; a synchronous motor's own."""
    assert pole_pairs(Nameplate(float(rated_rpm), float(line_hz))) == pairs


def test_vane_pass_joins_the_comb_where_vanes_are_known():
    """And three vanes are no line twice."""
    assert comb_orders(MOTOR) == (1, 2, 3)
    assert comb_orders(PUMP) == (1, 2, 3, 6)
    assert comb_orders(Nameplate(n_vanes=3)) == (1, 2, 3)


@pytest.mark.parametrize("search_hz", [(math.nan, math.nan), (30.0, 20.0), (0.5, 2.0), (9000.0, 9001.0)])
def test_a_window_that_the_burst_cannot_hold_has_no_speed(search_hz):
    """Unknown, empty, below four bins, or with its third line above the spectrum's end."""
    assert estimate_speed(burst(24.5), BIN_HZ, search_hz).source == "none"


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_silence_and_broken_samples_have_no_speed(value):
    """No warning, no speed."""
    spectrum = np.full((3, N // 2 + 1), value, np.complex64)
    found = estimate_speed(spectrum, BIN_HZ, (24.0, 25.0))
    assert found.source == "none"
    assert math.isnan(found.rpm)
