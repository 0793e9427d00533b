"""What is one machine's own: its plates, its pump's curves, where its gauges sit. No part of a model's identity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from agent.features.bearings import BearingOrders
from agent.vocabulary import OperatingPoint
from firmware_bridge.checked import Table

NAN = math.nan
STANDARD_ATMOSPHERE_BAR = 1.01325  # ISO 2533, at sea level; about 0.12 bar less per 1000 m

Positive = Annotated[float, Meta(gt=0, le=1e6)]
Share = Annotated[float, Meta(gt=0, le=1)]
Height = Annotated[float, Meta(ge=-100, le=100, description="metres above the impeller's centre, below it negative")]
Point = Annotated[float, Meta(ge=0, le=1e6)]
Curve = Annotated[
    tuple[tuple[Point, Point], ...],
    Meta(min_length=2, max_length=8, description="2 to 8 points [flow in m3/h, value] at rated speed, flow rising"),
]
CURVES = ("head_curve", "efficiency_curve", "npsh3_curve")


class DataPlate(Table, frozen=True):
    """Table [machines.nameplate] of a site file: what stands on the plates and in the data sheets.

    All of it may be left out; NaN, None or an empty curve is "not known", and what needs it is absent, never guessed.
    """

    # of the motor
    rated_power_kw: Annotated[Positive, Meta(description="at the shaft")] = NAN
    rated_voltage_v: Annotated[Positive, Meta(description="line to line")] = NAN
    rated_current_a: Positive = NAN
    rated_power_factor_ratio: Share = NAN
    rated_efficiency_ratio: Annotated[Share, Meta(description="of the motor, times its drive's where it has one")] = NAN
    no_load_current_a: Annotated[Positive, Meta(description="of a motor on the mains; leave it out behind a drive")] = (
        NAN
    )
    n_poles: Annotated[int, Meta(ge=2, le=96)] | None = None
    # of a gear on its shaft
    n_gear_teeth: (
        Annotated[int, Meta(ge=5, le=1000, description="of the wheel on the shaft that is measured")] | None
    ) = None
    # of the heat
    ambient_temperature_degc: Annotated[
        float, Meta(ge=-60, le=80, description="where no sensor tells and the room is kept at it")
    ] = NAN
    rated_rise_k: Annotated[Positive, Meta(description="of temperature_degc over ambient, warm at rated load")] = NAN
    no_load_rise_k: Annotated[float, Meta(ge=0, le=300, description="the same, warm and idling")] = 0.0
    # of the pump and its pipes
    head_curve: Curve = ()
    efficiency_curve: Curve = ()
    npsh3_curve: Curve = ()
    suction_bore_mm: Annotated[Positive, Meta(description="of the pipe at the gauge")] = NAN
    discharge_bore_mm: Annotated[Positive, Meta(description="of the pipe at the gauge")] = NAN
    suction_gauge_height_m: Height = 0.0
    discharge_gauge_height_m: Height = 0.0
    atmospheric_pressure_bar: Annotated[
        float, Meta(ge=0, le=1.1, description="0 where the suction sensor reads absolute pressure")
    ] = STANDARD_ATMOSPHERE_BAR
    # of the liquid, where it is not water or no sensor tells
    liquid_temperature_degc: Annotated[float, Meta(ge=-50, le=350)] = NAN
    liquid_density_kg_m3: Annotated[float, Meta(ge=300, le=3000)] = NAN
    vapour_pressure_bar: Annotated[float, Meta(ge=0, le=100)] = NAN

    def __post_init__(self) -> None:
        if (self.n_poles or 0) % 2:
            raise ValueError(f"n_poles = {self.n_poles}: poles come in pairs; write 2, 4, 6, 8 ...")
        for name in CURVES:
            flows_m3_h = [flow_m3_h for flow_m3_h, _ in getattr(self, name)]
            if any(after <= before for before, after in pairwise(flows_m3_h)):
                raise ValueError(f"{name}: flow does not rise from point to point; write the points in order of flow")
        if math.isnan(self.suction_bore_mm) != math.isnan(self.discharge_bore_mm):
            raise ValueError("write suction_bore_mm and discharge_bore_mm, or neither: head needs both")


UNSTATED = DataPlate()


@dataclass(frozen=True, slots=True)
class Nameplate:
    """What formulas may know of this one machine. NaN or None: not known, never guessed.

    Attributes:
        line_frequency_hz: what the motor is fed with when no meter or drive says so.
        bearing: orders of the bearing beside the burst sensor.
        data: the rest of its plates and data sheets.
    """

    rated_speed_rpm: float = NAN
    line_frequency_hz: float = NAN
    n_vanes: int | None = None
    bearing: BearingOrders | None = None
    data: DataPlate = UNSTATED

    def vane_pass_hz(self, point: OperatingPoint) -> float:
        """So often a vane passes the cut-water."""
        return (self.n_vanes or NAN) * point.shaft_speed_rpm / 60
