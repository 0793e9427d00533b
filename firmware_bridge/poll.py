"""UnitPoll: one device's turn, read by read, and what each refusal teaches. Pure: the caller talks and tells the time.

Source: MODBUS Application Protocol 1.1b3, 7 (exception codes); what to do about each is the table TROUBLES.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.device import DeviceProfile, Span
from firmware_bridge.measurement import F32, U8
from firmware_bridge.registers import Decoder, Limits, plan_reads, values_in

U16 = NDArray[np.uint16]
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE, ACKNOWLEDGE, BUSY = 1, 2, 3, 4, 5, 6
PATH_UNAVAILABLE, TARGET_SILENT = 10, 11
WAIT_S: dict[int, tuple[float, ...]] = {  # before each further try of the same read
    DEVICE_FAILURE: (0.0,),
    ACKNOWLEDGE: (1.0, 1.0, 1.0),
    BUSY: (0.1, 0.2, 0.4),
}
HOLES_AGAIN_S = (60.0, 600.0, 3600.0, 86400.0)  # a device that was only starting gets its registers back
PROBE_AFTER_S = (5.0, 15.0, 60.0)
PATH_AGAIN_S = 60.0
FAILURES_TO_OPEN = 3
_NS = 1e9


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a cause means for whoever stands before the machine: why, and what to do."""

    why: str
    do: str


SILENCE, NONSENSE = -1, -2
TROUBLES: dict[int, Trouble] = {
    SILENCE: Trouble("no answer", "check the unit id on the sensor's label, its power and its RS-485 wiring"),
    NONSENSE: Trouble(
        "answers are damaged or another's",
        "check shield, termination and distance to the drive's motor cable, then that no two devices share the unit id",
    ),
    ILLEGAL_FUNCTION: Trouble(
        "it does not know this function (exception 01)", "try function 3 for 4, or 4 for 3, in the device file"
    ),
    ILLEGAL_ADDRESS: Trouble(
        "it has no such register (exception 02)", "check address_base, address and allow_gaps in the device file"
    ),
    ILLEGAL_VALUE: Trouble(
        "it refuses even one register at a time (exception 03)", "check address and function in the device file"
    ),
    DEVICE_FAILURE: Trouble("it reports a failure of its own (exception 04)", "look at the device's own display"),
    ACKNOWLEDGE: Trouble(
        "it asks for more time and never answers (exception 05)", "poll it less often: poll_interval_s"
    ),
    BUSY: Trouble(
        "it is busy (exception 06)", "poll it less often: poll_interval_s; see whether another master polls it"
    ),
    8: Trouble("its memory is damaged (exception 08)", "replace the device or load its firmware anew"),
    PATH_UNAVAILABLE: Trouble(
        "the gateway has no path to it (exception 0A)", "check the gateway's own table of units and serial settings"
    ),
    TARGET_SILENT: Trouble(
        "the gateway gets no answer from it (exception 0B)",
        "check the unit id on its label, its power and RS-485 wiring",
    ),
}
UNKNOWN = Trouble("it refuses with an exception that is not in the standard", "look it up in the device's manual")


