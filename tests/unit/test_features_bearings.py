"""The bearing table: every printed factor follows from its geometry."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from agent.config import load_site
from agent.diagnosis import parts_of
from agent.features.bearings import (
    BearingOrders,
    bearing_orders,
    designation_of,
    load_bearings,
    orders_of_geometry,
    own_orders,
)
from firmware_bridge.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"


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


@pytest.mark.parametrize("written", ["6308", "6308-2Z/C3", " 6308 ", "63 08", "6308/C3"])
def test_suffixes_for_seals_and_clearance_change_nothing(written):
    """What is stamped on the ring may be copied as it is."""
    assert bearing_orders(CONFIG, written).bpfo == pytest.approx(3.023, abs=0.002)


def test_a_makers_own_row_is_found_before_the_suffix_is_dropped():
    """6205-SKF has other balls than the basic 6205."""
    assert bearing_orders(CONFIG, "6205-skf").bpfo == pytest.approx(3.585, abs=0.002)
    assert bearing_orders(CONFIG, "6205").bpfo == pytest.approx(3.574, abs=0.002)


def test_an_unknown_bearing_is_answered_with_near_ones():
    """The message says which are near and what to add."""
    with pytest.raises(ConfigError, match=r'bearing "6398".*6318.*n_elements'):
        bearing_orders(CONFIG, "6398")


def test_the_table_holds_what_motors_and_pumps_commonly_have():
    """Sixty designations at least, of each common series; an estimate says that it is one."""
    rows = load_bearings(CONFIG)
    sure = [row.designation for row in rows if not row.source.startswith("estimate")]
    assert len(sure) >= 60
    for series in ("60", "62", "63", "72", "73"):
        assert sum(name.startswith(series) for name in sure) >= 10, series


RATINGS = [  # bore, outside diameter, C, C0: NSK Rolling Bearings catalogue, pages B 8 to B 15 and B 52 to B 57
    ("6000", 10, 26, 4550, 1970),
    ("6009", 45, 75, 20900, 15200),
    ("6020", 100, 150, 60000, 54000),
    ("6209", 45, 85, 31500, 20400),
    ("6306", 30, 72, 26700, 15000),
    ("6308-NSK", 40, 90, 40500, 24000),
    ("6217", 85, 150, 84000, 62000),
    ("7205B", 25, 52, 14800, 9400),
    ("7310B", 50, 110, 68000, 48000),
    ("7314B", 70, 150, 114000, 86000),
]


@pytest.mark.parametrize(("designation", "bore_mm", "outside_mm", "c_n", "c0_n"), RATINGS, ids=str)
def test_rows_worked_back_from_load_ratings_meet_both_of_them(designation, bore_mm, outside_mm, c_n, c0_n):
    """A ball more or less moves a rating by 7 to 15 %; ISO 76 table 1 and ISO 281 table 2, interpolated, give both to 1 %."""
    row = next(row for row in load_bearings(CONFIG) if row.designation == designation)
    cosine = np.cos(np.radians(row.contact_angle_deg))
    r = row.element_mm * cosine / row.pitch_mm
    f0 = np.interp(
        r,
        [0.12, 0.14, 0.16, 0.18, 0.20, 0.22, 0.24, 0.26, 0.28],
        [15.9, 15.4, 14.9, 14.4, 14.0, 13.5, 13.0, 12.5, 12.1],
    )
    fc = np.interp(
        r,
        [0.12, 0.14, 0.16, 0.18, 0.20, 0.22, 0.24, 0.26, 0.28],
        [57.5, 58.8, 59.6, 59.9, 59.9, 59.6, 59.0, 58.2, 57.1],
    )
    assert row.pitch_mm == (bore_mm + outside_mm) / 2
    assert f0 * row.n_elements * row.element_mm**2 * cosine == pytest.approx(c0_n, rel=0.01)
    assert 1.3 * fc * cosine**0.7 * row.n_elements ** (2 / 3) * row.element_mm**1.8 == pytest.approx(c_n, rel=0.01)


GEOMETRY = {"n_elements": 8, "element_mm": 15.88, "pitch_mm": 65.0}
FACTORS = {"bpfo": 3.02, "bpfi": 4.98, "bsf": 1.93, "ftf": 0.378}


def test_own_geometry_and_own_factors_are_taken_as_they_are():
    """What the user knows of the bearing goes before any table, and its name is only printed."""
    assert own_orders({**GEOMETRY, "designation": "6308-ACME"}) == orders_of_geometry(8, 15.88, 65.0)
    assert own_orders({**GEOMETRY, "contact_angle_deg": 40}) == orders_of_geometry(8, 15.88, 65.0, 40.0)
    assert own_orders(FACTORS) == BearingOrders(**FACTORS)
    assert (designation_of("6308"), designation_of({**FACTORS, "designation": "X"}), designation_of(FACTORS)) == (
        "6308",
        "X",
        "",
    )


@pytest.mark.parametrize("row", load_bearings(CONFIG), ids=lambda row: row.designation)
@pytest.mark.parametrize("decimals", [2, 3])
def test_no_true_factors_are_refused(row, decimals):
    """Rounded as makers print them, at any contact angle: a check that cries at good data is soon worked around."""
    own_orders({name: round(getattr(row, name), decimals) for name in ("bpfo", "bpfi", "bsf", "ftf")})


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({**FACTORS, "bpf0": 1}, "bpf0: no such key. Did you mean 'bpfo'?"),
        ({**GEOMETRY, **FACTORS}, "gives geometry and factors; write either n_elements, "),
        ({"n_elements": 8, "element_mm": 15.88}, "lacks pitch_mm; write all of n_elements, "),
        ({"designation": "6308"}, "lacks n_elements, element_mm, pitch_mm; "),
        ({**GEOMETRY, "element_mm": "15.88"}, "element_mm = 15.88: write a number above 0, without quotes"),
        ({**GEOMETRY, "element_mm": [15.88]}, "element_mm = [15.88]: write a number above 0"),
        ({**GEOMETRY, "contact_angle_deg": -5}, "contact_angle_deg = -5: write a number at least 0"),
        ({**GEOMETRY, "designation": 6308}, 'designation = 6308: write it in quotes, "6308"'),
        ({**GEOMETRY, "element_mm": 0}, "element_mm = 0: write a number above 0"),
        ({**GEOMETRY, "pitch_mm": float("nan")}, "pitch_mm = nan: write a number above 0"),
        ({**GEOMETRY, "n_elements": 8.5}, "n_elements = 8.5: write a whole number, at least 3"),
        ({**GEOMETRY, "contact_angle_deg": 90}, "contact_angle_deg = 90: write less than 90"),
        ({**GEOMETRY, "element_mm": 65.0, "pitch_mm": 15.88}, "element_mm = 65 is not below pitch_mm = 15.88; "),
        ({**GEOMETRY, "n_elements": 14}, "14 elements of 15.88 mm do not fit on a circle of 65 mm; "),
        ({**FACTORS, "bpfi": 5.2}, "= 8.22 is no whole number of elements from 3 up; by ftf there are 8, so bpfi would be 4.980"),
        ({**FACTORS, "bpfo": 3.2}, "= 8.18 is no whole number of elements from 3 up; by ftf there are 8, so bpfo would be 3.020"),
        ({**FACTORS, "bpfi": 5.25, "ftf": 0.36}, "= 8.27 is no whole number of elements from 3 up; look at bpfo, bpfi"),
        ({**FACTORS, "bpfo": 4.98, "bpfi": 3.02}, "bpfo = 4.98 is not below bpfi = 3.02; they look exchanged"),
        ({**FACTORS, "bpfo": 0.01, "bpfi": 0.03}, "bpfo + bpfi = 0.04 is no whole number of elements from 3 up"),
        ({**FACTORS, "ftf": 0.41}, "ftf = 0.41 looks wrong: with 8 elements and bpfo = 3.02 it is 0.378"),
        ({**FACTORS, "ftf": 0.622}, "ftf = 0.622 is not below 0.5; all four are multiples of shaft speed, not Hz"),
        ({**FACTORS, "bsf": 3.85}, "bsf = 3.85 looks wrong: by bpfo and bpfi it is at most 1.918. Write the ball's spin"),
    ],
    ids=lambda value: None if isinstance(value, dict) else "-".join(value.split()[:3]),
)  # fmt: skip
def test_own_numbers_that_do_not_belong_together_are_named(own, says):
    """A slip of the pen would put every line in the wrong place, and nothing else would ever tell."""
    with pytest.raises(ValueError, match=re.escape(says)):
        own_orders(own)


SITE = """
[site]
name = "plant-1"
gateway = "gw-01"

