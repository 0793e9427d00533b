"""A limit counts what was read: one reading, however long it is the last one, is no state that lasts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from offline import site_of_demo

from agent.app import open_bundles
from agent.pipeline import Pipeline
from firmware_bridge.measurement import Block

ROOT = Path(__file__).resolve().parents[2]
S = 1_000_000_000
HOT_DEGC = 120.0  # 95 for two minutes is high, 105 for 30 s critical


def test_a_single_reading_breaks_no_limit_while_other_sensors_go_on_talking() -> None:
    """The thermometer falls silent with a high value; the drive is still polled every second. When it says it again, it is so."""
    site = site_of_demo(ROOT)
    machine = next(one for one in site.machines if one.tag == "M-101A")
    heat, speed = (np.array([machine.roles[name]], np.int32) for name in ("temperature_degc", "shaft_speed_rpm"))
    pipeline = Pipeline(site, open_bundles(site), started_monotonic_ns=0)
    raised: list[str] = []

    def read(channel: np.ndarray, value: float, second: int) -> None:
        block = Block(channel, np.array([value], np.float32), np.zeros(1, np.uint8), second * S, second * S)
        raised.extend(event.condition for event in pipeline.step(block).events if event.alarm_class == "limit")

    read(heat, HOT_DEGC, 0)
    for second in range(1, 300):
        read(speed, 1460.0 + second % 3, second)
    assert raised == []
    for second in (300, 301):
        read(heat, HOT_DEGC, second)
    assert sorted(raised) == ["limit:temperature_critical", "limit:temperature_high"]
