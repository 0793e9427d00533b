"""The TagBank is, for every history, what a plain tag is that knows of no other and of no speed."""

from __future__ import annotations

import math
import statistics
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tagbank import STATISTICS, TAU_THERMAL_S, TagBank, TagPlan
from firmware_bridge.measurement import Quality

S = 1_000_000_000
N_CHANNELS = 7
PLAN = TagPlan(tau_level_s=3.0, tau_slow_s=20.0, n_median=5, n_rounds=3, gap_s=30.0)
START_NS = 500 * S


class PlainTag:
    """One channel, in the order of the words that describe it; floats and lists, no arrays."""

    def __init__(self, channel):
        self.channel = channel
        self.quality = int(Quality.BAD)
        self.value = None
        self.good_ns = None

    def hear(self, value, quality, now_ns):
        if quality >= Quality.BAD or not math.isfinite(value):
            self.quality = max(quality, Quality.BAD)
            return
        if self.good_ns is None or now_ns - self.good_ns > PLAN.gap_s * S:
            self.since_ns = self.good_ns = self.changed_ns = now_ns
            self.mean = dict.fromkeys((PLAN.tau_level_s, PLAN.tau_slow_s, TAU_THERMAL_S), value)
            self.variance = dict.fromkeys(self.mean, 0.0)
            self.seen = []
        elapsed_ns = max(now_ns - self.good_ns, 0)
        for tau_s, mean in self.mean.items():
            weight = 1 - math.exp(-elapsed_ns / S / tau_s)
            self.mean[tau_s] = mean + weight * (value - mean)
            self.variance[tau_s] = (1 - weight) * (self.variance[tau_s] + weight * (value - mean) ** 2)
        self.good_ns += elapsed_ns
        if self.value is None or struct.pack("f", value) != struct.pack("f", self.value):
            self.changed_ns = self.good_ns
        self.value, self.quality = value, quality
        self.seen.append(value)
        young = len(self.seen) <= PLAN.n_rounds
        if young or (len(self.seen) - 1 + self.channel) % PLAN.n_rounds == 0:
            self.median = statistics.median(self.seen[-PLAN.n_median :])

    def carpet(self):
        latest = sorted(self.seen[-PLAN.n_median :])
        if len(latest) < PLAN.n_median:
            return math.nan
        return statistics.quantiles(latest, n=4, method="inclusive")[0]

    def statistics(self):
        fast, slow, thermal = self.mean.values()
        return {
            "level": fast,
            "slow_level": slow,
            "thermal_level": thermal,
            "std": math.sqrt(self.variance[PLAN.tau_level_s]),
            "slope_per_s": (fast - slow) / (PLAN.tau_slow_s - PLAN.tau_level_s),
            "median": self.median,
            "carpet": self.carpet(),
        }


any_value = st.one_of(
    st.sampled_from([0.0, -0.0, 21.5, math.nan, math.inf]), st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
)
any_quality = st.sampled_from([Quality.GOOD] * 4 + [Quality.UNCERTAIN, Quality.BAD, Quality.BAD_SENTINEL])
any_step_ns = st.one_of(
    st.sampled_from([0, 1, S, S, S, -2 * S, 30 * S, 30 * S + 1, 100 * S]), st.integers(1_000_000, 40 * S)
)
devices = st.sampled_from([range(N_CHANNELS), range(3), range(3, N_CHANNELS)])  # a whole poll, neighbours in order
messages = st.lists(st.integers(0, N_CHANNELS - 1), unique=True, max_size=N_CHANNELS)  # whatever a message names


@st.composite
def blocks(draw):
    """A step of time and one block, as (channel, value, quality) each."""
    channels = draw(st.one_of(devices, messages))
    return draw(any_step_ns), [(channel, draw(any_value), draw(any_quality)) for channel in channels]


def feed(bank, words, now_ns):
    channels, values, quality = zip(*words, strict=True) if words else ((), (), ())
    bank.update(np.array(channels, np.int32), np.array(values, np.float32), np.array(quality, np.uint8), now_ns)


