"""Finding Modbus devices: who answers, what each is, and when not to send a single byte."""

from __future__ import annotations

import os
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from helpers import free_port
from modbus_server import ModbusServer as RawServer

from firmware_bridge.commissioning.scan import (
    FAR_UNITS,
    FIRST_TIMEOUT_S,
    LAST_UNIT,
    LEAST_TIMEOUT_S,
    LONGEST_TIMEOUT_S,
    FoundUnit,
    LineTaken,
    Match,
    Patience,
    Progress,
    UnitScan,
    hosts_of,
    is_named,
    scan_hosts,
    scan_line,
    site_lines,
)
from firmware_bridge.device import DeviceProfile, load_device
from firmware_bridge.modbus_link import tcp_link
from firmware_bridge.source import AnySpec, ModbusSpec
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_modbus import ModbusLine, ModbusServer, PtyPair, serve_set, units_of

CONFIG = Path(__file__).resolve().parents[2] / "config"
DEMO = {1: "banner_qm30vt2", 2: "abb_acs580", 3: "eastron_sdm630", 4: "keller_33x", 5: "keller_33x"}


class StillClock(PlantClock):
    """A plant that stands at one moment."""

    def t_s(self) -> float:
        return 10.0


@pytest.fixture(scope="module")
def profiles() -> dict[str, DeviceProfile]:
    names = sorted(path.stem for path in (CONFIG / "devices").glob("*.toml"))
    return {name: load_device(CONFIG, name) for name in names}


@pytest.fixture(scope="module")
def plant() -> Plant:
    return Plant(load_scenario("demo"))


@pytest.fixture
def server(plant: Plant) -> Iterator[ModbusServer]:
    with serve_set(plant, "a", StillClock(), CONFIG) as made:
        yield made


def found_by(scan: UnitScan, units: list[int]) -> list[FoundUnit]:
    return [step for step in scan.run(units) if isinstance(step, FoundUnit)]


def scan_of(server: ModbusServer, profiles: dict[str, DeviceProfile]) -> UnitScan:
    return UnitScan(tcp_link(server.host, server.port, 1.0), profiles)


def test_every_unit_behind_a_gateway_is_found_and_named(
    server: ModbusServer, profiles: dict[str, DeviceProfile]
) -> None:
    """The gateway answers 0B for those that are not there: that is nobody's sign of life. Nothing but reading leaves."""
    found = found_by(scan_of(server, profiles), list(range(1, LAST_UNIT + 1)))
    assert {unit.unit_id: unit.matches[0].device for unit in found} == DEMO
    assert all(unit.matches[0].named for unit in found)
    assert set(server.ledger.functions) <= {1, 2, 3, 4, 0x2B}
    assert next(asked.unit_id for asked in server.ledger.requests) == FAR_UNITS[0]


def test_devices_that_say_no_name_are_known_by_their_values(
    server: ModbusServer, profiles: dict[str, DeviceProfile]
) -> None:
    """Most devices refuse function 43: then the map whose values a running machine would show is theirs."""
    server.trouble.anonymous = set(DEMO)
    found = found_by(scan_of(server, profiles), list(DEMO))
    assert {unit.unit_id: unit.matches[0].device for unit in found} == DEMO
    assert all(unit.matches[0].score > 6 and not unit.identity for unit in found)


def test_silent_gaps_cost_a_tenth_of_a_second_each(server: ModbusServer, profiles: dict[str, DeviceProfile]) -> None:
    """247 unit ids with silence between them must be through in half a minute."""
    server.trouble.absent_silent = True
    steps = list(scan_of(server, profiles).run([1, 2, 6, 7, 8, 9]))
    assert [step.unit_id for step in steps if isinstance(step, FoundUnit)] == [1, 2]
    progress = [step for step in steps if isinstance(step, Progress)]
    assert [(step.done, step.total) for step in progress] == [(n, 6) for n in range(1, 7)]
    assert 32 * FIRST_TIMEOUT_S + (LAST_UNIT - 32) * LEAST_TIMEOUT_S + 1.5 <= 30.0


def test_a_unit_that_answers_late_is_asked_again(server: ModbusServer) -> None:
    """A late answer means that we wait too short, not that nobody is there."""
    server.trouble.absent_silent = True
    server.trouble.late_s = {3: FIRST_TIMEOUT_S + 0.05}
    found = found_by(scan_of(server, {}), [3, 6])
    assert [unit.unit_id for unit in found] == [3]


def test_bytes_without_sense_are_asked_for_once_more(server: ModbusServer) -> None:
    """One disturbed answer must not hide a device; two of them in a row are no answer."""
    server.trouble.garble = {4: "wrong_crc"}
    assert [unit.unit_id for unit in found_by(scan_of(server, {}), [4, 5])] == [5]
    assert [asked.unit_id for asked in server.ledger.requests][:3] == [4, 4, 5]


def test_a_device_that_answers_to_every_unit_id_is_told_once(plant: Plant) -> None:
    """Many TCP devices ignore the unit id; 247 copies of one meter would be of no use."""
    meter = units_of(plant, "a", StillClock(), CONFIG)[3]
    with ModbusServer(dict.fromkeys(range(1, LAST_UNIT + 1), meter)) as server:
        found = found_by(scan_of(server, {}), list(range(1, LAST_UNIT + 1)))
        assert {asked.unit_id for asked in server.ledger.requests} == {1, *FAR_UNITS}
    assert [(unit.unit_id, unit.everywhere) for unit in found] == [(1, True)]


