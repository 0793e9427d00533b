"""Autoencoder family: what a narrow network cannot rebuild. The only family that follows curved healthy behaviour.

    held z -> relu -> code -> relu -> rebuilt       contribution_i = ((z_i - rebuilt_i) / s_i)^2

The network is shown each deviation within +-4 standard deviations, and the error is taken against the deviation itself: so it
cannot follow a fault out of what healthy machines do. It is trained by L-BFGS on all windows at once; some columns of each
window are hidden from it, so that it also rebuilds a column that is absent from the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import chdtri

from training.families import (
    F64,
    GRID,
    LIMIT_PROBABILITY,
    MIN_VARIANCE,
    Healthy,
    Settings,
    held,
    on_grid,
    refuse_too_few,
)
from training.graph import Graph, Node, anomaly_model, clipped, row

KNOWN_RANGE = 4.0  # standard deviations: what a healthy machine shows, and the network is shown
CODE_SHARE = 0.25  # width of the code, of the columns
HIDDEN_X = 1.5  # width of the layers around it, of the columns
SETTINGS: Settings = {"code_share": (CODE_SHARE, 0.15, 0.4)}
HIDDEN_SHARE = 0.1  # of the columns of a window, while training
DECAY = 1e-3  # of the squared weights: a weight that does not help goes to zero
# Measured: rounding in the last bit of the data grows to 1e-11 in the weights after 60 iterations, which the grid swallows, to
# 1e-8 after 100 and to 1e-2 after 150; the error that is left falls by 1 % more only. So 60, and a rebuild gives the same bytes.
ITERATIONS = 60
MAX_PARAMETERS = 50_000
MAX_WINDOWS = 8000  # of training; evenly picked from more
LAYERS = ("encode", "code", "decode", "rebuild")

Weights = dict[str, F64]


@dataclass(frozen=True, slots=True, eq=False)
class AutoencoderFit:
    """Weights (n_out, n_in) and offsets (1, n_out) of the layers, and the healthy error of each column, shape (n_columns,)."""

    weights: Weights
    error: F64

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        n_columns = len(self.error)
        limit = float(chdtri(n_columns, LIMIT_PROBABILITY))
        constants: Mapping[str, NDArray[np.floating]] = {
            **self.weights,
            "lowest": row(-KNOWN_RANGE, n_columns),
            "highest": row(KNOWN_RANGE, n_columns),
            "per_error": on_grid(1.0 / (self.error * np.sqrt(limit)))[None],
        }
        return anomaly_model(name, n_columns, constants, NODES)

    def settings(self) -> dict[str, float | int | str]:
        """For the manifest's provenance."""
        n_parameters = sum(values.size for values in self.weights.values())
        return {"n_parameters": n_parameters, "code_width": len(self.weights["code"]), "grid": GRID}


NODES = (
    Node("multiply", ("z", "mask"), "present"),
    *clipped("present", "held"),
    Node("dense", ("held", "encode"), "encoded"),
    Node("add", ("encoded", "encode_offset"), "encoded_shifted"),
    Node("relu", ("encoded_shifted",), "encoded_active"),
    Node("dense", ("encoded_active", "code"), "coded"),
    Node("dense", ("coded", "decode"), "decoded"),
    Node("add", ("decoded", "decode_offset"), "decoded_shifted"),
    Node("relu", ("decoded_shifted",), "decoded_active"),
    Node("dense", ("decoded_active", "rebuild"), "rebuilt_about_zero"),
    Node("add", ("rebuilt_about_zero", "rebuild_offset"), "rebuilt"),
    Node("subtract", ("present", "rebuilt"), "apart"),
    Node("multiply", ("apart", "per_error"), "of_limit"),
    Node("multiply", ("of_limit", "of_limit"), "squares"),
    Node("multiply", ("squares", "mask"), "contributions"),
)


