"""Polls Modbus TCP with pymodbus, and checks every answer, because pymodbus does not.

A TCP answer with fewer registers or another function code comes back from pymodbus as good data (3.16.1, measured), and
one late answer can shift all that follow. So retries are ours, an answer is compared with its request, and after
silence or nonsense the connection is dropped: nothing late can be taken for the next answer.

Read only, twice over: the client has four verbs, and a guard at the last gate refuses to send any other function code.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.pdu import ModbusPDU

from firmware_bridge.device import DeviceProfile, channels, load_device
from firmware_bridge.errors import SourceLost
from firmware_bridge.measurement import Block, Channel, Measurement
from firmware_bridge.registers import Decoder, Read
from firmware_bridge.source import AnySpec, ModbusSensor, ModbusSpec, SourceContext

log = logging.getLogger(__name__)
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it logs every silence; we log changes of state

READ_FUNCTIONS = frozenset((1, 2, 3, 4))
FAILURES_TO_OPEN = 3
PROBE_AFTER_S = (5.0, 15.0, 60.0)
GATEWAY_CODES = (10, 11)  # path unavailable, target did not answer: as silence of that unit, the line is well
EXCEPTIONS = {
    1: "illegal function: this device does not answer to that function; check the device file",
    2: "illegal address: the device has no such register; check address_base and allow_gaps in the device file",
    3: "illegal value: too many registers at once; lower max_registers in the device file",
    4: "device failure",
    5: "acknowledge: the device needs more time",
    6: "device busy",
    8: "memory parity error in the device",
    10: "gateway path unavailable: check the gateway's own settings",
    11: "gateway target did not answer: check the unit id and the RS-485 wiring",
}
U16 = NDArray[np.uint16]


class Refused(Exception):
    """The device answered with a Modbus exception; the line is well."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"exception {code:02X}, {EXCEPTIONS.get(code, 'not in the standard')}")


class NoAnswer(Exception):
    """Silence, or bytes that are no answer to what was asked; the connection is not to be used again."""


class ReadOnlyClient:
    """A Modbus TCP connection that can read, and do nothing else."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._address = (host, port)
        self._timeout_s = timeout_s
        self._client: ModbusTcpClient | None = None

    def read_coils(self, address: int, count: int, unit_id: int) -> U16:
        """Function 1; bits as words 0 and 1."""
        return self._ask(Read(1, address, count), unit_id)

    def read_discrete_inputs(self, address: int, count: int, unit_id: int) -> U16:
        """Function 2; bits as words 0 and 1."""
        return self._ask(Read(2, address, count), unit_id)

    def read_holding_registers(self, address: int, count: int, unit_id: int) -> U16:
        """Function 3."""
        return self._ask(Read(3, address, count), unit_id)

    def read_input_registers(self, address: int, count: int, unit_id: int) -> U16:
        """Function 4."""
        return self._ask(Read(4, address, count), unit_id)

    def connect(self) -> bool:
        """Connect unless connected; True where that was needed.

        Raises: OSError: nobody there.
        """
        if self._client is not None and self._client.connected:
            return False
        client = ModbusTcpClient(
            self._address[0], port=self._address[1], timeout=self._timeout_s, retries=0, trace_pdu=_guard
        )
        client.socket = socket.create_connection(self._address, timeout=self._timeout_s)  # pymodbus hides the reason
        self._client = client
        return True

    def close(self) -> None:
        """Drop the connection, and with it every answer still on its way."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
            self._client = None

    def _ask(self, read: Read, unit_id: int) -> U16:
        """One request, one checked answer.

        Raises: Refused: a Modbus exception. NoAnswer: silence or nonsense; the connection is dropped.
        """
        assert self._client is not None, "connect comes first"
        verbs = {
            1: self._client.read_coils,
            2: self._client.read_discrete_inputs,
            3: self._client.read_holding_registers,
            4: self._client.read_input_registers,
        }
        try:
            answer = verbs[read.function](read.address, count=read.count, device_id=unit_id)
            return _checked(answer, read, unit_id)
        except ConnectionException:
            self.close()
            raise NoAnswer("the connection was closed instead of an answer") from None
        except (
            ModbusException,
            OSError,
            struct.error,
            IndexError,
        ) as error:  # pymodbus lets its parser's errors through
            self.close()
            raise NoAnswer(
                f"no answer within {self._timeout_s:g} s, or none that fits ({type(error).__name__})"
            ) from None
        except NoAnswer:
            self.close()
            raise


