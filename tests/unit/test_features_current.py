"""Motor current signature: closed forms of broken bars, eccentricity and harmonics, and when it must not speak."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectra import hann_spectrum

from agent.features import Cores, FeatureSet, Nameplate, known_features
from agent.features.current import RESOLVED_BINS, without_line
from agent.features.feature import Column
from agent.vocabulary import OperatingPoint, Window

RATE_HZ, N = 1000.0, 10_000
TIME_S = np.arange(N) / RATE_HZ
PLATE = Nameplate(1460.0, 50.0)
FAMILY = [feature for feature in known_features().values() if feature.family == "current"]
COLUMNS = tuple(Column(f.id, f.version, "burst", (), f.transform) for f in FAMILY)
CURRENTS = FeatureSet(COLUMNS, RATE_HZ, N, bands_hz=(), envelope_band_hz=(100.0, 400.0), velocity_band_hz=(10.0, 400.0))
CORES = Cores(CURRENTS.plan_at)


def tone(hz, amplitude, phase=0.4):
    return amplitude * np.cos(2 * np.pi * hz * TIME_S + phase)


def phase_current(load=1.0, supply_hz=50.0, bars=0.0, eccentric=0.0, harmonics=(), noise_a=0.01, seed=0):
    """14.4 A rated; slip 2.67 % at rated load; broken-bar and shaft sidebands as shares of the fundamental."""
    slip_hz, amplitude = load * 2 * (25 - 1460 / 60), 14.4 * math.sqrt(2) * max(load, 0.4)
    shaft_hz = (supply_hz - slip_hz) / 2
    x = tone(supply_hz, amplitude) + noise_a * np.random.default_rng(seed).standard_normal(N)
    x += tone(supply_hz - 2 * slip_hz, bars * amplitude, 1.1) + tone(
        supply_hz + 2 * slip_hz, 0.6 * bars * amplitude, 2.0
    )
    x += tone(supply_hz - shaft_hz, eccentric * amplitude) + tone(supply_hz + shaft_hz, eccentric * amplitude, 0.0)
    for order, share in harmonics:
        x += tone(order * supply_hz, share * amplitude, 0.1 * order)
    return x, 60 * shaft_hz


def measured(x, shaft_rpm, line_hz=math.nan, plate=PLATE):
    """Every current feature of one machine, by the agent's own path."""
    samples = np.atleast_2d(x).astype(np.float32)
    axes = ("l1", "l2", "l3")[: len(samples)]
    window = Window("M", "ct", axes, samples, RATE_HZ, 1, 0, 0, OperatingPoint(shaft_rpm, line_hz))
    values, _ = CURRENTS.compute(window, {}, plate, CORES)
    return {name.partition(".")[2]: value for name, value in zip(CURRENTS.names, values.tolist(), strict=True)}


def sideband_of_bars(n_broken, n_bars=28, pairs=2):
    """Textbook estimate: sin(a) / (2p (2 pi - a)), a = 2 pi p n / N."""
    angle = 2 * math.pi * pairs * n_broken / n_bars
    return math.sin(angle) / (2 * pairs * (2 * math.pi - angle))


@pytest.mark.parametrize(("n_broken", "expected_db"), [(0.5, -41), (1, -35), (2, -29)])
@pytest.mark.parametrize("load", [0.5, 0.75, 1.0])
def test_broken_bars_read_their_closed_form_at_any_load_that_resolves_them(n_broken, expected_db, load):
    """28 bars on four poles: -41, -35, -29 dB for a half, one and two, wherever slip puts the sideband."""
    share = sideband_of_bars(n_broken)
    assert 20 * math.log10(share) == pytest.approx(expected_db, abs=0.7)
    found = measured(*phase_current(load, bars=share))
    assert found["broken_bar_db"] == pytest.approx(20 * math.log10(share), abs=0.15)


@pytest.mark.parametrize("load", [0.25, 0.5, 1.0])
def test_a_healthy_cage_reads_far_below_what_is_called_good(load):
    """The fundamental's own skirt is taken out: below -65 dB in 0.1 % noise, even a few bins beside it."""
    found = measured(*phase_current(load, supply_hz=50.04))
    assert found["broken_bar_db"] < -65


def test_a_motor_without_load_has_no_sideband_to_read():
    """Nearer than four bins a sideband is not told from the fundamental: absent, not healthy."""
    at_limit = RESOLVED_BINS * RATE_HZ / N / (4 * (25 - 1460 / 60))
    assert math.isnan(measured(*phase_current(0.9 * at_limit, bars=0.02))["broken_bar_db"])
    assert measured(*phase_current(1.1 * at_limit, bars=0.02))["broken_bar_db"] == pytest.approx(-34, abs=0.5)


