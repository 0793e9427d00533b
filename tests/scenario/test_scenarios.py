"""Every scenario of config/scenarios raises the alarms that it says, in time, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from offline import Story, site_of_demo, tell

from simulator.scenario import load_scenario

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.stem for path in (ROOT / "config" / "scenarios").glob("*.toml"))
# a sensor fault is known by its condition, a machine's by its name in the catalogue
SENSOR_CONDITION = {"sensor_stuck": "stuck", "sensor_silent": "silent", "sensor_sentinel": "absent"}
# What a fault does elsewhere is no false alarm: the norm's zones speak the truth, and a pump that runs dry unloads its motor.
CONSEQUENCES = {
    "unbalance": {"high_vibration"},
    "misalignment": {"high_vibration", "misalignment"},
    "dry_run": {"load_loss", "dry_run"},
}


def alarms_of(story: Story, configured: set[str]) -> list[tuple[str, str, float]]:
    """Without those of sensors that the scenario's plant does not have."""
    return [
        alarm for alarm in story.raised() if not alarm[1].startswith("sensor:") or alarm[1].split(":")[1] in configured
    ]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_raises_its_alarms_in_time_and_no_others(name: str) -> None:
    """The fault, the machine and the time are the scenario's own promise; a false alarm breaks it as a missed one does."""
    scenario = load_scenario(name, ROOT)
    story = tell(site_of_demo(ROOT), name, ROOT)
    sensors = {sensor.name for spec in scenario.sets for sensor in (*spec.devices, *spec.bursts)}
    alarms = alarms_of(story, sensors)
    onsets = {fault.id: fault.onset_s for fault in scenario.faults}
    unexplained = list(alarms)
    for expected in scenario.expect:
        word = SENSOR_CONDITION.get(expected.fault)
        found = [
            alarm
            for alarm in alarms
            if alarm[0] == expected.machine and (alarm[1].endswith(f":{word}") if word else alarm[1] == expected.fault)
        ]
        assert found, f"{expected.machine}: {expected.fault} was not raised; raised were {alarms}"
        delay_s = found[0][2] - onsets[expected.fault]
        assert 0 <= delay_s <= expected.within_s, f"{found[0]} came {delay_s:.1f} s after its onset"
        follow = CONSEQUENCES.get(expected.fault, set())
        onset_s = onsets[expected.fault]
        unexplained = [a for a in unexplained if a not in found and not (a[1] in follow and a[2] >= onset_s)]
    assert unexplained == []


def test_the_same_scenario_gives_the_same_alarms_byte_for_byte() -> None:
    """A replay explains an alarm only if it is the same alarm: identity, time and every word."""
    first, second = (tell(site_of_demo(ROOT), "demo", ROOT, seconds=48.0) for _ in range(2))
    assert first.events
    assert first.events == second.events


def test_both_engines_give_the_same_alarms() -> None:
    """Which engine a gateway carries is a matter of megabytes, not of judgement."""
    by_engine = [tell(site_of_demo(ROOT, engine=engine), "demo", ROOT, seconds=65.0) for engine in ("onnx", "tflite")]
    onnx, tflite = ([(e.alarm_id, e.trigger, e.utc_ns, e.text) for e in story.events] for story in by_engine)
    assert len(onnx) >= 3
    assert onnx == tflite


def test_every_alarm_says_what_where_since_when_and_what_to_do() -> None:
    """The technician at 3 a.m. gets no second message with the rest."""
    story = tell(site_of_demo(ROOT), "demo", ROOT, seconds=65.0)
    raised = [event for event in story.events if event.trigger in ("raise", "escalate")]
    assert raised
    for event in raised:
        assert event.machine in event.text
        assert " since " in event.text
        assert "Do" in event.text
        assert f"Alarm {event.code}" in event.text
        assert event.explanation.action
        if event.alarm_class == "model":
            shown = event.explanation.evidence[0]
            assert shown.value != shown.normal
            assert shown.limit is not None
            assert shown.unit
    bearing = [event for event in raised if event.machine == "M-101A"][-1]
    assert "6308" in bearing.text
    kept = [record for record in story.records if record.stream == "alarm" and record.payload["class"] != "sensor"]
    assert kept
    assert all(record.arrived_monotonic_ns > 0 for record in kept), "or its time to the disk could not be told"
    bursts = [record.payload["alarm_id"] for record in story.records if record.stream == "burst"]
    assert set(bursts) == {record.payload["id"] for record in kept if record.payload["condition"] == "model"}
    assert bearing.explanation.evidence[0].frequency_hz == pytest.approx(74.0, abs=1.0)


def test_a_machine_that_is_already_sick_is_not_learned_as_healthy(tmp_path: Path) -> None:
    """Learned on a sick machine, everything after looks well. It is told on the first day instead."""
    text = (ROOT / "config" / "scenarios" / "healthy.toml").read_text()
    fault = '[[faults]]\nset = "a"\nid = "unbalance"\nplace = "motor_de"\nonset_s = 0\nramp_s = 0.1\npeak = 1.0\n'
    (tmp_path / "sick.toml").write_text(f"{text}\n{fault}")
    story = tell(site_of_demo(ROOT), str(tmp_path / "sick.toml"), ROOT, seconds=45.0)
    assert ("M-101A", "running:10") not in story.baselines
    assert ("P-101A", "running:10") in story.baselines, "its pump is well"
    told = [event for event in story.events if event.condition == "day_one"]
    assert [(event.machine, event.trigger) for event in told] == [("M-101A", "raise")]
    assert "unbalance" in told[0].text, "not only that it shakes, but why"
    assert told[0].severity == "crit"
