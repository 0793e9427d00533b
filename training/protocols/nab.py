"""`hark evaluate nab DIR`: one slow quantity of a real machine (NAB), through the very path of `hark replay`.

Protocol (Lavin and Ahmad 2015, standard profile): rows in order, no look-ahead; the first 15 %, at most 750 rows, are not scored
and may be learned from. In a labelled window the first detection gains, the earlier the more; every detection outside costs.
A detection is the row in which a machine alarm is raised, or told again because it became worse: not every row in which it stands.
DIR holds one csv (timestamp, value) and labels.json with its windows.

standard      at the agent's own threshold, scaled to 0 for saying nothing and 100 for the perfect detector, of this file alone
oracle        likewise for the score of every row at the best threshold there is, chosen afterwards: for information only
detections    the times, for information; windows_found of windows
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.app import open_bundles, run_offline
from agent.clock import SystemClock
from agent.decision.alarm import Trigger
from agent.pipeline import Pipeline
from agent.recording import site_for_recording
from agent.vocabulary import AlarmClass
from firmware_bridge.errors import RecordingError
from firmware_bridge.measurement import Measurement
from firmware_bridge.source import open_source

RECORDING = "nab"
LABELS = "labels.json"
PROBATION_SHARE, MAX_PROBATION_ROWS = 0.15, 750
FALSE_COST = 0.11  # of the standard profile; a hit gains up to 1, a miss costs 1
N_THRESHOLDS = 600  # that the oracle may choose from
TOLD = (Trigger.RAISE, Trigger.ESCALATE)

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Windows = list[tuple[int, int]]  # first and last row of each


@dataclass(frozen=True, slots=True)
class Played:
    """What the agent said of every row, shape (n_rows,): whether it told an alarm there, and its score in thresholds."""

    told: Bools
    score: Floats


def evaluate(folder: Path, root: Path, engine: str = "onnx") -> dict[str, Any]:
    """Score the recording in `folder`.

    Raises: RecordingError: no recording or no labels there.
    """
    path, times = _recording(folder)
    windows = _windows(folder / LABELS, times)
    played = play(path, root, engine, len(times))
    scored = np.arange(len(times)) >= n_probation(len(times))
    detections = np.flatnonzero(played.told & scored)
    return {
        "standard": standard(played.told, windows),
        "oracle": oracle(played.score, windows),
        "windows": len(windows),
        "windows_found": sum(bool(((detections >= first) & (detections <= last)).any()) for first, last in windows),
        "false_detections": int(sum(not any(first <= row <= last for first, last in windows) for row in detections)),
        "detections": [str(times[row]) for row in detections],
    }


def play(path: Path, root: Path, engine: str, n_rows: int) -> Played:
    """One recording through the pipeline."""
    site = site_for_recording(path, root, RECORDING, engine)
    pipeline = Pipeline(site, open_bundles(site), started_monotonic_ns=0)
    source = open_source(site.config.sources[0], site.context(0, SystemClock()))
    (watch,) = pipeline.watches.values()
    played = Played(np.zeros(n_rows, np.bool_), np.zeros(n_rows))
    came: list[Measurement] = []
    for outcome in run_offline(pipeline, _rows(source, came)):
        at = len(came) - 1
        played.told[at] |= any(e.trigger in TOLD and e.alarm_class is not AlarmClass.SENSOR for e in outcome.events)
        score = watch.last_score
        played.score[at] = score.value / score.threshold if score is not None else 0.0
    return played


def _rows(source: Any, came: list[Measurement]) -> Iterator[Measurement]:
    """The source's rows, each noted in `came` before it is taken in."""
    while not source.finished:
        for item in source.read(timeout_s=1.0):
            came.append(item)
            yield item
    source.close()


def _recording(folder: Path) -> tuple[Path, NDArray[np.datetime64]]:
    paths = sorted(folder.glob("*.csv"))
    if len(paths) != 1 or not (folder / LABELS).is_file():
        raise RecordingError(f"{folder}: give a folder that holds one csv and {LABELS}; it has {len(paths)} csv")
    with paths[0].open(encoding="utf-8-sig", newline="") as file:
        return paths[0], np.array([row["timestamp"] for row in csv.DictReader(file)], "datetime64[s]")


def _windows(path: Path, times: NDArray[np.datetime64]) -> Windows:
    """The labelled windows as rows."""
    try:
        stated = json.loads(path.read_text("utf-8"))["windows"]
        bounds = np.array([[time.partition(".")[0] for time in window] for window in stated], "datetime64[s]")
        first, last = np.searchsorted(times, bounds[:, 0]), np.searchsorted(times, bounds[:, 1], "right") - 1
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RecordingError(
            f'{path}: {error}; write {{"windows": [["2013-12-10 06:25:00", "2013-12-12 05:35:00"]]}}'
        ) from None
    return list(zip(first.tolist(), last.tolist(), strict=True))


# ------------------------------------------------------------------------------------------------ figures
def n_probation(n_rows: int) -> int:
    """Rows at the beginning that are not scored."""
    return min(int(PROBATION_SHARE * n_rows), MAX_PROBATION_ROWS)


def standard(detected: Bools, windows: Windows) -> float:
    """The standard profile's score of this file: 0 for the null detector, 100 for the perfect one."""
    first_scored = n_probation(len(detected))
    rows = np.flatnonzero(detected)
    rows = rows[rows >= first_scored]
    scored = sum(_gain(rows, window) for window in windows)
    scored += sum(_cost(int(row), windows) for row in rows if not any(first <= row <= last for first, last in windows))
    return round(100 * (scored + len(windows)) / (2 * len(windows)), 2) if windows else 0.0


def oracle(score: Floats, windows: Windows) -> float:
    """The best that any threshold on the rows' scores would have given."""
    bounds = np.unique(np.concatenate([np.quantile(score, np.linspace(0.9, 1, N_THRESHOLDS)), [np.inf]]))
    return max(standard(score >= bound, windows) for bound in bounds)


def _gain(rows: NDArray[np.intp], window: tuple[int, int]) -> float:
    """Of a window: 1 for a detection in its first row, next to nothing in its last, -1 for none."""
    first, last = window
    inside = rows[(rows >= first) & (rows <= last)]
    if not inside.size:
        return -1.0
    return _sigmoid(-(last - int(inside[0]) + 1) / (last - first + 1)) / _sigmoid(-1.0)


def _cost(row: int, windows: Windows) -> float:
    """Of a detection outside: little just after a window, all of it from three window lengths on."""
    past = [(first, last) for first, last in windows if last < row]
    if not past:
        return -FALSE_COST
    first, last = past[-1]
    return FALSE_COST * _sigmoid((row - last) / (last - first))


def _sigmoid(position: float) -> float:
    """From 1 far left of a window's end (0) to -1 right of it, in window lengths."""
    return -1.0 if position > 3 else float(2 / (1 + np.exp(5 * position)) - 1)
