"""One battery over every scenario file, and the refusals of a wrong one."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path

import pytest

from firmware_bridge.device import load_device
from firmware_bridge.errors import ConfigError
from firmware_bridge.registers import encode
from simulator.faults import FAULTS
from simulator.scenario import Plant, Scenario, load_scenario

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "config" / "scenarios").glob("*.toml"))


@pytest.fixture(scope="module", params=NAMES)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return load_scenario(request.param)


def test_the_walking_skeletons_scenarios_are_there() -> None:
    """Each fault that the first release promises has a scenario to show it."""
    assert {"demo", "healthy", "imbalance", "misalignment", "dry_run", "start_stop"} <= set(NAMES)


def test_every_device_speaks_the_points_of_its_profile(scenario: Scenario) -> None:
    """The simulator's names and the register map's are one vocabulary, and every value fits its register."""
    plant = Plant(scenario)
    for spec in scenario.sets:
        for t_s in (0.0, scenario.duration_s):
            shown = plant.scalars(spec.name, t_s)
            for device in spec.devices:
                profile = load_device(ROOT / "config", device.device)
                assert set(shown[device.name]) == {point.name for point in profile.points}
                encode(profile, shown[device.name])
                for point in profile.points:
                    low, high = point.plausible
                    assert low <= shown[device.name][point.name] <= high, point.name


def test_every_burst_sensor_delivers_what_its_header_says(scenario: Scenario) -> None:
    """Axes, length, rate and scale; finite numbers; nothing clipped in the scenarios that we ship."""
    plant = Plant(scenario)
    for name, spec in plant.burst_sensors.items():
        samples, meta = plant.burst(name, int(scenario.duration_s / spec.interval_s) - 1)
        assert samples.shape == (len(spec.axes), spec.n_samples)
        assert meta.axes == spec.axes
        assert not meta.clipped
        counts = samples / meta.scale_m_s2
        assert abs(counts - counts.round()).max() < 0.02


def test_every_expectation_follows_from_a_fault_of_that_machine(scenario: Scenario, tmp_path: Path) -> None:
    """A scenario that expects an alarm nobody caused, or hides its fault from the truth, tests nothing."""
    path = tmp_path / "truth.jsonl"
    n_lines = Plant(scenario).write_truth(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == n_lines
    faulty = {(row["machine"], row["fault"]) for row in rows if row["fault"]}
    assert {(expected.machine, expected.fault) for expected in scenario.expect} <= faulty
    assert {fault.id for fault in scenario.faults} == {fault for _, fault in faulty}
    for expected in scenario.expect:
        onset_s = next(
            row["onset_s"] for row in rows if (row["machine"], row["fault"]) == (expected.machine, expected.fault)
        )
        assert onset_s + expected.within_s <= scenario.duration_s


def test_scalars_run_a_thousand_times_faster_than_real_time() -> None:
    """Months of healthy time must be simulated to prove a false-alarm rate: one set-second well below a millisecond."""
    plant = Plant(load_scenario("healthy"))
    start = time.process_time()
    for t_s in range(1000):
        plant.scalars("a", float(t_s))
    assert time.process_time() - start < 1.0


def test_the_demo_shows_its_three_faults_in_the_quantities_they_move() -> None:
    """Outer race: kurtosis and HF of M-101A. Stuck: bit for bit. Cavitation: suction pressure, and no other machine's."""
    plant = Plant(load_scenario("demo"))
    before, after = plant.scalars("a", 30.0), plant.scalars("a", 58.0)
    assert after["vib-a"]["kurtosis_z_ratio"] > 2 * before["vib-a"]["kurtosis_z_ratio"]
    assert after["vib-a"]["hf_acceleration_rms_z_g"] > 5 * before["vib-a"]["hf_acceleration_rms_z_g"]
    assert after["press-suction-a"]["pressure_bar"] == pytest.approx(
        before["press-suction-a"]["pressure_bar"], abs=0.03
    )
    assert plant.scalars("b", 41.0)["vib-b"] == plant.scalars("b", 74.0)["vib-b"]
    assert plant.scalars("b", 36.0)["vib-b"] != plant.scalars("b", 37.0)["vib-b"]
    assert plant.scalars("b", 64.0)["press-suction-b"]["pressure_bar"] < -0.4
    truth = {(row.machine, row.fault) for row in plant.truth(70.0)}
    assert truth == {
        ("M-101A", "bearing_outer_race"),
        ("P-101A", None),
        ("M-101B", "sensor_stuck"),
        ("P-101B", "cavitation"),
    }


