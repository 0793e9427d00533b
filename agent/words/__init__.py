"""The words that people at the machine read: one file per language, and the alarm text composed from it.

Rules of the text: the severity word first, then machine, likely fault with its confidence (below 60 % what was observed
instead), evidence with its normal and its limit, since when, one action, reply codes. Every number has its unit or is a
multiple of normal; no score, no word about models.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime, tzinfo
from importlib.resources import files
from typing import Any

from agent.decision.alarm import CLEAR_CONFIDENCE, HELD, State, Trigger
from agent.vocabulary import AlarmClass, AlarmEvent, Evidence

DEFAULT_LANGUAGE = "en"
SECOND_NS = 1_000_000_000


class Words:
    """One language.

    Args:
        language: "en"; a file of this name must lie beside this one.
        zone: whose clock the times are in; None for the gateway's own.
    Raises: LookupError: no such language.
    """

    def __init__(self, language: str = DEFAULT_LANGUAGE, zone: tzinfo | None = None) -> None:
        self.language = language
        self._zone = zone
        self._tables = [_table(name) for name in dict.fromkeys((language, DEFAULT_LANGUAGE))]

    # -- entries

    def entry(self, *keys: str) -> str | None:
        """The entry at this path, in this language or else in English; None where neither has it."""
        for table in self._tables:
            found: Any = table
            for key in keys:
                found = found.get(key) if isinstance(found, Mapping) else None
            if isinstance(found, str):
                return found
        return None

    def say(self, section: str, key: str, **values: object) -> str:
        """An entry that must be there, filled in."""
        text = self.entry(section, key)
        assert text is not None, f"words/{DEFAULT_LANGUAGE}.toml lacks [{section}] {key}"
        return text.format(**values)

    def fault(self, fault: str, parts: Mapping[str, str]) -> str:
        """A fault in words; an unknown one by its own name."""
        text = self.entry("faults", fault, "words")
        return text.format(**_with_defaults(parts)) if text else fault.replace("_", " ")

    def action(self, fault: str, parts: Mapping[str, str]) -> str:
        """The one thing to do about a fault."""
        text = self.entry("faults", fault, "action") or self.entry("faults", "unclear", "action") or ""
        return text.format(**_with_defaults(parts))

    def unclear_action(self, quantity: str) -> str:
        """The one thing to do when only the quantity that moved is known, not why; see [unclear_action]."""
        return self.entry("unclear_action", quantity) or self.action("unclear", {})

    def channel(self, channel: str) -> str:
        """A quantity in words: "suction pressure"."""
        return self.entry("channels", channel) or channel.rpartition("_")[0].replace("_", " ") or channel

    def column(self, column: str, declared: str, band_hz: tuple[float, float] | None = None) -> str:
        """A column of the vector in words: its feature's own where the language has no others.

        Args: declared: the feature's words. band_hz: of a column that is a frequency band.
        """
        channel, _, statistic = column.rpartition(":")
        if channel:
            template = self.entry("statistics", statistic) or "{channel}"
            return template.format(channel=self.channel(channel))
        feature = column.partition("[")[0]
        low, high = band_hz or (0.0, 0.0)
        return (self.entry("columns", feature) or declared).format(low=f"{low:g}", high=f"{high:g}")

    # -- evidence

    def evidence(self, seen: Evidence) -> str:
        """One thing seen: "outer-race envelope line at 73.6 Hz 14x (normal 1.6x, limit 4.1x)"."""
        value, normal, limit = _alike((seen.value, seen.normal, seen.limit), seen.unit)
        which = {(True, True): "both", (True, False): "normal", (False, True): "limit", (False, False): "plain"}
        key = which[seen.normal is not None, seen.limit is not None]
        return self.say("evidence", key, what=self._what(seen), value=value, normal=normal, limit=limit)

    def observation(self, seen: Evidence) -> str:
        """What was seen, for when nobody knows why: "vibration velocity 3.1x normal"."""
        normal = seen.normal
        if normal is not None and normal > 0 and seen.value > 0 and not 1 / 1.2 < seen.value / normal < 1.2:
            return self.say("evidence", "times", what=seen.words, times=_digits(seen.value / normal, 2))
        return self.say("evidence", "away", what=seen.words)

    def _what(self, seen: Evidence) -> str:
        if seen.frequency_hz is None:
            return seen.words
        return self.say("evidence", "line", what=seen.words, frequency=f"{seen.frequency_hz:.1f}")

    # -- the alarm

    def alarm_text(self, event: AlarmEvent) -> str:
        """The whole message of one transition of an alarm."""
        if event.state in HELD:
            hold = self.say("hold", event.state)
            return self.say(
                "alarm", "held", hold=hold, machine=event.machine, code=event.code, time=self.time(event.utc_ns)
            )
        if event.trigger in (Trigger.CLEAR, Trigger.RETURN):
            return self._cleared(event)
        if event.trigger == Trigger.ACKNOWLEDGE or event.state == State.NORMAL:
            return self.say(
                "alarm", "acknowledged", machine=event.machine, code=event.code, time=self.time(event.utc_ns)
            )
        return self._standing(event)

    def _standing(self, event: AlarmEvent) -> str:
        explanation = event.explanation
        first = explanation.evidence[0] if explanation.evidence else None
        kind, values = _kind(event)
        if kind == "unclear" and first is not None:
            values["observation"] = self.observation(first)
        return self.say(
            "alarm",
            kind,
            severity=self.say("severity", event.severity),
            machine=event.machine,
            evidence=_capital(self.evidence(first)) if first else "",
            since=self.since(event.utc_ns - round(event.standing_s * SECOND_NS), event.utc_ns),
            action=explanation.action,
            reply=self.say("alarm", "sensor_reply" if kind == "sensor" else "reply", code=event.code),
            **values,
        )

    def _cleared(self, event: AlarmEvent) -> str:
        kind = "sensor_cleared" if event.alarm_class is AlarmClass.SENSOR else "cleared"
        time, duration = self.time(event.utc_ns), _duration(event.standing_s)
        return self.say("alarm", kind, machine=event.machine, time=time, duration=duration, code=event.code)

    # -- times

    def time(self, utc_ns: int) -> str:
        """14:05, on the reader's clock."""
        return self._local(utc_ns).strftime("%H:%M")

    def since(self, utc_ns: int, now_utc_ns: int) -> str:
        """14:05, with its date when that is not today's."""
        then, now = self._local(utc_ns), self._local(now_utc_ns)
        return then.strftime("%H:%M" if then.date() == now.date() else "%Y-%m-%d %H:%M")

    def _local(self, utc_ns: int) -> datetime:
        return datetime.fromtimestamp(utc_ns / SECOND_NS, self._zone).astimezone(self._zone)


