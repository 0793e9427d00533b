"""What a faulty sensor shows: each fault against what it is in words. An agent is judged by whether it rules these out first."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.errors import ConfigError
from firmware_bridge.roots import find_root
from simulator.faults import SENSOR_FAULTS
from simulator.scenario import Plant, load_scenario
from simulator.sensor_faults import (
    FITS,
    heard,
    is_absent,
    lost_in_parts,
    sampled_hz,
    shown,
)
from simulator.sensors import BurstSensor
from simulator.vibration import G_M_S2

RATE_HZ = 25_600.0
TRUE = {
    "velocity_rms_z_mm_s": 2.54,
    "velocity_rms_x_mm_s": 1.0,
    "kurtosis_z_ratio": 3.0,
    "kurtosis_x_ratio": 2.9,
    "temperature_degc": 40.0,
}
SENSOR = BurstSensor("mems_16g", np.random.default_rng(1))


def burst() -> np.ndarray:
    """A second of noise and a tone at 50 Hz, on the sensor's grid; the axes differ."""
    rng = np.random.default_rng(2)
    time_s = np.arange(25_600) / RATE_HZ
    tone = np.array([[1.0], [0.3], [2.0]]) * np.sin(math.tau * 50.0 * time_s)
    return SENSOR.counted((tone + 0.5 * rng.standard_normal((3, len(time_s)))).astype(np.float32))


def scalars(**severities: float) -> dict[str, float]:
    return shown(dict(TRUE), {f"sensor_{fault}": severity for fault, severity in severities.items()}, 5, "vib", 600.0)


def samples(**severities: float) -> np.ndarray:
    faults = {f"sensor_{fault}": severity for fault, severity in severities.items()}
    return heard(burst(), faults, SENSOR, RATE_HZ, np.random.default_rng(3))


def test_every_sensor_fault_says_which_sensors_can_have_it() -> None:
    """A scenario with a fault that its sensor cannot have would be a test of nothing."""
    assert set(FITS) == set(SENSOR_FAULTS)
    assert samples() is not None
    assert np.array_equal(samples(stuck=1.0), burst())


def test_units_are_mistaken_by_their_factor() -> None:
    """in/s for mm/s, Fahrenheit for Celsius, g for m/s2: what a changed jumper does; a ratio has no unit to mistake."""
    wrong = scalars(unit=1.0)
    assert wrong["velocity_rms_z_mm_s"] == pytest.approx(0.1)
    assert wrong["temperature_degc"] == pytest.approx(104.0)
    assert wrong["kurtosis_z_ratio"] == 3.0
    assert samples(unit=1.0).std() == pytest.approx(burst().std() / G_M_S2, rel=0.01)


def test_calibration_goes_by_degrees_or_by_a_step() -> None:
    """Drift grows with its severity and multiplies, a bias is added; shape (kurtosis) stays in both."""
    assert scalars(drift=0.2)["velocity_rms_z_mm_s"] == pytest.approx(2.54 * 1.1)
    assert scalars(drift=0.4)["velocity_rms_z_mm_s"] == pytest.approx(2.54 * 1.2)
    assert scalars(bias=0.5)["temperature_degc"] == pytest.approx(50.0)
    assert scalars(bias=0.5, drift=0.5)["kurtosis_z_ratio"] == 3.0
    assert samples(drift=1.0).std() == pytest.approx(0.5 * burst().std(), rel=0.01)
    assert samples(bias=1.0).mean() - burst().mean() == pytest.approx(0.5 * G_M_S2, rel=0.01)


def test_axes_are_exchanged_and_nothing_else() -> None:
    """A re-mounted sensor: every value is plausible, and each is another direction's."""
    wrong = scalars(swapped_axes=1.0)
    assert (wrong["velocity_rms_z_mm_s"], wrong["velocity_rms_x_mm_s"]) == (1.0, 2.54)
    assert wrong["temperature_degc"] == 40.0
    assert np.array_equal(samples(swapped_axes=1.0), burst()[[2, 0, 1]])


def test_a_loose_sensor_is_deaf_to_what_is_fast_and_shakes_by_itself() -> None:
    """High frequencies fall by 6 to 20 dB while velocity rises: no machine fault does both."""
    firm, loose = np.fft.rfft(burst()), np.fft.rfft(samples(loose=1.0))
    f = np.fft.rfftfreq(25_600, 1 / RATE_HZ)

    def level(spectrum: np.ndarray, low_hz: float, high_hz: float) -> float:
        return float(np.sqrt(np.mean(np.abs(spectrum[:, (f > low_hz) & (f < high_hz)]) ** 2)))

    assert level(loose, 2000, 5000) < level(firm, 2000, 5000) / 2.0
    assert level(loose, 1, 30) > 2.0 * level(firm, 1, 30)
    assert scalars(loose=1.0)["velocity_rms_x_mm_s"] > 1.5


