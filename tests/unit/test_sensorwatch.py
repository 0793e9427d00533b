"""Sensor faults are told as sensor faults, and mute what they would have made a machine fault of."""

from __future__ import annotations

import numpy as np

from agent.decision.sensorwatch import SensorChange, SensorWatch, TagView
from agent.decision.threshold import Change
from firmware_bridge.measurement import Channel, Quality

S = 1_000_000_000
CHANNELS = (
    Channel("vib-a", "velocity_rms_z_mm_s", live=True),
    Channel("vib-a", "temperature_degc"),
    Channel("drive-a", "shaft_speed_rpm"),
)


class Plant:
    """A watch with hands on its inputs."""

    def __init__(self) -> None:
        self.watch = SensorWatch(CHANNELS, {"vib-a": 1.0, "drive-a": 1.0, "accel": 10.0}, 0)
        self.since_change = np.zeros(3)
        self.since_good = np.zeros(3)
        self.quality = np.zeros(3, np.uint8)
        self.since_burst: dict[str, float] = {"accel": 0.0}
        self.running: bool | None = True

    def step(self, seconds: float) -> list[tuple[str, Change]]:
        return [(change.condition, change.change) for change in self.changes(seconds)]

    def changes(self, seconds: float) -> list[SensorChange]:
        view = TagView(self.since_change, self.since_good, self.quality)
        running = dict.fromkeys(("vib-a", "drive-a", "accel"), self.running)
        return self.watch.step(view, self.since_burst, running, round(seconds * S), round(seconds * S))


def test_a_live_channel_that_stops_moving_is_stuck_while_the_machine_runs() -> None:
    """Ten polls without a changed bit; and it is back when it moves again."""
    plant = Plant()
    assert plant.step(0) == []
    plant.since_change[:] = [9, 500, 500]
    assert plant.step(100) == []
    plant.since_change[0] = 10
    assert plant.step(101) == [("sensor:vib-a:stuck", Change.RAISED)]
    assert plant.watch.muted() == {"vib-a"}
    plant.since_change[0] = 0
    assert plant.step(102) == []
    assert plant.step(106) == [("sensor:vib-a:stuck", Change.CLEARED)]
    assert plant.watch.muted() == frozenset()


def test_a_machine_at_rest_may_be_still() -> None:
    """Unchanged bits count only from when the machine came to run."""
    plant = Plant()
    plant.running = False
    plant.since_change[:] = 1000
    assert plant.step(1000) == []
    plant.running = True
    assert plant.step(1001) == []
    assert plant.step(1010) == []
    assert plant.step(1011) == [("sensor:vib-a:stuck", Change.RAISED)]


def test_silence_is_its_own_class_for_polled_and_for_burst_sensors() -> None:
    """No answer for three intervals; the onset is when it was last heard."""
    plant = Plant()
    plant.step(0)
    plant.since_good[:2] = 3
    plant.quality[:2] = Quality.BAD_COMM
    plant.since_burst["accel"] = 30.0
    changes = plant.changes(100)
    assert [(c.condition, c.onset_utc_ns) for c in changes] == [
        ("sensor:vib-a:silent", 97 * S),
        ("sensor:accel:silent", 70 * S),
    ]


def test_a_sensor_never_heard_gets_its_time_after_the_start() -> None:
    """At start-up everything is unheard; that is no fault yet."""
    plant = Plant()
    plant.since_good[:] = np.inf
    plant.quality[:] = Quality.BAD_COMM
    plant.since_burst.clear()
    assert plant.step(9) == []
    assert ("sensor:drive-a:silent", Change.RAISED) in plant.step(10)


def test_values_that_cannot_be_are_a_wiring_fault_not_a_machine_fault() -> None:
    """Wrong word order gives absurd numbers for ever; a single one is nothing."""
    plant = Plant()
    plant.quality[1] = Quality.BAD_RANGE
    plant.since_good[1] = 1
    assert plant.step(50) == []
    plant.since_good[1] = 10
    assert plant.changes(60)[0].points == ("temperature_degc",)
    plant.quality[2], plant.since_good[2] = Quality.BAD_SENTINEL, 10
    assert plant.step(61) == [("sensor:drive-a:absent", Change.RAISED)]
    assert plant.watch.muted() == {"vib-a", "drive-a"}


def test_after_a_restart_a_standing_fault_is_not_told_again_but_its_end_is() -> None:
    """`hold` takes it up from the stored alarms."""
    plant = Plant()
    plant.watch.hold("sensor:vib-a:stuck", 1)
    plant.since_change[:] = 100
    plant.step(0)
    assert plant.step(99) == []
    plant.since_change[:] = 0
    plant.step(100)
    assert plant.step(103) == [("sensor:vib-a:stuck", Change.CLEARED)]
