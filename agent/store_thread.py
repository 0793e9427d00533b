"""The store's own thread: everything that touches the buffer's file happens here, in order, between two commits."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from agent.decision.alarm import StandingAlarm
from agent.errors import StoreError
from agent.store import Item, Store, StoredRecord
from agent.vocabulary import Record
from agent.watchdog import Progress

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_ASKS = 1000


class StoreThread:
    """The store's own thread: a bounded inbox, group commits, urgent items at once.

    Args:
        on_committed: told of every batch that is on disk, with the monotonic time of its commit, in nanoseconds.
        max_items: how many may wait; more are refused and counted, urgent ones only at twice that.
        bulk_interval_s: how long bulk may wait to share a commit.
    """

    def __init__(
        self,
        store: Store,
        on_committed: Callable[[Sequence[StoredRecord], int], None] | None = None,
        *,
        max_items: int = 20_000,
        bulk_interval_s: float = 1.0,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.durable_commit_s = 0.0  # how long the last durable commit took
        self.failure = ""  # why the last write failed; empty while all is well
        self.progress = Progress("store")
        self._store = store
        self._on_committed = on_committed or (lambda records, monotonic_ns: None)
        self._max_items = max_items
        self._bulk_interval_s = bulk_interval_s
        self._urgent: deque[Item] = deque()
        self._bulk: deque[Item] = deque()
        self._standing: Sequence[StandingAlarm] | None = None
        self._standing_again: Sequence[StandingAlarm] | None = (
            None  # what could not be written, for the next bulk commit
        )
        self._asks: deque[_Ask] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._flushing = False
        self._saved_drops: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, items: Iterable[Item], standing: Sequence[StandingAlarm] | None = None) -> int:
        """Hand over; never waits.

        Args: standing: the alarms that stand after these items, when that changed; kept in the same transaction as they.
        Returns: how many were refused because the inbox is full (they are counted).
        """
        refused = 0
        with self._wake:
            for item in items:
                urgent = isinstance(item, Record) and item.urgent
                waiting = len(self._urgent) + len(self._bulk)
                if waiting >= (2 * self._max_items if urgent else self._max_items):
                    self.dropped[f"store inbox: {item.stream if isinstance(item, Record) else 'sample'}"] += 1
                    refused += 1
                else:
                    (self._urgent if urgent else self._bulk).append(item)
            self._standing = self._standing if standing is None else standing
            if self._urgent or standing is not None:
                self._wake.notify()
        return refused

    def fill(self) -> float:
        """Share of the inbox in use, 0..1."""
        return min(1.0, (len(self._urgent) + len(self._bulk)) / self._max_items)

    def ask(self, question: Callable[[Store], T], timeout_s: float = 10.0) -> T:
        """Run `question` in the store's thread, between two commits, and wait for its answer.

        Raises: StoreError: no answer in time, or the thread has ended; otherwise what the question raises.
        """
        ask = _Ask(question)
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                raise StoreError("the store has been stopped")
            self._asks.append(ask)
            self._wake.notify()
        if not ask.answered.wait(timeout_s):
            raise StoreError(f"the store did not answer within {timeout_s:.0f} s; the disk may be failing")
        if ask.error is not None:
            raise ask.error
        answer: T = ask.answer
        return answer

    def tell(self, action: Callable[[Store], object]) -> None:
        """Run `action` in the store's thread, between two commits, without waiting for it; refused ones are counted."""
        with self._wake:
            if self._stopping or len(self._asks) >= MAX_ASKS:
                self.dropped["store inbox: action"] += 1
                return
            self._asks.append(_Ask(action, told=True))
            self._wake.notify()

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until everything that was put is in the file. Raises: StoreError: not within `timeout_s`."""
        with self._wake:
            self._flushing = True
        self.ask(lambda store: None, timeout_s)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Write what waits, make it durable, close the file."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        else:
            self._store.close()

    def _run(self) -> None:
        self._timed_sync()
        bulk_due_s = time.monotonic()
        while True:
            self.progress.moved(rest_s=self._bulk_interval_s)
            with self._wake:
                self._wake.wait_for(self._must_act, timeout=max(0.0, bulk_due_s - time.monotonic()))
                stopping = self._stopping
                urgent, asks = _drained(self._urgent), _drained(self._asks)
                standing, self._standing = self._standing, None
                bulk_now = stopping or self._flushing or time.monotonic() >= bulk_due_s
                self._flushing = False
                bulk = _drained(self._bulk) if bulk_now else []
            if standing is not None:
                self._standing_again = None
            self._commit(urgent, standing)
            self.progress.moved()  # each commit by itself: a slow disk is no hang
            if bulk_now:
                self._commit(bulk, self._standing_again)
                self.progress.moved()
            if bulk_now:
                bulk_due_s = time.monotonic() + self._bulk_interval_s
                self._keep_house()
            for ask in asks:
                self.progress.moved()
                ask.run(self._store)
            if stopping:
                break
        self._store.close()

    def _timed_sync(self) -> None:
        """What a durable commit takes on this disk, known before the first alarm needs one."""
        started_s = time.monotonic()
        try:
            self._store.sync()
        except sqlite3.Error as error:
            self._tell_failure(str(error))
        self.durable_commit_s = time.monotonic() - started_s

    def _must_act(self) -> bool:
        return bool(self._urgent or self._asks or self._stopping or self._standing is not None)

    def _commit(self, items: list[Item], standing: Sequence[StandingAlarm] | None = None) -> None:
        if not items and standing is None:
            return
        started_s = time.monotonic()
        try:
            stored = self._store.write(items, standing)
        except StoreError as error:
            self._tell_failure(str(error))
            self._take_back(items)
            self._standing_again = standing
            return
        if self.failure:
            log.info("buffer writes again")
        self.failure = ""
        self._standing_again = None if standing is not None else self._standing_again
        if any(record.urgent for record in stored):
            self.durable_commit_s = time.monotonic() - started_s
        self._on_committed(stored, time.monotonic_ns())

    def _tell_failure(self, failure: str) -> None:
        if not self.failure:
            log.error("buffer cannot be written, keeping what fits in memory: %s", failure)
        self.failure = failure

    def _take_back(self, items: list[Item]) -> None:
        """Urgent items wait in memory for the disk to come back; bulk is dropped and counted."""
        with self._wake:
            for item in reversed(items):
                if isinstance(item, Record) and item.urgent:
                    self._bulk.appendleft(item)  # tried again with the next bulk commit, not in a tight loop
                else:
                    self.dropped[f"store failing: {item.stream if isinstance(item, Record) else 'sample'}"] += 1

    def _keep_house(self) -> None:
        fresh = self.dropped - self._saved_drops
        try:
            self._store.add_counts(fresh)
            started_s = time.monotonic()
            if self._store.settle(started_s):
                self.durable_commit_s = time.monotonic() - started_s
            self._store.fold_samples(started_s)
        except sqlite3.Error as error:
            self._tell_failure(str(error))
            return
        self._saved_drops += fresh


class _Ask:
    """A question to the store and its answer."""

    def __init__(self, question: Callable[[Store], Any], told: bool = False) -> None:
        self._question = question
        self._told = told  # nobody waits for the answer, so a failure goes to the log
        self.answered = threading.Event()
        self.answer: Any = None
        self.error: Exception | None = None

    def run(self, store: Store) -> None:
        try:
            self.answer = self._question(store)
        except sqlite3.Error as error:
            self.error = StoreError(f"the buffer could not answer ({error})")
        except Exception as error:  # handed to the one who asked: it is their question
            self.error = error
        if self._told and self.error is not None:
            log.error("buffer could not keep what it was told: %s", self.error)
        self.answered.set()


def _drained(waiting: deque[T]) -> list[T]:
    taken = list(waiting)
    waiting.clear()
    return taken
