"""Sparkplug B: worked bytes, a host that never mistakes one value for another, and a node whose order is the specification's.

The ids (tck-id-...) are those of the normative statements of Eclipse Sparkplug 3.0.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from firmware_bridge.errors import FrameError
from firmware_bridge.measurement import Quality
from firmware_bridge.sparkplug.host import SparkplugHost, Update
from firmware_bridge.sparkplug.node import Message, SparkplugNode, decode_state
from firmware_bridge.sparkplug.topics import (
    BD_SEQ,
    REBIRTH,
    Kind,
    Topic,
    bd_seq_of,
    parse_topic,
    rebirth_command,
    topic_of,
    topic_state,
)
from firmware_bridge.sparkplug.wire import DataType, Metric, Payload, decode, encode

MS = 1_000_000
S = 1_000_000_000
NOW_MS = 1_763_700_000_000
NOW = NOW_MS * MS


# ---------------------------------------------------------------------- the wire
def test_a_message_worked_by_hand() -> None:
    """Fields, lengths and two's complement, byte for byte: a mistake in both directions would cancel out in a round trip."""
    # timestamp 1000, one metric {name "T", alias 5, datatype Int16, int_value 0xFFFFFFFE}, seq 7
    wire = bytes.fromhex("08e807 120d 0a0154 1005 2002 50feffffff0f 1807".replace(" ", ""))
    metric = Metric(name="T", alias=5, datatype=DataType.INT16, value=-2)
    assert decode(wire) == Payload(timestamp_ms=1000, seq=7, metrics=[metric])
    assert encode(Payload(timestamp_ms=1000, seq=7, metrics=[metric])) == wire


@pytest.mark.parametrize("wire", ["50fe01", "50feffffff0f", "50feffffffffffffffff01", "58feffffffffffffffff01"])
def test_a_negative_number_is_read_whatever_its_width(wire: str) -> None:
    """-2 as Int8: clients send one byte, four, ten, or the long field; all mean the same."""
    content = bytes.fromhex("2001" + wire)
    assert decode(b"\x12" + bytes([len(content)]) + content).metrics[0].value == -2


def test_the_short_field_has_32_bits_whoever_sign_extends_it() -> None:
    """DATA has no type: ten bytes of -2 are the same 32 bits as five, for the birth's type to read."""
    assert decode(bytes.fromhex("120b 50feffffffffffffffff01".replace(" ", ""))).metrics[0].value == 0xFFFFFFFE


def test_what_is_no_scalar_is_stepped_over() -> None:
    """DataSets, Templates, metadata and fields of a later version cost nothing and hide nothing behind them."""
    metadata = bytes.fromhex("4203 0a0178".replace(" ", ""))
    dataset = bytes.fromhex("8a0102 0800".replace(" ", ""))
    later = bytes.fromhex("a00601 f2060178".replace(" ", ""))
    content = bytes.fromhex("0a0154") + metadata + dataset + later
    found = decode(b"\x12" + bytes([len(content)]) + content + later + bytes.fromhex("1807"))
    assert (found.seq, found.metrics[0].name, found.metrics[0].value) == (7, "T", None)


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        ("12", "within a field"),
        ("120a0a01", "within a field"),
        ("08ffffffffffffffffffff01", "more than ten bytes"),
        ("0b", "wire type 3"),
        ("00", "number 0"),
        ("1203 0a01ff", "not UTF-8"),
        ("120450015801", "two values"),
        ("1205 4a03 0a0151", "1 property names and 0 values"),
        ("2212" + b"SPBV1.0_COMPRESSED".hex(), "compressed"),
        ("12" + "8504" + "0a" + "8204" + "41" * 514, "514 bytes; at most 512"),
    ],
)
def test_bytes_that_are_no_payload_are_one_clear_error(wire: str, why: str) -> None:
    """Whatever the bytes, the answer is a Payload or a FrameError that says what is wrong."""
    with pytest.raises(FrameError, match=why):
        decode(bytes.fromhex(wire.replace(" ", "")))


def test_size_and_number_are_bounded() -> None:
    """Two bytes make an empty metric: without a limit a message of 256 kB would become 100 MB of objects."""
    with pytest.raises(FrameError, match="more than 5000 metrics"):
        decode(b"\x12\x00" * 5001)
    with pytest.raises(FrameError, match="at most 262144"):
        decode(b"\x00" * 262_145)
    too_many = b"".join(b"\x0a\x01a\x12\x00" for _ in range(66))
    content = b"\x4a" + b"\xca\x02" + too_many
    with pytest.raises(FrameError, match="more than 64 properties"):
        decode(b"\x12" + b"\xcd\x02" + content)


@pytest.mark.parametrize(
    ("datatype", "value"), [(DataType.INT8, 128), (DataType.UINT16, -1), (DataType.UINT32, 1 << 32)]
)
def test_a_value_that_its_type_cannot_hold_is_refused(datatype: DataType, value: int) -> None:
    """Cut silently it would be another value in the SCADA system."""
    with pytest.raises(ValueError, match="does not fit"):
        encode(Payload(metrics=[Metric(name="n", datatype=datatype, value=value)]))


