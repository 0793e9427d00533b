"""PROTOCOL.md's worked bytes are what the code sends and understands: firmware is written against that page."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge import chunks, frames, upstream
from firmware_bridge.measurement import Quality

PAGE = (Path(__file__).resolve().parents[2] / "firmware_bridge/PROTOCOL.md").read_text("utf-8")


def block(name: str) -> str:
    found = re.search(rf"```{name}\n(.*?)\n```", PAGE, re.DOTALL)
    assert found, f"PROTOCOL.md has no block {name}"
    return found[1]


def burst_bytes() -> bytes:
    return bytes.fromhex("".join(line[:24].split("   ")[0] for line in block("burst").splitlines()))


def test_the_page_s_burst_is_what_we_encode() -> None:
    """Byte for byte, with its CRC."""
    counts = np.array([0, 100, -100, 32767], np.int16)
    made = frames.encode_burst(
        counts,
        axis="z",
        burst_id=7,
        sample_rate_hz=25600.0,
        scale_m_s2=0.0048828125,
        start_utc_ns=1_700_000_000 * 10**9,
    )
    assert made == [burst_bytes()]


def test_the_page_s_burst_is_a_waveform_marked_uncertain() -> None:
    """It holds a sample at full scale."""
    wave = frames.BurstAssembler().add("accel-1", "z", burst_bytes(), 1_700_000_001 * 10**9, 5)
    assert wave is not None
    assert wave.samples.tolist() == [0.0, 0.48828125, -0.48828125, pytest.approx(159.995, abs=1e-3)]
    assert (wave.burst_id, wave.sample_rate_hz, wave.start_utc_ns) == (7, 25600.0, 1_700_000_000 * 10**9)
    assert wave.quality == Quality.UNCERTAIN


def chunk_bytes() -> bytes:
    return bytes.fromhex("".join(line.split("   ")[0] for line in block("chunk").splitlines()))


def test_the_page_s_sample_chunk_is_what_we_read() -> None:
    """A reader in another language has nothing but the page; a hole, bits, decimal steps and both clocks are on it."""
    found = chunks.decode_chunk(chunk_bytes())
    assert (found.boot, found.clock_set, len(found.series)) == (7, True, 1)
    (told,) = found.series
    assert (told.sensor, told.points) == ("p1", ("in_degc", "flow_m3_h"))
    assert told.utc_us.tolist() == [1_700_000_000_000_000, 1_700_000_001_000_120, 1_700_000_002_000_050]
    assert told.monotonic_us.tolist() == [5_000_000, 6_000_120, 7_000_050]
    expected = np.array([[21.5, 3.25], [21.6, np.nan], [21.6, np.pi]], np.float32)
    assert told.values.view(np.uint32).tolist() == expected.view(np.uint32).tolist()
    assert told.quality.tolist() == [[Quality.GOOD, Quality.GOOD], [0, Quality.BAD_COMM], [Quality.UNCERTAIN, 0]]
    assert chunks.chunk_span(chunk_bytes()) == (1_700_000_000_000_000, 1_700_000_002_000_050, 6)


def test_the_page_s_sample_chunk_is_what_we_encode() -> None:
    """Byte for byte up to how zlib packs it, which is not ours to promise."""
    page = chunk_bytes()
    made = chunks.encode_chunk(chunks.decode_chunk(page).series, boot=7, clock_set=True)
    assert made[:40] == page[:40]
    assert zlib.decompress(made[40:-4]) == zlib.decompress(page[40:-4])


def test_the_page_s_readings_record_and_confirmation_go_both_ways() -> None:
    """The JSON on the page is exactly what is sent."""
    text = block("readings").encode()
    readings = frames.decode_readings(text)
    assert frames.encode_readings(readings.values, readings.utc_ns) == text
    record = upstream.decode_record(block("record").encode())
    assert upstream.encode_record(record) == block("record").encode()
    confirm = upstream.decode_confirm(block("confirm").encode())
    assert upstream.encode_confirm(confirm.stream, confirm.ranges) == block("confirm").encode()


@pytest.mark.parametrize(
    ("says", "number"),
    [
        ("100 000 bytes", frames.MAX_CHUNK_BYTES),
        ("1 to 1 048 576", frames.MAX_SAMPLES),
        ("1 to 512", frames.MAX_CHUNKS),
        ("256 values and 16 384 bytes", frames.MAX_READINGS_BYTES),
        ("1000 ranges and 65 536 bytes", upstream.MAX_CONFIRM_BYTES),
        ("1 to 1024 |", chunks.MAX_SERIES),
        ("1 or more, 4096 in all series", chunks.MAX_POINTS),
        ("all series together, 1 to 262 144", chunks.MAX_VALUES),
        ("A blob is at most 7 340 032 bytes", chunks.MAX_BYTES),
        ("before zlib, 1 to 7 340 032", chunks.MAX_BYTES),
        ("its length, 1 to 255,", chunks.MAX_NAME_BYTES),
    ],
)
def test_the_page_s_limits_are_the_code_s(says: str, number: int) -> None:
    """A limit that moved in one place only is found by the customer."""
    assert says in PAGE
    assert f"{number:,}".replace(",", " ") in says or str(number) in says


def test_the_page_names_every_topic_the_code_builds() -> None:
    """With the placeholders of the page put in."""
    site, gateway, machine = "S", "G", "M"
    built = [
        frames.topic_burst(site, "N", "x"),
        frames.topic_readings(site, "N"),
        upstream.topic_status(site, gateway),
        upstream.topic_state(site, gateway, machine),
        upstream.topic_alarm(site, gateway, machine, "A"),
        upstream.topic_confirm(site, gateway),
        *(upstream.topic_record(site, gateway, machine, stream) for stream in upstream.STREAMS),
    ]
    names = {
        "{site}": site,
        "{gateway}": gateway,
        "{machine}": machine,
        "{sensor}": "N",
        "{axis}": "x",
        "{alarm_id}": "A",
    }
    page = re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], PAGE)
    assert [topic for topic in built if f"`{topic}`" not in page] == []
