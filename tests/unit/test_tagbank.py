"""TagBank: what enters, what the statistics are, and what they say of silence and of stuck sensors."""

from __future__ import annotations

import numpy as np
import pytest

from agent.tagbank import STATISTICS, TAU_THERMAL_S, TagBank, TagPlan
from agent.tagbank_benchmark import tagbank_over_bare
from firmware_bridge.measurement import Quality

S = 1_000_000_000
PLAN = TagPlan(tau_level_s=10.0, tau_slow_s=100.0, gap_s=60.0)


def feed(bank, values, at_s, channel=0, quality=Quality.GOOD):
    channels = np.array([channel], np.int32)
    for value, second in zip(values, at_s, strict=True):
        bank.update(channels, np.array([value], np.float32), np.array([quality], np.uint8), round(second * S))


def test_the_level_of_a_step_is_its_closed_form_whatever_the_sampling():
    """After t seconds a step has reached 1 - exp(-t / tau): even, uneven or in one stride."""
    rng = np.random.default_rng(1)
    uneven = np.append(np.sort(rng.uniform(0, 20, 37)), 20.0)
    for at_s in ([20.0], np.arange(1.0, 21.0), uneven):
        bank = TagBank(1, PLAN)
        feed(bank, [0.0, *np.ones(len(at_s))], [0.0, *at_s])
        assert bank.level()[0] == pytest.approx(1 - np.exp(-2.0), rel=1e-9)
        assert bank.slow_level()[0] == pytest.approx(1 - np.exp(-0.2), rel=1e-9)
        assert bank.thermal_level()[0] == pytest.approx(1 - np.exp(-20 / TAU_THERMAL_S), rel=1e-9)


def test_the_slope_of_a_ramp_is_exact():
    """Both means lag a ramp by their own tau, so their difference is its slope."""
    bank = TagBank(1, PLAN)
    seconds = np.arange(0, 2000.0, 0.5)
    feed(bank, 0.02 * seconds, seconds)
    assert bank.slope_per_s()[0] == pytest.approx(0.02, rel=1e-3)


def test_std_and_median_of_noise():
    """Gaussian noise of spread 0.5 about 20: EW std near 0.5 (its own window is short), median near 20."""
    rng = np.random.default_rng(2)
    bank = TagBank(1, PLAN)
    feed(bank, 20 + 0.5 * rng.standard_normal(3000), np.arange(3000) * 0.1)
    assert bank.std()[0] == pytest.approx(0.5, rel=0.2)
    assert bank.median()[0] == pytest.approx(20, abs=0.25)
    assert abs(bank.deviation()[0]) < 1.0


def test_a_bad_value_or_a_nan_never_enters():
    """The bank after bad values is bit for bit the bank without them; they are counted."""
    clean, dirty = TagBank(2, PLAN), TagBank(2, PLAN)
    for second in range(50):
        for bank in (clean, dirty):
            feed(bank, [np.sin(second)], [second], channel=1)
        feed(dirty, [1e9], [second + 0.1], 1, Quality.BAD_SENTINEL)
        feed(dirty, [np.nan], [second + 0.2], 1)
        feed(dirty, [np.inf], [second + 0.3], 1)
    for statistic in STATISTICS.values():
        np.testing.assert_array_equal(statistic.read(clean), statistic.read(dirty))
    assert (clean.rejected, dirty.rejected) == (0, 150)


def test_an_uncertain_value_counts():
    """UNCERTAIN carries a value (stale or substituted); only BAD carries none."""
    bank = TagBank(1, PLAN)
    feed(bank, [3.0], [1.0], quality=Quality.UNCERTAIN)
    assert bank.read("tag.level", 0, 1 * S) == (3.0, True)


def test_a_median_is_at_most_one_round_old_for_every_channel():
    """Channels take turns by their own count, so even one that is polled every 16th tick gets its turn."""
    plan = TagPlan(n_median=32, n_rounds=8)
    bank = TagBank(3, plan)
    rng = np.random.default_rng(3)
    seen = {channel: [] for channel in range(3)}
    for tick in range(1600):
        for channel in range(3):
            if tick % (1, 8, 16)[channel] == 0:
                seen[channel].append(np.float32(rng.standard_normal()))
                feed(bank, [seen[channel][-1]], [tick], channel)
                n_seen = len(seen[channel])
                rounds = [np.median(seen[channel][: n_seen - k][-32:]) for k in range(min(8, n_seen))]
                assert np.isclose(rounds, bank.median()[channel], atol=1e-6).any()


def test_a_stuck_sensor_is_told_from_a_silent_one():
    """Unchanged counts while values come; silence counts while none do. Signed zero is another value than zero."""
    bank = TagBank(3, PLAN)
    feed(bank, [7.25] * 31, np.arange(100.0, 131.0), channel=0)
    feed(bank, [1.0, 2.0], [100.0, 101.0], channel=1)
    now = 140 * S
    np.testing.assert_allclose(bank.unchanged_s(), [30.0, 0.0, 0.0])
    np.testing.assert_allclose(bank.silent_s(now), [10.0, 39.0, np.inf])
    feed(bank, [7.25000048], [141.0])
    assert bank.unchanged_s()[0] == 0.0


def test_the_latest_word_of_a_channel_is_its_value_or_nothing():
    """A bad word after a good one is no value, and its quality says so; the means keep what they had."""
    bank = TagBank(2, PLAN)
    feed(bank, [2.5], [1.0])
    assert np.array_equal(bank.latest_of(np.arange(2)), [2.5, np.nan], equal_nan=True)
    feed(bank, [np.nan], [2.0], quality=Quality.BAD_COMM)
    assert np.isnan(bank.latest_of(np.array([0])))[0]
    assert bank.quality().tolist() == [Quality.BAD_COMM, Quality.BAD]
    assert bank.level()[0] == 2.5
    feed(bank, [np.nan], [3.0], channel=1, quality=Quality.GOOD)
    assert np.isnan(bank.latest_of(np.array([1])))[0]
    assert bank.quality()[1] == Quality.BAD


