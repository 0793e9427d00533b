"""PayloadProfile: a checked config/payloads/<name>.toml. What a product publishes over MQTT, and where in it the values stand.

The counterpart of a device file for sensors that do not speak PROTOCOL.md. A new product is one file: the document it was
taken from, where each value stands, what it can plausibly be, and messages worked by hand, which the contract battery
decodes. Five formats: json and number (scalars), burst_json and packets (waveforms), sparkplug (metrics of Sparkplug B).
Path expressions are those of jsonpath.py.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

from msgspec import Meta, field

from firmware_bridge.checked import Table, key_line, load, read_tree
from firmware_bridge.device import PointName
from firmware_bridge.errors import ConfigError, Problem
from firmware_bridge.frames import AXES, SAMPLE_RATE_HZ
from firmware_bridge.jsonpath import JsonPath
from firmware_bridge.measurement import Channel
from firmware_bridge.units import suffix_of

ByteOrder = Literal["little", "big"]
NumberType = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
SampleType = Literal["int8", "int16", "int32", "float32", "float64"]
TimeFormat = Literal["iso", "s", "ms", "us", "ns"]
QualityName = Literal["BAD", "BAD_SENTINEL", "BAD_RANGE"]
PathText = Annotated[str, Meta(max_length=200)]
Positive = Annotated[float, Meta(gt=0)]

ANY_AXIS = "any"  # the axis that `axis_at` tells


class Ref(Table, frozen=True):
    """Where a value stands that every message tells anew: at a `path` (JSON), an `offset` (bytes) or a `level` of the topic.

    Bytes are read as `type` in `byte_order`; of the bits that `mask` keeps, the lowest becomes bit 0. `table` turns the
    sensor's codes into what they mean, by their text; a code that is not in it is an error of the message. A number is
    then multiplied by `scale`.
    """

    path: PathText | None = None
    offset: Annotated[int, Meta(ge=0, le=65535, description="bytes from the start of the message")] | None = None
    level: Annotated[int, Meta(ge=-64, le=63, description="of the topic; 0 is the first, -1 the last")] | None = None
    type: NumberType = "uint8"
    byte_order: ByteOrder = "little"
    mask: Annotated[int, Meta(ge=0, le=(1 << 63) - 1, description="0 keeps every bit")] = 0
    table: dict[str, float | str] = field(default_factory=dict)
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raises: ValueError: none or several places, or a path that is none."""
        if [self.path, self.offset, self.level].count(None) != 2:
            raise ValueError("write one of path (JSON), offset (bytes) or level (of the topic)")
        if self.path is not None:
            single_path(self.path)
        if self.mask and self.type.startswith("float"):
            raise ValueError("mask keeps bits of a whole number; the type is a float")
        _check_scale(self.scale, 0.0)


class TimeRef(Ref, frozen=True, kw_only=True):
    """Where the sensor's own time stands: ISO 8601 (UTC unless it says otherwise) or a count since 1970."""

    format: TimeFormat


class BytesIn(Table, frozen=True):
    """A number inside text that stands for bytes, such as the process data of an IO-Link master."""

    encoding: Literal["hex", "base64"]
    offset: Annotated[int, Meta(ge=0, le=65535)] = 0
    type: NumberType = "int16"
    byte_order: ByteOrder = "big"


class PayloadPoint(Table, frozen=True):
    """One quantity. Its value is `raw * scale + offset`; true and false are 1 and 0, text that is a number is that number.

    `absent` lists numbers and texts that mean "not available"; null always does. Outside `plausible` a value is
    BAD_RANGE. `topic` is for products that publish each quantity on a topic of its own: the last levels of that topic.
    """

    name: PointName
    plausible: tuple[float, float]
    scale: float = 1.0
    offset: float = 0.0
    absent: tuple[float | str, ...] = ()
    topic: str | None = None
    update_interval_s: Positive | None = None
    live: bool = False

    def __post_init__(self) -> None:
        """Raises: ValueError: a name without unit, an empty range, a scale that is none, or a topic with wildcards."""
        suffix_of(self.name)
        if self.topic is not None and (not self.topic or "+" in self.topic or "#" in self.topic):
            raise ValueError(f'topic = "{self.topic}"; write the last levels of the topic, such as emeter/0/power')
        low, high = self.plausible
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"plausible = [{low}, {high}] is no range; write [lowest, highest]")
        _check_scale(self.scale, self.offset)


