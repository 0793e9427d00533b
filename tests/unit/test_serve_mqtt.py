"""The simulated burst sensors against a real broker: what arrives is what was measured, or is missing and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from helpers import free_port, wait_until
from paho.mqtt.enums import CallbackAPIVersion

from firmware_bridge.errors import SourceLost
from firmware_bridge.frames import BurstAssembler, parse_sensor_topic
from firmware_bridge.measurement import Waveform
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_mqtt import BurstPublisher, Tamper, corrupting, dropping, truncating

SPEED = 20.0


class Listening:
    """A subscriber that puts bursts together with the agent's own assembler."""

    def __init__(self, host: str, port: int) -> None:
        self.waveforms: list[Waveform] = []
        self.assembler = BurstAssembler()
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect(host, port)
        self._client.subscribe("hark/v1/+/sensor/+/burst/+", qos=1)
        self._client.loop_start()
        assert self._ready.wait(5.0)

    def _on_message(self, client: object, userdata: object, message: Any) -> None:
        topic = parse_sensor_topic(message.topic)
        made = self.assembler.add(topic.sensor, topic.axis, message.payload, 0, 0)
        if made is not None:
            self.waveforms.append(made)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def plant() -> Plant:
    """The demo's set a with short bursts, so that a test takes a second."""
    demo = load_scenario("demo")
    sets = tuple(
        msgspec.structs.replace(
            one,
            bursts=tuple(msgspec.structs.replace(burst, n_samples=2560) for burst in one.bursts),
            devices=one.devices,
        )
        for one in demo.sets[:1]
    )
    return Plant(msgspec.structs.replace(demo, sets=sets, faults=(), expect=()))


@pytest.fixture
def listening(broker: Any) -> Iterator[Listening]:
    made = Listening(broker.host, broker.port)
    yield made
    made.close()


def publish(plant: Plant, broker: Any, n_bursts: int, tamper: Tamper | None = None) -> BurstPublisher:
    """Publish so many bursts per sensor and stop when all are out."""
    publisher = BurstPublisher(
        plant, PlantClock(SPEED), broker.host, broker.port, tamper=tamper, chunk_bytes=2000, max_bursts=n_bursts
    )
    with publisher:
        wait_until(
            lambda: all(dealt(publisher, name) >= n_bursts for name in plant.burst_sensors), 10.0, "the last burst"
        )
    return publisher


def dealt(publisher: BurstPublisher, sensor: str) -> int:
    ledger = publisher.ledger
    return ledger.published.get(sensor, 0) + ledger.dropped_late.get(sensor, 0)


def test_what_arrives_is_what_was_measured_to_the_last_count(plant: Plant, broker: Any, listening: Listening) -> None:
    """Three axes in several chunks each; samples, rate, id and scale survive the wire exactly."""
    publisher = publish(plant, broker, 2)
    n_expected = 3 * sum(publisher.ledger.published.values())
    wait_until(lambda: len(listening.waveforms) == n_expected, 5.0, "every waveform")
    assert publisher.ledger.acknowledged == publisher.ledger.chunks
    for got in listening.waveforms:
        samples, meta = plant.burst(got.sensor, got.burst_id)
        np.testing.assert_allclose(got.samples, samples[meta.axes.index(got.axis)], rtol=1e-6, atol=1e-6)
        assert got.sample_rate_hz == meta.sample_rate_hz
        assert got.start_utc_ns > 1_700_000_000 * 10**9


@pytest.mark.parametrize(
    ("tamper", "counter"), [(corrupting(3), "corrupt"), (truncating(3), "corrupt"), (dropping(3), None)]
)
def test_a_damaged_burst_never_arrives_and_is_counted(
    plant: Plant, broker: Any, listening: Listening, tamper: Tamper, counter: str | None
) -> None:
    """Every third message is spoiled: no whole burst is left, each spoiled message is in the sender's ledger."""
    publisher = publish(plant, broker, 1, tamper)
    n_spoiled = publisher.ledger.tampered
    assert n_spoiled > 0
    wait_until(lambda: listening.assembler.n_open == 3 * len(plant.burst_sensors), 5.0, "the rests of every burst")
    assert listening.waveforms == []
    if counter:
        assert wait_until(lambda: listening.assembler.counters[counter] == n_spoiled, 5.0, "the last spoiled one")


def test_no_broker_is_one_clear_line(plant: Plant) -> None:
    """The first thing that goes wrong: Mosquitto is not running."""
    with pytest.raises(SourceLost, match="no MQTT broker at 127"):
        BurstPublisher(plant, PlantClock(), "127.0.0.1", free_port()).start()


def test_while_the_broker_is_away_bursts_are_dropped_counted_and_then_resume(
    plant: Plant, mosquitto: Callable[..., Any]
) -> None:
    """A sensor has no memory: it loses what falls into the outage, says how many, and goes on by itself."""
    broker = mosquitto()
    with BurstPublisher(plant, PlantClock(SPEED), broker.host, broker.port, chunk_bytes=20_000) as publisher:
        wait_until(lambda: publisher.ledger.published, 5.0, "the first burst")
        broker.stop(kill=True)
        wait_until(lambda: publisher.ledger.dropped_offline, 10.0, "a dropped burst")
        before = dict(publisher.ledger.published)
        broker.start()
        wait_until(lambda: publisher.ledger.published != before, 15.0, "a burst after the outage")


def test_a_sensor_that_fell_behind_goes_on_with_its_newest_burst(plant: Plant, broker: Any) -> None:
    """At a speed no computer can follow the sensor skips, and counts what it skipped, instead of falling ever further back."""
    with BurstPublisher(plant, PlantClock(5000.0), broker.host, broker.port) as publisher:
        wait_until(lambda: sum(publisher.ledger.published.values()) >= 4, 10.0, "some bursts")
        assert sum(publisher.ledger.dropped_late.values()) > 10
