"""The words that people at the machine read: one file per language, and the alarm text composed from it.

Rules of the text: the severity word first, then machine, likely fault with its confidence (below 60 % what was observed
instead), evidence with its normal and its limit, since when, one action and by when, what it might be instead and how to find
out, reply codes. Every number has its unit or is a multiple of normal; no score, no word about models. Every letter is in a
phone's own alphabet, and a message fits into three of its segments.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime, tzinfo
from importlib.resources import files
from typing import Any

from agent.decision.alarm import CLEAR_CONFIDENCE, HELD, State, Trigger
from agent.vocabulary import AlarmClass, AlarmEvent, Evidence, Explanation, Forecast
from firmware_bridge.units import unit_of

DEFAULT_LANGUAGE = "en"
SECOND_NS = 1_000_000_000
NEW_BASELINE = "new_baseline:"  # the beginning of a condition's name; what follows is a key of [new_baseline]
TOLD_RUNNER_UP = 0.2  # a runner-up below this confidence is not worth a line on a phone
AT_ONCE_H = 0.25
HOURS_H = 48.0  # up to here people count in hours
CHANGED_RATIO = 1.2  # a change by less is told as a difference


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
        self._plain = str.maketrans(self._tables[0].get("plain", {}))

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

    def tell_apart(self, fault: str, other: str, parts: Mapping[str, str]) -> str:
        """What would tell two faults apart; "" for a pair that nobody confuses."""
        text = self.entry("tell_apart", f"{fault}/{other}") or self.entry("tell_apart", f"{other}/{fault}") or ""
        return text.format(**_with_defaults(parts))

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
        """What was seen, for when nobody knows why: "vibration velocity 3.1x normal", "suction pressure 1.1 bar below normal"."""
        normal, value = seen.normal, seen.value
        if normal is not None and normal > 0 and value / normal > CHANGED_RATIO:
            return self.say("evidence", "times", what=seen.words, times=_digits(value / normal, 2))
        if normal is None or seen.unit in ("", "x") or value == normal:
            return self.say("evidence", "away", what=seen.words)
        key = "above" if value > normal else "below"
        return self.say("evidence", key, what=seen.words, difference=_with_unit(abs(value - normal), seen.unit))

    def _what(self, seen: Evidence) -> str:
        if seen.frequency_hz is None:
            return seen.words
        return self.say("evidence", "line", what=seen.words, frequency=f"{seen.frequency_hz:.1f}")

    def forecast(self, forecast: Forecast, what: str = "") -> str:
        """When a limit is reached: "reaches the limit of 4.5 mm/s in 3 to 9 days, most likely 5, if operation stays as it is".

        Args: what: reaches it, in words.
        """
        in_days = forecast.p90_h > HOURS_H
        first, likely, last = (
            _digits(hours / (24 if in_days else 1), 1) for hours in (forecast.p10_h, forecast.p50_h, forecast.p90_h)
        )
        text = self.say(
            "forecast",
            "about" if first == last else "reaches",
            what=what,
            limit=_with_unit(forecast.limit, _unit(forecast.feature)),
            first=first,
            likely=likely,
            last=last,
            unit=self.say("forecast", "days" if in_days else "hours"),
        )
        return text.strip()

    # -- the alarm

    def alarm_text(self, event: AlarmEvent) -> str:
        """The whole message of one transition of an alarm."""
        return self._text(event).translate(self._plain)

    def _text(self, event: AlarmEvent) -> str:
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
        elif kind == "new_baseline":
            values["what"] = self.say("new_baseline", event.condition.removeprefix(NEW_BASELINE))
        return self.say(
            "alarm",
            kind,
            severity=self.say("severity", event.severity),
            machine=event.machine,
            evidence=_capital(self.evidence(first)) if first else "",
            since=self.since(event.utc_ns - round(event.standing_s * SECOND_NS), event.utc_ns),
            when=self._by_when(explanation.act_within_h),
            action=explanation.action,
            more=self._more(explanation, is_clear=kind != "unclear"),
            reply=self.say("alarm", "sensor_reply" if kind == "sensor" else "reply", code=event.code),
            **values,
        )

    def _by_when(self, hours: float | None) -> str:
        """The words before the action: how long there is for it."""
        if hours is None:
            return self.say("when", "anytime")
        if hours <= AT_ONCE_H:
            return self.say("when", "now")
        if hours <= HOURS_H:
            return self.say("when", "hours", number=_digits(hours, 1))
        return self.say("when", "days", number=_digits(hours / 24, 1))

    def _more(self, explanation: Explanation, *, is_clear: bool) -> str:
        """One more sentence: the forecast where there is one, else what it could be instead and how to find out."""
        forecast = explanation.forecast
        if forecast is not None:
            seen = next((seen.words for seen in explanation.evidence if seen.feature == forecast.feature), None)
            told = self.forecast(forecast, seen or self.say("forecast", "it"))
            return self.say("alarm", "forecast", forecast=_capital(told))
        runner_up = explanation.causes[1] if len(explanation.causes) > 1 else None
        if not explanation.tell_apart or runner_up is None or runner_up.confidence < TOLD_RUNNER_UP:
            return ""
        if is_clear:
            return self.say("alarm", "runner_up", fault=runner_up.words, check=explanation.tell_apart)
        return self.say("alarm", "find_out", check=explanation.tell_apart)

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
    if event.condition.startswith(NEW_BASELINE):
        return "new_baseline", {}
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
    return [_with_unit(value, unit, digits) if value is not None else "" for value in values]


def _with_unit(value: float, unit: str, digits: int = 2) -> str:
    space = "" if unit in ("x", "") else " "
    return f"{_digits(value, digits)}{space}{unit}"


def _unit(column: str) -> str:
    """The printed unit of a column's quantity: of its channel, or of its feature."""
    return unit_of(column.partition(":")[0].partition("[")[0])


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
