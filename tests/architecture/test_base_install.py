"""The base install is the gateway's: with its dependencies alone every module of the edge rooms imports and help is shown.

The environment is made from what is installed here, without a network: the closure of hark-edge's own requirements without
extras, linked into an empty folder, and a Python that sees nothing else (-I: no environment, -S: no site-packages).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EDGE_ROOMS = ("firmware_bridge", "agent")
# What extras bring, by the name it is imported by; and what must never come in as somebody's dependency.
NOT_INSTALLED = (
    "onnxruntime", "ai_edge_litert", "tflite_runtime", "starlette", "uvicorn", "amqtt", "sklearn", "onnx", "flatbuffers",
    "optuna", "pyarrow", "deltalake", "dask", "distributed", "pandas", "tensorflow", "torch", "tsfresh", "tsfel", "river",
)  # fmt: skip
NOT_LOADED = ("scipy.signal", "scipy.stats", *NOT_INSTALLED)

SCRIPT = """
import contextlib, importlib, importlib.util, io, json, pkgutil, sys

folder, root, *arguments = sys.argv[1:]
sys.path[:0] = [root, folder]
failed = []
for room in ("firmware_bridge", "agent"):
    package = importlib.import_module(room)
    for found in pkgutil.walk_packages(package.__path__, room + "."):
        try:
            importlib.import_module(found.name)
        except ImportError as error:
            failed.append(f"{found.name}: {error}")
told = {"failed": failed, "rooms": sorted(m for m in sys.modules if m.partition(".")[0] in ("firmware_bridge", "agent"))}
if not failed:
    from agent.__main__ import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        told["code"] = run(arguments)
    told |= {"out": out.getvalue(), "err": err.getvalue()}
told["modules"] = sorted(sys.modules)
told["found"] = [name for name in json.loads(sys.stdin.read()) if importlib.util.find_spec(name)]
print(json.dumps(told))
"""


def closure(name: str) -> dict[str, Distribution]:
    """A distribution and all that it requires, markers evaluated for this very interpreter, none of its extras."""
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()
    waiting = [(name, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in asked:
            continue
        asked.add((name, extra))
        found[name] = distribution(name)
        for line in found[name].requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(wanted.name), one) for one in ("", *wanted.extras)]
    return found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what `pip install hark-edge` would have brought, and nothing else."""
    folder = tmp_path_factory.mktemp("gateway")
    for one in closure("hark-edge").values():
        for file in one.files or ():
            top = file.parts[0]
            if top in ("..", "__pycache__") or top.endswith(".pth") or (folder / top).is_symlink():
                continue
            (folder / top).symlink_to(Path(str(one.locate_file(top))))
    return folder


def in_gateway(folder: Path, *arguments: str, root: Path = ROOT) -> dict[str, Any]:
    """Import everything of the edge rooms there and run `hark` with these arguments."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SCRIPT, str(folder), str(root), *arguments],
        input=json.dumps(NOT_INSTALLED), capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_base_install_is_small_and_known() -> None:
    """Whoever adds a dependency adds it to every gateway."""
    assert set(closure("hark-edge")) >= {"numpy", "scipy", "paho-mqtt", "pymodbus", "sqlite-utils", "msgspec", "typer"}
    extras = {
        "onnxruntime",
        "ai-edge-litert",
        "amqtt",
        "scikit-learn",
        "onnx",
        "pyarrow",
        "deltalake",
        "dask",
        "pandas",
    }
    assert not extras & set(closure("hark-edge"))


def test_every_module_of_the_edge_rooms_imports_with_the_base_install_alone(gateway: Path) -> None:
    """And help is shown, and nothing is loaded that a gateway has no room for."""
    told = in_gateway(gateway, "--help")
    assert told["failed"] == []
    on_disk = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for room in EDGE_ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    assert on_disk <= set(told["rooms"]), "every module was imported"
    assert told["found"] == [], "no optional package can be imported there"
    loaded = [
        name for name in told["modules"] if name in NOT_LOADED or name.startswith(tuple(f"{n}." for n in NOT_LOADED))
    ]
    assert loaded == []
    assert (told["code"], told["err"]) == (0, "")
    assert "  check      Look at a site file" in told["out"]
    assert "  train " in told["out"], "the verbs of every room are shown, although theirs cannot be imported"


def test_without_an_engine_the_site_file_is_checked_all_the_same(gateway: Path) -> None:
    """The first thing that somebody does who forgot the extra."""
    told = in_gateway(gateway, "check", str(ROOT / "config" / "site.example.toml"), "--offline", "--root", str(ROOT))
    assert told["code"] == 2
    assert "ok      site file: 2 machines" in told["out"]
    assert 'pip install "hark-edge[onnx]"' in told["out"]


@pytest.mark.parametrize("planted", ["import pyarrow", "from onnxruntime import InferenceSession"])
def test_an_import_of_an_extra_at_module_level_is_found(gateway: Path, tmp_path: Path, planted: str) -> None:
    """The test above can fail: a copy of the rooms with one wrong line in it does."""
    for room in EDGE_ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "agent" / "decision" / "alarm.py"
    file.write_text(
        file.read_text("utf-8").replace(
            "from __future__ import annotations\n", f"from __future__ import annotations\n{planted}\n"
        )
    )
    told = in_gateway(gateway, "--version", root=tmp_path)
    assert any(line.startswith("agent.decision.alarm: No module named") for line in told["failed"])
