"""A client that publishes the same messages again and again while a test listens."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import paho.mqtt.client as paho
from conftest import Broker
from paho.mqtt.enums import CallbackAPIVersion


@contextmanager
def publishing(broker: Broker, messages: Sequence[tuple[str, bytes]], every_s: float = 0.05) -> Iterator[None]:
    """Somebody else's client, at work until the block ends."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect(broker.host, broker.port)
    client.loop_start()
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(every_s):
            for topic, payload in messages:
                client.publish(topic, payload)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        client.disconnect()
        client.loop_stop()