# ---------------------------------------------------------------------- topics
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.STATE])
def test_topics_come_back(kind: Kind) -> None:
    """tck-id-topic-structure and the ...-device-id-associated-message-types pair: a device where there must be one."""
    device = "M-101" if kind.startswith("D") else ""
    topic = topic_of("Plant 1:A", kind, "gw", device)
    assert topic == f"spBv1.0/Plant 1:A/{kind}/gw" + ("/M-101" if device else "")
    assert parse_topic(topic) == Topic("Plant 1:A", kind, "gw", device)
    with pytest.raises(ValueError, match="device"):
        topic_of("g", kind, "gw", "" if device else "M-101")


def test_a_host_s_state_has_its_own_topic() -> None:
    """tck-id-host-topic-phid-birth-topic: below the namespace since 3.0."""
    assert topic_state("scada") == "spBv1.0/STATE/scada"
    assert parse_topic("spBv1.0/STATE/scada") == Topic("", Kind.STATE, "scada")


@pytest.mark.parametrize(
    "topic",
    ["", "spBv1.0", "spAv1.0/g/NDATA/n", "spBv1.0/g/NDATA/n/d", "spBv1.0/g/DDATA/n", "spBv1.0//NDATA/n", "a/b/c/d",
     "spBv1.0/g/NBORN/n", "spBv1.0/g/NDATA/" + "n" * 129, "spBv1.0/g/DDATA/n/d/e"],
)  # fmt: skip
def test_other_topics_are_refused(topic: str) -> None:
    """A broker carries more than Sparkplug."""
    with pytest.raises(FrameError, match="is not Sparkplug's"):
        parse_topic(topic)


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "x" * 129])
def test_a_name_that_would_break_a_topic_is_refused(name: str) -> None:
    """tck-id-topic-structure-namespace-valid-group-id: + / # are reserved."""
    with pytest.raises(ValueError, match="cannot stand"):
        topic_of(name, Kind.NDATA, "n")


# ---------------------------------------------------------------------- the host
class Plant:
    """An edge node written by hand, so that host and node are not tested against each other only."""

    def __init__(self, host: SparkplugHost | None = None, node: str = "gw") -> None:
        self.host = host or SparkplugHost()
        self.node = node
        self.seq = 0
        self.at_s = 100.0

    def send(
        self, kind: Kind, metrics: Sequence[Metric], device: str = "", seq: int | None = None, stamp: bool = True
    ) -> list[Update]:
        used = self.seq if seq is None else seq
        self.seq = (used + 1) % 256
        number = None if kind is Kind.NDEATH else used
        payload = encode(Payload(timestamp_ms=NOW_MS if stamp else None, seq=number, metrics=metrics))
        return self.host.add(topic_of("g", kind, self.node, device), payload, NOW, round(self.at_s * S))

    def born(self, bd_seq: int = 0) -> list[Update]:
        """NBIRTH with one own metric, and one device with a number, a text and a switch."""
        self.seq = 0
        own = [Metric(name=BD_SEQ, datatype=DataType.INT64, value=bd_seq)]
        own += [
            Metric(name=REBIRTH, datatype=DataType.BOOLEAN, value=False),
            Metric(name="Load", alias=0, datatype=DataType.INT32, value=-3),
        ]
        device = [
            Metric(name="Vib/rms", alias=1, datatype=DataType.FLOAT, value=1.5),
            Metric(name="Name", alias=2, datatype=DataType.STRING, value="pump"),
            Metric(name="On", alias=3, datatype=DataType.BOOLEAN, value=True),
        ]
        return [*self.send(Kind.NBIRTH, own), *self.send(Kind.DBIRTH, device, "P-1")]

    def data(self, value: float, seq: int | None = None, **more: Any) -> list[Update]:
        return self.send(Kind.DDATA, [Metric(alias=1, value=value, **more)], "P-1", seq)

    def commands(self) -> list[tuple[str, bytes]]:
        return self.host.requests(round(self.at_s * S))


def told(updates: Sequence[Update]) -> list[tuple[str, dict[str, float]]]:
    return [(update.device, dict(update.values)) for update in updates]


def test_births_tell_every_number() -> None:
    """Names, types and signs are the birth's; text and the node's own controls are no measurements."""
    plant = Plant()
    updates = plant.born()
    assert told(updates) == [("", {"Load": -3.0}), ("P-1", {"Vib/rms": 1.5, "On": 1.0})]
    assert updates[1] == Update(
        "g",
        "gw",
        "P-1",
        {"Vib/rms": 1.5, "On": 1.0},
        {"Vib/rms": Quality.GOOD, "On": Quality.GOOD},
        NOW,
        historical=False,
        death=False,
    )
    assert plant.commands() == []


def test_data_by_alias_is_the_birth_s_metric_with_the_birth_s_type() -> None:
    """tck-id-payloads-alias-data-cmd-requirement, -metric-datatype-not-req: DATA has neither name nor type."""
    plant = Plant()
    plant.born()
    assert told(plant.data(2.5)) == [("P-1", {"Vib/rms": 2.5})]
    assert told(plant.send(Kind.NDATA, [Metric(alias=0, value=0xFFFFFFFF)])) == [("", {"Load": -1.0})]
    assert told(plant.send(Kind.DDATA, [Metric(alias=2, value="x")], "P-1")) == []


