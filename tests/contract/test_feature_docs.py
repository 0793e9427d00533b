"""The pages about features and faults say what the declarations and the simulator say: nobody edits them by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.diagnosis import catalogue
from agent.features import known_features
from simulator.faults import FAULTS
from training import fault_page, feature_page
from training.fault_moves import machine_faults
from training.feature_docs import Simulation, pictures, simulate
from training.simulated_duties import SimulatedSet

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MAKE = "run `make docs` and commit what it wrote"
FAULT = "cavitation"  # of the pump only, and with pictures of three families
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def machine() -> SimulatedSet:
    return SimulatedSet("motor_de", ROOT / "config")


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(ROOT / "config", [FAULT])


def test_the_features_page_is_what_the_declarations_say(machine: SimulatedSet) -> None:
    """A changed formula, source, unit or fault that the page does not show would be a lie to its reader."""
    assert feature_page.page(machine) == (DOCS / "features.md").read_text("utf-8"), MAKE


def test_no_feature_is_missing_and_none_is_left_over(machine: SimulatedSet) -> None:
    """Every feature has its part, and those that the simulated set can measure their picture."""
    page = (DOCS / "features.md").read_text("utf-8")
    assert re.findall(r"^### `(.+?)`", page, re.MULTILINE) == sorted(known_features()), MAKE
    assert {path.stem for path in (DOCS / "features").glob("*.svg")} == feature_page.drawn(machine), MAKE
    assert set(re.findall(r"\(features/(.+)\.svg\)", page)) == feature_page.drawn(machine), MAKE


def test_pictures_are_what_the_simulator_draws(simulation: Simulation) -> None:
    """Redrawn for one fault. Another processor may round a pixel the other way, and no more."""
    redrawn = dict(pictures(simulation))
    assert "hydraulic.npsh_margin_ratio" in redrawn
    for name, svg in redrawn.items():
        kept = (DOCS / "features" / f"{name}.svg").read_text("utf-8")
        assert NUMBER.sub("#", svg) == NUMBER.sub("#", kept), f"{name}: {MAKE}"
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (svg, kept)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1.01, rel=0.01), f"{name}: {MAKE}"


def test_the_fault_table_is_what_the_simulator_does(simulation: Simulation) -> None:
    """One column of docs/faults.md is measured again."""
    features = next(iter(simulation.machines.values())).features
    rows = [line.split("|")[1:-1] for line in (DOCS / "faults.md").read_text("utf-8").splitlines() if line[:1] == "|"]
    at = [cell.strip() for cell in rows[0]].index(FAULTS[FAULT].title)
    kept = {row[0].strip(" `"): row[at].strip() for row in rows[2:]}
    again = fault_page.marks(features, FAULT, simulation.moves[FAULT])
    assert kept == {name: again[name] for name in kept}, MAKE


@pytest.mark.parametrize("fault", machine_faults())
def test_what_the_simulator_says_a_fault_moves_is_what_the_features_say(fault: str, machine: SimulatedSet) -> None:
    """Both sides declare; a name that is neither a feature nor a column would be checked by nobody."""
    for name in FAULTS[fault].moves:
        if ":" in name:
            assert name in machine.features.names
        else:
            assert fault in known_features()[name].moved_by


@pytest.mark.parametrize("fault", catalogue().values(), ids=list(catalogue()))
def test_a_feature_that_the_catalogue_takes_for_evidence_says_so_itself(fault) -> None:
    """The words of an alarm come from the catalogue, those of the page from the feature: they may not differ.

    A sign of small weight only explains what a fault moves beside, and "normal" is what it does not move.
    """
    for evidence in fault.evidence:
        feature = known_features().get(evidence.column.partition("[")[0])
        if feature is not None and evidence.sign != "normal" and evidence.weight >= 0.2:
            assert fault.id in feature.moved_by, evidence.column
