"""Collector: agents' records become the dataset, and what stands in it is confirmed to the agent that sent it.

The order is what makes "nothing lost, nothing doubled" true: commit the dataset, then confirm to the agent, then
acknowledge to the broker. A crash between any two of them leads to the same records once more, which are recognised
by key, not written again, and confirmed again. One topic filter per kind, shared, so more collectors simply take
their part.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from firmware_bridge.errors import FrameError, SourceLost
from firmware_bridge.upstream import MAX_RECORD_BYTES, UpstreamRecord
from training.delta import Dataset
from training.keys import RangeSet
from training.wire import KINDS, Source, confirmations, decode, source_of

log = getLogger(__name__)

SESSION_EXPIRY_S = 30 * 86_400  # the broker keeps the session while the collector is away
IDLE_S = 0.02  # a broker that has its in-flight window full says nothing more until it is acknowledged
MIN_IDLE_RECORDS = 16  # mosquitto's default window is 20
CONNECT_TIMEOUT_S = 10.0

Confirm = Callable[[str, bytes], None]


@dataclass(slots=True)
class Ledger:
    """What came in and what became of it; received = written + duplicates + malformed + pending."""

    received: int = 0
    written: int = 0
    duplicates: int = 0
    malformed: int = 0
    dropped: int = 0  # by a full queue; never acknowledged, so they come again
    commits: int = 0
    confirms: int = 0


class Collector:
    """The pure part: messages in, commits and confirmations out, no broker and no clock of its own."""

    def __init__(self, dataset: Dataset, confirm: Confirm) -> None:
        self.dataset = dataset
        self.ledger = Ledger()
        self._confirm = confirm
        self._pending: list[UpstreamRecord] = []

    def offer(self, topic: str, payload: bytes) -> None:
        """Take one message; a malformed one is counted and let go, so that it cannot block those behind it."""
        self.ledger.received += 1
        try:
            self._pending.append(decode(topic, payload))
        except FrameError as reason:
            self.ledger.malformed += 1
            log.warning("record refused: topic=%s cause=%s", topic[:200], str(reason)[:200])

    def flush(self) -> None:
        """Commit what is pending, then confirm it, duplicates too: their first confirmation may have been lost.

        Raises: DatasetError: not committed; the records stay pending.
        """
        by_stream: dict[str, list[UpstreamRecord]] = defaultdict(list)
        for record in self._pending:
            by_stream[record.stream].append(record)
        for stream, records in by_stream.items():
            n_written, n_duplicates = self.dataset.append(stream, records)
            self.ledger.written += n_written
            self.ledger.duplicates += n_duplicates
            self.ledger.commits += n_written > 0
            self._pending = [record for record in self._pending if record.stream != stream]
            self._confirm_all(records)

    def _confirm_all(self, records: list[UpstreamRecord]) -> None:
        ranges: dict[Source, RangeSet] = defaultdict(RangeSet)
        for record in records:
            ranges[source_of(record)].add(record.seq)
        for source, held in ranges.items():
            for topic, payload in confirmations(source, held):
                self._confirm(topic, payload)
                self.ledger.confirms += 1


@dataclass(frozen=True, slots=True)
class Address:
    """Where the upstream broker is, and how a collector names itself to it."""

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    client_id: str = ""
    group: str = "hark-collect"
    version: Literal["5", "3.1.1"] = "5"  # an old broker: one collector alone, it does not know shared subscriptions


class Subscription:
    """The MQTT part: a persistent shared subscription whose messages are acknowledged only after their commit.

    paho's thread puts messages into a bounded queue; everything else happens on the caller's thread.
    """

    def __init__(self, address: Address, site: str, max_queue: int = 2000) -> None:
        self._address = address
        self._newest = address.version == "5"
        share = f"$share/{address.group}/" if self._newest else ""
        self._filters = [f"{share}hark/v1/{site}/+/+/{kind}" for kind in KINDS]
        self.inbox: queue.Queue[tuple[int, Any]] = queue.Queue(max_queue)
        self.subscribed = threading.Event()
        self.dropped = 0
        self._epoch = 0
        self._refused = ""
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            protocol=mqtt.MQTTv5 if self._newest else mqtt.MQTTv311,
            clean_session=None if self._newest else False,
            manual_ack=True,
        )
        if address.username:
            self._client.username_pw_set(address.username, address.password)
        if address.ca_file:
            self._client.tls_set(address.ca_file)
        self._client.reconnect_delay_set(1, 30)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = self._on_message

    def start(self) -> None:
        """Connect and subscribe. Raises: SourceLost: broker not reached, or it refuses."""
        options: dict[str, Any] = {}
        if self._newest:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.MaximumPacketSize = MAX_RECORD_BYTES + 1024
            options = {"clean_start": False, "properties": properties}
        where = f"{self._address.host}:{self._address.port}"
        try:
            self._client.connect(self._address.host, self._address.port, keepalive=30, **options)
        except OSError as error:
            raise SourceLost(
                f"upstream broker {where} not reached ({error}); check host, port and that it runs"
            ) from None
        self._client.loop_start()
        if not self.subscribed.wait(CONNECT_TIMEOUT_S):
            self.stop()
            raise SourceLost(
                f"upstream broker {where} did not accept the subscription ({self._refused or 'no answer'})"
            )

    def stop(self) -> None:
        """Leave; the broker keeps the session and what arrives for it."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a confirmation; left out while the broker is away, because the agent asks again by resending."""
        if self._client.is_connected():
            self._client.publish(topic, payload, qos=1)

    def acknowledge(self, epoch: int, message: Any) -> None:
        """Tell the broker that a message is done with, unless it belongs to a connection that is gone."""
        if epoch == self._epoch:
            self._client.ack(message.mid, message.qos)

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refused = str(reason)
            return
        self._epoch += 1
        client.subscribe(
            [(topic, SubscribeOptions(qos=1)) for topic in self._filters]
            if self._newest
            else [(topic, 1) for topic in self._filters]
        )

    def _on_message(self, _client: mqtt.Client, _data: Any, message: Any) -> None:
        try:
            self.inbox.put((self._epoch, message), timeout=5.0)
        except queue.Full:
            self.dropped += 1


