"""The shift book: one line for every transition of an alarm, as an operator would write it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from agent.decision.alarm import State
from agent.vocabulary import AlarmEvent, Severity

log = logging.getLogger("hark.shiftbook")

WORDS: dict[str, str] = {
    State.UNACKNOWLEDGED: "alarm",
    State.ACKNOWLEDGED: "acknowledged",
    State.RTN_UNACKNOWLEDGED: "back to normal, not acknowledged",
    State.NORMAL: "over",
    State.SHELVED: "shelved",
    State.SUPPRESSED_BY_DESIGN: "suppressed by design",
    State.OUT_OF_SERVICE: "out of service",
}
LOUD = (Severity.CRIT, Severity.HIGH, Severity.NO_DATA)


class LogNotifier:
    """Writes to the logger `hark.shiftbook`."""

    def notify(self, event: AlarmEvent) -> None:
        new = event.state == State.UNACKNOWLEDGED
        level = logging.WARNING if new and event.severity in LOUD else logging.INFO
        text = " ".join(event.text.split())
        log.log(
            level,
            "%s: %s machine=%s code=%s condition=%s",
            WORDS[event.state],
            text,
            event.machine,
            event.code,
            event.condition,
        )

    def state(self, machine: str, mapping: Mapping[str, Any]) -> None:
        """Present states are for screens; the shift book has the transitions."""
