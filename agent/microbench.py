"""The agent's own ratios, printed as JSON: `python -m agent.microbench ROOT SECONDS`. Used by `hark bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agent.features.benchmark import vector_over_ffts
from agent.machine import load_machine_profile
from agent.store_benchmark import store_benchmark


def main(root: Path, seconds: float) -> dict[str, float]:
    """Vector time over its FFTs, and tags per second into SQLite over a bare executemany."""
    profile = load_machine_profile(root / "config", "motor")
    return {**vector_over_ffts(profile, seconds), **store_benchmark(seconds)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]))))
