"""StateTracker: told by stories of speed and power, one line each."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agent.machine import StateRule
from agent.state import StateTracker
from agent.vocabulary import Mode, OperatingState

S = 1_000_000_000
NAN = math.nan
RULE = StateRule(starting_s=60.0, dwell_s=30.0)


def keys(tracker, *stretches, start_s=0):
    """Runs stretches of (seconds, speed, power), one reading a second; the states met, in order, repeats left out."""
    met: list[str] = []
    second = start_s
    for seconds, speed_rpm, power_kw in stretches:
        for _ in range(seconds):
            key = tracker.step(speed_rpm, power_kw, second * S).key
            met += [key] if not met or met[-1] != key else []
            second += 1
    return met


def rated():
    return StateTracker(RULE, rated_speed_rpm=1460.0, rated_power_kw=7.5)


STORIES = {
    "found running: one dwell, no start": ([(40, 1460, 6)], ["unknown", "running:10"]),
    "found standing": ([(3, 0, 0)], ["off"]),
    "start, run, coast, stop": (
        [(5, 0, 0), (90, 1460, 6), (5, 1460, 6), (3, 1000, 0), (3, 500, 0), (5, 0, 0)],
        ["off", "starting", "running:10", "coasting", "off"],
    ),
    "a start takes its minute": ([(2, 0, 0), (58, 1460, 6)], ["off", "starting"]),
    "another speed is another bin after its dwell": (
        [(40, 1460, 6), (40, 1168, 3)],
        ["unknown", "running:10", "starting", "running:8"],
    ),
    "speed about a bin's edge stays in its bin": (
        [(40, 1460, 6), *[(1, 1387 + 20 * (-1) ** k, 5) for k in range(40)]],
        ["unknown", "running:10"],
    ),
    "one zero between good readings is no stop": ([(40, 1460, 6), (1, 0, 0), (40, 1460, 6)], ["unknown", "running:10"]),
    "one silent reading is no news": ([(40, 1460, 6), (1, NAN, NAN), (40, 1460, 6)], ["unknown", "running:10"]),
    "long silence is unknown": ([(40, 1460, 6), (40, NAN, NAN)], ["unknown", "running:10", "unknown"]),
    "speed alone is enough": ([(2, 0, NAN), (100, 1460, NAN)], ["off", "starting", "running:10"]),
    "power alone gives no bin": ([(2, NAN, 0), (100, NAN, 6)], ["off", "starting", "running:0"]),
    "a pump without water still runs": ([(40, 1460, 6), (40, 1470, 2.5)], ["unknown", "running:10"]),
    "idling steadily is running": ([(40, 1460, 6), (40, 1459, 0.2)], ["unknown", "running:10"]),
    "backwards is turning": ([(40, -1460, 6)], ["unknown", "running:10"]),
    "power on a shaft that stands is believed by nobody": ([(40, 0, 6)], ["unknown"]),
    "nothing tells": ([(100, NAN, NAN)], ["unknown"]),
}


@pytest.mark.parametrize("story", STORIES)
def test_story(story):
    """Each is a thing that happens in plants; the states met are all of them, in order."""
    stretches, expected = STORIES[story]
    assert keys(rated(), *stretches) == expected


def test_a_machine_stated_to_run_runs_where_nothing_tells():
    """A pump loop without speed or power: bin 0 after a start's time. Should a sensor tell after all, it is believed."""
    tracker = StateTracker(RULE, assume_running=True)
    assert keys(tracker, (70, NAN, NAN)) == ["starting", "running:0"]
    assert keys(tracker, (5, NAN, 0.0), start_s=70)[-1] == "off"


def test_without_rated_power_the_highest_seen_is_the_measure():
    """A drive that waits takes some 40 W: that is not running."""
    tracker = StateTracker(RULE)
    assert keys(tracker, (5, NAN, 0.04), (100, NAN, 2.0), (5, NAN, 0.05)) == ["off", "starting", "running:0", "off"]


def test_without_rated_speed_there_is_one_bin():
    """Only turning or not can be told, so baselines are not split by what nobody knows."""
    assert keys(StateTracker(RULE), (40, 1460, NAN), (40, 900, NAN)) == ["unknown", "running:0"]


def test_noise_does_not_chatter():
    """An hour of real drive noise: one state."""
    rng = np.random.default_rng(1)
    tracker = rated()
    readings = [(1, 1460 * (1 + 0.002 * n), 6 * (1 + 0.05 * p)) for n, p in rng.standard_normal((3600, 2))]
    assert keys(tracker, *readings) == ["unknown", "running:10"]
    assert tracker.state == OperatingState(Mode.RUNNING, 10)


def told_by(tracker, name, *stretches):
    """The states met with one quantity alone, one reading a second."""
    met: list[str] = []
    second = 0
    for seconds, value in stretches:
        for _ in range(seconds):
            key = tracker.step(NAN, NAN, second * S, **{name: value}).key
            met += [key] if not met or met[-1] != key else []
            second += 1
    return met


def test_current_alone_tells_a_run_from_a_stop():
    """A clamp on one phase is often all there is. A motor without load still takes 40 % of its rated current."""
    tracker = StateTracker(RULE, rated_current_a=14.4)
    assert told_by(tracker, "current_a", (3, 0.0), (100, 12.0), (40, 6.0), (5, 0.1)) == [
        "off",
        "starting",
        "running:0",
        "off",
    ]


def test_vibration_alone_tells_a_run_from_a_stop_beside_a_running_neighbour():
    """A standing machine shakes with its neighbour, by up to a quarter of its own level; its sensor's noise is below a floor."""
    met = told_by(StateTracker(RULE), "vibration_floors", (60, 1.2), (100, 5.0), (60, 1.2), (100, 5.0))
    assert met[-3:] == ["off", "starting", "running:0"]
    assert told_by(StateTracker(RULE), "vibration_floors", (60, 0.4)) == ["off"]


def test_a_machine_that_never_stops_is_never_said_to_stand():
    """Load makes it louder and quieter; and after a repair it is a tenth of what it was."""
    assert told_by(StateTracker(RULE), "vibration_floors", (100, 4.0), (100, 9.0), (100, 4.0)) == [
        "unknown",
        "running:0",
    ]
    assert told_by(StateTracker(RULE), "vibration_floors", (100, 50.0), (100, 5.0)) == ["unknown", "running:0"]


def test_how_long_it_has_run_is_known_only_of_a_start_that_was_seen():
    """A machine that was found running may be warm for days; one that stood is as warm as it has run since."""
    tracker = rated()
    keys(tracker, (40, 1460, 6))
    assert tracker.has_run_s(40 * S) == math.inf
    keys(tracker, (5, 0, 0), (100, 1460, 6), start_s=40)
    assert tracker.has_run_s(145 * S) == 100.0