def test_live_values_do_not_repeat_on_a_healthy_machine() -> None:
    """Only a stuck sensor repeats itself: over a minute no device shows the same numbers twice in a row."""
    plant = Plant(load_scenario("healthy"))
    profile = load_device(ROOT / "config", "banner_qm30vt2")
    images = [encode(profile, plant.scalars("a", float(t))["vib-a"]) for t in range(60)]
    assert all(one != next_ for one, next_ in itertools.pairwise(images))
    repeats = [sum(one[key] == two[key] for key in one) for one, two in itertools.pairwise(images)]
    assert max(repeats) < len(images[0]) / 2


def test_start_stop_goes_through_every_state() -> None:
    """Off, starting, running, coasting, and power and speed that follow: no fault among them."""
    plant = Plant(load_scenario("start_stop"))
    modes = [plant.state("a", float(t)).mode for t in range(300)]
    assert [mode for i, mode in enumerate(modes) if i == 0 or mode != modes[i - 1]] == [
        "off",
        "starting",
        "running",
        "coasting",
        "off",
        "starting",
        "running",
    ]
    off, on = plant.scalars("a", 10.0), plant.scalars("a", 120.0)
    assert off["drive-a"]["shaft_speed_rpm"] == 0.0
    assert off["meter-a"]["active_power_kw"] < 0.1
    assert on["drive-a"]["shaft_speed_rpm"] == pytest.approx(1468, abs=10)
    assert on["press-discharge-a"]["pressure_bar"] > off["press-discharge-a"]["pressure_bar"] + 1.0


def test_sensor_faults_are_what_they_say(tmp_path: Path) -> None:
    """Sentinel: NaN for the codec to encode. Silent: no answer. Then well again, when the fault's time is over."""
    text = (ROOT / "config" / "scenarios" / "healthy.toml").read_text()
    text += '[[faults]]\nset = "a"\nid = "sensor_sentinel"\nsensor = "vib-a"\nonset_s = 5\nhold_s = 5\n'
    text += '[[faults]]\nset = "a"\nid = "sensor_silent"\nsensor = "drive-a"\nonset_s = 5\nhold_s = 5\n'
    text += '[[faults]]\nset = "a"\nid = "sensor_stuck"\nsensor = "accel-m101a"\nonset_s = 5\n'
    path = tmp_path / "sick.toml"
    path.write_text(text)
    plant = Plant(load_scenario(path))
    assert all(math.isnan(value) for value in plant.scalars("a", 7.0)["vib-a"].values())
    assert "drive-a" not in plant.scalars("a", 7.0)
    assert set(plant.scalars("a", 12.0)) == {device.name for device in plant.sets["a"].devices}
    assert not any(math.isnan(value) for value in plant.scalars("a", 12.0)["vib-a"].values())
    assert plant.burst("accel-m101a", 6)[0].tobytes() == plant.burst("accel-m101a", 9)[0].tobytes()


def test_a_wrong_scenario_names_every_mistake_with_its_line(tmp_path: Path) -> None:
    """All problems at once, each with what to write instead: the same promise as for a site file."""
    text = (ROOT / "config" / "scenarios" / "imbalance.toml").read_text()
    text = text.replace('id = "unbalance"', 'id = "unballance"').replace("unit_id = 2", "unit_id = 1")
    text = text.replace('place = "suction"', 'place = "inlet"').replace('machine = "M-101A"', 'machine = "M-9"')
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_scenario(path)
    message = str(refused.value)
    assert len(refused.value.problems) == 4, message
    for words in ("unballance", "is taken in this set", "suction, discharge", "M-9"):
        assert words in message
    assert all(problem.line > 0 for problem in refused.value.problems)


def test_an_unknown_scenario_is_answered_with_the_known_ones() -> None:
    """A typing error should cost one look, not a search."""
    with pytest.raises(ConfigError, match="demo, dry_run, healthy"):
        load_scenario("demmo")


def test_fault_courses_are_exact_at_their_ends() -> None:
    """Delay is measured from the onset: nothing before it, all of it after the ramp, nothing after the hold."""
    scenario = load_scenario("demo")
    race = next(fault for fault in scenario.faults if fault.id == "bearing_outer_race")
    assert race.severity(35.999) == 0.0
    assert race.severity(36.0 + 12.5) == pytest.approx(0.4)
    assert race.severity(61.0) == race.severity(1e6) == 0.8
    assert set(FAULTS) >= {"bearing_outer_race", "unbalance", "misalignment", "cavitation", "dry_run", "sensor_stuck"}
