"""Burst chunks and readings: whole or not at all, bounded, and every loss counted under its own name."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from firmware_bridge.errors import FrameError
from firmware_bridge.frames import (
    CRC,
    HEADER,
    BurstAssembler,
    decode_chunk,
    decode_readings,
    encode_burst,
    encode_readings,
    parse_sensor_topic,
    topic_burst,
    topic_readings,
)
from firmware_bridge.measurement import Quality, Waveform

S = 1_000_000_000


def burst(n: int = 1000, burst_id: int = 1, axis: str = "z", max_bytes: int = 600, **more: object) -> list[bytes]:
    counts = (np.arange(n) % 1000).astype(np.int16)
    said = {"sample_rate_hz": 25600.0, "scale_m_s2": 0.005} | more
    return encode_burst(counts, axis=axis, burst_id=burst_id, max_bytes=max_bytes, **said)


def forged(message: bytes, offset: int, shape: str, value: object) -> bytes:
    """The message with one field changed and a CRC that fits again: what a firmware bug would send."""
    body = bytearray(message[: -CRC.size])
    struct.pack_into(shape, body, offset, value)
    return bytes(body) + CRC.pack(zlib.crc32(body))


def feed(assembler: BurstAssembler, chunks: list[bytes], at_s: float = 1.0, axis: str = "z") -> list[Waveform]:
    made = [assembler.add("accel", axis, chunk, round(at_s * S), round(at_s * S)) for chunk in chunks]
    return [wave for wave in made if wave is not None]


def test_one_second_of_25_6_khz_is_one_message_below_the_cloud_s_limit() -> None:
    """AWS disconnects above 128 KB; eight seconds of a slow axis still go out in few pieces."""
    assert [len(chunk) for chunk in burst(25_600, max_bytes=100_000)] == [51_252]
    assert max(len(chunk) for chunk in burst(204_800, max_bytes=100_000)) <= 100_000


def test_a_burst_comes_back_in_metres_per_second_squared() -> None:
    """Counts times scale, rate and times as sent, stamped with both of the gateway's clocks."""
    wave = feed(BurstAssembler(), burst(1000, start_utc_ns=77), 5.0)[0]
    assert wave.samples == pytest.approx((np.arange(1000) % 1000) * 0.005, rel=1e-6)
    assert wave.samples.dtype == np.float32
    assert (wave.sensor, wave.axis, wave.start_utc_ns, wave.utc_ns, wave.monotonic_ns) == (
        "accel",
        "z",
        77,
        5 * S,
        5 * S,
    )
    assert wave.quality == Quality.GOOD


def test_a_sensor_without_a_clock_is_dated_from_arrival() -> None:
    """0.1 s of samples that arrive at 5 s began at 4.9 s."""
    assert feed(BurstAssembler(), burst(2560), 5.0)[0].start_utc_ns == round(4.9 * S)


@pytest.mark.parametrize("peak", [32767, -32768])
def test_samples_at_full_scale_make_the_burst_uncertain(peak: int) -> None:
    """A clipped burst is short of its peaks: kurtosis and crest lie."""
    counts = np.array([0, 5, peak, 7], np.int16)
    chunks = encode_burst(counts, axis="z", burst_id=1, sample_rate_hz=1e4, scale_m_s2=0.1)
    assert feed(BurstAssembler(), chunks)[0].quality == Quality.UNCERTAIN


def test_the_sensor_s_own_overload_flag_is_believed() -> None:
    """Its amplifier may clip far below the converter's full scale."""
    assert feed(BurstAssembler(), burst(10, overload=True))[0].quality == Quality.UNCERTAIN


