"""ModelAlarm: from a machine's scores to one alarm, told when it is news and not oftener.

Persistence, dead-band, delays and the refractory time are the tracker's. While an alarm stands it is told again only when a
clear cause that it has not named yet, or a worse severity, leads in k decisions in a row; and once when it can first be said
when a limit will be reached. What has had a clear cause is not told again without one.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.config import DecisionSection
from agent.decision.alarm import RANK
from agent.decision.episode import Episode
from agent.decision.threshold import Change, ConditionTracker
from agent.diagnosis import Explained
from agent.vocabulary import Score, Severity


class ModelAlarm:
    """One machine's model condition."""

    def __init__(self, decision: DecisionSection) -> None:
        self._k = decision.k
        self._decision = decision
        self._episode = Episode(decision)
        self._tracker = ConditionTracker(
            k=decision.k,
            m=decision.m,
            off_delay_s=decision.off_delay_s,
            deadband=decision.deadband_ratio,
            refractory_s=decision.refractory_s,
        )
        self._has_forecast = False  # it has been told when a limit is reached
        self._told: set[str] = set()  # causes that the standing alarm has named
        self._severity = Severity.INFO  # the worst that it was told with
        self._news, self._n_news = "", 0

    @property
    def standing(self) -> bool:
        return self._tracker.standing

    @property
    def onset_utc_ns(self) -> int:
        return self._tracker.onset_utc_ns

    @property
    def standing_s(self) -> float:
        """From its onset until it was raised."""
        return self._tracker.standing_s

    def step(
        self, score: Score | None, monotonic_ns: int, utc_ns: int, explain: Callable[[], Explained]
    ) -> Explained | Change | None:
        """One decision: the explanation where there is something to tell, CLEARED where the alarm is over."""
        excess = score.value / score.threshold - 1.0 if score is not None and score.threshold > 0 else None
        change = self._tracker.step(self._as_episode(score, excess, monotonic_ns), monotonic_ns, utc_ns)
        if change is Change.CLEARED:
            self._forget()
            return change
        if change is Change.RAISED:
            return self._tell(explain())
        if not self._tracker.standing or excess is None or excess <= 0:
            return None
        explained = explain()
        return self._tell(explained) if self._is_news(explained) else None

    def hold(self, onset_utc_ns: int, cause: str, severity: Severity) -> None:
        """Take up an alarm that stood before a restart, and what it was called."""
        self._tracker.hold(onset_utc_ns)
        self._told.add(cause)
        self._severity = severity

    def end(self) -> bool:
        """The machine has a new normal, so what stood is over. Gives whether anything did."""
        self._forget()
        self._episode = Episode(self._decision)
        return self._tracker.end()

    def _as_episode(self, score: Score | None, excess: float | None, monotonic_ns: int) -> float | None:
        if score is None or excess is None:
            return None
        return self._episode.step(excess, score.unsmoothed / score.threshold, self._tracker.standing, monotonic_ns)

    def _is_news(self, explained: Explained) -> bool:
        cause = explained.clear_cause if explained.clear_cause not in self._told else ""
        worse = RANK[explained.severity] > RANK[self._severity] and (explained.clear_cause or not any(self._told))
        foreseen = explained.explanation.forecast is not None and not self._has_forecast
        news = cause or (str(explained.severity) if worse else "forecast" if foreseen else "")
        self._n_news = self._n_news + 1 if news == self._news else 1
        self._news = news
        return news != "" and self._n_news >= self._k

    def _tell(self, explained: Explained) -> Explained:
        self._told.add(explained.clear_cause)
        self._has_forecast |= explained.explanation.forecast is not None
        self._severity = max(self._severity, explained.severity, key=RANK.__getitem__)
        return explained

    def _forget(self) -> None:
        self._told.clear()
        self._severity, self._has_forecast = Severity.INFO, False
