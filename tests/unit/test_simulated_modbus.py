"""The simulated field devices without a wire: frames, register images, identification and what each trouble does."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from fuzz_modbus_server import fuzz_request

from firmware_bridge.device import DeviceProfile, Point, Text, load_device
from firmware_bridge.registers import encode
from simulator.modbus_device import Refusal, Unit, identification
from simulator.modbus_frames import Adu, NotModbus, RtuFraming, TcpFraming, crc16
from simulator.modbus_trouble import Garble, Trouble
from simulator.serve_modbus import ModbusServer

CONFIG = Path(__file__).resolve().parents[2] / "config"
FLOAT_230 = struct.pack(">f", 230.0)
READ_TEN = bytes.fromhex("01030000000ac5cd")  # unit 1, function 3, ten registers from 0: the frame of many a manual


def device(*points: Point, **more: Any) -> DeviceProfile:
    return DeviceProfile(
        vendor="Acme", model="X1", title="Test device", source="none", sees="all", update_interval_s=1.0,
        points=points or tuple(volts(address) for address in range(0, 20, 2)), **more,
    )  # fmt: skip


def volts(address: int, **more: Any) -> Point:
    return Point(name=f"p{address}_v", address=address, type="float32", plausible=(0.0, 1000.0), **more)


def server_of(profile: DeviceProfile, trouble: Trouble | None = None, value: float = 230.0) -> ModbusServer:
    """Unit 1 of that profile, every point at one value; not started."""
    shown = {point.name: value for point in profile.points}
    return ModbusServer({1: Unit(profile, lambda: shown)}, trouble=trouble)


def read(function: int, address: int, count: int) -> bytes:
    return struct.pack(">BHH", function, address, count)


# ---------------------------------------------------------------------- frames


def pdus(adus: Iterable[Adu]) -> list[bytes]:
    return [adu.pdu for adu in adus]


def test_the_crc_is_the_one_of_the_catalogue() -> None:
    """CRC-16/MODBUS of "123456789" is 4B37; a frame with its own CRC behind it leaves 0."""
    assert crc16(b"123456789") == 0x4B37
    assert crc16(READ_TEN[:-2]) == 0xCDC5
    assert crc16(READ_TEN) == 0


def test_rtu_requests_are_found_however_they_are_cut() -> None:
    """A serial driver hands over whatever has arrived: half a frame, or two."""
    framing = RtuFraming()
    whole = [request for byte in READ_TEN * 3 for request in framing.feed(bytes([byte]))]
    assert whole == [Adu(1, READ_TEN[1:-2])] * 3
    assert pdus(framing.feed(READ_TEN + READ_TEN)) == [READ_TEN[1:-2]] * 2
    assert framing.garbage == 0


@pytest.mark.parametrize(
    "noise", [b"\x00", b"\x01\x03", b"\xff" * 7, READ_TEN[:5], READ_TEN[:-1] + b"\x00", b"\x2b" * 400]
)
def test_noise_in_front_of_an_rtu_request_costs_only_itself(noise: bytes) -> None:
    """A drive's switching noise must not deafen the devices of the line: the request is found at the latest by the pause."""
    framing = RtuFraming()
    found = [*framing.feed(noise + READ_TEN), *framing.silence()]
    assert pdus(found) == [READ_TEN[1:-2]]
    assert framing.garbage == len(noise)


def test_an_rtu_request_of_unknown_length_ends_with_the_pause() -> None:
    """Function 17 has four bytes, 16 as many as it likes; both are to be refused, not mixed up with what follows."""
    framing = RtuFraming()
    for pdu in (b"\x11", bytes.fromhex("100001000102000a")):
        assert list(framing.feed(framing.framed(Adu(7, pdu)))) == []
        assert list(framing.silence()) == [Adu(7, pdu)]
    assert list(framing.feed(READ_TEN[:4])) == []
    assert list(framing.silence()) == [], "half a request and a pause is nothing"
    assert list(framing.feed(READ_TEN)) == [Adu(1, READ_TEN[1:-2])]


def test_a_tcp_header_that_is_none_ends_the_connection_but_not_what_came_before() -> None:
    """Length and protocol id are all that a stream can be cut by."""
    framing = TcpFraming()
    good = struct.pack(">HHHB", 9, 0, 6, 1) + read(3, 0, 10)
    assert list(framing.feed(good[:9])) == []
    assert list(framing.feed(good[9:])) == [Adu(1, read(3, 0, 10), 9)]
    found = framing.feed(good + struct.pack(">HHHB", 10, 7, 6, 1))
    assert next(found).transaction == 9
    with pytest.raises(NotModbus):
        next(found)


# ---------------------------------------------------------------------- registers


