"""What a bearing housing does: true acceleration on three axes, as a waveform and, for scalar sensors, in closed form.

Axes of every sensor here, mounted on top of the housing: x horizontal radial, y axial, z vertical radial (normal to
the surface). Levels are RMS velocities per shaft order, noise in g RMS between 1 and 10 kHz, impulses as peak in g.
Source: the usual signatures (ISO 13373-3), bearing geometry, and for spalls the slipping-impulse model of McFadden &
Smith (1984) with the random-walk slip of Antoni (2007). The 6308's outer race passes at 3.02 times shaft speed, and
three times shaft speed is 0.6 Hz away: kept, because real ones do that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulator.bearings import BEARINGS, Bearing
from simulator.faults import LATE_LIFE, impulse_peak_g
from simulator.signatures import (
    RADIAL,
    RATED_SHAFT_HZ,
    Axes,
    Conditions,
    Orders,
    Tone,
    add,
    add_flow_faults,
    add_shaft_faults,
    dry_db,
    extra_hum_mm_s,
    gained_g,
    sidebands,
)

F32 = NDArray[np.float32]
Shape = Literal["floor", "hiss", "rumble", "hump"]
G_M_S2 = 9.80665
NOISE_LOW_HZ, NOISE_HIGH_HZ = 1000.0, 10_000.0
# Where the level of each shape of noise is stated: a machine's own, the hiss of cavitation and dry bearings, the rumble of
# flow that turns back, the hump of fluted races.
STATED_HZ: dict[Shape, tuple[float, float]] = {
    "floor": (NOISE_LOW_HZ, NOISE_HIGH_HZ),
    "hiss": (NOISE_LOW_HZ, NOISE_HIGH_HZ),
    "rumble": (100.0, 2000.0),
    "hump": (2000.0, 4000.0),
}
RUMBLE_G = 0.2  # of flow that turns back altogether
GAS_RUMBLE_G = 0.1
HUMP_DB = 8.0  # of fluted races
FLUTED_SHARE = 0.5  # of a spall's impact, on each race
BREATH_HZ = 200.0  # below: machine noise power rises as 1/f


@dataclass(frozen=True, slots=True)
class Mode:
    """One resonance that shapes the noise: amplitude gain over the floor at its peak."""

    frequency_hz: float
    damping_ratio: float
    gain: float


@dataclass(frozen=True)
class PointParameters:
    """One measuring point when healthy, at rated speed. Velocities in mm/s RMS in the strongest direction."""

    bearing: Bearing = BEARINGS["6308"]
    shaft_1x_mm_s: float = 0.50
    shaft_2x_mm_s: float = 0.18
    shaft_3x_mm_s: float = 0.08
    vane_pass_mm_s: float = 0.12
    twice_line_mm_s: float = 0.13
    hf_noise_g: float = 0.03
    n_vanes: int = 6
    ring_frequency_hz: float = 3500.0
    ring_damping_ratio: float = 0.04
    slip_ratio: float = 0.01  # random part of the time between impacts
    lag_ratio: float = 0.003  # rolling elements fall behind pure rolling
    speed_jitter_ratio: float = 0.0005
    modes: tuple[Mode, ...] = (
        Mode(420.0, 0.06, 2.2),
        Mode(1350.0, 0.05, 2.6),
        Mode(3500.0, 0.04, 2.0),
        Mode(6100.0, 0.05, 1.8),
    )
    transfer: Axes = (0.75, 0.55, 1.0)  # how much of noise and impulses reaches each axis
    phases_rad: tuple[float, ...] = field(default=tuple(float(p) for p in np.linspace(0.3, 16.0, 42) % math.tau))

    def varied(self, rng: np.random.Generator, spread: float = 0.3) -> PointParameters:
        """The same point on another machine: levels by up to exp(2 spread) either way, resonances by spread."""

        def level(value: float) -> float:
            return value * math.exp(2.0 * spread * rng.uniform(-1.0, 1.0))

        def near(value: float, weight: float = 1.0) -> float:
            return value * (1.0 + weight * spread * rng.uniform(-1.0, 1.0))

        return replace(
            self,
            shaft_1x_mm_s=level(self.shaft_1x_mm_s),
            shaft_2x_mm_s=level(self.shaft_2x_mm_s),
            shaft_3x_mm_s=level(self.shaft_3x_mm_s),
            vane_pass_mm_s=level(self.vane_pass_mm_s),
            twice_line_mm_s=level(self.twice_line_mm_s),
            hf_noise_g=level(self.hf_noise_g),
            ring_frequency_hz=near(self.ring_frequency_hz),
            ring_damping_ratio=near(self.ring_damping_ratio),
            slip_ratio=near(self.slip_ratio),
            lag_ratio=near(self.lag_ratio, 2.0),
            modes=tuple(Mode(near(m.frequency_hz), near(m.damping_ratio), near(m.gain)) for m in self.modes),
            transfer=(near(self.transfer[0]), near(self.transfer[1]), min(1.2, near(self.transfer[2]))),
            phases_rad=tuple(rng.uniform(0.0, math.tau, len(self.phases_rad)).tolist()),
        )


MOTOR_DE = PointParameters()
PUMP_DE = PointParameters(
    bearing=BEARINGS["6309"],
    shaft_1x_mm_s=0.55,
    vane_pass_mm_s=0.28,
    twice_line_mm_s=0.06,
    hf_noise_g=0.04,
    ring_frequency_hz=3200.0,
    modes=(Mode(380.0, 0.07, 2.0), Mode(1150.0, 0.05, 2.4), Mode(3200.0, 0.045, 2.0), Mode(5700.0, 0.05, 1.8)),
)


@dataclass(slots=True)
class Impulses:
    """A train of impacts: how often, how hard, and how often per shaft turn it passes the load zone (0: it stays in it)."""

    rate_hz: float
    peak_g: float
    zone_order: float = 0.0


@dataclass(slots=True)
class Levels:
    """Everything a point does, in levels: from this both the waveform and the closed-form indicators are made."""

    shaft_hz: float
    line_hz: float
    orders: dict[float, Axes]  # shaft order -> velocity RMS, mm/s
    twice_line_mm_s: Axes
    noise_g: float
    burst_noise_g: float = 0.0  # additional, above 3 kHz
    burst_modulation: float = 0.0  # by vane pass
    impulses: tuple[Impulses, ...] = ()
    rumble_g: float = 0.0
    hump_g: float = 0.0
    tones: tuple[Tone, ...] = ()


@dataclass(frozen=True, slots=True)
class Indicators:
    """What a scalar sensor makes of one axis. Peak is the true peak; kurtosis is Pearson's (a Gaussian has 3)."""

    velocity_rms_mm_s: float
    velocity_peak_mm_s: float
    peak_velocity_frequency_hz: float
    acceleration_rms_g: float
    acceleration_peak_g: float
    hf_acceleration_rms_g: float
    kurtosis_ratio: float
    crest_ratio: float


