"""Bad input, through the real command line: one clear line that says where and what to write, the exit code, nothing lost.

Exit codes: 0 ok, 1 problem found, 2 usage or configuration, 3 cannot reach. Never a traceback.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import Broker
from helpers import free_port, wait_until

from agent.__main__ import run
from agent.app import open_bundles
from agent.clock import ManualClock, SystemClock
from agent.config import load_site
from agent.features import feature_set_of
from agent.machine import load_machine_profile
from agent.pipeline import Pipeline
from agent.vocabulary import AlarmEvent, OperatingPoint, Record, Window
from agent.window import Windower
from firmware_bridge.device import load_device
from firmware_bridge.measurement import Block, Quality, Waveform
from firmware_bridge.source import MqttSensor, MqttSpec, SourceContext, open_source
from firmware_bridge.sources.mqtt import MqttSource
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_modbus import ModbusServer, Unit
from simulator.serve_mqtt import BurstPublisher, Tamper, corrupting, dropping, truncating

ROOT = Path(__file__).resolve().parents[2]
SITE = """
[site]
name = "plant-1"
gateway = "gw-01"
data_dir = "data"

[[sources]]
kind = "modbus"
name = "line-1"
host = "127.0.0.1"
port = {port}
timeout_s = 0.5

[[sources.sensors]]
name = "drive-1"
device = "abb_acs580"
unit_id = 2
poll_interval_s = 0.2

