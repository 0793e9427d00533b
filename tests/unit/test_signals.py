"""A sensor that lies is told by its own values; a machine that changes is left to the detector."""

from __future__ import annotations

import numpy as np
import pytest

from agent.decision.signals import BIAS, NONE, SPIKES, SWAPPED, UNIT, SignalWatch
from firmware_bridge.measurement import Channel, Quality

S = 1_000_000_000
VIB = ("velocity_rms_z_mm_s", "velocity_rms_x_mm_s", "velocity_peak_z_mm_s", "acceleration_rms_z_g", "temperature_degc")
CHANNELS = (
    *(Channel("vib", point) for point in VIB),
    Channel("press", "discharge_pressure_bar"),
    Channel("drive", "motor_shaft_power_kw"),
)
LEVELS = np.array([1.2, 0.8, 2.0, 0.15, 46.0, 2.2, 5.7])
NOISE = np.array([0.03, 0.03, 0.04, 0.03, 0.0005, 0.001, 0.003])
MACHINES = [range(len(CHANNELS))]


class Bench:
    """One machine's sensors, polled every second."""

    def __init__(self, seed: int = 1) -> None:
        self.watch = SignalWatch(CHANNELS, MACHINES)
        self.rng = np.random.default_rng(seed)
        self.second = 0

    def run(self, seconds: int, change=lambda values, second: values, running: bool | None = True) -> np.ndarray:
        """Poll for so long; returns the qualities told, shape (seconds, n_channels)."""
        told = np.zeros((seconds, len(CHANNELS)), np.uint8)
        for at in range(seconds):
            values = change(LEVELS * (1 + NOISE * self.rng.standard_normal(len(LEVELS))), at).astype(np.float32)
            for sensor in ("vib", "press", "drive"):
                own = np.array([i for i, channel in enumerate(CHANNELS) if channel.sensor == sensor], np.int32)
                good = np.zeros(own.size, np.uint8)
                told[at, own] = self.watch.see(own, values[own], good, self.second * S, running)
            self.second += 1
        return told

    def found(self) -> dict[str, int]:
        return {c.point: int(f) for c, f in zip(CHANNELS, self.watch.fault, strict=True) if f != NONE}


def times(factor: float, *which: int):
    gain = np.ones(len(CHANNELS))
    gain[list(which)] = factor
    return lambda values, _: values * gain


def plus(offset: float, *which: int):
    added = np.zeros(len(CHANNELS))
    added[list(which)] = offset
    return lambda values, _: values + added


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_machine_that_starts_stops_and_changes_its_load_accuses_no_sensor(seed: int) -> None:
    """Load moves everything, a fault of the machine moves one axis in all its amplitudes, temperatures follow in minutes."""
    bench = Bench(seed)
    bench.run(100)
    bench.run(40, times(0.0, 0, 1, 2, 3, 6), running=False)
    bench.run(60)
    bench.run(60, lambda values, _: values * np.array([1.1, 1.1, 1.1, 1.1, 1.0, 0.9, 1.25]))
    bench.run(60, times(2.5, 0, 2, 3))  # something broke: all of one axis
    bench.run(
        60, lambda values, _: values * np.array([6.0, 1.1, 5.5, 2.5, 1, 1, 1])
    )  # a rotor lost a blade: crest falls
    bench.run(60, lambda values, _: values * np.array([1, 1, 1, 1, 1, 0.3, 0.4]))  # runs dry
    bench.run(200, lambda values, second: values + np.array([0, 0, 0, 0, 0.1 * second, 0, 0]))
    assert bench.found() == {}


def test_single_readings_that_cannot_be_are_kept_out_at_once_and_the_sensor_is_told_of_at_the_third() -> None:
    """One spike of full scale would move a level for half a minute, and with it the machine's score."""
    bench = Bench()
    bench.run(30)
    at = (5, 40, 80)
    told = bench.run(100, lambda values, second: values * np.where(second in at, 30.0, 1.0))
    assert set(np.flatnonzero((told >= Quality.BAD).any(axis=1))) == set(at)
    assert set(bench.found().values()) == {SPIKES}
    bench.watch.step((bench.second + 4 * 86_400) * S)
    assert bench.found() == {}


def test_a_true_step_is_believed_one_reading_later() -> None:
    """A limit's on-delay is seconds; holding one reading back costs it nothing."""
    bench = Bench()
    bench.run(30)
    told = bench.run(20, times(0.3, 5, 6))
    assert [list(np.flatnonzero(told[:, channel])) for channel in (5, 6)] == [[0], [0]]


@pytest.mark.parametrize("factor", [25.4, 1 / 25.4, 9.80665, 10.0, 0.001])
def test_an_exact_factor_is_another_unit(factor: float) -> None:
    """And it is over when the values are back."""
    bench = Bench()
    bench.run(30)
    bench.run(30, times(factor, 0, 1, 2))
    assert bench.found() == dict.fromkeys(VIB[:3], UNIT)
    bench.run(30)
    assert bench.found() == {}


def test_fahrenheit_is_no_fever() -> None:
    bench = Bench()
    bench.run(30)
    bench.run(30, lambda values, _: np.where(np.arange(len(values)) == 4, values * 1.8 + 32, values))
    assert bench.found() == {"temperature_degc": UNIT}


