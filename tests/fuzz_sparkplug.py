"""Fuzz target for Sparkplug: `fuzz_one(data)` must return, whatever the bytes; `inputs(seed)` makes hostile ones without end.

A plain module, so that a fuzz run of a million inputs and the property tests share one target.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

from firmware_bridge.errors import FrameError
from firmware_bridge.sparkplug.host import SparkplugHost
from firmware_bridge.sparkplug.node import SparkplugNode, decode_state
from firmware_bridge.sparkplug.topics import BD_SEQ, REBIRTH, Kind, topic_of
from firmware_bridge.sparkplug.wire import DataType, Metric, Payload, decode, encode

S = 1_000_000_000
KINDS = (Kind.NBIRTH, Kind.DBIRTH, Kind.NDATA, Kind.DDATA, Kind.NDEATH, Kind.DDEATH, Kind.NCMD)


def fuzz_one(data: bytes) -> None:
    """Decode `data`; a payload is coded again and heard by a host and a node as every kind of message.

    Raises: whatever is a bug: nothing but FrameError may come out of a decoder, and nothing out of host and node.
    """
    host = SparkplugHost(max_nodes=2, max_devices=4, max_metrics=50)
    with contextlib.suppress(FrameError):
        decode_state(data)
    try:
        payload = decode(data)
    except FrameError:
        assert host.add(topic_of("g", Kind.NDATA, "gw"), data, S, S) == []
        assert host.counters["corrupt"] == 1
        return
    if all(metric.datatype == DataType.UNKNOWN for metric in payload.metrics):
        assert len(decode(encode(payload)).metrics) == len(payload.metrics)
    node = SparkplugNode("g", "gw", max_metrics=10, max_backlog=10)
    node.connecting()
    node.connected(S)
    for turn in range(2):
        for kind in KINDS:
            topic = topic_of("g", kind, "gw", "d" if kind.startswith("D") else "")
            host.add(topic, data, S, turn * S)
            node.received(topic, data, S)
    host.expire(10 * S)
    host.requests(10 * S)
    host.lost(S)
    assert host.n_metrics == 0


def valid(rng: random.Random) -> bytes:
    """A payload as an edge node sends it: a birth, data by alias, a death or a command."""
    birth = rng.random() < 0.5
    metrics = [Metric(name=BD_SEQ, datatype=DataType.INT64, value=rng.randrange(3))]
    metrics += [Metric(name=REBIRTH, datatype=DataType.BOOLEAN, value=rng.random() < 0.5)]
    for i in range(rng.randrange(12)):
        value = rng.choice((rng.uniform(-1e6, 1e6), rng.randrange(1 << 40), "text" * rng.randrange(9), True, None))
        properties = {"Quality": rng.choice((0, 192, 500))} if rng.random() < 0.2 else {}
        metrics.append(
            Metric(
                name=f"Values/{i}" if birth else "",
                alias=rng.randrange(20),
                timestamp_ms=rng.randrange(1 << 44),
                value=value,
                is_null=value is None,
                is_historical=rng.random() < 0.1,
                properties=properties,
            )
        )
    return encode(Payload(timestamp_ms=rng.randrange(1 << 44), seq=rng.randrange(256), metrics=metrics))


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with some bytes changed, cut out, doubled or cut off."""
    broken = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(broken) + 1)
        match rng.randrange(4):
            case 0:
                broken[at : at + 1] = bytes((rng.randrange(256),))
            case 1:
                del broken[at : at + rng.randint(1, 8)]
            case 2:
                broken[at:at] = broken[at : at + rng.randint(1, 64)]
            case _:
                del broken[at + rng.randint(0, 40) :]
    return bytes(broken)


def inputs(seed: int) -> Iterator[bytes]:
    """Valid, mutated and random payloads in turn, the same for the same seed, without end."""
    rng = random.Random(seed)
    while True:
        data = valid(rng)
        yield data
        for _ in range(8):
            yield mutated(data, rng)
        yield rng.randbytes(rng.randrange(200))