def test_values_of_different_times_are_told_apart() -> None:
    """A metric's own time comes first, the message's where it has none; 0 where nobody says."""
    plant = Plant()
    plant.born()
    metrics = [
        Metric(alias=1, value=2.0, timestamp_ms=NOW_MS - 5),
        Metric(alias=3, value=False),
        Metric(alias=1, value=1.0, timestamp_ms=NOW_MS - 9_000, is_historical=True),
    ]
    updates = plant.send(Kind.DDATA, metrics, "P-1")
    assert [(u.utc_ns, u.historical, dict(u.values)) for u in updates] == [
        (NOW - 5 * MS, False, {"Vib/rms": 2.0}),
        (NOW, False, {"On": 0.0}),
        (NOW - 9_000 * MS, True, {"Vib/rms": 1.0}),
    ]
    assert plant.host.counters["historical"] == 1
    silent = plant.send(Kind.DDATA, [Metric(alias=1, value=1.0)], "P-1", stamp=False)
    absurd = plant.send(Kind.DDATA, [Metric(alias=1, value=1.0, timestamp_ms=(1 << 64) - 1)], "P-1")
    assert [update.utc_ns for update in (*silent, *absurd)] == [0, 0]


@pytest.mark.parametrize(
    ("metric", "value", "quality"),
    [
        (Metric(alias=1, value=2.0), 2.0, Quality.GOOD),
        (Metric(alias=1, value=2.0, properties={"Quality": 192}), 2.0, Quality.GOOD),
        (Metric(alias=1, value=2.0, properties={"Quality": 500}), 2.0, Quality.UNCERTAIN),
        (Metric(alias=1, value=2.0, properties={"Quality": 64}), 2.0, Quality.UNCERTAIN),
        (Metric(alias=1, value=2.0, properties={"Quality": 0}), math.nan, Quality.BAD),
        (Metric(alias=1, is_null=True), math.nan, Quality.BAD_SENTINEL),
        (Metric(alias=1, value=9.0, is_null=True), math.nan, Quality.BAD_SENTINEL),
        (Metric(alias=1, value=math.nan), math.nan, Quality.BAD_SENTINEL),
        (Metric(alias=1, value=math.inf), math.nan, Quality.BAD_SENTINEL),
        (Metric(alias=1), math.nan, Quality.BAD_SENTINEL),
    ],
)
def test_a_value_that_is_not_available_is_never_a_number(metric: Metric, value: float, quality: Quality) -> None:
    """tck-id-payloads-propertyset-quality-value-value: 0 bad, 192 good, 500 stale; null and NaN are the sentinels here."""
    plant = Plant()
    plant.born()
    (update,) = plant.send(Kind.DDATA, [metric], "P-1")
    assert update.quality == {"Vib/rms": quality}
    assert update.values["Vib/rms"] == pytest.approx(value, nan_ok=True)


def test_data_before_a_birth_asks_for_one_and_tells_nothing() -> None:
    """An alias alone means nothing; who joins late asks (chapter 5, commands), once in ten seconds, then less often."""
    plant = Plant()
    asked = []
    for _ in range(100):
        assert plant.data(1.0) == []
        asked += [(round(plant.at_s), *command) for command in plant.commands()]
        plant.at_s += 1.0
    assert [at_s for at_s, *_ in asked] == [100, 110, 130, 170]
    assert asked[0][1] == "spBv1.0/g/NCMD/gw"
    assert decode(asked[0][2]) == Payload(
        timestamp_ms=NOW_MS,
        metrics=[Metric(name=REBIRTH, timestamp_ms=NOW_MS, datatype=DataType.BOOLEAN, value=True)],
    )
    assert plant.host.counters["stale"] == 100
    assert plant.host.counters["rebirths_asked"] == 4
    plant.born(bd_seq=3)
    assert told(plant.data(1.0)) == [("P-1", {"Vib/rms": 1.0})]


def test_a_device_must_be_born_itself() -> None:
    """tck-id-payloads-ddata-order: DDATA before its DBIRTH is not understood, though the node is known."""
    plant = Plant()
    plant.born()
    assert plant.send(Kind.DDATA, [Metric(name="Vib/rms", value=1.0)], "P-2") == []
    assert len(plant.commands()) == 1


def test_an_alias_never_reaches_into_another_device() -> None:
    """Attributing a value to the wrong machine is worse than losing it; so is an alias that two metrics claim."""
    plant = Plant()
    plant.born()
    assert plant.send(Kind.DDATA, [Metric(alias=0, value=5)], "P-1") == []
    twice = [Metric(name=name, alias=9, datatype=DataType.FLOAT, value=0.0) for name in ("a", "b")]
    plant.send(Kind.DBIRTH, twice, "P-2")
    assert plant.send(Kind.DDATA, [Metric(alias=9, value=5.0)], "P-2") == []
    assert told(plant.send(Kind.DDATA, [Metric(name="b", value=5.0)], "P-2")) == [("P-2", {"b": 5.0})]
    assert plant.host.counters["unknown_metrics"] == 2
    assert len(plant.commands()) == 1


