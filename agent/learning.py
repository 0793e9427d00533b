"""Learning: what is normal for one machine, from the first windows on, and who may not be learned from.

Baselines are learned once a state and then frozen. They go only by an order from a person (`hark relearn`), because whatever
follows the machine by itself follows a slow fault too. The machine's own envelope band belongs to them.

The one exception is a machine that runs in (`running_in_h`, a new bearing or gear): its vibration falls for hours, by up to two
thirds, and a normal of the first minutes would hide a fault of twice the later level. So for that time the levels of its
baseline follow the machine, downwards only: a fault, which adds, cannot become normal. For the first third new surfaces crackle
and settle, and the model is not asked; limits are. Running time counts, not the calendar.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from agent.baseline import POOLED, Baseline, Learner
from agent.config import Machine
from agent.covariates import explained
from agent.features import Cores
from agent.features.kurtogram import Kurtogram
from agent.vocabulary import F64, FeatureVector, Mode, OperatingState, Window

UNASKED_SHARE = 1 / 3  # of running in
BAND_WINDOWS = 10  # that a machine's own envelope band is chosen from

Reference = Callable[[Sequence[FeatureVector], Baseline], float]  # the upper normal score of learning windows


class Learning:
    """One machine's baselines, and the windows that will make the next one.

    Args:
        known: baselines of the bundle and of the buffer, by state key; those of another feature digest are left out.
        cores: the machine's; they are given its own envelope band.
    """

    def __init__(self, machine: Machine, known: Mapping[str, Baseline], cores: Cores) -> None:
        self._machine = machine
        self._cores = cores
        features = machine.features
        self.transforms = tuple(column.transform for column in features.columns)
        known = {key: baseline for key, baseline in known.items() if baseline.digest == features.digest}
        first = next(iter(known.values()), None)
        self._take_envelope_band(first.envelope_band_hz if first is not None else None)
        self.baselines: dict[str, Baseline] = {
            key: baseline
            for key, baseline in known.items()
            if baseline.envelope_band_hz
            == self.envelope_band_hz  # measured in another band, it is no normal of this one
        }
        self._learner = Learner(
            machine.spec.learn_windows,
            self.transforms,
            machine.scale_floors,
            explained(features.names),
            machine.scale_floor_ratios,
        )
        self._kurtogram = self._new_kurtogram() if first is None else None
        self._running_in_s = 3600 * machine.spec.running_in_h
        self._latest: dict[str, deque[F64]] = {}  # while running in, by key: levels as the baseline has them
        self._is_level = np.array([transform == "log" for transform in self.transforms])

    def baseline_of(self, state: OperatingState) -> Baseline | None:
        """The normal of a state: its own, or that of all running states together."""
        return self.baselines.get(self._key_of(state))

    def may_raise(self, state: OperatingState) -> bool:
        """Whether the model is asked: not yet, where a machine has just begun to run in."""
        baseline = self.baseline_of(state)
        return baseline is None or baseline.running_in_s <= (1 - UNASKED_SHARE) * self._running_in_s

    def follow(self, vector: FeatureVector, stands_for_s: float) -> tuple[str, Baseline] | None:
        """One more window of a machine that has a baseline. While it runs in, this lowers what later windows are held against.

        A level goes down to the median of the latest windows, as many as it was learned from, and never up.

        Args: stands_for_s: running time since the window before.
        Returns: the state's key and its baseline when it is to be kept: when the model is asked from now on, and when it is
            frozen. After a restart running in goes on from what was kept last.
        """
        key = self._key_of(vector.state)
        baseline = self.baselines.get(key)
        if baseline is None or baseline.running_in_s <= 0:
            return None
        was_asked = self.may_raise(vector.state)
        latest = self._latest.setdefault(key, deque(maxlen=self._machine.spec.learn_windows))
        z, judged = baseline.refer(vector.values, vector.present, self.transforms, vector.covariates)
        latest.append(np.where(judged, baseline.location + baseline.scale * z, np.nan))
        location = self._lowered(baseline.location, latest) if len(latest) == latest.maxlen else baseline.location
        left_s = max(0.0, baseline.running_in_s - stands_for_s)
        self.baselines[key] = followed = replace(baseline, location=location, running_in_s=left_s)
        if left_s == 0:
            del self._latest[key]
        return (key, followed) if left_s == 0 or self.may_raise(vector.state) is not was_asked else None

    def _lowered(self, location: F64, latest: Sequence[F64]) -> F64:
        """The location with every level that fell at its median. Shape (n_columns,)."""
        table = np.stack(latest)
        known = self._is_level & (np.isfinite(table).mean(axis=0) >= 0.5)
        lowered = location.copy()
        lowered[known] = np.minimum(location[known], np.nanmedian(table[:, known], axis=0))
        return lowered

    def _key_of(self, state: OperatingState) -> str:
        return POOLED if state.mode is Mode.RUNNING and state.key not in self.baselines else state.key

    def look_for_envelope_band(self, window: Window) -> None:
        """The first windows of a running machine say where it rings; where they do, learning begins anew in that band.

        Once in a baseline's life: the band is kept with it, and with it what "normal" means.
        """
        if self._kurtogram is None or window.clipped:
            return
        if window.samples.shape[1] != self._machine.features.n_samples or not np.isfinite(window.samples).all():
            return
        self._kurtogram.add(window.samples)
        if len(self._kurtogram) < BAND_WINDOWS * len(window.samples):
            return
        band_hz = self._kurtogram.band_hz()
        self._kurtogram = None
        if band_hz is not None:
            self._take_envelope_band(band_hz)
            self._learner.forget()

    def offer(self, vector: FeatureVector, reference: Reference) -> tuple[str, Baseline] | None:
        """One more healthy window; the state's key and its baseline once that is complete."""
        complete = self._learner.offer(vector)
        if complete is None:
            return None
        key, vectors = complete
        if self._machine.spec.learn_from_most:
            vectors = self._learner.most(vectors)
        self._kurtogram = None  # from here on there is a normal, in the band that it was measured in
        baseline = self._learner.fit(vectors)
        baseline = replace(
            baseline,
            reference_score=reference(vectors, baseline),
            envelope_band_hz=self.envelope_band_hz,
            running_in_s=self._running_in_s,
        )
        self.baselines[key] = baseline
        return key, baseline

    def forget(self) -> None:
        """All that was normal: the machine, its sensor or its mount is another one."""
        self.baselines.clear()
        self._latest.clear()
        self._learner.forget()
        self._take_envelope_band(None)
        self._kurtogram = self._new_kurtogram()

    def share_learned(self, state: OperatingState) -> float | None:
        """Of the present state's baseline; None once it has one or when the machine does not run."""
        if state.mode is not Mode.RUNNING or self.baseline_of(state) is not None:
            return None
        return self._learner.progress().get(state.key, 0.0)

    def _take_envelope_band(self, band_hz: tuple[float, float] | None) -> None:
        self.envelope_band_hz = band_hz
        self._cores.change(partial(self._machine.features.plan_at, envelope_band_hz=band_hz))

    def _new_kurtogram(self) -> Kurtogram | None:
        features = self._machine.features
        return Kurtogram(features.n_samples, features.sample_rate_hz) if features.n_samples else None
