"""A false-alarm budget that is stated must be kept: tails on known distributions, Markov's bound, delays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import Moment
from agent.decision.threshold import (
    Change,
    ConditionTracker,
    LimitWatch,
    Persistence,
    Tail,
    fit_tail,
    probability_per_decision,
)
from agent.machine import Limit

S = 1_000_000_000


@pytest.mark.parametrize(
    ("draw", "quantile"),
    [
        (lambda rng, n: rng.exponential(2.0, n), lambda p: -2.0 * math.log(p)),
        (lambda rng, n: rng.chisquare(2, n), lambda p: -2.0 * math.log(p)),
        (lambda rng, n: rng.pareto(5.0, n) + 1, lambda p: p ** (-1 / 5)),
    ],
    ids=["exponential", "chi-square", "pareto"],
)
def test_the_tail_finds_quantiles_beyond_its_data(draw, quantile) -> None:  # type: ignore[no-untyped-def]
    """5,000 healthy scores must tell what one in 100,000 is, within a quarter (median of 20 samples)."""
    rng = np.random.default_rng(7)
    found = [fit_tail(draw(rng, 5000)).quantile(1e-5) for _ in range(20)]
    assert np.median(found) == pytest.approx(quantile(1e-5), rel=0.25)


def test_a_short_learning_time_does_not_break_the_budget() -> None:
    """500 scores: over many machines the rate beyond the 1e-4 threshold stays of the order of 1e-4 on average."""
    rng = np.random.default_rng(11)
    rates = [math.exp(-fit_tail(rng.exponential(1.0, 500)).quantile(1e-4)) for _ in range(300)]
    assert np.median(rates) < 1.5e-4


@given(st.floats(0.01, 10), st.floats(0.0, 0.35), st.floats(1e-3, 0.1), st.floats(1e-9, 1.0), st.floats(1e-9, 1.0))
def test_a_quantile_falls_with_its_probability_and_is_undone_by_exceedance(
    scale: float, shape: float, rate: float, p: float, q: float
) -> None:
    """Rarer means higher; and the two directions are each other's inverse in the tail."""
    tail = Tail(1.0, scale, shape, rate, 1000)
    low, high = min(p, q), max(p, q)
    assert tail.quantile(low) >= tail.quantile(high)
    if p < rate:
        assert tail.exceedance(tail.quantile(p)) == pytest.approx(p, rel=1e-6)


def test_scores_without_a_tail_still_give_a_threshold_above_them() -> None:
    """A machine whose scores are all the same must neither crash the fit nor alarm at once."""
    assert fit_tail(np.ones(100)).quantile(1e-6) > 1.0
    with pytest.raises(ValueError, match="at least 20"):
        fit_tail(np.ones(19))


@pytest.mark.parametrize("correlation", [0.0, 0.9, 0.99])
def test_markovs_bound_keeps_the_budget_whatever_the_windows_share(correlation: float) -> None:
    """Alarm decisions per month stay within the stated number for independent and for slowly wandering scores alike."""
    rng = np.random.default_rng(3)
    k, m, per_month, months, budget = 3, 5, 4320, 60, 8.0
    p = probability_per_decision(budget, per_month, k, m)
    noise = rng.standard_normal(per_month * months)
    scores = np.empty_like(noise)
    scores[0] = noise[0]
    for i in range(1, len(noise)):
        scores[i] = correlation * scores[i - 1] + math.sqrt(1 - correlation**2) * noise[i]
    exceeds = scores > np.quantile(scores, 1 - p)
    alarms = np.convolve(exceeds, np.ones(m), "valid") >= k
    assert alarms.sum() / months <= budget
    assert p == pytest.approx(budget / per_month * k / m)


def test_persistence_counts_the_last_m_only() -> None:
    """3 of 5, no more and no less."""
    persistence = Persistence(3, 5)
    seen = [persistence.step(bool(exceeds), Moment(0, 0)) for exceeds in (1, 0, 1, 0, 1, 0, 0, 1, 1, 1)]
    assert seen == [False, False, False, False, True, False, False, False, True, True]


def test_a_raise_waits_for_its_delay_and_its_onset_is_when_it_began() -> None:
    """5 s on, 60 s off: a dip of 4 s is nothing, and the message names the time of the first exceedance."""
    tracker = ConditionTracker(on_delay_s=5, off_delay_s=60)
    assert [tracker.step(1.0, t * S, 1000 + t) for t in range(5)] == [None] * 5
    assert tracker.step(-1.0, 5 * S, 1005) is None
    assert [tracker.step(1.0, t * S, 1000 + t) for t in range(10, 15)] == [None] * 5
    assert tracker.step(1.0, 15 * S, 1015) is Change.RAISED
    assert tracker.onset_utc_ns == 1010
    assert tracker.step(-1.0, 20 * S, 0) is None
    assert tracker.step(1.0, 50 * S, 0) is None
    assert tracker.step(-1.0, 60 * S, 0) is None
    assert tracker.step(-1.0, 120 * S, 0) is Change.CLEARED


def test_within_the_deadband_nothing_clears() -> None:
    """A value that hangs at its limit must not chatter."""
    tracker = ConditionTracker(deadband=0.5)
    assert tracker.step(0.1, 0, 0) is Change.RAISED
    assert tracker.step(-0.4, 1, 0) is None
    assert tracker.step(-0.5, 2, 0) is Change.CLEARED


@given(st.lists(st.sampled_from([None, math.nan]), max_size=50), st.booleans())
def test_what_is_not_known_neither_raises_nor_clears(unknown: list[float | None], standing: bool) -> None:
    """A dead sensor is not a healthy machine, and not a broken one either."""
    tracker = ConditionTracker()
    if standing:
        tracker.hold(1)
    assert all(tracker.step(value, t * S, t) is None for t, value in enumerate(unknown))
    assert tracker.standing is standing


def test_dry_run_is_a_share_of_the_learned_power_and_only_while_running() -> None:
    """Below 60 % of normal for 5 s; unlearned or standing still there is nothing to say, and stopping clears it."""
    limit = Limit(name="dry_run", channel="active_power_kw", fault="dry_run", below_normal_ratio=0.6, severity="crit")
    watch, normal = LimitWatch([limit]), {"active_power_kw": 5.0}

    def step(seconds: int, value: float, running: bool | None, normals: dict[str, float]) -> list[Change]:
        return [c.change for c in watch.step({"active_power_kw": value}, running, normals, seconds * S, seconds)]

    assert [step(t, 1.0, True, {}) for t in range(20)] == [[]] * 20
    assert [step(t, 1.0, False, normal) for t in range(20, 40)] == [[]] * 20
    assert [step(t, 2.9, True, normal) for t in range(40, 45)] == [[]] * 5
    assert step(45, 2.9, True, normal) == [Change.RAISED]
    assert [step(t, math.nan, True, normal) for t in range(46, 200)] == [[]] * 154
    assert step(200, 2.9, False, normal) == []
    assert step(260, 2.9, False, normal) == [Change.CLEARED]
