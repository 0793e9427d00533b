"""The Modbus source against a raw TCP server in this process: good answers, wrong ones, silence, and nobody at all."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import free_port, wait_until
from modbus_server import ModbusServer, image_answer, registers_pdu

from agent.clock import SystemClock
from firmware_bridge.device import Span, load_device
from firmware_bridge.errors import SourceLost
from firmware_bridge.measurement import Block, Quality
from firmware_bridge.modbus_link import Link, tcp_link
from firmware_bridge.registers import encode
from firmware_bridge.source import ModbusSensor, ModbusSpec, SourceContext, open_source
from firmware_bridge.sources.modbus import ModbusSource

CONFIG = Path(__file__).resolve().parents[2] / "config"
KELLER = encode(load_device(CONFIG, "keller_33x"), {"pressure_bar": 3.1847, "temperature_degc": 24.31})
DRIVE = encode(
    load_device(CONFIG, "abb_acs580"),
    {
        "shaft_speed_rpm": 1460.5,
        "output_frequency_hz": 48.67,
        "motor_current_a": 11.93,
        "motor_torque_pct": 84.6,
        "dc_bus_v": 538.1,
        "motor_shaft_power_kw": 5.74,
    },
)


@pytest.fixture
def server() -> Iterator[ModbusServer]:
    """Unit 1 a pressure transmitter, unit 2 a drive; any other unit is silent."""
    with ModbusServer(image_answer({1: KELLER, 2: DRIVE})) as running:
        yield running


def source(
    port: int, *sensors: tuple[str, str, int], interval_s: float = 0.05, timeout_s: float = 0.2, first: int = 0
) -> ModbusSource:
    made = tuple(ModbusSensor(name=n, device=d, unit_id=u, poll_interval_s=interval_s) for n, d, u in sensors)
    spec = ModbusSpec(name="line-a", host="127.0.0.1", port=port, timeout_s=timeout_s, sensors=made)
    opened = open_source(spec, SourceContext(CONFIG, "demo", first, SystemClock()))
    assert isinstance(opened, ModbusSource)
    return opened


def blocks(reader: ModbusSource, timeout_s: float = 0.3) -> list[Block]:
    return [block for block in reader.read(timeout_s) if isinstance(block, Block)]


def test_one_poll_is_one_block_in_one_request(server: ModbusServer) -> None:
    """Pressure and temperature lie side by side: one read of four registers, both clocks stamped at its end."""
    reader = source(server.port, ("p", "keller_33x", 1), first=7)
    before_ns = time.monotonic_ns()
    block = next(iter(reader.read(1.0)))
    reader.close()
    assert server.requests == [(1, 3, 0x0100, 4)]
    assert isinstance(block, Block)
    assert block.channels.tolist() == [7, 8]
    assert block.values == pytest.approx([3.1847, 24.31], rel=1e-6)
    assert block.quality.tolist() == [Quality.GOOD, Quality.GOOD]
    assert before_ns < block.monotonic_ns <= time.monotonic_ns()
    assert [c.name for c in reader.channels] == ["p.pressure_bar", "p.temperature_degc"]


def test_a_drive_s_gaps_are_not_read_across(server: ModbusServer) -> None:
    """The ACS580 refuses parameters that do not exist, so its map is four requests, and every value arrives."""
    reader = source(server.port, ("d", "abb_acs580", 2))
    block = blocks(reader, 0.04)[0]
    reader.close()
    assert [request[2:] for request in server.requests[:4]] == [(20201, 2), (20211, 4), (20219, 4), (20227, 2)]
    assert block.values == pytest.approx([1460.5, 48.67, 11.93, 84.6, 538.1, 5.74], rel=1e-6)


@pytest.mark.parametrize(
    ("why", "pdu"),
    [
        ("fewer registers than asked", registers_pdu(3, [0x404B, 0xD220])),
        ("more registers than asked", registers_pdu(3, [1, 2, 3, 4, 5])),
        ("another function", registers_pdu(4, [0x404B, 0xD220, 0x41C2, 0x7AE1])),
        ("a byte count beyond the frame", b"\x03\x08\x40\x4b"),
        ("nothing behind the function", b"\x03"),
        ("a function that does not exist", b"\x64\x00\x00"),
    ],
)
def test_an_answer_to_another_question_is_never_a_value(server: ModbusServer, why: str, pdu: bytes) -> None:
    """pymodbus 3.16.1 hands the first three back as good data; a wrong number is worse than none."""
    good = server.answer
    server.answer = lambda *_: pdu
    reader = source(server.port, ("p", "keller_33x", 1))
    block = blocks(reader, 0.04)[0]
    assert block.quality.tolist() == [Quality.BAD_COMM] * 2, why
    assert np.isnan(block.values).all()
    server.answer = good
    assert blocks(reader, 0.2)[-1].quality.tolist() == [Quality.GOOD] * 2
    reader.close()


def test_a_late_answer_is_not_taken_for_the_next_one(server: ModbusServer) -> None:
    """After silence the connection is dropped, so what still comes on it is lost and not shifted by one."""
    good = server.answer
    n_asked = 0

    def first_late(unit: int, function: int, address: int, count: int) -> bytes | None:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 1:
            threading.Event().wait(0.35)  # the device's own slowness, longer than the reader's 0.2 s
            return registers_pdu(3, [0, 0, 0, 0])
        return good(unit, function, address, count)

    server.answer = first_late
    reader = source(server.port, ("p", "keller_33x", 1))
    seen = [tuple(block.quality) for block in blocks(reader, 0.8)]
    reader.close()
    assert seen[0] == (Quality.BAD_COMM, Quality.BAD_COMM)
    assert set(seen[1:]) == {(Quality.GOOD, Quality.GOOD)}


def test_a_dead_unit_costs_its_neighbours_nothing_but_its_first_silence(server: ModbusServer) -> None:
    """Then it is asked in the time they leave, and not at all after three failed polls; BAD_COMM goes on at its pace."""
    reader = source(server.port, ("dead", "keller_33x", 99), ("alive", "keller_33x", 1), timeout_s=0.1)
    seen = blocks(reader, 1.5)
    reader.close()
    dead = [b for b in seen if b.channels[0] == 0]
    alive = [b for b in seen if b.channels[0] == 2]
    assert all((b.quality == Quality.BAD_COMM).all() for b in dead)
    assert all((b.quality == Quality.GOOD).all() for b in alive)
    assert 3 <= sum(request[0] == 99 for request in server.requests) <= 4, "three polls, one of them with its retry"
    assert len(dead) > 8, "BAD_COMM goes on while the breaker is open"
    assert len(alive) > 12
    gaps_s = np.diff([b.monotonic_ns for b in alive]) / 1e9
    assert gaps_s.max() < 0.4, "one timeout of 0.1 s, its own interval, and room for a busy machine"


def test_a_refused_block_is_bad_comm_and_told_once(server: ModbusServer, caplog: pytest.LogCaptureFixture) -> None:
    """Exception 02 every second for a year is one line in the log, with what to check."""
    server.answer = lambda _u, function, _a, _c: struct.pack(">BB", function | 0x80, 2)
    with caplog.at_level(logging.INFO):
        reader = source(server.port, ("p", "keller_33x", 1))
        seen = blocks(reader, 0.3)
    assert len(seen) > 3
    assert all((b.quality == Quality.BAD_COMM).all() for b in seen)
    told = [r.getMessage() for r in caplog.records if "modbus trouble" in r.getMessage()]
    assert len(told) == 1
    assert "p, unit 1 at 127.0.0.1" in told[0]
    assert "address_base" in told[0]
    server.answer = image_answer({1: KELLER})
    with caplog.at_level(logging.INFO):
        assert (blocks(reader, 0.2)[-1].quality == Quality.GOOD).all()
    assert sum("works again" in r.getMessage() for r in caplog.records) == 1
    reader.close()


def test_a_drive_set_to_the_other_word_order_is_out_of_range(server: ModbusServer) -> None:
    """Parameter 58.34 changed on the drive: the numbers are absurd, and none of them gets through as a value."""
    server.answer = image_answer({2: {(f, a + (1 if a % 2 else -1)): word for (f, a), word in DRIVE.items()}})
    reader = source(server.port, ("d", "abb_acs580", 2))
    block = blocks(reader, 0.04)[0]
    reader.close()
    assert set(block.quality) == {Quality.BAD_RANGE}
    assert np.isnan(block.values).all()


def test_an_endpoint_that_is_not_there_is_lost_in_time_and_named() -> None:
    """The message says what, why and what to do."""
    port = free_port()
    reader = source(port, ("p", "keller_33x", 1), ("d", "abb_acs580", 2))
    started_s = time.monotonic()
    with pytest.raises(SourceLost) as lost:
        blocks(reader, 1.0)
    assert time.monotonic() - started_s < 0.6
    text = str(lost.value)
    assert f"127.0.0.1:{port}" in text
    assert "Connection refused" in text
    assert "p (unit 1)" in text
    assert "Check power" in text
    assert lost.value.retryable


def test_every_due_channel_is_bad_before_the_source_is_lost() -> None:
    """A pump that consumed the blocks knows within one poll that nothing is watched."""
    reader = source(free_port(), ("p", "keller_33x", 1), ("d", "abb_acs580", 2))
    reading = iter(reader.read(1.0))
    seen = [next(reading), next(reading)]
    with pytest.raises(SourceLost):
        next(reading)
    assert [b.channels[0] for b in seen] == [0, 2]
    assert all((b.quality == Quality.BAD_COMM).all() for b in seen)


def test_a_restarted_endpoint_is_read_again(server: ModbusServer) -> None:
    """No human needed after a power cut in the panel."""
    reader = source(server.port, ("p", "keller_33x", 1))
    assert (blocks(reader, 0.1)[-1].quality == Quality.GOOD).all()
    server.close()
    with pytest.raises(SourceLost):
        blocks(reader, 2.0)
    with ModbusServer(image_answer({1: KELLER}), server.port):
        assert wait_until(
            lambda: [b for b in blocks(reader, 0.1) if (b.quality == Quality.GOOD).all()], 3.0, "a good block"
        )
    reader.close()


def test_polls_keep_their_grid_however_slow_the_device(server: ModbusServer) -> None:
    """Each turn lies on start + k x interval: a slow answer delays one poll and shifts none."""
    good = server.answer

    def slow(unit: int, function: int, address: int, count: int) -> bytes | None:
        threading.Event().wait(0.02)  # the device's own answer time
        return good(unit, function, address, count)

    server.answer = slow
    reader = source(server.port, ("p", "keller_33x", 1), interval_s=0.1)
    stamps_s = np.array([b.monotonic_ns for b in blocks(reader, 1.05)]) / 1e9
    reader.close()
    beside_grid_s = np.abs((stamps_s - stamps_s[0] + 0.05) % 0.1 - 0.05)
    assert len(stamps_s) >= 7
    assert np.median(beside_grid_s) < 0.015, "the device's 0.02 s a poll would walk across the whole grid"


def test_a_link_has_two_questions_and_both_only_read() -> None:
    """The same address space that gives the current also starts the motor."""
    verbs = {name for name in dir(Link) if not name.startswith("_")}
    assert verbs == {"ask", "identify", "listen", "connect", "close", "ids", "late", "foreign"}


@pytest.mark.parametrize("pdu", [bytes([f]) + b"\0\0\0\1" for f in (0, 5, 6, 15, 16, 22, 23, 24, 0x2B, 0x80 | 3)])
def test_nothing_but_reading_passes_the_last_gate(server: ModbusServer, pdu: bytes) -> None:
    """Whoever forges a request inside this process gets no byte of it onto the wire."""
    link = tcp_link(server.host, server.port, 0.2)
    link.connect()
    with pytest.raises(PermissionError, match="never writes"):
        link._transact(1, pdu, lambda _: 2, 0.1)
    with pytest.raises(PermissionError, match="broadcast"):
        link.ask(0, Span(3, 0, 1), 0.1)
    link.close()
    assert server.raw == b""
