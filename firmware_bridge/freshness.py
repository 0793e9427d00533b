"""Freshness: whether a device still measures, or repeats what it once had. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firmware_bridge.measurement import F32, U8, Channel, Quality

N_STALE_INTERVALS = 5.0  # of the slowest: asking more often than it measures is no fault of the device
LEAST_STALE_S = 10.0


class Freshness:
    """Marks the live values of one device as UNCERTAIN when all of them have stood still to the bit for too long.

    A quantity that moves on a running machine never repeats itself exactly in every decimal of every channel; a transmitter
    that lost its sensor, and a gateway that answers from its cache, do. Whether the machine runs is not known here, so the
    values are kept: calling the sensor stuck is the agent's decision.

    Args:
        channels: of the device, in the order of its values. interval_s: how often it is asked.
    """

    def __init__(self, channels: Sequence[Channel], interval_s: float) -> None:
        self._live = np.array([channel.live for channel in channels], np.bool_)
        slowest_s = max([interval_s, *(channel.update_interval_s for channel in channels if channel.live)])
        self._stale_after_ns = round(max(N_STALE_INTERVALS * slowest_s, LEAST_STALE_S) * 1e9)
        self._bits = np.zeros(int(self._live.sum()), np.int32)
        self._since_ns: int | None = None

    def mark(self, values: F32, quality: U8, monotonic_ns: int) -> None:
        """Take in one poll, and mark its `quality` in place.

        Args: values, quality: shape (n_channels,).
        """
        bits = values[self._live].view(np.int32)
        if not bits.size:
            return
        if self._since_ns is None or (bits != self._bits).any():
            self._bits, self._since_ns = bits, monotonic_ns
        elif monotonic_ns - self._since_ns >= self._stale_after_ns:
            quality[self._live & (quality == Quality.GOOD)] = Quality.UNCERTAIN
