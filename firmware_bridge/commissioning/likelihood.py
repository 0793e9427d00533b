"""How likely a running machine would have said exactly these words: the arithmetic under plausible.py. Pure, no I/O.

Probabilities are of bit patterns, not of values: a map that turns a small number into one of many large ones must not gain
from it. They are stated against "registers that mean nothing here", so that reading one address further costs or gains
what the other words are worth. Everything is in nats (natural logarithms of odds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.commissioning.quantities import Range, Relation, usual
from firmware_bridge.device import Point

F64 = NDArray[np.float64]

ODD = math.log(1e-3)  # a value may be odd on a right map (a dead channel, a strange machine): it costs no more
FLOAT_DIGIT = {"float32": 2.0**-23, "float64": 2.0**-52}  # the last bit, of the value
P_ZERO = 0.05
P_NEGATIVE = 0.1  # of what can be negative at all: reverse speed, braking power
FOUR_OF_FIVE = 2.563  # width of a normal distribution's middle 80 %, in standard deviations
P_CORE, P_WIDE, P_ANYTHING = 0.85, 0.145, 0.005
WIDER = 2.5
LOW_OF_ZERO = 1e4  # a range "from 0" is meant from this part of its top
P_FLAG = 0.9  # that a status bit says what it mostly says
SPAN_OF_ANYTHING = math.log(1e8)  # eight decades
P_SAME, P_SAME_LIVE, P_JUMP = 0.5, 0.25, 0.02
LARGEST_STEP = 0.5  # from poll to poll, of the value itself
SPAN_OF_WORDS = math.log(65536.0)
SPAN_OF_LAWS = math.log(
    1e3
)  # three decades: where the ratio of two quantities lies that have nothing to do with each other
LAW_HELD_AT_MOST, LAW_BROKEN = 3.0, -3.0


class Expectation:
    """What one point says on a running machine.

    Four of five machines lie in the usual ranges; some in tails two and a half times as wide, and a few values are
    anything that is plausible. Ranges from 0 up are meant in proportion (log-normal), those that reach below it in
    difference (normal). From poll to poll a measured value stays, or moves by any step from its last digit to half of itself.

    Args:
        n_alike: how many of the device's quantities rise and fall with this one (all vibration of one bearing). How
            unusual their level is counts once between them, not once each.
    """

    def __init__(self, point: Point, n_alike: int) -> None:
        self._ranges = usual(point)
        self._lowest, self._highest = point.plausible
        self._p_same = P_SAME_LIVE if point.live else P_SAME
        self._p_positive = 1.0 - P_NEGATIVE if self._lowest < 0 else 1.0
        self._floor = 0.02 * max(abs(bound) for r in self._ranges for bound in r)  # near 0, half of itself is nothing
        self._log_coarsest = math.log(FLOAT_DIGIT.get(point.type, 1.0))  # a float is no finer for being far from 0 K
        self._share = 1.0 / n_alike
        self._top = float(np.log(self._density(np.array([_middle(r) for r in self._ranges]))).max())

    def log_odds(self, values: F64, quanta: F64, meaningless: F64) -> F64:
        """A point's polls as odds of meaning this quantity against meaning nothing, never below ODD.

        Args:
            values, quanta: shape (n_polls, ...): what is read, NaN where that is no measurement; what its last bit is worth.
            meaningless: `log_meaningless` of its words, of a shape that goes with one poll.
        """
        log_p = self._log_first(values[0], quanta[0])
        for value, before, quantum in zip(values[1:], values[:-1], quanta[1:], strict=True):
            log_p = log_p + self._log_next(value, before, quantum)
        return np.asarray(np.logaddexp(ODD, log_p - meaningless))

    def log_density(self, value: F64) -> F64:
        """ln of the density over ln |value|; -inf where the value is 0 or not plausible."""
        inside = (value >= self._lowest) & (value <= self._highest) & (value != 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(inside, self._top + self._share * (np.log(self._density(value)) - self._top), -np.inf)

    def is_usual(self, value: F64) -> NDArray[np.bool_]:
        """Whether running machines have it about there: plausible, and within three times the usual range."""
        near = np.zeros(value.shape, np.bool_)
        for low, high in self._ranges:
            margin = high - low
            near |= (value >= low / 3 if low >= 0 else value >= low - margin) & (value <= max(3 * high, high + margin))
        return near & (value >= self._lowest) & (value <= self._highest)

    def _density(self, value: F64) -> F64:
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.log(np.abs(value))
            density = np.full(value.shape, P_ANYTHING / SPAN_OF_ANYTHING)
            for bounds in self._ranges:
                density += self._around(value, size, bounds) / len(self._ranges)
        return density

    def _around(self, value: F64, size: F64, bounds: Range) -> F64:
        low, high = bounds
        if low < 0:
            spread = (high - low) / FOUR_OF_FIVE
            return np.asarray(_bell((value - _middle(bounds)) / spread, spread) * np.abs(value))
        spread = math.log(high / max(low, high / LOW_OF_ZERO)) / FOUR_OF_FIVE
        sign = np.where(value > 0, self._p_positive, 1.0 - self._p_positive)
        return np.asarray(sign * _bell((size - math.log(_middle(bounds))) / spread, spread))

    def _log_first(self, value: F64, quantum: F64) -> F64:
        """ln of the probability of these bits."""
        density = self.log_density(value)
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = density + np.minimum(self._log_coarsest, np.log(quantum / np.abs(value)))
        return np.where(value == 0, math.log(P_ZERO), np.where(density == -np.inf, -np.inf, bits))

    def _log_next(self, value: F64, before: F64, quantum: F64) -> F64:
        """ln of the probability of these bits after those of the poll before."""
        size = np.maximum(np.maximum(np.abs(value), np.abs(before)), self._floor)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            moved = np.abs(value - before)
            n_steps = np.maximum(moved / quantum, 1.0)
            reach = np.maximum(np.log(LARGEST_STEP * size / quantum), 1.0)
            step = np.where(moved <= LARGEST_STEP * size, (1.0 - P_JUMP) / (2.0 * n_steps * reach), 0.0)
            anywhere = P_JUMP * np.exp(self._log_first(value, quantum))
            return np.where(moved == 0, math.log(self._p_same), np.log((1.0 - self._p_same) * (step + anywhere)))


def _middle(bounds: Range) -> float:
    """The median of a range: geometric from 0 up, arithmetic where it reaches below."""
    low, high = bounds
    return (low + high) / 2 if low < 0 else math.sqrt(max(low, high / LOW_OF_ZERO) * high)


def _bell(z: F64, spread: float) -> F64:
    """A normal density of this spread, with its share of wider tails."""
    core = P_CORE * np.exp(-0.5 * z * z)
    wide = P_WIDE / WIDER * np.exp(-0.5 * (z / WIDER) ** 2)
    return np.asarray((core + wide) / (spread * math.sqrt(2.0 * math.pi)))


def flag_log_odds(point: Point, values: F64) -> F64:
    """A status bit's polls, shape (n_polls, ...): odds of saying what the map calls typical, against a coin."""
    if point.typical is None:
        return np.zeros(values.shape[1:])
    as_usual = (values[-1] >= point.typical[0]) & (values[-1] <= point.typical[1])
    return np.where(as_usual, math.log(2.0 * P_FLAG), math.log(2.0 * (1.0 - P_FLAG)))


