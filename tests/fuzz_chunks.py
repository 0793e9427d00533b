"""Fuzz target for sample chunks: blobs damaged outside, or inside behind a right CRC and a right zlib stream."""

from __future__ import annotations

import contextlib
import zlib
from random import Random

import numpy as np

from firmware_bridge import chunks
from firmware_bridge.errors import FrameError


def fuzz_chunk(data: bytes) -> None:
    """A chunk within its limits, which then is packed and read again to the bit, or FrameError."""
    with contextlib.suppress(FrameError):
        chunks.chunk_span(data)
    try:
        found = chunks.decode_chunk(data)
    except FrameError:
        return
    assert chunks.chunk_span(data).n_values == sum(one.values.size for one in found.series) <= chunks.MAX_VALUES
    again = chunks.decode_chunk(chunks.encode_chunk(found.series, boot=found.boot, clock_set=found.clock_set))
    assert list(map(as_told, again.series)) == list(map(as_told, found.series))


def as_told(series: chunks.Series) -> tuple[object, ...]:
    """Everything of a series, so that == means to the bit; arrays that are equal are not enough where NaN and -0.0 are."""
    arrays = (series.utc_us, series.monotonic_us, series.values, series.quality)
    return series.sensor, series.points, *((array.dtype.str, array.shape, array.tobytes()) for array in arrays)


def series_of(seed: int, n_points: int, n_polls: int, sensor: str = "pump") -> chunks.Series:
    """Registers, noise, constants and failed polls, some of each."""
    rng = np.random.default_rng(seed)
    shape = (n_polls, n_points)
    columns = np.choose(
        rng.integers(0, 4, n_points),
        [
            np.round(50 + np.cumsum(rng.normal(0, 0.1, shape), axis=0), 1),
            rng.normal(2, 0.3, shape),
            np.cumsum(rng.normal(0, 1e-3, shape), axis=0),
            np.full(shape, 21.5),
        ],
    ).astype(np.float32)
    quality = np.zeros(shape, np.uint8)
    failed = rng.random(n_polls) < 0.05
    quality[failed], columns[failed] = 132, np.nan
    monotonic_us = 1_000_000 * np.arange(n_polls) + rng.normal(5e6, 100, n_polls).astype(np.int64)
    utc_us = monotonic_us + 1_700_000_000_000_000
    return chunks.Series(sensor, tuple(f"p{i}_degc" for i in range(n_points)), utc_us, monotonic_us, columns, quality)


def sealed(head: bytes, body: bytes) -> bytes:
    """A blob of this body with a zlib stream and a CRC that are right."""
    blob = head + zlib.compress(body, 1)
    return blob + chunks.CRC.pack(zlib.crc32(blob))


def inputs(seed: int) -> bytes:
    """A blob of one to three sensors with some bytes changed: of the body, of the header behind a right CRC, or of the whole."""
    rng = Random(seed)
    told = [series_of(seed + i, rng.randrange(1, 5), rng.randrange(1, 30), f"s{i}") for i in range(rng.randrange(1, 4))]
    blob = bytearray(chunks.encode_chunk(told, boot=rng.randrange(9), clock_set=rng.random() < 0.5))
    head, body = blob[: chunks.HEADER.size], bytearray(zlib.decompress(blob[chunks.HEADER.size : -4]))
    where = rng.choice((blob, head, body, body, body))
    for _ in range(rng.randrange(1, 4)):
        where[rng.randrange(len(where))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
    if where is body and rng.random() < 0.1:
        del body[rng.randrange(1, len(body)) :]
        head[36:40] = len(body).to_bytes(4, "little")
    if where is blob:
        return bytes(blob[: rng.randrange(len(blob))] if rng.random() < 0.3 else blob)
    return sealed(bytes(head), bytes(body))
