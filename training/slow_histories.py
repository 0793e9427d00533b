"""Made-up histories of slow quantities that are well: what a machine type whose columns are their own standard is measured on.

Temperatures and the like wander, follow the day and stop now and then. They pass the agent's own TagBank.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.tagbank import STATISTICS, TagBank
from training.learned import Kind

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

INTERVAL_S = 600.0
N_HISTORIES = 200
DURATION_S = 60 * 86_400.0
DAY_S = 86_400.0


def healthy_deviations(kind: Kind, seed: int) -> F32:
    """The columns of healthy histories, in their scales. Shape (n_decisions, n_columns)."""
    rng = np.random.default_rng(seed)
    plan = kind.features.tags
    bank = TagBank(N_HISTORIES, plan)
    channels = np.arange(N_HISTORIES, dtype=np.int32)
    good = np.zeros(N_HISTORIES, np.uint8)
    readers = [STATISTICS[statistic] for _, statistic in kind.features.statistics.values()]
    first_s = max(reader.least_watched_s(plan) for reader in readers)
    kept: list[F64] = []
    for at, values in enumerate(healthy_histories(rng)):
        bank.update(channels, values.astype(np.float32), good, round(at * INTERVAL_S * 1e9))
        if at * INTERVAL_S >= first_s:
            kept.append(np.stack([reader.read(bank, slice(None)) for reader in readers], axis=1))
    return np.asarray(np.concatenate(kept) / np.asarray(kind.floors), np.float32)


def healthy_histories(rng: np.random.Generator) -> F64:
    """Slow quantities that are well: they wander, swing with the day and cool in short stops. Shape (n_times, n_histories)."""
    n_times = round(DURATION_S / INTERVAL_S)
    n = N_HISTORIES
    time_s = INTERVAL_S * np.arange(n_times)[:, None]
    wander = _lagged(rng.standard_normal((n_times, n)), rng.uniform(0.5, 4.0, n) * DAY_S)
    wander /= wander.std(axis=0)
    swing = rng.uniform(0.0, 1.5, n) * np.sin(2 * np.pi * (time_s / DAY_S + rng.random(n)))
    stops = _stops(rng, n_times, stops_per_day=rng.uniform(0.0, 1.0, n))
    cooled = _lagged(stops, np.full(n, 3600.0)) * rng.uniform(2.0, 6.0, n)
    return np.asarray(wander + swing - cooled + 0.2 * rng.standard_normal((n_times, n)), np.float64)


def _stops(rng: np.random.Generator, n_times: int, stops_per_day: F64) -> F64:
    """1 while a machine stands, 0 while it runs: stops of half an hour to four hours. Shape (n_times, n_histories)."""
    n = len(stops_per_day)
    left_s = np.zeros(n)
    standing = np.zeros((n_times, n))
    for row in standing:
        begins = rng.random(n) < stops_per_day * INTERVAL_S / DAY_S
        left_s = np.where(begins, rng.uniform(0.5, 4.0, n) * 3600.0, left_s - INTERVAL_S)
        row[:] = left_s > 0
    return standing


def _lagged(driven: F64, tau_s: F64) -> F64:
    """First-order lag of each column. Shape as `driven`."""
    gain = -np.expm1(-INTERVAL_S / tau_s)
    lagged = np.zeros_like(driven)
    for at in range(1, len(driven)):
        lagged[at] = lagged[at - 1] + gain * (driven[at] - lagged[at - 1])
    return lagged
