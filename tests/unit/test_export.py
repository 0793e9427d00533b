"""What may not be shipped is not written; what is written is the same every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import site_bundle

from agent.decision.threshold import Tail
from agent.inference.bundle import MANIFEST, read_manifest
from agent.inference.golden import golden_features
from training.export import MAX_BUNDLE_BYTES, WRITERS, ExportRefused, Writer, export, golden_vectors
from training.families import Healthy, pca
from training.graph import Graph, quadratic_form
from training.search import rounded_tail
from training.sensitivity import severity_at_share
from training.train import Kind, golden_sources, synthetic_faults


@pytest.fixture(scope="module")
def kind(root: Path) -> Kind:
    return Kind.named(root, "motor")


@pytest.fixture(scope="module")
def shipped(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site_bundle(root, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def graph(kind: Kind) -> Graph:
    z = np.random.default_rng(4).standard_normal((500, len(kind.floors)))
    return pca.fit(Healthy(z, np.ones_like(z))).graph("motor")


def attempt(
    folder: Path, kind: Kind, graph: Graph, shipped: Path, writers: dict[str, Writer], threshold: float = 5.0
) -> None:
    z = np.random.default_rng(5).standard_normal((200, len(kind.floors))).astype(np.float32)
    healthy = (z, np.ones_like(z))
    vectors = golden_vectors(graph, healthy, synthetic_faults(healthy, 1), threshold)
    draft = read_manifest(shipped)
    compute = golden_features(kind.features)
    export(folder, graph, draft, golden_sources(kind), vectors, compute_features=compute, writers=writers)


def with_matrix(change: Callable[[np.ndarray], np.ndarray]) -> Writer:
    """A TFLite writer that has a bug."""
    return lambda graph: WRITERS["tflite"](
        quadratic_form(graph.name, change(graph.constants["matrix"]).astype(np.float32))
    )


def test_engines_that_differ_by_a_thousandth_are_not_exported(
    tmp_path: Path, kind: Kind, graph: Graph, shipped: Path
) -> None:
    """The limit is 1e-4 of the threshold; which engine, which vector and both numbers are said."""
    broken = {**WRITERS, "tflite": with_matrix(lambda matrix: matrix * 1.0005)}
    with pytest.raises(ExportRefused, match=r"engine tflite differs from the reference: vector \d+.*expected .* got"):
        attempt(tmp_path, kind, graph, shipped, broken)
    assert not (tmp_path / MANIFEST).exists()


def test_an_engine_that_answers_a_constant_is_not_exported(
    tmp_path: Path, kind: Kind, graph: Graph, shipped: Path
) -> None:
    """Full int8 with the score inside did exactly this: it loads, runs, and answers one value."""
    broken = {**WRITERS, "tflite": with_matrix(np.zeros_like)}
    with pytest.raises(ExportRefused, match="engine tflite differs"):
        attempt(tmp_path, kind, graph, shipped, broken)


def test_a_model_that_no_engine_can_load_is_not_exported(
    tmp_path: Path, kind: Kind, graph: Graph, shipped: Path
) -> None:
    """A wrong operator or option is found here and not on a gateway."""
    broken = {**WRITERS, "onnx": lambda graph: b"nonsense"}
    with pytest.raises(ExportRefused, match="engine onnx cannot load what was written for it"):
        attempt(tmp_path, kind, graph, shipped, broken)


def test_a_model_that_tells_no_fault_from_health_is_not_exported(
    tmp_path: Path, kind: Kind, graph: Graph, shipped: Path
) -> None:
    """Golden windows must include faulty ones that score above the threshold."""
    with pytest.raises(ExportRefused, match="no faulty window scores above the threshold"):
        attempt(tmp_path, kind, graph, shipped, dict(WRITERS), threshold=1e9)


def test_a_folder_with_other_things_in_it_is_left_alone(
    tmp_path: Path, kind: Kind, graph: Graph, shipped: Path
) -> None:
    """A mistyped --out must not mix a bundle into somebody's files."""
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(ExportRefused, match=r"thesis\.docx"):
        attempt(tmp_path, kind, graph, shipped, dict(WRITERS))
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.docx"]


def test_the_same_dataset_gives_the_same_bundle_to_the_byte(root: Path, shipped: Path, tmp_path: Path) -> None:
    """Nothing in a bundle comes from a clock, an address or the order of a hash table."""
    again = site_bundle(root, tmp_path)
    for item in sorted(shipped.iterdir()):
        assert (again / item.name).read_bytes() == item.read_bytes(), item.name


def test_a_bundle_is_small_and_its_card_says_what_a_reader_needs(shipped: Path) -> None:
    """At most 100 kB, and in words: use, data, figures, limits, origin."""
    assert sum(item.stat().st_size for item in shipped.iterdir()) <= MAX_BUNDLE_BYTES
    card = (shipped / "card.md").read_text()
    for heading in ("Intended use", "Data", "Model", "Metrics", "Limits", "Columns", "Provenance"):
        assert f"## {heading}" in card


def test_golden_vectors_hold_healthy_and_faulty_ones_far_enough_apart_to_be_ranked(graph: Graph) -> None:
    """And the faulty ones not so far out that float32 itself is coarser than the tolerance."""
    n_columns = graph.inputs["z"]
    z = np.random.default_rng(6).standard_normal((300, n_columns)).astype(np.float32)
    vectors = golden_vectors(graph, (z, np.ones_like(z)), synthetic_faults((z, np.ones_like(z)), 2), 3.0)
    scores = graph.run(vectors.z, vectors.mask)["score"][:, 0]
    assert vectors.faulty.any()
    assert not vectors.faulty.all()
    assert np.diff(np.sort(scores)).min() > 2e-4 * 3.0
    assert scores.max() <= 3.0 * 20.01
    assert (vectors.mask == 0).any()


def test_a_tail_keeps_its_quantiles_when_it_is_rounded_for_the_manifest() -> None:
    """Four digits are enough for any budget that a person states."""
    tail = Tail(location=1.234567, scale=0.3456789, shape=0.1234567, exceedance_rate=0.0512345, n=900)
    for probability in (1e-2, 1e-4, 1e-7):
        assert rounded_tail(tail).quantile(probability) == pytest.approx(tail.quantile(probability), rel=1e-3)


def test_sensitivity_is_read_between_tested_severities_and_never_below_them() -> None:
    """Nothing is claimed that was not tried: the smallest tested severity is the best answer there is."""
    assert severity_at_share({0.1: 0.0, 0.2: 1.0}, 0.5) == pytest.approx(0.15)
    assert severity_at_share({0.1: 1.0, 0.2: 1.0}, 0.5) == 0.1
    assert severity_at_share({0.1: 0.0, 0.2: 0.4}, 0.5) == 2.0


def test_the_manifest_names_what_is_needed_to_make_it_again(shipped: Path) -> None:
    """Data version, seed, sources and libraries; no wall clock."""
    made = read_manifest(shipped).provenance
    assert json.loads(made.data_version)["features"] == 1
    assert made.seed == 1
    assert "sources" in made.code
    assert {"numpy", "onnx", "scikit-learn"} <= set(made.libraries)
