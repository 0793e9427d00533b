"""Watchdog: a process whose data stop moving ends itself, so that the supervisor starts it again.

A stage that raises ends the process already (`App._guarded`); one that hangs, or whose thread is gone, would leave the agent alive
and silent. So every stage moves a counter, `StageWatch` (pure) says who stands still, and one small thread looks once a second,
ends the process, and feeds systemd's own watchdog only while everybody moves. That one sees what a thread of ours cannot: a call
that never gives the interpreter back.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from agent.clock import Clock
from firmware_bridge.source import AnySpec, ModbusSpec

log = logging.getLogger(__name__)

WATCHDOG_S = 30.0  # the process ends; three commits of 10 s on a slow disk, and each commit moves the store on its own
STALLED_S = 10.0  # systemd is fed no more; with WatchdogSec=30 it acts at 40 s, after us
LOOK_S = 1.0
MAX_LOOKS = 2  # a look that comes late counts as so many at most: a process that was stopped saw nobody stand still
LAST_WORDS_S = 2.0  # the log may be what hangs
EXIT_STALLED = 70  # EX_SOFTWARE of sysexits.h
N_FRAMES = 8
# Name servers that are silent: 5 s, twice, three of them, and again for every search domain (resolv.conf(5), defaults).
RESOLVE_S = 120.0


class Progress:
    """What a stage says of itself: it moved, and how long it may rest now. One thread writes, the watchdog reads.

    Args:
        stage: the name of its thread. slack_s: how much longer than others it may honestly stand still.
    """

    __slots__ = ("ended", "n_moves", "rest_s", "slack_s", "stage")

    def __init__(self, stage: str, slack_s: float = 0.0) -> None:
        self.stage = stage
        self.slack_s = slack_s
        self.rest_s = 0.0
        self.n_moves = 0
        self.ended = False

    def moved(self, rest_s: float = 0.0) -> None:
        """A turn of the loop is over; the next may take `rest_s` longer, because the stage waits on purpose."""
        self.rest_s = rest_s
        self.n_moves += 1

    def end(self) -> None:
        """There is nothing more to do: a recording is over."""
        self.ended = True


@dataclass(frozen=True, slots=True)
class Stall:
    """A stage that stands still, and for how long more than its rest and slack allow."""

    stage: str
    still_s: float


class StageWatch:
    """Who stands still. Pure: monotonic seconds are passed in.

    Args: look_s: how often somebody means to look.
    """

    def __init__(self, stages: Sequence[Progress], now_s: float, look_s: float = LOOK_S) -> None:
        self._stages = stages
        self._longest_look_s = MAX_LOOKS * look_s
        self._looked_s = now_s
        self._seen_s = 0.0
        self._at: dict[str, tuple[int, float]] = {stage.stage: (stage.n_moves, 0.0) for stage in stages}

    def look(self, now_s: float) -> Stall:
        """The stage that is most overdue; below zero seconds while it still may rest."""
        self._seen_s += min(now_s - self._looked_s, self._longest_look_s)
        self._looked_s = now_s
        return max((self._of(stage) for stage in self._stages), key=lambda stall: stall.still_s)

    def _of(self, stage: Progress) -> Stall:
        n_moves, since_s = self._at[stage.stage]
        if stage.n_moves != n_moves or stage.ended:
            since_s = self._seen_s
            self._at[stage.stage] = (stage.n_moves, since_s)
        return Stall(stage.stage, self._seen_s - since_s - stage.rest_s - stage.slack_s)


class Supervisor:
    """systemd's side of it, as sd_notify(3) says: one datagram a word; nothing where nobody asked for it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""
        self.watchdog_s = 0.0  # how long it waits for a sign of life; 0 for ever
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if self._address and for_us:
            with suppress(ValueError):
                self.watchdog_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6

    def tell(self, word: str) -> bool:
        """READY=1, WATCHDOG=1 or STOPPING=1; never waits. False when it did not arrive, or nobody listens."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(word.encode(), self._address)
        except OSError:
            return False
        return True


class Watchdog:
    """The look once a second, in a thread of its own.

    Args:
        watchdog_s: how long a stage may stand still. end: what is done then; it does not come back.
    """

    def __init__(
        self,
        stages: Sequence[Progress],
        supervisor: Supervisor,
        clock: Clock,
        watchdog_s: float = WATCHDOG_S,
        end: Callable[[Stall], None] | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._watchdog_s = watchdog_s
        self._end = end or end_process
        self._look_s = min(LOOK_S, watchdog_s / 8, supervisor.watchdog_s / 4 or LOOK_S)
        self._watch = StageWatch(stages, self._now_s(), self._look_s)

    def run(self, stop: threading.Event) -> None:
        """Until told to stop. It logs nothing on its way: a log that hangs must not hold it."""
        while not stop.wait(self._look_s):
            self.look()

    def look(self) -> None:
        worst = self._watch.look(self._now_s())
        if worst.still_s > self._watchdog_s:
            self._end(worst)
        elif worst.still_s <= STALLED_S and self._supervisor.watchdog_s:
            self._supervisor.tell("WATCHDOG=1")

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9


def end_process(stall: Stall) -> None:
    """Say who hangs and where, then end without asking anybody: what hangs cannot be asked. The buffer is safe at any instant."""
    try:
        speaker = threading.Thread(target=_last_words, args=(stall,), name="last-words", daemon=True)
        speaker.start()
        speaker.join(LAST_WORDS_S)
    finally:
        os._exit(EXIT_STALLED)


def _last_words(stall: Stall) -> None:
    log.critical(
        "stage stands still, ending so that the supervisor starts anew: stage=%s still_s=%.1f exit_code=%d stands=%s",
        stall.stage, stall.still_s, EXIT_STALLED, where(stall.stage),
    )  # fmt: skip
    for handler in logging.getLogger().handlers:
        handler.flush()


def where(thread_name: str) -> str:
    """Where a thread stands, innermost call first, at most `N_FRAMES` of them."""
    ident = next((thread.ident for thread in threading.enumerate() if thread.name == thread_name), None)
    frame = sys._current_frames().get(ident) if ident is not None else None
    if frame is None:
        return "its thread has ended"
    calls: list[str] = []
    while frame is not None and len(calls) < N_FRAMES:
        code = frame.f_code
        calls.append(f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return " < ".join(calls)


def slack_of(spec: AnySpec) -> float:
    """How long one answer of a source may honestly take, in seconds beyond `WATCHDOG_S`.

    A Modbus line connects, asks and asks again within its own time-out, and a host given by name is looked up on the way. MQTT
    connects in paho's thread, and a recording is a file.
    """
    if not isinstance(spec, ModbusSpec):
        return 0.0
    return 4 * spec.timeout_s + (RESOLVE_S if spec.host is not None and not _is_address(spec.host) else 0.0)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
