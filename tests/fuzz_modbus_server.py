"""One input for the simulated Modbus servers, whatever its bytes: no crash, no endless answer, no growing buffer.

The simulator is what everything else is measured against; a bench or a soak test must not end because of its server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from firmware_bridge.device import load_device
from simulator.modbus_device import Unit
from simulator.modbus_frames import MAX_RTU_BYTES, Adu, NotModbus, RtuFraming, TcpFraming
from simulator.modbus_trouble import Trouble
from simulator.serve_modbus import ModbusServer

CONFIG = Path(__file__).resolve().parents[1] / "config"
DRIVE, METER = load_device(CONFIG, "abb_acs580"), load_device(CONFIG, "eastron_sdm630")
UNITS = {
    1: Unit(DRIVE, lambda: dict.fromkeys((point.name for point in DRIVE.points), 10.0)),
    2: Unit(METER, lambda: dict.fromkeys((point.name for point in METER.points), float("nan"))),
}
TROUBLE = Trouble(
    holes={1: {20211}}, max_count={1: 60}, base_shift={2: 1}, busy={2: 100}, garble={2: "any"}, late_as={1: (2, 1)}
)
SERVERS = {
    TcpFraming: ModbusServer(UNITS, trouble=TROUBLE),
    RtuFraming: ModbusServer(UNITS, trouble=TROUBLE, framing="rtu"),
}
MAX_PDU_BYTES = 253
READING = (1, 2, 3, 4, 0x2B)


def fuzz_request(data: bytes) -> None:
    """What the server makes of `data`: as raw bytes, as a PDU in a true frame, and as the arguments of a reading one.

    Raises: AssertionError: an answer that no device gives, or a buffer that kept more than one frame.
    """
    for new_framing, server in SERVERS.items():
        framing = new_framing()
        for chunk in (data, *(framing.framed(Adu(data[0] % 4, pdu, 1)) for pdu in _pdus(data))):
            requests = _requests(framing, chunk)
            assert sum(3 + len(request.pdu) for request in requests) <= 3 + len(data) + MAX_RTU_BYTES
            for request in requests:
                _served(server, framing, request)


def _pdus(data: bytes) -> Iterator[bytes]:
    """Any function with anything behind it, and a function that reads with an address and a count."""
    if data:
        yield data[:MAX_PDU_BYTES]
    if len(data) > 4:
        yield bytes([READING[data[0] % len(READING)]]) + data[1:5]


def _requests(framing: TcpFraming | RtuFraming, chunk: bytes) -> list[Adu]:
    found: list[Adu] = []
    try:
        found.extend(framing.feed(chunk))
        found.extend(framing.silence())
    except NotModbus:
        pass
    return found


def _served(server: ModbusServer, framing: TcpFraming | RtuFraming, request: Adu) -> None:
    answer = server.answer(request.unit_id, request.pdu)
    if answer is None:
        return
    assert 2 <= len(answer) <= MAX_PDU_BYTES
    assert answer[0] in (request.pdu[0], request.pdu[0] | 0x80)
    assert request.pdu[0] in (1, 2, 3, 4, 0x2B) or answer == bytes([request.pdu[0] | 0x80, answer[1]]), (
        "nothing but reads"
    )
    assert 1 <= len(server.trouble.frame(framing, request, answer)) <= MAX_RTU_BYTES + 4
