"""Against clients that we did not write: mosquitto_pub feeds our source in every format, mosquitto_sub reads what we publish."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import wait_until

from agent.clock import SystemClock
from firmware_bridge.frames import decode_chunk, encode_readings, topic_readings
from firmware_bridge.measurement import Block, Measurement, Waveform
from firmware_bridge.payload import load_payload
from firmware_bridge.source import MqttSensor, MqttSpec, Select, SourceContext, open_source
from firmware_bridge.sources.mqtt import MqttSource
from firmware_bridge.sparkplug.topics import Kind, topic_of
from firmware_bridge.sparkplug.wire import DataType, Metric, Payload, decode, encode
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_mqtt import BurstPublisher

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
PORT = '["/iolinkmaster/port[2]/iolinkdevice/pdin"]'
SENSORS = (
    MqttSensor(name="meter", payload="shelly_pro_3em", topic="shellypro3em-a0dd6c9f4d5c/status/em:0"),
    MqttSensor(name="old-meter", payload="shelly_3em_gen1", topic="$share/hark/shellies/+/emeter/#"),
    MqttSensor(
        name="vib", payload="ncd_vibration", topic="plant/ncd/#",
        select=Select(path="addr", equals="00:13:a2:00:41:f1:b2:c7"),
    ),
    MqttSensor(name="io-link", payload="ifm_vvb001", topic="plant/al1350", root=f"data.payload{PORT}"),
    MqttSensor(name="wave", payload="gatech_arch_vibration", topic="Asset/+/Vibration"),
    MqttSensor(name="radio", payload="ncd_vibration_raw", topic="radio/vib-7"),
    MqttSensor(name="drive", payload="sparkplug_drive", topic="spBv1.0/Plant1/+/Line4/Drive1"),
    MqttSensor(name="node", points={"pressure_bar": (0.0, 10.0)}),
)  # fmt: skip


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"these tests need {name}: apt-get install mosquitto-clients")
    return found


def publish(broker: Any, topic: str, payload: bytes | str, *more: str) -> None:
    """One message, QoS 1, as a shell script of a plant would send it."""
    octets = payload.encode() if isinstance(payload, str) else payload
    command = [tool("mosquitto_pub"), "-h", broker.host, "-p", str(broker.port), "-t", topic, "-s", "-q", "1", *more]
    subprocess.run(command, input=octets, check=True, timeout=10)


def opened(broker: Any, version: str) -> MqttSource:
    spec = MqttSpec(name="all", host=broker.host, port=broker.port, version=version, sensors=SENSORS)
    source = open_source(spec, SourceContext(CONFIG, "demo", 0, SystemClock(), gateway="gw-01"))
    assert isinstance(source, MqttSource)
    wait_until(lambda: source.counters["connects"], 10.0, "the connection")
    wait_until(lambda: subscribed(source), 5.0, "the subscriptions")
    return source


def subscribed(source: MqttSource) -> bool:
    """A probe on the last of the filters comes back."""
    before = source.counters["readings_corrupt"]
    source._client.publish(topic_readings("demo", "node"), b"probe", 1)
    list(source.read(0.05))
    return source.counters["readings_corrupt"] > before


def example(payload: str, at: int = 0) -> Any:
    return load_payload(CONFIG, payload).examples[at]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_mosquitto_pub_feeds_every_format_over_one_connection(broker: Any, version: str) -> None:
    """Scalars, numbers, addressed and nested JSON, a burst in JSON, packets, Sparkplug, and our own protocol."""
    source = opened(broker, version)
    meter, number = example("shelly_pro_3em"), example("shelly_3em_gen1")
    vib, wave = example("ncd_vibration"), example("gatech_arch_vibration")
    try:
        publish(broker, meter.topic, meter.payload)
        publish(broker, number.topic, number.payload)
        publish(broker, "plant/ncd/gateway-1", vib.payload)
        pdin = {"/iolinkmaster/port[2]/iolinkdevice/pdin": json.loads(example("ifm_vvb001").payload)}
        publish(broker, "plant/al1350", json.dumps({"code": "event", "data": {"payload": pdin}}))
        publish(broker, wave.topic, wave.payloads[0])
        for packet in example("ncd_vibration_raw").payloads:
            publish(broker, "radio/vib-7", bytes.fromhex(packet))
        publish(broker, topic_readings("demo", "node"), encode_readings({"pressure_bar": 4.5}))
        for topic, octets in sparkplug_births():
            publish(broker, topic, octets)
        heard: list[Measurement] = []
        wanted = {f"{s}.{point}" for s, point in all_points()} | {"wave.z", "radio.x", "radio.y", "radio.z"}
        wait_until(lambda: heard.extend(source.read(0.1)) or wanted <= set(named(source, heard)), 10.0, "all of them")
    finally:
        source.close()
    told = named(source, heard)
    assert told["meter.active_power_kw"] == pytest.approx(1.533)
    assert told["old-meter.current_l2_a"] == pytest.approx(11.93)
    assert told["vib.velocity_z_mm_s"] == pytest.approx(3.69)
    assert told["io-link.crest_ratio"] == pytest.approx(4.1)
    assert told["drive.shaft_speed_rpm"] == 1460.0
    assert told["node.pressure_bar"] == 4.5
    assert told["wave.z"] == pytest.approx(list(wave.waves[0].samples_m_s2), rel=1e-6)
    assert told["radio.y"] == pytest.approx([-2.353596, -4.707192], rel=1e-6)
    assert source.counters["foreign"] == 0
    assert source.counters["complete"] == 2


def all_points() -> list[tuple[str, str]]:
    """What the examples tell, by sensor."""
    told = {
        "meter": ("shelly_pro_3em", 0), "old-meter": ("shelly_3em_gen1", 0), "vib": ("ncd_vibration", 0),
        "io-link": ("ifm_vvb001", 0), "drive": ("sparkplug_drive", 0),
    }  # fmt: skip
    points = [(sensor, point) for sensor, (name, at) in told.items() for point in example(name, at).values]
    return [*points, ("node", "pressure_bar")]


def named(source: MqttSource, heard: list[Measurement]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for measurement in heard:
        if isinstance(measurement, Block):
            for channel, value in zip(measurement.channels, measurement.values, strict=True):
                told[source.channels[channel].name] = float(value)
        elif isinstance(measurement, Waveform):
            told[f"{measurement.sensor}.{measurement.axis}"] = measurement.samples.tolist()
    return told


def sparkplug_births() -> list[tuple[str, bytes]]:
    now_ms = time.time_ns() // 10**6
    metrics = [Metric(name=n, datatype=DataType.DOUBLE, value=v) for n, v in example("sparkplug_drive").metrics.items()]
    bd_seq = Metric(name="bdSeq", datatype=DataType.INT64, value=0)
    births = [(Kind.NBIRTH, "", [bd_seq]), (Kind.DBIRTH, "Drive1", metrics)]
    return [
        (topic_of("Plant1", kind, "Line4", device), encode(Payload(timestamp_ms=now_ms, seq=seq, metrics=found)))
        for seq, (kind, device, found) in enumerate(births)
    ]


def listener(broker: Any, topic: str, n: int = 1) -> subprocess.Popen[str]:
    """mosquitto_sub for `n` messages, shown as "read topic hex"; it stands ready when this returns."""
    address = ["-h", broker.host, "-p", str(broker.port), "-t", topic, "-q", "1", "-C", str(n), "-W", "20"]
    command = ["stdbuf", "-oL", tool("mosquitto_sub"), *address, "-d", "-F", "read %t %x"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line.startswith("Subscribed") for line in process.stdout), "mosquitto_sub did not subscribe"
    return process


def read_back(process: subprocess.Popen[str]) -> list[tuple[str, bytes]]:
    """The messages up to its end."""
    assert process.stdout is not None
    with process.stdout:
        lines = [line.split() for line in process.stdout if line.startswith("read ")]
    process.wait(5)
    return [(topic, bytes.fromhex(octets)) for _, topic, octets in lines]


def test_a_node_that_was_born_before_us_is_asked_and_its_values_come(broker: Any) -> None:
    """Births are not retained, and a steady drive says nothing for hours: the source asks as soon as it is connected."""
    asked = listener(broker, "spBv1.0/Plant1/NCMD/Line4")
    source = opened(broker, "5")
    heard: list[Measurement] = []
    try:
        list(source.read(0.1))
        ((topic, octets),) = read_back(asked)
        assert topic == "spBv1.0/Plant1/NCMD/Line4"
        assert [(m.name, m.value) for m in decode(octets).metrics] == [("Node Control/Rebirth", True)]
        for topic, octets in sparkplug_births():
            publish(broker, topic, octets)
        wait_until(
            lambda: heard.extend(source.read(0.1)) or "drive.shaft_speed_rpm" in named(source, heard),
            10.0,
            "its values",
        )
    finally:
        source.close()


def test_mosquitto_sub_reads_the_bursts_of_the_simulator(broker: Any) -> None:
    """Byte for byte what PROTOCOL.md says, on the topic that it says."""
    plant = Plant(load_scenario("healthy"))
    reader = listener(broker, "hark/v1/+/sensor/+/burst/+")
    with BurstPublisher(plant, PlantClock(speed=20.0), broker.host, broker.port, max_bursts=1):
        ((topic, octets),) = read_back(reader)
    chunk = decode_chunk(octets)
    assert topic.split("/")[4] in plant.burst_sensors
    assert topic.endswith(f"/burst/{chunk.axis}")


def test_mosquitto_sub_reads_the_status_of_the_agent(broker: Any, tmp_path: Path) -> None:
    """Retained, JSON, and "offline" as its last will when it is killed."""
    site = tmp_path / "site.toml"
    site.write_text(
        '[site]\nname = "plant-1"\ngateway = "gw-01"\ndata_dir = "data"\n'
        f'[upstream]\nhost = "{broker.host}"\nport = {broker.port}\n'
        f'[[sources]]\nkind = "mqtt"\nname = "b"\nhost = "{broker.host}"\nport = {broker.port}\n'
        '[[sources.sensors]]\nname = "meter"\npayload = "shelly_pro_3em"\ntopic = "m/status/em:0"\n'
        '[[machines]]\ntag = "M-1"\ntype = "motor"\nsensors = ["meter"]\n',
        "utf-8",
    )
    reader = listener(broker, "hark/v1/plant-1/gw-01/status", 2)
    agent = subprocess.Popen([sys.executable, "-m", "agent", "run", str(site)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert reader.stdout is not None
        first = next(line for line in reader.stdout if line.startswith("read "))
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait(10)
    ((_, last),) = read_back(reader)
    assert json.loads(bytes.fromhex(first.split()[2]))["state"] == "online"
    assert json.loads(last)["state"] == "offline"
