"""Tail: how far healthy scores reach, and how rarely. The threshold comes from it, at the site's own budget of false alarms."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta


class Tail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Generalised Pareto tail of r = score / (median score of the machine's own learning windows), on healthy machines.

    A ratio to the machine's own median, so that a machine that is noisier than its kind brings its own yardstick.

    Attributes:
        level: the ratio above which the tail model holds. share_above: the share of healthy windows beyond `level`.
        shape, scale: of the generalised Pareto distribution of r - level; shape is never below 0, because a finite sample
            cannot prove that a tail ends.
        n_windows: healthy windows it was fitted to, on machines that the model's matrix has not seen.
        n_machines: machines they came from.
    Source: Pickands (1975); Siffer et al. (2017), peaks over threshold, re-implemented from the paper.
    """

    level: Annotated[float, Meta(gt=0)]
    share_above: Annotated[float, Meta(gt=0, le=1)]
    shape: Annotated[float, Meta(ge=0, lt=1)]
    scale: Annotated[float, Meta(gt=0)]
    n_windows: Annotated[int, Meta(gt=0)]
    n_machines: Annotated[int, Meta(gt=0)] = 1

    def quantile(self, probability: float) -> float:
        """The ratio that a healthy window exceeds with this probability.

        A probability above `share_above` lies in the body of the distribution, where the tail model says nothing; `level`
        is answered then, which errs towards fewer false alarms.
        Raises: ValueError: probability outside (0, 1].
        """
        if not 0 < probability <= 1:
            raise ValueError(f"probability = {probability}: above 0, at most 1")
        if probability >= self.share_above:
            return self.level
        rarer = self.share_above / probability
        if self.shape < 1e-6:
            return self.level + self.scale * math.log(rarer)
        return self.level + self.scale / self.shape * (rarer**self.shape - 1.0)


def window_probability(false_alarms_per_month: float, decisions_per_month: float, k: int, m: int) -> float:
    """How often one window may exceed the threshold so that "k of the last m" keeps the budget of false alarms.

    Markov: P(at least k of m) <= m p / k whatever the dependence between neighbouring windows, so p = P k / m is enough.
    """
    return min(1.0, false_alarms_per_month / decisions_per_month * k / m)
