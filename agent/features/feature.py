"""What a feature is: declared once, in one place, with everything that training, agent and alarm text need of it.

A family is a module of this package (its name is the first half of the feature's id). It holds an `Analysis`, the work
that its features share, and one decorated function per feature that picks its number out of that work:

    @feature(version=1, words="crest factor", source="...", moved_by=("bearing_outer_race",))
    def crest_ratio(moments: Moments, column: Column) -> F32: ...

declares "vibration.crest_ratio". Adding a feature is adding that function; nothing else is edited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agent.features.bearings import BearingOrders
from agent.vocabulary import F32, F64, OperatingPoint
from firmware_bridge.units import unit_of

Transform = Literal["log", "linear"]
OverAxes = Literal["root_sum_square", "maximum"]
ROWS = 4  # float32 rows that fill one SIMD register of scipy.fft: three axes and a zero row cost less than three rows


@dataclass(frozen=True, slots=True)
class Nameplate:
    """What is this one machine's own, and so no part of a model's identity. NaN or None: not known, never guessed.

    Attributes:
        line_frequency_hz: what the motor is fed with when no meter or drive says so.
        bearing: orders of the bearing beside the burst sensor.
    """

    rated_speed_rpm: float = float("nan")
    line_frequency_hz: float = float("nan")
    n_vanes: int | None = None
    bearing: BearingOrders | None = None


LineFrequency = Callable[[Nameplate, OperatingPoint], float]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a machine's vector: which feature, of what, with which parameters. All of it is identity.

    Attributes:
        feature: id such as "vibration.rms_m_s2". version: of the formula; raised whenever its numbers change.
        channel: "burst", or the scalar channel whose statistic this is.
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
        prefix = "" if self.channel == "burst" else f"{self.channel}:"
        suffix = ",".join(f"{name}={value:g}" for name, value in self.parameters)
        return f"{prefix}{self.feature}" + (f"[{suffix}]" if suffix else "")

    @property
    def unit(self) -> str:
        """The printed unit of the column's values."""
        return unit_of(self.feature if self.channel == "burst" else self.channel)

    def parameter(self, name: str) -> float:
        """The value of one parameter; `feature_set_of` has made sure that it is there."""
        return next(value for key, value in self.parameters if key == name)


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """One declaration.

    Attributes:
        id: "<family>.<name>", the name ends in the unit.
        transform: under which the healthy spread is even ("log" for what grows by factors; its values are positive).
        words: what it is, for the alarm text.
        source: where the formula comes from.
        moved_by: ids of the faults that move it, most telling first.
        kind: computed from a burst, or a statistic of a scalar channel.
        over_axes: how a machine's value comes from its axes. Neither way depends on how the sensor is turned by 90
            degrees, and a root sum of squares not on any angle.
        line_hz: for a line, where it stands under an operating point; NaN where that is not known.
        parameters: names that every column of this feature must give.
        evaluate: (the family's analysis, column) -> shape (n_rows,), float32. None for tag statistics: the TagBank has
        them.
    """

    id: str
    version: int
    transform: Transform
    words: str
    source: str
    moved_by: tuple[str, ...] = ()
    kind: Literal["burst", "tag"] = "burst"
    over_axes: OverAxes = "maximum"
    line_hz: LineFrequency | None = None
    parameters: tuple[str, ...] = ()
    evaluate: Callable[[Any, Column], F32] | None = None

    @property
    def family(self) -> str:
        return self.id.partition(".")[0]

    @property
    def unit(self) -> str:
        """The printed unit; a tag statistic has its channel's."""
        return unit_of(self.id) if self.kind == "burst" else ""


def feature(
    *,
    version: int,
    words: str,
    source: str,
    moved_by: tuple[str, ...],
    transform: Transform = "log",
    over_axes: OverAxes = "maximum",
    line_hz: LineFrequency | None = None,
    parameters: tuple[str, ...] = (),
) -> Callable[[Callable[[Any, Column], F32]], Feature]:
    """Declare a burst feature: module and function name are its id, the function is its formula."""

    def declare(function: Callable[[Any, Column], F32]) -> Feature:
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
            parameters=parameters,
            evaluate=function,
        )

    return declare


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a Core is built from, and nothing of the machine or the moment.

    Attributes:
        sample_rate_hz: the true one, as the sensor measured it.
        columns: the burst columns, in the order in which the core answers them.
        features: the declaration of each column.
    """

    sample_rate_hz: float
    n_samples: int
    bands_hz: tuple[tuple[float, float], ...]
    envelope_band_hz: tuple[float, float]
    velocity_band_hz: tuple[float, float]
    columns: tuple[Column, ...]
    features: tuple[Feature, ...]

    @property
    def bin_hz(self) -> float:
        """Distance of two lines of the spectrum: one over the window's length in seconds."""
        return self.sample_rate_hz / self.n_samples

    def bins(self, band_hz: tuple[float, float]) -> slice:
        """The spectrum's bins from the lower edge (within) to the upper (without); mean and Nyquist never belong."""
        start, stop = (-int(-edge // self.bin_hz) for edge in band_hz)  # ceil
        return slice(max(start, 1), min(stop, (self.n_samples + 1) // 2))


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What the core hands to the families: one block of up to four rows, centred in time and as one windowed spectrum.

    Attributes:
        centred: shape (n_rows, n_samples), m/s2, mean removed; read only.
        spectrum: shape (n_rows, n_samples // 2 + 1), Hann-windowed, scaled so that a sum of |X|^2 over bins is the mean
            square of the signal in those bins (m/s2)^2; read only.
        scratch: shape (n_rows, n_samples), anybody's, until he returns.
        line_hz: shape (n_rows, n_columns), where each column's line stands; NaN for columns without, or not known.
    """

    centred: F32
    spectrum: Any  # NDArray[complex64]
    scratch: F32
    line_hz: F64


class Analysis(Protocol):
    """A family's shared work: built once for a plan, then called for every block."""

    def __init__(self, plan: Plan) -> None: ...

    def __call__(self, rows: Rows) -> Any: ...