@pytest.mark.parametrize(
    ("says", "change"),
    [
        ("begins with", lambda m: b"XXXX" + m[4:]),
        ("version 2", lambda m: forged(m, 4, "<B", 2)),
        ("wrong CRC", lambda m: m[:60] + bytes([m[60] ^ 1]) + m[61:]),
        ("axis b'q'", lambda m: forged(m, 6, "<c", b"q")),
        ("payload bytes", lambda m: forged(m, 24, "<I", 4)),
        ("payload bytes", lambda m: forged(m, 24, "<I", 2**32 - 1)),
        ("chunk 9 of 4", lambda m: forged(m, 12, "<H", 9)),
        ("chunk 0 of 0", lambda m: forged(m, 14, "<H", 0)),
        ("holds samples", lambda m: forged(m, 20, "<I", 999)),
        ("holds samples", lambda m: forged(m, 16, "<I", 2**31)),
        ("scale", lambda m: forged(m, 28, "<f", float("nan"))),
        ("scale", lambda m: forged(m, 28, "<f", 0.0)),
        ("sample rate", lambda m: forged(m, 32, "<d", float("inf"))),
        ("sample rate", lambda m: forged(m, 32, "<d", -1.0)),
        ("starts at", lambda m: forged(m, 40, "<q", -1)),
        ("of 20 bytes", lambda m: m[:20]),
        ("of 0 bytes", lambda _: b""),
        ("of 100001 bytes", lambda m: m.ljust(100_001, b"\0")),
    ],
)
def test_what_the_page_does_not_allow_is_named_in_one_line(says: str, change: object) -> None:
    """The firmware author reads the reason; the assembler counts it and lives on."""
    message = change(burst(1000)[0])
    with pytest.raises(FrameError, match=says) as refused:
        decode_chunk(message)
    assert "\n" not in str(refused.value)
    assembler = BurstAssembler()
    assert feed(assembler, [message]) == []
    assert assembler.counters["corrupt"] == 1
    assert says in assembler.last_error


def test_a_burst_with_a_missing_chunk_is_dropped_after_a_minute_and_counted() -> None:
    """Nothing is analysed across a gap; the next burst is not disturbed."""
    assembler = BurstAssembler()
    assert feed(assembler, burst()[:-1], 0.0) == []
    assembler.expire(60 * S)
    assert assembler.n_open == 1
    assert len(feed(assembler, burst(burst_id=2), 60.1)) == 1
    assert assembler.counters["incomplete"] == 1
    assert assembler.n_open == 0
    assert feed(assembler, burst()[-1:], 61.0) == []


def test_a_repeated_message_is_counted_and_changes_nothing() -> None:
    """QoS 1 repeats, within a burst and after it."""
    assembler = BurstAssembler()
    chunks = burst()
    assert len(feed(assembler, [chunks[0], chunks[0], *chunks[1:], *chunks])) == 1
    assert assembler.counters == {
        "complete": 1,
        "incomplete": 0,
        "corrupt": 0,
        "duplicate": 1 + len(chunks),
        "oversized": 0,
    }


def test_two_sensors_with_the_same_bytes_are_two_bursts() -> None:
    """Same firmware, same counters, same test signal: still two machines."""
    assembler = BurstAssembler()
    made = [assembler.add(name, "z", chunk, S, S) for name in ("left", "right") for chunk in burst()]
    assert sorted(wave.sensor for wave in made if wave) == ["left", "right"]


def test_a_sensor_that_restarts_and_counts_from_zero_is_heard() -> None:
    """The same burst id with other samples is another burst, also when the old one was never finished."""
    assembler = BurstAssembler()
    assert len(feed(assembler, burst(burst_id=0))) == 1
    assert len(feed(assembler, burst(burst_id=0, scale_m_s2=0.006), 2.0)) == 1
    feed(assembler, burst(1000, burst_id=3)[:1], 3.0)
    assert len(feed(assembler, burst(500, burst_id=3), 4.0)) == 1
    assert assembler.counters["incomplete"] == 1
    assert assembler.counters["duplicate"] == 0


def test_the_topic_s_axis_and_the_header_s_must_agree() -> None:
    """A mix-up of axes would be a fault that no machine has."""
    assembler = BurstAssembler()
    assert feed(assembler, burst(axis="x"), axis="z") == []
    assert "axis x came on the topic of axis z" in assembler.last_error


def test_chunks_that_overlap_are_refused_as_a_whole() -> None:
    """Every chunk alone is well formed; together they do not make the burst."""
    first, second, *_ = burst(500)
    assert len(burst(500)) == 2
    assembler = BurstAssembler()
    assert feed(assembler, [first, forged(second, 20, "<I", 200)]) == []
    assert assembler.counters["corrupt"] == 1
    assert assembler.n_open == 0