def everything(bank, now_ns):
    """All that a bank can be asked, by name."""
    told = {name: statistic.read(bank, slice(None)) for name, statistic in STATISTICS.items()}
    return told | {
        "thermal_level": bank.thermal_level(),
        "quality": bank.quality(),
        "latest": bank.latest_of(np.arange(N_CHANNELS)),
        "silent": bank.silent_s(now_ns),
        "unchanged": bank.unchanged_s(),
        "watched": bank.watched(5.0, now_ns),
        "rejected": np.array(bank.rejected),
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(blocks(), max_size=30))
def test_the_bank_is_a_row_of_plain_tags_however_their_words_are_grouped(history):
    """Slices, weights shared by a block and staggered turns are only ways to be quick.

    Against the plain tags nothing but rounding is forgiven; between blocks, single words and another order, not a bit.
    """
    whole, single, turned = (TagBank(N_CHANNELS, PLAN) for _ in range(3))
    plain = [PlainTag(channel) for channel in range(N_CHANNELS)]
    now_ns = START_NS
    for step_ns, words in history:
        now_ns += step_ns
        feed(whole, words, now_ns)
        feed(turned, words[::-1], now_ns)
        for channel, value, quality in words:
            feed(single, [(channel, value, quality)], now_ns)
            plain[channel].hear(value, quality, now_ns)
    for other in (single, turned):
        for name, told in everything(whole, now_ns).items():
            np.testing.assert_array_equal(everything(other, now_ns)[name], told, err_msg=name)
    for tag in plain:
        assert_same(whole, tag, now_ns)


def assert_same(bank, tag, now_ns):
    """Times, states and medians to the bit; what is multiplied, within rounding of the largest value there was."""
    at = tag.channel
    assert bank.quality()[at] == tag.quality
    expected = tag.value if tag.quality < Quality.BAD else np.nan
    assert np.array_equal(bank.latest_of(np.array([at])), [expected], equal_nan=True)
    if tag.good_ns is None:
        assert (bank.silent_s(now_ns)[at], bank.unchanged_s()[at], bank.watched(0.0, now_ns)[at]) == (
            math.inf,
            0,
            False,
        )
        return
    assert bank.silent_s(now_ns)[at] == (now_ns - tag.good_ns) / S
    assert bank.unchanged_s()[at] == (tag.good_ns - tag.changed_ns) / S
    watched = tag.good_ns - tag.since_ns >= 5 * S and now_ns - tag.good_ns <= PLAN.gap_s * S
    assert bank.watched(5.0, now_ns)[at] == watched
    largest = max(abs(value) for value in tag.seen)
    for name, value in tag.statistics().items():
        assert getattr(bank, name)()[at] == pytest.approx(value, rel=1e-6, abs=1e-9 * largest, nan_ok=True), name


@pytest.mark.parametrize("n_channels", [1, 2, 3, 7, 8, 9, 64, 1000])
def test_one_weight_for_a_block_is_the_weight_of_each_of_its_channels(n_channels):
    """A vector unit must not round the exponential of one time otherwise than that of a thousand.

    One bank hears all channels at once, the other's first channel spoke last at another time, so that it shares no weight.
    """
    rng = np.random.default_rng(5)
    shared, apart = TagBank(n_channels + 1), TagBank(n_channels + 1)
    channels, quality = np.arange(n_channels + 1, dtype=np.int32), np.zeros(n_channels + 1, np.uint8)
    now_ns = START_NS
    for step_ns in rng.integers(1, 20 * S, 50):
        now_ns += int(step_ns)
        values = rng.normal(50, 5, n_channels + 1).astype(np.float32)
        shared.update(channels, values, quality, now_ns)
        apart.update(channels, values, quality, now_ns)
        apart.update(channels[:1], values[:1], quality[:1], now_ns + 1)
    for name, statistic in STATISTICS.items():
        every = slice(1, None)
        np.testing.assert_array_equal(statistic.read(shared, every), statistic.read(apart, every), err_msg=name)
