"""Our source reads a Modbus server that we did not write: libmodbus (C), by TCP and on a serial line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from libmodbus import LibmodbusRtu, LibmodbusTcp

from agent.clock import SystemClock
from firmware_bridge.device import DeviceProfile, Example, load_device
from firmware_bridge.measurement import Block, Quality
from firmware_bridge.registers import plan_reads
from firmware_bridge.source import ModbusSensor, ModbusSpec, SourceContext
from firmware_bridge.sources.modbus import open as open_source

CONFIG = Path(__file__).resolve().parents[2] / "config"
NAMES = sorted(path.stem for path in (CONFIG / "devices").glob("*.toml"))


def held(profile: DeviceProfile, example: Example) -> dict[tuple[int, int], int]:
    """The manual's words under the functions that our plan reads them with; addresses between them hold 0."""
    words = example.words(profile.address_base)
    return {
        (read.function, address): words.get(address, 0)
        for read in plan_reads(profile)
        for address in range(read.address, read.end)
    }


def first_block(name: str, **place: Any) -> Block:
    sensor = ModbusSensor(name="s", device=name, unit_id=1, poll_interval_s=0.1)
    spec = ModbusSpec(name="line", sensors=(sensor,), timeout_s=1.0, **place)
    reader = open_source(spec, SourceContext(CONFIG, "demo", 0, SystemClock()))
    try:
        block = next(iter(reader.read(5.0)))
    finally:
        reader.close()
    assert isinstance(block, Block)
    return block


def assert_as_worked_by_hand(profile: DeviceProfile, example: Example, block: Block) -> None:
    for point, value, quality in zip(profile.points, block.values, block.quality, strict=True):
        assert Quality(int(quality)) == example.expected_quality(point.name), f"{example.title}: {point.name}"
        if point.name in example.values:
            assert value == pytest.approx(example.values[point.name], rel=1e-6, abs=1e-9), point.name
        else:
            assert np.isnan(value)


@pytest.mark.parametrize("name", NAMES)
def test_every_device_s_first_example_is_read_from_it_by_tcp(name: str) -> None:
    """Words from the manual, served by other people's code, read by ours: nothing here can cancel out."""
    profile = load_device(CONFIG, name)
    example = profile.examples[0]
    with LibmodbusTcp(held(profile, example)) as server:
        block = first_block(name, host=server.host, port=server.port)
    assert_as_worked_by_hand(profile, example, block)


@pytest.mark.parametrize("name", ["banner_qm30vt2", "abb_acs580", "eastron_sdm630", "schneider_tesys_tera"])
def test_and_on_a_serial_line(name: str) -> None:
    """RTU frames, checksums and silent intervals as libmodbus understands them."""
    profile = load_device(CONFIG, name)
    example = profile.examples[0]
    with LibmodbusRtu(held(profile, example)) as server:
        block = first_block(name, serial=server.device, baud_rate=115200, parity="none")
    assert_as_worked_by_hand(profile, example, block)
