"""When a model alarm ends and when the next may come: with the tracker behind it, on made scores, one decision a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from agent.config import DecisionSection
from agent.decision.episode import Episode
from agent.decision.threshold import ConditionTracker

S = 1_000_000_000


def stands(scores: Sequence[float], *, tracker_off_delay_s: float = 0.0, **options: float) -> list[bool]:
    """Whether the alarm stands after each decision; scores in thresholds, not averaged."""
    decision = DecisionSection(k=3, m=5, off_delay_s=tracker_off_delay_s, **options)  # type: ignore[arg-type]
    episode = Episode(decision)
    tracker = ConditionTracker(k=3, m=5, off_delay_s=tracker_off_delay_s)
    told = []
    for second, score in enumerate(scores):
        excess = episode.step(score - 1.0, score, tracker.standing, second * S)
        tracker.step(excess, second * S, second * S)
        told.append(tracker.standing)
    return told


def n_raised(told: Sequence[bool]) -> int:
    return int((np.diff(np.asarray([False, *told], np.int8)) > 0).sum())


def test_without_the_options_nothing_changes() -> None:
    """A site that states none of them has the tracker's own alarms, decision for decision."""
    scores = np.random.default_rng(3).exponential(0.7, 2000).tolist()
    tracker = ConditionTracker(k=3, m=5)
    plain = []
    for second, score in enumerate(scores):
        tracker.step(score - 1.0, second * S, second * S)
        plain.append(tracker.standing)
    assert stands(scores) == plain
    assert n_raised(plain) > 5


def test_a_fault_that_comes_in_bursts_is_one_alarm() -> None:
    """Ten seconds of knocking every minute: one alarm to look at, not five that were gone when somebody came."""
    bursts = [8.0 if second % 60 < 10 else 0.2 for second in range(300)]
    assert n_raised(stands(bursts)) == 5
    once = stands(bursts + [0.2] * 100, least_standing_s=300)
    assert n_raised(once) == 1
    assert 300 <= sum(once) <= 310


def test_an_alarm_is_over_when_it_has_suddenly_fallen_to_a_share_of_what_it_was() -> None:
    """A valve opens again and seats a little differently: 40 thresholds become 2, and that is the end."""
    scores = [0.2] * 20 + [40.0] * 200 + [2.0] * 100
    assert stands(scores)[-1]
    told = stands(scores, return_ratio=0.3, settle_s=300)
    assert told[219]
    assert not any(told[224:]), "k of m after the fall"


@pytest.mark.parametrize("fading_s", [600, 3600])
def test_a_fault_that_fades_slowly_ends_at_the_threshold(fading_s: int) -> None:
    """The fall is measured against the last minute: nothing that is still far from normal is called over."""
    fading = np.geomspace(40.0, 0.5, fading_s)
    told = np.asarray(stands([0.2] * 20 + fading.tolist(), return_ratio=0.3, settle_s=300))[20:]
    assert fading[np.flatnonzero(told)[-1]] < 1.1


def test_a_violent_beginning_does_not_make_what_stays_look_small() -> None:
    """A spike of 400 thresholds and then 20 for an hour: it stands for the hour."""
    scores = [0.2] * 20 + [400.0] * 10 + [20.0] * 3600
    assert all(stands(scores, least_standing_s=300, return_ratio=0.3, settle_s=300)[25:])


def test_what_stays_after_the_settling_time_is_told_again() -> None:
    """A return to a share that is still beyond the threshold is an end for `settle_s`, not for good."""
    scores = [0.2] * 20 + [40.0] * 200 + [5.0] * 400
    told = stands(scores, return_ratio=0.3, settle_s=300)
    assert n_raised(told) == 2
    second = np.flatnonzero(~np.asarray(told[220:]))[-1] + 221
    assert 300 <= second - 220 <= 310


def test_while_the_machine_settles_nothing_is_raised() -> None:
    """The swing after a disturbance is part of it."""
    scores = [0.2] * 20 + [40.0] * 200 + [0.1] * 30 + [6.0] * 60 + [0.1] * 300
    assert n_raised(stands(scores)) == 2
    assert n_raised(stands(scores, settle_s=300)) == 1


def test_the_off_delay_counts_from_the_return() -> None:
    """A return that does not last the off-delay is none."""
    fallen = [0.2] * 20 + [40.0] * 200 + [2.0] * 40
    options = {"return_ratio": 0.3, "settle_s": 300.0, "tracker_off_delay_s": 60.0}
    assert all(stands([*fallen, *[40.0] * 60], **options)[25:])
    over = stands([*fallen, *[2.0] * 60], **options)
    assert 280 <= over.index(False, 30) <= 286
