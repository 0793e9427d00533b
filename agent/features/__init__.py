"""Features: one declaration each, one path through which training and the agent both compute them.

    features = feature_set_of(profile)
    values, present = features.compute(window, tags, nameplate, Cores(features.plan_at))

A FeatureSet is identity (what the columns are, and their digest) and the way to fill them. It never guesses: what
cannot be measured is absent.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cache, cached_property

import numpy as np

import agent.features as package
from agent.features.core import Core, Cores
from agent.features.feature import ROWS, Column, Feature, Moments, Plan, Rows, in_line_order
from agent.features.nameplate import DataPlate, Nameplate
from agent.features.orders import resample_to_angle
from agent.features.speed import NOT_KNOWN, ShaftSpeed, SpeedTag, shaft_speed
from agent.machine import ColumnSpec, MachineProfile
from agent.tagbank import TagPlan
from agent.vocabulary import F32, F64, Mask, OperatingPoint, Window
from firmware_bridge.errors import ConfigError, Problem
from firmware_bridge.registry import module_named, names_in

__all__ = [
    "ABSENT",
    "Column",
    "Core",
    "Cores",
    "DataPlate",
    "Feature",
    "FeatureSet",
    "Nameplate",
    "Plan",
    "Refusal",
    "feature_set_of",
    "known_features",
]

RATE_TOLERANCE = 0.06  # MEMS sensors run up to 5 % beside their nominal rate
ABSENT = (float("nan"), False)
FLAT = 1e-5  # of the mean: a row that never moves is its mean but for rounding; 10 ug under 1 g is less than any sensor's noise
LEAST_BAND_BINS = 4  # a band narrower than a Hann line holds nothing of its own


class Refusal(StrEnum):
    """Why a window was not computed."""

    NOT_EXPECTED = "this machine type has no burst columns"
    AXES = "more than four axes, or none"
    LENGTH = "another number of samples than the profile's"
    RATE = "sample rate more than 6 % beside the profile's"
    CLIPPED = "samples reach full scale"
    NOT_FINITE = "a sample is not a finite number"
    FLAT = "an axis never moves"


@dataclass(frozen=True)
class FeatureSet:
    """The ordered columns of one machine type; training writes `digest` into the manifest, the agent compares it."""

    columns: tuple[Column, ...]
    sample_rate_hz: float = 0.0
    n_samples: int = 0
    bands_hz: tuple[tuple[float, float], ...] = ()
    envelope_band_hz: tuple[float, float] = (0.0, 0.0)
    velocity_band_hz: tuple[float, float] = (0.0, 0.0)
    envelope_whitened: bool = False
    tags: TagPlan = field(default_factory=TagPlan)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that the numbers depend on, nothing else."""
        identity = asdict(self)
        if not self.envelope_whitened:
            del identity["envelope_whitened"]  # sets of before there was the choice are the same as ever
        if self.tags.settled_s is None:
            del identity["tags"]["settled_s"]  # likewise
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The declaration behind each column."""
        return tuple(known_features()[column.feature] for column in self.columns)

    @cached_property
    def when_warm(self) -> Mask:
        """Shape (n_columns,): those that say nothing of a machine that is not warm yet."""
        return np.array([feature.when_warm for feature in self.features])

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Each column in words, for people."""
        return tuple(self._words(column, feature) for column, feature in zip(self.columns, self.features, strict=True))

    def _words(self, column: Column, feature: Feature) -> str:
        if feature.kind == "tag":
            return f"{column.channel}, {feature.words}"
        if "band" in feature.parameters:
            low_hz, high_hz = self.bands_hz[int(column.parameter("band"))]
            return feature.words.format(low=f"{low_hz:g}", high=f"{high_hz:g}")
        return feature.words

    @cached_property
    def statistics(self) -> dict[str, tuple[str, str]]:
        """What `compute` reads of the channels: "flow_m3_h:tag.level" -> ("flow_m3_h", "tag.level")."""
        names = [self.names[at] for at in self._tag_columns]
        names += [name for at in self._quantity_columns for name in self.features[at].statistics]
        return {name: (channel, statistic) for name in names for channel, _, statistic in [name.partition(":")]}

    def plan_at(self, sample_rate_hz: float, envelope_band_hz: tuple[float, float] | None = None) -> Plan:
        """The plan of the burst columns at a sensor's true sample rate; `envelope_band_hz`: the machine's own, where it has one."""
        burst = [(c, f) for c, f in zip(self.columns, self.features, strict=True) if f.kind == "burst"]
        columns, features = zip(*burst, strict=True) if burst else ((), ())
        bands = (self.bands_hz, envelope_band_hz or self.envelope_band_hz, self.velocity_band_hz)
        return Plan(sample_rate_hz, self.n_samples, *bands, columns, features, self.envelope_whitened)

    def lines_hz(self, nameplate: Nameplate, point: OperatingPoint) -> F64:
        """Shape (n_columns,): where each column's (first) line stands now; NaN where it has none or that is not known."""
        firsts = [f.lines_hz(nameplate, point)[0] if f.n_lines else np.nan for f in self.features]
        return np.array(firsts)

    def all_lines_hz(self, nameplate: Nameplate, point: OperatingPoint) -> F64:
        """Shape (n_lines,): every line of every burst column, as a core of `plan_at` wants them."""
        return np.array([line for f in self._line_features for line in f.lines_hz(nameplate, point)])

    def compute(
        self, window: Window | None, tags: Mapping[str, tuple[float, bool]], nameplate: Nameplate, cores: Cores
    ) -> tuple[F32, Mask]:
        """One machine's vector at one instant.

        Args:
            window: the burst, or None between bursts.
            tags: (value, usable) by the names of `statistics`; what the machine does not have is missing.
            cores: this set's; a window that is refused is counted there by reason.
        Returns: values, shape (n_columns,), float32, NaN where absent; present, shape (n_columns,).
        """
        values = np.full(len(self.columns), np.nan, np.float32)
        if window is not None:
            self._fill_burst(values, window, nameplate, cores)
        for at in self._tag_columns:
            value, usable = tags.get(self.names[at], ABSENT)
            values[at] = value if usable else np.nan
        for at in self._quantity_columns:
            values[at] = self.features[at].quantity_of(tags, nameplate)
        present = np.isfinite(values) & ~(self._positive & (values <= 0))
        values[~present] = np.nan
        return values, present

    def _fill_burst(self, values: F32, window: Window, nameplate: Nameplate, cores: Cores) -> None:
        cores.point, cores.speed_source = window.point, NOT_KNOWN.source
        refusal = self.refusal(window)
        if refusal is not None:
            cores.refused[refusal.name.lower()] += 1
            return
        core = cores.at(window.sample_rate_hz)
        rows = core.transform(window.samples)
        refusal = _unusable(rows.moments)
        if refusal is not None:
            cores.refused[refusal.name.lower()] += 1
            return
        speed = self._speed(rows, core.plan.bin_hz, nameplate, window.point)
        if speed.moved:
            profile = speed.profile(self.n_samples / window.sample_rate_hz)
            rows = core.transform(resample_to_angle(window.samples, window.sample_rate_hz, profile).samples)
        cores.point, cores.speed_source = replace(window.point, shaft_speed_rpm=speed.rpm), speed.source
        per_axis = core.measure(rows, self.all_lines_hz(nameplate, cores.point))
        values[self._burst_columns] = self._over_axes(per_axis)

    def _speed(self, rows: Rows, bin_hz: float, nameplate: Nameplate, point: OperatingPoint) -> ShaftSpeed:
        """The burst's shaft speed, as far as a line asks for one."""
        if not self._line_features:
            return NOT_KNOWN
        tag = SpeedTag(point.shaft_speed_rpm, point.speed_age_s, point.speed_spread_ratio)
        if any(feature.family == "current" for feature in self._line_features):
            return tag.speed if tag.rpm > 0 else NOT_KNOWN  # a current has no comb, and slip is what it is asked for
        return shaft_speed(rows.spectrum, bin_hz, nameplate, point, tag)

    def _over_axes(self, per_axis: F32) -> F32:
        """Energies add, ratios take the worst axis: the vector does not know which way the sensor was screwed on."""
        one: F32 = np.where(self._adding, np.sqrt(np.square(per_axis).sum(axis=0)), per_axis.max(axis=0))
        return one

    def refusal(self, window: Window) -> Refusal | None:
        """Why this window may not be computed, or None. Half a truth about a waveform is a wrong feature."""
        samples = window.samples
        shape = {
            Refusal.NOT_EXPECTED: not self._burst_columns.size,
            Refusal.AXES: not 1 <= len(samples) <= ROWS,
            Refusal.LENGTH: samples.shape[1] != self.n_samples,
            Refusal.RATE: not abs(window.sample_rate_hz - self.sample_rate_hz) <= RATE_TOLERANCE * self.sample_rate_hz,
            Refusal.CLIPPED: window.clipped,
        }
        return next((reason for reason, holds in shape.items() if holds), None)

    @cached_property
    def _burst_columns(self) -> np.ndarray:
        return np.flatnonzero([feature.kind == "burst" for feature in self.features])

    @cached_property
    def _line_features(self) -> tuple[Feature, ...]:
        return tuple(in_line_order(self.features))

    @cached_property
    def _tag_columns(self) -> tuple[int, ...]:
        return self._columns_of("tag")

    @cached_property
    def _quantity_columns(self) -> tuple[int, ...]:
        return self._columns_of("quantity")

    def _columns_of(self, kind: str) -> tuple[int, ...]:
        return tuple(at for at, feature in enumerate(self.features) if feature.kind == kind)

    @cached_property
    def _positive(self) -> Mask:
        return np.array([column.transform == "log" for column in self.columns], dtype=np.bool_)

    @cached_property
    def _adding(self) -> Mask:
        adding = [f.over_axes == "root_sum_square" for f in self.features if f.kind == "burst"]
        return np.array(adding, dtype=np.bool_)


