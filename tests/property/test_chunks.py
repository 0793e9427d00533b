"""Sample chunks under any samples and any bytes: the identity to the bit, small, fast, and bounded whatever arrives."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import fuzz_chunks
import numpy as np
import pytest
from fuzz_chunks import as_told, sealed, series_of
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import chunks
from firmware_bridge.chunks import HEADER, Series, chunk_span, decode_chunk, encode_chunk
from firmware_bridge.errors import FrameError
from firmware_bridge.measurement import Quality
from firmware_bridge.upstream import MAX_RECORD_BYTES

I64 = st.integers(-(1 << 63), (1 << 63) - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
BITS = st.one_of(
    st.floats(width=32).map(lambda value: struct.unpack("<I", struct.pack("<f", value))[0]),
    st.integers(0, (1 << 32) - 1),
)


@st.composite
def columns(draw: st.DrawFn, n_polls: int) -> list[int]:
    """The bits of one point: anything, a constant, or multiples of a decimal step."""
    kind = draw(st.sampled_from(["any", "constant", "steps"]))
    if kind == "constant":
        return [draw(BITS)] * n_polls
    if kind == "any":
        return draw(st.lists(BITS, min_size=n_polls, max_size=n_polls))
    power = 10 ** draw(st.integers(-2, 8))
    steps = st.integers(-(10 ** draw(st.integers(1, 9))), 10 ** draw(st.integers(1, 9)))
    told = np.array([draw(steps) / power for _ in range(n_polls)], np.float32)
    return told.view(np.uint32).tolist()  # type: ignore[no-any-return]


@st.composite
def any_series(draw: st.DrawFn) -> Series:
    n_polls = draw(st.integers(1, 12))
    points = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    bits = np.array([draw(columns(n_polls)) for _ in points], np.uint32).T
    times = st.lists(I64, min_size=n_polls, max_size=n_polls).map(lambda told: np.array(told, np.int64))
    some_quality = st.one_of(st.sampled_from(list(map(int, Quality))), st.integers(0, 255), st.just(0))
    quality = draw(st.lists(some_quality, min_size=bits.size, max_size=bits.size))
    values = np.ascontiguousarray(bits).view(np.float32)
    quality_of = np.array(quality, np.uint8).reshape(bits.shape)
    if draw(st.booleans()):  # as the bridge promises: no value beside BAD
        values[quality_of >= Quality.BAD] = np.nan
    return Series(draw(NAMES), tuple(points), draw(times), draw(times), values, quality_of)


@given(st.lists(any_series(), min_size=1, max_size=4), st.integers(0, (1 << 64) - 1), st.booleans())
def test_what_was_put_in_comes_out_to_the_bit(told: list[Series], boot: int, clock_set: bool) -> None:
    """NaN of any kind, infinity, -0.0, any quality, clocks that jump over the whole of int64: nothing is rounded or mended."""
    blob = encode_chunk(told, boot=boot, clock_set=clock_set)
    found = decode_chunk(blob)
    assert (found.boot, found.clock_set) == (boot, clock_set)
    assert list(map(as_told, found.series)) == list(map(as_told, told))
    utc_us = np.concatenate([one.utc_us for one in told])
    assert chunk_span(blob) == (utc_us.min(), utc_us.max(), sum(one.values.size for one in told))


def told_by_the_page(blob: bytes) -> list[tuple[Any, ...]]:
    """PROTOCOL.md, section 9, read sentence by sentence with plain numbers: (sensor, points, utc, monotonic, bits, quality)."""
    body, at = zlib.decompress(blob[40:-4]), 0

    def take(layout: str) -> Any:
        nonlocal at
        at += struct.calcsize(layout)
        return struct.unpack_from(layout, body, at - struct.calcsize(layout))[0]

    shapes = []
    for _ in range(struct.unpack_from("<H", blob, 6)[0]):
        sensor = take(f"{take('<B')}s").decode()
        points = tuple(take(f"{take('<B')}s").decode() for _ in range(take("<H")))
        shapes.append((sensor, points, take("<I"), take("<q")))
    n_polls = [n for _, points, n, _ in shapes for _ in range(2 + 2 * len(points))]
    kinds, widths, bases = ([take(layout) for _ in n_polls] for layout in ("<B", "<B", "<q"))
    words = [[0] * n for n in n_polls]
    for width in range(1, 9):
        for rank in range(width - 1, -1, -1):
            for column in (i for i, found in enumerate(widths) if found == width):
                for poll in range(n_polls[column]):
                    words[column][poll] += take("<B") << (8 * rank)
    for column, kind in enumerate(kinds):
        if kind & 8:
            differences = [word >> 1 if word % 2 == 0 else -(word + 1) // 2 for word in words[column]]
            words[column] = [sum(differences[: i + 1]) for i in range(len(differences))]
        words[column] = [word + bases[column] for word in words[column]]

    def wrapped(number: int, bits: int) -> int:
        return (number + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))

    found, column = [], 0
    for sensor, points, n, start in shapes:
        m, (steps, offset) = len(points), words[column : column + 2]
        utc = [start + sum(steps[1 : i + 1]) for i in range(n)]
        values, kind = words[column + 2 : column + 2 + m], kinds[column + 2 : column + 2 + m]
        quality = [[word % (1 << 32) for word in told] for told in words[column + 2 + m : column + 2 + 2 * m]]
        bits = [[number % (1 << 32) for number in told] for told in values]
        for i in range(m):
            for poll in range(n):
                if kind[i] & 16 and quality[i][poll] >= 128:
                    bits[i][poll] = 0x7FC00000
                elif kind[i] & 7 < 7:
                    as_float = struct.pack("<f", wrapped(values[i][poll], 32) / 10 ** (kind[i] & 7))
                    bits[i][poll] = struct.unpack("<I", as_float)[0]
        monotonic = [wrapped(one + by, 64) for one, by in zip(utc, offset, strict=True)]
        found.append((sensor, points, [wrapped(one, 64) for one in utc], monotonic, bits, quality))
        column += 2 + 2 * m
    return found


def as_numbers(told: Series) -> tuple[Any, ...]:
    bits = np.ascontiguousarray(told.values.T).view(np.uint32).tolist()
    return told.sensor, told.points, told.utc_us.tolist(), told.monotonic_us.tolist(), bits, told.quality.T.tolist()


@given(st.lists(any_series(), min_size=1, max_size=3))
def test_a_reader_made_from_the_page_alone_reads_the_same(told: list[Series]) -> None:
    """A collector in another language has only PROTOCOL.md; a mistake made in both directions would cancel out here alone."""
    assert told_by_the_page(encode_chunk(told, boot=1, clock_set=True)) == list(map(as_numbers, told))
    lived = [series_of(len(told), 3, 40), *told]
    assert told_by_the_page(encode_chunk(lived, boot=1, clock_set=True)) == list(map(as_numbers, lived))


def plant(n_polls: int, seed: int = 1) -> list[Series]:
    """Five sensors of twenty points at 1 Hz: 70 registers of 0.1 that drift and swing, 30 noisy floats; some 100 us of jitter."""
    rng = np.random.default_rng(seed)
    t_s = np.arange(n_polls)
    told = []
    for sensor in range(5):
        values = np.empty((n_polls, 20), np.float32)
        for i in range(20):
            swing = 50 + 10 * np.sin(2 * np.pi * t_s / 1800 + 20 * sensor + i)
            register = swing + np.cumsum(rng.normal(0, 0.02, n_polls)) + rng.normal(0, 0.1, n_polls)
            values[:, i] = np.round(register, 1) if i % 10 < 7 else np.abs(rng.normal(2, 0.3, n_polls))
        monotonic_us = 1_000_000 * t_s + rng.normal(5e6 + 3000 * sensor, 100, n_polls).astype(np.int64)
        utc_us = (
            monotonic_us + 1_700_000_000_123_456 + (rng.random(n_polls) < 0.3)
        )  # two clocks, read one after the other
        points = tuple(f"point_{i}_degc" for i in range(20))
        quality = np.zeros(values.shape, np.uint8)
        told.append(Series(f"sensor-{sensor}", points, utc_us, monotonic_us, values, quality))
    return told


@pytest.mark.parametrize(("n_polls", "at_most"), [(600, 1.35), (60, 1.6)])
def test_a_plant_s_samples_take_a_byte_and_a_half(n_polls: int, at_most: float) -> None:
    """The buffer of thirty days offline and the uplink are laid out for it: times, names and envelope included."""
    told = plant(n_polls)
    per_sample = len(encode_chunk(told, boot=3, clock_set=True)) / sum(one.values.size for one in told)
    print(f"{n_polls} polls of 100 tags: {per_sample:.3f} bytes a sample")
    assert per_sample < at_most


def test_ten_minutes_of_a_hundred_tags_take_milliseconds() -> None:
    """The store's thread folds between two commits; a collector reads a month at once. Best of five rounds."""
    told = plant(600)
    blob = encode_chunk(told, boot=3, clock_set=True)

    def best_ms(work: Callable[[], Any]) -> float:
        rounds = []
        for _ in range(5):
            started = perf_counter()
            work()
            rounds.append(1e3 * (perf_counter() - started))
        return min(rounds)

    encoding_ms, decoding_ms = (
        best_ms(lambda: encode_chunk(told, boot=3, clock_set=True)),
        best_ms(lambda: decode_chunk(blob)),
    )
    print(f"60 000 samples: encoded in {encoding_ms:.1f} ms, decoded in {decoding_ms:.1f} ms")
    assert encoding_ms < 60  # 11 to 14 ms where it was measured
    assert decoding_ms < 20  # 2 ms


