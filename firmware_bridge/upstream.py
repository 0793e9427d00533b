"""Pure codec between a gateway and the collector: topics, the envelope of a record, and the collector's confirmation.

The key of a record is "<site>/<gateway>/<stream>/<seq>": at least once on the wire, exactly once by key. A record that
has left keeps its bytes' meaning for ever; see PROTOCOL.md for what may change within a version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from firmware_bridge.errors import FrameError
from firmware_bridge.frames import NAME, ROOT, check_name

VERSION = 1
STREAMS = ("alarm", "clock", "baseline", "feature", "burst", "sample")
KIND_OF_STREAM = {
    "alarm": "event", "clock": "clock", "baseline": "baseline", "feature": "features", "burst": "burst",
    "sample": "samples",
}  # fmt: skip
BINARY = ("burst", "sample")  # bodies that hold bytes
STREAM_OF_KIND = {kind: stream for stream, kind in KIND_OF_STREAM.items()}
MAX_RECORD_BYTES = 8 << 20  # a burst of MAX_SAMPLES and its envelope, with room
MAX_CONFIRM_BYTES = 65_536
MAX_RANGES = 1000
RESERVED = "sensor"  # the level below a site that belongs to sensors; no gateway has this name

Stream = Literal["alarm", "clock", "baseline", "feature", "burst", "sample"]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class UpstreamRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record on its way up. `late` says that it waited in the buffer; its `utc_ns` is never rewritten."""

    site: Name
    gateway: Name
    stream: Stream
    seq: Count
    machine: Name
    utc_ns: Count
    late: bool = False
    body: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def key(self) -> str:
        """What makes a record one and the same, however often it arrives."""
        return f"{self.site}/{self.gateway}/{self.stream}/{self.seq}"


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    v: Literal[1]
    key: str
    site: Name
    gateway: Name
    stream: Stream
    seq: Count
    machine: Name
    utc_ns: Count
    late: bool
    body: dict[str, Any]


class Confirm(msgspec.Struct, frozen=True, kw_only=True):
    """What the collector has committed: inclusive ranges of one stream's sequence numbers."""

    stream: Stream
    ranges: tuple[tuple[int, int], ...]


class _ConfirmMessage(msgspec.Struct, frozen=True, kw_only=True):
    v: Literal[1]
    stream: Stream
    ranges: Annotated[list[tuple[Count, Count]], Meta(max_length=MAX_RANGES)]


@dataclass(frozen=True, slots=True)
class RecordTopic:
    """Who published a record, as its topic says."""

    site: str
    gateway: str
    machine: str
    stream: str


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, for msgspec."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a record cannot carry {type(value).__name__}")


_json = msgspec.json.Encoder(enc_hook=_plain)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_plain)
_from_json = msgspec.json.Decoder(_Envelope)
_from_msgpack = msgspec.msgpack.Decoder(_Envelope)
_confirm_from_json = msgspec.json.Decoder(_ConfirmMessage)


def encode_record(record: UpstreamRecord) -> bytes:
    """The record's message: msgpack for bursts and samples (bytes stay bytes), JSON for the rest (NaN becomes null)."""
    envelope = {
        "v": VERSION,
        "key": record.key,
        "site": record.site,
        "gateway": record.gateway,
        "stream": record.stream,
        "seq": record.seq,
        "machine": record.machine,
        "utc_ns": record.utc_ns,
        "late": record.late,
        "body": record.body,
    }
    return (_msgpack if record.stream in BINARY else _json).encode(envelope)


