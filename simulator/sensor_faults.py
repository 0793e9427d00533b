"""How sensors fail, as far as it is a matter of values: what a faulty one shows instead of what it sees.

Wrong answers of the wire (exceptions, checksums, late answers) are the bus's: modbus_trouble.py. Chance is addressed by
sensor and time, so a fault takes no random number from the healthy plant, and the same question has the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulator.sensors import BurstSensor
from simulator.variation import generator
from simulator.vibration import G_M_S2

F32 = NDArray[np.float32]
Points = dict[str, float]

SCALAR, VIBRATION, BURST = (
    "scalar",
    "vibration",
    "burst",
)  # any field device, one that shakes with the machine, accelerometers
EVERY = (SCALAR, VIBRATION, BURST)
FITS: dict[str, tuple[str, ...]] = {
    "sensor_stuck": EVERY,
    "sensor_sentinel": EVERY,
    "sensor_silent": EVERY,
    "sensor_dropouts": EVERY,
    "sensor_drift": EVERY,
    "sensor_bias": EVERY,
    "sensor_spikes": (SCALAR, VIBRATION),
    "sensor_unit": EVERY,
    "sensor_swapped_axes": (VIBRATION, BURST),
    "sensor_loose": (VIBRATION, BURST),
    "sensor_clipped": (BURST,),
    "sensor_rate": (BURST,),
    "sensor_gaps": (BURST,),
}
VIBRATION_DEVICES = ("banner_qm30vt2",)

DROPOUT_FRAME_S = 600.0  # a loose plug loses contact for minutes at a time
DROPOUT_SHARE = 0.5  # of these frames, at full severity
LOST_IN_FRAME = 0.9  # of the answers
SPIKES_SHARE = 0.02  # of the readings
DRIFT_RATIO = 0.5  # of the reading, at full severity: 1.7 % a day, when it takes 30 days
LEAST_CLIP_RATIO = 0.1  # of the burst's own peak
LOOSE_DB = 20.0  # what is lost above the mount's resonance
LOOSE_MM_S = 1.5  # rattle
FIRM_HZ, LOOSE_HZ, LOOSE_DAMPING = 8000.0, 700.0, 0.25
RATTLE_HZ = 30.0
RATTLE_G = 0.05
BIAS_G = 0.5
RATE_RATIO = 0.05

# By the unit that a point's name ends in: an error that is clearly one and still plausible (about half of what such a
# quantity reads), and the unit that is taken for it. Ratios and frequencies are not a matter of calibration.
ERROR_OF = {
    "mm_s": 1.0,
    "g": 0.05,
    "degc": 20.0,
    "bar": 1.0,
    "a": 6.0,
    "kw": 3.0,
    "v": 100.0,
    "rpm": 700.0,
    "pct": 20.0,
}
OTHER_UNIT = {
    "mm_s": (1.0 / 25.4, 0.0),  # in/s
    "g": (G_M_S2, 0.0),  # m/s2
    "degc": (1.8, 32.0),  # degrees Fahrenheit
    "bar": (14.5038, 0.0),  # psi
    "kw": (1.34102, 0.0),  # hp
}

COUNTED = "rpm"  # a speed is counted, or follows the frequency that a drive itself puts out: it can be wrong and does not drift


def unit_of(point: str) -> str:
    """The unit in a point's name, where it is one that can be wrong: "mm_s" of velocity_rms_z_mm_s; else ""."""
    return next((unit for unit in ERROR_OF if point.endswith(f"_{unit}")), "")


