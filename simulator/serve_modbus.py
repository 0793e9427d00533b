"""A Modbus TCP server of our own that answers like the devices of one set, and misbehaves when told.

Not pymodbus's server: a bug of the library on both ends would cancel out. Functions 1 to 4 are answered, anything else
is refused with exception 01; nothing can be written, as nothing here may be.
Source: MODBUS Application Protocol 1.1b3; MODBUS Messaging on TCP/IP 1.0b (MBAP header).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from firmware_bridge.device import DeviceProfile, load_device
from firmware_bridge.errors import SourceLost
from firmware_bridge.registers import encode
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant

log = logging.getLogger(__name__)
WordOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]
Words = dict[tuple[int, int], int]
MBAP = struct.Struct(">HHHB")
REQUEST = struct.Struct(">BHH")
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
GATEWAY_TARGET_SILENT = 0x0B
MAX_REGISTERS, MAX_BITS = 125, 2000
MAX_CONNECTIONS = 32


@dataclass
class Trouble:
    """What one server does wrong, by unit id; may be changed while it runs.

    Attributes:
        word_order: 32-bit values in another order than the profile says. silent: no answer at all.
        sentinel: every value is the device's "not available". exception: answer every request with this code.
    """

    word_order: dict[int, WordOrder] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    sentinel: set[int] = field(default_factory=set)
    exception: dict[int, int] = field(default_factory=dict)


@dataclass
class Ledger:
    """What a server did: requests answered with data, refused with an exception, and left unanswered."""

    answered: int = 0
    refused: int = 0
    ignored: int = 0


class Unit:
    """One unit id: a profile, and where its values come from.

    Args:
        values: point -> value now; None while the device does not answer.
    """

    def __init__(self, profile: DeviceProfile, values: Callable[[], Mapping[str, float] | None]) -> None:
        self._profile = profile
        self._values = values
        self._last: Words = {}
        self._reordered: dict[str, DeviceProfile] = {}

    def words(self, word_order: WordOrder | None = None, sentinel: bool = False) -> Words | None:
        """(function, wire address) -> word now; None while the device is silent.

        A value that is not available and has no sentinel in its map stays what it was, as on a real device.
        """
        values = self._values()
        if values is None:
            return None
        profile = self._profile if word_order is None else self._in_order(word_order)
        shown = dict.fromkeys(values, float("nan")) if sentinel else values
        for name, value in shown.items():
            with contextlib.suppress(ValueError):
                self._last.update(encode(profile, {name: value}))
        return self._last

    def _in_order(self, order: WordOrder) -> DeviceProfile:
        if order not in self._reordered:
            points = tuple(msgspec.structs.replace(point, word_order=order) for point in self._profile.points)
            self._reordered[order] = msgspec.structs.replace(self._profile, points=points)
        return self._reordered[order]

    @property
    def allow_gaps(self) -> bool:
        return self._profile.allow_gaps


class ModbusServer:
    """One TCP endpoint with several units, in its own thread. `stop` refuses connections, `start` takes them again."""

    def __init__(
        self, units: Mapping[int, Unit], host: str = "127.0.0.1", port: int = 0, trouble: Trouble | None = None
    ) -> None:
        self.host = host
        self.port = port
        self.trouble = trouble or Trouble()
        self.ledger = Ledger()
        self._units = dict(units)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> ModbusServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; `port` 0 becomes the free one that was found.

        Raises: SourceLost: the port cannot be had.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"modbus-{self.port}", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10.0)
        except OSError as error:
            self.stop()
            raise SourceLost(f"cannot serve Modbus on {self.host}:{self.port}: {error.strerror or error}") from None

    def stop(self) -> None:
        """Close the listener and every connection; may be called twice."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = self._thread = None
        asyncio.run_coroutine_threadsafe(self._close(), loop).result(10.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10.0)
        loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            writer.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: request, answer, in order, until it closes or sends what is no Modbus."""
        if len(self._writers) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._writers.add(writer)
        try:
            while True:
                transaction, protocol, length, unit = MBAP.unpack(await reader.readexactly(MBAP.size))
                if protocol != 0 or not 2 <= length <= 254:
                    return
                pdu = await reader.readexactly(length - 1)
                answer = self.answer(unit, pdu)
                if answer is not None:
                    writer.write(MBAP.pack(transaction, 0, len(answer) + 1, unit) + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # the peer went, or the server stops: nobody is left to answer
        finally:
            self._writers.discard(writer)
            writer.close()

    def answer(self, unit_id: int, pdu: bytes) -> bytes | None:
        """The answer to one request, an exception included; None where a device would stay silent."""
        code = self.trouble.exception.get(unit_id)
        unit = self._units.get(unit_id)
        words = unit.words(self.trouble.word_order.get(unit_id), unit_id in self.trouble.sentinel) if unit else None
        if unit_id in self.trouble.silent or (unit is not None and words is None):
            self.ledger.ignored += 1
            return None
        if unit is None or words is None:
            result: bytes | int = GATEWAY_TARGET_SILENT
        else:
            result = code if code is not None else _read(pdu, words, unit.allow_gaps)
        if isinstance(result, int):
            self.ledger.refused += 1
            return bytes([pdu[0] | 0x80, result])
        self.ledger.answered += 1
        return bytes([pdu[0]]) + result


def _read(pdu: bytes, words: Words, allow_gaps: bool) -> bytes | int:
    """Byte count and data of one reading request, or the exception code that refuses it."""
    if pdu[0] not in (1, 2, 3, 4):
        return ILLEGAL_FUNCTION
    if len(pdu) != REQUEST.size:
        return ILLEGAL_VALUE
    function, address, count = REQUEST.unpack(pdu)
    if not 1 <= count <= (MAX_BITS if function <= 2 else MAX_REGISTERS):
        return ILLEGAL_VALUE
    held = [a for f, a in words if f == function]
    if not held or address < min(held) or address + count > max(held) + 1:
        return ILLEGAL_ADDRESS
    asked = range(address, address + count)
    if not allow_gaps and any((function, a) not in words for a in asked):
        return ILLEGAL_ADDRESS
    values = [words.get((function, a), 0) for a in asked]
    data = _packed_bits(values) if function <= 2 else struct.pack(f">{count}H", *values)
    return bytes([len(data)]) + data


def _packed_bits(values: list[int]) -> bytes:
    """Coils, the first in the lowest bit of the first byte (1.1b3, 6.1)."""
    return bytes(
        sum(1 << bit for bit, value in enumerate(values[first : first + 8]) if value)
        for first in range(0, len(values), 8)
    )


def serve_set(
    plant: Plant, set_name: str, clock: PlantClock, config_dir: Path, *, host: str = "127.0.0.1", port: int = 0
) -> ModbusServer:
    """The endpoint of one plant set, not yet started: every field device under its unit id, shown as of the clock.

    Raises: ConfigError: a device's profile is missing or wrong.
    """

    def source(name: str) -> Callable[[], Mapping[str, float] | None]:
        return lambda: plant.device(set_name, name, clock.t_s())

    units = {
        spec.unit_id: Unit(load_device(config_dir, spec.device), source(spec.name))
        for spec in plant.sets[set_name].devices
    }
    return ModbusServer(units, host, port)
