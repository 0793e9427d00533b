"""One unit's turn: what each refusal teaches, when it may be asked again, and that nothing is asked for ever."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.device import DeviceProfile, Point, Span
from firmware_bridge.measurement import Quality
from firmware_bridge.poll import HOLES_AGAIN_S, SILENCE, TROUBLES, UnitPoll

S = 1_000_000_000


def device(addresses: list[int], kind: str = "uint16", **more: object) -> DeviceProfile:
    points = tuple(Point(name=f"p{a}_v", address=a, type=kind, plausible=(-1e9, 1e9)) for a in addresses)
    said = {"vendor": "V", "model": "M", "title": "t", "source": "s", "sees": "all", "update_interval_s": 1.0}
    return DeviceProfile(**said, points=points, **more)


class Device:
    """What a real one does: holes, a largest block, exceptions for the first so many requests, silence."""

    def __init__(
        self, holes: frozenset[int] = frozenset(), max_count: int = 125, first: list[int] | None = None,
        silent: Callable[[Span], bool] = lambda _: False,
    ) -> None:  # fmt: skip
        self.holes, self.max_count, self.first, self.silent = holes, max_count, first or [], silent
        self.asked: list[Span] = []

    def turn(self, poll: UnitPoll, now_ns: int) -> int:
        """A whole poll; the time it ends."""
        n_before = len(self.asked)
        poll.start(now_ns)
        while poll.active:
            now_ns = max(now_ns, poll.ready_ns)
            read = poll.next_read()
            self.asked.append(read)
            assert len(self.asked) < n_before + 500, "it asks for ever"
            if self.silent(read):
                now_ns += S
                poll.silent(now_ns)
            elif self.first:
                poll.refused(self.first.pop(0), now_ns)
            elif read.count > self.max_count:
                poll.refused(3, now_ns)
            elif self.holes & set(range(read.address, read.end)):
                poll.refused(2, now_ns)
            else:
                poll.answered(np.arange(read.address, read.end, dtype=np.uint16), now_ns)
        return now_ns


def quality(poll: UnitPoll) -> list[Quality]:
    return [Quality(int(q)) for q in poll.result()[1]]


@settings(max_examples=150)
@given(
    st.sets(st.integers(0, 60), min_size=2, max_size=25),
    st.sets(st.integers(0, 60), max_size=6),
    st.booleans(),
    st.sampled_from([1, 2, 4, 10, 29, 125]),
)
def test_any_holes_and_any_block_size_are_found_in_one_poll_and_asked_no_more(
    addresses: set[int], holes: set[int], allow_gaps: bool, max_count: int
) -> None:
    """Every register that the device has is read, from the second poll on without a single refused request."""
    poll = UnitPoll(device(sorted(addresses), allow_gaps=allow_gaps))
    real = Device(frozenset(holes), max_count)
    real.turn(poll, S)
    want = [Quality.BAD_COMM if a in holes else Quality.GOOD for a in sorted(addresses)]
    assert quality(poll) == want
    if addresses <= holes:
        assert poll.failures == 1, "nothing of it is there: that is a wrong map or a device that starts, not a hole"
        return
    n_first = len(real.asked)
    real.turn(poll, 2 * S)
    assert quality(poll) == want
    again = real.asked[n_first:]
    assert all(span.count <= max_count and not holes & set(range(span.address, span.end)) for span in again)
    values, _ = poll.result()
    assert all(value == a for value, a in zip(values, sorted(addresses), strict=True) if a not in holes)


def test_one_hole_among_twenty_two_registers_costs_a_search_by_halves() -> None:
    """Not twenty-two requests: on a 9600-baud line each is 35 ms that the neighbours wait."""
    poll = UnitPoll(device(list(range(22))))
    real = Device(frozenset([5]))
    real.turn(poll, S)
    assert len(real.asked) <= 14
    assert poll.reads == (Span(3, 0, 5), Span(3, 6, 16)), "the fewest requests around it, from now on"
    assert poll.trouble == {Span(3, 5, 1): 2}


def test_a_border_that_no_request_may_cross_is_learned() -> None:
    """Some meters give their areas only one by one, although the addresses touch."""
    poll = UnitPoll(device([0, 1, 2, 3]))

    class Bordered(Device):
        def turn(self, poll: UnitPoll, now_ns: int) -> int:
            poll.start(now_ns)
            while poll.active:
                read = poll.next_read()
                self.asked.append(read)
                if read.address < 2 < read.end:
                    poll.refused(2, now_ns)
                else:
                    poll.answered(np.zeros(read.count, np.uint16), now_ns)
            return now_ns

    real = Bordered()
    real.turn(poll, S)
    assert poll.reads == (Span(3, 0, 2), Span(3, 2, 2))
    assert set(quality(poll)) == {Quality.GOOD}


def test_a_hole_is_asked_again_after_a_minute_and_then_ever_more_rarely() -> None:
    """A drive that was still starting gets its registers back; a hole that stays costs one search a day."""
    poll = UnitPoll(device(list(range(8))))
    real = Device(frozenset([3]))
    now = S
    searches = []
    for _ in range(4000):
        n_before = len(real.asked)
        real.turn(poll, now)
        if len(real.asked) - n_before > 2:
            searches.append(now / S)
        now += 60 * S
    gaps_s = np.diff(searches)
    assert gaps_s[:3].tolist() == [60.0, 600.0, 3600.0]
    assert set(gaps_s[3:]) == {HOLES_AGAIN_S[-1]}
    real.holes = frozenset()
    real.turn(poll, now + 86400 * S)
    assert set(quality(poll)) == {Quality.GOOD}
    assert poll.trouble == {}


def test_a_function_that_is_not_known_is_asked_once_an_hour_and_the_others_go_on() -> None:
    """Exception 01 is a mistake in the device file: no retry loop."""
    points = (
        Point(name="a_v", address=0, type="uint16", plausible=(-1.0, 9e9)),
        Point(name="b_v", address=9, type="uint16", function=4, plausible=(-1.0, 9e9)),
        Point(name="c_v", address=19, type="uint16", function=4, plausible=(-1.0, 9e9)),
    )
    profile = DeviceProfile(
        vendor="V", model="M", title="t", source="s", sees="all", update_interval_s=1.0, points=points
    )
    poll = UnitPoll(profile)
    poll.start(S)
    poll.answered(np.array([7], np.uint16), S)
    poll.refused(1, S)
    assert not poll.active
    assert quality(poll) == [Quality.GOOD, Quality.BAD_COMM, Quality.BAD_COMM]
    poll.start(2 * S)
    assert [poll.next_read()] == list(poll.reads) == [Span(3, 0, 1)]


@pytest.mark.parametrize(
    ("code", "waits_s"),
    [(4, [0.0]), (5, [1.0, 1.0, 1.0]), (6, [0.1, 0.2, 0.4])],
    ids=["failure", "acknowledge", "busy"],
)
def test_a_device_that_asks_for_time_gets_it_and_then_is_left_for_this_poll(code: int, waits_s: list[float]) -> None:
    """The waits of the standard's codes, while others are asked; the last refusal is the poll's end."""
    poll = UnitPoll(device([0]))
    now = S
    poll.start(now)
    for wait_s in waits_s:
        poll.refused(code, now)
        assert poll.active
        assert poll.ready_ns - now == round(wait_s * S)
        now = poll.ready_ns
    poll.refused(code, now)
    assert not poll.active
    assert poll.trouble == {Span(3, 0, 1): code}
    assert poll.failures == 1
    real = Device(first=[code])
    real.turn(poll, now + S)
    assert quality(poll) == [Quality.GOOD]
    assert poll.trouble == {}


def test_silence_is_asked_once_more_and_then_the_breaker_opens_step_by_step() -> None:
    """One retry, three failed polls, then a probe after 5, 15 and every 60 s: a dead unit costs its line next to nothing."""
    poll = UnitPoll(device([0]))
    dead = Device(silent=lambda _: True)
    now = dead.turn(poll, S)
    assert len(dead.asked) == 2, "one retry"
    asked_at = []
    for _ in range(200):
        now += S
        if poll.may_ask(now):
            asked_at.append(now / S)
            dead.turn(poll, now)
    gaps_s = np.diff(asked_at)
    assert len(dead.asked) == 2 + len(asked_at), "no retry while it fails"
    assert gaps_s[:4].tolist() == pytest.approx([1.0, 6.0, 16.0, 61.0], abs=1.0)
    dead.silent = lambda _: False
    dead.turn(poll, now + 60 * S)
    assert quality(poll) == [Quality.GOOD]
    assert poll.may_ask(now + 60 * S)


def test_a_gateway_without_a_path_is_left_alone_for_a_minute() -> None:
    """0A is the gateway's own configuration: asking every second changes nothing."""
    poll = UnitPoll(device([0]))
    poll.start(S)
    poll.refused(10, S)
    assert not poll.may_ask(60 * S)
    assert poll.may_ask(61 * S)


