"""What simulated Modbus devices do wrong, as one table by unit id that a test may change while they serve."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from firmware_bridge.device import Span, WordOrder
from simulator.modbus_device import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Refusal, Silence
from simulator.modbus_frames import Adu, Framing

Garble = Literal["random", "bit_flip", "truncated", "wrong_crc", "wrong_byte_count", "wrong_function", "short", "any"]
ACKNOWLEDGE, BUSY, PATH_UNAVAILABLE = 5, 6, 0x0A


@dataclass
class Trouble:
    """What one server does wrong, by unit id; may be changed while it runs. Addresses are those of the request.

    Attributes:
        silent: no answer at all. drop_connection: TCP is closed instead of an answer; a serial line stays silent.
        exception: every request is refused with this code; path_unavailable: with 0A.
        acknowledge, busy: so many requests more are refused with 05, with 06.
        max_count: a read of more than that is refused with 03. holes: a read that touches one with 02.
        unanswered_blocks: a read that touches one is not answered.
        word_order: values of several words in another order than the profile says.
        base_shift: everything stands that much higher than the profile says.
        sentinel: every value is the device's "not available". frozen: values stay what they are.
        anonymous: no function 43/14, refused with 01.
        garble: what arrives is no answer; see GARBLED_PDU and GARBLED_FRAME. "any": each time another of them, by `seed`.
        late_s: answers come that late. late_as: (unit id that an answer names, what is added to its transaction id).
        byte_gap_s: answers come byte by byte, that far apart.
        absent_silent: the gateway says nothing of a unit that is not there, instead of exception 0B.
    """

    silent: set[int] = field(default_factory=set)
    drop_connection: set[int] = field(default_factory=set)
    exception: dict[int, int] = field(default_factory=dict)
    path_unavailable: set[int] = field(default_factory=set)
    acknowledge: dict[int, int] = field(default_factory=dict)
    busy: dict[int, int] = field(default_factory=dict)
    max_count: dict[int, int] = field(default_factory=dict)
    holes: dict[int, Container[int]] = field(default_factory=dict)
    unanswered_blocks: dict[int, Container[int]] = field(default_factory=dict)
    word_order: dict[int, WordOrder] = field(default_factory=dict)
    base_shift: dict[int, int] = field(default_factory=dict)
    sentinel: set[int] = field(default_factory=set)
    frozen: set[int] = field(default_factory=set)
    anonymous: set[int] = field(default_factory=set)
    garble: dict[int, Garble] = field(default_factory=dict)
    late_s: dict[int, float] = field(default_factory=dict)
    late_as: dict[int, tuple[int, int]] = field(default_factory=dict)
    byte_gap_s: dict[int, float] = field(default_factory=dict)
    absent_silent: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self._rng = Random(self.seed)

    def check(self, unit_id: int) -> None:
        """Before anybody looks at what is asked. Raises: Silence, Refusal."""
        if unit_id in self.silent or unit_id in self.drop_connection:
            raise Silence
        if unit_id in self.path_unavailable:
            raise Refusal(PATH_UNAVAILABLE)
        if unit_id in self.exception:
            raise Refusal(self.exception[unit_id])
        for left, code in ((self.acknowledge, ACKNOWLEDGE), (self.busy, BUSY)):
            if left.get(unit_id, 0) > 0:
                left[unit_id] -= 1
                raise Refusal(code)

    def check_read(self, unit_id: int, read: Span) -> None:
        """What the unit makes of this read. Raises: Silence, Refusal."""
        if read.count > self.max_count.get(unit_id, read.count):
            raise Refusal(ILLEGAL_VALUE)
        if _touches(read, self.unanswered_blocks.get(unit_id, ())):
            raise Silence
        if _touches(read, self.holes.get(unit_id, ())):
            raise Refusal(ILLEGAL_ADDRESS)

    def frame(self, framing: Framing, asked: Adu, answer: bytes) -> bytes:
        """The bytes that answer a request: the right ones, unless its unit garbles or disguises them."""
        how = self.garble.get(asked.unit_id)
        if how == "any":
            how = self._rng.choice((*GARBLED_PDU, *GARBLED_FRAME))
        if how in GARBLED_PDU and answer[0] < 0x80:
            answer = GARBLED_PDU[how](answer)
        unit_id, shift = self.late_as.get(asked.unit_id, (asked.unit_id, 0))
        frame = framing.framed(Adu(unit_id, answer, (asked.transaction + shift) & 0xFFFF))
        return GARBLED_FRAME[how](frame, framing, self._rng) if how in GARBLED_FRAME else frame


def _touches(read: Span, addresses: Container[int]) -> bool:
    return bool(addresses) and any(address in addresses for address in range(read.address, read.end))


def _wrong_byte_count(pdu: bytes) -> bytes:
    """The count says one register more, or less, than there is."""
    return bytes([pdu[0], pdu[1] ^ 2]) + pdu[2:]


def _wrong_function(pdu: bytes) -> bytes:
    """Another reading function than the one that was asked."""
    return bytes([pdu[0] % 4 + 1]) + pdu[1:]


def _short(pdu: bytes) -> bytes:
    """The last register, or the last eight bits, are missing, and the count says so: well-formed, but not the answer."""
    n_bytes = 2 if pdu[0] >= 3 else 1
    return bytes([pdu[0], pdu[1] - n_bytes]) + pdu[2:-n_bytes]


def _random(frame: bytes, _framing: Framing, rng: Random) -> bytes:
    return rng.randbytes(len(frame))


def _bit_flip(frame: bytes, _framing: Framing, rng: Random) -> bytes:
    """One bit anywhere. RTU's CRC shows it; on TCP, in the data, only plausibility can."""
    at = rng.randrange(8 * len(frame))
    return frame[: at // 8] + bytes([frame[at // 8] ^ 1 << at % 8]) + frame[at // 8 + 1 :]


def _truncated(frame: bytes, _framing: Framing, rng: Random) -> bytes:
    return frame[: rng.randrange(1, len(frame))]


def _wrong_crc(frame: bytes, framing: Framing, _rng: Random) -> bytes:
    """RTU's CRC; on TCP, which leaves that to Ethernet, the protocol id."""
    spoilt = bytearray(frame)
    spoilt[framing.check_at] ^= 0xFF
    return bytes(spoilt)


GARBLED_PDU: dict[Garble | None, Callable[[bytes], bytes]] = {
    "wrong_byte_count": _wrong_byte_count,
    "wrong_function": _wrong_function,
    "short": _short,
}
GARBLED_FRAME: dict[Garble | None, Callable[[bytes, Framing, Random], bytes]] = {
    "random": _random,
    "bit_flip": _bit_flip,
    "truncated": _truncated,
    "wrong_crc": _wrong_crc,
}
