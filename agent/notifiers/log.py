"""The shift book: one line for every transition of an alarm, and for a clock that was set, as an operator would write it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from agent.clock import ClockStep
from agent.decision.alarm import State
from agent.notifiers import iso_utc
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


def note_clock_not_set(utc_ns: int) -> None:
    """At the start of a gateway whose clock has no battery, or an empty one."""
    log.warning(
        "clock is not set, it says %s: measuring and alarms go on, records are marked until it is; "
        "check the time server and the battery of the clock",
        iso_utc(utc_ns),
    )


def note_clock_step(step: ClockStep) -> None:
    """The wall clock was set, by a time server or a person."""
    log.warning(
        "clock %s: it said %s and says %s; measuring and alarms went on, earlier records keep their times",
        _what_was_done(step),
        iso_utc(step.from_utc_ns),
        iso_utc(step.to_utc_ns),
    )


def _what_was_done(step: ClockStep) -> str:
    if step.was_set != step.is_set:
        return "is set now" if step.is_set else "has lost its time"
    return f"was put {'forward' if step.step_s > 0 else 'back'} by {abs(step.step_s):.1f} s"
