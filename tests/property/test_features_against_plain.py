"""Every burst feature against its plain form in float64 (training/plain_features.py: scipy.signal and scipy.stats).

The core is float32, shares one spectrum and cuts corners for speed; here stands what that may cost.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agent.feature_benchmark import full_profile
from agent.features import Cores, Nameplate, feature_set_of, known_features
from agent.features.bearings import orders_of_geometry
from agent.features.nameplate import DataPlate
from agent.machine import load_machine_profile
from agent.vocabulary import OperatingPoint, Window
from training.plain_features import PLAIN, Record, plain_value

CONFIG = Path(__file__).parents[2] / "config"
FEATURES = feature_set_of(full_profile(load_machine_profile(CONFIG, "motor")))
CORES = Cores(FEATURES.plan_at)
RATE_HZ, N = FEATURES.sample_rate_hz, FEATURES.n_samples
TIME_S = np.arange(N) / RATE_HZ
BEARING = orders_of_geometry(8, 15.88, 65.0)
POINT = OperatingPoint(shaft_speed_rpm=1460.0, line_frequency_hz=50.0)
NAMEPLATE = Nameplate(1460.0, 50.0, 6, BEARING, DataPlate(n_gear_teeth=21))
RING = np.exp(-2 * np.pi * 3500 * 0.04 * TIME_S[:400]) * np.sin(2 * np.pi * 3500 * TIME_S[:400])

RELATIVE = 1e-4
# What may be zero is not held to a share of itself. The core's envelope has enough points for its spectrum up to the lines
# looked at, not for its square: folded parts move the kurtosis of noise, whose own scatter is 0.05, by up to 0.04.
ABSOLUTE = {"vibration.skewness_ratio": 1e-4, "envelope.spectral_kurtosis_ratio": 0.1}
# A definition, not rounding: the band of the envelope has a brick wall's flanks in the core and those of a Butterworth filter
# in the plain form. A line that stands out is the same; one that hardly does stands on another noise.
ENVELOPE_LINES = frozenset(f.id for f in known_features().values() if f.family == "envelope" and f.line_hz is not None)
LINE_RELATIVE, LINE_ABSOLUTE, DEPTH_ABSOLUTE = 0.15, 1.0, 0.05


def tolerance(name, plain, band_rms_m_s2):
    """How far the core may be from the plain value."""
    if name in ENVELOPE_LINES:
        return max(LINE_RELATIVE * plain, LINE_ABSOLUTE if name.endswith("_ratio") else DEPTH_ABSOLUTE * band_rms_m_s2)
    return RELATIVE * abs(plain) + ABSOLUTE.get(name, 0.0)


def tones(rng):
    """Shaft, vane pass and supply with their neighbours: a machine with everything wrong but its bearings."""
    hz = np.concatenate([24.33 * np.arange(0.5, 11, 0.5), [50.0, 100.0, 121.7, 146.0, 170.3]])
    phase = rng.uniform(0, 2 * np.pi, hz.size)
    return rng.uniform(0.1, 1, hz.size) @ np.sin(2 * np.pi * np.outer(hz, TIME_S) + phase[:, None])


def impacts(rng):
    """Rings of a 3.5 kHz resonance whenever a ball passes an inner-race spall, loudest in the load zone."""
    shaft_hz = 1460 / 60
    at_s = np.arange(rng.uniform(0, 0.01), 1, 1 / (BEARING.bpfi * shaft_hz))
    hits = np.zeros(N)
    hits[(at_s * RATE_HZ).astype(int)] = rng.uniform(5, 20) * (1.2 + np.cos(2 * np.pi * shaft_hz * at_s))
    return np.convolve(hits, RING)[:N]


def hiss(rng):
    """Coloured noise with a heavy tail: cavitation, poor lubrication."""
    return np.convolve(rng.laplace(size=N), rng.standard_normal(8), "same")


def modulated_carriers(rng):
    """Two carriers in the envelope's band, in step with the outer race, the balls, the cage and the shaft."""
    lines_hz = np.array([BEARING.bpfo, 2 * BEARING.bsf, BEARING.ftf, 1.0]) * 1460 / 60
    depth = rng.uniform(0.2, 0.5, lines_hz.size)
    envelope = 1.5 + depth @ np.cos(2 * np.pi * np.outer(lines_hz, TIME_S))
    return envelope * (np.sin(2 * np.pi * 3000 * TIME_S) + rng.uniform(0.1, 1) * np.sin(2 * np.pi * 4100 * TIME_S))


def sensed(kind, seed):
    """One axis in m/s2 as a sensor would send it: with a gain, some of gravity, and noise of 2 to 20 % of the signal."""
    rng = np.random.default_rng(seed)
    clean = kind(rng)
    noisy = clean + rng.uniform(0.02, 0.2) * clean.std() * rng.standard_normal(N)
    return (10.0 ** rng.uniform(-1, 2) * noisy + rng.uniform(1, 9.81)).astype(np.float32)


def core_and_plain(samples):
    """(column, what the agent's path says of one axis, what the plain form says), of every burst column."""
    window = Window("M", "s", ("x",), samples[None], RATE_HZ, 1, 0, 0, POINT)
    values, _ = FEATURES.compute(window, {}, NAMEPLATE, CORES)
    record = Record(samples.astype(np.float64), RATE_HZ, FEATURES, NAMEPLATE, POINT)
    pairs = zip(FEATURES.columns, values.tolist(), strict=True)
    return [(column, value, plain_value(column, record)) for column, value in pairs]


def test_every_burst_feature_has_a_plain_form():
    """A feature that nobody has written twice is a feature that nobody has checked."""
    assert {column.feature for column in FEATURES.columns} == set(PLAIN)


@pytest.mark.parametrize("kind", [tones, impacts, hiss, modulated_carriers])
@settings(max_examples=5, deadline=None, phases=[Phase.reuse, Phase.generate])  # a seed has no smaller form
@given(seed=st.integers(0, 2**32 - 1))
def test_the_core_agrees_with_the_plain_form(kind, seed):
    """Speed may cost rounding and nothing else; what is another definition stands in the table above."""
    found = core_and_plain(sensed(kind, seed))
    rms_m_s2 = next(plain for column, _, plain in found if column.feature == "envelope.rms_m_s2")
    near = {c.name: abs(fast - plain) <= tolerance(c.feature, plain, rms_m_s2) for c, fast, plain in found}
    wrong = [(c.name, fast, plain) for c, fast, plain in found if not near[c.name]]
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "lines"), [(modulated_carriers, ("bpfo", "bsf", "ftf")), (impacts, ("bpfi", "bpfi_sidebands"))]
)
def test_a_defect_stands_out_in_both(kind, lines):
    """The table lets a weak line differ by 1; these are not weak."""
    ratios = {column.feature: (fast, plain) for column, fast, plain in core_and_plain(sensed(kind, 1))}
    assert min(min(ratios[f"envelope.{line}_ratio"]) for line in lines) > LINE_ABSOLUTE / LINE_RELATIVE
