"""The sensors behind one broker, each by what it speaks: PROTOCOL.md, a payload file's scalars or bursts, or Sparkplug B.

Pure: a message goes in with its times, measurements come out, and everything that is dropped is counted by name. One bad
message never hurts another sensor, nor its own next one.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.bursts import BurstDecoder
from firmware_bridge.errors import FrameError
from firmware_bridge.frames import BurstAssembler, decode_readings, parse_sensor_topic, topic_sensor
from firmware_bridge.jsonpath import JsonPath
from firmware_bridge.measurement import U8, Block, Measurement, Quality
from firmware_bridge.messages import Message, Part, clock_off
from firmware_bridge.payload import (
    BurstProfile,
    JsonProfile,
    NumberProfile,
    PayloadProfile,
    SparkplugProfile,
    channels,
)
from firmware_bridge.scalars import JsonDecoder, MetricDecoder, NumberDecoder
from firmware_bridge.source import MqttSensor, MqttSpec
from firmware_bridge.sparkplug.host import SparkplugHost, Update
from firmware_bridge.topics import filter_levels, matches

log = logging.getLogger(__name__)

MAX_RECENT = 256  # messages remembered, to know one that a broker sends again
RECENT_NS = 60 * 10**9
TELL_NS = 60 * 10**9
MAX_TOPICS_KNOWN = 1024
MAX_TOPIC_LENGTH = 1024  # MQTT allows 65 535; what is kept by topic must stay small
POLL_NS = 10**9


class Tally:
    """What was dropped, by name, and what is wrong with each sensor's messages now."""

    def __init__(self, source: str) -> None:
        self.counters = dict.fromkeys(("foreign", "duplicate", "readings_corrupt", "values_corrupt", "clock_off"), 0)
        self.troubles: dict[str, str] = {}
        self.passed_by: set[str] = set()  # sensors on whose topic came a message with nothing of theirs
        self._source = source
        self._told_ns: dict[str, int] = {}

    def trouble(self, sensor: str, text: str, monotonic_ns: int) -> None:
        """The first bad message of a row is told, once a minute at most; the others are only counted."""
        told_ns = self._told_ns.get(sensor)
        if sensor not in self.troubles and (told_ns is None or monotonic_ns - told_ns >= TELL_NS):
            self._told_ns[sensor] = monotonic_ns
            log.warning("message dropped: source=%s cause=%s", self._source, text)
        self.troubles[sensor] = text

    def fine(self, sensor: str) -> None:
        """A good message ends the row."""
        self.troubles.pop(sensor, None)


class Sensor(Protocol):
    """One sensor of the site."""

    name: str
    filter: str

    def hear(self, message: Message) -> Sequence[Measurement] | None:
        """What a message on its topic says; None where the message is not this sensor's."""


class OwnSensor:
    """A sensor that speaks PROTOCOL.md: bursts in chunks, and readings."""

    def __init__(self, sensor: MqttSensor, site: str, first: int, assembler: BurstAssembler, tally: Tally) -> None:
        self.name = sensor.name
        self.filter = topic_sensor(site, sensor.name)
        self._points = list(sensor.points)
        self._ranges = np.array(list(sensor.points.values()), np.float64).reshape(-1, 2)
        self._first = first
        self._assembler = assembler
        self._tally = tally

    def hear(self, message: Message) -> Sequence[Measurement] | None:
        """See PROTOCOL.md, 2 and 3."""
        try:
            topic = parse_sensor_topic(message.topic)
        except FrameError:
            return None
        if topic.kind == "readings":
            return self._readings(message)
        before = self._assembler.counters["corrupt"]
        wave = self._assembler.add(self.name, topic.axis, message.payload, message.utc_ns, message.monotonic_ns)
        if self._assembler.counters["corrupt"] > before:
            self._tally.trouble(self.name, self._assembler.last_error, message.monotonic_ns)
        elif wave is not None:
            self._tally.fine(self.name)
            self._tally.counters["clock_off"] += clock_off(wave.start_utc_ns, wave.utc_ns)
        return [] if wave is None else [wave]

    def _readings(self, message: Message) -> Sequence[Measurement]:
        """One block of all the sensor's points; a point that the message leaves out is not in the block."""
        try:
            readings = decode_readings(message.payload)
        except FrameError as error:
            self._tally.counters["readings_corrupt"] += 1
            self._tally.trouble(self.name, f"{self.name}: {error}", message.monotonic_ns)
            return []
        self._tally.fine(self.name)
        told = np.array([i for i, point in enumerate(self._points) if point in readings.values], np.int32)
        values = np.array([readings.values[self._points[i]] for i in told], np.float64)
        ranges = self._ranges[told]
        quality = np.zeros(len(told), np.uint8)
        quality[(values < ranges[:, 0]) | (values > ranges[:, 1])] = Quality.BAD_RANGE
        quality[np.isnan(values)] = Quality.BAD_SENTINEL
        return [_block(self._first + told, values, quality, message)] if len(told) else []


