"""One simulated field device behind its unit id: registers as of now, and who it is. Pure, no wire.

Source: MODBUS Application Protocol 1.1b3: 6.1 to 6.4 (reading), 6.21 (Read Device Identification), 7 (exceptions).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from firmware_bridge.device import DeviceProfile, Span, WordOrder
from firmware_bridge.registers import encode, encode_text

Words = Mapping[tuple[int, int], int]  # (function, wire address) -> word; a bit is 0 or 1
REQUEST = struct.Struct(">BHH")
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
MAX_COUNT = {1: 2000, 2: 2000, 3: 125, 4: 125}
IDENTIFICATION, MEI_IDENTIFICATION = 0x2B, 0x0E
VENDOR, PRODUCT_CODE, REVISION, PRODUCT_NAME, MODEL_NAME = 0, 1, 2, 4, 5
LAST_OBJECT = {1: 0x02, 2: 0x7F, 3: 0xFF}  # of a stream: basic, regular, extended
ONE_OBJECT = 4
OBJECT_ROOM = 253 - 7  # of a PDU, behind the header of an identification
MORE_FOLLOWS = 0xFF


class Refusal(Exception):
    """The answer is an exception of the protocol, with this code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"exception {code:02X}")


class Silence(Exception):
    """There is no answer."""


def read_of(pdu: bytes) -> Span:
    """The read that a PDU asks for.

    Raises: Refusal: 01 for a function that does not read, 03 for a length or quantity that the protocol does not know.
    """
    if pdu[0] not in MAX_COUNT:
        raise Refusal(ILLEGAL_FUNCTION)
    if len(pdu) != REQUEST.size:
        raise Refusal(ILLEGAL_VALUE)
    read = Span(*REQUEST.unpack(pdu))
    if not 1 <= read.count <= MAX_COUNT[read.function]:
        raise Refusal(ILLEGAL_VALUE)
    return read


class Image:
    """Words packed as an answer carries them, one piece for each stretch that can be read at once.

    Args:
        allow_gaps: addresses between words hold 0, wherever a read can reach across them; else that is refused.
    """

    def __init__(self, words: Words, allow_gaps: bool) -> None:
        self._stretches: dict[int, list[tuple[range, Any]]] = {}
        for function in sorted({function for function, _ in words}):
            held = sorted(address for f, address in words if f == function)
            self._stretches[function] = [
                (run, _packed(function, [words.get((function, address), 0) for address in run]))
                for run in _runs(held, MAX_COUNT[function] if allow_gaps else 1)
            ]

    def data(self, read: Span) -> bytes:
        """Byte count and data. Raises: Refusal: 02, an address that is not there."""
        first, end = read.address, read.end
        for run, packed in self._stretches.get(read.function, ()):
            if run.start <= first and end <= run.stop:
                if read.function <= 2:
                    data = np.packbits(packed[first - run.start : end - run.start], bitorder="little").tobytes()
                else:
                    data = packed[2 * (first - run.start) : 2 * (end - run.start)]
                return bytes([len(data)]) + data
        raise Refusal(ILLEGAL_ADDRESS)


def _runs(addresses: list[int], reach: int) -> Iterator[range]:
    """Sorted addresses as ranges, in which the next one is never further than `reach`."""
    first = last = addresses[0]
    for address in addresses[1:]:
        if address > last + reach:
            yield range(first, last + 1)
            first = address
        last = address
    yield range(first, last + 1)


def _packed(function: int, words: list[int]) -> Any:
    """Registers as big-endian bytes; bits one byte each, since a read may begin at any of them."""
    return np.array(words, np.uint8) if function <= 2 else struct.pack(f">{len(words)}H", *words)


