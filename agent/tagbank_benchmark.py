"""What a tick of the TagBank costs over the barest update that NumPy can do on as many numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.tagbank import TagBank, TagPlan
from agent.timing import interleaved_us
from agent.vocabulary import F32
from firmware_bridge.measurement import Quality

N_TAGS = 1000
N_BARE_ROWS = 7  # state rows of exponential means, variances and sums, as a plain implementation would hold them
N_TICKS = 16  # a stretch: one round of medians, and long beside the clock's own microsecond
N_WARM = 8  # stretches; every ring is full, no channel is young
TICK_NS = 1_000_000_000


def tagbank_over_bare(seconds: float) -> dict[str, float]:
    """Thread CPU time of a tick of 1,000 good values in one block over that of the bare update, interleaved, medians.

    "tagbank" keeps no medians, "tagbank_median" is what a site runs: one sixteenth of the medians is renewed in each tick.
    Bare: one fused exponentially weighted update of seven float64 rows of 1,000, in place.
    Args: seconds: how long to measure.
    Returns: tagbank_over_bare, tagbank_median_over_bare; tagbank_ns_per_tag, tagbank_median_ns_per_tag, bare_ns_per_tag.
    """
    values = np.random.default_rng(1).normal(50, 5, (N_TICKS, N_TAGS)).astype(np.float32)
    candidates = {
        "bare": _bare(values),
        "tagbank": _bank(values, TagPlan(n_median=0)),
        "tagbank_median": _bank(values, TagPlan()),
    }
    for candidate in candidates.values():
        for _ in range(N_WARM):
            candidate()
    ns_per_tag = {name: 1000 * us / (N_TICKS * N_TAGS) for name, us in interleaved_us(candidates, seconds).items()}
    return {
        "tagbank_over_bare": ns_per_tag["tagbank"] / ns_per_tag["bare"],
        "tagbank_median_over_bare": ns_per_tag["tagbank_median"] / ns_per_tag["bare"],
        **{f"{name}_ns_per_tag": ns for name, ns in ns_per_tag.items()},
    }


def _bare(values: F32) -> Callable[[], None]:
    """A stretch of `row += weight * (value - row)`, with nothing to check, to remember or to allocate."""
    rows, scratch = np.zeros((2, N_BARE_ROWS, N_TAGS))
    weight = np.linspace(0.01, 0.5, N_BARE_ROWS)[:, None]

    def stretch() -> None:
        for tick in values:
            np.subtract(tick, rows, out=scratch)
            np.multiply(scratch, weight, out=scratch)
            np.add(rows, scratch, out=rows)

    return stretch


def _bank(values: F32, plan: TagPlan) -> Callable[[], None]:
    bank = TagBank(N_TAGS, plan)
    channels, quality = np.arange(N_TAGS, dtype=np.int32), np.full(N_TAGS, Quality.GOOD, np.uint8)
    now_ns = 0

    def stretch() -> None:
        nonlocal now_ns
        for tick in values:
            now_ns += TICK_NS
            bank.update(channels, tick, quality, now_ns)

    return stretch
