"""Quantities of several channels under whatever a sensor may say: a number or nothing, and never a warning."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.diagnosis import catalogue
from agent.features import Cores, FeatureSet, Nameplate, feature_set_of, known_features
from agent.machine import ColumnSpec, MachineProfile
from agent.tagbank import STATISTICS
from firmware_bridge.units import suffix_of
from simulator.machine_set import SetParameters
from training.dataset import plate_of
from training.train import RUNNING

QUANTITIES = {name: feature for name, feature in known_features().items() if feature.kind == "quantity"}
PLATE = Nameplate(1460.0, 50.0, data=plate_of(SetParameters()))
FEATURES = feature_set_of(
    MachineProfile(
        type="waterworks",
        title="pump",
        norm="none",
        zone_bc_mm_s=5.1,
        zone_cd_mm_s=8.5,
        bundle="waterworks/1.0.0",
        point_name="pump",
        columns=tuple(ColumnSpec(feature=name) for name in QUANTITIES),
    )
)
CORES = Cores(FEATURES.plan_at)
NAMES = sorted(FEATURES.statistics)
WORDS = st.floats(width=32, allow_nan=False, allow_infinity=False)  # any register that is a number
PLAUSIBLE = st.sampled_from([0.0, -0.0, 1e-45, -1.0, 0.25, 1.0, 50.0, 400.0, 1460.0, 3.4e38])
READING = st.tuples(st.one_of(PLAUSIBLE, WORDS), st.booleans())


def vector(
    tags: dict[str, tuple[float, bool]], plate: Nameplate = PLATE, features: FeatureSet = FEATURES
) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return features.compute(None, tags, plate, CORES)[0]


@settings(max_examples=150, deadline=None)
@given(tags=st.dictionaries(st.sampled_from(NAMES), READING), bare=st.booleans())
def test_no_reading_raises_or_warns_and_no_infinity_comes_out(tags: dict[str, tuple[float, bool]], bare: bool) -> None:
    """Zero speed, zero flow, denormals, a float with its words swapped: absent at worst."""
    assert not np.isinf(vector(tags, Nameplate() if bare else PLATE)).any()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_quantity_is_absent_while_anything_that_it_reads_is_silent(data: st.DataObject) -> None:
    """Else it would jump from one channel to its stand-in, and the jump would look like a fault."""
    name = data.draw(st.sampled_from(NAMES))
    tags = {statistic: (RUNNING[channel], statistic != name) for statistic, (channel, _) in FEATURES.statistics.items()}
    absent = {quantity for quantity, value in zip(FEATURES.names, vector(tags), strict=True) if math.isnan(value)}
    assert {quantity for quantity, feature in QUANTITIES.items() if name in feature.statistics} <= absent


@pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=QUANTITIES)
def test_every_quantity_says_what_it_reads_and_what_moves_it(quantity) -> None:  # type: ignore[no-untyped-def]
    """Channels end in their unit, statistics are the bank's, faults are the catalogue's; one missing need and it is absent."""
    assert quantity.needs or quantity.may_use
    assert len(set(quantity.statistics)) == len(quantity.statistics)
    assert quantity.formula.__doc__
    assert set(quantity.moved_by) <= set(catalogue())
    for channel, statistic in (name.split(":") for name in quantity.statistics):
        assert suffix_of(channel)
        assert statistic in STATISTICS
    tags = {name: (RUNNING[name.partition(":")[0]], True) for name in quantity.statistics}
    for need in quantity.needs:
        less = {name: reading for name, reading in tags.items() if name.partition(":")[0] != need.partition(":")[0]}
        assert math.isnan(quantity.quantity_of(less, PLATE))
    assert math.isnan(quantity.quantity_of({}, PLATE))
