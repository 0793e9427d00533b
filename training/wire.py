"""What the collector takes in: the bridge's codec for records, and what their bodies must hold. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from firmware_bridge.chunks import decode_chunk
from firmware_bridge.errors import FrameError
from firmware_bridge.upstream import (
    MAX_RANGES,
    STREAM_OF_KIND,
    UpstreamRecord,
    decode_record,
    encode_confirm,
    parse_record_topic,
    topic_confirm,
)

KINDS = tuple(STREAM_OF_KIND)  # last topic level of every stream
MAX_UTC_NS = 7_258_118_400_000_000_000  # 2200: beyond stands a broken clock, which would break the date partition

Source = tuple[str, str, str]  # site, gateway, stream: what sequence numbers run in
Text = Annotated[str, Meta(max_length=128)]
Positive = Annotated[float, Meta(gt=0)]
UtcNs = Annotated[int, Meta(ge=0, le=MAX_UTC_NS)]


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What every body may say: `clock` is "unset" where the record's time is of a clock that was not set."""

    clock: Text | None = None


class AlarmBody(Body, frozen=True):
    """What an alarm record must say; the whole of it is kept beside these as JSON."""

    id: Text
    state: Text
    severity: Text
    condition: Text
    code: Text = ""
    t_start: datetime | None = None
    alarm_class: str = msgspec.field(default="", name="class")
    fault: dict[str, Any] | None = None
    text: dict[str, str] | str = ""


class FeatureBody(Body, frozen=True):
    """What a feature record must say; `columns` comes once per digest, not with every vector."""

    digest: Text
    state: Text
    values: list[float | None]
    present: list[bool | int]
    machine_type: Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,64}$")] = ""  # becomes part of a path
    score: float | None = None
    threshold: float | None = None
    burst_id: int | None = None
    columns: list[str] | None = None
    point: dict[str, float | None] = {}


class BurstBody(Body, frozen=True):
    """One axis of one burst: int16 little-endian counts and what a count means."""

    sensor: Text
    axis: Text
    sample_rate_hz: Positive
    scale_m_s2: Positive
    burst_id: int
    start_utc_ns: UtcNs
    samples: bytes
    alarm_id: str | None = None


class ClockBody(Body, frozen=True):
    """That a gateway's wall clock was set: what it would have said and what it said, at one and the same instant."""

    step_s: float
    from_utc_ns: UtcNs
    to_utc_ns: UtcNs
    set: bool


class BaselineBody(Body, frozen=True):
    """That a machine's normal was learned (of one state), or is to be learned anew, and why."""

    what: Literal["learned", "run_in", "relearn"]
    state: Text
    n_windows: int
    reason: Text
    although_sick: bool


class SampleBody(Body, frozen=True):
    """What one sensor said in some minutes, as firmware_bridge/chunks.py packs it."""

    chunk: bytes


BODIES: dict[str, type[Body]] = {
    "alarm": AlarmBody,
    "clock": ClockBody,
    "baseline": BaselineBody,
    "feature": FeatureBody,
    "burst": BurstBody,
    "sample": SampleBody,
}


def decode(topic: str, payload: bytes) -> UpstreamRecord:
    """One message as a record that can become a row.

    Raises: FrameError: not one of our records, a body that lacks something, or a topic that says something else.
    """
    named = parse_record_topic(topic)
    record = decode_record(payload)
    if (named.site, named.gateway, named.machine, named.stream) != (
        *source_of(record)[:2],
        record.machine,
        record.stream,
    ):
        raise FrameError(f"record {record.key} came on the topic of another site, gateway, machine or stream")
    if record.stream not in BODIES or record.utc_ns > MAX_UTC_NS:
        raise FrameError(f"record {record.key}: stream {record.stream} at {record.utc_ns} ns cannot be kept")
    try:
        body = msgspec.convert(record.body, BODIES[record.stream])
    except msgspec.ValidationError as error:
        raise FrameError(f"record {record.key}: {str(error)[:160]}") from None
    if isinstance(body, FeatureBody) and len(body.values) != len(body.present):
        raise FrameError(f"record {record.key}: {len(body.values)} values and {len(body.present)} present flags")
    if isinstance(body, SampleBody) and [one.sensor for one in decode_chunk(body.chunk).series] != [record.machine]:
        raise FrameError(f"record {record.key}: its chunk is not one of sensor {record.machine}")
    return record


def source_of(record: UpstreamRecord) -> Source:
    """Who counts: sequence numbers run per site, gateway and stream."""
    return record.site, record.gateway, record.stream


def confirmations(source: Source, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[str, bytes]]:
    """Topic and payload of the messages that tell a gateway what the dataset holds; ranges are inclusive."""
    site, gateway, stream = source
    pairs = list(ranges)
    for first in range(0, len(pairs), MAX_RANGES):
        yield topic_confirm(site, gateway), encode_confirm(stream, pairs[first : first + MAX_RANGES])


def utc(utc_ns: int) -> datetime:
    """Nanoseconds since 1970 as a time that keeps microseconds."""
    seconds, rest_ns = divmod(utc_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
