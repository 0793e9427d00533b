"""Register maps as people get them wrong, on machines that run: how often does commissioning find the mistake?

A device of config/devices gets the words of a running machine, and the ranking gets its map with a known mistake. Neither
the machines nor the mistakes are drawn from the ranking's own tables (firmware_bridge/quantities.py): else this would only
ask whether it agrees with itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from firmware_bridge.commissioning.plausible import Candidate, Ranking, rank, spans_to_read
from firmware_bridge.device import DeviceProfile, Point, load_device
from firmware_bridge.registers import Decoder, encode
from firmware_bridge.units import suffix_of
from simulator.running import shown_values
from simulator.scenario import Plant, Scenario, load_scenario
from simulator.variation import generator

N_POLLS = 5
MIN_VALUES = 5
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
UNITS = {  # the map's unit: (what the register holds instead, value = factor * register + offset)
    "mm_s": (25.4, 0.0),
    "g": (1.0 / 9.80665, 0.0),
    "degc": (5.0 / 9.0, -160.0 / 9.0),
    "bar": (0.0689475729, 0.0),
    "m3_h": (0.06, 0.0),
    "rpm": (60.0, 0.0),
}
KINDS = (
    "right", "order", "base", "scale", "order+base", "order+scale", "base+scale", "order+base+scale",
    "unit of all", "unit", "scale of a unit", "scale of one value",
)  # fmt: skip
COUNTED = KINDS[1:8]  # what the goal of 95 % speaks of
Words = dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True, eq=False)
class Miswired:
    """One map with its mistake, and live words of the device."""

    device: str
    kind: str
    true: DeviceProfile
    written: DeviceProfile
    samples: tuple[Words, ...]


# ---------------------------------------------------------------------- live words
def _polled_values(
    profile: DeviceProfile, device: str, plant: Plant, rng: np.random.Generator
) -> list[dict[str, float]]:
    """What the device shows in N_POLLS polls a second apart: by the plant where it knows the device, else by physics."""
    found = [spec for spec in plant.sets["a"].devices if spec.device == device]
    if found:
        sensor = found[rng.integers(len(found))].name
        start_s = float(rng.uniform(5.0, 60.0))
        return [plant.device("a", sensor, start_s + poll) or {} for poll in range(N_POLLS)]
    values = shown_values(profile, rng)
    unrest = {name: _unrest(name) * math.exp(rng.normal(0.0, 0.5)) for name in values}
    polls: list[dict[str, float]] = []
    for _ in range(N_POLLS):
        if polls and rng.random() < 0.25:  # the device has not renewed its values
            polls.append(polls[-1])
        else:
            polls.append({name: value * (1.0 + unrest[name] * rng.standard_normal()) for name, value in values.items()})
    return polls


def _unrest(name: str) -> float:
    """By how much a steady machine's quantity moves from second to second, of itself."""
    suffix = suffix_of(name)
    if suffix in ("mm_s", "g", "m_s2", "um") or "kurtosis" in name or "crest" in name:
        return 0.03
    return 3e-4 if suffix in ("h", "kwh", "hz", "degc", "rpm") else 4e-3


def _surroundings(profile: DeviceProfile, image: Words, rng: np.random.Generator) -> Callable[[], Words]:
    """What stands at the addresses within two of the map: nothing, zeros, settings, or other quantities that move."""
    beside = {
        (function, address + step) for function, address in image for step in (-2, -1, 1, 2) if address + step >= 0
    } - image.keys()
    refuses = not profile.allow_gaps and rng.random() < 0.5
    kept: Words = {}
    moving: dict[tuple[int, int], float] = {}
    words = list(image.values())
    for place in sorted(beside):
        draw = rng.random()
        if refuses and draw < 0.8:
            continue
        if draw < 0.4:
            kept[place] = 0
        elif draw < 0.7:
            kept[place] = int(math.exp(rng.uniform(0.0, math.log(65535.0))))
        else:
            moving[place] = min(65535.0, words[rng.integers(len(words))] * math.exp(rng.normal(0.0, 1.0)))
    return lambda: kept | {p: int(min(65535.0, w * (1.0 + 0.01 * rng.standard_normal()))) for p, w in moving.items()}


