"""The life of an alarm: ISA-18.2's states as a table, and the book of the alarms that stand.

Pure: times are passed in, nothing is printed or sent. Who needs to know gets the AlarmEvents that each call returns.
What lasts (an alarm, its shelf) is measured on the monotonic clock: a wall clock that is set neither ends a shelf nor makes an
alarm older.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.clock import Moment
from agent.vocabulary import AlarmClass, AlarmEvent, Explanation, Severity


class State(StrEnum):
    """ISA-18.2, 6.2 (alarm state transitions): states A to D, and G, H, I. E and F need latching: not used here."""

    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RTN_UNACKNOWLEDGED = "rtn_unacknowledged"
    SHELVED = "shelved"
    SUPPRESSED_BY_DESIGN = "suppressed_by_design"
    OUT_OF_SERVICE = "out_of_service"


class Trigger(StrEnum):
    """What can happen to an alarm. RETURN ends a hold; RETURN_STANDING does when the condition is still there."""

    RAISE = "raise"
    CLEAR = "clear"
    ACKNOWLEDGE = "acknowledge"
    ESCALATE = "escalate"  # the condition stands and its severity rose, or its cause has become clear or another
    SHELVE = "shelve"
    SUPPRESS = "suppress"
    REMOVE = "remove"
    RETURN = "return"
    RETURN_STANDING = "return_standing"


IN_USE = (State.NORMAL, State.UNACKNOWLEDGED, State.ACKNOWLEDGED, State.RTN_UNACKNOWLEDGED)
HELD = (State.SHELVED, State.SUPPRESSED_BY_DESIGN, State.OUT_OF_SERVICE)

# A pair that is absent changes nothing, so a repeated message is harmless.
NEXT: dict[tuple[State, Trigger], State] = {
    (State.NORMAL, Trigger.RAISE): State.UNACKNOWLEDGED,
    (State.UNACKNOWLEDGED, Trigger.ACKNOWLEDGE): State.ACKNOWLEDGED,
    (State.UNACKNOWLEDGED, Trigger.CLEAR): State.RTN_UNACKNOWLEDGED,
    (State.UNACKNOWLEDGED, Trigger.ESCALATE): State.UNACKNOWLEDGED,
    (State.ACKNOWLEDGED, Trigger.CLEAR): State.NORMAL,
    (State.ACKNOWLEDGED, Trigger.ESCALATE): State.UNACKNOWLEDGED,
    (State.RTN_UNACKNOWLEDGED, Trigger.ACKNOWLEDGE): State.NORMAL,
    (State.RTN_UNACKNOWLEDGED, Trigger.RAISE): State.UNACKNOWLEDGED,
    **{(state, Trigger.SHELVE): State.SHELVED for state in IN_USE},
    **{(state, Trigger.SUPPRESS): State.SUPPRESSED_BY_DESIGN for state in IN_USE},
    **{(state, Trigger.REMOVE): State.OUT_OF_SERVICE for state in (*IN_USE, State.SHELVED, State.SUPPRESSED_BY_DESIGN)},
    **{(state, Trigger.RETURN): State.NORMAL for state in HELD},
    **{(state, Trigger.RETURN_STANDING): State.UNACKNOWLEDGED for state in HELD},
    (State.SHELVED, Trigger.ESCALATE): State.UNACKNOWLEDGED,  # shelving never hides a critical alarm
}

RANK: dict[Severity, int] = {
    Severity.INFO: 0,
    Severity.LOW: 1,
    Severity.NO_DATA: 2,
    Severity.HIGH: 3,
    Severity.CRIT: 4,
}
FIRST_CODE, LAST_CODE = 1000, 9999
_Key = tuple[str, str]  # machine, condition
CLEAR_CONFIDENCE = 0.60  # below it a message says what was seen, not what is wrong


@dataclass(frozen=True, slots=True)
class StandingAlarm:
    """One alarm that is not normal: its last transition, and whether its condition is there.

    What a restart needs in order to repeat nothing and to forget nothing; JSON-able by msgspec.

    Attributes:
        began_utc_ns: when the condition showed, by the wall clock as it is now: it moves when the clock is set, what was told
            (`event`) does not.
        shelved_until_utc_ns: likewise. shelved_s: for how long in all.
    """

    event: AlarmEvent
    standing: bool
    began_utc_ns: int | None = None
    shelved_until_utc_ns: int | None = None
    shelved_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What a detector says: this is wrong with this machine, this badly, because of this.

    Attributes: standing_s: since when it shows, on the monotonic clock.
    """

    machine: str
    name: str
    alarm_class: AlarmClass
    severity: Severity
    onset_utc_ns: int
    explanation: Explanation
    model: Mapping[str, str] = field(default_factory=dict)
    standing_s: float = 0.0


def alarm_id(machine: str, condition: str, onset_utc_ns: int) -> str:
    """16 hex digits: the same alarm has the same id in every replay of the same recording."""
    identity = f"{machine}\0{condition}\0{onset_utc_ns}".encode()
    return hashlib.blake2b(identity, digest_size=8).hexdigest()