def test_messages_out_of_order_are_put_in_order() -> None:
    """tck-id-operational-behavior-host-reordering-start and -success: wait, do not ask, and tell in the order sent."""
    plant = Plant()
    plant.born()  # 0, 1
    assert plant.data(4.0, seq=4) == []
    assert plant.data(3.0, seq=3) == []
    plant.at_s += 1.9
    assert told(plant.data(2.0, seq=2)) == [("P-1", {"Vib/rms": value}) for value in (2.0, 3.0, 4.0)]
    plant.at_s += 60
    assert plant.host.expire(round(plant.at_s * S)) == []
    assert plant.commands() == []
    assert (plant.host.counters["out_of_order"], plant.host.counters["missing"]) == (2, 0)


def test_a_message_that_never_comes_asks_for_a_rebirth_and_holds_nothing_back() -> None:
    """tck-id-operational-behavior-host-reordering-rebirth: after the timeout the rest is told, and the births are asked for."""
    plant = Plant()
    plant.born()
    plant.data(3.0, seq=3)
    plant.data(6.0, seq=6)
    assert plant.commands() == []
    plant.at_s += 2.0
    assert told(plant.host.expire(round(plant.at_s * S))) == [("P-1", {"Vib/rms": 3.0}), ("P-1", {"Vib/rms": 6.0})]
    assert plant.host.counters["missing"] == 3
    assert len(plant.commands()) == 1
    assert told(plant.data(7.0, seq=7)) == [("P-1", {"Vib/rms": 7.0})]


def test_what_waited_before_a_birth_or_death_is_of_a_session_that_is_over() -> None:
    """Told after it, an old alias would be read with the new birth's names."""
    plant = Plant()
    for over in (lambda: plant.born(bd_seq=1), lambda: plant.send(Kind.NDEATH, [])):
        plant.born()
        assert plant.data(9.0, seq=9) == []
        over()
        plant.at_s += 2
        assert plant.host.expire(round(plant.at_s * S)) == []
        assert plant.commands() == []


def test_a_birth_that_comes_by_itself_needs_no_request() -> None:
    """A rebirth of a large node is heavy; nobody asks for what has just come."""
    plant = Plant()
    plant.data(1.0)
    plant.born()
    assert plant.commands() == []


def test_the_same_content_256_messages_later_is_no_duplicate() -> None:
    """A clock that stands still makes equal messages; only one that comes again in its own place is a repetition."""
    plant = Plant()
    plant.born()
    while plant.seq != 5:
        plant.data(2.0)
    for _ in range(256):
        plant.data(2.0)
    assert plant.data(2.0, seq=6) == []
    assert len(plant.data(2.0, seq=5)) == 2
    assert plant.host.counters["duplicates"] == 0


def test_the_sequence_wraps_from_255_to_0() -> None:
    """tck-id-payloads-sequence-num-incrementing; clients made from a proto3 copy of the definition leave a 0 out."""
    plant = Plant()
    plant.born()
    for i in range(600):
        assert told(plant.data(float(i))) == [("P-1", {"Vib/rms": float(i)})]
    while plant.seq:
        plant.data(0.0)
    without = encode(Payload(metrics=[Metric(alias=1, value=7.0)]))
    assert told(plant.host.add("spBv1.0/g/DDATA/gw/P-1", without, NOW, 0)) == [("P-1", {"Vib/rms": 7.0})]
    assert plant.host.counters["out_of_order"] == 0
    assert plant.commands() == []


def test_a_duplicate_is_told_once() -> None:
    """A bridge between brokers may send twice; but the same number with other content is a session that we missed."""
    plant = Plant()
    plant.born()
    plant.data(2.0)
    assert plant.data(2.0, seq=2) == []
    assert (plant.host.counters["duplicates"], plant.commands()) == (1, [])
    assert plant.data(3.0, seq=2) == []
    assert plant.host.counters["out_of_order"] == 1
    assert len(plant.commands()) == 1


def test_the_death_of_this_session_takes_every_value_with_it() -> None:
    """tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale and -devices-tags-stale."""
    plant = Plant()
    plant.born(bd_seq=7)
    updates = plant.send(Kind.NDEATH, [Metric(name=BD_SEQ, datatype=DataType.INT64, value=7)])
    assert [(update.device, sorted(update.values), update.death) for update in updates] == [
        ("", ["Load"], True),
        ("P-1", ["On", "Vib/rms"], True),
    ]
    assert {quality for update in updates for quality in update.quality.values()} == {Quality.BAD_COMM}
    assert all(math.isnan(value) for update in updates for value in update.values.values())
    assert plant.data(1.0) == []
    assert len(plant.commands()) == 1


def test_the_will_of_an_earlier_session_is_ignored() -> None:
    """tck-id-payloads-ndeath-bdseq: a broker may send the old will after the new birth; believing it would mute live data."""
    plant = Plant()
    plant.born(bd_seq=8)
    assert plant.send(Kind.NDEATH, [Metric(name=BD_SEQ, datatype=DataType.INT64, value=7)], seq=plant.seq - 1) == []
    assert plant.host.counters["stale"] == 1
    assert told(plant.data(1.0)) == [("P-1", {"Vib/rms": 1.0})]


