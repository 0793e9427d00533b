"""Finds what is wrong with a register map from live words: word order, address base, scale, unit. Pure, no I/O.

A map that is off by one register, has its words swapped or means inches decodes without an error: to numbers that no
machine has. So every mistake that people make is undone in turn, and of each result we ask how likely a running machine
would have said exactly these words. The answer is a ranking with the live values beside it, for a person to compare with
the panel. A candidate's score is the logarithm of its posterior odds and has three parts:

- each value for itself, and how it moves from poll to poll (likelihood.Expectation): a swapped byte steps in 256s, a
  swapped word jumps by decades;
- values together (likelihood.Laws): peak over RMS, power over voltage and current, one phase against the next;
- what people get wrong: as written comes first, and a rare mistake needs more evidence than a common one.

0 is 0 in every order and at every scale. Where nothing tells the first from another, the ranking says `ambiguous`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from firmware_bridge.commissioning.evidence import Choices, Evidence, Sample
from firmware_bridge.commissioning.likelihood import F64
from firmware_bridge.commissioning.remap import Slip, has_scale, reordered, rescaled, shifted, swapped
from firmware_bridge.device import DeviceProfile, Span, WordOrder
from firmware_bridge.registers import plan_reads
from firmware_bridge.units import suffix_of, unit_of

SWAPS = (0, 1, 2, 3)
SHIFTS = (0, -1, 1)
POWERS = (-3, -2, -1, 0, 1, 2, 3)
MAX_POLLS = 20
MAX_LISTED = 40
BEAM = 8  # best candidates that a second slip is tried on
FITS_TOO = math.log(20.0)  # a rival within these odds fits too
FITS_TOO_ALIKE = math.log(1e4)  # one that gives nearly the same values
ALIKE = 0.02

# What people get wrong, in nats below "as written"
SWAP_COST = (0.0, 2.0, 3.5, 3.0)  # words, bytes, both: vendors differ in the words
SHIFT_COST = 2.5
POWER_COST, DECADE_COST = 3.0, 0.5  # every scale; each decade of it
GROUP_UNIT_COST, GROUP_POWER_COST = 4.0, 5.0  # all values of one unit
POINT_UNIT_COST, POINT_POWER_COST = 5.5, 5.5  # one of several


# ---------------------------------------------------------------------- what it answers
@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to read the device.

    Attributes:
        written: the map as it was given. swap: words (1), bytes (2) or both (3) against it. shift: to add to every
            address. power: of ten, to multiply every scale with. slips: single quantities beside that.
        values: what each point reads now, NaN where it says nothing. n_usual: how many of `n_told` lie where running
            machines have them; n_usual_as_written: with the map as given.
        score: log posterior odds. weight: its share among all candidates, which sum to 1.
    """

    written: DeviceProfile
    swap: int
    shift: int
    power: int
    slips: tuple[Slip, ...]
    values: dict[str, float]
    n_usual: int
    n_told: int
    n_usual_as_written: int
    score: float
    weight: float

    @property
    def as_written(self) -> bool:
        """Whether nothing is changed."""
        return not (self.swap or self.shift or self.power or self.slips)

    @property
    def profile(self) -> DeviceProfile:
        """The map with the mistakes undone."""
        moved = shifted(reordered(self.written, self.swap), self.shift)
        assert moved is not None, "a base that leaves the address space is no candidate"
        return moved if self.as_written else rescaled(moved, self.power, self.slips)

    @property
    def word_order(self) -> WordOrder | None:
        """The device's word order in this reading; None where no value is longer than a register."""
        long = any(point.n_words > 1 for point in self.written.points)
        return swapped(self.written.word_order, self.swap) if long else None

    @property
    def changes(self) -> tuple[str, ...]:
        """What to write instead in the device file, a line each; none where it is right as written."""
        return tuple(_changes(self))

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        fits = Fit(self.score, self.n_usual, self.n_told).reason
        return fits if self.as_written else f"{fits}; as written {self.n_usual_as_written}"


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The candidates, best first: the MAX_LISTED likeliest, and every word order with every base and scale of all.

    `ambiguous`: another one fits as well, and `advice` says what would tell them apart. Nothing should start on that.
    """

    candidates: tuple[Candidate, ...]
    ambiguous: bool
    advice: str

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    @property
    def as_written(self) -> Candidate:
        """The map as it was given, wherever it stands."""
        return next(candidate for candidate in self.candidates if candidate.as_written)


@dataclass(frozen=True, slots=True)
class Fit:
    """`score` in nats: above 0 the words are likelier from such a device at work than from registers of something else."""

    score: float
    n_usual: int
    n_told: int

    @property
    def reason(self) -> str:
        """As a person says it."""
        return f"{self.n_usual} of {self.n_told} values lie where running machines have them"


def rank(profile: DeviceProfile, samples: Sequence[Sample]) -> Ranking:
    """Every way to read this device, best first.

    Args:
        profile: the map as somebody wrote it.
        samples: polls, oldest first; each holds the words of `spans_to_read`. One will do; five show what moves.
    Raises: ValueError: no poll.
    """
    if not samples:
        raise ValueError("no poll to judge by")
    return _Search(profile, samples[-MAX_POLLS:]).ranking()


def fit(profile: DeviceProfile, samples: Sequence[Sample]) -> Fit:
    """How well the words fit the map as it stands."""
    evidence = Evidence(profile, samples[-MAX_POLLS:])
    told = np.array([has_scale(point) for point in profile.points]) & np.isfinite(evidence.values[0, :, 0])
    score = float(evidence.score(0, evidence.as_written[None, :])[0])
    return Fit(score, int(evidence.usual[0, :, 0].sum()), int(told.sum()))


def spans_to_read(profile: DeviceProfile) -> tuple[Span, ...]:
    """The requests whose words `rank` wants: the map's own, then those one address lower and higher.

    Their neighbours may be refused: an address without an answer is evidence too.
    """
    plans = (plan_reads(moved) for shift in SHIFTS if (moved := shifted(profile, shift)) is not None)
    return tuple(dict.fromkeys(span for plan in plans for span in plan))


def _changes(candidate: Candidate) -> Iterator[str]:
    written, right = candidate.written, candidate.profile
    if candidate.swap:
        yield f'word_order = "{right.word_order}"'
        yield from (f'{p.name}: word_order = "{p.word_order}"' for p in right.points if p.word_order)
    if candidate.shift:
        base = written.address_base - candidate.shift
        yield f"address_base = {base}" if base in (0, 1) else f"every address {candidate.shift:+d}"
    if candidate.power:
        yield f"every scale times {10.0**candidate.power:g}"
    told = {name: slip for slip in candidate.slips for name in slip.points}
    for point in right.points:
        if slip := told.get(point.name):
            offset = f", offset = {point.offset:g}" if point.offset or slip.unit.offset else ""
            unit = f"  # its register holds {slip.unit.holds}, not {unit_of(point.name)}" if slip.unit.holds else ""
            yield f"{point.name}: scale = {point.scale:g}{offset}{unit}"


# ---------------------------------------------------------------------- looking for them
@dataclass(frozen=True, slots=True)
class _Target:
    """Points that are put right together: one, or all of one unit."""

    places: tuple[int, ...]
    unit_cost: float
    power_cost: float


@dataclass(frozen=True, slots=True)
class _Step:
    """One slip that can be tried: these points take this reading."""

    places: tuple[int, ...]
    reading: int
    slip: Slip
    cost: float


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A candidate before it is dressed. `choice`: the reading of every point, shape (n_points,)."""

    frame: int
    power: int
    steps: tuple[_Step, ...]
    choice: Choices
    score: float

    @property
    def key(self) -> tuple[int, bytes]:
        """The same for two ways to say the same."""
        return self.frame, self.choice.tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """A base in one frame, bare and with each slip that touches other points: as rows, scored together."""

    frame: int
    power: int
    taken: tuple[_Step, ...]
    steps: Sequence[_Step]
    choices: Choices
    scores: F64

    def found(self, row: int) -> _Found:
        """One row as a candidate."""
        steps = self.taken if row == 0 else (*self.taken, self.steps[row - 1])
        return _Found(self.frame, self.power, steps, self.choices[row], float(self.scores[row]))


