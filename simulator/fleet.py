"""Machines by the hundred, as arrays, for training: no servers, no clock, one call a sample.

A `VirtualMachine` is one motor or pump with parameters and sensors of its own. Sample `k` is one independent moment of
its life: flow, supply, ambient and speed as they vary on a healthy machine in steady service, plus the faults asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulator.faults import FAULTS
from simulator.machine_set import (
    LEVEL_WANDER_BAR,
    SetParameters,
    SetState,
    Surroundings,
    levels_at,
    steady_state,
    view_of,
)
from simulator.sensors import INSTRUMENTS, N_NOISE, BurstSensor, View
from simulator.variation import generator
from simulator.vibration import MeasuringPoint

F32 = NDArray[np.float32]
Kind = Literal["motor", "pump"]
BURST_PLACE = {"motor": "motor_de", "pump": "pump_de"}
# (role prefix, device, place) of what a machine of this kind is wired to
WIRING = {
    "motor": (("", "abb_acs580", "motor"), ("", "eastron_sdm630", "motor"), ("", "banner_qm30vt2", "motor_de")),
    "pump": (
        ("", "abb_acs580", "motor"),
        ("", "eastron_sdm630", "motor"),
        ("suction_", "keller_33x", "suction"),
        ("discharge_", "keller_33x", "discharge"),
    ),
}


class VirtualMachine:
    """One machine of a fleet.

    Args:
        kind: "motor" (burst sensor on the drive end) or "pump" (on the pump's drive end).
        seed: which machine. spread: how far it may be from the example, 0.3 being plus or minus 30 %.
    """

    def __init__(
        self,
        kind: Kind,
        seed: int,
        spread: float = 0.3,
        *,
        sample_rate_hz: float = 25_600.0,
        n_samples: int = 25_600,
        model: str = "mems_16g",
        crosstalk_ratio: float = 0.0,
    ) -> None:
        self.kind = kind
        self.seed = seed
        self.sample_rate_hz = sample_rate_hz
        self.n_samples = n_samples
        rng = generator(seed, f"fleet {kind}")
        self.parameters = SetParameters(crosstalk_ratio=crosstalk_ratio).varied(rng, spread)
        self._ambient_degc = 22.0 + 8.0 * rng.uniform(-1.0, 1.0)
        self._sensor = BurstSensor(model, rng)
        self._bias = [rng.standard_normal(N_NOISE).clip(-2.0, 2.0).tolist() for _ in WIRING[kind]]
        self._points = {
            "motor_de": MeasuringPoint(self.parameters.motor_de),
            "pump_de": MeasuringPoint(self.parameters.pump_de),
        }

    def sample(self, k: int, faults: Mapping[str, float] | None = None) -> tuple[F32, float, dict[str, float]]:
        """Moment `k`, which is always the same one, with faults by id and severity 0..1.

        Returns: burst float32 (3, n_samples) in m/s2 as the sensor sends it (x, y, z); its sample rate; the scalars by
        role name (suction_pressure_bar, shaft_speed_rpm, ...).
        Raises: KeyError: an unknown fault.
        """
        state, rng = self._moment(k, faults or {})
        return self._burst(state, rng), self.sample_rate_hz, self._scalars(state, rng)

    def scalars(self, k: int, faults: Mapping[str, float] | None = None) -> dict[str, float]:
        """The scalars alone, of a moment of their own: about a hundred times cheaper than a burst."""
        state, rng = self._moment(k, faults or {})
        return self._scalars(state, rng)

    def _moment(self, k: int, faults: Mapping[str, float]) -> tuple[SetState, np.random.Generator]:
        rng = generator(self.seed, f"sample {self.kind}", k)
        around = Surroundings(
            frequency_hz=self.parameters.motor.rated_frequency_hz,
            valve_ratio=1.0 + 0.06 * float(np.clip(rng.standard_normal(), -2.5, 2.5)),
            voltage_ratio=1.0 + 0.003 * rng.standard_normal(),
            line_frequency_hz=50.0 + 0.008 * rng.standard_normal(),
            level_bar=LEVEL_WANDER_BAR * float(np.clip(rng.standard_normal(), -2.5, 2.5)),
            ambient_degc=self._ambient_degc + 4.0 * math.sin(rng.uniform(0.0, math.tau)),
        )
        state = steady_state(self.parameters, around, self._placed(faults))
        state.speed_rpm *= 1.0 + 2e-4 * rng.standard_normal()
        return state, rng

    def _placed(self, faults: Mapping[str, float]) -> dict[str, dict[str, float]]:
        placed: dict[str, dict[str, float]] = {}
        for fault, severity in faults.items():
            places = FAULTS[fault].places
            place = BURST_PLACE[self.kind] if BURST_PLACE[self.kind] in places else places[0]
            if severity > 0.0:
                placed.setdefault(place, {})[fault] = severity
        return placed

    def _burst(self, state: SetState, rng: np.random.Generator) -> F32:
        place = BURST_PLACE[self.kind]
        levels = levels_at(self.parameters, self._points, state, place)
        truth = self._points[place].waveform(levels, self.sample_rate_hz, self.n_samples, rng)
        return self._sensor.sense(truth, self.sample_rate_hz, rng)

    def _scalars(self, state: SetState, rng: np.random.Generator) -> dict[str, float]:
        view: View = view_of(self.parameters, self._points, state)
        noise = rng.standard_normal((len(WIRING[self.kind]), N_NOISE)).tolist()
        roles: dict[str, float] = {}
        for row, bias, (prefix, device, place) in zip(noise, self._bias, WIRING[self.kind], strict=True):
            shown = INSTRUMENTS[device](view, row, bias, place)
            roles |= {f"{prefix}{point}": value for point, value in shown.items()}
        roles["ambient_temperature_degc"] = round(state.ambient_degc, 1)  # a thermometer on the wall
        return roles