def _can_say(true: DeviceProfile, values: Mapping[str, float]) -> bool:
    """Whether the device can show these values: a register in l/min must not overflow where one in m3/h did not."""
    image = encode(true, values)
    decoder = Decoder(true)
    words = {
        i: np.array([image.get((read.function, a), 0) for a in range(read.address, read.end)], np.uint16)
        for i, read in enumerate(decoder.reads)
    }
    shown, _ = decoder.measure(words)
    return bool(np.isfinite(shown).all())


def _samples(
    true: DeviceProfile, written: DeviceProfile, polls: Sequence[Mapping[str, float]], rng: np.random.Generator
) -> tuple[Words, ...]:
    """The words that reading `written` brings from a device whose map is `true`."""
    images = [encode(true, values) for values in polls]
    beside = _surroundings(true, images[0], rng)
    asked = [(span.function, a) for span in spans_to_read(written) for a in range(span.address, span.end)]
    gap = dict.fromkeys(asked, 0) if true.allow_gaps else {}
    held = [gap | beside() | image for image in images]
    return tuple({place: words[place] for place in asked if place in words} for words in held)


# ---------------------------------------------------------------------- mistakes
def _reordered(profile: DeviceProfile, rng: np.random.Generator) -> DeviceProfile | None:
    """Another word order for the whole device; None where no value has more than one word."""
    if all(point.n_words == 1 for point in profile.points):
        return None
    turn = int(rng.integers(1, 4))

    def other(order: str) -> str:
        return ORDERS[ORDERS.index(order) ^ turn]

    points = tuple(
        msgspec.structs.replace(p, word_order=other(p.word_order)) if p.word_order else p for p in profile.points
    )
    return msgspec.structs.replace(profile, word_order=other(profile.word_order), points=points, examples=())


def _rebased(profile: DeviceProfile, rng: np.random.Generator) -> DeviceProfile | None:
    """Every address one too high or too low; None where that leaves the address space."""
    step = int(rng.choice((-1, 1)))
    points = []
    for point in profile.points:
        exponent = None if point.exponent_address is None else point.exponent_address + step
        points.append(msgspec.structs.replace(point, address=point.address + step, exponent_address=exponent))
    try:
        return msgspec.structs.replace(profile, points=tuple(points), texts=(), examples=())
    except ValueError:
        return None


def _rescaled(profile: DeviceProfile, rng: np.random.Generator, names: Iterable[str]) -> DeviceProfile:
    factor = 10.0 ** float(rng.choice((-3, -2, -1, 1, 2, 3), p=(0.15, 0.15, 0.2, 0.2, 0.15, 0.15)))
    chosen = set(names)
    points = tuple(
        msgspec.structs.replace(p, scale=p.scale * factor) if p.name in chosen else p for p in profile.points
    )
    return msgspec.structs.replace(profile, points=points, examples=())


def _scalable(profile: DeviceProfile) -> list[Point]:
    return [point for point in profile.points if point.type != "bit" and point.bits is None]


def _of_one_unit(profile: DeviceProfile, rng: np.random.Generator, known: Iterable[str] | None = None) -> list[str]:
    """The points of one unit, drawn among the device's units (that are `known`)."""
    units = sorted(
        {suffix_of(p.name) for p in _scalable(profile)} & set(known if known is not None else _all_units(profile))
    )
    if not units:
        return []
    unit = units[rng.integers(len(units))]
    return [point.name for point in _scalable(profile) if suffix_of(point.name) == unit]


def _all_units(profile: DeviceProfile) -> set[str]:
    return {suffix_of(point.name) for point in _scalable(profile)}


def _in_another_unit(profile: DeviceProfile, names: Iterable[str]) -> DeviceProfile:
    """The device as it would be with registers in inches, Fahrenheit, psi: the map's true scale and offset change."""
    chosen = set(names)
    points = []
    for p in profile.points:
        factor, offset = UNITS.get(suffix_of(p.name), (1.0, 0.0)) if p.name in chosen else (1.0, 0.0)
        points.append(msgspec.structs.replace(p, scale=p.scale * factor, offset=p.offset * factor + offset))
    return msgspec.structs.replace(profile, points=tuple(points), examples=())


