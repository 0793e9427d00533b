"""What one device says now, as rows for a person: refused registers, implausible values, both ways to count addresses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.commissioning.live import good, read_around, read_map, rows, shown
from firmware_bridge.commissioning.remap import reordered
from firmware_bridge.device import DeviceProfile, Span, load_device
from firmware_bridge.modbus_link import NoAnswer, Refused
from firmware_bridge.registers import encode

CONFIG = Path(__file__).resolve().parents[2] / "config"


class Registers:
    """A device that holds these words, refuses reads of others, and may be silent above an address."""

    def __init__(self, words: dict[tuple[int, int], int], silent_from: int = 1 << 16) -> None:
        self.words = words
        self.silent_from = silent_from
        self.asked: list[Span] = []

    def ask(self, span: Span) -> np.ndarray:
        self.asked.append(span)
        if span.end > self.silent_from:
            raise NoAnswer("no answer within 1 s")
        if any((span.function, address) not in self.words for address in range(span.address, span.end)):
            raise Refused(2)
        return np.array([self.words[span.function, a] for a in range(span.address, span.end)], np.uint16)


@pytest.fixture(scope="module")
def drive() -> DeviceProfile:
    return load_device(CONFIG, "abb_acs580")


def held(profile: DeviceProfile) -> dict[tuple[int, int], int]:
    return encode(profile, profile.examples[0].values)


def test_a_row_has_both_addresses_the_words_as_sent_and_the_value(drive: DeviceProfile) -> None:
    """Register 20202 of the manual is 20201 on the wire; the panel shows 1460.5 rpm."""
    row = rows(drive, read_map(Registers(held(drive)).ask, drive))[0]
    assert (row.point, row.function, row.address, row.wire_address) == ("shaft_speed_rpm", 3, 20202, 20201)
    assert (row.raw, shown(row), row.quality) == ("3A82 0002", "1460.5 rpm", "GOOD")


def test_an_absurd_value_is_shown_with_its_quality(drive: DeviceProfile) -> None:
    """An empty field would hide the very thing that is looked for."""
    found = rows(reordered(drive, 1), held(drive))
    assert not good(found)
    assert {row.quality for row in found} == {"BAD_RANGE"}
    assert all(math.isfinite(row.value) and abs(row.value) > 1e5 for row in found)


def test_one_missing_register_costs_one_value(drive: DeviceProfile) -> None:
    """A block that is refused is read value by value: an option card that is not there must not hide the rest."""
    words = held(drive)
    del words[3, 20213]
    device = Registers(words)
    found = {row.point: row for row in rows(drive, read_map(device.ask, drive))}
    assert found["motor_current_a"].quality == "BAD_COMM"
    assert shown(found["motor_current_a"]) == ""
    assert [row.quality for row in found.values()].count("GOOD") == 5


def test_the_neighbours_are_asked_too_and_may_be_silent(drive: DeviceProfile) -> None:
    """A map that is off by one shows itself there; a device that ignores unknown addresses is still read."""
    words = held(drive) | {(3, 20200): 7}
    device = Registers(words, silent_from=max(address for _, address in words) + 1)
    sample = read_around(device.ask, drive)
    assert sample == words
    with pytest.raises(NoAnswer):
        read_around(Registers(words, silent_from=0).ask, drive)