def test_the_death_of_a_device_leaves_the_others_alone() -> None:
    """tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale."""
    plant = Plant()
    plant.born()
    (update,) = plant.send(Kind.DDEATH, [], "P-1")
    assert (update.device, update.death, update.quality["Vib/rms"]) == ("P-1", True, Quality.BAD_COMM)
    assert told(plant.send(Kind.NDATA, [Metric(alias=0, value=4)])) == [("", {"Load": 4.0})]
    assert plant.data(1.0) == []


def test_a_new_birth_tells_what_is_no_longer_there() -> None:
    """Chapter 4, NBIRTH: devices are stale until their own new birth; a metric that vanished must not stand as good for ever."""
    plant = Plant()
    plant.born()
    plant.seq = 0
    updates = plant.send(Kind.NBIRTH, [Metric(name="Other", datatype=DataType.FLOAT, value=1.0)])
    assert [(update.device, sorted(update.values), update.death) for update in updates] == [
        ("P-1", ["On", "Vib/rms"], True),
        ("", ["Load"], True),
        ("", ["Other"], False),
    ]


def test_our_own_broker_s_loss_is_everybody_s() -> None:
    """Chapter 5, host session establishment: what cannot be heard is not good; after it every node is asked for its births."""
    plant = Plant()
    plant.born()
    assert {quality for update in plant.host.lost(NOW) for quality in update.quality.values()} == {Quality.BAD_COMM}
    assert plant.data(1.0) == []
    assert len(plant.commands()) == 1


def test_a_node_that_says_nothing_is_asked_for_its_births() -> None:
    """By exception means that a healthy node may be silent for hours; who connects asks, who knows does not."""
    plant = Plant()
    plant.host.expect("g", "gw")
    assert [topic for topic, _ in plant.commands()] == ["spBv1.0/g/NCMD/gw"]
    plant.born()
    plant.at_s += 60
    plant.host.expect("g", "gw")
    assert plant.commands() == []


def test_bad_bytes_are_counted_and_show_as_a_message_that_is_missing() -> None:
    """Damage is no reason to lose the account of the node."""
    plant = Plant()
    plant.born()
    assert plant.host.add("spBv1.0/g/DDATA/gw/P-1", b"\x12", NOW, 100 * S) == []
    assert "within a field" in plant.host.last_error
    plant.data(3.0, seq=3)
    plant.at_s += 2
    assert told(plant.host.expire(round(plant.at_s * S))) == [("P-1", {"Vib/rms": 3.0})]
    assert (plant.host.counters["corrupt"], plant.host.counters["missing"]) == (1, 1)


def test_commands_states_and_other_topics_are_no_news() -> None:
    """A host that subscribes to everything hears the commands of other hosts."""
    host = SparkplugHost()
    for topic in ("spBv1.0/g/NCMD/gw", "spBv1.0/STATE/scada", "plant/temperature"):
        assert host.add(topic, b"{}", NOW, 0) == []
    assert host.counters["foreign"] == 3


def test_nodes_devices_and_metrics_are_bounded() -> None:
    """Anybody who may publish could otherwise fill our memory; a node that is not born gives way to one that speaks."""
    host = SparkplugHost(max_nodes=2, max_devices=1, max_metrics=6)
    first = Plant(host, "n1")
    first.born()
    assert host.n_metrics == 6
    assert first.send(Kind.DBIRTH, [Metric(name="x", datatype=DataType.FLOAT, value=1.0)], "P-2") == []
    second = Plant(host, "n2")
    assert second.send(Kind.NBIRTH, [Metric(name="x", datatype=DataType.FLOAT, value=1.0)]) == []
    assert host.n_metrics == 6
    third = Plant(host, "n3")
    third.send(Kind.NDATA, [])
    assert host.counters["refused"] == 2
    assert [topic for topic, _ in third.commands()] == ["spBv1.0/g/NCMD/n3"]


def test_a_node_beyond_the_table_is_refused_while_all_others_live() -> None:
    """Those who are heard already are not put out by a newcomer."""
    host = SparkplugHost(max_nodes=1)
    Plant(host, "n1").born()
    assert Plant(host, "n2").born() == []
    assert host.counters["refused"] == 2
    assert "more than 1 edge nodes" in host.last_error


def test_what_waits_for_a_missing_message_is_bounded() -> None:
    """A hole in the sequence must not become a store of large messages."""
    plant = Plant()
    plant.born()
    text = Metric(alias=2, value="x" * 200_000)
    assert plant.send(Kind.DDATA, [Metric(alias=1, value=5.0), text], "P-1", seq=5) == []
    updates = plant.send(Kind.DDATA, [Metric(alias=1, value=6.0), text], "P-1", seq=6)
    assert told(updates) == [("P-1", {"Vib/rms": 5.0}), ("P-1", {"Vib/rms": 6.0})]


# ---------------------------------------------------------------------- the node
STATE_OF_M1 = {"State": "running", "Score": 0.4, "Alarm/Active": False, "Alarm/Count": 0}


