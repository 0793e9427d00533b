"""Pure codec of what sensors send over MQTT: burst chunks and scalar readings. The layout is PROTOCOL.md's; no I/O.

A burst arrives whole or not at all: chunks carry their place and a CRC, an incomplete burst is counted and dropped, and
nothing is ever analysed across a gap. Whatever the bytes, decoding answers with a value or with FrameError.
`BurstAssembler` also puts the parts of vendors' bursts together, which payload_codec.py decodes.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import FrameError
from firmware_bridge.measurement import Quality, Waveform

I16 = NDArray[np.int16]
Counts = NDArray[np.int8] | NDArray[np.int16] | NDArray[np.int32] | NDArray[np.float32]

ROOT = "hark/v1"
AXES = ("x", "y", "z")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

# magic, version, flags, axis, reserved; burst id, chunk index, chunk count, n_samples, first sample, payload bytes,
# scale to m/s2, sample rate, start of the first sample (UTC, 0 unknown).
# Little-endian, 48 bytes; a CRC-32 of everything before it ends the message.
HEADER = struct.Struct("<4sBBcBIHHIIIfdq")
CRC = struct.Struct("<I")
MAGIC = b"HRKB"
VERSION = 1
FLAG_OVERLOAD = 0x01  # the sensor itself saw its input saturate
MAX_CHUNK_BYTES = 100_000  # a whole message; AWS IoT disconnects above 128 KB
MAX_SAMPLES = 1 << 20
MAX_CHUNKS = 512
SAMPLE_RATE_HZ = (1.0, 1e6)

MAX_READINGS_BYTES = 16_384
MAX_READINGS = 256


@dataclass(frozen=True, slots=True)
class SensorTopic:
    """What a sensor's topic says: kind is "burst" (with its axis) or "readings"."""

    site: str
    sensor: str
    kind: str
    axis: str = ""


