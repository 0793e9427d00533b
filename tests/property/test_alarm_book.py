"""ISA-18.2's life of an alarm: the table is complete and the book keeps it, whatever happens in whatever order."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.clock import Moment
from agent.decision.alarm import HELD, NEXT, AlarmBook, Condition, StandingAlarm, State, Trigger
from agent.vocabulary import AlarmClass, AlarmEvent, Cause, Explanation, Severity

MACHINES = ("M-1", "P-2")
CONDITIONS = ("model", "limit:dry_run")


def explanation(confidence: float = 0.0) -> Explanation:
    causes = (Cause("unbalance", "unbalance", confidence),) if confidence else ()
    return Explanation((), causes, "look", None, "good")


def condition(
    machine: str = "M-1", name: str = "model", severity: Severity = Severity.HIGH, at: int = 5, confidence: float = 0.0
) -> Condition:
    return Condition(machine, name, AlarmClass.MODEL, severity, at, explanation(confidence))


def book(*restored: StandingAlarm) -> AlarmBook:
    return AlarmBook(lambda event: f"{event.machine} {event.code} {event.state}", restored)


def at(time_ns: int) -> Moment:
    return Moment(time_ns, time_ns)


def test_every_state_is_reached_and_left() -> None:
    """A state without a way in or out would hide alarms or keep them for ever."""
    assert set(NEXT.values()) == set(State)
    assert {state for state, _ in NEXT} == set(State)


def test_held_states_hear_nothing_but_their_end() -> None:
    """Shelved, suppressed and out of service stay silent whatever the condition does; only a critical one breaks a shelf."""
    for state, trigger in itertools.product(HELD, (Trigger.RAISE, Trigger.CLEAR, Trigger.ACKNOWLEDGE)):
        assert (state, trigger) not in NEXT
    assert {state for state, trigger in NEXT if trigger is Trigger.ESCALATE and state in HELD} == {State.SHELVED}


def test_the_ordinary_life() -> None:
    """A to B to C to A, and by way of D when it clears before somebody looked."""
    alarms = book()
    states = [event.state for event in alarms.raise_(condition(), at(10))]
    states += [event.state for event in alarms.acknowledge(alarms.states()[0].event.code, at(20))]
    states += [event.state for event in alarms.clear("M-1", "model", at(30))]
    assert states == [State.UNACKNOWLEDGED, State.ACKNOWLEDGED, State.NORMAL]
    first = alarms.raise_(condition(at=40), at(41))[0]
    assert alarms.clear("M-1", "model", at(50))[0].state == State.RTN_UNACKNOWLEDGED
    again = alarms.raise_(condition(at=60), at(61))[0]
    assert (again.state, again.alarm_id, again.code) == (State.UNACKNOWLEDGED, first.alarm_id, first.code)


def test_an_unclear_cause_that_becomes_clear_is_told_once() -> None:
    """The technician on his way should know; but not with every window."""
    alarms = book()
    alarms.raise_(condition(severity=Severity.LOW), at(10))
    assert [event.trigger for event in alarms.raise_(condition(severity=Severity.LOW, confidence=0.8), at(20))] == [
        "escalate"
    ]
    assert alarms.raise_(condition(severity=Severity.LOW, confidence=0.9), at(30)) == []


def test_a_shelf_ends_as_the_condition_is_then() -> None:
    """What went away while shelved comes back as normal, what stands comes back as an alarm."""
    for gone, expected in ((True, State.NORMAL), (False, State.UNACKNOWLEDGED)):
        alarms = book()
        code = alarms.raise_(condition(), at(10))[0].code
        assert alarms.shelve(code, 80e-9, at(20))[0].state == State.SHELVED
        assert alarms.clear("M-1", "model", at(30)) == [] if gone else alarms.raise_(condition(), at(30)) == []
        assert alarms.tick(at(99)) == []
        assert [event.state for event in alarms.tick(at(100))] == [expected]


def test_a_critical_alarm_cannot_be_hidden_on_a_shelf() -> None:
    """Neither by shelving it nor by shelving it first."""
    alarms = book()
    code = alarms.raise_(condition(severity=Severity.CRIT), at(10))[0].code
    assert alarms.shelve(code, 80e-9, at(20)) == []
    alarms = book()
    code = alarms.raise_(condition(), at(10))[0].code
    alarms.shelve(code, 80e-9, at(20))
    assert alarms.raise_(condition(severity=Severity.CRIT), at(30))[0].state == State.UNACKNOWLEDGED


def test_ids_are_those_of_a_replay_and_codes_are_not_shared() -> None:
    """The same recording gives the same ids; two standing alarms never answer to one code, not even 3,000 of them."""
    first, second = book(), book()
    for alarms in (first, second):
        for number in range(3000):
            alarms.raise_(condition(machine=f"M-{number}", at=number), at(number))
    assert first.states() == second.states()
    codes = [alarm.event.code for alarm in first.states()]
    assert len(set(codes)) == 3000
    assert all(len(code) == 4 for code in codes)


class Life(RuleBasedStateMachine):
    """Random histories, with restarts through JSON and a wall clock that is set in between."""

    def __init__(self) -> None:
        super().__init__()
        self.book = book()
        self.now = 0
        self.ahead = 0  # of the wall clock
        self.standing: set[tuple[str, str]] = set()
        self.state: dict[str, str] = {}

    def moment(self) -> Moment:
        return Moment(self.now + self.ahead, self.now)

    def note(self, events: list[AlarmEvent]) -> None:
        for event in events:
            assert NEXT[State(event.previous_state), Trigger(event.trigger)] == event.state
            assert event.previous_state == self.state.get(event.alarm_id, State.NORMAL)
            assert event.text
            assert 0 <= event.standing_s <= self.now / 1e9
            self.state[event.alarm_id] = event.state

    @rule(machine=st.sampled_from(MACHINES), name=st.sampled_from(CONDITIONS), severity=st.sampled_from(list(Severity)))
    def raise_(self, machine: str, name: str, severity: Severity) -> None:
        self.now += 1
        self.standing.add((machine, name))
        self.note(self.book.raise_(condition(machine, name, severity, self.moment().utc_ns), self.moment()))

    @rule(machine=st.sampled_from(MACHINES), name=st.sampled_from(CONDITIONS))
    def clear(self, machine: str, name: str) -> None:
        self.now += 1
        self.standing.discard((machine, name))
        self.note(self.book.clear(machine, name, self.moment()))

    @rule(
        what=st.sampled_from(["acknowledge", "suppress", "remove", "restore", "shelve", "tick"]),
        which=st.integers(0, 3),
    )
    def by_hand(self, what: str, which: int) -> None:
        self.now += 1
        alarms = self.book.states()
        code = alarms[which].event.code if which < len(alarms) else "none"
        arguments: tuple[Any, ...] = (code, self.moment())
        if what == "shelve":
            arguments = (code, 3e-9, self.moment())
        elif what == "tick":
            arguments = (self.moment(),)
        self.note(getattr(self.book, what)(*arguments))

    @rule(by=st.sampled_from([-100, -5, 5, 100]))
    def set_clock(self, by: int) -> None:
        before = self.moment()
        self.ahead += by
        self.book.clock_was_set(before, self.moment())

    @rule()
    def restart(self) -> None:
        kept = msgspec.json.encode(self.book.states())
        self.book = book(*msgspec.json.decode(kept, type=tuple[StandingAlarm, ...]))

    @invariant()
    def a_condition_that_stands_is_in_the_book(self) -> None:
        known = {(alarm.event.machine, alarm.event.condition): alarm for alarm in self.book.states()}
        assert {key for key, alarm in known.items() if alarm.standing} == self.standing
        assert all(alarm.event.state != State.NORMAL for alarm in known.values())
        for key, alarm in known.items():
            if alarm.event.state in (State.UNACKNOWLEDGED, State.ACKNOWLEDGED):
                assert key in self.standing


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