def extra_bytes(change: Callable[[Series], Series], n_polls: int = 600) -> int:
    """By how much one change makes the chunk of one register that hardly moves longer."""
    rng = np.random.default_rng(5)
    values = (np.cumsum(rng.integers(-1, 2, (n_polls, 1)), axis=0) / 10).astype(np.float32)
    monotonic_us = 1_000_000 * np.arange(n_polls) + rng.integers(0, 100, n_polls)
    before = Series("s", ("p",), monotonic_us + 10**15, monotonic_us, values, np.zeros(values.shape, np.uint8))
    return len(encode_chunk([change(before)], boot=1, clock_set=True)) - len(
        encode_chunk([before], boot=1, clock_set=True)
    )


def with_constants(told: Series) -> Series:
    """Another ten points that never move, all good."""
    values = np.hstack([told.values, np.full((len(told.values), 10), np.pi, np.float32)])
    points = (*told.points, *(f"c{i}" for i in range(10)))
    return replace(told, points=points, values=values, quality=np.zeros(values.shape, np.uint8))


def with_failed_polls(told: Series) -> Series:
    """One poll in fifty without an answer: NaN among decimal steps."""
    values, quality = told.values.copy(), told.quality.copy()
    values[::50], quality[::50] = np.nan, Quality.BAD_COMM
    return replace(told, values=values, quality=quality)


