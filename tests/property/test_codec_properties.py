"""What holds for any values and any bytes: round trips, order and duplication, and that nothing crashes a decoder."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import upstream
from firmware_bridge.device import DeviceProfile, Point, Span
from firmware_bridge.errors import FrameError
from firmware_bridge.frames import BurstAssembler, decode_chunk, decode_readings, encode_burst
from firmware_bridge.measurement import Quality
from firmware_bridge.registers import Decoder, Limits, encode, plan_reads

EXACT = 2**53  # whole numbers that a float64 holds
RANGE = {
    "uint16": (0, 65535), "int16": (-32768, 32767), "uint32": (0, 2**32 - 1), "int32": (-(2**31), 2**31 - 1),
    "uint64": (0, EXACT), "int64": (-EXACT, EXACT), "bcd16": (0, 9999), "bcd32": (0, 99_999_999),
    "m10k32": (-327_669_999, 327_669_999),
}  # fmt: skip
KINDS = [*RANGE, "float32", "float64"]


@st.composite
def maps(draw: st.DrawFn) -> DeviceProfile:
    """Any map of up to twelve points that do not overlap, in tables 3 and 4, bits in 1 and 2, fields, exponents."""
    points = []
    address = draw(st.integers(1, 50))
    for i in range(draw(st.integers(1, 12))):
        function = draw(st.sampled_from([3, 3, 4, 1, 2]))
        kind = "bit" if function <= 2 else draw(st.sampled_from(KINDS))
        order = draw(st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]))
        field = draw(st.sampled_from([None, (0, 1), (3, 6), (15, 1)])) if kind.startswith("uint") else None
        point = Point(
            name=f"p{i}_v", address=address, type=kind, plausible=(-1e30, 1e30), word_order=order, smallest=0.0,
            function=function, bits=field,
        )  # fmt: skip
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
        max_registers=draw(st.sampled_from([1, 2, 3, 10, 125])),
        allow_gaps=draw(st.booleans()),
    )


def value_for(draw: st.DrawFn, point: Point) -> float:
    if point.type.startswith("float"):
        return draw(st.floats(-1e9, 1e9, width=int(point.type[-2:])))
    if point.type == "bit" or point.bits:
        return float(draw(st.integers(0, (1 << (point.bits[1] if point.bits else 1)) - 1)))
    return float(draw(st.integers(*RANGE[point.type])))


def answers(image: dict[tuple[int, int], int], reads: tuple[Span, ...]) -> dict[int, np.ndarray]:
    """What a device with these words answers; addresses that it does not name hold DEAD."""
    return {
        i: np.array([image.get((read.function, read.address + k), 0xDEAD) for k in range(read.count)], np.uint16)
        for i, read in enumerate(reads)
    }


@given(st.data())
def test_any_value_of_any_type_in_any_order_comes_back(data: st.DataObject) -> None:
    """encode, cut into the planned reads, decode: the same number, to the last bit of a float64."""
    profile = data.draw(maps())
    values = {point.name: value_for(data.draw, point) for point in profile.points}
    words = answers(encode(profile, values), plan_reads(profile))
    measured, quality = Decoder(profile).measure(words)
    assert (quality == Quality.GOOD).all()
    assert measured.tolist() == [values[point.name] for point in profile.points]
    decoded, _ = Decoder(profile).decode(words)
    assert decoded.tolist() == measured.astype(np.float32).tolist()


@given(st.integers(-4, 4), st.lists(st.floats(-1000, 1000), min_size=1, max_size=4))
def test_integers_with_a_power_of_ten_beside_them_come_back_as_fine_as_they_are_sent(
    decade: int, shares: list[float]
) -> None:
    """SunSpec's pairs: several values share one exponent, which fits the largest of them."""
    top = 10.0**decade
    points = tuple(
        Point(name=f"p{i}_v", address=i, type="int16", plausible=(-top, top), exponent_address=40)
        for i in range(len(shares))
    )
    profile = DeviceProfile(
        vendor="V", model="M", title="t", source="s", sees="all", update_interval_s=1.0, points=points, max_registers=60
    )
    values = {point.name: share / 1000 * top for point, share in zip(points, shares, strict=True)}
    measured, quality = Decoder(profile).measure(answers(encode(profile, values), plan_reads(profile)))
    assert (quality == Quality.GOOD).all()
    assert measured == pytest.approx(list(values.values()), abs=top * 5.1e-4)


@given(maps())
def test_a_plan_covers_every_point_once_and_breaks_no_limit(profile: DeviceProfile) -> None:
    """Every word read once, no read too long, no undefined address read unless allowed, no value torn without need."""
    reads = plan_reads(profile)
    needed = {(s.function, a) for p in profile.points for s in profile.spans_of(p) for a in range(s.address, s.end)}
    covered = [(read.function, read.address + k) for read in reads for k in range(read.count)]
    assert len(covered) == len(set(covered))
    assert needed <= set(covered)
    assert profile.allow_gaps or needed == set(covered)
    assert all(read.count <= profile.max_registers for read in reads if read.function >= 3)
    for point in profile.points:
        (span,) = profile.spans_of(point)
        assert span.count > profile.max_registers or any(read.covers(span) for read in reads)


@given(maps(), st.data())
def test_a_plan_is_as_short_as_can_be(profile: DeviceProfile, data: st.DataObject) -> None:
    """Against every other way to cut the sorted values into requests (a shortest path over all cuts)."""
    limits = Limits(profile.max_registers)
    spans = sorted({s for point in profile.points for s in profile.spans_of(point)})
    if any(span.function >= 3 and span.count > limits.max_registers for span in spans):
        return  # values in pieces: the test above
    best = [0] + [len(spans)] * len(spans)
    for end in range(1, len(spans) + 1):
        for first in range(end):
            block = spans[first:end]
            length = block[-1].end - block[0].address
            gapless = all(a.end == b.address for a, b in pairwise(block))
            fits = length <= (limits.max_registers if block[0].function >= 3 else 2000)
            if len({s.function for s in block}) == 1 and fits and (gapless or profile.allow_gaps):
                best[end] = min(best[end], best[first] + 1)
    assert len(plan_reads(profile)) == best[-1]


@given(maps(), st.data())
def test_a_hole_costs_its_own_points_and_no_other(profile: DeviceProfile, data: st.DataObject) -> None:
    """What a device refuses is never asked again, and everything else still is."""
    lost = data.draw(st.sampled_from(profile.points))
    (hole,) = profile.spans_of(lost)
    limits = Limits(profile.max_registers, frozenset([hole]))
    reads = plan_reads(profile, limits)
    assert not any(limits.has_hole(read) for read in reads)
    image = encode(profile, {point.name: value_for(data.draw, point) for point in profile.points})
    _, quality = Decoder(profile, limits).decode(answers(image, reads))
    for point, code in zip(profile.points, quality, strict=True):
        assert code == (Quality.BAD_COMM if point is lost else Quality.GOOD)


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