class ScalarSensor:
    """A sensor whose payload file has scalars in JSON or as plain numbers."""

    def __init__(self, sensor: MqttSensor, profile: JsonProfile | NumberProfile, first: int, tally: Tally) -> None:
        assert sensor.topic is not None
        self.name = sensor.name
        self.filter = sensor.topic
        self._decoder = (
            JsonDecoder(profile, part_of(sensor)) if isinstance(profile, JsonProfile) else NumberDecoder(profile)
        )
        self._first = first
        self._tally = tally

    def hear(self, message: Message) -> Sequence[Measurement] | None:
        """The points that the message has."""
        try:
            scalars = self._decoder.decode(message)
        except FrameError as error:
            self._tally.counters["readings_corrupt"] += 1
            self._tally.trouble(self.name, f"{self.name}: {error}", message.monotonic_ns)
            return []
        if scalars is None:
            return None
        self._tally.counters["values_corrupt"] += scalars.n_bad
        self._tally.counters["clock_off"] += clock_off(scalars.time_ns, message.utc_ns)
        if scalars.n_bad:
            text = f"{self.name}: {scalars.n_bad} of its values are no numbers"
            self._tally.trouble(self.name, text, message.monotonic_ns)
        else:
            self._tally.fine(self.name)
        return [_block(self._first + scalars.places, scalars.values, scalars.quality, message)]


class BurstSensor:
    """A sensor whose payload file has waveforms, whole or in parts."""

    def __init__(self, sensor: MqttSensor, profile: BurstProfile, assembler: BurstAssembler, tally: Tally) -> None:
        assert sensor.topic is not None
        self.name = sensor.name
        self.filter = sensor.topic
        self._decoder = BurstDecoder(profile, part_of(sensor))
        self._assembler = assembler
        self._tally = tally

    def hear(self, message: Message) -> Sequence[Measurement] | None:
        """The waveforms that the message completes."""
        try:
            chunks = self._decoder.decode(message)
        except FrameError as error:
            self._assembler.refuse(self.name, error)
            self._tally.trouble(self.name, self._assembler.last_error, message.monotonic_ns)
            return []
        if not chunks:
            return None
        self._tally.counters["clock_off"] += clock_off(chunks[0].start_utc_ns, message.utc_ns)
        times = message.utc_ns, message.monotonic_ns
        waves = [
            wave
            for chunk in chunks
            for wave in self._assembler.add_chunk(self.name, chunk, *times, self._decoder.timeout_s)
        ]
        if waves:
            self._tally.fine(self.name)
        return waves


