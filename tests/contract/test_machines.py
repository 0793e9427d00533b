"""The battery that every config/machines/*.toml passes: a new machine type is one file, checked here by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.features import feature_set_of, known_features
from agent.machine import load_machine_profile
from agent.tagbank import STATISTICS
from firmware_bridge.units import suffix_of

CONFIG = Path(__file__).parents[2] / "config"
TYPES = sorted(path.stem for path in (CONFIG / "machines").glob("*.toml"))
THERMAL = ("degc", "k")

pytestmark = pytest.mark.parametrize("machine_type", TYPES)


@pytest.fixture
def profile(machine_type):
    return load_machine_profile(CONFIG, machine_type)


def test_the_file_is_named_after_its_type(profile, machine_type):
    """The name in the site file finds the file; bundles are kept by it."""
    assert profile.type == machine_type
    assert profile.bundle.startswith(f"{machine_type}/")


def test_its_columns_make_a_feature_set(profile):
    """Every feature is known, every parameter in range, no column twice; words and units for all."""
    features = feature_set_of(profile)
    assert len(features.columns) == len(profile.columns)
    assert all(features.words)
    for column in features.columns:
        assert isinstance(column.unit, str)


def test_every_quantity_ends_in_its_unit(profile):
    """Columns, limits and state channels name points of sensors, which end in a unit."""
    columns = [spec.channel for spec in profile.columns if spec.channel != "burst"]
    for name in (*columns, *(limit.channel for limit in profile.limits), profile.state.speed_channel):
        assert suffix_of(name)


def test_raw_temperatures_are_limits_and_never_columns(profile):
    """They follow load and weather: as columns they double the false alarms, as limits they protect.

    What a temperature is against its own past is another thing: that follows neither.
    """
    raw = {name for name in STATISTICS if known_features()[name].transform != "standard"}
    tags = [spec.channel for spec in profile.columns if spec.feature in raw]
    assert not [name for name in tags if suffix_of(name) in THERMAL]
    assert [limit for limit in profile.limits if suffix_of(limit.channel) in THERMAL]


def test_every_scale_floor_is_positive(profile):
    """A column without a least spread alarms on the first change after a quiet week."""
    assert all(spec.scale_floor > 0 for spec in profile.columns)


def test_a_floor_of_reading_stands_on_a_linear_column(profile):
    """A logarithm is a ratio already: its least spread is `scale_floor`."""
    for spec, column in zip(profile.columns, feature_set_of(profile).columns, strict=True):
        assert spec.scale_floor_ratio == 0 or column.transform == "linear", column.name


def test_every_limit_is_one_thing_with_a_name_of_its_own(profile):
    """Exactly one bound each; the deadband is smaller than the bound, so that it can clear."""
    names = [limit.name for limit in profile.limits]
    assert len(set(names)) == len(names)
    for limit in profile.limits:
        stated = (limit.above, limit.below, limit.below_normal_ratio, limit.above_normal_ratio)
        bounds = [bound for bound in stated if bound is not None]
        assert len(bounds) == 1, limit.name
        assert limit.deadband < abs(bounds[0]), limit.name


def test_zones_are_in_order_and_the_velocity_limits_follow_them(profile):
    """Alarm at most at 1.25 times B/C, critical at C/D."""
    assert profile.zone_bc_mm_s < profile.zone_cd_mm_s
    above = {limit.name[:15]: limit.above for limit in profile.limits if limit.fault == "high_vibration"}
    if "burst" in {spec.channel for spec in profile.columns}:
        assert profile.zone_bc_mm_s <= above["velocity_zone_c"] <= 1.26 * profile.zone_bc_mm_s
        assert above["velocity_zone_d"] == profile.zone_cd_mm_s
