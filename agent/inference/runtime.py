"""Runtime: what scores one vector, and the one place that opens an engine by its name.

An engine is one file in `runtimes/`, imported only when the site names it: a gateway carries one engine, not all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol

from agent.errors import BundleRefused
from agent.inference import runtimes
from agent.vocabulary import F32
from firmware_bridge.registry import module_named

MAX_MODEL_BYTES = 1 << 20  # a bundle of ours is below 120 kB; anything larger is not one of ours


class Scored(NamedTuple):
    """What a model says of one vector.

    Attributes:
        value: the anomaly score, >= 0, the sum of the contributions.
        contributions: shape (n,), each >= 0, exactly 0 for an absent column.
        state: shape (n_state,), what the model remembers; goes in again with the machine's next vector.
    """

    value: float
    contributions: F32
    state: F32


class ModelSizes(NamedTuple):
    """Widths of a model's tensors; `n_state` is 0 for a model without memory."""

    n_columns: int
    n_state: int


class Runtime(Protocol):
    """One loaded model. Not thread-safe: one per machine profile, called by the pipeline's thread alone.

    It keeps nothing between calls: what a model remembers of a machine is the caller's, so one model serves many
    machines, and a replay gives what the live run gave.

    Attributes:
        engine: package and version that does the arithmetic, e.g. "onnxruntime 1.31.1".
    """

    engine: str
    sizes: ModelSizes

    def score(self, z: F32, mask: F32, state: F32 | None = None) -> Scored:
        """The anomaly score of one vector and what every column adds to it.

        Args:
            z: shape (n,), deviations from the machine's baseline in robust standard deviations; 0 where absent.
            mask: shape (n,), 1 where the column is present, else 0. An absent column leaves its state as it was.
            state: of the machine's vector before; None for the first one, where a memory begins empty.
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


def model_sizes(
    file_name: str,
    inputs: Mapping[str, tuple[bool, tuple[int, ...]]],
    outputs: Mapping[str, tuple[bool, tuple[int, ...]]],
) -> ModelSizes:
    """The widths of a loaded model whose tensors are what the agent feeds and reads.

    Args:
        inputs, outputs: name -> whether it is float32, and its shape, as the engine states them.
    Raises: BundleRefused: other names, types or shapes.
    """
    memory = "state" in inputs
    wanted_in, wanted_out = {"z", "mask"}, {"score", "contributions"}
    if memory:
        wanted_in, wanted_out = {*wanted_in, "state"}, {*wanted_out, "next_state"}
    if set(inputs) != wanted_in or set(outputs) != wanted_out:
        raise BundleRefused(
            f"{file_name}: tensors: expected z, mask -> score, contributions (and state -> next_state), got "
            f"{', '.join(inputs)} -> {', '.join(outputs)}; export the bundle again"
        )
    for name, (is_float32, shape) in {**inputs, **outputs}.items():
        if not is_float32 or len(shape) != 2 or shape[0] != 1:
            got = f"{'float32' if is_float32 else 'another type'} {shape}"
            raise BundleRefused(
                f"{file_name}: tensor {name}: expected float32 of shape (1, n), got {got}; export the bundle again"
            )
    return ModelSizes(inputs["z"][1][1], inputs["state"][1][1] if memory else 0)


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
