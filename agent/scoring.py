"""Scorer: one machine's vectors to scores, with the contribution of every column, and the threshold that its budget allows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.baseline import Baseline, reference_floor, reference_score
from agent.config import DecisionSection
from agent.decision.rate import MONTH_S
from agent.decision.threshold import probability_per_decision
from agent.inference.bundle import Bundle
from agent.vocabulary import F32, FeatureVector, Mask, Score

MIN_SHARE_PRESENT = 0.5  # of the baseline's columns; with fewer there is no verdict
EXCURSION_LIMIT = 3.0  # a smoothed score takes at most this many thresholds from one decision, so that it can come back


@dataclass(slots=True)
class Cadence:
    """How often a machine is judged: the median of the last intervals."""

    _intervals_s: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    _last_ns: int | None = None

    def tick(self, monotonic_ns: int) -> float:
        """One more decision; gives the time that it stands for: since the last one, and no longer than usual."""
        elapsed_s = 0.0 if self._last_ns is None else max(0.0, (monotonic_ns - self._last_ns) / 1e9)
        if elapsed_s > 0:
            self._intervals_s.append(elapsed_s)
        self._last_ns = monotonic_ns
        return min(elapsed_s, 2 * self.interval_s)

    @property
    def interval_s(self) -> float:
        return float(np.median(self._intervals_s)) if self._intervals_s else 600.0


class Scorer:
    """What remembers between two windows of one machine: the model's own state, and the average that the site asks for."""

    def __init__(
        self, bundle: Bundle, transforms: Sequence[str], decision: DecisionSection, false_alarms_per_month: float
    ) -> None:
        self.bundle = bundle
        self.cadence = Cadence()
        self._transforms = transforms
        self._decision = decision
        self._false_alarms_per_month = false_alarms_per_month
        self._model_state: F32 | None = None
        self._smoothed: F32 | None = None
        self._smoothed_ns = 0

    def score(self, vector: FeatureVector, baseline: Baseline) -> Score | None:
        """The score of one window; None where too little of it was measured."""
        z, judged = baseline.refer(vector.values, vector.present, self._transforms, vector.covariates)
        if judged.sum() < MIN_SHARE_PRESENT * np.isfinite(baseline.location).sum():
            return None
        threshold = baseline.reference_score * self.threshold_factor()
        unsmoothed = self._step(z, judged)
        contributions = self._smooth(unsmoothed, threshold, vector.arrived_monotonic_ns)
        return Score(
            machine=vector.machine,
            value=float(contributions.sum()),
            threshold=threshold,
            contributions=contributions,
            deviations=z,
            present=judged,
            utc_ns=vector.utc_ns,
            unsmoothed=float(unsmoothed.sum()),
        )

    def reference(self, vectors: Sequence[FeatureVector], baseline: Baseline) -> float:
        """The upper normal score: of the learning windows, scored and smoothed just as later ones will be.

        Of columns that are their own standard it is 1, of a model whose scores are absolute what its bundle states, whatever
        the machine did while it was learned.
        """
        stated = self.bundle.manifest.reference_score
        if isinstance(stated, float):
            return stated
        if set(self._transforms) == {"standard"}:
            return 1.0
        self.forget()
        scores = []
        for vector in vectors:
            z, judged = baseline.refer(vector.values, vector.present, self._transforms, vector.covariates)
            contributions = self._smooth(self._step(z, judged), math.inf, vector.arrived_monotonic_ns)
            scores.append(float(contributions.sum()))
        floor = reference_floor(self.bundle.manifest.healthy_contributions, np.isfinite(baseline.location))
        return reference_score(np.asarray(scores), floor)

    def threshold_factor(self) -> float:
        """How many times its upper normal score a healthy machine may reach within the site's budget of false alarms."""
        if self._decision.threshold_factor is not None:
            return self._decision.threshold_factor
        per_month = MONTH_S / self.cadence.interval_s
        k, m = self._decision.k, self._decision.m
        probability = probability_per_decision(self._false_alarms_per_month, per_month, k, m)
        return self.bundle.manifest.tail.quantile(probability)

    def pause(self) -> None:
        """The machine does not run: averages of now are of no use when it runs again; what is slow goes on."""
        self._smoothed = None

    def forget(self) -> None:
        """Another normal: everything begins anew."""
        self._model_state = self._smoothed = None

    def _step(self, z: F32, judged: Mask) -> F32:
        scored = self.bundle.step(z, judged.astype(np.float32), self._model_state)
        self._model_state = scored.state
        return scored.contributions

    def _smooth(self, contributions: F32, threshold: float, monotonic_ns: int) -> F32:
        """Exponential average of the contributions where the site asks for it; one excursion counts for a bounded amount."""
        if self._decision.smooth_s <= 0:
            return contributions
        total = float(contributions.sum())
        limited = contributions * min(1.0, EXCURSION_LIMIT * threshold / total) if total > 0 else contributions
        elapsed_s = (monotonic_ns - self._smoothed_ns) / 1e9
        self._smoothed = averaged(self._smoothed, limited, elapsed_s, self._decision.smooth_s)
        self._smoothed_ns = monotonic_ns
        return self._smoothed


def averaged(before: F32 | None, now: F32, elapsed_s: float, tau_s: float) -> F32:
    """Exponential average at irregular times; a gap counts for at most one time constant."""
    if before is None:
        return now
    gain = 1.0 - math.exp(-min(max(elapsed_s, 0.0), tau_s) / tau_s)
    moved: F32 = before + np.float32(gain) * (now - before)
    return moved