class UnitPoll:
    """One unit: what to read next, what came, and when it may be asked again.

    A poll is `start`, then for each `next_read` one of `answered`, `refused`, `silent`, until it is no longer `active`.

    Args:
        quarantine_s: how long an answer that was given up may still come and could be taken for another; 0 where answers
            are numbered.
    Attributes:
        ready_ns: not before this (monotonic) may the next read be asked. failures: failed polls in a row.
        trouble: what is not answered -> the code of why.
    """

    def __init__(self, profile: DeviceProfile, quarantine_s: float = 0.0) -> None:
        self.limits = Limits(profile.max_registers)
        self.ready_ns = 0
        self.failures = 0
        self.trouble: dict[Span, int] = {}
        self._profile = profile
        self._quarantine_ns = round(quarantine_s * _NS)
        self._decoder = Decoder(profile)
        self._answers: dict[Span, U16] = {}
        self._left: list[Span] = []
        self._search: _Search | None = None
        self._heard = False  # since the start or the last silence
        self._retried = False  # the silence in this poll
        self._tries: dict[int, int] = {}
        self._nothing_there = False  # every register was refused: no holes to remember, the map or the device is wrong
        self._n_silent: dict[Span, int] = {}
        self._closed_until_ns = 0
        self._holes_until_ns = 0
        self._n_holes_again = 0

    @property
    def reads(self) -> tuple[Span, ...]:
        """The requests of one poll."""
        return self._decoder.reads

    @property
    def active(self) -> bool:
        """Whether the poll has still something to ask."""
        return bool(self._left)

    @property
    def asked(self) -> bool:
        """Whether this poll has asked anything yet."""
        return bool(self._answers or self._tries or self._retried or self._search)

    @property
    def suspect(self) -> bool:
        """Not heard since the start or its last silence: asked after the others, in the time they leave."""
        return not self._heard

    def may_ask(self, now_ns: int) -> bool:
        """Whether the breaker lets a poll through: open after three failed ones, a probe after 5, 15, then every 60 s."""
        return now_ns >= self._closed_until_ns

    def start(self, now_ns: int) -> None:
        """Begin a poll."""
        if self.limits.holes and now_ns >= self._holes_until_ns:
            self._n_holes_again += 1
            self._use(Limits(self.limits.max_registers))
        self._answers.clear()
        self._tries.clear()
        self._search = None
        self._retried = False
        self._left = list(self.reads)

    def next_read(self) -> Span:
        """What to ask now."""
        return self._search.asks if self._search else self._left[0]

    def answered(self, words: U16, now_ns: int) -> None:
        """The answer to `next_read`."""
        self._well()
        if self._retried:  # the answer to the first try may still be on its way
            self.ready_ns = now_ns + self._quarantine_ns
        if self._search:
            self._searched(False, now_ns)
            return
        read = self._left.pop(0)
        self._answers[read] = words
        self._nothing_there = False
        self._n_silent.pop(read, None)
        self.trouble.pop(read, None)

    def refused(self, code: int, now_ns: int) -> None:
        """The device, or its gateway, refused `next_read` with a Modbus exception."""
        if code in (PATH_UNAVAILABLE, TARGET_SILENT):
            self._heard = False
            self._fail(code, now_ns)
            if code == PATH_UNAVAILABLE:
                self._closed_until_ns = now_ns + round(PATH_AGAIN_S * _NS)
            return
        self._well()
        n_tries = self._tries.get(code, 0)
        if n_tries < len(waits := WAIT_S.get(code, ())):
            self._tries[code] = n_tries + 1
            self.ready_ns = now_ns + round(waits[n_tries] * _NS)
        elif self._search and code == ILLEGAL_ADDRESS:
            self._searched(True, now_ns)
        elif self._search:
            self._fail(code, now_ns)
        else:
            self._learn(self._left[0], code, now_ns)

    def silent(self, now_ns: int, garbled: bool = False) -> None:
        """No answer to `next_read`: it is asked once more; the second time, or of a unit that failed before, that was it."""
        self._heard = False
        if not self._retried and not self.failures:
            self._retried = True
            return
        self.ready_ns = now_ns + self._quarantine_ns
        if self._answers and not self._search:
            self._count_silence(self._left[0], now_ns)
        self._fail(NONSENSE if garbled else SILENCE, now_ns)

    def abandon(self, now_ns: int) -> None:
        """The next poll is due and this one is not done: what is missing stays missing."""
        if self.active and self.asked:
            self._fail(max(self._tries, default=SILENCE), now_ns)
        self._left.clear()

    def skip(self) -> None:
        """No poll this time: nothing is answered."""
        self._answers.clear()
        self._left.clear()

    def result(self) -> tuple[F32, U8]:
        """Values and qualities of every point, by what was answered."""
        return self._decoder.decode({i: self._answers.get(read) for i, read in enumerate(self.reads)})

    # ------------------------------------------------------------------ well and ill
    def _well(self) -> None:
        self._heard = True
        self.failures = 0
        self._closed_until_ns = 0

    def _fail(self, code: int, now_ns: int) -> None:
        """The rest of this poll is not asked any more; a poll without any answer counts towards the breaker."""
        for read in self._left:
            self.trouble[read] = code
        self._left.clear()
        self._search = None
        if self._answers:
            return
        self.failures += 1
        probe = self.failures - FAILURES_TO_OPEN
        if probe >= 0:
            self._closed_until_ns = now_ns + round(PROBE_AFTER_S[min(probe, len(PROBE_AFTER_S) - 1)] * _NS)

    def _count_silence(self, read: Span, now_ns: int) -> None:
        """A block that stays silent while others are answered is one the device has not, in its own way of saying so."""
        self._n_silent[read] = self._n_silent.get(read, 0) + 1
        if self._n_silent[read] >= FAILURES_TO_OPEN:
            del self._n_silent[read]
            self._add_holes({read}, SILENCE, now_ns)

    # ------------------------------------------------------------------ what a device turned out to refuse
    def _learn(self, read: Span, code: int, now_ns: int) -> None:
        values = values_in(self._profile, read)
        if code == ILLEGAL_ADDRESS and self._nothing_there:
            self._fail(code, now_ns)
        elif code == ILLEGAL_ADDRESS and len(values) > 1:
            self._search = _Search(values)
        elif code == ILLEGAL_VALUE and (smaller := self.limits.smaller(read.count)):
            self._use(smaller)
        elif code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE):
            self._add_holes({read}, code, now_ns)
        elif code == ILLEGAL_FUNCTION:
            self._add_holes({r for r in self.reads if r.function == read.function}, code, now_ns)
        elif len(self._left) > 1 or self._answers:
            self.trouble[read] = code
            self._left.remove(read)
        else:
            self._fail(code, now_ns)

    def _searched(self, refused: bool, now_ns: int) -> None:
        assert self._search is not None
        holes = self._search.told(refused)
        if holes is not None:
            self._search = None
            self._add_holes(holes, ILLEGAL_ADDRESS, now_ns)

    def _add_holes(self, holes: set[Span], code: int, now_ns: int) -> None:
        limits = replace(self.limits, holes=self.limits.holes | holes)
        if not self._answers and not plan_reads(self._profile, limits):
            self._nothing_there = True
            self._fail(code, now_ns)
            return
        self._holes_until_ns = now_ns + round(HOLES_AGAIN_S[min(self._n_holes_again, len(HOLES_AGAIN_S) - 1)] * _NS)
        self._use(limits)
        self.trouble.update(dict.fromkeys(holes, code))

    def _use(self, limits: Limits) -> None:
        """Plan anew; what was answered already stays answered where the new plan asks the same."""
        self.limits = limits
        self._decoder = Decoder(self._profile, limits)
        self._left = [read for read in self.reads if read not in self._answers]
        self.trouble = {span: code for span, code in self.trouble.items() if span in self.reads or span in limits.holes}


