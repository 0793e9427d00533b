"""`hark evaluate skab`: the protocol's figures by hand, and the whole path on runs of that layout made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agent.__main__ import run
from training.protocols.skab import PROFILES, Run, n_episodes, nab, summary

ROOT = Path(__file__).resolve().parents[2]
HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;"
    "Volume Flow RateRMS;anomaly;changepoint"
)
KEYS = {
    *("f1", "far_pct", "mar_pct", "nab_standard", "nab_lowfp"),
    *("runs", "runs_caught", "median_delay_s", "false_episodes_per_h"),
}


def a_run(alarmed: slice, anomaly: slice = slice(100, 200), n_rows: int = 400) -> Run:
    """One row a second; the changes are where the anomaly begins and ends."""
    time_s = np.arange(n_rows, dtype=np.float64)
    flags = {name: np.zeros(n_rows, np.bool_) for name in ("anomaly", "alarmed", "change")}
    flags["anomaly"][anomaly] = True
    flags["alarmed"][alarmed] = True
    flags["change"][[anomaly.start, anomaly.stop]] = True
    return Run("made", time_s, flags["anomaly"], flags["change"], flags["alarmed"])


def test_a_verdict_that_is_right_in_every_row_scores_full_marks() -> None:
    """The scale's upper end: F1 1, no false row, every change point hit at once."""
    figures = summary([a_run(slice(100, 200))])
    assert (figures["f1"], figures["far_pct"], figures["mar_pct"]) == (1.0, 0.0, 0.0)
    assert figures["nab_standard"] == figures["nab_lowfp"] == pytest.approx(100.0, abs=0.01)
    assert (figures["runs_caught"], figures["median_delay_s"], figures["false_episodes_per_h"]) == (1, 0.0, 0.0)


def test_saying_nothing_scores_nothing() -> None:
    figures = summary([a_run(slice(0, 0))])
    assert (figures["f1"], figures["far_pct"], figures["mar_pct"], figures["runs_caught"]) == (0.0, 0.0, 100.0, 0)
    assert figures["nab_standard"] == 0.0
    assert figures["median_delay_s"] is None


def test_a_late_verdict_and_a_false_one_cost_what_the_protocol_says() -> None:
    """100 rows right of 150 said and 100 true: F1 0.8; 50 of 300 normal rows: 16.67 %."""
    figures = summary([a_run(slice(100, 250))])
    assert figures["f1"] == 0.8
    assert figures["far_pct"] == 16.67
    assert figures["false_episodes_per_h"] == pytest.approx(3600 / 300, abs=0.01)
    late = [nab([a_run(slice(start, 200))], *PROFILES["nab_standard"]) for start in (100, 130, 159)]
    assert late == sorted(late, reverse=True)
    assert n_episodes(np.array([0.0, 20.0, 60.0, 89.0])) == 2


def write_run(path: Path, seed: int, fault_at: int | None) -> None:
    """A healthy loop of 1100 s, its flow a tenth lower for 350 s where a fault is."""
    rng = np.random.default_rng(seed)
    rows = [HEADER]
    for i in range(1100):
        faulty = fault_at is not None and fault_at <= i < fault_at + 350
        flow = np.round(100.0 * (0.9 if faulty else 1.0) + rng.normal(0, 0.4), 1)
        values = [0.027 * np.exp(rng.normal(0, 0.03)), 0.040 * np.exp(rng.normal(0, 0.03)), 1.2 + rng.normal(0, 0.2)]
        values += [0.05, 75.0 + 0.002 * i, 26.0, 230.0 + rng.normal(0, 5), flow]
        change = fault_at is not None and i in (fault_at, fault_at + 350)
        stamp = f"2026-03-09 {10 + i // 3600:02d}:{i // 60 % 60:02d}:{i % 60:02d}"
        rows.append(";".join([stamp, *(f"{value:.6g}" for value in values), f"{faulty:d}.0", f"{change:d}.0"]))
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def test_the_whole_path_judges_runs_of_that_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any folder of that layout will do, also one whose groups we have not seen; healthy recordings without labels are left."""
    write_run(tmp_path / "valve1" / "0.csv", 1, 550)
    write_run(tmp_path / "unheard_of" / "7.csv", 2, 600)
    write_run(tmp_path / "valve1" / "1.csv", 3, None)
    (tmp_path / "anomaly-free").mkdir()
    (tmp_path / "anomaly-free" / "a.csv").write_text(HEADER.removesuffix(";anomaly;changepoint") + "\n")
    assert run(["evaluate", "skab", str(tmp_path), "--json", "--root", str(ROOT)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) >= KEYS
    assert (figures["runs"], figures["runs_caught"]) == (3, 2)
    assert figures["f1"] > 0.9
    assert figures["far_pct"] < 2.0, "the end of each fault is seen within seconds"
    assert figures["median_delay_s"] < 20.0


def test_a_replay_prints_the_alarm_with_its_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mapping is found by the columns; the same recording on either engine gives the same alarms."""
    write_run(tmp_path / "valve1" / "0.csv", 1, 550)
    told = {}
    for engine in ("onnx", "tflite"):
        words = ["replay", str(tmp_path / "valve1" / "0.csv"), "--engine", engine, "--json", "--root", str(ROOT)]
        assert run(words) == 0
        told[engine] = json.loads(capsys.readouterr().out)
    assert told["onnx"] == told["tflite"]
    first = told["onnx"]["alarms"][0]
    assert (first["machine"], first["trigger"]) == ("LOOP", "raise")
    assert "flow" in first["text"].lower()
    assert run(["replay", str(tmp_path / "valve1" / "0.csv"), "--root", str(ROOT)]) == 0
    assert "% of what is abnormal" in capsys.readouterr().out
    assert run(["evaluate", "skab", str(tmp_path / "nowhere"), "--root", str(ROOT)]) == 1
    assert "no run with a column 'anomaly'" in capsys.readouterr().err
