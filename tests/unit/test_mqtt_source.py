"""The MQTT source against a real broker: bursts, readings, strangers, and a broker that goes away."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from helpers import free_port, wait_until

from agent.clock import SystemClock
from firmware_bridge.errors import ConfigError, SourceLost
from firmware_bridge.frames import encode_burst, encode_readings, topic_burst, topic_readings
from firmware_bridge.measurement import Block, Measurement, Quality, Waveform
from firmware_bridge.source import MqttSensor, MqttSpec, SourceContext, open_source
from firmware_bridge.sources import mqtt
from firmware_bridge.sources.mqtt import MqttSource

CONFIG = Path(__file__).resolve().parents[2] / "config"
POINTS = {"temperature_degc": (-40.0, 120.0), "pressure_bar": (0.0, 40.0)}
TOPIC = topic_burst("demo", "accel", "z")


def source(port: int, **more: Any) -> MqttSource:
    sensors = (MqttSensor(name="accel"), MqttSensor(name="node", points=POINTS))
    spec = MqttSpec(
        **({"name": "bursts", "host": "127.0.0.1", "port": port, "sensors": sensors, "timeout_s": 5.0} | more)
    )
    opened = open_source(spec, SourceContext(CONFIG, "demo", 3, SystemClock(), gateway="gw-01"))
    assert isinstance(opened, MqttSource)
    return opened


def connected(reader: MqttSource) -> None:
    """Until the subscription stands: a message published from now on arrives."""
    wait_until(lambda: reader.counters["connects"], 10.0, "the source's connection")
    wait_until(lambda: subscribed(reader), 5.0, "the subscription")


def subscribed(reader: MqttSource) -> bool:
    """A probe that comes back shows it; it is a stranger's message and counted as such."""
    before = reader.counters["foreign"] + reader.counters["readings_corrupt"]
    reader._client.publish(topic_readings("demo", "node"), b"probe", 1)
    list(reader.read(0.1))
    return reader.counters["foreign"] + reader.counters["readings_corrupt"] > before


def chunks(burst_id: int = 1, n: int = 3000) -> list[bytes]:
    counts = (np.arange(n) % 500).astype(np.int16)
    return encode_burst(counts, axis="z", burst_id=burst_id, sample_rate_hz=25600.0, scale_m_s2=0.01, max_bytes=2000)


def until(reader: MqttSource, wanted: Callable[[Measurement], bool], timeout_s: float = 5.0) -> Measurement:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        for measurement in reader.read(0.1):
            if wanted(measurement):
                return measurement
    raise AssertionError(f"nothing came in {timeout_s} s: {reader.counters}")


@pytest.fixture
def sender(broker: Any) -> Iterator[paho.Client]:
    client = publisher(broker)
    yield client
    client.disconnect()
    client.loop_stop()


def publisher(broker: Any) -> paho.Client:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect(broker.host, broker.port)
    client.loop_start()
    return client


def send(client: paho.Client, topic: str, payload: bytes, retain: bool = False) -> None:
    client.publish(topic, payload, 1, retain).wait_for_publish(5.0)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_burst_in_pieces_arrives_as_one_waveform(broker: Any, sender: paho.Client, version: str) -> None:
    """With both protocol versions that plants have."""
    reader = source(broker.port, version=version)
    connected(reader)
    for chunk in chunks():
        send(sender, TOPIC, chunk)
    wave = until(reader, lambda m: isinstance(m, Waveform))
    reader.close()
    assert isinstance(wave, Waveform)
    assert (wave.sensor, wave.axis, len(wave.samples)) == ("accel", "z", 3000)
    assert abs(time.monotonic_ns() - wave.monotonic_ns) < 10e9
    assert abs(time.time_ns() - wave.utc_ns) < 10e9
    assert reader.counters["complete"] == 1


def test_readings_are_a_block_of_the_points_they_name(broker: Any, sender: paho.Client) -> None:
    """null is not available, absurd is out of range, a point left out is not in the block."""
    reader = source(broker.port)
    connected(reader)
    assert [c.name for c in reader.channels] == ["node.temperature_degc", "node.pressure_bar"]
    send(
        sender,
        topic_readings("demo", "node"),
        encode_readings({"temperature_degc": 42.5, "pressure_bar": float("nan")}),
    )
    first = until(reader, lambda m: isinstance(m, Block))
    send(sender, topic_readings("demo", "node"), encode_readings({"pressure_bar": 999.0, "unknown_v": 1.0}))
    second = until(reader, lambda m: isinstance(m, Block))
    reader.close()
    assert isinstance(first, Block)
    assert isinstance(second, Block)
    assert first.channels.tolist() == [3, 4]
    assert first.quality.tolist() == [Quality.GOOD, Quality.BAD_SENTINEL]
    assert first.values[0] == 42.5
    assert second.channels.tolist() == [4]
    assert second.quality.tolist() == [Quality.BAD_RANGE]


