"""Between the sources and the pipeline: never waits, never grows, and what it drops is counted."""

from __future__ import annotations

import numpy as np

from agent.app import Inbox
from firmware_bridge.measurement import Block, Waveform


def block(number: int) -> Block:
    return Block(np.array([0], np.int32), np.array([number], np.float32), np.zeros(1, np.uint8), number, number)


def waveform(n_samples: int) -> Waveform:
    return Waveform("s", "x", np.zeros(n_samples, np.float32), 25600.0, 1, 0, 0, 0)


def test_the_oldest_goes_first_when_it_is_full() -> None:
    """A plant's present matters more than its past."""
    inbox = Inbox(max_items=3)
    for number in range(5):
        inbox.offer(block(number))
    assert inbox.dropped == 2
    taken = [inbox.take(0.0) for _ in range(3)]
    assert [int(item.values[0]) for item in taken if isinstance(item, Block)] == [2, 3, 4]
    assert inbox.take(0.0) is None


def test_waveforms_are_bounded_in_bytes() -> None:
    """Two thousand bursts of a second would be 200 MB: on a gateway that is the end."""
    inbox = Inbox(max_bytes=4 * 1000)
    for _ in range(4):
        inbox.offer(waveform(250))
    assert (inbox.dropped, inbox.fill()) == (0, 1.0)
    inbox.offer(waveform(500))
    assert inbox.dropped == 2
    while inbox.take(0.0) is not None:
        pass
    assert inbox.fill() == 0.0