def test_bits_are_packed_lowest_first() -> None:
    """Coil k is bit k mod 8 of byte k div 8 (1.1b3, 6.1), whichever coil a read begins with."""
    points = [Point(name=f"c{i}_ratio", address=i, type="bit", plausible=(0.0, 1.5)) for i in range(10)]
    unit = Unit(device(*points, function=1), lambda: {p.name: float(p.address in (0, 2, 9)) for p in points})
    made = ModbusServer({1: unit})
    assert made.answer(1, read(1, 0, 10)) == bytes([1, 2, 0b00000101, 0b00000010])
    assert made.answer(1, read(1, 2, 8)) == bytes([1, 1, 0b10000001])
    assert made.answer(1, read(2, 0, 1)) == bytes([0x82, 2])


def test_fields_of_one_register_do_not_wipe_each_other_out() -> None:
    """A status word holds many points; the one that changes must leave its neighbours as they are."""
    fields = [
        Point(name="running_ratio", address=5, type="uint16", bits=(0, 1), plausible=(0.0, 1.5)),
        Point(name="fault_ratio", address=5, type="uint16", bits=(3, 1), plausible=(0.0, 1.5)),
    ]
    shown = {"running_ratio": 1.0, "fault_ratio": 0.0}
    made = ModbusServer({1: Unit(device(*fields), lambda: shown)})
    assert made.answer(1, read(3, 5, 1)) == bytes([3, 2, 0, 1])
    shown["fault_ratio"] = 1.0
    assert made.answer(1, read(3, 5, 1)) == bytes([3, 2, 0, 9])


def test_a_device_names_itself_where_its_map_says_so() -> None:
    """Letters two a register; a serial number that no map can know is blank, and a gap between them is a gap."""
    texts = (
        Text(name="model", address=100, n_registers=2, equals="X1"),
        Text(name="serial_number", address=102, n_registers=1),
    )
    made = server_of(device(texts=texts))
    assert made.answer(1, read(3, 100, 3)) == bytes([3, 6]) + b"X1\0\0\0\0"
    assert made.answer(1, read(3, 18, 2)) == bytes([3, 4]) + FLOAT_230
    assert made.answer(1, read(3, 18, 83)) == bytes([0x83, 2])


def test_a_value_without_sentinel_stays_what_it_was() -> None:
    """A drive has no "not available": its registers keep the last value, which is exactly how bad data looks good."""
    profile = load_device(CONFIG, "abb_acs580")
    shown = {point.name: 10.0 for point in profile.points}
    made = ModbusServer({1: Unit(profile, lambda: shown)})
    before = made.answer(1, read(3, 20201, 2))
    shown["shaft_speed_rpm"] = math.nan
    assert made.answer(1, read(3, 20201, 2)) == before
    made.trouble.sentinel.add(1)
    assert made.answer(1, read(3, 20211, 2)) == bytes([3, 4]) + struct.pack(">HH", 1000, 0)