class _Search:
    """Every frame, every power and every single slip on top of it; then a second slip on the best of these."""

    def __init__(self, profile: DeviceProfile, samples: Sequence[Sample]) -> None:
        self._profile = profile
        long = any(point.n_words > 1 for point in profile.points)
        self._evidence = Evidence(
            profile, samples, swaps=SWAPS if long else (0,), shifts=SHIFTS, powers=POWERS, with_units=True
        )
        self._told = np.isfinite(self._evidence.values[:, :, 0])
        self._scaled = np.array([has_scale(point) for point in profile.points])
        self._targets = _targets(profile)
        self._steps = {power: list(self._slips(power)) for power in POWERS}

    def ranking(self) -> Ranking:
        """The candidates in order, dressed for people."""
        batches = self._first()
        batches += [more for f in _best(batches, BEAM) if f.steps for more in self._extended(f, (f.frame,))]
        plain = (batch.found(0) for batch in batches if not batch.taken)
        listed: dict[tuple[int, bytes], _Found] = {}
        for found in chain(_best(batches, MAX_LISTED), plain):
            listed.setdefault(found.key, found)  # the first way to say it is the likeliest
        total = np.logaddexp.reduce(np.concatenate([batch.scores for batch in batches]))
        ordered = sorted(listed.values(), key=lambda found: -found.score)
        candidates = tuple(self._dressed(found, math.exp(found.score - total)) for found in ordered)
        rival = next((c for c in candidates[1:] if _fits_too(candidates[0], c)), None)
        return Ranking(candidates, rival is not None, "" if rival is None else _advice(candidates[0], rival))

    def _first(self) -> list[_Batch]:
        """No slip and every single one, in every frame at every power."""
        batches = []
        for power in POWERS:
            base = np.full(len(self._profile.points), self._evidence.reading(0, power), np.intp)
            batches += self._extended(_Found(0, power, (), base, 0.0), range(len(self._evidence.frames)))
        return batches

    def _extended(self, base: _Found, frames: Sequence[int]) -> list[_Batch]:
        """`base` with each slip that touches other points, in each of the frames."""
        touched = {place for step in base.steps for place in step.places}
        steps = [step for step in self._steps[base.power] if touched.isdisjoint(step.places)]
        choices = np.tile(base.choice, (1 + len(steps), 1))
        touches = np.zeros(choices.shape, np.bool_)
        for row, step in enumerate(steps, 1):
            choices[row, step.places] = step.reading
            touches[row, step.places] = True
        cost = np.array([0.0, *(step.cost for step in steps)]) + sum(step.cost for step in base.steps)
        cost += POWER_COST + DECADE_COST * abs(base.power) if base.power else 0.0
        batches = []
        for f in frames:
            frame = self._evidence.frames[f]
            scores = self._evidence.score(f, choices) - cost - _frame_cost(frame.swap, frame.shift)
            speaks = (touches & self._told[f]).any(axis=1)
            scores[1:][~speaks[1:]] = -np.inf  # a slip of what says nothing changes nothing
            batches.append(_Batch(f, base.power, base.steps, steps, choices, scores))
        return batches

    def _slips(self, base_power: int) -> Iterator[_Step]:
        """What can be wrong beside the scale of all: the unit, or the power of ten, of a target."""
        for target in self._targets:
            names = tuple(self._profile.points[place].name for place in target.places)
            for number, unit in enumerate(self._evidence.units[target.places[0]][1:], 1):
                reading = self._evidence.reading(number, base_power)
                yield _Step(target.places, reading, Slip(names, 0, unit), target.unit_cost)
            for power in POWERS:
                if power != base_power:
                    cost = target.power_cost + DECADE_COST * abs(power - base_power)
                    reading = self._evidence.reading(0, power)
                    yield _Step(target.places, reading, Slip(names, power - base_power), cost)

    def _dressed(self, found: _Found, weight: float) -> Candidate:
        evidence, frame = self._evidence, self._evidence.frames[found.frame]
        each = np.arange(len(self._profile.points))
        values = evidence.values[found.frame, each, found.choice]
        usual = evidence.usual[found.frame, each, found.choice]
        written = next(f for f, other in enumerate(evidence.frames) if not other.swap and not other.shift)
        usual_as_written = evidence.usual[written, each, evidence.as_written]
        return Candidate(
            written=self._profile,
            swap=frame.swap,
            shift=frame.shift,
            power=found.power,
            slips=tuple(step.slip for step in found.steps),
            values={point.name: float(value) for point, value in zip(self._profile.points, values, strict=True)},
            n_usual=int(usual.sum()),
            n_told=int((self._told[found.frame] & self._scaled).sum()),
            n_usual_as_written=int(usual_as_written.sum()),
            score=found.score,
            weight=weight,
        )


