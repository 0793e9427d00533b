"""The simulated field devices byte by byte: requests and answers as the specification writes them, no library between."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import accepts, wait_until

from firmware_bridge.device import load_device
from firmware_bridge.errors import SourceLost
from firmware_bridge.registers import Decoder
from simulator.modbus_frames import Adu, RtuFraming, crc16
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_modbus import MAX_CONNECTIONS, Endpoint, ModbusLine, ModbusServer, Unit, serve_set, units_of

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
        answers = line.makefile("rb")
        head = answers.read(7)
        if not head:
            return b""
        transaction, protocol, length, answered = struct.unpack(">HHHB", head)
        assert (transaction, protocol, answered) == (0x1234, 0, unit)
        return answers.read(length - 1)


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


def test_every_request_is_written_down_and_only_so_many_are_kept(server: ModbusServer) -> None:
    """What a captured-traffic test looks at: which functions ever arrived, and when who was asked for what."""
    for pdu in (read(3, 20201, 2), read(4, 1, 2), bytes([6, 0, 1, 0, 1]), b"\x2b\x0e\x01\x00"):
        ask(server, 2, pdu)
    assert server.ledger.functions == {3: 1, 4: 1, 6: 1, 0x2B: 1}
    asked = [(one.unit_id, one.function, one.address, one.count) for one in server.ledger.requests]
    assert asked == [(2, 3, 20201, 2), (2, 4, 1, 2), (2, 6, 1, 1), (2, 0x2B, 0, 0)]
    times_ns = [one.monotonic_ns for one in server.ledger.requests]
    assert times_ns == sorted(times_ns)
    for _ in range(5000):
        server.answer(2, read(3, 20201, 2))
    assert len(server.ledger.requests) == 4096
    assert server.ledger.counts() == {
        "answered": 5002, "refused": 2, "ignored": 0, "garbage": 0, "turned_away": 0, "unsent": 0,
        "functions": {"3": 5001, "4": 1, "6": 1, "43": 1},
    }  # fmt: skip


def test_a_client_that_reads_late_gets_every_answer(server: ModbusServer) -> None:
    """While it does not read, its requests wait in its own socket, not in the server's memory."""
    asked = b"".join(struct.pack(">HHHB", i, 0, 6, 3) + read(4, 0, 60) for i in range(5000))
    with socket.create_connection((server.host, server.port), timeout=10.0) as line:
        line.sendall(asked)
        got = line.makefile("rb").read(5000 * 129)
    assert [struct.unpack_from(">H", got, 129 * i)[0] for i in range(5000)] == list(range(5000))


def test_one_connection_too_many_is_turned_away_and_counted(server: ModbusServer) -> None:
    """A client that forgets to close must not take the simulator down with it."""
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(socket.create_connection((server.host, server.port), timeout=2.0))
        wait_until(lambda: len(server.connections) == MAX_CONNECTIONS)
        with socket.create_connection((server.host, server.port), timeout=2.0) as extra:
            assert extra.recv(1) == b""
    assert server.ledger.turned_away == 1


# ---------------------------------------------------------------------- answers in time, out of time, in pieces


def test_a_late_answer_comes_after_the_one_that_was_asked_for_next(server: ModbusServer) -> None:
    """The one case that shifts every value by one device, unless transaction and unit are compared."""
    server.trouble.late_s[1] = 0.1
    server.trouble.late_as[1] = (2, 1)
    with socket.create_connection((server.host, server.port), timeout=2.0) as line:
        began_s = time.monotonic()
        first = struct.pack(">HHHB", 50, 0, 6, 1) + read(3, 5201, 2)
        line.sendall(first + struct.pack(">HHHB", 51, 0, 6, 2) + read(3, 20201, 2))
        answers = line.makefile("rb")
        right, late = answers.read(13), answers.read(13)
        assert time.monotonic() - began_s >= 0.1
    assert right[:7] == late[:7] == struct.pack(">HHHB", 51, 0, 7, 2)
    assert right != late


def test_an_answer_may_dribble_in_byte_by_byte(server: ModbusServer) -> None:
    """A slow converter hands over what it has; a reader that takes the first piece for the whole is wrong."""
    server.trouble.byte_gap_s[2] = 0.005
    with socket.create_connection((server.host, server.port), timeout=2.0) as line:
        line.sendall(struct.pack(">HHHB", 1, 0, 6, 2) + read(3, 20201, 2))
        pieces = [line.recv(260)]
        while sum(map(len, pieces)) < 13:
            pieces.append(line.recv(260))
    assert len(pieces) > 5
    server.trouble.byte_gap_s.clear()
    assert b"".join(pieces)[7:] == ask(server, 2, read(3, 20201, 2))


def test_answers_that_wait_are_bounded_and_the_rest_counted(server: ModbusServer) -> None:
    """A device that answers in an hour must not fill the memory until then."""
    server.trouble.late_s[2] = 3600.0
    with socket.create_connection((server.host, server.port), timeout=2.0) as line:
        line.sendall((struct.pack(">HHHB", 1, 0, 6, 2) + read(3, 20201, 2)) * 1100)
        wait_until(lambda: server.ledger.unsent == 1100 - 1024)


