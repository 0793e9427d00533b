"""Whatever a device answers, the link gives checked words or one of its two refusals; for hypothesis and `make fuzz`."""

from __future__ import annotations

import struct
from random import Random

from firmware_bridge.device import Span
from firmware_bridge.modbus_link import Link, Mbap, NoAnswer, Refused, Rtu

READS = (Span(3, 0x0100, 4), Span(4, 0, 125), Span(1, 7, 9), Span(2, 0, 2000), Span(3, 65535, 1))


class Said:
    """A stream on which these bytes arrive, in pieces, and then nothing any more: the other side hangs up."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._pieces = [data[i : i + piece] for i in range(0, len(data), piece)]
        self._asked = False

    def send(self, data: bytes) -> None:
        self._asked = True

    def receive(self, timeout_s: float) -> bytes:
        if not self._asked:
            return b""
        if not self._pieces:
            raise ConnectionError("closed by the other side")
        return self._pieces.pop(0)

    def close(self) -> None:
        """Nothing to close."""


def fuzz_answer(data: bytes) -> None:
    """The first byte chooses framing, question and pieces; the rest is what arrives."""
    choice = data[0] if data else 0
    framing = Rtu() if choice & 1 else Mbap()
    link = Link(lambda: Said(data[1:], 1 + (choice >> 5) * 40), framing)
    link.connect()
    read = READS[(choice >> 1) % len(READS)]
    try:
        if choice & 0x10:
            told = link.identify(1, 0.5)
            assert all(isinstance(text, str) and len(text) <= 255 for text in told.values())
        else:
            words = link.ask(1, read, 0.5)
            assert words.shape == (read.count,)
    except (Refused, NoAnswer):
        return


def inputs(seed: int) -> bytes:
    """Frames that are nearly right: a good answer with some bytes changed, cut, doubled, or nothing but noise."""
    rng = Random(seed)
    choice = rng.randrange(256)
    read = READS[(choice >> 1) % len(READS)]
    n_bytes = (read.count + 7) // 8 if read.function <= 2 else 2 * read.count
    pdu = bytes([read.function, n_bytes & 0xFF]) + rng.randbytes(n_bytes)
    if choice & 0x10:
        text = rng.randbytes(rng.randrange(12))
        pdu = bytes([0x2B, 0x0E, 1, 0x81, rng.choice((0, 0xFF)), rng.randrange(4), rng.randrange(4)])
        pdu += b"".join(bytes([i, len(text)]) + text for i in range(rng.randrange(4)))
    if rng.random() < 0.1:
        pdu = bytes([read.function | 0x80, rng.randrange(256)])
    framing = Rtu() if choice & 1 else Mbap()
    frame = bytearray(framing.wrap(1, pdu))
    how = rng.random()
    if how < 0.5:
        for _ in range(rng.randrange(1, 4)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
    elif how < 0.6:
        del frame[rng.randrange(len(frame)) :]
    elif how < 0.7:
        frame[:0] = rng.randbytes(rng.randrange(1, 30))
    elif how < 0.75:
        frame = bytearray(struct.pack(">HHHB", 9, 0, len(pdu) + 1, 1) + pdu) + frame
    elif how < 0.8:
        frame = bytearray(rng.randbytes(rng.randrange(300)))
    return bytes([choice]) + bytes(frame)