def test_an_answer_is_encoded_once_for_as_long_as_its_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benches stand on this server: 2,000 reads of 100 registers cost it less than half a second of processor time."""
    n_encoded = 0

    def counted(profile: DeviceProfile, values: dict[str, float]) -> dict[tuple[int, int], int]:
        nonlocal n_encoded
        n_encoded += 1
        return encode(profile, values)

    monkeypatch.setattr("simulator.modbus_device.encode", counted)
    made = server_of(device(*(volts(address) for address in range(0, 100, 2))))
    began_s = time.process_time()
    answers = {made.answer(1, read(3, 0, 100)) for _ in range(2000)}
    assert time.process_time() - began_s < 0.5
    assert answers == {bytes([3, 200]) + struct.pack(">f", 230.0) * 50}
    assert n_encoded == 1


# ---------------------------------------------------------------------- function 43/14

WHO = {0: "Acme", 1: "X1", 2: "1.0", 4: "Pump guard"}


def test_identification_is_answered_as_the_specification_writes_it() -> None:
    """Bytes worked by hand from 1.1b3, 6.21: header, then id, length and text of each object."""
    basic = bytes.fromhex("0e 01 82 00 00 03") + b"\x00\x04Acme" + b"\x01\x02X1" + b"\x02\x031.0"
    assert identification(bytes([0x2B, 0x0E, 1, 0]), WHO) == basic
    regular = bytes.fromhex("0e 02 82 00 00 04") + basic[6:] + b"\x04\x0aPump guard"
    assert identification(bytes([0x2B, 0x0E, 2, 0]), WHO) == regular
    assert identification(bytes([0x2B, 0x0E, 3, 0]), WHO) == bytes([0x0E, 3]) + regular[2:], "no more than it has"
    assert identification(bytes([0x2B, 0x0E, 2, 2]), WHO)[5:] == b"\x02\x02\x031.0\x04\x0aPump guard"
    assert identification(bytes([0x2B, 0x0E, 2, 3]), WHO) == regular, "an object that is not there: from the beginning"
    assert identification(bytes([0x2B, 0x0E, 4, 1]), WHO) == bytes.fromhex("0e 04 82 00 00 01 01 02") + b"X1"


@pytest.mark.parametrize(
    ("pdu", "who", "code"),
    [
        ("2b0e0400", {}, 1),  # a unit without identification
        ("2b0d0100", WHO, 1),  # another encapsulated interface
        ("2b", WHO, 1),
        ("2b0e0403", WHO, 2),  # no such object
        ("2b0e0500", WHO, 3),
        ("2b0e0000", WHO, 3),
        ("2b0e01", WHO, 3),
    ],
)
def test_identification_is_refused_by_the_book(pdu: str, who: dict[int, str], code: int) -> None:
    """A scan must tell "does not say who it is" from "is not there"."""
    with pytest.raises(Refusal) as refusal:
        identification(bytes.fromhex(pdu), who)
    assert refusal.value.code == code


def test_identification_that_is_longer_than_an_answer_follows_in_parts() -> None:
    """More follows FF, and the object that the next request must name; together the parts are everything, once."""
    who = {0: "A" * 100, 1: "B" * 100, 2: "C" * 100, 3: "D" * 300, 0x80: "E" * 10}
    parts, ask = [], 0
    while not parts or parts[-1][3] == 0xFF:
        parts.append(identification(bytes([0x2B, 0x0E, 3, ask]), who))
        ask = parts[-1][4]
    assert [(part[2], part[3], part[4], part[5]) for part in parts] == [
        (0x83, 0xFF, 2, 2), (0x83, 0xFF, 3, 1), (0x83, 0xFF, 0x80, 1), (0x83, 0, 0, 1),
    ]  # fmt: skip
    assert all(1 + len(part) <= 253 for part in parts)
    assert b"".join(part[6:] for part in parts)[-10:] == b"E" * 10


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIG / "devices").glob("*.toml")))
def test_every_simulated_device_says_its_vendor_and_model(name: str) -> None:
    """What a scan goes by; the words of the device file are all in it."""
    profile = load_device(CONFIG, name)
    said = ModbusServer({1: Unit(profile, dict)}).answer(1, bytes([0x2B, 0x0E, 2, 0])) or b""
    assert said[:4] == bytes([0x2B, 0x0E, 2, 0x82])
    for word in (profile.vendor, profile.model, *profile.identification):
        assert word.encode() in said


# ---------------------------------------------------------------------- trouble

TWO = bytes([3, 4]) + FLOAT_230


@pytest.mark.parametrize(
    ("trouble", "asked", "answers"),
    [
        ({"silent": {1}}, read(3, 0, 2), [None]),
        ({"drop_connection": {1}}, read(3, 0, 2), [None]),
        ({"exception": {1: 4}}, read(3, 0, 2), [b"\x83\x04"]),
        ({"path_unavailable": {1}}, read(3, 0, 2), [b"\x83\x0a"]),
        ({"acknowledge": {1: 2}}, read(3, 0, 2), [b"\x83\x05", b"\x83\x05", TWO]),
        ({"busy": {1: 1}, "acknowledge": {1: 1}}, read(3, 0, 2), [b"\x83\x05", b"\x83\x06", TWO]),
        ({"max_count": {1: 4}}, read(3, 0, 5), [b"\x83\x03"]),
        ({"max_count": {1: 4}}, read(3, 0, 4), [bytes([3, 8]) + 2 * FLOAT_230]),
        ({"holes": {1: {7}}}, read(3, 6, 2), [b"\x83\x02"]),
        ({"holes": {1: {7}}}, read(3, 4, 2), [TWO]),
        ({"unanswered_blocks": {1: range(10, 20)}}, read(3, 8, 4), [None]),
        ({"unanswered_blocks": {1: range(10, 20)}}, read(3, 8, 2), [TWO]),
        ({"base_shift": {1: 1}}, read(3, 0, 2), [b"\x83\x02"]),
        ({"base_shift": {1: 1}}, read(3, 1, 2), [TWO]),
        ({"base_shift": {1: -1}}, read(3, 0, 2), [bytes([3, 4]) + FLOAT_230[2:] + FLOAT_230[:2]]),
        ({"word_order": {1: "DCBA"}}, read(3, 0, 2), [bytes([3, 4]) + FLOAT_230[::-1]]),
        ({"sentinel": {1}}, read(3, 0, 2), [bytes([3, 4, 0x7F, 0xC0, 0, 0])]),
        ({"anonymous": {1}}, b"\x2b\x0e\x01\x00", [b"\xab\x01"]),
        ({"exception": {2: 4}, "silent": {2}, "holes": {2: range(100)}}, read(3, 0, 2), [TWO]),
        ({"absent_silent": True}, read(3, 0, 2), [TWO]),
    ],
)
def test_each_trouble_does_what_its_device_would(
    trouble: dict[str, Any], asked: bytes, answers: list[bytes | None]
) -> None:
    """One line each: these are the exceptions and silences that the reader's planner is tested against."""
    made = server_of(device(), Trouble(**trouble))
    assert [made.answer(1, asked) for _ in answers] == answers