def collect(
    address: Address,
    out: Path,
    site: str,
    stop: threading.Event,
    *,
    flush_interval_s: float = 1.0,
    flush_records: int = 500,
    ready: threading.Event | None = None,
) -> Ledger:
    """Body of `hark data collect`: until `stop` is set, then what was taken is committed and the ledger is handed back.

    `ready` is set once the broker has taken the subscription: from then on nothing passes by.
    Raises: SourceLost: broker not reached at start (later losses are waited out). DatasetError: folder not writable.
    """
    dataset = Dataset(out)
    subscription = Subscription(address, site)
    collector = Collector(dataset, subscription.publish)
    subscription.start()
    if ready is not None:
        ready.set()
    log.info("collecting: broker=%s:%d out=%s", address.host, address.port, out)
    taken: list[tuple[int, Any]] = []
    try:
        flushed_s = time.monotonic()
        while not stop.is_set():
            idle = not _take(subscription, collector, taken, flush_records)
            window_is_full = idle and len(taken) >= MIN_IDLE_RECORDS
            is_due = time.monotonic() - flushed_s >= flush_interval_s
            if taken and (len(taken) >= flush_records or is_due or window_is_full):
                _flush(subscription, collector, taken)
                flushed_s = time.monotonic()
        _flush(subscription, collector, taken)
    finally:
        subscription.stop()
        collector.ledger.dropped = subscription.dropped
    dataset.close()
    return collector.ledger


def _take(subscription: Subscription, collector: Collector, taken: list[tuple[int, Any]], limit: int) -> bool:
    """Move what has arrived into the collector, up to `limit` in all; False when nothing came for a moment."""
    n_before = len(taken)
    while len(taken) < limit:
        try:
            item = subscription.inbox.get(timeout=IDLE_S if len(taken) == n_before else 0.0)
        except queue.Empty:
            break
        taken.append(item)
        collector.offer(item[1].topic, item[1].payload)
    return len(taken) > n_before


def _flush(subscription: Subscription, collector: Collector, taken: list[tuple[int, Any]]) -> None:
    """Commit, confirm, acknowledge, in this order."""
    collector.flush()
    for epoch, message in taken:
        subscription.acknowledge(epoch, message)
    taken.clear()


def default_client_id(out: Path, site: str) -> str:
    """Stable over restarts, so that the broker finds the session again; another folder is another collector."""
    return "hark-collect-" + hashlib.sha256(f"{Path(out).resolve()} {site}".encode()).hexdigest()[:12]


def as_json(ledger: Ledger) -> dict[str, int]:
    """The ledger as it is printed."""
    return asdict(ledger)
