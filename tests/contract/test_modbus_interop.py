"""The simulated devices read by a client that we did not write: mbpoll (Debian, on libmodbus), by TCP and by RTU.

What our own source reads from our own server is right only if both are; here one of them is somebody else's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware_bridge.device import DeviceProfile, Point, load_device
from simulator.modbus_device import Unit
from simulator.modbus_trouble import Garble
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_modbus import Endpoint, ModbusLine, ModbusServer, units_of

CONFIG = Path(__file__).resolve().parents[2] / "config"
NAMES = sorted(path.stem for path in (CONFIG / "devices").glob("*.toml"))
MBPOLL_TABLE = {1: "0", 2: "1", 3: "4", 4: "3"}  # function -> -t
MBPOLL_MAX_VALUES = 125
T_S = 10.0


class Stopped(PlantClock):
    """A plant at one moment: what is printed can be compared with it."""

    def t_s(self) -> float:
        return T_S


@dataclass(frozen=True)
class Mbpoll:
    """mbpoll at one of our endpoints."""

    server: Endpoint
    line: tuple[str, ...]

    def run(self, unit_id: int, *options: object) -> subprocess.CompletedProcess[str]:
        binary = shutil.which("mbpoll")
        if binary is None:
            pytest.fail("this test needs an independent Modbus client: apt-get install mbpoll")
        words = [binary, "-q", "-1", "-0", "-a", unit_id, *self.line[:-1], *options, self.line[-1]]
        return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=20, check=False)

    def values(self, unit_id: int, function: int, address: int, count: int = 1, *how: str, kind: str = "") -> list[str]:
        """What it prints of `count` values in a row; `kind` is :hex, :int or :float."""
        done = self.run(unit_id, "-t", MBPOLL_TABLE[function] + kind, "-r", address, "-c", count, *how)
        assert done.returncode == 0, done.stderr
        return re.findall(r"^\[\d+\]:\s+(\S+)", done.stdout, re.MULTILINE)

    def error(self, unit_id: int, *options: object) -> str:
        """What it says of a request that failed."""
        done = self.run(unit_id, *options)
        assert done.returncode != 0, done.stdout
        return done.stderr.strip().rpartition(": ")[2]


@pytest.fixture(params=["tcp", "serial"])
def wire(request: pytest.FixtureRequest) -> Iterator[tuple[ExitStack, str]]:
    with ExitStack() as stack:
        yield stack, request.param


def mbpoll_at(wire: tuple[ExitStack, str], units: dict[int, Unit]) -> Mbpoll:
    stack, kind = wire
    if kind == "tcp":
        server = stack.enter_context(ModbusServer(units))
        return Mbpoll(server, ("-p", str(server.port), server.host))
    line = stack.enter_context(ModbusLine(units))
    return Mbpoll(line, ("-m", "rtu", "-b", "19200", "-P", "even", line.device))


@pytest.fixture
def plant() -> Plant:
    return Plant(load_scenario("demo"))


@pytest.fixture
def mbpoll(wire: tuple[ExitStack, str], plant: Plant) -> Mbpoll:
    """At the five devices of the demo's set b: vibration sensor, drive, meter and two pressure transmitters."""
    return mbpoll_at(wire, units_of(plant, "b", Stopped(), CONFIG))


def printed(mbpoll: Mbpoll, unit_id: int, profile: DeviceProfile, point: Point) -> float:
    """One point as mbpoll itself decodes it, in the point's unit."""
    kind = {"float32": ":float", "int32": ":int"}.get(point.type, "")
    order = ("-B",) if profile.order_of(point) == "ABCD" and kind else ()
    (text,) = mbpoll.values(unit_id, profile.function_of(point), profile.wire_address(point), 1, *order, kind=kind)
    return float(text) * point.scale + point.offset


def test_every_value_that_mbpoll_prints_is_the_plant_s(mbpoll: Mbpoll, plant: Plant) -> None:
    """Floats and 32-bit integers in the device's own word order, and 16-bit registers, from input and holding registers."""
    n_values = 0
    for spec in plant.sets["b"].devices:
        profile = load_device(CONFIG, spec.device)
        shown = plant.scalars("b", T_S)[spec.name]
        for point in profile.points:
            step = 1e-9 if point.type == "float32" else 0.5 * abs(point.scale)
            value = printed(mbpoll, spec.unit_id, profile, point)
            assert value == pytest.approx(shown[point.name], abs=step, rel=6e-6), f"{spec.name} {point.name}"
            n_values += 1
    assert n_values == 17 + 6 + 12 + 2 + 2
    assert mbpoll.server.ledger.answered == n_values


def test_mbpoll_reads_the_words_that_were_worked_by_hand_from_every_manual(wire: tuple[ExitStack, str]) -> None:
    """All device files behind one endpoint: words on paper, through our codec, server and a foreign client, and the same."""
    profiles = {unit_id: load_device(CONFIG, name) for unit_id, name in enumerate(NAMES, 1)}
    examples = {u: next(e for e in profile.examples if not e.quality) for u, profile in profiles.items()}
    units = {u: Unit(profile, lambda u=u: examples[u].values) for u, profile in profiles.items()}  # type: ignore[misc]
    mbpoll = mbpoll_at(wire, units)
    for unit_id, profile in profiles.items():
        by_hand, named = examples[unit_id].words(profile.address_base), named_bits(profile)
        for function, address, count in runs(named):
            got = mbpoll.values(unit_id, function, address, count, kind=":hex" if function >= 3 else "")
            for at, text in enumerate(got, address):
                mask = named[function, at]
                assert int(text, 0) & mask == by_hand[at] & mask, (
                    f"{profile.model}: address {at} of function {function}"
                )
            assert len(got) == count