def _unusable(moments: Moments) -> Refusal | None:
    rms, mean = moments.rms_m_s2, moments.mean_m_s2
    if not np.isfinite(rms).all():  # a NaN passes through every sum
        return Refusal.NOT_FINITE
    return Refusal.FLAT if (rms <= FLAT * np.abs(mean)).any() else None


@cache
def known_features() -> dict[str, Feature]:
    """Every declaration of every module of this package, by id: the file's name is its registration."""
    modules = [module_named(package, name) for name in names_in(package)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Feature)]
    return {feature.id: feature for feature in sorted(found, key=lambda feature: feature.id)}


def feature_set_of(profile: MachineProfile) -> FeatureSet:
    """The feature set of a machine type.

    Raises: ConfigError: unknown feature or parameter, a column twice, a band that the burst cannot hold; all at once.
    """
    problems: list[Problem] = []
    columns = tuple(
        column
        for at, spec in enumerate(profile.columns)
        if (column := _column(f"columns[{at}]", spec, profile, problems))
    )
    problems += _twice(columns)
    burst = profile.burst
    if burst is not None:
        bands = {f"burst.bands_hz[{at}]": band for at, band in enumerate(burst.bands_hz)}
        bands |= {"burst.envelope_band_hz": burst.envelope_band_hz, "burst.velocity_band_hz": burst.velocity_band_hz}
        problems += [problem for key, band in bands.items() for problem in _band_problems(key, band, profile)]
    if problems:
        raise ConfigError(f"machines/{profile.type}.toml", problems)
    times = profile.tags
    n_rounds = min(TagPlan().n_rounds, times.n_samples)
    tags = TagPlan(times.level_s, times.slow_s, times.n_samples, n_rounds, times.gap_s, times.settled_s)
    if burst is None:
        return FeatureSet(columns, tags=tags)
    bands_hz = (burst.bands_hz, burst.envelope_band_hz, burst.velocity_band_hz)
    return FeatureSet(columns, burst.sample_rate_hz, burst.n_samples, *bands_hz, burst.envelope_whitened, tags)


