"""Overload: shed in the stated order, say so once, and take it back only after quiet."""

from __future__ import annotations

import logging

import pytest

from agent.budget import LatencyBudget, Level


def run(budget: LatencyBudget, seconds: range, latency_ms: float, fill: float = 0.0) -> list[Level]:
    levels = []
    for now_s in seconds:
        for _ in range(10):
            budget.record("total", latency_ms / 1e3)
        levels.append(budget.decide(float(now_s), fill))
    return levels


def test_it_sheds_the_model_then_the_features_and_recovers_in_reverse(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each change, none between."""
    budget = LatencyBudget(100.0, ("features",))
    with caplog.at_level(logging.INFO):
        assert run(budget, range(60), 95.0)[-1] is Level.LIMITS_ONLY
        assert run(budget, range(60, 200), 20.0)[-1] is Level.FULL
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO", "INFO"]


def test_one_slow_measurement_changes_nothing() -> None:
    """The 99th percentile of enough of them decides."""
    budget = LatencyBudget(100.0, ())
    budget.record("total", 10.0)
    assert budget.decide(0.0, 0.0) is Level.FULL


def test_a_full_inbox_sheds_before_latency_shows_it() -> None:
    """What waits has not been measured yet."""
    budget = LatencyBudget(100.0, ())
    assert budget.decide(0.0, 0.9) is Level.NO_MODEL


def test_between_the_two_marks_the_level_stays() -> None:
    """Hysteresis: at 70 % of the budget neither more nor less is shed, for as long as it lasts."""
    budget = LatencyBudget(100.0, ())
    budget.decide(0.0, 0.9)
    assert set(run(budget, range(1, 400), 70.0)) == {Level.NO_MODEL}


def test_percentiles_are_by_stage_in_milliseconds() -> None:
    """Bounded rings: only the latest count."""
    budget = LatencyBudget(100.0, ("features",))
    for _ in range(2000):
        budget.record("features", 0.5)
    for _ in range(600):
        budget.record("features", 0.002)
    assert budget.percentiles_ms() == {"features": (pytest.approx(2.0), pytest.approx(2.0))}
