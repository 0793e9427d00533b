"""The example motor and pump at any speed and load: what a burst sensor at one end and all field devices make of a fault.

`VirtualMachine` is one of a fleet in its usual service; this is one machine whose service is asked for. Both are the same
physics, sensors and feature code.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec.structs import replace

from agent.feature_benchmark import full_profile
from agent.features import Cores, FeatureSet, Nameplate, feature_set_of, known_features
from agent.features.bearings import bearing_orders
from agent.machine import ColumnSpec, load_machine_profile
from agent.vocabulary import F32, OperatingPoint, Window
from simulator import motor as motors
from simulator.duty import Duty as Duty  # noqa: PLC0414  # the pages take it from here
from simulator.effects import bearing_heat_k, electrics_of, felt_at
from simulator.machine_set import (
    LEVEL_WANDER_BAR,
    SetParameters,
    SetState,
    Surroundings,
    levels_at,
    steady_state,
    view_of,
)
from simulator.sensors import INSTRUMENTS, N_NOISE, BurstSensor
from simulator.variation import generator
from simulator.vibration import MeasuringPoint
from training.dataset import BEARINGS, STEADY_TAGS, plate_of

End = Literal["motor_de", "pump_de"]
KIND = {"motor_de": "motor", "pump_de": "pump"}
DEVICES = (
    ("", "abb_acs580", "motor"),
    ("", "eastron_sdm630", "motor"),
    ("suction_", "keller_33x", "suction"),
    ("discharge_", "keller_33x", "discharge"),
)
MACHINE_TYPES = ("motor", "pump")  # whose statistics of channels are looked at
NO_BIAS = (0.0,) * N_NOISE
BURST_MODEL = "mems_50g"  # the worst spall reaches 30 g, and a clipped burst has no features
FLOW_NOISE_RATIO = 0.003  # of a magnetic flow meter
SLOPE_NOISE_K_S = 2e-4
SLOPE_AFTER_S = 60.0  # a temperature's rate is that of the first minute with the fault


# 107, 100 and 86 % of the usual flow
DUTIES = tuple(Duty(hz, valve) for hz, valve in product((30.0, 40.0, 50.0), (0.8, 1.0, 1.4)))
MIDDLE_DUTY = DUTIES[len(DUTIES) // 2]


class SimulatedSet:
    """The example set, with a burst sensor and a scalar vibration sensor at one end. Holds no state: a moment is a moment."""

    def __init__(self, end: End, config: Path) -> None:
        self.end: End = end
        self.features = every_feature(config)
        self._parameters = SetParameters()
        self._points = {
            "motor_de": MeasuringPoint(self._parameters.motor_de),
            "pump_de": MeasuringPoint(self._parameters.pump_de),
        }
        self._sensor = BurstSensor(BURST_MODEL, generator(0, f"burst sensor {end}"))
        self.nameplate = Nameplate(
            self._parameters.motor.rated_speed_rpm,
            self._parameters.motor.rated_frequency_hz,
            self._parameters.pump.n_vanes,
            bearing_orders(config, BEARINGS[KIND[end]]),
            plate_of(self._parameters),
        )
        self._cores = Cores(self.features.plan_at)

    def vector(self, duty: Duty, moment: int, fault: str = "", place: str = "", severity: float = 0.0) -> F32:
        """Every column at moment `moment` of this duty, which is the same moment whatever the fault; NaN where absent."""
        rng = generator(moment, f"duty {self.end} {duty.frequency_hz:g} {duty.valve_ratio:g}")
        around = _surroundings(duty, rng)
        faults = {place: {fault: severity}} if severity > 0.0 else {}
        state = steady_state(self._parameters, around, faults)
        state.speed_rpm *= 1.0 + 2e-4 * rng.standard_normal()
        scalars = self._scalars(state, rng)
        values, _ = self.features.compute(
            self._window(state, scalars, rng), self._tags(scalars), self.nameplate, self._cores
        )
        return values

    def _window(self, state: SetState, scalars: Mapping[str, float], rng: np.random.Generator) -> Window:
        rate_hz, n_samples = self.features.sample_rate_hz, self.features.n_samples
        levels = levels_at(self._parameters, self._points, state, self.end)
        truth = self._points[self.end].waveform(levels, rate_hz, n_samples, rng)
        samples = self._sensor.sense(truth, rate_hz, rng)
        point = OperatingPoint(scalars["shaft_speed_rpm"], scalars["output_frequency_hz"], scalars["active_power_kw"])
        return Window("set", "sim", ("x", "y", "z"), samples, rate_hz, 0, 0, 0, point)

    def _scalars(self, state: SetState, rng: np.random.Generator) -> dict[str, float]:
        """What the field devices show, a flow meter, the weather, and how fast the housing warms up."""
        view = view_of(self._parameters, self._points, state)
        shown: dict[str, float] = {}
        for prefix, device, place in (*DEVICES, ("", "banner_qm30vt2", self.end)):
            points = INSTRUMENTS[device](view, rng.standard_normal(N_NOISE).tolist(), NO_BIAS, place)
            shown |= {f"{prefix}{point}": value for point, value in points.items()}
        shown["flow_m3_h"] = state.pump.flow_m3_h * (1.0 + FLOW_NOISE_RATIO * rng.standard_normal())
        shown["ambient_temperature_degc"] = state.ambient_degc
        shown["temperature_degc:tag.slope"] = self._warming_k_s(state) + SLOPE_NOISE_K_S * rng.standard_normal()
        return shown

    def _warming_k_s(self, state: SetState) -> float:
        """Over the first minute in which the faults at this end heat a bearing that was warm as usual."""
        heat_k = bearing_heat_k(felt_at(state.faults, self.end))
        motor = self._parameters.motor
        friction = state.speed_rpm / motor.rated_speed_rpm
        usual = motors.settled(motor, state.motor.loss_ratio, friction, 0.0, state.ambient_degc)
        later = motors.warm(
            motor,
            usual,
            loss_ratio=state.motor.loss_ratio,
            friction_ratio=friction,
            extra_bearing_k=heat_k,
            ambient_degc=state.ambient_degc,
            step_s=SLOPE_AFTER_S,
            lost_cooling=electrics_of(state.faults).lost_cooling,
        )
        return (later.bearing_degc - usual.bearing_degc) / SLOPE_AFTER_S

    def _tags(self, scalars: Mapping[str, float]) -> dict[str, tuple[float, bool]]:
        """Statistics of a steady machine are its channels' values; of the others, what `scalars` holds by their name."""
        names = {
            name: channel if statistic in (*STEADY_TAGS, "tag.amplitude") else name
            for name, (channel, statistic) in self.features.statistics.items()
        }
        return {name: (scalars[source], True) for name, source in names.items() if source in scalars}


