"""One input for the decoders of payload files, whatever its bytes: no crash, no hang, no growing memory.

An input is either a message as it is, or a change to a good one (an example of a shipped payload file): bytes alone hardly
ever get past a JSON parser. Whatever comes out must be what the pipeline may rely on: NaN exactly where quality is BAD,
finite samples, places and ids within their bounds.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.bursts import BurstDecoder
from firmware_bridge.errors import FrameError
from firmware_bridge.frames import AXES, MAX_SAMPLES, BurstAssembler
from firmware_bridge.jsonpath import JsonPath
from firmware_bridge.measurement import Quality
from firmware_bridge.messages import Message, Part
from firmware_bridge.payload import (
    BytesBurst,
    JsonBurst,
    JsonBurstProfile,
    JsonProfile,
    NumberProfile,
    PacketsProfile,
    Ref,
    TimeRef,
    load_payload,
    payload_names,
)
from firmware_bridge.scalars import JsonDecoder, NumberDecoder

CONFIG = Path(__file__).resolve().parents[1] / "config"
SHIPPED = [load_payload(CONFIG, name) for name in payload_names(CONFIG)]
SELECT = Part(JsonPath.parse("$"), JsonPath.parse('a[?b=="c"].d'), "e")
ABOUT: dict[str, Any] = {
    "vendor": "V", "model": "M", "title": "t", "source": "s", "sees": "all", "update_interval_s": 1.0,
}  # fmt: skip
EVERYTHING_TOLD: dict[str, Any] = {
    "unit": "g", "type": "float32",
    "scale_at": Ref(path="s"), "sample_interval_at": Ref(path="dt"), "axis_at": Ref(level=-1), "burst_id_at": Ref(path="id"),
    "index_at": Ref(path="i"), "count_at": Ref(path="n"), "time": TimeRef(path="t", format="ms"), "timeout_s": 5.0,
}  # fmt: skip
IN_BYTES: dict[str, Any] = {
    "unit": "m_s2", "type": "float64", "byte_order": "big", "axes": "any", "first_byte": 24, "n_bytes_after": 2,
    "scale_at": Ref(offset=0, type="float32"), "sample_rate_at": Ref(offset=4, type="float32"),
    "axis_at": Ref(offset=8, mask=0x30, table={"0": "x", "1": "zyx"}), "burst_id_at": Ref(offset=9, type="uint32"),
    "index_at": Ref(offset=13), "count_at": Ref(offset=14), "time": TimeRef(offset=15, type="int64", format="ns"),
}  # fmt: skip

_SCALARS = [
    *(
        JsonDecoder(profile, part)
        for profile in SHIPPED
        if isinstance(profile, JsonProfile)
        for part in (Part(), SELECT)
    ),
    *(NumberDecoder(profile) for profile in SHIPPED if isinstance(profile, NumberProfile)),
]
_JSON_BURSTS = [
    *(BurstDecoder(profile, Part()) for profile in SHIPPED if isinstance(profile, JsonBurstProfile)),
    BurstDecoder(JsonBurstProfile(**ABOUT, burst=JsonBurst(**EVERYTHING_TOLD, samples={"any": "d[*]"})), Part()),
    BurstDecoder(
        JsonBurstProfile(**ABOUT, burst=JsonBurst(**EVERYTHING_TOLD, samples={"any": "d"}, encoding="base64")), SELECT
    ),
]
_PACKETS = [
    *(BurstDecoder(profile, Part()) for profile in SHIPPED if isinstance(profile, PacketsProfile)),
    BurstDecoder(PacketsProfile(**ABOUT, burst=BytesBurst(**IN_BYTES)), Part()),
]
_MESSAGES = [
    (example.topic, example.payload.encode())
    for profile in SHIPPED
    if isinstance(profile, JsonProfile | NumberProfile)
    for example in profile.examples
]
_WAVES = [
    (
        "Asset/A1000/Vibration",
        SHIPPED[payload_names(CONFIG).index("gatech_arch_vibration")].examples[0].payloads[0].encode(),
    ),
    ("plant/z", b'{"s":1,"dt":0.001,"id":7,"i":0,"n":2,"t":1700000000000,"d":[1,2.5,-3]}'),
    ("plant/x", b'{"a":[{"b":"c","d":"e"}],"s":2,"dt":1e-4,"id":"q","i":1,"n":2,"t":1,"d":"AACAPwAAgD8="}'),
]
_RADIO = [
    bytes.fromhex(text)
    for profile in SHIPPED
    if isinstance(profile, PacketsProfile)
    for example in profile.examples
    for text in example.payloads
]
_assembler = BurstAssembler(max_open=8, max_bytes=1 << 16)
_clock = count(0, 1_000_000)  # a message each millisecond


def fuzz_json(data: bytes) -> None:
    """Scalars: every shipped JSON and number payload hears the same message.

    Raises: AssertionError: a value that the pipeline could not rely on.
    """
    topic, payload = _changed(data, _MESSAGES)
    message = Message(topic, payload, 1, 1)
    for decoder in _SCALARS:
        try:
            scalars = decoder.decode(message)
        except FrameError as error:
            _check_line(error)
            continue
        if scalars is not None:
            bad = scalars.quality >= Quality.BAD
            assert np.array_equal(np.isnan(scalars.values), bad)
            assert len(scalars.places) == len(scalars.values) <= 256


def fuzz_burst(data: bytes) -> None:
    """Waveforms in JSON, into one assembler that is never emptied.

    Raises: AssertionError: a waveform that the pipeline could not rely on, or memory beyond its bounds.
    """
    topic, payload = _changed(data, _WAVES)
    _hear(_JSON_BURSTS, Message(topic, payload))


def fuzz_packets(data: bytes) -> None:
    """Waveforms in bytes, likewise.

    Raises: AssertionError: as `fuzz_burst`.
    """
    _, payload = _changed(data, [("", packet) for packet in _RADIO])
    _hear(_PACKETS, Message("plant/radio/z", payload))


def _hear(decoders: list[BurstDecoder], message: Message) -> None:
    now_ns = next(_clock)
    for place, decoder in enumerate(decoders):
        try:
            chunks = decoder.decode(message)
        except FrameError as error:
            _check_line(error)
            continue
        for chunk in chunks:
            waves = _assembler.add_chunk(f"s{place}", chunk, now_ns, now_ns, decoder.timeout_s)
            for wave in waves:
                assert wave.axis in AXES
                assert 0 < len(wave.samples) <= MAX_SAMPLES
                assert np.isfinite(wave.samples).all()
                assert 0 <= wave.burst_id < 2**32
    assert _assembler.n_open <= 8


def _check_line(error: FrameError) -> None:
    """What a log line says stays short, whatever a message held."""
    assert len(str(error)) < 300


def _changed(data: bytes, seeds: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """`data` itself, or a seed in which some of its bytes replace others: the first three say which and where."""
    if len(data) < 4 or data[0] & 0x80 == 0:
        return "plant/z", data
    topic, seed = seeds[data[0] % len(seeds)]
    at = (data[1] << 8 | data[2]) % (len(seed) + 1)
    n_gone = data[3] % 32
    return topic, seed[:at] + data[4:] + seed[at + n_gone :]
