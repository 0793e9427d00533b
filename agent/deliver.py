"""Drains the outbox over MQTT: at least once on the wire, with a key that makes it exactly once upstream.

`DeliveryPlan` is the whole decision (what next, what again, what never more) and pure; `Deliverer` is the thread that
asks the plan and moves bytes. A broker's PUBACK is not delivery: a broker keeps messages in memory for half an hour
before it saves them. Only the collector's own confirmation, sent after its commit, takes a record out of the outbox
(`confirm = "broker"` believes the PUBACK instead). Our outbox is the only queue: paho never holds more than one window,
because what it holds it sends again, and twice, after a reconnect; so every connection gets a client of its own.
"""

from __future__ import annotations

import contextlib
import logging
import random
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.clock import Clock
from agent.errors import StoreError
from agent.store import Key, StoredRecord
from agent.store_thread import StoreThread
from agent.watchdog import RESOLVE_S, Progress
from firmware_bridge.errors import FrameError
from firmware_bridge.upstream import (
    UpstreamRecord,
    decode_confirm,
    encode_record,
    topic_confirm,
    topic_record,
    topic_status,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

ORDER = {"alarm": 0, "clock": 1, "baseline": 2, "feature": 3, "burst": 4, "sample": 5}
KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 5.0
POLL_S = 0.5
CONNECT_S = RESOLVE_S + 6 * CONNECT_TIMEOUT_S  # at most: name, two addresses, TLS, the broker's answer
MAX_PACKET_BYTES = 262_144  # what we accept; a hostile message must not become our memory
MAX_SIGNALS = 10_000
MAX_RETAINED = 5_000
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.5, 60.0


@dataclass(slots=True)
class _Sent:
    """What the plan remembers of a record between its first sending and its confirmation."""

    late: bool
    in_flight: bool
    due_s: float
    attempts: int = 1
    refusals: int = 0


class DeliveryPlan:
    """What to send next. Pure: monotonic seconds are passed in.

    Args:
        window: at most so many without a PUBACK. unconfirmed: at most so many published ones wait for the collector; a
            collector that is away then stops all but alarms, instead of having everything sent to it again and again.
        resend_after_s: wait before the first resending of an unconfirmed record; doubles up to `resend_max_s`.
        max_refusals: after so many refusals by the broker a record is dead.
    """

    def __init__(
        self,
        *,
        window: int = 50,
        unconfirmed: int = 1000,
        resend_after_s: float = 30.0,
        resend_max_s: float = 1800.0,
        max_refusals: int = 5,
        confirm: Literal["collector", "broker"] = "collector",
    ) -> None:
        self._window = window
        self._unconfirmed = unconfirmed
        self._resend_after_s = resend_after_s
        self._resend_max_s = resend_max_s
        self._max_refusals = max_refusals
        self.by_broker = confirm == "broker"
        self._sent: dict[Key, _Sent] = {}
        self._n_in_flight = 0

    @property
    def n_in_flight(self) -> int:
        return self._n_in_flight

    @property
    def n_unconfirmed(self) -> int:
        return len(self._sent)

    def room(self, n_others: int = 0) -> int:
        """How many more may be sent now, beside `n_others` messages that share the window."""
        return max(0, self._window - self._n_in_flight - n_others)

    def n_to_look_at(self) -> int:
        """How many of the store's pending records to look at: those that are already known here are among them."""
        unpublished = sum(1 for sent in self._sent.values() if sent.in_flight or sent.refusals)
        return self._window + unpublished

    def due_again(self, now_s: float, room: int) -> list[Key]:
        """Records to send again, alarms first, then the longest overdue."""
        due = [(ORDER.get(key[0], 9), sent.due_s, key) for key, sent in self._sent.items() if self._is_due(sent, now_s)]
        return [key for _, _, key in sorted(due)[:room]]

    def choose(self, pending: Sequence[StoredRecord], room: int) -> list[StoredRecord]:
        """Of the store's pending records, in the store's order, those to send now for the first time."""
        allowance = self._unconfirmed - len(self._sent)
        chosen: list[StoredRecord] = []
        for record in pending:
            if len(chosen) >= room:
                break
            if record.key not in self._sent and (record.stream == "alarm" or len(chosen) < allowance):
                chosen.append(record)
        return chosen

    def sent(self, record: StoredRecord, now_s: float) -> bool:
        """Book a sending. Returns the record's `late` mark, which is that of its first sending."""
        known = self._sent.get(record.key)
        if known is None:
            self._sent[record.key] = _Sent(record.late, in_flight=True, due_s=now_s + self._resend_after_s)
            self._n_in_flight += 1
            return record.late
        known.attempts += 1
        known.due_s = now_s + self._wait_s(known.attempts)
        self._n_in_flight += not known.in_flight
        known.in_flight = True
        return known.late

    def published(self, key: Key, now_s: float) -> None:
        """The broker has it."""
        sent = self._sent.get(key)
        if sent is None:
            return
        self._land(sent)
        sent.refusals = 0
        if self.by_broker:
            del self._sent[key]
        else:
            sent.due_s = now_s + self._wait_s(sent.attempts)

    def refused(self, key: Key, now_s: float) -> bool:
        """The broker will not have it. True when that was once too often: the record is dead and forgotten here."""
        sent = self._sent.get(key)
        if sent is None:
            return False
        self._land(sent)
        sent.refusals += 1
        sent.due_s = now_s + self._wait_s(sent.refusals)
        if sent.refusals < self._max_refusals:
            return False
        del self._sent[key]
        return True

    def confirmed(self, stream: str, ranges: Iterable[tuple[int, int]]) -> int:
        """The collector has these. Returns how many of them were waited for."""
        spans = list(ranges)
        keys = [key for key in self._sent if key[0] == stream and any(first <= key[1] <= last for first, last in spans)]
        for key in keys:
            self.forget(key)
        return len(keys)

    def forget(self, key: Key) -> None:
        """It is no longer in the store."""
        sent = self._sent.pop(key, None)
        if sent is not None:
            self._land(sent)

    def connection_lost(self, now_s: float) -> None:
        """Whatever was not confirmed may be lost: all of it is due again as soon as there is a connection."""
        for sent in self._sent.values():
            self._land(sent)
            sent.due_s = now_s
            sent.attempts = 1

    def _is_due(self, sent: _Sent, now_s: float) -> bool:
        return not sent.in_flight and sent.due_s <= now_s

    def _land(self, sent: _Sent) -> None:
        self._n_in_flight -= sent.in_flight
        sent.in_flight = False

    def _wait_s(self, attempts: int) -> float:
        return min(self._resend_max_s, self._resend_after_s * 2.0 ** min(attempts - 1, 20))


@dataclass(frozen=True, slots=True)
class Upstream:
    """The broker that the outbox is drained to, and who we are there."""

    host: str
    port: int
    site: str
    gateway: str
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    version: Literal["5", "3.1.1"] = "5"  # tried first; the other one next


class _Signal(NamedTuple):
    """Something that paho's thread tells ours; callbacks do nothing else."""

    kind: Literal["published", "refused", "message"]
    mid: int = 0
    payload: bytes = b""


class _Connection:
    """One paho client for the life of one connection."""

    def __init__(
        self, upstream: Upstream, version: MQTTProtocolVersion, wake: threading.Event, dropped: Counter[str]
    ) -> None:
        self.lost = threading.Event()
        self.max_packet_bytes = 0  # what the broker takes; 0 is no limit stated
        self.reason = ""
        self._upstream = upstream
        self._wake = wake
        self._dropped = dropped
        self._answered = threading.Event()
        self._up = False
        self._signals: deque[_Signal] = deque()
        self._client = self._made(version)
        self._version = version

    def open(self) -> bool:
        """Connect and wait for the broker's answer; False with `reason` when there is no connection."""
        newest = self._version == MQTTProtocolVersion.MQTTv5
        properties = Properties(PacketTypes.CONNECT) if newest else None  # type: ignore[no-untyped-call]
        if properties is not None:
            properties.MaximumPacketSize = MAX_PACKET_BYTES
        clean_start = True if newest else MQTT_CLEAN_START_FIRST_ONLY  # 3.1.1 says it in the client (clean session)
        try:
            self._client.connect(
                self._upstream.host, self._upstream.port, KEEPALIVE_S, clean_start=clean_start, properties=properties
            )
        except (OSError, ValueError) as error:
            self.reason = f"cannot reach {self._upstream.host}:{self._upstream.port} ({error})"
            return False
        self._client.loop_start()
        self._answered.wait(CONNECT_TIMEOUT_S)
        if not self._up:
            self.reason = self.reason or "no answer to the connection request"
            self.close()
        return self._up

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, qos=1)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Hand one message to paho; its id, or None when the broker would not take it."""
        if self.max_packet_bytes and len(payload) + len(topic) + 16 > self.max_packet_bytes:
            return None
        try:
            return self._client.publish(topic, payload, qos=1, retain=retain).mid
        except ValueError:
            return None

    def signals(self) -> list[_Signal]:
        """What has happened since the last call."""
        return [self._signals.popleft() for _ in range(len(self._signals))]

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        self._client.loop_stop()

    def _made(self, version: MQTTProtocolVersion) -> Client:
        upstream = self._upstream
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"hark-{upstream.site}-{upstream.gateway}",
            protocol=version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(10_000)  # the plan's window is the window
        if upstream.username is not None:
            client.username_pw_set(upstream.username, upstream.password)
        if upstream.tls is not None:
            client.tls_set_context(upstream.tls)
        client.will_set(topic_status(upstream.site, upstream.gateway), status_message("offline", 0), qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any) -> None:
        self._up = not reason_code.is_failure
        self.reason = "" if self._up else str(reason_code)
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", 0) or 0
        self._answered.set()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any) -> None:
        self.reason = self.reason or str(reason_code)
        self.lost.set()
        self._answered.set()
        self._wake.set()

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        self._signals.append(
            _Signal("refused" if reason_code.is_failure else "published", mid)
        )  # at most one a message sent
        self._wake.set()

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if len(self._signals) < MAX_SIGNALS:
            self._signals.append(_Signal("message", payload=message.payload))
            self._wake.set()
        else:
            self._dropped["confirmations"] += 1  # the collector repeats them when the record comes again


def status_message(state: str, utc_ns: int) -> bytes:
    """The gateway's retained status."""
    return msgspec.json.encode({"v": 1, "state": state, "utc_ns": utc_ns})