class _Search:
    """Finds which part of a refused request is not there, by halves."""

    def __init__(self, values: list[Span]) -> None:
        self._steps = _holes_in(values)
        self.asks = next(self._steps)

    def told(self, refused: bool) -> set[Span] | None:
        """The answer to `asks`; the holes when that was the last question."""
        try:
            self.asks = self._steps.send(refused)
        except StopIteration as end:
            holes: set[Span] = end.value
            return holes
        return None


def _holes_in(values: list[Span]) -> Generator[Span, bool, set[Span]]:
    """The holes of `values`, which as one request are refused. Asks for spans, is told whether they are refused.

    Where both halves are answered and both together are not, what lies between them is the hole; touching halves leave
    a hole of no length, a border that no request may cross.
    """
    if len(values) == 1:
        return {values[0]}
    left, right = values[: len(values) // 2], values[len(values) // 2 :]
    left_refused = yield _hull(left)
    right_refused = yield _hull(right)
    holes: set[Span] = set()
    if left_refused:
        holes |= yield from _holes_in(left)
    if right_refused:
        holes |= yield from _holes_in(right)
    if not (left_refused or right_refused):
        holes.add(Span(left[-1].function, left[-1].end, right[0].address - left[-1].end))
    return holes


def _hull(values: list[Span]) -> Span:
    return Span(values[0].function, values[0].address, values[-1].end - values[0].address)
