"""The simulated field devices byte by byte: requests and answers as the specification writes them, no library between."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import accepts

from firmware_bridge.device import load_device
from firmware_bridge.errors import SourceLost
from firmware_bridge.registers import Decoder, encode
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_modbus import ModbusServer, Unit, serve_set

CONFIG = Path(__file__).resolve().parents[2] / "config"


class HandClock(PlantClock):
    """Scenario time as the test sets it."""

    now = 10.0

    def t_s(self) -> float:
        return self.now


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def server(clock: HandClock) -> Iterator[ModbusServer]:
    with serve_set(Plant(load_scenario("demo")), "b", clock, CONFIG) as made:
        yield made


def ask(server: ModbusServer, unit: int, pdu: bytes, timeout_s: float = 2.0) -> bytes:
    """One transaction on a connection of its own; the PDU of the answer, empty where the server hung up."""
    with socket.create_connection((server.host, server.port), timeout=timeout_s) as line:
        line.sendall(struct.pack(">HHHB", 0x1234, 0, len(pdu) + 1, unit) + pdu)
        head = line.recv(7, socket.MSG_WAITALL)
        if not head:
            return b""
        transaction, protocol, length, answered = struct.unpack(">HHHB", head)
        assert (transaction, protocol, answered) == (0x1234, 0, unit)
        return line.recv(length - 1, socket.MSG_WAITALL)


def read(function: int, address: int, count: int) -> bytes:
    return struct.pack(">BHH", function, address, count)


def test_a_drive_answers_its_speed_low_word_first(server: ModbusServer) -> None:
    """Wire address 20201, two registers, hundredths of an rpm, CDAB: worked by hand from the manual's rule."""
    answer = ask(server, 2, read(3, 20201, 2))
    assert answer[:2] == bytes([3, 4])
    low, high = struct.unpack(">HH", answer[2:])
    assert ((high << 16) | low) / 100 == pytest.approx(1471, abs=10)


def test_a_meter_answers_floats_high_word_first_from_input_registers(server: ModbusServer) -> None:
    """Volts of phase 1 at input register 0, ABCD, function 4; the same address by function 3 does not exist."""
    answer = ask(server, 3, read(4, 0, 2))
    assert struct.unpack(">f", answer[2:])[0] == pytest.approx(231, abs=10)
    assert ask(server, 3, read(3, 0, 2)) == bytes([0x83, 2])


@pytest.mark.parametrize("unit_id", [1, 2, 3, 4, 5])
def test_every_device_reads_back_as_the_plant_has_it(server: ModbusServer, unit_id: int) -> None:
    """Through the agent's own read plan and decoder: nothing is lost between the plant and the words."""
    plant = Plant(load_scenario("demo"))
    spec = next(device for device in plant.sets["b"].devices if device.unit_id == unit_id)
    profile = load_device(CONFIG, spec.device)
    decoder = Decoder(profile)
    words = {}
    for index, part in enumerate(decoder.reads):
        answer = ask(server, unit_id, read(part.function, part.address, part.count))
        assert answer[0] == part.function, answer.hex()
        words[index] = np.frombuffer(answer[2:], ">u2").astype(np.uint16)
    values, quality = decoder.decode(words)
    assert not quality.any()
    shown = plant.scalars("b", 10.0)[spec.name]
    for point, value in zip(profile.points, values, strict=True):
        step = abs(point.scale) if point.type != "float32" else 1e-4
        assert value == pytest.approx(shown[point.name], abs=step, rel=1e-5), point.name


@pytest.mark.parametrize(
    ("pdu", "refusal"),
    [
        (bytes([6, 0, 1, 0, 1]), bytes([0x86, 1])),  # write: no such function here, ever
        (bytes([16, 0, 1, 0, 1, 2, 0, 0]), bytes([0x90, 1])),
        (read(3, 1, 2), bytes([0x83, 2])),
        (read(3, 20201, 0), bytes([0x83, 3])),
        (read(3, 20201, 126), bytes([0x83, 3])),
        (read(3, 20201, 100), bytes([0x83, 2])),  # reaches across parameters that do not exist
        (read(1, 0, 1), bytes([0x81, 2])),
        (bytes([3, 0]), bytes([0x83, 3])),
    ],
)
def test_what_a_drive_cannot_answer_it_refuses_by_the_book(server: ModbusServer, pdu: bytes, refusal: bytes) -> None:
    """Exceptions 01, 02, 03: the reader's handling of each is tested against these bytes."""
    assert ask(server, 2, pdu) == refusal
    assert server.ledger.refused == 1
    assert server.ledger.answered == 0