class Deliverer:
    """The delivery thread.

    Args: backoff_max_s: the longest wait between two attempts to connect; each is jittered by half.
    """

    def __init__(
        self,
        store: StoreThread,
        clock: Clock,
        upstream: Upstream,
        plan: DeliveryPlan | None = None,
        *,
        backoff_max_s: float = BACKOFF_MAX_S,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.connected = False
        self.progress = Progress("deliver")
        self._store = store
        self._clock = clock
        self._upstream = upstream
        self._plan = plan or DeliveryPlan()
        self._backoff_max_s = backoff_max_s
        self._retained: dict[str, bytes] = {}
        self._retained_due: dict[str, None] = {}
        self._retained_lock = threading.Lock()
        self._in_flight: dict[int, Key | str] = {}  # paho's message id -> record's key or retained topic
        self._versions = deque([MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
        if upstream.version == "3.1.1":
            self._versions.rotate()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Say goodbye (status offline) and end."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def drain(self, timeout_s: float) -> bool:
        """Wait until the outbox is empty, while there is a connection; False when something is left."""
        deadline_s = time.monotonic() + timeout_s
        while self.connected and time.monotonic() < deadline_s:
            if not self._store.ask(lambda store: store.n_undelivered()):
                return True
            self._wake.set()
            self._stop.wait(0.02)
        return not self._store.ask(lambda store: store.n_undelivered())

    def wake(self) -> None:
        """There may be something to send: called at every commit."""
        self._wake.set()

    def retain(self, topic: str, payload: bytes) -> None:
        """Keep `topic` at `payload` upstream; empty clears it. Only a topic's last value is sent. Never waits."""
        with self._retained_lock:
            if topic not in self._retained and len(self._retained) >= MAX_RETAINED:
                self.counters["retained topics refused"] += 1
                return
            self._retained[topic] = payload
            self._retained_due[topic] = None
        self._wake.set()

    def stats(self) -> dict[str, Any]:
        """For `hark status` and the page."""
        return {
            "connected": self.connected,
            "in_flight": self._plan.n_in_flight,
            "unconfirmed": self._plan.n_unconfirmed,
            **self.counters,
        }

    # -- the thread

    def _run(self) -> None:
        delay_s = BACKOFF_MIN_S
        failing = ""
        while not self._stop.is_set():
            self.progress.moved(rest_s=CONNECT_S)
            connection = self._connected()
            if isinstance(connection, str):
                if connection != failing:
                    log.warning("upstream not connected, buffering: %s retry_in_s=%.1f", connection, delay_s)
                failing = connection
                self.progress.moved(rest_s=delay_s)
                self._stop.wait(delay_s * random.uniform(0.5, 1.0))
                delay_s = min(self._backoff_max_s, 2 * delay_s)
                continue
            failing = ""
            started_s = time.monotonic()
            self._serve(connection)
            connection.close()
            self._connection_ended(connection)
            lived_long = time.monotonic() - started_s > BACKOFF_MIN_S * 10
            delay_s = BACKOFF_MIN_S if lived_long else min(self._backoff_max_s, 2 * delay_s)
            self.progress.moved(rest_s=delay_s)
            self._stop.wait(delay_s * random.uniform(0.5, 1.0))

    def _connected(self) -> _Connection | str:
        """A working connection, or why there is none. A broker without MQTT 5 is asked for 3.1.1 next time."""
        connection = _Connection(self._upstream, self._versions[0], self._wake, self.counters)
        if connection.open():
            return connection
        if not connection.reason.startswith("cannot reach"):
            self._versions.rotate()
        return connection.reason

    def _serve(self, connection: _Connection) -> None:
        log.info("upstream connected: host=%s port=%d", self._upstream.host, self._upstream.port)
        self.connected = True
        self.counters["connections"] += 1
        connection.subscribe(topic_confirm(self._upstream.site, self._upstream.gateway))
        self.retain(
            topic_status(self._upstream.site, self._upstream.gateway), status_message("online", self._clock.utc_ns())
        )
        while not self._stop.is_set() and not connection.lost.is_set():
            self.progress.moved()
            self._wake.clear()
            try:
                self._take(connection.signals())
                moved = self._send_retained(connection) + self._send_records(connection)
            except StoreError as error:
                log.warning("delivery waits for the buffer: %s", error)
                moved = 0
            if not moved:
                self._wake.wait(POLL_S)
        if self._stop.is_set():
            self._say_goodbye(connection)

    def _connection_ended(self, connection: _Connection) -> None:
        self.connected = False
        with contextlib.suppress(StoreError):
            self._take(connection.signals())
        self._in_flight.clear()
        self._plan.connection_lost(self._now_s())
        with self._retained_lock:
            self._retained_due = dict.fromkeys(self._retained)
        if not self._stop.is_set():
            log.warning("upstream lost, buffering: reason=%s", connection.reason or "connection closed")

    def _say_goodbye(self, connection: _Connection) -> None:
        status = topic_status(self._upstream.site, self._upstream.gateway)
        mid = connection.publish(status, status_message("offline", self._clock.utc_ns()), retain=True)
        deadline_s = time.monotonic() + 1.0
        while mid is not None and time.monotonic() < deadline_s and not connection.lost.is_set():
            self._wake.clear()
            if any(signal.mid == mid for signal in connection.signals()):
                return
            self._wake.wait(0.05)

    def _take(self, signals: Sequence[_Signal]) -> None:
        """Book what the broker and the collector said. The store first: if it fails, the plan still knows."""
        published = [self._in_flight.pop(signal.mid, "") for signal in signals if signal.kind == "published"]
        self._forget_cleared(topic for topic in published if isinstance(topic, str))
        self._book_published([key for key in published if isinstance(key, tuple)])
        for signal in signals:
            if signal.kind == "refused":
                self._book_refused(self._in_flight.pop(signal.mid, ""))
            elif signal.kind == "message":
                self._book_confirmed(signal.payload)

    def _forget_cleared(self, topics: Iterable[str]) -> None:
        """An emptied topic is remembered until the broker has emptied it."""
        with self._retained_lock:
            for topic in topics:
                if not self._retained.get(topic, b"-") and topic not in self._retained_due:
                    del self._retained[topic]

    def _book_published(self, keys: list[Key]) -> None:
        if not keys:
            return
        if self._plan.by_broker:
            for stream in sorted({stream for stream, _ in keys}):  # one commit each, not one a record
                self._ask(_confirming(stream, [(seq, seq) for name, seq in keys if name == stream]))
        else:
            self._ask(lambda store: store.mark_published(keys))
        for key in keys:
            self._plan.published(key, self._now_s())
        self.counters["published"] += len(keys)

    def _book_refused(self, key: Key | str) -> None:
        self.counters["refused"] += 1
        if isinstance(key, tuple) and self._plan.refused(key, self._now_s()):
            self._give_up(key, "the broker refuses it")

    def _give_up(self, key: Key, cause: str) -> None:
        """Kept and counted, sent no more: one record may not block those behind it."""
        self._ask(lambda store: store.mark_dead([key]))
        self.counters["dead"] += 1
        log.error("record given up: stream=%s seq=%d cause=%s", *key, cause)

    def _book_confirmed(self, payload: bytes) -> None:
        try:
            confirm = decode_confirm(payload)
        except FrameError as error:
            self.counters["confirmations not understood"] += 1
            log.debug("confirmation not understood: %s", error)
            return
        self.counters["confirmed"] += self._ask(_confirming(confirm.stream, confirm.ranges))
        self._plan.confirmed(confirm.stream, confirm.ranges)

    def _send_retained(self, connection: _Connection) -> int:
        """Alarms' and machines' present state, ahead of their history."""
        with self._retained_lock:
            topics = list(self._retained_due)[: self._plan.room(self._n_others())]
            due = [(topic, self._retained[topic]) for topic in topics]
            for topic, _ in due:
                del self._retained_due[topic]
        for topic, payload in due:
            mid = connection.publish(topic, payload, retain=True)
            if mid is not None:
                self._in_flight[mid] = topic
        return len(due)

    def _send_records(self, connection: _Connection) -> int:
        room = self._plan.room(self._n_others())
        if not room:
            return 0
        due = self._plan.due_again(self._now_s(), room)
        again = self._ask(lambda store: store.fetch(due)) if due else []
        for key in set(due) - {record.key for record in again}:
            self._plan.forget(key)  # confirmed or dropped by retention meanwhile
        limit = self._plan.n_to_look_at()
        pending = self._ask(lambda store: store.pending(limit))
        batch = again + self._plan.choose(pending, room - len(again))
        for record in sorted(batch, key=lambda record: ORDER.get(record.stream, 9)):
            self._send(connection, record)
        return len(batch)

    def _send(self, connection: _Connection, record: StoredRecord) -> None:
        late = self._plan.sent(record, self._now_s())
        try:
            topic, message = self._message(record, late)
        except (StoreError, ValueError) as error:
            self._plan.forget(record.key)
            self._give_up(record.key, str(error))
            return
        mid = connection.publish(topic, message)
        if mid is None:
            self._book_refused(record.key)
        else:
            self._in_flight[mid] = record.key

    def _message(self, record: StoredRecord, late: bool) -> tuple[str, bytes]:
        """Topic and payload. Raises: StoreError, ValueError: the disk has changed it into something that is no record."""
        site, gateway = self._upstream.site, self._upstream.gateway
        message = encode_record(
            UpstreamRecord(
                site=site,
                gateway=gateway,
                stream=record.stream,  # type: ignore[arg-type]
                seq=record.seq,
                machine=record.machine,
                utc_ns=record.utc_ns,
                late=late,
                body=record.body(),
            )
        )
        return topic_record(site, gateway, record.machine, record.stream), message

    def _n_others(self) -> int:
        return sum(1 for key in self._in_flight.values() if isinstance(key, str))

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Of the store, by this thread: an answer that a slow disk delayed is progress too."""
        answer = self._store.ask(question)
        self.progress.moved()
        return answer

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9


def _confirming(stream: str, ranges: Iterable[tuple[int, int]]) -> Callable[[Any], int]:
    return lambda store: int(store.mark_confirmed(stream, ranges))