def decode_record(message: bytes) -> UpstreamRecord:
    """A message as a record; whether it is JSON or msgpack is told by its first byte.

    Raises: FrameError: too long, damaged, of another version, or with a key that is not its own.
    """
    if not 0 < len(message) <= MAX_RECORD_BYTES:
        raise FrameError(f"record of {len(message)} bytes; allowed are 1 to {MAX_RECORD_BYTES}")
    try:
        found = (_from_json if message[:1] == b"{" else _from_msgpack).decode(message)
    except RecursionError:
        raise FrameError("record is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise FrameError(f"record does not follow PROTOCOL.md: {str(error)[:160]}") from None
    record = UpstreamRecord(
        site=found.site,
        gateway=found.gateway,
        stream=found.stream,
        seq=found.seq,
        machine=found.machine,
        utc_ns=found.utc_ns,
        late=found.late,
        body=found.body,
    )
    if found.key != record.key:
        raise FrameError(f"record calls itself {found.key[:200]!r} and is {record.key!r}")
    return record


def encode_confirm(stream: str, ranges: Sequence[tuple[int, int]]) -> bytes:
    """What the collector says after its commit: these sequence numbers, first and last included, are safe.

    Raises: ValueError: an unknown stream, more than MAX_RANGES ranges, or one that runs backwards.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r} is not one of {', '.join(STREAMS)}")
    if len(ranges) > MAX_RANGES or any(not 0 <= first <= last for first, last in ranges):
        raise ValueError(f"confirm holds up to {MAX_RANGES} ranges, each from its first to its last sequence number")
    return _json.encode({"v": VERSION, "stream": stream, "ranges": [list(pair) for pair in ranges]})


def decode_confirm(message: bytes) -> Confirm:
    """The inverse.

    Raises: FrameError: anything else than a confirmation of this version.
    """
    if len(message) > MAX_CONFIRM_BYTES:
        raise FrameError(f"confirm of {len(message)} bytes; at most {MAX_CONFIRM_BYTES}")
    try:
        found = _confirm_from_json.decode(message)
    except RecursionError:
        raise FrameError("confirm is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise FrameError(f"confirm does not follow PROTOCOL.md: {str(error)[:160]}") from None
    if any(first > last for first, last in found.ranges):
        raise FrameError("confirm has a range that runs backwards")
    return Confirm(stream=found.stream, ranges=tuple(found.ranges))


def _gateway(site: str, gateway: str) -> str:
    if gateway == RESERVED:
        raise ValueError(f"no gateway is called {RESERVED!r}; that level belongs to the site's sensors")
    return f"{ROOT}/{check_name(site, 'site')}/{check_name(gateway, 'gateway')}"


def topic_status(site: str, gateway: str) -> str:
    """Retained; "offline" is the gateway's last will."""
    return f"{_gateway(site, gateway)}/status"


def topic_confirm(site: str, gateway: str) -> str:
    """Where the collector answers."""
    return f"{_gateway(site, gateway)}/confirm"


def topic_state(site: str, gateway: str, machine: str) -> str:
    """Retained: what the machine does, and its health."""
    return f"{_gateway(site, gateway)}/{check_name(machine, 'machine')}/state"


def topic_alarm(site: str, gateway: str, machine: str, alarm_id: str) -> str:
    """Retained while the alarm stands; emptied when it is over."""
    return f"{_gateway(site, gateway)}/{check_name(machine, 'machine')}/alarm/{check_name(alarm_id, 'alarm id')}"


def topic_record(site: str, gateway: str, machine: str, stream: str) -> str:
    """Where a record of the outbox goes."""
    if stream not in KIND_OF_STREAM:
        raise ValueError(f"stream {stream!r} is not one of {', '.join(STREAMS)}")
    return f"{_gateway(site, gateway)}/{check_name(machine, 'machine')}/{KIND_OF_STREAM[stream]}"


def topic_filters(site: str = "+") -> tuple[str, ...]:
    """What a collector subscribes to for every record of a site ("+" for all sites); see PROTOCOL.md for sharing."""
    level = site if site == "+" else check_name(site, "site")
    return tuple(f"{ROOT}/{level}/+/+/{kind}" for kind in STREAM_OF_KIND)


def parse_record_topic(topic: str) -> RecordTopic:
    """The inverse of `topic_record`.

    Raises: FrameError: not a record's topic.
    """
    parts = topic.split("/")
    if len(parts) != 6 or "/".join(parts[:2]) != ROOT or parts[5] not in STREAM_OF_KIND or parts[3] == RESERVED:
        raise FrameError(f"topic {topic[:200]!r} is no record's; see PROTOCOL.md, topics")
    if not all(NAME.fullmatch(part) for part in parts[2:5]):
        raise FrameError(f"topic {topic[:200]!r} names no site, gateway or machine")
    return RecordTopic(parts[2], parts[3], parts[4], STREAM_OF_KIND[parts[5]])
