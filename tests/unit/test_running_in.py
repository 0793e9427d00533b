"""Running in: a new machine's normal follows it down, never up, and is frozen in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.baseline import Baseline
from agent.config import Machine
from agent.features import Cores
from agent.learning import Learning
from agent.recording import site_for_recording
from agent.vocabulary import F32, FeatureVector, Mode, OperatingState

ROOT = Path(__file__).resolve().parents[2]
STATE = OperatingState(Mode.RUNNING, 10)
N_LEARN = 20
INTERVAL_S = 60.0
RUNNING_IN_H = 3.0  # 180 windows; for the first 60 the model is not asked


def machine_of(recording: str = "femto", running_in_h: float = RUNNING_IN_H) -> Machine:
    machine = site_for_recording(Path("none.csv"), ROOT, recording).machines[0]
    spec = msgspec.structs.replace(
        machine.spec, learn_windows=N_LEARN, learn_from_most=False, running_in_h=running_in_h
    )
    return dataclasses.replace(machine, spec=spec)


def learning_of(machine: Machine, known: dict[str, Baseline] | None = None) -> Learning:
    return Learning(machine, known or {}, Cores(machine.features.plan_at))


def vector(machine: Machine, values: F32) -> FeatureVector:
    digest = machine.features.digest
    return FeatureVector(machine.tag, STATE, values, np.isfinite(values), digest, 0, 0)


def learned(machine: Machine, level_g: float = 1.0) -> Learning:
    """Every column at this level while it was learned."""
    learning = learning_of(machine)
    values = np.full(len(machine.features.columns), level_g, np.float32)
    for _ in range(N_LEARN):
        learning.offer(vector(machine, values), lambda vectors, baseline: 1.0)
    assert learning.baseline_of(STATE) is not None
    return learning


def followed(learning: Learning, machine: Machine, levels_g: Iterable[float]) -> list[tuple[int, Baseline]]:
    """One window after the other; what was to be kept, and after which window."""
    kept = []
    for at, level_g in enumerate(levels_g, 1):
        values = np.full(len(machine.features.columns), level_g, np.float32)
        if (told := learning.follow(vector(machine, values), INTERVAL_S)) is not None:
            assert told[0] == STATE.key
            kept.append((at, told[1]))
    return kept


def level_g(learning: Learning) -> float:
    baseline = learning.baseline_of(STATE)
    assert baseline is not None
    return float(np.exp(baseline.location[0]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=80))
def test_it_never_goes_up(levels_g: list[float]) -> None:
    """A fault adds: whatever comes, what was too much before is too much afterwards."""
    machine = machine_of()
    learning = learned(machine)
    before = level_g(learning)
    for one in levels_g:
        followed(learning, machine, [one])
        assert level_g(learning) <= before
        before = level_g(learning)


def test_a_level_goes_down_to_the_median_of_as_many_windows_as_it_was_learned_from() -> None:
    """One quiet window is no new normal; half of them are."""
    machine = machine_of()
    learning = learned(machine)
    followed(learning, machine, [0.5] * 9 + [1.0] * 11)
    assert level_g(learning) == pytest.approx(1.0)
    followed(learning, machine, [0.5] * 11)
    assert level_g(learning) == pytest.approx(0.5, rel=1e-3)
    followed(learning, machine, [2.0] * 100)
    assert level_g(learning) == pytest.approx(0.5, rel=1e-3)


def test_the_model_is_asked_from_the_first_third_on_and_the_normal_is_frozen_in_the_end() -> None:
    """Kept at both moments, so that a restart begins where it was; what people read as normal is what was learned first."""
    machine = machine_of()
    learning = learned(machine)
    assert not learning.may_raise(STATE)
    kept = followed(learning, machine, [0.5] * 300)
    assert [at for at, _ in kept] == [60, 180]
    assert learning.may_raise(STATE)
    assert kept[-1][1].running_in_s == 0
    assert kept[-1][1].normal[0] == pytest.approx(1.0)
    followed(learning, machine, [0.2] * 100)
    assert level_g(learning) == pytest.approx(0.5, rel=1e-3)


def test_after_a_restart_it_goes_on_from_what_was_kept_last() -> None:
    """Never from less: a machine that was restarted every hour would otherwise be watched by nobody, or by a normal of noise."""
    machine = machine_of()
    learning = learned(machine)
    first = learning.baselines[STATE.key]
    (_, asked), (_, frozen) = followed(learning, machine, [0.5] * 180)
    for kept, may_raise, n_left in ((first, False, 180), (asked, True, 120), (frozen, True, 0)):
        again = learning_of(machine, {STATE.key: Baseline.from_document(msgspec.json.decode(_stored(kept)))})
        assert again.may_raise(STATE) is may_raise
        np.testing.assert_array_equal(again.baselines[STATE.key].location, kept.location)
        ends = [at for at, baseline in followed(again, machine, [0.5] * 200) if baseline.running_in_s == 0]
        assert ends == ([n_left] if n_left else [])


def _stored(baseline: Baseline) -> bytes:
    return msgspec.json.encode(baseline.as_document())


def test_a_machine_that_does_not_run_in_follows_nothing() -> None:
    """The rule: frozen, until a person orders otherwise."""
    machine = machine_of(running_in_h=0.0)
    learning = learned(machine)
    assert learning.may_raise(STATE)
    assert followed(learning, machine, [0.5] * 100) == []
    assert level_g(learning) == pytest.approx(1.0)


def test_only_levels_follow() -> None:
    """A flow or a pressure that falls is no running in, it is what wear does."""
    machine = machine_of("skab")
    learning = learned(machine)
    followed(learning, machine, [0.5] * 100)
    location = learning.baselines[STATE.key].location
    is_log = np.array([column.transform == "log" for column in machine.features.columns])
    assert location[~is_log] == pytest.approx(1.0)
    assert np.exp(location[is_log]) == pytest.approx(0.5, rel=1e-3)


def test_a_column_that_is_absent_stays_where_it_is() -> None:
    """Silence is not quiet."""
    machine = machine_of()
    learning = learned(machine)
    values = np.array([np.nan, 0.5, 0.5, 0.5], np.float32)
    for _ in range(60):
        learning.follow(vector(machine, values), INTERVAL_S)
    assert np.exp(learning.baselines[STATE.key].location) == pytest.approx([1.0, 0.5, 0.5, 0.5], rel=1e-3)


def test_a_new_normal_runs_in_anew() -> None:
    """`hark relearn` after a bearing was changed."""
    machine = machine_of()
    learning = learned(machine)
    followed(learning, machine, [0.5] * 200)
    learning.forget()
    for _ in range(N_LEARN):
        learning.offer(vector(machine, np.full(4, 2.0, np.float32)), lambda vectors, baseline: 1.0)
    assert not learning.may_raise(STATE)
    followed(learning, machine, [1.5] * 20)
    assert level_g(learning) == pytest.approx(1.5, rel=1e-3)