def _best(batches: Sequence[_Batch], n: int) -> list[_Found]:
    """The best rows of all batches, best first."""
    scores = np.concatenate([batch.scores for batch in batches])
    starts = np.cumsum([0, *(len(batch.scores) for batch in batches)])
    found = []
    for place in np.argsort(-scores, kind="stable")[:n]:
        batch = int(np.searchsorted(starts, place, side="right")) - 1
        if np.isfinite(scores[place]):
            found.append(batches[batch].found(int(place - starts[batch])))
    return found


def _targets(profile: DeviceProfile) -> list[_Target]:
    """All points of one unit, and each of several by itself. The scale of all points is tried without a target."""
    units: dict[str, list[int]] = {}
    for place, point in enumerate(profile.points):
        if has_scale(point):
            units.setdefault(suffix_of(point.name), []).append(place)
    power_cost = GROUP_POWER_COST if len(units) > 1 else math.inf
    targets = [_Target(tuple(group), GROUP_UNIT_COST, power_cost) for group in units.values()]
    alone = [place for group in units.values() if len(group) > 1 for place in group]
    return targets + [_Target((place,), POINT_UNIT_COST, POINT_POWER_COST) for place in alone]


def _frame_cost(swap: int, shift: int) -> float:
    return SWAP_COST[swap] + SHIFT_COST * abs(shift)