class Scada:
    """Reads what a node sends, with nothing but the codec."""

    def __init__(self, node: SparkplugNode) -> None:
        self.node = node
        self.heard: list[tuple[str, str, Payload]] = []

    def hear(self, messages: Sequence[Message]) -> list[str]:
        """The new messages in short: NBIRTH, DDATA:M-1."""
        names = []
        for message in messages:
            topic = parse_topic(message.topic)
            assert (message.qos, message.retain) == (1 if topic.kind is Kind.NDEATH else 0, False)
            self.heard.append((topic.kind, topic.device, decode(message.payload)))
            names.append(f"{topic.kind}:{topic.device}" if topic.device else str(topic.kind))
        return names

    def command(self, name: str = REBIRTH, value: bool = True) -> list[str]:
        payload = encode(Payload(timestamp_ms=NOW_MS, metrics=[Metric(name=name, datatype=11, value=value)]))
        return self.hear(self.node.received(f"spBv1.0/{self.node.group}/NCMD/{self.node.node}", payload, NOW))

    def values(self, message: int = -1) -> Mapping[str | int | None, object]:
        return {metric.name or metric.alias: metric.value for metric in self.heard[message][2].metrics}

    @property
    def seqs(self) -> list[int]:
        return [-1 if payload.seq is None else payload.seq for _, _, payload in self.heard]


def running(**more: Any) -> tuple[SparkplugNode, Scada]:
    """A node with one machine, connected."""
    node = SparkplugNode("plant", "gw-01", **more)
    scada = Scada(node)
    node.tell("M-1", STATE_OF_M1, NOW)
    node.connecting()
    scada.hear(node.connected(NOW))
    return node, scada


def test_births_come_first_and_in_order() -> None:
    """tck-id-payloads-nbirth-seq, -dbirth-order, -topics-nbirth-rebirth-metric: NBIRTH with 0, then every device."""
    node = SparkplugNode("plant", "gw-01")
    scada = Scada(node)
    assert node.tell("", {"Properties/Software": "hark"}, NOW) == []
    assert node.tell("M-1", STATE_OF_M1, NOW) == []
    assert node.tell("M-2", {"State": None}, NOW) == []
    will = node.connecting()
    assert scada.hear(node.connected(NOW)) == ["NBIRTH", "DBIRTH:M-1", "DBIRTH:M-2"]
    assert scada.seqs == list(range(len(scada.heard)))
    nbirth = scada.heard[0][2]
    assert bd_seq_of(nbirth) == bd_seq_of(decode(will.payload)) == 0
    rebirth = next(metric for metric in nbirth.metrics if metric.name == REBIRTH)
    assert (rebirth.value, rebirth.datatype, rebirth.alias) == (False, DataType.BOOLEAN, None)
    assert scada.values(1) == STATE_OF_M1
    null = scada.heard[2][2].metrics[0]
    assert (null.name, null.is_null, null.value, null.datatype) == ("State", True, None, DataType.DOUBLE)


def test_every_metric_of_a_birth_is_whole() -> None:
    """tck-id-topics-dbirth-metrics, -payloads-alias-uniqueness, -name-birth-data-requirement, -metric-datatype-req."""
    node, scada = running()
    node.tell("M-2", STATE_OF_M1, NOW)
    scada.command()
    metrics = [metric for kind, _, payload in scada.heard[-3:] for metric in payload.metrics if kind == Kind.DBIRTH]
    aliases = [metric.alias for metric in metrics]
    assert len(metrics) == len(set(aliases)) == 8
    assert None not in aliases
    assert all(metric.name and metric.datatype and metric.timestamp_ms == NOW_MS for metric in metrics)
    assert all(payload.timestamp_ms == NOW_MS for _, _, payload in scada.heard)


def test_data_is_what_changed_by_alias() -> None:
    """tck-id-operational-behavior-data-publish-dbirth-change, -payloads-alias-data-cmd-requirement, -ddata-seq-inc."""
    node, scada = running()
    scada.heard.clear()
    later = NOW + S
    assert scada.hear(node.tell("M-1", STATE_OF_M1, later)) == []
    assert scada.hear(node.tell("M-1", {**STATE_OF_M1, "Score": 0.5, "Alarm/Count": 1}, later)) == ["DDATA:M-1"]
    metrics = scada.heard[0][2].metrics
    assert [(metric.name, metric.datatype, metric.value, metric.timestamp_ms) for metric in metrics] == [
        ("", DataType.UNKNOWN, 0.5, NOW_MS + 1000),
        ("", DataType.UNKNOWN, 1, NOW_MS + 1000),
    ]
    assert scada.hear(node.tell("M-1", {**STATE_OF_M1, "Score": math.nan, "Alarm/Count": 1}, later)) == ["DDATA:M-1"]
    assert [(metric.is_null, metric.value) for metric in scada.heard[1][2].metrics] == [(True, None)]


def test_the_node_s_sequence_is_one_for_all_and_wraps() -> None:
    """tck-id-payloads-sequence-num-incrementing: 0 to 255 across NDATA, DDATA, DBIRTH and DDEATH, then 0 again."""
    node, scada = running()
    node.tell("", {"Uptime": 0}, NOW)
    scada.heard.clear()
    first = node.tell("", {"Uptime": 1}, NOW)
    scada.hear(first)
    for i in range(300):
        scada.hear(node.tell("" if i % 2 else "M-1", {"Uptime": 2 + i} if i % 2 else {"Score": float(i)}, NOW))
    seqs = scada.seqs
    assert [(before + 1) % 256 for before in seqs[:-1]] == seqs[1:]
    assert {0, 255} <= set(seqs)


