"""docs/faults.md: what every fault of the simulator moves, and what does not follow the declarations, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.diagnosis import catalogue
from agent.features import FeatureSet, known_features
from agent.words import Words
from simulator.faults import FAULTS, SENSOR_FAULTS
from training.fault_moves import (
    EXCEPTIONS,
    FALL_BACK_RATIO,
    HALF,
    LEAST_LOG_SPREAD,
    MOVED,
    N_FAULTY,
    SEVERITIES,
    STRONGLY,
    Move,
    Verdict,
    declared,
    machine_faults,
    measured,
    of_columns,
    verdict,
)
from training.simulated_duties import DUTIES

MARKS = {
    Verdict.NOT: ("", ""),
    Verdict.SEVERE: ("·", "·"),
    Verdict.PARTLY: ("△", "▽"),
    Verdict.MOVED: ("▲", "▼"),
    Verdict.STRONGLY: ("▲▲", "▼▼"),
}

MOVED_MARKS = {mark for pair in MARKS.values() for mark in pair if mark}

INTRODUCTION = """# Faults and the features they move

Made by `make docs` from the simulator. The example motor and pump run at drive frequencies of {speeds} Hz, with circuit
resistances of {valves} times the usual one. Every fault sits at each of its places with severities of {severities};
{n} moments each. A moment with the fault is compared with the same moment without it, in healthy standard deviations: robust,
within the same speed and load, and at least {least:.0f} % where a feature is judged by factors.

- ▲▲ ▼▼ moved strongly: as below, and by {strongly:g} deviations or more at severity {half:g} already
- ▲ ▼ moved: by {moved:g} deviations or more at every speed, load and place, in one direction and in step with severity. No value
  comes back by more than {fall_back:.0f} % of its way: ratios that saturate pass, and so does the late fall of kurtosis
- △ ▽ moved at severity {half:g} at some speed, load or place, but not everywhere, or not in step: see the exceptions
- · moved here and there by a severe case only
- in brackets: not declared. That is no contradiction while severity {half:g} stays within {moved:g} deviations: a spall that has
  spread shakes the whole machine

An empty field stays within {moved:g} deviations even at full severity; - has no value any more. Tests assert that what features and
simulator declare (`moved_by`, `moves`) is moved, a feature of several columns in one of them, and that nothing else is at
severity {half:g}.
"""
OTHER_END = f"""\
Motor and pump stand on one base and turn on one shaft. What the burst sensor at the end where the fault is not shows of it, at
severity {HALF:g} and the middle speed and load:
"""


def page(features: FeatureSet, moves: Mapping[str, Sequence[Move]], heard: Mapping[str, set[str]]) -> str:
    """The whole page.

    Args: heard: by fault, the columns that it moves at the other end of the set.
    """
    speeds, valves = (sorted({duty[at] for duty in DUTIES}) for at in (0, 1))
    introduction = INTRODUCTION.format(
        speeds=_listed(speeds),
        valves=_listed(valves),
        severities=_listed(SEVERITIES),
        n=N_FAULTY,
        least=100 * LEAST_LOG_SPREAD,
        strongly=STRONGLY,
        half=HALF,
        moved=MOVED,
        fall_back=100 * FALL_BACK_RATIO,
    )
    return "\n".join([introduction, _table(features, moves), _elsewhere(heard), _exceptions(), _not_simulated()])


def marks(features: FeatureSet, fault: str, moves: Sequence[Move]) -> dict[str, str]:
    """A fault's column of the table, by the columns of the vector; "-" where the simulated set has no value."""
    expected = declared(fault)
    found = {}
    for name, columns in of_columns(features).items():
        for column in columns:
            what, sign = verdict(moves, column)
            mark = MARKS[what][sign < 0] if measured(moves, [column]) else "-"
            found[features.names[column]] = f"({mark})" if mark in MOVED_MARKS and name not in expected else mark
    return found


def _table(features: FeatureSet, moves: Mapping[str, Sequence[Move]]) -> str:
    by_fault = [marks(features, fault, of_fault) for fault, of_fault in moves.items()]
    titles = [FAULTS[fault].title for fault in moves]
    lines = ["| column | " + " | ".join(titles) + " |", "|---" + "|:-:" * len(titles) + "|"]
    for name in features.names:
        cells = [found[name] for found in by_fault]
        if set(cells) != {"-"}:
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(["## What moves what\n", *lines, ""])


def _elsewhere(heard: Mapping[str, set[str]]) -> str:
    """Crosstalk, fault by fault."""
    lines = [
        f"- {FAULTS[fault].title}: {', '.join(f'`{name}`' for name in sorted(names)) or 'nothing'}"
        for fault, names in heard.items()
    ]
    return "\n".join(["## At the other end\n", OTHER_END, *lines, ""])


def _exceptions() -> str:
    """By reason, as they stand in the code."""
    lines = []
    for reason, pairs in EXCEPTIONS.items():
        lines.append(f"- {reason}")
        lines += [f"  - {FAULTS[fault].title}: {', '.join(f'`{name}`' for name in names)}" for fault, names in pairs]
    return "\n".join(["## Exceptions, and why\n", *lines, ""])


def _not_simulated() -> str:
    """What features or the catalogue speak of and the simulator cannot make."""
    named = {fault for feature in known_features().values() for fault in feature.moved_by}
    simulated = set(machine_faults())
    words = Words()
    missing = [f"- {words.fault(fault, {})} (`{fault}`)" for fault in sorted((named | set(catalogue())) - simulated)]
    sensors = ", ".join(FAULTS[fault].title for fault in SENSOR_FAULTS)
    end = f"Faults of sensors ({sensors}) move no feature: they make it absent, and are an alarm of their own."
    return "\n".join(["## Not simulated\n", *missing, "", end, ""])


def _listed(values: Sequence[float]) -> str:
    *first, last = (f"{value:g}" for value in values)
    return f"{', '.join(first)} and {last}"