def test_an_overloaded_sensor_stands_at_full_scale() -> None:
    """Saturation can be seen in the samples themselves, so no feature of such a burst may be believed."""
    full = 16.0 * G_M_S2
    assert np.mean(np.abs(samples(clipped=1.0)) > 0.999 * full) > 0.1
    assert np.abs(samples(clipped=0.3)).max() == pytest.approx(full, rel=1e-4)


def test_a_wrong_clock_samples_at_another_rate_than_it_says() -> None:
    """Up to 5 %: every line moves together, the shaft's and the supply's too."""
    assert sampled_hz({"sensor_rate": 1.0}, RATE_HZ) == pytest.approx(1.05 * RATE_HZ)
    assert sampled_hz({}, RATE_HZ) == RATE_HZ


def test_a_loose_plug_falls_silent_for_minutes_and_comes_back() -> None:
    """Dropouts come in bursts: a device is silent through a frame of ten minutes, or not at all in it."""
    minutes = [is_absent({"sensor_dropouts": 1.0}, 5, "vib", 60.0 * k) for k in range(600)]
    frames = np.array(minutes).reshape(60, 10).sum(axis=1)
    assert 0.3 <= np.mean(frames > 0) <= 0.7
    assert np.mean(frames[frames > 0]) > 7.5
    assert not any(is_absent({}, 5, "vib", 60.0 * k) for k in range(20))
    assert is_absent({"sensor_silent": 0.1}, 5, "vib", 0.0)


def test_spikes_are_rare_large_and_in_single_readings() -> None:
    """One reading in fifty at full severity; its neighbours are true."""
    readings = [shown(dict(TRUE), {"sensor_spikes": 1.0}, 5, "vib", 60.0 * k) for k in range(2000)]
    off = [abs(reading["temperature_degc"] - 40.0) for reading in readings]
    spikes = [value for value in off if value > 0.0]
    assert 20 <= len(spikes) <= 60
    assert min(spikes) >= 80.0


def test_a_sentinel_is_no_value_and_lost_parts_are_no_burst() -> None:
    """What is absent must not be mistaken for zero."""
    assert all(math.isnan(value) for value in scalars(sentinel=1.0).values())
    lost = [lost_in_parts({"sensor_gaps": 0.3}, 5, "accel", 60.0 * k) for k in range(1000)]
    assert np.mean(lost) == pytest.approx(0.3, abs=0.05)


def test_the_same_time_has_the_same_chance() -> None:
    """A fault that is asked for twice, or by two readers, is one fault."""
    spiked = [shown(dict(TRUE), {"sensor_spikes": 1.0}, 5, "vib", 60.0 * k) for k in range(100)]
    assert spiked == [shown(dict(TRUE), {"sensor_spikes": 1.0}, 5, "vib", 60.0 * k) for k in range(100)]


def test_a_plant_on_the_wire_has_the_same_faults(tmp_path: Path) -> None:
    """Scenarios and lives share one table of faults; one that the sensor cannot have is refused with those that can."""
    wrong = (find_root() / "config" / "scenarios" / "healthy.toml").read_text("utf-8")
    names = [spec.name for spec in load_scenario("healthy").sets[0].devices]
    wrong += f'\n[[faults]]\nset = "a"\nid = "sensor_unit"\nsensor = "{names[0]}"\nonset_s = 10\n'
    path = tmp_path / "units.toml"
    path.write_text(wrong, "utf-8")
    plant, healthy = Plant(load_scenario(path)), Plant(load_scenario("healthy"))
    true, seen = healthy.scalars("a", 20.0)[names[0]], plant.scalars("a", 20.0)[names[0]]
    assert plant.scalars("a", 5.0) == healthy.scalars("a", 5.0)
    assert seen["temperature_degc"] == pytest.approx(1.8 * true["temperature_degc"] + 32.0)
    path.write_text(wrong.replace("sensor_unit", "sensor_clipped"), "utf-8")
    with pytest.raises(ConfigError, match="needs a sensor of its set; write one of accel-"):
        load_scenario(path)
