"""What must hold for any window: the same bits in any company, no input changed, no dependence on order or scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.features import Cores, Nameplate, feature_set_of
from agent.features.bearings import orders_of_geometry
from agent.machine import load_machine_profile
from agent.vocabulary import OperatingPoint, Window

MOTOR = feature_set_of(load_machine_profile(Path(__file__).parents[2] / "config", "motor"))
CORES = Cores(MOTOR.plan_at)
CORE = CORES.at(25600.0)
NAMEPLATE = Nameplate(1460.0, 50.0, 6, orders_of_geometry(8, 15.88, 65.0))
POINT = OperatingPoint(1460.0, 50.0, 6.0)
LINES_HZ = MOTOR.all_lines_hz(NAMEPLATE, POINT)
RATIOS = np.array([name.endswith("_ratio") for name in MOTOR.names])

seeds = st.integers(0, 2**32 - 1)


def block(seed, n_rows=4):
    """Rows of very different loudness and offset."""
    rng = np.random.default_rng(seed)
    gain = 10.0 ** rng.uniform(-2, 2, (n_rows, 1))
    return (gain * rng.standard_normal((n_rows, 25600)) + rng.normal(0, 10, (n_rows, 1))).astype(np.float32)


def compute(samples):
    axes = ("x", "y", "z", "w")[: len(samples)]
    return MOTOR.compute(Window("M", "s", axes, samples, 25600.0, 1, 0, 0, POINT), {}, NAMEPLATE, CORES)[0]


@settings(max_examples=12, deadline=None)
@given(seeds, st.permutations(range(4)))
def test_a_row_gives_the_same_bits_alone_and_in_any_place_of_a_block(seed, order):
    """The scheduler may fill blocks as it likes, and a replay gives the bytes of the live run."""
    samples = block(seed)
    alone = np.concatenate([CORE(samples[at : at + 1], LINES_HZ) for at in range(4)])
    together = CORE(np.ascontiguousarray(samples[list(order)]), LINES_HZ)
    assert together.tobytes() == alone[list(order)].tobytes()


@settings(max_examples=8, deadline=None)
@given(seeds)
def test_computing_changes_no_input_and_leaves_no_trace(seed):
    """The store keeps the very samples; a second call on warm scratch answers the same bits."""
    samples, other = block(seed, 3), block(seed + 1, 3)
    before = samples.tobytes()
    first = compute(samples)
    compute(other)
    assert samples.tobytes() == before
    assert compute(samples).tobytes() == first.tobytes()


@settings(max_examples=8, deadline=None)
@given(seeds, st.permutations(range(3)))
def test_the_order_of_axes_does_not_matter(seed, order):
    """A sensor screwed on the other way round is the same machine."""
    samples = block(seed, 3)
    np.testing.assert_allclose(compute(samples[list(order)]), compute(samples), rtol=1e-6)


@settings(max_examples=12, deadline=None)
@given(seeds, st.floats(-3, 3))
def test_twice_as_loud_is_twice_the_level_and_the_same_ratio(seed, decades):
    """Levels are homogeneous of degree one, ratios of degree nought, over six decades of gain."""
    gain = np.float32(10.0**decades)
    samples = np.random.default_rng(seed).standard_normal((2, 25600)).astype(np.float32)
    expected = compute(samples) * np.where(RATIOS, 1, gain)
    # a ratio that is next to nothing (spectral kurtosis of noise) is as exact as float32's sums of order one
    np.testing.assert_allclose(compute(samples * gain), expected, rtol=1e-4, atol=2e-6)
