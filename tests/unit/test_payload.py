"""The decoders of payload files: paths, numbers, times, and bursts in every dress."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from firmware_bridge.bursts import BurstDecoder
from firmware_bridge.errors import FrameError
from firmware_bridge.frames import MAX_CHUNKS, BurstAssembler
from firmware_bridge.jsonpath import JsonPath
from firmware_bridge.measurement import Quality, Waveform
from firmware_bridge.messages import MAX_JSON_BYTES, Message, Part, TimeReader, Told, clock_off
from firmware_bridge.payload import (
    BytesBurst,
    BytesIn,
    JsonBurst,
    JsonBurstProfile,
    JsonPoint,
    JsonProfile,
    PacketsProfile,
    Ref,
    TimeRef,
    channels,
)
from firmware_bridge.scalars import JsonDecoder
from firmware_bridge.topics import check_filter, filter_levels, matches
from firmware_bridge.units import STANDARD_GRAVITY_M_S2

S = 1_000_000_000
ABOUT: dict[str, Any] = {
    "vendor": "V", "model": "M", "title": "t", "source": "s", "sees": "all", "update_interval_s": 1.0,
}  # fmt: skip
TREE = {
    "a": {"b": [{"c": 1}, {"c": 2}]},
    "odd key": {"/port[1]/pdin": 5},
    "s": [{"n": "vib", "v": 1}, {"n": "t", "v": 2}, {"n": "vib", "v": 3}],
    "by_id": {"17": {"n": "t", "v": 4}},
}


# ---------------------------------------------------------------------- path expressions
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b[0].c", [1]),
        ("a.b[-1].c", [2]),
        ("a.b[*].c", [1, 2]),
        ('["odd key"]["/port[1]/pdin"]', [5]),
        ('s[?n=="vib"].v', [1, 3]),
        ("s[?v==2].n", ["t"]),
        ('by_id[?n=="t"].v', [4]),
        ("by_id.17.v", [4]),
        ("$.a.b[1].c", [2]),
        ("", [TREE]),
        ("a.b[2].c", []),
        ("a.b[-3].c", []),
        ("a.b.c", []),
        ("a[0]", []),
        ("nothing.at.all", []),
    ],
)
def test_a_path_finds_what_stands_there_and_nothing_else(path: str, found: list[Any]) -> None:
    """What is not there is no error: most messages leave something out."""
    assert JsonPath.parse(path).find(TREE) == found


def test_of_several_the_last_counts_and_true_is_not_one() -> None:
    """The newest reading stands last in a list; a selector compares kinds as well as values."""
    assert JsonPath.parse('s[?n=="vib"].v').last(TREE) == 3
    assert JsonPath.parse("s[?v==1].n").last({"s": [{"v": True, "n": "x"}]}, "none") == "none"


@pytest.mark.parametrize(
    ("path", "column", "what"),
    [
        ("a..b", 3, "a name is expected"),
        (".a", 1, "a name is expected"),
        ("a.", 3, "a name is expected"),
        ("a[x]", 2, "this bracket is not understood"),
        ("a['x']", 2, "this bracket is not understood"),
        ("abc[?n=vib]", 4, "this bracket is not understood"),
        ("a b", 2, "a dot or a bracket is expected"),
        ('a["\\x"]', 2, "the text in quotes is not as JSON writes it"),
        ("a[*", 2, "this bracket is not understood"),
    ],
)
def test_a_wrong_path_is_refused_with_its_column(path: str, column: int, what: str) -> None:
    """The engineer counts to the place and sees it."""
    with pytest.raises(ValueError, match="path ") as refused:
        JsonPath.parse(path)
    assert f"column {column}: {what}; write a.b" in str(refused.value)


# ---------------------------------------------------------------------- scalars
def decoder(*points: JsonPoint, part: Part | None = None, **more: Any) -> JsonDecoder:
    return JsonDecoder(JsonProfile(**ABOUT, points=points, **more), part or Part())


def point(path: str = "v", **more: Any) -> JsonPoint:
    return JsonPoint(**({"name": "level_pct", "plausible": (0.0, 100.0), "path": path} | more))


def one(raw: str, **more: Any) -> tuple[float, str] | None:
    """The value and quality of {"v": raw}."""
    comma = more.pop("decimal_comma", False)
    scalars = decoder(point(**more), decimal_comma=comma).decode(Message("t", f'{{"v":{raw}}}'.encode()))
    return None if scalars is None else (float(scalars.values[0]), Quality(int(scalars.quality[0])).name)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("12.5", 12.5), ('"12.5"', 12.5), ('" +1.25e1 "', 12.5), ("true", 1.0), ("false", 0.0), ("7", 7.0), ('".5"', 0.5),
    ],
)  # fmt: skip
def test_a_number_is_a_number_in_every_dress(raw: str, value: float) -> None:
    """Half of all gateways write numbers as text."""
    assert one(raw) == (value, "GOOD")


def test_a_decimal_comma_is_read_only_where_the_file_says_so() -> None:
    """ "12,5" elsewhere is more likely two numbers."""
    assert one('"12,5"', decimal_comma=True) == (12.5, "GOOD")
    assert one('"12,5"')[1] == "BAD"


@pytest.mark.parametrize(
    ("raw", "quality"),
    [
        ("null", "BAD_SENTINEL"), ("NaN", "BAD_SENTINEL"), ("-Infinity", "BAD_SENTINEL"), ('"unavailable"', "BAD_SENTINEL"),
        ("65535", "BAD_SENTINEL"), ('"65535"', "BAD_SENTINEL"), ("101", "BAD_RANGE"), ("-0.1", "BAD_RANGE"),
        ('"err"', "BAD"), ('"0x10"', "BAD"), ('"1_000"', "BAD"), ('"12 V"', "BAD"), ("[1]", "BAD"), ("{}", "BAD"),
        ("1e999", "BAD"), ("9" * 400, "BAD"), ('"' + "1" * 65 + '"', "BAD"), ('"nan"', "BAD"),
    ],
)  # fmt: skip
def test_what_is_no_value_says_why(raw: str, quality: str) -> None:
    """Not available, out of range and no number at all are three different things to a person who must mend it."""
    found = one(raw, absent=(65535.0, "unavailable"))
    assert found is not None
    assert np.isnan(found[0])
    assert found[1] == quality


def test_scale_and_offset_make_the_unit_and_the_range_is_in_it() -> None:
    """Fahrenheit in, Celsius out."""
    made = one("212", name="temperature_degc", scale=5 / 9, offset=-160 / 9, plausible=(-40.0, 150.0))
    assert made == (pytest.approx(100.0), "GOOD")


def test_a_bad_field_costs_its_own_point_and_a_missing_one_nothing() -> None:
    """A sensor that has lost its probe still has its other values."""
    made = decoder(point("a"), point("b", name="b_v"), point("c", name="c_v")).decode(Message("t", b'{"a":1,"b":"?"}'))
    assert made is not None
    assert made.places.tolist() == [0, 1]
    assert made.quality.tolist() == [Quality.GOOD, Quality.BAD]
    assert made.n_bad == 1
    assert decoder(point("a")).decode(Message("t", b'{"z":1}')) is None


@pytest.mark.parametrize(
    ("says", "payload"),
    [
        ("no JSON", b"{"), ("no JSON", b"\xff\xfe\x00"), ("no JSON", b'{"v":' + b"9" * 5000 + b"}"),
        ("nested too deeply", b"[" * 100_000), ("JSON is read up to", b" " * (MAX_JSON_BYTES + 1)),
    ],
)  # fmt: skip
def test_what_is_no_json_is_one_short_line(says: str, payload: bytes) -> None:
    """And the same line for every sensor on the topic, read once."""
    message = Message("t", payload)
    for _ in range(2):
        with pytest.raises(FrameError, match=says) as refused:
            message.tree()
        assert len(str(refused.value)) < 200


def test_one_topic_of_many_devices_is_told_apart() -> None:
    """By an address, by a place in a list, by the key of the device."""
    tree = {"addr": "00:13:a2", "d": {"port[1]": {"v": 3}, "port[2]": {"v": 4}}}
    message = Message("t", json.dumps(tree).encode())
    for path, equals, wanted in (("addr", "00:13:a2", True), ("addr", "00:13:a3", False), ("nothing", "", False)):
        part = Part(JsonPath.parse('d["port[2]"]'), JsonPath.parse(path), equals)
        made = decoder(point(), part=part).decode(message)
        assert (made is not None) == wanted
    assert decoder(point(), part=Part(JsonPath.parse("elsewhere"))).decode(message) is None


def test_numbers_inside_bytes_that_a_text_stands_for() -> None:
    """An IO-Link master publishes the port's process data in hex."""
    inside = {"encoding": "hex", "offset": 1, "type": "int16", "byte_order": "big"}
    assert one('"00002A"', bytes_in=BytesIn(**inside)) == (42.0, "GOOD")
    assert one('"00FFFF"', bytes_in=BytesIn(**inside))[1] == "BAD_RANGE"
    for raw in ('"0000"', '"zz002A"', "42", "null"):
        assert one(raw, bytes_in=BytesIn(**inside))[1] in ("BAD", "BAD_SENTINEL")


