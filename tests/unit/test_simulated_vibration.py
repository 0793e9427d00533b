"""The waveform generator against the table that was worked out beside its formulas, and against its own closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.faults import FAULTS, impulse_peak_g
from simulator.fleet import Kind, VirtualMachine
from simulator.sensors import BurstSensor
from simulator.vibration import BEARINGS, G_M_S2, MOTOR_DE, PUMP_DE, Conditions, Impulses, Levels, MeasuringPoint

RATE_HZ = 25_600.0
N = 25_600
POINT = MeasuringPoint(MOTOR_DE)
Row = NDArray[np.float32]


def velocity_rms_mm_s(row: Row) -> float:
    spectrum = np.fft.rfft(row)
    f = np.fft.rfftfreq(len(row), 1 / RATE_HZ)
    band = (f >= 10) & (f <= 1000)
    return float(1e3 * np.sqrt(2 * np.sum(np.abs(spectrum[band] / (2 * np.pi * f[band])) ** 2)) / len(row))


def band_rms_g(row: Row, low_hz: float, high_hz: float) -> float:
    spectrum = np.fft.rfft(row)
    f = np.fft.rfftfreq(len(row), 1 / RATE_HZ)
    band = (f >= low_hz) & (f <= high_hz)
    return float(np.sqrt(2 * np.sum(np.abs(spectrum[band]) ** 2)) / len(row) / G_M_S2)


def kurtosis(row: Row) -> float:
    centred = row.astype(float) - row.mean()
    return float(np.mean(centred**4) / np.mean(centred**2) ** 2)


def bursts(levels: Levels, count: int = 4, point: MeasuringPoint = POINT) -> list[Row]:
    """The vertical axis of some bursts."""
    return [point.waveform(levels, RATE_HZ, N, np.random.default_rng([7, i]))[2] for i in range(count)]


def hit(peak_g: float) -> Levels:
    levels = POINT.levels(Conditions(shaft_hz=1460 / 60))
    levels.impulses = (Impulses(73.6, peak_g, False),) if peak_g else ()
    return levels


# peak g, velocity RMS mm/s, acceleration RMS g, kurtosis: 6308 outer race, 3.5 kHz, damping 0.04, slip 1 %
CHECK = [(0.0, 0.71, 0.042, 2.85), (0.1, 0.71, 0.045, 3.07), (0.5, 0.71, 0.087, 13.0), (1.0, 0.72, 0.158, 18.0)]
CHECK += [(5.0, 1.01, 0.75, 21.0), (10.0, 1.58, 1.5, 21.0), (20.0, 2.92, 3.0, 21.0)]


@pytest.mark.parametrize(("peak_g", "velocity", "acceleration", "peakedness"), CHECK)
def test_a_spall_shows_in_each_indicator_when_it_should(
    peak_g: float, velocity: float, acceleration: float, peakedness: float
) -> None:
    """Kurtosis from 0.2 g, velocity not before 5 g: the order in which a bearing gives itself away (within 15 %)."""
    rows = bursts(hit(peak_g))
    assert np.mean([velocity_rms_mm_s(row) for row in rows]) == pytest.approx(velocity, rel=0.08)
    assert np.mean([row.std() for row in rows]) / G_M_S2 == pytest.approx(acceleration, rel=0.15)
    assert np.mean([kurtosis(row) for row in rows]) == pytest.approx(peakedness, rel=0.15)


AGREES = [{}, {"bearing_outer_race": 0.6}, {"unbalance": 0.4}, {"lubrication": 0.7}]
AGREES += [{"air_gap_eccentricity": 0.5}, {"broken_rotor_bar": 0.8}, {"over_greasing": 1.0}, {"bent_shaft": 0.5}]


@pytest.mark.parametrize("faults", AGREES)
def test_the_closed_form_agrees_with_the_waveform(faults: dict[str, float]) -> None:
    """A scalar sensor's values come from formulas, a burst from samples; they must tell of the same machine."""
    levels = POINT.levels(Conditions(pole_pass_hz=2.1, faults=faults))
    told, rows = POINT.indicators(levels, 2, 0.0), bursts(levels, 6)
    low = [np.fft.irfft(np.where(np.fft.rfftfreq(N, 1 / RATE_HZ) <= 4000, np.fft.rfft(row), 0)) for row in rows]
    assert told.velocity_rms_mm_s == pytest.approx(np.mean([velocity_rms_mm_s(row) for row in rows]), rel=0.06)
    assert told.acceleration_rms_g == pytest.approx(np.mean([band_rms_g(row, 10, 4000) for row in rows]), rel=0.12)
    assert told.hf_acceleration_rms_g == pytest.approx(np.mean([band_rms_g(row, 1000, 4000) for row in rows]), rel=0.15)
    assert told.kurtosis_ratio == pytest.approx(np.mean([kurtosis(row) for row in low]), rel=0.35)
    assert told.acceleration_peak_g == pytest.approx(np.mean([np.abs(row).max() for row in low]) / G_M_S2, rel=0.25)


