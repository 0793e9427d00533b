"""Machines referred to themselves: windows become deviations from a baseline, and scores multiples of what was normal.

The one place in training where a baseline is fitted and used; the agent does the same with the same classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.baseline import Baseline, reference_floor, reference_score, transformed
from agent.covariates import explained
from agent.features import FeatureSet, feature_set_of
from agent.machine import MachineProfile, load_machine_profile
from agent.regression import MAD_TO_SIGMA
from training.dataset import Windows
from training.graph import Graph, starts_of

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Vectors = tuple[F32, F32]  # z and mask, shape (n_windows, n_columns) each, in order of time

SPIKE_NEIGHBOURS = 5  # windows whose median tells: what 3 of 5 do not share, persistence would not have believed either
SPIKE_DEVIATIONS = 8.0  # robust standard deviations from its neighbours; healthy kurtosis and crest reach 5 to 6


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A machine type with all that training needs of it."""

    profile: MachineProfile
    features: FeatureSet
    transforms: tuple[str, ...]
    floors: tuple[float, ...]
    config: Path

    @classmethod
    def named(cls, root: Path, machine_type: str) -> Kind:
        """Raises: ConfigError: unknown type or a wrong profile."""
        profile = load_machine_profile(root / "config", machine_type)
        features = feature_set_of(profile)
        return cls(
            profile,
            features,
            tuple(column.transform for column in features.columns),
            tuple(column.scale_floor for column in profile.columns),
            root / "config",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """One machine in one state with its baseline: its windows while learning and after, referred to it."""

    machine: str
    state: str
    baseline: Baseline
    learning: Vectors
    later: Vectors

    def referenced(self, graph: Graph, typical: Sequence[float]) -> tuple[float, F64]:
        """Reference score of the learning windows, and the later scores as multiples of it.

        Both are scored as one sequence, as the agent does it: a model with a memory goes on from what it has learned from.
        """
        floor = reference_floor(typical, np.isfinite(self.baseline.location))
        scores = scores_of(graph, joined([self.learning, self.later]))
        n_learning = len(self.learning[0])
        reference = reference_score(scores[:n_learning], floor)
        return reference, scores[n_learning:] / reference


def learn(kind: Kind, windows: Windows, n_learn: int) -> Learned:
    """Baseline from the first `n_learn` windows; all windows referred to it, as the agent does it."""
    first = windows.part(0, n_learn)
    baseline = Baseline.fit(
        first.values,
        first.present,
        kind.transforms,
        kind.floors,
        kind.features.digest,
        covariates=first.covariates,
        explained=explained(kind.features.names),
    )
    baseline = replace(baseline, envelope_band_hz=windows.envelope_band_hz)
    later = refer(kind, baseline, windows.part(n_learn))
    return Learned(windows.machine, windows.state, baseline, refer(kind, baseline, first), later)


def refer(kind: Kind, baseline: Baseline, windows: Windows) -> Vectors:
    """Deviations and mask of many windows."""
    z, judged = baseline.refer(windows.values, windows.present, kind.transforms, windows.covariates)
    return z, judged.astype(np.float32)


def joined(parts: Sequence[Vectors]) -> Vectors:
    """Sequences one after the other; where each begins says `training.graph.starts_of`."""
    return np.concatenate([z for z, _ in parts]), np.concatenate([mask for _, mask in parts])


def cut(vectors: Vectors, part: slice) -> Vectors:
    """Some of the windows."""
    return vectors[0][part], vectors[1][part]


def scores_of(graph: Graph, vectors: Vectors, starts: Sequence[int] = (0,)) -> F64:
    """Scores by the reference arithmetic, sequence after sequence. Shape (n_windows,)."""
    return graph.run(vectors[0], vectors[1], starts)["score"][:, 0]


def healthy_contributions(graph: Graph, pool: Sequence[Vectors]) -> tuple[float, ...]:
    """What each column adds to a healthy score on average; a column never seen, what one deviation of its own would add."""
    z, mask = joined(pool)
    starts = starts_of([len(part) for part, _ in pool])
    seen = graph.run(z, mask, starts)["contributions"].sum(axis=0) / np.maximum(mask.sum(axis=0), 1)
    alone = np.eye(z.shape[1], dtype=np.float32)
    unseen = scores_of(graph, (alone, alone), range(len(alone)))
    return tuple(rounded(value) for value in np.where(mask.any(axis=0), seen, unseen).tolist())


def without_spikes(kind: Kind, windows: Windows) -> tuple[Windows, int]:
    """The windows with every value absent that its neighbours in time do not know, and how many these were.

    For what a model and its threshold are made from: single wild windows cannot raise an alarm of 3 of 5, so they need not
    raise the threshold either, and with one in a hundred of them it would rise beyond every fault. False alarms are counted
    on windows that keep them.
    """
    n_beside = SPIKE_NEIGHBOURS // 2
    if len(windows) < SPIKE_NEIGHBOURS:
        return windows, 0
    table = _filled(transformed(windows.values, kind.transforms), windows.present)
    padded = np.pad(table, ((n_beside, n_beside), (0, 0)), mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(padded, SPIKE_NEIGHBOURS, axis=0)
    away = np.abs(table - np.median(around, axis=-1))
    spread = np.maximum(MAD_TO_SIGMA * np.median(away, axis=0), np.asarray(kind.floors))
    spikes = windows.present & (away > SPIKE_DEVIATIONS * spread)
    values = np.where(spikes, np.float32(np.nan), windows.values)
    return replace(windows, values=values, present=windows.present & ~spikes), int(spikes.sum())


def _filled(table: F64, present: NDArray[np.bool_]) -> F64:
    """Absent values replaced by what is usual of their column; a column that is never present is 0."""
    usual = np.zeros(table.shape[1])
    seen = present.any(axis=0)
    usual[seen] = np.nanmedian(np.where(present, table, np.nan)[:, seen], axis=0)
    return np.where(present, table, usual)


def rounded(value: float) -> float:
    """Four significant digits: more is noise, and fewer digits rebuild the same on every CPU."""
    return float(f"{value:.4g}")
