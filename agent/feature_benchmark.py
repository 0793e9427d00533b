"""What the whole vector costs over the Fourier transforms that it cannot do without. Ratios of one run; no bars."""

from __future__ import annotations

import resource
from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from agent.features import Cores, Feature, FeatureSet, Nameplate, feature_set_of, known_features
from agent.features.bearings import orders_of_geometry
from agent.features.core import Core
from agent.features.envelope import Analysis as EnvelopeAnalysis
from agent.features.feature import ROWS
from agent.heap import steady_heap
from agent.machine import ColumnSpec, MachineProfile
from agent.timing import interleaved_us
from agent.vocabulary import F32, OperatingPoint, Window

FAMILIES = ("vibration", "spectrum", "envelope")  # of an accelerometer
N_AXES = 3
N_MACHINES = 4  # whose twelve axes fill three blocks


def full_profile(profile: MachineProfile) -> MachineProfile:
    """The same machine type with every burst feature that there is: what is measured here and drawn in the docs."""
    burst = profile.burst
    assert burst is not None
    columns = [
        ColumnSpec(feature=feature.id, parameters=parameters)
        for feature in known_features().values()
        if feature.kind == "burst" and feature.family in FAMILIES
        for parameters in _parameters(feature, len(burst.bands_hz), profile.zone_bc_mm_s)
    ]
    return replace(profile, columns=tuple(columns))


def _parameters(feature: Feature, n_bands: int, boundary_mm_s: float) -> list[dict[str, float]]:
    if "band" in feature.parameters:
        return [{"band": float(band)} for band in range(n_bands)]
    return [{"boundary_mm_s": boundary_mm_s}] if feature.parameters else [{}]


def vector_over_ffts(profile: MachineProfile, seconds: float = 2.0) -> dict[str, float]:
    """Thread CPU time of a three-axis window's full vector over that of the transforms it needs, interleaved, medians.

    "single": the core on one machine's three axes. "compute": the same window through `FeatureSet.compute`, so with
    checks, line frequencies and the reduction of axes. "fours": the twelve axes of four machines as three full blocks
    through the core, per machine. The transforms needed: the shared real FFT, the envelope's inverse and its real FFT,
    by scipy.fft, on the same blocks.
    Args: profile: with a burst. seconds: how long to measure.
    Returns: vector_over_ffts_single, vector_over_ffts_fours, compute_over_ffts_single, page_faults_per_window, and the medians in
        us per machine.
    """
    steady_heap()
    features = feature_set_of(full_profile(profile))
    cores = Cores(features.plan_at)
    core = cores.at(features.sample_rate_hz)
    nameplate = Nameplate(1460.0, 50.0, 6, orders_of_geometry(8, 15.88, 65.0))
    window = _window(features)
    block = np.concatenate([window.samples, window.samples[:1]])
    lines_hz = features.all_lines_hz(nameplate, window.point)
    transforms = _transforms(core, block)
    medians = interleaved_us(
        {
            "compute": lambda: features.compute(window, {}, nameplate, cores),
            "single": lambda: core(window.samples, lines_hz),
            "single_ffts": transforms,
            "fours": lambda: [core(block, lines_hz) for _ in range(N_AXES)],
            "fours_ffts": lambda: [transforms() for _ in range(N_AXES)],
        },
        seconds,
    )
    return {
        "vector_over_ffts_single": medians["single"] / medians["single_ffts"],
        "vector_over_ffts_fours": medians["fours"] / medians["fours_ffts"],
        "compute_over_ffts_single": medians["compute"] / medians["single_ffts"],
        "page_faults_per_window": page_faults(lambda: core(window.samples, lines_hz)),
        "vector_single_us": medians["single"],
        "vector_fours_us": medians["fours"] / N_MACHINES,
        "ffts_single_us": medians["single_ffts"],
        "ffts_fours_us": medians["fours_ffts"] / N_MACHINES,
    }


def page_faults(call: Callable[[], object], n_calls: int = 200) -> float:
    """Minor page faults of a warm call; of this thread only."""
    call()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(n_calls):
        call()
    return (resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before) / n_calls


def _window(features: FeatureSet) -> Window:
    samples = np.random.default_rng(1).standard_normal((N_AXES, features.n_samples)).astype(np.float32)
    point = OperatingPoint(shaft_speed_rpm=1460.0, line_frequency_hz=50.0)
    return Window("bench", "accel", ("x", "y", "z"), samples, features.sample_rate_hz, 1, 0, 0, point)


def _transforms(core: Core, block: F32) -> Callable[[], object]:
    """As anybody calls them, by scipy.fft; the core's own door to them (fourier.py) is some 6 % quicker."""
    from scipy import fft

    envelope = core.analyses["envelope"]
    assert isinstance(envelope, EnvelopeAnalysis)
    analytic = np.zeros((ROWS, envelope.n_points), np.complex64)
    squared = np.zeros((ROWS, envelope.n_points), np.float32)
    return lambda: (fft.rfft(block, axis=1), fft.ifft(analytic, axis=1, overwrite_x=True), fft.rfft(squared, axis=1))
