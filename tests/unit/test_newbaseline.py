"""What a fault cannot do is recognised as another measurement or machine; what a fault can do never is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from agent.baseline import Baseline
from agent.decision.newbaseline import GROWTH, MIN_DEVIATION, BaselineCheck, ColumnKinds, Novelty, NoveltyKind
from agent.diagnosis import catalogue
from agent.features import Cores, Nameplate
from agent.features.bearings import bearing_orders
from agent.vocabulary import OperatingPoint, Window
from simulator.fleet import VirtualMachine
from training.dataset import BEARINGS, Simulated, Windows, simulated_faults
from training.sessions import on_other_days
from training.train import Kind

ROOT = Path(__file__).resolve().parents[2]
MACHINE, OTHERS = 41, (42, 43, 44, 45)
K, M = 3, 5
EXCEEDS = 4.0  # a column as far from normal is taken for a score above its threshold
FAULTS = [(kind, fault) for kind in ("motor", "pump") for fault in simulated_faults(kind)]


@cache
def kind_of(name: str) -> Kind:
    return Kind.named(ROOT, name)


class Watched:
    """One simulated machine: its windows healthy and otherwise, referred to its own baseline."""

    def __init__(self, name: str) -> None:
        self.kind, self.name = kind_of(name), name
        self.columns = ColumnKinds.of(self.kind.features)
        self._machine = self.of(MACHINE)
        learned = self._machine.windows(range(30))
        self.baseline = Baseline.fit(learned.values, learned.present, self.kind.transforms, self.kind.floors)
        self.healthy = self.refer(self._machine.windows(range(100, 100 + M)))

    def of(self, seed: int) -> Simulated:
        return Simulated(self.kind.features, self.name, seed, self.kind.config)  # type: ignore[arg-type]

    def refer(self, windows: Windows) -> np.ndarray:
        z, _ = self.baseline.refer(windows.values, windows.present, self.kind.transforms)
        return z

    def heard(self, virtual: VirtualMachine, moments: Sequence[int], turn: np.ndarray | None = None) -> np.ndarray:
        """The burst columns of another sensor on this machine, its axes turned by a matrix where one is given."""
        plate = Nameplate(1460.0, 50.0, 6, bearing_orders(self.kind.config, BEARINGS[self.name]))
        cores, rows = Cores(self.kind.features.plan_at), []
        for moment in moments:
            samples, rate_hz, scalars = virtual.sample(moment)
            point = OperatingPoint(scalars["shaft_speed_rpm"], 50.0)
            seen = np.ascontiguousarray(samples if turn is None else turn @ samples, np.float32)
            window = Window("M", "s", ("x", "y", "z"), seen, rate_hz, moment, 0, 0, point)
            values, present = self.kind.features.compute(window, {}, plate, cores)
            rows.append(self.baseline.refer(values, present, self.kind.transforms)[0])
        return np.stack(rows)

    def faulty(self, faults: Sequence[dict[str, float]]) -> np.ndarray:
        """One window with each of these faults."""
        return np.concatenate([self.refer(self._machine.windows([200 + at], fault)) for at, fault in enumerate(faults)])

    def levels(self, **factors: float) -> np.ndarray:
        """Healthy windows with some levels multiplied, by the beginning of the column's last name; `every` is all of the burst."""
        shifts = np.zeros(len(self.kind.features.names))
        for name, factor in factors.items():
            chosen = [column.partition(".")[2].startswith(name) for column in self.kind.features.names]
            mask = self.columns.burst & (np.array(chosen) | (name == "every"))
            assert mask.any(), name
            shifts[mask] = np.log(factor) / self.baseline.scale[mask]
        return (self.healthy + shifts).astype(np.float32)

    def check(self) -> BaselineCheck:
        """A check that has seen the machine healthy a moment ago."""
        check = BaselineCheck(self.kind.features, K, M)
        self.tell(check, self.healthy)
        return check

    def tell(self, check: BaselineCheck, vectors: np.ndarray) -> list[Novelty | None]:
        """What the check said after each vector."""
        judged = ~np.isnan(self.baseline.location)
        return [check.step(z, judged, judged, self.baseline.scale, bool(np.abs(z).max() >= EXCEEDS)) for z in vectors]


