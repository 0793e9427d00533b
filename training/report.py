"""The report of a training: one page of HTML that stands alone, for the person who has to decide whether the model ships.

No script, no font, nothing loaded from elsewhere. From top to bottom: what ships and why, the leaderboard, which faults are found
from which severity, the healthy time that was held back against the threshold, where the threshold comes from, and what became of
every row of the data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from firmware_bridge.errors import HarkError
from training.card import FAULTS_INJECTED, FAULTS_SIMULATED, HEAD, SENSITIVITY, board_cells, board_legend, severity_text
from training.learned import F64
from training.metrics import share_above
from training.plots import Axis, Plot, decades, round_steps
from training.search import DEFAULT, PLAIN, Board, Entry, Trial, n_alarms
from training.sensitivity import HELD_WINDOWS
from training.train import Share, Trained

MAX_POINTS = 600  # of a machine in the history: beyond, the highest of each stretch is drawn
STYLE = """
:root { --ink: #1e2124; --paper: #fff; --soft: #6b7178; --rule: #d8dadd; --own: #1f6fb2; --other: #9aa0a6; --limit: #c8102e; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4e6e8; --paper: #1e2124; --soft: #a2a8ae; --rule: #3b4046; --own: #62aee8; --other: #7d848b; --limit: #ff6b7d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { max-width: 46rem; margin: .4rem 0; }
.soft, figcaption, text { color: var(--soft); fill: var(--soft); }
.verdict { font-size: 1.1rem; border-left: 4px solid var(--own); padding-left: .8rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tiles div { border: 1px solid var(--rule); border-radius: 6px; padding: .5rem .9rem; }
.tiles b { font-size: 1.25rem; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
td.left, th.left { text-align: left; }
tr.ships td { font-weight: 600; background: color-mix(in srgb, var(--own) 14%, transparent); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .6rem; }
figure { margin: 0; }
figcaption b { color: var(--ink); }
svg { width: 100%; height: auto; display: block; }
svg.narrow { max-width: 42rem; }
svg text { font: 11px system-ui, sans-serif; }
path { fill: none; }
.frame { stroke: var(--soft); }
.grid, .fence { stroke: var(--rule); }
.line { stroke-width: 1.6; }
.own { stroke: var(--own); stroke-width: 2.2; }
.default { stroke: var(--other); }
.plain { stroke: var(--other); stroke-dasharray: 5 3; }
.limit { stroke: var(--limit); stroke-dasharray: 6 3; }
.dots { stroke: var(--own); stroke-width: 4; stroke-linecap: round; }
.dots.over { stroke: var(--limit); }
"""


def write_report(path: Path, trained: Trained) -> None:
    """Raises: HarkError: the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report_html(trained), "utf-8")
    except OSError as error:
        raise HarkError(f"{path}: cannot be written ({error.strerror}); check --report and its permissions") from None


def report_html(trained: Trained) -> str:
    """The whole page."""
    manifest, board = trained.manifest, trained.board
    title = f"{manifest.name} {manifest.version}: report of a training"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="soft">{escape(manifest.provenance.source)}, data up to {escape(manifest.created_utc)}</p>',
            f'<p class="verdict">{escape(board.reason)}</p>',
            _tiles(trained),
            "<h2>Leaderboard</h2>",
            _leaderboard(board),
            "<h2>Which faults, from which severity</h2>",
            *_sensitivity(trained),
            "<h2>Healthy time held back</h2>",
            *_history(trained),
            "<h2>Where the threshold comes from</h2>",
            *_tail(trained.final, trained.terms.window_probability),
            "<h2>Machines</h2>",
            _machines(trained),
            "<h2>What became of the data</h2>",
            _preparation(trained),
            "</body></html>\n",
        ]
    )


def _tiles(trained: Trained) -> str:
    winner, final, months = trained.board.winner, trained.final, trained.months_checked
    tiles = (
        (winner.candidate.label, "ships"),
        (f"{winner.sensitivity.mean(0.5):.3f}", "mean S50, severity"),
        (f"{winner.sensitivity.n_found} of {len(winner.sensitivity.faults)}", "faults found"),
        (f"{final.n_alarms} in {months:.3g}", "false alarms, machine-months"),
        (f"{final.threshold_x:.3g} x", "threshold over upper normal score"),
        (f"{trained.terms.decision_interval_s:g} s", "between two decisions"),
    )
    return (
        f'<div class="tiles">{"".join(f"<div><b>{escape(big)}</b>{escape(small)}</div>" for big, small in tiles)}</div>'
    )


