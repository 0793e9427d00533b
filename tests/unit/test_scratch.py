"""Cores of one thread share their buffers, and no core can tell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from agent.features import Cores, Nameplate, feature_set_of
from agent.features.bearings import orders_of_geometry
from agent.features.scratch import Scratch
from agent.machine import load_machine_profile
from agent.vocabulary import OperatingPoint, Window

MOTOR = feature_set_of(load_machine_profile(Path(__file__).parents[2] / "config", "motor"))
NAMEPLATE = Nameplate(1460.0, 50.0, 6, orders_of_geometry(8, 15.88, 65.0))


def windows():
    rng = np.random.default_rng(5)
    for rate_hz in (25600.0, 25100.0, 26000.0):
        for n_axes in (3, 1, 4):
            samples = rng.standard_normal((n_axes, MOTOR.n_samples)).astype(np.float32)
            point = OperatingPoint(1480.0, 50.0)
            yield Window("M", "s", ("x", "y", "z", "w")[:n_axes], samples, rate_hz, 1, 0, 0, point)


def computed(window, cores):
    return MOTOR.compute(window, {}, NAMEPLATE, cores)[0].tobytes()


def test_cores_in_turns_give_what_each_gives_alone():
    alone = [computed(window, Cores(MOTOR.plan_at)) for window in windows()]
    shared = Cores(MOTOR.plan_at)
    assert [computed(window, shared) for window in windows()] == alone
    assert [computed(window, shared) for window in windows()] == alone


def test_threads_do_not_share():
    cores = Cores(MOTOR.plan_at)
    expected = [computed(window, cores) for window in windows()]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [computed(window, cores) for window in windows()], range(8)))
    assert all(one == expected for one in found)


def test_buffers_grow_and_keep_their_use_apart():
    scratch = Scratch()
    short = scratch.rows("a", 8, np.float32)
    other = scratch.rows("b", 8, np.float32)
    short[:], other[:] = 1, 2
    assert (scratch.rows("a", 8, np.float32) == 1).all()
    assert scratch.rows("a", 100, np.float32).shape == (4, 100)
    assert (scratch.rows("b", 8, np.float32) == 2).all()