[[machines]]
tag = "M-101A"
type = "motor"
sensors = ["drive-1"]
rated_speed_rpm = 1460
"""
DRIVE = {
    "shaft_speed_rpm": 1460.0, "output_frequency_hz": 50.0, "motor_current_a": 11.9, "motor_torque_pct": 84.0,
    "dc_bus_v": 538.0, "motor_shaft_power_kw": 5.7,
}  # fmt: skip


@dataclass
class Said:
    """What a verb answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def hark(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """A verb in this process: the very function behind the console script."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(code, out, err)

    return call


def site_file(folder: Path, text: str = SITE, port: int = 502, **more: str) -> Path:
    """A site file in `folder`; keywords are further lines of its machine, the last table."""
    path = folder / "site.toml"
    path.write_text(text.format(port=port) + "".join(f"{key} = {value}\n" for key, value in more.items()), "utf-8")
    return path


def drive_server(values: Mapping[str, float] = DRIVE, port: int = 0) -> ModbusServer:
    """A drive that runs as the site file of this module expects it."""
    return ModbusServer({2: Unit(load_device(ROOT / "config", "abb_acs580"), lambda: values)}, port=port)


# ---------------------------------------------------------------------- the site file

MANY = """\
[site]
name = "plant-1"
gateway = "gw-01"
latency_budget_ms = "100"
data_dri = "data"
[decision]
k = 6
m = 5
[[sources]]
kind = "modbus"
name = "line-1"
host = "127.0.0.1"
port = 70000
[[sources.sensors]]
name = "vib-1"
device = "banner_qm30vt"
unit_id = 1
poll_interval_s = 0.005
[[sources.sensors]]
name = "drive-1"
device = "abb_acs580"
unit_id = 2
[[sources]]
kind = "modbus"
name = "line-2"
host = "127.0.0.1"
[[sources.sensors]]
name = "drive-1"
device = "abb_acs580"
unit_id = 3
[[machines]]
tag = "M-101A"
type = "moter"
sensors = ["vib-1", "drive-1", "accel-1"]
[[machines]]
tag = "M-101B"
type = "motor"
sensors = ["drive-1"]
bearings = { de = "6309x" }
"""
MANY_TOLD = (
    (4, 'site.latency_budget_ms = "100": is text. Write it without quotes:  latency_budget_ms = 100'),
    (5, "site.data_dri: no such key. Did you mean 'data_dir'?"),
    (6, "decision: k = 6 of m = 5 can never be reached; write k at most m"),
    (13, "sources[0].port = 70000: write at most 65535"),
    (
        16,
        "sources[0].sensors[0].device = \"banner_qm30vt\": not known. Did you mean 'banner_qm30vt2'?",
    ),
    (
        18,
        "sources[0].sensors[0].poll_interval_s = 0.005: write at least 0.01 (a 9600-baud line of eight needs 1 s or more)",
    ),
    (
        28,
        'sources[1].sensors[0].name = "drive-1": is used already (line 20, sources[0].sensors[1].name); '
        "give each its own name",
    ),
    (33, "machines[0].type = \"moter\": not known. Did you mean 'motor'?  (bearing_scalars, motor, pump, temperature)"),
    (34, 'machines[0].sensors: "accel-1": no source has a sensor of this name.  (drive-1, vib-1)'),
    (
        39,
        'machines[1].bearings.de = "6309x": bearings.toml, bearing "6309x": is not in the table; it has 6309, 6320, 6319. '
        "Write its geometry instead of its name: { n_elements = 8, element_mm = 15.1, pitch_mm = 65 }",
    ),
)


@pytest.mark.parametrize("verb", ["check", "run"])
def test_every_mistake_of_a_site_file_is_told_at_once(hark: Callable[..., Said], tmp_path: Path, verb: str) -> None:
    """A file is mended once: a wrong number hides no wrong name, and each has its line and what to write."""
    path = tmp_path / "site.toml"
    path.write_text(MANY, "utf-8")
    said = hark(verb, path)
    told = [f"  line {line:<4} {text}" for line, text in MANY_TOLD]
    assert said.err.splitlines() == [f"hark {verb}: {path} has {len(told)} problems:", *told]
    assert (said.code, said.out) == (2, "")


def test_wrong_names_alone_are_told_just_the_same(hark: Callable[..., Said], tmp_path: Path) -> None:
    """Names are looked at whether or not the schema has found something."""
    path = tmp_path / "site.toml"
    mended = {'"100"': "100", 'data_dri = "data"': "", "k = 6": "k = 3", "70000": "503", "0.005": "1.0"}
    text = MANY
    for wrong, right in mended.items():
        text = text.replace(wrong, right)
    path.write_text(text, "utf-8")
    names = [f"  line {line:<4} {text}" for line, text in MANY_TOLD if line in (16, 28, 33, 34, 39)]
    assert hark("check", path).err.splitlines()[1:] == names


DEVICE = """vendor = "Acme"
model = "P-1"
title = "a pressure transmitter"
source = "manual 7"
sees = "pressure"
update_interval_s = 1
function = 6
address_base = 2
max_registers = 200
word_order = "ABDC"
baud = 9600

[[points]]
name = "pressure"
address = 100
type = "float"
plausible = [10, 0]

[[points]]
name = "temperature_degc"
address = "102"
type = "int16"
plausible = [-40, 120]
absent = [-1]

[[points]]
name = "state_ratio"
address = 103
type = "int16"
bits = [3, 1]
plausible = [0, 1]

[[points]]
name = "flow_m3_h"
address = 104
type = "uint16"
scale = 0
plausible = [0, 100]
"""
DEVICE_TOLD = (
    (7, "function = 6: not known.  (1, 2, 3, 4)"),
    (8, "address_base = 2: not known.  (0, 1)"),
    (9, "max_registers = 200: write at most 125"),
    (10, "word_order = \"ABDC\": not known. Did you mean 'BADC'?  (ABCD, BADC, CDAB, DCBA)"),
    (11, "baud: no such key; here go address_base, allow_gaps, examples, function, identification, max_registers, model, "
         "points, sees, source, texts, title, update_interval_s, vendor, word_order"),
    (16, "points[0].type = \"float\": not known. Did you mean 'float64'?  (bcd16, bcd32, bit, float32, float64, int16, "
         "int32, int64, m10k32, uint16, uint32, uint64)"),
    (21, "points[1].address = \"102\": is text. Write it without quotes:  address = 102"),
    (24, "points[1].absent[0] = -1: write at least 0"),
    (26, "points[2]: bits = [3, 1] is no field of int16; write [lowest bit, how many] of a uint"),
    (33, "points[3]: scale and offset are finite numbers, and scale is not 0"),
)  # fmt: skip


def test_every_mistake_in_a_device_file_is_told_at_once_with_its_line(
    hark: Callable[..., Said], tmp_path: Path
) -> None:
    """An unknown device is one file that somebody writes from a manual at the panel: it is mended in one go."""
    root = tmp_path / "root"
    shutil.copytree(ROOT / "config", root / "config")
    (root / "models").symlink_to(ROOT / "models")
    (root / "config/devices/acme_p1.toml").write_text(DEVICE, "utf-8")
    path = tmp_path / "site.toml"
    path.write_text(SITE.replace("abb_acs580", "acme_p1").replace("{port}", "502"), "utf-8")
    said = hark("check", path, "--offline", "--root", root)
    told = [line for line in said.err.splitlines() if "acme_p1.toml" in line]
    want = [f"  line 7    sources[0]: acme_p1.toml, line {line}, {text}" for line, text in DEVICE_TOLD]
    assert told == want
    assert said.code == 2


def test_a_scada_broker_is_looked_at_too(hark: Callable[..., Said], tmp_path: Path) -> None:
    """Its host and its secrets, as those of every other broker."""
    path = tmp_path / "site.toml"
    scada = '[sparkplug]\nhost = "127.0.0.1"\nport = {port}\ngroup = "plant"\n{login}\n[[machines]]'
    port = free_port()
    site = SITE.replace("[[machines]]", scada, 1).replace("{port}", str(port))
    path.write_text(site.replace("{login}", ""), "utf-8")
    assert f"PROBLEM sparkplug: 127.0.0.1:{port} cannot be reached" in hark("check", path).out
    path.write_text(site.replace("{login}", 'username = "u"\npassword_file = "none"'), "utf-8")
    assert 'sparkplug.password_file = "none": cannot be read' in hark("check", path).out


def test_one_endpoint_in_two_sources_is_told_to_be_one(hark: Callable[..., Said], tmp_path: Path) -> None:
    """Two threads that talk on one line would take each other's answers."""
    path = tmp_path / "site.toml"
    second = '[[sources]]\nkind = "modbus"\nname = "again"\nhost = "127.0.0.1"\nport = {port}\n[[sources.sensors]]\n'
    second += 'name = "other"\ndevice = "keller_33x"\nunit_id = 9\n\n[[machines]]'
    path.write_text(SITE.replace("[[machines]]", second, 1).replace("{port}", "4321"), "utf-8")
    said = hark("check", path, "--offline")
    assert said.code == 2
    assert (
        'sources[1].host = "127.0.0.1": is the place of sources[0] already; put all sensors of one endpoint into'
        in said.err
    )


@pytest.mark.parametrize(
    ("bearing", "line"),
    [
        (
            "{ n_elements = 8, ball_mm = 15.9, pitch_mm = 65 }",
            "machines[0].bearings.de: ball_mm: no such key. Here go n_elements, element_mm, pitch_mm, contact_angle_deg, bpfo, "
            "bpfi, bsf, ftf, designation",
        ),
        (
            "{ n_elements = 8, element_mm = 15.9, pitch_mm = 65, bpfo = 3.02 }",
            "machines[0].bearings.de: gives geometry and factors; write either n_elements, element_mm, pitch_mm, "
            "contact_angle_deg or bpfo, bpfi, bsf, ftf",
        ),
        (
            "{ bpfo = 3.02, bpfi = 4.98, bsf = 3.85, ftf = 0.378 }",
            "machines[0].bearings.de: bsf = 3.85 looks wrong: by bpfo and bpfi it is at most 1.918. Write the ball's spin "
            "frequency once; some makers print the defect frequency of the ball, which is twice that",
        ),
        (
            "6308",
            'machines[0].bearings.de: is 6308; write its designation in quotes, "6308", or its numbers in braces',
        ),
    ],
    ids=["unknown", "both", "twice", "number"],
)
def test_a_bearing_described_wrongly_is_told_in_one_line(
    hark: Callable[..., Said], tmp_path: Path, bearing: str, line: str
) -> None:
    """Its lines would be sought in the wrong place, and no alarm would ever say so."""
    path = site_file(tmp_path, bearings=f"{{ de = {bearing} }}")
    said = hark("check", path, "--offline")
    assert said.err.splitlines() == [f"hark check: {path} has 1 problem:", f"  line 25   {line}"]
    assert said.code == 2


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            b'[site]\nname = plant-1\ngateway = "gw"\n',
            "  line 2    syntax: Invalid value; text goes in quotes, a table in [brackets], a time or number without quotes",
        ),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "            file: is not text in UTF-8; save it as UTF-8"),
        (None, "            file: cannot be read (No such file or directory); check the path"),
    ],
    ids=["no-toml", "no-text", "missing"],
)
@pytest.mark.parametrize("verb", ["check", "run"])
def test_what_is_no_site_file_is_told_in_one_line(
    hark: Callable[..., Said], tmp_path: Path, verb: str, content: bytes | None, line: str
) -> None:
    """The wrong file, a wrong path, or a word without its quotes."""
    path = tmp_path / "site.toml"
    if content is not None:
        path.write_bytes(content)
    said = hark(verb, path)
    assert said.err.splitlines() == [f"hark {verb}: {path} has 1 problem:", line]
    assert (said.code, said.out) == (2, "")