@dataclass(slots=True)
class _Sums:
    """What one kind of source adds to one axis: powers, excess fourth moment, peak, and its strongest tone."""

    velocity2: float = 0.0
    power_g2: float = 0.0
    excess_g4: float = 0.0
    peak_g: float = 0.0
    strongest_hz: float = 0.0


_Parts = tuple[float, float, float]


class MeasuringPoint:
    """One place on one machine. Holds no state: the same conditions and random numbers give the same bytes."""

    def __init__(self, parameters: PointParameters) -> None:
        self.parameters = parameters
        self._shapes: dict[tuple[int, float, Shape], F32] = {}
        self._units: dict[Shape, float] = {}
        self._parts: dict[Shape, _Parts] = {}

    # -- levels ------------------------------------------------------------------------------------------------------

    def levels(self, now: Conditions) -> Levels:
        """Healthy levels at this operating point, and what each fault adds."""
        p, faults = self.parameters, now.faults
        turning = min(1.5, now.shaft_hz / RATED_SHAFT_HZ)
        square = turning * turning
        off_best = 1.0 + 1.5 * abs(now.flow_ratio - 1.0)
        vane = p.vane_pass_mm_s * square * off_best * now.wet_ratio * (1.0 + 2.0 * now.turned_back)
        orders: Orders = {}
        add(orders, 1.0, p.shaft_1x_mm_s * square, RADIAL)
        add(orders, 2.0, p.shaft_2x_mm_s * square, RADIAL)
        add(orders, 3.0, p.shaft_3x_mm_s * square, RADIAL)
        add(orders, float(p.n_vanes), vane, RADIAL)
        add(orders, 2.0 * p.n_vanes, 0.25 * vane, RADIAL)
        add_shaft_faults(orders, faults, square)
        add_flow_faults(orders, now, float(p.n_vanes), vane)
        noise_g = p.hf_noise_g * (0.1 + 0.9 * turning) * (0.9 + 0.13 * now.torque_ratio) if turning > 0.05 else 0.0
        noise_g *= (1.0 - 0.3 * now.gas) * 10.0 ** (-6.0 * faults.get("over_greasing", 0.0) / 20.0)
        impulses, spread = self._impulses(now, turning)
        line = p.twice_line_mm_s * (0.6 + 0.4 * now.torque_ratio) if now.line_hz > 1.0 else 0.0
        line += extra_hum_mm_s(now)
        return Levels(
            now.shaft_hz,
            now.line_hz,
            {order: (axes[0], axes[1], axes[2]) for order, axes in orders.items()},
            (0.6 * line, 0.3 * line, line),
            noise_g * spread,
            gained_g(noise_g, now.cavitation_db + dry_db(faults.get("lubrication", 0.0))),
            0.3 if now.cavitation_db > 0.0 else 0.0,
            impulses,
            (RUMBLE_G * now.turned_back + GAS_RUMBLE_G * now.gas) * square,
            gained_g(noise_g, HUMP_DB * faults.get("bearing_fluting", 0.0)),
            sidebands(now),
        )

    def _impulses(self, now: Conditions, turning: float) -> tuple[tuple[Impulses, ...], float]:
        """The trains of impacts, and by how much late damage raises the noise floor (up to 20 dB)."""
        bearing, lag = self.parameters.bearing, 1.0 - self.parameters.lag_ratio
        trains = []
        spread = 1.0
        for fault, ratio, zone_order in (
            ("bearing_outer_race", bearing.outer_race_ratio, 0.0),
            ("bearing_inner_race", bearing.inner_race_ratio, 1.0),
            ("bearing_ball_cage", bearing.ball_ratio, bearing.cage_ratio),
        ):
            severity = now.faults.get(fault, 0.0)
            if severity > 0.0 and turning > 0.05:
                trains.append(Impulses(ratio * lag * now.shaft_hz, impulse_peak_g(severity) * turning, zone_order))
                spread += 9.0 * max(0.0, severity - LATE_LIFE) / (1.0 - LATE_LIFE)
        fluted = now.faults.get("bearing_fluting", 0.0)
        if fluted > 0.0 and turning > 0.05:  # a washboard on both races: many small edges instead of one spall
            peak_g = FLUTED_SHARE * impulse_peak_g(fluted) * turning
            trains.append(Impulses(bearing.outer_race_ratio * lag * now.shaft_hz, peak_g))
            trains.append(Impulses(bearing.inner_race_ratio * lag * now.shaft_hz, peak_g, 1.0))
        return tuple(trains), spread

    # -- waveform ----------------------------------------------------------------------------------------------------

    def waveform(self, levels: Levels, sample_rate_hz: float, n_samples: int, rng: np.random.Generator) -> F32:
        """True acceleration, shape (3, n_samples), m/s2: shaft orders, line hum, noise of the structure, impacts."""
        phase = self._shaft_phase(levels.shaft_hz, sample_rate_hz, n_samples, rng)
        out = self._noise(levels.noise_g, "floor", sample_rate_hz, n_samples, rng)
        if levels.burst_noise_g > 0.0:
            hiss = self._noise(levels.burst_noise_g, "hiss", sample_rate_hz, n_samples, rng)
            if levels.burst_modulation > 0.0:
                swing = levels.burst_modulation * np.cos(self.parameters.n_vanes * phase)
                hiss *= ((1.0 + swing) / math.sqrt(1.0 + levels.burst_modulation**2 / 2.0)).astype(np.float32)
            out += hiss
        self._add_tones(out, levels, phase, sample_rate_hz, rng)
        for train in levels.impulses:
            rings = self._rings(train, phase, sample_rate_hz, n_samples, rng)
            out += np.array(self.parameters.transfer, np.float32)[:, None] * rings
        if levels.rumble_g > 0.0:
            out += self._noise(levels.rumble_g, "rumble", sample_rate_hz, n_samples, rng)
        if levels.hump_g > 0.0:
            out += self._noise(levels.hump_g, "hump", sample_rate_hz, n_samples, rng)
        return out

    def _shaft_phase(self, shaft_hz: float, rate_hz: float, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Angle of the shaft, radians: constant speed with a wander of `speed_jitter_ratio`, 16 corners a second."""
        n_knots = max(4, round(16.0 * n / rate_hz)) + 1
        drift_hz = shaft_hz * self.parameters.speed_jitter_ratio * rng.standard_normal(n_knots)
        knots = np.linspace(0.0, n, n_knots)
        wander = math.tau * np.cumsum(drift_hz) * (knots[1] / rate_hz)
        time = np.arange(n, dtype=np.float64)
        start = rng.uniform(0.0, math.tau)
        phase: NDArray[np.float64] = start + math.tau * shaft_hz / rate_hz * time + np.interp(time, knots, wander)
        return phase

    def _add_tones(
        self, out: F32, levels: Levels, phase: NDArray[np.float64], rate_hz: float, rng: np.random.Generator
    ) -> None:
        """All shaft orders as powers of one rotating phasor and one matrix product; line hum beside it."""
        n = out.shape[1]
        line_phase = rng.uniform(0.0, math.tau)
        flicker = rng.random() < 0.5  # looseness: the half order comes and goes
        rows: list[NDArray[np.complex64]] = []
        weights: list[NDArray[np.complex64]] = []
        if levels.shaft_hz > 0.5:
            half = np.empty(n, np.complex64)
            half.real = np.cos(phase / 2.0)
            half.imag = np.sin(phase / 2.0)
            powers = _powers(half, [round(2.0 * order) for order in levels.orders])
            for order, velocity in levels.orders.items():
                if order == 0.5 and flicker:
                    continue
                rows.append(powers[round(2.0 * order)])
                weights.append(self._phasors(round(2.0 * order), order * levels.shaft_hz, velocity))
        if levels.line_hz > 1.0:
            hum = np.empty(n, np.complex64)
            angle = line_phase + math.tau * 2.0 * levels.line_hz / rate_hz * np.arange(n)
            hum.real, hum.imag = np.cos(angle), np.sin(angle)
            rows.append(hum)
            weights.append(self._phasors(25, 2.0 * levels.line_hz, levels.twice_line_mm_s))
        for tone in levels.tones:
            rows.append(np.exp(1j * math.tau * tone.frequency_hz / rate_hz * np.arange(n)).astype(np.complex64))
            weights.append(self._phasors(25, tone.frequency_hz, tone.velocity_mm_s))
        if rows:
            out += (np.stack(weights, axis=1) @ np.stack(rows)).real

    def _phasors(self, slot: int, frequency_hz: float, velocity_mm_s: Axes) -> NDArray[np.complex64]:
        """Acceleration amplitude and phase per axis of a tone given as velocity RMS."""
        phases = self.parameters.phases_rad
        scale = math.sqrt(2.0) * math.tau * frequency_hz * 1e-3
        turn = [phases[(3 * slot + axis) % len(phases)] for axis in range(3)]
        return np.array(
            [scale * v * complex(math.cos(a), math.sin(a)) for v, a in zip(velocity_mm_s, turn, strict=True)],
            np.complex64,
        )

    def _noise(self, level_g: float, kind: Shape, rate_hz: float, n: int, rng: np.random.Generator) -> F32:
        """Gaussian noise of the point's spectral shape, shape (3, n), m/s2, `level_g` RMS in the band of STATED_HZ."""
        shape = self._shape(n, rate_hz, kind)
        spectrum = rng.standard_normal((3, 2 * shape.shape[0]), dtype=np.float32).view(np.complex64)
        spectrum *= shape
        spectrum *= np.array([[level_g * G_M_S2 * gain] for gain in self.parameters.transfer], np.float32)
        return np.asarray(fft.irfft(spectrum, n, axis=1), np.float32)

    def _shape(self, n: int, rate_hz: float, kind: Shape) -> F32:
        """Standard deviation of a bin's real and imaginary part for 1 m/s2, made once per length and rate."""
        key = (n, rate_hz, kind)
        if key not in self._shapes:
            if len(self._shapes) > 8:
                self._shapes.clear()
            density = self.noise_density(fft.rfftfreq(n, 1.0 / rate_hz), kind)
            self._shapes[key] = (density * math.sqrt(rate_hz * n / 4.0)).astype(np.float32)
        return self._shapes[key]

    def noise_density(self, frequency_hz: NDArray[np.float64], kind: Shape = "floor") -> NDArray[np.float64]:
        """Amplitude density of the noise per root hertz, 1 RMS in the band of STATED_HZ.

        Below 200 Hz the floor's power rises as 1/f; above 10 kHz it falls off. The other shapes are the same structure
        under another excitation: above 3 kHz, between 0.1 and 2 kHz, between 2 and 4 kHz.
        """
        return self._raw_density(frequency_hz, kind) * self._unit(kind)

    def _unit(self, kind: Shape) -> float:
        if kind not in self._units:
            grid = np.arange(*STATED_HZ[kind], 5.0)
            self._units[kind] = float(1.0 / math.sqrt(np.sum(self._raw_density(grid, kind) ** 2) * 5.0))
        return self._units[kind]

    def _raw_density(self, frequency_hz: NDArray[np.float64], kind: Shape) -> NDArray[np.float64]:
        f = np.maximum(frequency_hz, 1e-3)
        power = np.ones_like(f)
        for mode in self.parameters.modes:
            x = f / mode.frequency_hz
            width = (2.0 * mode.damping_ratio * x) ** 2
            power += (mode.gain**2 - 1.0) * width / ((1.0 - x * x) ** 2 + width)
        power *= _excitation(f, kind)
        power *= 1.0 / (1.0 + (f / NOISE_HIGH_HZ) ** 8)
        return np.where(frequency_hz < 2.0, 0.0, np.sqrt(power))

    def _rings(
        self, train: Impulses, phase: NDArray[np.float64], rate_hz: float, n: int, rng: np.random.Generator
    ) -> F32:
        """One train of impacts through the housing's resonance, shape (n,), m/s2; impacts fall between the samples."""
        p = self.parameters
        omega = math.tau * p.ring_frequency_hz / rate_hz
        decay = p.ring_damping_ratio * omega
        length = min(n, math.ceil(8.0 / decay))
        period = rate_hz / train.rate_hz
        count = math.ceil(1.2 * (n + length) / period) + 3
        start = rng.uniform(-1.0, 0.0) * period - length
        gaps = np.maximum(0.2, 1.0 + p.slip_ratio * rng.standard_normal(count)) * period
        at = start + np.cumsum(gaps)
        peak = train.peak_g * G_M_S2 * np.exp(0.2 * rng.standard_normal(count) - 0.02)
        keep = (at > -length) & (at < n - 1)
        at, peak = at[keep], peak[keep]
        if train.zone_order:
            angle = train.zone_order * phase[np.clip(at, 0, n - 1).astype(np.intp)]
            peak = peak * np.maximum(0.0, 0.5 * (1.0 + np.cos(angle)))
        first = np.ceil(at).astype(np.intp)
        index = first[:, None] + np.arange(length)
        since = (index - at[:, None]).astype(np.float32)
        ring = peak[:, None].astype(np.float32) * np.exp(-decay * since) * np.sin(omega * since)
        inside = (index >= 0) & (index < n)
        return np.bincount(index[inside], ring[inside], minlength=n).astype(np.float32)

    # -- closed form -------------------------------------------------------------------------------------------------

    def indicators(self, levels: Levels, axis: int, noise_floor_g: float = 0.002) -> Indicators:
        """What a scalar sensor computes: velocity 10-1000 Hz, acceleration 10-4000 Hz, HF acceleration 1-4 kHz.

        Powers of independent parts add; fourth moments add as excess kurtosis times squared power. Agrees with the
        waveform within its own scatter (tests/unit/test_vibration.py).
        """
        tones = _tone_sums(levels, axis)
        gain = self.parameters.transfer[axis]
        floor, hiss = self._noise_parts("floor"), self._noise_parts("hiss")
        noise2, extra2 = (levels.noise_g * gain) ** 2, (levels.burst_noise_g * gain) ** 2
        rings = self._ring_sums(levels.impulses, gain)
        gauss2 = noise2 * floor[1] + extra2 * hiss[1] + noise_floor_g**2
        hf2 = noise2 * floor[2] + extra2 * hiss[2] + noise_floor_g**2 + 0.8 * rings.power_g2
        slow2 = tones.velocity2 + rings.velocity2 + noise2 * floor[0] + extra2 * hiss[0]
        extra: tuple[tuple[Shape, float], ...] = (("rumble", levels.rumble_g), ("hump", levels.hump_g))
        for kind, level_g in extra:
            if level_g > 0.0:
                parts, level2 = self._noise_parts(kind), (level_g * gain) ** 2
                slow2, gauss2, hf2 = slow2 + level2 * parts[0], gauss2 + level2 * parts[1], hf2 + level2 * parts[2]
        total2 = tones.power_g2 + gauss2 + rings.power_g2
        excess = tones.excess_g4 + rings.excess_g4
        rms_g = math.sqrt(total2)
        peak_g = tones.peak_g + math.hypot(3.9 * math.sqrt(gauss2), rings.peak_g)
        v_rms = math.sqrt(slow2)
        return Indicators(
            velocity_rms_mm_s=v_rms,
            velocity_peak_mm_s=1.35 * math.sqrt(2.0) * v_rms,
            peak_velocity_frequency_hz=tones.strongest_hz,
            acceleration_rms_g=rms_g,
            acceleration_peak_g=peak_g,
            hf_acceleration_rms_g=math.sqrt(hf2),
            kurtosis_ratio=3.0 + (excess / total2**2 if total2 > 0.0 else 0.0),
            crest_ratio=peak_g / max(rms_g, 1e-9),
        )

    def _ring_sums(self, trains: tuple[Impulses, ...], gain: float) -> _Sums:
        """What trains of impacts add to an axis. Each impact is a step in velocity, the train a saw tooth of that height."""
        sums = _Sums()
        fourth = 0.0
        for train in trains:
            unit2, unit4 = self._ring_moments(train)
            hit_g = train.peak_g * gain
            sums.power_g2 += unit2 * hit_g**2
            fourth += unit4 * hit_g**4
            sums.peak_g = max(sums.peak_g, 1.35 * hit_g)
            step_mm_s = 1e3 * G_M_S2 * hit_g / (math.tau * self.parameters.ring_frequency_hz)
            sums.velocity2 += (0.31 * step_mm_s) ** 2 * (0.4 if train.zone_order else 1.0)
        sums.excess_g4 = fourth - 3.0 * sums.power_g2**2
        return sums

    def _noise_parts(self, kind: Shape) -> _Parts:
        """Per squared g of noise level: velocity 10-1000 Hz in (mm/s) squared, acceleration 10-4000 Hz, 1-4 kHz."""
        if kind not in self._parts:
            grid = np.arange(10.0, 4000.0, 1.0)
            power = self.noise_density(grid, kind) ** 2
            slow = grid <= 1000.0
            velocity = float(np.sum(power[slow] * (1e3 * G_M_S2 / (math.tau * grid[slow])) ** 2))
            self._parts[kind] = (velocity, float(np.sum(power)), float(np.sum(power[~slow])))
        return self._parts[kind]

    def _ring_moments(self, train: Impulses) -> tuple[float, float]:
        """Second and fourth moment of a train of unit rings: rate times the integrals of powers of exp(-at) sin(wt).

        Amplitudes scatter log-normally by 20 %; the load zone passes 3/8 of the power and 35/128 of the fourth moment.
        """
        decay_hz = self.parameters.ring_damping_ratio * math.tau * self.parameters.ring_frequency_hz
        second = train.rate_hz / (4.0 * decay_hz) * math.exp(0.04)
        fourth = train.rate_hz * 0.375 / (4.0 * decay_hz) * math.exp(0.24)
        return (second * 0.375, fourth * 35.0 / 128.0) if train.zone_order else (second, fourth)


def _excitation(frequency_hz: NDArray[np.float64], kind: Shape) -> NDArray[np.float64]:
    """Power of what drives the structure, by frequency."""
    if kind == "floor":
        return np.maximum(1.0, BREATH_HZ / frequency_hz)
    if kind == "hiss":
        return (frequency_hz / 3000.0) ** 6 / (1.0 + (frequency_hz / 3000.0) ** 6)
    low_hz, high_hz = STATED_HZ[kind]
    return 1.0 / ((1.0 + (low_hz / frequency_hz) ** 6) * (1.0 + (frequency_hz / high_hz) ** 6))


def _tone_sums(levels: Levels, axis: int) -> _Sums:
    """The tones between 10 Hz and 1 kHz; their peaks rarely meet, hence 0.85 of the sum."""
    sums = _Sums()
    strongest = 0.0
    tones = [(order * levels.shaft_hz, velocity[axis]) for order, velocity in levels.orders.items()]
    tones += [(tone.frequency_hz, tone.velocity_mm_s[axis]) for tone in levels.tones]
    for frequency_hz, velocity in [*tones, (2.0 * levels.line_hz, levels.twice_line_mm_s[axis])]:
        if not 10.0 <= frequency_hz <= 1000.0:
            continue
        accel_g = velocity * math.tau * frequency_hz * 1e-3 / G_M_S2
        sums.velocity2 += velocity**2
        sums.power_g2 += accel_g**2
        sums.excess_g4 -= 1.5 * accel_g**4
        sums.peak_g += 0.85 * math.sqrt(2.0) * accel_g
        if velocity > strongest:
            strongest, sums.strongest_hz = velocity, frequency_hz
    return sums


def _powers(base: NDArray[np.complex64], exponents: list[int]) -> dict[int, NDArray[np.complex64]]:
    """The powers of a unit phasor that are asked for, by squaring and one product each."""
    made: dict[int, NDArray[np.complex64]] = {1: base}

    def power(k: int) -> NDArray[np.complex64]:
        if k not in made:
            a = power(k // 2)
            made[k] = a * a if k % 2 == 0 else a * a * base
        return made[k]

    return {k: power(k) for k in exponents}
