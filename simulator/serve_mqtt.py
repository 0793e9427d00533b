"""Burst sensors on the wire: each publishes its waveform as firmware would, in chunks, QoS 1, on its interval.

A sensor keeps no queue: what cannot be sent while the broker is away is dropped and counted, and a sensor that fell
behind goes on with its newest burst.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from firmware_bridge.errors import SourceLost
from firmware_bridge.frames import encode_burst, topic_burst
from simulator.plant_clock import PlantClock
from simulator.scenario import BurstMeta, BurstSpec, Plant

log = logging.getLogger(__name__)
CHUNK_BYTES = 20_000
STAGGER_S = 0.04  # between sensors, so that they do not all compute at once
MAX_QUEUED = 500
Tamper = Callable[[str, str, int, bytes], "bytes | None"]  # sensor, axis, running number, message -> message or nothing


@dataclass
class BurstLedger:
    """Counts per sensor: whole bursts handed to MQTT, and bursts dropped for want of a broker or of time.

    `chunks`, `tampered` and `dropped_queue` count messages; `acknowledged` those the broker has confirmed.
    """

    published: dict[str, int] = field(default_factory=dict)
    dropped_offline: dict[str, int] = field(default_factory=dict)
    dropped_late: dict[str, int] = field(default_factory=dict)
    silent: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    tampered: int = 0
    dropped_queue: int = 0
    acknowledged: int = 0


def corrupting(every: int) -> Tamper:
    """Flip one bit in the middle of every so-many-th message."""

    def tamper(sensor: str, axis: str, number: int, message: bytes) -> bytes:
        if number % every:
            return message
        middle = len(message) // 2
        return message[:middle] + bytes([message[middle] ^ 0x10]) + message[middle + 1 :]

    return tamper


def truncating(every: int) -> Tamper:
    """Cut every so-many-th message to two thirds."""
    return lambda sensor, axis, number, message: message if number % every else message[: 2 * len(message) // 3]


def dropping(every: int) -> Tamper:
    """Swallow every so-many-th message."""
    return lambda sensor, axis, number, message: message if number % every else None


class BurstPublisher:
    """All burst sensors of a plant, on one connection and one thread.

    Args:
        tamper: sees every message before it leaves; returns it, changed or None to swallow it.
        max_bursts: per sensor, after which it is silent (tests).
    """

    def __init__(
        self,
        plant: Plant,
        clock: PlantClock,
        host: str = "127.0.0.1",
        port: int = 1883,
        *,
        tamper: Tamper | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        max_bursts: int | None = None,
    ) -> None:
        self.ledger = BurstLedger()
        self._plant = plant
        self._clock = clock
        self._host, self._port = host, port
        self._tamper = tamper
        self._chunk_bytes = chunk_bytes
        self._max_bursts = max_bursts
        self._n_messages = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(MAX_QUEUED)
        self._client.reconnect_delay_set(1, 5)
        self._client.on_publish = self._on_publish

    def __enter__(self) -> BurstPublisher:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Connect and begin.

        Raises: SourceLost: no broker answers there.
        """
        try:
            self._client.connect(self._host, self._port, keepalive=30)
        except (OSError, ValueError) as error:
            raise SourceLost(f"no MQTT broker at {self._host}:{self._port}: {error}") from None
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, name="bursts", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Finish the burst in hand, wait for the broker's confirmations, disconnect; may be called twice."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        self._thread = None
        waited = threading.Event()
        for _ in range(round(timeout_s / 0.05)):
            if self.ledger.acknowledged >= self.ledger.chunks or not self._client.is_connected():
                break
            waited.wait(0.05)
        self._client.disconnect()
        self._client.loop_stop()

    def _on_publish(self, client: object, userdata: object, mid: int, reason_code: object, properties: object) -> None:
        self.ledger.acknowledged += 1

    def _run(self) -> None:
        """Whatever is due next, sensor by sensor."""
        sensors = self._plant.burst_sensors
        if not sensors:
            return
        next_index = dict.fromkeys(sensors, 0)
        while not self._stop.is_set():
            due = {name: self._due_s(position, name, next_index[name]) for position, name in enumerate(sensors)}
            name = min(due, key=lambda key: due[key])
            if self._max_bursts is not None and next_index[name] >= self._max_bursts:
                return
            wait_s = self._clock.until_s(due[name])
            if wait_s > 0.0 and self._stop.wait(wait_s):
                return
            next_index[name] = self._send(name, sensors[name], next_index[name], -wait_s * self._clock.speed) + 1

    def _due_s(self, position: int, name: str, index: int) -> float:
        """When a burst's last sample has been taken, each sensor a little later than the one before."""
        spec = self._plant.burst_sensors[name]
        return index * spec.interval_s + spec.n_samples / spec.sample_rate_hz + position * STAGGER_S

    def _send(self, name: str, spec: BurstSpec, index: int, late_s: float) -> int:
        """Publish burst `index`, or the newest one if this is long gone; returns the index that was dealt with."""
        behind = int(late_s / spec.interval_s)
        if behind > 1:
            _count(self.ledger.dropped_late, name, behind)
            index += behind
        if not self._client.is_connected():
            _count(self.ledger.dropped_offline, name)
            return index
        try:
            samples, meta = self._plant.burst(name, index)
        except LookupError:
            _count(self.ledger.silent, name)
            return index
        for axis, row in zip(meta.axes, samples, strict=True):
            self._send_axis(meta, axis, row)
        _count(self.ledger.published, name)
        return index

    def _send_axis(self, meta: BurstMeta, axis: str, row: np.ndarray) -> None:
        counts = np.rint(row / np.float32(meta.scale_m_s2)).astype(np.int16)
        messages = encode_burst(
            counts,
            axis=axis,
            burst_id=meta.index,
            sample_rate_hz=meta.sample_rate_hz,
            scale_m_s2=meta.scale_m_s2,
            start_utc_ns=self._clock.utc_ns(meta.start_s),
            overload=meta.clipped,
            max_bytes=self._chunk_bytes,
        )
        topic = topic_burst(self._plant.scenario.site, meta.sensor, axis)
        for message in messages:
            sent = self._tampered(meta.sensor, axis, message)
            if sent is None:
                continue
            if self._client.publish(topic, sent, qos=1).rc == mqtt.MQTT_ERR_QUEUE_SIZE:
                self.ledger.dropped_queue += 1
            else:
                self.ledger.chunks += 1

    def _tampered(self, sensor: str, axis: str, message: bytes) -> bytes | None:
        self._n_messages += 1
        if self._tamper is None:
            return message
        sent = self._tamper(sensor, axis, self._n_messages, message)
        self.ledger.tampered += sent != message
        return sent


def _count(counts: dict[str, int], name: str, by: int = 1) -> None:
    counts[name] = counts.get(name, 0) + by
