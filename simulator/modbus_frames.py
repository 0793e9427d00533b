"""Modbus frames on the device's side: bytes to requests, answers to bytes, for TCP and for RTU. Pure, no I/O.

Source: MODBUS Messaging on TCP/IP 1.0b, 3.1.3 (MBAP header); MODBUS over Serial Line 1.02, 2.5.1 (RTU frame), 6.2 (CRC).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

MBAP = struct.Struct(">HHHB")
MAX_RTU_BYTES = 256
MIN_RTU_BYTES = 4
READ_IDENTIFICATION = b"\x2b\x0e"
RTU_REQUEST_BYTES = {1: 8, 2: 8, 3: 8, 4: 8}  # unit, function, address, count, CRC
RTU_IDENTIFICATION_BYTES = 7  # unit, 2B, 0E, read code, object id, CRC


class Adu(NamedTuple):
    """One application data unit, request or answer. `transaction` is TCP's; RTU has none."""

    unit_id: int
    pdu: bytes
    transaction: int = 0


class NotModbus(Exception):
    """A header that no Modbus client sends: what follows cannot be found again."""


class Framing(Protocol):
    """How one connection cuts its bytes into requests.

    Attributes:
        has_gateway: somebody in front of the units answers 0B for one that is silent or not there.
        check_at: the byte of a frame whose change every client must notice.
        silence_s: how long a pause ends a frame; None where pauses mean nothing.
        garbage: bytes so far that belonged to no request.
    """

    has_gateway: bool
    check_at: int
    silence_s: float | None
    garbage: int

    def feed(self, data: bytes) -> Iterator[Adu]:
        """The requests that are complete now. Raises: NotModbus."""

    def silence(self) -> Iterator[Adu]:
        """The same, after a pause of `silence_s`."""

    def framed(self, adu: Adu) -> bytes:
        """An answer as it goes out."""


class TcpFraming:
    """MBAP: the header says the length, and whose answer an answer is."""

    has_gateway = True
    check_at = 3  # the protocol id's low byte; TCP itself carries the check sum
    silence_s: float | None = None

    def __init__(self) -> None:
        self.garbage = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Adu]:
        self._buffer += data
        while len(self._buffer) >= MBAP.size:
            transaction, protocol, length, unit_id = MBAP.unpack_from(self._buffer)
            if protocol != 0 or not 2 <= length <= 254:
                self.garbage += len(self._buffer)
                self._buffer.clear()
                raise NotModbus(f"protocol {protocol}, length {length}")
            end = MBAP.size - 1 + length
            if len(self._buffer) < end:
                return
            pdu = bytes(self._buffer[MBAP.size : end])
            del self._buffer[:end]
            yield Adu(unit_id, pdu, transaction)

    def silence(self) -> Iterator[Adu]:
        return iter(())

    def framed(self, adu: Adu) -> bytes:
        return MBAP.pack(adu.transaction, 0, len(adu.pdu) + 1, adu.unit_id) + adu.pdu


class RtuFraming:
    """Unit, PDU, CRC. A request that reads ends where its known length ends, any other where the line falls silent.

    Bytes that are no request are dropped one by one until the rest is one, so noise in front of a request costs nothing.
    """

    has_gateway = False
    check_at = -1
    silence_s: float | None = 0.02  # t3.5 is 2 ms at 19200 baud; a scheduler may pause a process for longer

    def __init__(self) -> None:
        self.garbage = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Adu]:
        self._buffer += data
        while (n_bytes := _request_bytes(self._buffer)) and n_bytes <= len(self._buffer):
            yield from self._taken(n_bytes)
        self._drop(len(self._buffer) - MAX_RTU_BYTES)

    def silence(self) -> Iterator[Adu]:
        while self._buffer:
            yield from self._taken(len(self._buffer))
            yield from self.feed(b"")

    def framed(self, adu: Adu) -> bytes:
        frame = bytes([adu.unit_id]) + adu.pdu
        return frame + crc16(frame).to_bytes(2, "little")

    def _taken(self, n_bytes: int) -> Iterator[Adu]:
        """The request in the first so many bytes, if it is one; else one byte is dropped."""
        frame = bytes(self._buffer[:n_bytes])
        if n_bytes < MIN_RTU_BYTES or crc16(frame) != 0:
            self._drop(1)
            return
        del self._buffer[:n_bytes]
        yield Adu(frame[0], frame[1:-2])

    def _drop(self, n_bytes: int) -> None:
        if n_bytes > 0:
            del self._buffer[:n_bytes]
            self.garbage += n_bytes


def _request_bytes(buffer: bytearray) -> int | None:
    """How long the request is that begins here; None while that is unknown."""
    if buffer[1:3] == READ_IDENTIFICATION:
        return RTU_IDENTIFICATION_BYTES
    return RTU_REQUEST_BYTES.get(buffer[1]) if len(buffer) > 1 else None


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0xA001 if byte & 1 else 0)
    return byte


CRC_OF_BYTE = tuple(_crc_of_byte(byte) for byte in range(256))


def crc16(data: bytes) -> int:
    """CRC-16 of Modbus (polynomial A001 reflected, from FFFF); of a frame with its CRC, low byte first, it is 0."""
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_OF_BYTE[(crc ^ byte) & 0xFF]
    return crc