def _guard(sending: bool, pdu: ModbusPDU) -> ModbusPDU:
    """The last gate before the wire: a function that writes has no way out, whoever asked for it."""
    if sending and pdu.function_code not in READ_FUNCTIONS:
        raise PermissionError(f"function {pdu.function_code} is not a reading one; this client never writes")
    return pdu


def _checked(answer: ModbusPDU, read: Read, unit_id: int) -> U16:
    """The words of an answer that answers exactly what was asked."""
    if answer.isError():
        raise Refused(answer.exception_code)
    if answer.dev_id != unit_id or answer.function_code != read.function:
        raise NoAnswer(
            f"asked unit {unit_id} by function {read.function}, {answer.dev_id} by {answer.function_code} answered"
        )
    if read.function <= 2:
        if (len(answer.bits) + 7) // 8 != (read.count + 7) // 8:
            raise NoAnswer(f"asked for {read.count} bits, got {len(answer.bits)}")
        return np.array(answer.bits[: read.count], np.uint16)
    if len(answer.registers) != read.count:
        raise NoAnswer(f"asked for {read.count} registers, got {len(answer.registers)}")
    return np.array(answer.registers, np.uint16)


@dataclass(slots=True)
class _Breaker:
    """Leaves a dead unit alone: open after three failures in a row, one probe after 5, 15, then every 60 s."""

    failures: int = 0
    closed_until_ns: int = 0

    def may_ask(self, now_ns: int) -> bool:
        return now_ns >= self.closed_until_ns

    def failed(self, now_ns: int) -> None:
        self.failures += 1
        probe = self.failures - FAILURES_TO_OPEN
        if probe >= 0:
            self.closed_until_ns = now_ns + round(PROBE_AFTER_S[min(probe, len(PROBE_AFTER_S) - 1)] * 1e9)

    def answered(self) -> None:
        self.failures = 0
        self.closed_until_ns = 0


@dataclass(slots=True)
class _Sensor:
    """One device: its map, its place in the channel table, its turn."""

    spec: ModbusSensor
    decoder: Decoder
    channels: NDArray[np.int32]
    interval_ns: int
    due_ns: int = 0
    breaker: _Breaker = field(default_factory=_Breaker)
    troubles: dict[int, str] = field(default_factory=dict)


