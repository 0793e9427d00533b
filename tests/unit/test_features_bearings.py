"""The bearing table: every printed factor follows from its geometry."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.features.bearings import bearing_orders, load_bearings, orders_of_geometry
from firmware_bridge.errors import ConfigError

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize("row", load_bearings(CONFIG), ids=lambda row: row.designation)
def test_printed_factors_follow_from_the_geometry(row):
    """A typing error in either shows: all four agree within 0.002."""
    found = orders_of_geometry(row.n_elements, row.element_mm, row.pitch_mm, row.contact_angle_deg)
    for name in ("bpfo", "bpfi", "bsf", "ftf"):
        assert getattr(found, name) == pytest.approx(getattr(row, name), abs=0.002), name
    assert found.bpfo + found.bpfi == pytest.approx(row.n_elements)


def test_designations_are_unique():
    """Two rows of one name would hide one another."""
    names = [row.designation for row in load_bearings(CONFIG)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("written", ["6308", "6308-2Z/C3", " 6308 ", "6308/C3"])
def test_suffixes_for_seals_and_clearance_change_nothing(written):
    """What is stamped on the ring may be copied as it is."""
    assert bearing_orders(CONFIG, written).bpfo == pytest.approx(3.023, abs=0.002)


def test_a_makers_own_row_is_found_before_the_suffix_is_dropped():
    """6205-SKF has other balls than the basic 6205."""
    assert bearing_orders(CONFIG, "6205-skf").bpfo == pytest.approx(3.585, abs=0.002)
    assert bearing_orders(CONFIG, "6205").bpfo == pytest.approx(3.574, abs=0.002)


def test_an_unknown_bearing_is_answered_with_near_ones():
    """The message says which are near and what to add."""
    with pytest.raises(ConfigError, match=r'bearing "6398".*6308.*n_elements'):
        bearing_orders(CONFIG, "6398")
