"""Closed forms of burst features, and what happens to a window that is not whole."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.feature_benchmark import full_profile
from agent.features import Cores, FeatureSet, Nameplate, feature_set_of
from agent.features.bearings import orders_of_geometry
from agent.machine import load_machine_profile
from agent.vocabulary import OperatingPoint, Window

CONFIG = Path(__file__).parents[2] / "config"
RATE_HZ, N = 25600.0, 25600
TIME_S = np.arange(N) / RATE_HZ
BEARING = orders_of_geometry(8, 15.88, 65.0)
NAMEPLATE = Nameplate(1460.0, 50.0, 6, BEARING)
POINT = OperatingPoint(shaft_speed_rpm=1500.0, line_frequency_hz=50.0)
PROFILE = load_machine_profile(CONFIG, "motor")
MOTOR = feature_set_of(PROFILE)
PUMP = feature_set_of(load_machine_profile(CONFIG, "pump"))
CORES = {id(features): Cores(features.plan_at) for features in (MOTOR, PUMP)}


def window(*axes, point=POINT, rate_hz=RATE_HZ, clipped=False):
    samples = np.array(axes, dtype=np.float32)
    names = ("x", "y", "z", "w", "v")[: len(axes)]
    return Window("M", "s", names, samples, rate_hz, 1, 0, 0, point, clipped)


def measured(features: FeatureSet, taken: Window, nameplate=NAMEPLATE) -> dict[str, float]:
    values, present = features.compute(taken, {}, nameplate, CORES[id(features)])
    assert np.isnan(values[~present]).all()
    return dict(zip(features.names, values.tolist(), strict=True))


def tone(hz, amplitude=1.0, phase=0.3):
    return amplitude * np.sin(2 * np.pi * hz * TIME_S + phase)


@pytest.mark.parametrize("hz", [20.0, 24.33, 50.0, 146.0, 500.0, 990.0])
def test_velocity_rms_of_a_tone_is_its_closed_form(hz):
    """Amplitude A of acceleration has RMS velocity A / (2 pi f sqrt 2), on a bin or between two."""
    found = measured(MOTOR, window(tone(hz, 9.81)))["spectrum.velocity_rms_mm_s"]
    assert found == pytest.approx(9810 / (2 * np.pi * hz * np.sqrt(2)), rel=1e-4)


@pytest.mark.parametrize(("band", "hz"), [(0, 50.0), (1, 333.0), (2, 1800.0), (3, 3333.3), (4, 9000.0)])
def test_a_tone_is_in_its_own_band_and_in_no_other(band, hz):
    """RMS A / sqrt 2 in the band that holds it; elsewhere only what a Hann window leaks far from a line."""
    found = measured(MOTOR, window(tone(hz, 2.0)))
    bands = [found[f"spectrum.band_rms_m_s2[band={at}]"] for at in range(5)]
    assert bands[band] == pytest.approx(np.sqrt(2), rel=1e-4)
    assert max(value for at, value in enumerate(bands) if at != band and np.isfinite(value)) < 1e-3


@pytest.mark.parametrize(
    ("name", "hz"), [("line_1x_mm_s", 25.0), ("line_2x_mm_s", 50.0), ("line_3x_mm_s", 75.0), ("line_2xlf_mm_s", 100.0)]
)
def test_lines_follow_shaft_and_supply(name, hz):
    """A tone at a line's own frequency reads its RMS velocity, and every other line reads next to nothing."""
    found = measured(MOTOR, window(tone(hz)))
    expected = 1000 / (2 * np.pi * hz * np.sqrt(2))
    lines = {key: value for key, value in found.items() if key.startswith("spectrum.line_")}
    assert lines.pop(f"spectrum.{name}") == pytest.approx(expected, rel=1e-4)
    assert max(lines.values()) < 1e-3 * expected


def test_vane_pass_is_vanes_times_shaft_speed():
    """Six vanes at 25 Hz."""
    found = measured(PUMP, window(tone(150.0)))["spectrum.vane_pass_mm_s"]
    assert found == pytest.approx(1000 / (2 * np.pi * 150 * np.sqrt(2)), rel=1e-4)