def test_healthy_machines_of_a_fleet_stay_in_the_healthy_ranges() -> None:
    """Velocity 0.4 to 1.8 mm/s, high-frequency floor 0.01 to 0.1 g, Gaussian: for motors and pumps of any seed."""
    rng = np.random.default_rng(3)
    for base in (MOTOR_DE, PUMP_DE):
        for _ in range(10):
            point = MeasuringPoint(base.varied(rng, 0.3))
            row = bursts(point.levels(Conditions()), 1, point)[0]
            assert 0.4 <= velocity_rms_mm_s(row) <= 1.8
            assert 0.01 <= band_rms_g(row, 1000, 10_000) <= 0.12
            assert 2.4 <= kurtosis(row) <= 3.4


def test_the_outer_race_line_and_three_times_shaft_speed_are_0_6_hz_apart() -> None:
    """A trap that real 6308 bearings set: one second of signal cannot tell 73.6 Hz from 73.0 Hz."""
    shaft_hz = 1460 / 60
    assert BEARINGS["6308"].outer_race_ratio * shaft_hz == pytest.approx(73.6, abs=0.1)
    assert BEARINGS["6308"].inner_race_ratio * shaft_hz == pytest.approx(121.1, abs=0.1)
    assert abs(BEARINGS["6308"].outer_race_ratio - 3.0) * shaft_hz < 1.0


@pytest.mark.parametrize("fault", ["bearing_outer_race", "bearing_inner_race"])
def test_the_envelope_of_a_spall_has_its_line_at_the_race_frequency(fault: str) -> None:
    """The squared envelope in the resonance band has its strongest line there, slip and lag included."""
    point = MeasuringPoint(replace(MOTOR_DE, lag_ratio=0.0))
    levels = point.levels(Conditions(shaft_hz=24.4, faults={fault: 0.5}))
    row = bursts(levels, 1, point)[0]
    spectrum = np.fft.fft(row)
    f = np.fft.fftfreq(N, 1 / RATE_HZ)
    envelope = np.abs(np.fft.ifft(np.where((f > 2000) & (f < 5000), 2 * spectrum, 0))) ** 2
    lines = np.abs(np.fft.rfft(envelope - envelope.mean()))[:400]
    expected_hz = levels.impulses[0].rate_hz
    around = lines[round(expected_hz) - 2 : round(expected_hz) + 3].max()
    assert around > 10 * np.median(lines)
    if fault == "bearing_outer_race":
        assert abs(int(np.argmax(lines)) - expected_hz) <= 2


def test_severity_maps_evenly_from_first_sign_to_destruction() -> None:
    """0.03 g is where an envelope begins to see, 20 g the end; equal steps of severity are equal factors."""
    assert impulse_peak_g(0.0) == 0.0
    assert impulse_peak_g(1e-9) == pytest.approx(0.03)
    assert impulse_peak_g(1.0) == pytest.approx(20.0)
    assert impulse_peak_g(0.6) / impulse_peak_g(0.4) == pytest.approx(impulse_peak_g(0.4) / impulse_peak_g(0.2))


def test_late_damage_brings_kurtosis_down_again() -> None:
    """A real bearing's kurtosis returns to 3-6 at the end of its life: it must not be used as a one-way trend."""
    middle = POINT.levels(Conditions(faults={"bearing_outer_race": 0.5}))
    last = POINT.levels(Conditions(faults={"bearing_outer_race": 1.0}))
    assert last.noise_g > 5 * middle.noise_g
    assert last.orders[1.0][2] > middle.orders[1.0][2]


