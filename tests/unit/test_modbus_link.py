"""One transaction: which bytes are its answer, who is there, and whether somebody else talks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzz_modbus_answers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.device import Span, load_device
from firmware_bridge.modbus_link import Link, Mbap, NoAnswer, Refused, Rtu, SerialLine, serial_link, tcp_link
from simulator.modbus_device import Unit
from simulator.serve_modbus import ModbusLine, ModbusServer, PtyPair

CONFIG = Path(__file__).resolve().parents[2] / "config"
KELLER = load_device(CONFIG, "keller_33x")
VALUES = {"pressure_bar": 3.1847, "temperature_degc": 24.31}
READ = Span(3, 0x0100, 4)
WORDS = [0x404B, 0xD220, 0x41C2, 0x7AE1]


@pytest.fixture(params=["tcp", "rtu over tcp", "serial"])
def line(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Link]]:
    """A pressure transmitter as unit 1, and a link to it, in each of the three framings."""
    units = {1: Unit(KELLER, lambda: VALUES)}
    if request.param == "serial":
        with ModbusLine(units) as server:
            link = serial_link(SerialLine(server.device, 115200, "none"))
            link.connect()
            yield server, link
            link.close()
        return
    rtu = request.param != "tcp"
    with ModbusServer(units, framing="rtu" if rtu else "tcp") as tcp:
        link = tcp_link(tcp.host, tcp.port, 1.0, rtu=rtu)
        link.connect()
        yield tcp, link
        link.close()


def test_words_are_those_of_the_device(line: tuple[Any, Link]) -> None:
    """The manual's words of 3.1847 bar and 24.31 degC."""
    _, link = line
    assert link.ask(1, READ, 1.0).tolist() == WORDS


def test_a_refusal_is_its_code_and_the_line_is_well(line: tuple[Any, Link]) -> None:
    """Exception 02 for a register that is not there; the next question is answered."""
    _, link = line
    with pytest.raises(Refused) as refused:
        link.ask(1, Span(3, 9000, 2), 1.0)
    assert refused.value.code == 2
    assert link.ask(1, READ, 1.0).tolist() == WORDS


def test_an_answer_that_dribbles_in_is_put_together(line: tuple[Any, Link]) -> None:
    """Converters pass on what they have; a frame may come byte by byte."""
    server, link = line
    server.trouble.byte_gap_s[1] = 0.002
    assert link.ask(1, READ, 1.0).tolist() == WORDS


@pytest.mark.parametrize("how", ["wrong_byte_count", "wrong_function", "short", "truncated", "wrong_crc"])
def test_no_damage_gets_through(line: tuple[Any, Link], how: Any) -> None:
    """And afterwards the connection works, or is opened anew."""
    server, link = line
    server.trouble.garble[1] = how
    with pytest.raises(NoAnswer):
        link.ask(1, READ, 0.15)
    server.trouble.garble.clear()
    link.connect()
    for _ in range(2):
        try:
            words = link.ask(1, READ, 1.0)
        except NoAnswer:  # what was cut off may swallow the next answer's head
            link.connect()
            continue
        break
    assert words.tolist() == WORDS


def test_a_device_says_who_it_is(line: tuple[Any, Link]) -> None:
    """Function 43/14, in as many parts as it takes."""
    _, link = line
    told = link.identify(1, 1.0)
    assert told["vendor"] == "Keller"
    assert told["model"] == "33X"


def test_a_device_that_does_not_say_who_it_is_refuses(line: tuple[Any, Link]) -> None:
    """Most of them: exception 01, and the scanner goes on to the known maps."""
    server, link = line
    server.trouble.anonymous.add(1)
    with pytest.raises(Refused) as refused:
        link.identify(1, 1.0)
    assert refused.value.code == 1


def test_by_tcp_a_late_answer_is_counted_and_dropped() -> None:
    """Its number is not the one that is waited for; the connection stays as it is."""
    with ModbusServer({1: Unit(KELLER, lambda: VALUES), 2: Unit(KELLER, lambda: VALUES)}) as server:
        link = tcp_link(server.host, server.port, 1.0)
        link.connect()
        server.trouble.late_s[1] = 0.1
        with pytest.raises(NoAnswer, match="no answer within"):
            link.ask(1, READ, 0.03)
        server.trouble.late_s[2] = 0.2
        assert link.ask(2, READ, 1.0).tolist() == WORDS
        assert link.late == 1
        assert not link.connect(), "nobody hung up"
        link.close()