def test_a_new_metric_is_born_before_its_data() -> None:
    """tck-id-topics-dbirth-metric-reqs: data may only hold what the last birth announced, with its type."""
    node, scada = running()
    assert scada.hear(node.tell("M-1", {**STATE_OF_M1, "Values/a": 1}, NOW)) == ["DBIRTH:M-1"]
    assert scada.hear(node.tell("M-1", {**STATE_OF_M1, "Values/a": 1.5}, NOW)) == ["DBIRTH:M-1"]
    assert scada.values()["Values/a"] == 1.5
    assert scada.hear(node.tell("M-1", {**STATE_OF_M1, "Values/a": 2}, NOW)) == ["DDATA:M-1"]
    assert list(scada.values().values()) == [2.0]
    assert scada.hear(node.tell("", {"Uptime": 1}, NOW)) == ["NBIRTH", "DBIRTH:M-1"]


def test_a_rebirth_repeats_all_births_with_the_bd_seq_of_the_connection() -> None:
    """tck-id-operational-behavior-data-commands-rebirth-action-1 to -3: DATA stops, births go out, same bdSeq, from seq 0."""
    node, scada = running()
    scada.hear(node.tell("M-1", {**STATE_OF_M1, "Score": 0.9}, NOW))
    scada.heard.clear()
    assert scada.command() == ["NBIRTH", "DBIRTH:M-1"]
    assert scada.seqs == [0, 1]
    assert bd_seq_of(scada.heard[0][2]) == 0
    assert scada.values()["Score"] == 0.9
    assert scada.hear(node.tell("M-1", {**STATE_OF_M1, "Score": 0.8}, NOW)) == ["DDATA:M-1"]
    assert scada.seqs[-1] == 2


@pytest.mark.parametrize(("name", "value"), [(REBIRTH, False), ("Node Control/Reboot", True)])
def test_other_commands_move_nothing(name: str, value: bool) -> None:
    """Hark is never written to: the same field bus that gives the current also starts the motor."""
    node, scada = running()
    assert scada.command(name, value) == []
    assert node.received("spBv1.0/plant/NCMD/gw-02", rebirth_command("plant", "gw-02", NOW)[1], NOW) == []
    assert node.received("spBv1.0/plant/NCMD/gw-01", b"\xff", NOW) == []
    assert node.counters["ignored"] == 3


def test_bd_seq_counts_the_connects_and_wraps() -> None:
    """tck-id-message-flow-edge-node-birth-publish-will-message-payload-bdSeq: +1 each CONNECT, 255 is followed by 0."""
    node = SparkplugNode("plant", "gw-01", last_bd_seq=253)
    wills = [node.connecting() for _ in range(4)]
    assert [bd_seq_of(decode(will.payload)) for will in wills] == [254, 255, 0, 1]
    payload = decode(wills[0].payload)
    assert (wills[0].topic, wills[0].qos, wills[0].retain) == ("spBv1.0/plant/NDEATH/gw-01", 1, False)
    assert (payload.seq, len(payload.metrics), payload.metrics[0].datatype) == (None, 1, DataType.INT64)


def test_a_clean_stop_says_so() -> None:
    """tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath; a node without a connection has none to end."""
    node, scada = running()
    assert scada.hear(node.stop()) == ["NDEATH"]
    assert bd_seq_of(scada.heard[-1][2]) == 0
    assert SparkplugNode("plant", "gw-01").stop() == []


def test_a_lost_device_dies_once_and_is_born_again() -> None:
    """tck-id-operational-behavior-device-ddeath, -payloads-ddeath-seq: within the sequence, with no metrics."""
    node, scada = running()
    scada.heard.clear()
    assert scada.hear(node.device_lost("M-1", NOW)) == ["DDEATH:M-1"]
    assert (scada.seqs, scada.heard[0][2].metrics) == ([2], [])
    assert node.device_lost("M-1", NOW) == []
    assert scada.command() == ["NBIRTH"]
    assert scada.hear(node.tell("M-1", STATE_OF_M1, NOW)) == ["DBIRTH:M-1"]


def test_what_nobody_could_hear_follows_as_history() -> None:
    """Chapter 6, is_historical: the original times, after the births, which have the newest value themselves."""
    node, scada = running()
    node.disconnected()
    for i in range(3):
        assert node.tell("M-1", {**STATE_OF_M1, "Score": 0.5 + i}, NOW + i * S) == []
    node.connecting()
    scada.heard.clear()
    assert scada.hear(node.connected(NOW + 9 * S)) == ["NBIRTH", "DBIRTH:M-1", "DDATA:M-1"]
    assert scada.values(1)["Score"] == 2.5
    past = scada.heard[2][2].metrics
    assert all(metric.is_historical for metric in past)
    assert [(metric.value, metric.timestamp_ms) for metric in past] == [(0.5, NOW_MS), (1.5, NOW_MS + 1000)]
    assert scada.command() == ["NBIRTH", "DBIRTH:M-1"]


