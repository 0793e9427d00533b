"""Training: healthy windows become a bundle. Generic ones from simulated machines, site ones from what was collected.

    windows -> baseline of each machine and state -> deviations -> family's matrix -> tail of healthy scores -> export

What the model is judged on it has not seen: other machines (generic), or later days (site).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.baseline import Baseline, reference_floor, reference_score
from agent.decision.threshold import Tail, fit_tail, probability_per_decision
from agent.features import FeatureSet, Nameplate, feature_set_of
from agent.features.bearings import BearingOrders
from agent.inference.bundle import FORMAT, Manifest, Metric, Provenance, Shapes, StateBaseline
from agent.inference.golden import golden_features, manifest_columns, nameplate_numbers
from agent.machine import MachineProfile, load_machine_profile
from firmware_bridge.registry import module_named
from simulator.machine_set import SetParameters
from training import families
from training.dataset import (
    SEVERITIES,
    Collected,
    FaultyWindows,
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
from training.graph import Graph
from training.metrics import roc_auc

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MONTH_S = 30 * 86_400.0
SIMULATED_EPOCH_UTC = "2026-01-01T00:00:00Z"
MIN_LEARN_WINDOWS = 20  # of one machine in one state, before a baseline is believed
MIN_TAIL_SCORES = 20
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
        decision_interval_s: between two verdicts of a machine; budgets are per month, so the rate matters.
        n_fit, n_tail, n_check: simulated machines for the matrix, for the tail, and for the figures of the card.
        learn_windows, later_windows: of each simulated machine, for its baseline and after it.
    """

    family: str = "pca"
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

    @property
    def window_probability(self) -> float:
        """How often one healthy window may exceed the threshold."""
        per_month = MONTH_S / self.decision_interval_s
        return probability_per_decision(self.false_alarms_per_machine_month, per_month, self.k, self.m)


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A machine type with all that training needs of it."""

    profile: MachineProfile
    features: FeatureSet
    transforms: tuple[str, ...]
    floors: tuple[float, ...]
    config: Path

    @classmethod
    def named(cls, root: Path, machine_type: str) -> Kind:
        """Raises: ConfigError: unknown type or a wrong profile."""
        profile = load_machine_profile(root / "config", machine_type)
        features = feature_set_of(profile)
        return cls(
            profile,
            features,
            tuple(column.transform for column in features.columns),
            tuple(column.scale_floor for column in profile.columns),
            root / "config",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """One machine in one state with its baseline: its windows while learning and after, referred to it.

    Attributes:
        learning, later: z and mask, shape (n_windows, n_columns) each, float32.
    """

    machine: str
    state: str
    baseline: Baseline
    learning: tuple[F32, F32]
    later: tuple[F32, F32]

    def referenced(self, graph: Graph, typical: Sequence[float]) -> tuple[float, F64]:
        """Reference score of the learning windows, and the later scores as multiples of it."""
        floor = reference_floor(typical, np.isfinite(self.baseline.location))
        reference = reference_score(scores_of(graph, self.learning), floor)
        return reference, scores_of(graph, self.later) / reference


def learn(kind: Kind, windows: Windows, n_learn: int) -> Learned:
    """Baseline from the first `n_learn` windows; all windows referred to it, as the agent does it."""
    first = windows.part(0, n_learn)
    baseline = Baseline.fit(first.values, first.present, kind.transforms, kind.floors, kind.features.digest)
    baseline = replace(baseline, envelope_band_hz=windows.envelope_band_hz)
    later = refer(kind, baseline, windows.part(n_learn))
    return Learned(windows.machine, windows.state, baseline, refer(kind, baseline, first), later)


def refer(kind: Kind, baseline: Baseline, windows: Windows) -> tuple[F32, F32]:
    """Deviations and mask of many windows."""
    z, judged = baseline.refer(windows.values, windows.present, kind.transforms)
    return z, judged.astype(np.float32)


def scores_of(graph: Graph, vectors: tuple[F32, F32]) -> F64:
    """Scores by the reference arithmetic. Shape (n_windows,)."""
    return graph.evaluate({"z": vectors[0], "mask": vectors[1]})["score"][:, 0]


def healthy_contributions(graph: Graph, pool: Sequence[tuple[F32, F32]]) -> tuple[float, ...]:
    """What each column adds to a healthy score on average; a column never seen, what one deviation of its own would add."""
    z, mask = np.concatenate([z for z, _ in pool]), np.concatenate([m for _, m in pool])
    seen = graph.evaluate({"z": z, "mask": mask})["contributions"].sum(axis=0) / np.maximum(mask.sum(axis=0), 1)
    alone = np.eye(z.shape[1], dtype=np.float32)
    unseen = graph.evaluate({"z": alone, "mask": alone})["score"][:, 0]
    return tuple(_rounded(value) for value in np.where(mask.any(axis=0), seen, unseen).tolist())


def fit_graph(kind: Kind, family: str, pool: Sequence[tuple[F32, F32]]) -> tuple[Graph, dict[str, Any]]:
    """The family's model on pooled healthy deviations. Raises: TrainingRefused: unknown family, or too few windows."""
    try:
        fitted = module_named(families, family).fit(
            np.concatenate([z for z, _ in pool]), np.concatenate([m for _, m in pool])
        )
    except (LookupError, ValueError) as error:
        raise TrainingRefused(f"family {family}: {error.args[0]}") from None
    return fitted.graph(kind.profile.type), fitted.settings()


