"""Alarms per machine-month: the figures that practice quotes."""

from __future__ import annotations

import pytest
from scipy.stats import chi2

from agent.decision.rate import AlarmRate, poisson_interval

QUOTED = {
    0: 3.0,
    1: 4.7,
    2: 6.3,
    3: 7.8,
    5: 10.5,
    10: 17.0,
}  # alarms seen: machine-months that prove at most one a month


@pytest.mark.parametrize(("n_alarms", "months"), QUOTED.items())
def test_so_many_machine_months_prove_one_a_month(n_alarms, months) -> None:
    """The table of evaluation practice; a promise without it is a hope."""
    assert poisson_interval(n_alarms, months)[1] == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 40, 400])
def test_the_interval_is_garwoods(n) -> None:
    """By the chi-square law, with which the Poisson law's sums are one."""
    low, high = poisson_interval(n, 1.0)
    assert low == pytest.approx(chi2.ppf(0.05, 2 * n) / 2 if n else 0.0, rel=1e-6)
    assert high == pytest.approx(chi2.ppf(0.95, 2 * n + 2) / 2, rel=1e-6)


def test_what_was_not_watched_has_no_rate() -> None:
    """A gateway in its first minute says nothing rather than infinity."""
    assert AlarmRate().as_dict()["upper95"] is None