@cache
def watched(name: str) -> Watched:
    return Watched(name)


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_no_simulated_fault_is_excused_however_it_comes(name: str, fault: str) -> None:
    """A fault called "new baseline needed" would be waited out: neither at once, at any severity, nor growing."""
    machine = watched(name)
    for severity in (0.2, 0.6, 1.0):
        said = machine.tell(machine.check(), machine.faulty([{fault: severity}] * K))
        assert not any(said), f"{fault} at {severity}"
    ramp = machine.faulty([{fault: severity} for severity in np.linspace(0.05, 1.0, 10)])
    assert not any(machine.tell(machine.check(), ramp))


def test_the_faults_that_make_a_vibration_level_smaller_are_known() -> None:
    """The rule rests on it. A new one must first be told from a service, as these are: by power and pressure, by decibels."""
    names = {name for kind in ("motor", "pump") for name in kind_of(kind).features.names}
    vibration = {name for name in names if name.startswith(("vibration.", "spectrum.", "envelope.")) or "_g:" in name}
    taking = {
        fault.id
        for fault in catalogue().values()
        for sign in fault.evidence
        if sign.sign == "low" and sign.weight > 0 and any(sign.matches(name) for name in vibration)
    }
    assert taking <= {"dry_run", "over_greasing", "air_entrainment"}


@pytest.mark.parametrize("name", ["motor", "pump"])
def test_a_sensor_put_back_on_a_magnet_is_remounted(name: str) -> None:
    """High frequencies fall, the mount's own resonance rises, the shaft's lines stay: decided with the alarm, not later."""
    machine = watched(name)
    moved = VirtualMachine(name, MACHINE, model="magnet")  # type: ignore[arg-type]
    said = machine.tell(machine.check(), machine.heard(moved, range(300, 300 + K)))
    assert said[: K - 1] == [None] * (K - 1)
    novelty = said[-1]
    assert novelty is not None
    assert novelty.kind is NoveltyKind.REMOUNTED
    assert novelty.confidence > 0.8
    assert not machine.columns.low[list(novelty.falls)].any()


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_one_factor_on_all_levels_is_a_gain(factor: float) -> None:
    """A scale in the wrong unit or another range; also upwards, where everything rises as it does with no fault."""
    machine = watched("motor")
    novelty = machine.tell(machine.check(), machine.levels(every=factor))[-1]
    assert novelty is not None
    assert novelty.kind is NoveltyKind.REMOUNTED
    assert novelty.factor == pytest.approx(factor, rel=0.1)


def test_a_turned_sensor_is_no_event() -> None:
    """Energies of the axes are added, so a sensor screwed on another way round needs no new baseline, nor raises anything."""
    machine = watched("motor")
    turn = np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]])
    virtual = VirtualMachine("motor", MACHINE)
    straight, turned = (machine.heard(virtual, [100], how) for how in (None, turn))
    np.testing.assert_allclose(turned, straight, atol=1e-2)


def test_lines_that_fall_while_others_rise_are_another_machine() -> None:
    """And lines that fall alone are a service, even though what is left is sharper: kurtosis rises where a line goes."""
    machine = watched("motor")
    another = machine.tell(machine.check(), machine.levels(line_1x=0.4, line_2x=0.4, band=1.5, rms=1.3))[-1]
    assert another is not None
    assert another.kind is NoveltyKind.ANOTHER_MACHINE
    assert {machine.kind.features.names[at] for at in another.falls} <= {
        "spectrum.line_1x_mm_s",
        "spectrum.line_2x_mm_s",
    }
    fallen = machine.levels(line_1x=0.3, velocity=0.5)
    fallen[:, machine.columns.shock] += 2 * MIN_DEVIATION
    serviced = machine.tell(machine.check(), fallen)[-1]
    assert serviced is not None
    assert serviced.kind is NoveltyKind.SERVICED


