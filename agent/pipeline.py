"""Pipeline: the one way from a measurement to records, as plain calls in one thread's hands.

bridge -> window -> features -> inference -> decision -> (store -> deliver, in app.py). Time is whatever the measurements and
`tick` carry, so a simulated month runs in minutes and a replay gives byte for byte the alarms of the live run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from agent.baseline import Baseline
from agent.budget import LatencyBudget
from agent.clock import ClockStep, ClockWatch, Moment
from agent.config import Site, sensors_of
from agent.decision.alarm import AlarmBook, Condition, StandingAlarm, State, clear_cause
from agent.decision.rate import AlarmRate
from agent.decision.sensorwatch import SEVERITY, SensorChange, SensorWatch, TagView
from agent.decision.threshold import Change
from agent.diagnosis import Diagnosis
from agent.inference.bundle import Bundle
from agent.notifiers import MachineName, alarm_message
from agent.tagbank import TagBank, TagPlan
from agent.vocabulary import AlarmClass, AlarmEvent, Mode, Record
from agent.watch import MODEL_CONDITION, Findings, MachineWatch
from agent.window import Windower
from agent.words import Words
from firmware_bridge.measurement import Block, Measurement, Waveform

STAGES = ("window", "features", "inference", "decision", "store")
GATEWAY = "gateway"  # stands where a record names its machine, when it is of none
CLOCK_UNSET = "unset"


@dataclass(slots=True)
class Outcome:
    """What one measurement or tick brought."""

    records: list[Record] = field(default_factory=list)
    events: list[AlarmEvent] = field(default_factory=list)
    baselines: list[tuple[str, str, Baseline]] = field(default_factory=list)  # machine, state key, baseline
    forgotten: list[str] = field(default_factory=list)  # machines whose baselines are no longer theirs
    clock_step: ClockStep | None = None


class Pipeline:
    """All machines of one gateway.

    Args:
        bundles: by machine tag, checked at the door. restored: alarms that stood before a restart.
        baselines: by machine and state key, as saved before a restart.
        clock_set_since_utc_ns: a time before it is of a clock that was not set; 0 for recordings, which may be of any time.
    """

    def __init__(
        self,
        site: Site,
        bundles: Mapping[str, Bundle],
        *,
        started_monotonic_ns: int,
        baselines: Mapping[tuple[str, str], Baseline] | None = None,
        restored: Iterable[StandingAlarm] = (),
        language: str = "en",
        clock_set_since_utc_ns: int = 0,
    ) -> None:
        self.site = site
        self.counters: Counter[str] = Counter()
        self.budget = LatencyBudget(site.config.site.latency_budget_ms, STAGES)
        self.clock = ClockWatch(clock_set_since_utc_ns)
        self._words = Words(language)
        self._diagnosis = Diagnosis(self._words)
        self._banks = {plan: TagBank(len(site.channels), plan) for plan in _tag_plans(site)}
        self._sums = {at: np.array(axes) for machine in site.machines for at, axes in machine.sums.items()}
        self._patient = max(self._banks.values(), key=lambda bank: bank.plan.gap_s)
        self._sensor_machines: dict[str, list[str]] = {}
        for machine in site.machines:
            for sensor in machine.spec.sensors:
                self._sensor_machines.setdefault(sensor, []).append(machine.tag)
        sensors = [sensor for source in site.config.sources for sensor in sensors_of(source, site.root / "config")]
        self._windower = Windower(
            {sensor.name: self._sensor_machines.get(sensor.name, [""])[0] for sensor in sensors if sensor.burst},
            {sensor.name: sensor.axes for sensor in sensors if sensor.axes},
        )
        self._sensor_watch = SensorWatch(
            site.channels,
            {sensor.name: sensor.interval_s for sensor in sensors if sensor.name in self._sensor_machines},
            started_monotonic_ns,
            [tuple(machine.roles.values()) for machine in site.machines],
        )
        self._lost_bursts: Counter[str] = Counter()
        self._last_burst_ns: dict[str, int] = {}
        saved: dict[str, dict[str, Baseline]] = {}
        for (tag, state), baseline in (baselines or {}).items():
            saved.setdefault(tag, {})[state] = baseline
        config = site.config
        self.watches = {
            machine.tag: MachineWatch(
                machine,
                bundles[machine.tag],
                config.decision,
                config.site.false_alarms_per_machine_month,
                self._diagnosis,
                self.budget,
                site.channels,
                saved.get(machine.tag),
            )
            for machine in site.machines
        }
        standing = list(restored)
        self._book = AlarmBook(self._words.alarm_text, standing)
        for alarm in standing:
            self._hold(alarm)

    # ------------------------------------------------------------------ what comes in
    def step(self, item: Measurement) -> Outcome:
        """Take one measurement."""
        return self._on_block(item) if isinstance(item, Block) else self._on_waveform(item)

    def tick(self, utc_ns: int, monotonic_ns: int) -> Outcome:
        """About once a second: a clock that was set, what shows itself by not coming, and shelves that end."""
        outcome = Outcome()
        now = Moment(utc_ns, monotonic_ns)
        self._look_at_clock(now, outcome)
        running = {sensor: self._runs(machines) for sensor, machines in self._sensor_machines.items()}
        since_burst_s = {sensor: (monotonic_ns - at_ns) / 1e9 for sensor, at_ns in self._last_burst_ns.items()}
        self._windower.tick(monotonic_ns)
        for sensor, n_lost in (self._windower.incomplete_by_sensor - self._lost_bursts).items():
            for _ in range(n_lost):
                self._sensor_watch.missed_burst(sensor)
        self._lost_bursts = self._windower.incomplete_by_sensor.copy()
        bank = self._patient
        view = TagView(bank.unchanged_s(), bank.silent_s(monotonic_ns), bank.quality())
        for change in self._sensor_watch.step(view, since_burst_s, running, monotonic_ns, utc_ns):
            self._sensor_changed(change, now, outcome)
        self._keep_events(self._book.tick(now), outcome)
        return outcome

    def acknowledge(self, name: str, now: Moment) -> Outcome:
        """Somebody answers for an alarm, by its code or id."""
        outcome = Outcome()
        self._keep_events(self._book.acknowledge(name, now), outcome)
        return outcome

    def relearn(self, tag: str, reason: str, now: Moment, although_sick: bool = False) -> Outcome:
        """Somebody says that a machine, its sensor or its mount is another one now: its normal is learned anew.

        Args: although_sick: even if absolute physics calls it bad; `reason` says why that is right.
        """
        outcome = Outcome()
        found = self.watches[tag].relearn(reason, although_sick, now.utc_ns)
        for name in found.ended:
            self._keep_events(self._book.clear(tag, name, now), outcome)
        for sensor in self.watches[tag].machine.spec.sensors:
            self._sensor_watch.forget(sensor)  # what it says from now on is its normal, too
        outcome.records.extend(map(self._dated, found.records))
        outcome.forgotten.append(tag)
        return outcome

    # ------------------------------------------------------------------ the stages
    def _on_block(self, block: Block) -> Outcome:
        outcome = Outcome()
        self.counters["blocks"] += 1
        if not len(block.channels):
            return outcome
        sensor = self.site.channels[int(block.channels[0])].sensor
        quality = self._sensor_watch.see_block(block, self._runs(self._sensor_machines.get(sensor, [])))
        read = frozenset(block.channels.tolist())
        sums = [at for at, axes in self._sums.items() if not read.isdisjoint(axes.tolist())]
        for bank in self._banks.values():
            bank.update(block.channels, block.values, quality, block.monotonic_ns)
            self._add_axes(bank, sums, block.monotonic_ns)
        for tag in self._sensor_machines.get(sensor, ()):
            found = self.watches[tag].on_tags(
                self._bank_of(tag),
                read.union(sums),
                self._sensor_watch.muted(),
                block.monotonic_ns,
                block.utc_ns,
                waits=self._waits(tag),
                doubted=self._sensor_watch.doubted_channels,
            )
            self._keep(tag, found, block, outcome)
        return outcome

    def _on_waveform(self, waveform: Waveform) -> Outcome:
        outcome = Outcome()
        self._last_burst_ns[waveform.sensor] = waveform.monotonic_ns
        machines = self._sensor_machines.get(waveform.sensor)
        if not machines:
            self.counters["bursts_of_no_machine"] += 1
            return outcome
        watch = self.watches[machines[0]]
        started = perf_counter()
        tags = self._bank_of(watch.machine.tag)
        point = watch.operating_point(tags, waveform.monotonic_ns)
        windows = self._windower.step(waveform, point, waveform.monotonic_ns)
        self.budget.record("window", perf_counter() - started)
        for window in windows:
            self.counters["windows"] += 1
            running = watch.state.mode is Mode.RUNNING
            if not self._sensor_watch.see_window(window, running, watch.machine.nameplate):
                self.counters["windows_of_a_faulty_sensor"] += 1
                continue
            unjudged = self._sensor_watch.muted() | self._sensor_watch.suspect()
            found = watch.on_window(window, tags, unjudged, waveform.utc_ns)
            self._keep(watch.machine.tag, found, waveform, outcome)
        return outcome

    def _keep(self, tag: str, found: Findings, item: Measurement, outcome: Outcome) -> None:
        """Conditions become events; the bursts around an alarm carry its id."""
        now = Moment(item.utc_ns, item.monotonic_ns)
        events = [event for condition in found.began for event in self._book.raise_(condition, now)]
        events += [event for name in found.ended for event in self._book.clear(tag, name, now)]
        self._keep_events(events, outcome, item.monotonic_ns)
        alarm_id = next((event.alarm_id for event in events if event.condition == MODEL_CONDITION), None)
        outcome.records.extend(self._dated(_of_alarm(record, alarm_id)) for record in found.records)
        outcome.baselines.extend((tag, state, baseline) for state, baseline in found.baselines)

    def _sensor_changed(self, change: SensorChange, now: Moment, outcome: Outcome) -> None:
        """A sensor fault is an alarm of every machine that stands on the sensor, and mutes its columns there."""
        for tag in self._sensor_machines.get(change.sensor, ()):
            if change.change is Change.CLEARED:
                self._keep_events(self._book.clear(tag, change.condition, now), outcome)
            else:
                self._keep_events(self._book.raise_(self._sensor_condition(tag, change), now), outcome)

    def _sensor_condition(self, tag: str, change: SensorChange) -> Condition:
        watch = self.watches[tag]
        explanation = self._diagnosis.of_sensor(watch.machine, change)
        return Condition(
            machine=tag,
            name=change.condition,
            alarm_class=AlarmClass.SENSOR,
            severity=SEVERITY[change.fault],
            onset_utc_ns=change.onset_utc_ns,
            explanation=replace(explanation, operating_state=watch.state.key),
            standing_s=change.duration_s,
        )

    def _keep_events(self, events: Iterable[AlarmEvent], outcome: Outcome, arrived_monotonic_ns: int = 0) -> None:
        """Args: arrived_monotonic_ns: of the measurement that caused them; 0 where none did (silence, a person)."""
        for event in map(self._of_its_clock, events):
            outcome.events.append(event)
            machine = self.watches[event.machine].machine
            named = MachineName(machine.profile.title, machine.spec.type)
            body = alarm_message(event, self.site.config.site.name, self.site.config.site.gateway, named)
            record = Record(
                "alarm", event.machine, event.utc_ns, body, urgent=True, arrived_monotonic_ns=arrived_monotonic_ns
            )
            outcome.records.append(record)

    # ------------------------------------------------------------------ the clock
    def _look_at_clock(self, now: Moment, outcome: Outcome) -> None:
        """A wall clock that was set is a record of its own; what was recorded before keeps its times."""
        step = self.clock.look(now)
        if step is None:
            return
        self._book.clock_was_set(now._replace(utc_ns=step.from_utc_ns) if step.was_set else now, now)
        outcome.clock_step = step
        body = {
            "step_s": step.step_s,
            "from_utc_ns": step.from_utc_ns,
            "to_utc_ns": step.to_utc_ns,
            "set": step.is_set,
        }
        outcome.records.append(Record("clock", GATEWAY, now.utc_ns, body, urgent=True))

    def _dated(self, record: Record) -> Record:
        """A record whose time is of a clock that was not set says so; its values are as good as any."""
        if self.clock.is_set_at(record.utc_ns) or isinstance(record.payload, bytes):
            return record
        return replace(record, payload={**record.payload, "clock": CLOCK_UNSET})

    def _of_its_clock(self, event: AlarmEvent) -> AlarmEvent:
        """Likewise an alarm, and in words."""
        if self.clock.is_set_at(min(event.onset_utc_ns, event.utc_ns)):
            return event
        quality = self._words.say("quality", "clock_unset", quality=event.explanation.data_quality)
        return replace(event, clock=CLOCK_UNSET, explanation=replace(event.explanation, data_quality=quality))

    # ------------------------------------------------------------------ small parts
    def _add_axes(self, bank: TagBank, sums: Sequence[int], monotonic_ns: int) -> None:
        """Channels that are sums of axes, of which one was just read: no value where one of the axes has none."""
        if sums:
            values = np.array([np.linalg.norm(bank.latest_of(self._sums[at])) for at in sums], np.float32)
            bank.update(np.array(sums, np.int32), values, np.zeros(len(sums), np.uint8), monotonic_ns)

    def _waits(self, tag: str) -> bool:
        """Whether something that a machine is judged by has just stepped: a verdict on scalars waits, the limits do not."""
        return not self._sensor_watch.suspect_channels().isdisjoint(self.watches[tag].judged_channels)

    def _bank_of(self, tag: str) -> TagBank:
        """The statistics of all channels, with the time constants of this machine's type."""
        return self._banks[self.watches[tag].machine.features.tags]

    def _runs(self, machines: list[str]) -> bool | None:
        """Whether any machine of a sensor runs; None where none tells."""
        runs = [self.watches[tag].runs for tag in machines]
        if any(runs):
            return True
        return None if all(one is None for one in runs) else False

    def _hold(self, alarm: StandingAlarm) -> None:
        """Trackers take up what stood before a restart, so that its end is seen and its begin not told twice."""
        if not alarm.standing or alarm.event.machine not in self.watches:
            return
        event = alarm.event
        cause = clear_cause(event.explanation)
        self.watches[event.machine].hold(event.condition, event.onset_utc_ns, cause, event.severity)
        self._sensor_watch.hold(event.condition, event.onset_utc_ns)

    def standing(self) -> tuple[StandingAlarm, ...]:
        """The alarms that are not normal, to be saved."""
        return self._book.states()

    def drops(self) -> dict[str, int]:
        """Everything that was counted or left out so far, by name."""
        refused: Counter[str] = Counter()
        for watch in self.watches.values():
            refused.update(watch.refused())
        named = {f"window_{why}": n for why, n in refused.items()}
        shed = {f"shed_{what}": n for what, n in self.budget.shed.items()}
        return {**self.counters, **self._windower.counts, **named, **shed}

    def alarm_rate(self) -> dict[str, Any]:
        """Alarms of the models against the site's budget, of all machines together and of each."""
        total = AlarmRate()
        for watch in self.watches.values():
            total.add(watch.rate)
        each = {tag: watch.rate.as_dict() for tag, watch in self.watches.items()}
        return {"budget": self.site.config.site.false_alarms_per_machine_month, **total.as_dict(), "machines": each}

    def machine_state(self, tag: str, utc_ns: int) -> dict[str, Any]:
        """What anybody may know of one machine now: the retained state message."""
        watch = self.watches[tag]
        alarms = [alarm.event for alarm in self._book.states() if alarm.event.machine == tag and alarm.standing]
        score = watch.last_score
        return {
            "v": 1,
            "machine": tag,
            "type": watch.machine.spec.type,
            "utc_ns": utc_ns,
            "state": str(watch.state.mode),
            "speed_bin": watch.state.speed_bin,
            "watch": self._watch_word(watch, alarms),
            "score_of_limit": round(score.value / score.threshold, 3) if score else None,
            "alarms": [
                {"id": e.alarm_id, "code": e.code, "severity": e.severity, "condition": e.condition} for e in alarms
            ],
            "values": {name: round(value, 4) for name, value in watch.last_values.items()},
        }

    def _watch_word(self, watch: MachineWatch, alarms: list[AlarmEvent]) -> str:
        """ALARM, NOT WATCHED, learning 40 %, ok: the worst that holds."""
        machine_alarms = [e for e in alarms if e.alarm_class is not AlarmClass.SENSOR and e.state != State.SHELVED]
        if machine_alarms:
            return f"ALARM {machine_alarms[-1].code}"
        if any(e.alarm_class is AlarmClass.SENSOR for e in alarms):
            return "not fully watched"
        learned = watch.learning.share_learned(watch.state)
        if learned is not None:
            return f"learning {learned:.0%}"
        return "ok" if watch.state.mode is Mode.RUNNING else str(watch.state.mode)


def _tag_plans(site: Site) -> list[TagPlan]:
    """The time constants that the site's machine types ask for, each once: nearly always one."""
    return list(dict.fromkeys(machine.features.tags for machine in site.machines)) or [TagPlan()]


def _of_alarm(record: Record, alarm_id: str | None) -> Record:
    """A burst record with the alarm that it belongs to; any other record as it is."""
    if record.stream != "burst" or isinstance(record.payload, bytes):
        return record
    return replace(record, payload={**record.payload, "alarm_id": alarm_id})
