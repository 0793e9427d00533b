"""New baseline needed: whether what changed is the measurement or the machine itself, and not its health.

A sensor put back on another mount, another gain, another machine on the same base, a service: after each of them the frozen
baseline is somebody else's, and deviations from it accuse nobody. Size does not tell them from a fault; physics does:

    A fault adds. Lines, impacts and noise come on top of what the machine did before; a change in which one level falls about
    as far as any other rises is no fault. Two of the catalogue take away (a test knows them): a dry run, which shows in
    power and pressure, and too much grease, which takes a few decibels of the high frequencies and nothing else.
    A gain multiplies. Lines, bands and floor change by one and the same factor, where a fault prefers some of them.
    A mount filters. What moves lies at high frequencies, by more than grease could; the shaft's own lines stay.

It comes at once, from one decision to the next or over a stop, where a fault grows. New shocks or a bearing's line are
no work of a mount, and what moves power or pressure as far as vibration is no work of a sensor: both are faults.
A fault that is excused costs a machine, a false alarm costs a walk. So one look decides, whatever is unclear is a fault, and
what grows after it was excused is excused no longer. Pure: one vector in, memory of 2 m vectors.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from agent.features import Column, FeatureSet
from agent.vocabulary import F32, F64, Mask
from firmware_bridge.units import suffix_of

MIN_DEVIATION = 4.0  # robust standard deviations: where the fault catalogue begins to count a column as moved
FALL_SHARE = 0.5  # of the largest rise that the largest fall must reach, to be "about as far"
JUMP_SHARE = 0.5  # of the deviation that must have come at once
GAIN_SPREAD = 0.25  # how far levels may lie from their common factor, of its logarithm
MIN_GAIN_LEVELS = 6  # fewer may agree by chance
MOUNT_FALL = math.log(10 ** (10 / 20))  # 10 dB: a loose mount takes 6 to 20 (domain practice), too much grease up to 6
GROWTH = 1.5  # times the rise with which a change was excused; beyond, something grows
LEVEL_UNITS = ("m_s2", "mm_s", "um", "g")
SHOCK_NAMES = ("vibration.kurtosis", "vibration.crest", "kurtosis", "crest")
SHAFT_LINES = ("spectrum.line_", "spectrum.harmonics", "spectrum.vane_pass")  # of weaker ones the floor is most
VIBRATION_UNITS = (*LEVEL_UNITS, "ratio", "hz")
NEW_BASELINE = "new_baseline:"  # the beginning of the condition's name; the kind follows
N_TOLD = 2  # columns told of each direction


class NoveltyKind(StrEnum):
    """What has changed, as far as it shows."""

    REMOUNTED = "remounted"  # the sensor's mount or gain
    ANOTHER_MACHINE = "another_machine"  # or the sensor at another place
    SERVICED = "serviced"  # levels only fell: balanced, aligned, greased


@dataclass(frozen=True, slots=True)
class Novelty:
    """A change that asks for a new baseline.

    Attributes:
        confidence: 0.5 where it just passes, towards 1 the less a fault could do it.
        falls, rises: columns that moved furthest, by place in the vector, furthest first.
        factor: by which all levels changed, where it is one; else 1.
    """

    kind: NoveltyKind
    confidence: float
    falls: tuple[int, ...]
    rises: tuple[int, ...]
    factor: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class ColumnKinds:
    """What a vector's columns are to this question; masks of shape (n_columns,).

    Attributes:
        level: how strong something vibrates: a line, a band, the floor, the whole.
        low: those of them that any mount passes: lines of the shaft, and velocities, which end at 1 kHz by the norms. Not the
            velocity of a burst, where lines of their own say it better: of a quiet machine it is the floor's.
        burst: those of them that one burst sensor measures.
        shock: how sharp it is, whatever its strength: kurtosis, crest. bearing: a bearing's line over its floor.
        process: what is no vibration at all: power, current, pressure, flow, temperature.
    """

    level: Mask
    low: Mask
    burst: Mask
    shock: Mask
    bearing: Mask
    process: Mask

    @classmethod
    def of(cls, features: FeatureSet) -> ColumnKinds:
        """By each column's unit and channel."""
        level = [_unit(column) in LEVEL_UNITS and column.transform == "log" for column in features.columns]
        low = [
            column.name.startswith(SHAFT_LINES) or (column.channel != "burst" and _unit(column) == "mm_s")
            for column in features.columns
        ]
        burst = [column.channel == "burst" for column in features.columns]
        shock = [column.quantity.startswith(SHOCK_NAMES) for column in features.columns]
        bearing = [column.quantity.startswith("envelope.") and _unit(column) == "ratio" for column in features.columns]
        process = [column.channel != "burst" and _unit(column) not in VIBRATION_UNITS for column in features.columns]
        masks = [np.array(mask, np.bool_) for mask in (level, low, burst, shock, bearing, process)]
        return cls(masks[0], masks[0] & masks[1], masks[0] & masks[2], *masks[3:])


