"""Which message is whose, what is dropped and under which name: the sensors behind a broker, without the broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware_bridge.errors import ConfigError
from firmware_bridge.frames import encode_readings, topic_readings
from firmware_bridge.measurement import Block, Measurement, Quality
from firmware_bridge.messages import Message
from firmware_bridge.mqtt_sensors import MAX_RECENT, MAX_TOPICS_KNOWN, Sensors
from firmware_bridge.payload import load_payloads
from firmware_bridge.source import MqttSensor, MqttSpec, Select, channels_of
from firmware_bridge.sparkplug.topics import Kind, topic_of
from firmware_bridge.sparkplug.wire import DataType, Metric, Payload, encode

CONFIG = Path(__file__).resolve().parents[2] / "config"
S = 1_000_000_000
UTC_NS = 1_700_000_000 * S


def sensors(*specs: MqttSensor, first: int = 0) -> Sensors:
    spec = MqttSpec(name="broker", host="h", sensors=specs)
    return Sensors(spec, "demo", first, load_payloads(CONFIG, [sensor.payload for sensor in specs]))


def ncd(name: str, address: str) -> MqttSensor:
    return MqttSensor(name=name, payload="ncd_vibration", topic="plant/#", select=Select(path="addr", equals=address))


def message(tree: Any, topic: str = "plant/ncd", at_s: float = 0.0, again: bool = False) -> Message:
    octets = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return Message(topic, octets, UTC_NS + round(at_s * S), round(at_s * S), again)


def values(measurements: list[Measurement]) -> dict[int, float]:
    blocks = [m for m in measurements if isinstance(m, Block)]
    return {int(c): float(v) for b in blocks for c, v in zip(b.channels, b.values, strict=True)}


def test_many_devices_on_one_topic_are_told_apart_by_their_address() -> None:
    """Each message feeds the sensors that it concerns, at their own channels of the process."""
    two = sensors(ncd("left", "00:01"), ncd("right", "00:02"), first=3)
    reading = {"addr": "00:02", "battery": "3.30", "sensor_data": {"x_velocity_mm_sec": 4.5}}
    assert values(two.hear(message(reading))) == {3 + 8: 4.5, 3 + 8 + 7: pytest.approx(3.3, rel=1e-6)}
    assert two.hear(message(reading | {"addr": "00:03"})) == []
    assert two.counters["foreign"] == 1


def test_one_message_may_feed_several_sensors_and_be_read_once() -> None:
    """A gateway that sends all its ports in one message."""
    port = '["/iolinkmaster/port[{}]/iolinkdevice/pdin"]'
    both = sensors(
        *(
            MqttSensor(name=f"vib-{i}", payload="ifm_vvb001", topic="al1350", root=f"data.payload{port.format(i)}")
            for i in (1, 2)
        )
    )
    pdin = {f"/iolinkmaster/port[{i}]/iolinkdevice/pdin": {"code": 200, "data": f"00{i:02X}FC00"} for i in (1, 2)}
    made = both.hear(message({"code": "event", "data": {"payload": pdin}}, "al1350"))
    assert values(made)[0] == pytest.approx(0.1)
    assert values(made)[5] == pytest.approx(0.2)


def test_a_bad_message_hurts_neither_its_neighbour_nor_its_successor() -> None:
    """Counted, said once, and forgotten with the next good one."""
    both = sensors(
        MqttSensor(name="meter", payload="shelly_pro_3em", topic="a/status/em:0"),
        MqttSensor(name="node", points={"pressure_bar": (0.0, 10.0)}),
    )
    for rubbish in (b"{", b"\xff", b"[" * 5000):
        assert both.hear(message(rubbish, "a/status/em:0")) == []
    assert both.counters["readings_corrupt"] == 3
    assert "meter: message is nested too deeply" in both.tally.troubles["meter"]
    assert values(both.hear(message(encode_readings({"pressure_bar": 4.0}), topic_readings("demo", "node")))) == {
        9: 4.0
    }
    assert "meter" in both.tally.troubles
    assert len(both.hear(message({"a_voltage": 230.0, "b_voltage": "?"}, "a/status/em:0"))) == 1
    assert both.counters["values_corrupt"] == 1
    assert both.tally.troubles == {"meter": "meter: 1 of its values are no numbers"}
    both.hear(message({"a_voltage": 231.0}, "a/status/em:0"))
    assert both.tally.troubles == {}


def test_good_and_bad_in_turn_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One line a minute and sensor, however fast somebody sends."""
    made = sensors(MqttSensor(name="meter", payload="tasmota_energy", topic="t"))
    for i in range(200):
        made.hear(message(b"{" if i % 2 else {"ENERGY": {"Voltage": i}}, "t", at_s=i / 2))
    assert [record.message for record in caplog.records] == [caplog.records[0].message] * 2
    assert made.counters["readings_corrupt"] == 100


