"""Order tracking: a ramp's lines are as sharp as a steady burst's; a steady burst passes as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectra import hann_spectrum

from agent.features.orders import HALF_TAPS, resample_to_angle
from agent.features.speed import SpeedProfile, estimate_speed

RATE_HZ, N = 25600.0, 25600
SHAFT_HZ, BPFO = 24.4, 3.056
U = np.arange(N) / N
EDGE = slice(2 * HALF_TAPS, -2 * HALF_TAPS)


def ramp(change_ratio, mean_hz=SHAFT_HZ):
    return SpeedProfile(np.array([0.0, 1.0]), 60 * mean_hz * np.array([1 - change_ratio / 2, 1 + change_ratio / 2]))


def turns(change_ratio):
    return SHAFT_HZ * (U + change_ratio * (U * U - U) / 2)


def machine(change_ratio, seed=0):
    """1x, 2x, 3x locked to the shaft, a 3.5 kHz ring at every ball that passes an outer-race defect, and noise."""
    angle = 2 * np.pi * turns(change_ratio)
    lines = 0.3 * np.sin(angle + 0.4) + 0.2 * np.sin(2 * angle + 1.0) + 0.15 * np.sin(3 * angle)
    strikes = np.interp(np.arange(0.1, BPFO * SHAFT_HZ, 1.0), BPFO * turns(change_ratio), np.arange(N))
    since = np.arange(N) - strikes[:, None]
    after = np.clip(since, 0, 400)
    rings = np.where(since > 0, np.exp(-0.034 * after) * np.sin(2 * np.pi * 3500 / RATE_HZ * after), 0).sum(axis=0)
    return (lines + 2 * rings + 0.05 * np.random.default_rng(seed).standard_normal((3, N))).astype(np.float32)


def lines_of(samples):
    """RMS at 1x, 2x, 3x (five bins each), and the peaks of the squared envelope of 2 to 5 kHz at 1, 2, 3 times BPFO."""
    power = np.square(np.abs(hann_spectrum(samples)[0]))
    shaft = [np.sqrt(power[round(order * SHAFT_HZ) - 2 :][:5].sum()) for order in (1, 2, 3)]
    band = np.fft.rfft(samples[0])
    band[:2000] = band[5000:] = 0
    squared = np.square(np.abs(np.fft.ifft(band, N))).astype(np.float32)
    envelope = np.abs(hann_spectrum(squared[None])[0])
    return np.array([*shaft, *(envelope[round(order * BPFO * SHAFT_HZ) - 2 :][:5].max() for order in (1, 2, 3))])


@pytest.mark.parametrize("change_ratio", [0.10, -0.10])
def test_a_tracked_ramp_has_the_lines_of_a_steady_burst(change_ratio):
    """Its speed told by the burst itself: every line within 2 %. Untracked, BPFO loses a fifth, its harmonics half.

    1x to 3x hardly notice: what a Hann window weighs most is the middle of the burst, and five bins are summed.
    """
    steady, moving = machine(0.0), machine(change_ratio)
    speed = estimate_speed(hann_spectrum(moving), 1.0, (23.9, 24.9))
    assert speed.moved
    tracked = resample_to_angle(moving, RATE_HZ, speed.profile(1.0))
    np.testing.assert_allclose(lines_of(tracked.samples), lines_of(steady), rtol=0.02)
    assert np.all(lines_of(moving)[3:] / lines_of(steady)[3:] < [0.85, 0.6, 0.5])


def test_the_same_core_serves_because_the_mean_speed_stays():
    """As many samples, from first to last: orders stand where the mean speed puts them on the same frequency axis."""
    found = resample_to_angle(machine(0.1), RATE_HZ, ramp(0.1))
    assert found.samples.shape == (3, N)
    assert found.samples.dtype == np.float32
    assert found.shaft_hz == pytest.approx(SHAFT_HZ, rel=1e-6)
    assert found.samples_per_turn * found.shaft_hz == pytest.approx(RATE_HZ)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(300.0, 6000.0))
def test_a_steady_burst_passes_as_it_is(seed, rpm):
    """Whatever its speed and content, up to the Nyquist frequency and to the edges: to float32's rounding."""
    samples = np.random.default_rng(seed).standard_normal((2, 4096)).astype(np.float32)
    found = resample_to_angle(samples, RATE_HZ, SpeedProfile(np.array([0.0]), np.array([rpm])))
    np.testing.assert_allclose(found.samples, samples, atol=1e-5)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.4])
def test_between_the_samples_a_tone_is_itself_up_to_four_tenths_of_the_rate(share):
    """Against the closed form at the very instants of equal angle: within half a percent of its amplitude."""
    change_ratio = 0.1
    theta = np.arange(N) / N  # of the whole angle; from theta = u + c (u^2 - u) / 2
    slope = 1 - change_ratio / 2
    instants = N * (np.sqrt(slope**2 + 2 * change_ratio * theta) - slope) / change_ratio
    tone = np.sin(2 * np.pi * share * np.arange(N) + 0.3).astype(np.float32)[None]
    found = resample_to_angle(tone, RATE_HZ, ramp(change_ratio)).samples[0]
    assert np.abs(found - np.sin(2 * np.pi * share * instants + 0.3))[EDGE].max() < 5e-3


def test_a_profile_of_several_instants_is_followed():
    """A drive's readings through the burst: up, then down again; a line of ten turns' order stays one line."""
    profile = SpeedProfile(np.array([0.0, 0.5, 1.0]), 60 * np.array([22.0, 26.0, 22.0]))
    shaft_hz = np.interp(np.arange(N) / RATE_HZ, profile.instants_s, profile.shaft_speed_rpm / 60)
    angle = 2 * np.pi * np.cumsum(shaft_hz) / RATE_HZ
    found = resample_to_angle(np.sin(10 * angle).astype(np.float32)[None], RATE_HZ, profile)
    power = np.square(np.abs(hann_spectrum(found.samples)[0]))
    assert power[round(10 * found.shaft_hz) - 2 :][:5].sum() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("rpm", [0.0, -1460.0, float("nan")])
def test_a_burst_of_unknown_speed_has_no_orders(rpm):
    """Refused in words, not turned into nonsense."""
    with pytest.raises(ValueError, match="no orders"):
        resample_to_angle(machine(0.0), RATE_HZ, SpeedProfile(np.array([0.0, 1.0]), np.array([1460.0, rpm])))