def test_unbalance_is_1x_and_misalignment_is_2x() -> None:
    """The two most common faults differ by the order that grows, and by the axial direction."""
    healthy = POINT.levels(Conditions()).orders
    heavy = POINT.levels(Conditions(faults={"unbalance": 1.0})).orders
    askew = POINT.levels(Conditions(faults={"misalignment": 1.0})).orders
    assert 7.0 <= heavy[1.0][0] <= 12.0
    assert heavy[2.0] == healthy[2.0]
    assert askew[2.0][2] > 2 * askew[1.0][2]
    assert askew[1.0][1] > 2.0


def test_a_standing_machine_is_silent() -> None:
    """At standstill the sensor shows its own noise and nothing else: the agent learns the noise floor from that."""
    levels = POINT.levels(Conditions(shaft_hz=0.0, line_hz=0.0))
    assert np.abs(POINT.waveform(levels, RATE_HZ, N, np.random.default_rng(1))).max() == 0.0


def test_cavitation_noise_is_high_and_breathes_with_the_vanes() -> None:
    """Broadband above 3 kHz, modulated by vane pass: that tells it from a dry bearing."""
    point = MeasuringPoint(PUMP_DE)
    quiet = bursts(point.levels(Conditions()), 1, point)[0]
    loud = bursts(point.levels(Conditions(cavitation_db=12.0)), 1, point)[0]
    assert band_rms_g(loud, 4000, 8000) > 2.5 * band_rms_g(quiet, 4000, 8000)
    assert velocity_rms_mm_s(loud) == pytest.approx(velocity_rms_mm_s(quiet), rel=0.1)
    spectrum = np.fft.fft(loud)
    f = np.fft.fftfreq(N, 1 / RATE_HZ)
    power = np.abs(np.fft.ifft(np.where((f > 3500) & (f < 9000), spectrum, 0))) ** 2
    lines = np.abs(np.fft.rfft(power - power.mean()))[20:400]
    assert abs(int(np.argmax(lines)) + 20 - 6 * 24.45) <= 2


def test_flow_that_turns_back_rumbles_below_2_khz_and_shakes_at_vane_pass() -> None:
    """Low flow is loud where cavitation is not: that tells throttling from lost suction."""
    point = MeasuringPoint(PUMP_DE)
    quiet = point.levels(Conditions())
    low = point.levels(Conditions(flow_ratio=0.3, turned_back=0.5))
    rows = [bursts(levels, 1, point)[0] for levels in (quiet, low)]
    assert band_rms_g(rows[1], 200, 2000) > 3.0 * band_rms_g(rows[0], 200, 2000)
    assert band_rms_g(rows[1], 5000, 10_000) < 1.3 * band_rms_g(rows[0], 5000, 10_000)
    assert low.orders[6.0][1] > 3.0 * quiet.orders[6.0][1]  # along the shaft
    told = point.indicators(low, 2, 0.0)
    assert told.hf_acceleration_rms_g == pytest.approx(band_rms_g(rows[1], 1000, 4000), rel=0.15)


def test_fluted_races_have_both_their_lines_and_a_hump() -> None:
    """Shaft currents burn a washboard into the races: families of both, over a broad hump at 2 to 4 kHz."""
    levels = POINT.levels(Conditions(faults={"bearing_fluting": 0.6}))
    ratios = (BEARINGS["6308"].outer_race_ratio, BEARINGS["6308"].inner_race_ratio)
    assert [train.rate_hz / 24.45 for train in levels.impulses] == pytest.approx(list(ratios), rel=0.01)
    assert levels.hump_g > 0.5 * levels.noise_g
    assert levels.burst_noise_g == 0.0


def test_electrical_faults_are_gone_with_the_supply() -> None:
    """The oldest test of an electrician: what falls silent at power-off was the field's pull, not the shaft's."""
    faults = {"air_gap_eccentricity": 0.7, "broken_rotor_bar": 0.7, "stator_electrical": 0.7}
    on, off = (
        POINT.levels(Conditions(pole_pass_hz=2.0, faults=faults)),
        POINT.levels(Conditions(line_hz=0.0, faults=faults)),
    )
    assert on.twice_line_mm_s[2] > 2.0
    assert sorted(tone.frequency_hz for tone in on.tones) == pytest.approx([22.45, 26.45, 75.55, 124.45])
    assert (off.twice_line_mm_s[2], off.tones) == (0.0, ())


