"""The latency budget: how long each stage takes, and what to leave out first when the gateway cannot keep up.

Alarms are never shed, and acquisition never waits: the model goes first, then the features; protective limits stay.
Pure: durations and the time are passed in.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from enum import IntEnum

import numpy as np

log = logging.getLogger(__name__)

TOTAL = "total"  # arrival of the measurement to its alarm or record committed
RING = 512
RISE_AT = 0.9  # share of the budget
FALL_AT = 0.5
INBOX_RISE_AT, INBOX_FALL_AT = 0.8, 0.2
HOLD_S = 5.0  # between two changes of level, upwards
FALL_HOLD_S = 30.0  # of quiet before a level is given back
MIN_TOTALS = 20


class Level(IntEnum):
    """How much is done for each measurement."""

    FULL = 0
    NO_MODEL = 1  # features and limits
    LIMITS_ONLY = 2


WORDS: dict[Level, str] = {
    Level.FULL: "everything is computed",
    Level.NO_MODEL: "the model is left out; features and limits go on",
    Level.LIMITS_ONLY: "model and features are left out; limits go on",
}


class LatencyBudget:
    """Rings of recent durations per stage, and the level of work that they allow.

    Args: budget_ms: arrival to committed, 99th percentile. stages: names of the stages, "total" is added.
    """

    def __init__(self, budget_ms: float, stages: Sequence[str]) -> None:
        self.budget_ms = budget_ms
        self.level = Level.FULL
        self.shed: Counter[str] = Counter()
        self._rings: dict[str, deque[float]] = {stage: deque(maxlen=RING) for stage in (*stages, TOTAL)}
        self._fresh_totals: deque[float] = deque(maxlen=RING)  # since the last change of level
        self._changed_s = -HOLD_S
        self._quiet_since_s: float | None = None

    def record(self, stage: str, seconds: float) -> None:
        """One measured duration."""
        self._rings[stage].append(seconds)
        if stage == TOTAL:
            self._fresh_totals.append(seconds)

    def count_shed(self, what: str, n: int = 1) -> None:
        """`n` items were left out because of the level."""
        self.shed[what] += n

    def decide(self, now_s: float, inbox_fill: float) -> Level:
        """The level from now on. Call it about once a second.

        Args: now_s: monotonic. inbox_fill: share of the inbox in use, 0..1.
        """
        p99_ms = self._recent_p99_ms()
        if p99_ms > RISE_AT * self.budget_ms or inbox_fill > INBOX_RISE_AT:
            self._quiet_since_s = None
            if self.level < Level.LIMITS_ONLY and now_s - self._changed_s >= HOLD_S:
                self._change(Level(self.level + 1), now_s, p99_ms, inbox_fill)
        elif p99_ms < FALL_AT * self.budget_ms and inbox_fill < INBOX_FALL_AT:
            self._quiet_since_s = now_s if self._quiet_since_s is None else self._quiet_since_s
            if self.level > Level.FULL and now_s - self._quiet_since_s >= FALL_HOLD_S:
                self._change(Level(self.level - 1), now_s, p99_ms, inbox_fill)
        else:
            self._quiet_since_s = None
        return self.level

    def percentiles_ms(self) -> dict[str, tuple[float, float]]:
        """50th and 99th percentile of every stage that has been measured, in milliseconds."""
        return {
            stage: (1e3 * float(np.percentile(ring, 50)), 1e3 * float(np.percentile(ring, 99)))
            for stage, ring in self._rings.items()
            if ring
        }

    def _recent_p99_ms(self) -> float:
        """Of the totals since the last change: what an old level cost says nothing about this one."""
        if len(self._fresh_totals) < MIN_TOTALS:
            return 0.0
        return 1e3 * float(np.percentile(self._fresh_totals, 99))

    def _change(self, level: Level, now_s: float, p99_ms: float, inbox_fill: float) -> None:
        tell = log.warning if level > self.level else log.info
        tell(
            "work level changed: %s p99_ms=%.1f budget_ms=%.0f inbox_pct=%.0f shed_so_far=%d",
            WORDS[level], p99_ms, self.budget_ms, 100 * inbox_fill, self.shed.total(),
        )  # fmt: skip
        self.level, self._changed_s, self._quiet_since_s = level, now_s, None
        self._fresh_totals.clear()
