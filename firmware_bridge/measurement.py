"""The words every room above speaks: Quality, Channel, Block, Waveform.

A poll of a device is one Block, not one object per value; a burst is one Waveform per axis. Both carry the two clocks read
at the bus, and nothing rewrites them later (Modbus itself carries no time: the gateway's stamp is the only one).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]


class Quality(IntEnum):
    """How far a value can be trusted; the two top bits order the classes as OPC UA's status codes do.

    Anything from BAD up carries no value: the number beside it must not be used.
    Source: OPC UA part 4, 7.39 (severity in the top two bits); sub-codes are ours.
    """

    GOOD = 0
    UNCERTAIN = 64  # stale for up to three polls, or substituted
    BAD = 128
    BAD_SENTINEL = 129  # the device's own "not available"
    BAD_RANGE = 130  # outside what the quantity can be: wrong word order, wrong scale, broken cable
    BAD_STUCK = 131  # the same bits for too long while the machine runs
    BAD_COMM = 132  # no answer, or an answer that refuses
    BAD_CLOCK = 133  # the stamp cannot be right


@dataclass(frozen=True, slots=True)
class Channel:
    """One named quantity of one sensor as the site file names it.

    Attributes:
        sensor: the sensor's name in the site file, e.g. "drive-a".
        point: the quantity, its unit as last part of the name, e.g. "shaft_speed_rpm".
        update_interval_s: how often the device renews the value; the same bits within it are no news.
        live: it moves on a running machine; a sensor is stuck when all its live values stand still to the bit.
    """

    sensor: str
    point: str
    update_interval_s: float = 1.0
    live: bool = False

    @property
    def name(self) -> str:
        return f"{self.sensor}.{self.point}"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What one poll of one device said.

    Attributes:
        channels: shape (n,), indices into the process's channel table.
        values: shape (n,), float32 in the unit of the channel's name; NaN wherever quality is BAD or worse.
        quality: shape (n,), one `Quality` each.
        utc_ns, monotonic_ns: taken when the answer was complete.
    """

    channels: I32
    values: F32
    quality: U8
    utc_ns: int
    monotonic_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """One evenly sampled, complete burst of one axis.

    Attributes:
        sensor: the sensor's name in the site file. axis: "x", "y" or "z".
        samples: shape (n,), acceleration in m/s2, finite.
        sample_rate_hz: as the sensor measured it, not as its data sheet says.
        burst_id: the same for all axes sampled together.
        start_utc_ns: of the first sample, by the sensor's clock when it has one, else arrival less duration.
        monotonic_ns: gateway's clock when the last chunk arrived.
        quality: GOOD, or UNCERTAIN when samples reach full scale (clipped).
    """

    sensor: str
    axis: str
    samples: F32
    sample_rate_hz: float
    burst_id: int
    start_utc_ns: int
    utc_ns: int
    monotonic_ns: int
    quality: Quality = Quality.GOOD


Measurement = Block | Waveform
