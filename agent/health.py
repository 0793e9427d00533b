"""The gateway's own health: "ok" only while measurements move, the store commits and the upstream is connected.

Not the health of a machine (vocabulary.py). Pure: monotonic seconds are passed in. The pipeline's thread tells and asks, the
store's thread tells of its commits; every one is a single assignment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firmware_bridge.measurement import Block, Measurement, Quality

N_INTERVALS = 3  # of a source's slowest sensor; two lost polls are no news
LEAST_SILENCE_S = 10.0
UNSTORED_S = 30.0  # bulk waits a second for its commit, and a slow disk takes ten


class GatewayHealth:
    """What moved last, and when.

    Args:
        intervals_s: by source, how often its slowest sensor is heard.
        has_upstream: whether somebody is to be connected.
    """

    def __init__(self, intervals_s: Mapping[str, float], now_s: float, *, has_upstream: bool) -> None:
        self._started_s = now_s
        self._limits_s = {name: max(LEAST_SILENCE_S, N_INTERVALS * each_s) for name, each_s in intervals_s.items()}
        self._measured_s: dict[str, float] = {}
        self._unstored_s: float | None = None
        self._unconnected_s = now_s if has_upstream else None

    def measured(self, source: str, now_s: float) -> None:
        """A measurement with something in it went through the pipeline."""
        self._measured_s[source] = now_s

    def handed_over(self, now_s: float) -> None:
        """The store was given something to keep."""
        if self._unstored_s is None:
            self._unstored_s = now_s

    def committed(self) -> None:
        """In the store's thread: it is on disk. What was handed over meanwhile waits for the next commit, a second later."""
        self._unstored_s = None

    def connection(self, connected: bool, now_s: float) -> None:
        """Whether there is a connection upstream now; of a gateway that has an upstream."""
        if connected:
            self._unconnected_s = None
        elif self._unconnected_s is None:
            self._unconnected_s = now_s

    def verdict(self, now_s: float, store_failure: str = "") -> dict[str, Any]:
        """`state`, and where it is not "ok" `since_s`, for how long; the worst thing first. `of` names a source."""
        silent_s = {name: now_s - self._measured_s.get(name, self._started_s) for name in self._limits_s}
        overdue = [name for name, silence_s in silent_s.items() if silence_s > self._limits_s[name]]
        if overdue:
            worst = max(overdue, key=lambda name: silent_s[name])
            return {"state": "no data", "of": worst, "since_s": round(silent_s[worst], 1)}
        unstored_s = self._unstored_s
        if store_failure or (unstored_s is not None and now_s - unstored_s > UNSTORED_S):
            since_s = now_s - unstored_s if unstored_s is not None else 0.0
            return {"state": "not storing", "since_s": round(since_s, 1)}
        if self._unconnected_s is not None:
            return {"state": "not delivering", "since_s": round(now_s - self._unconnected_s, 1)}
        waited_for = [name for name in self._limits_s if name not in self._measured_s]
        if waited_for:
            return {"state": "starting", "of": waited_for[0], "since_s": round(now_s - self._started_s, 1)}
        return {"state": "ok"}


def sensor_of(item: Measurement, sensors: Mapping[int, str]) -> str | None:
    """Who measured; None where nothing was: a poll without an answer moves no data.

    Args: sensors: by number of the channel.
    """
    if not isinstance(item, Block):
        return item.sensor
    return sensors[int(item.channels[0])] if (item.quality < Quality.BAD).any() else None
