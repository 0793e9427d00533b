"""`hark evaluate skab DIR`: a public water loop (SKAB), every run on its own, through the very path of `hark replay`.

Protocol (Katser and Kozitsin 2020): learn on a run's first 400 rows, judge every later row causally, pool the rows of all runs.
One fixed configuration, config/recordings/skab.site.toml, for every run. A row counts as alarmed while a machine alarm stands.

f1, far_pct, mar_pct    of the pooled rows: F1, false alarms of normal rows, missed of abnormal rows
nab_standard, nab_lowfp change points (every flip of the verdict), 60 s to the right of a true one, as the set's authors score them
runs_caught, median_delay_s   runs with at least one right row; seconds from a run's onset to it
false_episodes_per_h    episodes of alarm on normal rows (joined when less than 30 s apart) per hour of normal rows
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.app import open_bundles, run_offline
from agent.clock import SystemClock
from agent.inference.bundle import Bundle
from agent.pipeline import Pipeline
from agent.recording import site_for_recording
from agent.vocabulary import AlarmClass
from firmware_bridge.errors import RecordingError
from firmware_bridge.measurement import Block, Measurement
from firmware_bridge.source import open_source

RECORDING = "skab"
LEARN_ROWS = 400
WINDOW_S = 60.0
JOIN_S = 30.0
# gain of an early hit, cost of a false one, cost of a missed one (Numenta's profiles as the set's authors use them)
PROFILES = {"nab_standard": (1.0, -0.11, -1.0), "nab_lowfp": (1.0, -0.22, -1.0)}
GAIN_STEPS = 1000

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """One scored run: only the rows after the learning rows. All of shape (n_rows,)."""

    name: str
    time_s: Floats
    anomaly: Bools
    changepoint: Bools
    alarmed: Bools


def evaluate(folder: Path, root: Path, engine: str = "onnx") -> dict[str, Any]:
    """Score every run below `folder`.

    Raises: RecordingError: no labelled run there.
    """
    paths = sorted(path for path in folder.glob("*/*.csv") if _is_labelled(path))
    if not paths:
        raise RecordingError(
            f"{folder}: no run with a column 'anomaly' in a folder below it; give the folder that holds valve1, other, ..."
        )
    bundles: dict[str, Bundle] = {}
    runs = [play(path, root, engine, bundles) for path in paths]
    return {**summary(runs), "per_run": {run.name: _rates([run]) for run in runs}}


def play(path: Path, root: Path, engine: str, bundles: dict[str, Bundle]) -> Run:
    """One run through the pipeline. `bundles` is filled at the first run and used by the others."""
    site = site_for_recording(path, root, RECORDING, engine)
    if not bundles:
        bundles.update(open_bundles(site))
    pipeline = Pipeline(site, bundles, started_monotonic_ns=0)
    source = open_source(site.config.sources[0], site.context(0, SystemClock()))
    alarmed: list[bool] = []
    time_s: list[float] = []
    for _ in run_offline(pipeline, _noted(source, time_s, alarmed, pipeline)):
        pass
    alarmed.append(_stands(pipeline))
    anomaly, changepoint = _labels(path)
    scored = slice(LEARN_ROWS, None)
    return Run(
        f"{path.parent.name}_{path.stem}",
        np.asarray(time_s)[scored],
        anomaly[scored],
        changepoint[scored],
        np.asarray(alarmed[1:], dtype=np.bool_)[scored],
    )


def _noted(source: Any, time_s: list[float], alarmed: list[bool], pipeline: Pipeline) -> Iterable[Measurement]:
    """The source's rows; before each, the verdict after the row before it."""
    while not source.finished:
        for item in source.read(timeout_s=1.0):
            assert isinstance(item, Block)
            time_s.append(item.utc_ns / 1e9)
            alarmed.append(_stands(pipeline))
            yield item
    source.close()


def _stands(pipeline: Pipeline) -> bool:
    return any(alarm.standing and alarm.event.alarm_class is not AlarmClass.SENSOR for alarm in pipeline.standing())