def test_an_unknown_unit_is_answered_by_the_gateway(server: ModbusServer) -> None:
    """0B, target did not respond: the TCP connection is fine, the unit is not."""
    assert ask(server, 77, read(3, 0, 1)) == bytes([0x83, 0x0B])


def test_a_silent_unit_and_the_others_beside_it(server: ModbusServer) -> None:
    """One dead device costs its own timeout only; the next request on another unit is answered."""
    server.trouble.silent.add(1)
    with pytest.raises(TimeoutError):
        ask(server, 1, read(3, 5200, 2), timeout_s=0.2)
    assert ask(server, 2, read(3, 20201, 2))[0] == 3
    assert server.ledger.ignored == 1


def test_trouble_sentinels_and_wrong_word_order(server: ModbusServer) -> None:
    """What a commissioning mistake or a dead sensor looks like on the wire."""
    server.trouble.sentinel.add(1)
    assert ask(server, 1, read(3, 5201, 1)) == bytes([3, 2, 0xFF, 0xFF])
    right = ask(server, 3, read(4, 0, 2))
    server.trouble.word_order[3] = "CDAB"
    wrong = ask(server, 3, read(4, 0, 2))
    assert wrong[2:] == right[4:6] + right[2:4]
    server.trouble.exception[2] = 6
    assert ask(server, 2, read(3, 20201, 2)) == bytes([0x83, 6])


def test_a_stuck_sensor_repeats_its_words_and_its_neighbours_do_not(server: ModbusServer, clock: HandClock) -> None:
    """The demo's S03: the same bits from 38 s on, while the drive of the same set lives."""
    clock.now = 40.0
    stuck, alive = ask(server, 1, read(3, 5200, 22)), ask(server, 2, read(3, 20201, 2))
    clock.now = 70.0
    assert ask(server, 1, read(3, 5200, 22)) == stuck
    assert ask(server, 2, read(3, 20201, 2)) != alive


def test_stop_refuses_connections_and_start_takes_them_again(server: ModbusServer) -> None:
    """A cut line and its repair, on the same port."""
    server.stop()
    assert not accepts(server.host, server.port)
    server.stop()
    server.start()
    assert ask(server, 2, read(3, 20201, 2))[0] == 3


def test_what_is_no_modbus_ends_the_connection(server: ModbusServer) -> None:
    """A wrong protocol id or length cannot be resynchronised; hanging up is the honest answer."""
    for head in (struct.pack(">HHHB", 1, 7, 6, 1), struct.pack(">HHHB", 1, 0, 999, 1)):
        with socket.create_connection((server.host, server.port), timeout=2.0) as line:
            line.sendall(head)
            assert line.recv(1) == b""


def test_a_taken_port_is_one_clear_line(server: ModbusServer) -> None:
    """Two simulators on one port is the usual mistake."""
    other = ModbusServer({}, server.host, server.port)
    with pytest.raises(SourceLost, match=str(server.port)):
        other.start()


def test_bits_are_packed_lowest_first() -> None:
    """Coil k is bit k mod 8 of byte k div 8 (1.1b3, 6.1)."""
    made = ModbusServer({1: BitUnit()})  # type: ignore[dict-item]
    assert made.answer(1, read(1, 0, 10)) == bytes([1, 2, 0b00000101, 0b00000010])


class BitUnit:
    """A unit with ten coils, of which 0, 2 and 9 are set."""

    allow_gaps = False

    def words(self, word_order: str | None, sentinel: bool) -> dict[tuple[int, int], int]:
        return {(1, a): int(a in (0, 2, 9)) for a in range(10)}


def test_a_value_without_sentinel_stays_what_it_was() -> None:
    """A drive has no "not available": its registers keep the last value, which is exactly how bad data looks good."""
    profile = load_device(CONFIG, "abb_acs580")
    shown = {point.name: 10.0 for point in profile.points}
    unit = Unit(profile, lambda: shown)
    assert unit.words() == encode(profile, shown)
    assert unit.words(sentinel=True) == encode(profile, shown)
