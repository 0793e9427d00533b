"""ONNX Runtime as an engine: one thread, no spinning, no arena."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.errors import BundleRefused
from agent.inference.runtime import Runtime, Scored, model_sizes
from agent.vocabulary import F32
from firmware_bridge.errors import MissingExtra

FILE_NAME = "model.onnx"


class OnnxRuntime:
    """One model in ONNX Runtime.

    One thread is a requirement, not a tuning: the default pool spins between calls and burns 11 ms of CPU per score
    where one thread needs 0.4. The arena is off so that resident memory stays flat over months. In a graph of a few
    operators there is nothing to optimise: the scores are the same bits as quickly, and 0.4 MiB of code is never touched.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.engine = f"onnxruntime {onnxruntime.__version__}"
        inputs = {item.name: _described(item) for item in self._session.get_inputs()}
        outputs = {item.name: _described(item) for item in self._session.get_outputs()}
        self.sizes = model_sizes(FILE_NAME, inputs, outputs)
        self._outputs = ["score", "contributions"] + ["next_state"] * (self.sizes.n_state > 0)

    def score(self, z: F32, mask: F32, state: F32 | None = None) -> Scored:
        """See `Runtime.score`."""
        n_columns, n_state = self.sizes
        feeds = {"z": z.reshape(1, n_columns), "mask": mask.reshape(1, n_columns)}
        remembered = np.zeros(n_state, np.float32) if state is None else state
        if n_state:
            feeds["state"] = remembered.reshape(1, n_state)
        score, contributions, *memory = self._session.run(self._outputs, feeds)
        after = np.asarray(memory[0][0], np.float32) if memory else remembered
        return Scored(float(score[0, 0]), np.asarray(contributions[0], np.float32), after)


def _described(item: Any) -> tuple[bool, tuple[int, ...]]:
    """Whether a tensor is float32, and its shape; a dimension without a number counts as 0."""
    shape = tuple(size if isinstance(size, int) else 0 for size in item.shape)
    return item.type == "tensor(float)", shape


def open_model(content: bytes) -> Runtime:
    """Load a model from the bytes of its file.

    Raises: MissingExtra: onnxruntime is not installed. BundleRefused: not a model that onnxruntime can load.
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingExtra('engine = "onnx"', "onnxruntime", "onnx") from None
    try:
        return OnnxRuntime(content)
    except BundleRefused:
        raise
    except Exception as error:  # the engine's own exceptions have no common base and no promise
        first_line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BundleRefused(
            f"{FILE_NAME}: onnxruntime cannot load it ({first_line}); export the bundle again"
        ) from None
