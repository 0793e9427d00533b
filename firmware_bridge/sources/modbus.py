"""Polls one Modbus endpoint: every unit on its own monotonic cadence, one Block a poll, one transaction at a time.

Whoever was heard last time is asked first. A unit that is silent, damaged or never heard is a suspect: it is asked in the
time that the others leave before they fall due again, so one dead device costs its neighbours nothing but its first
silence, and that is short, because a healthy unit's own answer time says how long to wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.device import DeviceProfile, channels, load_device
from firmware_bridge.errors import SourceLost
from firmware_bridge.freshness import Freshness
from firmware_bridge.measurement import Block, Channel, Measurement
from firmware_bridge.modbus_link import Link, NoAnswer, Refused, SerialLine, serial_link, tcp_link
from firmware_bridge.poll import NONSENSE, SILENCE, TROUBLES, UNKNOWN, UnitPoll
from firmware_bridge.source import AnySpec, ModbusSensor, ModbusSpec, SourceContext

log = logging.getLogger(__name__)

N_TIMED = 16  # answers whose slowest says what a unit's usual is
N_TO_KNOW = 3
PATIENCE = 4.0  # times the slowest of them
LEAST_PATIENCE_S = 0.05
LEAST_SLACK_S = 0.01  # a shorter wait than this finds nobody
STARVED_NS = 60 * 1_000_000_000  # a suspect that the others left no time for is asked all the same, once a minute
MAX_TOLD = 32
SAID_AGAIN_NS = 24 * 3600 * 1_000_000_000  # the same trouble, back after it was gone
_NS = 1e9
COUNTERS = (
    "polls", "requests", "no_answer", "garbled", "refused", "retried", "late", "foreign", "connects", "lost", "skipped_by_breaker",
    "polls_missed",
)  # fmt: skip


@dataclass(slots=True)
class _Unit:
    """One device: its poll, its place in the channel table, its turn."""

    spec: ModbusSensor
    poll: UnitPoll
    channels: NDArray[np.int32]
    freshness: Freshness
    interval_ns: int
    block_size: int
    due_ns: int = 0
    asked_ns: int = 0
    answer_s: deque[float] = field(default_factory=lambda: deque(maxlen=N_TIMED))
    trouble: str = ""
    told: dict[str, int] = field(default_factory=dict)  # trouble -> when it was last logged

    @property
    def usual_s(self) -> float | None:
        """How long its answers take at most; None while too few are known."""
        return max(self.answer_s) if len(self.answer_s) >= N_TO_KNOW else None


class ModbusSource:
    """One endpoint, read by one thread."""

    def __init__(self, spec: ModbusSpec, profiles: list[DeviceProfile], context: SourceContext) -> None:
        self.name = spec.name
        self._troubles: dict[str, str] = {}
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._spec = spec
        self._clock = context.clock
        self._link = link_of(spec)
        self._closed = threading.Event()
        self._lost = False
        self._units: list[_Unit] = []
        made: list[Channel] = []
        for sensor, profile in zip(spec.sensors, profiles, strict=True):
            mine = channels(profile, sensor.name)
            first = context.first_channel + len(made)
            places = np.arange(first, first + len(mine), dtype=np.int32)
            poll = UnitPoll(profile, quarantine_s=0.0 if self._link.ids else spec.timeout_s)
            fresh = Freshness(mine, sensor.poll_interval_s)
            interval_ns = round(sensor.poll_interval_s * _NS)
            self._units.append(_Unit(sensor, poll, places, fresh, interval_ns, profile.max_registers))
            made.extend(mine)
        self.channels = tuple(made)

    @property
    def counters(self) -> dict[str, int]:
        """What happened on the line; `late`, `foreign` and `garbled` are what was dropped."""
        return self._counts | {"late": self._link.late, "foreign": self._link.foreign, "garbled": self._link.garbled}

    @property
    def troubles(self) -> dict[str, str]:
        """Sensor -> what is wrong with it and what to do; empty where all is well."""
        return dict(self._troubles)

    def read(self, timeout_s: float) -> Iterator[Measurement]:
        """Poll what falls due within `timeout_s`; a poll that has begun is ended.

        Raises: SourceLost: nobody at the address, no such port; every sensor that was due is told BAD_COMM before.
        """
        now_ns = self._clock.monotonic_ns()
        end_ns = now_ns + round(timeout_s * _NS)
        yield from self._begin_due(now_ns)
        while not self._closed.is_set():
            chosen = self._choose(now_ns)
            if chosen is not None:
                unit, patience_s = chosen
                try:
                    self._connect()
                except OSError as error:
                    yield from self._nothing_from_all()
                    raise self._lost_because(error) from None
                self._ask(unit, patience_s)
                if not unit.poll.active:
                    yield self._block(unit)
            elif now_ns >= end_ns:
                return
            else:
                self._closed.wait((min(self._next_wake_ns(now_ns), end_ns) - now_ns) / _NS)
            now_ns = self._clock.monotonic_ns()
            if now_ns < end_ns:
                yield from self._begin_due(now_ns)

    def close(self) -> None:
        """Stop waiting and hang up."""
        self._closed.set()
        self._link.close()

    # ------------------------------------------------------------------ whose turn it is
    def _begin_due(self, now_ns: int) -> Iterator[Block]:
        """Start the polls that fall due; a unit whose breaker is open, or whose last poll never ended, is told as it is."""
        for unit in self._units:
            if unit.due_ns > now_ns:
                continue
            waiting = unit.poll.active and not unit.poll.asked and not unit.poll.failures
            if unit.poll.active and not waiting:
                unit.poll.abandon(now_ns)
                yield self._block(unit)
            self._schedule(unit, now_ns)
            if waiting:  # nobody knows it yet, and the line had no time for it: it keeps its place
                self._counts["polls_missed"] += 1
                continue
            if not unit.poll.may_ask(now_ns):
                self._counts["skipped_by_breaker"] += 1
                unit.poll.skip()
                yield self._block(unit, fresh=False)
                continue
            self._counts["polls"] += 1
            unit.poll.start(now_ns)
            if not unit.poll.active:  # everything it has is a hole
                yield self._block(unit)

    def _choose(self, now_ns: int) -> tuple[_Unit, float] | None:
        """Who is asked now, and how long to wait for the answer."""
        ready = [unit for unit in self._units if unit.poll.active and unit.poll.ready_ns <= now_ns]
        if well := [unit for unit in ready if not unit.poll.suspect]:
            unit = min(well, key=lambda u: u.due_ns)
            usual_s = unit.usual_s
            timeout_s = self._spec.timeout_s
            return unit, timeout_s if usual_s is None else min(timeout_s, max(LEAST_PATIENCE_S, PATIENCE * usual_s))
        if not ready:
            return None
        unit = min(ready, key=lambda u: u.asked_ns)
        if now_ns - unit.asked_ns >= STARVED_NS:
            return unit, self._spec.timeout_s
        slack_s = self._slack_s(now_ns)
        needed_s = max(LEAST_SLACK_S, 2.0 * (unit.usual_s or 0.0))
        return (unit, min(slack_s, self._spec.timeout_s)) if slack_s >= needed_s else None

    def _slack_s(self, now_ns: int) -> float:
        """Until the next unit that answers falls due."""
        due = [self._ready_or_due_ns(unit) for unit in self._units if not unit.poll.suspect]
        return (min(due) - now_ns) / _NS if due else self._spec.timeout_s

    def _next_wake_ns(self, now_ns: int) -> int:
        """When there is something to do again."""
        return max(now_ns, min(min(unit.due_ns, self._ready_or_due_ns(unit)) for unit in self._units))

    @staticmethod
    def _ready_or_due_ns(unit: _Unit) -> int:
        return unit.poll.ready_ns if unit.poll.active and not unit.poll.suspect else unit.due_ns

    def _schedule(self, unit: _Unit, now_ns: int) -> None:
        """The next turn lies on the unit's own grid; turns that are past already are missed, not made up for."""
        if not unit.due_ns:
            unit.due_ns = now_ns
        missed = (now_ns - unit.due_ns) // unit.interval_ns
        self._counts["polls_missed"] += missed
        unit.due_ns += (missed + 1) * unit.interval_ns

    # ------------------------------------------------------------------ one transaction
    def _ask(self, unit: _Unit, patience_s: float) -> None:
        read = unit.poll.next_read()
        unit.asked_ns = self._clock.monotonic_ns()
        self._counts["requests"] += 1
        try:
            words = self._link.ask(unit.spec.unit_id, read, patience_s, unit.usual_s or 0.0)
        except Refused as refused:
            self._counts["refused"] += 1
            unit.poll.refused(refused.code, self._clock.monotonic_ns())
        except NoAnswer as silence:
            self._counts["no_answer"] += 1
            unit.poll.silent(self._clock.monotonic_ns(), silence.garbled)
            self._counts["retried"] += unit.poll.active
        else:
            unit.answer_s.append(self._link.answer_s)
            unit.poll.answered(words, self._clock.monotonic_ns())

    def _connect(self) -> None:
        if not self._link.connect():
            return
        if self._lost or not self._counts["connects"]:
            log.info("modbus connected: source=%s address=%s", self.name, self._spec.place)
        self._lost = False
        self._counts["connects"] += 1

    def _block(self, unit: _Unit, fresh: bool = True) -> Block:
        """The answers of this poll, stamped now: when the last of them was complete."""
        now_ns = self._clock.monotonic_ns()
        values, quality = unit.poll.result()
        unit.freshness.mark(values, quality, now_ns)
        if fresh:
            self._tell(unit, now_ns)
            self._tell_block_size(unit)
        return Block(unit.channels, values, quality, self._clock.utc_ns(), now_ns)

    # ------------------------------------------------------------------ what is wrong, in words
    def _tell(self, unit: _Unit, now_ns: int) -> None:
        """A unit's state as one line, logged once per change and a returning one once a day."""
        key = _trouble_key(unit)
        if key:
            self._troubles[unit.spec.name] = self._trouble_of(unit)
        if key == unit.trouble:
            return
        unit.trouble = key
        if not key:
            self._troubles.pop(unit.spec.name, None)
            log.info("modbus works again: source=%s sensor=%s unit=%d", self.name, unit.spec.name, unit.spec.unit_id)
            return
        if key not in unit.told or now_ns - unit.told[key] >= SAID_AGAIN_NS:
            if len(unit.told) >= MAX_TOLD:
                unit.told.clear()
            unit.told[key] = now_ns
            log.warning("modbus trouble: source=%s %s", self.name, self._troubles[unit.spec.name])

    def _tell_block_size(self, unit: _Unit) -> None:
        size = unit.poll.limits.max_registers
        if size < unit.block_size:
            unit.block_size = size
            log.info(
                "modbus block size lowered: source=%s sensor=%s → write  max_registers = %d  in config/devices/%s.toml",
                self.name, unit.spec.name, size, unit.spec.device,
            )  # fmt: skip

    def _trouble_of(self, unit: _Unit) -> str:
        """What, why, do: `drive-1, unit 2 at 10.0.0.5:502: no answer (units 1, 3 answer) → check ...`."""
        code = min(unit.poll.trouble.values())
        cause = TROUBLES.get(code, UNKNOWN)
        blocks = sorted(span for span, why in unit.poll.trouble.items() if why == code)
        why = cause.why if code in TROUBLES else f"{cause.why} ({code:02X})"
        if not unit.poll.failures:
            shown = ", ".join(f"{span.address} to {span.end - 1}" for span in blocks[:3])
            why += f", wire addresses {shown}{' and more' if len(blocks) > 3 else ''}"
        elif code in (SILENCE, NONSENSE):
            why += self._who_answers(unit)
        return f"{unit.spec.name}, unit {unit.spec.unit_id} at {self._spec.place}: {why} → {cause.do}"

    def _who_answers(self, unit: _Unit) -> str:
        if len(self._units) == 1:
            return ""
        well = [str(u.spec.unit_id) for u in self._units if not u.poll.suspect]
        if not well:
            return " (nor from any other unit there)"
        return f" ({'units' if len(well) > 1 else 'unit'} {', '.join(well[:4])}{' and more' if len(well) > 4 else ''} can be read)"

    def _nothing_from_all(self) -> Iterator[Block]:
        """The endpoint is gone: whoever was being polled is told BAD_COMM."""
        for unit in self._units:
            if unit.poll.active:
                unit.poll.skip()
                yield self._block(unit, fresh=False)

    def _lost_because(self, error: OSError) -> SourceLost:
        self._counts["lost"] += 1
        self._lost = True
        units = ", ".join(f"{u.spec.name} (unit {u.spec.unit_id})" for u in self._units)
        reason = error.strerror or str(error) or type(error).__name__
        if self._spec.serial is not None:
            return SourceLost(
                f"{self.name}: the port {self._spec.serial} cannot be opened ({reason}); {units} cannot be read. "
                f"Check that the adapter is plugged in, that no other program uses it and that hark may (group dialout)"
            )
        return SourceLost(
            f"{self.name}: no connection to {self._spec.place} within {self._spec.timeout_s:g} s "
            f"({reason}); {units} cannot be read. Check power, cable and address of the device or gateway"
        )


