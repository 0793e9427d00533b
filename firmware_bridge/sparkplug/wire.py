"""Pure codec of Sparkplug B payloads: the Eclipse Tahu protobuf definition (proto2), written by hand; no I/O.

Only what carries a scalar is read: name, alias, time, type, flags, value and properties of each metric. Unknown fields,
metadata, DataSet and Template values are stepped over by their length, so nothing nests deeper than a property's value.
Whatever the bytes, `decode` answers with a Payload or with FrameError, in time and memory that grow with their number.
Source: field numbers and wire types, eclipse/tahu sparkplug_b/sparkplug_b.proto; types and rules, Sparkplug 3.0.0 chapter 6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from firmware_bridge.errors import FrameError

MAX_PAYLOAD_BYTES = 262_144  # births are the largest; a broker such as AWS IoT stops at 131 072
MAX_METRICS = 5000
MAX_NAME_BYTES = 512
MAX_PROPERTIES = 64
COMPRESSED = (
    b"SPBV1.0_COMPRESSED"  # uuid of a payload packed into `body`: a habit of some clients, not in the specification
)

Value = bool | int | float | str | bytes | None


class DataType(IntEnum):
    """What a metric's value is (chapter 6, data types). From DATASET on, BYTES excepted, values are no scalars here."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one message.

    A struct, not a dataclass: a birth has thousands, and a frozen dataclass takes five times as long to make.

    Attributes:
        name: "" where the message gives the alias alone, as DATA does (tck-id-payloads-alias-data-cmd-requirement).
        timestamp_ms: UTC, milliseconds since 1970, when the value was taken.
        datatype: UNKNOWN where the message leaves it out, as DATA does (tck-id-payloads-metric-datatype-not-req).
        value: None for null, for a value that is no scalar, and where there is none.
        properties: scalar properties by name; "Quality" is the specification's own.
    """

    name: str = ""
    alias: int | None = None
    timestamp_ms: int | None = None
    datatype: int = DataType.UNKNOWN
    value: Value = None
    is_historical: bool = False
    is_null: bool = False
    properties: Mapping[str, Value] = {}


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `seq` is None where it is left out; `timestamp_ms` is when it was sent (UTC, since 1970)."""

    timestamp_ms: int | None = None
    seq: int | None = None
    metrics: Sequence[Metric] = ()


# Tags are field number << 3 | wire type, as they stand on the wire.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_WITH_VARINT = frozenset((VARINT, LENGTH))


def _tag(field: int, wire_type: int) -> int:
    return field << 3 | wire_type


_TIMESTAMP, _METRIC, _SEQ, _UUID = _tag(1, VARINT), _tag(2, LENGTH), _tag(3, VARINT), _tag(4, LENGTH)
_NAME, _ALIAS, _TIME, _DATATYPE = _tag(1, LENGTH), _tag(2, VARINT), _tag(3, VARINT), _tag(4, VARINT)
_HISTORICAL, _NULL, _PROPERTIES = _tag(5, VARINT), _tag(7, VARINT), _tag(9, LENGTH)
_KEY, _PROPERTY = _tag(1, LENGTH), _tag(2, LENGTH)
_PROPERTY_TYPE, _PROPERTY_NULL = _tag(1, VARINT), _tag(2, VARINT)

# The wire type of each member of the value's `oneof`, in the order that both Metric and PropertyValue number them.
_KINDS = {"int": VARINT, "long": VARINT, "float": FIXED32, "double": FIXED64, "boolean": VARINT, "string": LENGTH}
_METRIC_VALUE = {_tag(10 + i, wire): kind for i, (kind, wire) in enumerate(_KINDS.items())}
_METRIC_VALUE |= {_tag(16, LENGTH): "bytes"} | {_tag(field, LENGTH): "other" for field in (17, 18, 19)}
_PROPERTY_VALUE = {_tag(3 + i, wire): kind for i, (kind, wire) in enumerate(_KINDS.items())}
_METRIC_TAG = {kind: tag for tag, kind in _METRIC_VALUE.items()}
_PROPERTY_TAG = {kind: tag for tag, kind in _PROPERTY_VALUE.items()}

# The member of the `oneof` that carries each type (chapter 6, "Google Protocol Buffer Type").
_KIND_OF: dict[int, str] = {
    **dict.fromkeys((DataType.INT8, DataType.INT16, DataType.INT32), "int"),
    **dict.fromkeys((DataType.UINT8, DataType.UINT16, DataType.UINT32), "int"),
    **dict.fromkeys((DataType.INT64, DataType.UINT64, DataType.DATETIME), "long"),
    **dict.fromkeys((DataType.STRING, DataType.TEXT, DataType.UUID), "string"),
    **dict.fromkeys((DataType.BYTES, DataType.FILE), "bytes"),
    DataType.FLOAT: "float",
    DataType.DOUBLE: "double",
    DataType.BOOLEAN: "boolean",
}
_SIGNED_BITS: dict[int, int] = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
_UNSIGNED_BITS: dict[int, int] = {
    DataType.UINT8: 8,
    DataType.UINT16: 16,
    DataType.UINT32: 32,
    DataType.UINT64: 64,
    DataType.DATETIME: 64,
}
_FLOAT = struct.Struct("<f")
_DOUBLE = struct.Struct("<d")
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1


