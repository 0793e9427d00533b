"""Sparkplug B for SCADA: the gateway as edge node, each machine as device, told by exception on a connection of its own.

`SparkplugNode` decides what is said and when; this file lends it a paho client. Everything is QoS 0 telemetry that may be lost
on its way (domain rule of Sparkplug): alarms that must arrive go through the outbox. paho's thread connects and reconnects; the
pipeline's thread only hands messages over, and holds them back while paho has too many that are not written.
"""

from __future__ import annotations

import logging
import ssl
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.clock import Clock
from agent.decision.alarm import RANK
from agent.vocabulary import AlarmEvent
from firmware_bridge.broker import BrokerKeys, Login, explained
from firmware_bridge.mqtt_client import BoundedClient
from firmware_bridge.sparkplug.node import Message, Scalar, SparkplugNode

log = logging.getLogger(__name__)

KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 5.0
RECONNECT_S = (1, 60)
MAX_PACKET_BYTES = 65_536  # what we take: commands and host states
MAX_UNWRITTEN = 1000  # messages that paho may hold; a socket that stands still must not become our memory


@dataclass(frozen=True, slots=True)
class SparkplugBroker:
    """Where the node connects to, and as whom; `keys` are what the site file says, for the words of an error."""

    host: str
    port: int
    client_id: str
    keys: BrokerKeys
    login: Login
    tls: ssl.SSLContext | None = None
    version: Literal["5", "3.1.1"] = "5"


