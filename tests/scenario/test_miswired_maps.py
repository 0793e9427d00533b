"""200 simulated miswired maps: the right candidate first in at least 95 % of them, and in the list always.

The machines are drawn by simulator/running.py and the demo's plant, the mistakes by simulator/miswired.py; neither looks at
what the ranking believes. It was worked out on seeds 1 to 12, and on fewer devices than there are now.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_bridge.commissioning.plausible import rank
from simulator.miswired import COUNTED, KINDS, Outcome, miswired, miswired_report, summary

CONFIG = Path(__file__).resolve().parents[2] / "config"
SEED = 20262


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return miswired_report(CONFIG, SEED, 200, COUNTED)


def test_the_right_candidate_is_first_in_95_percent_of_200_miswired_maps(outcomes: list[Outcome]) -> None:
    """Word order, base, scale and all their combinations, each device with at least five values.

    Five seeds that it was not worked out on (201 to 205, 1000 maps) gave 100, 99.0, 98.5, 99.5 and 98.0 %.
    """
    assert len(outcomes) == 200
    assert {outcome.kind for outcome in outcomes} == set(COUNTED)
    assert sum(outcome.place == 1 for outcome in outcomes) >= 0.95 * len(outcomes), "\n".join(summary(outcomes))


def test_the_list_always_contains_the_right_candidate(outcomes: list[Outcome]) -> None:
    """Every word order with every base and scale is in it; and the right one not at its end, for people read ten lines."""
    assert [outcome for outcome in outcomes if not outcome.place] == []
    assert sum(outcome.place <= 10 for outcome in outcomes) >= 0.99 * len(outcomes)


def test_a_wrong_first_candidate_is_said_to_be_unsure(outcomes: list[Outcome]) -> None:
    """A wrong answer that is sure of itself is worse than none: at most one in a hundred (1 in 1000 over seeds 201 to 205).

    And few right ones hesitate: 5 %.
    """
    sure_and_wrong = [outcome for outcome in outcomes if outcome.place != 1 and not outcome.ambiguous]
    assert len(sure_and_wrong) <= 0.01 * len(outcomes), sure_and_wrong
    assert sum(outcome.ambiguous for outcome in outcomes) <= 0.1 * len(outcomes)


def test_a_right_map_stays_first() -> None:
    """Commissioning that talks people out of a right map would be worse than none."""
    right = miswired_report(CONFIG, SEED + 1, 24, ("right",))
    assert sum(outcome.place == 1 for outcome in right) >= 0.95 * len(right), "\n".join(summary(right))


def test_slips_of_single_quantities_are_proposed_though_often_not_first() -> None:
    """0.3 g or 0.3 m/s2, 105 degC or 105 degF, 6 A or 60 A: all of them exist, so these are proposed and not decided.

    Over seeds 201 to 205 the right one is first in 60 to 75 % of each kind and in the list in all but one of 400; one in nine
    is wrong and sure of itself.
    """
    slips = miswired_report(CONFIG, SEED + 2, 32, KINDS[len(COUNTED) + 1 :])
    assert sum(outcome.place > 0 for outcome in slips) >= 0.9 * len(slips), "\n".join(summary(slips))
    assert sum(outcome.place == 1 for outcome in slips) >= 0.5 * len(slips), "\n".join(summary(slips))


def test_the_weights_are_shares_of_one_in_the_order_of_the_list() -> None:
    """People read them as probabilities."""
    for case in miswired(CONFIG, SEED, 3):
        weights = [candidate.weight for candidate in rank(case.written, case.samples).candidates]
        assert weights == sorted(weights, reverse=True)
        assert 0.9 < sum(weights) <= 1.0 + 1e-9
