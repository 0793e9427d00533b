"""What the messages of an unknown MQTT topic are: their form, the numbers in them, and which quantity each may be. Pure.

A unit is proposed with its reason and never decided: whoever owns the sensor clicks or types it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from firmware_bridge.errors import FrameError
from firmware_bridge.frames import parse_sensor_topic
from firmware_bridge.jsonpath import NAME
from firmware_bridge.messages import MAX_NUMBER_TEXT, Message, as_number, octets_of
from firmware_bridge.sparkplug import wire as sparkplug_wire
from firmware_bridge.units import STANDARD_GRAVITY_M_S2

Range = tuple[float, float]
Encoding = Literal["hex", "base64"]
ENCODINGS: tuple[Encoding, ...] = ("hex", "base64")  # what is hex is base64 too
MAX_DEPTH = 8
MAX_QUANTITIES = 100  # of one topic
MAX_WAVEFORMS = 8
MIN_SAMPLES = 32  # a list of as many numbers is a waveform
MIN_SAMPLE_TEXT = 128  # characters of base64 or hex
LONG_TEXT = re.compile(r"[A-Za-z0-9+/=]+")


# ---------------------------------------------------------------------- the form of a message
@dataclass(slots=True)
class Quantity:
    """A number that comes again and again. `path` is "" where it is the whole message."""

    path: str
    low: float
    high: float
    last: float
    n: int = 1
    as_text: bool = False

    def add(self, number: float) -> None:
        """One more message."""
        self.low, self.high, self.last, self.n = min(self.low, number), max(self.high, number), number, self.n + 1


@dataclass(slots=True)
class Shape:
    """What was seen on one topic.

    Attributes:
        form: "number", "json", "text", "binary", "burst" and "readings" (PROTOCOL.md), "sparkplug"; of the last message.
        quantities: by path. waveforms: path -> how its samples are written ("numbers", "base64", "hex").
        n_left_out: numbers beyond MAX_QUANTITIES.
    """

    form: str = ""
    quantities: dict[str, Quantity] = field(default_factory=dict)
    waveforms: dict[str, str] = field(default_factory=dict)
    n_left_out: int = 0

    def add(self, message: Message) -> None:
        """One message of the topic."""
        self.form = form_of(message)
        if self.form == "number":
            self._number("", message.payload.decode().strip())
        elif self.form == "json":
            for path, value in _leaves(message.tree(), ""):
                self._leaf(path, value)
        elif self.form == "sparkplug":
            for name, value in _metrics(message.payload):
                self._number(name, value)

    def _leaf(self, path: str, value: Any) -> None:
        written = "numbers" if isinstance(value, list) else _samples_in(value) if isinstance(value, str) else ""
        if not written:
            self._number(path, value)
        elif len(self.waveforms) < MAX_WAVEFORMS:
            self.waveforms.setdefault(path, written)

    def _number(self, path: str, raw: Any) -> None:
        number = as_number(raw)
        if number is None or isinstance(raw, bool):
            return
        if path in self.quantities:
            self.quantities[path].add(number)
        elif len(self.quantities) < MAX_QUANTITIES:
            self.quantities[path] = Quantity(path, number, number, number, as_text=isinstance(raw, str))
        else:
            self.n_left_out += 1


def form_of(message: Message) -> str:
    """The form of one message, by its topic where that is a contract, else by its bytes."""
    if message.topic.startswith("spBv1.0/"):
        return "sparkplug"
    try:
        return parse_sensor_topic(message.topic).kind
    except FrameError:
        pass
    try:
        text = message.payload.decode()
    except UnicodeDecodeError:
        return "binary"
    if len(text) <= MAX_NUMBER_TEXT and as_number(text) is not None:
        return "number"
    try:
        message.tree()
    except FrameError:
        return "text" if text.isprintable() or text.strip().isprintable() else "binary"
    return "json"


def _metrics(payload: bytes) -> Iterator[tuple[str, Any]]:
    """The metrics that a Sparkplug message tells by name: those of a birth, mostly. Bytes that are none have none."""
    try:
        found = sparkplug_wire.decode(payload)
    except FrameError:
        return
    yield from ((metric.name, metric.value) for metric in found.metrics if metric.name)


def _leaves(tree: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value inside with its path; a list of many numbers is one value."""
    if depth > MAX_DEPTH:
        return
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, joined(path, name), depth + 1)
    elif isinstance(tree, list):
        if len(tree) >= MIN_SAMPLES and all(isinstance(item, int | float) for item in tree):
            yield path, tree
            return
        for place, value in enumerate(tree[:MIN_SAMPLES]):
            yield from _leaves(value, f"{path}[{place}]", depth + 1)
    else:
        yield path, tree


