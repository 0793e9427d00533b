"""Baseline: what is normal for this machine in one operating state, learned once and then frozen.

A vector is referred to it column by column, z = (t(x) - location) / scale with t the logarithm for quantities that vary in
proportion (amplitudes) and the identity otherwise. Location is the median and scale the median absolute deviation, so that a
few odd windows while learning do no harm; `scale_floor` of the column keeps a quiet column from crying over nothing.
Where speed, load or ambient temperature moved while it was learned, location follows them by a frozen line (regression.py).
It never follows the machine: a slow fault must not become normal (design: relearn only on a recorded event).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.regression import MAD_TO_SIGMA, Regression, fit_regression
from agent.vocabulary import F32, F64, Covariates, FeatureVector, Mask

LOG_FLOOR = 1e-9  # below every sensor's noise; keeps a dead channel's logarithm finite
REFERENCE_QUANTILE = 0.95
REFERENCE_FLOOR_SHARE = 0.5
POOLED = "running:*"  # the baseline of all running states together
MANY_BINS = 6  # beyond so many speed bins a line over speed says more than each bin by itself (ISO 17359 practice)
POOLED_SHARE = 2.0  # of a state's windows, over all bins, that make the pooled baseline
LINES = ("centre", "low", "high", "slope")
ODD_SIGMA = 2.33  # a learning window beyond it is odd: one healthy window in a hundred
MAX_PASSES = 4  # of leaving odd windows out; what is odd shows in two or three
Z_LIMIT = 1e4  # far beyond any alarm; keeps float32 squares finite


def transformed(values: F32 | F64, transforms: Sequence[str]) -> F64:
    """Columns as the baseline sees them: logarithm for "log", as they are for "linear". Shape (..., n_columns)."""
    table = np.asarray(values, dtype=np.float64)
    is_log = np.array([transform == "log" for transform in transforms])
    with np.errstate(invalid="ignore"):
        return np.where(is_log, np.log(np.maximum(np.abs(table), LOG_FLOOR)), table)


def reference_score(scores: F64, floor: float = 0.0) -> float:
    """The upper normal score, of which thresholds are multiples: 95th percentile of the learning windows' scores.

    The percentile and not the median, because a machine that wanders while it is healthy brings its wander with it.
    """
    return max(floor, float(np.quantile(np.asarray(scores, dtype=np.float64), REFERENCE_QUANTILE)))


def reference_floor(healthy_contributions: Sequence[float], present: Mask) -> float:
    """The least upper normal score that is believed: half of what healthy machines of this kind score on these columns.

    A machine that was learned in a quiet minute would otherwise have a threshold of nothing, and alarm on its next breath.
    """
    return REFERENCE_FLOOR_SHARE * float(np.asarray(healthy_contributions, dtype=np.float64)[present].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Frozen location and scale of every column in one operating state.

    Attributes:
        location, scale: shape (n_columns,), in transformed units; NaN location where the column was never present.
        normal: shape (n_columns,), the median in physical units, for people.
        reference_score: see `reference_score`; thresholds are multiples of it. NaN until it is scored.
        n_windows: how many windows it was learned from.
        envelope_band_hz: the machine's own band of the envelope that they were computed in; None: the machine type's.
        regression: how location follows speed, load and ambient temperature; None where it does not.
        running_in_s: of running time, in which a new machine may still lower it (learning.py); 0: frozen.
    """

    location: F64
    scale: F64
    normal: F64
    n_windows: int
    digest: str
    reference_score: float = float("nan")
    envelope_band_hz: tuple[float, float] | None = None
    regression: Regression | None = None
    running_in_s: float = 0.0

    @classmethod
    def fit(
        cls,
        values: F32,
        present: Mask,
        transforms: Sequence[str],
        floors: Sequence[float],
        digest: str = "",
        *,
        covariates: F64 | None = None,
        explained: Mask | None = None,
        floor_ratios: Sequence[float] | None = None,
    ) -> Baseline:
        """Learn from healthy windows.

        Args:
            values, present: shape (n_windows, n_columns). floors: smallest scale of each column, transformed units.
            floor_ratios: the same as a share of the learned location; for linear columns.
            covariates: shape (n_windows, 3). explained: shape (n_columns, 3), which of them a column may follow.
        A column that is present in fewer than half of the windows is left out (NaN location): it cannot be judged.
        A standard column's normal is 0 and its scale the floor, whatever it was while it was learned.
        """
        table = np.where(present, transformed(values, transforms), np.nan)
        usable = present.mean(axis=0) >= 0.5
        location = np.full(table.shape[1], np.nan)
        scale = np.ones(table.shape[1])
        normal = np.full(table.shape[1], np.nan)
        regression = (
            None if covariates is None else fit_regression(table, covariates, _all_or(explained, table.shape[1]))
        )
        if regression is not None:
            table = table - regression.shift(np.asarray(covariates, dtype=np.float64))
        if usable.any():
            seen = table[:, usable]
            location[usable] = np.nanmedian(seen, axis=0)
            spread = MAD_TO_SIGMA * np.nanmedian(np.abs(seen - location[usable]), axis=0)
            ratios = np.zeros(table.shape[1]) if floor_ratios is None else np.asarray(floor_ratios, dtype=np.float64)
            least = np.maximum(np.asarray(floors, dtype=np.float64), ratios * np.abs(location))
            scale[usable] = np.maximum(spread, least[usable])
            normal[usable] = np.nanmedian(np.where(present, values, np.nan)[:, usable], axis=0)
        known = usable & (np.array(transforms) == "standard")  # normal by definition: nothing is learned
        location[known], normal[known], scale[known] = 0.0, 0.0, np.asarray(floors, dtype=np.float64)[known]
        return cls(location, np.where(scale > 0, scale, 1.0), normal, len(values), digest, regression=regression)

    def refer(
        self, values: F32, present: Mask, transforms: Sequence[str], covariates: Covariates | F64 | None = None
    ) -> tuple[F32, Mask]:
        """Vectors in robust standard deviations from normal: z, and which columns can be judged; 0 where not.

        Args: values, present: shape (..., n_columns). covariates: shape (..., 3), as far as they are known.
        """
        judged = present & ~np.isnan(self.location)
        if self.regression is not None and covariates is not None:
            judged = judged & self.regression.known(np.asarray(covariates, dtype=np.float64))
        z = (transformed(values, transforms) - self.expected(covariates)) / self.scale
        clipped = np.clip(np.where(judged, z, 0.0), -Z_LIMIT, Z_LIMIT)
        return clipped.astype(np.float32), judged

    def expected(self, covariates: Covariates | F64 | None = None) -> F64:
        """Location under these covariates, transformed units. Shape (..., n_columns)."""
        if self.regression is None or covariates is None:
            return self.location
        return self.location + self.regression.shift(np.asarray(covariates, dtype=np.float64))

    def as_document(self) -> dict[str, Any]:
        """As JSON-able values, for the buffer; NaN becomes null."""
        columns = {name: [_or_none(value) for value in getattr(self, name)] for name in ("location", "scale", "normal")}
        others = ("n_windows", "digest", "reference_score", "envelope_band_hz", "running_in_s")
        lines = None if self.regression is None else {n: getattr(self.regression, n).tolist() for n in LINES}
        return columns | {name: getattr(self, name) for name in others} | {"regression": lines}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Baseline:
        """The inverse of `as_document`."""
        location, scale, normal = (
            np.array([_or_nan(value) for value in document[name]], np.float64)
            for name in ("location", "scale", "normal")
        )
        band_hz, lines = document.get("envelope_band_hz"), document.get("regression")
        return cls(
            location,
            scale,
            normal,
            document["n_windows"],
            document["digest"],
            document["reference_score"],
            tuple(band_hz) if band_hz else None,
            Regression(*(np.array(lines[name], np.float64) for name in LINES)) if lines else None,
            document.get("running_in_s", 0.0),
        )