class ModbusSource:
    """One endpoint, polled by one thread: each sensor on its own monotonic cadence, one Block a poll."""

    def __init__(self, spec: ModbusSpec, profiles: list[DeviceProfile], context: SourceContext) -> None:
        self.name = spec.name
        self.counters = dict.fromkeys(
            ("polls", "no_answer", "refused", "connects", "lost", "skipped_by_breaker", "polls_missed"), 0
        )
        self._spec = spec
        self._clock = context.clock
        self._client = ReadOnlyClient(spec.host, spec.port, spec.timeout_s)
        self._closed = threading.Event()
        self._lost = False
        self._sensors: list[_Sensor] = []
        made: list[Channel] = []
        for sensor, profile in zip(spec.sensors, profiles, strict=True):
            mine = channels(profile, sensor.name)
            first = context.first_channel + len(made)
            places = np.arange(first, first + len(mine), dtype=np.int32)
            self._sensors.append(_Sensor(sensor, Decoder(profile), places, round(sensor.poll_interval_s * 1e9)))
            made.extend(mine)
        self.channels = tuple(made)

    def read(self, timeout_s: float) -> Iterator[Measurement]:
        """Poll what falls due within `timeout_s`.

        Raises: SourceLost: nobody listens at the address; every sensor that was due is told BAD_COMM before.
        """
        end_ns = self._clock.monotonic_ns() + round(timeout_s * 1e9)
        while not self._closed.is_set():
            sensor = min(self._sensors, key=lambda s: s.due_ns)
            now_ns = self._clock.monotonic_ns()
            if sensor.due_ns > now_ns:
                if now_ns >= end_ns:
                    return
                self._closed.wait((min(sensor.due_ns, end_ns) - now_ns) / 1e9)
                continue
            try:
                self._connect()
            except OSError as error:
                yield from self._nothing_from_all(now_ns)
                raise self._lost_because(error) from None
            self._schedule(sensor, now_ns)
            yield self._poll(sensor, now_ns)
            if self._clock.monotonic_ns() >= end_ns:
                return

    def close(self) -> None:
        """Stop waiting and hang up."""
        self._closed.set()
        self._client.close()

    def _connect(self) -> None:
        if not self._client.connect():
            return
        if self._lost or not self.counters["connects"]:
            log.info("modbus connected: source=%s address=%s:%d", self.name, self._spec.host, self._spec.port)
        self._lost = False
        self.counters["connects"] += 1

    def _lost_because(self, error: OSError) -> SourceLost:
        self.counters["lost"] += 1
        self._lost = True
        units = ", ".join(f"{s.spec.name} (unit {s.spec.unit_id})" for s in self._sensors)
        reason = error.strerror or str(error) or type(error).__name__
        return SourceLost(
            f"{self.name}: no connection to {self._spec.host}:{self._spec.port} within {self._spec.timeout_s:g} s "
            f"({reason}); {units} cannot be read. Check power, cable and address of the device or gateway"
        )

    def _nothing_from_all(self, now_ns: int) -> Iterator[Block]:
        for sensor in self._sensors:
            if sensor.due_ns <= now_ns:
                self._schedule(sensor, now_ns)
                yield self._block(sensor, {})

    def _schedule(self, sensor: _Sensor, now_ns: int) -> None:
        """The next turn lies on the sensor's own grid; turns that are past already are missed, not made up for."""
        if not sensor.due_ns:
            sensor.due_ns = now_ns
        missed = (now_ns - sensor.due_ns) // sensor.interval_ns
        self.counters["polls_missed"] += missed
        sensor.due_ns += (missed + 1) * sensor.interval_ns

    def _poll(self, sensor: _Sensor, now_ns: int) -> Block:
        if not sensor.breaker.may_ask(now_ns):
            self.counters["skipped_by_breaker"] += 1
            return self._block(sensor, {})
        self.counters["polls"] += 1
        words: dict[int, U16 | None] = {}
        for index, read in enumerate(sensor.decoder.reads):
            try:
                words[index] = self._ask(read, sensor.spec.unit_id)
                self._trouble(sensor, index, "")
            except Refused as refused:
                self.counters["refused"] += 1
                self._trouble(sensor, index, str(refused))
                if refused.code in GATEWAY_CODES:
                    break
            except NoAnswer as silence:
                self.counters["no_answer"] += 1
                self._trouble(sensor, index, str(silence))
                break
        else:
            sensor.breaker.answered()
            return self._block(sensor, words)
        sensor.breaker.failed(self._clock.monotonic_ns())
        return self._block(sensor, words)

    def _ask(self, read: Read, unit_id: int) -> U16:
        verb = {
            1: self._client.read_coils,
            2: self._client.read_discrete_inputs,
            3: self._client.read_holding_registers,
            4: self._client.read_input_registers,
        }[read.function]
        return verb(read.address, read.count, unit_id)

    def _block(self, sensor: _Sensor, words: dict[int, U16 | None]) -> Block:
        """The answers so far, stamped now: when the last of them was complete."""
        values, quality = sensor.decoder.decode(words)
        return Block(sensor.channels, values, quality, self._clock.utc_ns(), self._clock.monotonic_ns())

    def _trouble(self, sensor: _Sensor, index: int, trouble: str) -> None:
        """Log a read's state once per change."""
        if sensor.troubles.get(index, "") == trouble:
            return
        sensor.troubles[index] = trouble
        read = sensor.decoder.reads[index]
        where = (
            f"source={self.name} sensor={sensor.spec.name} address={self._spec.host}:{self._spec.port} "
            f"unit={sensor.spec.unit_id} function={read.function} first={read.address} count={read.count}"
        )
        if trouble:
            log.warning("modbus read failed: %s cause=%s", where, trouble)
        else:
            log.info("modbus read works again: %s", where)


def channels_of(spec: AnySpec, config_dir: Path) -> tuple[Channel, ...]:
    """The channels of every sensor, in the site file's order.

    Raises: ConfigError: a device file that is missing or wrong.
    """
    assert isinstance(spec, ModbusSpec)
    return tuple(c for sensor in spec.sensors for c in channels(load_device(config_dir, sensor.device), sensor.name))


def open(spec: AnySpec, context: SourceContext) -> ModbusSource:
    """The source; it connects at its first `read`.

    Raises: ConfigError: a device file that is missing or wrong.
    """
    assert isinstance(spec, ModbusSpec)
    return ModbusSource(spec, [load_device(context.config_dir, sensor.device) for sensor in spec.sensors], context)
