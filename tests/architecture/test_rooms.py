"""ARCHITECTURE.md as code: which room may import which, and what the running agent must never load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("firmware_bridge", "agent", "simulator", "training")
BRIDGE_PURE = {
    "checked", "commissioning.plausible", "device", "errors", "frames", "measurement", "registers", "registry", "roots", "units",
    "upstream",
}  # fmt: skip
ALLOWED = {
    "firmware_bridge": {"firmware_bridge"},
    "agent": {"agent", "firmware_bridge"},
    "simulator": {"simulator", "firmware_bridge"},
    "training": {"training", "agent", "firmware_bridge", "simulator"},
}
# The demo is a stage on which the rooms meet: it starts them as separate processes and imports none of the agent's stages.
NEVER_AT_THE_EDGE = ("scipy.signal", "scipy.stats", "sklearn", "pandas", "tensorflow", "torch", "onnx", "pyarrow")


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_stands_on(room: str) -> None:
    """training -> agent -> firmware_bridge <- simulator <- training; never the reverse."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(room)
        for name in sorted(imports(path))
        if name.split(".")[0] in ROOMS and name.split(".")[0] not in ALLOWED[room]
    ]
    assert wrong == []


def test_the_simulator_takes_only_the_pure_parts_of_the_bridge() -> None:
    """A device and its reader meet over the wire; sharing a source would hide a bug in both ends."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("simulator")
        for name in sorted(imports(path))
        if name.startswith("firmware_bridge.")
        and not any(f"{name}.".startswith(f"firmware_bridge.{pure}.") for pure in BRIDGE_PURE)
    ]
    assert wrong == []


def test_pymodbus_is_touched_in_one_module_of_the_bridge() -> None:
    """It changes its interface in minor releases; one adapter carries that."""
    users = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in modules(room)
        if any(name.startswith("pymodbus") for name in imports(path))
    }
    assert users == {"firmware_bridge/modbus_link.py"}


def test_threads_are_started_in_app_alone_and_sources_opened_by_verbs() -> None:
    """A stage knows the words of vocabulary.py, not its neighbours: queues and threads are wired in one file."""

    def users(*names: str) -> set[str]:
        return {str(path.relative_to(ROOT)) for path in modules("agent") if imports(path) & set(names)}

    assert users("agent.deliver.Deliverer") == {"agent/app.py"}
    assert users("agent.store_thread.StoreThread") <= {"agent/app.py", "agent/deliver.py"}
    assert users("firmware_bridge.source.open_source") == {"agent/app.py", "agent/check.py", "agent/commands.py"}


IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
OPTIONAL = {"onnxruntime", "ai_edge_litert", "tflite_runtime"}
failed = []
for room in ("firmware_bridge", "agent"):
    package = importlib.import_module(room)
    for found in pkgutil.walk_packages(package.__path__, room + "."):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in OPTIONAL:
                failed.append(f"{found.name}: {error}")
print(json.dumps({"failed": failed, "modules": sorted(sys.modules)}))
"""


def test_the_edge_rooms_never_load_what_the_gateway_does_not_carry() -> None:
    """scipy.signal alone costs 45 MiB and 0.7 s over scipy.fft: more than the rest of the agent together."""
    answer = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], check=True, capture_output=True, text=True, cwd=ROOT
    )
    seen = json.loads(answer.stdout)
    assert seen["failed"] == []
    loaded = [
        name
        for name in seen["modules"]
        if name.startswith(tuple(f"{bad}." for bad in NEVER_AT_THE_EDGE)) or name in NEVER_AT_THE_EDGE
    ]
    assert loaded == []


def test_nobody_else_owns_our_package_names() -> None:
    """The rooms are top-level packages; another distribution with an `agent` would shadow ours silently."""
    owners = packages_distributions()
    assert {room: set(owners.get(room, ["hark-edge"])) for room in ROOMS} == {room: {"hark-edge"} for room in ROOMS}


def test_every_package_is_listed_for_the_wheel() -> None:
    """Packages are listed by hand in pyproject.toml, so that data folders never slip into the wheel."""
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")
    }
    assert listed == on_disk
