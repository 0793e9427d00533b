"""`hark scan` and `hark read` as people type them: what they print, as JSON too, and their exit codes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Broker
from helpers import free_port
from publisher import publishing

from agent.__main__ import run
from firmware_bridge.commissioning import live, meter
from firmware_bridge.frames import encode_burst, topic_burst
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_modbus import ModbusServer, serve_set

CONFIG = Path(__file__).resolve().parents[2] / "config"


class StillClock(PlantClock):
    """A plant that stands at one moment."""

    def t_s(self) -> float:
        return 10.0


@pytest.fixture
def server() -> Iterator[ModbusServer]:
    with serve_set(Plant(load_scenario("demo")), "a", StillClock(), CONFIG) as made:
        yield made


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls a second apart show what moves; here everything stands still anyway."""
    monkeypatch.setattr(live, "POLL_S", 0.01)


def hark(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


def at(server: ModbusServer, unit: int, device: str) -> list[str]:
    return ["read", "--device", device, "--host", server.host, "--port", str(server.port), "--unit", str(unit)]


def test_scan_prints_the_devices_and_the_lines_for_the_site_file(
    server: ModbusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """From nothing but an address to lines that can be pasted."""
    code, out, err = hark(capsys, "scan", "modbus", server.host, "--port", str(server.port), "--units", "1-6")
    assert (code, err) == (0, "")
    assert "  unit 4: keller_33x, Pressure transmitter, RS-485. It says so itself; 2 of 2 values" in out
    assert 'device = "banner_qm30vt2"' in out


def test_scan_as_json_is_one_object(server: ModbusServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The setup page and scripts read it."""
    code, out, _ = hark(capsys, "scan", "modbus", server.host, "--port", str(server.port), "--units", "2,5", "--json")
    found = json.loads(out)["endpoints"][0]
    assert code == 0
    assert [unit["unit_id"] for unit in found["units"]] == [2, 5]
    assert found["units"][0]["matches"][0]["device"] == "abb_acs580"
    assert found["toml"][0] == "[[sources]]"


def test_scan_of_an_empty_line_is_a_problem_found(server: ModbusServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1: the gateway is there, and nobody behind it."""
    code, out, _ = hark(capsys, "scan", "modbus", server.host, "--port", str(server.port), "--units", "60-61")
    assert code == 1
    assert "no unit answers; check the unit ids on the labels" in out


def test_scan_of_a_subnet_says_first_what_it_will_do(server: ModbusServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep is announced: how many addresses, which port, and that it only reads."""
    arguments = ("scan", "modbus", f"127.0.0.1/31:{server.port}", "--units", "1")
    code, out, err = hark(capsys, *arguments)
    assert code == 0
    assert err.startswith(f"127.0.0.1/31: asks 2 addresses for port {server.port}, then 1 unit ids wherever somebody")
    assert "only functions 1 to 4 and 43/14 are sent, and nothing is written" in err
    assert f"127.0.0.1:{server.port}" in out


def test_read_shows_every_point_with_both_addresses(server: ModbusServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What mbpoll shows, and what it means."""
    code, out, _ = hark(capsys, *at(server, 2, "abb_acs580"))
    assert code == 0
    lines = out.splitlines()
    assert re.split(r"\s{2,}", lines[1]) == ["point", "fn", "address", "wire", "raw", "value", "quality", "plausible"]
    cells = re.split(r"\s{2,}", lines[2])
    assert cells[:4] == ["shaft_speed_rpm", "3", "20202", "20201"]
    assert re.fullmatch(r"[0-9A-F]{4} 0002", cells[4])
    assert cells[6:] == ["GOOD", "-30000 to 30000"]


def test_read_finds_a_drive_with_its_words_swapped(server: ModbusServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameter 58.34 was changed: the first line to write is the right one, with the values that it gives."""
    server.trouble.word_order = {2: "ABCD"}
    code, out, _ = hark(capsys, *at(server, 2, "abb_acs580"))
    assert code == 1
    told = out.partition("\n\n")[2].splitlines()
    assert re.fullmatch(r"abb_acs580 reads best with \(\d+%; 6 of 6 values lie .*; as written 0\)", told[0])
    assert told[1] == '    word_order = "ABCD"'
    assert re.fullmatch(r"        shaft_speed_rpm 14\d\d\.?\d* rpm instead of \S+", told[2])
    assert {'    word_order = "BADC"', '    word_order = "DCBA"'} <= set(told), "every order is shown"


def test_read_as_json_carries_points_and_candidates(server: ModbusServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A meter whose map is off by one register."""
    server.trouble.base_shift = {3: 1}
    code, out, _ = hark(capsys, *at(server, 3, "eastron_sdm630"), "--json")
    told = json.loads(out)
    assert code == 1
    assert told["points"][0]["value"] is None
    assert told["points"][0]["quality"] == "BAD_COMM"
    best = told["ranking"]["candidates"][0]
    assert best["changes"] == ["every address +1"]
    assert best["values"]["voltage_l1_v"] == pytest.approx(231, abs=8)
    assert told["ranking"]["ambiguous"] is False


def test_read_again_and_again(server: ModbusServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--follow shows the values as they come; --polls bounds it."""
    code, out, _ = hark(capsys, *at(server, 4, "keller_33x"), "--follow", "--polls", "2", "--json")
    assert code == 0
    assert [json.loads(line)["points"][0]["point"] for line in out.splitlines()] == ["pressure_bar"] * 2


@pytest.fixture
def site(tmp_path: Path, server: ModbusServer, broker: Broker) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(
        f"""
[site]
name = "works"
[[sources]]
kind = "modbus"
name = "line"
host = "{server.host}"
port = {server.port}
[[sources.sensors]]
name = "press-1"
device = "keller_33x"
unit_id = 4
[[sources]]
kind = "mqtt"
name = "air"
host = "{broker.host}"
port = {broker.port}
[[sources.sensors]]
name = "acc-1"
[[sources.sensors]]
name = "meter-1"
payload = "tasmota_energy"
topic = "tele/+/SENSOR"
""",
        "utf-8",
    )
    return path


def test_read_takes_a_sensor_of_the_site_file(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The usual way once the site is written."""
    code, out, _ = hark(capsys, "read", str(site), "press-1")
    assert code == 0
    assert out.startswith("press-1, unit 4 at 127.0.0.1:")


def test_read_takes_a_machine_s_tag_for_all_of_its_sensors(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who stands before the machine knows its tag; a sensor that says nothing does not hide the others."""
    text = site.read_text("utf-8") + '[[machines]]\ntag = "P-101A"\ntype = "pump"\nsensors = ["press-9", "press-1"]\n'
    second = '[[sources.sensors]]\nname = "press-9"\ndevice = "keller_33x"\nunit_id = 99\n[[sources]]\nkind = "mqtt"'
    site.write_text(text.replace('[[sources]]\nkind = "mqtt"', second, 1), "utf-8")
    code, out, _ = hark(capsys, "read", str(site), "P-101A")
    assert code != 0
    assert "press-9, unit 99 at 127.0.0.1:" in out
    assert "pressure_bar" in out.split("press-1, unit 4")[1]


def test_read_shows_the_last_message_of_an_mqtt_sensor_and_what_was_decoded(
    site: Path, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raw beside decoded: whoever looks sees at once which of the two is wrong."""
    said = b'{"ENERGY":{"Power":1533,"Voltage":235,"Current":"---"}}'
    with publishing(broker, [("tele/plug/SENSOR", said)]):
        code, out, _ = hark(capsys, "read", str(site), "meter-1")
    assert code == 0
    assert out.startswith(f"tele/plug/SENSOR: {said.decode()}\n")
    assert "  active_power_kw 1.533 kW GOOD\n" in out
    assert "  motor_current_a BAD\n" in out
    burst = encode_burst(_ramp(), axis="z", burst_id=1, sample_rate_hz=6400.0, scale_m_s2=0.01)
    with publishing(broker, [(topic_burst("works", "acc-1", "z"), burst[0])]):
        code, out, _ = hark(capsys, "read", str(site), "acc-1", "--json")
    decoded = json.loads(out)["decoded"][0]
    assert (decoded["axis"], decoded["n_samples"], decoded["sample_rate_hz"]) == ("z", 64, 6400.0)
    assert decoded["rms_m_s2"] == pytest.approx(0.32)


def _ramp() -> Any:
    import numpy as np

    return np.full(64, 32, np.int16)


def test_scan_mqtt_prints_topics_and_proposals(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    """A known meter becomes lines of the site file, an unknown sensor a payload file to be checked."""
    tasmota = b'{"Time":"2022-12-30T14:24:20","ENERGY":{"Total":263.033,"Power":4,"Voltage":235,"Current":0.202}}'
    messages = [("tele/plug/SENSOR", tasmota), ("works/pump", b'{"v_mm_s": 1.4, "n": 3}')]
    with publishing(broker, messages):
        code, out, _ = hark(capsys, "scan", "mqtt", f"{broker.host}:{broker.port}", "--seconds", "0.6")
        _, told, _ = hark(capsys, "scan", "mqtt", f"{broker.host}:{broker.port}", "--seconds", "0.6", "--json")
    assert code == 0
    assert 'payload = "tasmota_energy"\ntopic = "tele/plug/SENSOR"' in out
    assert "# config/payloads/NAME.toml for works/pump" in out
    assert 'name = "velocity_rms_mm_s"   # its name says mm/s: check it' in out
    topics = {topic["topic"]: topic for topic in json.loads(told)["topics"]}
    assert topics["works/pump"]["quantities"][0]["guess"]["name"] == "velocity_rms_mm_s"
    assert topics["tele/plug/SENSOR"]["payloads"] == ["tasmota_energy"]


class Terminal(io.StringIO):
    """Where somebody watches."""

    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_for_people_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """How far and how long still, over one line that is wiped at the end; a log file gets none of it."""
    monkeypatch.setattr(meter, "EACH_S", 0.0)
    now = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(meter.time, "monotonic", lambda: next(now))
    watched, unwatched = Terminal(), io.StringIO()
    with meter.Meter("scan", watched) as shown:
        shown.step(62, 247, "unit 62")
        shown.step(124, 247, "unit 124")
    drawn = watched.getvalue().split("\r")
    assert drawn[1].rstrip() == "scan [######                  ] 62/247  0:30 left  unit 62"
    assert drawn[2].rstrip().endswith("124/247  0:20 left  unit 124")
    assert drawn[3].strip() == ""
    monkeypatch.undo()
    with meter.Meter("scan", unwatched) as silent:
        silent.step(1, 2, "unit 1")
    assert unwatched.getvalue() == ""


# ---------------------------------------------------------------------- errors: what, why, do
ERRORS = [
    (
        ["read", "--device", "keller_33x", "--host", "127.0.0.1", "--port", "{closed}", "--unit", "4"],
        3,
        "hark read: keller_33x, unit 4 at 127.0.0.1:{closed}: no connection (Connection refused). Check power, cable, "
        "address and port\n",
    ),
    (
        ["read", "--device", "keller_33x", "--host", "127.0.0.1", "--port", "{open}", "--unit", "60"],
        3,
        "hark read: keller_33x, unit 60 at 127.0.0.1:{open}: the gateway gets no answer from it (exception 0B). Check the "
        "unit id on its label, its power and its RS-485 wiring; hark scan modbus shows who answers\n",
    ),
    (
        ["read", "{site}", "press-9"],
        2,
        "hark read: {site} has 1 problem:\n            sensor 'press-9': not known; it has press-1, acc-1, meter-1\n",
    ),
    (["read"], 2, "Error: Invalid value: write a site file and a sensor of it, or --device, --host (or --serial) and"),
    (["read", "--device", "keller_33x"], 2, 'Error: Invalid value: write either  host = "192.0.2.10"  or  serial ='),
    (
        ["scan", "modbus", "127.0.0.1", "--port", "{closed}"],
        3,
        "hark scan: 127.0.0.1:{closed}: no connection (Connection refused). Check power, cable, address and port; hark scan "
        "modbus takes a whole subnet too, such as 10.0.0.0/24\n",
    ),
    (
        ["scan", "modbus", "127.0.0.1/31", "--port", "{closed}"],
        3,
        "hark scan: 127.0.0.1/31: nobody takes connections on port {closed}. Check the subnet, the port and the network\n",
    ),
    (
        ["scan", "modbus", "/dev/tty-not-there"],
        3,
        "hark scan: /dev/tty-not-there: cannot be opened (",
    ),
    (
        ["scan", "modbus", "10.0.0.0/8"],
        2,
        "Error: Invalid value: 10.0.0.0/8 has 16777216 addresses; scan at most a /22",
    ),
    (["scan", "modbus", "10.0.0.5", "--units", "0-9"], 2, "Error: Invalid value: '0-9': write unit ids from 1 to 247"),
    (
        ["scan", "mqtt", "127.0.0.1:{closed}"],
        3,
        "hark scan: no broker at 127.0.0.1:{closed} (Connection refused). Check that the broker runs, its address and the "
        "login\n",
    ),
    (["scan", "mqtt", "a:b"], 2, "Error: Invalid value: 'a:b': write it as host or host:port"),
]


@pytest.mark.parametrize(("arguments", "code", "line"), ERRORS, ids=[" ".join(case[0])[:40] for case in ERRORS])
def test_every_mistake_is_one_clear_line(
    arguments: list[str], code: int, line: str, site: Path, server: ModbusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong, why, and what to do; the exit code says which kind it is."""
    words = {"closed": str(free_port()), "open": str(server.port), "site": str(site)}
    got, out, err = hark(capsys, *(argument.format(**words) for argument in arguments))
    assert (got, out) == (code, "")
    assert line.format(**words) in err
    assert "Traceback" not in err
