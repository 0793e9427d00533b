"""What the whole vector costs over the Fourier transforms that it cannot do without. Ratios of one run; no bars."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from agent.features import Cores, FeatureSet, Nameplate, feature_set_of, fourier
from agent.features.bearings import orders_of_geometry
from agent.features.core import Core
from agent.features.envelope import Analysis as EnvelopeAnalysis
from agent.features.feature import ROWS
from agent.heap import steady_heap
from agent.machine import MachineProfile
from agent.vocabulary import F32, OperatingPoint, Window

N_AXES = 3
N_MACHINES = 4  # whose twelve axes fill three blocks


def vector_over_ffts(profile: MachineProfile, seconds: float = 2.0) -> dict[str, float]:
    """Thread CPU time of a three-axis window's vector over that of the transforms it needs, interleaved, medians.

    "single": the core on one machine's three axes. "compute": the same window through `FeatureSet.compute`, so with
    checks, line frequencies and the reduction of axes. "fours": the twelve axes of four machines as three full blocks
    through the core, per machine. The transforms needed: the shared real FFT, the envelope's inverse and its real FFT,
    bare, on the same blocks.
    Args: profile: with a burst. seconds: how long to measure.
    Returns: vector_over_ffts_single, vector_over_ffts_fours, compute_over_ffts_single, and the medians in us per machine.
    """
    steady_heap()
    features = feature_set_of(profile)
    cores = Cores(features.plan_at)
    core = cores.at(features.sample_rate_hz)
    nameplate = Nameplate(1460.0, 50.0, 6, orders_of_geometry(8, 15.88, 65.0))
    window = _window(features)
    block, line_hz = _block(features, nameplate, window)
    transforms = _transforms(core, block)
    medians = _interleaved(
        {
            "compute": lambda: features.compute(window, {}, nameplate, cores),
            "single": lambda: core(window.samples, line_hz),
            "single_ffts": transforms,
            "fours": lambda: [core(block, line_hz) for _ in range(N_AXES)],
            "fours_ffts": lambda: [transforms() for _ in range(N_AXES)],
        },
        seconds,
    )
    return {
        "vector_over_ffts_single": medians["single"] / medians["single_ffts"],
        "vector_over_ffts_fours": medians["fours"] / medians["fours_ffts"],
        "compute_over_ffts_single": medians["compute"] / medians["single_ffts"],
        "vector_single_us": medians["single"],
        "vector_fours_us": medians["fours"] / N_MACHINES,
        "ffts_single_us": medians["single_ffts"],
        "ffts_fours_us": medians["fours_ffts"] / N_MACHINES,
    }


def _window(features: FeatureSet) -> Window:
    samples = np.random.default_rng(1).standard_normal((N_AXES, features.n_samples)).astype(np.float32)
    point = OperatingPoint(shaft_speed_rpm=1460.0, line_frequency_hz=50.0)
    return Window("bench", "accel", ("x", "y", "z"), samples, features.sample_rate_hz, 1, 0, 0, point)


def _block(features: FeatureSet, nameplate: Nameplate, window: Window) -> tuple[F32, np.ndarray]:
    block = np.concatenate([window.samples, window.samples[:1]])
    lines = [at for at, feature in enumerate(features.features) if feature.kind == "burst"]
    return block, features.lines_hz(nameplate, window.point)[lines]


def _transforms(core: Core, block: F32) -> Callable[[], object]:
    envelope = core.analyses["envelope"]
    assert isinstance(envelope, EnvelopeAnalysis)
    analytic = np.zeros((ROWS, envelope.n_points), np.complex64)
    squared = np.zeros((ROWS, envelope.n_points), np.float32)
    return lambda: (fourier.rfft(block), fourier.ifft(analytic), fourier.rfft(squared))


def _interleaved(candidates: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median microseconds of the calling thread's CPU time, every candidate once a round."""
    took: dict[str, list[float]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        candidate()
    until = time.monotonic() + seconds
    while time.monotonic() < until or not all(took.values()):
        for name, candidate in candidates.items():
            start_ns = time.thread_time_ns()
            candidate()
            took[name].append((time.thread_time_ns() - start_ns) / 1000)
    return {name: statistics.median(times) for name, times in took.items()}
