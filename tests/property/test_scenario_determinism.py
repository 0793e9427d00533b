"""Same scenario and seed, same bytes: replay, training and every comparison between two runs rest on it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.fleet import VirtualMachine
from simulator.scenario import Plant, Scenario, load_scenario
from simulator.variation import StepNoise

SLOW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Question = tuple[str, str, float]


@pytest.fixture(scope="module")
def demo() -> Scenario:
    return load_scenario("demo")


def answers(plant: Plant, questions: list[Question]) -> dict[Question, str]:
    """Each question's answer as a hash of its bytes."""
    told: dict[Question, str] = {}
    for kind, name, at in questions:
        if kind == "scalars":
            data = repr(plant.scalars(name, at)).encode()
        else:
            samples, meta = plant.burst(name, int(at))
            data = samples.tobytes() + repr(meta).encode()
        told[kind, name, at] = hashlib.sha256(data).hexdigest()
    return told


QUESTIONS: list[Question] = [("scalars", name, t) for name in "ab" for t in (0.0, 0.7, 3.0, 40.0, 61.3, 74.0)]
QUESTIONS += [("burst", name, float(k)) for name in ("accel-m101a", "accel-p101b") for k in (0, 1, 45, 70)]


@SLOW
@given(order=st.randoms(use_true_random=False))
def test_answers_do_not_depend_on_who_asks_first(demo: Scenario, order: random.Random) -> None:
    """Polling faster, later or in another order must not change the plant: measuring is no part of the physics."""
    shuffled = list(QUESTIONS)
    order.shuffle(shuffled)
    assert answers(Plant(demo), shuffled) == answers(Plant(demo), QUESTIONS)


@SLOW
@given(seed=st.integers(0, 2**63 - 1))
def test_another_seed_is_another_run(demo: Scenario, seed: int) -> None:
    """A seed that changes nothing would make a hundred runs one."""
    if seed == demo.seed:
        return
    other = answers(Plant(msgspec.structs.replace(demo, seed=seed)), QUESTIONS)
    same = answers(Plant(demo), QUESTIONS)
    assert all(other[question] != same[question] for question in QUESTIONS)


def test_the_past_can_be_asked_for_again(demo: Scenario) -> None:
    """History is bounded; what fell out of it is integrated again and is the same to the last bit."""
    plant = Plant(demo)
    early = plant.scalars("a", 10.0)
    plant.scalars("a", 5000.0)
    assert plant.scalars("a", 10.0) == early


def test_truth_files_are_the_same_byte_for_byte(demo: Scenario, tmp_path: Path) -> None:
    """Ground truth is part of the run: two writings of one scenario are one file."""
    Plant(demo).write_truth(tmp_path / "one.jsonl")
    Plant(demo).write_truth(tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


@given(steps=st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_step_noise_is_addressed_by_its_step(steps: list[int]) -> None:
    """Blocks are an economy, not an order: row k is row k."""
    noise = StepNoise(5, "x", 3)
    assert [noise.row(step) for step in steps] == [StepNoise(5, "x", 3).row(step) for step in steps]


@SLOW
@given(seed=st.integers(0, 10_000), k=st.integers(0, 10_000), kind=st.sampled_from(["motor", "pump"]))
def test_a_virtual_machine_is_the_same_machine_every_time(seed: int, k: int, kind: str) -> None:
    """Training draws machines by seed: the same seed and moment give the same burst and scalars, finite ones."""
    samples, rate_hz, scalars = VirtualMachine(kind, seed).sample(k, {"unbalance": 0.3})  # type: ignore[arg-type]
    again, _, same = VirtualMachine(kind, seed).sample(k, {"unbalance": 0.3})  # type: ignore[arg-type]
    assert samples.tobytes() == again.tobytes()
    assert scalars == same
    assert rate_hz == 25_600.0
    assert samples.shape == (3, 25_600)
    assert np.isfinite(samples).all()
    assert np.isfinite(list(scalars.values())).all()
