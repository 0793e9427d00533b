"""Naming the damaged part of a bearing: simulated damage whose part is known, and what must not be called damage."""

from __future__ import annotations

import numpy as np
import pytest
from bearing_strikes import RATE_HZ, SHAFT_HZ, SKF_6205, bursts_of, noise, ringing, strikes

from agent.diagnosis.bearing import (
    BAND_HZ,
    FEWEST_TURNS,
    HIGHEST_LINE_HZ,
    LEAST_WANDER_RATIO,
    MOST_SURE_BY_ELIMINATION,
    Part,
    name_part,
)
from agent.features.bearings import BearingOrders

SPEED_RPM = 60 * SHAFT_HZ


def named(samples, speed_rpm=SPEED_RPM, orders=SKF_6205):
    return name_part(bursts_of(samples), RATE_HZ, speed_rpm, orders)


def damaged(part: Part, seed: int, strength: float = 3.0):
    """Five seconds of strikes on one part, over noise of 1 and a shaft line of 20."""
    return strength * ringing(*strikes(part, seed)) + noise(seed)


@pytest.mark.parametrize("part", [Part.OUTER, Part.INNER, Part.BALL])
@pytest.mark.parametrize("seed", range(3))
def test_the_struck_part_is_named(part, seed):
    """Slip of 1 % wanders, an inner race passes the load zone once a turn, a ball once a turn of the cage."""
    verdict = named(damaged(part, seed))
    assert verdict.part is part, verdict
    assert verdict.confidence > 0.6
    found = next(family for family in verdict.families if family.part is part)
    assert found.line_hz == pytest.approx(found.expected_hz, rel=0.02)
    assert found.harmonics[:1] == (1,)


def test_the_reason_names_line_harmonics_and_band():
    """What a vibration analyst would look up to check it: 3.585 x 29.53 Hz, and a ring at 3.3 kHz."""
    verdict = named(damaged(Part.OUTER, 1))
    assert verdict.reason.startswith("outer race line at 10")
    assert "harmonics 1, 2" in verdict.reason
    assert "of the envelope from 2500 to 3500 Hz" in verdict.reason


@pytest.mark.parametrize("seed", range(3))
def test_noise_names_nothing(seed):
    verdict = named(noise(seed, shaft_line=0.0))
    assert (verdict.part, verdict.confidence) == (Part.UNSURE, 0.0)


def test_steady_tones_and_harmonics_of_the_shaft_name_nothing():
    """A mesh with its sidebands modulates at shaft speed, 3 and 5 turns, right beside BPFO 3.05 and BPFI 4.95 of a 6203."""
    skf_6203 = BearingOrders(bpfo=3.053, bpfi=4.947, bsf=1.994, ftf=0.382)
    time_s = np.arange(5 * int(RATE_HZ)) / RATE_HZ
    turning = 2 * np.pi * SHAFT_HZ * time_s
    modulated = 1 + 0.5 * sum(np.cos(k * turning) for k in (1, 2, 3, 4, 5))
    samples = 10 * modulated * np.sin(95 * turning) + 5 * np.sin(2 * np.pi * 2950.0 * time_s) + noise(4)
    assert named(samples, orders=skf_6203).part is Part.UNSURE


def test_shaking_by_strikes_once_a_turn_is_no_bearing():
    """A rub or a loose part strikes at shaft speed: deep, clear, and left out."""
    once_a_turn = np.arange(0.0, 5.0, 1 / SHAFT_HZ)
    assert named(3 * ringing(once_a_turn, np.ones(once_a_turn.size)) + noise(5)).part is Part.UNSURE


def test_strikes_that_come_and_go_are_a_ball_without_much_confidence():
    """A ball's spot meets the races for some turns and misses them for some: by elimination, and said so."""
    rng = np.random.default_rng(6)
    at_s = np.concatenate([start + 0.15 * rng.random(12) for start in np.arange(0.0, 4.8, 0.45)])
    resonances = (ringing(at_s, np.ones(at_s.size), ring_hz=ring_hz) for ring_hz in (1200.0, 2300.0, 3300.0, 4700.0))
    verdict = named(6 * sum(resonances) + noise(6))
    assert verdict.part is Part.BALL
    assert 0 < verdict.confidence <= MOST_SURE_BY_ELIMINATION
    assert verdict.wander_ratio > LEAST_WANDER_RATIO
    assert "come and go" in verdict.reason