def with_clock_step(told: Series) -> Series:
    """The wall clock is set back by an hour in the middle."""
    return replace(told, utc_us=told.utc_us - 3_600_000_000 * (np.arange(len(told.utc_us)) >= 300))


@pytest.mark.parametrize(("change", "at_most"), [(with_constants, 80), (with_failed_polls, 40), (with_clock_step, 250)])
def test_what_tells_little_costs_little(change: Callable[[Series], Series], at_most: int) -> None:
    """Channels that stand still are most of a plant; a poll that fails or a clock that is set must not fill the flash."""
    assert extra_bytes(change) <= at_most


def test_a_damaged_blob_is_a_frame_error_wherever_the_damage_is() -> None:
    """Flash forgets and power fails in the middle: no cut and no changed byte gives samples."""
    blob = encode_chunk([series_of(1, 3, 20)], boot=2, clock_set=True)
    cut = [blob[:at] for at in range(len(blob))]
    changed = [blob[:at] + bytes([blob[at] ^ 0x20]) + blob[at + 1 :] for at in range(len(blob))]
    for broken in (*cut, *changed, blob + b"\0"):
        with pytest.raises(FrameError):
            decode_chunk(broken)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_chunk_or_a_frame_error(data: bytes) -> None:
    """With and without our header before them and a right CRC behind them."""
    head = encode_chunk([series_of(1, 1, 1)], boot=0, clock_set=False)[: HEADER.size]
    for blob in (data, head + data, sealed(head, data)):
        fuzz_chunks.fuzz_chunk(blob)


def test_the_fuzz_target_holds_on_hostile_inputs() -> None:
    """The same target and generator that a fuzz run gives a million inputs."""
    for seed in range(1000):
        fuzz_chunks.fuzz_chunk(fuzz_chunks.inputs(seed))


def header(*, first: int = 0, last: int = 0, n_series: int = 1, n_values: int = 1, n_body: int = 1) -> bytes:
    return HEADER.pack(chunks.MAGIC, chunks.VERSION, 0, n_series, 0, first, last, n_values, n_body)


def peak_mib(blob: bytes, *, refused: bool) -> float:
    """How much memory it takes at most to read, or refuse, one blob."""
    tracemalloc.start()
    try:
        if refused:
            with pytest.raises(FrameError):
                decode_chunk(blob)
        else:
            decode_chunk(blob)
        return tracemalloc.get_traced_memory()[1] / (1 << 20)
    finally:
        tracemalloc.stop()


