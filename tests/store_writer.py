"""The writer whose life is cut: it commits alarms, features and samples for ever and says outside what it was told is kept.

An acknowledgement is one JSON line, written after the call returned:

    {"did": "open"}                                                                the buffer is open
    {"did": "write", "began_s": t, "urgent": b, "records": [[stream, seq, id]], "samples": n}
    {"did": "confirming", "stream": s, "first": seq, "last": seq}                  about to say that the collector has these
    {"did": "confirm", "stream": s, "first": seq, "last": seq}                     and that was kept
    {"did": "settle", "began_s": t}                                                asked to make older commits durable

`python tests/store_writer.py PATH ACKNOWLEDGEMENTS SEED SPEED` is one life. With `nursery` as its only argument it forks one
life for each such line on standard input and answers with its process id, so that a life costs no start of Python.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402

from agent.store import Store  # noqa: E402
from agent.vocabulary import Record  # noqa: E402
from firmware_bridge.measurement import Block  # noqa: E402

GATEWAY = "plant/gw-01"
N_CHANNELS = 20
CHANNELS = tuple(f"M-1.channel_{number}" for number in range(N_CHANNELS))
# Bulk commits between two urgent ones, one row for a life: an alarm close before the cut, seconds of bulk, or bulk alone.
BULK_ALONE = (1_000_000,)
BULK_RUNS = ((0, 1, 2, 5, 20), (0, 5, 400), BULK_ALONE)
MAX_BLOCKS = 3  # in one commit
CONFIRM_SHARE = 0.03  # of the commits, followed by a confirmation
BATCH_PAUSES_S = (0.002, 0.05)  # one of them for a life; a busy log is synced by its checkpoints long before 10 s
SETTLE_EVERY_S = 1.0


def alarm(name: str, rng: random.Random) -> Record:
    """An urgent record that can be told from every other by its id."""
    payload = {"id": name, "alarm_id": f"M-1/{rng.randrange(9)}", "text": "x" * rng.randrange(600)}
    return Record("alarm", "M-1", 1, payload, urgent=True)


def feature(name: str, rng: random.Random) -> Record:
    """A bulk record."""
    return Record("feature", "M-1", 1, {"id": name, "v": [rng.random() for _ in range(rng.randrange(1, 30))]})


def block(rng: random.Random) -> Block:
    """What one poll said."""
    values = np.array([rng.random() for _ in range(N_CHANNELS)], np.float32)
    return Block(np.arange(N_CHANNELS, dtype=np.int32), values, np.zeros(N_CHANNELS, np.uint8), time.time_ns(), 0)


def live(path: str, acknowledgements: str, seed: int, speed: float) -> None:
    """One life; it ends by a signal only.

    Args: speed: how many seconds pass on the store's clock in one second, so that its 10 s need not be waited for.
    """
    real = time.monotonic
    time.monotonic = lambda: real() * speed
    rng = random.Random(seed)
    said_fd = os.open(acknowledgements, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pause = threading.Event()

    def say(**words: Any) -> None:
        os.write(said_fd, json.dumps(words).encode() + b"\n")

    store = Store.open(path, gateway=GATEWAY, channels=CHANNELS)
    say(did="open")
    bulk_runs = rng.choice(BULK_RUNS)
    batch_pause_s = BATCH_PAUSES_S[0]
    if speed > 1:
        batch_pause_s = BATCH_PAUSES_S[1] if bulk_runs is BULK_ALONE else rng.choice(BATCH_PAUSES_S)
    left, n, settled_s = rng.choice(bulk_runs), 0, time.monotonic()
    told: dict[str, list[int]] = {"alarm": [], "feature": []}
    while True:
        items: list[Record | Block] = [block(rng) for _ in range(rng.randint(1, MAX_BLOCKS))]
        n_blocks = len(items)
        if urgent := left <= 0:
            left = rng.choice(bulk_runs)
            items += [alarm(f"{seed}.{n}.{number}", rng) for number in range(rng.randint(1, 3))]
        if rng.random() < 0.5:
            items.append(feature(f"{seed}.{n}.f", rng))
        left, n = left - 1, n + 1
        began_s = time.monotonic()
        kept = store.write(items)
        records = [[record.stream, record.seq, record.body()["id"]] for record in kept]
        say(did="write", began_s=began_s, urgent=urgent, records=records, samples=n_blocks)
        for record in kept:
            told[record.stream].append(record.seq)
        stream = rng.choice(("alarm", "feature"))
        if bulk_runs is not BULK_ALONE and len(told[stream]) > 1 and rng.random() < CONFIRM_SHARE:
            first, last = told[stream][0], told[stream][-1]
            say(did="confirming", stream=stream, first=first, last=last)
            store.mark_confirmed(stream, [(first, last)])
            say(did="confirm", stream=stream, first=first, last=last)
            told[stream].clear()
        began_s = time.monotonic()
        if began_s - settled_s >= SETTLE_EVERY_S:
            settled_s = began_s
            store.settle(began_s)
            say(did="settle", began_s=began_s)
        pause.wait(batch_pause_s)


def nursery() -> None:
    """Fork one life for each line; its parent tells its id, its end and nothing else."""
    for line in sys.stdin:
        path, acknowledgements, seed, speed = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                live(path, acknowledgements, seed, speed)
            except BaseException as error:  # a cut disk answers with errors: that is this life's end
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(1)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["nursery"]:
        nursery()
    else:
        live(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
