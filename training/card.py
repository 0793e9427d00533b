"""The model card: what a model is for, what it was made from, how it did, and where it ends; in Markdown.

The card is made from the manifest alone, so what it shows of the search is kept there, as metrics.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.decision.rate import poisson_interval
from agent.inference.bundle import Manifest, Metric
from training.dataset import SEVERITIES
from training.learned import rounded
from training.metrics import roc_auc
from training.search import DOUBTFUL, MONTH_S, OVER, RANK_DECIMALS, Board, Entry, Terms, Trial
from training.sensitivity import HELD_WINDOWS, NEVER

CANDIDATE = "candidate "  # what the metrics of the leaderboard begin with
COLUMNS = ("mean S50", "mean S90", "false alarms", "kB")
FLAGS = {
    OVER: "More false alarms than the budget allows",
    DOUBTFUL: "Too little healthy time for a threshold to be believed, and so ranked after the others",
    "without_figures": "Without figures",
}  # what the provenance says of candidates
S50, S90 = "S50 ", "S90 "  # what those of a fault begin with

INTENDED_USE = """\
Tells how unlike its own healthy past a {machine_type} has become, one window at a time, and which columns say so. It
runs on the gateway, beside fast protective limits that do not depend on it. The score is not a probability, not a
remaining life and not a safety function: nobody may be kept safe by it."""

LEADERBOARD = """\
Each candidate was fitted, got its threshold from the tail of healthy scores for the same budget of false alarms, and was
judged where neither had been: {held_back}. The ranking goes by S50, then S90, size and cost; what the budget or the data
speak against comes last. False alarms are those of the healthy time held back. A severity never found counts as 2."""

SENSITIVITY = """\
The severity (1 is the fault at its worst) from which half (S50), and nine tenths (S90), of the windows exceed the threshold, once
it has lasted for {held} windows. {origin} So these figures compare models and faults; they are no measured property of a real
machine."""
FAULTS_SIMULATED = "Faults of simulated machines that the model has not seen."
FAULTS_INJECTED = """\
The simulator's fault signatures were laid over healthy windows of the plant, ratio by ratio where a column is judged on a
logarithmic scale, difference by difference elsewhere: it is assumed that a fault changes this machine as it changes the
simulated one."""

LIMITS = """\
- It knows only the columns below. A fault that moves none of them is not seen.
- Its input is referred to the machine's own baseline in its operating state; a machine that was already damaged when its
  baseline was learned counts as healthy. The agent refuses to learn a machine in zone C or D without a typed reason.
- {origin}"""
TAIL = """\
- The tail of healthy scores was fitted to {n_windows} windows of {n_machines} machine(s); thresholds for budgets far
  below one false alarm in that much time are an extrapolation."""

SIMULATED = """\
It was trained on simulated machines. It is a start for day one; train a site bundle as soon as real windows are there."""
UNTRAINED = """\
It was trained on nothing: what counts as a change are the smallest scales below, and its threshold is stated, not measured. It
keeps no budget of false alarms; train a site bundle as soon as real windows are there."""
COLLECTED = """\
It was trained on one plant's machines and their seasons so far; other plants need their own."""


# ---------------------------------------------------------------------------------------------- figures
def healthy_metrics(final: Trial, terms: Terms, where: str) -> tuple[Metric, ...]:
    """How the model that ships did on healthy time that it had not seen, and apart from it on faults."""
    ratios = np.concatenate(final.check_ratios)
    months = len(ratios) * terms.decision_interval_s / MONTH_S
    lower, upper = poisson_interval(final.n_alarms, months)
    return (
        _metric("threshold over the machine's own upper normal score", final.threshold_x, "x"),
        _metric(f"healthy windows {where}", len(ratios)),
        _metric("of them above the threshold", 100 * float(np.mean(ratios > final.threshold_x)), "%"),
        _metric("false alarms in that time", final.n_alarms),
        _metric("which is", months, "machine-months"),
        _metric("false alarms, lower 95 % limit", lower, "per machine-month"),
        _metric("false alarms, upper 95 % limit", upper, "per machine-month"),
        Metric(name="AUC, all faults and severities", value=round(roc_auc(ratios, final.faulty_ratios), 4)),
    )


def sensitivity_metrics(board: Board) -> tuple[Metric, ...]:
    """S50 and S90 of every fault by the winner, over all folds."""
    found = board.winner.sensitivity
    return tuple(
        Metric(name=f"{begin}{fault}", value=found.severity(fault, share))
        for fault in found.faults
        for begin, share in ((S50, 0.5), (S90, 0.9))
    )


