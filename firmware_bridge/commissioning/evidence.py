"""What a device's words say under every reading of its map: arrays that plausible.py searches. Pure, no I/O.

A frame is one word order and one base; a reading of a point is one unit and one power of ten on its written scale. The
words are decoded by the decoder that the sources use, once a frame; scale and unit are then array arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from firmware_bridge.commissioning.likelihood import F64, FLOAT_DIGIT, Expectation, Laws, flag_log_odds, log_meaningless
from firmware_bridge.commissioning.quantities import UNIT_SLIPS, UnitSlip, n_alike, relations
from firmware_bridge.commissioning.remap import AS_IT_IS, has_scale, reordered, shifted
from firmware_bridge.device import DeviceProfile, Point, Span
from firmware_bridge.registers import Decoder, Limits
from firmware_bridge.units import suffix_of

Sample = Mapping[tuple[int, int], int]  # one poll: (function, wire address) -> word; refused addresses are not in it
Choices = NDArray[np.intp]  # which reading each point takes, shape (n, n_points)

ANSWERED = math.log(0.99 / 0.7)  # a right address is answered; of wrong ones a device refuses about a third
REFUSED = math.log(0.01 / 0.3)
NOT_AVAILABLE = -1.0
LARGEST, SMALLEST = float(np.finfo(np.float64).max), 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One word order and one base: words swapped against the map as in `remap.swapped`, `shift` added to its addresses.

    Attributes:
        raw, digits: shape (n_polls, n_points): the number before scale and offset, NaN where nothing is said; and, for
            whole numbers, what a count of it is worth.
        words: by point, shape (n_polls, n_words); None where the device does not answer.
    """

    swap: int
    shift: int
    raw: F64
    digits: F64
    words: tuple[F64 | None, ...]


class Evidence:
    """A device's words, weighed.

    Attributes:
        frames: those whose addresses exist. units: by point, what its register may hold; the first is what the map says.
        odds, values, usual: shape (n_frames, n_points, n_readings): nats that a point speaks for a reading, -inf where it
            has no such reading; its value in the last poll; whether running machines mostly have it about there. A
            reading's number is `unit * len(powers) + place of the power`.
        as_written: the reading that the map gives each point, shape (n_points,).
    """

    def __init__(
        self,
        profile: DeviceProfile,
        samples: Sequence[Sample],
        *,
        swaps: Sequence[int] = (0,),
        shifts: Sequence[int] = (0,),
        powers: Sequence[int] = (0,),
        with_units: bool = False,
    ) -> None:
        self.points = profile.points
        self._n_alike = n_alike(self.points)
        self.powers = tuple(powers)
        self.units = [_units(point, with_units) for point in profile.points]
        self.frames = _frames(profile, samples, swaps, shifts)
        self.as_written = np.full(len(self.points), self.powers.index(0), np.intp)
        shape = (len(self.frames), len(self.points), max(map(len, self.units)) * len(self.powers))
        self.odds = np.full(shape, -np.inf)
        self.values = np.full(shape, np.nan)
        self.usual = np.zeros(shape, np.bool_)
        for place in range(len(self.points)):
            self._weigh(place)
        with np.errstate(divide="ignore"):
            self._sizes = np.log(np.abs(self.values))
        self._laws = Laws(relations(self.points), len(self.points))
        self._each = np.arange(len(self.points))

    def score(self, frame: int, choices: Choices) -> F64:
        """Nats for each row of choices, shape (n,): every point for itself, and all of them together."""
        alone = self.odds[frame][self._each, choices].sum(axis=1)
        return np.asarray(alone + self._laws.score(self._sizes[frame][self._each, choices]))

    def reading(self, unit: int, power: int) -> int:
        """The number of a reading."""
        return unit * len(self.powers) + self.powers.index(power)

    def _weigh(self, place: int) -> None:
        """One point in every frame; frames that say something in the same polls are weighed together."""
        n_readings = len(self.units[place]) * len(self.powers)
        said = np.array([np.isfinite(frame.raw[:, place]) for frame in self.frames])
        for polls in {tuple(row) for row in said}:
            frames = np.flatnonzero((said == polls).all(axis=1))
            if not any(polls):
                self.odds[frames, place, :n_readings] = [
                    [NOT_AVAILABLE if self.frames[f].words[place] is not None else REFUSED] for f in frames
                ]
                continue
            self._read(place, frames, polls)

    def _read(self, place: int, frames: NDArray[np.intp], polls: tuple[bool, ...]) -> None:
        """One point's odds, values and usualness in these frames by these polls, under every reading."""
        point, units = self.points[place], self.units[place]
        here = np.ix_(frames, np.array([place]), np.arange(len(units) * len(self.powers)))
        raw = np.array([self.frames[f].raw[polls, place] for f in frames]).T[:, :, None]
        digits = np.array([self.frames[f].digits[polls, place] for f in frames]).T[:, :, None]
        if not has_scale(point):
            self.values[here] = raw[-1, :, None]
            self.odds[here] = flag_log_odds(point, raw)[:, None]
            return
        factor = np.array([unit.factor for unit in units for _ in self.powers])
        offset = np.array([unit.factor * point.offset + unit.offset for unit in units for _ in self.powers])
        scale = factor * np.array([point.scale * 10.0**power for _ in units for power in self.powers])
        meaningless = np.array([_meaningless(self.frames[f], place, polls) for f in frames])[:, None]
        tiny = (raw != 0) & (np.abs(raw) < (point.smallest if point.type in FLOAT_DIGIT else 0.0))
        with np.errstate(over="ignore"):  # a misread float64 times 1000
            values = raw * scale + offset
        values[np.isinf(values)] = np.nan
        quanta = np.abs(raw * FLOAT_DIGIT[point.type] if point.type in FLOAT_DIGIT else digits) * np.abs(scale)
        expectation = Expectation(point, self._n_alike[place])
        odds = expectation.log_odds(np.where(tiny, np.nan, values), np.maximum(quanta, SMALLEST), meaningless)
        self.values[here] = values[-1, :, None]
        self.odds[here] = ANSWERED + odds[:, None]
        self.usual[here] = expectation.is_usual(values[-1])[:, None]


