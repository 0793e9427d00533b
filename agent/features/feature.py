"""What a feature is: declared once, in one place, with everything that training, agent and alarm text need of it.

A family is a module of this package (its name is the first half of the feature's id). It holds an `Analysis`, the work
that its features share, and one decorated function per feature that picks its number out of that work:

    @feature(version=1, words="crest factor", source="...", moved_by=("bearing_outer_race",))
    def crest_ratio(moments: Moments, column: Column) -> F64: ...

declares "vibration.crest_ratio". Adding a feature is adding that function; nothing else is edited.

A quantity is computed from several scalar channels of a machine instead, and from its plates:

    @quantity(version=1, words="slip", source="...", moved_by=("overload",), needs=("shaft_speed_rpm",))
    def slip_ratio(now: Readings, plate: Nameplate) -> float: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.features.nameplate import NAN, Nameplate
from agent.features.readings import Readings
from agent.vocabulary import F32, F64, OperatingPoint
from firmware_bridge.units import unit_of

Transform = Literal["log", "linear", "standard"]
Floats = F32 | F64
OverAxes = Literal["root_sum_square", "maximum"]
OWN_UNIT = ("burst", "machine")  # channels of columns whose feature names the unit itself
MAX_VALUE = 3.4e38  # float32's largest; beyond it a formula was fed with nonsense
ROWS = 4  # float32 rows that fill one SIMD register of scipy.fft: three axes and a zero row cost less than three rows


LineFrequency = Callable[[Nameplate, OperatingPoint], float | tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a machine's vector: which feature, of what, with which parameters. All of it is identity.

    Attributes:
        feature: id such as "vibration.rms_m_s2". version: of the formula; raised whenever its numbers change.
        channel: "burst", "machine" (a quantity of several channels), or the scalar channel whose statistic this is.
        parameters: sorted (name, value) pairs.
    """

    feature: str
    version: int
    channel: str
    parameters: tuple[tuple[str, float], ...]
    transform: Transform

    @property
    def name(self) -> str:
        """The name in data sets: "vibration.rms_m_s2", "spectrum.band_rms_m_s2[band=2]", "flow_m3_h:tag.level"."""
        prefix = "" if self.channel in OWN_UNIT else f"{self.channel}:"
        suffix = ",".join(f"{name}={value:g}" for name, value in self.parameters)
        return f"{prefix}{self.feature}" + (f"[{suffix}]" if suffix else "")

    @property
    def quantity(self) -> str:
        """What its values are, by the name that ends in their unit: the feature's, or the channel's for a statistic.

        A standard column has no unit, and is no value of its channel: its own name.
        """
        if self.transform == "standard":
            return self.name
        return self.feature if self.channel in OWN_UNIT else self.channel

    @property
    def unit(self) -> str:
        """The printed unit of the column's values."""
        return "" if self.transform == "standard" else unit_of(self.quantity)

    def parameter(self, name: str) -> float:
        """The value of one parameter; `feature_set_of` has made sure that it is there."""
        return dict(self.parameters)[name]


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """One declaration.

    Attributes:
        id: "<family>.<name>", the name ends in the unit.
        transform: under which the healthy spread is even ("log" for what grows by factors; its values are positive).
            "standard" is in standard deviations from its own past already: 0 is normal, and nothing is learned.
        words: what it is, for the alarm text.
        source: where the formula comes from.
        moved_by: ids of the faults that move it, most telling first.
        kind: computed from a burst, a statistic of a scalar channel, or a quantity of several of them.
        over_axes: how a machine's value comes from its axes. Neither way depends on how the sensor is turned by 90
            degrees, and a root sum of squares not on any angle.
        line_hz: for a line, where it stands under an operating point; NaN where that is not known. For a family of lines,
        all of them, the one to print first.
        n_lines: how many that are.
        parameters: names that every column of this feature must give.
        evaluate: (the family's analysis, column) -> shape (n_rows,), float32. None for tag statistics: the TagBank has
        them.
        needs, may_use: what a quantity reads: channels by their role ("suction_pressure_bar"; its tag.level is meant) or
        statistics of them ("temperature_degc:tag.slope"). Without one of `needs` it is absent; what the machine does not
        have of `may_use` is NaN to the formula.
        formula: (readings by these names, nameplate) -> value, NaN where it cannot be known.
        when_warm: it says something of a machine that has run long enough for its heat to stand, and nothing before.
    """

    id: str
    version: int
    transform: Transform
    words: str
    source: str
    moved_by: tuple[str, ...] = ()
    kind: Literal["burst", "tag", "quantity"] = "burst"
    over_axes: OverAxes = "maximum"
    line_hz: LineFrequency | None = None
    n_lines: int = 0
    parameters: tuple[str, ...] = ()
    evaluate: Callable[[Any, Column], Floats] | None = None
    needs: tuple[str, ...] = ()
    may_use: tuple[str, ...] = ()
    formula: Callable[[Readings, Nameplate], float] | None = None
    when_warm: bool = False

    def lines_hz(self, nameplate: Nameplate, point: OperatingPoint) -> tuple[float, ...]:
        """Where its lines stand, n_lines of them."""
        if self.line_hz is None:
            return ()
        found = self.line_hz(nameplate, point)
        return found if isinstance(found, tuple) else (found,)

    @property
    def family(self) -> str:
        return self.id.partition(".")[0]

    @property
    def unit(self) -> str:
        """The printed unit; a tag statistic has its channel's."""
        return "" if self.kind == "tag" else unit_of(self.id)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The tag statistics that a quantity reads, as columns are named: "suction_pressure_bar:tag.level"."""
        return tuple(statistic_name(name) for name in (*self.needs, *self.may_use))

    def quantity_of(self, tags: Mapping[str, tuple[float, bool]], plate: Nameplate) -> float:
        """The quantity's value.

        A formula never changes its mind while a sensor is silent: what the machine has and cannot use now makes the
        quantity absent, even where another channel could stand in for it.

        Args:
            tags: (value, usable) by statistic's name; what is missing the machine does not have, or never heard from.
        Returns: NaN where it cannot be known.
        """
        assert self.formula is not None, f"{self.id} is no quantity"
        now: dict[str, float] = {}
        for name in (*self.needs, *self.may_use):
            value, usable = tags.get(statistic_name(name), (NAN, name in self.may_use))
            if not usable:
                return NAN
            now[name] = value
        value = self.formula(now, plate)
        return value if abs(value) <= MAX_VALUE else NAN


def feature(
    *,
    version: int,
    words: str,
    source: str,
    moved_by: tuple[str, ...],
    transform: Transform = "log",
    over_axes: OverAxes = "maximum",
    line_hz: LineFrequency | None = None,
    n_lines: int = 1,
    parameters: tuple[str, ...] = (),
) -> Callable[[Callable[[Any, Column], Floats]], Feature]:
    """Declare a burst feature: module and function name are its id, the function is its formula."""

    def declare(function: Callable[[Any, Column], Floats]) -> Feature:
        family = function.__module__.rpartition(".")[2]
        return Feature(
            id=f"{family}.{function.__name__}",
            version=version,
            transform=transform,
            words=words,
            source=source,
            moved_by=moved_by,
            over_axes=over_axes,
            line_hz=line_hz,
            n_lines=n_lines if line_hz is not None else 0,
            parameters=parameters,
            evaluate=function,
        )

    return declare


def quantity(
    *,
    version: int,
    words: str,
    source: str,
    moved_by: tuple[str, ...],
    needs: tuple[str, ...] = (),
    may_use: tuple[str, ...] = (),
    transform: Transform = "linear",
    when_warm: bool = False,
) -> Callable[[Callable[[Readings, Nameplate], float]], Feature]:
    """Declare a quantity of several scalar channels: module and function name are its id, the function is its formula."""

    def declare(function: Callable[[Readings, Nameplate], float]) -> Feature:
        return Feature(
            id=f"{function.__module__.rpartition('.')[2]}.{function.__name__}",
            version=version,
            transform=transform,
            words=words,
            source=source,
            moved_by=moved_by,
            kind="quantity",
            needs=needs,
            may_use=may_use,
            formula=function,
            when_warm=when_warm,
        )

    return declare


def statistic_name(name: str) -> str:
    """The statistic that a quantity's need means: a bare channel is its level."""
    return name if ":" in name else f"{name}:tag.level"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a Core is built from, and nothing of the machine or the moment.

    Attributes:
        sample_rate_hz: the true one, as the sensor measured it.
        columns: the burst columns, in the order in which the core answers them.
        features: the declaration of each column.
        envelope_whitened: whether all lines of the envelope's band are given one height first.
    """

    sample_rate_hz: float
    n_samples: int
    bands_hz: tuple[tuple[float, float], ...]
    envelope_band_hz: tuple[float, float]
    velocity_band_hz: tuple[float, float]
    columns: tuple[Column, ...]
    features: tuple[Feature, ...]
    envelope_whitened: bool = False

    def lines_of(self, family: str) -> FamilyLines:
        """One family's lines among all of the plan's."""
        ordered = in_line_order(self.features)
        own = [feature for feature in ordered if feature.family == family]
        before = sum(feature.n_lines for feature in ordered if feature.family < family)
        ends = [0, *accumulate(feature.n_lines for feature in own)]
        at = slice(before, before + ends[-1])
        return FamilyLines(tuple(feature.id for feature in own), at, np.array(ends[:-1], np.intp))

    @property
    def bin_hz(self) -> float:
        """Distance of two lines of the spectrum: one over the window's length in seconds."""
        return self.sample_rate_hz / self.n_samples

    @property
    def last_bin(self) -> int:
        """The first bin that is no more of the spectrum's: Nyquist's, or the end."""
        return (self.n_samples + 1) // 2

    def bins(self, band_hz: tuple[float, float]) -> slice:
        """The spectrum's bins from the lower edge (within) to the upper (without); mean and Nyquist never belong."""
        start, stop = (-int(-edge // self.bin_hz) for edge in band_hz)  # ceil
        return slice(max(start, 1), min(stop, self.last_bin))


class FamilyLines(NamedTuple):
    """A family's lines.

    Attributes:
        names: the features that have lines. at: their lines among all lines of the plan.
        first: shape (n_names,), where each name's lines begin among the family's.
    """

    names: tuple[str, ...]
    at: slice
    first: NDArray[np.intp]


def in_line_order(features: Iterable[Feature]) -> list[Feature]:
    """The features that have lines, a family's side by side: the order of lines in every array of them."""
    return sorted((feature for feature in features if feature.n_lines), key=lambda feature: feature.family)


class Moments(NamedTuple):
    """Of each row, shape (n_rows,), float64: mean, largest distance from it, RMS about it, and the mean second, third and fourth
    power of the distance."""

    mean_m_s2: F64
    peak_m_s2: F32
    rms_m_s2: F64
    second: F64
    third: F64
    fourth: F64


class Rows(NamedTuple):
    """What the core hands to the families: one block of up to four rows, centred in time and as one windowed spectrum.

    Attributes:
        moments: of the samples in time, not windowed.
        spectrum: shape (n_rows, n_samples // 2 + 1), Hann-windowed, scaled so that a sum of |X|^2 over bins is the mean
            square of the signal in those bins (m/s2)^2; read only.
        power: shape (n_rows, 2 * (n_samples // 2 + 2)), squares of real and imaginary part side by side, bin by bin, and
            an empty bin at the end; read only.
        line_bins: shape (1 or n_rows, n_lines), where the plan's lines stand, in bins; NaN where that is not known.
    """

    moments: Moments
    spectrum: Any  # NDArray[complex64]
    power: F32
    line_bins: F64


class Analysis(Protocol):
    """A family's shared work: built once for a plan, then called for every block."""

    def __init__(self, plan: Plan) -> None: ...

    def __call__(self, rows: Rows) -> Any: ...
