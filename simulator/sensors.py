"""What a real sensor adds to the truth: gain error, band and mount, noise, quantum, full scale; and how it fails.

Burst sensors turn true acceleration into counts. Instruments turn the state of a set into the points of a field device,
by the names that its profile in config/devices uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulator.motor import EVEN
from simulator.vibration import G_M_S2, Indicators

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BurstModel:
    """A kind of accelerometer. Source: data-sheet classes; noise density in microgram per root hertz."""

    full_scale_g: float
    band_hz: float  # -3 dB, second order
    noise_ug: float
    mount_hz: float
    mount_damping_ratio: float


BURST_MODELS = {
    "mems_16g": BurstModel(16.0, 6300.0, 75.0, 9000.0, 0.12),  # IIS3DWB class on a stud
    "mems_50g": BurstModel(50.0, 11000.0, 25.0, 9500.0, 0.10),  # ADXL1002 class on a stud
    "iepe": BurstModel(50.0, 10000.0, 4.0, 9500.0, 0.08),
    "magnet": BurstModel(16.0, 6300.0, 75.0, 2400.0, 0.15),  # the same chip on a flat magnet
}


class BurstSensor:
    """One accelerometer as mounted: gain within 5 %, axes within 5 degrees, an offset, a mount resonance.

    Full scale is mapped to int16, so a sample is a whole number of `scale_m_s2`.
    """

    def __init__(self, model: str, rng: np.random.Generator) -> None:
        self.model = BURST_MODELS[model]
        self.scale_m_s2 = self.model.full_scale_g * G_M_S2 / 32767.0
        gain = 1.0 + np.clip(0.02 * rng.standard_normal(3), -0.05, 0.05)
        self._mixing = (gain[:, None] * _rotation(np.radians(2.0) * rng.standard_normal(3))).astype(np.float32)
        self._offset_m_s2 = (0.02 * G_M_S2 * rng.standard_normal((3, 1))).astype(np.float32)
        self._mount_hz = self.model.mount_hz * rng.uniform(0.93, 1.07)
        self._transfers: dict[tuple[int, float], NDArray[np.complex64]] = {}

    def sense(self, truth_m_s2: F32, sample_rate_hz: float, rng: np.random.Generator) -> F32:
        """What leaves the sensor, shape (3, n), float32 m/s2 on the int16 grid and clipped at full scale."""
        n = truth_m_s2.shape[1]
        spectrum = fft.rfft(self._mixing @ truth_m_s2, axis=1)
        spectrum *= self._transfer(n, sample_rate_hz)
        seen = fft.irfft(spectrum, n, axis=1)
        noise_m_s2 = np.float32(self.model.noise_ug * 1e-6 * G_M_S2 * math.sqrt(sample_rate_hz / 2.0))
        seen += noise_m_s2 * rng.standard_normal((3, n), dtype=np.float32)
        seen += self._offset_m_s2
        return self.counted(seen)

    def counted(self, seen_m_s2: F32) -> F32:
        """On the int16 grid and clipped at full scale."""
        counts = np.clip(np.rint(seen_m_s2 / np.float32(self.scale_m_s2)), -32767, 32767)
        return np.asarray(counts * np.float32(self.scale_m_s2), np.float32)

    def _transfer(self, n: int, rate_hz: float) -> NDArray[np.complex64]:
        """Mount resonance times the sensor's own low pass; no response below 1 Hz (AC coupling)."""
        key = (n, rate_hz)
        if key not in self._transfers:
            if len(self._transfers) > 8:
                self._transfers.clear()
            f = fft.rfftfreq(n, 1.0 / rate_hz)
            x = f / self._mount_hz
            mount = 1.0 / (1.0 - x * x + 2j * self.model.mount_damping_ratio * x)
            y = f / self.model.band_hz
            chip = 1.0 / (1.0 - y * y + 1j * math.sqrt(2.0) * y)
            self._transfers[key] = np.where(f < 1.0, 0.0, mount * chip).astype(np.complex64)
        return self._transfers[key]


