"""Thirty units behind one endpoint, some of them ill: the others keep their cadence, and no value goes to a wrong unit."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.clock import SystemClock
from firmware_bridge.device import load_device
from firmware_bridge.measurement import Block, Quality
from firmware_bridge.source import ModbusSensor, ModbusSpec, SourceContext
from firmware_bridge.sources.modbus import ModbusSource
from firmware_bridge.sources.modbus import open as open_source
from simulator.modbus_device import Unit
from simulator.serve_modbus import ModbusLine, ModbusServer

CONFIG = Path(__file__).resolve().parents[2] / "config"
KELLER = load_device(CONFIG, "keller_33x")
N_UNITS = 30
SILENT, GARBLING, LATE = 7, 13, 21
ILL = {SILENT, GARBLING, LATE}
INTERVAL_S = 0.5  # thirty units of a line need more than 0.3 s at 115200 baud
LASTS_S = 4.0


def telling_its_number(unit_id: int) -> Callable[[], Mapping[str, float]]:
    """Pressure and temperature say whose they are, and never stand still."""
    n = itertools.count()
    return lambda: {"pressure_bar": unit_id + next(n) % 100 / 1000, "temperature_degc": 100.0 - unit_id}


def units() -> dict[int, Unit]:
    return {unit_id: Unit(KELLER, telling_its_number(unit_id)) for unit_id in range(1, N_UNITS + 1)}


def reader_of(**place: Any) -> ModbusSource:
    sensors = tuple(
        ModbusSensor(name=f"p-{u}", device="keller_33x", unit_id=u, poll_interval_s=INTERVAL_S)
        for u in range(1, N_UNITS + 1)
    )
    spec = ModbusSpec(name="line", sensors=sensors, timeout_s=0.5, **place)
    return open_source(spec, SourceContext(CONFIG, "demo", 0, SystemClock()))


def by_unit(reader: ModbusSource, seconds: float) -> dict[int, list[Block]]:
    found: dict[int, list[Block]] = {}
    for block in reader.read(seconds):
        assert isinstance(block, Block)
        found.setdefault(int(block.channels[0]) // 2 + 1, []).append(block)
    return found


def assert_nobody_has_another_s_values(found: Mapping[int, list[Block]]) -> int:
    n_good = 0
    for unit_id, blocks in found.items():
        for block in blocks:
            good = block.quality == Quality.GOOD
            n_good += int(good.sum())
            pressure, temperature = block.values
            assert not good[0] or unit_id <= pressure < unit_id + 0.1, f"unit {unit_id} has {pressure} bar"
            assert not good[1] or temperature == 100.0 - unit_id, f"unit {unit_id} has {temperature} degC"
    return n_good


@pytest.mark.parametrize("line", ["tcp", "rtu over tcp", "serial"])
def test_thirty_units_of_which_three_are_ill_hurt_nobody(line: str) -> None:
    """One silent, one garbling, one late under another's number: cadence within 5 %, and every value with its owner."""
    server: ModbusServer | ModbusLine
    if line == "serial":
        server = ModbusLine(units())
    else:
        server = ModbusServer(units(), framing="tcp" if line == "tcp" else "rtu")
    trouble = server.trouble
    with server:
        place: dict[str, Any] = (
            {"serial": server.device, "baud_rate": 115200, "parity": "none"}
            if isinstance(server, ModbusLine)
            else {"host": server.host, "port": server.port, "framing": "tcp" if line == "tcp" else "rtu"}
        )
        reader = reader_of(**place)
        by_unit(reader, 3 * INTERVAL_S)  # all well: everybody is known
        trouble.silent.add(SILENT)
        # TCP has a checksum of its own, so what is damaged there is the frame; on RTU anything may be
        trouble.garble[GARBLING] = "wrong_byte_count" if line == "tcp" else "any"
        trouble.late_s[LATE] = 0.12
        trouble.late_as[LATE] = (LATE + 1, 0)
        found = by_unit(reader, LASTS_S)
        counters = reader.counters
        reader.close()
    assert_nobody_has_another_s_values(found)
    for unit_id in sorted(set(range(1, N_UNITS + 1)) - ILL):
        blocks = found[unit_id]
        assert all((block.quality == Quality.GOOD).all() for block in blocks), f"unit {unit_id} lost a poll"
        stamps_s = np.array([block.monotonic_ns for block in blocks]) / 1e9
        interval_s = float(np.median(np.diff(stamps_s)))
        assert interval_s == pytest.approx(INTERVAL_S, rel=0.05), f"unit {unit_id} was polled every {interval_s:.3f} s"
        assert abs(len(stamps_s) - LASTS_S / INTERVAL_S) <= 1, f"unit {unit_id} was polled {len(stamps_s)} times"
    for unit_id in ILL:
        assert all((block.quality == Quality.BAD_COMM).all() for block in found[unit_id][2:])
    assert counters["no_answer"] >= 3
    assert set(reader.troubles) == {f"p-{unit_id}" for unit_id in ILL}
    assert "units 1, 2, 3, 4 and more can be read" in reader.troubles[f"p-{SILENT}"]


