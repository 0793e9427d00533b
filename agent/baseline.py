"""Baseline: what is normal for this machine in one operating state, learned once and then frozen.

A vector is referred to it column by column, z = (t(x) - location) / scale with t the logarithm for quantities that vary in
proportion (amplitudes) and the identity otherwise. Location is the median and scale the median absolute deviation, so that a
few odd windows while learning do no harm; `scale_floor` of the column keeps a quiet column from crying over nothing.
It never follows the machine: a slow fault must not become normal (design: relearn only on a recorded event).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.vocabulary import F32, F64, FeatureVector, Mask

MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation for a normal distribution
LOG_FLOOR = 1e-9  # below every sensor's noise; keeps a dead channel's logarithm finite
REFERENCE_QUANTILE = 0.95
REFERENCE_FLOOR_SHARE = 0.5
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
    """

    location: F64
    scale: F64
    normal: F64
    n_windows: int
    digest: str
    reference_score: float = float("nan")
    envelope_band_hz: tuple[float, float] | None = None

    @classmethod
    def fit(
        cls, values: F32, present: Mask, transforms: Sequence[str], floors: Sequence[float], digest: str = ""
    ) -> Baseline:
        """Learn from healthy windows.

        Args:
            values, present: shape (n_windows, n_columns). floors: smallest scale of each column, transformed units.
        A column that is present in fewer than half of the windows is left out (NaN location): it cannot be judged.
        """
        table = np.where(present, transformed(values, transforms), np.nan)
        usable = present.mean(axis=0) >= 0.5
        location = np.full(table.shape[1], np.nan)
        scale = np.ones(table.shape[1])
        normal = np.full(table.shape[1], np.nan)
        if usable.any():
            seen = table[:, usable]
            location[usable] = np.nanmedian(seen, axis=0)
            spread = MAD_TO_SIGMA * np.nanmedian(np.abs(seen - location[usable]), axis=0)
            scale[usable] = np.maximum(spread, np.asarray(floors, dtype=np.float64)[usable])
            normal[usable] = np.nanmedian(np.where(present, values, np.nan)[:, usable], axis=0)
        return cls(location, np.where(scale > 0, scale, 1.0), normal, len(values), digest)

    def refer(self, values: F32, present: Mask, transforms: Sequence[str]) -> tuple[F32, Mask]:
        """One vector in robust standard deviations from normal: z, and which columns can be judged; 0 where not."""
        judged = present & ~np.isnan(self.location)
        z = (transformed(values, transforms) - self.location) / self.scale
        clipped = np.clip(np.where(judged, z, 0.0), -Z_LIMIT, Z_LIMIT)
        return clipped.astype(np.float32), judged

    def as_document(self) -> dict[str, Any]:
        """As JSON-able values, for the buffer; NaN becomes null."""
        columns = {name: [_or_none(value) for value in getattr(self, name)] for name in ("location", "scale", "normal")}
        others = ("n_windows", "digest", "reference_score", "envelope_band_hz")
        return columns | {name: getattr(self, name) for name in others}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Baseline:
        """The inverse of `as_document`."""
        location, scale, normal = (
            np.array([_or_nan(value) for value in document[name]], np.float64)
            for name in ("location", "scale", "normal")
        )
        band_hz = document.get("envelope_band_hz")
        return cls(
            location,
            scale,
            normal,
            document["n_windows"],
            document["digest"],
            document["reference_score"],
            tuple(band_hz) if band_hz else None,
        )


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


@dataclass(slots=True)
class Learner:
    """Collects windows of one machine, state by state, until a baseline can be frozen. Bounded by n_windows a state."""

    n_windows: int
    transforms: Sequence[str]
    floors: Sequence[float]
    max_states: int = 16
    _seen: dict[str, list[FeatureVector]] = field(default_factory=dict)

    def offer(self, vector: FeatureVector) -> list[FeatureVector] | None:
        """Take one healthy window; the whole collection once it is complete, and then it starts anew."""
        key = vector.state.key
        if key not in self._seen and len(self._seen) >= self.max_states:
            return None
        kept = self._seen.setdefault(key, [])
        kept.append(vector)
        return self._seen.pop(key) if len(kept) >= self.n_windows else None

    def forget(self) -> None:
        """Begin anew: what was collected was measured in another way."""
        self._seen.clear()

    def fit(self, vectors: Sequence[FeatureVector]) -> Baseline:
        """The baseline of a complete collection."""
        values = np.stack([vector.values for vector in vectors])
        present = np.stack([vector.present for vector in vectors])
        return Baseline.fit(values, present, self.transforms, self.floors, vectors[0].digest)

    def progress(self) -> Mapping[str, float]:
        """Share learned, by state that is still learning."""
        return {key: len(vectors) / self.n_windows for key, vectors in self._seen.items()}