# ---------------------------------------------------------------------------------------------- generic bundles
def train_generic(root: Path, machine_type: Literal["motor", "pump"], out: Path, recipe: Recipe) -> Manifest:
    """A bundle from simulated machines: split by machine, so that nothing is judged on a machine it was fitted to.

    Raises: TrainingRefused, ExportRefused, ConfigError.
    """
    kind = Kind.named(root, machine_type)
    n_machines = recipe.n_fit + recipe.n_tail + recipe.n_check
    machines = [
        Simulated(kind.features, machine_type, 1000 * recipe.seed + at, kind.config) for at in range(n_machines)
    ]
    n_windows = recipe.learn_windows + recipe.later_windows
    learned = [learn(kind, machine.windows(range(n_windows)), recipe.learn_windows) for machine in machines]
    first_check = recipe.n_fit + recipe.n_tail
    graph, settings = fit_graph(kind, recipe.family, [one.later for one in learned[: recipe.n_fit]])
    typical = healthy_contributions(graph, [one.later for one in learned[: recipe.n_fit]])
    referenced = [one.referenced(graph, typical) for one in learned[recipe.n_fit :]]
    on_tail, on_check = referenced[: recipe.n_tail], referenced[recipe.n_tail :]
    tail = rounded_tail(fit_tail(np.concatenate([ratios for _, ratios in on_tail])))
    threshold_x = tail.quantile(recipe.window_probability)
    faulty = [
        (
            at,
            FaultyWindows(
                machines[first_check + at].windows(_moments(place, n_windows), {fault: severity}), fault, severity
            ),
        )
        for at in range(recipe.n_check)
        for place, (fault, severity) in enumerate(_fault_grid(machine_type))
    ]
    judged = _judged(kind, graph, learned[first_check:], on_check, faulty, threshold_x=threshold_x)
    settings |= {
        "n_machines": n_machines,
        "n_tail_machines": recipe.n_tail,
        "decision_interval_s": recipe.decision_interval_s,
    }
    draft = _draft(
        kind,
        recipe,
        tail=tail,
        healthy_contributions=typical,
        reference_threshold=_rounded(float(np.median([reference for reference, _ in on_tail])) * threshold_x),
        metrics=(*_healthy_metrics(on_check, threshold_x, "on other machines"), *judged.metrics),
        provenance=_provenance("simulator", simulated_version(), recipe, settings, (*CODE, "simulator")),
        created_utc=SIMULATED_EPOCH_UTC,
        learn_windows=recipe.learn_windows,
    )
    vectors = golden_vectors(graph, learned[first_check].later, judged.vectors, draft.reference_threshold)
    return export(out, graph, draft, golden_sources(kind), vectors, compute_features=golden_features(kind.features))


def _fault_grid(machine_type: str) -> list[tuple[str, float]]:
    return [(fault, severity) for fault in simulated_faults(machine_type) for severity in SEVERITIES]