def test_the_ill_ones_are_back_by_themselves() -> None:
    """Nobody restarts anything when the cable is plugged in again."""
    with ModbusServer(units()) as server:
        reader = reader_of(host=server.host, port=server.port)
        by_unit(reader, 0.3)
        server.trouble.silent.add(SILENT)
        by_unit(reader, 2.0)
        assert f"p-{SILENT}" in reader.troubles
        server.trouble.silent.clear()
        deadline = threading.Event()
        for _ in range(40):
            found = by_unit(reader, 0.3)
            if any((block.quality == Quality.GOOD).all() for block in found.get(SILENT, ())):
                break
        reader.close()
        assert not deadline.is_set()
        assert reader.troubles == {}


@pytest.mark.parametrize("line", ["rtu over tcp", "serial"])
def test_on_a_line_without_numbers_a_late_answer_is_never_the_next_one_s(line: str) -> None:
    """Two blocks of one length from one unit: only waiting tells the answer of the first from that of the second."""
    drive = load_device(CONFIG, "abb_acs580")
    values = {p.name: 10.0 * i + 11 for i, p in enumerate(drive.points)}
    unit = {2: Unit(drive, lambda: values)}
    server = ModbusLine(unit) if line == "serial" else ModbusServer(unit, framing="rtu")
    with server:
        place: dict[str, Any] = (
            {"serial": server.device, "baud_rate": 115200, "parity": "none"}
            if isinstance(server, ModbusLine)
            else {"host": server.host, "port": server.port, "framing": "rtu"}
        )
        sensor = ModbusSensor(name="d", device="abb_acs580", unit_id=2, poll_interval_s=0.1)
        spec = ModbusSpec(name="line", sensors=(sensor,), timeout_s=0.15, **place)
        reader = open_source(spec, SourceContext(CONFIG, "demo", 0, SystemClock()))
        rng = np.random.default_rng(3)
        good = 0
        for _ in range(15):
            server.trouble.late_s[2] = float(rng.uniform(0.0, 0.28))
            for block in reader.read(0.15):
                for point, value, quality in zip(drive.points, block.values, block.quality, strict=True):
                    if quality == Quality.GOOD:
                        good += 1
                        assert value == pytest.approx(values[point.name]), point.name
        reader.close()
    assert good > 12


def test_the_wire_has_seen_nothing_but_reading() -> None:
    """Whatever the devices do wrong, functions 1 to 4 are all that ever leaves."""
    with ModbusServer(units()) as server:
        for unit_id, code in zip(range(1, 12), (1, 2, 3, 4, 5, 6, 8, 10, 11, 7, 99), strict=True):
            server.trouble.exception[unit_id] = code
        server.trouble.drop_connection.add(12)
        server.trouble.garble[13] = "random"
        reader = reader_of(host=server.host, port=server.port)
        by_unit(reader, 2.0)
        reader.close()
        assert set(server.ledger.functions) == {3}
        assert all(asked.unit_id for asked in server.ledger.requests), "and never a broadcast"
