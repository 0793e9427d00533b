"""Modbus servers of our own that answer like the devices of one set, and misbehave when told: TCP, RTU over TCP, serial.

Not pymodbus's server: a bug of the library on both ends would cancel out. Functions 1 to 4 and 43/14 are answered,
anything else is refused with exception 01; nothing can be written, as nothing here may be.
Source: MODBUS Application Protocol 1.1b3; MODBUS Messaging on TCP/IP 1.0b; MODBUS over Serial Line 1.02.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, cast

from firmware_bridge.device import Span, load_device
from firmware_bridge.errors import SourceLost
from simulator.modbus_device import IDENTIFICATION, REQUEST, Refusal, Silence, Unit, identification, read_of
from simulator.modbus_frames import Adu, Framing, NotModbus, RtuFraming, TcpFraming
from simulator.modbus_trouble import Trouble
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant

FRAMINGS: Mapping[str, Callable[[], Framing]] = {"tcp": TcpFraming, "rtu": RtuFraming}
GATEWAY_TARGET_SILENT = 0x0B
BROADCAST = 0
MAX_CONNECTIONS = 32
MAX_WAITING = 1024  # answers, or their single bytes, that are still to come on one connection
MAX_REQUESTS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived; of a function that reads nothing, the four bytes behind it as two numbers, or 0."""

    unit_id: int
    function: int
    address: int
    count: int
    monotonic_ns: int


@dataclass
class Ledger:
    """What a server was asked and did.

    Attributes:
        answered, refused, ignored: requests answered with data, refused with an exception, left unanswered.
        garbage: bytes that belonged to no request. turned_away: connections beyond MAX_CONNECTIONS.
        unsent: answers that found no room on the line, or in front of which too many others were waiting.
        functions: how often each function code was asked. requests: the last ones, oldest first.
    """

    answered: int = 0
    refused: int = 0
    ignored: int = 0
    garbage: int = 0
    turned_away: int = 0
    unsent: int = 0
    functions: Counter[int] = field(default_factory=Counter)
    requests: deque[Asked] = field(default_factory=lambda: deque(maxlen=MAX_REQUESTS_KEPT))

    def note(self, unit_id: int, pdu: bytes) -> None:
        function, address, count = REQUEST.unpack_from(pdu) if len(pdu) >= REQUEST.size else (pdu[0], 0, 0)
        self.functions[function] += 1
        self.requests.append(Asked(unit_id, function, address, count, time.monotonic_ns()))

    def counts(self) -> dict[str, Any]:
        """Everything but the requests themselves, for JSON."""
        told = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {**told, "functions": {str(function): n for function, n in sorted(self.functions.items())}}


