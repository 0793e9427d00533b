"""The third kind of feature, made of several channels: in profiles, site files, bundles and on the gateway."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from bundles import feature_body, message, stored

from agent.budget import LatencyBudget
from agent.config import Site, load_site
from agent.diagnosis import Diagnosis
from agent.features import DataPlate, feature_set_of
from agent.features.hydraulic import on_curve
from agent.features.nameplate import STANDARD_ATMOSPHERE_BAR, UNSTATED
from agent.inference.bundle import Bundle, open_bundle
from agent.inference.golden import golden_features, nameplate_from, nameplate_numbers
from agent.machine import ColumnSpec, load_machine_profile
from agent.pipeline import STAGES
from agent.tagbank import TagBank
from agent.watch import MachineWatch
from agent.words import Words
from firmware_bridge.errors import ConfigError
from firmware_bridge.measurement import Quality
from training.dataset import Simulated
from training.train import Kind, Recipe, train_site

PROFILE = """
type = "waterworks"
title = "pump of a waterworks"
norm = "ISO 10816-7 category II"
zone_bc_mm_s = 5.1
zone_cd_mm_s = 8.5
bundle = "waterworks/1.0.0"
point_name = "pump"
columns = [
  { feature = "tag.level", channel = "suction_pressure_bar", scale_floor = 0.02 },
  { feature = "hydraulic.head_m", scale_floor = 0.2 },
  { feature = "hydraulic.head_residual_m", scale_floor = 0.2 },
  { feature = "hydraulic.specific_energy_kwh_m3", scale_floor = 0.03 },
  { feature = "electrical.voltage_unbalance_pct", scale_floor = 0.1 },
  { feature = "thermal.rise_k", scale_floor = 2.0 },
  { feature = "thermal.residual_k", scale_floor = 2.0 },
]
"""
SITE = """
[site]
name = "plant"
gateway = "gw-01"
data_dir = "data"
[[sources]]
kind = "modbus"
name = "line"
host = "127.0.0.1"
sensors = [
  { name = "suction", device = "keller_33x", unit_id = 1, poll_interval_s = 1.0 },
  { name = "discharge", device = "keller_33x", unit_id = 2, poll_interval_s = 1.0 },
  { name = "flow", device = "siemens_mag6000", unit_id = 3, poll_interval_s = 1.0 },
  { name = "meter", device = "eastron_sdm630", unit_id = 4, poll_interval_s = 1.0 },
  { name = "drive", device = "abb_acs580", unit_id = 5, poll_interval_s = 1.0 },
]
[[machines]]
tag = "W-1"
type = "waterworks"
sensors = ["suction", "discharge", "flow", "meter", "drive"]
places = { suction = "suction", discharge = "discharge" }
rated_speed_rpm = 1460
learn_windows = 20
[machines.nameplate]
head_curve = [[0, 24.5], [80, 20.0], [110, 16.0]]
rated_power_kw = 7.5
"""
READINGS = {
    "suction_pressure_bar": 0.25,
    "discharge_pressure_bar": 2.2078,
    "flow_m3_h": 80.0,
    "shaft_speed_rpm": 1460.0,
    "active_power_kw": 6.4,
    "voltage_l1_v": 230.0,
    "voltage_l2_v": 230.0,
    "voltage_l3_v": 233.0,
}


@pytest.fixture(scope="module")
def works(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one more machine type, and a bundle trained for it from a gateway's records, columns and all."""
    folder = tmp_path_factory.mktemp("works")
    (folder / "config" / "machines").mkdir(parents=True)
    for name in ("devices", "payloads", "bearings.toml"):
        (folder / "config" / name).symlink_to(root / "config" / name)
    (folder / "config" / "machines" / "waterworks.toml").write_text(PROFILE, "utf-8")
    (folder / "site.toml").write_text(SITE, "utf-8")
    digest = Kind.named(folder, "waterworks").features.digest
    rng = np.random.default_rng(3)
    centre = np.array([0.25, 20.0, 0.0, 0.08, 0.9, np.nan, np.nan])
    records = [
        message("feature", seq, feature_body(centre * np.exp(0.02 * rng.standard_normal(7)), digest), "W-1")
        for seq in range(120)
    ]
    own_type = ((topic, payload.replace(b'"motor"', b'"waterworks"')) for topic, payload in records)
    dataset = stored(folder / "dataset", own_type)
    train_site(folder, dataset, "waterworks", folder / "models" / "waterworks" / "1.0.0", Recipe(("pca",)))
    return folder


