"""A burst tells of its sensor: overload, mount, axes, clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import fft

from agent.decision.bursts import K_BAD, N_OWN, BurstWatch, look_at
from agent.features.nameplate import Nameplate
from agent.vocabulary import OperatingPoint, Window

RATE_HZ, N = 12_800.0, 12_800


def burst(seed: int, severity: float = 1.0) -> Window:
    """A running machine on three axes of different strength: lines of 25 Hz, noise up to the top, gravity on z."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(N) / RATE_HZ
    lines = sum(np.sin(2 * np.pi * 25 * k * time_s + rng.uniform(0, 6)) / k for k in (1, 2, 3))
    samples = np.array([[1.0], [2.0], [0.5]]) * severity * lines + 0.4 * rng.standard_normal((3, N))
    samples[2] += 9.81
    return Window("M", "accel", ("x", "y", "z"), samples.astype(np.float32), RATE_HZ, seed, 0, 0, OperatingPoint())


def filtered(window: Window, gain) -> Window:
    spectrum = fft.rfft(window.samples, axis=1)
    spectrum *= gain(fft.rfftfreq(N, 1 / RATE_HZ))
    return replace(window, samples=fft.irfft(spectrum, N, axis=1).astype(np.float32))


def ski(window: Window) -> Window:
    """What an amplifier does while it comes back from overload."""
    slope = 30 * np.exp(-np.arange(N) / (0.2 * RATE_HZ))
    return replace(window, samples=window.samples + slope.astype(np.float32))


LIES = {
    "clipped": lambda window: replace(window, clipped=True),
    "ski_slope": ski,
    "offset": lambda window: replace(window, samples=window.samples[[0, 1, 2]] - np.float32([[0], [0], [9.81]])),
    "loose": lambda window: filtered(
        window, lambda hz: np.where(hz > 2000, 0.3, np.where((hz > 5) & (hz < 100), 1.3, 1.0))
    ),
    "swapped": lambda window: replace(window, samples=window.samples[[1, 2, 0]] - np.float32([[0], [9.81], [-9.81]])),
    "unit": lambda window: replace(window, samples=window.samples / np.float32(9.80665)),
}


@pytest.fixture
def watch() -> BurstWatch:
    watch = BurstWatch()
    for seed in range(N_OWN):
        watch.see(look_at(burst(seed)), running=True)
    assert watch.own is not None
    return watch


@pytest.mark.parametrize("name", LIES)
def test_each_lie_is_named_after_three_bursts_and_forgiven_when_it_is_over(watch: BurstWatch, name: str) -> None:
    """One odd burst is nothing; three of five are a sensor to look at."""
    for at in range(K_BAD):
        assert watch.faults == ()
        watch.see(look_at(LIES[name](burst(100 + at))), running=True)
    assert watch.faults[:1] == (name,)
    for at in range(3):
        watch.see(look_at(burst(200 + at)), running=True)
    assert watch.faults == ()


@pytest.mark.parametrize("severity", [0.5, 2.0, 6.0])
def test_a_machine_that_shakes_more_or_less_is_no_sensor_fault(watch: BurstWatch, severity: float) -> None:
    """Worse, lighter loaded, or with a bearing that rings: the sensor hears it, and is believed."""
    for at in range(5):
        watch.see(look_at(burst(300 + at, severity)), running=True)
        watch.see(look_at(filtered(burst(400 + at), lambda hz: np.where(hz > 2000, 5.0, 1.0))), running=True)
    assert watch.faults == ()


def test_a_machine_at_rest_accuses_nobody(watch: BurstWatch) -> None:
    """Floor noise has a slope of its own and nothing above 2 kHz."""
    for at in range(5):
        quiet = burst(500 + at, 0.0)
        watch.see(look_at(filtered(quiet, lambda hz: np.where(hz > 100, 0.01, 1.0))), running=False)
    assert watch.faults == ()


def test_the_same_burst_again_is_stuck_at_once_and_over_with_the_next_one(watch: BurstWatch) -> None:
    """A machine never shakes twice alike to the bit; a coarse sensor on a machine at rest may well say nothing twice."""
    assert not watch.see(look_at(burst(20)), running=False)
    assert watch.see(look_at(burst(20)), running=False)
    assert watch.faults == ("stuck",)
    assert not watch.see(look_at(burst(21)), running=True)
    assert watch.faults == ()
    still = replace(burst(22), samples=np.zeros((3, N), np.float32))
    for running, is_stuck in ((False, False), (False, False), (True, True)):
        watch.see(look_at(still), running)
        assert ("stuck" in watch.faults) == is_stuck


def test_bursts_with_missing_parts_are_told() -> None:
    """They are dropped whole; somebody must know that they are."""
    watch = BurstWatch()
    for _ in range(K_BAD):
        watch.missed()
    assert watch.faults == ("gaps",)


@pytest.mark.parametrize(("error", "named"), [(0.05, True), (-0.05, True), (0.03, True), (0.0, False), (0.01, False)])
def test_a_wrong_clock_shows_in_the_lines_against_a_speed_signal(error: float, named: bool) -> None:
    """5 % would move every bearing line beside its place."""
    watch = BurstWatch()
    point = OperatingPoint(1500.0, speed_age_s=0.1)
    for seed in range(K_BAD):
        said = replace(burst(seed), sample_rate_hz=RATE_HZ * (1 + error), point=point)
        watch.see(look_at(said, Nameplate(1460.0, 50.0)), running=True)
    assert watch.faults == (("rate",) if named else ())
    for seed in range(5):
        watch.see(look_at(replace(burst(seed), sample_rate_hz=RATE_HZ * 1.05), Nameplate(1460.0, 50.0)), running=True)
    assert watch.faults == (), "without a speed signal nobody knows"