def _is_labelled(path: Path) -> bool:
    with path.open(encoding="utf-8-sig") as file:
        return "anomaly" in file.readline().strip().split(";")


def _labels(path: Path) -> tuple[Bools, Bools]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter=";") if row]
    columns = (np.array([float(row[name]) == 1 for row in rows], dtype=np.bool_) for name in ("anomaly", "changepoint"))
    anomaly, changepoint = columns
    return anomaly, changepoint


# ------------------------------------------------------------------------------------------------ figures
def summary(runs: list[Run]) -> dict[str, Any]:
    """The protocol's figures over all runs."""
    faulty = [run for run in runs if run.anomaly.any()]
    delays = [
        run.time_s[run.anomaly & run.alarmed][0] - run.time_s[run.anomaly][0]
        for run in faulty
        if (run.anomaly & run.alarmed).any()
    ]
    normal_h = sum(int((~run.anomaly).sum()) for run in runs) / 3600
    episodes = sum(n_episodes(run.time_s[run.alarmed & ~run.anomaly]) for run in runs)
    return {
        **_rates(runs),
        **{name: nab(runs, *profile) for name, profile in PROFILES.items()},
        "runs": len(runs),
        "runs_caught": len(delays),
        "runs_missed": len(faulty) - len(delays),
        "median_delay_s": float(np.median(delays)) if delays else None,
        "false_episodes_per_h": round(episodes / normal_h, 2) if normal_h else 0.0,
    }


def _rates(runs: list[Run]) -> dict[str, float]:
    anomaly = np.concatenate([run.anomaly for run in runs])
    alarmed = np.concatenate([run.alarmed for run in runs])
    tp, fp = int((anomaly & alarmed).sum()), int((~anomaly & alarmed).sum())
    fn, tn = int((anomaly & ~alarmed).sum()), int((~anomaly & ~alarmed).sum())
    return {
        "f1": round(tp / max(tp + (fn + fp) / 2, 1e-9), 4),
        "far_pct": round(100 * fp / max(fp + tn, 1), 2),
        "mar_pct": round(100 * fn / max(fn + tp, 1), 2),
    }


def n_episodes(time_s: Floats) -> int:
    """Groups of times, those less than JOIN_S apart being one."""
    return 0 if not time_s.size else 1 + int((np.diff(time_s) > JOIN_S).sum())


def nab(runs: list[Run], hit: float, false: float, missed: float) -> float:
    """Change-point score of one profile, 0 for saying nothing and 100 for every change at once and nothing else."""
    scored, n_changes = 0.0, 0
    for run in runs:
        flips = run.time_s[np.diff(run.alarmed.astype(np.int8), prepend=0) != 0]
        windows = _windows(run.time_s[run.changepoint])
        n_changes += len(windows)
        inside_any = np.zeros(flips.size, dtype=np.bool_)
        for start_s, end_s in windows:
            inside = (flips >= start_s) & (flips <= end_s)
            inside_any |= inside
            scored += (
                _gain((flips[inside][0] - start_s) / max(end_s - start_s, 1e-9), hit, false) if inside.any() else missed
            )
        scored += false * int((~inside_any).sum())
    nothing, perfect = n_changes * missed, n_changes * hit
    return round(100 * (scored - nothing) / (perfect - nothing), 2) if n_changes else 0.0


def _windows(changes_s: Floats) -> list[tuple[float, float]]:
    """WINDOW_S to the right of each change; where two overlap the later one starts where the earlier ends."""
    windows: list[tuple[float, float]] = []
    for change_s in changes_s:
        start_s = max(change_s, windows[-1][1]) if windows else change_s
        windows.append((float(start_s), float(change_s + WINDOW_S)))
    return windows


def _gain(share: float, hit: float, false: float) -> float:
    """A sigmoid from `hit` at the window's start down to `false` at its end."""
    x = np.linspace(-np.pi / 2, np.pi / 2, GAIN_STEPS)[min(int(share * GAIN_STEPS), GAIN_STEPS - 1)]
    return float((hit - false) / 2 * (1 - np.tanh(x) / np.tanh(np.pi / 2)) + false)
