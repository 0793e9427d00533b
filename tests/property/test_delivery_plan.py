"""What is sent next, again and never more, decided without a network."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agent.deliver import DeliveryPlan
from agent.store import StoredRecord


def record(seq: int, stream: str = "feature") -> StoredRecord:
    return StoredRecord(stream, seq, "M-1", 0, "{}")


def send(plan: DeliveryPlan, *records: StoredRecord, now_s: float = 0.0) -> None:
    for item in records:
        plan.sent(item, now_s)


def test_the_window_is_never_exceeded_and_known_records_are_not_chosen_again() -> None:
    """The store shows in-flight records as pending; sending them twice would be our own doing."""
    plan = DeliveryPlan(window=3)
    pending = [record(i) for i in range(1, 10)]
    chosen = plan.choose(pending, plan.room())
    assert [r.seq for r in chosen] == [1, 2, 3]
    send(plan, *chosen)
    assert plan.room() == 0
    plan.published(("feature", 2), 1.0)
    assert [r.seq for r in plan.choose(pending, plan.room())] == [4]
    assert plan.n_to_look_at() >= 3 + 2


def test_a_puback_is_not_delivery() -> None:
    """Published but not confirmed comes again after 30 s, then 60 s; confirmed never."""
    plan = DeliveryPlan(resend_after_s=30)
    send(plan, record(1), record(2))
    for seq in (1, 2):
        plan.published(("feature", seq), 1.0)
    assert plan.due_again(30.9, 10) == []
    assert plan.confirmed("feature", [(2, 7)]) == 1
    assert plan.due_again(31.0, 10) == [("feature", 1)]
    send(plan, record(1), now_s=31.0)
    plan.published(("feature", 1), 32.0)
    assert plan.due_again(91.9, 10) == []
    assert plan.due_again(92.0, 10) == [("feature", 1)]
    plan.confirmed("feature", [(1, 1)])
    assert plan.due_again(1e9, 10) == []
    assert plan.n_unconfirmed == 0


def test_a_broker_may_be_believed_if_the_site_says_so() -> None:
    """confirm = "broker": the PUBACK ends it."""
    plan = DeliveryPlan(confirm="broker")
    send(plan, record(1))
    plan.published(("feature", 1), 0.0)
    assert plan.n_unconfirmed == 0


def test_a_lost_connection_makes_everything_unconfirmed_due_alarms_first() -> None:
    """In flight or published alike: nobody knows what the broker still has."""
    plan = DeliveryPlan()
    send(plan, record(1), record(1, "burst"), record(1, "alarm"))
    plan.published(("feature", 1), 1.0)
    plan.connection_lost(5.0)
    assert plan.n_in_flight == 0
    assert plan.due_again(5.0, 10) == [("alarm", 1), ("feature", 1), ("burst", 1)]
    assert plan.due_again(5.0, 1) == [("alarm", 1)]


def test_an_absent_collector_stops_everything_but_alarms() -> None:
    """Otherwise a month of backlog would be sent again and again."""
    plan = DeliveryPlan(window=50, unconfirmed=10)
    for seq in range(10):
        send(plan, record(seq))
        plan.published(("feature", seq), 0.0)
    assert plan.choose([record(99), record(1, "alarm"), record(100)], plan.room())[0].key == ("alarm", 1)
    assert len(plan.choose([record(99), record(1, "alarm"), record(100)], plan.room())) == 1
    plan.confirmed("feature", [(0, 1)])
    assert len(plan.choose([record(99), record(100), record(101)], plan.room())) == 2


def test_what_is_refused_for_ever_does_not_block_the_others() -> None:
    """Five refusals, each after a longer wait, and it is dead; the queue behind it flows meanwhile."""
    plan = DeliveryPlan(window=1, max_refusals=3, resend_after_s=30)
    now_s = 0.0
    outcomes = []
    for attempt in range(3):
        send(plan, record(1), now_s=now_s)
        outcomes.append(plan.refused(("feature", 1), now_s))
        if attempt < 2:
            assert plan.choose([record(1), record(2)], plan.room())[0].seq == 2
            assert plan.due_again(now_s + 29, 10) == []
            now_s += 30 * 2**attempt
            assert plan.due_again(now_s, 10) == [("feature", 1)]
    assert outcomes == [False, False, True]
    assert plan.n_unconfirmed == 0


@pytest.mark.parametrize("late", [False, True])
def test_late_is_decided_at_the_first_sending(late: bool) -> None:
    """A record that waited in the buffer says so; sending it again changes nothing about it."""
    plan = DeliveryPlan()
    assert plan.sent(replace(record(1), late=late), 0.0) is late
    plan.connection_lost(1.0)
    assert plan.sent(replace(record(1), late=True), 2.0) is late


def test_any_history_of_losses_ends_with_every_record_confirmed_or_dead() -> None:
    """100 seeds of a network that loses PUBACKs, confirmations and connections; nothing is forgotten, nothing leaks."""
    for seed in range(100):
        rng = random.Random(seed)
        plan = DeliveryPlan(window=5, unconfirmed=20, resend_after_s=1, resend_max_s=8)
        outbox = {("alarm" if rng.random() < 0.2 else "feature", seq): None for seq in range(40)}
        received: set[tuple[str, int]] = set()
        now_s = 0.0
        while outbox:
            now_s += 0.5
            assert now_s < 5000, f"seed {seed} does not come to an end"
            due = plan.due_again(now_s, plan.room())
            new = plan.choose([record(seq, stream) for stream, seq in outbox], plan.room() - len(due))
            for item in [record(seq, stream) for stream, seq in due] + new:
                plan.sent(item, now_s)
                assert 0 <= plan.n_in_flight <= 5
                if rng.random() < 0.7:
                    received.add(item.key)
                if rng.random() < 0.7:
                    plan.published(item.key, now_s)
            if rng.random() < 0.3:
                plan.connection_lost(now_s)
            for stream, seq in [key for key in received if key in outbox and rng.random() < 0.3]:
                plan.confirmed(stream, [(seq, seq)])
                del outbox[stream, seq]
        assert plan.n_unconfirmed == 0
        assert plan.n_in_flight == 0