class Endpoint(ABC):
    """Units behind one endpoint, served by a thread of its own."""

    def __init__(self, units: Mapping[int, Unit], framing: Callable[[], Framing], trouble: Trouble | None) -> None:
        self.trouble = trouble or Trouble()
        self.ledger = Ledger()
        self.new_framing = framing
        self._has_gateway = framing().has_gateway
        self._units = dict(units)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    @abstractmethod
    def where(self) -> str:
        """What a client connects to, in words."""

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _shut(self) -> None: ...

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve from now on.

        Raises: SourceLost: the port or link cannot be had.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"modbus {self.where}", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10.0)
        except OSError as error:
            self.stop()
            raise SourceLost(f"cannot serve Modbus on {self.where}: {error.strerror or error}") from None

    def stop(self) -> None:
        """Cut every connection and take no more; may be called twice."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = self._thread = None
        asyncio.run_coroutine_threadsafe(self._shut(), loop).result(10.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10.0)
        loop.close()

    def answer(self, unit_id: int, pdu: bytes) -> bytes | None:
        """The PDU that answers one request, an exception included; None where a device would stay silent."""
        self.ledger.note(unit_id, pdu)
        try:
            data = self._data(unit_id, pdu)
        except Silence:
            self.ledger.ignored += 1
            return None
        except Refusal as refusal:
            self.ledger.refused += 1
            return bytes([pdu[0] | 0x80, refusal.code])
        self.ledger.answered += 1
        return pdu[:1] + data

    def _data(self, unit_id: int, pdu: bytes) -> bytes:
        """What follows the function code. Raises: Silence, Refusal."""
        trouble = self.trouble
        trouble.check(unit_id)
        if unit_id not in self._units:
            raise self._for_nobody(unit_id)
        unit = self._units[unit_id]
        image = unit.image(trouble.word_order.get(unit_id), unit_id in trouble.sentinel, unit_id in trouble.frozen)
        if pdu[0] == IDENTIFICATION:
            return identification(pdu, {} if unit_id in trouble.anonymous else unit.identity)
        read = read_of(pdu)
        trouble.check_read(unit_id, read)
        shift = trouble.base_shift.get(unit_id, 0)
        return image.data(Span(read.function, read.address - shift, read.count))

    def _for_nobody(self, unit_id: int) -> Silence | Refusal:
        """A line has nobody who could answer for a unit that is not there, nor a broadcast; a gateway is somebody."""
        silent = self.trouble.absent_silent or not self._has_gateway
        return Silence() if silent else Refusal(GATEWAY_TARGET_SILENT)


class _Channel:
    """One connection or line: requests out of what arrives, and answers when and as they are to be given."""

    def __init__(self, server: Endpoint, write: Callable[[bytes], None], hang_up: Callable[[], None]) -> None:
        self._server = server
        self._framing = server.new_framing()
        self._write = write
        self._hang_up = hang_up
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._waiting = 0

    def received(self, data: bytes) -> None:
        self._serve_all(lambda: self._framing.feed(data))
        if self._pause is not None:
            self._pause.cancel()
        if self._framing.silence_s is not None:
            self._pause = self._loop.call_later(self._framing.silence_s, self._serve_all, self._framing.silence)

    def _serve_all(self, requests: Callable[[], Iterator[Adu]]) -> None:
        before = self._framing.garbage
        try:
            for request in requests():
                self._serve(request)
        except NotModbus:
            self._hang_up()
        self._server.ledger.garbage += self._framing.garbage - before

    def _serve(self, request: Adu) -> None:
        trouble = self._server.trouble
        answer = self._server.answer(request.unit_id, request.pdu)
        if answer is None:
            if request.unit_id in trouble.drop_connection:
                self._hang_up()
            return
        frame = trouble.frame(self._framing, request, answer)
        late_s = trouble.late_s.get(request.unit_id, 0.0)
        gap_s = trouble.byte_gap_s.get(request.unit_id, 0.0)
        pieces = [frame[i : i + 1] for i in range(len(frame))] if gap_s else [frame]
        if not (late_s or gap_s):
            self._write(frame)
        elif self._waiting + len(pieces) > MAX_WAITING:
            self._server.ledger.unsent += 1
        else:
            self._waiting += len(pieces)
            for i, piece in enumerate(pieces):
                self._loop.call_later(late_s + i * gap_s, self._write_late, piece)

    def _write_late(self, piece: bytes) -> None:
        self._waiting -= 1
        self._write(piece)


class _Connection(asyncio.Protocol):
    """One TCP client. While it does not read its answers, no more of its requests are taken."""

    def __init__(self, server: ModbusServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._server.connections) >= MAX_CONNECTIONS:
            self._server.ledger.turned_away += 1
            self._transport.abort()
            return
        self._server.connections.add(self._transport)
        self._channel = _Channel(self._server, self._write, self._transport.close)

    def data_received(self, data: bytes) -> None:
        self._channel.received(data)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self._transport)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


class ModbusServer(Endpoint):
    """One TCP endpoint with several units. `stop` refuses connections, `start` takes them again.

    Args:
        port: 0 becomes the free one that was found.
        framing: "tcp", a gateway that answers 0B for units that are not there; "rtu", a converter that passes a line's
            frames through.
    """

    def __init__(
        self,
        units: Mapping[int, Unit],
        host: str = "127.0.0.1",
        port: int = 0,
        trouble: Trouble | None = None,
        *,
        framing: Literal["tcp", "rtu"] = "tcp",
    ) -> None:
        super().__init__(units, FRAMINGS[framing], trouble)
        self.host = host
        self.port = port
        self.connections: set[asyncio.Transport] = set()
        self._listener: asyncio.Server | None = None

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}"

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for transport in tuple(self.connections):
            transport.abort()


class PtyPair:
    """A serial line without a wire: we hold `fd`, a client opens `device` as it would a serial port.

    Raw from the start: a terminal would echo, and eat some of the bytes.
    """

    def __init__(self) -> None:
        self.fd, self._far_fd = os.openpty()
        tty.setraw(self._far_fd)
        os.set_blocking(self.fd, False)
        self.device = os.ttyname(self._far_fd)  # held open, so that the line outlives its clients

    def close(self) -> None:
        """Unplug it: whoever has the device open reads the end of it."""
        os.close(self.fd)
        os.close(self._far_fd)


class ModbusLine(Endpoint):
    """One serial line with several units, RTU; a unit that is not there stays silent. `stop` unplugs it.

    Args:
        link: a path that leads to the device while it is there, since a pseudo-terminal's own name changes.
    """

    def __init__(self, units: Mapping[int, Unit], link: Path | None = None, trouble: Trouble | None = None) -> None:
        super().__init__(units, RtuFraming, trouble)
        self.device = ""
        self._link = link
        self._pair: PtyPair | None = None

    @property
    def where(self) -> str:
        return str(self._link or self.device or "a pseudo-terminal")

    async def _open(self) -> None:
        self._pair = pair = PtyPair()
        self.device = pair.device
        if self._link is not None:
            if self._link.is_symlink():
                self._link.unlink()
            self._link.symlink_to(pair.device)
        channel = _Channel(self, self._write, lambda: None)
        asyncio.get_running_loop().add_reader(pair.fd, lambda: channel.received(os.read(pair.fd, 4096)))

    async def _shut(self) -> None:
        if self._pair is None:
            return
        asyncio.get_running_loop().remove_reader(self._pair.fd)
        self._pair.close()
        self._pair = None
        if self._link is not None and self._link.is_symlink() and str(self._link.readlink()) == self.device:
            self._link.unlink()

    def _write(self, data: bytes) -> None:
        """What nobody reads fills the line; then bytes are lost, as on a line with nobody at its end."""
        if self._pair is None:
            return
        try:
            n_sent = os.write(self._pair.fd, data)
        except BlockingIOError:
            n_sent = 0
        self.ledger.unsent += n_sent < len(data)


def units_of(plant: Plant, set_name: str, clock: PlantClock, config_dir: Path) -> dict[int, Unit]:
    """Every field device of one plant set under its unit id, shown as of the clock.

    Raises: ConfigError: a device's profile is missing or wrong.
    """

    def source(name: str) -> Callable[[], Mapping[str, float] | None]:
        return lambda: plant.device(set_name, name, clock.t_s())

    return {
        spec.unit_id: Unit(load_device(config_dir, spec.device), source(spec.name))
        for spec in plant.sets[set_name].devices
    }


def serve_set(
    plant: Plant, set_name: str, clock: PlantClock, config_dir: Path, *, host: str = "127.0.0.1", port: int = 0
) -> ModbusServer:
    """The TCP endpoint of one plant set, not yet started.

    Raises: ConfigError: a device's profile is missing or wrong.
    """
    return ModbusServer(units_of(plant, set_name, clock, config_dir), host, port)