def test_a_frozen_unit_repeats_itself_while_its_plant_goes_on() -> None:
    """A hung firmware still answers: only its values say nothing any more."""
    shown = {point.name: 1.0 for point in device().points}
    made = ModbusServer({1: Unit(device(), lambda: shown)})
    before = made.answer(1, read(3, 0, 2))
    made.trouble.frozen.add(1)
    shown["p0_v"] = 2.0
    assert made.answer(1, read(3, 0, 2)) == before
    made.trouble.frozen.clear()
    assert made.answer(1, read(3, 0, 2)) == bytes([3, 4]) + struct.pack(">f", 2.0)


ANSWER = bytes([3, 4, 1, 2, 3, 4])
ASKED = Adu(5, read(3, 0, 2), 7)


@pytest.mark.parametrize("framing", [TcpFraming(), RtuFraming()], ids=["tcp", "rtu"])
@pytest.mark.parametrize(
    ("how", "pdu"),
    [
        ("wrong_byte_count", bytes([3, 6, 1, 2, 3, 4])),
        ("wrong_function", bytes([4, 4, 1, 2, 3, 4])),
        ("short", bytes([3, 2, 1, 2])),
    ],
)
def test_a_garbled_answer_may_be_a_perfect_frame(framing: TcpFraming | RtuFraming, how: Garble, pdu: bytes) -> None:
    """No check sum finds these: only comparing the answer with its request does."""
    assert Trouble(garble={5: how}).frame(framing, ASKED, ANSWER) == framing.framed(Adu(5, pdu, 7))
    assert Trouble(garble={5: how}).frame(framing, ASKED, b"\x83\x02") == framing.framed(Adu(5, b"\x83\x02", 7))


def test_a_garbled_frame_is_found_by_its_own_check() -> None:
    """RTU has its CRC for that; a TCP frame has a protocol id and a length."""
    rtu, tcp = RtuFraming(), TcpFraming()
    for how in ("bit_flip", "wrong_crc", "truncated", "random"):
        for seed in range(50):
            assert crc16(Trouble(garble={5: how}, seed=seed).frame(rtu, ASKED, ANSWER)) != 0  # type: ignore[dict-item]
    right = rtu.framed(Adu(5, ANSWER))
    assert Trouble(garble={5: "wrong_crc"}).frame(rtu, ASKED, ANSWER)[:-1] == right[:-1]
    assert Trouble(garble={5: "wrong_crc"}).frame(tcp, ASKED, ANSWER)[2:4] != b"\x00\x00"
    assert 1 <= len(Trouble(garble={5: "truncated"}).frame(tcp, ASKED, ANSWER)) < len(tcp.framed(Adu(5, ANSWER, 7)))


def test_garbling_repeats_from_its_seed_and_leaves_the_others_alone() -> None:
    """A failure that cannot be repeated cannot be repaired."""
    framing = TcpFraming()
    made = [Trouble(garble={5: "any"}, seed=3) for _ in range(2)]
    first, again = ([trouble.frame(framing, ASKED, ANSWER) for _ in range(40)] for trouble in made)
    assert first == again
    assert len(set(first)) > len(get_args(Garble)) - 1
    other = ASKED._replace(unit_id=6)
    assert made[0].frame(framing, other, ANSWER) == framing.framed(Adu(6, ANSWER, 7))


def test_an_answer_in_disguise_names_another_unit_and_transaction() -> None:
    """What a gateway sends that has lost count: whole, checked, and somebody else's."""
    disguised = Trouble(late_as={5: (6, 1)}).frame(TcpFraming(), ASKED, ANSWER)
    assert disguised == TcpFraming().framed(Adu(6, ANSWER, 8))
    assert Trouble(late_as={5: (6, 1)}).frame(RtuFraming(), ASKED, ANSWER) == RtuFraming().framed(Adu(6, ANSWER))


def test_no_bytes_from_a_client_break_a_server() -> None:
    """The same as `make fuzz` runs for longer: random, mutated and true requests through every framing and trouble."""
    rng = Random(20261122)
    for _ in range(2000):
        fuzz_request(rng.randbytes(rng.randrange(64)))
