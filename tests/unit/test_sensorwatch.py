"""Sensor faults are told as sensor faults, and mute what they would have made a machine fault of."""

from __future__ import annotations

import numpy as np

from agent.decision.sensorwatch import SensorChange, SensorWatch, TagView
from agent.decision.threshold import Change
from firmware_bridge.measurement import Block, Channel, Quality

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


def test_a_stuck_sensor_stays_so_until_it_moves_whatever_the_machine_does() -> None:
    """An alarm that goes with every stop and comes with every start would be told a dozen times a day."""
    plant = Plant()
    plant.step(0)
    plant.since_change[0] = 10
    assert plant.step(100) == [("sensor:vib-a:stuck", Change.RAISED)]
    for second, plant.running in ((200, False), (300, None), (400, True)):
        plant.since_change[0] = second - 90
        assert plant.step(second) == []
        assert plant.watch.muted() == {"vib-a"}
    plant.running = False
    plant.since_change[0] = 0
    plant.step(500)
    assert plant.step(503) == [("sensor:vib-a:stuck", Change.CLEARED)]


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


def poll(plant: Plant, seconds: float, velocity_mm_s: float, degc: float = 46.0) -> np.ndarray:
    """One block of vib-a; the quality that the rest of the agent sees."""
    values = np.array([velocity_mm_s, degc], np.float32)
    block = Block(np.array([0, 1], np.int32), values, np.zeros(2, np.uint8), round(seconds * S), round(seconds * S))
    return plant.watch.see_block(block, plant.running)


def test_a_sensor_set_to_another_unit_is_muted_and_told_at_once() -> None:
    """25.4 times the vibration would be the worst machine of the plant."""
    plant = Plant()
    rng = np.random.default_rng(1)
    for second in range(60):
        told = poll(plant, second, (1.2 if second < 30 else 30.48) * (1 + 0.03 * rng.standard_normal()))
        found = plant.step(second)
        assert (told[0] == 0) == (second != 30)
        assert found == ([("sensor:vib-a:unit", Change.RAISED)] if second == 38 else []), second
    assert plant.watch.muted() == {"vib-a"}
    plant.watch.forget("vib-a")
    plant.step(70)
    assert plant.step(80) == [("sensor:vib-a:unit", Change.CLEARED)]


def test_a_sensor_with_spikes_is_told_of_and_still_believed() -> None:
    """The spikes are taken out; a machine that nobody watches because of one reading a day is no better off."""
    plant = Plant()
    rng = np.random.default_rng(1)
    found = []
    for second in range(100):
        poll(plant, second, 60.0 if second in (20, 50, 80) else 1.2 + 0.03 * rng.standard_normal())
        found += plant.step(second)
    assert found == [("sensor:vib-a:spikes", Change.RAISED)]
    assert plant.watch.muted() == frozenset()


def test_a_plug_that_comes_and_goes_is_found_though_no_bout_lasts() -> None:
    """Four times good and bad within hours; it stands until it has been good for long."""
    plant = Plant()
    found = []
    for second in range(82):
        plant.quality[:2] = Quality.BAD_COMM if second % 20 == 19 else Quality.GOOD
        found += plant.step(second)
    assert found == [("sensor:vib-a:intermittent", Change.RAISED)]
    plant.quality[:] = Quality.GOOD
    plant.step(7 * 3600)
    assert plant.step(7 * 3600 + 10) == [("sensor:vib-a:intermittent", Change.CLEARED)]


def test_a_plug_that_comes_and_goes_is_one_alarm_however_long_it_is_silent_between() -> None:
    """Until it has been gone for an hour: then it is not coming and going any more."""
    plant = Plant()
    found = []
    for second in range(600):
        plant.since_good[:2] = second % 60 if second % 60 > 20 else 0
        plant.quality[:2] = Quality.BAD_COMM if second % 60 > 20 else Quality.GOOD
        found += [name for name, change in plant.step(second) if change is Change.RAISED]
    assert found[-1] == "sensor:vib-a:intermittent"
    assert found.count("sensor:vib-a:intermittent") == 1
    plant.since_good[:2] = 3600
    plant.quality[:2] = Quality.BAD_COMM
    assert ("sensor:vib-a:silent", Change.RAISED) in plant.step(600 + 3600)


def test_after_a_restart_another_unit_is_still_another_unit() -> None:
    """What the sensor says did not change with us; the step back ends it."""
    plant = Plant()
    rng = np.random.default_rng(1)
    plant.watch.hold("sensor:vib-a:unit", 1)
    found = []
    for second in range(80):
        poll(plant, second, (30.48 if second < 40 else 1.2) * (1 + 0.03 * rng.standard_normal()))
        assert second > 47 or plant.watch.muted() == {"vib-a"}
        found += plant.step(second)
    assert found == [("sensor:vib-a:unit", Change.CLEARED)]
