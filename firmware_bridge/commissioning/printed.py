"""How what commissioning finds reads on a terminal: devices, topics, rows of values, and what a map has wrong. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from firmware_bridge.commissioning.live import Row, shown
from firmware_bridge.commissioning.plausible import Candidate, Ranking
from firmware_bridge.commissioning.scan import FoundUnit
from firmware_bridge.commissioning.sniff import Heard, TopicHeard, payload_lines, sensor_lines
from firmware_bridge.measurement import Block, Measurement, Quality
from firmware_bridge.units import unit_of

N_CANDIDATES = 5
N_VALUES = 4
LIKELY = 0.01
N_BYTES = 64
COLUMNS = ("point", "fn", "address", "wire", "raw", "value", "quality", "plausible")


def unit_lines(unit: FoundUnit) -> Iterator[str]:
    """One device that a scan found."""
    who = "every unit id" if unit.everywhere else f"unit {unit.unit_id}"
    said = ", ".join(f"{name} {text!r}" for name, text in unit.identity.items() if text)
    if not unit.matches:
        yield f"  {who}: unknown; no file of config/devices fits it{f'. It says {said}' if said else ''}"
        return
    for number, match in enumerate(unit.matches):
        yield f"  {'or' if number else who + ':'} {match.device}, {match.title}. {_sentence(match.reason)}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# ---------------------------------------------------------------------- topics
def topic_lines(heard: Heard) -> Iterator[str]:
    """What a broker carries, and what to write for it."""
    for topic in sorted(heard.topics.values(), key=lambda t: t.topic):
        yield f"{topic.topic}: {_form(topic)}, {_rate(topic)}, {_size(topic)}"
        for path, proposal in topic.guesses:
            quantity = topic.shape.quantities[path]
            name = f"{proposal.name}: " if proposal.name else ""
            where = f"{path} " if path else ""
            yield f"    {where}{quantity.low:g} to {quantity.high:g}, last {quantity.last:g}; {name}{proposal.reason}"
        for path, written in topic.shape.waveforms.items():
            yield f"    {path}: a waveform as {written}; its unit and sample rate must be asked from its maker"


def proposal_lines(heard: Heard) -> Iterator[str]:
    """Lines for the site file where a payload file is known or PROTOCOL.md is spoken, else lines for a new payload file."""
    for topic in sorted(heard.topics.values(), key=lambda t: t.topic):
        known = heard.payloads.get(topic.topic, [])
        if known or topic.shape.form in ("burst", "readings"):
            yield from ("", *sensor_lines(topic, known[0] if known else ""))
            yield from (f'# or payload = "{name}"' for name in known[1:])
        elif lines := payload_lines(topic):
            yield from ("", f"# config/payloads/NAME.toml for {topic.topic}", *lines)


def _form(topic: TopicHeard) -> str:
    forms = {"burst": "Hark burst", "readings": "Hark readings", "sparkplug": "Sparkplug B", "json": "JSON"}
    return forms.get(topic.shape.form, topic.shape.form)


def _rate(topic: TopicHeard) -> str:
    if topic.rate_hz is None:
        return "kept by the broker" if topic.n_retained else "once"
    return f"{topic.rate_hz:.3g} a second" if topic.rate_hz >= 1 else f"every {1 / topic.rate_hz:.3g} s"


def _size(topic: TopicHeard) -> str:
    low, high = topic.smallest_bytes, topic.largest_bytes
    return f"{high} bytes" if low == high else f"{low} to {high} bytes"


def payload_shown(payload: bytes) -> str:
    """The beginning of a message, as text where it is one."""
    text = payload[:200].decode("utf-8", "replace")
    if text.replace("\n", " ").isprintable():
        return text
    return payload[:N_BYTES].hex(" ")


# ---------------------------------------------------------------------- values
def table(found: Sequence[Row]) -> list[str]:
    """Every point of a device as a line: both addresses, the words as they were sent, the value and what it can be."""
    cells = [COLUMNS] + [
        (
            row.point,
            str(row.function),
            str(row.address),
            str(row.wire_address),
            row.raw,
            shown(row),
            row.quality,
            f"{row.plausible[0]:g} to {row.plausible[1]:g}",
        )
        for row in found
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def ranking_lines(sensor: str, ranking: Ranking) -> Iterator[str]:
    """What is likely wrong with a map, the likeliest first, with the values that each reading gives."""
    best, written = ranking.best, ranking.as_written
    how = "as written" if best.as_written else "with"
    yield f"{sensor} reads best {how} ({_share(best.weight)}; {best.reason})"
    yield from _reading(best, written)
    for candidate in _alternatives(ranking):
        yield f"or {'as written' if candidate.as_written else 'with'} ({_share(candidate.weight)}; {candidate.reason})"
        yield from _reading(candidate, best)
    if ranking.ambiguous:
        yield f"not sure: {ranking.advice}"


def _share(weight: float) -> str:
    return f"{weight:.0%}" if weight >= LIKELY else "under 1%"


def _alternatives(ranking: Ranking) -> Iterator[Candidate]:
    """What is not much less likely, and every other word order: whoever stands before the panel knows better."""
    orders = {ranking.best.word_order}
    for number, candidate in enumerate(ranking.candidates[1:], 1):
        if (number < N_CANDIDATES and candidate.weight >= LIKELY) or candidate.word_order not in orders:
            orders.add(candidate.word_order)
            yield candidate


def _reading(candidate: Candidate, other: Candidate) -> Iterator[str]:
    """The lines to write, and what is then read otherwise than by `other`."""
    yield from (f"    {change}" for change in candidate.changes)
    named = [name for name, value in candidate.values.items() if _differs(value, other.values[name])]
    for name in named[:N_VALUES]:
        before = other.values[name]
        instead = "nothing" if math.isnan(before) else f"{before:.4g}"
        yield f"        {name} {candidate.values[name]:.6g} {unit_of(name)}".rstrip() + f" instead of {instead}"
    if len(named) > N_VALUES:
        yield f"        and {len(named) - N_VALUES} more"


def _differs(value: float, before: float) -> bool:
    return math.isfinite(value) and not math.isclose(value, before, rel_tol=1e-6)


# ---------------------------------------------------------------------- messages
def decoded(measurement: Measurement, channels: Sequence[str]) -> dict[str, Any]:
    """What a message was decoded to, for JSON and for `message_lines`."""
    if isinstance(measurement, Block):
        return {
            channels[int(place)]: {"value": float(value), "quality": Quality(int(quality)).name}
            for place, value, quality in zip(measurement.channels, measurement.values, measurement.quality, strict=True)
        }
    rms_m_s2 = float((measurement.samples.astype(float) ** 2).mean() ** 0.5)
    return {
        "axis": measurement.axis,
        "n_samples": len(measurement.samples),
        "sample_rate_hz": measurement.sample_rate_hz,
        "rms_m_s2": rms_m_s2,
    }


def message_lines(said: Mapping[str, Any]) -> Iterator[str]:
    """A message of an MQTT sensor, raw and decoded."""
    yield f"{said['topic']}: {said['payload']}"
    for found in said["decoded"]:
        if "axis" in found:
            rate, rms = found["sample_rate_hz"], found["rms_m_s2"]
            yield f"  axis {found['axis']}: {found['n_samples']} samples at {rate:g} Hz, {rms:.4g} m/s² RMS"
            continue
        for point, told in found.items():
            value = "" if math.isnan(told["value"]) else f"{told['value']:.6g} {unit_of(point)} "
            yield f"  {point} {value}{told['quality']}"
    if not said["decoded"]:
        yield f"  {said['trouble'] or 'nothing of this sensor in it, or a part of a burst'}"
