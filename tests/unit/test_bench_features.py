"""`hark bench features`: the figures that the README's claims of speed rest on are all there, and a peer that is not is named."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.feature_benchmark import full_profile
from agent.features import feature_set_of, known_features
from agent.machine import load_machine_profile
from simulator.bench import PEERS, _lines
from training import feature_bench

ROOT = Path(__file__).parents[2]
ROOMS = ("firmware_bridge", "agent", "simulator", "training")
KEYS = [
    "vector_over_ffts_single", "vector_over_ffts_fours", "naive_over_ours", "tsfresh_minimal_over_ours",
    "tsfresh_subset_over_ours", "tsfel_subset_over_ours", "page_faults_per_window", "tagbank_over_bare",
    "tagbank_median_over_bare", "river_over_tagbank", "machines_per_core",
]  # fmt: skip


def test_the_part_prints_every_figure_and_nothing_else():
    """A script that watches these ratios reads them by name; every peer of the development environment has run."""
    command = [sys.executable, "-m", "agent", "bench", "features", "--json", "--seconds", "0.2", "--root", str(ROOT)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    figures = json.loads(answer.stdout)
    assert sorted(figures) == sorted(KEYS)
    assert all(math.isfinite(value) and value >= 0 for value in figures.values())


@pytest.mark.parametrize("package", ["tsfresh", "tsfel", "river"])
def test_a_peer_that_is_not_installed_is_null_and_named_with_its_remedy(monkeypatch, package):
    """The bench runs on any gateway, and nobody carries tsfresh to one."""
    monkeypatch.setitem(sys.modules, package, None)
    features = feature_set_of(full_profile(load_machine_profile(ROOT / "config", "motor")))
    window = feature_bench.noise_window(features)
    candidates = {"tsfresh": lambda: feature_bench.tsfresh(window), "tsfel": lambda: feature_bench.tsfel(window)}
    candidates["river"] = feature_bench.river
    assert candidates[package]() == {}
    assert feature_bench.ratio({"core": 1.0}, package, "core") is None
    missing = [name for name, peer in PEERS.items() if peer == package]
    lines = _lines(dict.fromkeys(missing))
    assert len(lines) == len(missing) > 0
    assert all(f"{package} is not installed: pip install {package}" in line for line in lines)


def test_the_matching_subsets_name_features_that_we_have():
    """Each of the peers' features in the comparison answers to one of ours; the tables say to which."""
    named = {ours for row in feature_bench.TSFRESH_SUBSET for ours in row[0]}
    named |= {row[0] for row in feature_bench.TSFEL_SUBSET}
    assert named <= set(known_features())


def test_only_the_bench_imports_the_peers():
    """They and their pandas are in the development environment, but in no extra: elsewhere an import would fail at a user's."""
    line = re.compile(r"^\s*(from|import) (tsfresh|tsfel|river|pandas)\b", re.MULTILINE)
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in files if line.search(path.read_text("utf-8"))] == ["feature_bench.py"]
