"""What is learned as normal when the learning time was not: odd windows left out, a meter's own accuracy as least spread."""

from __future__ import annotations

import numpy as np
import pytest

from agent.baseline import Baseline, Learner, _chi_square
from agent.vocabulary import F32, FeatureVector, Mode, OperatingState

TRANSFORMS, FLOORS = ("linear", "log", "log"), (0.05, 0.04, 0.04)


def windows(values: F32) -> list[FeatureVector]:
    state = OperatingState(Mode.RUNNING)
    present = np.ones(values.shape[1], np.bool_)
    return [FeatureVector("LOOP", state, row, present, "d", i, i) for i, row in enumerate(values)]


def healthy(n: int, seed: int = 1) -> F32:
    """A loop of 100 l/min and two accelerometers."""
    rng = np.random.default_rng(seed)
    columns = [100 + rng.normal(0, 0.5, n), 0.2 * np.exp(rng.normal(0, 0.05, n)), 0.3 * np.exp(rng.normal(0, 0.05, n))]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_a_stop_in_the_learning_time_is_left_out(share: float) -> None:
    """Otherwise a third of the learning time without flow makes every later stop normal."""
    values = healthy(300)
    n_odd = round(share * 300)
    values[:n_odd, 0] = 20.0
    learner = Learner(300, TRANSFORMS, FLOORS)
    kept = learner.most(windows(values))
    assert not any(vector.values[0] < 50 for vector in kept)
    assert len(kept) >= 0.95 * (300 - n_odd)
    clean = learner.fit(windows(healthy(300)))
    np.testing.assert_allclose(learner.fit(kept).location, clean.location, rtol=0.01, atol=0.01)


def test_a_healthy_machine_loses_next_to_nothing() -> None:
    """One window in a hundred is what the bound costs, and wander that all windows share costs no more."""
    values = healthy(2000)
    learner = Learner(2000, TRANSFORMS, FLOORS)
    assert len(learner.most(windows(values))) > 0.97 * 2000
    values[:, 0] += 2 * np.sin(np.arange(2000) / 300).astype(np.float32)
    assert len(learner.most(windows(values))) > 0.97 * 2000


def test_two_ways_of_running_are_both_kept() -> None:
    """Half and half is no fault in the learning time but a machine with two loads: nobody can say which one is odd."""
    values = healthy(300)
    values[::2, 0] = 60.0
    assert len(Learner(300, TRANSFORMS, FLOORS).most(windows(values))) == 300


def test_a_meter_is_not_believed_beyond_its_accuracy_of_reading() -> None:
    """Half a per cent of 128 l/min and of 32 l/min are different floors; one in l/min would fit neither."""
    for level in (32.0, 128.0):
        values = np.column_stack([np.full(100, level), np.full(100, 0.2), np.full(100, 0.3)]).astype(np.float32)
        baseline = Baseline.fit(values, np.ones_like(values, np.bool_), TRANSFORMS, FLOORS, floor_ratios=(0.005, 0, 0))
        assert baseline.scale == pytest.approx([0.005 * level, 0.04, 0.04])


@pytest.mark.parametrize(("n", "median", "rare"), [(1, 0.455, 6.63), (3, 2.366, 11.34), (24, 23.34, 42.98)])
def test_the_bound_is_chi_squares(n: int, median: float, rare: float) -> None:
    """Wilson and Hilferty against the table: the median and the 99th percentile."""
    assert _chi_square(n, 0.0) == pytest.approx(median, rel=0.05)
    assert _chi_square(n, 2.326) == pytest.approx(rare, rel=0.03)
