"""Composition root: the only file that wires the stages. Read it top-down as the data path.

One thread per source -> bounded inbox -> pipeline thread -> store thread -> delivery thread. Acquisition never waits for the
network, the disk or the model; control (stop) shares no queue with data.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agent.baseline import Baseline
from agent.clock import SET_SINCE_UTC_NS, Clock, Moment, SystemClock, moment_of
from agent.config import Machine, Site, SparkplugSection, UpstreamSection, sensors_of
from agent.deliver import Deliverer, DeliveryPlan, Upstream
from agent.errors import StoreError
from agent.features.scratch import SCRATCH
from agent.health import GatewayHealth, sensor_of
from agent.heap import give_back, steady_heap
from agent.inference.bundle import Bundle, open_bundle
from agent.inference.golden import golden_features, manifest_columns
from agent.notifiers import MachineName, Notifier
from agent.notifiers.log import LogNotifier, note_clock_not_set, note_clock_step
from agent.notifiers.mqtt import MqttNotifier
from agent.orders import taken
from agent.pipeline import Outcome, Pipeline
from agent.samples import STREAM as SAMPLES
from agent.store import Store, StoredRecord, sequence_start
from agent.store_thread import StoreThread
from agent.watchdog import WATCHDOG_S, Progress, Supervisor, Watchdog, slack_of
from firmware_bridge.broker import login_of, tls_of
from firmware_bridge.errors import RecordingError, SourceLost
from firmware_bridge.measurement import Block, Measurement
from firmware_bridge.source import Source, open_source
from firmware_bridge.upstream import topic_status

if TYPE_CHECKING:
    from agent.notifiers.sparkplug import SparkplugNotifier

log = logging.getLogger(__name__)

INBOX_ITEMS = 2048
INBOX_BYTES = 32 << 20  # of waveforms; a three-axis second takes 0.3 MB
SOURCE_READ_S = 0.5
SOURCE_RETRY_S = (1.0, 60.0)
STATE_INTERVAL_S = 1.0
NO_LOSS = {
    "blocks",
    "windows",
    "learning",
    "connects",
    "polls",
    "requests",
    "messages",
    "complete",
    "rows",
    "clock_off",
    "clock_steps",
    "sparkplug_births",
    "sparkplug_deaths",
    "sparkplug_data",
    "sparkplug_rebirths_asked",
}
STATUS_INTERVAL_NS = 60 * 1_000_000_000
JOIN_S = 5.0
DRAIN_S = 5.0
FLUSH_S = 40.0  # a card that takes ten seconds for a commit; below the 90 s after which systemd kills


class Inbox:
    """Queue from the sources to the pipeline, bounded in items and bytes: the oldest is dropped and counted."""

    def __init__(self, max_items: int = INBOX_ITEMS, max_bytes: int = INBOX_BYTES) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.dropped = 0
        self._bytes = 0
        self._items: deque[Measurement] = deque()
        self._news = threading.Condition()

    def offer(self, item: Measurement) -> None:
        """Never waits."""
        with self._news:
            self._items.append(item)
            self._bytes += _waveform_bytes(item)
            while len(self._items) > self.max_items or self._bytes > self.max_bytes:
                self._pop()
                self.dropped += 1
            self._news.notify()

    def take(self, timeout_s: float) -> Measurement | None:
        """The oldest measurement, or None after `timeout_s`."""
        with self._news:
            self._news.wait_for(lambda: bool(self._items), timeout_s)
            return self._pop() if self._items else None

    def fill(self) -> float:
        """Share in use, 0..1."""
        return max(len(self._items) / self.max_items, self._bytes / self.max_bytes)

    def _pop(self) -> Measurement:
        item = self._items.popleft()
        self._bytes -= _waveform_bytes(item)
        return item


def _waveform_bytes(item: Measurement) -> int:
    return 0 if isinstance(item, Block) else item.samples.nbytes


class App:
    """A running gateway: opened by `start`, ended by `stop`; `ledger` says what it did.

    Args: watchdog_s: how long a stage may stand still before the process is ended.
    """

    def __init__(self, site: Site, clock: Clock | None = None, *, watchdog_s: float = WATCHDOG_S) -> None:
        self.site = site
        self.clock = clock or SystemClock()
        self.started_ns = self.clock.monotonic_ns()
        self.first_score_s: float | None = None
        self.failure = ""  # which stage broke, and why
        self.produced: Counter[str] = Counter()
        self._stop = threading.Event()
        self._inbox = Inbox()
        bundles = open_bundles(site)
        config = site.config
        self._store = Store.open(
            site.data_dir / "buffer.sqlite",
            gateway=f"{config.site.name}/{config.site.gateway}",
            channels=[channel.name for channel in site.channels],
            max_bytes=config.site.buffer_mib << 20,
            first_seq=sequence_start(self.clock.utc_ns()),
        )
        self.pipeline = Pipeline(
            site,
            bundles,
            started_monotonic_ns=self.started_ns,
            baselines=load_baselines(self._store),
            restored=self._store.load_alarm_states(),
            clock_set_since_utc_ns=SET_SINCE_UTC_NS,
        )
        self._writer = StoreThread(self._store, self._committed)
        self._notifiers: list[Notifier] = [LogNotifier()]
        self._delivery: Deliverer | None = None
        if config.upstream is not None:
            plan = DeliveryPlan(confirm=config.upstream.confirm)
            self._delivery = Deliverer(self._writer, self.clock, upstream_of(site, config.upstream), plan)
            names = {machine.tag: MachineName(machine.profile.title, machine.spec.type) for machine in site.machines}
            shown = MqttNotifier(config.site.name, config.site.gateway, names, self._delivery.retain)
            for alarm in self.pipeline.standing():  # the broker may have forgotten what it was told to keep
                shown.notify(alarm.event)
            self._notifiers.append(shown)
        self._sparkplug = sparkplug_of(site, config.sparkplug, self.clock) if config.sparkplug else None
        if self._sparkplug is not None:
            self._notifiers.append(self._sparkplug)
        sensors = {source.name: sensors_of(source, site.root / "config") for source in config.sources}
        self._source_of = {sensor.name: source for source, each in sensors.items() for sensor in each}
        self._sensor_of_channel = {i: channel.sensor for i, channel in enumerate(site.channels)}
        slowest_s = {source: max(sensor.interval_s for sensor in each) for source, each in sensors.items()}
        self._health = GatewayHealth(slowest_s, self._now_s(), has_upstream=self._delivery is not None)
        self._progress = Progress("pipeline")
        self._watchdog_s = watchdog_s
        self._supervisor = Supervisor(os.environ)
        self._waiting = 0
        self._told: tuple[object, ...] = ()
        self._told_ns = 0
        self._sources: list[Source] = []
        self._threads: list[threading.Thread] = []

    # ------------------------------------------------------------------ life
    def start(self) -> None:
        """Open the sources and set every stage going."""
        steady_heap()
        self._writer.start()
        if self._delivery is not None:
            self._delivery.start()
        if self._sparkplug is not None:
            self._sparkplug.start()
        self._sources = [
            open_source(spec, self.site.context(i, self.clock)) for i, spec in enumerate(self.site.config.sources)
        ]
        bodies: list[tuple[str, Callable[[], None]]] = [("pipeline", self._run_pipeline)]
        stages = [self._progress, self._writer.progress]
        if self._delivery is not None:
            stages.append(self._delivery.progress)
        for spec, source in zip(self.site.config.sources, self._sources, strict=True):
            stages.append(Progress(f"source-{source.name}", slack_of(spec)))
            bodies.append((stages[-1].stage, partial(self._run_source, source, stages[-1])))
        watchdog = Watchdog(stages, self._supervisor, self.clock, self._watchdog_s)
        bodies.append(("watchdog", partial(watchdog.run, self._stop)))
        for name, body in bodies:
            thread = threading.Thread(target=partial(self._guarded, name, body), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        gc.collect()
        gc.freeze()  # what start-up made lives for ever; the collector need not look at it again
        give_back()
        self._supervisor.tell("READY=1")  # a plant that is down is no reason to be started again

    @property
    def made_tables(self) -> bool:
        """Whether the buffer is new or was of an older version."""
        return self._store.made_tables

    def close_unstarted(self) -> None:
        """Let go of the buffer; of an agent that was opened and not started."""
        self._store.close()

    def wait(self, seconds: float | None = None) -> None:
        """Until `request_stop`, or for a time."""
        self._stop.wait(seconds)

    def request_stop(self) -> None:
        """From a signal handler or another thread."""
        self._stop.set()

    def stop(self) -> dict[str, Any]:
        """End every stage in the order of the path, so that what was measured is kept; gives the ledger."""
        health = self.health()
        self._stop.set()
        self._supervisor.tell("STOPPING=1")
        for thread in self._threads:
            thread.join(JOIN_S)
        for source in self._sources:
            source.close()
        if self._sparkplug is not None:
            self._sparkplug.stop()
        try:
            self._writer.flush(FLUSH_S)
        except StoreError as error:
            log.error("not everything could be written before the end: %s", error)
        if self._delivery is not None:
            self._delivery.drain(DRAIN_S)
            self._delivery.stop()
        ledger = self.ledger()
        self._writer.stop()
        return {**ledger, "health": health}

    # ------------------------------------------------------------------ the threads
    def _guarded(self, name: str, body: Callable[[], None]) -> None:
        """A stage that breaks ends the process: alive but silent is worse than a restart by the supervisor."""
        try:
            body()
        except Exception as error:
            log.critical("stage broken, stopping: stage=%s cause=%s", name, error, exc_info=True)
            self.failure = f"{name}: {type(error).__name__}: {error}"
            self._stop.set()

    def _run_source(self, source: Source, progress: Progress) -> None:
        """Reads and offers; never waits for the pipeline. A lost source is tried again, ever more slowly."""
        delay_s = SOURCE_RETRY_S[0]
        lost_said = False
        while not self._stop.is_set():
            try:
                for measurement in source.read(SOURCE_READ_S):
                    self._inbox.offer(measurement)
                    progress.moved()
                progress.moved()
                if lost_said:
                    log.info("source back: source=%s", source.name)
                delay_s, lost_said = SOURCE_RETRY_S[0], False
            except SourceLost as lost:
                if not lost_said:
                    log.warning("source lost: source=%s retry_in_s=%.1f cause=%s", source.name, delay_s, lost)
                lost_said = True
                progress.moved(rest_s=delay_s)
                self._stop.wait(delay_s * random.uniform(0.5, 1.0))
                delay_s = min(2 * delay_s, SOURCE_RETRY_S[1])
            except RecordingError as broken:
                log.error("source ended: source=%s cause=%s", source.name, broken)
                progress.end()
                return

    def _run_pipeline(self) -> None:
        """Measurements to records; once a second a look at what did not come, the level of work, and the states."""
        next_tick_ns = self.clock.monotonic_ns()
        if not self.pipeline.clock.is_set_at(self.clock.utc_ns()):
            note_clock_not_set(self.clock.utc_ns())
        while not self._stop.is_set():
            self._progress.moved()
            item = self._inbox.take(timeout_s=0.2)
            if item is not None:
                self._step(item)
            now_ns = self.clock.monotonic_ns()
            if now_ns >= next_tick_ns:
                next_tick_ns = now_ns + round(STATE_INTERVAL_S * 1e9)
                self._tick(moment_of(self.clock))
        while (item := self._inbox.take(timeout_s=0.0)) is not None:
            self._step(item)

    def _note_waiting(self, store: Store) -> None:
        """In the store's thread: records that the collector has not confirmed."""
        self._waiting = store.n_undelivered()

    def _step(self, item: Measurement) -> None:
        """One measurement, and what an alarm from it would have taken: to here, and a durable commit as the last one was."""
        outcome = self.pipeline.step(item)
        self._keep(outcome, item)
        if (sensor := sensor_of(item, self._sensor_of_channel)) is not None:
            self._health.measured(self._source_of[sensor], self._now_s())
        if outcome.records:  # something was judged
            taken_s = (self.clock.monotonic_ns() - item.monotonic_ns) / 1e9
            self.pipeline.budget.record("total", taken_s + self._writer.durable_commit_s)
            self.pipeline.budget.record("store", self._writer.durable_commit_s)
            if self.first_score_s is None and any(watch.last_score for watch in self.pipeline.watches.values()):
                self.first_score_s = round(process_age_s(), 2)

    def _tick(self, now: Moment) -> None:
        outcome = self.pipeline.tick(*now)
        self._keep(outcome)
        self._take_orders(now)
        if outcome.clock_step is not None:
            note_clock_step(outcome.clock_step)
        self.pipeline.budget.decide(now.monotonic_ns / 1e9, self._inbox.fill())
        for notifier in self._notifiers:
            for tag in self.pipeline.watches:
                notifier.state(tag, self.pipeline.machine_state(tag, now.utc_ns))
        if self._delivery is not None:
            self._health.connection(self._delivery.connected, now.monotonic_ns / 1e9)
            if self._delivery.connected:
                self._tell_status(self._delivery, now)

    def _take_orders(self, now: Moment) -> None:
        """What a person at the gateway wants done."""
        for order in taken(self.site.data_dir):
            if order.machine not in self.pipeline.watches:
                log.error("order for an unknown machine: machine=%s", order.machine)
                continue
            log.info("relearn ordered: machine=%s reason=%s", order.machine, order.reason)
            self._keep(self.pipeline.relearn(order.machine, order.reason, now, order.although_sick))

    def _tell_status(self, delivery: Deliverer, now: Moment) -> None:
        """The gateway's own retained status: when it changed, and as a sign of life once a minute."""
        self._writer.tell(self._note_waiting)
        waiting, clock, health = self._waiting, self.pipeline.clock, self.health()
        changing = (waiting, clock.n_steps, health["state"], health.get("of"))
        if changing == self._told and now.monotonic_ns - self._told_ns < STATUS_INTERVAL_NS:
            return
        self._told, self._told_ns = changing, now.monotonic_ns
        site = self.site.config.site
        level = int(self.pipeline.budget.level)
        payload = {
            "v": 1,
            "state": "online",
            "health": health,
            "utc_ns": now.utc_ns,
            "clock": {"set": clock.is_set, "steps": clock.n_steps, "last_step_s": clock.last_step_s},
            "waiting": waiting,
            "level": level,
            "drops": self.drops(),
        }
        delivery.retain(topic_status(site.name, site.gateway), msgspec.json.encode(payload))

    def _keep(self, outcome: Outcome, item: Measurement | None = None) -> None:
        """To the store, in one batch with the alarms that stand after it; then to whoever wants to be told."""
        for record in outcome.records:
            self.produced[record.stream] += 1
        samples = [item] if isinstance(item, Block) else []
        changed = outcome.events or outcome.clock_step is not None
        if samples or outcome.records:
            self._health.handed_over(self._now_s())
        self._writer.put([*samples, *outcome.records], self.pipeline.standing() if changed else None)
        for tag in outcome.forgotten:
            log.info("baselines forgotten, learning anew: machine=%s", tag)
            self._writer.tell(partial(Store.forget_baselines, machine=tag))
        for tag, state, baseline in outcome.baselines:
            log.info("baseline learned: machine=%s state=%s windows=%d", tag, state, baseline.n_windows)
            kept, utc_ns = baseline.as_document(), self.clock.utc_ns()
            self._writer.tell(partial(Store.save_baseline, machine=tag, state=state, payload=kept, utc_ns=utc_ns))
        for notifier in self._notifiers:
            for event in outcome.events:
                notifier.notify(event)

    def _committed(self, stored: Sequence[StoredRecord], monotonic_ns: int) -> None:
        """In the store's thread: an alarm is on disk; how long that took since its measurement arrived."""
        self._health.committed()
        for record in stored:
            if record.urgent and record.arrived_monotonic_ns:
                self.pipeline.budget.record("total", (monotonic_ns - record.arrived_monotonic_ns) / 1e9)
        if self._delivery is not None and stored:
            self._delivery.wake()

    # ------------------------------------------------------------------ what it did
    def health(self) -> dict[str, Any]:
        """The gateway's own, in the words of PROTOCOL.md: "ok", or the worst thing and since when."""
        if self.failure:  # and the agent is about to stop
            return {"state": "broken", "of": self.failure.partition(":")[0], "since_s": 0.0}
        return self._health.verdict(self._now_s(), self._writer.failure)

    def _now_s(self) -> float:
        return self.clock.monotonic_ns() / 1e9

    def ledger(self) -> dict[str, Any]:
        """Counts, latency and memory: what `hark run --json` prints at its end."""
        stats = self._writer.ask(lambda store: store.stats())
        stages = self.pipeline.budget.percentiles_ms()
        p50_ms, p99_ms = stages.get("total", (0.0, 0.0))
        return {
            "records": {
                "produced": sum(self.produced.values()),
                "stored": sum(n for stream, n in stats["records"].items() if stream != SAMPLES),
                "by_stream": dict(self.produced),
            },
            "outbox": stats["outbox"],
            "latency_ms": {"p50": round(p50_ms, 2), "p99": round(p99_ms, 2), "budget": self.pipeline.budget.budget_ms},
            "stages_ms": {stage: {"p50": round(p50, 3), "p99": round(p99, 3)} for stage, (p50, p99) in stages.items()},
            "windows": self.pipeline.counters["windows"],
            "blocks": self.pipeline.counters["blocks"],
            "level": int(self.pipeline.budget.level),
            "drops": self.drops(),
            "counts": self.counts(),
            "alarm_rate": self.pipeline.alarm_rate(),
            "rss_mib": round(rss_mib(), 1),
            "first_score_s": self.first_score_s,
            "failure": self.failure,
        }

    def drops(self) -> dict[str, int]:
        """Everything that was lost or left out on its way, by name; only what is not zero."""
        return {name: count for name, count in self.counts().items() if name.rpartition(":")[2] not in NO_LOSS}

    def counts(self) -> dict[str, int]:
        """Everything that is counted on the way, by name; only what is not zero."""
        found = {**self.pipeline.drops(), "clock_steps": self.pipeline.clock.n_steps, "inbox": self._inbox.dropped}
        found.update(self._writer.dropped)
        found.update(self._sparkplug.dropped if self._sparkplug is not None else {})
        for source in self._sources:
            found.update({f"{source.name}:{name}": count for name, count in source.counters.items()})
        return {name: count for name, count in found.items() if count}