@pytest.mark.parametrize(("inner_slip", "part"), [(-0.005, Part.BALL), (0.015, Part.UNSURE)])
@pytest.mark.parametrize("seed", range(3))
def test_faint_lines_of_both_races_are_a_ball_if_one_cage_makes_both(inner_slip, part, seed):
    """What slip adds to BPFO it takes from BPFI: 0.75 % of 3.585 is 0.5 % of 5.415. Two lines by chance do not keep to that."""
    time_s = np.arange(5 * int(RATE_HZ)) / RATE_HZ
    lines_hz = (1.0075 * SKF_6205.bpfo * SHAFT_HZ, (1 + inner_slip) * SKF_6205.bpfi * SHAFT_HZ)
    shape = 1 + sum(0.06 * np.cos(2 * np.pi * k * line_hz * time_s) for line_hz in lines_hz for k in (1, 2, 3))
    verdict = named(shape * noise(seed, shaft_line=0.0))
    assert verdict.part is part
    assert verdict.confidence <= MOST_SURE_BY_ELIMINATION


@pytest.mark.parametrize("part", [Part.OUTER, Part.INNER, Part.BALL])
@pytest.mark.parametrize("wrong", [0.97, 1.03])
def test_a_wrong_speed_makes_it_unsure_and_not_wrong(part, wrong):
    """Three per cent is a drive's frequency taken for a motor's speed; the rate of no part fits then."""
    verdict = named(damaged(part, 7), speed_rpm=wrong * SPEED_RPM)
    assert verdict.part is Part.UNSURE, verdict
    assert "look at speed and bearing again" in verdict.reason


def test_another_bearing_than_the_one_that_is_named_is_told():
    """Somebody entered a 6203 for a 6205."""
    skf_6203 = BearingOrders(bpfo=3.053, bpfi=4.947, bsf=1.994, ftf=0.382)
    verdict = named(damaged(Part.OUTER, 8), orders=skf_6203)
    assert verdict.part is Part.UNSURE
    assert "look at speed and bearing again" in verdict.reason


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_units_and_offset_do_not_matter(scale):
    """g or mm/s2, with or without gravity: the same verdict to rounding."""
    samples = damaged(Part.INNER, 9)
    plain, scaled = named(samples), named(scale * (samples + 9.81))
    assert scaled.part is plain.part
    assert scaled.confidence == pytest.approx(plain.confidence, abs=1e-3)
    assert scaled.wander_ratio == pytest.approx(plain.wander_ratio, rel=1e-2)


def test_the_order_of_bursts_and_axes_does_not_matter():
    rows = bursts_of(damaged(Part.OUTER, 10))
    forward, backward = (name_part(some, RATE_HZ, SPEED_RPM, SKF_6205) for some in (rows, rows[::-1]))
    assert forward.part is backward.part is Part.OUTER
    assert forward.confidence == pytest.approx(backward.confidence)


@pytest.mark.parametrize(
    ("n_samples", "rate_hz", "speed_rpm", "why"),
    [
        (12_000, 12_000.0, float("nan"), f"less than {FEWEST_TURNS:.0f} turns"),
        (12_000, 12_000.0, 0.0, f"less than {FEWEST_TURNS:.0f} turns"),
        (2_000, 12_000.0, 1500.0, f"less than {FEWEST_TURNS:.0f} turns"),
        (2_000, 2_000.0, 1500.0, f"no band of {BAND_HZ:.0f} Hz"),
        (12_000, 12_000.0, 12_000.0, f"lines lie above {HIGHEST_LINE_HZ:.0f} Hz"),
    ],
)
def test_bursts_that_cannot_show_it_are_told_why(n_samples, rate_hz, speed_rpm, why):
    """Never guessed: no speed, a standing machine, too short a burst, too slow a sensor, too fast a spindle."""
    rows = np.random.default_rng(0).standard_normal((3, n_samples)).astype(np.float32)
    verdict = name_part(rows, rate_hz, speed_rpm, SKF_6205)
    assert verdict.part is Part.UNSURE
    assert why in verdict.reason


@pytest.mark.parametrize("rows", [np.zeros((3, 12_000)), np.full((1, 12_000), 3.0)])
def test_a_dead_sensor_names_nothing_and_raises_nothing(rows):
    assert name_part(rows.astype(np.float32), RATE_HZ, SPEED_RPM, SKF_6205).part is Part.UNSURE
