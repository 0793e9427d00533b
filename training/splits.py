"""Splits that do not leak: by machine, and by time within a machine. Never by window.

Neighbouring windows are nearly the same window, so a split by window lets a model be judged on what it was fitted to. Here a
machine's time is shared out in four parts that follow each other, and whole machines are held back in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from training.dataset import Windows
from training.learned import Kind, Learned, Vectors, cut, learn, without_spikes
from training.search import Fold, Stretch
from training.sensitivity import Faulty, injected, signatures

MIN_LEARN_WINDOWS = 20  # of one machine in one state, before a baseline is believed
MIN_TAIL_SCORES = 20
MIN_MEMORY_S = 7 * 86_400.0  # of a machine: what a memory adds up are days, weekends and weather
SHORT = "there is less than a week of any machine: nothing slow has been seen"
MAX_FOLDS = 3  # groups of machines that are held back in turn
WINDOWS_PER_COLUMN = 2  # that the families ask for; with fewer machines than give them, later time alone is held back


class Parts(NamedTuple):
    """How a machine's windows in a state are shared out, oldest first; `fit`, `tail` and `check` count after learning."""

    n_learn: int
    fit: slice
    tail: slice
    check: slice


def parts_of(n_windows: int) -> Parts:
    """Two fifths for the baseline, then a quarter for the model, a fifth for the threshold, the rest for the figures.

    Between two parts a hundredth is left out, at least one window: neighbours share their slow averages.
    """
    n_learn = max(MIN_LEARN_WINDOWS, round(0.4 * n_windows))
    n_later, gap = n_windows - n_learn, max(1, n_windows // 100)
    fitted, used = round(n_later * 25 / 60), round(n_later * 45 / 60)
    return Parts(n_learn, slice(gap, fitted), slice(fitted + gap, used), slice(used + gap, n_later))


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """One machine in one state, shared out: its baseline and deviations, and its hold-out under every fault."""

    learned: Learned
    parts: Parts
    n_spikes: int
    faulty: tuple[Faulty, ...]

    @property
    def fit(self) -> Vectors:
        """What a model may be fitted to."""
        return cut(self.learned.later, self.parts.fit)


def material_of(kind: Kind, windows: Windows) -> Material:
    """Baseline, model and threshold get windows without spikes; the figures get them as they came."""
    parts = parts_of(len(windows))
    n_repaired = parts.n_learn + parts.tail.stop
    calm, n_spikes = without_spikes(kind, windows.part(0, n_repaired))
    as_it_came = windows.part(n_repaired)
    whole = replace(
        windows,
        values=np.concatenate([calm.values, as_it_came.values]),
        present=np.concatenate([calm.present, as_it_came.present]),
    )
    learned = learn(kind, whole, parts.n_learn)
    held_out = windows.part(parts.n_learn + parts.check.start)
    return Material(learned, parts, n_spikes, tuple(injected(kind, learned, held_out, signatures(kind))))


def fold_of(name: str, fitted: Sequence[Material], checked: Sequence[Material], no_memory: str = "") -> Fold:
    """Model and threshold from some machines, figures from the later time of the same or of others."""
    return Fold(
        name=name,
        fit=tuple(one.fit for one in fitted),
        tail=tuple(Stretch(one.learned, one.parts.tail) for one in fitted),
        check=tuple(Stretch(one.learned, one.parts.check) for one in checked),
        faulty=tuple(item._replace(at=at) for at, one in enumerate(checked) for item in one.faulty),
        no_memory=no_memory,
    )


def folds_by_machine(materials: Sequence[Material], no_memory: str = "") -> list[Fold]:
    """Machines held back in turn, each with all its states; none where those that are left are too few for a model."""
    machines = sorted({one.learned.machine for one in materials})
    folds = []
    for group in (machines[first::MAX_FOLDS] for first in range(min(MAX_FOLDS, len(machines)))):
        rest = [one for one in materials if one.learned.machine not in group]
        n_fit = sum(len(one.fit[0]) for one in rest)
        n_tail = sum(one.parts.tail.stop - one.parts.tail.start for one in rest)
        if n_fit < WINDOWS_PER_COLUMN * len(materials[0].learned.baseline.location) or n_tail < MIN_TAIL_SCORES:
            return []
        held_back = [one for one in materials if one.learned.machine in group]
        folds.append(fold_of(f"without {', '.join(group)}", rest, held_back, no_memory))
    return folds