# ---------------------------------------------------------------------- parts that replay, check and bench need too
def open_bundles(site: Site) -> dict[str, Bundle]:
    """Every machine's model, checked at the door on this engine and CPU; machines of one type share one.

    Raises: BundleRefused, MissingExtra.
    """
    opened: dict[tuple[Path, str], Bundle] = {}
    for machine in site.machines:
        key = (machine.bundle_dir, machine.features.digest)
        if key not in opened:
            opened[key] = open_bundle_for(machine, site.config.site.engine)
    SCRATCH.release()  # of the golden windows; the pipeline is another thread
    return {machine.tag: opened[machine.bundle_dir, machine.features.digest] for machine in site.machines}


def open_bundle_for(machine: Machine, engine: str) -> Bundle:
    """One machine's model."""
    return open_bundle(
        machine.bundle_dir,
        machine.features.digest,
        engine,
        golden_features(machine.features),
        manifest_columns(machine.features, machine.scale_floors),
    )


def load_baselines(store: Store) -> Mapping[tuple[str, str], Baseline]:
    """What was learned before a restart."""
    return {key: Baseline.from_document(kept) for key, kept in store.load_baselines().items()}


def upstream_of(site: Site, section: UpstreamSection) -> Upstream:
    """Where the records go, and who we are there.

    Raises: ConfigError: a secret or certificate that cannot be read.
    """
    login = login_of(section, site.place("upstream"))
    return Upstream(
        host=section.host,
        port=section.port,
        site=site.config.site.name,
        gateway=site.config.site.gateway,
        username=login.username,
        password=login.password,
        version=section.version,
        tls=tls_of(section, site.place("upstream")),
    )


