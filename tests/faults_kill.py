"""SIGKILL of the writer: at random instants, and inside the n-th system call that touches the disk."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from ledger import Ledger, Run, acknowledged, cycles
from lives import WRITER, Nursery, until_open

LONGEST_LIFE_S = 0.25
ONE_IN = 5  # lives that are cut while they open; and lives that are cut inside a system call
# (system calls, up to which occurrence of them)
CALLS = (("fdatasync,fsync", 25), ("pwrite64", 200), ("ftruncate,unlink", 3))


def kills(folder: Path, seed: int, n: int, within_s: float = float("inf")) -> Iterator[Run]:
    """Lives of one file, one after another, each killed, each looked at."""
    path = folder / "kill.sqlite"
    ledger = Ledger(power=False)
    traced = shutil.which("strace")
    if not traced:
        print("NO strace: kills inside a system call were NOT made; install strace", file=sys.stderr, flush=True)
    with Nursery() as nursery:

        def one(run_seed: int) -> Run:
            rng = random.Random(run_seed)
            said = folder / "acknowledged"
            said.unlink(missing_ok=True)
            if traced and run_seed % ONE_IN == 0:
                how = _inside_a_call(rng, path, said, run_seed)
            else:
                how = _at_random(rng, nursery, path, said, run_seed)
            run = Run("kill", run_seed, how)
            ledger.look(path, acknowledged(said), run)
            return run

        yield from cycles(one, seed, n, within_s)


def _at_random(rng: random.Random, nursery: Nursery, path: Path, said: Path, seed: int) -> str:
    nursery.begin(path, said, seed)
    opening = rng.randrange(ONE_IN) == 0
    if not opening:
        until_open(said)
    threading.Event().wait(rng.uniform(0, 0.02 if opening else LONGEST_LIFE_S))
    nursery.end()
    return "while opening" if opening else "at a random instant"


def _inside_a_call(rng: random.Random, path: Path, said: Path, seed: int) -> str:
    calls, most = rng.choice(CALLS)
    nth = rng.randint(1, most)
    inject = f"inject={calls}:signal=KILL:when={nth}"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject]
    life = [sys.executable, str(WRITER), str(path), str(said), str(seed), "1.0"]
    done = subprocess.run([*command, *life], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != -signal.SIGKILL:
        raise RuntimeError(f"strace killed nobody: {done.stderr.strip() or done.returncode}; it needs ptrace")
    return f"{calls} {nth}"
