"""Through a real broker that is stopped, killed and forgetful: nothing lost, alarms first, retained state true."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import wait_until
from paho.mqtt import client as mqtt

from agent.clock import SystemClock
from agent.deliver import Deliverer, DeliveryPlan, Upstream
from agent.notifiers.mqtt import MqttNotifier
from agent.store import Store
from agent.store_thread import StoreThread
from agent.vocabulary import Record
from firmware_bridge.upstream import decode_record, encode_confirm, topic_confirm, topic_filters


class Collector:
    """What training/collect.py does, in ten lines: keeps each key once and confirms, again for a duplicate."""

    def __init__(self, port: int, deaf: bool = False) -> None:
        self.received: list[str] = []
        self.deaf = deaf
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)  # type: ignore[attr-defined]
        self.client.on_message = self._take
        self.client.on_connect = lambda client, *_: [client.subscribe(topic, 1) for topic in topic_filters("demo")]
        self.client.reconnect_delay_set(0.1, 0.3)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        wait_until(self.client.is_connected)

    def _take(self, client: Any, userdata: Any, message: Any) -> None:
        if message.retain or message.topic.endswith("/state") or not message.payload:
            return
        found = decode_record(message.payload)
        self.received.append(f"{found.stream}:{found.seq}")
        if not self.deaf:
            client.publish(topic_confirm("demo", "gw-01"), encode_confirm(found.stream, [(found.seq, found.seq)]), 1)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Gateway:
    def __init__(self, folder: Path, port: int, **plan: Any) -> None:
        self.store = StoreThread(Store.open(folder / "buffer.sqlite", gateway="gw-01"), bulk_interval_s=0.02)
        upstream = Upstream("127.0.0.1", port, "demo", "gw-01")
        plan.setdefault("resend_after_s", 0.3)
        self.delivery = Deliverer(self.store, SystemClock(), upstream, DeliveryPlan(**plan), backoff_max_s=0.5)
        self.store.start()
        self.delivery.start()

    def keep(self, stream: str, n: int = 1) -> None:
        utc_ns = SystemClock().utc_ns()
        self.store.put([Record(stream, "M-1", utc_ns, {"v": i}, urgent=stream == "alarm") for i in range(n)])
        self.delivery.wake()

    def outbox(self) -> dict[str, int]:
        found: dict[str, int] = self.store.ask(lambda store: store.stats())["outbox"]
        return found

    def close(self) -> None:
        self.delivery.stop()
        self.store.stop()


@pytest.fixture
def gateway(tmp_path: Path, broker: Any) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(**plan: Any) -> Gateway:
        made.append(Gateway(tmp_path, broker.port, **plan))
        return made[-1]

    yield make
    for item in made:
        item.close()


def test_records_survive_a_killed_broker_that_forgets_what_it_acknowledged(
    gateway: Callable[..., Gateway], broker: Any
) -> None:
    """PUBACKed to a broker whose memory dies with it, while the collector was away: still delivered, each key once or more."""
    agent = gateway()
    agent.keep("feature", 120)
    agent.keep("alarm", 3)
    wait_until(lambda: agent.outbox()["published"] > 50)
    broker.stop(kill=True)
    wait_until(lambda: not agent.delivery.connected)
    agent.keep("alarm", 2)
    broker.start()
    collector = Collector(broker.port)
    wait_until(lambda: agent.outbox() == {"pending": 0, "published": 0, "dead": 0}, 15, "an empty outbox")
    assert set(collector.received) == {f"feature:{i}" for i in range(1, 121)} | {f"alarm:{i}" for i in range(1, 6)}
    collector.close()


def test_alarms_overtake_the_backlog(gateway: Callable[..., Gateway], broker: Any) -> None:
    """With the collector deaf the window for others is full; the alarm is still sent."""
    collector = Collector(broker.port, deaf=True)
    agent = gateway(unconfirmed=10, resend_after_s=60.0)
    agent.keep("feature", 100)
    wait_until(lambda: len(collector.received) == 10)
    agent.keep("alarm")
    wait_until(lambda: "alarm:1" in collector.received)
    assert len(collector.received) == 11
    collector.close()


def test_a_record_too_large_for_the_broker_goes_to_the_dead_and_the_rest_flows(
    mosquitto: Callable[..., Any], tmp_path: Path
) -> None:
    """A poison message must not be tried for ever at the head of the queue."""
    broker = mosquitto(extra="max_packet_size 2000")
    collector = Collector(broker.port)
    agent = Gateway(tmp_path, broker.port, max_refusals=2, resend_after_s=0.05)
    agent.store.put([Record("feature", "M-1", 1, {"text": "x" * 5000}), Record("feature", "M-1", 1, {"text": "x"})])
    wait_until(lambda: agent.outbox() == {"pending": 0, "published": 0, "dead": 1}, 10)
    assert collector.received == ["feature:2"]
    agent.close()
    collector.close()
    broker.stop()


def test_retained_topics_tell_the_truth_after_an_outage(gateway: Callable[..., Gateway], broker: Any) -> None:
    """Only last values are sent; what was cleared while away is cleared, and the last will says offline."""
    agent = gateway()
    wait_until(lambda: agent.delivery.connected)
    agent.delivery.retain("hark/v1/demo/gw-01/M-1/alarm/a1", b"stands")
    agent.delivery.retain("hark/v1/demo/gw-01/M-1/alarm/a2", b"stands")
    seen: dict[str, bytes] = {}
    watcher = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)  # type: ignore[attr-defined]
    watcher.on_message = lambda client, userdata, message: seen.__setitem__(
        message.topic.split("gw-01/")[1], message.payload
    )
    watcher.on_connect = lambda client, *_: client.subscribe("hark/v1/demo/gw-01/#", 1)
    watcher.reconnect_delay_set(0.1, 0.3)
    watcher.connect("127.0.0.1", broker.port)
    watcher.loop_start()
    wait_until(lambda: seen.get("M-1/alarm/a1") == seen.get("M-1/alarm/a2") == b"stands")
    broker.stop(kill=True)
    wait_until(lambda: not agent.delivery.connected)
    agent.delivery.retain("hark/v1/demo/gw-01/M-1/alarm/a1", b"")
    MqttNotifier("demo", "gw-01", {}, agent.delivery.retain).state("M-1", {"state": "running"})
    seen.clear()
    broker.start()
    wait_until(lambda: seen.get("M-1/alarm/a2") == b"stands" and "M-1/state" in seen, 10)
    assert seen.get("M-1/alarm/a1", b"") == b""
    assert json.loads(seen["status"])["state"] == "online"
    agent.delivery.stop()
    wait_until(lambda: json.loads(seen["status"])["state"] == "offline")
    watcher.disconnect()
    watcher.loop_stop()


def test_a_record_that_the_disk_has_damaged_is_given_up_and_the_rest_flows(tmp_path: Path, broker: Any) -> None:
    """One flipped bit in a text must not stop the outbox for good: broken UTF-8, broken JSON, a broken name."""
    store = Store.open(tmp_path / "buffer.sqlite", gateway="gw-01")
    store.write([Record("feature", "M-1", 1, {"text": "x" * 20}) for _ in range(5)])
    store.close()
    with sqlite3.connect(tmp_path / "buffer.sqlite") as damaged:
        damaged.execute("UPDATE record SET payload = CAST(x'7B2274657874223A22FF227D' AS TEXT) WHERE seq = 1")
        damaged.execute("UPDATE record SET payload = '{' WHERE seq = 2")
        damaged.execute("UPDATE record SET machine = 'M 1' WHERE seq = 3")
    collector = Collector(broker.port)
    agent = Gateway(tmp_path, broker.port)
    wait_until(lambda: agent.outbox() == {"pending": 0, "published": 0, "dead": 2}, 10)
    assert sorted(collector.received) == ["feature:1", "feature:4", "feature:5"]
    agent.close()
    collector.close()