def sparkplug_of(site: Site, section: SparkplugSection, clock: Clock) -> SparkplugNotifier:
    """The gateway as edge node, every machine as a device. Imported only where a site asks for it.

    Raises: ConfigError: a secret or certificate that cannot be read.
    """
    from agent.notifiers.sparkplug import SparkplugBroker, SparkplugNotifier, last_bd_seq
    from firmware_bridge.sparkplug.node import SparkplugNode

    name, place, kept = site.config.site, site.place("sparkplug"), site.data_dir / "sparkplug.bdseq"
    broker = SparkplugBroker(
        section.host,
        section.port,
        client_id=f"hark-{name.name}-{name.gateway}-sparkplug",
        keys=section,
        login=login_of(section, place),
        tls=tls_of(section, place),
        version=section.version,
    )
    node = SparkplugNode(
        section.group,
        section.node or name.gateway,
        primary_host=section.primary_host or "",
        last_bd_seq=last_bd_seq(kept),
    )
    return SparkplugNotifier(
        broker, node, {machine.tag: machine.spec.sensors for machine in site.machines}, clock, kept
    )


def rss_mib() -> float:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def process_age_s() -> float:
    """Since this process was started, interpreter and imports included."""
    started_ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return uptime_s - started_ticks / os.sysconf("SC_CLK_TCK")


def run_offline(pipeline: Pipeline, source: Iterable[Measurement], store: Store | None = None) -> Iterable[Outcome]:
    """The same path in one thread, as fast as it goes, with the recording's own time: replay and evaluation."""
    next_tick_ns: int | None = None
    for item in source:
        if next_tick_ns is None or item.monotonic_ns >= next_tick_ns:
            next_tick_ns = item.monotonic_ns + round(STATE_INTERVAL_S * 1e9)
            yield _kept(pipeline.tick(item.utc_ns, item.monotonic_ns), store)
        yield _kept(pipeline.step(item), store)


def _kept(outcome: Outcome, store: Store | None) -> Outcome:
    if store is not None and outcome.records:
        store.write(outcome.records)
    return outcome
