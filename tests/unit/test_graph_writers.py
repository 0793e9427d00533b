"""One graph, two files, three ways to compute it: they must not differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from every_operation import FILE, every_operation, sequence

from agent.errors import BundleRefused
from agent.inference.runtime import Runtime, engine_module
from training.families import Healthy, pca
from training.graph import OPERATIONS, Graph, quadratic_form
from training.write_onnx import to_onnx
from training.write_tflite import to_tflite

WRITERS = {"onnx": to_onnx, "tflite": to_tflite}


def opened(kind: str, graph: Graph) -> Runtime:
    runtime: Runtime = engine_module(kind).open_model(WRITERS[kind](graph))
    return runtime


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("n_columns", [2, 7, 26, 93])
def test_both_engines_compute_what_the_graph_means(kind: str, n_columns: int) -> None:
    """A wrong operator version or option shows only when the file is run, so it is run, on random matrices."""
    rng = np.random.default_rng(n_columns)
    half = rng.standard_normal((n_columns, n_columns)).astype(np.float32)
    graph = quadratic_form("random", half + half.T)
    runtime = opened(kind, graph)
    for _ in range(20):
        z = rng.standard_normal(n_columns).astype(np.float32) * 4
        mask = (rng.random(n_columns) < 0.8).astype(np.float32)
        reference = graph.evaluate({"z": z[None], "mask": mask[None]})
        score, contributions, _ = runtime.score(z, mask)
        assert score == pytest.approx(reference["score"][0, 0], rel=2e-5, abs=1e-5)
        np.testing.assert_allclose(contributions, reference["contributions"][0], rtol=1e-4, atol=1e-4 * (1 + score))


@pytest.mark.parametrize("kind", WRITERS)
def test_an_absent_column_adds_exactly_nothing(kind: str) -> None:
    """Whatever garbage stands in its place: not a small number, nothing; and the rest sums to the score."""
    rng = np.random.default_rng(3)
    runtime = opened(kind, quadratic_form("gaps", rng.standard_normal((9, 9)).astype(np.float32)))
    z, mask = rng.standard_normal(9).astype(np.float32), np.ones(9, np.float32)
    mask[4] = 0.0
    calm, wild = z.copy(), z.copy()
    calm[4], wild[4] = 0.0, 1e4
    score, contributions, _ = runtime.score(calm, mask)
    assert contributions[4] == 0.0
    assert runtime.score(wild, mask)[0] == score
    assert contributions.min() >= 0.0
    assert float(contributions.sum()) == pytest.approx(score, rel=1e-6)


@pytest.mark.parametrize("write", WRITERS.values())
def test_the_same_graph_gives_the_same_bytes(write) -> None:  # type: ignore[no-untyped-def]
    """Rebuilt bundles are compared by hash."""
    matrix = np.eye(5, dtype=np.float32)
    assert write(quadratic_form("same", matrix)) == write(quadratic_form("same", matrix.copy()))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_operation_means_the_same_in_both_engines(kind: str) -> None:
    """The agent never learns the family; a new one is one file in training/families, made of these operations."""
    graph = every_operation()
    assert {node.operation for node in graph.nodes} == set(OPERATIONS)
    runtime, state = opened(kind, graph), None
    z, mask = sequence()
    expected = graph.run(z, mask)
    for at in range(len(z)):
        score, contributions, state = runtime.score(z[at], mask[at], state)
        assert score == pytest.approx(expected["score"][at, 0], rel=1e-5, abs=1e-5)
        np.testing.assert_allclose(contributions, expected["contributions"][at], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state, expected["next_state"][at], rtol=1e-5, atol=1e-5)


def test_what_the_old_engine_is_tried_on_is_what_is_written_today() -> None:
    """The cell of tflite-runtime has no writer; see tests/every_operation.py for how to write the file anew."""
    assert FILE.read_bytes() == to_tflite(every_operation())


@pytest.mark.parametrize("kind", WRITERS)
def test_a_model_with_other_tensors_is_refused_by_name(kind: str) -> None:
    """A state that goes in and never comes out would be no memory."""
    graph = every_operation()
    forgetful = replace(graph, outputs={"score": 1, "contributions": graph.inputs["z"]})
    with pytest.raises(
        BundleRefused, match=r"expected z, mask -> score, contributions \(and state -> next_state\), got"
    ):
        opened(kind, forgetful)


def healthy(n_windows: int, n_columns: int) -> np.ndarray:
    rng = np.random.default_rng(8)
    mixing = rng.standard_normal((n_columns, n_columns)) * 0.4 + np.eye(n_columns)
    return rng.standard_normal((n_windows, n_columns)) @ mixing


def test_contributions_are_the_complete_decomposition_of_the_combined_index() -> None:
    """Alcala and Qin 2009: (xi' Phi^(1/2) z)^2, summing to z' Phi z, here checked against Phi itself."""
    fitted = pca.fit(Healthy(healthy(800, 8), np.ones((800, 8))))
    phi = fitted.matrix @ fitted.matrix
    z = np.random.default_rng(0).standard_normal((1, 8))
    outputs = fitted.graph("pca").evaluate({"z": z, "mask": np.ones((1, 8))})
    assert outputs["score"][0, 0] == pytest.approx(float((z @ phi @ z.T)[0, 0]), rel=1e-9)
    assert fitted.matrix == pytest.approx(fitted.matrix.T)


def test_a_broken_correlation_scores_higher_than_a_change_along_it() -> None:
    """What a limit per column cannot see: both values are ordinary, only their relation is not."""
    rng = np.random.default_rng(2)
    common = rng.standard_normal((2000, 1))
    z = common + 0.15 * rng.standard_normal((2000, 4))
    graph = pca.fit(Healthy(z, np.ones_like(z))).graph("pca")
    along, against = np.array([[1.5, 1.5, 1.5, 1.5]]), np.array([[1.5, 1.5, -1.5, 1.5]])
    scores = graph.evaluate({"z": np.concatenate([along, against]), "mask": np.ones((2, 4))})
    assert scores["score"][1, 0] > 10 * scores["score"][0, 0]
    assert int(np.argmax(scores["contributions"][1])) == 2


def test_a_column_never_seen_in_training_counts_only_as_itself() -> None:
    """A generic bundle knows columns that the simulator does not have; they must not disturb, and not be deaf either."""
    z = healthy(500, 5)
    mask = np.ones_like(z)
    mask[:, 2] = 0.0
    matrix = pca.fit(Healthy(z, mask)).matrix
    off_diagonal = np.delete(matrix[2], 2)
    assert np.abs(off_diagonal).max() == 0.0
    assert matrix[2, 2] > 0.1


def test_tensors_stand_on_their_grid() -> None:
    """Last bits of linear algebra differ between CPUs; hashes of rebuilt tensors must not."""
    z = healthy(400, 6)
    matrix = pca.fit(Healthy(z, np.ones_like(z))).matrix
    assert np.array_equal(matrix / pca.GRID, np.round(matrix / pca.GRID))
    disturbed = pca.fit(Healthy(z * (1 + 1e-9), np.ones_like(z))).matrix
    assert np.array_equal(matrix, disturbed)


def test_too_few_windows_are_refused_with_the_number_that_is_needed() -> None:
    """A covariance of fewer windows than columns is a guess."""
    with pytest.raises(ValueError, match="at least 16"):
        pca.fit(Healthy(np.zeros((10, 8)), np.ones((10, 8))))