# ---------------------------------------------------------------------------------------------- leaderboard
def _leaderboard(board: Board) -> str:
    rows = [(board_cells(board, entry), "ships" if entry is board.winner else "") for entry in board.ranked]
    missing = "".join(f"<li>{escape(note)}: {escape(labels)}</li>" for note, labels in board.without_figures.items())
    legend = "".join(f'<p class="soft">{escape(line)}</p>' for line in board_legend(board))
    return _table(HEAD, rows, left=(1, 7)) + (f"<p>Without figures:</p><ul>{missing}</ul>" if missing else "") + legend


def _table(head: Sequence[str], rows: Iterable[tuple[Sequence[str], str]], left: Sequence[int] = (0,)) -> str:
    """Args: rows: cells and the row's class. left: columns that hold words."""

    def cells(tag: str, values: Sequence[str]) -> str:
        opened = [f'<{tag} class="left">' if at in left else f"<{tag}>" for at in range(len(values))]
        return "".join(f"{begin}{escape(value)}</{tag}>" for begin, value in zip(opened, values, strict=True))

    body = "".join(f'<tr class="{style}">{cells("td", values)}</tr>' for values, style in rows)
    return f'<div class="wide"><table><tr>{cells("th", head)}</tr>{body}</table></div>'


# ---------------------------------------------------------------------------------------------- sensitivity
def _sensitivity(trained: Trained) -> list[str]:
    is_simulated = trained.manifest.provenance.source.startswith("simulator")
    origin = FAULTS_SIMULATED if is_simulated else FAULTS_INJECTED
    shown = _compared(trained.board)
    names = ", ".join(f"{line}: {entry.candidate.label}" for line, _, entry in shown)
    figures = "".join(_curves(fault, shown) for fault in trained.board.winner.sensitivity.faults)
    return [
        f"<p>{escape(SENSITIVITY.format(held=HELD_WINDOWS, origin=origin))}</p>",
        f'<p class="soft">Share of windows found over severity; {escape(names)}.</p>',
        f'<div class="plots">{figures}</div>',
    ]


def _compared(board: Board) -> list[tuple[str, str, Entry]]:
    """How a line is drawn, its style, whose it is: the winner, and what it had to beat."""
    drawn = [("strong line", "own", board.winner)]
    for family, line, style in ((DEFAULT, "thin line", "default"), (PLAIN, "dashed line", "plain")):
        other = next((entry for entry in board.ranked if entry.candidate.family == family), None)
        if other is not None and other is not board.winner:
            drawn.append((line, style, other))
    return drawn


def _curves(fault: str, shown: Sequence[tuple[str, str, Entry]]) -> str:
    severities = tuple(shown[0][2].sensitivity.curve(fault))
    labels = tuple(f"{severity:g}" for severity in severities)
    x = Axis(severities[0], severities[-1], "severity", severities, labels, logarithmic=True)
    y = Axis(0.0, 1.0, "", (0.0, 0.5, 0.9), ("0", "50 %", "90 %"))
    plot = Plot(x, y, f"{fault}: share of windows found over severity", width_px=260, height_px=170, left_px=40)
    for _, style, entry in reversed(shown):
        plot.line(entry.sensitivity.curve(fault).items(), style)
    found = shown[0][2].sensitivity
    figures = f"S50 {severity_text(found.severity(fault, 0.5))}, S90 {severity_text(found.severity(fault, 0.9))}"
    return f"<figure><figcaption><b>{escape(fault.replace('_', ' '))}</b> {figures}</figcaption>{plot.svg()}</figure>"


# ---------------------------------------------------------------------------------------------- healthy time
def _history(trained: Trained) -> list[str]:
    """Scores of all machines side by side, each in its own time, on a logarithmic scale."""
    limit = trained.final.threshold_x
    series = [(f"{share.machine} {share.state}", _thinned(share.check_ratios)) for share in trained.shares]
    highest = max(limit, *(float(ratios.max()) for _, ratios in series))
    ticks = decades(0.1, 1.2 * highest)
    n_points = sum(len(ratios) for _, ratios in series)
    plot = Plot(
        Axis(0.0, max(1.0, n_points - 1.0), "windows, machine after machine, oldest first"),
        Axis(ticks[0], ticks[-1], "score over the machine's own upper normal score", ticks, logarithmic=True),
        "Scores of the healthy time held back, against the threshold",
        width_px=920,
        height_px=300,
    )
    first = 0
    for name, ratios in series:
        points = [(first + at, float(ratio)) for at, ratio in enumerate(ratios)]
        plot.fence(first, name if len(series) <= 8 else "")
        plot.line(points, "default")
        plot.dots([point for point in points if point[1] > limit], "over")
        first += len(ratios)
    plot.rule(limit, f"threshold {limit:.3g}", "limit")
    lower, upper = trained.final_interval
    return [
        f"<p>The model that ships, on healthy windows that neither it nor its threshold has seen: {trained.final.n_alarms} false "
        f"alarms in {trained.months_checked:.3g} machine-months: between {lower:.3g} and {upper:.3g} a month (95 % at each end), "
        f"where {trained.terms.false_alarms_per_machine_month:g} are allowed.</p>",
        plot.svg(),
    ]


