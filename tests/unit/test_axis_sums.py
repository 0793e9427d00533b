"""Sums of axes: one channel of the machine, made before anything looks at it, and never of half of its axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.app import open_bundles
from agent.config import Site, _sums
from agent.machine import AxisSum
from agent.pipeline import Pipeline
from agent.recording import site_for_recording
from firmware_bridge.measurement import Block, Channel, Quality

ROOT = Path(__file__).resolve().parents[2]
S = 1_000_000_000
BANDS = ("10_1000", "1000_3000", "3000_6000", "6000_12800")


@pytest.fixture
def site() -> Site:
    return site_for_recording(Path("none.csv"), ROOT, "femto")


def block(
    values: list[float], second: int, quality: int = Quality.GOOD, channels: tuple[int, ...] = tuple(range(8))
) -> Block:
    """What a poll of all axes brings; the quality is the first channel's."""
    qualities = np.zeros(len(values), np.uint8)
    qualities[0] = quality
    return Block(np.array(channels, np.int32), np.array(values, np.float32), qualities, second * S, second * S)


def test_energies_of_both_axes_add(site: Site) -> None:
    """3 and 4 are 5, whichever way the sensor is turned; the sums come after the source's own channels."""
    machine = site.machines[0]
    assert [site.channels[at].point for at in machine.sums] == [f"acceleration_rms_{band}_g" for band in BANDS]
    assert min(machine.sums) == 8
    pipeline = Pipeline(site, open_bundles(site), started_monotonic_ns=0)
    pipeline.step(block([3, 0.3, 5, 0, 4, 0.4, 12, 0], 1))
    values = pipeline.watches["BEARING"].last_values
    assert [values[f"acceleration_rms_{band}_g"] for band in BANDS] == pytest.approx([5, 0.5, 13, 0])


def test_without_one_of_its_axes_there_is_no_sum(site: Site) -> None:
    """Half of the energy would be a healthy machine's for certain."""
    pipeline = Pipeline(site, open_bundles(site), started_monotonic_ns=0)
    pipeline.step(block([3, 0.3, 5, 0, 4, 0.4, 12, 0], 1))
    pipeline.step(block([3, 0.6, 5, 0, 4, 0.8, 12, 0], 2, quality=Quality.BAD_SENTINEL))
    values = pipeline.watches["BEARING"].last_values
    assert "acceleration_rms_10_1000_g" not in values
    assert values["acceleration_rms_1000_3000_g"] == pytest.approx(1.0)


def test_axes_that_come_one_by_one_are_added_as_they_come(site: Site) -> None:
    """MQTT sensors send a message for each value; what does not belong to a sum renews none."""
    pipeline = Pipeline(site, open_bundles(site), started_monotonic_ns=0)
    pipeline.step(block([3.0], 1, channels=(0,)))
    assert "acceleration_rms_10_1000_g" not in pipeline.watches["BEARING"].last_values
    pipeline.step(block([4.0], 2, channels=(4,)))
    assert pipeline.watches["BEARING"].last_values["acceleration_rms_10_1000_g"] == pytest.approx(5.0)


def test_a_machine_that_lacks_an_axis_or_has_the_sum_itself_makes_none(site: Site) -> None:
    """A sensor of one axis is no sensor of two, and axes of two sensors are two places."""
    profile = msgspec.structs.replace(site.machines[0].profile, sums=(AxisSum(channel="all_g", axes=("x_g", "z_g")),))
    x, z, whole = Channel("a", "x_g"), Channel("a", "z_g"), Channel("a", "all_g")
    for channels, n_sums in (([x, z], 1), ([x], 0), ([x, replace(z, sensor="b")], 0), ([x, z, whole], 0)):
        roles = {channel.point: at for at, channel in enumerate(channels)}
        assert len(_sums(profile, roles, list(channels))) == n_sums