def test_a_device_that_is_lost_has_no_history_before_its_birth() -> None:
    """tck-id-payloads-ddata-order: its values of the past would be data of a device that was never born."""
    node = SparkplugNode("plant", "gw-01")
    for i in range(3):
        node.tell("M-1", {"Score": float(i)}, NOW + i * S)
    node.device_lost("M-1", NOW + 3 * S)
    node.connecting()
    assert Scada(node).hear(node.connected(NOW)) == ["NBIRTH"]
    assert node.counters["backlog_dropped"] == 2


def test_history_and_metrics_are_bounded_and_their_loss_is_counted() -> None:
    """A broker that is away for a week must not fill the memory; the oldest goes first."""
    node = SparkplugNode("plant", "gw-01", max_backlog=10, max_metrics=2)
    for i in range(100):
        node.tell("M-1", {"a": i, "b": 2 * i, "c": 0}, NOW + i * S)
    assert node.counters["metrics_refused"] == 100
    scada = Scada(node)
    node.connecting()
    scada.hear(node.connected(NOW))
    assert [metric.value for metric in scada.heard[-1][2].metrics] == [v for i in range(95, 99) for v in (i, 2 * i)]
    assert node.counters["backlog_dropped"] == 200 - 10


def state(online: bool, at_ms: int) -> bytes:
    return json.dumps({"online": online, "timestamp": at_ms}).encode()


def test_births_wait_for_the_primary_host() -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-wait, -wait-id, -wait-online, -wait-timestamp."""
    node, scada = running(primary_host="scada")
    assert scada.heard == []
    assert node.subscriptions == [("spBv1.0/plant/NCMD/gw-01", 1), ("spBv1.0/STATE/scada", 1)]
    assert node.received("spBv1.0/STATE/other", state(True, 1000), NOW) == []
    assert node.received("spBv1.0/STATE/scada", state(False, 1000), NOW) == []
    assert node.received("spBv1.0/STATE/scada", state(True, 999), NOW) == []
    assert not node.born
    assert scada.command() == []
    assert scada.hear(node.received("spBv1.0/STATE/scada", state(True, 1000), NOW)) == ["NBIRTH", "DBIRTH:M-1"]
    assert node.received("spBv1.0/STATE/scada", state(True, 1001), NOW) == []


def test_the_primary_host_s_end_ends_the_session() -> None:
    """tck-id-operational-behavior-edge-node-termination-host-offline, -timestamp: not for news older than the last."""
    node, scada = running(primary_host="scada")
    scada.hear(node.received("spBv1.0/STATE/scada", state(True, 1000), NOW))
    assert node.received("spBv1.0/STATE/scada", state(False, 999), NOW) == []
    assert not node.must_leave
    assert scada.hear(node.received("spBv1.0/STATE/scada", state(False, 1000), NOW)) == ["NDEATH"]
    assert node.must_leave
    node.disconnected()
    assert not node.must_leave
    for i in (1, 2):
        node.tell("M-1", {**STATE_OF_M1, "Score": 0.7 + i}, NOW + i * S)
    node.connecting()
    assert node.connected(NOW) == []
    assert node.received("spBv1.0/STATE/scada", state(False, 1000), NOW) == []
    assert not node.must_leave  # nothing was published that could be missed
    scada.heard.clear()
    assert scada.hear(node.received("spBv1.0/STATE/scada", state(True, 2000), NOW))[-1] == "DDATA:M-1"
    assert bd_seq_of(scada.heard[0][2]) == 1
    assert scada.heard[-1][2].metrics[-1].is_historical


@pytest.mark.parametrize(
    "payload",
    [b"ONLINE", b"{}", b"[]", b'{"online":1,"timestamp":1}', b'{"online":true,"timestamp":"1"}', b"[" * 1000, b" " * 1025,
     b"\xff", b'{"online":true,"timestamp":1.5}'],
)  # fmt: skip
def test_a_state_that_is_none_is_an_error(payload: bytes) -> None:
    """tck-id-host-topic-phid-birth-payload; the text of before 3.0 is named as such."""
    with pytest.raises(FrameError, match="STATE"):
        decode_state(payload)


def test_host_and_node_understand_each_other() -> None:
    """The two halves over a lossless wire: every number arrives under its machine and name."""
    node, host = SparkplugNode("plant", "gw-01"), SparkplugHost()
    node.tell("M-1", STATE_OF_M1, NOW)
    node.connecting()
    updates: list[Update] = []

    def carry(messages: Sequence[Message]) -> None:
        for message in messages:
            updates.extend(host.add(message.topic, message.payload, NOW, 0))

    carry(node.connected(NOW))
    carry(node.tell("M-1", {**STATE_OF_M1, "Score": 1.25, "Alarm/Active": True}, NOW + S))
    carry(node.device_lost("M-1", NOW))
    carry(node.tell("M-1", {**STATE_OF_M1, "Score": None}, NOW + S))
    seen = [(update.device, update.values["Score"], update.death) for update in updates if "Score" in update.values]
    assert seen[:2] == [("M-1", 0.4, False), ("M-1", 1.25, False)]
    assert [death for _, _, death in seen] == [False, False, True, False]
    assert math.isnan(seen[3][1])
    assert [update.quality["Score"] for update in updates if "Score" in update.quality][-1] == Quality.BAD_SENTINEL
    assert {name: count for name, count in host.counters.items() if count} == {
        "births": 3, "data": 1, "deaths": 1,
    }  # fmt: skip
