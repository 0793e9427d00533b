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


def test_a_break_is_a_multiple_of_the_learned_level_and_unlearned_it_is_none() -> None:
    """Four times for ten seconds; on the first day, when nobody knows the level, only absolute limits hold."""
    limit = Limit(
        name="break", channel="acceleration_rms_g", fault="high_vibration", above_normal_ratio=4.0, on_delay_s=10.0
    )
    watch = LimitWatch([limit])

    def step(seconds: int, value: float, normals: dict[str, float]) -> list[tuple[Change, float]]:
        changes = watch.step({"acceleration_rms_g": value}, True, normals, seconds * S, seconds)
        return [(change.change, change.bound) for change in changes]

    assert step(0, 9.0, {}) == step(10, 9.0, {}) == []
    normals = {"acceleration_rms_g": 0.2}
    assert step(20, 0.81, normals) == step(30, 0.79, normals) == step(40, 0.81, normals) == []
    assert step(45, 0.81, normals) == []
    assert step(50, 0.81, normals) == [(Change.RAISED, pytest.approx(0.8))]


def test_two_odd_readings_are_no_delay_however_far_apart_they_are() -> None:
    """A gauge that is read every two minutes has a spike, and another one: the third reading decides."""
    limit = Limit(name="high", channel="velocity_rms_z_mm_s", fault="high_vibration", above=4.5, on_delay_s=10.0)

    def told(*values: float) -> list[int]:
        watch = LimitWatch([limit])
        steps = (watch.step({limit.channel: value}, True, {}, 120 * at * S, 0) for at, value in enumerate(values))
        return [len(changes) for changes in steps]

    assert told(9.0, 12.0, 0.7, 9.0, 9.0, 0.7) == [0] * 6
    assert told(9.0, 12.0, 8.0) == [0, 0, 1]


def test_an_alarm_that_comes_and_goes_is_told_twice_a_day_at_most() -> None:
    """A score about its threshold for a week must not fill the night with messages, and never be shown as healthy for it."""
    tracker = ConditionTracker(off_delay_s=600, refractory_s=86_400)
    raised = cleared = 0
    for minute in range(7 * 1440):
        change = tracker.step(1.0 if minute % 120 < 30 else -1.0, minute * 60 * S, 0)
        raised, cleared = raised + (change is Change.RAISED), cleared + (change is Change.CLEARED)
    assert (raised, cleared) == (2, 1)
    assert tracker.standing


def test_after_a_quiet_day_an_alarm_that_came_back_clears() -> None:
    """Refractory, not latched for ever: nobody has to reset it."""
    tracker = ConditionTracker(off_delay_s=600, refractory_s=86_400)
    story = [(0, 1.0), (60, -1.0), (700, -1.0), (3600, 1.0), (7200, -1.0), (80_000, -1.0), (93_700, -1.0)]
    changes = [tracker.step(excess, at_s * S, 0) for at_s, excess in story]
    assert [change for change in changes if change] == [Change.RAISED, Change.CLEARED, Change.RAISED, Change.CLEARED]
    assert changes[-1] is Change.CLEARED
