"""The battery over every file in config/devices: its examples, worked by hand, against our decoder."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from firmware_bridge.device import BITS, DeviceProfile, Point, load_device
from firmware_bridge.measurement import Quality
from firmware_bridge.registers import Decoder, encode, plan_reads

CONFIG = Path(__file__).resolve().parents[2] / "config"
NAMES = sorted(path.stem for path in (CONFIG / "devices").glob("*.toml"))
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")


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
        needed = {profile.wire_address(p) + k for p in profile.points for k in range(p.n_words)}
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


@pytest.mark.parametrize("name", NAMES)
def test_what_the_simulator_would_send_is_what_the_example_holds(name: str) -> None:
    """Encoding the example's values gives the example's words back, bit for bit."""
    profile = load_device(CONFIG, name)
    for example in profile.examples:
        words = example.words(profile.address_base)
        for (_, address), word in encode(profile, example.values).items():
            assert words[address] == word, f"{example.title}: address {address}"


def good_when_misread(profile: DeviceProfile, words: dict[int, int], point: Point, how: int) -> bool:
    """Whether the point looks GOOD with its words (1), its bytes (2) or both (3) taken in the wrong order."""
    order = ORDERS[ORDERS.index(profile.order_of(point)) ^ how]
    other = msgspec.structs.replace(profile, points=(msgspec.structs.replace(point, word_order=order),), examples=())
    _, quality = Decoder(other).decode(answers(other, words))
    return bool(quality[0] == Quality.GOOD)


@pytest.mark.parametrize(("how", "at_most"), [(1, 0.05), (2, 0.30), (3, 0.0)], ids=["words", "bytes", "both"])
def test_a_wrong_word_order_shows_itself_on_running_values(how: int, at_most: float) -> None:
    """Of 47 non-zero 32-bit example values, misread: 2 look GOOD with words swapped, 14 with bytes, 0 with both.

    Swapped bytes leave a small integer small: 0x04A9 as 0xA904 is 432.68 A instead of 11.93 A, and both are currents.
    But in no example of any device do all values look GOOD, so commissioning on a running machine finds the order.
    Whoever widens a plausible range sees here what it costs.
    """
    n_tried = n_good = 0
    for profile in (load_device(CONFIG, name) for name in NAMES):
        for example in profile.examples:
            points = [p for p in profile.points if BITS[p.type] == 32 and example.values.get(p.name)]
            good = [good_when_misread(profile, example.words(profile.address_base), p, how) for p in points]
            assert len(points) < 2 or not all(good), f"{profile.model}, {example.title}: nothing shows the wrong order"
            n_tried, n_good = n_tried + len(good), n_good + sum(good)
    assert n_tried >= 40
    assert n_good <= at_most * n_tried