def check_name(name: str, what: str = "name") -> str:
    """`name` as one level of a topic.

    Raises: ValueError: empty, longer than 64, or with letters other than A-Z a-z 0-9 _ . -
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r} cannot stand in a topic; use 1 to 64 of A-Z a-z 0-9 _ . -")
    return name


def topic_burst(site: str, sensor: str, axis: str) -> str:
    """Where a sensor publishes the chunks of one axis ("+" for a subscription to all axes)."""
    if axis not in (*AXES, "+"):
        raise ValueError(f"axis {axis!r} is not one of {', '.join(AXES)}")
    return f"{ROOT}/{check_name(site, 'site')}/sensor/{check_name(sensor, 'sensor')}/burst/{axis}"


def topic_readings(site: str, sensor: str) -> str:
    """Where a sensor publishes its scalars."""
    return f"{ROOT}/{check_name(site, 'site')}/sensor/{check_name(sensor, 'sensor')}/readings"


def topic_sensor(site: str, sensor: str) -> str:
    """What to subscribe to for everything that a sensor publishes."""
    return f"{ROOT}/{check_name(site, 'site')}/sensor/{check_name(sensor, 'sensor')}/#"


def parse_sensor_topic(topic: str) -> SensorTopic:
    """The inverse of both builders.

    Raises: FrameError: not a sensor's topic.
    """
    match topic.split("/"):
        case ["hark", "v1", site, "sensor", sensor, "burst", axis] if axis in AXES:
            found = SensorTopic(site, sensor, "burst", axis)
        case ["hark", "v1", site, "sensor", sensor, "readings"]:
            found = SensorTopic(site, sensor, "readings")
        case _:
            raise FrameError(f"topic {topic[:120]!r} is no sensor's; see PROTOCOL.md, topics")
    if not (NAME.fullmatch(found.site) and NAME.fullmatch(found.sensor)):
        raise FrameError(f"topic {topic[:120]!r} names no site or sensor")
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """One message of a burst, checked: its own samples and what it says of the whole.

    Attributes:
        axis: "x", "y" or "z"; several letters where the samples of these axes stand in turn.
        burst_id: None where the sensor has none; chunks then belong together by their places alone.
        samples: shape (n,), counts as sampled (int8, int16, int32 or finite float32).
        n_samples: of the whole burst, with `first_sample` this chunk's place in it; 0 where only `index` tells the place.
        scale_m_s2: m/s2 per count. sample_rate_hz: as measured by the sensor.
        start_utc_ns: of the burst's first sample, 0 where the sensor has no clock.
        overload: the sensor's own word that its input saturated.
        crc: of the whole message; the same for a message sent twice.
    """

    axis: str
    burst_id: int | None
    index: int
    count: int
    n_samples: int
    first_sample: int
    sample_rate_hz: float
    scale_m_s2: float
    start_utc_ns: int
    overload: bool
    samples: Counts
    crc: int

    @property
    def burst(self) -> tuple[object, ...]:
        """What all chunks of one burst agree on. The start is among it only where PROTOCOL.md promises that."""
        start_utc_ns = self.start_utc_ns if self.n_samples else 0
        return (self.count, self.n_samples, self.sample_rate_hz, self.scale_m_s2, start_utc_ns)


def encode_burst(
    samples: I16,
    *,
    axis: str,
    burst_id: int,
    sample_rate_hz: float,
    scale_m_s2: float,
    start_utc_ns: int = 0,
    overload: bool = False,
    max_bytes: int = MAX_CHUNK_BYTES,
) -> list[bytes]:
    """One axis of one burst as the messages to publish, in order; each is at most `max_bytes` long.

    Args:
        samples: shape (n,), int16 counts, n from 1 to MAX_SAMPLES.
    Raises: ValueError: a burst that PROTOCOL.md does not allow.
    """
    if axis not in AXES:
        raise ValueError(f"axis {axis!r} is not one of {', '.join(AXES)}")
    if not 0 < len(samples) <= MAX_SAMPLES:
        raise ValueError(f"{len(samples)} samples; a burst has 1 to {MAX_SAMPLES}")
    if not HEADER.size + CRC.size + 2 <= max_bytes <= MAX_CHUNK_BYTES:
        raise ValueError(
            f"max_bytes = {max_bytes}; a message has {HEADER.size + CRC.size + 2} to {MAX_CHUNK_BYTES} bytes"
        )
    per_chunk = (max_bytes - HEADER.size - CRC.size) // 2
    starts = range(0, len(samples), per_chunk)
    if len(starts) > MAX_CHUNKS:
        raise ValueError(f"{len(starts)} chunks; at most {MAX_CHUNKS}, so make them larger")
    data = np.ascontiguousarray(samples, "<i2")
    chunks = []
    for index, first in enumerate(starts):
        payload = data[first : first + per_chunk].tobytes()
        head = (
            MAGIC,
            VERSION,
            FLAG_OVERLOAD * overload,
            axis.encode(),
            0,
            burst_id,
            index,
            len(starts),
            len(data),
            first,
        )
        body = HEADER.pack(*head, len(payload), scale_m_s2, sample_rate_hz, start_utc_ns) + payload
        chunks.append(body + CRC.pack(zlib.crc32(body)))
    return chunks


def decode_chunk(message: bytes) -> Chunk:
    """A message as a checked chunk.

    Raises: FrameError: anything that PROTOCOL.md does not allow, in one line.
    """
    if not HEADER.size + CRC.size < len(message) <= MAX_CHUNK_BYTES:
        raise FrameError(
            f"burst chunk of {len(message)} bytes; allowed are {HEADER.size + CRC.size + 2} to {MAX_CHUNK_BYTES}"
        )
    magic, version, flags, axis, _, burst_id, index, count, total, first, n_bytes, scale, rate, start = (
        HEADER.unpack_from(message)
    )
    if magic != MAGIC:
        raise FrameError(f"burst chunk begins with {magic.hex()}, not with {MAGIC.hex()} (HRKB)")
    if version != VERSION:
        raise FrameError(f"burst chunk has version {version}; this agent reads version {VERSION}")
    if (crc := CRC.unpack_from(message, len(message) - CRC.size)[0]) != zlib.crc32(message[: -CRC.size]):
        raise FrameError("burst chunk has a wrong CRC-32; it was damaged on its way")
    if axis.decode("latin-1") not in AXES:
        raise FrameError(f"burst chunk has axis {axis!r}; allowed are x, y, z")
    if n_bytes != len(message) - HEADER.size - CRC.size or n_bytes % 2:
        raise FrameError(
            f"burst chunk says {n_bytes} payload bytes and carries {len(message) - HEADER.size - CRC.size}"
        )
    if not (0 < count <= MAX_CHUNKS and index < count):
        raise FrameError(f"burst chunk {index} of {count}; at most {MAX_CHUNKS}, counted from 0")
    if not (0 < total <= MAX_SAMPLES and first + n_bytes // 2 <= total):
        raise FrameError(
            f"burst chunk holds samples {first} to {first + n_bytes // 2} of {total}; at most {MAX_SAMPLES}"
        )
    if not (SAMPLE_RATE_HZ[0] <= rate <= SAMPLE_RATE_HZ[1]):
        raise FrameError(
            f"burst chunk has sample rate {rate} Hz; allowed are {SAMPLE_RATE_HZ[0]} to {SAMPLE_RATE_HZ[1]}"
        )
    if not (math.isfinite(scale) and 0 < scale <= 1e3):
        raise FrameError(f"burst chunk has scale {scale} m/s2 per count; it is more than 0 and at most 1000")
    if start < 0:
        raise FrameError(f"burst chunk starts at {start} ns; write 0 where the clock is not set")
    samples = np.frombuffer(message, "<i2", n_bytes // 2, HEADER.size).astype(np.int16, copy=False)
    overload = bool(flags & FLAG_OVERLOAD)
    return Chunk(axis.decode(), burst_id, index, count, total, first, rate, scale, start, overload, samples, crc)


_Key = tuple[str, str, int | None]  # sensor, axis, burst id


@dataclass(slots=True, eq=False)
class _Open:
    """A burst that still waits for chunks."""

    burst: tuple[object, ...]
    until_monotonic_ns: int
    chunks: dict[int, Chunk] = field(default_factory=dict)
    n_samples: int = 0
    n_bytes: int = 0


class BurstAssembler:
    """Puts chunks back together, in any order, each counted once; bounded in bursts, bytes and time.

    Never raises on what a sensor sends. `counters` has complete, incomplete, corrupt, duplicate and oversized (a burst
    that alone is beyond `max_bytes` or MAX_SAMPLES); `last_error` is the newest reason for "corrupt". A message that comes
    again after its burst was complete (QoS 1 may do that) is known by its CRC; a sensor that restarts and counts its burst
    ids from 0 is not mistaken for it.
    """

    def __init__(self, max_open: int = 64, max_bytes: int = 32 << 20, timeout_s: float = 60.0) -> None:
        self.counters = dict.fromkeys(("complete", "incomplete", "corrupt", "duplicate", "oversized"), 0)
        self.last_error = ""
        self._max_open = max_open
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._open: OrderedDict[_Key, _Open] = OrderedDict()
        self._n_bytes = 0
        self._done: deque[tuple[_Key, frozenset[int]]] = deque(maxlen=256)

    @property
    def n_open(self) -> int:
        """Bursts that wait for more."""
        return len(self._open)

    def add(self, sensor: str, axis: str, payload: bytes, utc_ns: int, monotonic_ns: int) -> Waveform | None:
        """Take one message from the topic of `axis`; the Waveform when it was the last one missing."""
        try:
            chunk = decode_chunk(payload)
            if chunk.axis != axis:
                raise FrameError(f"burst chunk of axis {chunk.axis} came on the topic of axis {axis}")
        except FrameError as error:
            self.expire(monotonic_ns)
            self.refuse(sensor, error)
            return None
        made = self.add_chunk(sensor, chunk, utc_ns, monotonic_ns)
        return made[0] if made else None

    def refuse(self, sensor: str, error: FrameError) -> None:
        """Count a message that is no chunk."""
        self.counters["corrupt"] += 1
        self.last_error = f"{sensor}: {error}"

    def add_chunk(
        self, sensor: str, chunk: Chunk, utc_ns: int, monotonic_ns: int, timeout_s: float | None = None
    ) -> list[Waveform]:
        """Take one checked chunk; the burst's Waveforms, one an axis, when it was the last one missing.

        Args:
            timeout_s: how long its burst may wait for the others, where that is not the assembler's own.
        """
        self.expire(monotonic_ns)
        if max(chunk.n_samples, len(chunk.samples)) * chunk.samples.itemsize > self._max_bytes:
            self.counters["oversized"] += 1
            return []
        key = (sensor, chunk.axis, chunk.burst_id)
        until_ns = monotonic_ns + round((self._timeout_s if timeout_s is None else timeout_s) * 1e9)
        if not self._keep(key, chunk, until_ns):
            self.counters["duplicate"] += 1
            return []
        if self._open[key].n_samples > MAX_SAMPLES * len(chunk.axis):
            self._forget(key)
            self.counters["oversized"] += 1
            return []
        if len(self._open[key].chunks) < chunk.count:
            self._make_room(key)
            return []
        return self._complete(key, utc_ns, monotonic_ns)

    def expire(self, monotonic_ns: int) -> None:
        """Drop what has waited too long; also called by every `add`."""
        for key in [key for key, waiting in self._open.items() if monotonic_ns > waiting.until_monotonic_ns]:
            self._drop(key)

    def _keep(self, key: _Key, chunk: Chunk, until_monotonic_ns: int) -> bool:
        """False where this very message was seen before."""
        waiting = self._open.get(key)
        if waiting is None and any(key == done and chunk.crc in crcs for done, crcs in self._done):
            return False
        if waiting is not None:
            known = waiting.chunks.get(chunk.index)
            if known is not None and known.crc == chunk.crc:
                return False
            if (
                known is not None or waiting.burst != chunk.burst
            ):  # the id again for another burst: the sensor restarted
                self._drop(key)
                waiting = None
        if waiting is None:
            waiting = self._open[key] = _Open(chunk.burst, until_monotonic_ns)
        waiting.chunks[chunk.index] = chunk
        waiting.n_samples += len(chunk.samples)
        waiting.n_bytes += chunk.samples.nbytes
        self._n_bytes += chunk.samples.nbytes
        return True

    def _make_room(self, newest: _Key) -> None:
        while len(self._open) > self._max_open or self._n_bytes > self._max_bytes:
            oldest = next(iter(self._open))
            if oldest == newest and len(self._open) > 1:
                self._open.move_to_end(newest)
                continue
            self._drop(oldest)

    def _drop(self, key: _Key) -> None:
        self._forget(key)
        self.counters["incomplete"] += 1

    def _forget(self, key: _Key) -> _Open:
        waiting = self._open.pop(key)
        self._n_bytes -= waiting.n_bytes
        return waiting

    def _complete(self, key: _Key, utc_ns: int, monotonic_ns: int) -> list[Waveform]:
        burst = self._forget(key)
        chunks = sorted(burst.chunks.values(), key=lambda chunk: (chunk.first_sample, chunk.index))
        if not _joins(chunks, burst.n_samples):
            whole = f"{chunks[0].n_samples or burst.n_samples} samples of axis {key[1]}"
            self.refuse(key[0], FrameError(f"the chunks of burst {key[2]} do not join into {whole}"))
            return []
        crcs = [chunk.crc for chunk in chunks]
        self._done.append((key, frozenset(crcs)))
        self.counters["complete"] += 1
        burst_id = key[2] if key[2] is not None else zlib.crc32(struct.pack(f"<{len(crcs)}I", *crcs))
        return [_waveform(key[0], axis, burst_id, chunks, utc_ns, monotonic_ns) for axis in key[1]]


def _joins(chunks: Sequence[Chunk], n_samples: int) -> bool:
    """Whether sorted chunks stand without gap or overlap, and hold as many samples of each axis."""
    first = chunks[0]
    if not first.n_samples:
        return n_samples > 0 and n_samples % len(first.axis) == 0
    starts = np.cumsum([0, *(len(chunk.samples) for chunk in chunks)])
    return [chunk.first_sample for chunk in chunks] == starts[:-1].tolist() and n_samples == first.n_samples


def _waveform(
    sensor: str, axis: str, burst_id: int, chunks: Sequence[Chunk], utc_ns: int, monotonic_ns: int
) -> Waveform:
    first = chunks[0]
    place = first.axis.index(axis)
    counts = np.concatenate([chunk.samples for chunk in chunks])[place :: len(first.axis)]
    clipped = any(chunk.overload for chunk in chunks) or _reaches_full_scale(counts)
    return Waveform(
        sensor=sensor,
        axis=axis,
        samples=counts.astype(np.float32) * np.float32(first.scale_m_s2),
        sample_rate_hz=first.sample_rate_hz,
        burst_id=burst_id,
        start_utc_ns=first.start_utc_ns or utc_ns - round(len(counts) / first.sample_rate_hz * 1e9),
        utc_ns=utc_ns,
        monotonic_ns=monotonic_ns,
        quality=Quality.UNCERTAIN if clipped else Quality.GOOD,
    )


def _reaches_full_scale(counts: Counts) -> bool:
    """Whether a sample stands at the end of its type's range; a float has none."""
    if counts.dtype.kind != "i":
        return False
    limits = np.iinfo(str(counts.dtype))
    return bool(counts.min() == limits.min or counts.max() == limits.max)


