"""Pure codec of payload files' scalars: a JSON message, a plain number or Sparkplug metrics become values with quality.

A field that is wrong costs its own point and no other; a point that the message leaves out is not told at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import FrameError
from firmware_bridge.jsonpath import JsonPath, same
from firmware_bridge.measurement import I32, U8, Quality
from firmware_bridge.messages import (
    MAX_NUMBER_TEXT,
    MISSING,
    Message,
    Part,
    TimeReader,
    Told,
    as_number,
    number_shape,
    octets_of,
)
from firmware_bridge.payload import JsonPoint, JsonProfile, NumberProfile, PayloadPoint, SparkplugProfile

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scalars:
    """What one message says of a sensor's points.

    Attributes:
        places: shape (n,), which of the profile's points. values: shape (n,), NaN wherever quality is BAD or worse.
        n_bad: values that were neither a number nor "not available".
        time_ns: the sensor's own time; 0 where it tells none, -1 where what it tells is none.
    """

    places: I32
    values: F64
    quality: U8
    n_bad: int = 0
    time_ns: int = 0


class JsonDecoder:
    """Scalars of JSON messages."""

    def __init__(self, profile: JsonProfile, part: Part) -> None:
        self._part = part
        self._points = profile.points
        self._paths = [JsonPath.parse(point.path) for point in profile.points]
        self._topics = _topic_tails(profile.points)
        self._time = TimeReader(profile.time) if profile.time is not None else None
        self._comma = profile.decimal_comma

    def decode(self, message: Message) -> Scalars | None:
        """None where nothing in the message is this sensor's.

        Raises: FrameError: no JSON.
        """
        tree = self._part.of(message)
        if tree is MISSING:
            return None
        levels = message.levels
        here = [(i, path.last(tree, MISSING)) for i, path in enumerate(self._paths) if _ends(levels, self._topics[i])]
        told = [(i, _number_inside(self._points[i], raw)) for i, raw in here if raw is not MISSING]
        time_ns = self._time.read(Told(tree, message.payload, levels)) if self._time is not None and told else 0
        return _judged(self._points, told, self._comma, time_ns)


class NumberDecoder:
    """Plain numbers, one a message."""

    def __init__(self, profile: NumberProfile) -> None:
        self._points = profile.points
        self._topics = _topic_tails(profile.points)
        self._comma = profile.decimal_comma

    def decode(self, message: Message) -> Scalars | None:
        """None where the topic is none of its points'.

        Raises: FrameError: the payload is no number and none of the texts for "not available".
        """
        levels = message.levels
        here = [i for i, tail in enumerate(self._topics) if _ends(levels, tail)]
        if not here:
            return None
        text = message.payload[: MAX_NUMBER_TEXT + 1].decode("utf-8", "replace").strip()
        found = _judged(self._points, [(here[0], text)], self._comma)
        if found is not None and found.n_bad:
            raise FrameError(f"message {text[:20]!r} is no number")
        return found


class MetricDecoder:
    """Metrics of Sparkplug B, once SparkplugHost has read them."""

    def __init__(self, profile: SparkplugProfile) -> None:
        self._points = profile.points

    def decode(self, values: Mapping[str, float], quality: Mapping[str, Quality]) -> Scalars | None:
        """None where none of the metrics is this sensor's. What the publisher calls bad has no value here either."""
        here = [(i, point.metric) for i, point in enumerate(self._points) if point.metric in values]
        said = [quality.get(metric, Quality.GOOD) for _, metric in here]
        told = [
            (i, values[metric] if code < Quality.BAD and not math.isnan(values[metric]) else None)
            for (i, metric), code in zip(here, said, strict=True)
        ]
        found = _judged(self._points, told)
        if found is None:
            return None
        return Scalars(found.places, found.values, np.maximum(found.quality, np.array(said, np.uint8)))


def _topic_tails(points: Sequence[PayloadPoint]) -> list[list[str]]:
    return [point.topic.split("/") if point.topic is not None else [] for point in points]


def _ends(levels: list[str], tail: list[str]) -> bool:
    return not tail or levels[-len(tail) :] == tail


def _judged(
    points: Sequence[PayloadPoint], told: Sequence[tuple[int, Any]], decimal_comma: bool = False, time_ns: int = 0
) -> Scalars | None:
    if not told:
        return None
    judged = [_value(points[i], raw, decimal_comma) for i, raw in told]
    return Scalars(
        places=np.array([i for i, _ in told], np.int32),
        values=np.array([value for value, _ in judged], np.float64),
        quality=np.array([quality for _, quality in judged], np.uint8),
        n_bad=sum(quality == Quality.BAD for _, quality in judged),
        time_ns=time_ns,
    )


def _value(point: PayloadPoint, raw: Any, decimal_comma: bool) -> tuple[float, Quality]:
    """A point's value in its own unit, or NaN and why there is none."""
    number = as_number(raw, decimal_comma)
    if raw is None or any(same(found, none) for found in (raw, number) for none in point.absent):
        return math.nan, Quality.BAD_SENTINEL
    if number is None:
        return math.nan, Quality.BAD
    value = number * point.scale + point.offset
    low, high = point.plausible
    return (value, Quality.GOOD) if low <= value <= high else (math.nan, Quality.BAD_RANGE)


def _number_inside(point: JsonPoint, raw: Any) -> Any:
    """The number inside text that stands for bytes; what is no such text, or too short, is no number either."""
    if point.bytes_in is None or raw is None:
        return raw
    shape, offset = number_shape(point.bytes_in), point.bytes_in.offset
    try:
        octets = octets_of(raw, point.bytes_in.encoding) if isinstance(raw, str) else b""
    except FrameError:
        octets = b""
    return shape.unpack_from(octets, offset)[0] if offset + shape.size <= len(octets) else MISSING