def test_some_other_machines_are_recognised_and_none_is_another_mount() -> None:
    """Where levels of the two lie both ways; a machine that is louder in everything stays an alarm: it might be a fault."""
    machine = watched("motor")
    said = [machine.tell(machine.check(), machine.refer(machine.of(seed).windows(range(K))))[-1] for seed in OTHERS]
    found = [novelty for novelty in said if novelty is not None]
    assert len(found) >= 1
    assert all(novelty.kind is not NoveltyKind.REMOUNTED for novelty in found)


def test_the_same_change_that_grew_is_not_excused() -> None:
    """A measurement changes at once; what takes ten windows to come is wear, whatever its pattern."""
    machine = watched("motor")
    end = machine.levels(line_1x=0.4, line_2x=0.4, band=1.5, rms=1.3)[0]
    slow = np.array([machine.healthy[0] + share * (end - machine.healthy[0]) for share in np.linspace(0.05, 1, 20)])
    assert not any(machine.tell(machine.check(), slow))


def test_a_little_less_hiss_alone_is_not_excused() -> None:
    """Six decibels at high frequencies are what too much grease does; a sensor that hangs loose loses more."""
    machine = watched("motor")
    high = machine.columns.burst & ~machine.columns.low
    said = []
    for decibels in (-5.0, -15.0):
        vectors = machine.healthy.copy()
        vectors[:, high] += np.float32(np.log(10) * decibels / 20) / machine.baseline.scale[high].astype(np.float32)
        said.append(machine.tell(machine.check(), vectors)[-1])
    assert said[0] is None
    assert said[1] is not None
    assert said[1].kind is NoveltyKind.REMOUNTED


def test_damage_beside_a_change_accuses() -> None:
    """A bearing's line is no work of a mount; nor do power and pressure move when a sensor is put back."""
    machine = watched("pump")
    for columns in (machine.columns.bearing, machine.columns.process):
        vectors = machine.levels(line_1x=0.4, band=1.5)
        vectors[:, columns] += 5 * MIN_DEVIATION
        assert not any(machine.tell(machine.check(), vectors))


def test_what_grows_after_it_was_excused_is_excused_no_longer() -> None:
    """A machine that waits for its new baseline may fall ill meanwhile; and one that is its old self again is watched again."""
    machine = watched("motor")
    vectors = machine.levels(line_1x=0.4, band=1.5)
    check = machine.check()
    assert machine.tell(check, vectors)[-1] is not None
    grown = vectors.copy()
    grown[:, machine.columns.level] *= np.float32(1.5 * GROWTH)
    assert machine.tell(check, grown)[-1] is None
    check = machine.check()
    machine.tell(check, vectors)
    assert machine.tell(check, machine.healthy)[-1] is None
    machine.tell(check, vectors)
    check.forget()
    assert check.novelty is None


def test_other_days_spread_as_the_floors_say() -> None:
    """One session's windows stand close; a model must expect a day of its own beside them, and only where something is measured."""
    z = 0.1 * np.random.default_rng(3).standard_normal((50, 4)).astype(np.float32)
    judged = np.ones((50, 4), np.bool_)
    judged[:, 2] = False
    days, mask = on_other_days(z, judged, 4000, seed=1)
    assert days[:, [0, 1, 3]].std(axis=0) == pytest.approx(np.sqrt(1.01), rel=0.05)
    assert not days[:, 2].any()
    assert not mask[:, 2].any()
    np.testing.assert_array_equal(days, on_other_days(z, judged, 4000, seed=1)[0])


def test_a_restart_neither_forgets_nor_ends_what_stood() -> None:
    """It is held until the next decisions can tell: confirmed by k of them, or over with the first that is normal."""
    machine = watched("motor")
    moved = machine.levels(line_1x=0.4, line_2x=0.4, band=1.5, rms=1.3)
    check = BaselineCheck(machine.kind.features, K, M)
    check.hold()
    assert machine.tell(check, moved[: K - 1]) == [None] * (K - 1)
    assert check.standing
    assert machine.tell(check, moved[K - 1 :])[-1] is not None
    check = BaselineCheck(machine.kind.features, K, M)
    check.hold()
    machine.tell(check, machine.healthy[:1])
    assert not check.standing