def _units(point: Point, with_units: bool) -> tuple[UnitSlip, ...]:
    slips = UNIT_SLIPS.get(suffix_of(point.name), ()) if with_units and has_scale(point) else ()
    return (AS_IT_IS, *slips)


def _frames(
    profile: DeviceProfile, samples: Sequence[Sample], swaps: Sequence[int], shifts: Sequence[int]
) -> list[Frame]:
    frames = []
    for shift in shifts:
        moved = shifted(profile, shift)
        if moved is not None:
            words = tuple(_words(_places(moved, point), samples) for point in moved.points)
            for swap in swaps:
                turned = reordered(moved, swap)
                raw = _decoded(turned, turned.points, samples)
                frames.append(Frame(swap, shift, raw, _digits(turned, raw, samples), words))
    return frames


def _places(profile: DeviceProfile, point: Point) -> list[tuple[int, int]]:
    return [(s.function, address) for s in profile.spans_of(point) for address in range(s.address, s.end)]


def _words(places: Sequence[tuple[int, int]], samples: Sequence[Sample]) -> F64 | None:
    if any(place not in poll for poll in samples for place in places):
        return None
    return np.array([[poll[place] for place in places] for poll in samples], np.float64)


def _meaningless(frame: Frame, place: int, polls: tuple[bool, ...]) -> float:
    words = frame.words[place]
    assert words is not None, "what says something was answered"
    return log_meaningless(words[list(polls)])


def _digits(profile: DeviceProfile, numbers: F64, samples: Sequence[Sample]) -> F64:
    """What a count of each register is worth: 1, or the power of ten that the device sends beside it."""
    if all(point.exponent_address is None for point in profile.points):
        return np.ones(numbers.shape)
    alone = tuple(msgspec.structs.replace(point, exponent_address=None) for point in profile.points)
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = np.abs(numbers / _decoded(profile, alone, samples))
    return np.where(np.isfinite(worth), worth, 1.0)


def _decoded(profile: DeviceProfile, points: tuple[Point, ...], samples: Sequence[Sample]) -> F64:
    """By the decoder that the sources use; addresses that were refused in any poll are holes."""
    bare = msgspec.structs.replace(profile, points=tuple(map(_bare, points)), texts=(), examples=())
    places = {place for point in points for place in _places(profile, point)}
    holes = frozenset(Span(*place, 1) for place in places if any(place not in poll for poll in samples))
    decoder = Decoder(bare, Limits(profile.max_registers, holes))
    polls = []
    for poll in samples:
        words = [[poll.get((read.function, a), 0) for a in range(read.address, read.end)] for read in decoder.reads]
        with np.errstate(invalid="ignore"):  # misread words make signalling NaNs
            polls.append(decoder.measure({i: np.array(answer, np.uint16) for i, answer in enumerate(words)})[0])
    return np.array(polls)


def _bare(point: Point) -> Point:
    """Nothing but the type: every number that the bits can be, and the device's own "not available"."""
    return msgspec.structs.replace(
        point, scale=1.0, offset=0.0, plausible=(-LARGEST, LARGEST), typical=None, smallest=0.0
    )
