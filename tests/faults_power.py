"""Power cuts with a volatile disk cache while the writer commits; see power.py for how one is made."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import power
from ledger import Ledger, Run, acknowledged, cycles
from lives import Nursery, until_open

SPEED = 10.0  # the store's 10 s pass in one
LONGEST_LIFE_S = 2.0
OPENING_ONE_IN = 5
CUTS_PER_IMAGE = 20  # then an empty disk, so that first starts are cut too


def cuts(folder: Path, seed: int, n: int, within_s: float = float("inf")) -> Iterator[Run]:
    """Lives of one disk, one after another, each ended by a power cut, each looked at after the next boot."""
    disk, ledger, n_cut = power.Disk(folder), Ledger(power=True), 0
    said = folder / "acknowledged"
    path = disk.mount / "hark" / "power.sqlite"
    with Nursery() as nursery:

        def one(run_seed: int) -> Run:
            nonlocal ledger, n_cut
            rng = random.Random(run_seed)
            if n_cut and n_cut % CUTS_PER_IMAGE == 0:
                disk.format()
                ledger = Ledger(power=True)
            said.unlink(missing_ok=True)
            opening = rng.randrange(OPENING_ONE_IN) == 0
            with disk.on():
                nursery.begin(path, said, run_seed, SPEED)
                if not opening:
                    until_open(said)
                threading.Event().wait(rng.uniform(0, 0.1 if opening else LONGEST_LIFE_S))
                disk.cut()
                nursery.end()
            n_cut += 1
            run = Run("power", run_seed, "while opening" if opening else "at a random instant")
            with disk.plain():
                ledger.look(path, acknowledged(said), run)
            return run

        yield from cycles(one, seed, n, within_s)