@pytest.mark.parametrize("name", ["password_file", "ca_file"])
def test_a_secret_that_cannot_be_read_is_named_with_its_line(
    hark: Callable[..., Said], tmp_path: Path, name: str
) -> None:
    """Found when it is needed, and by `hark check` before that."""
    path = site_file(tmp_path, SITE + f'[upstream]\nhost = "127.0.0.1"\n{name} = "nowhere"\n')
    number = len(path.read_text("utf-8").splitlines())
    what = {"password_file": "cannot be read", "ca_file": "is no file of certificates"}[name]
    line = (
        f'upstream.{name} = "nowhere": {what} (No such file or directory); write the path of a file that the user who runs '
        "hark can read"
    )
    said = hark("run", path)
    assert said.err.splitlines() == [f"hark run: {path} has 1 problem:", f"  line {number:<4} {line}"]
    assert said.code == 2
    assert line in hark("check", path).out


# ---------------------------------------------------------------------- devices that are not there


def test_a_host_that_does_not_answer_is_named_with_its_port_and_a_remedy(
    hark: Callable[..., Said], tmp_path: Path
) -> None:
    """Exit code 3: nothing is wrong with the file, something is not there."""
    port = free_port()
    path = site_file(tmp_path, port=port)
    line = (
        f"no connection to 127.0.0.1:{port} within 0.5 s (Connection refused); drive-1 (unit 2) cannot be read. Check power, "
        "cable and address of the device or gateway"
    )
    said = hark("check", path)
    assert [found for found in said.out.splitlines() if not found.startswith("ok")] == [
        f"PROBLEM source line-1: {line}"
    ]
    assert said.code == 3
    told = json.loads(hark("check", path, "--json").out)
    assert [found["says"] for found in told["findings"] if not found["ok"]] == [line]


