"""Graph -> ONNX bytes, opset 17 and IR version 9 pinned: what runtimes since 2022 read.

Left to itself, `onnx` writes its newest IR version, which even the newest onnxruntime may refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from training.graph import Graph

OPSET, IR_VERSION = 17, 9
OPERATORS = {
    "multiply": "Mul",
    "add": "Add",
    "subtract": "Sub",
    "minimum": "Min",
    "maximum": "Max",
    "dense": "Gemm",
    "relu": "Relu",
    "row_sum": "ReduceSum",
}


def to_onnx(graph: Graph) -> bytes:
    """The graph as an ONNX model; the same graph gives the same bytes."""
    constants = [numpy_helper.from_array(array, name) for name, array in sorted(graph.constants.items())]
    if any(node.operation == "row_sum" for node in graph.nodes):
        constants.append(helper.make_tensor("axis", TensorProto.INT64, [1], [1]))
    nodes = []
    for node in graph.nodes:
        inputs = [*node.inputs, "axis"] if node.operation == "row_sum" else [*node.inputs]
        attributes: dict[str, Any] = {"dense": {"transB": 1}, "row_sum": {"keepdims": 1}}.get(node.operation, {})
        nodes.append(helper.make_node(OPERATORS[node.operation], inputs, [node.output], name=node.output, **attributes))
    body = helper.make_graph(nodes, graph.name, _values(graph.inputs), _values(graph.outputs), constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hark")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _values(widths: Mapping[str, int]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]) for name, width in widths.items()]