@dataclass(slots=True)
class _Metrics:
    """One sensor that is an edge node or a device of Sparkplug B.

    Only what changes is sent (report by exception): while its session lives, what it said last still holds and is told
    again every `interval_ns`, so that steady is not taken for silent.
    """

    decoder: MetricDecoder
    first: int
    interval_ns: int
    told_ns: int = 0
    held: dict[int, tuple[float, int]] = field(default_factory=dict)  # by place: value, quality

    def take(self, update: Update, stamp: Message) -> Block | None:
        """A present value; what a node sends late from its own buffer is none, and is counted by the host."""
        scalars = None if update.historical else self.decoder.decode(update.values, update.quality)
        if scalars is None:
            return None
        for place, value, quality in zip(scalars.places, scalars.values, scalars.quality, strict=True):
            if quality == Quality.BAD_COMM:
                self.held.pop(int(place), None)
            else:
                self.held[int(place)] = (float(value), int(quality))
        return _block(self.first + scalars.places, scalars.values, scalars.quality, stamp)

    def again(self, stamp: Message) -> Block | None:
        """All that holds, when it is time."""
        if not self.held or stamp.monotonic_ns - self.told_ns < self.interval_ns:
            return None
        self.told_ns = stamp.monotonic_ns
        values = np.array([value for value, _ in self.held.values()], np.float64)
        quality = np.array([quality for _, quality in self.held.values()], np.uint8)
        return _block(self.first + np.array(list(self.held), np.int32), values, quality, stamp)


class SparkplugSensors:
    """The sensors that are edge nodes and devices of Sparkplug B; one account of all of them behind the broker."""

    def __init__(self) -> None:
        self.host = SparkplugHost()
        self._sensors: dict[tuple[str, str, str], list[_Metrics]] = {}
        self._filters: dict[str, tuple[str, ...]] = {}
        self._nodes: dict[tuple[str, str], None] = {}

    def add(self, sensor: MqttSensor, profile: SparkplugProfile, first: int) -> None:
        """Take one sensor; its topic is spBv1.0/group/+/node or spBv1.0/group/+/node/device."""
        assert sensor.topic is not None
        _, group, _, node, *device = sensor.topic.split("/")
        interval_s = sensor.update_interval_s or profile.update_interval_s
        metrics = _Metrics(MetricDecoder(profile), first, round(interval_s * 1e9))
        self._sensors.setdefault((group, node, device[0] if device else ""), []).append(metrics)
        self._nodes[group, node] = None
        filter_ = f"spBv1.0/{group}/+/{node}/#"
        self._filters[filter_] = filter_levels(filter_)

    @property
    def filters(self) -> list[str]:
        """One for each edge node: births and deaths are as much needed as data."""
        return list(self._filters)

    def hears(self, levels: Sequence[str]) -> bool:
        """Whether a topic is an edge node's of ours."""
        return any(matches(filter_, levels) for filter_ in self._filters.values())

    def hear(self, message: Message) -> list[Measurement]:
        """What the message makes known."""
        updates = self.host.add(message.topic, message.payload, message.utc_ns, message.monotonic_ns)
        return self._taken(updates, message)

    def poll(self, utc_ns: int, monotonic_ns: int) -> list[Measurement]:
        """About once a second: what has waited in vain for a message before it, and what still holds."""
        stamp = Message("", b"", utc_ns, monotonic_ns)
        late = self._taken(self.host.expire(monotonic_ns), stamp)
        held = [metrics.again(stamp) for each in self._sensors.values() for metrics in each]
        return [*late, *(block for block in held if block is not None)]

    def expect(self) -> None:
        """The broker is there: nodes that were born before us are asked for their births."""
        for group, node in self._nodes:
            self.host.expect(group, node)

    def lost(self, utc_ns: int, monotonic_ns: int) -> list[Measurement]:
        """The broker is gone: nothing that the nodes have said holds any longer."""
        return self._taken(self.host.lost(utc_ns), Message("", b"", utc_ns, monotonic_ns))

    def _taken(self, updates: Iterable[Update], stamp: Message) -> list[Measurement]:
        blocks = [
            metrics.take(update, stamp)
            for update in updates
            for metrics in self._sensors.get((update.group, update.node, update.device), ())
        ]
        return [block for block in blocks if block is not None]