def test_what_is_damaged_or_stale_is_counted_and_the_next_burst_is_whole(broker: Any, sender: paho.Client) -> None:
    """Rubbish on a sensor's own topic, a broken CRC, a retained chunk from nobody knows when."""
    send(sender, TOPIC, chunks(9)[0], retain=True)
    reader = source(broker.port, version="3.1.1")
    connected(reader)
    broken = bytearray(chunks(1)[0])
    broken[60] ^= 1
    for payload in (b"", b"rubbish", bytes(broken)):
        send(sender, TOPIC, payload)
    send(sender, topic_readings("demo", "node"), b'{"values":{"temperature_degc":NaN}}')
    for chunk in chunks(2):
        send(sender, TOPIC, chunk)
    wave = until(reader, lambda m: isinstance(m, Waveform))
    reader.close()
    assert isinstance(wave, Waveform)
    assert wave.burst_id == 2
    assert reader.counters["corrupt"] == 3
    assert reader.counters["retained"] == 1
    assert reader.counters["readings_corrupt"] >= 1


def test_a_broker_restart_costs_no_burst(mosquitto: Callable[..., Any]) -> None:
    """Half the burst before, half after; paho reconnects and subscribes again by itself."""
    broker = mosquitto(persistence=True)
    reader = source(broker.port)
    connected(reader)
    first = publisher(broker)
    parts = chunks(4)
    for chunk in parts[:2]:
        send(first, TOPIC, chunk)
    wait_until(lambda: list(reader.read(0.05)) or reader.counters["messages"] >= 3, 5.0, "the first chunks")
    first.disconnect()
    first.loop_stop()
    broker.stop()
    wait_until(lambda: reader._down_since_ns is not None, 5.0, "the source to notice")
    broker.start()
    second = publisher(broker)
    for chunk in parts[2:]:
        send(second, TOPIC, chunk)
    wave = until(reader, lambda m: isinstance(m, Waveform), 10.0)
    second.disconnect()
    second.loop_stop()
    reader.close()
    broker.stop()
    assert isinstance(wave, Waveform)
    assert wave.burst_id == 4


def test_bursts_sent_while_the_agent_was_away_wait_for_it(broker: Any, sender: paho.Client) -> None:
    """An update of the gateway takes a minute; the session holds QoS 1 messages for an hour."""
    reader = source(broker.port)
    connected(reader)
    reader.close()
    for chunk in chunks(6):
        send(sender, TOPIC, chunk)
    again = source(broker.port)
    wave = until(again, lambda m: isinstance(m, Waveform))
    again.close()
    assert isinstance(wave, Waveform)
    assert wave.burst_id == 6


def test_a_broker_that_is_not_there_is_lost_in_time_and_named() -> None:
    """And heard as soon as it comes, without a restart of ours."""
    port = free_port()
    reader = source(port, timeout_s=0.3)
    started_s = time.monotonic()
    with pytest.raises(SourceLost) as lost:
        wait_until(lambda: list(reader.read(0.1)), 3.0, "the loss")
    reader.close()
    assert 0.25 < time.monotonic() - started_s < 2.5
    text = str(lost.value)
    assert f"127.0.0.1:{port}" in text
    assert "Connection refused" in text
    assert "accel, node" in text


def test_a_refused_login_says_so(mosquitto: Callable[..., Any], tmp_path: Path) -> None:
    """The commonest mistake of all must not read as a broken cable."""
    secret = tmp_path / "secret"
    secret.write_text("wrong\n", "utf-8")
    users = tmp_path / "users"
    users.write_text("", "utf-8")
    broker = mosquitto(extra=f"password_file {users}\nallow_anonymous false")
    reader = source(broker.port, timeout_s=0.5, username="hark", password_file=str(secret))
    with pytest.raises(SourceLost, match=r"(?i)not authori[sz]ed"):
        wait_until(lambda: list(reader.read(0.1)), 5.0, "the refusal")
    reader.close()
    broker.stop()


def test_a_password_file_that_is_missing_is_a_mistake_in_the_site_file(tmp_path: Path) -> None:
    """Told at the start, with the path."""
    with pytest.raises(ConfigError, match="password_file"):
        source(1883, username="hark", password_file=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="ca_file"):
        source(1883, ca_file=str(tmp_path / "nothing"))