def board_metrics(board: Board) -> tuple[Metric, ...]:
    """The leaderboard, line by line."""
    return tuple(
        _metric(f"{CANDIDATE}{entry.candidate.label}: {column}", value)
        for entry in board.ranked
        for column, value in zip(COLUMNS, _figures(entry), strict=True)
    )


def _figures(entry: Entry) -> tuple[float, float, float, float]:
    """As COLUMNS says. Severities as finely as they are ranked by: what was fitted by iteration rebuilds no finer elsewhere."""
    s50, s90 = (round(entry.sensitivity.mean(share), RANK_DECIMALS) for share in (0.5, 0.9))
    return s50, s90, float(entry.n_alarms), entry.n_bytes / 1000


def _metric(name: str, value: float, unit: str = "") -> Metric:
    return Metric(name=name, value=rounded(value), unit=unit)


# ---------------------------------------------------------------------------------------------- the card
def card_text(manifest: Manifest) -> str:
    """The card of a bundle, from nothing but its manifest."""
    made = manifest.provenance
    is_simulated, is_trained = made.source.startswith("simulator"), manifest.tail.n > 0
    limits = LIMITS.format(origin=(SIMULATED if is_simulated else COLLECTED) if is_trained else UNTRAINED)
    tail = TAIL.format(n_windows=manifest.tail.n, n_machines=made.settings.get("n_tail_machines", 1))
    columns = [
        f"| `{column.name}` | {column.version} | {column.transform} | {column.scale_floor:g} |"
        for column in manifest.columns
    ]
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        "## Intended use",
        INTENDED_USE.format(machine_type=manifest.machine_type),
        "",
        "## Data",
        f"{made.source}, data version {made.data_version}, seed {made.seed}, data up to {manifest.created_utc}.",
        "",
        *_model(manifest),
        *_leaderboard(manifest),
        *_sensitivity(manifest, is_simulated),
        *_metrics(manifest),
        "## Limits",
        limits,
        *([tail] if is_trained else []),
        "",
        "## Columns",
        "| column | version | transform | smallest scale |",
        "|---|---|---|---|",
        *columns,
        "",
        "## Provenance",
        f"Made by {made.code}, with "
        + ", ".join(f"{name} {version}" for name, version in made.libraries.items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _model(manifest: Manifest) -> list[str]:
    made = manifest.provenance
    told = {"candidate", "chosen", "held_back", *FLAGS}
    settings = ", ".join(f"{name} = {value}" for name, value in sorted(made.settings.items()) if name not in told)
    return [
        "## Model",
        f"Family `{made.family}` ({settings}); float32, the same graph as ONNX (opset 17) and TFLite.",
        f"Persistence {manifest.k} of {manifest.m} windows; {manifest.learn_windows} windows are learned per state;",
        f"the figures below are for {manifest.false_alarms_per_machine_month:g} false alarms per machine and month.",
        "",
    ]


def _leaderboard(manifest: Manifest) -> list[str]:
    """Empty where nothing was searched."""
    rows: dict[str, list[float]] = {}
    for metric in manifest.metrics:
        if metric.name.startswith(CANDIDATE):
            rows.setdefault(metric.name.removeprefix(CANDIDATE).rpartition(": ")[0], []).append(metric.value)
    if not rows:
        return []
    settings = manifest.provenance.settings
    return [
        "## Leaderboard",
        LEADERBOARD.format(held_back=settings.get("held_back", "")),
        "",
        f"**{settings.get('chosen', '')}**",
        "",
        f"| candidate | {' | '.join(COLUMNS)} |",
        "|---|---|---|---|---|",
        *(f"| {_marked(label, settings)} | {' | '.join(map(_figure, values))} |" for label, values in rows.items()),
        "",
        *(f"{words}: {settings[name]}.\n" for name, words in FLAGS.items() if name in settings),
    ]


def _marked(label: str, settings: dict[str, float | int | str]) -> str:
    return f"**{label}** (ships)" if label == settings.get("candidate") else label


def _metrics(manifest: Manifest) -> list[str]:
    """Empty where nothing was measured."""
    rows = [f"| {metric.name} | {metric.value:g} {metric.unit} |" for metric in manifest.metrics if _is_plain(metric)]
    head = ["## Metrics", "On machines or days that were not trained on.", "", "| figure | value |", "|---|---|"]
    return [*head, *rows, ""] if rows else []


def _sensitivity(manifest: Manifest, is_simulated: bool) -> list[str]:
    by_name = {metric.name: metric.value for metric in manifest.metrics}
    faults = [name.removeprefix(S50) for name in by_name if name.startswith(S50)]
    if not faults:
        return []
    origin = FAULTS_SIMULATED if is_simulated else FAULTS_INJECTED
    return [
        "## Sensitivity",
        SENSITIVITY.format(held=HELD_WINDOWS, origin=origin),
        "",
        "| fault | S50 | S90 |",
        "|---|---|---|",
        *(
            f"| {fault} | {severity_text(by_name[S50 + fault])} | {severity_text(by_name[S90 + fault])} |"
            for fault in faults
        ),
        "",
    ]


def severity_text(severity: float) -> str:
    """A severity; below the least that was tried nothing is claimed, and where none was enough neither."""
    if severity >= NEVER:
        return "never"
    return f"{severity:.3g} or less" if severity <= SEVERITIES[0] else f"{severity:.3g}"


def _figure(value: float) -> str:
    return f"{value:.3g}"


def _is_plain(metric: Metric) -> bool:
    return not metric.name.startswith((CANDIDATE, S50, S90))


# ---------------------------------------------------------------------------------------------- the board
HEAD = ("", "candidate", "S50", "S90", "faults found", "false alarms", "kB", "")


def board_lines(board: Board) -> list[str]:
    """The leaderboard for a terminal: one line a candidate, why the winner ships, and what the columns mean."""
    rows = [HEAD, *(board_cells(board, entry) for entry in board.ranked)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEAD))]
    table = [
        "  ".join(_aligned(cell, at, width) for at, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    missing = [f"   {note}: {labels}" for note, labels in board.without_figures.items()]
    return [*(line.rstrip() for line in table), *missing, "", board.reason, *board_legend(board)]


def board_cells(board: Board, entry: Entry) -> tuple[str, ...]:
    """A line of the board, as HEAD says."""
    found = entry.sensitivity
    return (
        ">" if entry is board.winner else "",
        entry.candidate.label,
        f"{found.mean(0.5):.3f}",
        f"{found.mean(0.9):.3f}",
        f"{found.n_found} of {len(found.faults)}",
        str(entry.n_alarms),
        f"{entry.n_bytes / 1000:.1f}",
        entry.flag,
    )


def board_legend(board: Board) -> tuple[str, ...]:
    """What the figures mean, in sentences."""
    winner = board.winner
    budget = winner.terms.false_alarms_per_machine_month
    n_faults = len(winner.sensitivity.faults)
    return (
        f"S50, S90: severity (1 is the worst) from which half, nine tenths, of the windows are found; mean of {n_faults} faults, "
        f"one that is never found counts {NEVER:g}.",
        f"False alarms: in {winner.machine_months:.3g} healthy machine-months held back ({'; '.join(board.folds)}). So the "
        f"winner stays below {winner.interval[1]:.3g} a month at 95 %; {budget:g} a month is proved by "
        f"{poisson_interval(0)[1] / budget:.1f} machine-months without one.",
    )


def _aligned(cell: str, at: int, width: int) -> str:
    return cell.ljust(width) if HEAD[at] in ("candidate", "") else cell.rjust(width)


def board_document(board: Board) -> list[dict[str, Any]]:
    """The leaderboard for --json."""
    return [_document(board, place, entry) for place, entry in enumerate(board.entries, 1)]


def _document(board: Board, place: int, entry: Entry) -> dict[str, Any]:
    if entry.note:
        return {"candidate": entry.candidate.label, "note": entry.note}
    return {
        "rank": place,
        "candidate": entry.candidate.label,
        "ships": entry is board.winner,
        "s50": round(entry.sensitivity.mean(0.5), 4),
        "s90": round(entry.sensitivity.mean(0.9), 4),
        "faults_found": entry.sensitivity.n_found,
        "false_alarms": entry.n_alarms,
        "machine_months": rounded(entry.machine_months),
        "false_alarms_lower95": rounded(entry.interval[0]),
        "false_alarms_upper95": rounded(entry.interval[1]),
        "independent_scores": round(entry.n_independent, 1),
        "flag": entry.flag,
        "bytes": entry.n_bytes,
        "operations": entry.n_operations,
    }
