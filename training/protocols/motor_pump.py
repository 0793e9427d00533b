"""`hark evaluate motor_pump DIR`: 45 kW motors driving centrifugal pumps, three axes at 1 kHz, healthy against faulty.

Novelty detection through the agent's own MachineWatch: a bundle (matrix, tail, baseline) is fitted to healthy recordings of
one machine, then another recording is played to a watch that was running on that machine a moment ago. Windows of one
second, five per slice. Samples are sensor counts (acc / lsb_step): as published each recording was scaled to unit variance,
and that scaling alone gives recordings away. Nothing is learned from a faulty recording, no threshold either.

Same machine: each healthy recording is left out once and judged by a bundle of the others; so is every faulty one, by every bundle.
Unseen machine: H-R1 is of another machine or mount (the set's readme). It is never learned from with the others. It is played to a
bundle of all the others, as if the sensor had been moved; then once more with a new baseline ordered at its start.

far_pct              windows found abnormal of left-out recordings of the same machine
detection_pct        faulty windows found abnormal, over all bundles
auc                  of scores over thresholds, the same windows
unseen_fault_alarms  alarms on the unseen machine that accuse it
new_baseline_after_s seconds of the unseen machine until "new baseline needed"
relearned_far_pct    its windows found abnormal after a baseline of its first 30 s
per_recording        windows found abnormal, by recording; of the unseen one after relearning
excused              other recordings that were called "new baseline needed", with the number of bundles that did

A window is found abnormal when its score is above the threshold and the machine is watched, that is, not where "new baseline
needed" stands.
Source: Kafeel et al., Sensors 2021, 21(22), 7587 (the data).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.baseline import Baseline, reference_floor, reference_score
from agent.budget import LatencyBudget
from agent.config import DecisionSection, Machine, MachineSection
from agent.decision.newbaseline import NEW_BASELINE
from agent.decision.threshold import Tail, fit_tail
from agent.diagnosis import Diagnosis
from agent.features import Cores, FeatureSet, Nameplate, feature_set_of
from agent.inference.bundle import FORMAT, Bundle, Manifest, Provenance, Shapes, StateBaseline
from agent.inference.golden import manifest_columns
from agent.inference.runtime import engine_module
from agent.machine import Burst, ColumnSpec, MachineProfile, StateRule
from agent.pipeline import STAGES
from agent.tagbank import TagBank
from agent.vocabulary import AlarmClass, OperatingPoint, Window
from agent.watch import Findings, MachineWatch
from agent.words import Words
from firmware_bridge.errors import RecordingError
from training.export import WRITERS
from training.families import Healthy, pca
from training.graph import Graph
from training.metrics import roc_auc
from training.sessions import on_other_days

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

TAG, SENSOR, STATE = "motor_pump", "file", "running:0"
OTHER_MACHINES = ("H-R1",)
WINDOW_SAMPLES = 1000
SAMPLE_RATE_HZ = 1000.0
RATED_SPEED_RPM = 2980.0  # direct on a 50 Hz line, two poles; the data carry no speed, so the burst's own comb tells it
WINDOW_PROBABILITY = 0.01
N_DRAWN = 4000  # windows on other days: forty beyond the threshold
SEED = 1
RELEARN_S = 30
RUN_IN = 10  # windows of the machine that was learned, before the recording
BANDS_HZ = ((10.0, 45.0), (45.0, 105.0), (105.0, 205.0), (205.0, 305.0), (305.0, 405.0), (405.0, 470.0))
# How far a healthy machine lies from itself on another day, as a share. ISO 20816-1 (criterion II) takes a change of a
# quarter for significant; a healthy spread is about half of that. What is a ratio of two levels of one window moves less.
DAY_TO_DAY, DAY_TO_DAY_RATIO = 0.15, 0.10
RATIOS = ("vibration.crest_ratio", "vibration.kurtosis_ratio")
LEVELS = (
    "vibration.rms_m_s2",
    "spectrum.velocity_rms_mm_s",
    "spectrum.noise_floor_m_s2",
    "spectrum.line_1x_mm_s",
    "spectrum.line_2x_mm_s",
    "spectrum.line_3x_mm_s",
    "spectrum.harmonics_mm_s",
    "envelope.rms_m_s2",
)


def profile() -> MachineProfile:
    """The one fixed configuration: what can be seen at 1 kHz without a speed signal.

    One band below the shaft's own line (rub, looseness, flow), then about two orders each.
    """
    columns = [ColumnSpec(feature=name, scale_floor=DAY_TO_DAY) for name in LEVELS]
    columns += [ColumnSpec(feature=name, scale_floor=DAY_TO_DAY_RATIO) for name in RATIOS]
    columns += [
        ColumnSpec(feature="spectrum.band_rms_m_s2", parameters={"band": float(band)}, scale_floor=DAY_TO_DAY)
        for band in range(len(BANDS_HZ))
    ]
    return MachineProfile(
        type="motor_pump_1khz",
        title="45 kW motor with pump",
        norm="none: counts, not m/s2",
        zone_bc_mm_s=1e9,
        zone_cd_mm_s=1e9,
        bundle="motor_pump_1khz/0.0.0",
        point_name="motor",
        columns=tuple(columns),
        burst=Burst(
            sample_rate_hz=SAMPLE_RATE_HZ,
            n_samples=WINDOW_SAMPLES,
            bands_hz=BANDS_HZ,
            envelope_band_hz=(250.0, 450.0),
            velocity_band_hz=(10.0, 450.0),
        ),
        state=StateRule(starting_s=0.0, dwell_s=0.0),
    )


def machine() -> Machine:
    """The watched machine: nothing but a burst sensor, and always running."""
    kind = profile()
    spec = MachineSection(
        tag=TAG,
        type=kind.type,
        sensors=(SENSOR,),
        rated_speed_rpm=RATED_SPEED_RPM,
        line_frequency_hz=50.0,
        assume_running=True,
        learn_windows=RELEARN_S,
    )
    plate = Nameplate(rated_speed_rpm=RATED_SPEED_RPM, line_frequency_hz=50.0)
    return Machine(spec, kind, feature_set_of(kind), plate, {}, (SENSOR,), Path(kind.bundle))


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One recording.

    Attributes: samples: shape (n_windows, 3, WINDOW_SAMPLES), counts. values: shape (n_windows, n_columns), their features.
    """

    name: str
    faulty: bool
    samples: F32
    values: F32


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What the watch said of one recording.

    Attributes:
        ratios: score over threshold of every judged window. excused: whether "new baseline needed" stood at it.
        n_fault_alarms: conditions that accuse the machine. new_baseline_after_s: until the first such word; None: none.
    """

    ratios: F64
    excused: Bools
    n_fault_alarms: int
    new_baseline_after_s: float | None


def evaluate(folder: Path, root: Path, engine: str = "onnx") -> dict[str, Any]:
    """Play every recording of `folder`. `root` is not needed: the configuration is fixed here.

    Raises: RecordingError: no such recordings there, or fewer than two healthy ones of one machine.
    """
    watched = machine()
    recordings = load(folder, watched)
    same = [one for one in recordings if not one.faulty and one.name not in OTHER_MACHINES]
    if len(same) < 2:
        raise RecordingError(
            f"{folder}: {len(same)} healthy recordings of one machine; two are needed to leave one out"
        )
    normal: dict[str, list[Played]] = {}
    abnormal: dict[str, list[Played]] = {one.name: [] for one in recordings if one.faulty}
    for left_out in same:
        learned = [one for one in same if one is not left_out]
        bundle = fit(watched, learned, engine)
        normal[left_out.name] = [play(watched, bundle, learned[-1], left_out)]
        for one in recordings:
            if one.faulty:
                abnormal[one.name].append(play(watched, bundle, learned[-1], one))
    unseen = [one for one in recordings if not one.faulty and one.name in OTHER_MACHINES]
    bundle = fit(watched, same, engine)
    met = [play(watched, bundle, same[-1], one) for one in unseen]
    relearned = {one.name: [play(watched, bundle, same[-1], one, relearn=True)] for one in unseen}
    return _figures(normal, abnormal, met, relearned)


def _figures(
    normal: Mapping[str, list[Played]],
    abnormal: Mapping[str, list[Played]],
    met: Sequence[Played],
    relearned: Mapping[str, list[Played]],
) -> dict[str, Any]:
    """All figures; None where the folder holds nothing to measure one on."""
    healthy, faulty = _all(normal), _all(abnormal)
    known = {**normal, **abnormal}
    n_excused = {name: sum(one.new_baseline_after_s is not None for one in known[name]) for name in known}
    return {
        "far_pct": _found_pct(healthy),
        "detection_pct": _found_pct(faulty),
        "auc": round(roc_auc(_ratios(healthy), _ratios(faulty)), 4) if faulty else None,
        "unseen_fault_alarms": sum(one.n_fault_alarms for one in met) if met else None,
        "new_baseline_after_s": _slowest_s([one.new_baseline_after_s for one in met]),
        "relearned_far_pct": _found_pct(_all(relearned)),
        "per_recording": {name: _found_pct(several) for name, several in {**known, **relearned}.items()},
        "excused": {name: n for name, n in n_excused.items() if n},
    }


def _all(played: Mapping[str, list[Played]]) -> list[Played]:
    return [one for several in played.values() for one in several]


def _ratios(several: Sequence[Played]) -> F64:
    return np.concatenate([played.ratios for played in several])


def _found_pct(several: Sequence[Played]) -> float | None:
    """Share of windows above the threshold while the machine was watched."""
    if not several:
        return None
    found = np.concatenate([(played.ratios > 1.0) & ~played.excused for played in several])
    return round(100 * float(found.mean()), 2)


def _slowest_s(after_s: Sequence[float | None]) -> float | None:
    """The longest; None where one never came, or nothing was asked."""
    known = [one for one in after_s if one is not None]
    return max(known) if known and len(known) == len(after_s) else None


def play(watched: Machine, bundle: Bundle, before: Recording, recording: Recording, *, relearn: bool = False) -> Played:
    """A recording after some windows of the machine that was learned. `relearn`: a new baseline is ordered in between."""
    watch = watch_of(watched, bundle)
    for at, samples in enumerate(before.samples[-RUN_IN:]):
        hear(watch, samples, at)
    if relearn:
        watch.relearn("another machine", although_sick=False, utc_ns=RUN_IN * 10**9)
    ratios, excused, n_fault_alarms, stands, after_s = [], [], 0, False, None
    for at, samples in enumerate(recording.samples):
        found = hear(watch, samples, RUN_IN + at)
        stands = _is_new_baseline(began.name for began in found.began) or (stands and not _is_new_baseline(found.ended))
        after_s = float(at + 1) if stands and after_s is None else after_s
        n_fault_alarms += sum(condition.alarm_class is not AlarmClass.SENSOR for condition in found.began)
        for record in found.records:
            body = record.payload
            if record.stream == "feature" and isinstance(body, Mapping) and body["score"] is not None:
                ratios.append(body["score"] / body["threshold"])
                excused.append(stands)
    return Played(np.array(ratios), np.array(excused, np.bool_), n_fault_alarms, after_s)


def watch_of(watched: Machine, bundle: Bundle) -> MachineWatch:
    """The agent's watch of the machine, at a threshold that one healthy window in a hundred exceeds."""
    decision = DecisionSection(threshold_factor=bundle.manifest.tail.quantile(WINDOW_PROBABILITY))
    budget = LatencyBudget(math.inf, STAGES)  # nothing is shed: a slow computer gives the same figures
    return MachineWatch(watched, bundle, decision, 1.0, Diagnosis(Words()), budget, ())


