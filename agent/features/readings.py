"""What quantities are computed from: a machine's readings by name, and what several families begin with.

Everything here is plain arithmetic on floats in which NaN means "not known" and stays NaN; nothing divides by zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from agent.features.nameplate import NAN, DataPlate, Nameplate

Readings = Mapping[str, float]  # by the names that a feature declares in `needs` and `may_use`

SHAFT_POWER = ("motor_shaft_power_kw", "active_power_kw")
PHASE_CURRENTS = ("current_l1_a", "current_l2_a", "current_l3_a")
LEAST_SPEED_RATIO = 0.2  # of rated speed; below it the affinity laws multiply noise by more than 25


def first_known(*values: float) -> float:
    """The first that is a number; NaN where none is.

    Which one that is depends on how the machine is wired, not on the moment: see `Feature.may_use`.
    """
    return next((value for value in values if math.isfinite(value)), NAN)


def quotient(above: float, below: float) -> float:
    """NaN unless `below` is positive."""
    return above / below if below > 0.0 else NAN


def mean(values: Sequence[float]) -> float:
    """NaN where one of them is."""
    return sum(values) / len(values)


def shaft_power_kw(motor_shaft_power_kw: float, active_power_kw: float, data: DataPlate) -> float:
    """What the drive says, else the meter's power times the plate's efficiency.

    Source: ISO 9906:2012, pump power input by a motor of known efficiency; it is nearly even from half load up.
    """
    return first_known(motor_shaft_power_kw, active_power_kw * data.rated_efficiency_ratio)


def load_ratio_of(power_kw: float, current_a: float, data: DataPlate) -> float:
    """Shaft power over rated power; by current where no power is known, which tells little below half load.

    Source: US DOE, Determining Electric Motor Load and Efficiency (input power and line current methods).
    """
    return first_known(quotient(power_kw, data.rated_power_kw), quotient(current_a, data.rated_current_a))


def speed_ratio_of(shaft_speed_rpm: float, plate: Nameplate) -> float:
    """Speed over rated speed; NaN where the affinity laws would only magnify noise."""
    ratio = quotient(shaft_speed_rpm, plate.rated_speed_rpm)
    return ratio if ratio >= LEAST_SPEED_RATIO else NAN
