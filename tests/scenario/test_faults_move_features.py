"""Every simulated fault moves the features that say so, in step with severity, at any speed and load; and no others.

A sample of what `make docs` measures in full and shows in docs/faults.md: three of nine duties, two of five severities.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from training.fault_moves import declared, machine_faults
from training.feature_docs import Simulation, contradictions, simulate
from training.simulated_duties import DUTIES, MIDDLE_DUTY

CONFIG = Path(__file__).parents[2] / "config"
SAMPLE = (DUTIES[0], MIDDLE_DUTY, DUTIES[-1])  # slow at most flow, in the middle, fast at least flow


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(CONFIG, duties=SAMPLE, severities=(0.5, 1.0))


def test_declarations_and_simulation_do_not_contradict_each_other(simulation: Simulation) -> None:
    """An alarm names what a fault is known to move; were that wrong, its evidence would be too."""
    assert contradictions(simulation) == []


@pytest.mark.parametrize("fault", machine_faults())
def test_every_simulated_fault_is_declared_by_some_feature(fault: str) -> None:
    """A fault that no feature names would pass the test above without having been looked at."""
    assert len(declared(fault)) >= 2