def is_absent(severities: Mapping[str, float], seed: int, sensor: str, t_s: float) -> bool:
    """Whether the sensor does not answer, or sends no burst, at this time."""
    if "sensor_silent" in severities:
        return True
    if share := severities.get("sensor_dropouts", 0.0):
        frame = int(t_s // DROPOUT_FRAME_S)
        if generator(seed, f"dropout {sensor}", frame).random() < DROPOUT_SHARE * share:
            return _chance(seed, sensor, t_s).random() < LOST_IN_FRAME
    return False


def shown(points: Points, severities: Mapping[str, float], seed: int, sensor: str, t_s: float) -> Points:
    """What a field device shows instead of `points`; NaN where it says "not available"."""
    if "sensor_sentinel" in severities:
        return dict.fromkeys(points, math.nan)
    faulty = dict(points)
    if "sensor_loose" in severities:
        faulty = _rattled(faulty, severities["sensor_loose"])
    if "sensor_swapped_axes" in severities:
        faulty = {point: faulty[_exchanged(point)] for point in faulty}
    if drift := severities.get("sensor_drift", 0.0):
        drifts = {point for point in faulty if unit_of(point) not in ("", COUNTED)}
        faulty = {point: value * (1.0 + DRIFT_RATIO * drift * (point in drifts)) for point, value in faulty.items()}
    if bias := severities.get("sensor_bias", 0.0):
        faulty = {point: value + bias * ERROR_OF.get(unit_of(point), 0.0) for point, value in faulty.items()}
    if share := severities.get("sensor_spikes", 0.0):
        faulty = _spiked(faulty, share, _chance(seed, sensor, t_s))
    if "sensor_unit" in severities:
        faulty = {point: _in_other_unit(point, value) for point, value in faulty.items()}
    return faulty


def heard(
    samples: F32, severities: Mapping[str, float], sensor: BurstSensor, rate_hz: float, rng: np.random.Generator
) -> F32:
    """What an accelerometer sends instead of `samples`, shape (3, n), m/s2, on the same int16 grid."""
    faulty = samples
    if loose := severities.get("sensor_loose", 0.0):
        faulty = _on_loose_mount(faulty, loose, rate_hz, rng)
    if "sensor_swapped_axes" in severities:
        faulty = np.roll(faulty, 1, axis=0)
    if drift := severities.get("sensor_drift", 0.0):
        faulty = faulty * np.float32(1.0 - DRIFT_RATIO * drift)
    if bias := severities.get("sensor_bias", 0.0):
        faulty = faulty + np.float32(BIAS_G * G_M_S2 * bias)
    if clipped := severities.get("sensor_clipped", 0.0):
        faulty = _overloaded(faulty, clipped, sensor)
    if "sensor_unit" in severities:
        faulty = faulty / np.float32(G_M_S2)
    return faulty if faulty is samples else sensor.counted(faulty)


def sampled_hz(severities: Mapping[str, float], rate_hz: float) -> float:
    """The rate at which the samples really are taken; the sensor goes on saying `rate_hz`."""
    return rate_hz * (1.0 + RATE_RATIO * severities.get("sensor_rate", 0.0))


def lost_in_parts(severities: Mapping[str, float], seed: int, sensor: str, t_s: float) -> bool:
    """Whether so much of a burst is missing that none is put together."""
    share = severities.get("sensor_gaps", 0.0)
    return share > 0.0 and _chance(seed, sensor, t_s).random() < share


def _chance(seed: int, sensor: str, t_s: float) -> np.random.Generator:
    return generator(seed, f"fault {sensor}", round(1e3 * t_s))


def _exchanged(point: str) -> str:
    """The point of the other axis, where it has one."""
    for own, other in (("_z_", "_x_"), ("_x_", "_z_")):
        if own in point:
            return point.replace(own, other)
    return point


def _in_other_unit(point: str, value: float) -> float:
    factor, offset = OTHER_UNIT.get(unit_of(point), (1.0, 0.0))
    return factor * value + offset


def _spiked(points: Points, share: float, rng: np.random.Generator) -> Points:
    """One reading in fifty is off by many times what is usual; all points of a device come with one message."""
    if rng.random() >= SPIKES_SHARE * share:
        return points
    sizes = (rng.choice((-1.0, 1.0), len(points)) * rng.uniform(4.0, 40.0, len(points))).tolist()
    return {
        point: value + size * ERROR_OF.get(unit_of(point), 0.0)
        for (point, value), size in zip(points.items(), sizes, strict=True)
    }


def _rattled(points: Points, severity: float) -> Points:
    """A loose sensor hears little of what is fast, and shakes by itself."""
    quieter = 10.0 ** (-LOOSE_DB * severity / 20.0)
    faulty = dict(points)
    for point in points:
        if "acceleration" in point:
            faulty[point] *= quieter
        elif point.startswith("velocity"):
            faulty[point] = math.hypot(faulty[point], LOOSE_MM_S * severity)
        elif point.startswith(("kurtosis", "crest")):
            faulty[point] *= 1.0 + severity
    return faulty


def _on_loose_mount(samples: F32, severity: float, rate_hz: float, rng: np.random.Generator) -> F32:
    """The mount's resonance falls, what lies above it is lost, and the sensor rattles below 30 Hz."""
    n = samples.shape[1]
    f = fft.rfftfreq(n, 1.0 / rate_hz)
    x = f / (FIRM_HZ * (LOOSE_HZ / FIRM_HZ) ** severity)
    spectrum = fft.rfft(samples, axis=1) / (1.0 - x * x + 2j * LOOSE_DAMPING * x)
    rattle = fft.rfft(rng.standard_normal((3, n), dtype=np.float32), axis=1)
    rattle *= RATTLE_G * G_M_S2 * severity * math.sqrt(rate_hz / 2.0 / RATTLE_HZ) * (f < RATTLE_HZ)
    return np.asarray(fft.irfft(spectrum + rattle, n, axis=1), np.float32)


def _overloaded(samples: F32, severity: float, sensor: BurstSensor) -> F32:
    """An amplifier that saturates: gained until its full scale is in the middle of the signal."""
    full_m_s2 = sensor.model.full_scale_g * G_M_S2
    passes = 1.0 - (1.0 - LEAST_CLIP_RATIO) * severity
    return np.asarray(samples * np.float32(full_m_s2 / max(1e-9, passes * float(np.abs(samples).max()))), np.float32)
