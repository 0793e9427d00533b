"""Fuzz target for what PROTOCOL.md describes: burst chunks, readings, records, confirmations, and Modbus words."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np

from firmware_bridge import upstream
from firmware_bridge.device import load_device
from firmware_bridge.errors import FrameError
from firmware_bridge.frames import BurstAssembler, decode_chunk, decode_readings, encode_burst, encode_readings
from firmware_bridge.measurement import Quality
from firmware_bridge.registers import Decoder

CONFIG = Path(__file__).resolve().parents[1] / "config"
DECODERS = [Decoder(load_device(CONFIG, path.stem)) for path in sorted((CONFIG / "devices").glob("*.toml"))]
ASSEMBLER = BurstAssembler(max_open=4, max_bytes=1 << 20)
S = 1_000_000_000


def fuzz_frame(data: bytes) -> None:
    """Every decoder of the wire protocol: a value or FrameError; the assembler stays within its bounds."""
    for decode in (decode_chunk, decode_readings, upstream.decode_record, upstream.decode_confirm):
        with contextlib.suppress(FrameError):
            decode(data)
    ASSEMBLER.add("s", "z", data, S, S)
    assert ASSEMBLER.n_open <= 4


def fuzz_words(data: bytes) -> None:
    """Any words of any device are values or NaN, with a quality that says which."""
    decoder = DECODERS[(data[0] if data else 0) % len(DECODERS)]
    padded = np.frombuffer(data[1:].ljust(4000, data[-1:] or b"\0"), np.uint8)
    words, at = {}, 0
    for i, read in enumerate(decoder.reads):
        if padded[at % 4000] % 16:
            words[i] = np.resize(padded[at % 2000 :].view(np.uint8), 2 * read.count).view(np.uint16)
        at += 2 * read.count
    values, quality = decoder.decode(words)
    assert (np.isnan(values) == (quality >= Quality.BAD)).all()
    assert not np.isinf(values).any()


def frames(seed: int) -> bytes:
    """Chunks, readings, records and confirmations with some bytes changed, often with a right CRC behind them."""
    rng = Random(seed)
    kind = rng.randrange(5)
    if kind <= 1:
        samples = np.frombuffer(rng.randbytes(2 * rng.randrange(1, 60)), np.int16)
        chunks = encode_burst(
            samples, axis=rng.choice("xyz"), burst_id=rng.randrange(4), sample_rate_hz=rng.choice((1e3, 25600.0)),
            scale_m_s2=0.01, max_bytes=rng.choice((60, 100, 1000)),
        )  # fmt: skip
        message = bytearray(rng.choice(chunks))
    elif kind == 2:
        message = bytearray(
            encode_readings({"a_degc": rng.uniform(-9, 9), "b_bar": float("nan")}, rng.randrange(1 << 62))
        )
    elif kind == 3:
        record = upstream.UpstreamRecord(
            site="demo", gateway="gw", stream=rng.choice(upstream.STREAMS), seq=rng.randrange(9), machine="M",
            utc_ns=rng.randrange(1 << 62), late=False, body={"a": [1.5, None, "x"], "b": {"c": True}},
        )  # fmt: skip
        message = bytearray(upstream.encode_record(record))
    else:
        message = bytearray(b'{"v":1,"stream":"feature","ranges":[[1,40],[43,43]]}')
    for _ in range(rng.randrange(4)):
        message[rng.randrange(len(message))] = rng.randrange(256)
    if rng.random() < 0.1:
        del message[rng.randrange(len(message)) :]
    if kind <= 1 and len(message) > 8 and rng.random() < 0.8:
        message[-4:] = struct.pack("<I", zlib.crc32(bytes(message[:-4])))
    return bytes(message)
