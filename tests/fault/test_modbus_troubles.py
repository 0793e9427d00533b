"""Each cause of a failed read is one line: what, why, do. The lines stand here as people will read them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from firmware_bridge.device import load_device
from firmware_bridge.errors import SourceLost
from firmware_bridge.source import ModbusSensor, ModbusSpec, SourceContext
from firmware_bridge.sources.modbus import open as open_source
from simulator.modbus_device import Unit
from simulator.modbus_trouble import Trouble
from simulator.serve_modbus import ModbusServer

CONFIG = Path(__file__).resolve().parents[2] / "config"
KELLER = load_device(CONFIG, "keller_33x")
VALUES = {"pressure_bar": 3.1847, "temperature_degc": 24.31}
UNITS_THAT_CAN = "(units 1, 3 can be read)"
FILE = "in the device file"

GOLDEN: list[tuple[str, dict[str, Any], str]] = [
    (
        "silence",
        {"silent": {2}},
        "no answer (units 1, 3 can be read) → check the unit id on the sensor's label, its power and its RS-485 wiring",
    ),
    (
        "damaged",
        {"garble": {2: "wrong_byte_count"}},
        "answers are damaged or another's (units 1, 3 can be read) → check shield, termination and distance to the drive's "
        "motor cable, then that no two devices share the unit id",
    ),
    (
        "01",
        {"exception": {2: 1}},
        "it does not know this function (exception 01) → try function 3 for 4, or 4 for 3, in the device file",
    ),
    (
        "02",
        {"exception": {2: 2}},
        "it has no such register (exception 02) → check address_base, address and allow_gaps in the device file",
    ),
    (
        "02 in part",
        {"holes": {2: range(0x0102, 0x0104)}},
        "it has no such register (exception 02), wire addresses 258 to 259 → check address_base, address and allow_gaps in "
        "the device file",
    ),
    (
        "03",
        {"exception": {2: 3}},
        "it refuses even one register at a time (exception 03) → check address and function in the device file",
    ),
    (
        "04",
        {"exception": {2: 4}},
        "it reports a failure of its own (exception 04) → look at the device's own display",
    ),
    (
        "05",
        {"exception": {2: 5}},
        "it asks for more time and never answers (exception 05) → poll it less often: poll_interval_s",
    ),
    (
        "06",
        {"exception": {2: 6}},
        "it is busy (exception 06) → poll it less often: poll_interval_s; see whether another master polls it",
    ),
    (
        "08",
        {"exception": {2: 8}},
        "its memory is damaged (exception 08) → replace the device or load its firmware anew",
    ),
    (
        "0A",
        {"exception": {2: 10}},
        "the gateway has no path to it (exception 0A) → check the gateway's own table of units and serial settings",
    ),
    (
        "0B",
        {"exception": {2: 11}},
        "the gateway gets no answer from it (exception 0B) → check the unit id on its label, its power and RS-485 wiring",
    ),
    (
        "unknown",
        {"exception": {2: 0x63}},
        "it refuses with an exception that is not in the standard (63) → look it up in the device's manual",
    ),
]


@pytest.mark.parametrize(("trouble", "line"), [case[1:] for case in GOLDEN], ids=[case[0] for case in GOLDEN])
def test_a_cause_is_one_line_with_its_remedy_told_once(
    trouble: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A person with a screwdriver reads it once, in the log and in `hark check`; its neighbours are untouched."""
    units = {i: Unit(KELLER, lambda: VALUES) for i in (1, 2, 3)}
    with ModbusServer(units, trouble=Trouble(**trouble)) as server, caplog.at_level(logging.INFO):
        sensors = tuple(
            ModbusSensor(name=f"p-{i}", device="keller_33x", unit_id=i, poll_interval_s=4.0 if i == 2 else 0.1)
            for i in (1, 2, 3)
        )
        spec = ModbusSpec(name="line-1", host=server.host, port=server.port, sensors=sensors, timeout_s=0.2)
        reader = open_source(spec, SourceContext(CONFIG, "demo", 0, SystemClock()))
        for block in reader.read(5.0):
            if int(block.channels[0]) == 2:  # the second sensor's: its poll is over
                break
        reader.close()
    want = f"p-2, unit 2 at 127.0.0.1:{server.port}: {line}"
    assert reader.troubles == {"p-2": want}
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == [f"modbus trouble: source=line-1 {want}"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"host": "127.0.0.1", "port": 1}, "no connection to 127.0.0.1:1 within 0.2 s (Connection refused)"),
        ({"serial": "/dev/ttyNOT"}, "the port /dev/ttyNOT cannot be opened (could not open port /dev/ttyNOT"),
        ({"serial": "/dev/null"}, "the port /dev/null cannot be opened ("),
    ],
    ids=["nobody listens", "no such port", "no serial port"],
)
def test_a_place_that_cannot_be_opened_says_why_and_what_to_check(place: dict[str, Any], says: str) -> None:
    """Never a traceback: a wrong cable is the most common state of a new installation."""
    sensor = ModbusSensor(name="p", device="keller_33x", unit_id=1)
    spec = ModbusSpec(name="line-1", sensors=(sensor,), timeout_s=0.2, **place)
    reader = open_source(spec, SourceContext(CONFIG, "demo", 0, SystemClock()))
    with pytest.raises(SourceLost) as lost:
        list(reader.read(0.1))
    assert says in str(lost.value)
    assert "p (unit 1) cannot be read. Check" in str(lost.value)
    assert "\n" not in str(lost.value)
