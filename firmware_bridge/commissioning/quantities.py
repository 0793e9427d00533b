"""What the quantities of a running machine mostly are, how they go together, and which units are mistaken for which.

Tables for commissioning (plausible.py) and nothing else: no alarm and no quality depends on them. A device file that says
`typical` is believed before this page.
Source: IEC 60038 (nominal voltages), EN 50160 (frequency and voltage in normal operation), IEC 60034-1 and 60034-14, ISO
10816-7 and 20816-3 (severity zones A to C), Modbus maps of drives, meters and sensors in config/devices; the rest is what
low-voltage motors of 0.5 to 500 kW and their pumps show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from firmware_bridge.device import Point
from firmware_bridge.units import STANDARD_GRAVITY_M_S2, suffix_of

Range = tuple[float, float]


# ---------------------------------------------------------------------- what one quantity mostly is
# name pattern -> where four of five running machines have it; several ranges where the world has several habits
USUAL: tuple[tuple[str, tuple[Range, ...]], ...] = (
    (r"(line|mains|supply|grid|input)_frequency.*_hz", ((49.9, 50.1), (59.9, 60.1))),
    (r"(peak|dominant).*frequency.*_hz", ((10.0, 500.0),)),
    (r".*_hz", ((20.0, 60.0),)),
    (r".*_rpm", ((700.0, 3000.0),)),
    (r".*(dc_bus|dc_link).*_v", ((500.0, 620.0), (290.0, 340.0), (620.0, 720.0), (900.0, 1000.0))),
    (r".*(l\d_l\d|_ll|line_to_line).*_v", ((385.0, 420.0), (455.0, 500.0), (202.0, 240.0), (660.0, 710.0))),
    (r".*(l\d|_ln|phase|neutral).*_v", ((222.0, 242.0), (114.0, 125.0), (265.0, 288.0), (380.0, 410.0))),
    (r"(motor|output)_voltage.*_v", ((120.0, 420.0),)),
    (r".*(supply|battery|sensor).*_v", ((11.0, 28.0),)),
    (r".*_v", ((100.0, 700.0),)),
    (r".*_a", ((1.5, 200.0),)),
    (r".*_kw", ((0.7, 150.0),)),
    (r".*_w", ((200.0, 100e3),)),
    (r".*_kva", ((0.8, 180.0),)),
    (r".*_kvar", ((0.3, 100.0),)),
    (r".*_kwh", ((500.0, 1e6),)),
    (r".*_wh_m3", ((20.0, 800.0),)),
    (r".*_nm", ((3.0, 1500.0),)),
    (r".*(power_factor|cos_phi).*_ratio", ((0.6, 0.95),)),
    (r".*kurtosis.*_ratio", ((2.6, 5.0),)),
    (r".*crest.*_ratio", ((2.8, 7.0),)),
    (r".*_ratio", ((0.2, 5.0),)),
    (r".*voltage.*thd.*_pct|.*thd.*voltage.*_pct", ((1.0, 6.0),)),
    (r".*current.*thd.*_pct|.*thd.*current.*_pct", ((3.0, 60.0),)),
    (r".*unbalance.*_pct", ((0.2, 6.0),)),
    (r".*(torque|load|thermal).*_pct", ((25.0, 100.0),)),
    (r".*_pct", ((5.0, 95.0),)),
    (r".*velocity.*rms.*_mm_s", ((0.4, 6.0),)),
    (r".*_mm_s", ((0.6, 12.0),)),
    (r".*rms.*_g", ((0.02, 1.0),)),
    (r".*_g", ((0.06, 6.0),)),
    (r".*rms.*_m_s2", ((0.2, 10.0),)),
    (r".*_m_s2", ((0.6, 60.0),)),
    (r".*_um", ((5.0, 100.0),)),
    (r".*_mm", ((0.1, 20.0),)),
    (r".*(ambient|water|liquid|medium|fluid).*_degc", ((5.0, 65.0),)),
    (r".*_degc", ((15.0, 80.0),)),
    (r".*(rise|difference).*_k", ((5.0, 80.0),)),
    (r".*_k", ((285.0, 355.0),)),
    (r"suction.*_bar", ((0.1, 3.0),)),
    (r".*_bar", ((0.3, 12.0),)),
    (r".*_kpa", ((30.0, 1200.0),)),
    (r".*head.*_m|.*_m", ((3.0, 80.0),)),
    (r".*_m3_h", ((2.0, 300.0),)),
    (r".*_l_min", ((20.0, 4000.0),)),
    (r".*_m_s", ((0.3, 4.0),)),
    (r".*_h", ((200.0, 60e3),)),
    (r".*_db", ((15.0, 90.0),)),
)
_USUAL = tuple((re.compile(pattern), ranges) for pattern, ranges in USUAL)


def usual(point: Point) -> tuple[Range, ...]:
    """Where a running machine mostly has this quantity: the device file's word, else the table's, else all it can be."""
    if point.typical is not None:
        return (point.typical,)
    for pattern, ranges in _USUAL:
        if pattern.fullmatch(point.name):
            inside = tuple(r for r in ranges if r[0] < point.plausible[1] and r[1] > point.plausible[0])
            if inside:
                return inside
    return (point.plausible,)


# quantities that rise and fall together: with the machine's vibration, its size and load, its supply
FAMILIES: dict[str, str] = {
    **dict.fromkeys(("mm_s", "g", "m_s2", "um"), "vibration"),
    **dict.fromkeys(("a", "w", "kw", "kva", "kvar", "nm", "m3_h", "l_min"), "size"),
    **dict.fromkeys(("kwh", "h"), "service"),
    "v": "voltage",
    **dict.fromkeys(("rpm", "hz"), "speed"),
    **dict.fromkeys(("bar", "kpa", "m"), "pressure"),
}


def n_alike(points: Sequence[Point]) -> list[int]:
    """By point, how many of them rise and fall together, itself included."""
    families = [FAMILIES.get(suffix_of(point.name), point.name) for point in points]
    return [families.count(family) for family in families]


# ---------------------------------------------------------------------- units that are mistaken for each other
@dataclass(frozen=True, slots=True)
class UnitSlip:
    """The register holds `holds`, the map calls it something else: value = factor * register + offset."""

    holds: str
    factor: float
    offset: float = 0.0


INCH_MM = 25.4
PSI_BAR = 0.0689475729
US_GALLON_L = 3.785411784
HORSEPOWER_KW = 0.745699872
WATER_BAR_M = 0.0979  # a metre of water at 20 degrees

# the map's unit suffix -> what the register may hold instead; powers of ten (mbar, mg, W) are scale slips and not here
UNIT_SLIPS: dict[str, tuple[UnitSlip, ...]] = {
    "mm_s": (UnitSlip("in/s", INCH_MM),),
    "g": (UnitSlip("m/s²", 1.0 / STANDARD_GRAVITY_M_S2),),
    "m_s2": (UnitSlip("g", STANDARD_GRAVITY_M_S2),),
    "um": (UnitSlip("mil", INCH_MM),),
    "mm": (UnitSlip("in", INCH_MM),),
    "degc": (UnitSlip("°F", 5.0 / 9.0, -160.0 / 9.0), UnitSlip("K", 1.0, -273.15)),
    "k": (UnitSlip("°C", 1.0, 273.15),),
    "bar": (UnitSlip("psi", PSI_BAR), UnitSlip("m of water", WATER_BAR_M)),
    "kpa": (UnitSlip("psi", 100.0 * PSI_BAR),),
    "m": (UnitSlip("bar", 1.0 / WATER_BAR_M), UnitSlip("ft", 0.3048)),
    "m3_h": (UnitSlip("l/min", 0.06), UnitSlip("l/s", 3.6), UnitSlip("US gal/min", 0.06 * US_GALLON_L)),
    "l_min": (UnitSlip("m³/h", 1.0 / 0.06), UnitSlip("l/s", 60.0), UnitSlip("US gal/min", US_GALLON_L)),
    "rpm": (UnitSlip("Hz", 60.0),),
    "hz": (UnitSlip("rpm", 1.0 / 60.0),),
    "kw": (UnitSlip("hp", HORSEPOWER_KW),),
}


# ---------------------------------------------------------------------- how quantities go together
@dataclass(frozen=True, slots=True)
class Law:
    """A product of powers of quantities that lies in one of some narrow ranges on every running machine.

    `terms`: name patterns with their exponents; `*` stands for the same letters in all of them.
    """

    terms: tuple[tuple[str, float], ...]
    ranges: tuple[Range, ...]


def _per(above: str, below: str, *ranges: Range) -> Law:
    return Law(((above, 1.0), (below, -1.0)), ranges)


LAWS = (
    # vibration: a sine's peak is 1.41 rms; acceleration is velocity times 2 pi f, from 16 Hz to 1 kHz
    _per("velocity_peak*_mm_s", "velocity_rms*_mm_s", (1.3, 5.0)),
    _per("acceleration_peak*_g", "acceleration_rms*_g", (1.8, 15.0)),
    _per("acceleration_peak*_m_s2", "acceleration_rms*_m_s2", (1.8, 15.0)),
    Law((("crest*_ratio", 1.0), ("acceleration_rms*_g", 1.0), ("acceleration_peak*_g", -1.0)), ((0.8, 1.25),)),
    Law((("crest*_ratio", 1.0), ("acceleration_rms*_m_s2", 1.0), ("acceleration_peak*_m_s2", -1.0)), ((0.8, 1.25),)),
    _per("acceleration_rms*_g", "velocity_rms*_mm_s", (0.01, 0.6)),
    _per("acceleration_rms*_m_s2", "velocity_rms*_mm_s", (0.1, 6.0)),
    _per("hf_acceleration_rms*_g", "acceleration_rms*_g", (0.1, 3.0)),
    # a motor of 2, 4, 6 or 8 poles turns a little slower than its field
    _per("shaft_speed_rpm", "output_frequency_hz", (56.0, 60.6), (28.0, 30.3), (18.7, 20.2), (14.0, 15.2)),
    # three phases: S = 3 U I, P = S cos phi, line to line is the root of 3 times line to neutral
    Law(
        (("active_power_kw", 1.0), ("voltage_l1_v", -1.0), ("current_l1_a", -1.0), ("power_factor_ratio", -1.0)),
        ((2.6e-3, 3.4e-3),),
    ),
    Law((("active_power_kw", 1.0), ("voltage_l1_v", -1.0), ("current_l1_a", -1.0)), ((0.6e-3, 3.2e-3),)),
    Law((("active_power_kw", 1.0), ("voltage_l1_l2_v", -1.0), ("current_l1_a", -1.0)), ((0.35e-3, 1.85e-3),)),
    Law(
        (("active_power_kw", 1.0), ("voltage_l1_l2_v", -1.0), ("current_l1_a", -1.0), ("power_factor_ratio", -1.0)),
        ((1.5e-3, 2.0e-3),),
    ),
    Law((("active_power*_kw", 1.0), ("voltage*_v", -1.0), ("current*_a", -1.0)), ((0.2e-3, 1.05e-3),)),
    Law((("apparent_power_kva", 1.0), ("voltage_l1_v", -1.0), ("current_l1_a", -1.0)), ((2.7e-3, 3.3e-3),)),
    Law((("apparent_power_kva", 1.0), ("voltage_l1_l2_v", -1.0), ("current_l1_a", -1.0)), ((1.5e-3, 2.0e-3),)),
    _per("active_power*_kw", "apparent_power*_kva", (0.2, 1.002)),
    _per("reactive_power*_kvar", "apparent_power*_kva", (0.05, 1.002)),
    _per("voltage_l1_l2_v", "voltage_l1_v", (1.67, 1.79)),
    # shaft: P = 2 pi n T; a motor gives 0.1 to 1 kW an ampere between 230 V and 690 V
    Law((("motor_shaft_power_kw", 1.0), ("shaft_speed_rpm", -1.0), ("motor_torque_nm", -1.0)), ((0.9e-4, 1.2e-4),)),
    _per("motor_shaft_power_kw", "motor_current_a", (0.1, 1.0)),
    _per("active_power_kw", "motor_current_a", (0.1, 1.1)),
    _per("active_power_w", "motor_current_a", (100.0, 1100.0)),
    # water: P = rho g Q H / eta with 20 to 85 %; a bar is 10.2 m
    Law((("active_power_kw", 1.0), ("flow_m3_h", -1.0), ("head_m", -1.0)), ((3.1e-3, 0.014),)),
    Law((("active_power_w", 1.0), ("flow_m3_h", -1.0), ("head_m", -1.0)), ((3.1, 14.0),)),
    Law((("active_power_w", 1.0), ("flow_m3_h", -1.0), ("differential_pressure_bar", -1.0)), ((32.0, 140.0),)),
    Law((("specific_energy_wh_m3", 1.0), ("flow_m3_h", 1.0), ("active_power_w", -1.0)), ((0.8, 1.25),)),
    _per("differential_pressure_bar", "head_m", (0.09, 0.106)),
    _per("differential_pressure_bar", "pump_head_bar", (0.8, 1.25)),
)

# unit suffix -> how far phases and axes of one quantity lie from each other
SIBLINGS: dict[str, Range] = {
    "v": (0.96, 1.04),
    "a": (0.8, 1.25),
    "kw": (0.7, 1.43),
    "kva": (0.75, 1.33),
    "kvar": (0.5, 2.0),
    "mm_s": (0.25, 4.0),
    "g": (0.25, 4.0),
    "m_s2": (0.25, 4.0),
    "pct": (0.4, 2.5),
    "ratio": (0.5, 2.0),
}
_TOKEN = re.compile(r"(?<=_)(?:l[123]|[xyz]|[123]|de|nde)(?=_)")


@dataclass(frozen=True, slots=True)
class Relation:
    """A law as it applies to one device's points: their positions and exponents."""

    terms: tuple[tuple[int, float], ...]
    ranges: tuple[Range, ...]


