"""`make fuzz`: hostile inputs for every decoder of the bridge. No crash, no hang, bounded memory.

Every target is a plain function that may raise nothing; the same functions are driven by hypothesis in the test suite.
Inputs come from a seed, so that a failure is repeated by the command that the failure prints.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import fuzz_chunks  # noqa: E402
import fuzz_frames  # noqa: E402
import fuzz_modbus_answers  # noqa: E402
import fuzz_modbus_server  # noqa: E402
import fuzz_payload  # noqa: E402
import fuzz_sparkplug  # noqa: E402

HANG_S = 5
MAX_GROWTH_MIB = 32.0


def noise(seed: int) -> bytes:
    """Random bytes, short ones more often."""
    rng = random.Random(seed)
    return rng.randbytes(int(rng.random() ** 3 * 1024))


def sparkplug(seed: int) -> bytes:
    """Payloads of edge nodes, damaged."""
    return next(iter(fuzz_sparkplug.inputs(seed)))


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[int], bytes]]] = {
    "modbus-answers": (fuzz_modbus_answers.fuzz_answer, fuzz_modbus_answers.inputs),
    "modbus-requests": (fuzz_modbus_server.fuzz_request, noise),
    "modbus-words": (fuzz_frames.fuzz_words, noise),
    "frames": (fuzz_frames.fuzz_frame, fuzz_frames.frames),
    "frames-noise": (fuzz_frames.fuzz_frame, noise),
    "chunks": (fuzz_chunks.fuzz_chunk, fuzz_chunks.inputs),
    "chunks-noise": (fuzz_chunks.fuzz_chunk, noise),
    "json": (fuzz_payload.fuzz_json, noise),
    "json-bursts": (fuzz_payload.fuzz_burst, noise),
    "packets": (fuzz_payload.fuzz_packets, noise),
    "sparkplug": (fuzz_sparkplug.fuzz_one, sparkplug),
    "sparkplug-noise": (fuzz_sparkplug.fuzz_one, noise),
}


def rss_mib() -> float:
    """Resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


def hangs(_number: int, _frame: object) -> None:
    raise TimeoutError(f"one input took more than {HANG_S} s")


def run(name: str, seeds: Iterator[int]) -> tuple[int, float, float]:
    """All inputs of one target; how many, the slowest in seconds, how much memory grew in MiB."""
    target, make = TARGETS[name]
    n, slowest_s, before_mib = 0, 0.0, 0.0
    for seed in seeds:
        data = make(seed)
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        started_s = time.perf_counter()
        try:
            target(data)
        except BaseException:
            signal.setitimer(signal.ITIMER_REAL, 0)
            traceback.print_exc()
            sys.exit(
                f"{name}: input {data[:200].hex()} failed; again with:  make fuzz TARGET={name} SEED={seed} INPUTS=1"
            )
        signal.setitimer(signal.ITIMER_REAL, 0)
        slowest_s = max(slowest_s, time.perf_counter() - started_s)
        n += 1
        if n == 1000:  # modules, caches and pools are filled
            before_mib = rss_mib()
    growth_mib = rss_mib() - before_mib if before_mib else 0.0
    if growth_mib > MAX_GROWTH_MIB:
        sys.exit(f"{name}: memory grew by {growth_mib:.0f} MiB over {n} inputs")
    return n, slowest_s, growth_mib


def main() -> None:
    """Arguments: how many inputs in all, which target, the first seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--target", choices=list(TARGETS), default=None)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    signal.signal(signal.SIGALRM, hangs)
    warnings.simplefilter("error", RuntimeWarning)
    names = [told.target] if told.target else list(TARGETS)
    each = -(-told.inputs // len(names))
    total, started_s = 0, time.monotonic()
    for name in names:
        n, slowest_s, growth_mib = run(name, iter(range(told.seed, told.seed + each)))
        total += n
        print(f"{name:16} {n:9,} inputs, slowest {1e3 * slowest_s:7.2f} ms, memory {growth_mib:+5.1f} MiB", flush=True)
    print(f"{total:,} inputs in {time.monotonic() - started_s:.0f} s: no crash, no hang")


if __name__ == "__main__":
    main()
