"""The band that a machine rings in is chosen from its first bursts and frozen with its baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bearing_strikes import ringing
from offline import START_MONOTONIC_NS, site_of_demo

from agent.app import open_bundles
from agent.baseline import Baseline
from agent.inference.bundle import StateBaseline
from agent.pipeline import Pipeline
from agent.tagbank import TagBank
from agent.vocabulary import Mode, OperatingPoint, OperatingState, Window
from training.dataset import _Sorted

ROOT = Path(__file__).parents[2]
TAG = "M-101A"
RATE_HZ, N = 25600.0, 25600
POINT = OperatingPoint(1470.0, 50.0)


@pytest.fixture(scope="module")
def site():
    return site_of_demo(ROOT)


@pytest.fixture(scope="module")
def bundles(site):
    return open_bundles(site)


def window(index: int, ring_hz: float | None) -> Window:
    """Hiss on three axes; with a resonance that something strikes irregularly, as a healthy but rattling guard does."""
    rng = np.random.default_rng(index)
    samples = 0.3 * rng.standard_normal((3, N))
    if ring_hz is not None:
        at_s = np.sort(rng.uniform(0, 0.95, 40))
        samples += 4.0 * ringing(at_s, np.ones(at_s.size), ring_hz=ring_hz, rate_hz=RATE_HZ, duration_s=1.0)
    now_ns = START_MONOTONIC_NS + round(index * 2e9)
    return Window(
        TAG, "accel-m101a", ("x", "y", "z"), samples.astype(np.float32), RATE_HZ, index, now_ns, now_ns, POINT
    )


def learned(pipeline: Pipeline, site, ring_hz: float | None) -> list[Baseline]:
    watch = pipeline.watches[TAG]
    watch.state = OperatingState(Mode.RUNNING, 10)
    n = 10 + watch.machine.spec.learn_windows
    tags = TagBank(len(site.channels))
    return [kept for i in range(n) for _, kept in watch.on_window(window(i, ring_hz), tags, frozenset(), i).baselines]


def test_a_machine_that_rings_elsewhere_is_watched_there_for_ever(site, bundles):
    """At 8 kHz, where the machine type's own band does not look; after a restart too."""
    [baseline] = learned(Pipeline(site, bundles, started_monotonic_ns=0), site, 8000.0)
    low_hz, high_hz = baseline.envelope_band_hz
    assert low_hz < 8000 < high_hz
    restored = Baseline.from_document(baseline.as_document())
    watch = Pipeline(site, bundles, started_monotonic_ns=0, baselines={(TAG, "running:10"): restored}).watches[TAG]
    assert watch._cores.at(RATE_HZ).plan.envelope_band_hz == (low_hz, high_hz)


def test_a_machine_that_only_hums_keeps_its_type_s_band(site, bundles):
    """And learning is not set back."""
    pipeline = Pipeline(site, bundles, started_monotonic_ns=0)
    [baseline] = learned(pipeline, site, None)
    assert baseline.envelope_band_hz is None
    machine = pipeline.watches[TAG].machine
    assert pipeline.watches[TAG]._cores.at(RATE_HZ).plan.envelope_band_hz == machine.profile.burst.envelope_band_hz


def test_a_baseline_of_another_band_is_no_normal(site, bundles):
    """A site bundle brings baselines of before the machine was fitted anew; what was learned here goes before them."""
    [own] = learned(Pipeline(site, bundles, started_monotonic_ns=0), site, 8000.0)
    elsewhere = replace(own, envelope_band_hz=None)
    saved = {(TAG, "running:10"): own, (TAG, "running:9"): elsewhere}
    watch = Pipeline(site, bundles, started_monotonic_ns=0, baselines=saved).watches[TAG]
    assert list(watch.learning.baselines) == ["running:10"]


def test_what_is_sent_up_and_trained_from_says_its_band(site, bundles):
    """Vectors of two bands are two machines to a baseline: the latest band's count, and the bundle's baseline names it."""
    pipeline = Pipeline(site, bundles, started_monotonic_ns=0)
    [own] = learned(pipeline, site, 8000.0)
    watch = pipeline.watches[TAG]
    found = watch.on_window(window(999, 8000.0), TagBank(len(site.channels)), frozenset(), 0)
    point = next(record.payload["point"] for record in found.records if record.stream == "feature")
    assert (point["envelope_low_hz"], point["envelope_high_hz"]) == own.envelope_band_hz
    rows = _Sorted()
    for at, band_hz in enumerate([(None, None)] * 3 + [own.envelope_band_hz] * 4):
        band = dict(zip(("envelope_low_hz", "envelope_high_hz"), band_hz, strict=True))
        key = {"machine": TAG, "state": "running:10", "gateway": "gw-01", "seq": at, "utc_ns": at}
        rows.add({**key, "values": [1.0 + at], "present": [True], **band})
    [windows] = rows.windows()
    assert (len(windows), windows.envelope_band_hz) == (4, own.envelope_band_hz)
    kept = StateBaseline(
        location=(1.0,), scale=(1.0,), normal=(1.0,), reference_score=1.0, n_windows=4, envelope_band_hz=(7e3, 9e3)
    )
    assert kept.as_baseline("digest").envelope_band_hz == (7e3, 9e3)
