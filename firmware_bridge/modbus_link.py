"""One Modbus connection that reads and can do nothing else: TCP, RTU over TCP, RTU on a serial line.

pymodbus builds the requests and the frames; matching answers to requests is ours, because its clients hand a short or
foreign answer back as good data and let one late answer shift all that follow (3.16.1, measured). Here an answer counts
only when transaction, unit, function and length are those of the request; whatever else arrives is counted and dropped.

Source: MODBUS Application Protocol 1.1b3; MODBUS over Serial Line 1.02, 2.5.1 (RTU framing, silent intervals).
"""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pymodbus.constants import DeviceInformation
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.mei_message import ReadDeviceInformationRequest

from firmware_bridge.device import Span

U16 = NDArray[np.uint16]
READ_FUNCTIONS = frozenset((1, 2, 3, 4))
IDENTIFY = b"\x2b\x0e"  # function 43, MEI type 14: read device identification
IDENTIFY_OBJECTS = {0: "vendor", 1: "product", 2: "revision", 3: "url", 4: "product_name", 5: "model", 6: "application"}
MAX_ADU_BYTES = 260
MAX_UNREAD_BYTES = 4 * MAX_ADU_BYTES
SILENCES_TO_HANG_UP = 3  # not one answer of anybody in between: the connection may be dead without saying so
SETTLE_S = 0.1  # an RTU answer comes in one piece: after so long a pause within it, no more of it will come
LEAST_USUAL_S = 5e-3
BITS_PER_CHARACTER = 11


class Refused(Exception):
    """The device answered with a Modbus exception; the line is well."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"exception {code:02X}")


class NoAnswer(Exception):
    """Silence, or bytes that are no answer to what was asked. `garbled` where there were bytes."""

    def __init__(self, text: str, garbled: bool = False) -> None:
        self.garbled = garbled
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class SerialLine:
    """How a serial line is driven. Source of the default: MODBUS over Serial Line 1.02, 2.5.1 and 3.3 (19200 8E1)."""

    device: str
    baud_rate: int = 19200
    parity: str = "even"
    stop_bits: int = 1

    @property
    def silent_interval_s(self) -> float:
        """Between two frames: 3.5 characters, 1.75 ms above 19200 baud (2.5.1.1)."""
        return 3.5 * BITS_PER_CHARACTER / self.baud_rate if self.baud_rate <= 19200 else 1.75e-3

    def __str__(self) -> str:
        return f"{self.device} ({self.baud_rate} 8{self.parity[0].upper()}{self.stop_bits})"


# ---------------------------------------------------------------------- bytes in and out
class Stream(Protocol):
    """Bytes to and from the other side. `receive` gives b"" when nothing came in time; a closed one raises OSError."""

    def send(self, data: bytes) -> None: ...

    def receive(self, timeout_s: float) -> bytes: ...

    def close(self) -> None: ...


class TcpStream:
    """A TCP connection. Raises: OSError: nobody there."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._socket.settimeout(1.0)
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> bytes:
        self._socket.settimeout(max(timeout_s, 1e-4))
        try:
            data = self._socket.recv(MAX_UNREAD_BYTES)
        except TimeoutError:
            return b""
        if not data:
            raise ConnectionError("closed by the other side")
        return data

    def close(self) -> None:
        self._socket.close()


class SerialStream:
    """A serial port, ours alone. Keeps the silent interval before it sends. Raises: OSError: no such port, or not ours."""

    def __init__(self, line: SerialLine) -> None:
        import termios

        import serial  # only a site with a serial line needs it

        try:
            self._port: Any = serial.Serial(
                line.device, line.baud_rate, parity=line.parity[0].upper(), stopbits=line.stop_bits, timeout=0, exclusive=True
            )  # fmt: skip
        except termios.error as error:
            raise OSError(error.args[0], f"it cannot be set to {line}: {error.args[-1]}") from None
        self._silent_interval_s = line.silent_interval_s
        self._quiet_since_s = time.monotonic()

    def send(self, data: bytes) -> None:
        time.sleep(max(0.0, self._quiet_since_s + self._silent_interval_s - time.monotonic()))
        self._port.write(data)
        self._quiet_since_s = time.monotonic()

    def receive(self, timeout_s: float) -> bytes:
        ready, _, _ = select.select([self._port.fileno()], [], [], timeout_s)
        if not ready:
            return b""
        data = bytes(self._port.read(MAX_UNREAD_BYTES))  # raises where the adapter was pulled out
        self._quiet_since_s = time.monotonic()
        return data

    def close(self) -> None:
        self._port.close()