def hear(watch: MachineWatch, samples: F32, at_s: int) -> Findings:
    """One window, one second after the one before it; state first, as on a gateway."""
    now_ns = at_s * 10**9
    nothing, nobody = TagBank(0), frozenset[str]()
    watch.on_tags(nothing, frozenset(), nobody, now_ns, now_ns)
    return watch.on_window(_window(samples, now_ns), nothing, nobody, now_ns)


def _is_new_baseline(conditions: Iterable[str]) -> bool:
    return any(name.startswith(NEW_BASELINE) for name in conditions)


def fit(watched: Machine, recordings: Sequence[Recording], engine: str) -> Bundle:
    """A site bundle of healthy recordings of one machine: the matrix from the first two thirds of each, the tail from the last.

    Both on other days too (`training.sessions`): one or two sessions do not show how far days lie apart.
    """
    transforms = [column.transform for column in watched.features.columns]
    values = np.concatenate([one.values for one in recordings])
    baseline = Baseline.fit(values, np.isfinite(values), transforms, watched.scale_floors, watched.features.digest)
    late = np.concatenate([np.arange(len(one.values)) >= 2 * len(one.values) // 3 for one in recordings])
    z, judged = baseline.refer(values, np.isfinite(values), transforms)
    early_days = on_other_days(z[~late], judged[~late], N_DRAWN, SEED)
    late_days = on_other_days(z[late], judged[late], N_DRAWN, SEED + 1)
    graph = pca.fit(Healthy(*early_days)).graph(TAG)
    typical = _contributions(graph, *early_days).mean(axis=0)
    scores = _contributions(graph, z, judged.astype(np.float32)).sum(axis=1)
    reference = reference_score(scores, reference_floor(typical.tolist(), np.isfinite(baseline.location)))
    tail = fit_tail(_contributions(graph, *late_days).sum(axis=1) / reference)
    manifest = _manifest(watched, tail, typical, baseline, reference)
    return Bundle(Path(), manifest, engine_module(engine).open_model(WRITERS[engine](graph)))


def _contributions(graph: Graph, z: F32, mask: F32) -> F64:
    return graph.evaluate({"z": z, "mask": mask})["contributions"].astype(np.float64)


def _manifest(watched: Machine, tail: Tail, typical: F64, baseline: Baseline, reference: float) -> Manifest:
    """What the watch reads of a bundle; it is never written, so it names no files."""
    n_columns = len(watched.features.columns)
    kept = StateBaseline(
        location=tuple(baseline.location.tolist()),
        scale=tuple(baseline.scale.tolist()),
        normal=tuple(baseline.normal.tolist()),
        reference_score=reference,
        n_windows=baseline.n_windows,
    )
    return Manifest(
        format=FORMAT,
        name=TAG,
        machine_type=watched.profile.type,
        version="0.0.0",
        columns=manifest_columns(watched.features, watched.scale_floors),
        feature_digest=watched.features.digest,
        shapes=Shapes(z=(1, n_columns), mask=(1, n_columns), score=(1, 1), contributions=(1, n_columns)),
        files={},
        tensors_sha256="0" * 64,
        tail=tail,
        healthy_contributions=tuple(typical.tolist()),
        k=3,
        m=5,
        learn_windows=RELEARN_S,
        false_alarms_per_machine_month=1.0,
        reference_threshold=reference * tail.quantile(WINDOW_PROBABILITY),
        provenance=Provenance(
            source="motor_pump", data_version="", seed=SEED, code="", family="pca", settings={}, libraries={}
        ),
        created_utc="",
        baselines={TAG: {STATE: kept}},
    )


def load(folder: Path, watched: Machine) -> list[Recording]:
    """All recordings of DIR/*.npz by name, features by the agent's own code. Raises: RecordingError: not this layout."""
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise RecordingError(f"{folder}: holds no .npz with acc, lsb_step, label and recording")
    windows: dict[tuple[str, bool], list[F32]] = {}
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as stored:
                counts = stored["acc"] / stored["lsb_step"][:, None, :]
                labels, names = stored["label"], stored["recording"]
        except (OSError, ValueError, KeyError) as error:
            raise RecordingError(f"{path}: is not a motor_pump recording ({error})") from None
        for counted, label, name in zip(counts, labels, names, strict=True):
            windows.setdefault((str(name), bool(label)), []).append(_cut(counted))
    cores = Cores(watched.features.plan_at)
    return [
        Recording(name, faulty, samples, _features(watched.features, watched.nameplate, cores, samples))
        for (name, faulty), slices in sorted(windows.items())
        for samples in [np.concatenate(slices)]
    ]


def _cut(counted: NDArray[np.floating[Any]]) -> F32:
    """A slice as windows, shape (n_windows, n_axes, WINDOW_SAMPLES)."""
    n_windows = len(counted) // WINDOW_SAMPLES
    whole = counted[: n_windows * WINDOW_SAMPLES].reshape(n_windows, WINDOW_SAMPLES, -1)
    return np.ascontiguousarray(whole.transpose(0, 2, 1), np.float32)


def _features(features: FeatureSet, plate: Nameplate, cores: Cores, samples: F32) -> F32:
    return np.stack([features.compute(_window(one, 0), {}, plate, cores)[0] for one in samples])


def _window(samples: F32, now_ns: int) -> Window:
    return Window(TAG, SENSOR, ("x", "y", "z"), samples, SAMPLE_RATE_HZ, 0, now_ns, now_ns, OperatingPoint())
