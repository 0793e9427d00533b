"""Bundles of machine types that the simulator does not have: nothing is fitted, and the card says so.

    hark train --generic temperature --out models/temperature/1.0.0
    hark train --generic bearing_scalars --out models/bearing_scalars/1.0.0

Where every column is its own standard, the score is the sum of their squares, and how high it goes while all is well is measured
on made-up histories of slow quantities. Else columns vote (families/votes.py) and the threshold is stated: a number of columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from agent.decision.threshold import Tail, fit_tail
from agent.inference.bundle import FORMAT, Manifest, Metric, Provenance, Shapes
from agent.inference.golden import golden_features, manifest_columns
from training.dataset import sources_sha256
from training.export import export, golden_vectors
from training.families import votes
from training.graph import F32, Graph, quadratic_form
from training.learned import Kind, rounded
from training.search import rounded_tail
from training.slow_histories import INTERVAL_S, N_HISTORIES, healthy_deviations
from training.train import CODE, LIBRARIES, SIMULATED_EPOCH_UTC, Recipe, golden_sources, synthetic_faults

NO_DATA = "no data"  # the beginning of a provenance's source
N_VECTORS = 64  # drawn for the golden ones
N_FEW = 1000  # of many, for the same
HISTORIES = ("training/slow_histories.py", "agent/tagbank.py")


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """What the two ways differ in.

    Attributes:
        learn_windows: for a baseline; of standard columns nothing is learned but which of them are measured.
        healthy, faulty: deviations that golden vectors are chosen from; shape (n, n_columns).
    """

    family: str
    settings: Mapping[str, float | int | str]
    graph: Graph
    tail: Tail
    threshold: float
    reference_score: float | msgspec.UnsetType
    learn_windows: int
    healthy_contributions: tuple[float, ...]
    healthy: F32
    faulty: F32
    source: str
    data_version: str
    code: tuple[str, ...]
    metrics: tuple[Metric, ...] = ()


def make_untrained(root: Path, machine_type: str, out: Path, recipe: Recipe) -> Manifest:
    """The bundle of a machine type of which nothing can be simulated.

    Raises: ExportRefused, ConfigError.
    """
    kind = Kind.named(root, machine_type)
    made = _standard(kind, recipe) if set(kind.transforms) == {"standard"} else _votes(kind, recipe)
    healthy, faulty = ((z, np.ones_like(z)) for z in (made.healthy, made.faulty))
    vectors = golden_vectors(made.graph, healthy, faulty, made.threshold)
    name, _, release = kind.profile.bundle.partition("/")
    nothing = "0" * 64
    draft = Manifest(
        format=FORMAT,
        name=name,
        machine_type=machine_type,
        version=release,
        columns=manifest_columns(kind.features, kind.floors),
        feature_digest=kind.features.digest,
        shapes=Shapes(z=(1, 1), mask=(1, 1), score=(1, 1), contributions=(1, 1)),
        files={"model.onnx": nothing},
        tensors_sha256=nothing,
        tail=made.tail,
        healthy_contributions=made.healthy_contributions,
        k=recipe.k,
        m=recipe.m,
        learn_windows=made.learn_windows,
        false_alarms_per_machine_month=recipe.false_alarms_per_machine_month,
        reference_threshold=made.threshold,
        reference_score=made.reference_score,
        provenance=Provenance(
            source=made.source,
            data_version=made.data_version,
            seed=recipe.seed,
            code=f"hark-edge {version('hark-edge')}, sources {sources_sha256(made.code)[:16]}",
            family=made.family,
            settings=dict(made.settings),
            libraries={library: version(library) for library in LIBRARIES},
        ),
        created_utc=SIMULATED_EPOCH_UTC,
        metrics=made.metrics,
    )
    compute = golden_features(kind.features)
    return export(out, made.graph, draft, golden_sources(kind), vectors, compute_features=compute)


def _standard(kind: Kind, recipe: Recipe) -> _Made:
    z = healthy_deviations(kind, recipe.seed)
    tail = rounded_tail(fit_tail(np.square(z).sum(axis=1)))
    threshold = rounded(tail.quantile(recipe.terms(kind).window_probability))
    few = z[:: max(1, len(z) // N_FEW)]
    return _Made(
        family="standard",
        settings={"n_tail_machines": N_HISTORIES, "decision_interval_s": INTERVAL_S},
        graph=quadratic_form("standard", np.eye(z.shape[1], dtype=np.float32)),
        tail=tail,
        threshold=threshold,
        reference_score=msgspec.UNSET,
        learn_windows=10,
        healthy_contributions=tuple(rounded(mean) for mean in np.square(z).mean(axis=0).tolist()),
        healthy=few,
        faulty=synthetic_faults((few, np.ones_like(few)), recipe.seed)[0],
        source="simulator of slow quantities",
        data_version=sources_sha256(HISTORIES[:1])[:16],
        code=(*CODE, *HISTORIES[1:]),
        metrics=(
            Metric(name="threshold of the score", value=threshold),
            Metric(name="healthy decisions", value=float(len(z))),
        ),
    )


def _votes(kind: Kind, recipe: Recipe) -> _Made:
    n_columns = len(kind.floors)
    model = votes.without_training(n_columns)
    rng = np.random.default_rng(recipe.seed)
    return _Made(
        family="votes",
        settings=model.settings(),
        graph=model.graph(kind.profile.type),
        tail=_stated(votes.AGREEING),
        threshold=votes.AGREEING,
        reference_score=1.0,
        learn_windows=120,
        healthy_contributions=(0.0,) * n_columns,
        healthy=rng.uniform(-1.0, 0.5, (N_VECTORS, n_columns)).astype(np.float32),
        faulty=rng.uniform(0.7, 1.0, (N_VECTORS, n_columns)).astype(np.float32),
        source=f"{NO_DATA}: limits are the machine type's own",
        data_version="none",
        code=CODE,
    )


def _stated(threshold: float) -> Tail:
    """A tail of no width: whatever false-alarm budget a site states, its threshold is this, as there is nothing to count with."""
    return Tail(location=threshold, scale=1e-9, shape=0.0, exceedance_rate=1.0, n=0)