# ---------------------------------------------------------------------- frames
class Framing(Protocol):
    """How a request becomes bytes, and which bytes are its answer."""

    ids: bool  # requests are numbered, so that a late answer is known as such

    def wrap(self, unit_id: int, pdu: bytes) -> bytes: ...

    def unwrap(self, unread: bytearray, unit_id: int, length: Length) -> bytes | None: ...


Length = Callable[[bytes], int | None]  # the first bytes of a PDU -> its length, None where they are no answer's


class Mbap:
    """Modbus TCP: every frame carries the number of its request."""

    ids = True

    def __init__(self) -> None:
        self.late = 0
        self.foreign = 0
        self._framer = FramerSocket(DecodePDU(False))
        self._number = 0

    def wrap(self, unit_id: int, pdu: bytes) -> bytes:
        self._number = self._number % 0xFFFF + 1
        return self._framer.encode(pdu, unit_id, self._number)

    def unwrap(self, unread: bytearray, unit_id: int, length: Length) -> bytes | None:
        """The next frame with our number; others are taken out and counted.

        Raises: NoAnswer: bytes that are no Modbus, or an answer to our number that is none to our question.
        """
        while len(unread) >= 8:
            number, protocol, n_bytes, unit = struct.unpack_from(">HHHB", unread)
            if protocol != 0 or not 3 <= n_bytes <= MAX_ADU_BYTES - 6:
                raise NoAnswer("what arrives is no Modbus TCP", garbled=True)
            if len(unread) < 6 + n_bytes:
                return None
            pdu = bytes(unread[7 : 6 + n_bytes])
            del unread[: 6 + n_bytes]
            if number != self._number:
                self.late += 1
            elif unit != unit_id:
                self.foreign += 1
            elif length(pdu) != len(pdu):
                raise NoAnswer(f"function {pdu[0]} with {len(pdu)} bytes is no answer to what was asked", garbled=True)
            else:
                return pdu
        return None


class Rtu:
    """RTU: nothing but unit, function, length and checksum says whose answer it is."""

    ids = False

    def __init__(self) -> None:
        self.late = 0
        self.foreign = 0
        self._framer = FramerRTU(DecodePDU(False))

    def wrap(self, unit_id: int, pdu: bytes) -> bytes:
        return self._framer.encode(pdu, unit_id, 0)

    def unwrap(self, unread: bytearray, unit_id: int, length: Length) -> bytes | None:
        """Our unit's answer with a right checksum, wherever it begins: a line's noise stands before and behind it."""
        for start in range(len(unread) - 4):
            if unread[start] != unit_id:
                continue
            n_bytes = length(bytes(unread[start + 1 : start + MAX_ADU_BYTES]))
            end = start + 1 + (n_bytes or 0)
            if n_bytes is None or len(unread) < end + 2:
                continue
            frame = bytes(unread[start:end])
            if self._framer.compute_CRC(frame).to_bytes(2, "big") == unread[end : end + 2]:
                del unread[: end + 2]
                return frame[1:]
        return None