def test_the_inbox_is_bounded_and_the_oldest_goes_first() -> None:
    """A pipeline that stands still must not eat the gateway's memory."""
    inbox = mqtt.Inbox()
    n_dropped = sum(inbox.put(mqtt.Message(str(i), b"x", 0, 0)) for i in range(mqtt.INBOX_MESSAGES + 100))
    assert n_dropped == 100
    oldest = inbox.get(0.0)
    assert oldest is not None
    assert oldest.topic == "100"
    large = b"x" * (mqtt.INBOX_BYTES // 3)
    assert sum(inbox.put(mqtt.Message("big", large, 0, 0)) for _ in range(4)) == mqtt.INBOX_MESSAGES


def test_a_message_larger_than_allowed_takes_no_memory_and_the_next_one_is_heard(
    broker: Any, sender: paho.Client
) -> None:
    """3.1.1 cannot tell the broker; paho alone takes 600 MiB for 200. It is acknowledged, so it does not come again."""
    reader = source(broker.port, version="3.1.1")
    connected(reader)
    tracemalloc.start()
    huge = bytes(16 << 20)
    before, _ = tracemalloc.get_traced_memory()
    send(sender, topic_readings("demo", "node"), huge)
    sent, _ = tracemalloc.get_traced_memory()
    wait_until(lambda: list(reader.read(0.05)) or reader.counters["too_large"], 10.0, "the message to be cut")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    send(sender, topic_readings("demo", "node"), encode_readings({"pressure_bar": 4.0}))
    until(reader, lambda m: isinstance(m, Block))
    reader.close()
    again = source(broker.port, version="3.1.1")
    connected(again)
    again.close()
    assert again.counters["too_large"] == 0
    assert peak - max(before, sent) < 3 * len(huge), "the sender's own copies, and nothing of the reader's"
    assert reader.counters["too_large"] == 1


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_look_leaves_no_session_behind(broker: Any, version: str) -> None:
    """`hark check` subscribes for three seconds; the broker must not keep a plant's bursts for it afterwards."""
    reader = source(broker.port, version=version, session_expiry_s=0)
    connected(reader)
    reader.close()
    present: list[bool] = []
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, "hark-demo-gw-01-bursts", protocol=paho.MQTTv311, clean_session=False
    )
    client.on_connect = lambda _client, _data, flags, *_: present.append(flags.session_present)
    client.connect(broker.host, broker.port)
    client.loop_start()
    wait_until(lambda: present, 5.0, "the answer")
    client.disconnect()
    client.loop_stop()
    assert present == [False]


def test_a_broker_that_talks_nonsense_is_left_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet too short for its own fields raises in paho's thread; without us that thread would be gone for good."""
    monkeypatch.setattr(mqtt, "RECONNECT_S", (0.05, 0.05))
    connack, publish_without_topic = b"\x20\x02\x00\x00", b"\x32\x01\x00"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10.0)
        reader = source(server.getsockname()[1], version="3.1.1")
        try:
            for _ in range(3):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(connack + publish_without_topic)
                    connection.recv(4096)
            assert reader.counters["messages"] == 0
        finally:
            reader.close()


@pytest.mark.parametrize(
    ("sensor", "says"),
    [
        ({"topic": "a"}, "topic, select and root go with a payload"),
        ({"payload": "ncd_vibration"}, "topic is missing; write where it publishes"),
        ({"payload": "ncd_vibration", "topic": "a/b#"}, "# stands alone, as the last level"),
        ({"payload": "ncd_vibration", "topic": "$share/a"}, "is written \\$share/group/topic"),
        ({"payload": "ncd_vibration", "topic": "a", "root": "b[x]"}, "column 2: this bracket is not understood"),
        ({"payload": "ncd_vibration", "topic": "a", "points": POINTS}, "its points stand in the payload file"),
    ],
)
def test_a_sensor_s_mistakes_are_told_with_what_to_write(sensor: dict[str, Any], says: str) -> None:
    """As the site file is read, before any connection."""
    with pytest.raises(ValueError, match=says):
        MqttSensor(name="s", **sensor)


def test_topics_on_one_connection_are_limited() -> None:
    """Cloud brokers cut a client that subscribes to too much; wildcards and select do with one."""
    sensors = tuple(MqttSensor(name=f"s{i}", payload="tasmota_energy", topic=f"tele/{i}/SENSOR") for i in range(33))
    assert MqttSpec(name="b", host="h", sensors=sensors[:32])
    with pytest.raises(ValueError, match="33 topics on one connection, at most 32; write one with"):
        MqttSpec(name="b", host="h", sensors=sensors)


def test_closing_ends_every_thread(broker: Any) -> None:
    """Tests and restarts leave nothing behind."""
    before = threading.active_count()
    reader = source(broker.port)
    connected(reader)
    reader.close()
    wait_until(lambda: threading.active_count() <= before, 5.0, "paho's thread to end")