def log_meaningless(words: F64) -> float:
    """ln of the probability of a value's words, shape (n_polls, n_words), in registers that mean something else.

    Many registers are 0, many hold small numbers, some a sentinel, and the lower halves of long values hold anything.
    """
    first = words[0]
    bits = 0.35 / (SPAN_OF_WORDS * np.maximum(first, 1.0)) + 0.35 / 65536.0
    bits += 0.2 * (first == 0) + 0.03 * np.isin(first, (0x7FFF, 0x8000, 0xFFFF))
    steps = np.abs(np.diff(words, axis=0))
    moved = (1.0 - P_SAME) * (0.5 / (2.0 * np.maximum(steps, 1.0) * SPAN_OF_WORDS) + 0.5 / 65536.0)
    return float(np.log(bits).sum() + np.log(np.where(steps == 0, P_SAME, moved)).sum())


class Laws:
    """What one device's points say together: each relation that holds is evidence, more so the narrower it is."""

    def __init__(self, found: Sequence[Relation], n_points: int) -> None:
        self._exponents = np.zeros((n_points, len(found)))
        self._bounds = np.full((max((len(r.ranges) for r in found), default=0), 2, len(found)), np.inf)
        self._gains = np.zeros(len(found))
        for r, relation in enumerate(found):
            for place, exponent in relation.terms:
                self._exponents[place, r] = exponent
            bounds = np.log(relation.ranges)
            self._bounds[: len(bounds), :, r] = bounds
            self._gains[r] = min(LAW_HELD_AT_MOST, math.log(SPAN_OF_LAWS / np.diff(bounds).sum()))
        self._involved = (self._exponents != 0).astype(np.float64)
        self._above = np.maximum(np.sign(self._exponents), 0.0)

    def score(self, sizes: F64) -> F64:
        """Sum over the relations, in nats.

        Args:
            sizes: ln |value| of every point, shape (n, n_points): NaN where a point says nothing, then its laws are silent;
                -inf where it is 0: no current and no power go together, no current and 60 kW do not.
        Returns: shape (n,).
        """
        unknown, zero = np.isnan(sizes), np.isneginf(sizes)
        zeros, zeros_above = zero @ self._involved, zero @ self._above
        ratios = np.where(unknown | zero, 0.0, sizes) @ self._exponents
        held = np.zeros(ratios.shape, np.bool_)
        for low, high in self._bounds:
            held |= (ratios >= low) & (ratios <= high)
        silent = (unknown @ self._involved > 0) | ((zeros_above > 0) & (zeros > zeros_above))
        said = np.where(held & (zeros == 0), self._gains, LAW_BROKEN)
        return np.asarray(np.where(silent, 0.0, said).sum(axis=1))
