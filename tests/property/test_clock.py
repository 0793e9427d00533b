"""A wall clock that is set is noticed once, by its size; a time server that pulls it along is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import DRIFT_NS, JUMP_NS, MAX_SLEW, SET_SINCE_UTC_NS, ClockWatch, Moment, moment_of

S = 1_000_000_000
NOW_UTC_NS = SET_SINCE_UTC_NS + 10**16
HOUR_NS = 3600 * S


class Life:
    """A gateway's two clocks, and the watch that looks at them."""

    def __init__(self, utc_ns: int = NOW_UTC_NS) -> None:
        self.watch = ClockWatch(SET_SINCE_UTC_NS)
        self.now = Moment(utc_ns, 5 * S)
        assert self.watch.look(self.now) is None

    def after(self, elapsed_ns: int, moved_ns: int):
        """A time later, in which the wall clock was moved."""
        self.now = Moment(self.now.utc_ns + elapsed_ns + moved_ns, self.now.monotonic_ns + elapsed_ns)
        return self.watch.look(self.now)


looks = st.integers(S // 10, 600 * S)  # a stalled thread looks late
slews = st.floats(-MAX_SLEW, MAX_SLEW)
jumps = st.integers(2 * JUMP_NS, 60 * 365 * 24 * HOUR_NS).flatmap(lambda size: st.sampled_from([size, -size]))


@given(st.lists(st.tuples(looks, slews, st.one_of(st.just(0), jumps)), max_size=60))
def test_every_jump_is_one_step_of_its_size_and_slewing_is_none(history: list[tuple[int, float, int]]) -> None:
    """A missed step leaves records that nobody can date; a false one dates good records wrong."""
    life = Life()
    for elapsed_ns, slew, jump_ns in history:
        slewed_ns = round(slew * elapsed_ns)
        step = life.after(elapsed_ns, slewed_ns + jump_ns)
        assert (step is not None) == (jump_ns != 0)
        if step is not None:
            assert step.to_utc_ns == life.now.utc_ns
            assert step.to_utc_ns - step.from_utc_ns == jump_ns + slewed_ns
    assert life.watch.n_steps == sum(jump_ns != 0 for _, _, jump_ns in history)


@given(st.lists(st.integers(-JUMP_NS, JUMP_NS), max_size=200))
def test_what_is_told_is_never_further_than_two_seconds_from_what_was_done(jumps_ns: list[int]) -> None:
    """Many jumps that are each too small to tell add up: together they are told."""
    life = Life()
    steps = [life.after(S, jump_ns) for jump_ns in jumps_ns]
    told_ns = sum(step.to_utc_ns - step.from_utc_ns for step in steps if step is not None)
    slewed_ns = round(MAX_SLEW * S) * len(jumps_ns)
    assert abs(sum(jumps_ns) - told_ns) <= DRIFT_NS + slewed_ns


@pytest.mark.parametrize(
    ("utc_ns", "moved_ns", "was_set", "is_set"),
    [
        (10 * S, NOW_UTC_NS, False, True),  # no battery-backed clock; the time server answers
        (NOW_UTC_NS, HOUR_NS, True, True),
        (NOW_UTC_NS, -HOUR_NS, True, True),
        (NOW_UTC_NS, -NOW_UTC_NS, True, False),
    ],
)
def test_a_step_says_whether_the_clock_was_set_before_and_is_now(
    utc_ns: int, moved_ns: int, was_set: bool, is_set: bool
) -> None:
    """Only the times of a clock that was not set are marked."""
    life = Life(utc_ns)
    assert life.watch.is_set == was_set
    step = life.after(S, moved_ns)
    assert (step.was_set, step.is_set, step.step_s) == (was_set, is_set, moved_ns / 1e9)
    assert (life.watch.is_set, life.watch.last_step_s) == (is_set, step.step_s)


def test_a_thread_put_aside_between_two_readings_sees_no_step() -> None:
    """Three seconds pass between reading one clock and the other; the next pair is close, and counts."""

    class Interrupted:
        now_ns = 0
        n_readings = 0

        def utc_ns(self) -> int:
            return self._read() + NOW_UTC_NS

        def monotonic_ns(self) -> int:
            return self._read()

        def _read(self) -> int:
            self.n_readings += 1
            self.now_ns += 3 * S if self.n_readings == 2 else 1000
            return self.now_ns

    moment = moment_of(Interrupted())
    assert abs(moment.utc_ns - NOW_UTC_NS - moment.monotonic_ns) <= 1000
