"""Nothing that writes can leave: shown on the code itself. What really left is shown by tests/fault/test_modbus_line.py."""

from __future__ import annotations

import ast
import contextlib
import itertools
import struct
from pathlib import Path

import pytest

from firmware_bridge.device import Span
from firmware_bridge.modbus_link import Link as ReadingLink
from firmware_bridge.modbus_link import Mbap, NoAnswer, Refused, Rtu, _guard

ROOT = Path(__file__).resolve().parents[2]
LINK = ROOT / "firmware_bridge" / "modbus_link.py"
FROM_PYMODBUS = {"DecodePDU", "DeviceInformation", "FramerRTU", "FramerSocket", "ReadDeviceInformationRequest"}
READING = {1, 2, 3, 4}


def code(room: str) -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text("utf-8"))) for path in sorted((ROOT / room).rglob("*.py"))]


def calls(tree: ast.AST, method: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    ]


def test_no_request_of_pymodbus_but_the_identification_is_imported() -> None:
    """Its package has a class for every writing function; none of them has a name here."""
    found = {
        alias.name
        for room in ("firmware_bridge", "agent", "simulator", "training")
        for _, tree in code(room)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pymodbus")
        for alias in node.names
    }
    assert found <= FROM_PYMODBUS


def test_one_line_sends_and_the_gate_stands_before_it() -> None:
    """Every byte to a device passes `_transact`, and `_guard` is asked there first."""
    tree = ast.parse(LINK.read_text("utf-8"))
    sends = [call for call in calls(tree, "send") if ast.unparse(call.func) == "self._stream.send"]
    assert len(sends) == 1
    function = next(f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "_transact")
    gates = [node for node in ast.walk(function) if isinstance(node, ast.Call) and ast.unparse(node.func) == "_guard"]
    assert function.lineno < gates[0].lineno < sends[0].lineno <= (function.end_lineno or 0)
    assert not [n for n in ast.walk(function) if isinstance(n, ast.If) and n.lineno < gates[0].lineno], (
        "no way around it"
    )
    users = {f.name for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and calls(f, "_transact")}
    assert users == {"ask", "_identify_part"}


def test_nobody_else_in_the_bridge_opens_a_socket_or_a_port() -> None:
    """paho has its own; whoever talks Modbus does it through the link."""
    openers = {
        path.name
        for path, tree in code("firmware_bridge")
        for method in ("create_connection", "Serial", "sendall")
        if calls(tree, method)
    }
    assert openers <= {"modbus_link.py", "scan.py"}, "the scanner only looks whether a port is open"
    senders = {path.name for path, tree in code("firmware_bridge") if calls(tree, "sendall")}
    assert senders == {"modbus_link.py"}


def test_only_commissioning_asks_who_a_device_is() -> None:
    """Function 43/14 belongs to `hark scan`; the running agent sends 1 to 4."""
    users = {
        str(path.relative_to(ROOT))
        for room in ("firmware_bridge", "agent")
        for path, tree in code(room)
        if calls(tree, "identify")
    }
    assert users <= {"firmware_bridge/commissioning/scan.py"}


def test_the_gate_lets_the_four_reading_functions_through_and_no_other() -> None:
    """All 256 of them, with any sub-function behind."""
    passed = set()
    for function, rest in itertools.product(range(256), (b"\x00\x00\x00\x01", b"\x0e\x01\x00", b"\x0d\x00\x00\x01")):
        with contextlib.suppress(PermissionError):
            _guard(1, bytes([function]) + rest)
            passed.add((function, rest[0] if function == 0x2B else None))
    assert passed == {(1, None), (2, None), (3, None), (4, None), (0x2B, 0x0E)}


@pytest.mark.parametrize("framing", [Mbap, Rtu])
def test_what_leaves_begins_with_a_reading_function_whatever_is_asked(framing: type) -> None:
    """The bytes themselves, for every span that a device file can bring about."""
    sent: list[bytes] = []

    class Wire:
        def send(self, data: bytes) -> None:
            sent.append(data)

        def receive(self, timeout_s: float) -> bytes:
            if sent:
                raise ConnectionError("nobody")
            return b""

        def close(self) -> None:
            sent.append(b"")

    for function in range(-3, 300):
        link = ReadingLink(Wire, framing())
        link.connect()
        sent.clear()
        with contextlib.suppress(NoAnswer, Refused, PermissionError, struct.error):
            link.ask(1, Span(function, 0, 1), 0.01)
        frames = [frame for frame in sent if frame]
        assert all(frame[7 if framing is Mbap else 1] in READING for frame in frames)
        assert bool(frames) == (function in READING)
