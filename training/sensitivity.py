"""Sensitivity without labels: the simulator's faults, put into a plant's own healthy windows at rising severity.

A plant has thousands of healthy windows and hardly a faulty one. So each fault's signature is taken from simulated machines:
what it makes of every column against the very same moment without it, as a ratio where a column is judged on a logarithmic
scale and as a difference in its unit where it is not. The signature is laid over healthy windows that no model has seen, in
physical units, before they are referred to their machine's baseline. S50 and S90 are the smallest severities at which half,
and nine tenths, of these windows exceed the threshold.

What is assumed: that a fault changes the plant's machine by the same factor, or by the same amount, as it changes the
simulator's (7.5 kW, plus or minus 30 %); that the plant's own noise goes on as before; that a column which the simulator or
the plant lacks is not moved. So S50 compares models and says which faults are found first. It is no measured property of a real
machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.baseline import LOG_FLOOR, transformed
from agent.features import FeatureSet, feature_set_of
from agent.machine import load_machine_profile
from training.dataset import SEVERITIES, Simulated, Windows, simulated_faults
from training.learned import F64, Kind, Learned, Vectors, refer

SIGNATURE_SEEDS = (501, 502, 503)  # simulated machines, none of them of the generic bundles' fleet
MAX_INJECTED = 24  # windows of a machine and state that carry each fault and severity: evenly out of its hold-out
HELD_WINDOWS = (
    12  # a severity lasts so long before it is judged: two hours at ten minutes, and slow models get their time
)
NEVER = 2.0  # the severity where none was enough

SimulatedKind = Literal["motor", "pump"]
Grade = tuple[str, float]  # a fault and its severity


@dataclass(frozen=True, slots=True, eq=False)
class Signatures:
    """What each simulated fault makes of every column.

    Attributes:
        kind: whose faults these are. moves: (fault, severity) -> shape (n_draws, n_columns), under the columns' transforms;
            0 where a column does not move or is not simulated. One draw is one machine.
    """

    kind: SimulatedKind
    moves: Mapping[Grade, F64]


class Faulty(NamedTuple):
    """Windows of one checked machine under a fault, in order of time, as deviations from its own baseline."""

    at: int  # place of the machine among those checked
    grade: Grade
    vectors: Vectors


def signatures(kind: Kind) -> Signatures:
    """The signatures for a machine type, from the kind of simulated machine that has most of its columns."""
    return _signatures(kind.config, kind.profile.type, kind.features.digest)


@lru_cache(maxsize=8)
def _signatures(config: Path, machine_type: str, _digest: str) -> Signatures:
    features = feature_set_of(load_machine_profile(config, machine_type))
    kinds: tuple[SimulatedKind, ...] = ("motor", "pump")
    simulated = max(kinds, key=lambda name: (_n_present(features, name, config), name == machine_type))
    machines = [Simulated(features, simulated, seed, config) for seed in SIGNATURE_SEEDS]
    transforms = [column.transform for column in features.columns]

    def seen(faults: dict[str, float] | None) -> F64:
        drawn = [machine.windows((0,), faults).values for machine in machines]
        return transformed(np.concatenate(drawn), transforms)

    healthy = seen(None)
    moves = {
        (fault, severity): np.nan_to_num(seen({fault: severity}) - healthy, nan=0.0, posinf=0.0, neginf=0.0)
        for fault in simulated_faults(simulated)
        for severity in SEVERITIES
    }
    return Signatures(simulated, moves)


def _n_present(features: FeatureSet, kind: SimulatedKind, config: Path) -> int:
    return int(Simulated(features, kind, SIGNATURE_SEEDS[0], config).windows((0,)).present.sum())


def injected(kind: Kind, machine: Learned, windows: Windows, made: Signatures) -> list[Faulty]:
    """A machine's hold-out windows, in physical units, with every fault at every severity; draws in turns."""
    picks = np.unique(np.linspace(0, len(windows) - 1, min(MAX_INJECTED, len(windows))).astype(int))
    chosen = replace(windows, values=windows.values[picks], present=windows.present[picks])
    before = transformed(chosen.values, kind.transforms)
    items = []
    for grade, moves in made.moves.items():
        after = before + moves[np.arange(len(picks)) % len(moves)]
        values = physical(after, kind.transforms).astype(np.float32)
        items.append(Faulty(0, grade, refer(kind, machine.baseline, replace(chosen, values=values))))
    return items


def physical(table: F64, transforms: Sequence[str]) -> F64:
    """The inverse of `agent.baseline.transformed`, for values that are not negative where the scale is logarithmic."""
    is_log = np.array([transform == "log" for transform in transforms])
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(is_log, np.maximum(np.exp(np.where(is_log, table, 0.0)), LOG_FLOOR), table)


def held(vectors: Vectors) -> Vectors:
    """The same windows with their fault having lasted for `HELD_WINDOWS` before, round and round."""
    n_windows = len(vectors[0])
    rows = np.arange(-HELD_WINDOWS, n_windows) % n_windows
    return vectors[0][rows], vectors[1][rows]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Which share of the windows exceeded the threshold, by fault and severity."""

    shares: Mapping[Grade, float]

    @classmethod
    def of(cls, found: Iterable[tuple[Grade, NDArray[np.bool_]]]) -> Sensitivity:
        """From the windows of every machine: did they exceed the threshold?"""
        by_grade: dict[Grade, list[NDArray[np.bool_]]] = {}
        for grade, exceeds in found:
            by_grade.setdefault(grade, []).append(exceeds)
        return cls({grade: float(np.concatenate(parts).mean()) for grade, parts in by_grade.items()})

    @property
    def faults(self) -> tuple[str, ...]:
        """In the simulator's order."""
        return tuple(dict.fromkeys(fault for fault, _ in self.shares))

    def curve(self, fault: str) -> dict[float, float]:
        """Severity -> share of windows found."""
        return {severity: share for (name, severity), share in self.shares.items() if name == fault}

    def severity(self, fault: str, share: float) -> float:
        """S50 for 0.5, S90 for 0.9."""
        return severity_at_share(self.curve(fault), share)

    def mean(self, share: float) -> float:
        """S50 or S90 on average over the faults, one that is never found counting as 2."""
        return float(np.mean([self.severity(fault, share) for fault in self.faults]))

    @property
    def n_found(self) -> int:
        """Faults of which half of the windows are found at some severity."""
        return sum(self.severity(fault, 0.5) < NEVER for fault in self.faults)


def severity_at_share(seen: Mapping[float, float], share: float) -> float:
    """The severity at which the share of detected windows first reaches `share`; 2.0 where it never does.

    Straight lines between tested severities; below the smallest tested one nothing is claimed.
    """
    before_severity, before_share = min(seen), 0.0
    for severity, detected in sorted(seen.items()):
        if detected >= share:
            step = (share - before_share) / (detected - before_share)
            return round(before_severity + step * (severity - before_severity), 3)
        before_severity, before_share = severity, detected
    return NEVER