def _rotation(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """A small rotation about the three axes: a sensor is never quite square to the shaft."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles_rad):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix


@dataclass(slots=True)
class View:
    """What the instruments of one set can see: the true state in the devices' own quantities."""

    speed_rpm: float
    frequency_hz: float
    torque_ratio: float
    shaft_power_kw: float
    motor_current_a: float
    voltage_v: float  # line to neutral at the meter
    supply_power_kw: float
    supply_current_a: float
    power_factor_ratio: float
    line_frequency_hz: float
    suction_pressure_bar: float
    discharge_pressure_bar: float
    water_degc: float  # as it flows in
    liquid_degc: float  # in the pump's casing
    roughness: float  # 0..1, how unsteady the flow is (cavitation, air)
    housing_degc: Callable[[str], float]  # by place
    vibration: Callable[[str, int], Indicators]  # by place and axis
    voltage_shares: tuple[float, float, float] = EVEN  # of the phases, of their mean
    current_shares: tuple[float, float, float] = EVEN
    surge_ratio: float = 0.0  # by how much head and power swing at 0.1 to 2 Hz
    beat_ratio: float = 0.0  # by how much the current swings at the pole-pass frequency


Noise = Sequence[float]  # standard normal numbers of one sensor at one update
Bias = Sequence[float]  # standard normal numbers fixed for one sensor


def _swung(ratio: float, noise: float) -> float:
    """A swing of that amplitude about 1, met at a phase that is as good as any (a normal number of turns)."""
    return 1.0 + ratio * math.sin(math.tau * noise)


def drive(view: View, noise: Noise, bias: Bias, place: str) -> dict[str, float]:
    """A variable-speed drive's own estimates. Speed is estimated from a motor model, not measured."""
    turning = view.frequency_hz > 0.0 or view.speed_rpm > 1.0
    dither = 1.0 if turning else 0.0
    surge, beat = _swung(view.surge_ratio, noise[5]), _swung(view.beat_ratio, noise[6])
    return {
        "shaft_speed_rpm": max(0.0, view.speed_rpm * (1.0 + 4e-4 * bias[0]) + dither * 0.35 * noise[0]),
        "output_frequency_hz": view.frequency_hz,
        "motor_current_a": max(
            0.0, view.motor_current_a * surge * beat * (1.0 + 0.01 * bias[1]) + dither * 0.03 * noise[1]
        ),
        "motor_torque_pct": 100.0 * view.torque_ratio * surge * (1.0 + 0.015 * bias[2]) + dither * 0.25 * noise[2],
        "dc_bus_v": math.sqrt(6.0) * 0.955 * view.voltage_v + 0.6 * noise[3],
        "motor_shaft_power_kw": max(
            0.0, view.shaft_power_kw * surge * (1.0 + 0.015 * bias[2]) + dither * 0.012 * noise[4]
        ),
    }


def meter(view: View, noise: Noise, bias: Bias, place: str) -> dict[str, float]:
    """A three-phase meter of class 0.5 before the drive."""
    surge = _swung(view.surge_ratio, noise[12])
    volts = [view.voltage_v * view.voltage_shares[i] * (1.0 + 0.003 * bias[i]) + 0.08 * noise[i] for i in range(3)]
    amps = [
        view.supply_current_a * view.current_shares[i] * surge * (1.0 + 0.008 * bias[3 + i] + 0.0015 * noise[3 + i])
        for i in range(3)
    ]
    points = {f"voltage_l{i + 1}_v": volts[i] for i in range(3)}
    points |= {f"current_l{i + 1}_a": amps[i] for i in range(3)}
    thd = 2.1 + 0.25 * bias[6]
    points |= {
        "active_power_kw": view.supply_power_kw * surge * (1.0 + 0.003 * bias[7]) * (1.0 + 0.0012 * noise[6]),
        "power_factor_ratio": min(1.0, view.power_factor_ratio * (1.0 + 0.0008 * noise[7])),
        "line_frequency_hz": view.line_frequency_hz + 0.001 * noise[8],
    }
    points |= {f"voltage_thd_l{i + 1}_pct": max(0.1, thd + 0.05 * i + 0.02 * noise[9 + i]) for i in range(3)}
    return points


def pressure(view: View, noise: Noise, bias: Bias, place: str) -> dict[str, float]:
    """A pressure transmitter, 0.1 % of 10 bar; unsteady flow makes it flutter."""
    true_bar, liquid_degc = view.suction_pressure_bar, view.water_degc
    if place == "discharge":
        head_bar = view.discharge_pressure_bar - view.suction_pressure_bar
        true_bar = view.discharge_pressure_bar + head_bar * (_swung(view.surge_ratio, noise[2]) - 1.0)
        liquid_degc = view.liquid_degc
    flutter = 0.0012 + 0.012 * view.roughness
    return {
        "pressure_bar": true_bar + 0.003 * bias[0] + flutter * noise[0],
        "temperature_degc": liquid_degc + 0.3 * bias[1] + 0.01 * noise[1],
    }


def vibration(view: View, noise: Noise, bias: Bias, place: str) -> dict[str, float]:
    """A two-axis vibration and temperature sensor: scalars of short records, so every renewal differs a little."""
    points: dict[str, float] = {}
    for position, (name, axis) in enumerate((("z", 2), ("x", 0))):
        seen = view.vibration(place, axis)
        n = noise[8 * position : 8 * position + 8]
        gain = 1.0 + 0.02 * bias[position]
        crest = max(1.5, seen.crest_ratio * math.exp(0.06 * n[4]))
        rms_g = seen.acceleration_rms_g * gain * math.exp(0.03 * n[1])
        velocity = seen.velocity_rms_mm_s * gain * math.exp(0.02 * n[0])
        points |= {
            f"velocity_rms_{name}_mm_s": velocity,
            f"velocity_peak_{name}_mm_s": seen.velocity_peak_mm_s * gain * math.exp(0.04 * n[5]),
            f"acceleration_rms_{name}_g": rms_g,
            f"acceleration_peak_{name}_g": rms_g * crest,
            f"hf_acceleration_rms_{name}_g": seen.hf_acceleration_rms_g * gain * math.exp(0.04 * n[2]),
            f"kurtosis_{name}_ratio": 1.0 + (seen.kurtosis_ratio - 1.0) * math.exp(0.05 * n[3]),
            f"crest_{name}_ratio": crest,
            f"peak_velocity_frequency_{name}_hz": max(0.0, seen.peak_velocity_frequency_hz + 0.15 * n[6]),
        }
    points["temperature_degc"] = view.housing_degc(place) + 0.4 * bias[2] + 0.03 * noise[16]
    return points


Instrument = Callable[[View, Noise, Bias, str], dict[str, float]]
INSTRUMENTS: dict[str, Instrument] = {
    "banner_qm30vt2": vibration,
    "abb_acs580": drive,
    "eastron_sdm630": meter,
    "keller_33x": pressure,
}
INSTRUMENT_PLACES = {
    "banner_qm30vt2": ("motor_de", "pump_de"),
    "abb_acs580": ("motor",),
    "eastron_sdm630": ("motor",),
    "keller_33x": ("suction", "discharge"),
}
N_NOISE = 17  # numbers that any instrument may use at one update
