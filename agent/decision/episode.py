"""Episode: how long a model alarm stands, what counts as its end, and when the next one may come.

A threshold and k of m say when an alarm begins. Where scalars are judged every second that is not enough to say when it ends:

- A fault that comes in bursts (slugs of air, a part that knocks now and then) has not gone between two of them, so an alarm
  stands for a least time.
- A machine seldom comes back to the very place where it was: a valve seats a little differently, the water is warmer. A sudden
  fall to a share of what the alarm has been is its end, whether or not the threshold is met to the last per cent. Sudden,
  because the fall is measured against the last minute of the alarm: a fault that stays, or fades over hours, ends at the
  threshold as ever, and a violent beginning does not make what is left of it look small.
- What is left settles: for a while nothing is raised. What stays beyond the threshold after that is a new alarm, so nothing
  that stays is ever lost. Protective limits are not held back by any of this.

Pure: the time is passed in. It stands before a ConditionTracker and tells it how far the score is from its limit.
"""

from __future__ import annotations

import math
from collections import deque

from agent.config import DecisionSection

RECENT_S = (
    60.0  # time constant of what an alarm "has been": from 45 s to two minutes give the same verdicts on a pump loop
)
BACK = -math.inf  # an excess that is normal beyond doubt
_NS = 1e9


class Episode:
    """Of one machine. With the site's options left out it changes nothing."""

    def __init__(self, decision: DecisionSection) -> None:
        self._k = decision.k
        self._least_ns = round(decision.least_standing_s * _NS)
        self._settle_ns = round(decision.settle_s * _NS)
        self._return_ratio = decision.return_ratio
        self._latest: deque[float] = deque(maxlen=decision.m)
        self._began_ns: int | None = None
        self._settled_ns: int | None = None
        self._before_ns = 0
        self._recent = 0.0  # exponential mean of the standing alarm's scores
        self._bound: float | None = None  # below which it has come back

    def step(self, excess: float, score: float, standing: bool, monotonic_ns: int) -> float | None:
        """What the tracker shall take for one decision's excess; None where it shall neither raise nor clear.

        Args:
            excess: of the averaged score over its threshold. standing: whether the alarm stood before this decision.
            score: not averaged, in thresholds: an average is slow to fall.
        """
        self._latest.append(score)
        reached = sorted(self._latest)[-min(self._k, len(self._latest))]
        answer = (
            self._while_standing(excess, reached, monotonic_ns) if standing else self._while_quiet(excess, monotonic_ns)
        )
        self._before_ns = monotonic_ns
        return answer

    def _while_quiet(self, excess: float, monotonic_ns: int) -> float:
        if self._began_ns is not None:  # the decision before this one cleared it
            self._began_ns, self._bound = None, None
            self._settled_ns = self._before_ns + self._settle_ns
        if self._settled_ns is not None and monotonic_ns < self._settled_ns:
            return BACK
        return excess

    def _while_standing(self, excess: float, reached: float, monotonic_ns: int) -> float | None:
        if self._began_ns is None:
            self._began_ns, self._recent = self._before_ns or monotonic_ns, reached
        elapsed_s = min(max((monotonic_ns - self._before_ns) / _NS, 0.0), RECENT_S)
        self._recent -= math.expm1(-elapsed_s / RECENT_S) * (self._latest[-1] - self._recent)
        if monotonic_ns - self._began_ns < self._least_ns:
            return None
        return BACK if self._has_returned(reached) else excess

    def _has_returned(self, reached: float) -> bool:
        """Whether k of the last m scores have fallen to the share; once they have, until they leave it again."""
        if self._return_ratio > 0 and (self._bound is None or reached > self._bound):
            bound = max(1.0, self._return_ratio * self._recent)
            self._bound = bound if reached <= bound else None
        return self._bound is not None
