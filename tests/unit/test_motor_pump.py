"""`hark evaluate motor_pump` on recordings made here: the fault is found, the healthy are left alone, the unseen is met."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.decision.newbaseline import NEW_BASELINE
from agent.vocabulary import AlarmClass, Severity
from training.protocols import motor_pump


def recordings(folder: Path) -> Path:
    """In the set's layout: three healthy recordings of one machine, a faulty one with five times the second harmonic, and H-R1,
    which is another machine: its lines are weaker, its noise is stronger.
    """
    rng = np.random.default_rng(9)
    time_s = np.arange(5000) / 1000
    slices, labels, names = [], [], []
    kinds = (
        ("H-1", 1.0, 1.0, 10),
        ("H-2", 1.0, 1.0, 10),
        ("H-3", 1.0, 1.0, 10),
        ("F-1", 5.0, 1.0, 4),
        ("H-R1", 0.25, 2.0, 10),
    )
    for name, harmonic, noise, n_slices in kinds:
        for _ in range(n_slices):
            phase = rng.uniform(0, 6, (2, 3))
            tone = 300 * min(harmonic, 1.0) * np.sin(2 * np.pi * 49.7 * time_s[:, None] + phase[0])
            tone += 150 * harmonic * np.sin(2 * np.pi * 99.4 * time_s[:, None] + phase[1])
            slices.append(tone + 200 * noise * rng.standard_normal((5000, 3)))
            labels.append(int(harmonic > 1))
            names.append(name)
    acc = np.array(slices, np.float32)
    folder.mkdir()
    steps = np.full((len(slices), 3), 0.01, np.float32)
    np.savez(folder / "any_name.npz", acc=acc * 0.01, lsb_step=steps, label=labels, recording=names, fs=1000)
    return folder


def test_motor_pump_finds_the_fault_and_leaves_the_healthy_alone(tmp_path: Path) -> None:
    """Any folder of that layout, also one nobody has seen; one JSON object. An unseen machine is met, not accused."""
    folder = recordings(tmp_path / "set")
    command = [sys.executable, "-m", "agent", "evaluate", "motor_pump", str(folder), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["auc"] > 0.99
    assert figures["detection_pct"] > 95
    assert figures["far_pct"] < 1
    assert figures["unseen_fault_alarms"] == 0
    assert figures["new_baseline_after_s"] < 60
    assert figures["relearned_far_pct"] < 2
    assert figures["excused"] == {}
    assert set(figures["per_recording"]) == {"H-1", "H-2", "H-3", "F-1", "H-R1"}
    assert motor_pump.evaluate(folder, tmp_path, "tflite") == figures


def test_new_baseline_needed_says_what_changed_and_waits_for_an_order(tmp_path: Path) -> None:
    """The alarm is about the measurement, never silent and never an accusation; an order ends it, and learning begins."""
    machine = motor_pump.machine()
    by_name = {one.name: one for one in motor_pump.load(recordings(tmp_path / "set"), machine)}
    bundle = motor_pump.fit(machine, [by_name["H-1"]], "onnx")
    watch = motor_pump.watch_of(machine, bundle)
    found = [motor_pump.hear(watch, samples, at) for at, samples in enumerate(by_name["H-R1"].samples[:5])]
    (condition,) = [began for one in found for began in one.began]
    assert condition.name == f"{NEW_BASELINE}another_machine"
    assert (condition.alarm_class, condition.severity) == (AlarmClass.SENSOR, Severity.NO_DATA)
    moved = condition.explanation.evidence
    assert any(one.value < 0.5 * (one.normal or 0) for one in moved)
    assert any(one.value > 1.5 * (one.normal or 0) for one in moved)
    assert "hark relearn" in condition.explanation.action
    assert condition.name in watch.relearn("another pump", although_sick=False, utc_ns=5 * 10**9).ended
    learned = [motor_pump.hear(watch, samples, 5 + at) for at, samples in enumerate(by_name["H-R1"].samples[5:50])]
    assert [len(one.baselines) for one in learned].count(1) == 1
    assert not any(one.began for one in learned)


def test_a_folder_that_is_no_recording_is_one_clear_line(tmp_path: Path) -> None:
    """Empty, or something else in an .npz."""
    with pytest.raises(motor_pump.RecordingError, match=r"holds no \.npz"):
        motor_pump.evaluate(tmp_path, tmp_path)
    np.savez(tmp_path / "other.npz", acc=np.zeros(3))
    with pytest.raises(motor_pump.RecordingError, match=r"other\.npz: is not a motor_pump recording"):
        motor_pump.evaluate(tmp_path, tmp_path)