def test_a_bent_shaft_shakes_along_itself_and_a_worn_coupling_three_times_a_turn() -> None:
    """How either differs from unbalance (1x, radial) and from misalignment (2x more than 3x)."""
    healthy = POINT.levels(Conditions()).orders
    bent = POINT.levels(Conditions(faults={"bent_shaft": 0.5})).orders
    worn = POINT.levels(Conditions(faults={"coupling_wear": 0.5})).orders
    assert bent[1.0][1] - healthy[1.0][1] > 1.5
    assert bent[2.0][1] > 2.0 * healthy[2.0][1]
    assert worn[3.0][2] > worn[2.0][2] > worn[1.0][2]


# Counts of every 3000th sample of three axes, of machines as they were before there were more faults than ten.
KEPT: list[tuple[Kind, int, int, list[list[int]]]] = [
    (
        "motor",
        1,
        0,
        [
            [-169, 24, -135, -88, 48, 56, 50, 8, 15],
            [101, -55, -70, -59, 36, 57, 77, -50, 44],
            [83, 162, -84, 120, -57, 32, 54, -111, 25],
        ],
    ),
    (
        "pump",
        7,
        3,
        [
            [-41, 26, -6, -49, -133, -118, 68, -145, -309],
            [38, 22, 67, 28, -88, 139, -6, 39, -67],
            [40, 208, -65, -68, 122, 145, -157, -63, -144],
        ],
    ),
]


@pytest.mark.parametrize(("kind", "seed", "moment", "counts"), KEPT)
def test_healthy_bursts_of_a_seed_stay_what_they_were(
    kind: Kind, seed: int, moment: int, counts: list[list[int]]
) -> None:
    """Shipped models were trained on them: a new fault may take no random number from a machine that does not have it."""
    samples, _, _ = VirtualMachine(kind, seed).sample(moment)
    scale_m_s2 = BurstSensor("mems_16g", np.random.default_rng(0)).scale_m_s2
    seen = np.rint(samples[:, ::3000] / np.float32(scale_m_s2))
    assert np.abs(seen - np.array(counts)).max() <= 1.0  # another processor may round the last count differently


def test_a_burst_sensor_clips_at_full_scale_and_counts_whole_steps() -> None:
    """int16 at 16 g: nothing passes full scale, and every sample is a whole number of counts, so the wire loses none."""
    sensor = BurstSensor("mems_16g", np.random.default_rng(5))
    truth = (30 * G_M_S2 * np.sin(np.arange(3 * 4096).reshape(3, 4096) / 60)).astype(np.float32)
    seen = sensor.sense(truth, RATE_HZ, np.random.default_rng(6))
    counts = seen / np.float32(sensor.scale_m_s2)
    assert np.abs(seen).max() == pytest.approx(16 * G_M_S2, rel=1e-6)
    assert np.abs(counts - np.rint(counts)).max() < 0.01
    assert np.abs(np.rint(counts)).max() == 32767


def test_a_burst_sensor_adds_its_noise_and_little_else() -> None:
    """75 micro-g per root hertz over its band; gain within 5 % at 100 Hz."""
    sensor = BurstSensor("mems_16g", np.random.default_rng(5))
    silence = sensor.sense(np.zeros((3, N), np.float32), RATE_HZ, np.random.default_rng(6))
    assert band_rms_g(silence[0], 100, 6000) == pytest.approx(75e-6 * np.sqrt(5900), rel=0.05)
    tone = np.tile(G_M_S2 * np.sin(2 * np.pi * 100 * np.arange(N) / RATE_HZ), (3, 1)).astype(np.float32)
    seen = sensor.sense(tone, RATE_HZ, np.random.default_rng(6))
    assert band_rms_g(seen[2], 99, 101) == pytest.approx(np.sqrt(0.5), rel=0.13)


def test_every_fault_says_where_it_sits_and_what_it_moves() -> None:
    """The table is what scenarios and tests are written against."""
    for name, mode in FAULTS.items():
        assert mode.id == name
        assert mode.places
        assert mode.moves