def test_a_broker_that_does_not_answer_is_no_broker_reached(hark: Callable[..., Said], tmp_path: Path) -> None:
    """Bursts come when the sensors send: silence is no news, but a broker that is not there is."""
    port = free_port()
    path = tmp_path / "site.toml"
    path.write_text(
        '[site]\nname = "s"\ngateway = "g"\ndata_dir = "data"\n'
        f'[[sources]]\nkind = "mqtt"\nname = "bursts"\nhost = "127.0.0.1"\nport = {port}\n'
        '[[sources.sensors]]\nname = "accel"\n'
        '[[machines]]\ntag = "M-1"\ntype = "motor"\nsensors = ["accel"]\n'
    )
    said = hark("check", path)
    assert said.code == 3
    assert f"PROBLEM source bursts: no broker at 127.0.0.1:{port} for " in said.out
    assert "(Connection refused); nothing arrives from accel. Check that the broker runs" in said.out


def test_looking_at_a_broker_does_not_take_the_running_agents_session(
    hark: Callable[..., Said], tmp_path: Path, broker: Broker
) -> None:
    """Two clients of one name push each other out: a check beside a running agent would cost it bursts."""
    path = tmp_path / "site.toml"
    path.write_text(
        '[site]\nname = "s"\ngateway = "g"\ndata_dir = "data"\n'
        f'[[sources]]\nkind = "mqtt"\nname = "bursts"\nhost = "127.0.0.1"\nport = {broker.port}\n'
        '[[sources.sensors]]\nname = "accel"\n'
        '[[machines]]\ntag = "M-1"\ntype = "motor"\nsensors = ["accel"]\n'
    )
    site = load_site(path, ROOT)
    running = open_source(site.config.sources[0], site.context(0, SystemClock()))
    try:
        wait_until(lambda: running.counters["connects"], 10.0, "the agent's own connection")
        said = hark("check", path)
        assert said.code == 0, said.out
        assert "source bursts: broker reached and subscribed" in said.out
        assert list(running.read(0.2)) == []
        assert running.counters["connects"] == 1, "the agent's connection was never cut"
    finally:
        running.close()


def test_the_agent_says_once_that_a_device_is_away_and_goes_on_when_it_appears(tmp_path: Path) -> None:
    """A plant that is down is no reason to stop, and no reason to fill the log."""
    port = free_port()
    log = tmp_path / "run.log"
    with log.open("w") as errors:
        agent = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", str(site_file(tmp_path, port=port)), "--json"],
            stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
        )  # fmt: skip
    try:
        wait_until(lambda: "source lost" in log.read_text() or agent.poll() is not None, 30.0, "the loss to be told")
        with drive_server(port=port) as server:
            wait_until(lambda: "source back" in log.read_text(), 30.0, "the device to be back")
            wait_until(lambda: server.ledger.answered > 10, 10.0, "values")
            agent.send_signal(signal.SIGTERM)
            out, _ = agent.communicate(timeout=20)
    finally:
        agent.kill()
        agent.wait()
    text = log.read_text()
    assert agent.returncode == 0
    assert "Traceback" not in text
    assert text.count("source lost") == text.count("source back") == 1
    assert f"no connection to 127.0.0.1:{port}" in text
    ledger = json.loads(out)
    assert ledger["drops"]["line-1:lost"] >= 1
    assert ledger["records"]["produced"] == ledger["records"]["stored"]
    assert ledger["blocks"] >= 5


# ---------------------------------------------------------------------- values that cannot be


def test_a_wrong_word_order_is_called_that(hark: Callable[..., Said], tmp_path: Path) -> None:
    """The commonest mistake of all: every value is absurd, and the line says where to look."""
    with drive_server() as server:
        path = site_file(tmp_path, port=server.port)
        good = hark("check", path)
        server.trouble.word_order[2] = "ABCD"
        bad = hark("check", path)
    assert good.code == 0, good.out
    assert "ok      sensor drive-1: shaft_speed_rpm 1460, output_frequency_hz 50" in good.out
    assert bad.code == 1
    assert (
        "PROBLEM sensor drive-1: shaft_speed_rpm, output_frequency_hz, motor_current_a, motor_torque_pct, dc_bus_v, "
        "motor_shaft_power_kw BAD_RANGE: impossible values; check word order and scale in the device file; good: none"
    ) in bad.out


def test_a_value_that_is_not_available_is_not_blamed_on_the_word_order(
    hark: Callable[..., Said], tmp_path: Path
) -> None:
    """A sentinel is the device's own word for "I have none"."""
    values = {point.name: 1.0 for point in load_device(ROOT / "config", "banner_qm30vt2").points}
    unit = Unit(load_device(ROOT / "config", "banner_qm30vt2"), lambda: {**values, "temperature_degc": math.nan})
    with ModbusServer({2: unit}) as server:
        path = site_file(tmp_path, SITE.replace("abb_acs580", "banner_qm30vt2"), server.port)
        said = hark("check", path)
    assert said.code == 1
    assert (
        "PROBLEM sensor drive-1: temperature_degc BAD_SENTINEL: the device says it has no value; check that it is on and "
        "its own sensor is connected; good: velocity_rms_z_mm_s 1,"
    ) in said.out


