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
    parameters: dict[str, float] = {}


class Limit(Table, frozen=True):
    """A fast protective limit with ISA-18.2 delays. Absolute (`above`, `below`), or a share of the learned normal."""

    name: Point
    channel: Point
    fault: str
    severity: Literal["crit", "high", "low"] = "high"
    above: float | None = None
    below: float | None = None
    below_normal_ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    only_running: bool = True
    on_delay_s: Annotated[float, Meta(ge=0)] = 5.0
    off_delay_s: Annotated[float, Meta(ge=0)] = 60.0
    deadband: Annotated[float, Meta(ge=0)] = 0.0


class StateRule(Table, frozen=True):
    """How the operating state is read: from the first of these channels that the machine has."""

    speed_channel: Point = "shaft_speed_rpm"
    power_channel: Point = "active_power_kw"
    starting_s: Annotated[float, Meta(ge=0, description="seconds after run-up that belong to the start")] = 60.0
    dwell_s: Annotated[
        float, Meta(ge=0, description="seconds a speed must hold before the machine counts as running at it")
    ] = 30.0


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
    limits: tuple[Limit, ...] = ()


def load_machine_profile(root: Path, machine_type: str) -> MachineProfile:
    """The profile of a machine type from config/machines/.

    Raises: ConfigError: unknown type or a wrong file.
    """
    return load(root / "machines" / f"{machine_type}.toml", MachineProfile)
