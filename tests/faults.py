"""`make fault`: the store under killed processes, power cuts, full disks and damaged files, with counts.

One JSON line for each run, and one with the sum of each kind (`--json`); else the sums in words. A run is made again by its seed:
`python tests/faults.py --kind corrupt --cycles 1 --seed S --json`; killed and cut files live on from run to run, so there
begin at the first seed. Exits 1 when a promise of docs/reliability.md was not kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import faults_corrupt  # noqa: E402
import faults_full  # noqa: E402
import faults_kill  # noqa: E402
import faults_power  # noqa: E402
import power  # noqa: E402
from ledger import Run, total  # noqa: E402

DOCS = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- runs, written by --docs -->", "<!-- end of runs -->"


@dataclass(frozen=True)
class Kind:
    """One kind of fault: what makes it, how often in CI and for a release, and what its row of the table is called."""

    make: Callable[[Path, int, int, float], Iterator[Run]]
    n_ci: int
    n_release: int
    title: str


KINDS: dict[str, Kind] = {
    "kill": Kind(faults_kill.kills, 50, 1000, "SIGKILL of the writer"),
    "power": Kind(faults_power.cuts, 20, 1000, "power cut, volatile disk cache"),
    "full": Kind(faults_full.fills, 6, 102, "disk full and freed"),
    "corrupt": Kind(faults_corrupt.edits, 50, 1000, "database, log or index edited"),
}
COLUMNS = (
    "fault", "times", "alarms acknowledged", "lost", "doubled", "samples acknowledged", "lost undeclared", "slowest recovery",
    "beside that",
)  # fmt: skip


def runs(kind: str, n: int, seed: int, within_s: float = float("inf")) -> Iterator[Run]:
    """The runs of one kind, in a folder of their own. None, and a loud line, where this machine forbids the kind."""
    if kind == "power" and (why := power.forbidden()):
        print(f"POWER CUTS WERE NOT MADE: {why}", file=sys.stderr, flush=True)
        return
    with tempfile.TemporaryDirectory(prefix=f"hark-{kind}-") as folder:
        yield from KINDS[kind].make(Path(folder), seed, n, within_s)


def _cells(kind: str, figures: dict[str, Any]) -> list[str]:
    """One row of the table."""
    told = {
        "kill": "",
        "power": "declared lost: {samples_lost_declared:,} samples and {bulk_records_lost_declared:,} features, the oldest "
        "{oldest_lost_s:.1f} s old; {bulk_numbers_reused:,} numbers of features given twice",
        "full": "{refusals:,} refusals, each batch kept later; {samples_dropped_declared:,} samples dropped, all in `gap`; "
        "at most {used_most_bytes:,} of {budget_bytes:,} bytes",
        "corrupt": "{files_read_whole:,} files read whole; {records_survived:,} of {records:,} records survived, {records_wrong} "
        "read wrong, {keys_wrong} under a wrong key; unseen: {log_edits_unsaid} of {log_edits} damaged logs",
    }[kind]
    names = dict.fromkeys(re.findall(r"{(\w+)", told), 0) | figures | {"budget_bytes": faults_full.BUDGET_BYTES}
    samples_lost = "as alarms" if kind == "corrupt" else f"{figures['samples_lost']:,}"
    lost = f"{figures['alerts_lost']:,}" + (" (files moved aside, logs that end early)" if kind == "corrupt" else "")
    return [
        KINDS[kind].title, f"{figures['faults']:,}", f"{figures['alerts_committed']:,}", lost,
        f"{figures['alerts_doubled']:,}", f"{figures['samples_committed']:,}", samples_lost,
        f"{1e3 * figures['recovery_s']:.0f} ms", told.format(**names),
    ]  # fmt: skip


def write_docs(sums: dict[str, dict[str, Any]]) -> None:
    """Replace the rows of these kinds in the table; the others stay as they were measured."""
    text = DOCS.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("|")}
    rows |= {KINDS[kind].title: f"| {' | '.join(_cells(kind, figures))} |" for kind, figures in sums.items()}
    ordered = [rows[kind.title] for kind in KINDS.values() if kind.title in rows]
    head = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    DOCS.write_text(before + BEGIN + "\n" + "\n".join(head + ordered) + "\n" + END + after, "utf-8")


def main() -> None:
    """Arguments: which kind, how often, the first seed, what to print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--cycles", type=int, help="faults of each kind; CI size if not given")
    parser.add_argument("--release", action="store_true", help="the counts of a release")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table of docs/reliability.md")
    told = parser.parse_args()
    sums: dict[str, dict[str, Any]] = {}
    for kind in told.kind or list(KINDS):
        n = told.cycles or (KINDS[kind].n_release if told.release else KINDS[kind].n_ci)
        made = []
        for run in runs(kind, n, told.seed):
            made.append(run)
            if told.json or run.problems:
                print(run.line(), flush=True)
        if made:
            sums[kind] = total(made)
            words = ", ".join(f"{name}={value}" for name, value in sums[kind].items())
            print(json.dumps({"sum": kind, **sums[kind]}) if told.json else f"{kind}: {words}", flush=True)
    if told.docs:
        write_docs(sums)
    if any(figures["problems"] for figures in sums.values()):
        sys.exit("a promise of docs/reliability.md was not kept; the lines above name it and its seed")


if __name__ == "__main__":
    main()
