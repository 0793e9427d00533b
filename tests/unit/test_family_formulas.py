"""Closed forms of the families: what the literature says of each, on numbers small enough to follow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from training.families import Healthy, autoencoder, cusum, ewma


def test_an_average_forgets_at_its_weight() -> None:
    """A lasting deviation d is d (1 - (1 - w)^n) after n windows; a column that is absent stays where it was."""
    fitted = ewma.EwmaFit(np.eye(2), weight=0.1, n_components=0)
    mask = np.ones((12, 2))
    mask[5:, 1] = 0.0
    means = fitted.graph("mean").run(np.full((12, 2), 2.0), mask)["next_state"]
    assert means[:, 0] == pytest.approx(2.0 * (1 - 0.9 ** np.arange(1, 13)), rel=1e-6)
    assert np.all(means[5:, 1] == means[4, 1])


def test_a_cumulative_sum_is_crosiers() -> None:
    """C = |s + z|; s' = 0 where C <= k, else (s + z)(1 - k / C): two sides in one signed sum (Crosier, 1986)."""
    z = np.random.default_rng(4).standard_normal(200) + 0.3
    fitted = cusum.CusumFit(spread=np.ones(1), allowance=np.array([0.5]), limit=np.array([50.0]))
    sums = fitted.graph("sum").run(z[:, None], np.ones((200, 1)))["next_state"][:, 0]
    expected, before = [], 0.0
    for value in np.clip(z, -4, 4):
        reach = abs(before + value)
        before = 0.0 if reach <= 0.5 else (before + value) * (1 - 0.5 / reach)
        expected.append(before)
    assert sums == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("run_length", "limit"), [(938, 5.0), (19_100, 8.0), (52_000, 9.0), (141_000, 10.0)])
def test_a_sums_limit_keeps_the_wanted_run_length(run_length: float, limit: float) -> None:
    """Siegmund's approximation at k = 0.5, as it is tabulated."""
    assert cusum.limit_for(run_length, 0.5) == pytest.approx(limit, abs=0.01)


def test_an_offset_that_healthy_machines_have_does_not_add_up() -> None:
    """Each stands a little off its own baseline, for ever; a sum that never forgets must allow for that."""
    rng = np.random.default_rng(6)
    offsets = np.repeat([0.6, -0.5, 0.4, -0.6, 0.2], 300)[:, None]
    z = rng.standard_normal((1500, 4)) + offsets
    starts = range(0, 1500, 300)
    fitted = cusum.fit(Healthy(z, np.ones_like(z), starts=starts))
    scores = fitted.graph("sums").run(z, np.ones_like(z), starts)["score"][:, 0]
    assert np.quantile(scores, 0.99) < 1.0


def test_the_networks_gradient_is_that_of_its_loss() -> None:
    """Back-propagation by hand: a wrong sign would still train, only badly."""
    rng = np.random.default_rng(7)
    z = rng.standard_normal((30, 5))
    first = autoencoder._first_weights(rng, 5, 0.4)
    problem = autoencoder._Problem(z * 0.9, z, (rng.random(z.shape) < 0.8).astype(float), first)
    at = autoencoder._flat(first) + 0.05
    error = check_grad(lambda flat: problem.loss(flat)[0], lambda flat: problem.loss(flat)[1], at)
    assert error < 1e-5


def test_the_network_follows_a_curve_that_no_plane_follows() -> None:
    """One column is the square of another: with the curve rebuilt, what leaves it stands out though each value is ordinary."""
    rng = np.random.default_rng(8)
    causes = rng.uniform(-2, 2, (1500, 2))
    z = np.column_stack([causes, causes[:, 0] ** 2 - 1.3, causes[:, 1] ** 2 - 1.3, causes[:, 0], causes[:, 1]])
    z += 0.1 * rng.standard_normal(z.shape)
    graph = autoencoder.fit(Healthy(z, np.ones_like(z), seed=2)).graph("curve")
    on, off = z[:1] * 0 + [1.5, 0, 0.95, -1.3, 1.5, 0], z[:1] * 0 + [1.5, 0, -1.3, -1.3, 1.5, 0]
    healthy = graph.run(z, np.ones_like(z))["score"][:, 0]
    assert graph.run(on, np.ones((1, 6)))["score"][0, 0] < np.quantile(healthy, 0.9)
    assert graph.run(off, np.ones((1, 6)))["score"][0, 0] > 3 * np.quantile(healthy, 0.99)


def test_more_columns_than_a_small_network_can_hold_are_refused() -> None:
    """A gateway's model stays below fifty thousand weights."""
    z = np.zeros((700, 350))
    with pytest.raises(ValueError, match=r"350 columns would need \d+ weights, at most 50000"):
        autoencoder.fit(Healthy(z, np.ones_like(z)))
