"""What holds for any values and any bytes: round trips, order and duplication, and that nothing crashes a decoder."""

from __future__ import annotations

import struct
import zlib

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import upstream
from firmware_bridge.device import DeviceProfile, Point
from firmware_bridge.errors import FrameError
from firmware_bridge.frames import BurstAssembler, decode_chunk, decode_readings, encode_burst
from firmware_bridge.measurement import Quality
from firmware_bridge.registers import Decoder, encode, plan_reads

RANGE = {"uint16": (0, 65535), "int16": (-32768, 32767), "uint32": (0, 2**32 - 1), "int32": (-(2**31), 2**31 - 1)}


@st.composite
def maps(draw: st.DrawFn) -> DeviceProfile:
    """Any map of up to twelve points that do not overlap."""
    points = []
    address = draw(st.integers(1, 50))
    for i in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["uint16", "int16", "uint32", "int32", "float32"]))
        order = draw(st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]))
        bound = (-1e12, 1e12)
        point = Point(name=f"p{i}_v", address=address, type=kind, plausible=bound, word_order=order, smallest=0.0)
        points.append(point)
        address += point.n_words + draw(st.integers(0, 3))
    return DeviceProfile(
        vendor="V",
        model="M",
        title="t",
        source="s",
        sees="all",
        update_interval_s=1.0,
        points=tuple(draw(st.permutations(points))),
        address_base=draw(st.sampled_from([0, 1])),
        max_registers=draw(st.integers(2, 125)),
        allow_gaps=draw(st.booleans()),
    )


def value_for(draw: st.DrawFn, kind: str) -> float:
    if kind == "float32":
        return draw(st.floats(-1e9, 1e9, width=32))
    return float(draw(st.integers(*RANGE[kind])))


@given(st.data())
def test_any_value_of_any_type_in_any_order_comes_back(data: st.DataObject) -> None:
    """encode, cut into the planned reads, decode: the same float32."""
    profile = data.draw(maps())
    values = {point.name: value_for(data.draw, point.type) for point in profile.points}
    image = encode(profile, values)
    reads = plan_reads(profile)
    words = {
        i: np.array([image.get((read.function, read.address + k), 0xDEAD) for k in range(read.count)], np.uint16)
        for i, read in enumerate(reads)
    }
    decoded, quality = Decoder(profile).decode(words)
    assert (quality == Quality.GOOD).all()
    assert decoded.tolist() == [float(np.float32(values[point.name])) for point in profile.points]


@given(maps())
def test_a_plan_covers_every_point_once_and_breaks_no_limit(profile: DeviceProfile) -> None:
    """Each point whole in exactly one read, no read too long, no undefined address read unless allowed."""
    reads = plan_reads(profile)
    needed = {profile.wire_address(p) + k for p in profile.points for k in range(p.n_words)}
    covered = [read.address + k for read in reads for k in range(read.count)]
    assert len(covered) == len(set(covered))
    assert needed <= set(covered)
    assert profile.allow_gaps or needed == set(covered)
    assert all(read.count <= profile.max_registers for read in reads)


@given(maps(), st.randoms(use_true_random=False))
def test_any_words_at_all_decode_to_a_value_or_to_nan(profile: DeviceProfile, random: object) -> None:
    """NaN exactly where quality is BAD, and never infinity."""
    words = {
        i: np.array([random.getrandbits(16) for _ in range(read.count)], np.uint16)
        for i, read in enumerate(plan_reads(profile))
    }
    values, quality = Decoder(profile).decode(words)
    assert (np.isnan(values) == (quality >= Quality.BAD)).all()
    assert not np.isinf(values).any()


@given(st.binary(max_size=300))
def test_random_bytes_are_a_frame_error_and_nothing_else(message: bytes) -> None:
    """Whoever can publish to the broker cannot stop the agent."""
    for decode in (decode_chunk, decode_readings, upstream.decode_record, upstream.decode_confirm):
        try:
            decode(message)
        except FrameError:
            continue


@given(st.binary(min_size=44, max_size=44), st.binary(max_size=64))
def test_a_random_header_with_a_right_crc_is_a_chunk_or_a_frame_error(header: bytes, payload: bytes) -> None:
    """Behind the CRC nothing is trusted either: counts, lengths, NaN rates."""
    body = struct.pack("<4sB", b"HRKB", 1) + header[1:] + payload
    message = body + struct.pack("<I", zlib.crc32(body))
    try:
        chunk = decode_chunk(message)
    except FrameError:
        return
    assert 0 < len(chunk.samples) <= chunk.n_samples


@settings(max_examples=60)
@given(st.lists(st.integers(-32767, 32766), min_size=1, max_size=400), st.integers(54, 300), st.data())
def test_order_and_repetition_of_chunks_change_nothing(counts: list[int], max_bytes: int, data: st.DataObject) -> None:
    """Any order, any repeats: exactly one waveform, and always the same one."""
    samples = np.array(counts, np.int16)
    chunks = encode_burst(samples, axis="y", burst_id=3, sample_rate_hz=1000.0, scale_m_s2=0.5, max_bytes=max_bytes)
    repeats = data.draw(st.lists(st.sampled_from(chunks), max_size=10))
    order = data.draw(st.permutations(chunks + repeats))
    assembler = BurstAssembler()
    waves = [wave for chunk in order if (wave := assembler.add("s", "y", chunk, 10**18, 10**9))]
    assert len(waves) == 1
    assert waves[0].samples.tolist() == (samples * np.float32(0.5)).tolist()
    assert assembler.counters["duplicate"] == len(repeats)
    assert assembler.n_open == 0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.sampled_from(upstream.STREAMS),
    st.integers(0, 2**63 - 1),
    st.dictionaries(st.text(), JSON, max_size=5),
    st.booleans(),
)
def test_any_record_comes_back_with_its_key(stream: str, seq: int, body: dict[str, object], late: bool) -> None:
    """What left the gateway is what the collector stores."""
    record = upstream.UpstreamRecord(
        site="demo", gateway="gw-01", stream=stream, seq=seq, machine="M-101A", utc_ns=seq, late=late, body=body
    )
    back = upstream.decode_record(upstream.encode_record(record))
    assert back.key == record.key
    assert msgspec.to_builtins(back) == msgspec.to_builtins(record)