def decode(data: bytes) -> Payload:
    """A message's bytes as a Payload.

    Raises: FrameError: too large, no protobuf, text that is not UTF-8, a metric with two values, or too many of anything.
    """
    if len(data) > MAX_PAYLOAD_BYTES:
        raise FrameError(f"sparkplug payload of {len(data)} bytes; at most {MAX_PAYLOAD_BYTES}")
    timestamp_ms = seq = None
    metrics: list[Metric] = []
    for tag, value in _fields(data):
        if tag == _METRIC:
            if len(metrics) == MAX_METRICS:
                raise FrameError(f"sparkplug payload has more than {MAX_METRICS} metrics")
            metrics.append(_metric(value))
        elif tag == _TIMESTAMP:
            timestamp_ms = value
        elif tag == _SEQ:
            seq = value
        elif tag == _UUID and value == COMPRESSED:
            raise FrameError("sparkplug payload is compressed, which 3.0 does not have; turn it off at the edge node")
    return Payload(timestamp_ms=timestamp_ms, seq=seq, metrics=metrics)


def typed(value: Value, datatype: int) -> Value:
    """`value` as `datatype` says: signed integers are on the wire as two's complement of any width from 8 to 64 bits.

    DATA leaves the type out, so its reader must come back here with the type that the birth gave.
    """
    bits = _SIGNED_BITS.get(datatype)
    if bits is None or type(value) is not int:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Tag and raw value of every field of one message, in order: int for a varint, bytes for everything else.

    Raises: FrameError: bytes that no message of proto2 begins or ends with (groups, which proto2 gave up, among them).
    """
    position, end = 0, len(data)
    try:
        while position < end:
            tag = data[position]
            position += 1
            if tag > 0x7F:
                tag, position = _varint(data, position - 1)
            if tag < 8:
                raise FrameError("sparkplug payload has a field of number 0")
            wire_type = tag & 7
            if wire_type in _WITH_VARINT:
                value = data[position]
                position += 1
                if value > 0x7F:
                    value, position = _varint(data, position - 1)
                if wire_type == VARINT:
                    yield tag, value
                    continue
                size = value
            elif wire_type == FIXED32:
                size = 4
            elif wire_type == FIXED64:
                size = 8
            else:
                raise FrameError(f"sparkplug payload has a field of wire type {wire_type}")
            if size > end - position:
                raise FrameError("sparkplug payload ends within a field")
            yield tag, data[position : position + size]
            position += size
    except IndexError:
        raise FrameError("sparkplug payload ends within a field") from None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in base 128, least significant first, and where it ends. Raises: FrameError, IndexError: it does not end."""
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64, position
        shift += 7
    raise FrameError("sparkplug payload has a number of more than ten bytes")


def _metric(data: bytes) -> Metric:
    found = dict(_fields(data))  # of a field that comes twice the last one counts, as in every protobuf reader
    datatype = found.get(_DATATYPE, 0)
    return Metric(
        name=_text(found.get(_NAME, b""), MAX_NAME_BYTES),
        alias=found.get(_ALIAS),
        timestamp_ms=found.get(_TIME),
        datatype=datatype,
        value=_value(found, _METRIC_VALUE, datatype),
        is_historical=bool(found.get(_HISTORICAL)),
        is_null=bool(found.get(_NULL)),
        properties=_properties(found[_PROPERTIES]) if _PROPERTIES in found else {},
    )


def _properties(data: bytes) -> dict[str, Value]:
    """The scalars of a PropertySet; keys and values are two lists of one length (tck-id-payloads-propertyset-keys-array-size)."""
    keys: list[str] = []
    values: list[Value] = []
    for tag, content in _fields(data):
        if len(keys) > MAX_PROPERTIES or len(values) > MAX_PROPERTIES:
            raise FrameError(f"sparkplug metric has more than {MAX_PROPERTIES} properties")
        if tag == _KEY:
            keys.append(_text(content, MAX_NAME_BYTES))
        elif tag == _PROPERTY:
            found = dict(_fields(content))
            values.append(_value(found, _PROPERTY_VALUE, found.get(_PROPERTY_TYPE, 0)))
    if len(keys) != len(values):
        raise FrameError(f"sparkplug metric has {len(keys)} property names and {len(values)} values")
    return dict(zip(keys, values, strict=True))


