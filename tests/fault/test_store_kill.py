"""A killed process: every alarm that was acknowledged is there, and no number is given twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from agent.store import Store
from agent.vocabulary import Record

WRITER = """
import sys
from agent.store import Store
from agent.vocabulary import Record
store = Store.open(sys.argv[1], gateway="demo/gw-01")
while True:
    kept = store.write([Record("alarm", "M-1", 1, {"text": "x"}, urgent=True), Record("feature", "M-1", 1, {"v": 1})])
    print(*(f"{record.stream}:{record.seq}" for record in kept), flush=True)
"""
KILLS = 5
IN_FLIGHT = 20  # records that a killed writer may have kept and not yet said so; on a busy machine its words lag behind


def test_five_kills_lose_no_acknowledged_record_and_repeat_no_number(tmp_path: Path) -> None:
    """SIGKILL between any two instructions of the writer; what it printed it had been told was kept."""
    path = tmp_path / "buffer.sqlite"
    acknowledged: list[str] = []
    for n_lines in range(20, 20 + 7 * KILLS, 7):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        deadline = time.monotonic() + 20
        for _ in range(n_lines):
            assert time.monotonic() < deadline
            acknowledged += writer.stdout.readline().split()
        writer.kill()
        rest, _ = writer.communicate(timeout=10)
        acknowledged += [key for line in rest.splitlines(keepends=True) if line.endswith("\n") for key in line.split()]
    with sqlite3.connect(path) as reader:
        stored = [f"{stream}:{seq}" for stream, seq in reader.execute("SELECT stream, seq FROM record")]
    assert len(acknowledged) == len(set(acknowledged)), "a number was given twice"
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored)) <= len(acknowledged) + IN_FLIGHT * KILLS
    store = Store.open(path, gateway="demo/gw-01")
    assert store.write([Record("alarm", "M-1", 1, {})])[0].seq > len(acknowledged) // 2
    store.close()
