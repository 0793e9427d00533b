"""What is known of a machine's columns when something is explained to a person: values, normals, limits, and words for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.features.bearings import designation_of
from agent.vocabulary import F64, Evidence, FeatureVector, OperatingPoint, Score
from agent.words import Words
from firmware_bridge.units import suffix_of, unit_of

if TYPE_CHECKING:
    from agent.baseline import Baseline
    from agent.config import Machine

# What kind of quantity a column is, so that an unclear alarm sends people to the right place: by the beginning of its name,
# else by its unit's suffix.
QUANTITY_OF_NAME = {
    **dict.fromkeys(
        ("hf_acceleration", "kurtosis", "crest", "envelope.", "vibration.kurtosis", "vibration.crest"), "impacts"
    ),
    **dict.fromkeys(("vibration.", "spectrum.", "peak_velocity_frequency"), "vibration"),
    **dict.fromkeys(("electrical.", "power_factor", "motor_torque"), "electrical"),
    **dict.fromkeys(("hydraulic.",), "hydraulic"),
    **dict.fromkeys(("thermal.",), "temperature"),
}
QUANTITY_OF_UNIT = {
    **dict.fromkeys(("m_s2", "mm_s", "g", "um"), "vibration"),
    **dict.fromkeys(("bar", "kpa", "m3_h", "l_min", "m"), "hydraulic"),
    **dict.fromkeys(("a", "v", "kw", "w", "kvar", "kva", "kwh", "nm", "wh_m3"), "electrical"),
    **dict.fromkeys(("rpm", "hz"), "speed"),
    **dict.fromkeys(("degc", "k"), "temperature"),
}
LARGEST_LOG = 60.0  # exp(60) is beyond any unit; keeps a limit of a dead channel finite


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A machine's columns; arrays of shape (n_columns,).

    Attributes:
        names: as `Column.name`. words: each in words. units: as printed.
        values: physical units, NaN where absent. normals: the learned normal, NaN where there is none.
        limits: the value at which the machine's score would be at its threshold, NaN where there is none.
        lines_hz: where the column's line stands, NaN where it has none.
        parts: "bearing", "bearing_short" and "point" in words, for the fault's sentence.
    """

    names: tuple[str, ...]
    words: Sequence[str]
    units: Sequence[str]
    values: F64
    normals: F64
    limits: F64
    lines_hz: F64
    parts: Mapping[str, str]

    def evidence(self, column: int, share: float) -> Evidence:
        """One column as a person reads it."""
        return Evidence(
            feature=self.names[column],
            words=self.words[column],
            value=float(self.values[column]),
            normal=known(self.normals[column]),
            limit=known(self.limits[column]),
            unit=self.units[column],
            share=share,
            frequency_hz=known(self.lines_hz[column]),
        )


def view_of(machine: Machine, vector: FeatureVector, point: OperatingPoint, words: Words) -> View:
    """A machine's vector without any normal: what absolute physics has."""
    columns, unknown = machine.features.columns, np.full(len(machine.features.columns), np.nan)
    return View(
        names=machine.features.names,
        words=[
            words.column(column.name, feature.words, _band_hz(machine, column.name))
            for column, feature in zip(columns, machine.features.features, strict=True)
        ],
        units=[printed_unit(column.quantity) for column in columns],
        values=np.asarray(vector.values, np.float64),
        normals=unknown,
        limits=unknown,
        lines_hz=np.asarray(machine.features.lines_hz(machine.nameplate, point), np.float64),
        parts=parts_of(machine),
    )


def normals_of(vector: FeatureVector, baseline: Baseline, transforms: Sequence[str]) -> F64:
    """Each column's normal under the vector's own speed, load and weather, physical units. Shape (n_columns,)."""
    return _physical(baseline.expected(vector.covariates), transforms)


def limits_of(score: Score, location: F64, scale: F64, transforms: Sequence[str]) -> F64:
    """Where each column would stand if the whole vector were moved back until its score is at the threshold.

    The score is quadratic in the deviations, so that is at sqrt(threshold / score) of each of them. Shape (n_columns,).
    """
    if score.value <= 0:
        return np.full(len(transforms), np.nan)
    return _physical(location + scale * score.deviations * np.sqrt(score.threshold / score.value), transforms)


def _physical(transformed: F64, transforms: Sequence[str]) -> F64:
    is_log = np.array([transform == "log" for transform in transforms])
    values: F64 = np.where(is_log, np.exp(np.clip(transformed, -LARGEST_LOG, LARGEST_LOG)), transformed)
    return values


def parts_of(machine: Machine) -> dict[str, str]:
    """The machine's own parts in words: its first bearing and where its burst sensor sits."""
    parts = {"point": machine.profile.point_name}
    for place, bearing in machine.spec.bearings.items():
        parts["bearing_short"] = f"{place.upper()} bearing"
        parts["bearing"] = f"{place.upper()} bearing {designation_of(bearing)}".rstrip()
        break
    return parts


def quantity_of(name: str) -> str:
    """The kind of quantity behind a column's or channel's name, a key of [unclear_action]; "" for one of no such kind."""
    channel = name.partition(":")[0].partition("[")[0]
    beginnings = [beginning for beginning in QUANTITY_OF_NAME if channel.startswith(beginning)]
    if beginnings:
        return QUANTITY_OF_NAME[max(beginnings, key=len)]
    try:
        return QUANTITY_OF_UNIT.get(suffix_of(channel), "")
    except ValueError:
        return ""


def printed_unit(name: str) -> str:
    """The unit behind a number; a ratio to a floor is printed as a multiple."""
    if name.startswith("envelope.") and name.endswith("_ratio"):
        return "x"
    try:
        return unit_of(name)
    except ValueError:
        return ""


def known(value: float) -> float | None:
    """None for what is not known."""
    return float(value) if np.isfinite(value) else None


def _band_hz(machine: Machine, name: str) -> tuple[float, float] | None:
    _, found, band = name.partition("[band=")
    return machine.features.bands_hz[int(band.rstrip("]"))] if found else None