def test_after_a_gap_a_channel_starts_anew():
    """Nothing bridges what nobody saw: level is the new value, spread is not yet known."""
    bank = TagBank(1, PLAN)
    feed(bank, np.sin(np.arange(100)), np.arange(100.0))
    feed(bank, [50.0], [99.0 + 61.0])
    now = 160 * S
    assert bank.read("tag.level", 0, now) == (50.0, True)
    assert bank.read("tag.median", 0, now) == (50.0, True)
    assert bank.read("tag.std", 0, now) == (0.0, False)


def test_a_silent_or_young_channel_is_not_usable():
    """A level needs one fresh value; a spread two time constants; and silence ends it all."""
    bank = TagBank(1, PLAN)
    assert bank.read("tag.level", 0, 0)[1] is False
    feed(bank, np.arange(21.0), np.arange(21.0))
    assert bank.read("tag.level", 0, 20 * S)[1] is True
    assert bank.read("tag.std", 0, 20 * S)[1] is True
    assert bank.read("tag.slope", 0, 20 * S)[1] is False
    assert bank.read("tag.level", 0, 81 * S)[1] is False


def test_a_repeated_or_earlier_time_moves_nothing_by_itself():
    """Two reads with one stamp, or one stamped earlier: no weight, no negative age, no NaN."""
    bank = TagBank(1, PLAN)
    feed(bank, [1.0, 9.0, 9.0], [10.0, 10.0, 5.0])
    assert bank.level()[0] == 1.0
    assert bank.silent_s(10 * S)[0] == 0.0


def test_channels_do_not_know_each_other():
    """A block of many equals the same channels one by one."""
    rng = np.random.default_rng(4)
    values = rng.standard_normal((200, 5)).astype(np.float32)
    together, apart = TagBank(5, PLAN), TagBank(5, PLAN)
    for second, row in enumerate(values):
        together.update(np.arange(5, dtype=np.int32), row, np.zeros(5, np.uint8), second * S)
        for channel in range(5):
            feed(apart, [row[channel]], [second], channel)
    for name, statistic in STATISTICS.items():
        np.testing.assert_array_equal(statistic.read(together), statistic.read(apart), err_msg=name)


def test_one_channel_is_read_as_all_are():
    """A machine reads its own columns one by one; what others hear must not show in them."""
    rng = np.random.default_rng(5)
    bank = TagBank(4, PLAN)
    for second in range(300):
        values = rng.standard_normal(4).astype(np.float32)
        bank.update(np.arange(4, dtype=np.int32), values, np.zeros(4, np.uint8), 7 * second * S)
    for name, statistic in STATISTICS.items():
        assert [bank.read(name, channel, 7 * 300 * S) for channel in range(4)] == [
            (value, True) for value in statistic.read(bank, slice(None))
        ]


def test_a_bank_without_medians_has_everything_else():
    """Nothing is sorted, and a median is told to be absent rather than wrong."""
    bank = TagBank(1, TagPlan(n_median=0))
    feed(bank, np.arange(100.0), np.arange(100.0))
    assert bank.read("tag.level", 0, 99 * S)[1] is True
    assert bank.read("tag.median", 0, 99 * S)[1] is False


@pytest.mark.parametrize(
    "wrong",
    [{"tau_level_s": 10.0, "tau_slow_s": 10.0}, {"n_median": 8, "n_rounds": 9}, {"n_median": -1}, {"gap_s": np.inf}],
)
def test_a_plan_that_cannot_work_is_refused(wrong):
    """The slow mean must be slower than the fast one, a median younger than its samples, a gap shorter than never."""
    with pytest.raises(ValueError, match="tau_level_s < tau_slow_s"):
        TagPlan(**wrong)


def test_the_benchmark_measures_the_bank_with_and_without_medians():
    """Medians cost something, and a bank more than bare arithmetic; how much is what `make bench` asserts."""
    told = tagbank_over_bare(0.05)
    assert 1 < told["tagbank_over_bare"] < told["tagbank_median_over_bare"]
    assert 0 < told["tagbank_ns_per_tag"] < told["tagbank_median_ns_per_tag"]


def test_a_young_mean_of_days_is_the_plain_mean_of_what_was_seen():
    """A mean of two weeks that began on a cold morning would take weeks to forget it."""
    rng = np.random.default_rng(3)
    values = 80 + 5 * rng.standard_normal(300)
    bank = TagBank(1, TagPlan(3600.0, 1e6, gap_s=1e5, settled_s=2e5))
    feed(bank, values, 600.0 * np.arange(300))
    assert bank.slow_level()[0] == pytest.approx(values.mean(), rel=1e-6)
    spread = (bank.level()[0] - values.mean()) / values.std()
    assert bank.deviation()[0] == pytest.approx(spread, rel=1e-3)


def test_a_deviation_counts_once_the_plan_says_that_it_has_settled():
    """Two slow time constants, or what the plan states for quantities of days."""
    for plan, settled_s in ((PLAN, 200.0), (TagPlan(10.0, 100.0, gap_s=60.0, settled_s=30.0), 30.0)):
        bank = TagBank(1, plan)
        for second in range(0, 260, 10):
            feed(bank, [np.sin(second)], [second])
            assert bank.read("tag.deviation", 0, second * S)[1] == (second >= settled_s)