@dataclass
class Plantside:
    """The agent's own path behind a real Modbus source, one poll at a time, on a clock that the test moves."""

    site_path: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(1_790_000_000_000_000_000, 1_000_000_000))
    events: list[AlarmEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.site = load_site(self.site_path, ROOT)
        self.pipeline = Pipeline(self.site, open_bundles(self.site), started_monotonic_ns=self.clock.monotonic_ns())
        self.source = open_source(self.site.config.sources[0], self.site.context(0, self.clock))

    def __enter__(self) -> Plantside:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def run(self, seconds: int) -> list[tuple[str, str]]:
        """So many seconds of plant time; gives (condition, trigger) of what was told in them."""
        first = len(self.events)
        for _ in range(seconds):
            self.clock.advance(1.0)
            for _ in self.site.config.sources[0].sensors:  # type: ignore[union-attr]
                for item in self.source.read(0.0):
                    assert isinstance(item, Block)
                    self.blocks.append(item)
                    self._take(self.pipeline.step(item))
            self._take(self.pipeline.tick(self.clock.utc_ns(), self.clock.monotonic_ns()))
        return [(event.condition, str(event.trigger)) for event in self.events[first:]]

    def _take(self, outcome: Any) -> None:
        self.events.extend(outcome.events)
        self.records.extend(outcome.records)


def test_a_wrong_word_order_alarms_the_sensor_and_not_the_machine(tmp_path: Path) -> None:
    """Absurd values are flagged and judged by nobody; when the file is mended the sensor is back."""
    with drive_server() as server:
        path = site_file(tmp_path, SITE.replace("poll_interval_s = 0.2", "poll_interval_s = 1.0"), server.port)
        server.trouble.word_order[2] = "ABCD"
        with Plantside(path) as agent:
            wrong = agent.run(30)
            assert all((block.quality == Quality.BAD_RANGE).all() for block in agent.blocks)
            assert all(np.isnan(block.values).all() for block in agent.blocks)
            server.trouble.word_order.clear()
            mended = agent.run(30)
    assert wrong == [("sensor:drive-1:range", "raise")]
    assert [condition for condition, _ in mended] == ["sensor:drive-1:range"]
    assert agent.pipeline.standing()[0].standing is False
    assert "sensor drive-1 gives impossible values" in agent.events[0].text
    assert "check wiring, scale and word order of the sensor" in agent.events[0].text
    assert len(agent.blocks) == 60, "every poll arrived, none was lost"


def test_values_that_are_not_there_neither_raise_nor_clear_a_limit(tmp_path: Path) -> None:
    """NaN and "not available" say nothing about the machine: a standing alarm stands, none is raised, the sensor is named."""
    config = ROOT / "config"
    values = {
        "vib": {point.name: 1.0 for point in load_device(config, "banner_qm30vt2").points} | {"temperature_degc": 40.0},
        "meter": {"active_power_kw": 5.5, "line_frequency_hz": 50.0, "voltage_l1_v": 230.0, "current_l1_a": 11.0},
    }
    n_asked = itertools.count()

    def alive(shown: Mapping[str, float]) -> dict[str, float]:
        """Nothing that is measured on a running machine stands still to the bit."""
        return {n: v if n.endswith("_degc") else v + 0.001 * (next(n_asked) % 7) for n, v in shown.items()}

    names = [point.name for point in load_device(config, "eastron_sdm630").points]
    values["meter"] = {name: 0.9 for name in names if name.endswith("_ratio")} | {
        name: values["meter"].get(name, 50.0) for name in names if not name.endswith("_ratio")
    }
    text = SITE.replace("abb_acs580", "banner_qm30vt2").replace("drive-1", "vib").replace("0.2", "1.0")
    meter = '[[sources.sensors]]\nname = "meter"\ndevice = "eastron_sdm630"\nunit_id = 3\n\n[[machines]]'
    text = text.replace("[[machines]]", meter).replace('["vib"]', '["vib", "meter"]')
    units = {
        2: Unit(load_device(config, "banner_qm30vt2"), lambda: alive(values["vib"])),
        3: Unit(load_device(config, "eastron_sdm630"), lambda: alive(values["meter"])),
    }
    with ModbusServer(units) as server, Plantside(site_file(tmp_path, text, server.port)) as agent:
        assert agent.run(20) == [], "a healthy machine"
        server.trouble.sentinel.update((2, 3))
        gone = agent.run(60)
        assert sorted(gone) == [("sensor:meter:absent", "raise"), ("sensor:vib:absent", "raise")]
        last = {int(block.channels[0]): block for block in agent.blocks}
        assert all((block.quality == Quality.BAD_SENTINEL).all() for block in last.values())
        assert all(np.isnan(block.values).all() for block in last.values())
        server.trouble.sentinel.clear()
        assert {condition for condition, _ in agent.run(30)} == {"sensor:meter:absent", "sensor:vib:absent"}, (
            "both back"
        )

        values["vib"]["temperature_degc"] = 110.0
        hot = [condition for condition, trigger in agent.run(60) if trigger == "raise"]
        assert hot, [event.text for event in agent.events]
        assert all(condition.startswith(("limit:temperature", "day_one")) for condition in hot), hot
        standing = {alarm.event.condition for alarm in agent.pipeline.standing() if alarm.standing}
        server.trouble.sentinel.add(2)
        assert agent.run(900) == [("sensor:vib:absent", "raise")], "no limit is cleared by a value that is not there"
        assert {a.event.condition for a in agent.pipeline.standing() if a.standing} == {*standing, "sensor:vib:absent"}
    for record in agent.records:
        json.dumps(msgspec.to_builtins(record.payload), allow_nan=False)


# ---------------------------------------------------------------------- bursts


def short_plant() -> Plant:
    """The demo's first pump set with short bursts."""
    demo = load_scenario("demo")
    one = demo.sets[0]
    bursts = tuple(msgspec.structs.replace(burst, n_samples=2560) for burst in one.bursts[:1])
    return Plant(
        msgspec.structs.replace(demo, sets=(msgspec.structs.replace(one, bursts=bursts),), faults=(), expect=())
    )


def in_the_second_burst(tamper: Tamper) -> Tamper:
    """`tamper`, for the first chunk of the second burst's second axis, and for nothing else."""
    axes: list[str] = []  # of all bursts, in the order in which they are sent

    def tampered(sensor: str, axis: str, number: int, message: bytes) -> bytes | None:
        is_first = not axes or axes[-1] != axis
        if is_first:
            axes.append(axis)
        return tamper(sensor, axis, number, message) if is_first and axes.count("y") == 2 and axis == "y" else message

    return tampered


@pytest.mark.parametrize(
    ("tamper", "counter"),
    [(corrupting(1), "corrupt"), (truncating(1), "corrupt"), (dropping(1), "incomplete")],
    ids=["corrupt", "truncated", "dropped"],
)
def test_a_broken_burst_is_counted_and_never_windowed(broker: Broker, tamper: Tamper, counter: str) -> None:
    """Half a burst is no burst; the good ones before and after it become windows."""
    plant = short_plant()
    name, burst = next(iter(plant.burst_sensors.items()))
    sensor = MqttSensor(name=name, burst_interval_s=burst.interval_s)
    spec = MqttSpec(name="bursts", host=broker.host, port=broker.port, sensors=(sensor,))
    source = open_source(spec, SourceContext(ROOT / "config", plant.scenario.site, 0, SystemClock()))
    assert isinstance(source, MqttSource)
    axes = tuple(plant.burst(name, 0)[1].axes)
    assert {"x", "y"} <= set(axes), "the test tampers with y"
    windower = Windower({name: "M-1"}, {name: axes})
    windows: list[Window] = []

    def listen() -> int:
        for item in source.read(0.1):
            assert isinstance(item, Waveform)
            windows.extend(windower.step(item, OperatingPoint(math.nan, math.nan, math.nan), item.monotonic_ns))
        return len(windows)

    try:
        wait_until(lambda: source.counters["connects"], 10.0, "the source's connection")
        wait_until(lambda: _subscribed(source), 5.0, "the subscription")
        plant_clock = PlantClock(speed=20.0)
        with BurstPublisher(
            plant,
            plant_clock,
            broker.host,
            broker.port,
            tamper=in_the_second_burst(tamper),
            chunk_bytes=2000,
            max_bursts=4,
        ) as publisher:
            wait_until(lambda: listen() == 3, 20.0, "the three good bursts")
        assert publisher.ledger.published == {name: 4}
        assert publisher.ledger.tampered == 1
    finally:
        source.close()
    windower.tick(time_after(windows))
    assert [window.burst_id for window in windows] == [0, 2, 3]
    assert all(window.samples.shape == (len(axes), 2560) for window in windows)
    assert windower.counts["incomplete"] == 1
    source._sensors.assembler.expire(time_after(windows))
    assert source.counters[counter] == 1
    assert source.counters["complete"] == 4 * len(axes) - 1


def _subscribed(source: MqttSource) -> bool:
    """A stranger's message on a topic of ours comes back and is counted."""
    topic = source._sensors.filters[0].replace("#", "readings")
    source._client.publish(topic, b"probe", 1)
    list(source.read(0.1))
    return source.counters["readings_corrupt"] > 0


def time_after(windows: list[Window]) -> int:
    """Two minutes after the last burst: whoever still waits for an axis gives up."""
    return windows[-1].arrived_monotonic_ns + 120 * 10**9


# ---------------------------------------------------------------------- models


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the shipped motor model, to be tampered with."""
    shipped = ROOT / "models" / load_machine_profile(ROOT / "config", "motor").bundle
    return Path(shutil.copytree(shipped, tmp_path / "bundle"))


def refusals(hark: Callable[..., Said], folder: Path, bundle: Path) -> set[str]:
    """What check, run and verify say of a bundle, each with exit code 1; the lines without the verb."""
    path = site_file(folder, port=free_port(), bundle='"bundle"')
    check, start, verify = hark("check", path, "--offline"), hark("run", path), hark("model", "verify", bundle)
    assert (check.code, start.code, verify.code) == (1, 1, 1)
    problems = [line for line in check.out.splitlines() if line.startswith("PROBLEM")]
    assert len(problems) == 1
    lines = {problems[0].removeprefix("PROBLEM model of M-101A: ")}
    lines |= {start.err.strip().removeprefix("hark run: "), verify.err.strip().removeprefix("hark model: ")}
    assert not (folder / "data" / "buffer.sqlite").exists(), "refused at the door, before anything was opened"
    return lines


def test_one_changed_byte_of_a_model_is_refused_by_every_verb(
    hark: Callable[..., Said], tmp_path: Path, bundle: Path
) -> None:
    """The same one line from all three: which file, expected and got, what to do."""
    model = bundle / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    (line,) = refusals(hark, tmp_path, bundle)
    assert line.startswith(f"{model}: sha256: expected ")
    assert line.endswith("this is not the file that was exported: copy the whole bundle folder again")


@pytest.mark.parametrize(
    ("change", "file", "says"),
    [
        (lambda tree: tree.update(format=2), "manifest.json", "format: expected 1, got 2"),
        (lambda tree: tree["columns"].pop(), "manifest.json", "shapes: expected (1, 38) for 38 columns"),
        (lambda tree: tree.update(surprise=1), "manifest.json", "is not a manifest (Object contains unknown field"),
        (lambda tree: tree["files"].update({"card.md": "0" * 64}), "card.md", "sha256: expected 000000000000.."),
        (lambda tree: tree["tail"].update(scale=-1.0), "manifest.json", "tail: expected location and scale above 0"),
        (lambda tree: tree["tail"].update(scale=9.0), "manifest.json", "its own sha256: expected "),
        (lambda tree: tree["columns"].reverse(), "manifest.json", "its own sha256: expected "),
    ],
    ids=["format", "columns", "unknown", "hash", "tail", "number", "order"],
)
def test_an_edited_manifest_is_refused_by_every_verb(
    hark: Callable[..., Said],
    tmp_path: Path,
    bundle: Path,
    change: Callable[[dict[str, Any]], Any],
    file: str,
    says: str,
) -> None:
    """One that contradicts the rest of the bundle is told as that, any other by the manifest's own hash."""
    tree = json.loads((bundle / "manifest.json").read_text())
    change(tree)
    (bundle / "manifest.json").write_text(json.dumps(tree))
    (line,) = refusals(hark, tmp_path, bundle)
    assert line.startswith(f"{bundle / file}: {says}")
    assert "\n" not in line


def test_a_bundle_for_other_features_names_the_columns_that_differ(
    hark: Callable[..., Said], tmp_path: Path, bundle: Path
) -> None:
    """Old numbers are refused by name, not silently scored wrong."""
    tree = json.loads((bundle / "manifest.json").read_text())
    tree["feature_digest"] = "0" * 64
    first, second = tree["columns"][0]["name"], tree["columns"][1]["name"]
    tree["columns"][0]["version"] += 1
    tree["columns"][1]["name"] = "old.column"
    (bundle / "manifest.json").write_text(json.dumps(tree))
    (line,) = refusals(hark, tmp_path, bundle)
    own = feature_set_of(load_machine_profile(ROOT / "config", "motor")).digest
    assert line.startswith(
        f"{bundle / 'manifest.json'}: feature digest: expected {own[:12]}.. (this agent's), got 000000"
    )
    assert (
        f"(old.column only in the bundle; {second} only in the agent; {first}: version 2 in the bundle, 1 in the"
        in line
    )
    assert line.endswith("train and export the bundle again with this agent's version and machine profile")


# ---------------------------------------------------------------------- extras that are not installed

BLOCKER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
# typer brings rich, so it is on every gateway
EXTRAS = {
    "onnxruntime", "ai_edge_litert", "starlette", "uvicorn", "amqtt", "sklearn", "onnx", "flatbuffers", "optuna", "pyarrow",
    "deltalake", "dask", "distributed",
}  # fmt: skip


def without_extras(folder: Path, *words: object) -> Said:
    """A verb in a process of its own in which none of the optional packages can be found."""
    (folder / "sitecustomize.py").write_text(BLOCKER.format(absent=EXTRAS))
    done = subprocess.run(
        [sys.executable, "-m", "agent", *map(str, words)], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1"}, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "{site}"), 'hark run: engine = "onnx" needs the package onnxruntime: pip install "hark-edge[onnx]"'),
        (
            ("model", "verify", "models/motor/1.0.0", "--engine", "tflite"),
            'hark model: engine = "tflite" needs the package ai-edge-litert: pip install "hark-edge[tflite]"',
        ),
        (
            ("data", "collect", "{folder}"),
            'hark data: hark data needs the package pyarrow: pip install "hark-edge[train]"',
        ),
        (("demo",), 'hark demo: hark demo needs the package amqtt: pip install "hark-edge[sim]"'),
        (("bench",), 'hark bench: hark bench needs the package amqtt: pip install "hark-edge[sim]"'),
    ],
    ids=["run", "verify", "collect", "demo", "bench"],
)
def test_a_missing_extra_is_answered_with_its_install_line(tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    """A gateway carries one engine and no training: whoever asks for more is told what to type."""
    path = site_file(tmp_path, port=free_port())
    said = without_extras(tmp_path, *(word.format(site=path, folder=tmp_path / "dataset") for word in words))
    assert said.err.splitlines() == [line]
    assert (said.code, said.out) == (2, "")


def test_check_tells_a_missing_engine_among_its_findings(tmp_path: Path) -> None:
    """The rest is looked at all the same."""
    said = without_extras(tmp_path, "check", site_file(tmp_path), "--offline")
    assert said.code == 2
    assert (
        'PROBLEM model of M-101A: engine = "onnx" needs the package onnxruntime: pip install "hark-edge[onnx]"'
        in said.out
    )
    assert "ok      data folder" in said.out


@pytest.mark.parametrize("words", [("--help",), ("check", "--help"), ("data", "--help"), ("train", "--help")])
def test_help_needs_no_extra(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Somebody who has installed too little must be able to find out."""
    said = without_extras(tmp_path, *words)
    assert (said.code, said.err) == (0, "")
    assert "hark" in said.out


# ---------------------------------------------------------------------- recordings

HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS;"
    "anomaly;changepoint"
)
ROW = "2020-03-09 10:14:33;0.02;0.04;1.3;0.05;79.3;26.0;233.0;32.0;0.0;0.0"


def recording(folder: Path, *lines: str) -> Path:
    path = folder / "run.csv"
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            ("a,b,c", "1,2,3"),
            ", line 1: its columns fit no mapping (femto, nab, skab); add config/recordings/<name>.toml or name one with "
            "--recording",
        ),
        ((), ": its first line is empty; a recording begins with the names of its columns"),
    ],
    ids=["foreign", "empty"],
)
def test_a_recording_that_fits_no_mapping_is_told_what_to_add(
    hark: Callable[..., Said], tmp_path: Path, lines: tuple[str, ...], says: str
) -> None:
    """A new data set is one file and no code; the line says which."""
    path = recording(tmp_path, *lines)
    said = hark("replay", path)
    assert (said.code, said.out, said.err) == (1, "", f"hark replay: {path}{says}\n")


def test_an_unknown_mapping_is_answered_with_the_known_ones(hark: Callable[..., Said], tmp_path: Path) -> None:
    """Exit code 2: the command was wrong, not the recording."""
    said = hark("replay", recording(tmp_path, HEADER, ROW), "--recording", "skb")
    assert said.code == 2
    assert "--recording skb: not known; write one of femto, nab, skab, or add this file" in said.err


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (ROW.replace("0.04", "oops"), ", line 3, column 'Accelerometer2RMS': 'oops' is not a number"),
        (ROW.replace(";0.04", ""), ", line 3: 10 cells under 11 columns"),
        (
            ROW.replace("2020-03-09", "09.03.2020"),
            ", line 3, column 'datetime': '09.03.2020 10:14:33' is not a time like %Y-%m-%d %H:%M:%S",
        ),
    ],
    ids=["cell", "short", "time"],
)
def test_a_broken_row_is_named_and_what_was_heard_before_it_is_kept(
    hark: Callable[..., Said], tmp_path: Path, broken: str, says: str
) -> None:
    """File, line and column; the rows up to there were played and are reported."""
    path = recording(tmp_path, HEADER, ROW, broken, ROW)
    said = hark("replay", path, "--json")
    assert (said.code, said.err) == (1, f"hark replay: {path}{says}\n")
    assert json.loads(said.out)["blocks"] == 1


def test_a_broken_row_ends_its_source_and_not_the_agent(
    tmp_path: Path,
) -> None:
    """In `hark run` a recording is one source among others."""
    path = tmp_path / "site.toml"
    played = recording(tmp_path, HEADER, ROW, ROW.replace("0.04", "oops"))
    path.write_text(
        '[site]\nname = "s"\ngateway = "g"\ndata_dir = "data"\n'
        f'[[sources]]\nkind = "replay"\nname = "rec"\nrecording = "skab"\npath = "{played}"\n'
        '[[machines]]\ntag = "P-1"\ntype = "pump"\nsensors = ["recording"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "agent", "run", str(path), "--seconds", "1", "--json"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert told == [
        f"ERROR agent.app: source ended: source=rec cause={played}, line 3, column 'Accelerometer2RMS': 'oops' is not a number"
    ]
    ledger = json.loads(done.stdout)
    assert ledger["blocks"] == 1
    assert ledger["records"]["produced"] == ledger["records"]["stored"]