class SparkplugNotifier:
    """Publishes machines as Sparkplug devices. Never waits for the network, never raises once made.

    Args:
        node: the edge node, with nothing told yet.
        machines: tag -> names of its sensors; when all of them are silent the machine is lost (DDEATH).
        bd_seq_file: keeps the number of the last CONNECT over a restart.
    """

    def __init__(
        self,
        broker: SparkplugBroker,
        node: SparkplugNode,
        machines: Mapping[str, Sequence[str]],
        clock: Clock,
        bd_seq_file: Path,
    ) -> None:
        self._broker = broker
        self._node = node
        self._sensors = {tag: frozenset(sensors) for tag, sensors in machines.items()}
        self._clock = clock
        self._bd_seq_file = bd_seq_file
        self._texts: dict[str, str] = {}  # by machine, of its newest alarm event
        self._lock = threading.Lock()  # of the node, and of the order in which its messages are handed to paho
        self._trouble = ""  # told last, so that it is told once
        self._n_handed = 0
        self._n_written = 0
        self._n_held_back = 0
        self._gone = threading.Event()  # the broker was left because the primary host is away: connect anew
        self._client = self._made()

    @property
    def dropped(self) -> dict[str, int]:
        """What was lost or left out, by name."""
        counters = self._node.counters
        return {
            "sparkplug_backlog": counters["backlog_dropped"],
            "sparkplug_metrics": counters["metrics_refused"],
            "sparkplug_held_back": self._n_held_back,
        }

    # ------------------------------------------------------------------ the agent's side
    def start(self) -> None:
        """Begin to connect, in paho's own thread, again and again."""
        self._connect()

    def notify(self, event: AlarmEvent) -> None:
        """Only remembers the words: the machine's next state, within a second, carries them."""
        self._texts[event.machine] = event.text

    def state(self, machine: str, mapping: Mapping[str, Any]) -> None:
        """What changed of a machine goes out; nothing does while paho has its hands full, and then the newest."""
        if self._gone.is_set():
            self._client.loop_stop()
            self._client = self._made()
            self._connect()
        with self._lock:
            if self._n_handed - self._n_written >= MAX_UNWRITTEN:
                self._n_held_back += 1
            elif self._is_lost(machine, mapping):
                self._publish(self._node.device_lost(machine, mapping["utc_ns"]))
            else:
                values = machine_values(mapping, self._texts.get(machine))
                self._publish(self._node.tell(machine, values, mapping["utc_ns"]))

    def stop(self) -> None:
        """A clean end: the death is published, then the connection is given up (no will)."""
        with self._lock:
            self._publish(self._node.stop())
        self._client.disconnect()
        self._client.loop_stop()

    def _is_lost(self, machine: str, mapping: Mapping[str, Any]) -> bool:
        standing = {alarm["condition"] for alarm in mapping["alarms"]}
        sensors = self._sensors.get(machine, frozenset())
        return bool(sensors) and all(f"sensor:{sensor}:silent" in standing for sensor in sensors)

    def _publish(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._n_handed += 1
            self._client.publish(message.topic, message.payload, message.qos, message.retain)

    # ------------------------------------------------------------------ paho's side
    def _made(self) -> BoundedClient:
        """A client of its own for each connection that we give up ourselves: what paho still holds goes with it."""
        five = self._broker.version == "5"
        client = BoundedClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._broker.client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if five else True,
            max_packet_bytes=MAX_PACKET_BYTES,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(*RECONNECT_S)
        if self._broker.login.username is not None:
            client.username_pw_set(self._broker.login.username, self._broker.login.password)
        if self._broker.tls is not None:
            client.tls_set_context(self._broker.tls)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _connect(self) -> None:
        """Source: tck-id-principles-persistence-clean-session-311 and -50."""
        self._gone.clear()
        if self._broker.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            self._client.connect_async(
                self._broker.host, self._broker.port, KEEPALIVE_S, clean_start=True, properties=properties
            )
        else:
            self._client.connect_async(self._broker.host, self._broker.port, KEEPALIVE_S)
        self._client.loop_start()

    def _on_socket_open(self, client: Any, _userdata: Any, _socket: Any) -> None:
        """Just before a CONNECT is written, and only then: each has a bdSeq of its own."""
        with self._lock:
            will = self._node.connecting()
            client.will_set(will.topic, will.payload, will.qos, will.retain)
            self._n_handed = self._n_written
        try:
            self._bd_seq_file.write_text(str(self._node.bd_seq), "utf-8")
        except OSError as error:
            log.warning("sparkplug session number not kept: file=%s cause=%s", self._bd_seq_file, error)

    def _on_connect(self, client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._tell_once(f"refused ({reason}); check the login, and version in [sparkplug]")
            return
        self._trouble = ""
        log.info("sparkplug connected: host=%s port=%d", self._broker.host, self._broker.port)
        with self._lock:
            client.subscribe(self._node.subscriptions)
            self._publish(self._node.connected(self._clock.utc_ns()))

    def _on_connect_fail(self, _client: Any, _userdata: Any) -> None:
        error = sys.exc_info()[1]  # paho calls this from its except clause and tells nothing
        if error is not None:
            trouble = explained(error, self._broker.keys)
            self._tell_once(f"{trouble.why}. {trouble.do}")

    def _tell_once(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning(
                "sparkplug not connected: host=%s port=%d cause=%s", self._broker.host, self._broker.port, trouble
            )
        self._trouble = trouble

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        log.info("sparkplug disconnected: host=%s cause=%s", self._broker.host, reason)
        with self._lock:
            left = self._node.must_leave
            self._node.disconnected()
        if left:
            self._gone.set()

    def _on_message(self, client: Any, _userdata: Any, message: Any) -> None:
        with self._lock:
            if client.is_cut or self._n_handed - self._n_written >= MAX_UNWRITTEN:
                self._n_held_back += 1
                return
            self._publish(self._node.received(message.topic, message.payload, self._clock.utc_ns()))
            if self._node.must_leave:
                client.disconnect()

    def _on_publish(self, _client: Any, _userdata: Any, _mid: int, _reason: Any, _properties: Any) -> None:
        self._n_written += 1  # no lock: paho may hold one of its own here, and only this thread writes it


def machine_values(mapping: Mapping[str, Any], text: str | None) -> dict[str, Scalar]:
    """A machine's state mapping (`Pipeline.machine_state`) as metrics; `text` is the newest alarm's, in words.

    `Score` is the share of the alarm limit: 1 is the limit. `Alarm/Code` and `Alarm/Severity` are the worst alarm's.
    """
    alarms = mapping["alarms"]
    worst = max(alarms, key=lambda alarm: RANK[alarm["severity"]], default=None)
    score = mapping["score_of_limit"]
    return {
        "Type": str(mapping["type"]),
        "State": str(mapping["state"]),
        "Speed bin": int(mapping["speed_bin"]),
        "Watch": str(mapping["watch"]),
        "Score": None if score is None else float(score),
        "Alarm/Active": bool(alarms),
        "Alarm/Count": len(alarms),
        "Alarm/Code": str(worst["code"]) if worst else "",
        "Alarm/Severity": str(worst["severity"]) if worst else "",
        "Alarm/Text": (text or "") if worst else "",
        **{f"Values/{name}": float(value) for name, value in mapping["values"].items()},
    }


def last_bd_seq(path: Path) -> int:
    """The number of the last CONNECT before this process, -1 where there was none or the file is damaged."""
    try:
        return int(path.read_text("utf-8")) % 256
    except (OSError, ValueError):
        return -1
