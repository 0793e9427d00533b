"""Windower: all axes of one burst or nothing, within bounds, and every loss counted."""

from __future__ import annotations

import numpy as np
import pytest

from agent.vocabulary import OperatingPoint
from agent.window import MAX_OPEN, Windower
from firmware_bridge.measurement import Quality, Waveform

S = 1_000_000_000
POINT = OperatingPoint(1460.0)
AXES = {"accel": ("x", "y", "z")}


def wave(axis, burst_id=1, at_s=0.0, sensor="accel", n=8, rate_hz=25600.0, quality=Quality.GOOD, value=1.0):
    samples = np.full(n, value, np.float32)
    return Waveform(
        sensor, axis, samples, rate_hz, burst_id, round(at_s * S) - S, round(at_s * S), round(at_s * S), quality
    )


def run(windower, *waves):
    return [window for one in waves for window in windower.step(one, POINT, one.monotonic_ns)]


@pytest.fixture
def windower():
    return Windower({"accel": "M-1"}, AXES)


def test_the_last_axis_completes_the_window(windower):
    """In whatever order axes come, rows are in the order of axes; arrival is that of the last."""
    (window,) = run(windower, wave("z", at_s=3, value=3), wave("x", at_s=5, value=1), wave("y", at_s=4, value=2))
    assert (window.machine, window.sensor, window.axes, window.burst_id) == ("M-1", "accel", ("x", "y", "z"), 1)
    assert window.samples[:, 0].tolist() == [1, 2, 3]
    assert window.samples.dtype == np.float32
    assert (window.arrived_monotonic_ns, window.utc_ns, window.point) == (5 * S, 2 * S, POINT)
    assert not window.clipped
    assert dict(windower.counts) == {"windows": 1}


def test_bursts_are_never_mixed(windower):
    """x of one burst and y, z of the next are no window."""
    assert run(windower, wave("x", 1), wave("y", 2), wave("z", 2)) == []
    assert [w.burst_id for w in run(windower, wave("x", 2))] == [2]


@pytest.mark.parametrize("odd", [{"rate_hz": 25601.0}, {"n": 9}])
def test_rates_and_lengths_are_never_mixed(windower, odd):
    """The whole burst goes, and a late axis of it cannot open it again."""
    assert run(windower, wave("x"), wave("y", **odd), wave("z"), wave("y"), wave("x")) == []
    assert windower.counts["mismatched"] == 1
    assert windower.counts["incomplete"] == 1


def test_one_clipped_axis_clips_the_window(windower):
    """Quality UNCERTAIN of a waveform means samples at full scale."""
    (window,) = run(windower, wave("x"), wave("y", quality=Quality.UNCERTAIN), wave("z"))
    assert window.clipped


def test_a_bad_or_repeated_or_strange_waveform_is_counted_and_dropped(windower):
    """MQTT delivers at least once: the second copy makes no second window."""
    waves = [wave("x"), wave("x"), wave("y"), wave("q"), wave("z", quality=Quality.BAD), wave("z", sensor="other")]
    assert run(windower, *waves) == []
    assert len(run(windower, wave("z"), wave("z"))) == 1
    counts = {"duplicate": 2, "unexpected_axis": 1, "bad": 1, "unknown_sensor": 1, "windows": 1}
    assert dict(windower.counts) == counts


def test_open_bursts_are_bounded(windower):
    """A sensor that only ever sends one axis holds at most four bursts; the oldest goes first."""
    run(windower, *(wave("x", burst_id) for burst_id in range(10)))
    assert windower.counts["incomplete"] == 10 - MAX_OPEN
    assert windower.incomplete_by_sensor["accel"] == 10 - MAX_OPEN


def test_a_burst_waits_sixty_seconds_and_no_longer(windower):
    """An axis after a minute is of another time."""
    run(windower, wave("x", at_s=0), wave("y", at_s=50))
    windower.tick(109 * S)
    assert windower.counts["incomplete"] == 0
    windower.tick(111 * S)
    assert windower.counts["incomplete"] == 1
    assert run(windower, wave("z", at_s=112)) == []


def test_a_restarted_sensor_may_count_from_the_same_id_again(windower):
    """Ids are remembered as long as copies may come, not for ever."""
    burst = [wave(axis, 1, 0.0) for axis in "xyz"]
    again = [wave(axis, 1, 100.0) for axis in "xyz"]
    assert len(run(windower, *burst, *again)) == 2


def test_axes_are_learned_from_two_bursts_where_nobody_states_them():
    """The first may have been joined halfway; from the third on every burst is a window."""
    windower = Windower({"accel": "M-1"})
    waves = [wave("z", 1), *(wave(axis, 2) for axis in "xyz"), *(wave(axis, 3) for axis in "xyz")]
    assert [w.burst_id for w in run(windower, *waves)] == [3]
    assert windower.counts["learning"] == 2
