"""The pages about features and faults, made anew: `python -m training.feature_docs ROOT`, or `make docs`.

docs/features.md from the declarations, docs/features/*.svg and docs/faults.md from the simulator. Nothing is written when the
simulation contradicts a declaration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.features import Feature, known_features
from simulator.faults import FAULTS
from training import fault_page, feature_page
from training.fault_moves import (
    HALF,
    MEASURED_AT,
    MOVED,
    SEVERITIES,
    Healthy,
    Move,
    disagreements,
    excused,
    healthy,
    machine_faults,
    move_of,
    of_columns,
)
from training.feature_pictures import Picture
from training.simulated_duties import DUTIES, MIDDLE_DUTY, Duty, End, SimulatedSet

HEALTHY_END: End = "motor_de"  # where features are drawn that no simulated fault moves
CLEARLY = 2.0
PLACE_WORDS = {"motor_de": "motor bearing", "motor": "motor", "pump_de": "pump bearing", "pump": "pump"}


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """The healthy set at both ends, and what each fault does at each of its places."""

    machines: Mapping[End, SimulatedSet]
    healthy: Mapping[End, Healthy]
    moves: Mapping[str, Sequence[Move]]


def simulate(
    config: Path,
    faults: Sequence[str] = (),
    duties: Sequence[Duty] = DUTIES,
    severities: tuple[float, ...] = SEVERITIES,
) -> Simulation:
    """These faults, or all of them; about a second for each place of a fault."""
    chosen = faults or machine_faults()
    ends = dict.fromkeys(MEASURED_AT[place] for fault in chosen for place in FAULTS[fault].places)
    machines = {end: SimulatedSet(end, config) for end in ends}
    usual = {end: healthy(machine, duties) for end, machine in machines.items()}

    def move(fault: str, place: str) -> Move:
        end = MEASURED_AT[place]
        return move_of(machines[end], usual[end], fault, place, severities)

    moves = {fault: [move(fault, place) for place in FAULTS[fault].places] for fault in chosen}
    return Simulation(machines, usual, moves)


def heard_elsewhere(simulation: Simulation) -> dict[str, set[str]]:
    """By fault, the burst columns that it moves at the other end, of all its places: at HALF, in the middle of the duties."""
    heard: dict[str, set[str]] = {fault: set() for fault in simulation.moves}
    for end, machine in simulation.machines.items():
        usual = healthy(machine, [MIDDLE_DUTY])
        elsewhere = [(fault, place) for fault in heard for place in FAULTS[fault].places if MEASURED_AT[place] != end]
        for fault, place in elsewhere:
            deviations = move_of(machine, usual, fault, place, (HALF,)).deviations[0, 0]
            columns = zip(machine.features.columns, np.abs(deviations) >= MOVED, strict=True)
            heard[fault] |= {column.name for column, moved in columns if moved and column.channel == "burst"}
    return heard


def pictures(simulation: Simulation) -> Iterator[tuple[str, str]]:
    """(feature's id, its picture) of what was simulated: with the fault that tells most, or healthy alone where none moves it."""
    columns = of_columns(next(iter(simulation.machines.values())).features)
    for feature in known_features().values():
        fault = feature_page.pictured_fault(feature)
        simulated = fault in simulation.moves if fault else HEALTHY_END in simulation.machines
        if feature.id not in columns or not simulated:
            continue
        picture = _picture(feature, columns[feature.id], simulation, fault)
        if np.isfinite(picture.healthy).all():
            yield feature.id, picture.svg()


def _picture(feature: Feature, columns: Sequence[int], simulation: Simulation, fault: str | None) -> Picture:
    """Of the fault's first place; of several columns (bands), the one that is moved most."""
    place = FAULTS[fault].places[0] if fault else HEALTHY_END
    end = MEASURED_AT[place]
    move = simulation.moves[fault][0] if fault else None
    at = max(columns, key=lambda column: np.median(np.abs(move.deviations[..., column]))) if move else columns[0]
    return Picture(
        title=simulation.machines[end].features.names[at],
        unit=feature.unit,
        fault=f"{FAULTS[fault].title}, {PLACE_WORDS[place]}" if fault else "",
        logarithmic=feature.transform == "log",
        duties=simulation.healthy[end].duties,
        severities=move.severities if move else (),
        healthy=simulation.healthy[end].values[..., at],
        faulty=move.values[..., at] if move else None,
    )


def contradictions(simulation: Simulation) -> list[str]:
    """Where simulation and declarations disagree without an exception."""
    features = next(iter(simulation.machines.values())).features
    known = excused()
    return [
        f"{fault}, {name}: {what}"
        for fault, name, what in disagreements(features, simulation.moves)
        if (fault, name) not in known
    ]


def idle_exceptions(simulation: Simulation) -> list[str]:
    """Exceptions that the simulation clearly does not need any more; near the limit, chance decides."""
    features = next(iter(simulation.machines.values())).features
    needed = {(fault, name) for fault, name, _ in disagreements(features, simulation.moves, CLEARLY)}
    idle = [key for key in excused() if key not in needed and key[0] in simulation.moves]
    return [f"{fault}, {name}: agrees with its declaration; take it off the exceptions" for fault, name in idle]


def main(root: Path) -> int:
    """Write the pages; 1 where the simulation contradicts a declaration."""
    simulation = simulate(root / "config")
    if wrong := contradictions(simulation) + idle_exceptions(simulation):
        print("\n".join(wrong), file=sys.stderr)
        return 1
    machine = simulation.machines["motor_de"]
    folder = root / "docs" / "features"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, svg in pictures(simulation):
        (folder / f"{name}.svg").write_text(svg, "utf-8")
    (root / "docs" / "features.md").write_text(feature_page.page(machine), "utf-8")
    faults = fault_page.page(machine.features, simulation.moves, heard_elsewhere(simulation))
    (root / "docs" / "faults.md").write_text(faults, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
