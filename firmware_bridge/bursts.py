"""Pure codec of payload files' waveforms: JSON or binary messages become chunks, which frames.BurstAssembler joins.

Whatever the bytes, decoding answers with chunks or with FrameError: rate, scale, place, axis and every sample are checked.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import FrameError
from firmware_bridge.frames import AXES, MAX_CHUNKS, MAX_SAMPLES, SAMPLE_RATE_HZ, Chunk, Counts
from firmware_bridge.jsonpath import JsonPath
from firmware_bridge.messages import MISSING, Message, Part, Reader, TimeReader, Told, octets_of
from firmware_bridge.payload import ANY_AXIS, BurstProfile, BurstTable, BytesBurst, JsonBurst
from firmware_bridge.units import STANDARD_GRAVITY_M_S2

MAX_ACCELERATION_M_S2 = 1e6  # beyond any sensor; keeps float32 finite
DTYPE = {"int8": "i1", "int16": "i2", "int32": "i4", "float32": "f4", "float64": "f8"}


class BurstDecoder:
    """Chunks of the waveforms that one payload file describes."""

    def __init__(self, profile: BurstProfile, part: Part) -> None:
        table = profile.burst
        self.timeout_s = table.timeout_s
        self._table: BurstTable = table
        self._samples: _Samples = _JsonSamples(table, part) if isinstance(table, JsonBurst) else _BytesSamples(table)
        self._unit_m_s2 = table.scale * (STANDARD_GRAVITY_M_S2 if table.unit == "g" else 1.0)
        readers = {
            "scale": table.scale_at, "sample rate": table.sample_rate_at, "sample interval": table.sample_interval_at,
            "axis": table.axis_at, "burst id": table.burst_id_at, "place among its parts": table.index_at,
            "number of parts": table.count_at,
        }  # fmt: skip
        self._readers = {what: Reader(ref, what) for what, ref in readers.items() if ref is not None}
        self._time = TimeReader(table.time) if table.time is not None else None

    def decode(self, message: Message) -> list[Chunk]:
        """One chunk for each list of samples; none where the message is no waveform of this sensor.

        Raises: FrameError: a waveform that is not as the payload file says.
        """
        tree = self._samples.open(message)
        found = [] if tree is MISSING else self._samples.find(tree, message.payload)
        if not found:
            return []
        told = Told(tree, message.payload, message.levels)
        crc = zlib.crc32(message.payload)
        index, count = self._place(told)
        start_utc_ns = max(self._time.read(told), 0) if self._time is not None else 0
        burst_id = self._burst_id(told, start_utc_ns, crc if count == 1 else None)
        rate_hz, scale_m_s2 = self._rate_hz(told), self._scale_m_s2(told)
        chunks = []
        for axes, samples in found:
            axis = self._axis(told) if axes == ANY_AXIS else axes
            _check_samples(samples, scale_m_s2)
            chunks.append(
                Chunk(axis, burst_id, index, count, 0, 0, rate_hz, scale_m_s2, start_utc_ns, False, samples, crc)
            )
        return chunks

    def _place(self, told: Told) -> tuple[int, int]:
        place, parts = self._readers.get("place among its parts"), self._readers.get("number of parts")
        if place is None or parts is None:
            return 0, 1
        first = self._table.first_index
        index, count = place.whole(told) - first, parts.whole(told)
        if not (0 < count <= MAX_CHUNKS and 0 <= index < count):
            raise FrameError(f"part {index + first} of {count}; at most {MAX_CHUNKS}, counted from {first}")
        return index, count

    def _burst_id(self, told: Told, start_utc_ns: int, crc: int | None) -> int | None:
        """By its own id, else by its time to the millisecond, else by its bytes."""
        reader = self._readers.get("burst id")
        if reader is not None:
            value = reader.value(told)
            return (
                zlib.crc32(value.encode("utf-8", "replace")) if isinstance(value, str) else reader.whole(told) % 2**32
            )
        if start_utc_ns:
            return start_utc_ns // 10**6 % 2**32
        if self._table.needs_id:
            raise FrameError("message has no time, which tells its burst")
        return crc

    def _rate_hz(self, told: Told) -> float:
        rate_hz = self._table.sample_rate_hz
        if (reader := self._readers.get("sample rate")) is not None:
            rate_hz = reader.number(told)
        elif (reader := self._readers.get("sample interval")) is not None:
            interval_s = reader.number(told)
            rate_hz = 1 / interval_s if interval_s > 0 else math.inf
        assert rate_hz is not None
        if not SAMPLE_RATE_HZ[0] <= rate_hz <= SAMPLE_RATE_HZ[1]:
            raise FrameError(f"sample rate {rate_hz} Hz; allowed are {SAMPLE_RATE_HZ[0]} to {SAMPLE_RATE_HZ[1]}")
        return rate_hz

    def _scale_m_s2(self, told: Told) -> float:
        reader = self._readers.get("scale")
        scale_m_s2 = self._unit_m_s2 * (reader.number(told) if reader is not None else 1.0)
        if not (math.isfinite(scale_m_s2) and scale_m_s2 != 0):
            raise FrameError(f"scale {scale_m_s2} m/s2 per count")
        return scale_m_s2

    def _axis(self, told: Told) -> str:
        axis = str(self._readers["axis"].value(told)).lower()
        if not (axis and set(axis) <= set(AXES) and len(set(axis)) == len(axis)):
            raise FrameError(f"axis {axis[:20]!r} is not of x, y, z; give axis_at a table in the payload file")
        return axis


class _Samples(Protocol):
    """Where a format keeps its samples."""

    def open(self, message: Message) -> Any:
        """The sensor's part of a message; MISSING where it is none of its waveforms."""

    def find(self, tree: Any, payload: bytes) -> list[tuple[str, Counts]]:
        """Samples by axes, as the payload file names them."""


