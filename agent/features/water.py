"""Density and vapour pressure of the liquid that a pump moves: water at its temperature, unless the site says otherwise.

Source: W. Wagner and A. Pruss, J. Phys. Chem. Ref. Data 22 (1993) 783, saturated water (IAPWS SR1-86(1992)); from 0 degrees
to the critical point. A liquid in a pump is compressed a little above saturation; below 20 bar that is less than 0.1 %.
"""

from __future__ import annotations

import math

from agent.features.nameplate import NAN

CRITICAL_K = 647.096
CRITICAL_BAR = 220.64
CRITICAL_KG_M3 = 322.0
ZERO_DEGC_K = 273.15
PRESSURE_TERMS = (
    (-7.85951783, 1.0),
    (1.84408259, 1.5),
    (-11.7866497, 3.0),
    (22.6807411, 3.5),
    (-15.9618719, 4.0),
    (1.80122502, 7.5),
)
DENSITY_TERMS = (
    (1.99274064, 1 / 3),
    (1.09965342, 2 / 3),
    (-0.510839303, 5 / 3),
    (-1.75493479, 16 / 3),
    (-45.5170352, 43 / 3),
    (-6.74694450e5, 110 / 3),
)


def vapour_pressure_bar(temperature_degc: float) -> float:
    """Absolute pressure at which water of this temperature boils; NaN outside 0 degrees to the critical point."""
    left = _below_critical(temperature_degc)
    kelvin = temperature_degc + ZERO_DEGC_K
    return CRITICAL_BAR * math.exp(CRITICAL_K / kelvin * _series(PRESSURE_TERMS, left)) if left > 0.0 else NAN


def density_kg_m3(temperature_degc: float) -> float:
    """Of liquid water; NaN outside 0 degrees to the critical point."""
    left = _below_critical(temperature_degc)
    return CRITICAL_KG_M3 * (1.0 + _series(DENSITY_TERMS, left)) if left > 0.0 else NAN


def _below_critical(temperature_degc: float) -> float:
    """1 - T / Tc; NaN where water is no liquid."""
    return 1.0 - (temperature_degc + ZERO_DEGC_K) / CRITICAL_K if temperature_degc >= 0.0 else NAN


def _series(terms: tuple[tuple[float, float], ...], left: float) -> float:
    return math.fsum(factor * math.pow(left, power) for factor, power in terms)
