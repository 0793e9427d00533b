"""Training takes what is healthy, judges on what it has not seen, and refuses what is too little."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import (
    Message,
    alarm_body,
    enough_windows,
    feature_body,
    healthy_messages,
    healthy_vectors,
    message,
    stored,
)

from agent.__main__ import run
from agent.inference.bundle import open_bundle
from agent.inference.golden import golden_features, nameplate_from, nameplate_numbers
from training.dataset import Simulated, TrainingRefused, _Sorted, collected, simulated_faults, standing_alarms
from training.metrics import roc_auc
from training.train import Kind, Recipe, learn, train_generic, train_site


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
    assert data.skipped == {"another type": 1, "another digest": 1, "not running": 1, "inside an alarm": 20}
    assert data.n_rows == 80 + sum(data.skipped.values())
    assert data.left_out["M-1", "inside an alarm"] == 20
    assert data.youngest_utc == iso(99)
    named = json.loads((tmp_path / "columns.json").read_text())
    assert named[kind.features.digest]["columns"] == list(kind.features.names)


def event(seq: int, day: int, state: str, onset_day: int = 1) -> dict[str, Any]:
    """One stored transition of one alarm, at a day of January as the gateway's clock said."""
    onset, at = (datetime(2026, 1, d, tzinfo=UTC) for d in (onset_day, day))
    of = {"site": "s", "machine": "M", "gateway": "gw-01", "alarm_id": "a"}
    return {**of, "seq": seq, "utc": at, "onset_utc": onset, "state": state}


def days(*events: dict[str, Any]) -> list[tuple[int, int]]:
    """From which day to which day the alarm stood; 31 is for ever."""
    spans = standing_alarms(events)[("s", "M")]
    return [(start.day, end.day) for start, end in spans]


def test_an_alarm_without_an_end_stands_for_ever() -> None:
    """What was never said to be over is not healthy."""
    assert days(event(1, 2, "acknowledged")) == [(1, 31)]


def test_a_step_of_the_clock_does_not_mix_up_an_alarms_events() -> None:
    """The end was written last, but the clock had been set back by then; and an alarm that came back stands twice."""
    raised, ended = event(1, 9, "unacknowledged", 8), event(2, 5, "rtn_unacknowledged", 8)
    assert days(ended, raised) == [(5, 9)]
    again, over = event(3, 20, "unacknowledged", 19), event(4, 22, "normal", 19)
    assert days(raised, ended, again, over) == [(5, 9), (19, 22)]


def row(seq: int, values: list[float], second: float | None = None) -> dict[str, Any]:
    """One stored vector, every ten seconds."""
    utc_ns = round((10.0 * seq if second is None else second) * 1e9)
    present = [not np.isnan(value) for value in values]
    of = {"machine": "M", "state": "running:10", "gateway": "gw-01", "seq": seq, "utc_ns": utc_ns}
    return {**of, "values": values, "present": present}


def test_rows_that_say_nothing_new_are_left_out_and_counted() -> None:
    """A value that a device repeats, a vector that is mostly absent, and bursts closer than the cadence; in order of writing."""
    rows = _Sorted()
    for seq in range(20):
        rows.add(row(seq, [float(seq), 1.0, 2.0, 3.0]))
    rows.add(row(20, [19.0, 1.0, 2.0, 3.0]))
    rows.add(row(21, [21.0, np.nan, np.nan, np.nan]))
    rows.add(row(23, [23.0, 1.0, 2.0, 3.0], second=222.0))
    rows.add(row(22, [22.0, 1.0, 2.0, 3.0], second=220.0))
    rows.add(row(24, [24.0, 1.0, 2.0, 3.0], second=30.0))  # the clock was set back
    [windows] = rows.windows()
    assert windows.values[-3:, 0].tolist() == [19.0, 22.0, 24.0]
    reasons = ("repeats the one before", "most columns absent", "closer than the cadence")
    assert rows.left_out == {("M", reason): 1 for reason in reasons}
    assert rows.cadence_s() == 10.0


def test_a_site_bundle_runs_and_knows_its_machines(root: Path, kind: Kind, tmp_path: Path) -> None:
    """`hark train` on collected data, and on both engines the same verdict: a shifted column is far above the threshold."""
    dataset = stored(tmp_path / "data", healthy_messages(kind, enough_windows(kind)))
    command = [sys.executable, "-m", "agent", "train", str(dataset), "--machine-type", "motor", "--json"]
    ended = subprocess.run(
        [*command, "--family", "pca", "--out", str(tmp_path / "bundle")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["baselines"] == 2
    assert {line["candidate"] for line in answer["leaderboard"]} == {"pca", "pca explained=0.8", "pca explained=0.9"}
    assert [line["ships"] for line in answer["leaderboard"]].count(True) == 1
    assert answer["chosen"].startswith("pca")
    assert Path(answer["report"]) == tmp_path / "bundle.report.html"
    assert "<svg" in Path(answer["report"]).read_text("utf-8")
    values = healthy_vectors(kind, 5, 0)
    sick = values.copy()
    sick[:, 0] *= 8.0
    for engine in ("onnx", "tflite"):
        bundle = open_bundle(tmp_path / "bundle", kind.features.digest, engine, golden_features(kind.features))
        baseline = bundle.baseline("M-1", "running:10")
        assert baseline is not None
        limit = baseline.reference_score * bundle.manifest.tail.quantile(Recipe().terms(kind).window_probability)
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
    with pytest.raises(TrainingRefused, match=r"family .*no 'forest'; it has .*pca"):
        train_site(
            root, stored(tmp_path / "more", healthy_messages(kind, 120)), "motor", tmp_path / "out", Recipe(("forest",))
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("machine_type", ["motor", "pump"])
def test_a_generic_bundle_sees_faults_on_machines_it_does_not_know(
    root: Path, tmp_path: Path, machine_type: str
) -> None:
    """The whole way from simulated bursts to an exported bundle, on a fleet as small as it can be."""
    recipe = Recipe(("pca",), n_fit=4, n_tail=1, n_check=1, learn_windows=20, later_windows=28, n_moments=1)
    manifest = train_generic(root, machine_type, tmp_path / "bundle", recipe).manifest  # type: ignore[arg-type]
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
    """The opened model as something that a machine's scores can be asked of."""

    class Asked:
        def run(self, z, mask, starts):  # type: ignore[no-untyped-def]
            return {"score": np.array([[bundle.score(*row)[0]] for row in zip(z, mask, strict=True)])}

    return Asked()


def test_a_type_without_data_is_made_by_command_as_it_is_shipped(root: Path, tmp_path: Path) -> None:
    """`make models` gives the same model on every computer; only the hash of the sources moves with them."""
    made, shipped = tmp_path / "made", root / "models" / "bearing_scalars" / "1.0.0"
    assert run(["train", "--generic", "bearing_scalars", "--out", str(made), "--json"]) == 0
    for name in ("model.onnx", "model.tflite", "golden.npz"):
        assert (made / name).read_bytes() == (shipped / name).read_bytes(), name
    card = (made / "card.md").read_text()
    assert "trained on nothing" in card
    assert "tail of healthy scores" not in card


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--out", "x"], "name a dataset folder, or --generic motor"),
        (["train", "data", "--out", "x"], "add --machine-type"),
        (["train", "--generic", "motor"], "add --out"),
        (["train", "--generic", "fan", "--out", "x"], "machines/fan.toml"),
        (["train", "--generic", "temperature", "--family", "pca", "--out", "x"], "leave --family out"),
        (["evaluate", "unheard", "."], "has no 'unheard'; it has bearings"),
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