def test_a_device_that_hangs_up_does_so_instead_of_answering(server: ModbusServer) -> None:
    """Some drives close the connection when they dislike a request; the next one is served again."""
    server.trouble.drop_connection.add(2)
    assert ask(server, 2, read(3, 20201, 2)) == b""
    assert ask(server, 1, read(3, 5201, 1))[:2] == bytes([3, 2])
    assert server.ledger.ignored == 1


# ---------------------------------------------------------------------- RTU, over TCP and on a serial line


@contextmanager
def rtu_over_tcp(units: dict[int, Unit]) -> Iterator[tuple[Endpoint, int]]:
    """A server behind a transparent converter, and a file descriptor connected to it."""
    with (
        ModbusServer(units, framing="rtu") as server,
        socket.create_connection((server.host, server.port), timeout=2.0) as line,
    ):
        yield server, line.fileno()


@contextmanager
def serial_line(units: dict[int, Unit]) -> Iterator[tuple[Endpoint, int]]:
    """A server on a pseudo-terminal, and its device opened as a client would."""
    with ModbusLine(units) as server:
        fd = os.open(server.device, os.O_RDWR | os.O_NOCTTY)
        try:
            yield server, fd
        finally:
            os.close(fd)


@pytest.fixture(params=[rtu_over_tcp, serial_line], ids=["over_tcp", "serial"])
def rtu(request: pytest.FixtureRequest, clock: HandClock) -> Iterator[tuple[Endpoint, int]]:
    with request.param(units_of(Plant(load_scenario("demo")), "b", clock, CONFIG)) as made:
        yield made


def frame(unit: int, pdu: bytes) -> bytes:
    return RtuFraming().framed(Adu(unit, pdu))


def answer_on(fd: int, timeout_s: float = 2.0) -> bytes:
    """The next whole frame on a line; what came of one, or nothing, when the time is over."""
    got = b""
    while (len(got) < 5 or crc16(got) != 0) and select.select([fd], [], [], timeout_s)[0]:
        got += os.read(fd, 1)
    return got


def asked_on(fd: int, unit: int, pdu: bytes, timeout_s: float = 2.0) -> bytes:
    os.write(fd, frame(unit, pdu))
    return answer_on(fd, timeout_s)


def test_units_of_one_line_answer_as_they_do_by_tcp(rtu: tuple[Endpoint, int], server: ModbusServer) -> None:
    """Same devices, same moment, other framing: the PDU is the same, with unit and CRC around it."""
    _, fd = rtu
    for unit, pdu in ((1, read(3, 5201, 21)), (2, read(3, 20201, 2)), (3, read(4, 0, 80)), (2, read(3, 1, 2))):
        assert asked_on(fd, unit, pdu) == frame(unit, ask(server, unit, pdu))
    for pdu in (b"\x2b\x0e\x01\x00", b"\x11", bytes([6, 0, 1, 0, 1]), bytes([16, 0, 1, 0, 1, 2, 0, 0])):
        assert asked_on(fd, 2, pdu) == frame(2, ask(server, 2, pdu)), "of known length or not"


def test_a_line_is_silent_where_nobody_is_meant(rtu: tuple[Endpoint, int]) -> None:
    """No gateway stands here: an absent unit, a broadcast and a broken frame get nothing, and the next request its answer."""
    server, fd = rtu
    right = frame(2, read(3, 20201, 2))
    for bytes_ in (
        frame(77, read(3, 0, 1)),
        frame(0, read(3, 20201, 2)),
        right[:-1] + b"\x00",
        right[:5],
        b"\x55" * 300,
    ):
        os.write(fd, bytes_)
        assert answer_on(fd, 0.05) == b""
        assert asked_on(fd, 2, read(3, 20201, 2))[:3] == bytes([2, 3, 4])
    assert server.ledger.ignored == 2
    assert server.ledger.garbage == 8 + 5 + 300


def test_troubles_of_a_line(rtu: tuple[Endpoint, int]) -> None:
    """Silence, a broken CRC, pieces: each of one unit, and its neighbour is heard as ever."""
    server, fd = rtu
    server.trouble.silent.add(1)
    server.trouble.garble[3] = "wrong_crc"
    server.trouble.byte_gap_s[4] = 0.001
    assert asked_on(fd, 1, read(3, 5201, 1), 0.05) == b""
    garbled = asked_on(fd, 3, read(4, 0, 2), 0.1)
    assert len(garbled) == 9
    assert crc16(garbled) != 0
    assert asked_on(fd, 4, read(3, 0x0100, 4))[:3] == bytes([4, 3, 8])
    assert asked_on(fd, 2, read(3, 20201, 2))[:3] == bytes([2, 3, 4])


def test_an_unplugged_line_is_gone_and_comes_back_under_the_same_name(tmp_path: Path, clock: HandClock) -> None:
    """A USB converter that is pulled and put back: its reader sees the end, then finds it where it was."""
    units = units_of(Plant(load_scenario("demo")), "b", clock, CONFIG)
    link = tmp_path / "line-b"
    line = ModbusLine(units, link)
    for _ in range(2):
        with line:
            fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
            assert asked_on(fd, 2, read(3, 20201, 2))[:3] == bytes([2, 3, 4])
        assert not link.is_symlink()
        with suppress(OSError):
            assert os.read(fd, 1) == b""
        os.close(fd)
    link.write_text("somebody's file")
    with pytest.raises(SourceLost, match="line-b: File exists"):
        line.start()
    assert link.read_text() == "somebody's file"