def _moments(place: int, n_windows: int) -> range:
    """Three moments of their own for each fault and severity, after the healthy ones."""
    return range(n_windows + 3 * place, n_windows + 3 * place + 3)


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    metrics: tuple[Metric, ...]
    vectors: tuple[F32, F32]


def _judged(
    kind: Kind,
    graph: Graph,
    checks: Sequence[Learned],
    on_check: Sequence[tuple[float, F64]],
    faulty: Sequence[tuple[int, FaultyWindows]],
    *,
    threshold_x: float,
) -> _Judged:
    """How faults show on machines that were not seen: from which severity half, and nine tenths, of the windows do."""
    vectors = [refer(kind, checks[at].baseline, item.windows) for at, item in faulty]
    ratios = [scores_of(graph, made) / on_check[at][0] for (at, _), made in zip(faulty, vectors, strict=True)]
    metrics = [
        Metric(
            name="AUC, all faults and severities", value=round(roc_auc(_flat(r for _, r in on_check), _flat(ratios)), 4)
        )
    ]
    for fault in dict.fromkeys(item.fault for _, item in faulty):
        seen = {
            severity: float(
                np.mean(
                    _flat(
                        r
                        for (_, item), r in zip(faulty, ratios, strict=True)
                        if (item.fault, item.severity) == (fault, severity)
                    )
                    > threshold_x
                )
            )
            for severity in SEVERITIES
        }
        for share in (0.5, 0.9):
            name = f"{fault}: severity from which {share:.0%} of windows exceed the threshold"
            metrics.append(Metric(name=name, value=severity_at_share(seen, share), unit="of 1 (above 1: not reached)"))
    return _Judged(tuple(metrics), (np.concatenate([z for z, _ in vectors]), np.concatenate([m for _, m in vectors])))


def severity_at_share(seen: dict[float, float], share: float) -> float:
    """The severity at which the share of detected windows first reaches `share`; 2.0 where it never does.

    Straight lines between tested severities; below the smallest tested one nothing is claimed.
    """
    before_severity, before_share = min(seen), 0.0
    for severity, detected in sorted(seen.items()):
        if detected >= share:
            step = (share - before_share) / (detected - before_share)
            return round(before_severity + step * (severity - before_severity), 3)
        before_severity, before_share = severity, detected
    return 2.0


def _healthy_metrics(on_check: Sequence[tuple[float, F64]], threshold_x: float, where: str) -> tuple[Metric, ...]:
    ratios = _flat(ratios for _, ratios in on_check)
    return (
        Metric(name="threshold over the machine's own upper normal score", value=round(threshold_x, 3), unit="x"),
        Metric(name=f"healthy windows {where}", value=float(len(ratios))),
        Metric(
            name="of them above the threshold", value=round(100 * float(np.mean(ratios > threshold_x)), 3), unit="%"
        ),
    )


