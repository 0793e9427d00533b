"""One way out each, for people and their systems. A notifier's file name is its kind; this file is what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from agent.vocabulary import AlarmEvent, Cause


class Notifier(Protocol):
    """Told of every transition of an alarm and of a machine's present state. Never waits, never raises."""

    def notify(self, event: AlarmEvent) -> None: ...

    def state(self, machine: str, mapping: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class MachineName:
    """How people call a machine, and its type."""

    name: str
    type: str


def alarm_message(event: AlarmEvent, site: str, gateway: str, machine: MachineName, lang: str = "en") -> dict[str, Any]:
    """The alarm as other systems read it: JSON-able, version 1, below 2 kB.

    The same mapping is the body of the alarm's record in the outbox. Times are UTC.
    """
    explanation, forecast = event.explanation, event.explanation.forecast
    cause = explanation.causes[0] if explanation.causes else None
    clock = {"clock": event.clock} if event.clock else {}
    return {
        "v": 1,
        "id": event.alarm_id,
        "code": event.code,
        "state": event.state,
        "previous_state": event.previous_state,
        "trigger": event.trigger,
        "condition": event.condition,
        "class": str(event.alarm_class),
        "severity": str(event.severity),
        "site": site,
        "gateway": gateway,
        "machine": {"tag": event.machine, "name": machine.name, "type": machine.type},
        "t_start": iso_utc(event.onset_utc_ns),
        "t": iso_utc(event.utc_ns),
        **clock,
        "seen": [
            {
                "feature": seen.feature,
                "words": seen.words,
                "value": _told(seen.value),
                "normal": _told(seen.normal),
                "limit": _told(seen.limit),
                "unit": seen.unit,
                "frequency_hz": _told(seen.frequency_hz),
            }
            for seen in explanation.evidence
        ],
        "operating_state": explanation.operating_state,
        "fault": _cause(cause) if cause else None,
        "others": [_cause(other) for other in explanation.causes[1:3]],
        "tell_apart": explanation.tell_apart,
        "forecast": None
        if forecast is None
        else {
            "p10_h": _told(forecast.p10_h),
            "p50_h": _told(forecast.p50_h),
            "p90_h": _told(forecast.p90_h),
            "feature": forecast.feature,
            "limit": _told(forecast.limit),
        },
        "why": [{"feature": seen.feature, "share": round(seen.share, 3)} for seen in explanation.evidence],
        "do": [{"text": explanation.action, "due_h": explanation.act_within_h}],
        "data_quality": explanation.data_quality,
        "model": dict(event.model),
        "text": {lang: event.text},
    }


def _told(value: float | None) -> float | None:
    """Four digits: what a person reads, and the message stays below 2 kB."""
    return None if value is None else float(f"{value:.4g}")


def _cause(cause: Cause) -> dict[str, Any]:
    """A likely fault with what speaks for and against it."""
    return {
        "code": cause.fault,
        "words": cause.words,
        "confidence": round(cause.confidence, 2),
        "for": list(cause.evidence_for),
        "against": list(cause.evidence_against),
    }


def iso_utc(utc_ns: int) -> str:
    """2026-11-21T05:05:11Z"""
    return datetime.fromtimestamp(utc_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