def test_a_message_that_the_broker_sends_again_is_heard_once() -> None:
    """QoS 1 repeats after a reconnect, marked so; the same value read twice by the sensor itself is not marked."""
    made = sensors(MqttSensor(name="meter", payload="tasmota_energy", topic="tele/+/SENSOR"))
    reading = {"ENERGY": {"Voltage": 230}}
    heard = [
        made.hear(message(reading, "tele/m/SENSOR", at, again)) for at, again in ((0, False), (1, False), (2, True))
    ]
    assert [len(blocks) for blocks in heard] == [1, 1, 0]
    assert made.counters["duplicate"] == 1
    assert made.hear(message(reading, "tele/m/SENSOR", 90, True)), "after a minute it may well be news"
    assert made.hear(message({"ENERGY": {"Voltage": 231}}, "tele/m/SENSOR", 91, True)), "marked, and never heard before"


def test_what_is_remembered_is_bounded_whatever_comes() -> None:
    """A flood of topics must not become our memory."""
    made = sensors(MqttSensor(name="meter", payload="tasmota_energy", topic="#"))
    for i in range(3 * MAX_TOPICS_KNOWN):
        made.hear(message(b"x", f"flood/{i}"))
    made.hear(message({"ENERGY": {"Voltage": 230}}, "x" * 5000))
    assert len(made._by_topic) <= MAX_TOPICS_KNOWN
    assert len(made._recent) <= MAX_RECENT
    assert made.counters["foreign"] == 1, "a topic that long is nobody's"


def test_a_sensor_whose_clock_is_wrong_is_counted_and_stamped_by_ours() -> None:
    """The bus's stamp counts; the sensor's own time only dates bursts."""
    made = sensors(MqttSensor(name="pressure", payload="milesight_em500_pp", topic="up"))
    for text, count in (("2023-11-14T22:10:00Z", 0), ("2023-11-14T20:10:00Z", 1), ("yesterday", 2)):
        (block,) = made.hear(message({"time": text, "object": {"pressure": 10}}, "up"))
        assert isinstance(block, Block)
        assert block.utc_ns == UTC_NS
        assert made.counters["clock_off"] == count


def test_the_channels_are_those_of_the_payload_files_in_the_order_of_the_site() -> None:
    """Bursts have none; the site's interval replaces the maker's."""
    spec = MqttSpec(
        name="broker",
        host="h",
        sensors=(
            MqttSensor(name="accel", payload="gatech_arch_vibration", topic="v"),
            MqttSensor(name="meter", payload="tasmota_energy", topic="m", update_interval_s=10.0),
            MqttSensor(name="node", points={"pressure_bar": (0.0, 10.0)}),
        ),
    )
    made = channels_of(spec, CONFIG)
    assert [channel.sensor for channel in made] == ["meter"] * 5 + ["node"]
    assert [channel.update_interval_s for channel in made] == [10.0] * 5 + [1.0]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"payload": "shelly_3em_gen1", "root": "a"}, "select and root look into JSON"),
        ({"payload": "ncd_vibration_raw", "select": Select(path="a", equals=1.0)}, "select and root look into JSON"),
        ({"payload": "sparkplug_drive"}, "spBv1.0/group/\\+/node"),
        ({"payload": "sparkplug_drive", "topic": "spBv1.0/g/DDATA/n/d"}, "spBv1.0/group/\\+/node"),
        ({"payload": "shelly"}, "payload 'shelly': not known"),
    ],
)
def test_a_sensor_that_does_not_fit_its_payload_is_told_so(keys: dict[str, Any], says: str) -> None:
    """Before anything is opened."""
    sensor = MqttSensor(**({"name": "s", "topic": "t"} | keys))
    with pytest.raises(ConfigError, match=says):
        channels_of(MqttSpec(name="b", host="h", sensors=(sensor,)), CONFIG)