def relations(points: Sequence[Point]) -> list[Relation]:
    """Every law that this device's points can be held against."""
    places = {point.name: i for i, point in enumerate(points)}
    return [*_lawful(places), *_alike(places)]


def _lawful(places: dict[str, int]) -> Iterator[Relation]:
    for law in LAWS:
        for shared in _shared(law, places):
            names = [pattern.replace("*", shared) for pattern, _ in law.terms]
            if all(name in places for name in names):
                exponents = (exponent for _, exponent in law.terms)
                terms = tuple((places[name], exponent) for name, exponent in zip(names, exponents, strict=True))
                yield Relation(terms, law.ranges)


def _shared(law: Law, places: dict[str, int]) -> list[str]:
    """What `*` of the law's first term can stand for among these names."""
    head, star, tail = law.terms[0][0].partition("*")
    if not star:
        return [""]
    matched = (re.fullmatch(re.escape(head) + "(.*)" + re.escape(tail), name) for name in places)
    return [found[1] for found in matched if found]


def _alike(places: dict[str, int]) -> Iterator[Relation]:
    """Phases and axes of one quantity, each held against the first of them."""
    first: dict[str, int] = {}
    for name, place in places.items():
        family, n_tokens = _TOKEN.subn("#", name)
        spread = SIBLINGS.get(suffix_of(name))
        if not n_tokens or spread is None:
            continue
        hub = first.setdefault(family, place)
        if hub != place:
            yield Relation(((place, 1.0), (hub, -1.0)), (spread,))
