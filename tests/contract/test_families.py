"""One battery over every model family: what the agent and the leaderboard take for granted of each.

The healthy machines here are made up: columns that move together, windows that depend on the ones before, machines that stand a
little off their own baselines, one column with gaps and one that was never measured.
"""

from __future__ import annotations

import inspect
import pkgutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bundles import family_bundle, golden_changed, rewritten

from agent.baseline import Z_LIMIT
from agent.errors import BundleRefused
from agent.inference.bundle import open_bundle
from agent.inference.golden import golden_features
from agent.inference.runtime import Runtime, engine_module
from firmware_bridge.registry import module_named
from training import families
from training.dataset import TrainingRefused
from training.families import Healthy, votes
from training.graph import Graph, starts_of
from training.search import candidates
from training.train import Kind
from training.write_onnx import to_onnx
from training.write_tflite import to_tflite

EVERY = sorted(found.name for found in pkgutil.iter_modules(families.__path__))
# Votes are not fitted: what the search takes for granted of a family (one level that stands out is enough) they are made against.
FAMILIES = [name for name in EVERY if hasattr(module_named(families, name), "fit")]
WITH_MEMORY = ("cusum", "ewma", "pca_ewma")
WRITERS = {"onnx": to_onnx, "tflite": to_tflite}
N_COLUMNS, LEVEL, GAPPED, UNSEEN = 40, 0, 7, 9
NAMES = ["spectrum.velocity_rms_mm_s", *(f"column_{at}" for at in range(1, N_COLUMNS))]
N_MACHINES, N_WINDOWS = 8, 150
HALF = slice(0, 20)  # of the columns: those of a fault that creeps


@cache
def healthy(seed: int) -> Healthy:
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(99).standard_normal((4, N_COLUMNS))
    machines = []
    for _ in range(N_MACHINES):
        causes = _wandering(rng, 4)
        own = _wandering(rng, N_COLUMNS)
        z = (causes @ loadings + 1.5 * own) / 2.5
        machines.append(z - np.median(z[:60], axis=0))
    z = np.concatenate(machines).astype(np.float32)
    mask = np.ones_like(z)
    mask[:, GAPPED] = rng.random(len(z)) < 0.7
    mask[:, UNSEEN] = 0.0
    return Healthy(z * mask, mask, NAMES, 3, starts_of([N_WINDOWS] * N_MACHINES))


def _wandering(rng: np.random.Generator, n: int) -> np.ndarray:
    """Unit variance; a fifth of every window is still there in the next one."""
    values = rng.standard_normal((N_WINDOWS, n))
    for at in range(1, N_WINDOWS):
        values[at] = 0.2 * values[at - 1] + np.sqrt(1 - 0.2**2) * values[at]
    return values


def fit(family: str, data: Healthy) -> Any:
    module = module_named(families, family)
    if family not in FAMILIES:
        return module.without_training(N_COLUMNS)
    return module.fit(data)


@cache
def graph_of(family: str) -> Graph:
    graph: Graph = fit(family, healthy(1)).graph(family)
    return graph


@cache
def threshold_of(family: str) -> float:
    """What healthy machines that were not trained on exceed in one window of two hundred, once memories have filled."""
    data = healthy(2)
    scores = graph_of(family).run(data.z, data.mask, data.starts)["score"].reshape(N_MACHINES, N_WINDOWS)
    return float(np.quantile(scores[:, 30:], 0.995))


def opened(kind: str, graph: Graph) -> Runtime:
    runtime: Runtime = engine_module(kind).open_model(WRITERS[kind](graph))
    return runtime


def one_machine(seed: int, n_windows: int) -> tuple[np.ndarray, np.ndarray]:
    data = healthy(seed)
    return data.z[:n_windows].copy(), data.mask[:n_windows].copy()


@pytest.mark.parametrize("engine", WRITERS)
@pytest.mark.parametrize("family", EVERY)
def test_both_engines_stay_with_the_reference_over_a_sequence_with_gaps(family: str, engine: str) -> None:
    """Each carries its own float32 state for sixty windows, through healthy ones, gaps and a fault; rounding must not add up."""
    graph = graph_of(family)
    runtime = opened(engine, graph)
    z, mask = one_machine(3, 60)
    mask[20:30, ::3] = 0.0
    z[40:, HALF] += 3.0
    reference = graph.run(z * mask, mask)
    tolerance = 1e-5 * threshold_of(family) + 2e-5 * reference["score"][:, 0]
    state = None
    for at in range(len(z)):
        score, contributions, state = runtime.score(z[at] * mask[at], mask[at], state)
        assert abs(score - reference["score"][at, 0]) <= tolerance[at]
        assert np.abs(contributions - reference["contributions"][at]).max() <= tolerance[at]
        assert np.abs(state - reference["next_state"][at]).max(initial=0.0) <= 1e-4
    assert state.shape == (graph.n_state,)