def _all_or(explained: Mask | None, n_columns: int) -> Mask:
    return np.ones((n_columns, 3), np.bool_) if explained is None else explained


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _odd_above(squares: F64, n_columns: int) -> float:
    """The bound of a window's summed squared deviations: chi-square's, times how much wider they are than its median."""
    wider = float(np.median(squares)) / _chi_square(n_columns, 0.0)
    return _chi_square(n_columns, ODD_SIGMA) * max(1.0, wider)


def _chi_square(n: int, sigma: float) -> float:
    """The quantile of chi-square with n degrees of freedom at a normal deviate. Source: Wilson and Hilferty 1931."""
    variance = 2.0 / (9.0 * max(n, 1))
    return float(max(n, 1) * (1.0 - variance + sigma * variance**0.5) ** 3)


@dataclass(slots=True)
class Learner:
    """Collects windows of one machine, state by state, until a baseline can be frozen. Bounded by n_windows a state.

    A drive that visits more speed bins than can each be learned in sensible time gets one baseline for them all (POOLED),
    with lines over speed and load.
    """

    n_windows: int
    transforms: Sequence[str]
    floors: Sequence[float]
    explained: Mask | None = None
    floor_ratios: Sequence[float] | None = None
    max_states: int = 16
    _seen: dict[str, list[FeatureVector]] = field(default_factory=dict)

    def offer(self, vector: FeatureVector) -> tuple[str, list[FeatureVector]] | None:
        """Take one healthy window; the state's key and its whole collection once that is complete."""
        key = vector.state.key
        if key not in self._seen and len(self._seen) >= self.max_states:
            return None
        kept = self._seen.setdefault(key, [])
        kept.append(vector)
        if len(kept) >= self.n_windows:
            return key, self._seen.pop(key)
        if len(self._seen) > MANY_BINS and sum(map(len, self._seen.values())) >= POOLED_SHARE * self.n_windows:
            return POOLED, [vector for key in sorted(self._seen) for vector in self._seen[key]]
        return None

    def forget(self) -> None:
        """Begin anew: what was collected was measured in another way, or of another machine."""
        self._seen.clear()

    def fit(self, vectors: Sequence[FeatureVector]) -> Baseline:
        """The baseline of a complete collection."""
        values = np.stack([vector.values for vector in vectors])
        present = np.stack([vector.present for vector in vectors])
        covariates = np.array([vector.covariates for vector in vectors], np.float64)
        return Baseline.fit(
            values,
            present,
            self.transforms,
            self.floors,
            vectors[0].digest,
            covariates=covariates,
            explained=self.explained,
            floor_ratios=self.floor_ratios,
        )

    def most(self, vectors: Sequence[FeatureVector]) -> list[FeatureVector]:
        """Those that agree with most of a collection: a reweighted estimate of location and scale.

        Median and MAD bear odd windows, the upper normal score does not: it is a percentile, and a stop or a fault in a
        tenth of the learning time owns it, so that no later fault reaches a multiple of it. Left out is what lies beyond
        the chi-square bound of its squared deviations, corrected by their median (healthy windows wander more than a MAD
        says). A collection of which no half agrees is left as it is.

        Source: Rousseeuw and Van Zomeren 1990 (reweighting and the median correction).
        """
        values = np.stack([vector.values for vector in vectors])
        present = np.stack([vector.present for vector in vectors])
        covariates = np.array([vector.covariates for vector in vectors], np.float64)
        kept = np.ones(len(vectors), np.bool_)
        for _ in range(MAX_PASSES):
            baseline = self.fit([vector for vector, keep in zip(vectors, kept, strict=True) if keep])
            z, _judged = baseline.refer(values, present, self.transforms, covariates)
            squares = (z.astype(np.float64) ** 2).sum(axis=1)
            agreeing = squares <= _odd_above(squares, int(np.isfinite(baseline.location).sum()))
            if 2 * agreeing.sum() < len(vectors) or (agreeing == kept).all():
                break
            kept = agreeing
        return [vector for vector, keep in zip(vectors, kept, strict=True) if keep]

    def progress(self) -> Mapping[str, float]:
        """Share learned, by state that is still learning."""
        return {key: len(vectors) / self.n_windows for key, vectors in self._seen.items()}