def test_a_sine_has_crest_root_two_and_kurtosis_one_and_a_half():
    """Closed forms, with an offset a thousand times larger that must not show."""
    found = measured(MOTOR, window(tone(100.0, 0.01) + 9.81))
    assert found["vibration.rms_m_s2"] == pytest.approx(0.01 / np.sqrt(2), rel=1e-3)
    assert found["vibration.crest_ratio"] == pytest.approx(np.sqrt(2), rel=1e-3)
    assert found["vibration.kurtosis_ratio"] == pytest.approx(1.5, rel=1e-3)


def ringing(order, speed_rpm=1460.0, peak=2.0, noise=0.3, seed=0):
    """A train of damped 3.5 kHz rings at `order` per turn, in noise: a spalled bearing in its simplest form."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(N)
    hits[np.round(np.arange(0, N, RATE_HZ / (order * speed_rpm / 60))).astype(int)[:-1]] = peak
    ring = np.exp(-2 * np.pi * 3500 * 0.04 * TIME_S[:400]) * np.sin(2 * np.pi * 3500 * TIME_S[:400])
    return np.convolve(hits, ring)[:N] + noise * rng.standard_normal(N)


@pytest.mark.parametrize("defect", ["bpfo", "bpfi", "bsf", "ftf"])
def test_an_impulse_train_raises_its_own_envelope_line(defect):
    """Each defect's train stands out at its own line by far. (BPFO is n times FTF, so a cage's train has both.)"""
    order = {"bpfo": BEARING.bpfo, "bpfi": BEARING.bpfi, "bsf": 2 * BEARING.bsf, "ftf": BEARING.ftf}[defect]
    point = OperatingPoint(shaft_speed_rpm=1460.0)
    found = measured(MOTOR, window(ringing(order, peak=8.0), point=point))
    healthy = measured(MOTOR, window(ringing(order, peak=0.0), point=point))
    ratios = {name: found[f"envelope.{name}_ratio"] for name in ("bpfo", "bpfi", "bsf", "ftf")}
    assert ratios[defect] == max(ratios.values()) or defect == "ftf"
    assert ratios[defect] > 4 * healthy[f"envelope.{defect}_ratio"]


def test_whitening_brings_out_a_bearing_under_strong_lines_in_its_band():
    """Gears or a drive put lines into the band that beat with one another; pre-whitening takes them down to the others' height."""
    burst = msgspec.structs.replace(PROFILE.burst, envelope_whitened=True)
    white = feature_set_of(msgspec.structs.replace(PROFILE, burst=burst))
    assert white.digest != MOTOR.digest
    beating = sum(6.0 * np.sin(2 * np.pi * (3000 + 53.7 * k) * TIME_S + k * k) for k in range(8))
    taken = window(ringing(BEARING.bpfo, seed=1) + beating, point=OperatingPoint(shaft_speed_rpm=1460.0))
    plain = measured(MOTOR, taken)["envelope.bpfo_ratio"]
    values, _ = white.compute(taken, {}, NAMEPLATE, Cores(white.plan_at))
    assert values[white.names.index("envelope.bpfo_ratio")] > 2 * plain


@pytest.mark.parametrize("swing", [0.1, 0.3, 0.6])
def test_hiss_in_step_with_the_vanes_reads_level_times_depth(swing):
    """Noise of 2 m/s2 whose amplitude swings by `swing` at six vanes: the squared envelope swings by 2 s / (1 + s^2 / 2)."""
    features = feature_set_of(full_profile(PROFILE))
    hiss = 2.0 * np.random.default_rng(4).standard_normal(N) * (1 + swing * np.cos(2 * np.pi * 6 * 25.0 * TIME_S))
    values, _ = features.compute(window(hiss), {}, NAMEPLATE, Cores(features.plan_at))
    found = dict(zip(features.names, values.tolist(), strict=True))
    depth = 2 * swing / (1 + swing**2 / 2)
    expected = found["envelope.rms_m_s2"] * depth
    assert found["envelope.cavitation_index_m_s2"] == pytest.approx(expected, abs=0.1 * found["envelope.rms_m_s2"])


def test_healthy_envelope_lines_stand_near_their_floor():
    """Noise without a line reads 1 to 4 in any of a hundred windows: the ratio needs no scale of its own."""
    point = OperatingPoint(shaft_speed_rpm=1460.0)
    noise = np.random.default_rng(3).standard_normal((100, N))
    found = [measured(MOTOR, window(x, point=point)) for x in noise]
    ratios = np.array([[one[f"envelope.{name}_ratio"] for name in ("bpfo", "bpfi", "bsf", "ftf")] for one in found])
    assert ratios.min() > 0.5
    assert ratios.max() < 4.0