class _JsonSamples:
    """Lists of numbers, or text that stands for bytes."""

    def __init__(self, burst: JsonBurst, part: Part) -> None:
        self._part = part
        self._paths = [(axes, JsonPath.parse(path)) for axes, path in burst.samples.items()]
        self._encoding = burst.encoding
        self._dtype = _dtype(burst)

    def open(self, message: Message) -> Any:
        return self._part.of(message)

    def find(self, tree: Any, payload: bytes) -> list[tuple[str, Counts]]:
        found = [(axes, path.find(tree)) for axes, path in self._paths]
        return [(axes, self._samples(values)) for axes, values in found if values]

    def _samples(self, values: list[Any]) -> Counts:
        if self._encoding == "numbers":
            return _numbers(values[0] if len(values) == 1 and isinstance(values[0], list) else values)
        if len(values) != 1 or not isinstance(values[0], str):
            raise FrameError(f"samples are no text of {self._encoding}")
        return _counts(octets_of(values[0], self._encoding), self._dtype)


class _BytesSamples:
    """The end of a binary message."""

    def __init__(self, burst: BytesBurst) -> None:
        self._axes = burst.axes
        self._first, self._n_after = burst.first_byte, burst.n_bytes_after
        self._match = [(int(offset), bytes.fromhex(octets)) for offset, octets in burst.match.items()]
        self._dtype = _dtype(burst)

    def open(self, message: Message) -> Any:
        ours = all(message.payload[at : at + len(octets)] == octets for at, octets in self._match)
        return None if ours else MISSING

    def find(self, tree: Any, payload: bytes) -> list[tuple[str, Counts]]:
        return [(self._axes, _counts(payload[self._first : len(payload) - self._n_after], self._dtype))]


def _dtype(burst: BurstTable) -> np.dtype[Any]:
    return np.dtype(("<" if burst.byte_order == "little" else ">") + DTYPE[burst.type])


def _numbers(values: list[Any]) -> NDArray[np.float32]:
    """Raises: FrameError: something among them is no number."""
    if not set(map(type, values)) <= {int, float}:
        raise FrameError("samples are no list of numbers")
    try:
        return _narrow(np.array(values, np.float64))
    except OverflowError:
        raise FrameError("samples are beyond any number") from None


def _counts(octets: bytes, dtype: np.dtype[Any]) -> Counts:
    """Raises: FrameError: not a whole number of samples, or no numbers."""
    if len(octets) % dtype.itemsize:
        raise FrameError(f"samples of {len(octets)} bytes; {dtype.name} has {dtype.itemsize} each")
    counts = np.frombuffer(octets, dtype)
    if dtype.kind == "f":
        return _narrow(counts)
    native: Counts = counts.astype(dtype.newbyteorder("="), copy=False)
    return native


def _narrow(samples: NDArray[Any]) -> NDArray[np.float32]:
    """As float32.

    Raises: FrameError: NaN, infinity, or more than float32 can hold.
    """
    if not np.isfinite(samples).all() or (samples.size and np.abs(samples).max() > np.finfo(np.float32).max):
        raise FrameError("samples hold NaN, infinity, or what no sensor measures")
    return samples.astype(np.float32)


def _check_samples(samples: Counts, scale_m_s2: float) -> None:
    if not 0 < len(samples) <= MAX_SAMPLES * len(AXES):
        raise FrameError(f"{len(samples)} samples; a burst has 1 to {MAX_SAMPLES} an axis")
    peak_m_s2 = max(abs(float(samples.min())), abs(float(samples.max()))) * abs(scale_m_s2)
    if peak_m_s2 > MAX_ACCELERATION_M_S2:
        raise FrameError(f"samples reach {peak_m_s2:.3g} m/s2; check unit and scale in the payload file")