def _thinned(ratios: F64) -> F64:
    """The highest of each stretch, so that nothing above the threshold is lost."""
    if len(ratios) <= MAX_POINTS:
        return ratios
    return np.array([part.max() for part in np.array_split(ratios, MAX_POINTS)])


def _tail(final: Trial, probability: float) -> list[str]:
    """How rare scores are: counted, fitted, and read off where the budget lies."""
    ordered = np.sort(np.concatenate(final.tail_ratios))
    rarity = 1.0 - (np.arange(len(ordered)) + 0.5) / len(ordered)
    tail = final.tail
    fitted = tail.location + np.linspace(0.0, 1.0, 60) * (1.05 * final.threshold_x - tail.location)
    x_high = 1.1 * max(final.threshold_x, float(ordered[-1]))
    ticks = decades(min(probability, rarity[-1]), 1.0)
    plot = Plot(
        Axis(0.0, x_high, "score over the machine's own upper normal score", round_steps(x_high)),
        Axis(ticks[0], ticks[-1], "share of healthy windows above", ticks, logarithmic=True),
        "Tail of healthy scores with its fit",
    )
    plot.dots(zip(ordered.tolist(), rarity.tolist(), strict=True), "")
    plot.line([(float(score), tail.exceedance(float(score))) for score in fitted], "own")
    plot.fence(final.threshold_x, "threshold", "limit")
    plot.rule(probability, f"the budget: one window in {1 / probability:,.0f}", "limit")
    return [
        f"<p>Dots are {tail.n} healthy windows after the model's own; the line is a generalised Pareto tail (shape "
        f"{tail.shape:.3g}) from {tail.location:.3g} up. Where it meets the rate that the budget allows is the threshold; beyond "
        "the last dot it is an extrapolation.</p>",
        plot.svg(),
    ]


# ---------------------------------------------------------------------------------------------- data
MACHINE_HEAD = (
    "machine", "state", "baseline", "model", "threshold", "held back", "spikes taken out", "highest score", "above", "false alarms",
)  # fmt: skip


def _machines(trained: Trained) -> str:
    rows = ((_machine_cells(share, trained), "") for share in trained.shares)
    lead = "<p>Windows by what they were used for, oldest first, and how the held back ones scored (threshold "
    return f"{lead}{trained.final.threshold_x:.3g}).</p>" + _table(MACHINE_HEAD, rows, left=(0, 1))


def _machine_cells(share: Share, trained: Trained) -> tuple[str, ...]:
    limit, terms = trained.final.threshold_x, trained.terms
    return (
        share.machine,
        share.state,
        *map(str, (share.n_learn, share.n_fit, share.n_tail, share.n_check, share.n_spikes)),
        f"{share.check_ratios.max():.2f}",
        f"{100 * share_above(share.check_ratios, limit):.2g} %",
        str(n_alarms(share.check_ratios > limit, terms.k, terms.m)),
    )


def _preparation(trained: Trained) -> str:
    if not trained.n_rows:
        return "<p>Simulated machines: every window was used.</p>"
    reasons: Counter[str] = Counter()
    for (_, reason), count in trained.left_out.items():
        reasons[reason] += count
    machines = sorted({machine for machine, _ in trained.left_out if machine})
    head = ("rows", "all", *machines)
    used = trained.n_rows - sum(reasons.values())
    rows = [(("in the dataset", str(trained.n_rows), *("" for _ in machines)), "")]
    rows += [
        ((f"left out: {reason}", str(count), *(str(trained.left_out.get((one, reason), 0)) for one in machines)), "")
        for reason, count in reasons.most_common()
    ]
    rows.append((("used", str(used), *("" for _ in machines)), "ships"))
    return _table(head, rows)
