"""Bundles of machine types whose columns are their own standard: nothing is trained, only the healthy tail is measured.

    python -m training.standard temperature --out models/temperature/1.0.0

The score is the sum of the squared columns. How high it goes while all is well is measured on made-up histories of slow
quantities: they wander, follow the day and stop now and then. They pass the agent's own TagBank.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.decision.threshold import Tail, fit_tail
from agent.inference.bundle import FORMAT, Manifest, Metric, Provenance, Shapes
from agent.inference.golden import golden_features, manifest_columns
from agent.tagbank import STATISTICS, TagBank
from training.dataset import sources_sha256
from training.export import export, golden_vectors
from training.graph import quadratic_form
from training.learned import Kind, rounded
from training.search import rounded_tail
from training.train import CODE, LIBRARIES, SIMULATED_EPOCH_UTC, Recipe, golden_sources, synthetic_faults

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

INTERVAL_S = 600.0
RECIPE = Recipe(decision_interval_s=INTERVAL_S)
N_HISTORIES = 200
DURATION_S = 60 * 86_400.0
DAY_S = 86_400.0
LEARN_WINDOWS = 10  # nothing is learned but which columns are measured
CODE_HERE = (*CODE, "agent/tagbank.py")


def train_standard(root: Path, machine_type: str, out: Path, recipe: Recipe = RECIPE) -> Manifest:
    """The bundle of a machine type, all of whose columns must be standard.

    Raises: ValueError: another column among them. ExportRefused, ConfigError.
    """
    kind = Kind.named(root, machine_type)
    if set(kind.transforms) != {"standard"}:
        raise ValueError(f"{machine_type}: has columns that must be learned; `hark train --generic` makes its bundle")
    z = healthy_deviations(kind, recipe.seed)
    scores = np.square(z).sum(axis=1)
    tail = rounded_tail(fit_tail(scores))
    threshold = rounded(tail.quantile(recipe.terms(kind).window_probability))
    mask = np.ones_like(z)
    graph = quadratic_form("standard", np.eye(z.shape[1], dtype=np.float32))
    draft = _draft(kind, recipe, z, tail, threshold)
    few = z[:: max(1, len(z) // 1000)]
    faulty = synthetic_faults((few, np.ones_like(few)), recipe.seed)
    vectors = golden_vectors(graph, (few, mask[: len(few)]), faulty, threshold)
    return export(out, graph, draft, golden_sources(kind), vectors, compute_features=golden_features(kind.features))


def _draft(kind: Kind, recipe: Recipe, z: F32, tail: Tail, threshold: float) -> Manifest:
    """The manifest without what export fills in: shapes, file hashes, tensor hash."""
    name, _, release = kind.profile.bundle.partition("/")
    nothing = "0" * 64
    return Manifest(
        format=FORMAT,
        name=name,
        machine_type=kind.profile.type,
        version=release,
        columns=manifest_columns(kind.features, kind.floors),
        feature_digest=kind.features.digest,
        shapes=Shapes(z=(1, 1), mask=(1, 1), score=(1, 1), contributions=(1, 1)),
        files={"model.onnx": nothing},
        tensors_sha256=nothing,
        tail=tail,
        healthy_contributions=tuple(rounded(mean) for mean in np.square(z).mean(axis=0).tolist()),
        k=recipe.k,
        m=recipe.m,
        learn_windows=LEARN_WINDOWS,
        false_alarms_per_machine_month=recipe.false_alarms_per_machine_month,
        reference_threshold=threshold,
        provenance=_provenance(recipe),
        created_utc=SIMULATED_EPOCH_UTC,
        metrics=(
            Metric(name="threshold of the score", value=threshold),
            Metric(name="healthy decisions", value=float(len(z))),
        ),
    )


def _provenance(recipe: Recipe) -> Provenance:
    return Provenance(
        source="simulator of slow quantities",
        data_version=sources_sha256(("training/standard.py",))[:16],
        seed=recipe.seed,
        code=f"hark-edge {version('hark-edge')}, sources {sources_sha256(CODE_HERE)[:16]}",
        family="standard",
        settings={"n_tail_machines": N_HISTORIES, "decision_interval_s": INTERVAL_S},
        libraries={library: version(library) for library in LIBRARIES},
    )


def healthy_deviations(kind: Kind, seed: int) -> F32:
    """The columns of healthy histories, in their scales. Shape (n_decisions, n_columns)."""
    rng = np.random.default_rng(seed)
    plan = kind.features.tags
    bank = TagBank(N_HISTORIES, plan)
    channels = np.arange(N_HISTORIES, dtype=np.int32)
    good = np.zeros(N_HISTORIES, np.uint8)
    readers = [STATISTICS[statistic] for _, statistic in kind.features.statistics.values()]
    first_s = max(reader.least_watched_s(plan) for reader in readers)
    kept: list[F64] = []
    for at, values in enumerate(healthy_histories(rng)):
        bank.update(channels, values.astype(np.float32), good, round(at * INTERVAL_S * 1e9))
        if at * INTERVAL_S >= first_s:
            kept.append(np.stack([reader.read(bank, slice(None)) for reader in readers], axis=1))
    return np.asarray(np.concatenate(kept) / np.asarray(kind.floors), np.float32)


def healthy_histories(rng: np.random.Generator) -> F64:
    """Slow quantities that are well: they wander, swing with the day and cool in short stops. Shape (n_times, n_histories)."""
    n_times = round(DURATION_S / INTERVAL_S)
    n = N_HISTORIES
    time_s = INTERVAL_S * np.arange(n_times)[:, None]
    wander = _lagged(rng.standard_normal((n_times, n)), rng.uniform(0.5, 4.0, n) * DAY_S)
    wander /= wander.std(axis=0)
    swing = rng.uniform(0.0, 1.5, n) * np.sin(2 * np.pi * (time_s / DAY_S + rng.random(n)))
    stops = _stops(rng, n_times, stops_per_day=rng.uniform(0.0, 1.0, n))
    cooled = _lagged(stops, np.full(n, 3600.0)) * rng.uniform(2.0, 6.0, n)
    return np.asarray(wander + swing - cooled + 0.2 * rng.standard_normal((n_times, n)), np.float64)


def _stops(rng: np.random.Generator, n_times: int, stops_per_day: F64) -> F64:
    """1 while a machine stands, 0 while it runs: stops of half an hour to four hours. Shape (n_times, n_histories)."""
    n = len(stops_per_day)
    left_s = np.zeros(n)
    standing = np.zeros((n_times, n))
    for row in standing:
        begins = rng.random(n) < stops_per_day * INTERVAL_S / DAY_S
        left_s = np.where(begins, rng.uniform(0.5, 4.0, n) * 3600.0, left_s - INTERVAL_S)
        row[:] = left_s > 0
    return standing


def _lagged(driven: F64, tau_s: F64) -> F64:
    """First-order lag of each column. Shape as `driven`."""
    gain = -np.expm1(-INTERVAL_S / tau_s)
    lagged = np.zeros_like(driven)
    for at in range(1, len(driven)):
        lagged[at] = lagged[at - 1] + gain * (driven[at] - lagged[at - 1])
    return lagged


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.standard", description=train_standard.__doc__)
    parser.add_argument("machine_type")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path())
    given = parser.parse_args(words)
    manifest = train_standard(given.root, given.machine_type, given.out)
    print(f"{given.out}: {manifest.name} {manifest.version}, threshold {manifest.reference_threshold:g}")


if __name__ == "__main__":
    main()