# ---------------------------------------------------------------------- times
@pytest.mark.parametrize(
    ("text", "format_", "ns"),
    [
        ('"2023-11-14T22:13:20Z"', "iso", 1_700_000_000 * S),
        ('"2023-11-14T22:13:20"', "iso", 1_700_000_000 * S),
        ('"2023-11-15T07:13:20.5+09:00"', "iso", 1_700_000_000 * S + S // 2),
        ('"2022-07-18T09:34:15.775023242+00:00"', "iso", 1_658_136_855_775_023_000),
        ("1700000000", "s", 1_700_000_000 * S),
        ("1700000000.25", "s", 1_700_000_000 * S + S // 4),
        ('"1700000000000"', "ms", 1_700_000_000 * S),
        ("1700000000000001", "us", 1_700_000_000_000_001_000),
        ("1700000000000000001", "ns", 1_700_000_000_000_000_001),
        ("null", "ms", 0),
        ('"soon"', "iso", -1),
        ('"soon"', "ms", -1),
        ("1e300", "s", -1),
        ("-5", "s", -1),
        ("99999999999999999999", "ns", -1),
        ('"0001-01-01T00:00:00+23:59"', "iso", -1),
    ],
)
def test_times_are_read_as_the_sensor_writes_them(text: str, format_: Any, ns: int) -> None:
    """0 is no time, -1 one that is none; a double never rounds whole nanoseconds."""
    reader = TimeReader(TimeRef(path="t", format=format_))
    assert reader.read(Told(json.loads(f'{{"t":{text}}}'), b"", [])) == ns


def test_a_clock_that_is_more_than_an_hour_off_is_noticed() -> None:
    """Either way; no time at all is nobody's mistake."""
    now = 1_700_000_000 * S
    assert [clock_off(t, now) for t in (0, now - 3599 * S, now - 3601 * S, now + 3601 * S, -1)] == [
        False, False, True, True, True,
    ]  # fmt: skip


# ---------------------------------------------------------------------- bursts in JSON
def burst(**more: Any) -> BurstDecoder:
    table = JsonBurst(**({"unit": "m_s2", "samples": {"z": "d"}, "sample_rate_hz": 1000.0} | more))
    return BurstDecoder(JsonBurstProfile(**ABOUT, burst=table), Part())


def waves_of(
    made: BurstDecoder, *messages: Any, topic: str = "t", assembler: BurstAssembler | None = None
) -> list[Waveform]:
    """What the messages (trees or bytes) become, each a second after the one before."""
    assembler = assembler or BurstAssembler()
    waves = []
    for at_s, message in enumerate(messages):
        octets = message if isinstance(message, bytes) else json.dumps(message).encode()
        for chunk in made.decode(Message(topic, octets)):
            waves += assembler.add_chunk("sensor", chunk, at_s * S, at_s * S, made.timeout_s)
    return waves


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("type_", ["int8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("encoding", ["base64", "hex"])
def test_samples_as_text_of_bytes(type_: str, byte_order: str, encoding: str) -> None:
    """Every type in both orders; a count is `scale` times g."""
    letter = {"int8": "b", "int16": "h", "int32": "i", "float32": "f", "float64": "d"}[type_]
    counts = [1, -2, 100]
    octets = struct.pack(f"{'<' if byte_order == 'little' else '>'}3{letter}", *counts)
    text = base64.b64encode(octets).decode() if encoding == "base64" else octets.hex()
    made = burst(encoding=encoding, type=type_, byte_order=byte_order, unit="g", scale=0.001)
    wave = waves_of(made, {"d": text})[0]
    assert wave.samples == pytest.approx(np.array(counts) * 0.001 * STANDARD_GRAVITY_M_S2, rel=1e-6)
    assert wave.samples.dtype == np.float32


def test_samples_of_several_axes_come_apart() -> None:
    """As lists of their own, as columns of objects, and one after the other in turn."""
    apart = {"x": [1, 2], "y": [3, 4]}
    rows = [{"x": 1, "y": 3}, {"x": 2, "y": 4}]
    shapes = [
        ({"x": "d.x", "y": "d.y"}, {"d": apart}),
        ({"x": "d[*].x", "y": "d[*].y"}, {"d": rows}),
        ({"x": "d[*].x", "y": "d[*].y"}, {"d": {"1": rows[0], "2": rows[1]}}),
        ({"x": "d[*][0]", "y": "d[*][1]"}, {"d": [[1, 3], [2, 4]]}),
        ({"xy": "d"}, {"d": [1, 3, 2, 4]}),
    ]
    for samples, tree in shapes:
        waves = waves_of(burst(samples=samples), tree)
        assert [(wave.axis, wave.samples.tolist()) for wave in waves] == [("x", [1.0, 2.0]), ("y", [3.0, 4.0])]
        assert len({wave.burst_id for wave in waves}) == 1


def test_rate_scale_axis_and_id_are_told_by_the_message_or_its_topic() -> None:
    """Also by codes: "800Hz" is 800, axis 2 is z."""
    made = burst(
        samples={"any": "d"},
        sample_rate_hz=None,
        sample_rate_at=Ref(path="odr", table={"800Hz": 800.0}),
        scale_at=Ref(path="lsb", scale=0.001),
        axis_at=Ref(level=-1, table={"0": "x", "1": "y", "2": "z"}),
        burst_id_at=Ref(path="id"),
    )
    tree = {"d": [1000, 2000], "odr": "800Hz", "lsb": 2, "id": 7}
    wave = waves_of(made, tree, topic="plant/vib/2")[0]
    assert (wave.axis, wave.sample_rate_hz, wave.burst_id) == ("z", 800.0, 7)
    assert wave.samples.tolist() == [2000 * 0.001, 4000 * 0.001]
    assert waves_of(made, tree | {"id": "3ac7e3c4"}, topic="a/0")[0].burst_id != 7
    for wrong in ({"odr": "900Hz"}, {"lsb": None}, {"lsb": 0}, {"id": 1.5}):
        with pytest.raises(FrameError):
            waves_of(made, tree | wrong, topic="plant/vib/2")
    with pytest.raises(FrameError, match="axis '7'"):
        waves_of(made, tree, topic="plant/vib/7")


def test_an_interval_is_a_rate_and_the_time_names_the_burst() -> None:
    """Axes sampled together carry the same time, in messages of their own."""
    made = burst(
        samples={"any": "d"},
        sample_rate_hz=None,
        sample_interval_at=Ref(path="dt", scale=1e-6),
        axis_at=Ref(path="axis"),
        time=TimeRef(path="t", format="ms"),
    )
    waves = waves_of(made, *({"d": [1, 2], "dt": 50, "axis": axis, "t": 1_700_000_000_123} for axis in "XYZ"))
    assert [wave.axis for wave in waves] == ["x", "y", "z"]
    assert len({wave.burst_id for wave in waves}) == 1
    assert {(wave.sample_rate_hz, wave.start_utc_ns) for wave in waves} == {(20000.0, 1_700_000_000_123 * 10**6)}
    with pytest.raises(FrameError, match="no time, which tells its burst"):
        waves_of(made, {"d": [1], "dt": 50, "axis": "x"})
    with pytest.raises(FrameError, match="sample rate"):
        waves_of(made, {"d": [1], "dt": 0, "axis": "x", "t": 1_700_000_000_123})


@pytest.mark.parametrize(
    ("says", "samples"),
    [
        ("0 samples", []), ("no list of numbers", [1, "2"]), ("no list of numbers", [1, True]), ("no list of numbers", [[1]]),
        ("no list of numbers", [None]), ("NaN, infinity", [1e39]), ("beyond any number", [10**400]),
        ("check unit and scale", [2e6]), ("no list of numbers", "AAAA"),
    ],
)  # fmt: skip
def test_samples_that_are_none_are_refused_whole(says: str, samples: Any) -> None:
    """One bad sample is a bad burst: a spectrum has no place for holes."""
    with pytest.raises(FrameError, match=says):
        waves_of(burst(), {"d": samples})
    assert waves_of(burst(), {"other": 1}) == [], "a message without samples is another kind of message"


@pytest.mark.parametrize(("encoding", "text"), [("base64", "AAA"), ("base64", "A!=="), ("hex", "0"), ("hex", "000")])
def test_text_that_stands_for_no_whole_samples_is_refused(encoding: str, text: str) -> None:
    """Cut short, or something else altogether."""
    with pytest.raises(FrameError):
        waves_of(burst(encoding=encoding), {"d": text})


# ---------------------------------------------------------------------- bursts in parts
PARTS: dict[str, Any] = {"index_at": Ref(path="i"), "count_at": Ref(path="n"), "first_index": 1}


def parts(burst_id: int, n: int = 3, value: int = 0) -> list[dict[str, Any]]:
    return [{"id": burst_id, "i": i + 1, "n": n, "d": [value + 10 * i, value + 10 * i + 1]} for i in range(n)]


def test_parts_join_in_any_order_once_each_and_not_without_all() -> None:
    """Duplicates, reordering and loss are what radio does."""
    made = burst(burst_id_at=Ref(path="id"), **PARTS)
    first, second, third = parts(1)
    assembler = BurstAssembler()
    waves = waves_of(made, third, first, first, second, second, third, assembler=assembler)
    assert [wave.samples.tolist() for wave in waves] == [[0, 1, 10, 11, 20, 21]]
    assert assembler.counters["duplicate"] == 3
    assert waves_of(made, first | {"id": 2}, third | {"id": 2}, assembler=assembler) == []
    assert assembler.n_open == 1
    assembler.expire(200 * S)
    assert assembler.counters["incomplete"] == 1


def test_each_product_has_its_own_patience() -> None:
    """Twelve packets over a slow mesh take minutes; a wired sensor takes a second."""
    made = burst(burst_id_at=Ref(path="id"), timeout_s=1.5, **PARTS)
    assembler = BurstAssembler()
    slow = [parts(1)[0], {"other": 1}, {"other": 1}, *parts(1)[1:]]
    assert waves_of(made, *slow, assembler=assembler) == []
    assert assembler.counters["incomplete"] == 1


def test_a_sensor_without_burst_ids_is_put_together_by_its_places() -> None:
    """Its second burst begins where the first one's first part comes again with other bytes; each has a name of its own."""
    made = burst(**PARTS)
    lost = parts(0, value=1)[:2]
    whole, next_one = parts(0, value=2), parts(0, value=3)
    assembler = BurstAssembler()
    waves = waves_of(made, *lost, *whole, *next_one, assembler=assembler)
    assert [wave.samples[0] for wave in waves] == [2.0, 3.0]
    assert len({wave.burst_id for wave in waves}) == 2
    assert assembler.counters["incomplete"] == 1


@pytest.mark.parametrize(
    "wrong", [{"i": 0}, {"i": 4}, {"n": 0}, {"n": MAX_CHUNKS + 1}, {"i": 1.5}, {"i": "one"}, {"n": None}]
)
def test_a_part_whose_place_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """Before it takes any memory."""
    with pytest.raises(FrameError, match=r"part|place"):
        waves_of(burst(burst_id_at=Ref(path="id"), **PARTS), parts(1)[0] | wrong)


def test_a_burst_longer_than_any_is_dropped_before_it_fills_the_memory() -> None:
    """512 parts of the largest message would be half a gigabyte."""
    made = burst(encoding="base64", type="int8", burst_id_at=Ref(path="id"), **PARTS)
    text = base64.b64encode(bytes(700_000)).decode()
    assembler = BurstAssembler()
    assert waves_of(made, *({"id": 1, "i": i + 1, "n": 512, "d": text} for i in range(4)), assembler=assembler) == []
    assert assembler.counters["oversized"] == 2
    assert assembler.n_open == 0


def packets(**more: Any) -> BurstDecoder:
    """A header of six bytes: magic, burst, part, parts, axis, rate; then int16."""
    table = BytesBurst(
        **(
            {
                "unit": "m_s2", "axes": "any", "first_byte": 6, "n_bytes_after": 1, "match": {"0": "AB"},
                "burst_id_at": Ref(offset=1), "index_at": Ref(offset=2, mask=0x7F), "count_at": Ref(offset=3),
                "axis_at": Ref(offset=4, mask=0x70, table={"0": "x", "1": "y", "7": "xyz"}),
                "sample_rate_at": Ref(offset=5, scale=100.0),
            }
            | more
        )
    )  # fmt: skip
    return BurstDecoder(PacketsProfile(**ABOUT, burst=table), Part())


def packet(index: int, counts: list[int], *, burst_id: int = 1, n: int = 2, axis: int = 0x70, rate: int = 10) -> bytes:
    return bytes([0xAB, burst_id, 0x80 | index, n, axis, rate]) + struct.pack(f"<{len(counts)}h", *counts) + b"\x55"


def test_binary_packets_join_and_three_axes_in_turn_may_be_cut_anywhere() -> None:
    """The second packet begins with z of the first triple."""
    waves = waves_of(packets(), packet(1, [3, 4, 5, 6]), packet(0, [1, 2]))
    assert [(wave.axis, wave.samples.tolist()) for wave in waves] == [("x", [1, 4]), ("y", [2, 5]), ("z", [3, 6])]
    assert {wave.sample_rate_hz for wave in waves} == {1000.0}


def test_packets_that_do_not_fit_are_told_apart() -> None:
    """Another kind of message is nothing, a damaged one is an error, a burst of uneven axes is dropped."""
    assert waves_of(packets(), b"\xac" + packet(0, [1])[1:]) == []
    assert waves_of(packets(), b"") == []
    for damaged in (
        packet(0, [1])[:-2],
        b"\xab\x01",
        packet(0, []),
        packet(2, [1]),
        packet(0, [1], axis=0x20),
        packet(0, [1], rate=0),
    ):
        with pytest.raises(FrameError):
            waves_of(packets(), damaged)
    assembler = BurstAssembler()
    assert waves_of(packets(), packet(0, [1, 2]), packet(1, [3, 4]), assembler=assembler) == []
    assert assembler.counters["corrupt"] == 1
    assert "do not join" in assembler.last_error


# ---------------------------------------------------------------------- topics
@pytest.mark.parametrize(
    ("filter_", "topic", "hit"),
    [
        ("a/b", "a/b", True), ("a/+", "a/b", True), ("a/+", "a/b/c", False), ("a/#", "a", True), ("a/#", "a/b/c", True),
        ("#", "$SYS/load", False), ("+/load", "$SYS/load", False), ("$SYS/#", "$SYS/load", True), ("+/+", "/", True),
        ("$share/hark/a/+", "a/b", True), ("a/+/c", "a/b", False), ("a", "a/b", False),
    ],
)  # fmt: skip
def test_filters_match_as_the_standard_says(filter_: str, topic: str, hit: bool) -> None:
    """MQTT 5.0, 4.7."""
    assert matches(filter_levels(check_filter(filter_)), topic.split("/")) is hit


# ---------------------------------------------------------------------- channels
def test_the_site_s_interval_is_believed_before_the_file_s() -> None:
    """A battery sensor is set to a slower rate than its maker's."""
    profile = JsonProfile(**ABOUT, points=(point(), point("b", name="b_v", update_interval_s=5.0)))
    assert [c.update_interval_s for c in channels(profile, "s")] == [1.0, 5.0]
    assert [c.update_interval_s for c in channels(profile, "s", 600.0)] == [600.0, 5.0]