def _unit(column: Column) -> str:
    """The unit's suffix; "" of a statistic that has none of its own."""
    try:
        return suffix_of(column.quantity)
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """Deviations after a change less those before it, in standard deviations; 0 where not judged. All of shape (n_columns,).

    Attributes: logarithm: the same in the columns' own units, which are logarithms for levels.
    """

    after: F64
    change: F64
    logarithm: F64
    judged: Mask


class BaselineCheck:
    """Asks of one machine, whenever k of its last m decisions exceed the threshold, whether the baseline is still its own.

    Args: k, m: as the machine's alarm has them, so that the answer is there when the alarm would be raised.
    """

    def __init__(self, features: FeatureSet, k: int, m: int) -> None:
        assert 1 <= k <= m
        self._kinds = ColumnKinds.of(features)
        self._k = k
        self._latest: deque[tuple[bool, F64, Mask]] = deque(maxlen=m)
        self._quiet: deque[F64] = deque(maxlen=m)  # the last that did not exceed
        self._decided = False
        self._held = False
        self._excused_rise = MIN_DEVIATION
        self.novelty: Novelty | None = None

    def step(self, deviations: F32, judged: Mask, known: Mask, scale: F64, exceeds: bool) -> Novelty | None:
        """One decision.

        Args:
            deviations, judged: shape (n_columns,), as `Baseline.refer` gives them. scale: the baseline's.
            known: shape (n_columns,), the columns that the baseline has: a process that cannot be asked now excuses nothing.
            exceeds: whether the score is above its threshold.
        Returns: what is known to have changed since the baseline was learned, for as long as it shows.
        """
        z = np.where(judged, deviations, 0.0).astype(np.float64)
        self._latest.append((exceeds, z, judged))
        n_exceeding = sum(exceeding for exceeding, _, _ in self._latest)
        if not exceeds:
            self._quiet.append(z)
        if n_exceeding == 0:
            self._decided, self._held, self.novelty = False, False, None
        elif not self._decided and n_exceeding >= self._k:
            self._decided, self._held = True, False
            unasked = (self._kinds.process & known & ~judged).any()
            self.novelty = None if unasked else self._recognise(self._seen(scale))
        elif self.novelty is not None and self._accuses(self._seen(scale)):
            self.novelty = None
        return self.novelty

    @property
    def standing(self) -> bool:
        """Whether the baseline is known to be no more its own."""
        return self.novelty is not None or self._held

    def hold(self) -> None:
        """It was so before a restart, and is until the next decisions can tell."""
        self._held = True

    def forget(self) -> None:
        """Somebody ordered a new baseline."""
        self._latest.clear()
        self._quiet.clear()
        self._decided, self._held, self.novelty = False, False, None

    def _seen(self, scale: F64) -> _Change:
        """Medians, because the first window after a change has the fitter's hand in it."""
        exceeding = [(z, judged) for exceeds, z, judged in self._latest if exceeds]
        after = np.median([z for z, _ in exceeding], axis=0)
        judged = np.logical_and.reduce([judged for _, judged in exceeding])
        before = np.median(self._quiet, axis=0) if self._quiet else np.zeros_like(after)
        change = np.where(judged, after - before, 0.0)
        return _Change(after, change, change * scale, judged)

    def _recognise(self, seen: _Change) -> Novelty | None:
        level = np.where(self._kinds.level, seen.change, 0.0)
        fall, rise = max(0.0, float(-level.min())), max(0.0, float(level.max()))
        if self._grew(seen, max(fall, rise)) or self._moved_process(seen, fall) or self._shows_damage(seen):
            return None
        self._excused_rise = max(rise, MIN_DEVIATION)
        gain = self._gain(seen)
        if gain is not None:
            factor, spread = gain
            return Novelty(NoveltyKind.REMOUNTED, 1 - 0.5 * spread / GAIN_SPREAD, *_furthest(level), factor)
        if fall >= max(MIN_DEVIATION, FALL_SHARE * rise) and not self._is_greased(seen, level):
            return Novelty(self._kind(level), 1 - 0.5 * FALL_SHARE * rise / fall, *_furthest(level))
        return None

    def _grew(self, seen: _Change, largest: float) -> bool:
        """Whether most of where the levels now are was there before."""
        return largest < JUMP_SHARE * float(np.abs(seen.after[self._kinds.level]).max(initial=0.0))

    def _moved_process(self, seen: _Change, fall: float) -> bool:
        return float(np.abs(seen.change[self._kinds.process]).max(initial=0.0)) >= max(MIN_DEVIATION, fall)

    def _is_greased(self, seen: _Change, level: F64) -> bool:
        """Whether only high frequencies fell, and not as far as without a proper mount: that may be a bearing that is too full."""
        low_moved = np.abs(level[self._kinds.low]).max(initial=0.0) >= MIN_DEVIATION
        least = float(seen.logarithm[self._kinds.level].min())
        return not low_moved and float(level.max()) < MIN_DEVIATION and least > -MOUNT_FALL

    def _shows_damage(self, seen: _Change) -> bool:
        """A bearing's line; or shocks, sharper and stronger: sharper alone is what is left when a line has gone."""
        kinds = self._kinds
        bearing, shock, level = (
            float(seen.change[mask].max(initial=0.0)) for mask in (kinds.bearing, kinds.shock, kinds.level)
        )
        return bearing >= MIN_DEVIATION or min(shock, level) >= MIN_DEVIATION

    def _kind(self, level: F64) -> NoveltyKind:
        if np.abs(level[self._kinds.low]).max(initial=0.0) < MIN_DEVIATION:
            return NoveltyKind.REMOUNTED
        return NoveltyKind.SERVICED if level.max() < MIN_DEVIATION else NoveltyKind.ANOTHER_MACHINE

    def _gain(self, seen: _Change) -> tuple[float, float] | None:
        """The factor by which all levels of the burst sensor changed, and how far they lie from it; None: there is none."""
        at = np.flatnonzero(self._kinds.burst & seen.judged)
        if at.size < MIN_GAIN_LEVELS or float(np.median(np.abs(seen.change[at]))) < MIN_DEVIATION:
            return None
        logarithm = float(np.median(seen.logarithm[at]))
        spread = float(np.abs(seen.logarithm[at] - logarithm).max()) / max(abs(logarithm), 1e-9)
        return (float(np.exp(logarithm)), spread) if spread <= GAIN_SPREAD else None

    def _accuses(self, seen: _Change) -> bool:
        """What was excused has become a fault: levels grow beyond what they rose by, or damage shows."""
        rise = float(np.where(self._kinds.level, seen.change, 0.0).max())
        return rise >= GROWTH * self._excused_rise or self._shows_damage(seen)


def _furthest(level: F64) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The columns that fell and rose furthest, as far as they moved at all."""
    order = [int(at) for at in np.argsort(level)]
    falls = tuple(at for at in order[:N_TOLD] if level[at] <= -MIN_DEVIATION)
    rises = tuple(at for at in order[: -N_TOLD - 1 : -1] if level[at] >= MIN_DEVIATION)
    return falls, rises