class JsonPoint(PayloadPoint, frozen=True, kw_only=True):
    """A quantity at a path of a JSON message, or in bytes that the text at this path stands for."""

    path: PathText
    bytes_in: BytesIn | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError: as every point, or a path that is none."""
        super().__post_init__()
        single_path(self.path)


class MetricPoint(PayloadPoint, frozen=True, kw_only=True):
    """A metric of Sparkplug B, by the name that its birth certificate gives it."""

    metric: Annotated[str, Meta(min_length=1, max_length=200)]


class Example(Table, frozen=True):
    """A message and what it means; a point that stands in neither table is one that this message leaves out."""

    title: str
    payload: str
    topic: str = ""
    values: dict[str, float] = field(default_factory=dict)
    quality: dict[str, QualityName] = field(default_factory=dict)


class MetricExample(Table, frozen=True):
    """Metric values as a birth or data message carries them, and what they mean."""

    title: str
    metrics: dict[str, float]
    values: dict[str, float] = field(default_factory=dict)
    quality: dict[str, QualityName] = field(default_factory=dict)


class Wave(Table, frozen=True):
    """One axis of a burst example, sample by sample."""

    axis: Literal["x", "y", "z"]
    sample_rate_hz: float
    samples_m_s2: tuple[float, ...]
    clipped: bool = False


class BurstExample(Table, frozen=True):
    """The messages of one burst and the waveforms that they are; none where the burst must be dropped."""

    title: str
    payloads: Annotated[tuple[str, ...], Meta(min_length=1)]
    topic: str = ""
    waves: tuple[Wave, ...] = ()


class BurstTable(Table, frozen=True, kw_only=True):
    """What every waveform format says of its samples: their unit, rate, axis, burst, and the parts that they come in.

    A count is `scale` (or the value at `scale_at`) of `unit`. Parts carry their place (`index_at`, from `first_index`) and
    how many there are (`count_at`): a burst arrives whole within `timeout_s` or not at all. `burst_id_at` (else the time,
    else the bytes) tells which parts and axes were sampled together. Integer samples at the end of their range are clipped.
    """

    unit: Literal["m_s2", "g"]
    type: SampleType = "int16"
    byte_order: ByteOrder = "little"
    scale: float = 1.0
    scale_at: Ref | None = None
    sample_rate_hz: Annotated[float, Meta(ge=SAMPLE_RATE_HZ[0], le=SAMPLE_RATE_HZ[1])] | None = None
    sample_rate_at: Ref | None = None
    sample_interval_at: Ref | None = None
    axis_at: Ref | None = None
    burst_id_at: Ref | None = None
    time: TimeRef | None = None
    index_at: Ref | None = None
    count_at: Ref | None = None
    first_index: Literal[0, 1] = 0
    timeout_s: Annotated[float, Meta(gt=0, le=86400)] = 60.0

    def __post_init__(self) -> None:
        """Raises: ValueError: a rate given twice or not at all, half of a part's place, or axes that cannot be told."""
        _check_scale(self.scale, 0.0)
        rates = (self.sample_rate_hz, self.sample_rate_at, self.sample_interval_at)
        if sum(rate is not None for rate in rates) != 1:
            raise ValueError("write one of sample_rate_hz, sample_rate_at or sample_interval_at")
        if (self.index_at is None) != (self.count_at is None):
            raise ValueError("parts need both index_at and count_at; a burst in one message has neither")
        for axes in self.axes_words:
            if axes != ANY_AXIS and not (axes and set(axes) <= set(AXES) and len(set(axes)) == len(axes)):
                raise ValueError(
                    f'"{axes}" are no axes; write x, y, z, several of them in their order, or "{ANY_AXIS}"'
                )
        letters = "".join(axes for axes in self.axes_words if axes != ANY_AXIS)
        if len(set(letters)) != len(letters):
            raise ValueError(f"{', '.join(self.axes_words)} name an axis twice; write each once")
        if (ANY_AXIS in self.axes_words) != (self.axis_at is not None):
            raise ValueError(f'"{ANY_AXIS}" and axis_at belong together: it is the axis that the message tells')
        if self.needs_id and self.burst_id_at is None and self.time is None:
            raise ValueError("write burst_id_at or time: what was sampled together comes in several messages here")

    @property
    def axes_words(self) -> tuple[str, ...]:
        """The axes of each list of samples: "z", "xyz" where three stand in turn, "any" where the message tells."""
        raise NotImplementedError

    @property
    def needs_id(self) -> bool:
        """Whether what was sampled together comes in several messages that its place alone does not tell."""
        return self.axis_at is not None or (self.index_at is not None and len(self.axes_words) > 1)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Everything that is read from each message."""
        found = (
            self.scale_at, self.sample_rate_at, self.sample_interval_at, self.axis_at, self.burst_id_at, self.time,
            self.index_at, self.count_at,
        )  # fmt: skip
        return tuple(ref for ref in found if ref is not None)


class JsonBurst(BurstTable, frozen=True, kw_only=True):
    """Samples in a JSON message: lists of numbers, or bytes as text. `samples` names their path by axis."""

    samples: Annotated[dict[str, PathText], Meta(min_length=1)]
    encoding: Literal["numbers", "base64", "hex"] = "numbers"

    def __post_init__(self) -> None:
        """Raises: ValueError: as every burst, a path that is none, or a place in bytes."""
        super().__post_init__()
        for path in self.samples.values():
            JsonPath.parse(path)
        if any(ref.offset is not None for ref in self.refs):
            raise ValueError("a JSON message has no offset; write path or level")

    @property
    def axes_words(self) -> tuple[str, ...]:
        """The keys of `samples`."""
        return tuple(self.samples)


class BytesBurst(BurstTable, frozen=True, kw_only=True):
    """Samples in a binary message, from `first_byte` to its end less `n_bytes_after`.

    `match` tells a waveform's message from others on the same topic: bytes in hex, by offset.
    """

    axes: str
    first_byte: Annotated[int, Meta(ge=0, le=65535)]
    n_bytes_after: Annotated[int, Meta(ge=0, le=64, description="a checksum behind the samples")] = 0
    match: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises: ValueError: as every burst, a JSON path, or a match that is none."""
        super().__post_init__()
        if any(ref.path is not None for ref in self.refs):
            raise ValueError("a binary message has no path; write offset or level")
        for offset, octets in self.match.items():
            if not re.fullmatch(r"\d{1,5}", offset) or not re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", octets):
                raise ValueError(f'match: {offset} = "{octets}"; write bytes in hex by offset, such as 0 = "7f"')

    @property
    def axes_words(self) -> tuple[str, ...]:
        """The one list's."""
        return (self.axes,)


