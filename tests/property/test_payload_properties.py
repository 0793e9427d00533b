"""What holds for any bytes and any order: nothing crashes a decoder of payload files, and parts join as they were sent."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from fuzz_payload import ABOUT, fuzz_burst, fuzz_json, fuzz_packets
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.bursts import BurstDecoder
from firmware_bridge.frames import BurstAssembler
from firmware_bridge.jsonpath import JsonPath
from firmware_bridge.messages import Message, Part
from firmware_bridge.payload import JsonBurst, JsonBurstProfile, Ref

ANY_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("fuzz", [fuzz_json, fuzz_burst, fuzz_packets])
def test_no_bytes_crash_a_decoder(fuzz: Any) -> None:
    """The sensors' topics are open to whoever is on the network; `make fuzz` gives a million to each."""

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=300))
    def any_bytes(data: bytes) -> None:
        fuzz(data)

    any_bytes()
    seeded = random.Random(20231114)
    for _ in range(1500):
        fuzz(seeded.randbytes(seeded.randrange(4, 40)))


@given(ANY_JSON)
@settings(max_examples=100, deadline=None)
def test_a_path_finds_in_any_tree_what_python_finds(tree: Any) -> None:
    """Members, elements and wildcards, against plain indexing."""

    def by_hand(value: Any, *keys: Any) -> list[Any]:
        for key in keys:
            try:
                value = value[key] if isinstance(value, dict if isinstance(key, str) else list) else None
            except (KeyError, IndexError):
                return []
            if value is None:
                return []
        return [value]

    assert [v for v in JsonPath.parse("a[-1].b").find(tree) if v is not None] == by_hand(tree, "a", -1, "b")
    inner = tree["c"] if isinstance(tree, dict) and "c" in tree else None
    every = list(inner.values()) if isinstance(inner, dict) else inner if isinstance(inner, list) else []
    assert JsonPath.parse("c[*]").find(tree) == every


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_bursts_come_back_whole_whatever_the_radio_does_to_their_parts(data: st.DataObject) -> None:
    """Two bursts of a sensor, mixed, repeated, one of them with a hole: the other is whole, once, and nothing else comes."""
    table = JsonBurst(
        unit="m_s2", samples={"z": "d"}, sample_rate_hz=1000.0, burst_id_at=Ref(path="b"), index_at=Ref(path="i"),
        count_at=Ref(path="n"),
    )  # fmt: skip
    decoder, assembler = BurstDecoder(JsonBurstProfile(**ABOUT, burst=table), Part()), BurstAssembler()
    n = data.draw(st.integers(1, 6))
    whole = [{"b": 1, "i": i, "n": n, "d": [i, i + 0.5]} for i in range(n)]
    holed = [{"b": 2, "i": i, "n": n + 1, "d": [-i]} for i in range(n)]
    again = data.draw(st.lists(st.sampled_from([*whole, *holed]), max_size=5))
    waves = []
    for part in data.draw(st.permutations([*whole, *holed, *again])):
        for chunk in decoder.decode(Message("t", json.dumps(part).encode())):
            waves += assembler.add_chunk("s", chunk, 1, 1)
    assert [wave.samples.tolist() for wave in waves] == [[value for part in whole for value in part["d"]]]
    assert assembler.counters["duplicate"] == len(again)
    assert assembler.n_open == 1