def _trouble_key(unit: _Unit) -> str:
    """What makes two troubles the same one."""
    if not unit.poll.trouble:
        return ""
    code = min(unit.poll.trouble.values())
    return f"{code}" if unit.poll.failures else f"{code} of a part"


def link_of(spec: ModbusSpec) -> Link:
    """The connection that a site file describes, not yet open."""
    if spec.serial is not None:
        return serial_link(SerialLine(spec.serial, spec.baud_rate, spec.parity, spec.stop_bits), spec.timeout_s)
    assert spec.host is not None, "the schema wants one of the two"
    return tcp_link(spec.host, spec.port, spec.timeout_s, rtu=spec.framing == "rtu")


def channels_of(spec: AnySpec, config_dir: Path) -> tuple[Channel, ...]:
    """The channels of every sensor, in the site file's order.

    Raises: ConfigError: a device file that is missing or wrong.
    """
    assert isinstance(spec, ModbusSpec)
    return tuple(c for sensor in spec.sensors for c in channels(load_device(config_dir, sensor.device), sensor.name))


def open(spec: AnySpec, context: SourceContext) -> ModbusSource:
    """The source; it connects at its first `read`.

    Raises: ConfigError: a device file that is missing or wrong.
    """
    assert isinstance(spec, ModbusSpec)
    return ModbusSource(spec, [load_device(context.config_dir, sensor.device) for sensor in spec.sensors], context)
