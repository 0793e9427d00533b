"""The words: physical quantities end in their unit, configuration keys too."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOML_NUMBER = re.compile(r"^([a-z][a-z0-9_]*)\s*=\s*-?[\d.]+\s*(?:#.*)?$")
# counts, ratios, identities and enumerations carry no unit
NO_UNIT = {
    "port", "unit_id", "k", "m", "seed", "address", "address_base",
    "function", "max_registers", "scale", "offset", "above", "below", "deadband",
    "below_normal_ratio", "learn_windows", "learn_rows", "vanes", "false_alarms_per_machine_month", "buffer_mib", "scale_floor",
    "severity", "peak", "index", "version", "spread", "speed", "threshold_factor", "exponent_address", "smallest",
    "scale_floor_ratio", "return_ratio", "above_normal_ratio",
}  # fmt: skip


def test_every_number_in_a_config_file_names_its_unit() -> None:
    """`timeout = 5` is a question; `timeout_s = 5` is an answer."""
    from firmware_bridge.units import suffix_of

    nameless = []
    for path in sorted((ROOT / "config").rglob("*.toml")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            found = TOML_NUMBER.match(line.strip())
            if not found or found[1] in NO_UNIT or found[1].startswith(("n_", "first_")) or "bearings" in path.name:
                continue
            try:
                suffix_of(found[1])
            except ValueError:
                nameless.append(f"{path.relative_to(ROOT)}:{number}: {found[1]}")
    assert nameless == []