def joined(path: str, name: str) -> str:
    """The path of a member, as jsonpath.py reads it."""
    if not NAME.fullmatch(name):
        return f"{path}[{json.dumps(name)}]"
    return f"{path}.{name}" if path else name


def _samples_in(text: str) -> str:
    """How a long text writes bytes; "" where it is only a text."""
    if len(text) < MIN_SAMPLE_TEXT or not LONG_TEXT.fullmatch(text):
        return ""
    for encoding in ENCODINGS:
        try:
            octets_of(text, encoding)
        except FrameError:
            continue
        return encoding
    return ""


# ---------------------------------------------------------------------- which quantity it may be
@dataclass(frozen=True, slots=True)
class Guess:
    """A proposal: number * scale + offset is a quantity of this name. `name` is "" where nothing speaks for one."""

    name: str
    reason: str
    scale: float = 1.0
    offset: float = 0.0
    plausible: Range = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A unit that people write, and how it becomes ours: the words for it, factor and offset."""

    suffix: str
    printed: str
    words: str
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class _Kind:
    """A quantity: the words for it, our unit, where a running machine has it, and what it can be."""

    stem: str
    suffix: str
    words: str
    usual: Range
    plausible: Range


KINDS = (  # the first whose words are in a name: power factor stands before power, RMS velocity before RMS
    _Kind("kurtosis", "ratio", r"kurt\w*", (1.5, 50.0), (0.0, 100.0)),
    _Kind("crest", "ratio", r"crest\w*", (1.3, 50.0), (0.0, 100.0)),
    _Kind("power_factor", "ratio", r"pf|powerfactor|factor|cos|cosphi", (0.05, 1.0), (-1.0, 1.0)),
    _Kind("temperature", "degc", r"temp\w*|tmp", (3.0, 95.0), (-40.0, 150.0)),
    _Kind("velocity_rms", "mm_s", r"vel\w*|vrms|severity|vib\w*", (0.1, 20.0), (0.0, 100.0)),
    _Kind("acceleration_rms", "g", r"acc\w*|arms|grms|rms", (0.003, 10.0), (0.0, 100.0)),
    _Kind("displacement", "um", r"disp\w*", (1.0, 1000.0), (0.0, 10000.0)),
    _Kind("frequency", "hz", r"freq\w*", (5.0, 400.0), (0.0, 5000.0)),
    _Kind("shaft_speed", "rpm", r"speed|rpm|tacho", (100.0, 6000.0), (0.0, 30000.0)),
    _Kind("battery", "v", r"batt\w*|vbat", (1.5, 30.0), (0.0, 60.0)),
    _Kind("voltage", "v", r"volt\w*|u|ul\d|un", (90.0, 720.0), (0.0, 1000.0)),
    _Kind("current", "a", r"curr\w*|amp\w*|i|il\d", (0.05, 1000.0), (0.0, 5000.0)),
    _Kind("energy", "kwh", r"energy|kwh|wh|import", (1.0, 1e8), (0.0, 1e9)),
    _Kind("active_power", "kw", r"power|watt\w*|p", (0.05, 1000.0), (-5000.0, 5000.0)),
    _Kind("energy", "kwh", r"total", (1.0, 1e8), (0.0, 1e9)),
    _Kind("pressure", "bar", r"press\w*", (0.05, 60.0), (-1.1, 1000.0)),
    _Kind("flow", "m3_h", r"flow\w*|q", (0.1, 5000.0), (0.0, 50000.0)),
    _Kind("level", "pct", r"level|hum\w*|load|torque", (1.0, 110.0), (-400.0, 400.0)),
)
WRITTEN = (  # of one suffix the likeliest first
    _Unit("degc", "°C", r"c|degc|celsius"),
    _Unit("degc", "°F", r"f|degf|fahrenheit", 5 / 9, -160 / 9),
    _Unit("degc", "K", r"k|kelvin", 1.0, -273.15),
    _Unit("mm_s", "mm/s", r"mms|mmsec|mmps"),
    _Unit("mm_s", "in/s", r"ips|ins|insec|inchs", 25.4),
    _Unit("mm_s", "m/s", r"mps|msec", 1000.0),
    _Unit("g", "g", r"g|gs|grms"),
    _Unit("g", "m/s²", r"ms2|mss|mps2", 1 / STANDARD_GRAVITY_M_S2),
    _Unit("g", "mg", r"mg", 1e-3),
    _Unit("um", "µm", r"um|micron|microns"),
    _Unit("um", "mm", r"mm", 1000.0),
    _Unit("hz", "Hz", r"hz|hertz"),
    _Unit("rpm", "rpm", r"rpm|min1"),
    _Unit("rpm", "Hz", r"hz", 60.0),
    _Unit("v", "V", r"v|volt|volts"),
    _Unit("v", "mV", r"mv", 1e-3),
    _Unit("a", "A", r"a|amp|amps|ampere"),
    _Unit("a", "mA", r"ma", 1e-3),
    _Unit("kwh", "kWh", r"kwh"),
    _Unit("kwh", "Wh", r"wh", 1e-3),
    _Unit("kw", "kW", r"kw"),
    _Unit("kw", "W", r"w|watt|watts", 1e-3),
    _Unit("bar", "bar", r"bar"),
    _Unit("bar", "kPa", r"kpa", 0.01),
    _Unit("bar", "psi", r"psi", 0.0689475729),
    _Unit("bar", "mbar", r"mbar|hpa", 1e-3),
    _Unit("bar", "Pa", r"pa", 1e-5),
    _Unit("m3_h", "m³/h", r"m3h|m3ph|cmh"),
    _Unit("m3_h", "l/min", r"lmin|lpm", 0.06),
    _Unit("m3_h", "l/s", r"ls|lps", 3.6),
    _Unit("pct", "%", r"pct|percent"),
    _Unit("ratio", "a ratio", r"ratio"),
)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
AXES = ("x", "y", "z", "de", "nde")
PHASES = {"a": "l1", "b": "l2", "c": "l3", "l1": "l1", "l2": "l2", "l3": "l3"}  # before a name; behind it C is Celsius


def guess(quantity: Quantity, topic: str = "") -> Guess:
    """What a number may be: by its name (the topic's last level where it has none), the unit in it, and where it lies."""
    words = _words(quantity.path or topic.rsplit("/", 1)[-1])
    said = [unit for n in (3, 2, 1) for unit in WRITTEN if re.fullmatch(unit.words, "".join(words[-n:]))]
    kind = _kind_of(words, said)
    if kind is None:
        return Guess("", f"nothing says what it is; it lies from {quantity.low:g} to {quantity.high:g}")
    own = [unit for unit in WRITTEN if unit.suffix == kind.suffix]
    for unit in said:
        if unit in own:
            return _proposed(kind, unit, words, f"its name says {unit.printed}")
    fitting = [unit for unit in own if _is_usual(kind, unit, quantity)]
    if not fitting:
        return Guess("", f"its name says {kind.stem}; {quantity.low:g} to {quantity.high:g} fits no unit of it")
    others = "".join(f", and so would {unit.printed}" for unit in fitting[1:])
    return _proposed(kind, fitting[0], words, f"its name says {kind.stem}; {fitting[0].printed} fits{others}")


def _words(path: str) -> list[str]:
    """The words of the last member of a path: sensor.TempC_de is temp, c, de."""
    last = re.split(r"[./]|\[\d+\]", path.rstrip("]"))[-1] or path
    return [word.lower() for word in WORD.findall(last)]


def _kind_of(words: Sequence[str], said: Sequence[_Unit]) -> _Kind | None:
    """By name and unit together, else by name, else by unit; one letter (p, u, i) is no name where a unit says otherwise."""
    spans = {*words, *(a + b for a, b in pairwise(words))}
    suffixes = [unit.suffix for unit in said]
    named = [kind for kind in KINDS if any(re.fullmatch(kind.words, span) for span in spans)]
    clearly = [kind for kind in named if any(len(span) > 1 and re.fullmatch(kind.words, span) for span in spans)]
    by_unit = [kind for suffix in suffixes for kind in KINDS if kind.suffix == suffix]
    both = [kind for kind in named if kind.suffix in suffixes]
    return next(iter([*both, *clearly, *by_unit, *named]), None)


def _is_usual(kind: _Kind, unit: _Unit, quantity: Quantity) -> bool:
    low, high = quantity.low * unit.factor + unit.offset, quantity.high * unit.factor + unit.offset
    return kind.plausible[0] <= low and kind.usual[0] <= high <= kind.usual[1]


def _proposed(kind: _Kind, unit: _Unit, words: Sequence[str], reason: str) -> Guess:
    place = next((word for word in words if word in AXES), PHASES.get(words[0], "") if len(words) > 1 else "")
    scale, offset = float(f"{unit.factor:.9g}"), float(f"{unit.offset:.9g}")
    name = "_".join(part for part in (kind.stem, place, kind.suffix) if part)
    return Guess(name, reason, scale, offset, kind.plausible)
