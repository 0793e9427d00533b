"""A model that uses every operation that the writers know, and a memory; no family, only the table made into a graph.

`tests/cell_tflite/every_operation.tflite` is this graph as the writer writes it. The cell of tflite-runtime cannot write (its
environment has no writer's packages), so it reads that file; the unit test of the writers says whether it is still the same.
To write it anew: `.venv/bin/python tests/every_operation.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.graph import Graph, Node, anomaly_model, clipped, row

FILE = Path(__file__).parent / "cell_tflite" / "every_operation.tflite"
N_COLUMNS = 5


def every_operation() -> Graph:
    """Clipped averages, their projection, and what is left of it beyond a limit."""
    at = np.arange(N_COLUMNS * N_COLUMNS).reshape(N_COLUMNS, N_COLUMNS)
    nodes = (
        *clipped("z", "held"),
        Node("subtract", ("held", "state"), "apart"),
        Node("multiply", ("apart", "mask"), "apart_present"),
        Node("multiply", ("apart_present", "weight"), "moved"),
        Node("add", ("state", "moved"), "next_state"),
        Node("dense", ("next_state", "matrix"), "projected"),
        Node("relu", ("projected",), "risen"),
        Node("multiply", ("risen", "risen"), "squares"),
        Node("multiply", ("squares", "mask"), "contributions"),
    )
    constants = {
        "lowest": row(-4.0, N_COLUMNS),
        "highest": row(4.0, N_COLUMNS),
        "weight": row(0.25, N_COLUMNS),
        "matrix": np.eye(N_COLUMNS) + np.sin(at + 1.0) / 4,
    }
    return anomaly_model("every operation", N_COLUMNS, constants, nodes)


def sequence() -> tuple[np.ndarray, np.ndarray]:
    """Forty windows, z and mask: waves, a wild stretch, gaps."""
    at = np.arange(40)[:, None]
    z = (2.0 * np.sin(0.7 * at + np.arange(N_COLUMNS))).astype(np.float32)
    z[20:25] = 1e4
    mask = (np.sin(1.3 * at * (1.0 + np.arange(N_COLUMNS))) > -0.7).astype(np.float32)
    return z, mask


if __name__ == "__main__":
    from training.write_tflite import to_tflite

    FILE.write_bytes(to_tflite(every_operation()))
