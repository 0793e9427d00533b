"""Mahalanobis family: z' S^-1 z over the shrunk covariance, without a choice of components.

Every direction counts by how far healthy machines go in it, also those in which they hardly move; PCA's Q counts all of these
alike. Where many windows are at hand it is the sharper one, where few are it trusts small eigenvalues too much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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
from training.families.pca import Z_CLIP, shrunk_covariance
from training.graph import Graph, quadratic_form

SETTINGS: Settings = {}


@dataclass(frozen=True, slots=True, eq=False)
class MahalanobisFit:
    """The symmetric root of the inverse covariance over its chi-square limit, shape (n_columns, n_columns)."""

    matrix: F64
    shrinkage: float

    def graph(self, name: str) -> Graph:
        """The model as both writers take it."""
        return quadratic_form(name, self.matrix.astype(np.float32))

    def settings(self) -> dict[str, float | int | str]:
        """For the manifest's provenance."""
        return {"shrinkage": round(self.shrinkage, 4), "grid": GRID}


def fit(healthy: Healthy) -> MahalanobisFit:
    """Fit on healthy deviations, about zero. Arguments and errors: see `training.families`."""
    z, mask = healthy.z, healthy.mask
    n_columns = z.shape[1]
    refuse_too_few(*z.shape)
    covariance, shrinkage = shrunk_covariance(held(z, mask, Z_CLIP), np.asarray(mask, np.float64))
    values, vectors = np.linalg.eigh(covariance)
    scale = np.maximum(values, MIN_VARIANCE) * float(chdtri(n_columns, LIMIT_PROBABILITY))
    root = (vectors / np.sqrt(scale)) @ vectors.T
    return MahalanobisFit(on_grid((root + root.T) / 2), shrinkage)