class Sensors:
    """All sensors behind one broker: which message is whose, and what it says."""

    def __init__(self, spec: MqttSpec, site: str, first: int, payloads: Mapping[str, PayloadProfile]) -> None:
        self.tally = Tally(spec.name)
        self.assembler = BurstAssembler()
        self.sparkplug = SparkplugSensors()
        self._sensors: list[tuple[tuple[str, ...], Sensor]] = []
        self._recent: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._by_topic: dict[str, list[Sensor]] = {}
        self._polled_ns = 0
        for sensor in spec.sensors:
            profile = payloads.get(sensor.payload or "")
            self._add(sensor, profile, site, first)
            first += len(sensor.points) if profile is None else len(channels(profile, sensor.name))

    def _add(self, sensor: MqttSensor, profile: PayloadProfile | None, site: str, first: int) -> None:
        made: Sensor
        if profile is None:
            made = OwnSensor(sensor, site, first, self.assembler, self.tally)
        elif isinstance(profile, SparkplugProfile):
            self.sparkplug.add(sensor, profile, first)
            return
        elif isinstance(profile, BurstProfile):
            made = BurstSensor(sensor, profile, self.assembler, self.tally)
        else:
            made = ScalarSensor(sensor, profile, first, self.tally)
        self._sensors.append((filter_levels(made.filter), made))

    @property
    def filters(self) -> list[str]:
        """What to subscribe to, each once."""
        return list(dict.fromkeys([*(sensor.filter for _, sensor in self._sensors), *self.sparkplug.filters]))

    @property
    def counters(self) -> Counter[str]:
        """Everything that is counted here."""
        found = Counter(self.tally.counters)
        found.update(self.assembler.counters)
        if self.sparkplug.filters:
            found.update({f"sparkplug_{name}": count for name, count in self.sparkplug.host.counters.items()})
        return found

    def hear(self, message: Message) -> list[Measurement]:
        """What a message says of all the sensors that it concerns."""
        if len(message.topic) > MAX_TOPIC_LENGTH:
            self.tally.counters["foreign"] += 1
            return []
        if self._is_repeated(message):
            self.tally.counters["duplicate"] += 1
            return []
        levels = message.levels
        if self.sparkplug.hears(levels):
            return self.sparkplug.hear(message)
        answers = [(sensor.name, sensor.hear(message)) for sensor in self._concerned(message.topic, levels)]
        self.tally.passed_by.update(name for name, answer in answers if answer is None)
        heard = [answer for _, answer in answers if answer is not None]
        self.tally.counters["foreign"] += not heard
        return [measurement for answer in heard for measurement in answer]

    def poll(self, utc_ns: int, monotonic_ns: int) -> list[Measurement]:
        """To be called often; about once a second it looks at what has waited too long."""
        if monotonic_ns - self._polled_ns < POLL_NS:
            return []
        self._polled_ns = monotonic_ns
        self.assembler.expire(monotonic_ns)
        return self.sparkplug.poll(utc_ns, monotonic_ns)

    def _concerned(self, topic: str, levels: Sequence[str]) -> list[Sensor]:
        if topic not in self._by_topic:
            if len(self._by_topic) >= MAX_TOPICS_KNOWN:
                self._by_topic.clear()
            self._by_topic[topic] = [sensor for filter_, sensor in self._sensors if matches(filter_, levels)]
        return self._by_topic[topic]

    def _is_repeated(self, message: Message) -> bool:
        """QoS 1 may deliver twice; the broker marks the second, and it is one that we have heard within a minute."""
        key = (message.topic, zlib.crc32(message.payload))
        heard_ns = self._recent.pop(key, None)
        self._recent[key] = message.monotonic_ns
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return message.again and heard_ns is not None and message.monotonic_ns - heard_ns <= RECENT_NS


def part_of(sensor: MqttSensor) -> Part:
    """Which part of which messages is this sensor's, as the site file says."""
    root = JsonPath.parse(sensor.root) if sensor.root else None
    if sensor.select is None:
        return Part(root)
    return Part(root, JsonPath.parse(sensor.select.path), sensor.select.equals)


def _block(places: NDArray[np.int32], values: NDArray[np.float64], quality: U8, message: Message) -> Block:
    """Values with their quality at the process's channels, stamped as the message was."""
    values = np.where(quality >= Quality.BAD, np.nan, values)
    return Block(places.astype(np.int32), values.astype(np.float32), quality, message.utc_ns, message.monotonic_ns)