def _value(found: Mapping[int, Any], kinds: Mapping[int, str], datatype: int) -> Value:
    """The one member of the `oneof` that is there, or None."""
    carried = [tag for tag in found if tag in kinds]
    if not carried:
        return None
    if len(carried) > 1:
        raise FrameError("sparkplug metric has two values")
    return typed(_READ[kinds[carried[0]]](found[carried[0]]), datatype)


def _text(raw: bytes, max_bytes: int = MAX_PAYLOAD_BYTES) -> str:
    if len(raw) > max_bytes:
        raise FrameError(f"sparkplug name of {len(raw)} bytes; at most {max_bytes}")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise FrameError("sparkplug text is not UTF-8") from None


_READ: Mapping[str, Callable[[Any], Value]] = {
    "int": lambda raw: raw & _U32,  # a negative number may come with all its ten bytes
    "long": int,
    "float": lambda raw: _FLOAT.unpack(raw)[0],
    "double": lambda raw: _DOUBLE.unpack(raw)[0],
    "boolean": bool,
    "string": _text,
    "bytes": bytes,
    "other": lambda raw: None,  # DataSet, Template, extension
}


def encode(payload: Payload) -> bytes:
    """A Payload as the bytes to publish.

    Raises: ValueError: a value that its datatype cannot hold.
    """
    parts = []
    if payload.timestamp_ms is not None:
        parts.append(_number(_TIMESTAMP, payload.timestamp_ms))
    parts += [_block(_METRIC, _encoded_metric(metric)) for metric in payload.metrics]
    if payload.seq is not None:
        parts.append(_number(_SEQ, payload.seq))
    return b"".join(parts)


def _encoded_metric(metric: Metric) -> bytes:
    parts = []
    if metric.name:
        parts.append(_block(_NAME, metric.name.encode()))
    if metric.alias is not None:
        parts.append(_number(_ALIAS, metric.alias))
    if metric.timestamp_ms is not None:
        parts.append(_number(_TIME, metric.timestamp_ms))
    if metric.datatype:
        parts.append(_number(_DATATYPE, metric.datatype))
    if metric.is_historical:
        parts.append(_number(_HISTORICAL, 1))
    if metric.is_null:
        parts.append(_number(_NULL, 1))
    if metric.properties:
        parts.append(_block(_PROPERTIES, _encoded_properties(metric.properties)))
    if metric.value is not None:
        parts.append(_encoded_value(metric.value, metric.datatype or _type_of(metric.value), _METRIC_TAG))
    return b"".join(parts)


def _encoded_properties(properties: Mapping[str, Value]) -> bytes:
    parts = [_block(_KEY, name.encode()) for name in properties]
    for value in properties.values():
        if value is None:
            parts.append(_block(_PROPERTY, _number(_PROPERTY_NULL, 1)))
        else:
            datatype = DataType.INT32 if type(value) is int else _type_of(value)
            content = _number(_PROPERTY_TYPE, datatype) + _encoded_value(value, datatype, _PROPERTY_TAG)
            parts.append(_block(_PROPERTY, content))
    return b"".join(parts)


def _type_of(value: Value) -> DataType:
    """The type that holds any value of this Python type."""
    types = {bool: DataType.BOOLEAN, int: DataType.INT64, float: DataType.DOUBLE, str: DataType.STRING}
    return types.get(type(value), DataType.BYTES)


def _encoded_value(value: Any, datatype: int, tags: Mapping[str, int]) -> bytes:
    """Raises: ValueError: the type is no scalar's, or cannot hold the value."""
    kind = _KIND_OF.get(datatype)
    if kind is None:
        raise ValueError(f"sparkplug datatype {datatype} is no scalar's")
    tag = tags[kind]
    match kind:
        case "int" | "long":
            return _number(tag, _checked(value, datatype) & (_U32 if kind == "int" else _U64))
        case "boolean":
            return _number(tag, bool(value))
        case "float":
            return _varint_bytes(tag) + _FLOAT.pack(value)
        case "double":
            return _varint_bytes(tag) + _DOUBLE.pack(value)
        case "string":
            return _block(tag, value.encode())
        case _:
            return _block(tag, value)


def _checked(value: int, datatype: int) -> int:
    """Raises: ValueError: beyond what the integer type holds."""
    bits = _SIGNED_BITS.get(datatype)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if bits else (0, (1 << _UNSIGNED_BITS[datatype]) - 1)
    if not low <= value <= high:
        raise ValueError(f"{value} does not fit {DataType(datatype).name}; it holds {low} to {high}")
    return value


def _number(tag: int, value: int) -> bytes:
    return _varint_bytes(tag) + _varint_bytes(value)


def _block(tag: int, content: bytes) -> bytes:
    return _varint_bytes(tag) + _varint_bytes(len(content)) + content


def _varint_bytes(value: int) -> bytes:
    """`value`, 0 or more, in base 128, least significant first; the top bit says that more follows."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