def fit(healthy: Healthy, *, code_share: float = CODE_SHARE) -> AutoencoderFit:
    """Train on healthy deviations; a column that was never present stays outside and counts as itself.

    Args: code_share: width of the code, of the columns.
    Raises: ValueError: too few windows, or so many columns that the network would be larger than `MAX_PARAMETERS`.
    """
    z, mask = healthy.z, healthy.mask
    refuse_too_few(*z.shape)
    picked = np.unique(np.linspace(0, len(z) - 1, min(len(z), MAX_WINDOWS)).astype(int))
    present = np.asarray(mask, np.float64)[picked]
    wanted = held(z[picked], present, KNOWN_RANGE)
    rng = np.random.default_rng(healthy.seed)
    shown = wanted * (rng.random(wanted.shape) >= HIDDEN_SHARE)
    first = _first_weights(rng, wanted.shape[1], code_share)
    problem = _Problem(shown, wanted, present, first)
    ended = minimize(
        problem.loss, _flat(first), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "maxcor": 20}
    )
    seen = present.any(axis=0)
    weights = {name: on_grid(values) for name, values in _shaped(ended.x, first).items()}
    weights["encode"][:, ~seen] = 0.0
    weights["rebuild"][~seen] = 0.0
    weights["rebuild_offset"][:, ~seen] = 0.0
    rebuilt = _forward(wanted, weights)["rebuilt"]
    error = ((rebuilt - wanted) ** 2 * present).sum(axis=0) / np.maximum(present.sum(axis=0), 1.0)
    return AutoencoderFit(weights, np.where(seen, np.sqrt(np.maximum(error, MIN_VARIANCE)), 1.0))


def _first_weights(rng: np.random.Generator, n_columns: int, code_share: float) -> Weights:
    """Small random weights (He et al. 2015: variance 2 / n_in before a relu), offsets of nothing."""
    n_hidden, n_code = int(np.ceil(HIDDEN_X * n_columns)), max(2, round(code_share * n_columns))
    widths = (n_columns, n_hidden, n_code, n_hidden, n_columns)
    sizes = {layer: (n_out, n_in) for layer, n_in, n_out in zip(LAYERS, widths[:-1], widths[1:], strict=True)}
    weights = {layer: rng.standard_normal(size) * np.sqrt(2.0 / size[1]) for layer, size in sizes.items()}
    weights |= {f"{layer}_offset": np.zeros((1, sizes[layer][0])) for layer in ("encode", "decode", "rebuild")}
    n_parameters = sum(values.size for values in weights.values())
    if n_parameters > MAX_PARAMETERS:
        raise ValueError(f"{n_columns} columns would need {n_parameters} weights, at most {MAX_PARAMETERS}")
    return weights


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """What L-BFGS minimises: the mean squared error of what is present, and a price on large weights.

    Attributes:
        shown, wanted, present: shape (n_windows, n_columns). first: the weights' shapes, by name.
    """

    shown: F64
    wanted: F64
    present: F64
    first: Weights

    def loss(self, flat: F64) -> tuple[float, F64]:
        """The loss and its gradient by back-propagation."""
        weights = _shaped(flat, self.first)
        layers = _forward(self.shown, weights)
        n = self.present.sum()
        apart = (layers["rebuilt"] - self.wanted) * self.present
        value = float((apart**2).sum() / n + DECAY * flat @ flat)
        back = 2.0 * apart / n
        gradient = {"rebuild": back.T @ layers["decoded"], "rebuild_offset": back.sum(axis=0, keepdims=True)}
        back = (back @ weights["rebuild"]) * (layers["decoded"] > 0)
        gradient |= {"decode": back.T @ layers["coded"], "decode_offset": back.sum(axis=0, keepdims=True)}
        back = back @ weights["decode"]
        gradient["code"] = back.T @ layers["encoded"]
        back = (back @ weights["code"]) * (layers["encoded"] > 0)
        gradient |= {"encode": back.T @ self.shown, "encode_offset": back.sum(axis=0, keepdims=True)}
        return value, _flat({name: gradient[name] for name in self.first}) + 2.0 * DECAY * flat


def _forward(shown: F64, weights: Weights) -> dict[str, F64]:
    """The active values of every layer, as the graph computes them."""
    encoded = np.maximum(shown @ weights["encode"].T + weights["encode_offset"], 0.0)
    coded = encoded @ weights["code"].T
    decoded = np.maximum(coded @ weights["decode"].T + weights["decode_offset"], 0.0)
    rebuilt = decoded @ weights["rebuild"].T + weights["rebuild_offset"]
    return {"encoded": encoded, "coded": coded, "decoded": decoded, "rebuilt": rebuilt}


def _flat(weights: Weights) -> F64:
    return np.concatenate([values.ravel() for values in weights.values()])


def _shaped(flat: F64, like: Weights) -> Weights:
    ends = np.cumsum([values.size for values in like.values()])[:-1]
    parts = np.split(flat, ends)
    return {name: part.reshape(like[name].shape) for part, name in zip(parts, like, strict=True)}
