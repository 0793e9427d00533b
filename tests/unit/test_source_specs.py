"""The schemas of all sources: loading a site file checks them all and imports no library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from firmware_bridge.checked import Table, load
from firmware_bridge.errors import ConfigError
from firmware_bridge.registry import names_in
from firmware_bridge.source import AnySpec, ModbusSpec, MqttSpec, ReplaySpec, channels_of, kind_of

ROOT = Path(__file__).resolve().parents[2]
SITE = """
[[sources]]
kind = "modbus"
name = "line-a"
host = "192.0.2.10"
timeout_s = 1.0
[[sources.sensors]]
name = "vib-a"
device = "banner_qm30vt2"
unit_id = 1
[[sources.sensors]]
name = "drive-a"
device = "abb_acs580"
unit_id = 2
poll_interval_s = 0.5

[[sources]]
kind = "mqtt"
name = "bursts"
host = "192.0.2.11"
[[sources.sensors]]
name = "accel"
points = { temperature_degc = [-40, 120] }

[[sources]]
kind = "replay"
name = "skab"
recording = "skab"
path = "1.csv"
"""


class Site(Table, frozen=True):
    """As agent/config.py types it."""

    sources: tuple[AnySpec, ...]


def site(folder: Path, text: str = SITE) -> Site:
    path = folder / "site.toml"
    path.write_text(text, "utf-8")
    return load(path, Site)


def test_a_source_s_kind_chooses_its_schema_and_its_module(tmp_path: Path) -> None:
    """One list of sources, three kinds; the kind is the file's name in sources/."""
    from firmware_bridge import sources

    made = site(tmp_path).sources
    assert [type(spec) for spec in made] == [ModbusSpec, MqttSpec, ReplaySpec]
    assert sorted(map(kind_of, made)) == names_in(sources)


def test_channels_are_known_without_opening_anything(tmp_path: Path) -> None:
    """`hark check` runs on a desk; nothing of the plant is there."""
    modbus, mqtt, replay = (channels_of(spec, ROOT / "config") for spec in site(tmp_path).sources)
    assert [len(modbus), len(mqtt), len(replay)] == [17 + 6, 1, 8]
    assert modbus[0].name == "vib-a.velocity_rms_z_mm_s"
    assert mqtt[0].name == "accel.temperature_degc"


def test_loading_a_site_imports_neither_pymodbus_nor_paho() -> None:
    """A gateway with one kind of source pays for one library."""
    code = "import sys, firmware_bridge.source; print([m for m in ('pymodbus', 'paho') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "modbus"', 'kind = "modbsu"', "Did you mean 'modbus'"),
        ("unit_id = 1", "unit_id = 0", r"sources\[0\]\.sensors\[0\]\.unit_id = 0: write at least 1"),
        ("unit_id = 1", "slave = 1", "slave: no such key"),
        ("poll_interval_s = 0.5", "poll_interval_s = 0.005", "write at least 0.01"),
        ('name = "drive-a"', 'name = "vib-a"', "sensor 'vib-a' is there twice"),
        ('name = "accel"', 'name = "a/b"', "letters that are not allowed"),
        ("temperature_degc = [-40, 120]", "temperature = [-40, 120]", "ends in no unit"),
        ("temperature_degc = [-40, 120]", "temperature_degc = [120, -40]", "is no range"),
        ('recording = "skab"', 'recording = "../skab"', "letters that are not allowed"),
    ],
)
def test_a_mistake_in_a_source_is_named_with_its_remedy(tmp_path: Path, old: str, new: str, says: str) -> None:
    """The engineer at the panel reads it once and writes it right."""
    with pytest.raises(ConfigError, match=says):
        site(tmp_path, SITE.replace(old, new, 1))