# ---------------------------------------------------------------------- one transaction at a time
class Link:
    """An endpoint: a device, a gateway or a serial line. It has two questions, `ask` and `identify`, and both only read.

    `late`, `foreign` and `garbled` count what was dropped: answers after their time, answers of another unit, and bytes
    that are no answer at all; `answer_s` is how long the last answer took.

    `ids` is False where a late answer cannot be told from the next one (RTU). The caller then leaves a silent unit alone
    for as long as its answer may still come, and for that long (`late_s`) an answer is believed only when no second one
    follows it: it might be another unit's, late and under a wrong number.
    """

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        framing: Framing,
        hang_up_on_silence: bool = False,
        late_s: float = 1.0,
    ) -> None:
        self.garbled = 0
        self.answer_s = 0.0
        self._late_s = late_s
        self._doubt_until_s = 0.0
        self._open_stream = open_stream
        self._framing = framing
        self._hang_up_on_silence = hang_up_on_silence
        self._stream: Stream | None = None
        self._unread = bytearray()
        self._silences = 0

    @property
    def ids(self) -> bool:
        return self._framing.ids

    @property
    def late(self) -> int:
        return int(getattr(self._framing, "late", 0))

    @property
    def foreign(self) -> int:
        return int(getattr(self._framing, "foreign", 0))

    def connect(self) -> bool:
        """Connect unless connected; True where that was needed.

        Raises: OSError: nobody there, no such port.
        """
        if self._stream is not None:
            return False
        self._stream = self._open_stream()
        self._unread.clear()
        self._silences = 0
        return True

    def close(self) -> None:
        """Drop the connection, and with it every answer still on its way."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def ask(self, unit_id: int, read: Span, timeout_s: float, usual_s: float = 0.0) -> U16:
        """One request, one checked answer; bits as words 0 and 1.

        Args: usual_s: how long this unit's answers take, as far as that is known.
        Returns: uint16, shape (read.count,).
        Raises: Refused: a Modbus exception. NoAnswer: silence or nonsense.
        """
        n_bytes = (read.count + 7) // 8 if read.function <= 2 else 2 * read.count

        def length(pdu: bytes) -> int | None:
            if pdu[0] == read.function | 0x80:
                return 2
            return 2 + n_bytes if pdu[0] == read.function and pdu[1:2] == bytes([n_bytes & 0xFF]) else None

        request = struct.pack(">BHH", read.function, read.address, read.count)
        data = self._transact(unit_id, request, length, timeout_s, usual_s)[2:]
        if read.function <= 2:
            return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: read.count].astype(np.uint16)
        return np.frombuffer(data, ">u2").astype(np.uint16)

    def identify(self, unit_id: int, timeout_s: float) -> dict[str, str]:
        """What the device says of itself: vendor, product, revision and more; empty where it says nothing.

        Raises: Refused, NoAnswer, as `ask`.
        Source: MODBUS Application Protocol 1.1b3, 6.21 (basic, then regular identification, in as many parts as it takes).
        """
        found: dict[str, str] = {}
        for stream in (DeviceInformation.BASIC, DeviceInformation.REGULAR):
            following = 0
            for _ in range(8):
                pdu = self._identify_part(unit_id, int(stream), following, timeout_s)
                if pdu is None:
                    return found
                found.update(_objects(pdu))
                if pdu[4] != 0xFF or pdu[5] <= following:
                    break
                following = pdu[5]
        return found

    def listen(self, timeout_s: float) -> int:
        """How many bytes arrive unasked: more than none on a serial line is another master, and we must not talk."""
        assert self._stream is not None, "connect comes first"
        deadline = time.monotonic() + timeout_s
        heard = 0
        while not heard and (left_s := deadline - time.monotonic()) > 0:
            heard += len(self._stream.receive(left_s))
        return heard

    def _identify_part(self, unit_id: int, stream: int, following: int, timeout_s: float) -> bytes | None:
        request = ReadDeviceInformationRequest(read_code=stream, object_id=following)
        try:
            return self._transact(unit_id, IDENTIFY[:1] + request.encode(), _identification_length, timeout_s)
        except Refused:
            if stream == DeviceInformation.BASIC:
                raise
            return None

    def _transact(self, unit_id: int, pdu: bytes, length: Length, timeout_s: float, usual_s: float = 0.0) -> bytes:
        """Send, wait for the answer that fits, give its PDU."""
        assert self._stream is not None, "connect comes first"
        _guard(unit_id, pdu)
        try:
            self._unread.clear()
            self._discard()
            self._stream.send(self._framing.wrap(unit_id, pdu))
            sent_s = time.monotonic()
            answer = self._answer(unit_id, length, timeout_s)
            self.answer_s = time.monotonic() - sent_s
            if not self._framing.ids and sent_s < self._doubt_until_s:
                self._expect_no_other(unit_id, length, sent_s + 2.0 * max(usual_s, LEAST_USUAL_S))
        except NoAnswer as silence:
            self._after_silence(silence)
            raise
        except (OSError, ValueError) as error:  # pyserial's errors are OSErrors
            self.close()
            raise NoAnswer(f"the connection was closed instead of an answer ({error})") from None
        self._silences = 0
        if answer[0] & 0x80:
            raise Refused(answer[1])
        return answer

    def _discard(self) -> None:
        """What came in after the last transaction: late answers and noise. A numbered one is left for its count."""
        if not self._framing.ids and self._stream is not None:
            self.garbled += bool(self._stream.receive(0.0))

    def _answer(self, unit_id: int, length: Length, timeout_s: float) -> bytes:
        assert self._stream is not None
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            settling = bool(self._unread) and not self._framing.ids
            data = self._stream.receive(min(left_s, SETTLE_S) if settling else left_s)
            self._unread += data
            if (pdu := self._framing.unwrap(self._unread, unit_id, length)) is not None:
                return pdu
            if len(self._unread) > MAX_UNREAD_BYTES:
                raise NoAnswer("more bytes than any answer has, and none that fits", garbled=True)
            if settling and not data:
                break
        if self._unread:
            raise NoAnswer(f"{len(self._unread)} bytes that are no whole answer of this unit", garbled=True)
        raise NoAnswer(f"no answer within {timeout_s:.3g} s")

    def _expect_no_other(self, unit_id: int, length: Length, until_s: float) -> None:
        """After a silence somebody's late answer is still about, and may bear this unit's number; then two will come.

        Raises: NoAnswer: another answer to the same question; nobody knows which one is meant.
        """
        assert self._stream is not None
        while (left_s := until_s - time.monotonic()) > 0:
            self._unread += self._stream.receive(left_s)
            if self._framing.unwrap(self._unread, unit_id, length) is not None:
                raise NoAnswer("two answers to one question", garbled=True)

    def _after_silence(self, silence: NoAnswer) -> None:
        """After nonsense a numbered stream has lost its place; after much silence the connection may be dead."""
        self.garbled += silence.garbled
        self._silences += 1
        self._doubt_until_s = time.monotonic() + self._late_s
        if (silence.garbled and self.ids) or self._hang_up_on_silence or self._silences >= SILENCES_TO_HANG_UP:
            self._silences = 0
            self.close()


def tcp_link(host: str, port: int, timeout_s: float, rtu: bool = False) -> Link:
    """A Modbus TCP endpoint, or (`rtu`) a serial line behind a converter that passes RTU frames on as they are."""
    framing: Framing = Rtu() if rtu else Mbap()
    return Link(lambda: TcpStream(host, port, timeout_s), framing, hang_up_on_silence=rtu, late_s=timeout_s)


def serial_link(line: SerialLine, timeout_s: float = 1.0) -> Link:
    """A serial line of this machine."""
    return Link(lambda: SerialStream(line), Rtu(), late_s=timeout_s)


def _guard(unit_id: int, pdu: bytes) -> None:
    """The last gate before the wire: a function that writes has no way out, nor has a broadcast, whoever asked for it."""
    if pdu[0] not in READ_FUNCTIONS and pdu[:2] != IDENTIFY:
        raise PermissionError(f"function {pdu[0]} is not a reading one; this client never writes")
    if not 1 <= unit_id <= 255:
        raise PermissionError(f"unit {unit_id} is not one to read from; 0 is a broadcast, which only writes")


def _identification_length(pdu: bytes) -> int | None:
    """The length of an identification: its objects are counted and each says its own length."""
    if pdu[0] == IDENTIFY[0] | 0x80:
        return 2
    if pdu[:2] != IDENTIFY:
        return None
    end = 7
    for _ in range(pdu[6] if len(pdu) > 6 else 0):
        end += 2 + (pdu[end + 1] if len(pdu) > end + 1 else 0)
    return end


def _objects(pdu: bytes) -> dict[str, str]:
    found = {}
    place = 7
    for _ in range(pdu[6]):
        number, n_bytes = pdu[place], pdu[place + 1]
        text = pdu[place + 2 : place + 2 + n_bytes].decode("utf-8", "replace")
        found[IDENTIFY_OBJECTS.get(number, f"object_{number}")] = re.sub(r"[^\x20-\x7e\u00a0-\uffff]", "", text).strip()
        place += 2 + n_bytes
    return found
