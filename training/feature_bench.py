"""The feature core beside its peers, printed as JSON: `python -m training.feature_bench ROOT SECONDS`. Used by `hark bench`.

One window of three axes, the vector of every burst feature that there is; naive SciPy, tsfresh and tsfel get the same window,
singly and in this thread, and River the same thousand tags as the TagBank. Medians of the thread's CPU time, everybody in
turns. A peer that is not installed is null.

What "matching subset" means stands in TSFRESH_SUBSET and TSFEL_SUBSET: those of their features that answer to one of ours,
by its id. They have nothing for velocity, displacement, crest or the envelope, which flatters them.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np

from agent.feature_benchmark import full_profile, page_faults, vector_over_ffts
from agent.features import Cores, FeatureSet, Nameplate, feature_set_of
from agent.features.bearings import bearing_orders
from agent.heap import steady_heap
from agent.machine import load_machine_profile
from agent.tagbank import TagBank, TagPlan
from agent.tagbank_benchmark import tagbank_over_bare
from agent.timing import interleaved_us
from agent.vocabulary import F32, OperatingPoint, Window
from firmware_bridge.measurement import Quality
from training.plain_features import Record, plain_value

Candidate = Callable[[], object]

AXES = ("x", "y", "z")
POINT = OperatingPoint(shaft_speed_rpm=1460.0, line_frequency_hz=50.0)
OVERLAP = 0.5
TURN_S = 0.005  # a quick candidate is called again for so long, so that its own caches are warm as in its own program
N_WARM = 2500  # windows after which the interpreter's own heap has grown to what it needs
N_FOR_FAULTS = 500
N_TAGS = 1000
N_TICKS = 97  # prime, and longer than a median looks back
N_MEDIAN = TagPlan().n_median
TICK_NS = 1_000_000_000


def main(root: Path, seconds: float) -> dict[str, float | None]:
    """All figures of this part; None for a peer that is not installed."""
    steady_heap()
    profile = full_profile(load_machine_profile(root / "config", "motor"))
    features = feature_set_of(profile)
    window = noise_window(features)
    nameplate = Nameplate(1460.0, 50.0, 6, bearing_orders(root / "config", "6308"))
    ours = core_and_compute(features, window, nameplate)
    for _ in range(N_WARM):
        ours["compute"]()
    faults = page_faults(ours["compute"], N_FOR_FAULTS)
    over_ffts = vector_over_ffts(profile, seconds)
    over_bare = tagbank_over_bare(seconds)
    peers = {"naive": naive_scipy(features, window, nameplate), **tsfresh(window), **tsfel(window)}
    vector_us = interleaved_us(ours | peers, seconds, TURN_S)
    tags_us = interleaved_us({"tagbank": tagbank(), **river()}, seconds, TURN_S)
    return {
        **{name: over_ffts[name] for name in ("vector_over_ffts_single", "vector_over_ffts_fours")},
        **{f"{peer}_over_ours": ratio(vector_us, peer, "core") for peer in PEERS},
        "page_faults_per_window": faults,
        **{name: over_bare[name] for name in ("tagbank_over_bare", "tagbank_median_over_bare")},
        "river_over_tagbank": ratio(tags_us, "river", "tagbank"),
        "machines_per_core": 1e6 * (1 - OVERLAP) * features.n_samples / features.sample_rate_hz / vector_us["compute"],
    }


def noise_window(features: FeatureSet) -> Window:
    """White noise on three axes: what it costs does not depend on what is in it."""
    samples = np.random.default_rng(1).standard_normal((len(AXES), features.n_samples)).astype(np.float32)
    return Window("bench", "accel", AXES, samples, features.sample_rate_hz, 1, 0, 0, POINT)


def core_and_compute(features: FeatureSet, window: Window, nameplate: Nameplate) -> dict[str, Candidate]:
    """Ours twice: the features of each axis, which is what the peers answer too, and what the agent calls for a window."""
    cores = Cores(features.plan_at)
    core = cores.at(window.sample_rate_hz)
    lines_hz = features.all_lines_hz(nameplate, window.point)
    return {
        "core": lambda: core(window.samples, lines_hz),
        "compute": lambda: features.compute(window, {}, nameplate, cores),
    }


def ratio(took: Mapping[str, float], name: str, over: str) -> float | None:
    """One median over another; None where the first was not measured."""
    return took[name] / took[over] if name in took else None


def naive_scipy(features: FeatureSet, window: Window, nameplate: Nameplate) -> Candidate:
    """The plain form of every column, axis by axis (training/plain_features.py)."""
    records = [
        Record(samples, window.sample_rate_hz, features, nameplate, window.point)
        for samples in window.samples.astype(np.float64)
    ]
    return lambda: [[plain_value(column, record) for column in features.columns] for record in records]


SHAFT_HZ = POINT.shaft_speed_rpm / 60
LINES_HZ = (
    *(SHAFT_HZ * order for order in (0.5, *range(1, 11))),
    5 * SHAFT_HZ,
    6 * SHAFT_HZ,
    7 * SHAFT_HZ,
    50.0,
    100.0,
)
LINES = (
    "spectrum.line_half_mm_s", "spectrum.line_1x_mm_s", "spectrum.line_2x_mm_s", "spectrum.line_3x_mm_s",
    "spectrum.harmonics_mm_s", "spectrum.vane_pass_mm_s", "spectrum.vane_sidebands_mm_s", "spectrum.line_1xlf_mm_s",
    "spectrum.line_2xlf_mm_s",
)  # fmt: skip
# (ours, tsfresh's calculator, its parameters). A line is one coefficient of the transform of the whole window, 1 Hz apart;
# a band one of Welch's 129 in its middle, 100 Hz apart; "kurtosis" is that of the spectrum's shape, ours in name only.
TSFRESH_SUBSET: tuple[tuple[tuple[str, ...], str, list[dict[str, Any]] | None], ...] = (
    (("vibration.mean_m_s2",), "mean", None),
    (("vibration.rms_m_s2",), "root_mean_square", None),
    (("vibration.peak_m_s2",), "absolute_maximum", None),
    (("vibration.skewness_ratio",), "skewness", None),
    (("vibration.kurtosis_ratio",), "kurtosis", None),
    (LINES, "fft_coefficient", [{"coeff": round(hz), "attr": "abs"} for hz in LINES_HZ]),
    (("spectrum.band_rms_m_s2",), "spkt_welch_density", [{"coeff": at} for at in (1, 5, 17, 37, 75)]),
    (
        ("spectrum.centroid_hz", "envelope.spectral_kurtosis_ratio"),
        "fft_aggregated",
        [{"aggtype": "centroid"}, {"aggtype": "kurtosis"}],
    ),
    (("spectrum.entropy_ratio",), "fourier_entropy", [{"bins": 256}]),
)
# (ours, tsfel's domain, its feature), parameters as tsfel has them. "Spectral kurtosis" is, as above, ours in name only.
TSFEL_SUBSET = (
    ("vibration.mean_m_s2", "statistical", "Mean"),
    ("vibration.rms_m_s2", "statistical", "Root mean square"),
    ("vibration.peak_m_s2", "statistical", "Max"),
    ("vibration.peak_m_s2", "statistical", "Min"),
    ("vibration.skewness_ratio", "statistical", "Skewness"),
    ("vibration.kurtosis_ratio", "statistical", "Kurtosis"),
    ("spectrum.line_1x_mm_s", "spectral", "Fundamental frequency"),
    ("spectrum.line_1x_mm_s", "spectral", "Max power spectrum"),
    ("spectrum.band_rms_m_s2", "spectral", "Spectrogram mean coefficient"),
    ("spectrum.centroid_hz", "spectral", "Spectral centroid"),
    ("spectrum.entropy_ratio", "spectral", "Spectral entropy"),
    ("envelope.spectral_kurtosis_ratio", "spectral", "Spectral kurtosis"),
)


def tsfresh(window: Window) -> dict[str, Candidate]:
    """tsfresh's smallest set, and its matching subset, in this very thread; nothing where it is not installed."""
    try:
        from tsfresh import extract_features
        from tsfresh.feature_extraction import MinimalFCParameters
    except ModuleNotFoundError:
        return {}

    def extract(parameters: object) -> Candidate:
        how = {"column_id": "id", "n_jobs": 0, "disable_progressbar": True}
        return lambda: extract_features(axes_frame(window).assign(id=0), default_fc_parameters=parameters, **how)

    subset = {name: parameters for _, name, parameters in TSFRESH_SUBSET}
    return {"tsfresh_minimal": extract(MinimalFCParameters()), "tsfresh_subset": extract(subset)}


