"""The battery over every file in config/devices: its examples, worked by hand, against our decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from firmware_bridge.device import MAX_BITS, DeviceProfile, Example, Point, Span, load_device
from firmware_bridge.measurement import Quality
from firmware_bridge.registers import Decoder, decode_text, encode, plan_reads
from firmware_bridge.units import suffix_of

CONFIG = Path(__file__).resolve().parents[2] / "config"
NAMES = sorted(path.stem for path in (CONFIG / "devices").glob("*.toml"))
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")

# the word of a name that says what is measured -> the units it comes in; the first that is there counts
UNITS_OF = {
    "thd": {"pct"},
    "unbalance": {"pct"},
    "thermal": {"pct"},
    "performance": {"pct"},
    "factor": {"ratio"},
    "phi": {"ratio"},
    "kurtosis": {"ratio"},
    "crest": {"ratio"},
    "fault": {"ratio"},
    "alarm": {"ratio"},
    "warning": {"ratio"},
    "trip": {"ratio"},
    "invalid": {"ratio"},
    "dry": {"ratio"},
    "time": {"s", "h"},
    "run": {"ratio"},
    "frequency": {"hz"},
    "speed": {"rpm"},
    "velocity": {"mm_s"},
    "acceleration": {"g", "m_s2"},
    "displacement": {"um"},
    "temperature": {"degc"},
    "pressure": {"bar", "kpa"},
    "head": {"bar", "m"},
    "level": {"m"},
    "flow": {"m3_h", "l_min"},
    "torque": {"nm", "pct"},
    "specific_energy": {"wh_m3"},
    "energy": {"kwh"},
    "apparent_power": {"kva"},
    "reactive_power": {"kvar"},
    "power": {"kw", "w", "pct"},
    "current": {"a"},
    "voltage": {"v"},
    "dc_bus": {"v"},
}


def answers(profile: DeviceProfile, words: dict[int, int]) -> dict[int, np.ndarray]:
    """The reads' answers cut out of an example; addresses in a gap answer 0."""
    return {
        i: np.array([words.get(read.address + k, 0) for k in range(read.count)], np.uint16)
        for i, read in enumerate(plan_reads(profile))
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_device_has_three_examples_and_one_of_them_is_not_available(name: str) -> None:
    """The simulator shares our codec, so a bug in it would cancel out; only words from the manual do not."""
    profile = load_device(CONFIG, name)
    assert len(profile.examples) >= 3
    assert any("BAD_SENTINEL" in e.quality.values() or "BAD_RANGE" in e.quality.values() for e in profile.examples)
    good = {point for example in profile.examples for point in example.values}
    assert good == {point.name for point in profile.points}, "every point is once shown with a value"
    assert profile.source
    assert profile.sees


@pytest.mark.parametrize("name", NAMES)
def test_every_example_decodes_to_the_values_worked_by_hand(name: str) -> None:
    """Values within float32, qualities exactly."""
    profile = load_device(CONFIG, name)
    for example in profile.examples:
        words = example.words(profile.address_base)
        spans = [span for point in profile.points for span in profile.spans_of(point)]
        needed = {address for span in spans for address in range(span.address, span.end)}
        assert needed <= set(words), (
            f"{example.title}: the words of address {min(needed - set(words), default=0)} are missing"
        )
        values, quality = Decoder(profile).decode(answers(profile, words))
        for point, value, code in zip(profile.points, values, quality, strict=True):
            assert code == example.expected_quality(point.name), f"{example.title}: {point.name}"
            if point.name in example.values:
                assert value == pytest.approx(example.values[point.name], rel=1e-6, abs=1e-9), (
                    f"{example.title}: {point.name}"
                )
            else:
                assert np.isnan(value)


def says_the_same(profile: DeviceProfile, example: Example, point: Point) -> bool:
    """Whether the encoder's words for a point are the example's, or mean the same where a device is free in its choice.

    Free are the power of ten that a group shares, and what else stands in a register of fields.
    """
    image = {address: word for (_, address), word in encode(profile, example.values).items()}
    span, *exponent = profile.spans_of(point)
    if point.bits is None and not exponent:
        by_hand = example.words(profile.address_base)
        return all(image[address] == by_hand[address] for address in range(span.address, span.end))
    value = Decoder(profile).measure(answers(profile, image))[0][profile.points.index(point)]
    power = np.array([image[exponent[0].address] if exponent else 0], np.uint16).view(np.int16)[0]
    return bool(abs(value - example.values[point.name]) <= 0.501 * abs(point.scale) * 10.0**power)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_simulator_would_send_is_what_the_example_holds(name: str) -> None:
    """Encoding the example's values gives the example's words back, bit for bit where the map leaves no choice."""
    profile = load_device(CONFIG, name)
    for example in profile.examples:
        for point in profile.points:
            if point.name in example.values:
                assert says_the_same(profile, example, point), f"{example.title}: {point.name}"


@pytest.mark.parametrize("name", NAMES)
def test_the_words_that_name_a_device_are_read_as_its_manual_prints_them(name: str) -> None:
    """A scan goes by these words: what a model says of itself must be letters, and fit into its registers."""
    profile = load_device(CONFIG, name)
    for text in profile.texts:
        assert len(text.equals or "") <= 2 * text.n_registers
        for example in (e for e in profile.examples if text.name in e.texts):
            words, span = example.words(profile.address_base), profile.text_span(text)
            said = decode_text((words[address] for address in range(span.address, span.end)), text)
            assert said == example.texts[text.name]
            assert text.equals in (None, said)


# ---------------------------------------------------------------------- what every file of the library owes its reader
def test_the_library_holds_at_least_fourteen_kinds_and_none_of_them_twice() -> None:
    """Somebody who has a machine to watch should find his device here, and under one name."""
    kinds = Counter((profile.vendor, profile.model) for profile in (load_device(CONFIG, name) for name in NAMES))
    assert len(kinds) >= 14
    assert kinds.most_common(1)[0][1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_running_machine_is_shown_where_the_file_says_it_mostly_is(name: str) -> None:
    """`typical` ranks what commissioning proposes: a range that no example of a running machine meets would mislead it."""
    profile = load_device(CONFIG, name)
    for point in profile.points:
        assert point.typical, f"{point.name} has no typical range"
        low, high = point.typical
        shown = [example.values[point.name] for example in profile.examples if point.name in example.values]
        assert any(low <= value <= high for value in shown), f"{point.name}: {shown} is never in {low} to {high}"


@pytest.mark.parametrize("name", NAMES)
def test_a_point_s_unit_is_a_unit_of_what_its_name_says(name: str) -> None:
    """Names are how rules and people find a quantity; motor_current_v would be a trap."""
    for point in load_device(CONFIG, name).points:
        padded = f"_{point.name}_"
        units = next((units for word, units in UNITS_OF.items() if f"_{word}_" in padded), None)
        assert units, f"{point.name} says no quantity that this battery knows"
        assert suffix_of(point.name) in units, point.name


def fewest(spans: Sequence[Span], profile: DeviceProfile) -> int:
    """How many reads these values of one function take at least: every way to cut the sorted row, tried out."""
    most = profile.max_registers if spans[0].function >= 3 else MAX_BITS
    best = [0]
    for i in range(len(spans)):
        cuts = []
        for j in range(i, -1, -1):
            block = spans[j : i + 1]
            ends = [max(span.end for span in block[: k + 1]) for k in range(len(block))]
            whole = profile.allow_gaps or all(b.address <= end for b, end in zip(block[1:], ends, strict=False))
            if whole and ends[-1] - block[0].address <= most:
                cuts.append(best[j] + 1)
        best.append(min(cuts))
    return best[-1]


@pytest.mark.parametrize("name", NAMES)
def test_every_device_is_read_in_the_fewest_requests_it_allows(name: str) -> None:
    """A request costs 20 ms and more on a serial line; one too long, or across a gap, is refused."""
    profile = load_device(CONFIG, name)
    reads = plan_reads(profile)
    spans = sorted({span for point in profile.points for span in profile.spans_of(point)})
    assert all(any(read.covers(span) for read in reads) for span in spans)
    wanted = {(s.function, address) for s in spans for address in range(s.address, s.end)}
    for read in reads:
        assert read.count <= (profile.max_registers if read.function >= 3 else MAX_BITS)
        asked = {(read.function, address) for address in range(read.address, read.end)}
        assert profile.allow_gaps or asked <= wanted
    functions = {span.function for span in spans}
    assert len(reads) == sum(fewest([s for s in spans if s.function == f], profile) for f in functions)


# ---------------------------------------------------------------------- a wrong word order
def good_when_misread(profile: DeviceProfile, words: dict[int, int], point: Point, how: int) -> bool:
    """Whether the point looks GOOD with its words (1), its bytes (2) or both (3) taken in the wrong order."""
    order = ORDERS[ORDERS.index(profile.order_of(point)) ^ how]
    other = msgspec.structs.replace(profile, points=(msgspec.structs.replace(point, word_order=order),), examples=())
    _, quality = Decoder(other).decode(answers(other, words))
    return bool(quality[0] == Quality.GOOD)


def measured(profile: DeviceProfile, example: Example) -> list[Point]:
    """An example's non-zero values of 32 and 64 bits; no fields of bits, and no counters, which may be any number."""
    wide = (point for point in profile.points if point.n_words > 1 and point.bits is None)
    return [p for p in wide if suffix_of(p.name) not in {"kwh", "s", "h"} and example.values.get(p.name)]


@pytest.mark.parametrize(("how", "at_most"), [(1, 0.05), (2, 0.30), (3, 0.01)], ids=["words", "bytes", "both"])
def test_a_wrong_word_order_shows_itself_on_running_values(how: int, at_most: float) -> None:
    """Of 255 non-zero values of 32 and 64 bits, misread: 9 look GOOD with words swapped, 67 with bytes, 1 with both.

    Swapped bytes leave a small integer small: 0x04A9 as 0xA904 is 432.68 A instead of 11.93 A, and both are currents.
    But of no device do all values in all examples look GOOD, so commissioning on a running machine finds the order.
    Whoever widens a plausible range sees here what it costs.
    """
    tried: list[bool] = []
    for profile in (load_device(CONFIG, name) for name in NAMES):
        good = [
            good_when_misread(profile, example.words(profile.address_base), point, how)
            for example in profile.examples
            for point in measured(profile, example)
        ]
        assert not good or not all(good), f"{profile.model}: nothing shows the wrong order"
        tried += good
    assert len(tried) >= 200
    assert sum(tried) <= at_most * len(tried)