@pytest.fixture(scope="module")
def site(works: Path) -> Site:
    return load_site(works / "site.toml", works)


def test_golden_windows_of_a_bundle_hold_real_quantities(works: Path, site: Site) -> None:
    """The check at the door must compare numbers: two absences always agree."""
    features = site.machines[0].features
    bundle = opened(site)
    expected = dict(zip(features.names, bundle.golden.windows[0].expected.tolist(), strict=True))
    assert expected["hydraulic.head_m"] == pytest.approx(20.0, abs=0.1)
    assert all(math.isfinite(value) for value in expected.values())
    assert [column.channel for column in bundle.manifest.columns][:2] == ["suction_pressure_bar", "machine"]


def opened(site: Site) -> Bundle:
    machine = site.machines[0]
    return open_bundle(machine.bundle_dir, machine.features.digest, "onnx", golden_features(machine.features))


def watched(site: Site, muted: frozenset[str] = frozenset()) -> dict[str, float]:
    """The vector of a machine whose instruments have shown READINGS for a while."""
    machine = site.machines[0]
    tags = TagBank(len(site.channels))
    indices = np.array([machine.roles[role] for role in READINGS], np.int32)
    quality = np.full(len(indices), Quality.GOOD, np.uint8)
    for second in range(3):
        tags.update(indices, np.array(list(READINGS.values()), np.float32), quality, (second + 1) * 10**9)
    watch = MachineWatch(
        machine,
        opened(site),
        site.config.decision,
        0.5,
        Diagnosis(Words("en")),
        LatencyBudget(100.0, STAGES),
        site.channels,
    )
    (record,) = watch.on_tags(tags, frozenset(), muted, 3 * 10**9, 0).records
    return dict(zip(machine.features.names, record.payload["values"], strict=True))


def test_the_gateway_computes_quantities_from_channels_that_no_column_asks_for(site: Site) -> None:
    """Pressures, flow, speed and power feed them; ambient is not measured here, so the heat is absent and not guessed."""
    values = watched(site)
    assert values["hydraulic.head_m"] == pytest.approx(20.0, abs=2e-3)
    assert values["hydraulic.head_residual_m"] == pytest.approx(0.0, abs=2e-3)
    assert values["hydraulic.specific_energy_kwh_m3"] == pytest.approx(0.08)
    assert values["electrical.voltage_unbalance_pct"] == pytest.approx(100 * 2 / 231)
    assert values["thermal.rise_k"] is None


def test_a_muted_sensor_takes_its_quantities_with_it(site: Site) -> None:
    """A flow meter that is not believed leaves no head, though the pressures alone would give one."""
    values = watched(site, frozenset({"flow"}))
    assert values["hydraulic.head_m"] is None
    assert values["hydraulic.specific_energy_kwh_m3"] is None
    assert values["electrical.voltage_unbalance_pct"] == pytest.approx(100 * 2 / 231)