def test_the_zoom_envelope_is_the_full_envelope():
    """The short inverse transform gives the same squared-envelope spectrum as the analytic signal at full length."""
    core = CORES[id(MOTOR)].at(RATE_HZ)
    analysis = core.analyses["envelope"]
    x = np.stack([ringing(BEARING.bpfo, seed=seed) for seed in range(4)]).astype(np.float32)
    rows = core.transform(x)
    band = rows.spectrum[:, analysis._band]
    zoomed = np.abs(np.fft.rfft(analysis._squared_envelope(band))) * analysis.n_points
    full = np.zeros((4, N), complex)
    full[:, : band.shape[1]] = band
    oracle = np.abs(np.fft.rfft(np.abs(np.fft.ifft(full)) ** 2)) * N
    np.testing.assert_allclose(zoomed[:, 4:1500], oracle[:, 4:1500], rtol=2e-3, atol=1e-4 * oracle[:, 4:1500].max())


def turning(mean_hz, change=0.0, seed=0):
    """Lines at 1x, 2x, 3x and 6x and rings at BPFO, all on one shaft angle, which speeds up by `change` over the burst."""
    rng = np.random.default_rng(seed)
    turns = mean_hz * (TIME_S + change * (TIME_S**2 - TIME_S) / 2)
    lines = sum(
        level * np.sin(2 * np.pi * order * turns + order) for order, level in ((1, 0.5), (2, 0.3), (3, 0.2), (6, 0.4))
    )
    hits = np.zeros(N)
    hits[np.searchsorted(turns, np.arange(0, mean_hz - 1, 1 / BEARING.bpfo))] = 8.0
    ring = np.exp(-2 * np.pi * 3500 * 0.04 * TIME_S[:400]) * np.sin(2 * np.pi * 3500 * TIME_S[:400])
    return lines + np.convolve(hits, ring)[:N] + 0.2 * rng.standard_normal(N)


UNTOLD = OperatingPoint(line_frequency_hz=50.0)
PLATE = Nameplate(1460.0, 50.0, 6, BEARING)


def test_without_a_speed_signal_the_lines_are_found_by_the_burst_s_own_comb():
    """A motor on the mains with nothing but an accelerometer: what its plate allows is searched, and all lines follow."""
    cores = CORES[id(MOTOR)]
    axes = [turning(24.4, seed=seed) for seed in range(3)]
    alone = measured(MOTOR, window(*axes, point=UNTOLD), PLATE)
    assert cores.speed_source == "comb"
    assert cores.point.shaft_speed_rpm == pytest.approx(24.4 * 60, rel=1e-3)
    told = measured(MOTOR, window(*axes, point=OperatingPoint(24.4 * 60, 50.0)), PLATE)
    for name in ("spectrum.line_1x_mm_s", "spectrum.line_3x_mm_s", "envelope.bpfo_ratio"):
        assert alone[name] == pytest.approx(told[name], rel=0.02), name


def test_a_speed_ramp_within_a_burst_is_tracked():
    """A tenth faster at the end than at the start: the bearing's lines read as at constant speed, not a third of it."""
    steady, ramp = ([turning(24.4, change, seed) for seed in range(3)] for change in (0.0, 0.1))
    wanted = measured(MOTOR, window(*steady, point=UNTOLD), PLATE)["envelope.bpfo_ratio"]
    tracked = measured(MOTOR, window(*ramp, point=UNTOLD), PLATE)["envelope.bpfo_ratio"]
    believed_steady = measured(MOTOR, window(*ramp, point=OperatingPoint(24.4 * 60, 50.0)), PLATE)[
        "envelope.bpfo_ratio"
    ]
    assert tracked == pytest.approx(wanted, rel=0.1)
    assert believed_steady < 0.7 * wanted


def test_unknown_speed_bearing_or_supply_is_absent_never_guessed():
    """Order features need what the machine states; the broad-band ones do not."""
    values, present = MOTOR.compute(window(tone(100.0), point=OperatingPoint()), {}, Nameplate(), CORES[id(MOTOR)])
    absent = {name for name, there in zip(MOTOR.names, present, strict=True) if not there and ":" not in name}
    absent = {name for name in absent if name.startswith(("vibration.", "spectrum.", "envelope."))}
    lines = {"line_1x_mm_s", "line_2x_mm_s", "line_3x_mm_s", "line_2xlf_mm_s", "line_half_mm_s", "harmonics_mm_s"}
    ratios = {"bpfo_ratio", "bpfi_ratio", "bsf_ratio", "ftf_ratio", "bpfi_sidebands_ratio", "bsf_sidebands_ratio"}
    assert absent == {f"spectrum.{name}" for name in lines} | {f"envelope.{name}" for name in ratios}
    assert np.isfinite(values[present]).all()


