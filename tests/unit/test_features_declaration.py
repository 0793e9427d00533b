"""Declarations, digests and the errors of a wrong profile."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from agent.diagnosis import catalogue
from agent.features import feature_set_of, known_features
from agent.machine import Burst, ColumnSpec, load_machine_profile
from agent.tagbank import STATISTICS, TagPlan
from firmware_bridge.errors import ConfigError
from firmware_bridge.units import UNITS

CONFIG = Path(__file__).parents[2] / "config"
PROFILE = load_machine_profile(CONFIG, "motor")
FEATURES = feature_set_of(PROFILE)
MOVED_BY_NO_FAULT = {
    "vibration.mean_m_s2",
    "spectrum.gear_mesh_mm_s",
    "current.fundamental_hz",
}  # bias, gears, the supply


def with_columns(*columns, **changes):
    return msgspec.structs.replace(PROFILE, columns=columns, **changes)


@pytest.mark.parametrize("feature", known_features().values(), ids=known_features())
def test_every_feature_says_what_it_is(feature):
    """Words for people, a source for the formula, a version, and a unit at the end of the name."""
    assert feature.words
    assert feature.source
    assert feature.version >= 1
    assert set(feature.moved_by) <= set(catalogue()), "a fault that nobody can name"
    if feature.kind == "burst":
        assert feature.unit in UNITS.values()
        assert feature.evaluate.__doc__
        assert feature.moved_by or feature.id in MOVED_BY_NO_FAULT
    elif feature.kind == "tag":
        assert feature.id in STATISTICS


def test_every_statistic_of_the_bank_is_declared():
    """Neither side may know a statistic that the other does not."""
    assert set(STATISTICS) == {name for name, feature in known_features().items() if feature.kind == "tag"}


def test_the_digest_is_stable_and_moves_with_everything_that_moves_a_number():
    """Same profile, same digest; another version, parameter, rate, band or time constant is another model's input."""
    column = FEATURES.columns[5]
    others = [
        dataclasses.replace(FEATURES, columns=FEATURES.columns[::-1]),
        dataclasses.replace(FEATURES, sample_rate_hz=20000.0),
        dataclasses.replace(FEATURES, n_samples=20480),
        dataclasses.replace(FEATURES, envelope_band_hz=(2000.0, 5001.0)),
        dataclasses.replace(FEATURES, velocity_band_hz=(2.0, 1000.0)),
        dataclasses.replace(FEATURES, bands_hz=FEATURES.bands_hz[:-1]),
        dataclasses.replace(FEATURES, tags=TagPlan(tau_level_s=20.0)),
    ]
    changes = ({"version": 2}, {"parameters": (("band", 4.0),)}, {"transform": "linear"}, {"channel": "other"})
    changed = [dataclasses.replace(column, **change) for change in changes]
    others += [dataclasses.replace(FEATURES, columns=(one, *FEATURES.columns[1:])) for one in changed]
    digests = {one.digest for one in others}
    assert feature_set_of(PROFILE).digest == FEATURES.digest
    assert len(digests) == len(others)
    assert FEATURES.digest not in digests


def test_names_are_unique_and_read_as_agreed():
    """Data sets are keyed by these names."""
    assert len(set(FEATURES.names)) == len(FEATURES.names)
    assert "spectrum.velocity_rms_mm_s" in FEATURES.names
    assert "spectrum.band_rms_m_s2[band=3]" in FEATURES.names
    assert "motor_current_a:tag.level" in FEATURES.names
    assert FEATURES.words[FEATURES.names.index("spectrum.band_rms_m_s2[band=2]")] == "acceleration 1000 to 2500 Hz"


def test_an_unknown_feature_is_answered_with_the_nearest_and_the_known():
    """One clear line instead of a KeyError."""
    with pytest.raises(ConfigError, match=r"not known\. Did you mean 'envelope\.bpfo_ratio'\?.*vibration\.rms_m_s2"):
        feature_set_of(with_columns(ColumnSpec(feature="envelope.bpfo")))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ([ColumnSpec(feature="tag.level")], "needs the channel"),
        ([ColumnSpec(feature="vibration.rms_m_s2", channel="flow_m3_h")], "leave it out"),
        ([ColumnSpec(feature="spectrum.band_rms_m_s2")], "takes band"),
        ([ColumnSpec(feature="spectrum.band_rms_m_s2", parameters={"band": 5})], "from 0 to 4"),
        ([ColumnSpec(feature="vibration.rms_m_s2", parameters={"band": 1})], "takes none"),
        ([ColumnSpec(feature="vibration.rms_m_s2")] * 2, "twice"),
    ],
)
def test_a_wrong_column_is_refused_in_words(columns, says):
    """The message says what to write instead."""
    with pytest.raises(ConfigError, match=says):
        feature_set_of(with_columns(*columns))


def test_all_problems_come_at_once():
    """Nobody likes to mend a file ten times."""
    burst = Burst(
        sample_rate_hz=25600.0, n_samples=25600, bands_hz=((100.0, 101.0), (10.0, 12700.0)), envelope_band_hz=(0.0, 5e3)
    )
    with pytest.raises(ConfigError) as caught:
        feature_set_of(with_columns(ColumnSpec(feature="x.y"), ColumnSpec(feature="tag.level"), burst=burst))
    assert len(caught.value.problems) == 5


def test_scalars_alone_make_a_feature_set():
    """A machine without a waveform sensor has no burst, and burst columns are refused for it."""
    scalars = feature_set_of(with_columns(ColumnSpec(feature="tag.level", channel="flow_m3_h"), burst=None))
    assert scalars.names == ("flow_m3_h:tag.level",)
    with pytest.raises(ConfigError, match=r"needs the table \[burst\]"):
        feature_set_of(with_columns(ColumnSpec(feature="vibration.rms_m_s2"), burst=None))