@pytest.mark.parametrize("engine", WRITERS)
@pytest.mark.parametrize("family", EVERY)
def test_contributions_are_never_negative_and_sum_to_the_score(family: str, engine: str) -> None:
    """The evidence of an alarm is the score itself, by column; what is absent gives no evidence."""
    runtime = opened(engine, graph_of(family))
    z, mask = one_machine(4, 30)
    mask[:, ::4] = 0.0
    state = None
    for row, gaps in zip(z * mask, mask, strict=True):
        score, contributions, state = runtime.score(row, gaps, state)
        assert contributions.min() >= 0.0
        assert np.all(contributions[gaps == 0] == 0.0)
        assert float(contributions.sum()) == pytest.approx(score, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("engine", WRITERS)
@pytest.mark.parametrize("family", EVERY)
def test_whatever_stands_in_an_absent_column_changes_nothing(family: str, engine: str) -> None:
    """Neither the score nor, to the bit, what is remembered of that column: a silent sensor is not a change of the machine."""
    runtime = opened(engine, graph_of(family))
    z, mask = one_machine(5, 10)
    z += 2.0  # so that there is something to forget
    state = None
    for row, gaps in zip(z, mask, strict=True):
        state = runtime.score(row, gaps, state).state
    absent = mask[-1].copy()
    absent[:20] = 0.0
    calm, wild = z[-1] * absent, np.where(absent > 0, z[-1], np.float32(1e4))
    assert runtime.score(calm, absent, state).value == runtime.score(wild, absent, state).value
    for row in (calm, wild):
        after = runtime.score(row, absent, state).state
        assert np.array_equal(after[:20], state[:20])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_rises_with_a_planted_deviation(family: str) -> None:
    """Held for a while, because a memory takes its time; in the level, which is all that the plain limit watches."""
    graph = graph_of(family)
    scores = []
    for size in (0.0, 2.0, 4.0, 8.0):
        z, mask = one_machine(6, 60)
        z[40:, LEVEL] += size
        scores.append(float(np.median(graph.run(z, mask)["score"][50:, 0])))
    assert scores == sorted(scores)
    assert scores[-1] > threshold_of(family)


@pytest.mark.parametrize("family", WITH_MEMORY)
def test_a_memory_sees_a_slow_change_that_pca_misses(family: str) -> None:
    """Half of the columns creep by half a standard deviation over fifty windows and stay there; no single window shows it."""

    def found(name: str) -> float:
        data = healthy(7)
        z = data.z.reshape(N_MACHINES, N_WINDOWS, N_COLUMNS).copy()
        z[:, 50:, HALF] += 0.5 * np.minimum(np.arange(N_WINDOWS - 50) / 50, 1.0)[:, None]
        scores = graph_of(name).run(z.reshape(data.z.shape) * data.mask, data.mask, data.starts)["score"]
        return float(np.mean(scores.reshape(N_MACHINES, N_WINDOWS)[:, -25:] > threshold_of(name)))

    assert found("pca") < 0.1
    assert found(family) > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_a_memory_is_bounded_and_comes_back(family: str) -> None:
    """The wildest values that a baseline lets through, for hours; and some hours after them the machine is itself again."""
    graph = graph_of(family)
    z, mask = one_machine(8, 150)
    z[20:60] = Z_LIMIT * np.sign(np.random.default_rng(0).standard_normal(N_COLUMNS))
    outputs = graph.run(z, mask)
    assert np.isfinite(outputs["next_state"]).all()
    assert np.abs(outputs["next_state"]).max(initial=0.0) < 50.0
    assert outputs["score"][59, 0] > threshold_of(family)
    assert np.median(outputs["score"][-20:, 0]) < threshold_of(family)


@pytest.mark.parametrize("family", EVERY)
def test_machines_side_by_side_are_scored_as_each_alone(family: str) -> None:
    """Training runs all sequences in step; on a gateway each runs by itself."""
    graph = graph_of(family)
    z, mask = one_machine(9, 50)
    together = graph.run(z, mask, (0, 35))
    for part in (slice(0, 35), slice(35, 50)):
        alone = graph.run(z[part], mask[part])
        np.testing.assert_allclose(together["score"][part], alone["score"], rtol=1e-9)
        np.testing.assert_allclose(together["next_state"][part], alone["next_state"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", EVERY)
def test_both_model_files_of_forty_columns_are_below_a_bundles_size(family: str) -> None:
    """A bundle goes over a mobile line: both files, golden windows and card in 100 kB; here both files in 60."""
    assert sum(len(write(graph_of(family))) for write in WRITERS.values()) < 60_000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rebuild_gives_the_same_bytes_even_where_the_last_bit_differs(family: str) -> None:
    """Libraries and CPUs round differently in the last bit; the files' hashes must not."""
    data = healthy(1)
    last_bit = 1 + 1e-15 * np.random.default_rng(0).standard_normal(data.z.shape)
    disturbed = replace(data, z=data.z.astype(np.float64) * last_bit)
    again = fit(family, disturbed).graph(family)
    assert all(write(again) == write(graph_of(family)) for write in WRITERS.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_states_its_settings_and_can_be_called_with_each(family: str) -> None:
    """What the search may try, the default first; the defaults alone are enough to call it."""
    module: ModuleType = module_named(families, family)
    data = healthy(1)
    assert all(
        isinstance(value, int | float | str) for value in module.fit(Healthy(data.z, data.mask)).settings().values()
    )
    for name, tried in module.SETTINGS.items():
        assert inspect.signature(module.fit).parameters[name].default == tried[0]
        assert (
            module.fit(Healthy(data.z, data.mask, starts=data.starts), **{name: tried[-1]}).graph("tried").name
            == "tried"
        )


def test_the_plain_limit_watches_velocity_and_nothing_else() -> None:
    """The reference of the board: what is on most plants' walls. Without a velocity column it takes the next best level."""
    data = healthy(1)
    contributions = graph_of("rms_limit").run(data.z + 3.0, data.mask)["contributions"]
    assert np.flatnonzero(contributions.any(axis=0)).tolist() == [LEVEL]
    others = ["acceleration_rms_1_g", *NAMES[1:]]
    graph = module_named(families, "rms_limit").fit(Healthy(data.z, data.mask, others)).graph("level")
    assert np.flatnonzero(graph.constants["per_limit"][0]).tolist() == [LEVEL]


@pytest.mark.parametrize("engine", WRITERS)
def test_votes_need_two_columns_whatever_one_of_them_does(engine: str) -> None:
    """Lubrication raises the highest band for weeks, tenfold; two bands that are nearly a quarter up are a damage. No fall is."""
    runtime = opened(engine, votes.without_training(4).graph("bands"))
    mask = np.ones(4, np.float32)

    def agrees(*z: float) -> bool:
        return runtime.score(np.array(z, np.float32), mask)[0] > votes.AGREEING

    assert not agrees(0, 0, 0, 1e4)
    assert not agrees(-9, -9, -9, -9)
    assert not agrees(0, 0.6, 0, 1e4)
    assert agrees(0, 0.95, 0, 0.95)
    assert agrees(0.7, 0.7, 0.7, 0.7)


def test_what_is_not_fitted_is_no_candidate() -> None:
    """`hark train` compares what it can fit, and says so of what it cannot."""
    assert "votes" not in {candidate.family for candidate in candidates()}
    with pytest.raises(TrainingRefused, match="family votes: is not fitted to data; name one of autoencoder"):
        candidates(["votes"])


# ------------------------------------------------------------------------------------------------------- bundles
@pytest.fixture(scope="module")
def kind(root: Path) -> Kind:
    return Kind.named(root, "motor")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_becomes_a_bundle_that_opens_on_both_engines(
    root: Path, family: str, kind: Kind, tmp_path: Path
) -> None:
    """The whole door: golden vectors with their states, both engines against the reference and each other."""
    manifest = family_bundle(root, kind, family, tmp_path)
    assert manifest.shapes.n_state == (len(manifest.columns) if family in WITH_MEMORY else 0)
    for engine in WRITERS:
        bundle = open_bundle(tmp_path, kind.features.digest, engine, golden_features(kind.features))
        assert bundle.golden.faulty.sum() >= 4
        z, mask = bundle.golden.z[0], bundle.golden.mask[0]
        first = bundle.step(z, mask)
        assert bundle.score(z, mask)[0] == first.value
        assert bundle.step(z, mask, first.state).state.shape == (manifest.shapes.n_state,)


def test_a_memory_that_comes_out_differently_here_is_refused(root: Path, kind: Kind, tmp_path: Path) -> None:
    """Scores may still agree in the first window, and drift apart for months."""
    family_bundle(root, kind, "ewma", tmp_path)

    def skew(arrays: dict[str, np.ndarray]) -> None:
        arrays["next_state"][3, 2] += 1e-3

    golden_changed(tmp_path, skew)
    with pytest.raises(BundleRefused, match=r"vector 3, state 2: expected"):
        open_bundle(tmp_path, kind.features.digest, "onnx")


def test_a_memory_that_the_manifest_does_not_name_is_refused(root: Path, kind: Kind, tmp_path: Path) -> None:
    """The agent would feed no state and score every window as the first one."""
    family_bundle(root, kind, "ewma", tmp_path)
    rewritten(tmp_path, lambda tree: tree["shapes"].pop("state"))
    with pytest.raises(BundleRefused, match=r"model\.tflite: tensor shapes: expected \d+ columns, 0 remembered"):
        open_bundle(tmp_path, kind.features.digest, "tflite")
