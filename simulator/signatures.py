"""What faults add to the lines of a housing: shaft orders, hum of the supply, sidebands.

Velocities are RMS in mm/s at rated speed; those of the shaft go with the square of speed. Source: ISO 13373-3:2015 (shafts,
flow) and ISO 13373-9:2017 (motors) for where the lines lie; their sizes are ours, up to norm zone D at full severity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from simulator.faults import LATE_LIFE

Axes = tuple[float, float, float]
Orders = dict[float, list[float]]  # shaft order -> velocity by axis
RATED_SHAFT_HZ = 1460.0 / 60.0
RADIAL: Axes = (0.8, 0.25, 1.0)
AXIAL: Axes = (0.35, 1.0, 0.4)
HUM_MM_S = {"supply_unbalance": 1.6, "stator_electrical": 2.0, "air_gap_eccentricity": 2.6}  # at twice line frequency


@dataclass(slots=True)
class Conditions:
    """Under what a point vibrates. `faults` are severities 0..1 of the faults at this point.

    Attributes:
        pole_pass_hz: slip frequency of the rotor times its poles. turned_back: 0..1, of the flow at low load.
        gas: 0..1, of the most that a pump can carry.
    """

    shaft_hz: float = 24.45
    line_hz: float = 50.0
    torque_ratio: float = 0.77
    flow_ratio: float = 1.0  # over best flow
    wet_ratio: float = 1.0  # 0 for a dry pump: no vane pass
    cavitation_db: float = 0.0  # as far as it reaches this point
    pole_pass_hz: float = 0.0
    turned_back: float = 0.0
    gas: float = 0.0
    faults: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Tone:
    """One line beside the shaft's orders and the line's hum: velocity RMS, mm/s."""

    frequency_hz: float
    velocity_mm_s: Axes


def add(orders: Orders, order: float, velocity_mm_s: float, direction: Axes) -> None:
    """Another source at a shaft order: velocities add, in the given direction."""
    axes = orders.setdefault(order, [0.0, 0.0, 0.0])
    for axis in range(3):
        axes[axis] += velocity_mm_s * direction[axis]


def add_shaft_faults(orders: Orders, faults: Mapping[str, float], square: float) -> None:
    """Unbalance, misalignment, looseness, a bent shaft, a worn coupling and a spall's late stage.

    Args: square: the speed ratio squared.
    """
    if (q := faults.get("unbalance", 0.0)) > 0.0:
        add(orders, 1.0, 9.0 * q * square, (1.0, 0.12, 0.9))
    if (q := faults.get("misalignment", 0.0)) > 0.0:
        add(orders, 1.0, 2.5 * q * square, AXIAL)
        add(orders, 2.0, 5.0 * q * square, (1.0, 0.7, 0.8))
        add(orders, 3.0, 1.2 * q * square, (1.0, 0.5, 0.8))
    if (q := faults.get("looseness", 0.0)) > 0.0:
        add(orders, 0.5, 1.2 * q * square, (0.5, 0.2, 1.0))
        for order in range(1, 11):
            add(orders, float(order), 4.0 * q * 0.75 ** (order - 1) * square, (0.5, 0.2, 1.0))
    if (q := faults.get("bent_shaft", 0.0)) > 0.0:
        add(orders, 1.0, 4.0 * q * square, (0.8, 1.0, 0.8))
        add(orders, 2.0, 1.5 * q * square, AXIAL)
    if (q := faults.get("coupling_wear", 0.0)) > 0.0:
        add(orders, 2.0, 1.5 * q * square, RADIAL)
        add(orders, 3.0, 2.5 * q * square, RADIAL)
    late = max(faults.get("bearing_outer_race", 0.0), faults.get("bearing_inner_race", 0.0)) - LATE_LIFE
    if late > 0.0:
        for order in range(1, 4):
            add(orders, float(order), 6.0 * late * square, RADIAL)


def add_flow_faults(orders: Orders, now: Conditions, vanes: float, vane: float) -> None:
    """Flow that turns back shakes along the shaft; fibres in the impeller are unbalance, and one passage less."""
    add(orders, vanes, vane * now.turned_back, AXIAL)
    if (q := now.faults.get("clogged_impeller", 0.0)) > 0.0:
        square = min(1.5, now.shaft_hz / RATED_SHAFT_HZ) ** 2
        add(orders, 1.0, 5.0 * q * square, RADIAL)
        for order in (vanes - 1.0, vanes + 1.0):
            add(orders, order, 2.0 * q * vane, RADIAL)


def extra_hum_mm_s(now: Conditions) -> float:
    """What electrical faults add at twice line frequency: the field's pull, gone with the supply."""
    if now.line_hz <= 1.0:
        return 0.0
    return sum(level * now.faults[fault] for fault, level in HUM_MM_S.items() if fault in now.faults)


def sidebands(now: Conditions) -> tuple[Tone, ...]:
    """Of an eccentric rotor: one turn beside twice line frequency. Of broken bars: one pole pass beside shaft speed."""
    if now.line_hz <= 1.0:
        return ()
    lines = []
    if (q := now.faults.get("air_gap_eccentricity", 0.0)) > 0.0:
        lines += [(2.0 * now.line_hz + side * now.shaft_hz, q) for side in (-1.0, 1.0)]
    if (q := now.faults.get("broken_rotor_bar", 0.0)) > 0.0:
        lines += [(now.shaft_hz + side * now.pole_pass_hz, 2.5 * q * now.torque_ratio) for side in (-1.0, 1.0)]
    return tuple(Tone(f_hz, (RADIAL[0] * v, RADIAL[1] * v, RADIAL[2] * v)) for f_hz, v in lines)


def dry_db(severity: float) -> float:
    """Noise above 3 kHz of a bearing short of grease: 6 to 15 dB."""
    return 6.0 * min(1.0, 4.0 * severity) + 9.0 * severity if severity > 0.0 else 0.0


def gained_g(noise_g: float, gain_db: float) -> float:
    """What must be added to a noise to make it louder by so much."""
    return noise_g * math.sqrt(max(0.0, 10.0 ** (gain_db / 10.0) - 1.0))