def miswire(profile: DeviceProfile, kind: str, rng: np.random.Generator) -> tuple[DeviceProfile, DeviceProfile] | None:
    """The map that is true of the device, and the one that somebody wrote; None where the kind does not apply to it."""
    if kind.startswith("unit"):
        names = _of_one_unit(profile, rng, UNITS)
        names = names if kind == "unit of all" else names[:1]
        return (_in_another_unit(profile, names), profile) if names else None
    if kind == "scale of a unit":
        return profile, _rescaled(profile, rng, _of_one_unit(profile, rng))
    if kind == "scale of one value":
        scalable = _scalable(profile)
        return profile, _rescaled(profile, rng, [scalable[rng.integers(len(scalable))].name])
    written: DeviceProfile | None = profile
    for mistake in kind.split("+"):
        if written is not None and mistake == "order":
            written = _reordered(written, rng)
        if written is not None and mistake == "base":
            written = _rebased(written, rng)
        if written is not None and mistake == "scale":
            written = _rescaled(written, rng, [point.name for point in _scalable(written)])
    return None if written is None else (profile, written)


# ---------------------------------------------------------------------- how often it is found
def miswired(config_dir: Path, seed: int, n: int, kinds: Sequence[str] = KINDS) -> Iterator[Miswired]:
    """`n` maps, kinds and devices in turn; from one seed the same ones."""
    devices = {
        path.stem: load_device(config_dir, path.stem) for path in sorted((config_dir / "devices").glob("*.toml"))
    }
    healthy = load_scenario("healthy", config_dir.parent)
    usable = [name for name, profile in devices.items() if len(_scalable(profile)) >= MIN_VALUES]
    made = 0
    for number in range(100 * n):
        if made == n:
            return
        rng = generator(seed, "miswired", number)
        kind = kinds[made % len(kinds)]
        device = usable[rng.integers(len(usable))]
        maps = miswire(devices[device], kind, rng)
        if maps is None:
            continue
        true, written = maps
        polls = _polled_values(true, device, _plant(healthy, rng), rng)
        if not _can_say(true, polls[0]):
            continue
        made += 1
        yield Miswired(device, kind, true, written, _samples(true, written, polls, rng))


def _plant(healthy: Scenario, rng: np.random.Generator) -> Plant:
    """Two healthy sets of machines, other ones at every call."""
    sets = tuple(msgspec.structs.replace(s, seed=int(rng.integers(1 << 31)), spread=0.3) for s in healthy.sets)
    return Plant(msgspec.structs.replace(healthy, sets=sets, seed=int(rng.integers(1 << 31))))


def is_right(candidate: Candidate, true: DeviceProfile) -> bool:
    """Whether the candidate reads every register as the device means it."""
    right = candidate.profile
    return all(
        right.wire_address(mine) == true.wire_address(meant)
        and (meant.n_words == 1 or right.order_of(mine) == true.order_of(meant))
        and math.isclose(mine.scale, meant.scale, rel_tol=1e-5)
        and math.isclose(mine.offset, meant.offset, rel_tol=1e-5, abs_tol=1e-3)
        for mine, meant in zip(right.points, true.points, strict=True)
    )


def place_of_right(ranking: Ranking, true: DeviceProfile) -> int:
    """Where the right candidate stands, 1 for first; 0 where it is not in the list."""
    return next((place for place, c in enumerate(ranking.candidates, 1) if is_right(c, true)), 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one map."""

    device: str
    kind: str
    place: int
    ambiguous: bool


def miswired_report(config_dir: Path, seed: int, n: int = 200, kinds: Sequence[str] = COUNTED) -> list[Outcome]:
    """`n` simulated miswired maps of at least MIN_VALUES values, each ranked."""
    outcomes = []
    for case in miswired(config_dir, seed, n, kinds):
        ranking = rank(case.written, case.samples)
        outcomes.append(Outcome(case.device, case.kind, place_of_right(ranking, case.true), ranking.ambiguous))
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each kind and one for all."""
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    return [_line(kind, [o for o in outcomes if o.kind == kind]) for kind in kinds] + [_line("all", outcomes)]


def _line(what: str, outcomes: Sequence[Outcome]) -> str:
    first, listed, unsure = (
        sum(told) / len(outcomes)
        for told in zip(*((o.place == 1, o.place > 0, o.ambiguous) for o in outcomes), strict=True)
    )
    count = f"{what:<18} {len(outcomes):4d} maps"
    return f"{count}: right one first {first:6.1%}, in the list {listed:6.1%}, said to be unsure {unsure:5.1%}"
