"""The closed table of unit suffixes: a physical quantity's name ends in one of these, and nothing else is a unit here."""

from __future__ import annotations

# suffix -> how a person reads it
UNITS: dict[str, str] = {
    "m_s2": "m/s²",
    "mm_s": "mm/s",
    "m_s": "m/s",
    "g": "g",
    "um": "µm",
    "mm": "mm",
    "m": "m",
    "rpm": "rpm",
    "hz": "Hz",
    "degc": "°C",
    "k": "K",
    "k_min": "K/min",
    "a": "A",
    "v": "V",
    "kw": "kW",
    "w": "W",
    "kvar": "kvar",
    "kva": "kVA",
    "kwh": "kWh",
    "wh_m3": "Wh/m³",
    "kwh_m3": "kWh/m³",
    "kg_m3": "kg/m³",
    "nm": "Nm",
    "bar": "bar",
    "kpa": "kPa",
    "m3_h": "m³/h",
    "l_min": "l/min",
    "pct": "%",
    "s": "s",
    "ms": "ms",
    "us": "µs",
    "ns": "ns",
    "h": "h",
    "db": "dB",
    "ratio": "",
    "x": "×",
}

STANDARD_GRAVITY_M_S2 = 9.80665  # CGPM 1901


def suffix_of(name: str) -> str:
    """The unit suffix that `name` ends in (the longest that fits).

    Raises: ValueError: the name ends in no unit of the table.
    """
    parts = name.split("_")
    for n_parts in (2, 1):
        suffix = "_".join(parts[-n_parts:])
        if len(parts) > n_parts and suffix in UNITS:
            return suffix
    raise ValueError(f"{name!r} ends in no unit; end it in one of {', '.join(sorted(UNITS))}")


def unit_of(name: str) -> str:
    """The printed unit of a quantity's name: unit_of("velocity_rms_mm_s") is "mm/s"."""
    return UNITS[suffix_of(name)]
