"""Runtime: what scores one vector, and the one place that opens an engine by its name.

An engine is one file in `runtimes/`, imported only when the site names it: a gateway carries one engine, not all.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Protocol

from agent.errors import BundleRefused
from agent.inference import runtimes
from agent.vocabulary import F32
from firmware_bridge.registry import module_named

MAX_MODEL_BYTES = 1 << 20  # a bundle of ours is below 100 kB; anything larger is not one of ours


class Runtime(Protocol):
    """One loaded model. Not thread-safe: one per machine profile, called by the pipeline's thread alone.

    Attributes:
        engine: package and version that does the arithmetic, e.g. "onnxruntime 1.31.1".
    """

    engine: str

    def score(self, z: F32, mask: F32) -> tuple[float, F32]:
        """The anomaly score of one vector and what every column adds to it.

        Args:
            z: shape (n,), deviations from the machine's baseline in robust standard deviations; 0 where absent.
            mask: shape (n,), 1 where the column is present, else 0.
        Returns: the score (>= 0) and the contributions, shape (n,), each >= 0, exactly 0 for an absent column.
        """
        ...


def engine_module(kind: str) -> ModuleType:
    """The module of an engine: `FILE_NAME` is the file it reads in a bundle, `open_model(content)` loads it.

    Raises: BundleRefused: no such engine. MissingExtra: its package is not installed (by `open_model`).
    """
    try:
        return module_named(runtimes, kind)
    except LookupError as error:
        raise BundleRefused(f"site file: engine = {kind!r}: {error.args[0]}; name one of these") from None


def open_runtime(kind: str, bundle_dir: Path) -> Runtime:
    """Load the model file that engine `kind` reads from a bundle's folder; `open_bundle` is the checked way in.

    Raises: BundleRefused: unknown engine, file missing, too large, or not readable by the engine.
    MissingExtra: the engine's package is not installed.
    """
    module = engine_module(kind)
    runtime: Runtime = module.open_model(read_limited(Path(bundle_dir) / module.FILE_NAME, MAX_MODEL_BYTES))
    return runtime


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """A regular file's bytes; its size is looked at before anything is read.

    Raises: BundleRefused: missing, not a regular file, empty or larger than `limit_bytes`.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise BundleRefused(f"{path}: is missing or not a regular file; copy the whole bundle folder again")
        size_bytes = path.stat().st_size
        if not 0 < size_bytes <= limit_bytes:
            raise BundleRefused(
                f"{path}: size: expected 1 to {limit_bytes} bytes, got {size_bytes}; copy the bundle again"
            )
        return path.read_bytes()
    except OSError as error:
        raise BundleRefused(f"{path}: cannot be read ({error.strerror}); check the folder's permissions") from None
