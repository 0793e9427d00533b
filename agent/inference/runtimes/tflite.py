"""LiteRT as an engine (`ai-edge-litert`), and its ancestor `tflite-runtime` 2.14 where only that is installed.

Both have the same class, the same methods and read the same file; LiteRT is the maintained one and goes first.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.errors import BundleRefused
from agent.inference.runtime import Runtime, Scored, model_sizes
from agent.vocabulary import F32
from firmware_bridge.errors import HarkError, MissingExtra

FILE_NAME = "model.tflite"
# module -> distribution, in order of preference
PACKAGES = {"ai_edge_litert.interpreter": "ai-edge-litert", "tflite_runtime.interpreter": "tflite-runtime"}


class EngineMismatchError(HarkError):
    """The engine's package and NumPy do not fit each other; a model file cannot be judged with it."""

    exit_code = 2


class TfliteRuntime:
    """One model in LiteRT or tflite-runtime, one thread.

    `set_tensor`, `invoke`, `get_tensor` is the quickest way through (3 µs against 9 for the signature runner), and
    `get_tensor` copies, so nothing of the interpreter's memory outlives the call. The built-in kernels without the
    XNNPACK delegate cost a microsecond more, and write no line to stderr for every model that is opened.
    """

    def __init__(self, content: bytes, module: Any, engine: str) -> None:
        self.engine = engine
        kernels = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._interpreter = module.Interpreter(
            model_content=content, num_threads=1, experimental_op_resolver_type=kernels
        )
        self._interpreter.allocate_tensors()
        inputs = {str(item["name"]): item for item in self._interpreter.get_input_details()}
        outputs = {str(item["name"]): item for item in self._interpreter.get_output_details()}
        self.sizes = model_sizes(FILE_NAME, _described(inputs), _described(outputs))
        self._index = {name: int(item["index"]) for name, item in (inputs | outputs).items()}

    def score(self, z: F32, mask: F32, state: F32 | None = None) -> Scored:
        """See `Runtime.score`."""
        interpreter, index = self._interpreter, self._index
        n_columns, n_state = self.sizes
        remembered = np.zeros(n_state, np.float32) if state is None else state
        interpreter.set_tensor(index["z"], z.reshape(1, n_columns))
        interpreter.set_tensor(index["mask"], mask.reshape(1, n_columns))
        if n_state:
            interpreter.set_tensor(index["state"], remembered.reshape(1, n_state))
        interpreter.invoke()
        if n_state:
            remembered = np.asarray(interpreter.get_tensor(index["next_state"])[0], np.float32)
        contributions = np.asarray(interpreter.get_tensor(index["contributions"])[0], np.float32)
        return Scored(float(interpreter.get_tensor(index["score"])[0, 0]), contributions, remembered)


def _described(details: Mapping[str, Any]) -> dict[str, tuple[bool, tuple[int, ...]]]:
    """Whether each tensor is float32, and its shape."""
    return {
        name: (item["dtype"] is np.float32, tuple(int(size) for size in item["shape"]))
        for name, item in details.items()
    }


def find_interpreter() -> tuple[Any, str]:
    """The module that holds the interpreter, and the package and version it comes from.

    Raises: MissingExtra: neither package is installed. EngineMismatchError: tflite-runtime beside NumPy 2.
    """
    for module_name, package in PACKAGES.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        if package == "tflite-runtime":
            refuse_numpy_2(np.__version__)
        return module, f"{package} {importlib.metadata.version(package)}"
    raise MissingExtra('engine = "tflite"', "ai-edge-litert", "tflite")


def refuse_numpy_2(numpy_version: str) -> None:
    """Say it first: under NumPy 2 tflite-runtime imports, and only fails when a model is opened, in three odd steps.

    Raises: EngineMismatchError: NumPy 2 or newer.
    """
    if int(numpy_version.split(".", maxsplit=1)[0]) >= 2:
        raise EngineMismatchError(
            f"tflite-runtime was built for NumPy 1 and cannot run with NumPy {numpy_version}: "
            'pip install "hark-edge[tflite]" (the maintained engine), or pip install "numpy<2"'
        )


def open_model(content: bytes) -> Runtime:
    """Load a model from the bytes of its file.

    Raises: MissingExtra: no engine package is installed. EngineMismatchError: tflite-runtime beside NumPy 2.
    BundleRefused: not a model that the engine can load.
    """
    module, engine = find_interpreter()
    if content[4:8] != b"TFL3":
        raise BundleRefused(
            f"{FILE_NAME}: file identifier: expected TFL3, got {content[4:8]!r}; export the bundle again"
        )
    try:
        return TfliteRuntime(content, module, engine)
    except (RuntimeError, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BundleRefused(f"{FILE_NAME}: {engine} cannot load it ({first_line}); export the bundle again") from None
