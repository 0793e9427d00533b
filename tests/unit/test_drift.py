"""Two instruments that are bound by physics watch each other; one alone is believed."""

from __future__ import annotations

import numpy as np
import pytest

from agent.decision.drift import EVERY_S, bound_pairs
from firmware_bridge.measurement import Channel

DAY_S = 86_400
CHANNELS = (
    Channel("meter", "active_power_kw"),
    Channel("drive", "motor_shaft_power_kw"),
    Channel("drive", "motor_current_a"),
)


@pytest.mark.parametrize(
    ("pct_per_day", "load_after", "within_days"),
    [(2.0, 1.0, 4), (-0.5, 1.0, 13), (0.0, 1.0, None), (0.0, 0.6, None)],
)
def test_a_drift_of_one_of_two_is_found_and_a_change_of_load_is_none(
    pct_per_day: float, load_after: float, within_days: int | None
) -> None:
    """At 40 % less load the motor is less efficient: that is compared with nothing."""
    (pair,) = bound_pairs(CHANNELS, [(0, 1, 2)])
    rng = np.random.default_rng(1)
    found_day = None
    for minute in range(14 * 24 * 60):
        second = minute * EVERY_S
        load = load_after if second > 2 * DAY_S else 1.0
        power_kw = 6.35 * load * (1 + 0.002 * rng.standard_normal())
        shaft_kw = power_kw * 0.9 * (1 - 0.15 * (1 - load)) * (1 + 0.01 * pct_per_day * second / DAY_S)
        pair.step(np.array([power_kw, shaft_kw, 12.0]), running=True, monotonic_ns=round(second * 1e9))
        if pair.drifted and found_day is None:
            found_day = second / DAY_S
    assert (found_day is not None) == (within_days is not None)
    assert found_day is None or 1 < found_day < within_days


def test_two_that_are_far_apart_since_a_standstill_are_told_within_half_an_hour() -> None:
    """A meter that was set to horse-power while the machine stood made no step that anybody saw."""
    (pair,) = bound_pairs(CHANNELS, [(0, 1, 2)])
    found_min = None
    for minute in range(30 * 60):
        factor = 1.341 if minute >= 27 * 60 else 1.0
        pair.step(np.array([6.35 * factor, 5.7, 12.0]), running=True, monotonic_ns=round(minute * 60e9))
        if pair.drifted and found_min is None:
            found_min = minute - 27 * 60
    assert found_min is not None
    assert 5 < found_min < 30


def test_registers_of_one_sensor_bear_no_witness() -> None:
    """A meter that reads beside does so in all of them."""
    alone = (Channel("meter", "active_power_kw"), Channel("meter", "motor_shaft_power_kw"))
    assert bound_pairs(alone, [(0, 1)]) == []