# ---------------------------------------------------------------------- Sparkplug B
def born(*kinds: tuple[Kind, str, list[Metric]], seq: int = 0) -> list[Message]:
    """Messages of an edge node in their sequence; a death has none."""
    made = []
    for kind, device, metrics in kinds:
        number = None if kind is Kind.NDEATH else seq
        seq += kind is not Kind.NDEATH
        octets = encode(Payload(timestamp_ms=1_700_000_000_000, seq=number, metrics=metrics))
        made.append(message(octets, topic_of("Plant1", kind, "Line4", device)))
    return made


def metric(name: str, value: float, **more: Any) -> Metric:
    return Metric(name=name, datatype=DataType.DOUBLE, value=value, **more)


BD_SEQ = Metric(name="bdSeq", datatype=DataType.INT64, value=3)
DRIVE = [metric("Drive/Speed", 1460.0), metric("Drive/Current", 11.9), metric("Drive/Power", 5700.0)]


def test_a_sparkplug_device_lives_from_its_birth_to_its_death() -> None:
    """Born with every value, then changes, history that is no present value, and BAD_COMM when the node is gone."""
    made = sensors(MqttSensor(name="drive", payload="sparkplug_drive", topic="spBv1.0/Plant1/+/Line4/Drive1"), first=5)
    assert made.filters == ["spBv1.0/Plant1/+/Line4/#"]
    late = metric("Drive/Speed", 7.0, is_historical=True)
    nbirth, dbirth, ddata, history, ndeath = born(
        (Kind.NBIRTH, "", [BD_SEQ]),
        (Kind.DBIRTH, "Drive1", DRIVE),
        (Kind.DDATA, "Drive1", [metric("Drive/Current", 12.5)]),
        (Kind.DDATA, "Drive1", [late]),
        (Kind.NDEATH, "", [BD_SEQ]),
    )
    assert made.hear(nbirth) == []
    assert values(made.hear(dbirth)) == {5: 1460.0, 6: pytest.approx(11.9), 7: pytest.approx(5.7)}
    assert values(made.hear(ddata)) == {6: 12.5}
    assert made.hear(history) == []
    assert made.counters["sparkplug_historical"] == 1
    (gone,) = made.hear(ndeath)
    assert isinstance(gone, Block)
    assert gone.quality.tolist() == [Quality.BAD_COMM] * 3
    assert np.isnan(gone.values).all()


def test_a_value_that_does_not_change_still_holds_until_the_death() -> None:
    """Sparkplug sends changes only: a drive that runs steadily for a night is not silent."""
    drive = MqttSensor(
        name="drive", payload="sparkplug_drive", topic="spBv1.0/Plant1/+/Line4/Drive1", update_interval_s=5
    )
    made = sensors(drive)
    births = born((Kind.NBIRTH, "", [BD_SEQ]), (Kind.DBIRTH, "Drive1", DRIVE), (Kind.NDEATH, "", [BD_SEQ]))
    for birth in births[:2]:
        made.hear(birth)
    told_s = [at_s for at_s in range(1, 21) if values(made.poll(UTC_NS + at_s * S, at_s * S)).get(0) == 1460.0]
    assert told_s == [5, 10, 15, 20]
    made.hear(births[2])
    assert made.poll(UTC_NS + 60 * S, 60 * S) == []


def test_who_joins_late_asks_for_the_births_and_a_lost_broker_ends_them_all() -> None:
    """A value without its birth means nothing, and neither does one from before the broker went away."""
    made = sensors(MqttSensor(name="drive", payload="sparkplug_drive", topic="spBv1.0/Plant1/+/Line4/Drive1"))
    (ddata,) = born((Kind.DDATA, "Drive1", [metric("Drive/Current", 12.5)]), seq=9)
    assert made.hear(ddata) == []
    assert [topic for topic, _ in made.sparkplug.host.requests(S)] == ["spBv1.0/Plant1/NCMD/Line4"]
    for birth in born((Kind.NBIRTH, "", [BD_SEQ]), (Kind.DBIRTH, "Drive1", DRIVE)):
        made.hear(birth)
    (gone,) = made.sparkplug.lost(UTC_NS, S)
    assert isinstance(gone, Block)
    assert set(gone.quality.tolist()) == {Quality.BAD_COMM}
    assert made.hear(message(b"\xff", "spBv1.0/Plant1/DDATA/Line4/Drive1")) == []
    assert made.counters["sparkplug_corrupt"] == 1
