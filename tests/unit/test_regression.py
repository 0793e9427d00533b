"""Regression: what speed, load and weather explain is taken away, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from agent.baseline import Baseline
from agent.covariates import explained
from agent.regression import fit_regression

NAMES = ("vibration.rms_m_s2", "temperature_degc:tag.level", "active_power_kw:tag.level")
N = 240


def learned(seed=0, load_effect=0.6, spoilt=0):
    """Windows of a machine whose load goes up and down, with the weather; (table, covariates)."""
    rng = np.random.default_rng(seed)
    load = 5.0 + 2.0 * np.sin(np.arange(N) / 9.0) + 0.1 * rng.standard_normal(N)
    ambient = 20.0 + 6.0 * np.sin(np.arange(N) / 31.0)
    covariates = np.column_stack([np.full(N, 1470.0), load, ambient])
    table = 0.05 * rng.standard_normal((N, 3)) + np.column_stack(
        [load_effect * load, 30 + 2.0 * load + 0.9 * ambient, load]
    )
    table[:spoilt, 0] += 30.0
    return table, covariates


def test_load_and_weather_are_taken_out_and_the_rest_stays():
    """The spread that is left is the sensor's, so a fault of the size of a load step is seen."""
    table, covariates = learned()
    regression = fit_regression(table, covariates, explained(NAMES))
    assert regression is not None
    assert regression.slope[0, 1] == pytest.approx(0.6, rel=0.03)
    assert regression.slope[1] == pytest.approx([0.0, 2.0, 0.9], rel=0.03)
    left = table - regression.shift(covariates)
    assert left[:, 0].std() < 0.07


def test_power_is_never_explained_by_power():
    """Else a pump that runs dry would explain itself away."""
    table, covariates = learned()
    regression = fit_regression(table, covariates, explained(NAMES))
    assert regression is not None
    assert regression.slope[2, 1] == 0.0


def test_wild_windows_move_no_line():
    """Learning windows are rarely all clean: a tenth of them are of a lorry that passed."""
    table, covariates = learned(spoilt=N // 10)
    regression = fit_regression(table, covariates, explained(NAMES))
    assert regression is not None
    assert regression.slope[0, 1] == pytest.approx(0.6, rel=0.1)


def test_chance_is_not_believed():
    """A line that does not hold in windows that it was not fitted to would only add to the noise."""
    for seed in range(10):
        table, covariates = learned(seed, load_effect=0.0)
        table[:, 1] = np.random.default_rng(seed).standard_normal(N)
        assert fit_regression(table, covariates, explained(NAMES)) is None


def test_beyond_what_was_learned_the_line_stops():
    """Of a load that was never seen nothing is known: the machine is compared with its nearest healthy load."""
    table, covariates = learned()
    regression = fit_regression(table, covariates, explained(NAMES))
    assert regression is not None
    edge, beyond = np.array([1470.0, regression.high[1], 20.0]), np.array([1470.0, 50.0, 20.0])
    assert regression.shift(beyond) == pytest.approx(regression.shift(edge))
    assert regression.shift(np.full(3, np.nan)) == pytest.approx(np.zeros(3))


def test_what_follows_a_load_that_nobody_knows_is_not_judged():
    """A meter that is silent must not make a pump look worn; the other columns are judged as ever."""
    table, covariates = learned()
    values = table.astype(np.float32)
    baseline = Baseline.fit(
        values, np.isfinite(values), ["linear"] * 3, [0.01] * 3, covariates=covariates, explained=explained(NAMES)
    )
    unknown = np.array([1470.0, np.nan, 20.0])
    _, judged = baseline.refer(values[7], np.isfinite(values[7]), ["linear"] * 3, unknown)
    assert judged.tolist() == [False, False, True]


def test_a_baseline_keeps_its_lines_over_a_restart():
    """What was learned is kept as JSON in the buffer; the restarted agent must say the same of the same vector."""
    table, covariates = learned()
    values = table.astype(np.float32)
    fitted = Baseline.fit(
        values, np.isfinite(values), ["linear"] * 3, [0.01] * 3, covariates=covariates, explained=explained(NAMES)
    )
    kept = Baseline.from_document(fitted.as_document())
    args = (values[7], np.isfinite(values[7]), ["linear"] * 3, covariates[7])
    assert np.array_equal(kept.refer(*args)[0], fitted.refer(*args)[0])
    assert np.abs(fitted.refer(values, np.isfinite(values), ["linear"] * 3, covariates)[0][:, 0]).max() < 5.0