@pytest.mark.parametrize("supply_hz", [49.8, 49.95, 50.03, 50.2])
def test_the_true_supply_is_found_and_everything_follows_it(supply_hz):
    """Nominally 50 Hz; the grid is where it is. Slip is told against the true one, from the same shaft speed."""
    found = measured(*phase_current(0.6, supply_hz, bars=0.018, eccentric=0.005))
    assert found["fundamental_hz"] == pytest.approx(supply_hz, abs=2e-4)
    assert found["broken_bar_db"] == pytest.approx(20 * math.log10(0.018), abs=0.2)
    assert found["eccentricity_db"] == pytest.approx(20 * math.log10(0.005), abs=0.3)


@pytest.mark.parametrize("error_rpm", [-2.0, 2.0])
def test_a_speed_that_is_only_nearly_known_will_do(error_rpm):
    """A burst's speed is told to a rpm or so; the sideband is looked for within 15 % of twice slip."""
    x, shaft_rpm = phase_current(0.8, bars=0.018)
    assert measured(x, shaft_rpm + error_rpm)["broken_bar_db"] == pytest.approx(20 * math.log10(0.018), abs=0.2)


def test_each_signature_shows_its_own_fault_only():
    """Eccentricity is no broken bar, harmonics are neither; the root sum of squares of the harmonics is their distortion."""
    eccentric = measured(*phase_current(eccentric=0.01))
    assert eccentric["eccentricity_db"] == pytest.approx(-40, abs=0.2)
    assert eccentric["broken_bar_db"] < -65
    distorted = measured(*phase_current(harmonics=((5, 0.03), (7, 0.02))))
    assert distorted["thd_pct"] == pytest.approx(100 * math.hypot(0.03, 0.02), rel=0.02)
    assert distorted["broken_bar_db"] < -65
    assert distorted["eccentricity_db"] < -60


def test_rms_is_the_phase_that_has_most():
    """Root two of the amplitude; the largest of three phases."""
    phases = [tone(50.0, amplitude) for amplitude in (10.0, 14.0, 12.0)]
    found = measured(np.array(phases), 1460.0)
    assert found["rms_a"] == pytest.approx(14 / math.sqrt(2), rel=1e-5)
    assert found["thd_pct"] < 0.1


def test_a_standing_motor_has_a_current_but_no_signature():
    """Noise of the sensor alone: no line holds half of it."""
    found = measured(0.05 * np.random.default_rng(1).standard_normal(N), 1460.0)
    assert found["rms_a"] == pytest.approx(0.05, rel=0.05)
    assert all(math.isnan(found[name]) for name in ("fundamental_hz", "thd_pct", "broken_bar_db", "eccentricity_db"))


def test_what_is_not_known_is_absent():
    """Without a speed no slip and no shaft; without a nominal frequency nothing but the RMS."""
    x, shaft_rpm = phase_current(bars=0.02)
    no_speed = measured(x, math.nan)
    assert no_speed["fundamental_hz"] == pytest.approx(50.0, abs=1e-3)
    assert math.isnan(no_speed["broken_bar_db"])
    assert math.isnan(no_speed["eccentricity_db"])
    no_plate = measured(x, shaft_rpm, plate=Nameplate())
    assert {name for name, value in no_plate.items() if not math.isnan(value)} == {"rms_a"}


def test_a_drives_frequency_goes_before_the_plates():
    """At 40 Hz the window of 50 Hz +- 5 % would find nothing."""
    x, shaft_rpm = phase_current(supply_hz=40.0, bars=0.018)
    assert math.isnan(measured(x, shaft_rpm)["fundamental_hz"])
    found = measured(x, shaft_rpm, line_hz=40.1)
    assert found["fundamental_hz"] == pytest.approx(40.0, abs=1e-3)
    assert found["broken_bar_db"] == pytest.approx(20 * math.log10(0.018), abs=0.2)


@settings(max_examples=30, deadline=None)
@given(st.floats(100.0, 4000.0), st.floats(-3, 3))
def test_a_line_taken_out_of_the_spectrum_is_gone(at, phase):
    """To less than -80 dB of itself in every bin but the mean's, wherever between two bins it stood."""
    spectrum = hann_spectrum(tone(at * RATE_HZ / N, 1.0, phase)[None].astype(np.float32))[0]
    assert np.abs(without_line(spectrum, at)[2:]).max() < 1e-4 * np.abs(spectrum).max()
