"""Bundles of machine types of which there are no data to train on: a family that needs none, and a threshold that is stated.

    hark train --generic bearing_scalars --family votes --out models/bearing_scalars/1.0.0

What such a model says is what its family's file says, not what was measured; the card says so.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np

from agent.decision.threshold import Tail
from agent.inference.bundle import FORMAT, Manifest, Provenance, Shapes
from agent.inference.golden import golden_features, manifest_columns
from training.dataset import sources_sha256
from training.export import export, golden_vectors
from training.families import votes
from training.graph import F32
from training.learned import Kind
from training.train import CODE, LIBRARIES, SIMULATED_EPOCH_UTC, Recipe, golden_sources

NO_DATA = "no data"  # the beginning of a provenance's source
LEARN_WINDOWS = 120
N_VECTORS = 64  # drawn for the golden ones


def make_votes(root: Path, machine_type: str, out: Path, recipe: Recipe) -> Manifest:
    """The bundle of a machine type with the model `votes`.

    Raises: ExportRefused, ConfigError.
    """
    kind = Kind.named(root, machine_type)
    n_columns = len(kind.floors)
    model = votes.without_training(n_columns)
    graph = model.graph(machine_type)
    rng = np.random.default_rng(recipe.seed)
    healthy, faulty = (_drawn(rng, *within, n_columns) for within in ((-1.0, 0.5), (0.7, 1.0)))
    vectors = golden_vectors(graph, healthy, faulty, votes.AGREEING)
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
        tail=_stated(votes.AGREEING),
        healthy_contributions=(0.0,) * n_columns,
        k=recipe.k,
        m=recipe.m,
        learn_windows=LEARN_WINDOWS,
        false_alarms_per_machine_month=recipe.false_alarms_per_machine_month,
        reference_threshold=votes.AGREEING,
        reference_score=1.0,
        provenance=Provenance(
            source=f"{NO_DATA}: limits are the machine type's own",
            data_version="none",
            seed=recipe.seed,
            code=f"hark-edge {version('hark-edge')}, sources {sources_sha256(CODE)[:16]}",
            family="votes",
            settings=model.settings(),
            libraries={library: version(library) for library in LIBRARIES},
        ),
        created_utc=SIMULATED_EPOCH_UTC,
    )
    compute = golden_features(kind.features)
    return export(out, graph, draft, golden_sources(kind), vectors, compute_features=compute)


def _drawn(rng: np.random.Generator, low: float, high: float, n_columns: int) -> tuple[F32, F32]:
    """Deviations evenly between two bounds, and a mask that leaves nothing out."""
    z = rng.uniform(low, high, (N_VECTORS, n_columns)).astype(np.float32)
    return z, np.ones_like(z)


def _stated(threshold: float) -> Tail:
    """A tail of no width: whatever false-alarm budget a site states, its threshold is this, as there is nothing to count with."""
    return Tail(location=threshold, scale=1e-9, shape=0.0, exceedance_rate=1.0, n=0)
