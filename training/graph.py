"""Graph: a model as a short list of operations on row vectors, and its meaning in plain NumPy.

One description, two writers (`write_onnx.py`, `write_tflite.py`): what both engines can do in their oldest operator
versions, and nothing else. A family that needs a new operation adds it here, in both writers, and in the parity
test's table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# operation -> number of inputs; "dense" is x @ W^T with W of shape (n_out, n_in), "row_sum" keeps the row: (1, n) ->
# (1, 1)
OPERATIONS = {"multiply": 2, "subtract": 2, "dense": 2, "relu": 1, "row_sum": 1}


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: named inputs, one named output."""

    operation: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A model: inputs and outputs by name with the number of columns of each, constants, and nodes in order.

    Attributes:
        inputs, outputs: name -> n_columns; every tensor has shape (1, n_columns).
        constants: name -> float32 array; (n_out, n_in) for a dense layer's weights, (1, n) otherwise.
    """

    name: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    constants: Mapping[str, F32]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        known = {*self.inputs, *self.constants}
        for node in self.nodes:
            assert OPERATIONS[node.operation] == len(node.inputs), node
            assert known.issuperset(node.inputs), node
            known.add(node.output)
        assert known.issuperset(self.outputs)

    def widths(self) -> dict[str, int]:
        """Number of columns of every tensor that is not a dense layer's weights."""
        widths = dict(self.inputs)
        widths |= {name: array.shape[1] for name, array in self.constants.items()}
        for node in self.nodes:
            if node.operation == "dense":
                widths[node.output] = self.constants[node.inputs[1]].shape[0]
            else:
                widths[node.output] = 1 if node.operation == "row_sum" else widths[node.inputs[0]]
        return widths

    def evaluate(self, feeds: Mapping[str, NDArray[np.floating]]) -> dict[str, NDArray[np.float64]]:
        """The outputs in float64: the reference that both engines are compared with."""
        values = {name: np.asarray(array, np.float64) for name, array in {**self.constants, **feeds}.items()}
        for node in self.nodes:
            operands = [values[name] for name in node.inputs]
            values[node.output] = _apply(node.operation, operands)
        return {name: values[name] for name in self.outputs}

    def tensors_sha256(self) -> str:
        """Hash over the constants' names, shapes and bytes: what a rebuild must reproduce."""
        digest = hashlib.sha256()
        for name in sorted(self.constants):
            array = np.ascontiguousarray(self.constants[name], "<f4")
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def _apply(operation: str, operands: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    if operation == "multiply":
        return operands[0] * operands[1]
    if operation == "subtract":
        return operands[0] - operands[1]
    if operation == "dense":
        return np.asarray(operands[0] @ operands[1].T)
    if operation == "relu":
        return np.maximum(operands[0], 0.0)
    return np.asarray(operands[0].sum(axis=1, keepdims=True))


def quadratic_form(name: str, matrix: F32) -> Graph:
    """Score z' M' M z with the contribution of every column, absent columns left out exactly.

    y = M (z * mask); contributions = y * y * mask; score = their sum. M is the symmetric square root of the index
    matrix, so the contributions are the complete decomposition (Alcala and Qin, 2009): never negative, and they sum
    to the score.

    Args:
        matrix: shape (n, n), symmetric.
    """
    n_columns = len(matrix)
    return Graph(
        name=name,
        inputs={"z": n_columns, "mask": n_columns},
        outputs={"score": 1, "contributions": n_columns},
        constants={"matrix": np.ascontiguousarray(matrix, np.float32)},
        nodes=(
            Node("multiply", ("z", "mask"), "present"),
            Node("dense", ("present", "matrix"), "projected"),
            Node("multiply", ("projected", "projected"), "squares"),
            Node("multiply", ("squares", "mask"), "contributions"),
            Node("row_sum", ("contributions",), "score"),
        ),
    )
