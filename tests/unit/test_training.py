"""Training takes what is healthy, judges on what it has not seen, and refuses what is too little."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from bundles import Message, alarm_body, feature_body, healthy_messages, healthy_vectors, message, stored

from agent.inference.bundle import open_bundle
from agent.inference.golden import golden_features, nameplate_from, nameplate_numbers
from training.dataset import Simulated, TrainingRefused, collected, simulated_faults, standing_alarms
from training.metrics import roc_auc
from training.protocols import motor_pump
from training.train import Kind, Recipe, learn, scores_of, train_generic, train_site


@pytest.fixture(scope="module")
def kind(root: Path) -> Kind:
    return Kind.named(root, "motor")


def iso(seq: int) -> str:
    return datetime.fromtimestamp(1_790_000_000 + 10 * seq, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def eventful(kind: Kind) -> Iterator[Message]:
    """A hundred vectors of M-1: an alarm from 40 to 59, two of another state, type or digest."""
    values = healthy_vectors(kind, 100, 1)
    for seq in range(100):
        yield message("feature", seq, feature_body(values[seq], kind.features.digest))
    yield message("feature", 100, feature_body(values[0], kind.features.digest, state="starting"))
    yield message("feature", 101, feature_body(values[0], "0" * 64))
    yield message("feature", 102, feature_body(values[0], kind.features.digest) | {"machine_type": "pump"})
    raised, ended = alarm_body("a1", "unacknowledged", iso(40)), alarm_body("a1", "rtn_unacknowledged", iso(40))
    yield message("alarm", 0, raised, utc_ns=1_790_000_450 * 10**9)
    yield message("alarm", 1, ended, utc_ns=1_790_000_595 * 10**9)


def test_vectors_within_an_alarm_are_not_healthy(kind: Kind, tmp_path: Path) -> None:
    """From its onset, which is earlier than when it was raised, to its end; everything left out is counted."""
    data = collected(stored(tmp_path, eventful(kind)), "motor", kind.features)
    assert [len(windows) for windows in data.healthy] == [80]
    assert [len(windows) for windows in data.suspect] == [20]
    assert dict(data.skipped) == {"another type": 1, "another digest": 1, "not running": 1}
    assert data.youngest_utc == iso(99)
    named = json.loads((tmp_path / "columns.json").read_text())
    assert named[kind.features.digest]["columns"] == list(kind.features.names)


def test_an_alarm_without_an_end_stands_for_ever(kind: Kind) -> None:
    """What was never said to be over is not healthy."""
    row = {
        "site": "s",
        "machine": "M",
        "alarm_id": "a",
        "utc_ns": 5,
        "seq": 1,
        "utc": datetime(2026, 1, 2, tzinfo=UTC),
        "onset_utc": datetime(2026, 1, 1, tzinfo=UTC),
        "state": "acknowledged",
    }
    start, end = standing_alarms([row])[("s", "M")][0]
    assert (start.day, end.year) == (1, 9999)


def test_a_site_bundle_runs_and_knows_its_machines(root: Path, kind: Kind, tmp_path: Path) -> None:
    """`hark train` on collected data, and on both engines the same verdict: a shifted column is far above the threshold."""
    dataset = stored(tmp_path / "data", healthy_messages(kind, 120))
    command = [sys.executable, "-m", "agent", "train", str(dataset), "--machine-type", "motor", "--json"]
    ended = subprocess.run([*command, "--out", str(tmp_path / "bundle")], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["baselines"] == 2
    values = healthy_vectors(kind, 5, 0)
    sick = values.copy()
    sick[:, 0] *= 8.0
    for engine in ("onnx", "tflite"):
        bundle = open_bundle(tmp_path / "bundle", kind.features.digest, engine, golden_features(kind.features))
        baseline = bundle.baseline("M-1", "running:10")
        assert baseline is not None
        limit = baseline.reference_score * bundle.manifest.tail.quantile(Recipe().window_probability)
        for row, wrong in zip(values, sick, strict=True):
            z, judged = baseline.refer(row, np.isfinite(row), kind.transforms)
            assert bundle.score(z, judged.astype(np.float32))[0] < limit
            z, judged = baseline.refer(wrong, np.isfinite(wrong), kind.transforms)
            score, contributions = bundle.score(z, judged.astype(np.float32))
            assert score > 2 * limit
            assert contributions[5] == 0.0


def test_too_few_vectors_are_refused_with_what_is_there_and_what_is_needed(
    root: Path, kind: Kind, tmp_path: Path
) -> None:
    """The person learns how much longer to collect."""
    few = stored(tmp_path / "few", healthy_messages(kind, 15))
    with pytest.raises(TrainingRefused, match=r"M-1 running:10 15, M-2 running:10 15; needed are 40"):
        train_site(root, few, "motor", tmp_path / "out", Recipe())
    with pytest.raises(TrainingRefused, match="no vector of a running pump"):
        train_site(root, few, "pump", tmp_path / "out", Recipe())
    with pytest.raises(TrainingRefused, match="holds no features table"):
        train_site(root, tmp_path / "nothing", "motor", tmp_path / "out", Recipe())
    with pytest.raises(TrainingRefused, match=r"family forest: .*it has pca"):
        train_site(
            root, stored(tmp_path / "more", healthy_messages(kind, 120)), "motor", tmp_path / "out", Recipe("forest")
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("machine_type", ["motor", "pump"])
def test_a_generic_bundle_sees_faults_on_machines_it_does_not_know(
    root: Path, tmp_path: Path, machine_type: str
) -> None:
    """The whole way from simulated bursts to an exported bundle, on a fleet as small as it can be."""
    recipe = Recipe(n_fit=2, n_tail=1, n_check=1, learn_windows=20, later_windows=28)
    manifest = train_generic(root, machine_type, tmp_path / "bundle", recipe)  # type: ignore[arg-type]
    figures = {metric.name: metric.value for metric in manifest.metrics}
    assert figures["AUC, all faults and severities"] > 0.8
    kind = Kind.named(root, machine_type)
    bundle = open_bundle(tmp_path / "bundle", kind.features.digest, "onnx", golden_features(kind.features))
    machine = Simulated(kind.features, machine_type, 77, kind.config)  # type: ignore[arg-type]
    learned = learn(kind, machine.windows(range(30)), 20)
    limit = manifest.tail.quantile(1e-3)
    for fault in simulated_faults(machine_type)[:3]:
        windows = machine.windows(range(40, 43), {fault: 0.9})
        z, judged = learned.baseline.refer(windows.values, windows.present, kind.transforms)
        scores = [bundle.score(row, gaps.astype(np.float32))[0] for row, gaps in zip(z, judged, strict=True)]
        reference, ratios = learned.referenced(_graph_of(bundle), bundle.manifest.healthy_contributions)
        assert min(scores) / reference > max(limit, ratios.max()), fault


def _graph_of(bundle):  # type: ignore[no-untyped-def]
    """The opened model as something `scores_of` can ask."""

    class Asked:
        def evaluate(self, feeds):  # type: ignore[no-untyped-def]
            rows = zip(feeds["z"], feeds["mask"], strict=True)
            return {"score": np.array([[bundle.score(z, mask)[0]] for z, mask in rows])}

    assert scores_of.__doc__
    return Asked()


def test_a_nameplate_survives_the_golden_file() -> None:
    """Lines stand where the nameplate says; a wrong one would move them."""
    numbers = {"rated_speed_rpm": 1460.0, "n_vanes": 6.0, "bpfo": 3.05, "bpfi": 4.95, "bsf": 1.99, "ftf": 0.38}
    assert nameplate_numbers(nameplate_from(numbers)) == numbers
    assert nameplate_numbers(nameplate_from({})) == {}


def test_auc_counts_ties_half() -> None:
    """A constant score is worth exactly nothing."""
    assert roc_auc([1.0, 1.0], [1.0, 1.0, 1.0]) == 0.5
    assert roc_auc([1.0, 2.0], [3.0]) == 1.0
    assert roc_auc([1.0, 3.0], [2.0, 0.0]) == 0.25


# ---------------------------------------------------------------------------------------------- evaluate motor_pump
def recordings(folder: Path) -> Path:
    """Three healthy recordings of one machine and a faulty one with twice the second harmonic, in the set's layout."""
    rng = np.random.default_rng(9)
    time_s = np.arange(5000) / 1000
    slices, labels, names = [], [], []
    for name, harmonic, n_slices in (("H-1", 1.0, 12), ("H-2", 1.0, 12), ("H-3", 1.0, 12), ("F-1", 4.0, 6)):
        for _ in range(n_slices):
            phase = rng.uniform(0, 6, (2, 3))
            tone = 300 * np.sin(2 * np.pi * 49.7 * time_s[:, None] + phase[0])
            tone += 150 * harmonic * np.sin(2 * np.pi * 99.4 * time_s[:, None] + phase[1])
            slices.append(tone + 200 * rng.standard_normal((5000, 3)))
            labels.append(int(harmonic > 1))
            names.append(name)
    acc = np.array(slices, np.float32)
    folder.mkdir()
    steps = np.full((len(slices), 3), 0.01, np.float32)
    np.savez(folder / "any_name.npz", acc=acc * 0.01, lsb_step=steps, label=labels, recording=names, fs=1000)
    return folder


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
def test_motor_pump_finds_the_fault_and_leaves_the_healthy_alone(tmp_path: Path, engine: str) -> None:
    """Any folder of that layout, also one nobody has seen; one JSON object."""
    command = [sys.executable, "-m", "agent", "evaluate", "motor_pump", str(recordings(tmp_path / "set")), "--json"]
    ended = subprocess.run([*command, "--engine", engine], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert set(figures) == {"far_pct", "detection_pct", "auc", "per_recording"}
    assert figures["auc"] > 0.99
    assert figures["detection_pct"] > 95
    assert figures["far_pct"] < 10
    assert set(figures["per_recording"]) == {"H-1", "H-2", "H-3", "F-1"}


def test_a_folder_that_is_no_recording_is_one_clear_line(tmp_path: Path) -> None:
    """Empty, or something else in an .npz."""
    with pytest.raises(motor_pump.RecordingError, match=r"holds no \.npz"):
        motor_pump.evaluate(tmp_path, tmp_path)
    np.savez(tmp_path / "other.npz", acc=np.zeros(3))
    with pytest.raises(motor_pump.RecordingError, match=r"other\.npz: is not a motor_pump recording"):
        motor_pump.evaluate(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--out", "x"], "name a dataset folder, or --generic motor"),
        (["train", "data", "--out", "x"], "add --machine-type"),
        (["train", "--generic", "motor"], "add --out"),
        (["train", "--generic", "fan", "--out", "x"], "the simulator has motor and pump"),
        (["evaluate", "unheard", "."], "it has bearings, motor_pump, skab"),
        (["data", "check", "/nowhere"], "is no dataset"),
        (["model", "verify", "/nowhere"], "manifest.json"),
    ],
)
def test_wrong_use_is_one_clear_line(arguments: list[str], words: str) -> None:
    """And never a traceback; exit code 2 for usage, 1 for what is not as it should be."""
    ended = subprocess.run([sys.executable, "-m", "agent", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode in (1, 2)
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
