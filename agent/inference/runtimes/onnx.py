"""ONNX Runtime as an engine: one thread, no spinning, no arena."""

from __future__ import annotations

import numpy as np

from agent.errors import BundleRefused
from agent.inference.runtime import Runtime
from agent.vocabulary import F32
from firmware_bridge.errors import MissingExtra

FILE_NAME = "model.onnx"


class OnnxRuntime:
    """One model in ONNX Runtime.

    One thread is a requirement, not a tuning: the default pool spins between calls and burns 11 ms of CPU per score
    where one thread needs 0.4. The arena is off so that resident memory stays flat over months. In a graph of four
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
        inputs = {item.name: (item.type, item.shape) for item in self._session.get_inputs()}
        outputs = [item.name for item in self._session.get_outputs()]
        if set(inputs) != {"z", "mask"} or set(outputs) != {"score", "contributions"}:
            got = f"{[*inputs]} -> {outputs}"
            raise BundleRefused(
                f"{FILE_NAME}: tensors: expected z, mask -> score, contributions, got {got}; export it again"
            )
        if any(kind != "tensor(float)" or len(shape) != 2 or shape[0] != 1 for kind, shape in inputs.values()):
            raise BundleRefused(
                f"{FILE_NAME}: inputs: expected float32 of shape (1, n), got {inputs}; export the bundle again"
            )
        self._n_columns = int(inputs["z"][1][1])

    def score(self, z: F32, mask: F32) -> tuple[float, F32]:
        """See `Runtime.score`."""
        feeds = {"z": z.reshape(1, self._n_columns), "mask": mask.reshape(1, self._n_columns)}
        score, contributions = self._session.run(["score", "contributions"], feeds)
        return float(score[0, 0]), np.asarray(contributions[0], np.float32)


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
