"""MachineProfile: a checked config/machines/<type>.toml. What is measured on a kind of machine, and what is watched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from firmware_bridge.checked import Table, load

Positive = Annotated[float, Meta(gt=0)]
Point = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9_]*$", description="lower-case letters, digits and _; a quantity ends in its unit")
]


class Burst(Table, frozen=True):
    """The waveform that the machine's feature columns are computed from."""

    sample_rate_hz: Annotated[float, Meta(gt=100)]
    n_samples: Annotated[int, Meta(ge=256)]
    bands_hz: tuple[tuple[float, float], ...]
    envelope_band_hz: tuple[float, float]
    velocity_band_hz: tuple[float, float] = (10.0, 1000.0)
    envelope_whitened: Annotated[
        bool,
        Meta(description="cepstrum pre-whitening: for machines whose gears or drives put strong lines into the band"),
    ] = False


class ColumnSpec(Table, frozen=True):
    """One column of the machine's vector.

    A burst feature is named by its id ("envelope.bpfo_ratio"); a scalar column is a tag statistic of a channel
    ("tag.level" of "suction_pressure_bar").
    """

    feature: str
    channel: Point = "burst"
    scale_floor: Annotated[
        float, Meta(ge=0, description="smallest healthy spread, in the column's own unit (or its logarithm)")
    ] = 0.02
    scale_floor_ratio: Annotated[
        float, Meta(ge=0, lt=1, description="the same as a share of the learned level: a meter's accuracy of reading")
    ] = 0.0
    parameters: dict[str, float] = {}


class Limit(Table, frozen=True):
    """A fast protective limit with ISA-18.2 delays. Absolute (`above`, `below`), or a ratio to the channel's learned normal.

    The learned normal is that of the learning windows, whatever a machine that runs in does to its baseline afterwards.
    """

    name: Point
    channel: Point
    fault: str
    severity: Literal["crit", "high", "low"] = "high"
    above: float | None = None
    below: float | None = None
    below_normal_ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    above_normal_ratio: Annotated[float, Meta(gt=1)] | None = None
    only_running: bool = True
    on_delay_s: Annotated[float, Meta(ge=0)] = 5.0
    off_delay_s: Annotated[float, Meta(ge=0)] = 60.0
    refractory_s: Annotated[float, Meta(ge=0, description="back within so long, it clears only after so long")] = (
        86_400.0
    )
    deadband: Annotated[float, Meta(ge=0)] = 0.0


class StateRule(Table, frozen=True):
    """How the operating state is read: speed and power, else current, else vibration; and what normal depends on within it.

    `load_channels`: load is the first of these that the machine has. `ambient_channels` likewise.
    """

    speed_channel: Point = "shaft_speed_rpm"
    power_channel: Point = "active_power_kw"
    current_channel: Point = "motor_current_a"
    vibration_channels: tuple[Point, ...] = (
        "velocity_rms_z_mm_s",
        "velocity_rms_x_mm_s",
        "velocity_rms_mm_s",
        "acceleration_rms_z_g",
    )
    load_channels: tuple[Point, ...] = ("active_power_kw", "motor_torque_pct", "motor_current_a")
    ambient_channels: tuple[Point, ...] = ("ambient_temperature_degc",)
    starting_s: Annotated[float, Meta(ge=0, description="seconds after run-up that belong to the start")] = 60.0
    dwell_s: Annotated[
        float, Meta(ge=0, description="seconds a speed must hold before the machine counts as running at it")
    ] = 30.0
    warming_s: Annotated[
        float, Meta(ge=0, description="seconds of running after a start, until its temperatures are judged")
    ] = 7200.0


class TagTimes(Table, frozen=True):
    """Time constants of the machine's scalar statistics. The defaults are for values that come about once a second.

    `level_s`, `slow_s`: of tag.level and tag.slow_level. `gap_s`: after a longer silence a channel starts anew.
    `settled_s`: for time constants of days: a young mean is the plain mean of what was seen, and deviations count from then on.
    `n_samples`: that tag.median and tag.carpet look back on.
    """

    level_s: Positive = 5.0
    slow_s: Positive = 300.0
    gap_s: Positive = 120.0
    settled_s: Positive | None = None
    n_samples: Annotated[int, Meta(ge=4, le=4096)] = 64

    def __post_init__(self) -> None:
        """Raises: ValueError: times that are not in order."""
        if not self.level_s < self.slow_s:
            raise ValueError(f"level_s = {self.level_s:g} must be below slow_s = {self.slow_s:g}")
        if self.settled_s is not None and not self.settled_s > self.level_s:
            raise ValueError(f"settled_s = {self.settled_s:g} must be above level_s = {self.level_s:g}")


class AxisSum(Table, frozen=True):
    """A level of several axes as one channel, their root sum of squares: energies add.

    So it does not depend on how the sensor is turned. A machine that lacks one of the axes has no such channel, and one whose
    sensor tells it by itself has the sensor's.
    """

    channel: Point
    axes: Annotated[tuple[Point, ...], Meta(min_length=2)]


class MachineProfile(Table, frozen=True):
    """A kind of machine.

    `point_name` says where its burst sensor sits in words ("motor drive end"). `zone_bc_mm_s` is the velocity above which
    a machine may not be learned as healthy (boundary B/C of the norm named in `norm`).
    """

    type: Point
    title: str
    norm: str
    zone_bc_mm_s: Positive
    zone_cd_mm_s: Positive
    bundle: Annotated[str, Meta(description="folder below models/, e.g. motor/1.0.0")]
    point_name: str
    columns: tuple[ColumnSpec, ...]
    burst: Burst | None = None
    state: StateRule = StateRule()
    tags: TagTimes = TagTimes()
    sums: tuple[AxisSum, ...] = ()
    limits: tuple[Limit, ...] = ()


def load_machine_profile(root: Path, machine_type: str) -> MachineProfile:
    """The profile of a machine type from config/machines/.

    Raises: ConfigError: unknown type or a wrong file.
    """
    return load(root / "machines" / f"{machine_type}.toml", MachineProfile)