def test_on_a_serial_line_a_late_answer_under_the_next_unit_s_number_is_not_believed() -> None:
    """Nothing in the frame tells it from the real one; but then two come, and neither is taken."""
    liar = {"pressure_bar": 99.0, "temperature_degc": 99.0}
    with ModbusLine({1: Unit(KELLER, lambda: liar), 2: Unit(KELLER, lambda: VALUES)}) as server:
        link = serial_link(SerialLine(server.device, 115200, "none"))
        link.connect()
        server.trouble.late_s.update({1: 0.06, 2: 0.04})
        server.trouble.late_as[1] = (2, 0)
        with pytest.raises(NoAnswer, match="no answer within"):
            link.ask(1, READ, 0.03)
        with pytest.raises(NoAnswer, match="two answers to one question"):
            link.ask(2, READ, 1.0, usual_s=0.04)  # the liar's comes at 0.03 s, its own at 0.04 s
        assert link.ask(2, READ, 1.0, usual_s=0.04).tolist() == WORDS
        link.close()


def test_three_silences_without_an_answer_are_a_dead_connection() -> None:
    """A gateway that lost its power says no goodbye; the next question opens a new connection."""
    with ModbusServer({}, trouble=None) as server:
        server.trouble.absent_silent = True
        link = tcp_link(server.host, server.port, 1.0)
        link.connect()
        for _ in range(3):
            with pytest.raises(NoAnswer):
                link.ask(1, READ, 0.01)
        assert link.connect()
        link.close()


def test_another_master_is_heard_and_silence_is_silence() -> None:
    """Two masters on one line destroy each other's requests: who hears one must not talk."""
    pair = PtyPair()
    link = serial_link(SerialLine(pair.device, 19200, "none"))
    link.connect()
    assert link.listen(0.05) == 0
    other = threading.Timer(0.05, lambda: os.write(pair.fd, b"\x01\x03\x00\x00\x00\x02\xc4\x0b"))
    other.start()
    assert link.listen(5.0) > 0
    other.join()
    link.close()
    pair.close()


@pytest.mark.parametrize(("baud_rate", "interval_ms"), [(9600, 4.01), (19200, 2.005), (38400, 1.75), (115200, 1.75)])
def test_the_silent_interval_is_the_standard_s(baud_rate: int, interval_ms: float) -> None:
    """3.5 characters of 11 bits; fixed above 19200 baud (MODBUS over Serial Line 1.02, 2.5.1.1)."""
    assert SerialLine("/dev/ttyUSB0", baud_rate).silent_interval_s == pytest.approx(interval_ms / 1e3, rel=0.01)


def test_requests_are_those_of_the_standard_byte_by_byte() -> None:
    """Worked by hand: read 4 holding registers from 0x0100 of unit 1."""
    pdu = bytes.fromhex("03 0100 0004")
    assert Mbap().wrap(1, pdu) == bytes.fromhex("0001 0000 0006 01 03 0100 0004")
    assert Rtu().wrap(1, pdu) == bytes.fromhex("01 03 0100 0004 45F5")


def test_a_frame_is_found_behind_a_line_s_noise() -> None:
    """A spike before the answer costs nothing."""
    frame = Rtu().wrap(1, bytes([3, 8]) + np.array(WORDS, ">u2").tobytes())
    unread = bytearray(b"\x01\x03\xff" + frame + b"\x00")
    assert Rtu().unwrap(unread, 1, lambda pdu: 10 if pdu[:2] == b"\x03\x08" else None) == frame[1:-2]


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_words_or_a_refusal(data: bytes) -> None:
    """Whoever sits on the line cannot stop the agent."""
    fuzz_modbus_answers.fuzz_answer(data)


def test_nearly_right_frames_are_words_or_a_refusal() -> None:
    """Mutations of good frames reach further than noise."""
    for seed in range(3000):
        fuzz_modbus_answers.fuzz_answer(fuzz_modbus_answers.inputs(seed))