def named_bits(profile: DeviceProfile) -> dict[tuple[int, int], int]:
    """(function, wire address) -> the bits that belong to some point; the rest of such a register is nobody's."""
    found: dict[tuple[int, int], int] = {}
    for point in profile.points:
        bits = ((1 << point.bits[1]) - 1) << point.bits[0] if point.bits and point.n_words == 1 else 0xFFFF
        for span in profile.spans_of(point):
            for address in range(span.address, span.end):
                found[span.function, address] = found.get((span.function, address), 0) | bits
    return found


def runs(places: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(function, address, count) of what stands in a row, for one request each."""
    found: list[tuple[int, int, int]] = []
    for function, address in sorted(places):
        if found and found[-1][0] == function and sum(found[-1][1:]) == address and found[-1][2] < MBPOLL_MAX_VALUES:
            found[-1] = (function, found[-1][1], found[-1][2] + 1)
        else:
            found.append((function, address, 1))
    return found


@pytest.mark.parametrize("function", [1, 2])
def test_coils_and_discrete_inputs_arrive_in_their_places(wire: tuple[ExitStack, str], function: int) -> None:
    """Bits are packed into bytes from any first coil: one place too far, and a pump runs that does not."""
    points = tuple(
        Point(name=f"c{i}_ratio", address=i, type="bit", function=function, plausible=(0.0, 1.5))  # type: ignore[arg-type]
        for i in range(20)
    )
    profile = DeviceProfile(
        vendor="Acme", model="X1", title="Relay", source="none", sees="all", update_interval_s=1.0, points=points
    )
    states = [float(i in (0, 2, 9, 11, 12, 19)) for i in range(20)]
    mbpoll = mbpoll_at(wire, {9: Unit(profile, lambda: dict(zip((p.name for p in points), states, strict=True)))})
    for first in (0, 3, 8):
        assert [float(text) for text in mbpoll.values(9, function, first, 20 - first)] == states[first:]


def test_mbpoll_names_every_exception_as_the_specification_does(mbpoll: Mbpoll) -> None:
    """Our reader acts on these one by one, so they must be the codes that others know by these names."""
    trouble = mbpoll.server.trouble
    speed = ("-t", "4:int", "-r", 20201)
    for code, name in (
        (1, "Illegal function"),
        (2, "Illegal data address"),
        (3, "Illegal data value"),
        (4, "Slave device or server failure"),
        (5, "Acknowledge"),
        (6, "Slave device or server is busy"),
        (8, "Memory parity error"),
        (10, "Gateway path unavailable"),
        (11, "Target device failed to respond"),
    ):
        trouble.exception[2] = code
        assert mbpoll.error(2, *speed) == name
    trouble.exception.clear()
    assert mbpoll.error(2, "-t", "4:int", "-r", 20203) == "Illegal data address", "no such parameter"
    trouble.max_count[3] = 80
    assert mbpoll.error(3, "-t", "3", "-r", 0, "-c", 81) == "Illegal data value"
    trouble.busy[2] = 1
    assert mbpoll.error(2, *speed) == "Slave device or server is busy"
    assert mbpoll.values(2, 3, 20201, kind=":int") != []


def test_nothing_can_be_written(mbpoll: Mbpoll) -> None:
    """Not by function 5, 6, 15 or 16: a simulated drive is no place to try that either."""
    for table, values in (("0", [1]), ("0", [1, 0]), ("4", [7]), ("4", [7, 8])):
        done = mbpoll.run(2, "-t", table, "-r", 20201)
        binary, *words = done.args
        written = subprocess.run([binary, *words, *map(str, values)], capture_output=True, text=True, check=False)
        assert "Illegal function" in written.stderr
    assert {5, 6, 15, 16} <= set(mbpoll.server.ledger.functions)


@pytest.mark.parametrize(
    ("how", "said"),
    [("wrong_function", "Invalid data"), ("short", "Invalid data"), ("truncated", "Connection timed out")],
)
def test_mbpoll_refuses_what_is_garbled(mbpoll: Mbpoll, how: Garble, said: str) -> None:
    """The garbling is what it says it is: a client that checks its answers finds each of them."""
    mbpoll.server.trouble.garble[3] = how
    assert mbpoll.error(3, "-t", "3:float", "-r", 0, "-c", 3, "-o", "0.2") == said
    assert mbpoll.values(2, 3, 20201, kind=":int") != [], "the next device of the line is as it was"


def test_who_does_not_answer_and_who_answers_for_another(mbpoll: Mbpoll) -> None:
    """A dead unit, an absent one, an answer under another's name, and on a serial line one with a broken check sum.

    By TCP libmodbus compares the transaction, on a line the unit; neither of them the other.
    """
    tcp = isinstance(mbpoll.server, ModbusServer)
    mbpoll.server.trouble.silent.add(1)
    mbpoll.server.trouble.late_as[2] = (3, 1)
    quick = ("-o", "0.2")
    assert mbpoll.error(1, "-t", "4", "-r", 5201, *quick) == "Connection timed out"
    absent, disguised = (
        mbpoll.error(77, "-t", "4", "-r", 0, *quick),
        mbpoll.error(2, "-t", "4:int", "-r", 20201, *quick),
    )
    assert absent == ("Target device failed to respond" if tcp else "Connection timed out")
    assert disguised == ("Invalid data" if tcp else "Response not from requested slave")
    if not tcp:
        mbpoll.server.trouble.garble[3] = "wrong_crc"
        assert mbpoll.error(3, "-t", "3:float", "-r", 0, *quick) == "Invalid CRC"