@dataclass(slots=True)
class _Lasts:
    """Since when an alarm is there and until when it is shelved, on the monotonic clock, which no restart keeps."""

    began_ns: int
    shelf_ends_ns: int


class AlarmBook:
    """The alarms that are not normal, one for each machine and condition.

    Args:
        compose: an event's whole message in words; called once the alarm has its code (`Words.alarm_text`).
        restored: what `states()` said before a restart; nothing is announced again.
    """

    def __init__(self, compose: Callable[[AlarmEvent], str], restored: Iterable[StandingAlarm] = ()) -> None:
        self._compose = compose
        self._alarms = {_key(alarm): alarm for alarm in restored}
        self._lasts: dict[_Key, _Lasts] = {}

    def raise_(self, condition: Condition, now: Moment) -> list[AlarmEvent]:
        """The condition is there. Silent when it already was, unless it became more severe or its cause clear."""
        alarm = self._alarms.get((condition.machine, condition.name))
        if alarm is None:
            first = StandingAlarm(self._first_event(condition), standing=True)
            self._begin(first, condition, now)
            return self._move(first, Trigger.RAISE, now)
        rose = RANK[condition.severity] > RANK[alarm.event.severity]
        cause = clear_cause(condition.explanation)
        is_news = cause != "" and cause != clear_cause(alarm.event.explanation)
        if alarm.event.state in HELD:
            return self._raise_held(alarm, condition, rose, now)
        if not alarm.standing:
            again = replace(_retold(alarm.event, condition), onset_utc_ns=condition.onset_utc_ns)
            self._begin(alarm, condition, now)
            return self._move(replace(alarm, event=again, standing=True), Trigger.RAISE, now)
        if rose or is_news:
            return self._move(replace(alarm, event=_retold(alarm.event, condition)), Trigger.ESCALATE, now)
        return []

    def clear(self, machine: str, condition: str, now: Moment) -> list[AlarmEvent]:
        """The condition is gone. Unknown or already cleared: nothing."""
        alarm = self._alarms.get((machine, condition))
        if alarm is None or not alarm.standing:
            return []
        gone = replace(alarm, standing=False)
        self._alarms[machine, condition] = gone
        return self._move(gone, Trigger.CLEAR, now)

    def acknowledge(self, name: str, now: Moment) -> list[AlarmEvent]:
        """Somebody has it. `name` is an alarm's code or id."""
        return self._by_name(name, Trigger.ACKNOWLEDGE, now)

    def shelve(self, name: str, for_s: float, now: Moment) -> list[AlarmEvent]:
        """Quiet for so long; `tick` brings it back. A critical alarm cannot be shelved."""
        alarm = self.find(name)
        if alarm is None or alarm.event.severity is Severity.CRIT or alarm.event.state in HELD:
            return []
        self._lasting(alarm, now).shelf_ends_ns = now.monotonic_ns + round(for_s * 1e9)
        return self._move(replace(alarm, shelved_s=for_s), Trigger.SHELVE, now)

    def suppress(self, name: str, now: Moment) -> list[AlarmEvent]:
        """Quiet by design: the plant's state makes it meaningless."""
        return self._by_name(name, Trigger.SUPPRESS, now)

    def remove(self, name: str, now: Moment) -> list[AlarmEvent]:
        """Out of service, for repair of the machine or its sensor."""
        return self._by_name(name, Trigger.REMOVE, now)

    def restore(self, name: str, now: Moment) -> list[AlarmEvent]:
        """Back from the shelf, from suppression or from out of service: as its condition is now."""
        alarm = self.find(name)
        if alarm is None:
            return []
        trigger = Trigger.RETURN_STANDING if alarm.standing else Trigger.RETURN
        return self._move(alarm, trigger, now)

    def tick(self, now: Moment) -> list[AlarmEvent]:
        """Brings back what was shelved until now."""
        shelved = [alarm for alarm in self._alarms.values() if alarm.event.state == State.SHELVED]
        expired = [alarm for alarm in shelved if self._lasting(alarm, now).shelf_ends_ns <= now.monotonic_ns]
        return [event for alarm in expired for event in self.restore(alarm.event.alarm_id, now)]

    def clock_was_set(self, believed: Moment, now: Moment) -> None:
        """Nothing lasts longer or shorter for it; what a restart would go by is told by the clock as it is now.

        Args: believed: now, by the clock that dated what was restored: as it was before, or now where it had not been set.
        """
        for alarm in self._alarms.values():
            self._lasting(alarm, believed)
        self._alarms = {key: self._dated(alarm, now) for key, alarm in self._alarms.items()}

    def find(self, name: str) -> StandingAlarm | None:
        """The alarm with this code or id."""
        return next(
            (alarm for alarm in self._alarms.values() if name in (alarm.event.code, alarm.event.alarm_id)), None
        )

    def states(self) -> tuple[StandingAlarm, ...]:
        """Every alarm that is not normal, in the order in which they came."""
        return tuple(self._alarms.values())

    def _by_name(self, name: str, trigger: Trigger, now: Moment) -> list[AlarmEvent]:
        alarm = self.find(name)
        return self._move(alarm, trigger, now) if alarm else []

    def _raise_held(self, alarm: StandingAlarm, condition: Condition, rose: bool, now: Moment) -> list[AlarmEvent]:
        """Remembered for the return; only a critical one comes off the shelf by itself."""
        if not alarm.standing:
            self._begin(alarm, condition, now)
        event = _retold(alarm.event, condition) if rose or not alarm.standing else alarm.event
        alarm = self._dated(replace(alarm, event=event, standing=True), now)
        self._alarms[_key(alarm)] = alarm
        return self._move(alarm, Trigger.ESCALATE, now) if rose and event.severity is Severity.CRIT else []

    def _begin(self, alarm: StandingAlarm, condition: Condition, now: Moment) -> None:
        """The condition came, or came again."""
        self._lasting(alarm, now).began_ns = now.monotonic_ns - round(condition.standing_s * 1e9)

    def _lasting(self, alarm: StandingAlarm, now: Moment) -> _Lasts:
        """What the monotonic clock says of an alarm, or the wall clock of one from before a restart.

        The wall clock may not be set yet, or have been set meanwhile: nothing has lasted less than was told, and no shelf
        lasts longer than it was to.
        """
        if _key(alarm) not in self._lasts:
            began_utc_ns = alarm.event.onset_utc_ns if alarm.began_utc_ns is None else alarm.began_utc_ns
            lasted_ns = max(round(alarm.event.standing_s * 1e9), now.utc_ns - began_utc_ns)
            left_ns = min((alarm.shelved_until_utc_ns or 0) - now.utc_ns, round(alarm.shelved_s * 1e9))
            self._lasts[_key(alarm)] = _Lasts(now.monotonic_ns - lasted_ns, now.monotonic_ns + left_ns)
        return self._lasts[_key(alarm)]

    def _dated(self, alarm: StandingAlarm, now: Moment) -> StandingAlarm:
        """The alarm with its times by the wall clock as it is now."""
        lasts, offset_ns = self._lasting(alarm, now), now.utc_ns - now.monotonic_ns
        shelved_until = lasts.shelf_ends_ns + offset_ns if alarm.event.state == State.SHELVED else None
        return replace(alarm, began_utc_ns=lasts.began_ns + offset_ns, shelved_until_utc_ns=shelved_until)

    def _first_event(self, condition: Condition) -> AlarmEvent:
        identity = alarm_id(condition.machine, condition.name, condition.onset_utc_ns)
        return AlarmEvent(
            alarm_id=identity,
            code=self._free_code(identity),
            machine=condition.machine,
            condition=condition.name,
            alarm_class=condition.alarm_class,
            severity=condition.severity,
            state=State.NORMAL,
            previous_state=State.NORMAL,
            trigger=Trigger.RAISE,
            onset_utc_ns=condition.onset_utc_ns,
            utc_ns=condition.onset_utc_ns,
            explanation=condition.explanation,
            text="",
            model=dict(condition.model),
        )

    def _free_code(self, identity: str) -> str:
        """Four digits, by the alarm's own id where they are free, so that a replay finds the same."""
        n_codes = LAST_CODE - FIRST_CODE + 1
        first = int(identity, 16) % n_codes
        candidates = itertools.chain(
            (FIRST_CODE + (first + i) % n_codes for i in range(n_codes)), itertools.count(LAST_CODE + 1)
        )
        taken = {alarm.event.code for alarm in self._alarms.values()}
        return next(code for code in map(str, candidates) if code not in taken)

    def _move(self, alarm: StandingAlarm, trigger: Trigger, now: Moment) -> list[AlarmEvent]:
        before = State(alarm.event.state)
        after = NEXT.get((before, trigger))
        if after is None:
            return []
        event = replace(
            alarm.event,
            state=str(after),
            previous_state=str(before),
            trigger=str(trigger),
            utc_ns=now.utc_ns,
            standing_s=(now.monotonic_ns - self._lasting(alarm, now).began_ns) / 1e9,
        )
        event = replace(event, text=self._compose(event))
        key = _key(alarm)
        if after is State.NORMAL:
            self._alarms.pop(key, None)
            del self._lasts[key]
        else:
            self._alarms[key] = self._dated(replace(alarm, event=event), now)
        return [event]


def _key(alarm: StandingAlarm) -> _Key:
    return alarm.event.machine, alarm.event.condition


def clear_cause(explanation: Explanation) -> str:
    """The fault that is likely enough to be named, or nothing."""
    first = explanation.causes[0] if explanation.causes else None
    return first.fault if first is not None and first.confidence >= CLEAR_CONFIDENCE else ""


def _retold(event: AlarmEvent, condition: Condition) -> AlarmEvent:
    """The same alarm with what is known now; while it stands its severity does not fall."""
    severity = max(event.severity, condition.severity, key=RANK.__getitem__)
    return replace(event, severity=severity, explanation=condition.explanation, model=dict(condition.model))
