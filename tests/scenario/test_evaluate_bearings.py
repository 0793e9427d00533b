"""`hark evaluate bearings`: both layouts, made here with damage whose part is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from bearing_strikes import RATE_HZ, SHAFT_HZ, noise, ringing, strikes

from agent.__main__ import run

COUNTS = {"n", "right", "wrong", "unsure", "right_pct", "wrong_pct", "unsure_pct"}
CODES = {"outer": "OR", "inner": "IR", "ball": "B"}


def samples_of(part: str | None) -> np.ndarray:
    """Strikes on one part over noise, or noise alone."""
    struck = 3 * ringing(*strikes(part, 1)) if part else 0.0
    return (struck + noise(1)).astype(np.float32)


def manifest(folder: Path, rows: list[dict[str, object]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def motor_recording(folder: Path, name: str, damaged: str, heard: str | None, channel: str = "DE") -> dict[str, object]:
    """One recording and its row: what the manifest says is damaged, and what is heard."""
    np.savez(folder / name, **{channel: samples_of(heard)}, fs=RATE_HZ)
    fault = CODES.get(damaged, damaged)
    return {"file": name, "fs": 12000, "faulty_end": "DE", "fault": fault, "rpm": 60 * SHAFT_HZ}


def judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert run(["evaluate", "bearings", str(folder), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_right_wrong_and_unsure_are_counted_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six recordings count; the healthy one and the one without the damaged end's channel do not."""
    rows = [motor_recording(tmp_path, f"{part}.npz", part, part) for part in CODES]
    rows.append(motor_recording(tmp_path, "quiet.npz", "ball", None))
    rows.append(motor_recording(tmp_path, "mislabelled.npz", "inner", "outer"))
    rows.append(motor_recording(tmp_path, "again.npz", "outer", "outer"))
    rows.append(motor_recording(tmp_path, "healthy.npz", "normal", None))
    rows.append(motor_recording(tmp_path, "other_end.npz", "outer", "outer", channel="FE"))
    manifest(tmp_path, rows)
    figures = judged(tmp_path, capsys)
    assert set(figures) >= COUNTS
    assert [figures[name] for name in ("n", "right", "wrong", "unsure", "not_judged")] == [6, 4, 1, 1, 1]
    assert figures["right_pct"] == pytest.approx(66.67)
    assert figures["per_class"] == {
        "12k_DE ball": {"outer": 0, "inner": 0, "ball": 1, "unsure": 1},
        "12k_DE inner": {"outer": 1, "inner": 1, "ball": 0, "unsure": 0},
        "12k_DE outer": {"outer": 2, "inner": 0, "ball": 0, "unsure": 0},
    }
    assert "mislabelled (inner): outer race line at" in figures["named_wrong"][0]
    assert figures["left_unsure"] == ["quiet (ball): no line is both clear and deep"]
    assert run(["evaluate", "bearings", str(tmp_path)]) == 0
    assert "12k_DE inner       1       1       0       0" in capsys.readouterr().out


def test_the_layout_with_one_channel_counts_at_its_own_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Orders and speed come with that layout; an outer race of 3.245 orders is struck."""
    rate_hz, shaft_hz = 24_000.0, 25.0
    rng = np.random.default_rng(0)
    at_s = np.cumsum((1 + 0.01 * rng.standard_normal(240)) / (3.245 * shaft_hz))
    struck = 5 * ringing(at_s, np.ones(at_s.size), rate_hz=rate_hz, duration_s=3.0)
    samples = struck + rng.standard_normal(struck.size)
    np.savez(tmp_path / "load_1.npz", acc=samples.astype(np.float32), fs=rate_hz, shaft_hz=shaft_hz)
    manifest(tmp_path, [{"file": "load_1.npz", "fault": "outer", "load_lbs": 25.0, "fs": 24000}])
    figures = judged(tmp_path, capsys)
    assert (figures["n"], figures["right"]) == (1, 1)
    assert figures["per_class"] == {"24k_MFPT outer": {"outer": 1, "inner": 0, "ball": 0, "unsure": 0}}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"fault": "OR"}, "lost.npz: is not the bearing recording that manifest.csv says"),
        ({"fault": "cage"}, "lost.npz: is not the bearing recording that manifest.csv says ('cage')"),
        ({"fault": "normal"}, "names no recording of a damaged bearing"),
    ],
)
def test_a_wrong_folder_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, str], said: str
) -> None:
    """A missing file, an unknown fault, nothing to judge: which file, and what it lacks."""
    if row["fault"] == "cage":
        np.savez(tmp_path / "lost.npz", DE=samples_of(None), fs=RATE_HZ)
    manifest(tmp_path, [{"file": "lost.npz", "faulty_end": "DE", "rpm": 1772, **row}])
    assert run(["evaluate", "bearings", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
    assert run(["evaluate", "bearings", str(tmp_path / "nowhere")]) == 1
    assert "give the folder that holds it" in capsys.readouterr().err
