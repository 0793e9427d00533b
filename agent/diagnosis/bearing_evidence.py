"""What the bursts say of a bearing by physics alone, as columns that the catalogue can weigh like any other.

The verdict of bearing.py becomes one column a part, named bearing.outer, bearing.inner and bearing.ball: where a part is named
its column's "deviation" is the confidence of that, the others' is 0. Where it is unsure nothing is added, for a line beside
a multiple of shaft speed is hidden from it, and silence is no evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from agent.diagnosis.bearing import LEAST_DEPTH_RATIO, Family, Part, Verdict, name_part
from agent.diagnosis.view import View
from agent.vocabulary import F32, OperatingPoint, Score, Window
from agent.words import Words

if TYPE_CHECKING:
    from agent.config import Machine

COLUMN_OF_PART = {Part.OUTER: "bearing.outer", Part.INNER: "bearing.inner", Part.BALL: "bearing.ball"}
ASKED_BY = ("envelope.", "vibration.kurtosis_ratio")
FEWEST_HARMONICS = 2  # a line of a race without a second one is a hint and no evidence (domain practice)
IN_QUESTION = 3.0  # robust standard deviations of one of these columns, from which the bursts are asked


def is_in_question(names: Sequence[str], score: Score) -> bool:
    """Whether anything deviates that a bearing could do; else the bursts need not be asked."""
    asked = np.array([name.startswith(ASKED_BY) for name in names])
    return bool((score.deviations[asked & score.present] >= IN_QUESTION).any())


def verdict_of(machine: Machine, point: OperatingPoint, bursts: Sequence[Window]) -> Verdict | None:
    """What all bursts of the newest's sensor and rate say together; None where that is not to be believed."""
    orders = machine.nameplate.bearing
    usable = [window for window in bursts if not window.clipped and np.isfinite(window.samples).all()]
    if orders is None or not usable:
        return None
    last = usable[-1]
    rows = np.concatenate([window.samples for window in usable if _kind(window) == _kind(last)])
    return believed(name_part(rows, last.sample_rate_hz, point.shaft_speed_rpm, orders))


def believed(verdict: Verdict) -> Verdict | None:
    """The verdict where it names a part with evidence enough, else None."""
    if verdict.part is Part.UNSURE:
        return None
    family = next(family for family in verdict.families if family.part is verdict.part)
    enough = len(family.harmonics) >= FEWEST_HARMONICS or verdict.part is Part.BALL  # which may be named by elimination
    return verdict if enough else None


def _kind(window: Window) -> tuple[str, float, tuple[int, ...]]:
    return window.sensor, window.sample_rate_hz, window.samples.shape


def confidences_of(verdict: Verdict | None) -> F32:
    """The "deviations" of the three columns: the confidence of the part that is named, 0 of the others. Shape (3,)."""
    return np.array(
        [verdict.confidence if verdict and part is verdict.part else 0.0 for part in COLUMN_OF_PART], np.float32
    )


def with_verdict(score: Score, view: View, verdict: Verdict, words: Words) -> tuple[Score, View]:
    """Score and view with the three columns of the verdict beside their own."""
    parts = list(COLUMN_OF_PART)
    n_more = len(parts)
    families: Mapping[Part, Family] = {family.part: family for family in verdict.families}
    depths_pct = np.array([100 * families[part].depth_ratio for part in parts])
    wider = replace(
        view,
        names=(*view.names, *COLUMN_OF_PART.values()),
        words=[*view.words, *(words.say("bearing", part) for part in parts)],
        units=[*view.units, *(["%"] * n_more)],
        values=np.append(view.values, depths_pct),
        normals=np.append(view.normals, np.full(n_more, np.nan)),
        limits=np.append(view.limits, np.full(n_more, 100 * LEAST_DEPTH_RATIO)),
        lines_hz=np.append(view.lines_hz, [families[part].line_hz for part in parts]),
    )
    added = replace(
        score,
        contributions=np.append(score.contributions, np.zeros(n_more, np.float32)),
        deviations=np.append(score.deviations, confidences_of(verdict)),
        present=np.append(score.present, np.ones(n_more, np.bool_)),
    )
    return added, wider
