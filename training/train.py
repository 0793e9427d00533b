"""Training: healthy windows become a bundle. Generic ones from simulated machines, site ones from what was collected.

    windows -> baseline of each machine and state -> deviations -> search for the best family -> tail of scores -> export

What anything is judged on it has not seen: other machines, or later days. Never other windows of the same days.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agent.baseline import Baseline
from agent.decision.rate import poisson_interval
from agent.features import Nameplate
from agent.features.bearings import BearingOrders
from agent.inference.bundle import FORMAT, Manifest, Metric, Provenance, Shapes, StateBaseline, StateRegression
from agent.inference.golden import golden_features, manifest_columns, nameplate_numbers
from agent.regression import Regression
from simulator.machine_set import SetParameters
from training.card import board_metrics, healthy_metrics, sensitivity_metrics
from training.dataset import (
    SEVERITIES,
    Collected,
    Simulated,
    TrainingRefused,
    Windows,
    collected,
    plate_of,
    simulated_faults,
    simulated_version,
    sources_sha256,
)
from training.export import GoldenSource, export, golden_period, golden_vectors
from training.graph import Graph, starts_of
from training.learned import F32, F64, Kind, Learned, Vectors, cut, joined, learn, refer, rounded, scores_of
from training.metrics import share_above
from training.search import (
    DOUBTFUL,
    IN_FULL,
    MONTH_S,
    OVER,
    Board,
    Effort,
    Failed,
    Fold,
    Stretch,
    Terms,
    Trial,
    attempt,
    candidates,
    search,
    workers,
)
from training.sensitivity import Faulty, Grade
from training.splits import (
    MIN_LEARN_WINDOWS,
    MIN_MEMORY_S,
    MIN_TAIL_SCORES,
    SHORT,
    Material,
    fold_of,
    folds_by_machine,
    material_of,
    parts_of,
)

SIMULATED_EPOCH_UTC = "2026-01-01T00:00:00Z"
BETWEEN = "between two parts, held back from both"
DRAWN_ONE_BY_ONE = "simulated moments are drawn one by one"
LIBRARIES = ("numpy", "scipy", "scikit-learn", "onnx", "flatbuffers")
# The example machine running: what golden quantities are computed from, by channel. 7.5 kW, 80 m3/h at 20 m.
RUNNING = {
    "voltage_l1_l2_v": 400.0, "voltage_l2_l3_v": 398.0, "voltage_l3_l1_v": 403.0,
    "voltage_l1_v": 230.0, "voltage_l2_v": 231.0, "voltage_l3_v": 232.0,
    "current_l1_a": 12.0, "current_l2_a": 11.6, "current_l3_a": 13.0, "motor_current_a": 12.2,
    "active_power_kw": 6.35, "motor_shaft_power_kw": 5.74, "power_factor_ratio": 0.79,
    "line_frequency_hz": 50.02, "output_frequency_hz": 50.0, "shaft_speed_rpm": 1468.0,
    "suction_pressure_bar": 0.25, "discharge_pressure_bar": 2.21, "differential_pressure_bar": 1.96,
    "flow_m3_h": 80.0, "flow_l_min": 1333.0,
    "liquid_temperature_degc": 20.0, "medium_temperature_degc": 20.0, "suction_temperature_degc": 20.0,
    "temperature_degc": 46.0, "ambient_temperature_degc": 22.0,
    "bearing_de_temperature_degc": 52.0, "bearing_nde_temperature_degc": 47.0,
}  # fmt: skip
CODE = ("training", "agent/features", "agent/baseline.py", "agent/decision/threshold.py", "agent/inference")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What may be chosen. The figures of the card and the reference threshold are for these; a site states its own.

    Attributes:
        families: which are tried; none named: all in training/families, those with a memory where they can be judged.
        decision_interval_s: between two verdicts of a machine; budgets are per month, so the rate matters. Of a dataset it is
            measured.
        n_fit, n_tail, n_check: simulated machines for the model, for the tail, and for the figures of the card.
        learn_windows, later_windows: of each simulated machine, for its baseline and after it.
        n_moments: of each fault at each severity.
    """

    families: tuple[str, ...] = ()
    false_alarms_per_machine_month: float = 0.5
    decision_interval_s: float = 600.0
    k: int = 3
    m: int = 5
    seed: int = 1
    n_fit: int = 18
    n_tail: int = 24
    n_check: int = 8
    learn_windows: int = 60
    later_windows: int = 70
    n_moments: int = 3

    def terms(self, kind: Kind) -> Terms:
        """What every candidate has to keep."""
        return Terms(
            column_names=kind.features.names,
            model_name=kind.profile.type,
            false_alarms_per_machine_month=self.false_alarms_per_machine_month,
            decision_interval_s=self.decision_interval_s,
            k=self.k,
            m=self.m,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What one machine in one state gave to the training, and how it did.

    Attributes:
        n_learn, n_fit, n_tail, n_check: windows for its baseline, for the model, for the threshold, for the figures.
        n_spikes: single values that the first three were rid of.
        check_ratios: scores of the last, as multiples of its own upper normal score.
    """

    machine: str
    state: str
    n_learn: int
    n_fit: int
    n_tail: int
    n_check: int
    n_spikes: int
    check_ratios: F64


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came of a training.

    Attributes:
        final: the model that ships, on everything that it may be fitted to.
        shares: by machine and state. left_out: rows of the dataset, by machine and reason; n_rows counts them all.
    """

    manifest: Manifest
    board: Board
    final: Trial
    terms: Terms
    shares: tuple[Share, ...]
    left_out: Mapping[tuple[str, str], int]
    n_rows: int

    @property
    def months_checked(self) -> float:
        """Healthy machine-months that the final model was judged on."""
        return self.final.n_check * self.terms.decision_interval_s / MONTH_S

    @property
    def final_interval(self) -> tuple[float, float]:
        """Its false alarms a machine-month; each end is a one-sided 95 % limit."""
        return poisson_interval(self.final.n_alarms, self.months_checked)


# ---------------------------------------------------------------------------------------------- generic bundles
def train_generic(
    root: Path, machine_type: Literal["motor", "pump"], out: Path, recipe: Recipe, effort: Effort = IN_FULL
) -> Trained:
    """A bundle from simulated machines: split by machine, so that nothing is judged on a machine it was fitted to.

    Whatever the effort, every candidate is tried: a shipped model may not depend on how fast this computer is.
    Raises: TrainingRefused, ExportRefused, ConfigError.
    """
    kind = Kind.named(root, machine_type)
    first_check = recipe.n_fit + recipe.n_tail
    n_machines = first_check + recipe.n_check
    learned: list[Learned] = []
    faulty: list[Faulty] = []
    with workers(effort.n_jobs) as each:
        for windows, under_faults in each(partial(_lived, kind, recipe), range(n_machines)):
            effort.progress("simulating machines", len(learned), n_machines)
            one = learn(kind, windows, recipe.learn_windows)
            at = len(learned) - first_check
            faulty += [Faulty(at, grade, refer(kind, one.baseline, made)) for grade, made in under_faults]
            learned.append(one)
    checks = learned[first_check:]
    fold = Fold(
        name="other machines",
        fit=tuple(one.later for one in learned[: recipe.n_fit]),
        tail=tuple(Stretch(one) for one in learned[recipe.n_fit : first_check]),
        check=tuple(Stretch(one) for one in checks),
        faulty=tuple(faulty),
        no_memory="" if recipe.families else DRAWN_ONE_BY_ONE,
    )
    terms = recipe.terms(kind)
    board = search([fold], candidates(recipe.families), terms, replace(effort, out_of_time=lambda: False))
    final = board.winner.trials[0]
    draft = _draft(
        kind,
        recipe,
        board,
        final,
        where="on other machines",
        settings={"n_machines": n_machines, "n_tail_machines": recipe.n_tail},
        provenance={"source": "simulator", "data_version": simulated_version(), "code": (*CODE, "simulator")},
        created_utc=SIMULATED_EPOCH_UTC,
        learn_windows=recipe.learn_windows,
    )
    manifest = _exported(kind, out, draft, final.graph, [checks[0].later], joined([item.vectors for item in faulty]))
    shares = [
        Share(one.machine, one.state, recipe.learn_windows, 0, 0, len(ratios), 0, ratios)
        for one, ratios in zip(checks, final.check_ratios, strict=True)
    ]
    return Trained(manifest, board, final, terms, tuple(shares), {}, 0)


def _lived(kind: Kind, recipe: Recipe, at: int) -> tuple[Windows, list[tuple[Grade, Windows]]]:
    """One simulated machine's healthy windows; of one that is checked also each fault at each severity, at moments of its own."""
    machine_type: Literal["motor", "pump"] = "motor" if kind.profile.type == "motor" else "pump"
    machine = Simulated(kind.features, machine_type, 1000 * recipe.seed + at, kind.config)
    n_windows = recipe.learn_windows + recipe.later_windows
    faults = simulated_faults(machine_type) if at >= recipe.n_fit + recipe.n_tail else ()
    grid = [(fault, severity) for fault in faults for severity in SEVERITIES]
    firsts = [n_windows + recipe.n_moments * place for place in range(len(grid))]
    return machine.windows(range(n_windows)), [
        ((fault, severity), machine.windows(range(first, first + recipe.n_moments), {fault: severity}))
        for first, (fault, severity) in zip(firsts, grid, strict=True)
    ]


# ---------------------------------------------------------------------------------------------- site bundles
def train_site(
    root: Path, folder: Path, machine_type: str, out: Path, recipe: Recipe, effort: Effort = IN_FULL
) -> Trained:
    """A bundle from a collected dataset, with the baselines of its machines: each split by time, oldest first.

    Candidates are compared on machines held back, where there are enough machines, and on later time else; what ships is
    fitted to all machines and reported on later time.
    Raises: TrainingRefused, ExportRefused, ConfigError, DatasetError.
    """
    kind = Kind.named(root, machine_type)
    data = collected(folder, machine_type, kind.features)
    if math.isfinite(data.cadence_s) and data.cadence_s > 0:
        recipe = replace(recipe, decision_interval_s=rounded(data.cadence_s))
    tried = candidates(recipe.families)
    enough = _enough(folder, data)
    effort.progress("simulating faults", 0, 1)
    materials = [material_of(kind, windows) for windows in enough]
    terms = recipe.terms(kind)
    longest_s = max(map(len, enough)) * terms.decision_interval_s
    no_memory = SHORT if longest_s < MIN_MEMORY_S and not recipe.families else ""
    later = fold_of("later time", materials, materials, no_memory)
    board = search(folds_by_machine(materials, no_memory) or [later], tried, terms, effort)
    final = _final(board, later, terms)
    learned = [one.learned for one in materials]
    draft = _draft(
        kind,
        recipe,
        board,
        final,
        where="later than the training's",
        settings={"n_tail_machines": len({one.machine for one in learned})},
        provenance={"source": f"dataset of {machine_type} vectors", "data_version": data.version, "code": CODE},
        created_utc=data.youngest_utc,
        learn_windows=max(MIN_LEARN_WINDOWS, min(one.parts.n_learn for one in materials)),
        baselines=_baselines(learned, final.references),
        more=(*_alarm_metrics(kind, data.suspect, materials, final), *_data_metrics(data)),
    )
    healthy = [cut(one.learned.later, one.parts.check) for one in materials]
    manifest = _exported(kind, out, draft, final.graph, healthy, synthetic_faults(joined(healthy), recipe.seed))
    shares = tuple(_share(one, ratios) for one, ratios in zip(materials, final.check_ratios, strict=True))
    return Trained(manifest, board, final, terms, shares, _left_out(data, enough), data.n_rows)


def _enough(folder: Path, data: Collected) -> list[Windows]:
    """Machines in states with windows enough. Raises: TrainingRefused: too few for a threshold."""
    enough = [windows for windows in data.healthy if len(windows) >= 2 * MIN_LEARN_WINDOWS]
    tails = [parts_of(len(windows)).tail for windows in enough]
    if sum(tail.stop - tail.start for tail in tails) < MIN_TAIL_SCORES:
        had = ", ".join(f"{w.machine} {w.state} {len(w)}" for w in data.healthy) or "none"
        raise TrainingRefused(
            f"{folder}: too few healthy windows: {had}; needed are {2 * MIN_LEARN_WINDOWS} of a machine in a state and "
            f"{6 * MIN_TAIL_SCORES} in all: collect for longer"
        )
    return enough


def _final(board: Board, later: Fold, terms: Terms) -> Trial:
    """The winner on all machines. Raises: TrainingRefused: it cannot be fitted there."""
    if board.folds == (later.name,):
        return board.winner.trials[0]
    final = attempt(terms, (board.winner.candidate, later))
    if isinstance(final, Failed):
        raise TrainingRefused(f"family {board.winner.candidate.label} on all machines: {final.reason}")
    return final


def _share(one: Material, ratios: F64) -> Share:
    learned, parts = one.learned, one.parts
    n_tail = parts.tail.stop - parts.tail.start
    return Share(
        learned.machine, learned.state, parts.n_learn, len(one.fit[0]), n_tail, len(ratios), one.n_spikes, ratios
    )


def _left_out(data: Collected, enough: Sequence[Windows]) -> dict[tuple[str, str], int]:
    """Every row that was not used, by machine and reason."""
    left_out = Counter(data.left_out)
    for one in data.healthy:
        parts = parts_of(len(one))
        used = parts.n_learn + sum(part.stop - part.start for part in (parts.fit, parts.tail, parts.check))
        reason, count = (BETWEEN, len(one) - used) if one in enough else (f"too few in state {one.state}", len(one))
        left_out[one.machine, reason] += count
    return left_out


def _alarm_metrics(
    kind: Kind, suspect: Sequence[Windows], materials: Sequence[Material], final: Trial
) -> tuple[Metric, ...]:
    """What the model says of windows inside alarms, which no part of the training has seen; nothing where there are none."""
    ratios = [
        scores_of(final.graph, refer(kind, one.learned.baseline, windows)) / reference
        for one, reference in zip(materials, final.references, strict=True)
        for windows in suspect
        if (windows.machine, windows.state) == (one.learned.machine, one.learned.state)
    ]
    if not ratios:
        return ()
    above = 100 * share_above(np.concatenate(ratios), final.threshold_x)
    return (
        Metric(name="windows inside alarms", value=float(sum(map(len, ratios)))),
        Metric(name="of these above the threshold", value=rounded(above), unit="%"),
    )


def _data_metrics(data: Collected) -> tuple[Metric, ...]:
    rows = [Metric(name="vectors in the dataset", value=float(data.n_rows))]
    rows += [Metric(name=f"vectors left out: {reason}", value=float(n)) for reason, n in data.skipped.items()]
    return tuple(rows)


def _baselines(learned: Sequence[Learned], references: Sequence[float]) -> dict[str, dict[str, StateBaseline]]:
    made: dict[str, dict[str, StateBaseline]] = {}
    for one, reference in zip(learned, references, strict=True):
        made.setdefault(one.machine, {})[one.state] = _state_baseline(one.baseline, reference)
    return made


def _state_baseline(baseline: Baseline, reference: float) -> StateBaseline:
    return StateBaseline(
        location=_rounded_all(baseline.location),
        scale=tuple(rounded(value) for value in baseline.scale.tolist()),
        normal=_rounded_all(baseline.normal),
        reference_score=rounded(reference),
        n_windows=baseline.n_windows,
        envelope_band_hz=baseline.envelope_band_hz,
        regression=_state_regression(baseline.regression),
    )


def _state_regression(regression: Regression | None) -> StateRegression | None:
    if regression is None:
        return None
    return StateRegression(
        centre=_three(regression.centre),
        low=_three(regression.low),
        high=_three(regression.high),
        slope=tuple(_three(row) for row in regression.slope),
    )


def _three(values: F64) -> tuple[float, float, float]:
    """Of speed, load and ambient temperature; seven significant digits are float32's."""
    speed, load, ambient = (float(f"{value:.7g}") for value in values.tolist())
    return speed, load, ambient


def synthetic_faults(healthy: tuple[F32, F32], seed: int) -> tuple[F32, F32]:
    """Healthy deviations with a few columns pushed far out: golden vectors where no fault has happened yet."""
    rng = np.random.default_rng(seed)
    z, mask = healthy
    n_columns = z.shape[1]
    pushed = np.repeat(z[:1], n_columns, axis=0) + 6.0 * np.eye(n_columns, dtype=np.float32)
    pushed += rng.choice([0.0, 5.0, 9.0], size=pushed.shape, p=[0.8, 0.1, 0.1]).astype(np.float32)
    return pushed.astype(np.float32), np.repeat(mask[:1], n_columns, axis=0)


# ---------------------------------------------------------------------------------------------- shared parts
def golden_sources(kind: Kind) -> tuple[GoldenSource, ...]:
    """Raw golden windows for any profile: tones, hiss and impacts with a period, drawn from a seed of their own."""
    features = kind.features
    tags = {
        name: RUNNING.get(channel, 1.5 + 0.25 * at)
        for at, (name, (channel, _)) in enumerate(features.statistics.items())
    }
    orders = BearingOrders(bpfo=3.05, bpfi=4.95, bsf=1.99, ftf=0.382)
    nameplate = nameplate_numbers(Nameplate(1460.0, 50.0, 6, orders, plate_of(SetParameters())))
    point = {"shaft_speed_rpm": 1470.0, "line_frequency_hz": 50.0, "active_power_kw": 5.5}
    if not features.n_samples:
        return (GoldenSource((), np.zeros((1, 1), np.int16), 1.0, 1, 1.0, tags, nameplate, point),)
    made = []
    for strength in (0.0, 3.0):
        period, scale = golden_period(_signal(features.n_samples, strength))
        axes, rate_hz = ("x", "y", "z"), features.sample_rate_hz
        made.append(GoldenSource(axes, period, scale, features.n_samples, rate_hz, tags, nameplate, point))
    return tuple(made)


def _signal(n_samples: int, impacts_m_s2: float) -> F32:
    """Three axes, m/s2. Exactly reproducible: hiss from a seeded generator, tones at fractions of the sample rate."""
    rng = np.random.default_rng(20_260_101)
    at = np.arange(n_samples)
    signal = 0.4 * rng.standard_normal((3, n_samples))
    for cycles_per_1024, amplitude in ((3, 0.8), (7, 0.3), (41, 0.5), (160, 0.4)):
        signal += amplitude * np.sin(2 * np.pi * cycles_per_1024 * at / 1024 + np.arange(3)[:, None])
    ring = np.exp(-(at % 256) / 20.0) * np.sin(2 * np.pi * 0.13 * (at % 256))
    return np.asarray(signal + impacts_m_s2 * ring, np.float32)


def _draft(
    kind: Kind,
    recipe: Recipe,
    board: Board,
    final: Trial,
    *,
    where: str,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    more: Sequence[Metric] = (),
    **given: Any,
) -> Manifest:
    """The manifest without what export fills in: shapes, file hashes, tensor hash."""
    name, _, release = kind.profile.bundle.partition("/")
    nothing = "0" * 64
    return Manifest(
        format=FORMAT,
        name=name,
        machine_type=kind.profile.type,
        version=release or "1.0.0",
        columns=manifest_columns(kind.features, kind.floors),
        feature_digest=kind.features.digest,
        shapes=Shapes(z=(1, 1), mask=(1, 1), score=(1, 1), contributions=(1, 1)),
        files={"model.onnx": nothing},
        tensors_sha256=nothing,
        tail=final.tail,
        healthy_contributions=final.typical,
        k=recipe.k,
        m=recipe.m,
        false_alarms_per_machine_month=recipe.false_alarms_per_machine_month,
        reference_threshold=rounded(float(np.median(final.references)) * final.threshold_x),
        metrics=(
            *healthy_metrics(final, recipe.terms(kind), where),
            *sensitivity_metrics(board),
            *board_metrics(board),
            *more,
        ),
        provenance=_provenance(recipe, board, {**final.settings, **settings}, **provenance),
        **given,
    )


def _provenance(
    recipe: Recipe, board: Board, settings: Mapping[str, Any], *, source: str, data_version: str, code: Sequence[str]
) -> Provenance:
    searched = {
        "candidate": board.winner.candidate.label,
        "chosen": board.reason,
        "held_back": "; ".join(board.folds),
        "without_figures": "; ".join(f"{labels} ({note})" for note, labels in board.without_figures.items()),
        **{
            flag: "; ".join(one.candidate.label for one in board.ranked if one.flag == flag)
            for flag in (OVER, DOUBTFUL)
        },
        "decision_interval_s": recipe.decision_interval_s,
    }
    return Provenance(
        source=source,
        data_version=data_version,
        seed=recipe.seed,
        code=f"hark-edge {version('hark-edge')}, sources {sources_sha256(code)[:16]}",
        family=board.winner.candidate.family,
        settings={name: value for name, value in {**settings, **searched}.items() if value != ""},
        libraries={library: version(library) for library in LIBRARIES},
    )


def _exported(
    kind: Kind, out: Path, draft: Manifest, graph: Graph, healthy: Sequence[Vectors], faulty: Vectors
) -> Manifest:
    z_and_mask, starts = joined(healthy), starts_of([len(z) for z, _ in healthy])
    vectors = golden_vectors(graph, z_and_mask, faulty, draft.reference_threshold, starts)
    return export(out, graph, draft, golden_sources(kind), vectors, compute_features=golden_features(kind.features))


def _rounded_all(values: F64) -> tuple[float | None, ...]:
    """Seven significant digits are float32's; NaN is null."""
    return tuple(None if np.isnan(value) else float(f"{value:.7g}") for value in values.tolist())
