"""`hark evaluate bearings DIR`: name the damaged part of a bearing, by the agent's own physics and one configuration.

DIR holds recordings of bearings with one known damage each and their manifest.csv, in one of two layouts: that of the Case
Western Reserve University (a motor with damage at its drive or fan end; the accelerometer at the damaged end is used) or
that of the Society for Machinery Failure Prevention Technology (one channel). Each recording is cut into bursts of one
second that overlap by half, as a gateway keeps them, and named once. Nothing is learned, nothing is set per file or end.
Of the first layout the recordings at 12 kHz count; those at 48 kHz are shown beside them.

n                            recordings that count
right, wrong, unsure         of these, and in per cent (_pct): the damaged part, another part, no part named
per_class                    by rate, end and damaged part: how often each part was named
named_wrong, left_unsure     the recordings, with the evidence that was seen
not_judged                   recordings without a channel at the damaged end

Measured on 56 recordings of the first layout: 44 right, 2 wrong, 10 unsure; on 8 of the second: 8 right. The limits were
chosen on these 56, as round numbers; with one of them a quarter higher or lower some 40 to 45 are right and 2 to 5 wrong.
Unsure are outer races damaged opposite the load zone or beside it (4), one other outer race (3) and balls (3): no line of
the damaged part stands out there, with any band, burst length or whitening that was tried.
Source: bearing orders as the owners of the data publish them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.diagnosis.bearing import Part, Verdict, name_part
from agent.features.bearings import BearingOrders
from agent.vocabulary import F32
from firmware_bridge.errors import RecordingError

BURST_S = 1.0
COUNTED_RATE_HZ = 12_000
HEALTHY = "normal"
ORDERS = {  # bsf is half of what is published, which is how often a ball's defect strikes
    "DE": BearingOrders(bpfo=3.5848, bpfi=5.4152, bsf=4.7135 / 2, ftf=0.39828),  # SKF 6205
    "FE": BearingOrders(bpfo=3.0530, bpfi=4.9469, bsf=3.9874 / 2, ftf=0.3817),  # SKF 6203
    "MFPT": BearingOrders(bpfo=3.245, bpfi=4.755, bsf=5.1128 / 2, ftf=0.5935),  # NICE, eight balls
}
PARTS = {
    **{"OR": Part.OUTER, "IR": Part.INNER, "B": Part.BALL},
    **{part.value: part for part in (Part.OUTER, Part.INNER, Part.BALL)},
}


@dataclass(frozen=True, slots=True)
class Judged:
    """One recording: what is damaged, in which group it is shown, whether it counts, and what was named."""

    name: str
    group: str
    damaged: Part
    counts: bool
    verdict: Verdict

    @property
    def outcome(self) -> str:
        if self.verdict.part is Part.UNSURE:
            return "unsure"
        return "right" if self.verdict.part is self.damaged else "wrong"

    def __str__(self) -> str:
        return f"{self.name} ({self.damaged}): {self.verdict.reason}"


class Confusion(dict[str, dict[str, int]]):
    """How often each part was named, by class; printed as a table."""

    def __str__(self) -> str:
        width = max(map(len, self), default=0)
        head = " " * width + "".join(f"{part:>8}" for part in Part)
        rows = [f"{name:{width}}" + "".join(f"{row[part]:8}" for part in Part) for name, row in self.items()]
        return "\n".join(["named", head, *rows])


def evaluate(folder: Path, root: Path, engine: str = "onnx") -> dict[str, Any]:
    """Name every recording of DIR. `root` and `engine` are not needed: there is neither a machine file nor a model.

    Raises: RecordingError: no manifest of either layout, or a recording that is not what its manifest says.
    """
    rows = _manifest(folder)
    judged = [one for row in rows if (one := _judge(folder, row))]
    counted = [one for one in judged if one.counts]
    share = 100 / max(len(counted), 1)
    counts = {name: sum(one.outcome == name for one in counted) for name in ("right", "wrong", "unsure")}
    return {
        "n": len(counted),
        **counts,
        **{f"{name}_pct": round(share * count, 2) for name, count in counts.items()},
        "per_class": _per_class(judged),
        "named_wrong": [str(one) for one in counted if one.outcome == "wrong"],
        "left_unsure": [str(one) for one in counted if one.outcome == "unsure"],
        "not_judged": len(rows) - len(judged),
    }


def _manifest(folder: Path) -> list[dict[str, str]]:
    """The rows of damaged bearings."""
    path = folder / "manifest.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("fault") != HEALTHY]
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror}); give the folder that holds it") from None
    if not rows or not {"file", "fault"} <= rows[0].keys():
        raise RecordingError(f"{path}: names no recording of a damaged bearing; it needs the columns file and fault")
    return rows


def _judge(folder: Path, row: dict[str, str]) -> Judged | None:
    """One recording, or None where no channel is at the damaged end."""
    path = folder / row["file"]
    try:
        with np.load(path, allow_pickle=False) as stored:
            channel, end = (row["faulty_end"], row["faulty_end"]) if "faulty_end" in row else ("acc", "MFPT")
            if channel not in stored:
                return None
            sample_rate_hz = float(stored["fs"])
            shaft_speed_rpm = float(row["rpm"]) if "rpm" in row else 60 * float(stored["shaft_hz"])
            verdict = name_part(bursts(stored[channel], sample_rate_hz), sample_rate_hz, shaft_speed_rpm, ORDERS[end])
        counts = end == "MFPT" or round(sample_rate_hz) == COUNTED_RATE_HZ
        return Judged(path.stem, f"{sample_rate_hz / 1000:.0f}k_{end}", PARTS[row["fault"]], counts, verdict)
    except (OSError, ValueError, KeyError) as error:
        raise RecordingError(f"{path}: is not the bearing recording that manifest.csv says ({error})") from None


def bursts(samples: F32, sample_rate_hz: float) -> F32:
    """Bursts of BURST_S that overlap by half, shape (n_bursts, n_samples). Raises: ValueError: not one of them is there."""
    n = round(BURST_S * sample_rate_hz)
    if samples.size < n:
        raise ValueError(f"{samples.size} samples are less than {BURST_S:g} s")
    return np.lib.stride_tricks.sliding_window_view(samples, n)[:: n // 2]


def _per_class(judged: list[Judged]) -> Confusion:
    table = Confusion()
    for one in sorted(judged, key=lambda one: (one.group, one.damaged)):
        row = table.setdefault(f"{one.group} {one.damaged}", {part.value: 0 for part in Part})
        row[one.verdict.part] += 1
    return table
