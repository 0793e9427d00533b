"""`hark evaluate femto`: the protocol's verdicts by hand, and the whole path on bearings of that layout made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.__main__ import run
from training.protocols.femto import INTERVAL_S, Life, Shown, summary

KEYS = {
    *("useful", "early", "late", "missed", "useful_pct", "median_lead_min", "healthy_alarm_share"),
    *("interval_coverage", "alpha_lambda", "per_bearing"),
}
BANDS = ("b10_1000", "b1000_3000", "b3000_6000", "b6000_12800")  # columns of the set, each with _h and _v
HEADER = ",".join(["i", *(f"{band}_{axis}" for axis in "hv" for band in BANDS)])
N_ROWS = 1080  # three hours


def a_life(alarmed: slice, n_rows: int = N_ROWS, name: str = "made") -> Life:
    """A row every 10 s; alarms where they are put."""
    flags = np.zeros(n_rows, np.bool_)
    flags[alarmed] = True
    return Life(name, INTERVAL_S * np.arange(n_rows), flags, np.full(n_rows, 0.1))


@pytest.mark.parametrize(
    ("alarmed", "verdict", "first_s"),
    [
        (slice(600, None), "useful", 6060.0),
        (slice(400, 500), "early", 4060.0),
        (slice(1065, None), "late", 10710.0),
        (slice(0, 0), "missed", None),
        (slice(400, 406), "missed", None),
    ],
)
def test_a_verdict_is_that_of_the_first_alarm_that_stands_a_minute(
    alarmed: slice, verdict: str, first_s: float | None
) -> None:
    """Seven rows are a minute; six are none, whenever they come."""
    life = a_life(alarmed)
    assert (life.verdict, life.first_s) == (verdict, first_s)


def test_healthy_rows_are_those_from_minute_20_to_half_of_life() -> None:
    """42 of 420 rows: a tenth; alarms while learning or in the second half are none of them."""
    assert a_life(slice(498, None)).healthy_alarm_share == pytest.approx(0.1, abs=0.001)
    assert a_life(slice(0, 120)).healthy_alarm_share == 0.0
    assert a_life(slice(0, 0), n_rows=200).healthy_alarm_share is None


def test_a_forecast_is_held_against_the_limit_or_the_end_whichever_comes_first() -> None:
    """The limit is passed at 9,000 s; what is shown later is none; one of two intervals holds."""
    life = a_life(slice(600, None))
    life.level_g[900:] = 2.0
    shown = [
        Shown(7000.0, 1000.0, 1900.0, 3000.0),
        Shown(8000.0, 2000.0, 3000.0, 4000.0),
        Shown(9500.0, 1.0, 2.0, 3.0),
    ]
    life.shown.extend(shown)
    assert [(one.left_s, one.holds) for one in life.forecasts()] == [(2000.0, True), (1000.0, False)]
    figures = summary([life, a_life(slice(0, 0), name="quiet")])
    assert (figures["useful"], figures["missed"], figures["forecasts"], figures["interval_coverage"]) == (1, 1, 2, 0.5)
    assert figures["useful_pct"] == 50.0
    assert figures["alpha_lambda"][1] == {"lambda": [0.25, 0.5], "n": 1, "within_alpha": 1.0, "coverage": 1.0}


# ------------------------------------------------------------------------------------------------ the whole path
def running_in(seed: int) -> NDArray[np.float64]:
    """Levels in g of a healthy bearing: they fall by half in the first hour. Shape (n_rows, n_bands)."""
    rng = np.random.default_rng(seed)
    level_g = np.array([0.09, 0.16, 0.13, 0.3]) * (1 + np.exp(-np.arange(N_ROWS) / 120))[:, None]
    return level_g * np.exp(rng.normal(0, 0.05, level_g.shape))


def write_bearing(folder: Path, name: str, levels_g: NDArray[np.float64]) -> None:
    rows = [HEADER]
    rows += [",".join(f"{value:.5g}" for value in (at, *line, *(0.6 * line))) for at, line in enumerate(levels_g)]
    (folder / f"{name}_features_10s.csv").write_text("\n".join(rows) + "\n")


def write_set(folder: Path) -> None:
    """One bearing of each way to end, and two that only look like it."""
    growing = running_in(1)
    growing[600:] *= np.exp(np.arange(480) / 300)[:, None] ** np.array([0.7, 1.0, 1.0, 0.5])
    sudden = running_in(2)
    sudden[1070:] *= 8
    lubrication = running_in(3)
    lubrication[300:, 3] *= 4
    struck = running_in(4)
    struck[700:1000:5] *= 6
    lives = {"grows": growing, "breaks": sudden, "dry": lubrication, "struck": struck, "well": running_in(5)}
    for name, levels_g in lives.items():
        write_bearing(folder, name, levels_g)
    lines = ["bearing,records_10s", *(f"{name},{N_ROWS}" for name in lives)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def test_the_whole_path_judges_bearings_of_that_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Growth is found early and its end foretold; a break at once; hiss alone, single strikes and running in are no fault."""
    write_set(tmp_path)
    assert run(["evaluate", "femto", str(tmp_path), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) >= KEYS
    verdicts = {name: bearing["verdict"] for name, bearing in figures["per_bearing"].items()}
    assert verdicts == {"grows": "useful", "breaks": "late", "dry": "missed", "struck": "missed", "well": "missed"}
    assert figures["healthy_alarm_share"] == 0.0
    assert figures["median_lead_min"] > 60
    assert figures["forecasts"] > 5
    assert figures["interval_coverage"] > 0.6


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({}, "manifest.csv: cannot be read (No such file or directory)"),
        ({"manifest.csv": "name\nB1\n"}, "names no bearing"),
        ({"manifest.csv": "bearing\nB1\n"}, "B1_features_10s.csv: cannot be read (No such file or directory)"),
        ({"manifest.csv": "bearing\nB1\n", "B1_features_10s.csv": "i,rms\n0,1\n"}, "line 1: no column 'b10_1000_h'"),
        ({"manifest.csv": "bearing\nB1\n", "B1_features_10s.csv": f"{HEADER}\n"}, "B1_features_10s.csv: holds no row"),
    ],
)
def test_a_wrong_folder_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: dict[str, str], said: str
) -> None:
    """What is missing, and in which file."""
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    assert run(["evaluate", "femto", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