def test_a_block_that_stays_silent_while_others_answer_is_left_out() -> None:
    """An older QM30VT2 says nothing to its spectral block instead of refusing it; its other values go on."""
    poll = UnitPoll(device([0, 100]))
    real = Device(silent=lambda read: read.address == 100)
    now = S
    for _ in range(5):
        now = real.turn(poll, now) + S
    n_asked = len(real.asked)
    real.turn(poll, now)
    assert real.asked[n_asked:] == [Span(3, 0, 1)]
    assert quality(poll) == [Quality.GOOD, Quality.BAD_COMM]
    assert poll.trouble == {Span(3, 100, 1): SILENCE}


def test_without_numbers_a_retried_unit_is_left_until_its_first_answer_cannot_come_any_more() -> None:
    """RTU: two answers may be on their way; the second must not be taken for the next request's."""
    poll = UnitPoll(device([0, 100]), quarantine_s=0.5)
    poll.start(S)
    poll.answered(np.array([1], np.uint16), S)
    poll.silent(2 * S)
    assert poll.active
    assert poll.suspect
    poll.answered(np.array([2], np.uint16), 2 * S + 1)
    assert poll.ready_ns == 2 * S + 1 + S // 2
    poll.start(3 * S)
    poll.answered(np.array([1], np.uint16), 3 * S)
    poll.silent(4 * S)
    poll.silent(5 * S)
    assert not poll.active
    assert poll.ready_ns == 5 * S + S // 2


def test_every_cause_says_why_and_what_to_do() -> None:
    """Ten causes and no more: each a line that a person with a screwdriver can act on."""
    assert set(TROUBLES) == {-1, -2, 1, 2, 3, 4, 5, 6, 8, 10, 11}
    assert all(cause.why and cause.do for cause in TROUBLES.values())
