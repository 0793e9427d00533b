"""A device that repeats itself to the bit is doubted; one that measures, or is slow, is not."""

from __future__ import annotations

import numpy as np
import pytest

from firmware_bridge.freshness import Freshness
from firmware_bridge.measurement import Channel, Quality

S = 1_000_000_000
CHANNELS = (
    Channel("vib", "velocity_rms_mm_s", 1.0, live=True),
    Channel("vib", "acceleration_rms_g", 2.0, live=True),
    Channel("vib", "temperature_degc", 1.0),
)


def told(freshness: Freshness, values: list[float], at_s: float, quality: Quality = Quality.GOOD) -> list[Quality]:
    codes = np.full(len(values), quality, np.uint8)
    freshness.mark(np.array(values, np.float32), codes, round(at_s * S))
    return [Quality(int(code)) for code in codes]


def test_live_values_that_all_stand_still_for_five_updates_are_uncertain() -> None:
    """The slowest of them renews every 2 s, so 10 s; a temperature may stand still for hours."""
    freshness = Freshness(CHANNELS, interval_s=1.0)
    for at_s in range(10):
        assert set(told(freshness, [1.5, 0.02, 40.0], at_s)) == {Quality.GOOD}
    assert told(freshness, [1.5, 0.02, 40.0], 10) == [Quality.UNCERTAIN, Quality.UNCERTAIN, Quality.GOOD]
    assert set(told(freshness, [1.5, 0.021, 40.0], 11)) == {Quality.GOOD}, "one bit of one value is news"


def test_a_device_without_live_values_is_never_doubted() -> None:
    """Nothing says that a flow total or a status word must move."""
    freshness = Freshness(CHANNELS[2:], interval_s=1.0)
    for at_s in range(100):
        assert told(freshness, [40.0], at_s) == [Quality.GOOD]


@pytest.mark.parametrize("code", [Quality.BAD_COMM, Quality.BAD_RANGE])
def test_what_is_bad_stays_what_it_is(code: Quality) -> None:
    """Doubt is no excuse for calling a bad value better."""
    freshness = Freshness(CHANNELS, interval_s=1.0)
    for at_s in range(20):
        assert set(told(freshness, [np.nan, np.nan, np.nan], at_s, code)) == {code}
