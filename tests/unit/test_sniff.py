"""Listening to a real broker: what is on it, what to write for it, and that nothing of ours stays behind."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from conftest import Broker
from helpers import free_port
from paho.mqtt.enums import CallbackAPIVersion
from publisher import publishing

from firmware_bridge.broker import BrokerKeys
from firmware_bridge.checked import load
from firmware_bridge.commissioning.sniff import (
    MAX_TOPICS,
    Heard,
    Listener,
    TopicHeard,
    payload_lines,
    sensor_lines,
    sniff,
)
from firmware_bridge.errors import SourceLost
from firmware_bridge.messages import Message
from firmware_bridge.payload import JsonProfile, load_payload, load_payloads, payload_names
from firmware_bridge.source import MqttSensor

CONFIG = Path(__file__).resolve().parents[2] / "config"
VIBRATION = {"addr": "a1", "x_velocity_mm_sec": 1.42, "tempF": 104.2, "mystery": 3.0}


def hear(broker: Broker, seconds: float, **profiles: Any) -> Heard:
    with Listener(broker.host, broker.port, BrokerKeys()) as listener:
        steps = list(sniff(listener, profiles, seconds))
    assert isinstance(steps[-1], Heard)
    return steps[-1]


def known_messages() -> dict[str, tuple[str, bytes]]:
    """An example message of each payload file of scalars: file -> topic, payload."""
    found = {}
    for name in payload_names(CONFIG):
        profile = load_payload(CONFIG, name)
        for example in getattr(profile, "examples", ()):
            if len(getattr(example, "values", ())) >= 2 and getattr(example, "payload", ""):
                found.setdefault(name, (example.topic or f"plant/{name}", example.payload.encode()))
    return found


def test_a_broker_is_understood_by_listening(broker: Broker) -> None:
    """Known products by their payload file, unknown ones by shape, rate and names; all in the time given."""
    known = known_messages()
    assert len(known) >= 3
    messages = [*known.values(), ("plant/pump/vib", json.dumps(VIBRATION).encode()), ("plant/pump/rpm", b"1462")]
    with publishing(broker, messages):
        heard = hear(broker, 1.2, **load_payloads(CONFIG, payload_names(CONFIG)))
    for name, (topic, _) in known.items():
        assert name in heard.payloads[topic], f"{name} was not known again"
    vibration = heard.topics["plant/pump/vib"]
    assert vibration.shape.form == "json"
    assert vibration.rate_hz == pytest.approx(20.0, rel=0.5)
    assert heard.payloads["plant/pump/vib"] == []
    assert dict(heard.topics["plant/pump/rpm"].guesses)[""].name == "shaft_speed_rpm"


def test_a_listener_leaves_nothing_behind_and_sees_what_the_broker_keeps(broker: Broker) -> None:
    """A retained message shows a sensor that sends once a day; it says nothing of a rate."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect(broker.host, broker.port)
    client.loop_start()
    client.publish("plant/last", b"41.5", qos=1, retain=True).wait_for_publish(5.0)
    client.disconnect()
    client.loop_stop()
    heard = hear(broker, 0.7)
    assert (heard.topics["plant/last"].n, heard.topics["plant/last"].n_retained) == (0, 1)
    assert heard.topics["plant/last"].rate_hz is None
    assert [topic for topic in heard.topics if "hark" in topic] == []


def test_no_broker_is_said_with_its_cause_and_remedy() -> None:
    """What, why, what to do: in one line, with no traceback."""
    port = free_port()
    with pytest.raises(
        SourceLost, match=rf"no broker at 127.0.0.1:{port} \(Connection refused\)\. Check that the broker"
    ):
        Listener("127.0.0.1", port, BrokerKeys())


def test_a_broker_that_goes_away_ends_the_sniff(broker: Broker) -> None:
    """Sixty seconds of nothing would look like a silent plant."""
    with Listener(broker.host, broker.port, BrokerKeys()) as listener:
        broker.stop(kill=True)
        with pytest.raises(SourceLost, match="went away"):
            list(sniff(listener, {}, 10.0))


# ---------------------------------------------------------------------- pure
def heard_on(topic: str, *payloads: bytes, every_s: float = 1.0) -> TopicHeard:
    found = TopicHeard(topic)
    for number, payload in enumerate(payloads):
        found.add(Message(topic, payload, monotonic_ns=round((1 + number * every_s) * 1e9)))
    return found


def test_the_proposed_payload_file_can_be_loaded(tmp_path: Path) -> None:
    """It is meant to be saved, checked and used; what is not known stays a comment."""
    said = [json.dumps(VIBRATION | {"tempF": 104.0 + i}).encode() for i in range(5)]
    lines = payload_lines(heard_on("plant/pump/vib", *said))
    path = tmp_path / "vib.toml"
    path.write_text("\n".join(lines), "utf-8")
    profile = load(path, JsonProfile)
    assert [(point.name, point.path) for point in profile.points] == [
        ("velocity_rms_x_mm_s", "x_velocity_mm_sec"),
        ("temperature_degc", "tempF"),
    ]
    assert profile.points[1].offset == pytest.approx(-17.7778)
    assert profile.update_interval_s == 1.0
    assert '# path = "mystery": nothing says what it is; it lies from 3 to 3' in lines


def test_the_proposed_sensor_can_be_loaded() -> None:
    """Topics have blanks and slashes, sensor names have not."""
    lines = sensor_lines(heard_on("plant a/pump/vib", b"{}"), "ncd_vibration")
    table = tomllib.loads("\n".join(lines))["sources"]["sensors"][0]
    sensor = msgspec.convert(table, MqttSensor)
    assert (sensor.name, sensor.topic, sensor.payload) == ("plant-a-pump-vib", "plant a/pump/vib", "ncd_vibration")
    own = sensor_lines(heard_on("hark/v1/site/sensor/acc-1/burst/x", b"HRKB"), "")
    assert own[1].startswith('name = "acc-1"')


def test_topics_are_bounded_and_counted() -> None:
    """A broker of a city must not fill a gateway's memory."""

    class Flood:
        def messages(self, _seconds: float) -> Iterator[Message | None]:
            for number in range(MAX_TOPICS + 10):
                yield Message(f"city/{number}", b"1", monotonic_ns=time.monotonic_ns())
            yield Message("x" * 2000, b"1")

    *_, heard = sniff(Flood(), {}, 60.0)  # type: ignore[arg-type]  # only its messages are asked for
    assert isinstance(heard, Heard)
    assert (len(heard.topics), heard.n_beyond) == (MAX_TOPICS, 11)