def tsfel(window: Window) -> dict[str, Candidate]:
    """tsfel's matching subset; nothing where it is not installed."""
    try:
        import tsfel as package
    except ModuleNotFoundError:
        return {}
    known = package.get_features_by_domain()
    subset: dict[str, dict[str, Any]] = {}
    for _, domain, name in TSFEL_SUBSET:
        subset.setdefault(domain, {})[name] = known[domain][name]
    extract = package.time_series_features_extractor
    return {"tsfel_subset": lambda: extract(subset, axes_frame(window), fs=window.sample_rate_hz, verbose=0)}


def axes_frame(window: Window) -> Any:
    """What both take, made anew for each window as it would have to be: a pandas.DataFrame, a float64 column an axis."""
    import pandas as pd

    return pd.DataFrame(dict(zip(window.axes, window.samples.astype(np.float64), strict=True)))


def tag_values() -> F32:
    """Ticks of the thousand tags, shape (N_TICKS, N_TAGS), to be told in turn: a median of ever the same would be cheap."""
    return np.random.default_rng(2).normal(50, 5, (N_TICKS, N_TAGS)).astype(np.float32)


def tagbank() -> Candidate:
    """One tick of the TagBank: every statistic that it has, medians in turns."""
    bank = TagBank(N_TAGS)
    channels = np.arange(N_TAGS, dtype=np.int32)
    quality = np.full(N_TAGS, Quality.GOOD, np.uint8)
    ticks = cycle(tag_values())
    now_ns = count(TICK_NS, TICK_NS)
    return lambda: bank.update(channels, next(ticks), quality, next(now_ns))


def river() -> dict[str, Candidate]:
    """One tick of River's nearest: exponential mean and variance, rolling median; nothing where it is not installed."""
    try:
        from river import stats
    except ModuleNotFoundError:
        return {}
    tags = [(stats.EWMean(0.2), stats.EWVar(0.2), stats.RollingQuantile(0.5, N_MEDIAN)) for _ in range(N_TAGS)]
    ticks = cycle(tag_values().tolist())

    def tick() -> None:
        for tag, value in zip(tags, next(ticks), strict=True):
            for statistic in tag:
                statistic.update(value)

    return {"river": tick}


PEERS = ("naive", "tsfresh_minimal", "tsfresh_subset", "tsfel_subset")

if __name__ == "__main__":
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        told = main(Path(sys.argv[1]), float(sys.argv[2]))
    print(json.dumps(told))
