"""What docs/reliability.md promises of the store, under real faults in CI's counts; `make fault-release` has the full ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import faults
import power
from ledger import total

DRIVER = Path(faults.__file__)
SEED = 0
POWER_WITHIN_S = 22.0
AT_LEAST_CUTS = 4  # on a machine that is very busy


def problems_of(made: list[faults.Run]) -> list[str]:
    """Each as a line that names its seed."""
    return [f"{run.kind} seed={run.seed} {run.how}: {problem}" for run in made for problem in run.problems]


def test_kills_lose_nothing_that_was_acknowledged_and_give_no_number_twice() -> None:
    """A process dies at any instant, also inside fdatasync and pwrite; what it was told is kept is there in at most 5 s."""
    made = list(faults.runs("kill", faults.KINDS["kill"].n_ci, SEED))
    assert problems_of(made) == []
    assert total(made)["faults"] == faults.KINDS["kill"].n_ci
    assert total(made)["alerts_kept"] == total(made)["alerts_committed"] > 100
    assert any("pwrite64" in run.how for run in made), "kills inside a system call need strace; apt-get install strace"


def test_power_cuts_lose_no_alarm_and_at_most_ten_seconds_of_samples() -> None:
    """A disk with a volatile cache loses what no flush covered: a killed process does not show that, so the disk is cut."""
    if not power.possible():
        command = [sys.executable, str(DRIVER), "--kind", "power", "--cycles", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "POWER CUTS WERE NOT MADE" in done.stderr
        return
    made = list(faults.runs("power", faults.KINDS["power"].n_ci, SEED, POWER_WITHIN_S))
    assert problems_of(made) == []
    assert len(made) >= AT_LEAST_CUTS
    figures = total(made)
    assert figures["alerts_kept"] == figures["alerts_committed"] > 0
    assert figures["samples_lost_declared"] > 0, "nothing was in the cache: these were no power cuts"


def test_a_disk_that_fills_and_is_freed_costs_no_alarm_and_no_restart() -> None:
    """In WAL mode a full disk is a trap: not even a DELETE works. The caller keeps its batch and offers it again."""
    made = list(faults.runs("full", faults.KINDS["full"].n_ci, SEED))
    assert problems_of(made) == []
    figures = total(made)
    assert figures["faults"] == faults.KINDS["full"].n_ci
    assert figures["alerts_kept"] == figures["alerts_committed"] > 1000
    assert figures["refusals"] > 0, "the disk was never full"
    assert figures["samples_dropped_declared"] > 0, "the budget was never reached"


def test_a_damaged_file_opens_says_what_is_gone_and_is_written_on() -> None:
    """Bit flips, torn blocks, cut files, noise for a log: the gateway starts, whatever its disk did to it."""
    made = list(faults.runs("corrupt", faults.KINDS["corrupt"].n_ci, SEED))
    assert problems_of(made) == []
    figures = total(made)
    assert figures["faults"] == faults.KINDS["corrupt"].n_ci
    assert 0 < figures["records_survived"] < figures["records"], "edits have to hurt some files and not all"