def test_a_bomb_takes_no_more_memory_than_a_chunk_may_have() -> None:
    """200 MiB of zeros in 200 kB, under a header that admits it, that denies it, and that makes the most of the limits."""
    packer = zlib.compressobj()
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(200)), packer.flush()])
    for n_body in (1, chunks.MAX_BYTES, 200 << 20):
        blob = header(n_body=n_body) + bomb
        assert peak_mib(blob + chunks.CRC.pack(zlib.crc32(blob)), refused=True) < 16
    n_polls = chunks.MAX_VALUES
    body = body_of(n_polls=n_polls)  # four columns that stand still
    blob = sealed(header(n_values=n_polls, n_body=len(body)), body)
    assert len(blob) < 100
    assert peak_mib(blob, refused=False) < 32
    widest = body_of(n_polls=n_polls, kinds=b"\x08\x08\x1f\x08", widths=b"\x08\x08\4\4", octets=bytes(24 * n_polls))
    assert peak_mib(sealed(header(n_values=n_polls, n_body=len(widest)), widest), refused=False) < 32
    body = body_of(n_polls=(1 << 32) - 1)
    assert peak_mib(sealed(header(n_values=n_polls, n_body=len(body)), body), refused=True) < 1


@pytest.mark.parametrize("n_points", [1, chunks.MAX_POINTS])
def test_whatever_is_within_the_counts_fits_into_a_blob_and_a_record(n_points: int) -> None:
    """Noise in every bit of every column and the longest names: a store that keeps to the counts cannot be refused later."""
    rng = np.random.default_rng(3)
    n_polls = chunks.MAX_VALUES // n_points
    shape = (n_polls, n_points)
    names = tuple(rng.integers(33, 127, 251, np.uint8).tobytes().decode() + f"{i:04}" for i in range(n_points + 1))
    utc_us, monotonic_us = rng.integers(-(1 << 63), 1 << 63, (2, n_polls), np.int64)
    values = rng.integers(0, 1 << 32, shape, np.uint32).view(np.float32)
    told = Series(names[0], names[1:], utc_us, monotonic_us, values, rng.integers(0, 256, shape, np.uint8))
    blob = encode_chunk([told], boot=1, clock_set=True)
    assert len(blob) <= chunks.MAX_BYTES < MAX_RECORD_BYTES
    assert as_told(decode_chunk(blob).series[0]) == as_told(told)


def test_a_span_is_told_by_the_first_forty_bytes() -> None:
    """A store asks thousands of blobs for their time; the rest of them stays on the flash."""
    blob = encode_chunk([series_of(4, 2, 9)], boot=2, clock_set=False)
    assert HEADER.size == 40
    assert chunk_span(blob[:40]) == chunk_span(blob)
    for broken in (blob[:39], b"HRKB" + blob[4:], blob[:4] + b"\2" + blob[5:], header(first=1), header(n_values=0)):
        with pytest.raises(FrameError):
            chunk_span(broken)


@pytest.mark.parametrize(
    "change", [{"last": 1}, {"first": -1}, {"n_values": 2}, {"n_series": 2}, {"n_body": 49}, {"n_body": 51}]
)
def test_a_header_that_contradicts_its_body_is_a_frame_error(change: dict[str, int]) -> None:
    """The CRC only says that whoever wrote it meant it: times and counts that a store sorts by are checked against the samples."""
    body = body_of(n_polls=1)
    told = {"n_body": len(body)}
    assert decode_chunk(sealed(header(**told), body)).series[0].values.tolist() == [[0.0]]
    with pytest.raises(FrameError):
        decode_chunk(sealed(header(**(told | change)), body))


def body_of(
    *, sensor: bytes = b"\1s", points: tuple[bytes, ...] = (b"\1p",), n_polls: int = 2, kinds: bytes = bytes(4),
    widths: bytes = bytes(4), bases: tuple[int, ...] = (0, 0, 0, 0), octets: bytes = b"",
) -> bytes:  # fmt: skip
    """A body worked by hand; its columns are those of one point: steps, offset, value, quality."""
    head = sensor + struct.pack("<H", len(points)) + b"".join(points) + chunks.POLLS.pack(n_polls, 0)
    return head + kinds + widths + struct.pack(f"<{len(bases)}q", *bases) + octets