def _kind(event: AlarmEvent) -> tuple[str, dict[str, str]]:
    """Which sentence an alarm that stands is told in, and the fault in it."""
    explanation = event.explanation
    cause = explanation.causes[0] if explanation.causes else None
    if event.alarm_class is AlarmClass.SENSOR:
        return "sensor", {"fault": explanation.evidence[0].words if explanation.evidence else event.condition}
    if event.alarm_class is AlarmClass.LIMIT:
        return "limit", {"fault": cause.words if cause else event.condition.rpartition(":")[2].replace("_", " ")}
    if cause is not None and cause.confidence >= CLEAR_CONFIDENCE:
        return "fault", {"fault": cause.words, "confidence": f"{100 * cause.confidence:.0f}"}
    return "unclear", {"observation": event.condition}


def _table(language: str) -> dict[str, Any]:
    resource = files(__name__) / f"{language}.toml"
    if not resource.is_file():
        raise LookupError(f"there are no words for language {language!r}; copy agent/words/en.toml to {language}.toml")
    return tomllib.loads(resource.read_text("utf-8"))


def _with_defaults(parts: Mapping[str, str]) -> dict[str, str]:
    return {"bearing": "bearing", "bearing_short": "bearing", "point": "machine", **parts}


def _alike(values: tuple[float, float | None, float | None], unit: str) -> list[str]:
    """Numbers to be compared, with as many digits as it takes to tell them apart, 2 to 4."""
    known = [value for value in values if value is not None]
    for digits in (2, 3, 4):
        shown = [_digits(value, digits) for value in known]
        if len(set(shown)) == len(set(known)):
            break
    space = "" if unit in ("x", "") else " "
    return [f"{_digits(value, digits)}{space}{unit}" if value is not None else "" for value in values]


def _digits(value: float, digits: int) -> str:
    """At least so many digits, never an exponent: 14, 1.6, 0.21, 1462."""
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:.6f}".rstrip("0").rstrip(".") or "0"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _duration(seconds: float) -> str:
    """35 s, 4 min, 2 h 35 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