# ---------------------------------------------------------------------------------------------- site bundles
def train_site(root: Path, folder: Path, machine_type: str, out: Path, recipe: Recipe) -> Manifest:
    """A bundle from a collected dataset, with the baselines of its machines: each split by time, oldest first.

    The first half of a machine's windows in a state is its baseline, the next quarter shapes the matrix, the last
    quarter the tail. Raises: TrainingRefused, ExportRefused, ConfigError, DatasetError.
    """
    kind = Kind.named(root, machine_type)
    data = collected(folder, machine_type, kind.features)
    enough = [windows for windows in data.healthy if len(windows) >= 2 * MIN_LEARN_WINDOWS]
    n_tail = sum(len(windows) - 3 * len(windows) // 4 for windows in enough)
    if n_tail < MIN_TAIL_SCORES:
        had = ", ".join(f"{w.machine} {w.state} {len(w)}" for w in data.healthy) or "none"
        raise TrainingRefused(
            f"{folder}: too few healthy windows: {had}; needed are {2 * MIN_LEARN_WINDOWS} of a machine in a state and "
            f"{4 * MIN_TAIL_SCORES} in all: collect for longer"
        )
    learned = [learn(kind, windows, len(windows) // 2) for windows in enough]
    halves = [_halved(one) for one in learned]
    graph, settings = fit_graph(kind, recipe.family, [early for early, _ in halves])
    late = [replace(one, later=last) for one, (_, last) in zip(learned, halves, strict=True)]
    typical = healthy_contributions(graph, [early for early, _ in halves])
    referenced = [one.referenced(graph, typical) for one in late]
    tail = rounded_tail(fit_tail(_flat(ratios for _, ratios in referenced)))
    threshold_x = tail.quantile(recipe.window_probability)
    settings |= {
        "n_tail_machines": len({one.machine for one in learned}),
        "decision_interval_s": recipe.decision_interval_s,
    }
    draft = _draft(
        kind,
        recipe,
        tail=tail,
        healthy_contributions=typical,
        reference_threshold=_rounded(float(np.median([reference for reference, _ in referenced])) * threshold_x),
        metrics=(*_healthy_metrics(referenced, threshold_x, "later than the training's"), *_data_metrics(data)),
        provenance=_provenance(f"dataset of {machine_type} vectors", data.version, recipe, settings, CODE),
        created_utc=data.youngest_utc,
        learn_windows=max(MIN_LEARN_WINDOWS, min(len(windows) // 2 for windows in enough)),
        baselines=_baselines(learned, [reference for reference, _ in referenced]),
    )
    healthy = (np.concatenate([one.later[0] for one in late]), np.concatenate([one.later[1] for one in late]))
    faulty = synthetic_faults(healthy, recipe.seed)
    vectors = golden_vectors(graph, healthy, faulty, draft.reference_threshold)
    return export(out, graph, draft, golden_sources(kind), vectors, compute_features=golden_features(kind.features))


def _halved(one: Learned) -> tuple[tuple[F32, F32], tuple[F32, F32]]:
    """Windows after learning: earlier ones for the matrix, later ones for the tail."""
    z, mask = one.later
    middle = len(z) // 2
    return (z[:middle], mask[:middle]), (z[middle:], mask[middle:])


def _data_metrics(data: Collected) -> tuple[Metric, ...]:
    rows = [Metric(name="vectors used or held back", value=float(data.n_rows))]
    rows += [Metric(name=f"vectors left out: {reason}", value=float(n)) for reason, n in data.skipped.items()]
    return tuple(rows)


def _baselines(learned: Sequence[Learned], references: Sequence[float]) -> dict[str, dict[str, StateBaseline]]:
    made: dict[str, dict[str, StateBaseline]] = {}
    for one, reference in zip(learned, references, strict=True):
        made.setdefault(one.machine, {})[one.state] = StateBaseline(
            location=_rounded_all(one.baseline.location),
            scale=tuple(_rounded(value) for value in one.baseline.scale.tolist()),
            normal=_rounded_all(one.baseline.normal),
            reference_score=_rounded(reference),
            n_windows=one.baseline.n_windows,
            envelope_band_hz=one.baseline.envelope_band_hz,
        )
    return made


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


def _draft(kind: Kind, recipe: Recipe, *, tail: Tail, **given: Any) -> Manifest:
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
        tail=tail,
        k=recipe.k,
        m=recipe.m,
        false_alarms_per_machine_month=recipe.false_alarms_per_machine_month,
        **given,
    )


def _provenance(
    source: str, data_version: str, recipe: Recipe, settings: dict[str, Any], code: Sequence[str]
) -> Provenance:
    return Provenance(
        source=source,
        data_version=data_version,
        seed=recipe.seed,
        code=f"hark-edge {version('hark-edge')}, sources {sources_sha256(code)[:16]}",
        family=recipe.family,
        settings=settings,
        libraries={library: version(library) for library in LIBRARIES},
    )


def rounded_tail(tail: Tail) -> Tail:
    """Four significant digits: more is noise, and fewer digits rebuild the same on every CPU."""
    return Tail(
        location=_rounded(tail.location),
        scale=_rounded(tail.scale),
        shape=_rounded(tail.shape),
        exceedance_rate=_rounded(tail.exceedance_rate),
        n=tail.n,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _rounded_all(values: F64) -> tuple[float | None, ...]:
    """Seven significant digits are float32's; NaN is null."""
    return tuple(None if np.isnan(value) else float(f"{value:.7g}") for value in values.tolist())


def _flat(parts: Any) -> F64:
    return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])