@pytest.mark.parametrize(
    "change",
    [
        {"sensor": b"\0"},
        {"sensor": b"\1\xff"},
        {"points": ()},
        {"points": (b"\1p", b"\1p"), "n_polls": 1, "kinds": bytes(6), "widths": bytes(6), "bases": (0,) * 6},
        {"n_polls": 0},
        {"n_polls": 3},
        {"n_polls": (1 << 32) - 1},
        {"kinds": b"\x07\0\0\0"},
        {"kinds": b"\0\x10\0\0"},
        {"kinds": b"\0\0\x20\0"},
        {"kinds": b"\0\0\0\x10"},
        {"widths": b"\x09\0\0\0", "octets": bytes(18)},
        {"widths": b"\0\0\5\0", "octets": bytes(10)},
        {"widths": b"\0\0\0\5", "octets": bytes(10)},
        {"bases": (0, 0, 0, 256)},
        {"bases": (0, 0, 0, -1)},
        {"bases": (0, 0, 0)},
        {"octets": b"\0"},
        {"widths": b"\0\0\1\0", "octets": b"\0"},
    ],
)
def test_a_body_that_the_page_does_not_allow_is_refused_whole(change: dict[str, Any]) -> None:
    """Behind a right CRC, in the hands of another writer: half a chunk understood would be wrong samples."""
    good = body_of()
    assert decode_chunk(sealed(header(n_values=2, n_body=len(good)), good)).series[0].values.tolist() == [[0.0]] * 2
    broken = body_of(**change)
    with pytest.raises(FrameError):
        decode_chunk(sealed(header(n_values=2, n_body=len(broken)), broken))


def test_bytes_behind_the_stream_are_refused_and_unknown_flags_ignored() -> None:
    """Both as on the page: a later version may give a flag a meaning, nobody may hide bytes."""
    body = body_of()
    head = bytearray(header(n_values=2, n_body=len(body)))
    blob = bytes(head) + zlib.compress(body) + b"\0"
    with pytest.raises(FrameError, match="exactly"):
        decode_chunk(blob + chunks.CRC.pack(zlib.crc32(blob)))
    for flags, clock_set in ((0xFE, False), (0xFF, True)):
        head[5] = flags
        assert decode_chunk(sealed(bytes(head), body)).clock_set is clock_set


@pytest.mark.parametrize("odd", [np.pi, 1e9, np.inf, -0.0])
def test_one_value_off_the_steps_late_in_a_column_is_kept(odd: float) -> None:
    """The steps are guessed from the first polls; what was guessed is checked on all."""
    values = (np.arange(600) / 10).astype(np.float32)[:, None]
    values[500] = odd
    times_us = 1_000_000 * np.arange(600)
    told = Series("s", ("p",), times_us, times_us, values, np.zeros(values.shape, np.uint8))
    assert as_told(decode_chunk(encode_chunk([told], boot=1, clock_set=True)).series[0]) == as_told(told)


def short(told: Series) -> list[Series]:
    return [replace(told, values=told.values[1:])]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda told: [], "0 series"),
        (short, r"values \(4, 2\)"),
        (lambda told: [replace(told, values=told.values.astype(np.float64))], "float64"),
        (lambda told: [replace(told, points=("p", "p"))], "none twice"),
        (lambda told: [replace(told, sensor="")], "1 to 255 bytes"),
        (lambda told: [replace(told, sensor="é" * 128)], "1 to 255 bytes"),
        (lambda told: [told] * (chunks.MAX_SERIES + 1), "fold a shorter period"),
        (lambda told: [series_of(1, 64, 4097)], "fold a shorter period"),
    ],
)
def test_what_no_chunk_can_hold_is_refused_where_it_is_made(
    change: Callable[[Series], list[Series]], says: str
) -> None:
    """Before anything is deleted for it."""
    with pytest.raises(ValueError, match=says):
        encode_chunk(change(series_of(1, 2, 5)), boot=1, clock_set=True)
    with pytest.raises(ValueError, match="boot"):
        encode_chunk([series_of(1, 2, 5)], boot=-1, clock_set=True)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 40))
def test_arrays_need_not_lie_in_one_piece(seed: int, n_points: int, n_polls: int) -> None:
    """A store cuts its polls out of larger arrays; what lies behind a view is nobody's sample."""
    told = series_of(seed, n_points, n_polls)
    wide = [np.repeat(array, 2, axis=0)[::2] for array in (told.utc_us, told.monotonic_us, told.values, told.quality)]
    wide[2:] = [np.asfortranarray(array) for array in wide[2:]]
    view = Series(told.sensor, told.points, *wide)
    assert encode_chunk([view], boot=1, clock_set=True) == encode_chunk([told], boot=1, clock_set=True)