[[sources]]
kind = "modbus"
name = "line-1"
host = "192.0.2.10"

[[sources.sensors]]
name = "drive-1"
device = "abb_acs580"
unit_id = 2

[[machines]]
tag = "M-101A"
type = "motor"
sensors = ["drive-1"]
bearings = { de = BEARING }
"""


@pytest.mark.parametrize(
    ("written", "bpfo", "printed"),
    [
        ('"6308"', 3.023, "DE bearing 6308"),
        ('{ designation = "6308", n_elements = 8, element_mm = 15.081, pitch_mm = 65 }', 3.072, "DE bearing 6308"),
        ("{ n_elements = 12, element_mm = 19.05, pitch_mm = 80, contact_angle_deg = 40 }", 4.906, "DE bearing"),
        ("{ bpfo = 3.05, bpfi = 4.95, bsf = 1.98, ftf = 0.381 }", 3.05, "DE bearing"),
    ],
    ids=["name", "named-geometry", "geometry", "factors"],
)
def test_a_site_names_its_bearing_or_describes_it(tmp_path, written, bpfo, printed):
    """The lines follow the user's own numbers, even under a name that the table has too; the alarm prints the name."""
    path = tmp_path / "site.toml"
    path.write_text(SITE.replace("BEARING", written), "utf-8")
    (machine,) = load_site(path, ROOT).machines
    assert machine.nameplate.bearing is not None
    assert machine.nameplate.bearing.bpfo == pytest.approx(bpfo, abs=0.001)
    assert parts_of(machine)["bearing"] == printed
