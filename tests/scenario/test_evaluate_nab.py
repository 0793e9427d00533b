"""`hark evaluate nab`: the protocol's figures by hand, and the whole path on a slow temperature made here."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from agent.__main__ import run
from training.protocols.nab import n_probation, oracle, standard

ROOT = Path(__file__).resolve().parents[2]
N_ROWS, WINDOWS = 4000, [(1000, 1199), (3000, 3199)]


def said(*rows: int) -> np.ndarray:
    told = np.zeros(N_ROWS, np.bool_)
    told[list(rows)] = True
    return told


def test_saying_nothing_scores_0_and_the_first_row_of_every_window_scores_100() -> None:
    """The scale's two ends; what is said while the file may still be learned from does not count."""
    assert standard(said(), WINDOWS) == standard(said(3, n_probation(N_ROWS) - 1), WINDOWS) == 0.0
    assert standard(said(1000, 3000), WINDOWS) == pytest.approx(100.0, abs=0.1)
    assert standard(said(1000, 1001, 1150, 3000), WINDOWS) == standard(said(1000, 3000), WINDOWS)


def test_late_is_worth_less_and_wrong_costs() -> None:
    """Half a window late still earns most; a false detection far from a window costs 0.11 of 4, just after one less."""
    by_delay = [standard(said(row, 3000), WINDOWS) for row in (1000, 1100, 1190, 1250)]
    assert by_delay == sorted(by_delay, reverse=True)
    assert by_delay[1] > 95.0
    assert by_delay[3] < 51.0
    perfect = standard(said(1000, 3000), WINDOWS)
    assert perfect - standard(said(1000, 3000, 2500), WINDOWS) == pytest.approx(100 * 0.11 / 4, abs=0.02)
    assert perfect - standard(said(1000, 3000, 1205), WINDOWS) < 100 * 0.02 / 4


def test_the_oracle_knows_the_threshold_afterwards() -> None:
    score = np.full(N_ROWS, 0.1)
    score[[1000, 3000]] = 0.4  # below any threshold of the agent's own
    assert oracle(score, WINDOWS) == pytest.approx(100.0, abs=0.1)


def write_recording(folder: Path, days: float = 24.0, step_s: int = 1200) -> None:
    """A machine that wanders, follows the day and stops for an hour now and then; on day 15 it stays cold for a day and a half."""
    rng = np.random.default_rng(5)
    n = round(days * 86_400 / step_s)
    time_s = np.arange(n) * step_s
    wander = np.cumsum(rng.standard_normal(n) * 0.35)
    wander -= np.convolve(wander, np.ones(150) / 150, "same")
    truth = 85 + wander + 4 * np.sin(2 * np.pi * time_s / 86_400)
    for start in range(50, n, 85):
        truth[start : start + 4] -= 25
    fault = slice(round(15 * 86_400 / step_s), round(16.5 * 86_400 / step_s))
    truth[fault] -= 35
    value = np.empty(n)
    level = truth[0]
    for at in range(n):
        level += (truth[at] - level) * (1 - np.exp(-step_s / 3600))
        value[at] = level + 0.5 * rng.standard_normal()
    start = datetime(2026, 3, 1)
    times = [start + timedelta(seconds=float(second)) for second in time_s]
    rows = [f"{time:%Y-%m-%d %H:%M:%S},{reading:.5f}" for time, reading in zip(times, value, strict=True)]
    (folder / "made.csv").write_text("timestamp,value\n" + "\n".join(rows) + "\n")
    window = [
        f"{times[fault.start] - timedelta(hours=6)}.000000",
        f"{times[fault.stop - 1] + timedelta(hours=6)}.000000",
    ]
    (folder / "labels.json").write_text(json.dumps({"labels": [], "windows": [window]}))


def test_the_whole_path_finds_a_machine_that_stays_cold_and_forgives_its_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One alarm for one cause; the same on either engine, and told in words."""
    write_recording(tmp_path)
    found = {}
    for engine in ("onnx", "tflite"):
        assert run(["evaluate", "nab", str(tmp_path), "--json", "--engine", engine, "--root", str(ROOT)]) == 0
        found[engine] = json.loads(capsys.readouterr().out)
    assert found["onnx"] == found["tflite"]
    assert found["onnx"]["windows_found"] == found["onnx"]["windows"] == 1
    assert found["onnx"]["false_detections"] == 0
    assert found["onnx"]["standard"] > 90
    assert run(["replay", str(tmp_path / "made.csv"), "--json", "--root", str(ROOT)]) == 0
    (alarm,) = [alarm for alarm in json.loads(capsys.readouterr().out)["alarms"] if alarm["trigger"] == "raise"]
    assert alarm["machine"] == "PROCESS"
    assert "temperature" in alarm["text"]


def test_a_folder_that_is_no_such_set_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "nab", str(tmp_path), "--root", str(ROOT)]) == 1
    assert "one csv and labels.json" in capsys.readouterr().err
    write_recording(tmp_path)
    (tmp_path / "labels.json").write_text('{"windows": [["no time", "at all"]]}')
    assert run(["evaluate", "nab", str(tmp_path), "--root", str(ROOT)]) == 1
    assert '{"windows": [["2013-12-10 06:25:00"' in capsys.readouterr().err
