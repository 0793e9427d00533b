"""docs/features.md: every feature by family, from its declaration and nothing else."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

import msgspec
import numpy as np

from agent.features import Feature, known_features
from agent.features.feature import statistic_name
from agent.vocabulary import OperatingPoint
from agent.words import Words
from training.fault_moves import machine_faults
from training.simulated_duties import DUTIES, SimulatedSet

N_GEAR_TEETH = 23  # no gear is simulated; a wheel is written down so that its line has a place
KINDS = {"burst": "of a burst", "tag": "statistic of a channel", "quantity": "of several channels"}
TRANSFORMS = {
    "log": "by factors (logarithm)",
    "linear": "by differences",
    "standard": "as it is, in standard deviations (nothing is learned)",
}
OVER_AXES = {"root_sum_square": "root sum of squares", "maximum": "largest"}

INTRODUCTION = """# Features

Every number that a model or a limit can look at, as the agent computes it. This page is made from the declarations in
`agent/features/` by `make docs`; change it there. Bursts give features of vibration and of current; scalar channels give
statistics (`tag`) and, several together, quantities. Which faults of the simulator move what is in [faults.md](faults.md).

In the pictures, every line is one speed and load of the simulated machine: healthy moments stand left, severity grows to the
right. A feature without a picture is one that the simulated machine has no sensor, no plate or no physics for. Where lines
stand is said for that machine's motor end: bearing 6308, four poles, six vanes, and a wheel of {n_teeth} teeth for want of a gear.
"""


def page(machine: SimulatedSet) -> str:
    """The whole page.

    Args: machine: the simulated set; what it cannot measure has no picture.
    """
    seen = drawn(machine)
    families = groupby(known_features().values(), key=lambda feature: feature.family)
    parts = [
        INTRODUCTION.format(n_teeth=N_GEAR_TEETH),
        *(_family(name, features, machine, seen) for name, features in families),
    ]
    return "\n".join(parts)


def drawn(machine: SimulatedSet) -> set[str]:
    """The features that the simulated set has a value for, and which are therefore drawn."""
    columns = zip(machine.features.columns, machine.vector(DUTIES[0], 0), strict=True)
    return {column.feature for column, value in columns if np.isfinite(value) and ":" not in column.name}


def pictured_fault(feature: Feature) -> str | None:
    """The simulated fault that its picture shows: the first of those that move it."""
    simulated = machine_faults()
    return next((fault for fault in feature.moved_by if fault in simulated), None)


def _family(name: str, features: Iterable[Feature], machine: SimulatedSet, seen: set[str]) -> str:
    module = importlib.import_module(f"agent.features.{name}")
    own = [_feature(feature, machine, feature.id in seen) for feature in features]
    return "\n".join([f"## {name}\n", f"{inspect.getdoc(module)}\n", *own])


def _feature(feature: Feature, machine: SimulatedSet, has_picture: bool) -> str:
    unit = "its channel's" if feature.kind == "tag" else feature.unit or "none, a ratio"
    rows = [
        f"- unit: {unit}; {KINDS[feature.kind]}; judged {TRANSFORMS[feature.transform]}; version {feature.version}",
        f"- formula and source: {feature.source}",
        f"- moved by: {_faults(feature)}" if feature.kind != "tag" else "",
        f"- over the axes: {OVER_AXES[feature.over_axes]}" if feature.kind == "burst" else "",
        f"- parameters: {_code(feature.parameters)}" if feature.parameters else "",
        f"- stands at: {_lines(feature, machine)}" if feature.n_lines else "",
        f"- needs: {_code(map(statistic_name, feature.needs))}" if feature.needs else "",
        f"- may use: {_code(map(statistic_name, feature.may_use))}" if feature.may_use else "",
    ]
    picture = f"\n![{feature.id}, healthy and faulty](features/{feature.id}.svg)" if has_picture else ""
    about = (feature.evaluate or feature.formula).__doc__ if feature.kind != "tag" else None
    said = f"\n{inspect.cleandoc(about)}\n" if about else ""
    listed = "\n".join(row for row in rows if row)
    words = feature.words.format(low="f1", high="f2")
    return f"### `{feature.id}`: {words}\n{said}\n{listed}\n{picture}\n"


def _faults(feature: Feature) -> str:
    words = Words()
    return ", ".join(words.fault(fault, {}) for fault in feature.moved_by) or "no fault"


def _lines(feature: Feature, machine: SimulatedSet) -> str:
    """Where its lines stand on the simulated machine, warm, at rated speed and line frequency."""
    plate = machine.nameplate
    point = OperatingPoint(plate.rated_speed_rpm, plate.line_frequency_hz)
    geared = replace(plate, data=msgspec.structs.replace(plate.data, n_gear_teeth=N_GEAR_TEETH))
    at = ", ".join(f"{line:.1f}" for line in feature.lines_hz(geared, point))
    return f"{at} Hz on the simulated motor ({plate.rated_speed_rpm:g} rpm, {plate.line_frequency_hz:g} Hz supply)"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