def every_feature(config: Path) -> FeatureSet:
    """Every burst feature and quantity, and the statistics of channels that the shipped machine types look at.

    The burst is read as the motor's, at both ends: the bands are the same, and one zone boundary serves for comparison.
    """
    profile = load_machine_profile(config, "motor")
    known = known_features()
    columns = list(full_profile(profile).columns)
    columns += [ColumnSpec(feature=feature.id) for feature in known.values() if feature.kind == "quantity"]
    statistics = {
        (column.channel, column.feature): column
        for name in MACHINE_TYPES
        for column in load_machine_profile(config, name).columns
        if known[column.feature].kind == "tag"
    }
    return feature_set_of(replace(profile, columns=(*columns, *statistics.values())))


def _surroundings(duty: Duty, rng: np.random.Generator) -> Surroundings:
    """Valve, supply, suction level and weather as they wander about a duty."""
    wander = np.clip(rng.standard_normal(4), -2.5, 2.5).tolist()
    return Surroundings(
        frequency_hz=duty.frequency_hz,
        valve_ratio=duty.valve_ratio * (1.0 + SetParameters().valve_wander_ratio * wander[0]),
        voltage_ratio=1.0 + 0.003 * wander[1],
        line_frequency_hz=50.0 + 0.008 * wander[2],
        ambient_degc=22.0 + 4.0 * np.sin(rng.uniform(0.0, 2.0 * np.pi)),
        level_bar=LEVEL_WANDER_BAR * wander[3],
    )