def test_patience_is_learned_from_the_answers() -> None:
    """Fast lines are scanned fast, slow ones are waited for, and a gateway's own patience is respected."""
    patience = Patience()
    assert patience.timeout_s == FIRST_TIMEOUT_S
    for _ in range(32):
        patience.asked()
    assert patience.timeout_s == LEAST_TIMEOUT_S, "nobody has answered: the rest is asked quickly"
    patience.answered(0.04)
    assert patience.timeout_s == pytest.approx(0.16)
    patience.answered(5.0)
    assert patience.timeout_s == FIRST_TIMEOUT_S
    patience.gave_up(0.9)
    assert patience.timeout_s == pytest.approx(1.35)
    for _ in range(3):
        patience.too_short()
    assert patience.timeout_s == LONGEST_TIMEOUT_S
    assert Patience(line_s=0.02).timeout_s == FIRST_TIMEOUT_S + 0.02


# ---------------------------------------------------------------------- serial lines
def test_where_another_master_talks_not_one_byte_is_sent() -> None:
    """Two masters on one line garble each other, and the other one may be steering the plant."""
    line = PtyPair()
    talking = threading.Event()

    def talk() -> None:
        while not talking.wait(0.02):
            os.write(line.fd, bytes.fromhex("0103000000020bc4"[:16]))

    other = threading.Thread(target=talk)
    other.start()
    try:
        with pytest.raises(LineTaken, match="another master talks on this line; nothing was sent"):
            list(scan_line(line.device, [(19200, "even")], [1], {}, listen_s=1.0))
        with pytest.raises(BlockingIOError):
            os.read(line.fd, 1)
    finally:
        talking.set()
        other.join()
        line.close()


def test_a_quiet_line_is_scanned_with_the_settings_that_are_answered(
    plant: Plant, profiles: dict[str, DeviceProfile]
) -> None:
    """The settings that somebody answers to are told before the first device, for they belong into the site file."""
    with ModbusLine(units_of(plant, "a", StillClock(), CONFIG)) as line:
        steps = list(scan_line(line.device, [(19200, "even"), (9600, "none")], [1, 2, 40], profiles, listen_s=0.2))
    told = [str(step) for step in steps if not isinstance(step, Progress | FoundUnit)]
    assert told == [f"{line.device} (19200 8E1)"]
    assert [step.unit_id for step in steps if isinstance(step, FoundUnit)] == [1, 2]


# ---------------------------------------------------------------------- hosts, names, lines to write
def test_a_subnet_is_all_its_hosts_and_no_more_than_a_thousand() -> None:
    """A typo in the mask must not become a sweep through the company."""
    assert hosts_of("10.0.0.5") == ["10.0.0.5"]
    assert hosts_of("10.0.0.4/30") == ["10.0.0.5", "10.0.0.6"]
    assert hosts_of("10.0.0.7/32") == ["10.0.0.7"]
    assert len(hosts_of("10.0.0.0/22")) == 1022
    with pytest.raises(ValueError, match="scan at most a /22"):
        hosts_of("10.0.0.0/21")
    with pytest.raises(ValueError, match=r"write it as 10\.0\.0\.0/24"):
        hosts_of("pump/24")


def test_only_hosts_that_take_connections_are_told() -> None:
    """Everything else in a subnet is none of our business."""
    with RawServer(lambda *_: None) as server:
        steps = list(scan_hosts(["127.0.0.1", "127.0.0.2"], server.port))
    assert [step for step in steps if isinstance(step, str)] == ["127.0.0.1"]
    assert [step.done for step in steps if isinstance(step, Progress)] == [1, 2]
    assert not [step for step in scan_hosts(["127.0.0.1"], free_port()) if isinstance(step, str)]


def test_a_name_is_the_files_words_else_vendor_and_model(profiles: dict[str, DeviceProfile]) -> None:
    """Vendors write their names in many ways; all the words must be there, in any case and order."""
    veris = profiles["veris_e51c"]
    assert veris.identification
    assert is_named(veris, {"vendor": " ".join(veris.identification).upper()})
    assert not is_named(veris, {"vendor": veris.identification[0]})
    assert is_named(profiles["keller_33x"], {"vendor": "KELLER AG", "model": "PA-33X"})
    assert not is_named(profiles["keller_33x"], {})


def test_what_is_proposed_for_the_site_file_can_be_loaded() -> None:
    """The lines are meant to be pasted."""
    match = Match("keller_33x", "Pressure transmitter", True, 9.0, "it says so itself")
    units = [FoundUnit(4, {}, (match,)), FoundUnit(9, {}, ())]
    lines = site_lines("line-1", {"host": "192.0.2.10", "port": 5020}, units)
    table = tomllib.loads("\n".join(lines))["sources"][0]
    spec = msgspec.convert(table, AnySpec)
    assert isinstance(spec, ModbusSpec)
    assert [(s.name, s.device, s.unit_id) for s in spec.sensors] == [("33x-4", "keller_33x", 4)]
    assert "# unit 9 answers; no file of config/devices fits it" in lines