@pytest.mark.parametrize(
    ("taken", "reason"),
    [
        (window(tone(50.0)[:-1]), "length"),
        (window(np.append(tone(50.0), 0)), "length"),
        (window(tone(50.0), rate_hz=RATE_HZ * 1.061), "rate"),
        (window(tone(50.0), rate_hz=float("nan")), "rate"),
        (window(tone(50.0), clipped=True), "clipped"),
        (window(tone(50.0), np.where(TIME_S == 0.5, np.nan, tone(50.0))), "not_finite"),
        (window(np.where(TIME_S == 0.5, -np.inf, tone(50.0))), "not_finite"),
        (window(tone(50.0), np.full(N, 9.81)), "flat"),
        (window(*[tone(50.0)] * 5), "axes"),
    ],
)
def test_a_window_that_is_not_whole_is_absent_and_its_reason_counted(taken, reason):
    """Half a truth about a waveform is a wrong feature: nothing is computed, and why is known."""
    cores = Cores(MOTOR.plan_at)
    values, present = MOTOR.compute(taken, {}, NAMEPLATE, cores)
    assert not present.any()
    assert np.isnan(values).all()
    assert dict(cores.refused) == {reason: 1}


def test_the_true_sample_rate_decides_where_a_line_is():
    """A sensor 5 % fast: the tone at 25 Hz of true time is still the 1x line, with its true velocity."""
    true_hz = RATE_HZ * 1.05
    x = np.sin(2 * np.pi * 25.0 * np.arange(N) / true_hz)
    found = measured(MOTOR, window(x, rate_hz=true_hz))["spectrum.line_1x_mm_s"]
    assert found == pytest.approx(1000 / (2 * np.pi * 25 * np.sqrt(2)), rel=2e-3)


def test_cores_of_drifting_rates_are_bounded():
    """A sensor that reports another rate with every burst must not fill the memory."""
    cores = Cores(MOTOR.plan_at, capacity=3)
    for rate_hz in (25600.0, 25601.0, 25602.0, 25603.0, 25603.0):
        cores.at(rate_hz)
    assert (len(cores), cores.built) == (3, 4)


def test_axes_join_as_energy_or_as_the_worst():
    """RMS adds up as vectors do; a ratio is that of the worst axis."""
    impulsive = ringing(BEARING.bpfo, peak=8.0)
    alone = [measured(MOTOR, window(x)) for x in (tone(50.0), impulsive)]
    both = measured(MOTOR, window(tone(50.0), impulsive))
    energies = [one["vibration.rms_m_s2"] for one in alone]
    assert both["vibration.rms_m_s2"] == pytest.approx(np.hypot(*energies), rel=1e-6)
    assert both["vibration.kurtosis_ratio"] == max(one["vibration.kurtosis_ratio"] for one in alone)


def test_rms_does_not_know_which_way_the_sensor_was_turned():
    """A root sum of squares over axes is the same under any rotation."""
    rng = np.random.default_rng(8)
    axes = np.stack([ringing(3.0, seed=1), tone(77.0), rng.standard_normal(N)])
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    straight, turned = measured(MOTOR, window(*axes)), measured(MOTOR, window(*(rotation @ axes)))
    for name in ("vibration.rms_m_s2", "spectrum.velocity_rms_mm_s", "spectrum.line_1x_mm_s", "envelope.rms_m_s2"):
        assert turned[name] == pytest.approx(straight[name], rel=1e-4)


def test_tags_fill_their_columns_and_a_bad_one_is_absent():
    """Between bursts a vector is its scalars; what is unusable is not there, whatever number stands beside it."""
    name, other = "motor_current_a:tag.level", "velocity_rms_z_mm_s:tag.level"
    values, present = MOTOR.compute(None, {name: (14.4, True), other: (1.0, False)}, NAMEPLATE, CORES[id(MOTOR)])
    assert [MOTOR.names[at] for at in np.flatnonzero(present)] == [name]
    assert values[MOTOR.names.index(name)] == np.float32(14.4)