class Unit:
    """One unit id: a profile, and where its values come from.

    Args:
        values: point -> value now; None while the device does not answer.
        identity: object id -> text for function 43/14; by default the profile's vendor and model. Empty: it has none.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        values: Callable[[], Mapping[str, float] | None],
        identity: Mapping[int, str] | None = None,
    ) -> None:
        self.identity = identity_of(profile) if identity is None else dict(identity)
        self._profile = profile
        self._values = values
        self._texts = _text_words(profile)
        self._reordered: dict[WordOrder, DeviceProfile] = {}
        self._says_nan: dict[str, bool] = {}
        self._told: dict[str, float] = {}  # the last value of every point that could be told
        self._shown: tuple[DeviceProfile, Mapping[str, float]] | None = None
        self._image = Image({}, profile.allow_gaps)

    def image(self, word_order: WordOrder | None = None, sentinel: bool = False, frozen: bool = False) -> Image:
        """What its registers hold now; encoded anew only when a value has changed.

        A value that is not available and has no sentinel in its map stays what it was, as on a real device.

        Args:
            word_order: instead of the profile's. sentinel: no value is available. frozen: as they were last time.
        Raises: Silence: the device does not answer.
        """
        if frozen and self._shown:
            return self._image
        values = self._values()
        if values is None:
            raise Silence
        values = dict.fromkeys(values, math.nan) if sentinel else dict(values)
        profile = self._profile if word_order is None else self._in_order(word_order)
        if self._shown != (profile, values):
            self._told.update({name: value for name, value in values.items() if self._can_tell(name, value)})
            self._image = Image({**self._texts, **encode(profile, self._told)}, profile.allow_gaps)
            self._shown = (profile, values)
        return self._image

    def _can_tell(self, name: str, value: float) -> bool:
        if not math.isnan(value):
            return True
        if name not in self._says_nan:
            try:
                encode(self._profile, {name: math.nan})
                self._says_nan[name] = True
            except ValueError:
                self._says_nan[name] = False
        return self._says_nan[name]

    def _in_order(self, order: WordOrder) -> DeviceProfile:
        if order not in self._reordered:
            points = tuple(msgspec.structs.replace(point, word_order=order) for point in self._profile.points)
            self._reordered[order] = msgspec.structs.replace(self._profile, points=points)
        return self._reordered[order]


def _text_words(profile: DeviceProfile) -> Words:
    """The registers in which the device names itself; a text that the map leaves open is blank."""
    words = {}
    for text in profile.texts:
        span = profile.text_span(text)
        for i, word in enumerate(encode_text(text.equals or "", text)):
            words[span.function, span.address + i] = word
    return words


def identity_of(profile: DeviceProfile) -> dict[int, str]:
    """What a device of this profile says of itself to function 43/14: vendor, product code, revision and names."""
    return {
        VENDOR: profile.vendor,
        PRODUCT_CODE: " ".join(profile.identification) or profile.model,
        REVISION: "simulated",
        PRODUCT_NAME: profile.title,
        MODEL_NAME: profile.model,
    }


def identification(pdu: bytes, identity: Mapping[int, str]) -> bytes:
    """What follows the function code in the answer to Read Device Identification.

    Raises: Refusal: 01 no identification here, 02 no such object, 03 a length or read code that the protocol has not.
    """
    if not identity or pdu[1:2] != bytes([MEI_IDENTIFICATION]):
        raise Refusal(ILLEGAL_FUNCTION)
    if len(pdu) != 4 or not 1 <= pdu[2] <= ONE_OBJECT:
        raise Refusal(ILLEGAL_VALUE)
    code, first = pdu[2], pdu[3]
    level = next(level for level, last in LAST_OBJECT.items() if max(identity) <= last)
    if code == ONE_OBJECT:
        if first not in identity:
            raise Refusal(ILLEGAL_ADDRESS)
        asked = [first]
    else:
        stream = sorted(i for i in identity if i <= LAST_OBJECT[min(code, level)])
        asked = [i for i in stream if i >= first] if first in stream else stream
    sent, data = _objects(asked, identity)
    more = len(sent) < len(asked)
    follows = (MORE_FOLLOWS, asked[len(sent)]) if more else (0, 0)
    return bytes([MEI_IDENTIFICATION, code, 0x80 | level, *follows, len(sent)]) + data


def _objects(asked: list[int], identity: Mapping[int, str]) -> tuple[list[int], bytes]:
    """As many objects as one answer has room for, each as id, length and text."""
    sent: list[int] = []
    data = b""
    for i in asked:
        text = identity[i].encode("ascii", "replace")[: OBJECT_ROOM - 2]
        if len(data) + 2 + len(text) > OBJECT_ROOM:
            break
        data += bytes([i, len(text)]) + text
        sent.append(i)
    return sent, data