def _fits_too(best: Candidate, rival: Candidate) -> bool:
    """Whether the words leave it open. That a word order and a base stand so in the file must not make us sure of them."""
    lead = best.score + _frame_cost(best.swap, best.shift) - rival.score - _frame_cost(rival.swap, rival.shift)
    return lead <= (FITS_TOO_ALIKE if _alike(best, rival) else FITS_TOO)


def _alike(best: Candidate, rival: Candidate) -> bool:
    """Whether two word orders or bases give nearly the same values.

    A float keeps its first digits when its low word is the neighbour's: then only how values move tells, and that slowly.
    """
    same_frame = (best.swap, best.shift) == (rival.swap, rival.shift)
    return not same_frame and all(
        math.isclose(value, rival.values[name], rel_tol=ALIKE)
        for name, value in best.values.items()
        if math.isfinite(value) and math.isfinite(rival.values[name])
    )


def _advice(best: Candidate, rival: Candidate) -> str:
    """What would tell two candidates apart."""
    told = {p.name: best.values[p.name] for p in best.written.points if has_scale(p)}
    told = {name: value for name, value in told.items() if math.isfinite(value)}
    if not told:
        return "the device answers none of these addresses; check the unit id and the device file"
    if 2 * sum(value == 0 for value in told.values()) >= len(told):
        return "0 looks the same in every word order and at every scale; let the machine run, then read again"
    if _alike(best, rival):
        return "two word orders give nearly the same values; read again when they have changed"
    other = {name: rival.values[name] for name in told if math.isfinite(rival.values[name])}
    name = max(other, key=lambda name: _apart(told[name], other[name]), default="")
    if not name or not _apart(told[name], other[name]):
        return "what differs says nothing now; let the machine run, then read again"
    unit = unit_of(name)
    return f"two readings fit; compare with the display: {name} is {told[name]:.4g} {unit} or {other[name]:.4g} {unit}"


def _apart(one: float, other: float) -> float:
    """How far two readings of one point lie apart, 0 to 2."""
    return abs(one - other) / max(abs(one), abs(other)) if one != other else 0.0