class Product(Table, frozen=True):
    """What every payload file says of its product. `update_interval_s` is how often it publishes; the site may know better."""

    vendor: str
    model: str
    title: str
    source: str
    sees: str
    update_interval_s: Positive


class JsonProfile(Product, frozen=True, kw_only=True, tag="json", tag_field="format"):
    """Scalars in JSON messages."""

    points: Annotated[tuple[JsonPoint, ...], Meta(min_length=1, max_length=256)]
    time: TimeRef | None = None
    decimal_comma: bool = False
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError: points or examples that clash, or a time in bytes."""
        _check_points(self.points, self.examples)
        if self.time is not None and self.time.offset is not None:
            raise ValueError("time: a JSON message has no offset; write path")


class NumberProfile(Product, frozen=True, kw_only=True, tag="number", tag_field="format"):
    """A plain number as text, one a message."""

    points: Annotated[tuple[PayloadPoint, ...], Meta(min_length=1, max_length=256)]
    decimal_comma: bool = False
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError: points or examples that clash, or several points and no topics to tell them apart."""
        _check_points(self.points, self.examples)
        if len(self.points) > 1 and any(point.topic is None for point in self.points):
            raise ValueError("several numbers are told apart by their topics; give every point its topic")


class SparkplugProfile(Product, frozen=True, kw_only=True, tag="sparkplug", tag_field="format"):
    """Metrics of a Sparkplug B edge node or device."""

    points: Annotated[tuple[MetricPoint, ...], Meta(min_length=1, max_length=1024)]
    examples: tuple[MetricExample, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError: points or examples that clash, or one that is taken for stuck when it is steady."""
        _check_points(self.points, self.examples)
        if steady := [point.name for point in self.points if point.live]:
            raise ValueError(f"{steady[0]}: a metric that does not change is not sent again; leave live out")


class JsonBurstProfile(Product, frozen=True, kw_only=True, tag="burst_json", tag_field="format"):
    """Waveforms in JSON messages, whole or in parts."""

    burst: JsonBurst
    examples: tuple[BurstExample, ...] = ()


class PacketsProfile(Product, frozen=True, kw_only=True, tag="packets", tag_field="format"):
    """Waveforms in binary messages, whole or in parts."""

    burst: BytesBurst
    examples: tuple[BurstExample, ...] = ()


ScalarProfile = JsonProfile | NumberProfile | SparkplugProfile
BurstProfile = JsonBurstProfile | PacketsProfile
PayloadProfile = ScalarProfile | BurstProfile
FORMATS: dict[str, type[Product]] = {
    "json": JsonProfile,
    "number": NumberProfile,
    "burst_json": JsonBurstProfile,
    "packets": PacketsProfile,
    "sparkplug": SparkplugProfile,
}


def single_path(text: str) -> JsonPath:
    """A path that leads to one value.

    Raises: ValueError: no path, or one with [*].
    """
    path = JsonPath.parse(text)
    if not path.single:
        raise ValueError(f'path "{text}" finds many values and one is meant; write [0], [-1] or [?name=="x"] for [*]')
    return path


def _check_scale(scale: float, offset: float) -> None:
    if not (math.isfinite(scale) and scale != 0 and math.isfinite(offset)):
        raise ValueError("scale and offset are finite numbers, and scale is not 0")


def _check_points(points: Sequence[PayloadPoint], examples: Iterable[Example | MetricExample]) -> None:
    names = [point.name for point in points]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]} is there twice; every point has its own name")
    for example in examples:
        told = [*example.values, *example.quality]
        if odd := sorted({name for name in told if name not in names or told.count(name) > 1}):
            raise ValueError(
                f"example {example.title!r}: {odd[0]} must be a point and stand in values or quality, once"
            )


def payload_names(config_dir: Path) -> list[str]:
    """The payload files that there are."""
    return sorted(found.stem for found in (config_dir / "payloads").glob("*.toml"))


def load_payload(config_dir: Path, name: str) -> PayloadProfile:
    """The profile in config/payloads/<name>.toml.

    Raises: ConfigError: unknown payload (the known ones are listed) or a wrong file.
    """
    path = config_dir / "payloads" / f"{name}.toml"
    if not re.fullmatch(r"[a-z0-9_]{1,64}", name) or not path.is_file():
        known = ", ".join(payload_names(config_dir)) or "no file at all"
        raise ConfigError(path, [Problem(0, f"payload {name!r}", f"not known; {path.parent} has {known}")])
    asked = read_tree(path).get("format")
    if not isinstance(asked, str) or asked not in FORMATS:
        close = difflib.get_close_matches(str(asked), FORMATS, 1, 0.5) if asked is not None else []
        text = f"{'is missing' if asked is None else 'not known'}.{f' Did you mean {close[0]!r}?' if close else ''}"
        key = "format" if asked is None else f'format = "{asked}"'
        raise ConfigError(path, [Problem(key_line(path, "format"), key, f"{text}  ({', '.join(FORMATS)})")])
    return cast(PayloadProfile, load(path, FORMATS[asked]))


def load_payloads(config_dir: Path, names: Iterable[str | None]) -> dict[str, PayloadProfile]:
    """Each named profile, read once.

    Raises: ConfigError: as `load_payload`.
    """
    return {name: load_payload(config_dir, name) for name in sorted({name for name in names if name is not None})}


def channels(profile: PayloadProfile, sensor: str, update_interval_s: float | None = None) -> tuple[Channel, ...]:
    """The scalar channels of one such product, in the order of its points; a waveform has none.

    Args:
        sensor: its name in the site file. update_interval_s: how often it publishes there, where the site says so.
    """
    if isinstance(profile, BurstProfile):
        return ()
    usual_s = update_interval_s or profile.update_interval_s
    return tuple(
        Channel(sensor, point.name, point.update_interval_s or usual_s, point.live) for point in profile.points
    )