def test_memory_is_bounded_whatever_arrives() -> None:
    """Bursts that never end push out the oldest; one that could never fit is refused at once."""
    assembler = BurstAssembler(max_open=4, max_bytes=4000)
    for i in range(50):
        feed(assembler, burst(1000, burst_id=i)[:1])
        assert assembler.n_open <= 4
    assert assembler.counters["incomplete"] == 46
    assert feed(assembler, burst(2001, burst_id=99)) == []
    assert assembler.counters["oversized"] == len(burst(2001))
    by_bytes = BurstAssembler(max_open=100, max_bytes=2000)
    for i in range(20):
        feed(by_bytes, burst(1000, burst_id=i)[:1])
    assert by_bytes.n_open <= 2000 // 546


@pytest.mark.parametrize(
    ("says", "make"),
    [
        ("axis", lambda: burst(axis="q")),
        ("samples", lambda: burst(0)),
        ("max_bytes", lambda: burst(10, max_bytes=40)),
        ("chunks", lambda: burst(10_000, max_bytes=54)),
    ],
)
def test_an_impossible_burst_is_refused_before_it_is_sent(says: str, make: object) -> None:
    """Firmware and simulator learn it at home."""
    with pytest.raises(ValueError, match=says):
        make()


def test_the_header_is_48_bytes() -> None:
    """Aligned for a small processor: every field at a multiple of its size."""
    assert HEADER.size == 48


def test_readings_go_there_and_back_and_null_is_not_available() -> None:
    """NaN cannot stand in JSON; null can."""
    back = decode_readings(encode_readings({"temperature_degc": 42.5, "pressure_bar": float("nan")}, 9))
    assert back.values["temperature_degc"] == 42.5
    assert np.isnan(back.values["pressure_bar"])
    assert back.utc_ns == 9


@pytest.mark.parametrize(
    ("says", "payload"),
    [
        ("NaN", b'{"values":{"a_v":NaN}}'),
        ("Infinity", b'{"values":{"a_v":-Infinity}}'),
        ("beyond any number", b'{"values":{"a_v":1e999}}'),
        ("beyond any number", b'{"values":{"a_v":' + b"9" * 400 + b"}}"),
        ("no JSON", b'{"values":{"a_v":' + b"9" * 5000 + b"}}"),
        ("is no number", b'{"values":{"a_v":true}}'),
        ("is no number", b'{"values":{"a_v":"1"}}'),
        ("must be", b'{"values":[1]}'),
        ("must be", b"[]"),
        ("must be", b'{"values":{},"extra":1}'),
        ("t_utc_ns", b'{"values":{},"t_utc_ns":1.5}'),
        ("t_utc_ns", b'{"values":{},"t_utc_ns":-1}'),
        ("no JSON", b'{"values":'),
        ("no JSON", b"\xff\xfe"),
        ("nested too deeply", b'{"values":' + b"[" * 8000),
        ("at most 16384", b" " * 16_385),
        ("at most 256", b'{"values":{' + b",".join(b'"p%d_v":1' % i for i in range(257)) + b"}}"),
    ],
)
def test_readings_that_are_none_are_refused_in_one_line(says: str, payload: bytes) -> None:
    """Each of these has stopped somebody's gateway."""
    with pytest.raises(FrameError, match=says) as refused:
        decode_readings(payload)
    assert len(str(refused.value)) < 200


def test_sensor_topics_are_built_and_parsed_alike() -> None:
    """And names that would change the topic's shape are refused."""
    assert parse_sensor_topic(topic_burst("demo", "accel-1", "x")).axis == "x"
    assert parse_sensor_topic(topic_readings("demo", "m.1_A")).sensor == "m.1_A"
    for name in ("", "a/b", "+", "#", "a" * 65, "ä", "a b", "a\n"):
        with pytest.raises(ValueError, match="cannot stand in a topic"):
            topic_readings("demo", name)
    for topic in ("", "hark/v1/demo/sensor/a/burst/q", "hark/v2/demo/sensor/a/readings", "hark/v1//sensor/a/readings"):
        with pytest.raises(FrameError, match="topic"):
            parse_sensor_topic(topic)
