"""What several tests need: waiting for a condition with a deadline, never for a time to pass."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout_s: float = 5.0, what: str = "the condition") -> T:
    """Ask `predicate` every 10 ms until its answer is true, and give that answer back.

    Raises: AssertionError: not true within `timeout_s`; the message names `what` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        if answer := predicate():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}")
        pause.wait(0.01)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False
