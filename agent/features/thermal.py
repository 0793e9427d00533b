"""Thermal quantities: temperature against the room, against the load, against its twin, and how fast it moves.

A raw temperature follows weather and load more than any fault; these do not. After a start a machine is cold and they say
nothing of it: they are absent until it has run for its `warming_s`.
"""

from __future__ import annotations

from agent.features.feature import quantity
from agent.features.nameplate import Nameplate
from agent.features.readings import (
    SHAFT_POWER,
    Readings,
    first_known,
    load_ratio_of,
    shaft_power_kw,
)

S_PER_MIN = 60.0
LAG = "tag.thermal_level"  # an exponential mean is what a first-order body's temperature follows
AMBIENT = "ambient_temperature_degc"
LAGGED_LOAD = tuple(f"{channel}:{LAG}" for channel in (*SHAFT_POWER, "motor_current_a"))


def rise_of(now: Readings, plate: Nameplate) -> float:
    """Kelvin over the ambient sensor, or over the room temperature that the site states."""
    return now["temperature_degc"] - first_known(now[AMBIENT], plate.data.ambient_temperature_degc)


def steady_rise_k(load_ratio: float, no_load_rise_k: float, rated_rise_k: float) -> float:
    """Where a first-order body ends at this load: its copper losses go with the load's square, the others stay."""
    return no_load_rise_k + (rated_rise_k - no_load_rise_k) * load_ratio * load_ratio


@quantity(
    version=1,
    words="temperature rise over ambient",
    source="IEC 60034-1:2022, clause 8: temperature rise over the coolant's temperature",
    moved_by=("lubrication", "overload", "misalignment", "over_greasing", "cooling_blocked"),
    needs=("temperature_degc",),
    may_use=(AMBIENT,),
    when_warm=True,
)
def rise_k(now: Readings, plate: Nameplate) -> float:
    """Of the housing where the sensor sits; the weather is out of it, the load is not."""
    return rise_of(now, plate)


@quantity(
    version=1,
    words="temperature beyond what the load explains",
    source="first-order model of IEC 60034-11: rise = no-load rise + (rated rise - no-load rise) * lagged load squared",
    moved_by=("lubrication", "misalignment", "over_greasing", "cooling_blocked"),
    needs=("temperature_degc",),
    may_use=(AMBIENT, *LAGGED_LOAD),
    when_warm=True,
)
def residual_k(now: Readings, plate: Nameplate) -> float:
    """0 at any load and in any weather on a healthy machine; friction, lost cooling and rubbing raise it.

    The load is squared after it is averaged: exact where it is steady, a little low where it swings.
    """
    data = plate.data
    shaft_kw, electrical_kw, current_a = (now[name] for name in LAGGED_LOAD)
    load = load_ratio_of(shaft_power_kw(shaft_kw, electrical_kw, data), current_a, data)
    return rise_of(now, plate) - steady_rise_k(load, data.no_load_rise_k, data.rated_rise_k)


@quantity(
    version=1,
    words="rate of temperature change",
    source="tag.slope of the housing's temperature; more than 2 K/min in steady running is a bearing about to fail",
    moved_by=("lubrication", "over_greasing"),
    needs=("temperature_degc:tag.slope",),
    when_warm=True,
)
def rate_k_min(now: Readings, plate: Nameplate) -> float:
    """Above 0 while it warms up; a newly greased bearing may show it for an hour."""
    return S_PER_MIN * now["temperature_degc:tag.slope"]


@quantity(
    version=1,
    words="drive-end over non-drive-end bearing temperature",
    source="two bearings of one machine share load and weather: what is left is one bearing's own",
    moved_by=("lubrication", "misalignment", "over_greasing"),
    needs=("bearing_de_temperature_degc", "bearing_nde_temperature_degc"),
    when_warm=True,
)
def difference_de_nde_k(now: Readings, plate: Nameplate) -> float:
    """Above 0 where the drive end is the hotter one."""
    return now["bearing_de_temperature_degc"] - now["bearing_nde_temperature_degc"]