def test_axes_that_took_each_others_level_were_exchanged() -> None:
    """The drawing says z, the plug says x."""
    bench = Bench()
    bench.run(30)
    bench.run(30, lambda values, _: values[[1, 0, *range(2, len(values))]])
    assert bench.found() == dict.fromkeys(VIB[:2], SWAPPED)


@pytest.mark.parametrize(
    ("change", "point"),
    [
        (plus(8.0, 4), "temperature_degc"),  # no housing gains 8 K in a second
        (times(1.6, 0), "velocity_rms_z_mm_s"),  # and its own peak stayed
        (plus(0.4, 5), "discharge_pressure_bar"),  # and power knows nothing of it
    ],
)
def test_a_step_that_no_machine_makes_is_a_bias(change, point: str) -> None:
    """Judged by inertia, or by what must have moved with it."""
    bench = Bench()
    bench.run(30)
    bench.run(30, change)
    assert bench.found() == {point: BIAS}


def test_a_housing_does_not_get_warm_between_two_readings_of_a_slow_poll() -> None:
    """20 K within two minutes and not a tenth more after it: water may do that, a motor's housing does not."""
    watch = SignalWatch(CHANNELS, MACHINES)
    rng = np.random.default_rng(1)
    own = np.arange(5, dtype=np.int32)
    for poll in range(40):
        values = LEVELS[:5] * (1 + NOISE[:5] * rng.standard_normal(5)) + [0, 0, 0, 0, 20.0 * (poll >= 20)]
        watch.see(own, values.astype(np.float32), np.zeros(5, np.uint8), poll * 120 * S, True)
    assert watch.fault.tolist() == [NONE] * 4 + [BIAS] + [NONE] * 2


def test_a_reading_that_was_never_heard_is_kept_out_soon_after_a_start_too() -> None:
    """The first readings of a run have no recent median; minus six kilowatts would be a dry run all the same."""
    bench = Bench()
    bench.run(100)
    bench.run(20, times(0.0, 6), running=False)
    told = bench.run(20, lambda values, at: values * np.where(np.arange(7) == 6, -20.0 if at == 12 else 1.0, 1.0))
    assert told[12, 6] == Quality.BAD
    assert told[13:].max() == 0


def test_a_meter_that_reads_beside_at_rest_starts_no_machine() -> None:
    """It shows power on a machine that stands, so that the machine seems to run; the drive and the pressure know better."""
    bench = Bench()
    bench.run(100)
    rest = np.array([0.03, 0.03, 0.03, 0.03, 1.0, 0.4, 0.001])
    bench.run(60, lambda values, _: values * rest, running=False)
    stands = lambda values, _: values * rest + np.array([0, 0, 0, 0, 0, 0, 3.0])  # noqa: E731
    bench.run(1, stands, running=False)
    bench.run(30, stands, running=True)
    assert bench.found() == {"motor_shaft_power_kw": BIAS}


def test_a_start_that_nobody_could_see_accuses_no_sensor() -> None:
    """Where the speed's own sensor is silent, a machine starts and stops unseen: 25 times the vibration is no inch."""
    bench = Bench()
    bench.run(50)
    bench.run(40, running=None)
    bench.run(40, times(25.4, 0, 1, 2, 3), running=None)
    bench.run(40, times(0.0, 6), running=None)
    assert bench.found() == {}


def test_a_drift_is_not_seen_by_one_instrument_alone() -> None:
    """Said honestly: half a bar in an hour may be the pump as well."""
    bench = Bench()
    bench.run(30)
    bench.run(600, lambda values, second: values + np.array([0, 0, 0, 0, 0, 0.0008 * second, 0]))
    assert bench.found() == {}


def test_a_device_that_renews_slower_than_it_is_polled_hides_no_spike() -> None:
    """The same spike read three times is one spike."""
    bench = Bench()
    held: dict[str, np.ndarray] = {}

    def slow(values: np.ndarray, second: int) -> np.ndarray:
        if second % 3 == 0:
            held["v"] = values * (40.0 if second in (30, 60, 90) else 1.0)
        return held["v"]

    told = bench.run(120, slow)
    assert set(np.flatnonzero((told >= Quality.BAD)[:, 0])) == {30, 31, 32, 60, 61, 62, 90, 91, 92}
    assert bench.found()["velocity_rms_z_mm_s"] == SPIKES


def test_a_changed_sensor_begins_anew() -> None:
    """What it says from now on is its normal."""
    bench = Bench()
    bench.run(30)
    bench.run(30, plus(8.0, 4))
    bench.watch.forget(np.array([4]))
    bench.run(30, plus(8.0, 4))
    assert bench.found() == {}


def test_a_temperature_that_leaps_is_doubted_until_it_is_told_whose_step_it_was() -> None:
    """Degrees Fahrenheit would break a limit of 95 before they are told as such; a bearing that runs hot never leaps."""
    at = VIB.index("temperature_degc")
    bench = Bench()
    bench.run(60)
    bench.run(60, lambda values, second: values + np.where(np.arange(len(values)) == at, 0.04 * second, 0.0))
    assert bench.watch.doubted == frozenset()
    bench = Bench()
    bench.run(60)

    def leap(values: np.ndarray, second: int) -> np.ndarray:
        return np.where(np.arange(len(values)) == at, 1.8 * values + 32, values)

    bench.run(1, leap)
    for _ in range(9):
        bench.run(1, leap)
        assert at in bench.watch.doubted or bench.found() == {"temperature_degc": UNIT}
    assert bench.found() == {"temperature_degc": UNIT}
    assert bench.watch.doubted == frozenset()
