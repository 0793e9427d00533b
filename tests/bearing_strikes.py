"""Strikes on a bearing's parts, simulated: what the tests of bearing names, kurtogram and protocol share."""

from __future__ import annotations

import numpy as np

from agent.features.bearings import BearingOrders

RATE_HZ = 12_000.0
SHAFT_HZ = 29.53
DURATION_S = 5.0
SKF_6205 = BearingOrders(bpfo=3.585, bpfi=5.415, bsf=2.357, ftf=0.398)
RING_HZ, DAMPING = 3300.0, 0.04


def noise(seed: int, shaft_line: float = 20.0, duration_s: float = DURATION_S) -> np.ndarray:
    """Noise of RMS 1 and, much stronger, the line of an unbalanced shaft."""
    time_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    white = np.random.default_rng([seed, 99]).standard_normal(time_s.size)
    return white + shaft_line * np.sin(2 * np.pi * SHAFT_HZ * time_s)


def strikes(part: str, seed: int, duration_s: float = DURATION_S) -> tuple[np.ndarray, np.ndarray]:
    """When a damaged part of a 6205 is struck, and how hard. Slip is a random walk of 1 % from strike to strike.

    Source: the load zone passes once a turn for a spot on the inner race, once a turn of the cage for one on a ball.
    """
    rng = np.random.default_rng(seed)
    orders = SKF_6205
    order, turning = {"outer": (orders.bpfo, 0.0), "inner": (orders.bpfi, 1.0), "ball": (2 * orders.bsf, orders.ftf)}[
        part
    ]
    period_s = 1 / (order * SHAFT_HZ)
    at_s = np.cumsum(period_s * (1 + 0.01 * rng.standard_normal(round(0.99 * duration_s / period_s))))
    load = 1.0 if part == "outer" else np.maximum(0.5 + 0.5 * np.cos(2 * np.pi * turning * SHAFT_HZ * at_s), 0.1)
    return at_s, load * np.exp(0.1 * rng.standard_normal(at_s.size))


def ringing(
    at_s: np.ndarray,
    hard: np.ndarray,
    rate_hz: float = RATE_HZ,
    duration_s: float = DURATION_S,
    ring_hz: float = RING_HZ,
) -> np.ndarray:
    """Every strike rings a resonance of the housing, which dies away."""
    samples = np.zeros(round(duration_s * rate_hz))
    time_s = np.arange(round(0.01 * rate_hz)) / rate_hz
    ring = np.exp(-2 * np.pi * DAMPING * ring_hz * time_s) * np.sin(2 * np.pi * ring_hz * time_s)
    for start, amplitude in zip(np.rint(at_s * rate_hz).astype(int), hard, strict=True):
        if start < samples.size:
            samples[start : start + ring.size] += amplitude * ring[: samples.size - start]
    return samples


def bursts_of(samples: np.ndarray) -> np.ndarray:
    """Bursts of one second, shape (n_bursts, n_samples), as float32."""
    n = int(RATE_HZ)
    return samples[: samples.size // n * n].reshape(-1, n).astype(np.float32)
