"""LiteRT as an engine (`ai-edge-litert`), and its ancestor `tflite-runtime` 2.14 where only that is installed.

Both have the same class, the same methods and read the same file; LiteRT is the maintained one and goes first.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import numpy as np

from agent.errors import BundleRefused
from agent.inference.runtime import Runtime
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
        if set(inputs) != {"z", "mask"} or set(outputs) != {"score", "contributions"}:
            got = f"{[*inputs]} -> {[*outputs]}"
            raise BundleRefused(
                f"{FILE_NAME}: tensors: expected z, mask -> score, contributions, got {got}; export it again"
            )
        for name, item in (inputs | outputs).items():
            shape = tuple(int(size) for size in item["shape"])
            if item["dtype"] is not np.float32 or len(shape) != 2 or shape[0] != 1:
                got = f"{np.dtype(item['dtype']).name} {shape}"
                raise BundleRefused(
                    f"{FILE_NAME}: tensor {name}: expected float32 of shape (1, n), got {got}; export the bundle again"
                )
        self._z, self._mask = int(inputs["z"]["index"]), int(inputs["mask"]["index"])
        self._score, self._contributions = int(outputs["score"]["index"]), int(outputs["contributions"]["index"])
        self._n_columns = int(inputs["z"]["shape"][1])

    def score(self, z: F32, mask: F32) -> tuple[float, F32]:
        """See `Runtime.score`."""
        interpreter = self._interpreter
        interpreter.set_tensor(self._z, z.reshape(1, self._n_columns))
        interpreter.set_tensor(self._mask, mask.reshape(1, self._n_columns))
        interpreter.invoke()
        contributions = interpreter.get_tensor(self._contributions)[0]
        return float(interpreter.get_tensor(self._score)[0, 0]), np.asarray(contributions, np.float32)


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
