"""Subscribes to sensors that publish by themselves; mqtt_sensors.py knows what their messages mean.

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
from pathlib import Path
from typing import Any

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from firmware_bridge.broker import Trouble, explained, hung_up, login_of, refused, tls_of
from firmware_bridge.errors import ConfigError, Problem, SourceLost
from firmware_bridge.measurement import Channel, Measurement
from firmware_bridge.messages import Message
from firmware_bridge.mqtt_client import BoundedClient
from firmware_bridge.mqtt_sensors import Sensors
from firmware_bridge.payload import JsonBurstProfile, JsonProfile, PayloadProfile, SparkplugProfile, load_payloads
from firmware_bridge.payload import channels as payload_channels
from firmware_bridge.source import AnySpec, MqttSensor, MqttSpec, SourceContext

log = logging.getLogger(__name__)

INBOX_MESSAGES = 512
INBOX_BYTES = 32 << 20
KEEPALIVE_S = 30
RECONNECT_S = (1, 60)
SUBSCRIBE_AT_ONCE = 8  # filters in one packet; AWS IoT takes no more


class Inbox:
    """Bounded in messages and bytes; the oldest gives way."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._n_bytes = 0
        self._arrived = threading.Condition()

    def put(self, message: Message) -> int:
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

    def get(self, timeout_s: float) -> Message | None:
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
        payloads = _payloads(spec, context.config_dir)
        self.name = spec.name
        self.channels = _channels(spec, payloads)
        self._own = dict.fromkeys(("messages", "inbox_dropped", "retained", "too_large", "foreign", "connects"), 0)
        self._spec = spec
        self._clock = context.clock
        self._sensors = Sensors(spec, context.site, context.first_channel, payloads)
        self._inbox = Inbox()
        self._trouble = Trouble("no answer yet")
        self._down_since_ns: int | None = context.clock.monotonic_ns()
        self._n_disconnects = self._n_disconnects_told = self._n_connects_told = 0
        self._told_lost = False
        self._answered = False  # by the broker, to the newest request to be let in
        self._client = self._connected_client(context)

    @property
    def counters(self) -> dict[str, int]:
        """Own counts, the sensors' and the assembler's (complete, incomplete, corrupt, duplicate, oversized)."""
        found = self._sensors.counters
        found.update(self._own)
        return dict(found)

    @property
    def troubles(self) -> dict[str, str]:
        """By sensor, why its newest message was dropped; gone with its next good one."""
        return dict(self._sensors.tally.troubles)

    @property
    def passed_by(self) -> frozenset[str]:
        """Sensors on whose topic came a message with nothing of theirs: another device's, or a wrong path."""
        return frozenset(self._sensors.tally.passed_by)

    def read(self, timeout_s: float) -> Iterator[Measurement]:
        """What the sensors sent, decoded, until `timeout_s` is over.

        Raises: SourceLost: no broker for longer than the site allows. paho goes on trying meanwhile.
        """
        end_ns = self._clock.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            message = self._inbox.get((end_ns - self._clock.monotonic_ns()) / 1e9)
            if message is not None:
                yield from self._sensors.hear(message)
            yield from self._look()
            if message is None:
                self._check_connection()
            if self._clock.monotonic_ns() >= end_ns:
                return

    def close(self) -> None:
        """Say goodbye; the broker keeps the session for `session_expiry_s`."""
        self._client.disconnect()
        self._client.loop_stop()
        self._inbox.wake()

    def _look(self) -> Iterator[Measurement]:
        """What is not told by a message: what waited too long, and that the broker went away."""
        utc_ns, monotonic_ns = self._clock.utc_ns(), self._clock.monotonic_ns()
        yield from self._sensors.poll(utc_ns, monotonic_ns)
        if self._n_disconnects != self._n_disconnects_told:
            self._n_disconnects_told = self._n_disconnects
            yield from self._sensors.sparkplug.lost(utc_ns, monotonic_ns)
        if self._down_since_ns is not None:
            return
        if self._own["connects"] != self._n_connects_told:
            self._n_connects_told = self._own["connects"]
            self._sensors.sparkplug.expect()
        for topic, payload in self._sensors.sparkplug.host.requests(monotonic_ns):
            self._client.publish(topic, payload, qos=0)

    def _check_connection(self) -> None:
        down_since_ns = self._down_since_ns
        if down_since_ns is None:
            return
        down_s = (self._clock.monotonic_ns() - down_since_ns) / 1e9
        if down_s >= self._spec.timeout_s:
            self._told_lost = True
            names = ", ".join(sensor.name for sensor in self._spec.sensors)
            raise SourceLost(
                f"{self.name}: no broker at {self._spec.host}:{self._spec.port} for {down_s:.0f} s ({self._trouble}); "
                f"nothing arrives from {names}. {self._trouble.do}; Hark goes on trying"
            )

    def _connected_client(self, context: SourceContext) -> BoundedClient:
        """The client, with its thread started; it connects when it can.

        Raises: ConfigError: a secret or certificate that cannot be read.
        """
        spec = self._spec
        login, tls = login_of(spec, context.place), tls_of(spec, context.place)
        five = spec.version == "5"
        keep_session = spec.session_expiry_s > 0
        client = BoundedClient(
            CallbackAPIVersion.VERSION2,
            client_id="-".join(["hark", context.site, *([context.gateway] if context.gateway else []), spec.name]),
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if five else not keep_session,
            max_packet_bytes=spec.max_packet_bytes,
        )
        client.connect_timeout = min(spec.timeout_s, 10.0)
        client.reconnect_delay_set(*RECONNECT_S)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        if login.username is not None:
            client.username_pw_set(login.username, login.password)
        if tls is not None:
            client.tls_set_context(tls)
        if five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = spec.session_expiry_s
            properties.MaximumPacketSize = spec.max_packet_bytes
            client.connect_async(spec.host, spec.port, KEEPALIVE_S, clean_start=not keep_session, properties=properties)
        else:
            client.connect_async(spec.host, spec.port, KEEPALIVE_S)
        client.loop_start()
        return client

    # paho's thread from here on; each of these only sets what `read` looks at

    def _on_connect(self, client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._answered = True
        if reason.is_failure:
            self._trouble = refused(str(reason), self._spec)
            return
        self._own["connects"] += 1
        self._down_since_ns = None
        client.network_error = None
        if self._told_lost or self._own["connects"] == 1:
            log.info("mqtt connected: source=%s address=%s:%d", self.name, self._spec.host, self._spec.port)
            self._told_lost = False
        filters = self._sensors.filters
        for first in range(0, len(filters), SUBSCRIBE_AT_ONCE):
            self._subscribe(client, filters[first : first + SUBSCRIBE_AT_ONCE])

    def _subscribe(self, client: BoundedClient, filters: list[str]) -> None:
        """QoS 1; with MQTT 5 the broker is asked not to send what it has retained."""
        if self._spec.version == "5":
            # a shared subscription never brings retained messages, and has no option to refuse them
            options = [(topic, 0 if topic.startswith("$share/") else 2) for topic in filters]
            client.subscribe([(topic, SubscribeOptions(qos=1, retainHandling=retain)) for topic, retain in options])
        else:
            client.subscribe([(topic, 1) for topic in filters])

    def _on_connect_fail(self, _client: Any, _userdata: Any) -> None:
        error = sys.exc_info()[1]  # paho calls this from its except clause and tells nothing
        self._trouble = explained(error, self._spec) if error is not None else Trouble("cannot connect")
        self._inbox.wake()

    def _on_disconnect(self, client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        was_up = self._down_since_ns is None
        error, client.network_error = client.network_error, None
        answered, self._answered = self._answered, False
        if was_up:
            self._trouble = Trouble(getattr(error, "strerror", None) or str(reason))
        elif not answered:
            self._trouble = hung_up(self._spec, error)
        if was_up:
            self._n_disconnects += 1
            self._down_since_ns = self._clock.monotonic_ns()
        self._inbox.wake()

    def _on_subscribe(self, _client: Any, _userdata: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        if denied := [str(reason) for reason in reasons if reason.is_failure]:
            log.warning("mqtt subscription refused: source=%s cause=%s", self.name, denied[0])

    def _on_message(self, client: Any, _userdata: Any, message: Any) -> None:
        if message.retain:  # a burst or reading of nobody knows when
            self._own["retained"] += 1
            return
        if client.is_cut:
            self._own["too_large"] += 1
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._own["foreign"] += 1
            return
        self._own["messages"] += 1
        times = self._clock.utc_ns(), self._clock.monotonic_ns()
        self._own["inbox_dropped"] += self._inbox.put(Message(topic, bytes(message.payload), *times, message.dup))


def _payloads(spec: MqttSpec, config_dir: Path) -> dict[str, PayloadProfile]:
    """The payload files of all sensors, which each fit what the site file says of the sensor.

    Raises: ConfigError: a file that is missing or wrong, or a sensor that it does not fit.
    """
    payloads = load_payloads(config_dir, [sensor.payload for sensor in spec.sensors])
    for sensor in spec.sensors:
        if sensor.payload is not None and (text := _misfit(sensor, payloads[sensor.payload])):
            path = config_dir / "payloads" / f"{sensor.payload}.toml"
            raise ConfigError(path, [Problem(0, f"sensor {sensor.name}", text)])
    return payloads


def _misfit(sensor: MqttSensor, profile: PayloadProfile) -> str:
    """What in the site file does not go with the payload's format; "" where all does."""
    assert sensor.topic is not None
    if (sensor.select is not None or sensor.root) and not isinstance(profile, JsonProfile | JsonBurstProfile):
        return "select and root look into JSON, and its payload is none; leave them out, or give it a topic of its own"
    if isinstance(profile, SparkplugProfile):
        levels = sensor.topic.split("/")
        if len(levels) not in (4, 5) or levels[0] != "spBv1.0" or levels[2] != "+" or levels.count("+") != 1:
            return f'topic = "{sensor.topic}" is not Sparkplug\'s; write  spBv1.0/group/+/node  or  .../node/device'
    return ""


def _channels(spec: MqttSpec, payloads: dict[str, PayloadProfile]) -> tuple[Channel, ...]:
    found: list[Channel] = []
    for sensor in spec.sensors:
        if sensor.payload is not None:
            found += payload_channels(payloads[sensor.payload], sensor.name, sensor.update_interval_s)
        else:
            found += [Channel(sensor.name, point, sensor.update_interval_s or 1.0) for point in sensor.points]
    return tuple(found)


def channels_of(spec: AnySpec, config_dir: Path) -> tuple[Channel, ...]:
    """The scalar channels of every sensor; bursts need none.

    Raises: ConfigError: a payload file that is missing or wrong, or a sensor that it does not fit.
    """
    assert isinstance(spec, MqttSpec)
    return _channels(spec, _payloads(spec, config_dir))


def open(spec: AnySpec, context: SourceContext) -> MqttSource:
    """The source, its client connecting in the background.

    Raises: ConfigError: a password, certificate or payload file that cannot be read.
    """
    assert isinstance(spec, MqttSpec)
    return MqttSource(spec, context)
