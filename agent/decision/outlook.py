"""Outlook: while an alarm stands, which of the machine's absolute limits will be reached first, and when.

Followed are the quantities that have a limit in their own unit: velocity against the norm's zone D, and every channel with a
critical protective limit above. A score has no such limit, so nothing is forecast from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from agent.decision.trend import Trend
from agent.machine import Limit
from agent.vocabulary import Forecast

ALERT_RATIO = 1.25  # of the learned normal: ISO 20816's change that matters


class Outlook:
    """Of one machine.

    Args: limits: of its profile. others: further quantities with the value that they may reach, by name.
    """

    def __init__(self, limits: Sequence[Limit], others: Mapping[str, float]) -> None:
        critical = {
            limit.channel: limit.above for limit in limits if limit.above is not None and limit.severity == "crit"
        }
        self._reach: dict[str, float] = {**critical, **others}
        self._trends: dict[str, Trend] = {}

    def step(self, values: Mapping[str, float], normals: Mapping[str, float], monotonic_ns: int) -> None:
        """One decision while the alarm stands. Args: values, normals: now, and as learned, by quantity."""
        for name in self._reach:
            value, normal = values.get(name, math.nan), normals.get(name, math.nan)
            if math.isnan(value) or not normal > 0:
                continue
            if name not in self._trends:
                self._trends[name] = Trend(name, ALERT_RATIO * normal)
            self._trends[name].step(value, monotonic_ns)

    def forecast(self) -> Forecast | None:
        """The limit that is reached first; None where nothing can be said."""
        found = [trend.forecast(self._reach[name]) for name, trend in self._trends.items()]
        return min((one for one in found if one is not None), key=lambda one: one.p50_h, default=None)

    def forget(self) -> None:
        """The alarm is over, or the machine was mended."""
        self._trends.clear()
