"""Graph -> TFLite bytes, float32 operators of version 1 only: what `tflite-runtime` of 2023 and LiteRT of today read.

Facts that the format does not tell by itself: buffer 0 must be empty; both `deprecatedBuiltinCode` and `builtinCode`
must be set; a dense layer's weights are (n_out, n_in); a reduction's axis is an int32 constant; named inputs need a
SignatureDef.
"""

from __future__ import annotations

from collections.abc import Mapping

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from training.graph import Graph, Node

FILE_IDENTIFIER = b"TFL3"
BUILTIN = schema.BuiltinOperator
# operation -> (operator code, options union member, options class); RELU has no options
OPERATORS = {
    "multiply": (BUILTIN.MUL, schema.BuiltinOptions.MulOptions, schema.MulOptionsT),
    "add": (BUILTIN.ADD, schema.BuiltinOptions.AddOptions, schema.AddOptionsT),
    "subtract": (BUILTIN.SUB, schema.BuiltinOptions.SubOptions, schema.SubOptionsT),
    "minimum": (BUILTIN.MINIMUM, schema.BuiltinOptions.MaximumMinimumOptions, schema.MaximumMinimumOptionsT),
    "maximum": (BUILTIN.MAXIMUM, schema.BuiltinOptions.MaximumMinimumOptions, schema.MaximumMinimumOptionsT),
    "dense": (BUILTIN.FULLY_CONNECTED, schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT),
    "relu": (BUILTIN.RELU, schema.BuiltinOptions.NONE, None),
    "row_sum": (BUILTIN.SUM, schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT),
}


class _Body:
    """Tensors and buffers of the one subgraph while it is being written; a tensor is known by its name."""

    def __init__(self) -> None:
        self.buffers = [_buffer(None)]
        self.tensors: list[schema.TensorT] = []
        self.index: dict[str, int] = {}

    def add(self, name: str, shape: tuple[int, ...], content: NDArray[np.generic] | None = None) -> int:
        """A new tensor, constant when it has content; its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), list(shape)
        is_int = content is not None and content.dtype == np.int32
        tensor.type = schema.TensorType.INT32 if is_int else schema.TensorType.FLOAT32
        tensor.buffer = 0
        if content is not None:
            tensor.buffer = len(self.buffers)
            self.buffers.append(_buffer(np.ascontiguousarray(content).tobytes()))
        self.index[name] = len(self.tensors)
        self.tensors.append(tensor)
        return self.index[name]


def to_tflite(graph: Graph) -> bytes:
    """The graph as a TFLite model; the same graph gives the same bytes."""
    body = _Body()
    widths = graph.widths()
    for name, width in graph.inputs.items():
        body.add(name, (1, width))
    for name, array in sorted(graph.constants.items()):
        body.add(name, array.shape, array)
    if any(node.operation == "row_sum" for node in graph.nodes):
        body.add("axis", (1,), np.array([1], np.int32))
    for node in graph.nodes:
        body.add(node.output, (1, widths[node.output]))
    operations = list(dict.fromkeys(node.operation for node in graph.nodes))
    subgraph = schema.SubGraphT()
    subgraph.name, subgraph.tensors = b"main", body.tensors
    subgraph.inputs = [body.index[name] for name in graph.inputs]
    subgraph.outputs = [body.index[name] for name in graph.outputs]
    subgraph.operators = [_operator(node, operations.index(node.operation), body.index) for node in graph.nodes]
    return _packed(graph, body, subgraph, operations)


def _packed(graph: Graph, body: _Body, subgraph: schema.SubGraphT, operations: list[str]) -> bytes:
    model = schema.ModelT()
    model.version, model.description = 3, graph.name.encode()
    model.operatorCodes = [_operator_code(OPERATORS[operation][0]) for operation in operations]
    model.subgraphs, model.buffers = [subgraph], body.buffers
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = _tensor_maps(graph.inputs, body.index)
    signature.outputs = _tensor_maps(graph.outputs, body.index)
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


def _buffer(content: bytes | None) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = None if content is None else np.frombuffer(content, np.uint8)
    return buffer


def _operator(node: Node, opcode_index: int, index: Mapping[str, int]) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex = opcode_index
    operator.inputs = [index[name] for name in node.inputs]
    if node.operation == "row_sum":
        operator.inputs.append(index["axis"])
    if node.operation == "dense":
        operator.inputs.append(-1)  # no bias
    operator.outputs = [index[node.output]]
    _, operator.builtinOptionsType, options = OPERATORS[node.operation]
    if options is not None:
        operator.builtinOptions = options()
        if node.operation == "row_sum":
            operator.builtinOptions.keepDims = True
    return operator


def _operator_code(code: int) -> schema.OperatorCodeT:
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
    operator_code.version = 1
    return operator_code


def _tensor_maps(names: Mapping[str, int], index: Mapping[str, int]) -> list[schema.TensorMapT]:
    maps = []
    for name in names:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index[name]
        maps.append(entry)
    return maps
