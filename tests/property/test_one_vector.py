"""Live, replay and training give one and the same vector, bit for bit: there is one way to compute it, and no trace of company."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline import START_MONOTONIC_NS, measurements, site_of_demo

from agent.app import open_bundles
from agent.features import Cores
from agent.pipeline import Pipeline
from agent.vocabulary import OperatingPoint, Window
from agent.window import Windower
from firmware_bridge.measurement import Block, Waveform
from simulator.scenario import Plant, load_scenario

ROOT = Path(__file__).parents[2]
SECONDS = 9.0


@pytest.fixture(scope="module")
def site():
    return site_of_demo(ROOT)


@pytest.fixture(scope="module")
def heard(site):
    """What the sources of the demo yield: four machines, each burst after others."""
    return list(measurements(site, Plant(load_scenario("demo", ROOT)), ROOT, SECONDS))


def vectors(site, bundles, items) -> dict[tuple[str, int], list[float | None]]:
    """By machine and burst, as they are kept and sent upstream."""
    pipeline = Pipeline(site, bundles, started_monotonic_ns=START_MONOTONIC_NS)
    kept = [record for item in items for record in pipeline.step(item).records if record.stream == "feature"]
    return {
        (record.machine, record.payload["burst_id"]): record.payload
        for record in kept
        if record.payload["burst_id"] is not None
    }


def test_live_replay_and_training_give_the_same_vector(site, heard):
    """Live in a thread of its own, replayed in this one, and recomputed from the waveforms as training does, window by window."""
    bundles = open_bundles(site)
    with ThreadPoolExecutor(1) as other_thread:
        live = other_thread.submit(vectors, site, bundles, heard).result()
    assert len(live) >= 8
    assert vectors(site, bundles, heard) == live
    machines = {machine.tag: machine for machine in site.machines}
    owners = {sensor: machine.tag for machine in site.machines for sensor in machine.burst_sensors}
    windower = Windower(owners, dict.fromkeys(owners, ("x", "y", "z")))
    for waveform in (item for item in heard if isinstance(item, Waveform)):
        for window in windower.step(waveform, OperatingPoint(), waveform.monotonic_ns):
            machine, told = machines[window.machine], live[window.machine, window.burst_id]
            speed_rpm, power_kw, line_hz = (
                np.nan if told["point"][name] is None else told["point"][name]
                for name in ("shaft_speed_rpm", "active_power_kw", "line_frequency_hz")
            )
            point = OperatingPoint(speed_rpm, line_hz, power_kw)
            at_its_point = Window(*(getattr(window, name) for name in Window.__slots__[:8]), point)
            values, _ = machine.features.compute(at_its_point, {}, machine.nameplate, Cores(machine.features.plan_at))
            burst = [at for at, feature in enumerate(machine.features.features) if feature.kind == "burst"]
            assert values[burst].tolist() == pytest.approx(
                [np.nan if told["values"][at] is None else told["values"][at] for at in burst],
                rel=0,
                abs=0,
                nan_ok=True,
            )
    assert any(isinstance(item, Block) for item in heard)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rpm=st.floats(700, 3600))
def test_a_vector_does_not_know_what_was_computed_before_it(site, seed, rpm):
    """Warm buffers, other machines' windows in between, another thread: the same bits."""
    machine = site.machines[0]
    rng = np.random.default_rng(seed)
    mine, others = (rng.standard_normal((3, machine.features.n_samples)).astype(np.float32) * gain for gain in (1, 50))
    point = OperatingPoint(rpm, 50.0)

    def vector(samples, cores):
        window = Window("M", "s", ("x", "y", "z"), samples, machine.features.sample_rate_hz, 1, 0, 0, point)
        return machine.features.compute(window, {}, machine.nameplate, cores)[0].tobytes()

    shared = Cores(machine.features.plan_at)
    first = vector(mine, shared)
    vector(others, shared)
    with ThreadPoolExecutor(1) as other_thread:
        assert other_thread.submit(vector, mine, Cores(machine.features.plan_at)).result() == first
    assert vector(mine, shared) == first
