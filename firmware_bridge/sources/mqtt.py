"""Subscribes to sensors that publish by themselves: bursts in chunks and scalars as JSON, decoded by frames.py.

paho runs its own thread and reconnects by itself; its callback only stamps a payload with both clocks and puts it into
a bounded inbox, oldest out first. The session is persistent (stable client id, no clean start), so a broker or network
that goes away for less than `session_expiry_s` costs no burst.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from firmware_bridge.errors import ConfigError, FrameError, Problem, SourceLost
from firmware_bridge.frames import (
    BurstAssembler,
    SensorTopic,
    decode_readings,
    parse_sensor_topic,
    topic_burst,
    topic_readings,
)
from firmware_bridge.measurement import Block, Channel, Measurement, Quality
from firmware_bridge.source import AnySpec, MqttSensor, MqttSpec, SourceContext

log = logging.getLogger(__name__)

INBOX_MESSAGES = 512
INBOX_BYTES = 32 << 20
KEEPALIVE_S = 30
RECONNECT_S = (1, 60)


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    payload: bytes
    utc_ns: int
    monotonic_ns: int


class _Inbox:
    """Bounded in messages and bytes; the oldest gives way."""

    def __init__(self) -> None:
        self._messages: deque[_Message] = deque()
        self._n_bytes = 0
        self._arrived = threading.Condition()

    def put(self, message: _Message) -> int:
        """Take a message; how many older ones had to go."""
        n_dropped = 0
        with self._arrived:
            self._messages.append(message)
            self._n_bytes += len(message.payload)
            while len(self._messages) > 1 and (len(self._messages) > INBOX_MESSAGES or self._n_bytes > INBOX_BYTES):
                self._n_bytes -= len(self._messages.popleft().payload)
                n_dropped += 1
            self._arrived.notify()
        return n_dropped

    def get(self, timeout_s: float) -> _Message | None:
        """The oldest message, waiting for one if need be."""
        with self._arrived:
            if not self._messages:
                self._arrived.wait(max(timeout_s, 0.0))
            if not self._messages:
                return None
            message = self._messages.popleft()
            self._n_bytes -= len(message.payload)
            return message

    def wake(self) -> None:
        """End a wait early."""
        with self._arrived:
            self._arrived.notify_all()


class MqttSource:
    """One broker and the sensors that publish to it."""

    def __init__(self, spec: MqttSpec, context: SourceContext) -> None:
        self.name = spec.name
        self.channels = channels_of(spec, context.config_dir)
        self._own = dict.fromkeys(
            ("messages", "inbox_dropped", "foreign", "retained", "readings_corrupt", "connects"), 0
        )
        self._spec = spec
        self._site = context.site
        self._clock = context.clock
        self._sensors = {sensor.name: sensor for sensor in spec.sensors}
        self._first = _first_channels(spec, context.first_channel)
        self._assembler = BurstAssembler()
        self._inbox = _Inbox()
        self._logged: dict[str, int] = {}
        self._reason = "no answer yet"
        self._down_since_ns: int | None = context.clock.monotonic_ns()
        self._told_lost = False
        self._client = self._connected_client(context)

    @property
    def counters(self) -> dict[str, int]:
        """Own counts and the assembler's (complete, incomplete, corrupt, duplicate, oversized)."""
        return self._own | self._assembler.counters

    def read(self, timeout_s: float) -> Iterator[Measurement]:
        """What the sensors sent, decoded, until `timeout_s` is over.

        Raises: SourceLost: no broker for longer than the site allows. paho goes on trying meanwhile.
        """
        end_ns = self._clock.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            now_ns = self._clock.monotonic_ns()
            message = self._inbox.get((end_ns - now_ns) / 1e9)
            if message is None:
                self._assembler.expire(self._clock.monotonic_ns())
                self._check_connection()
                if self._clock.monotonic_ns() >= end_ns:
                    return
                continue
            measurement = self._decoded(message)
            if measurement is not None:
                yield measurement
            if self._clock.monotonic_ns() >= end_ns:
                return

    def close(self) -> None:
        """Say goodbye; the broker keeps the session for `session_expiry_s`."""
        self._client.disconnect()
        self._client.loop_stop()
        self._inbox.wake()

    def _decoded(self, message: _Message) -> Measurement | None:
        try:
            topic = parse_sensor_topic(message.topic)
        except FrameError:
            topic = SensorTopic("", "", "")
        sensor = self._sensors.get(topic.sensor)
        if sensor is None or topic.site != self._site:
            self._own["foreign"] += 1
            return None
        if topic.kind == "readings":
            return self._block(sensor, message)
        before = self._assembler.counters["corrupt"]
        wave = self._assembler.add(sensor.name, topic.axis, message.payload, message.utc_ns, message.monotonic_ns)
        if self._assembler.counters["corrupt"] > before:
            self._log_once(sensor.name, self._assembler.last_error)
        elif wave is not None:
            self._logged.pop(sensor.name, None)
        return wave

    def _block(self, sensor: MqttSensor, message: _Message) -> Block | None:
        """Readings as one block of all the sensor's points; a point that the message leaves out is not in the block."""
        try:
            readings = decode_readings(message.payload)
        except FrameError as error:
            self._own["readings_corrupt"] += 1
            self._log_once(sensor.name, f"{sensor.name}: {error}")
            return None
        self._logged.pop(sensor.name, None)
        told = [(i, point) for i, point in enumerate(sensor.points) if point in readings.values]
        values = np.array([readings.values[point] for _, point in told], np.float64)
        ranges = np.array([sensor.points[point] for _, point in told], np.float64).reshape(-1, 2)
        quality = np.zeros(len(told), np.uint8)
        quality[(values < ranges[:, 0]) | (values > ranges[:, 1])] = Quality.BAD_RANGE
        quality[np.isnan(values)] = Quality.BAD_SENTINEL
        values[quality >= Quality.BAD] = np.nan
        places = np.array([self._first[sensor.name] + i for i, _ in told], np.int32)
        return Block(places, values.astype(np.float32), quality, message.utc_ns, message.monotonic_ns) if told else None

    def _log_once(self, sensor: str, trouble: str) -> None:
        """The first bad message of a row is told, the others are counted."""
        if sensor not in self._logged:
            log.warning("message dropped: source=%s cause=%s", self.name, trouble)
        self._logged[sensor] = self._logged.get(sensor, 0) + 1

    def _check_connection(self) -> None:
        down_since_ns = self._down_since_ns
        if down_since_ns is None:
            return
        down_s = (self._clock.monotonic_ns() - down_since_ns) / 1e9
        if down_s >= self._spec.timeout_s:
            self._told_lost = True
            raise SourceLost(
                f"{self.name}: no broker at {self._spec.host}:{self._spec.port} for {down_s:.0f} s ({self._reason}); "
                f"nothing arrives from {', '.join(self._sensors)}. "
                f"Check that the broker runs, its address and the login; Hark goes on trying"
            )

    def _connected_client(self, context: SourceContext) -> paho.Client:
        """The client, with its thread started; it connects when it can."""
        spec = self._spec
        five = spec.version == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="-".join(["hark", context.site, *([context.gateway] if context.gateway else []), spec.name]),
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            clean_session=None if five else False,
        )
        client.connect_timeout = min(spec.timeout_s, 10.0)
        client.reconnect_delay_set(*RECONNECT_S)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        if spec.username is not None:
            client.username_pw_set(spec.username, _password(spec, context.config_dir))
        if spec.ca_file is not None:
            _use_tls(client, context.config_dir / spec.ca_file)
        if five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = spec.session_expiry_s
            properties.MaximumPacketSize = spec.max_packet_bytes
            client.connect_async(spec.host, spec.port, KEEPALIVE_S, clean_start=False, properties=properties)
        else:
            client.connect_async(spec.host, spec.port, KEEPALIVE_S)
        client.loop_start()
        return client

    # paho's thread from here on; each of these only sets what `read` looks at

    def _on_connect(self, client: paho.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._reason = str(reason)
            return
        self._own["connects"] += 1
        self._down_since_ns = None
        if self._told_lost or self._own["connects"] == 1:
            log.info("mqtt connected: source=%s address=%s:%d", self.name, self._spec.host, self._spec.port)
            self._told_lost = False
        topics = [t for s in self._sensors for t in (topic_burst(self._site, s, "+"), topic_readings(self._site, s))]
        if self._spec.version == "5":
            client.subscribe([(topic, SubscribeOptions(qos=1, retainHandling=2)) for topic in topics])
        else:
            client.subscribe([(topic, 1) for topic in topics])

    def _on_connect_fail(self, _client: paho.Client, _userdata: Any) -> None:
        error = sys.exc_info()[1]  # paho calls this from its except clause and tells nothing
        self._reason = (getattr(error, "strerror", None) or str(error)) if error is not None else "cannot connect"
        self._inbox.wake()

    def _on_disconnect(self, _client: paho.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._down_since_ns is None:
            self._down_since_ns = self._clock.monotonic_ns()
            self._reason = str(reason)

    def _on_subscribe(self, _client: paho.Client, _userdata: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        if refused := [str(reason) for reason in reasons if reason.is_failure]:
            log.warning("mqtt subscription refused: source=%s cause=%s", self.name, refused[0])

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        if message.retain:  # a burst or reading of nobody knows when
            self._own["retained"] += 1
            return
        self._own["messages"] += 1
        stamped = _Message(message.topic, bytes(message.payload), self._clock.utc_ns(), self._clock.monotonic_ns())
        self._own["inbox_dropped"] += self._inbox.put(stamped)


def _first_channels(spec: MqttSpec, first: int) -> dict[str, int]:
    places = {}
    for sensor in spec.sensors:
        places[sensor.name] = first
        first += len(sensor.points)
    return places


def _password(spec: MqttSpec, config_dir: Path) -> str | None:
    """The password from its file.

    Raises: ConfigError: the file cannot be read.
    """
    if spec.password_file is None:
        return None
    path = config_dir / spec.password_file
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, [Problem(0, "password_file", f"cannot be read ({error})")]) from None


def _use_tls(client: paho.Client, ca_file: Path) -> None:
    """Raises: ConfigError: no certificates in the file."""
    try:
        client.tls_set(ca_certs=str(ca_file))
    except (OSError, ValueError) as error:
        raise ConfigError(ca_file, [Problem(0, "ca_file", f"is no file of certificates ({error})")]) from None


def channels_of(spec: AnySpec, config_dir: Path) -> tuple[Channel, ...]:
    """The scalar channels of every sensor; bursts need none."""
    assert isinstance(spec, MqttSpec)
    return tuple(Channel(s.name, point, s.update_interval_s) for s in spec.sensors for point in s.points)


def open(spec: AnySpec, context: SourceContext) -> MqttSource:
    """The source, its client connecting in the background.

    Raises: ConfigError: a password or certificate file that cannot be read.
    """
    assert isinstance(spec, MqttSpec)
    return MqttSource(spec, context)
