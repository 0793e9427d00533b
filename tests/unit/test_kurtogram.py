"""The kurtogram finds the band that rings, and none where nothing does."""

from __future__ import annotations

import numpy as np
import pytest
from bearing_strikes import RATE_HZ, bursts_of, noise, ringing, strikes

from agent.features.kurtogram import Kurtogram
from agent.features.subbands import TAPER, BandCutter, tapered_spectrum


def choose_band(bursts, sample_rate_hz):
    """One burst after the other, as they come."""
    kurtogram = Kurtogram(bursts.shape[1], sample_rate_hz)
    for row in bursts:
        kurtogram.add(row[None])
    assert len(kurtogram) == len(bursts)
    return kurtogram.band_hz()


@pytest.mark.parametrize("ring_hz", [1800.0, 3300.0, 4700.0])
def test_the_band_holds_the_resonance_that_is_struck(ring_hz):
    """Also where the shaft's own line is forty times as strong as a strike."""
    samples = 3 * ringing(*strikes("outer", 1), ring_hz=ring_hz) + noise(1, shaft_line=120.0)
    band_hz = choose_band(bursts_of(samples), RATE_HZ)
    assert band_hz is not None
    low_hz, high_hz = band_hz
    assert low_hz < ring_hz < high_hz
    assert high_hz - low_hz < 2500


@pytest.mark.parametrize("n_bursts", [1, 2, 5, 10])
def test_noise_has_no_band(n_bursts):
    """Of forty machines that only hum, not one gets a band; the profile's own stays."""
    rng = np.random.default_rng(n_bursts)
    found = [choose_band(rng.standard_normal((n_bursts, 25_600)).astype(np.float32), 25_600.0) for _ in range(40)]
    assert found == [None] * 40


def test_one_odd_burst_of_five_picks_no_band():
    """Somebody drops a spanner during commissioning."""
    rows = bursts_of(noise(2))
    rows[3] += 40 * bursts_of(ringing(np.array([3.4]), np.ones(1)))[3]
    assert choose_band(rows, RATE_HZ) is None
    assert choose_band(rows[3:4], RATE_HZ) is not None


def test_the_unit_does_not_matter():
    samples = 3 * ringing(*strikes("inner", 3)) + noise(3)
    assert choose_band(bursts_of(samples), RATE_HZ) == choose_band(bursts_of(1e-4 * samples), RATE_HZ)


def test_a_sensor_that_is_too_slow_has_no_band():
    """Up to 450 Hz there is nothing but the machine's own movement."""
    assert choose_band(np.random.default_rng(0).standard_normal((3, 900)).astype(np.float32), 900.0) is None


def test_a_dead_sensor_has_no_band():
    assert choose_band(np.zeros((3, 12_000), np.float32), RATE_HZ) is None


def test_a_modulated_carriers_squared_envelope_is_its_closed_form():
    """(1 + m cos)^2 over its mean 1 + m^2 / 2, whatever else stands outside the band."""
    n, modulation = 12_000, 0.5
    time_s = np.arange(n) / RATE_HZ
    shape = 1 + modulation * np.cos(2 * np.pi * 40.0 * time_s)
    samples = shape * np.cos(2 * np.pi * 3000.0 * time_s) + 50 * np.sin(2 * np.pi * 29.53 * time_s)
    cutter = BandCutter(1000)
    found = cutter.squared_envelopes(tapered_spectrum(samples[None].astype(np.float32))[0], [2500])[0]
    middle_s = (np.arange(cutter.n_points) + np.ceil(TAPER * cutter.points_per_burst)) / cutter.points_per_burst
    expected = (1 + modulation * np.cos(2 * np.pi * 40.0 * middle_s)) ** 2 / (1 + modulation**2 / 2)
    away = slice(100, -100)  # the fade itself is an edge
    assert found.mean() == pytest.approx(1.0, rel=1e-5)
    assert found[away] == pytest.approx(expected[away], abs=0.02)