def test_quantities_have_names_units_and_words(site: Site) -> None:
    """Data sets are keyed by the feature's own name; the reader of an alarm gets its unit."""
    features = site.machines[0].features
    at = features.names.index("hydraulic.specific_energy_kwh_m3")
    assert (features.columns[at].unit, features.words[at]) == ("kWh/m³", "energy per cubic metre")


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (
            '{ feature = "hydraulic.head_m", channel = "flow_m3_h" }',
            "leave it out; hydraulic.head_m finds its channels",
        ),
        ('{ feature = "hydraulic.head_m", parameters = { band = 1 } }', "hydraulic.head_m takes none"),
        ('{ feature = "hydraulic.head" }', r"not known\. Did you mean 'hydraulic\.head_m'"),
    ],
)
def test_a_wrong_quantity_column_is_refused_in_words(tmp_path: Path, column: str, says: str) -> None:
    """The message says what to write instead."""
    (tmp_path / "machines").mkdir()
    text = PROFILE.replace('{ feature = "hydraulic.head_m", scale_floor = 0.2 }', column)
    (tmp_path / "machines" / "waterworks.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=says):
        feature_set_of(load_machine_profile(tmp_path, "waterworks"))


def test_a_site_files_plate_reaches_the_formulas(site: Site) -> None:
    """Numbers as written, the rest unknown; without the table nothing is stated."""
    data = site.machines[0].nameplate.data
    assert data.head_curve == ((0.0, 24.5), (80.0, 20.0), (110.0, 16.0))
    assert (data.rated_power_kw, data.atmospheric_pressure_bar) == (7.5, STANDARD_ATMOSPHERE_BAR)
    assert math.isnan(data.rated_current_a)
    assert UNSTATED.head_curve == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("rated_power_kw = -1", r"line \d+ +machines\[0\].nameplate.rated_power_kw = -1: write more than 0"),
        ("rated_power_kw = inf", "at most 1000000"),
        ("rated_power_kw = nan", "rated_power_kw = nan"),
        ("rated_efficiency_ratio = 90", "write at most 1"),
        ("rated_powr_kw = 7.5", r"no such key\. Did you mean 'rated_power_kw'"),
        ("n_poles = 3", "poles come in pairs"),
        ("npsh3_curve = [[80, 3.0]]", "2 to 8 points"),
        ("npsh3_curve = [[80, 3.0], [80, 3.1]]", "npsh3_curve: flow does not rise"),
        ("npsh3_curve = [[0, 3.0], [nan, 3.1]]", r"npsh3_curve\[1\].*write at least 0"),
        ("suction_bore_mm = 100", "write suction_bore_mm and discharge_bore_mm, or neither"),
    ],
)
def test_a_wrong_plate_is_one_clear_line(works: Path, tmp_path: Path, line: str, says: str) -> None:
    """People type these from a worn plate."""
    path = tmp_path / "site.toml"
    path.write_text(SITE.replace("rated_power_kw = 7.5", line), "utf-8")
    with pytest.raises(ConfigError, match=says):
        load_site(path, works)


def test_the_plate_of_the_example_site_is_right(root: Path) -> None:
    """It is commented out there, and people take the comment signs away."""
    text = (root / "config" / "site.example.toml").read_text("utf-8").partition("# [machines.nameplate]\n")[2]
    table = "\n".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))
    data = msgspec.convert(tomllib.loads(table), DataPlate)
    assert on_curve(data.head_curve, 80.0) == 20.0
    assert data.suction_bore_mm == 100.0


def test_training_sees_quantities_of_simulated_machines_as_the_gateway_does(root: Path) -> None:
    """Through the same code; a simulated pump has no flow meter, so what needs flow is absent there too."""
    names = ("electrical.load_ratio", "hydraulic.dry_run_ratio", "hydraulic.specific_energy_kwh_m3")
    profile = load_machine_profile(root / "config", "pump")
    columns = tuple(ColumnSpec(feature=name) for name in names)
    features = feature_set_of(msgspec.structs.replace(profile, columns=columns, burst=None))
    machine = Simulated(features, "pump", 1, root / "config")
    load, dry, cost = machine.windows([0]).values[0]
    assert 0.5 < load < 1.0
    assert dry < 0.1
    assert np.isnan(cost)
    assert machine.windows([0], {"dry_run": 1.0}).values[0][1] > 0.9


def test_the_whole_plate_survives_the_golden_file(site: Site) -> None:
    """What is replayed at the door must stand on the same plate that training used."""
    plate = site.machines[0].nameplate
    numbers = nameplate_numbers(plate)
    assert numbers["head_curve[1][0]"] == 80.0
    assert nameplate_numbers(nameplate_from(numbers)) == numbers
    assert nameplate_from(numbers).data.head_curve == plate.data.head_curve