def _column(key: str, spec: ColumnSpec, profile: MachineProfile, problems: list[Problem]) -> Column | None:
    known = known_features()
    feature = known.get(spec.feature)
    if feature is None:
        close = difflib.get_close_matches(spec.feature, known, 1, 0.5)
        asked = f" Did you mean {close[0]!r}?" if close else ""
        problems.append(Problem(0, f'{key}.feature = "{spec.feature}"', f"not known.{asked}  ({', '.join(known)})"))
        return None
    before = len(problems)
    problems += [Problem(0, *problem) for problem in _column_problems(key, spec, feature, profile)]
    if len(problems) > before:
        return None
    parameters = tuple(sorted(spec.parameters.items()))
    channel = "machine" if feature.kind == "quantity" else spec.channel
    return Column(feature.id, feature.version, channel, parameters, feature.transform)


def _column_problems(key: str, spec: ColumnSpec, feature: Feature, profile: MachineProfile) -> list[tuple[str, str]]:
    found = []
    if feature.kind == "tag" and spec.channel == "burst":
        found.append((f"{key}.channel", f"is missing; {feature.id} needs the channel it is the statistic of"))
    if feature.kind == "burst" and spec.channel != "burst":
        found.append((f'{key}.channel = "{spec.channel}"', f"leave it out; {feature.id} is computed from the burst"))
    if feature.kind == "quantity" and spec.channel != "burst":
        reads = ", ".join((*feature.needs, *feature.may_use))
        found.append(
            (f'{key}.channel = "{spec.channel}"', f"leave it out; {feature.id} finds its channels itself: {reads}")
        )
    if feature.kind == "burst" and profile.burst is None:
        found.append((f"{key}.feature", f"{feature.id} needs the table [burst]"))
    if set(spec.parameters) != set(feature.parameters):
        found.append((f"{key}.parameters", f"{feature.id} takes {', '.join(feature.parameters) or 'none'}"))
    elif "band" in feature.parameters and profile.burst is not None:
        n_bands = len(profile.burst.bands_hz)
        if spec.parameters["band"] not in range(n_bands):
            found.append(
                (f"{key}.parameters.band", f"write a whole number from 0 to {n_bands - 1}, a place in burst.bands_hz")
            )
    return found


def _twice(columns: tuple[Column, ...]) -> list[Problem]:
    names = [column.name for column in columns]
    return [
        Problem(0, "columns", f"{name} stands there twice") for name in dict.fromkeys(names) if names.count(name) > 1
    ]


def _band_problems(key: str, band_hz: tuple[float, float], profile: MachineProfile) -> list[Problem]:
    assert profile.burst is not None
    low_hz, high_hz = band_hz
    highest_hz = profile.burst.sample_rate_hz * (1 - RATE_TOLERANCE) / 2
    least_hz = LEAST_BAND_BINS * profile.burst.sample_rate_hz / profile.burst.n_samples
    if not (low_hz > 0 and high_hz <= highest_hz and high_hz - low_hz >= least_hz):
        text = f"write [low, high]: low above 0, high at most {highest_hz:g} Hz, at least {least_hz:g} Hz apart"
        return [Problem(0, f"{key} = [{low_hz:g}, {high_hz:g}]", text)]
    return []
