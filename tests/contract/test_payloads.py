"""The battery over every file in config/payloads: its examples, worked by hand, against our decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware_bridge.bursts import BurstDecoder
from firmware_bridge.errors import FrameError
from firmware_bridge.frames import BurstAssembler
from firmware_bridge.measurement import Quality, Waveform
from firmware_bridge.messages import Message, Part
from firmware_bridge.payload import (
    BurstExample,
    BurstProfile,
    Example,
    JsonProfile,
    MetricExample,
    PacketsProfile,
    SparkplugProfile,
    load_payload,
    payload_names,
)
from firmware_bridge.scalars import JsonDecoder, MetricDecoder, NumberDecoder, Scalars

CONFIG = Path(__file__).resolve().parents[2] / "config"
NAMES = payload_names(CONFIG)
SCALARS = [name for name in NAMES if not isinstance(load_payload(CONFIG, name), BurstProfile)]
BURSTS = [name for name in NAMES if name not in SCALARS]
S = 1_000_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_has_three_examples_and_names_its_document(name: str) -> None:
    """The file is the whole contract with a product: whoever doubts it must find where it came from."""
    profile = load_payload(CONFIG, name)
    assert len(profile.examples) >= 3
    assert profile.source
    assert profile.sees


@pytest.mark.parametrize("name", SCALARS)
def test_every_quantity_is_shown_with_a_value_and_one_without(name: str) -> None:
    """A path that finds nothing would otherwise pass unseen."""
    profile = load_payload(CONFIG, name)
    good = {point for example in profile.examples for point in example.values}
    assert good == {point.name for point in profile.points}
    assert any(code != "BAD" for example in profile.examples for code in example.quality.values())


@pytest.mark.parametrize("name", SCALARS)
def test_every_message_decodes_to_the_values_worked_by_hand(name: str) -> None:
    """Values, qualities, and nothing for what the message leaves out."""
    profile = load_payload(CONFIG, name)
    for example in profile.examples:
        scalars = decoded(profile, example)
        answers = [] if scalars is None else zip(scalars.places, scalars.values, scalars.quality, strict=True)
        names = {profile.points[place].name: (value, quality) for place, value, quality in answers}
        assert sorted(names) == sorted([*example.values, *example.quality]), example.title
        for point, value in example.values.items():
            assert names[point][1] == Quality.GOOD, f"{example.title}: {point}"
            assert names[point][0] == pytest.approx(value, rel=1e-9), f"{example.title}: {point}"
        for point, code in example.quality.items():
            assert Quality(int(names[point][1])).name == code, f"{example.title}: {point}"
            assert np.isnan(names[point][0])


def decoded(profile: Any, example: Example | MetricExample) -> Scalars | None:
    if isinstance(profile, SparkplugProfile):
        assert isinstance(example, MetricExample)
        return MetricDecoder(profile).decode(example.metrics, {})
    assert isinstance(example, Example)
    message = Message(example.topic, example.payload.encode())
    decoder = JsonDecoder(profile, Part()) if isinstance(profile, JsonProfile) else NumberDecoder(profile)
    return decoder.decode(message)


@pytest.mark.parametrize("name", BURSTS)
def test_every_burst_joins_into_the_waveforms_worked_by_hand(name: str) -> None:
    """In metres per second squared, in any order of its parts, and nothing where nothing must come out."""
    profile = load_payload(CONFIG, name)
    assert any(example.waves for example in profile.examples)
    assert any(not example.waves for example in profile.examples)
    for example in profile.examples:
        for payloads in (example.payloads, example.payloads[::-1]):
            waves = {wave.axis: wave for wave in heard(profile, example, payloads)}
            assert sorted(waves) == sorted(wave.axis for wave in example.waves), example.title
            for wanted in example.waves:
                wave = waves[wanted.axis]
                assert wave.sample_rate_hz == wanted.sample_rate_hz
                assert wave.samples == pytest.approx(wanted.samples_m_s2, rel=1e-6), example.title
                assert (wave.quality == Quality.UNCERTAIN) == wanted.clipped
            assert len({wave.burst_id for wave in waves.values()}) <= 1


def heard(profile: Any, example: BurstExample, payloads: tuple[str, ...]) -> list[Waveform]:
    decoder, assembler = BurstDecoder(profile, Part()), BurstAssembler()
    waves = []
    for text in payloads:
        octets = bytes.fromhex(text) if isinstance(profile, PacketsProfile) else text.encode()
        try:
            chunks = decoder.decode(Message(example.topic, octets))
        except FrameError:
            continue
        waves += [wave for chunk in chunks for wave in assembler.add_chunk("sensor", chunk, S, S)]
    return waves