@dataclass(frozen=True, slots=True)
class Readings:
    """Scalars of a simple sensor. `utc_ns` is 0 where it has no clock; NaN stands for its "not available"."""

    values: Mapping[str, float]
    utc_ns: int = 0


def encode_readings(values: Mapping[str, float], utc_ns: int = 0) -> bytes:
    """Readings as JSON; a value that is not finite becomes null."""
    sent = {point: (value if math.isfinite(value) else None) for point, value in values.items()}
    return json.dumps({"t_utc_ns": utc_ns, "values": sent}, separators=(",", ":"), allow_nan=False).encode()


def decode_readings(payload: bytes) -> Readings:
    """JSON as readings.

    Raises: FrameError: too long, no JSON, not the two keys, or a value that is no finite number and not null.
    """
    if len(payload) > MAX_READINGS_BYTES:
        raise FrameError(f"readings of {len(payload)} bytes; at most {MAX_READINGS_BYTES}")
    try:
        tree: Any = json.loads(payload, parse_constant=_no_constant)
    except RecursionError:
        raise FrameError("readings are nested too deeply") from None
    except ValueError as error:  # JSON, UTF-8 and digits without end
        raise FrameError(f"readings are no JSON: {str(error)[:80]}") from None
    if (
        not isinstance(tree, dict)
        or not isinstance(tree.get("values"), dict)
        or not set(tree) <= {"t_utc_ns", "values"}
    ):
        raise FrameError('readings must be {"t_utc_ns": number, "values": {"point": number}}')
    if len(tree["values"]) > MAX_READINGS:
        raise FrameError(f"{len(tree['values'])} readings in one message; at most {MAX_READINGS}")
    utc_ns = tree.get("t_utc_ns", 0)
    if type(utc_ns) is not int or not 0 <= utc_ns < 1 << 63:
        raise FrameError("t_utc_ns must be nanoseconds since 1970 as a whole number, or 0")
    return Readings({point: _number(point, value) for point, value in tree["values"].items()}, utc_ns)


def _no_constant(name: str) -> NoReturn:
    raise FrameError(f"readings hold {name}; write null for a value that is not available")


def _number(point: str, value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise FrameError(f"reading {point[:64]!r} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FrameError(f"reading {point[:64]!r} is beyond any number")
    return number
