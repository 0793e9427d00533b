"""Graph: a model as a short list of operations on row vectors, and its meaning in plain NumPy.

One description, two writers (`write_onnx.py`, `write_tflite.py`): what both engines can do in their oldest operator
versions, and nothing else. A family that needs a new operation adds it here and in both writers; the parity test runs
every operation of the table.

A model with a memory (averages, cumulative sums) has one more input, `state`, and one more output, `next_state`, of the
same width: the caller carries it from one window to the next, and a sequence begins with zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# operation -> number of inputs; "dense" is x @ W^T with W of shape (n_out, n_in), "row_sum" keeps the row: (1, n) ->
# (1, 1)
OPERATIONS = {
    "multiply": 2,
    "add": 2,
    "subtract": 2,
    "minimum": 2,
    "maximum": 2,
    "dense": 2,
    "relu": 1,
    "row_sum": 1,
}
ELEMENTWISE = {
    "multiply": np.multiply,
    "add": np.add,
    "subtract": np.subtract,
    "minimum": np.minimum,
    "maximum": np.maximum,
}


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

    @property
    def n_state(self) -> int:
        """Number of values that the model remembers; 0 for a model without memory."""
        return self.inputs.get("state", 0)

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

    def evaluate(self, feeds: Mapping[str, NDArray[np.floating]]) -> dict[str, F64]:
        """The outputs in float64: the reference that both engines are compared with. Each row is on its own."""
        values = {name: np.asarray(array, np.float64) for name, array in {**self.constants, **feeds}.items()}
        for node in self.nodes:
            operands = [values[name] for name in node.inputs]
            values[node.output] = _apply(node.operation, operands)
        return {name: values[name] for name in self.outputs}

    def step(self, z: NDArray[np.floating], mask: NDArray[np.floating], state: NDArray[np.floating]) -> dict[str, F64]:
        """One window of each of many sequences: as `evaluate`, and `next_state` whether the model has a memory or not.

        Args:
            z, mask: shape (n_sequences, n_columns). state: shape (n_sequences, n_state), from the step before.
        """
        if not self.n_state:
            return self.evaluate({"z": z, "mask": mask}) | {"next_state": np.zeros((len(z), 0))}
        return self.evaluate({"z": z, "mask": mask, "state": state})

    def run(self, z: NDArray[np.floating], mask: NDArray[np.floating], starts: Sequence[int] = (0,)) -> dict[str, F64]:
        """The outputs of whole sequences, window after window, as the agent will see them; `next_state` included.

        The sequences run side by side, so the number of steps is the length of the longest one.

        Args:
            z, mask: shape (n_windows, n_columns), one sequence after the other.
            starts: rows at which a sequence begins, rising from 0, none of them empty; the state is zero there.
        Returns: name -> shape (n_windows, width).
        """
        if not self.n_state:
            return self.step(z, mask, np.zeros((len(z), 0)))
        begins = np.asarray(starts, int)
        lengths = np.diff(begins, append=len(z))
        assert begins[0] == 0
        assert lengths.min() > 0
        outputs = {name: np.zeros((len(z), width)) for name, width in self.outputs.items()}
        state = np.zeros((len(begins), self.n_state))
        for at in range(int(lengths.max())):
            live = lengths > at
            rows = begins[live] + at
            for name, values in self.step(z[rows], mask[rows], state[live]).items():
                outputs[name][rows] = values
            state[live] = outputs["next_state"][rows]
        return outputs

    def tensors_sha256(self) -> str:
        """Hash over the constants' names, shapes and bytes: what a rebuild must reproduce."""
        digest = hashlib.sha256()
        for name in sorted(self.constants):
            array = np.ascontiguousarray(self.constants[name], "<f4")
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def _apply(operation: str, operands: list[F64]) -> F64:
    if operation in ELEMENTWISE:
        return np.asarray(ELEMENTWISE[operation](*operands))
    if operation == "dense":
        return np.asarray(operands[0] @ operands[1].T)
    if operation == "relu":
        return np.maximum(operands[0], 0.0)
    return np.asarray(operands[0].sum(axis=1, keepdims=True))


def starts_of(lengths: Sequence[int]) -> tuple[int, ...]:
    """The rows at which sequences of these lengths begin when they stand one after the other."""
    return tuple(int(end) - length for end, length in zip(np.cumsum(lengths), lengths, strict=True))


def anomaly_model(
    name: str, n_columns: int, constants: Mapping[str, NDArray[np.floating]], nodes: Sequence[Node]
) -> Graph:
    """A model as the agent takes it: z, mask -> score, contributions; and state -> next_state where `nodes` make one.

    Args:
        constants: name -> shape (1, n), or (n_out, n_in) for a dense layer.
        nodes: from `z`, `mask` and `state` to `contributions`, and to `next_state` for a model that remembers one value a
            column. The score is the sum of the contributions.
    """
    memory = {"next_state": n_columns} if any(node.output == "next_state" for node in nodes) else {}
    return Graph(
        name=name,
        inputs={"z": n_columns, "mask": n_columns} | ({"state": n_columns} if memory else {}),
        outputs={"score": 1, "contributions": n_columns} | memory,
        constants={name: np.ascontiguousarray(array, np.float32) for name, array in constants.items()},
        nodes=(*nodes, Node("row_sum", ("contributions",), "score")),
    )


def clipped(name: str, output: str, lowest: str = "lowest", highest: str = "highest") -> tuple[Node, ...]:
    """Nodes that hold a tensor between two constant rows."""
    return (
        Node("maximum", (name, lowest), f"{output}_from_below"),
        Node("minimum", (f"{output}_from_below", highest), output),
    )


def row(value: float, n_columns: int) -> F32:
    """A constant row: the same value for every column. Shape (1, n_columns)."""
    return np.full((1, n_columns), value, np.float32)


def quadratic_form(name: str, matrix: F32) -> Graph:
    """Score z' M' M z with the contribution of every column, absent columns left out exactly.

    y = M (z * mask); contributions = y * y * mask; score = their sum. M is the symmetric square root of the index
    matrix, so the contributions are the complete decomposition (Alcala and Qin, 2009): never negative, and they sum
    to the score.

    Args:
        matrix: shape (n, n), symmetric.
    """
    nodes = (Node("multiply", ("z", "mask"), "present"), *squared_projection("present", "matrix", "contributions"))
    return anomaly_model(name, len(matrix), {"matrix": matrix}, nodes)


def squared_projection(present: str, matrix: str, output: str) -> tuple[Node, ...]:
    """Nodes for (M x)^2 by column, nothing where the mask is 0; named after what they read and write."""
    prefix = "" if output == "contributions" else f"{output}_"
    return (
        Node("dense", (present, matrix), f"{prefix}projected"),
        Node("multiply", (f"{prefix}projected", f"{prefix}projected"), f"{prefix}squares"),
        Node("multiply", (f"{prefix}squares", "mask"), output),
    )
