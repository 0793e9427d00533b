"""`hark evaluate motor_pump DIR`: 45 kW motors driving centrifugal pumps, three axes at 1 kHz, healthy against faulty.

Novelty detection, leave one healthy recording out: learn on the other healthy recordings, judge the left-out one and
every faulty slice. Windows of one second, five per slice. Samples are sensor counts (acc / lsb_step): as published
each recording was scaled to unit variance, and that scaling alone gives recordings away. Baseline, matrix and
threshold come from healthy training windows only; the threshold from the last third of each training recording,
learned on its first two.

far_pct          healthy windows of left-out recordings above the threshold
detection_pct    faulty windows above the threshold, over all rounds
auc              of scores over thresholds, all rounds
per_recording    share above the threshold, by recording
Source: Kafeel et al., Sensors 2021, 21(22), 7587 (the data).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.baseline import Baseline, reference_score
from agent.decision.threshold import fit_tail
from agent.features import Cores, FeatureSet, Nameplate, feature_set_of
from agent.inference.runtime import Runtime, engine_module
from agent.machine import Burst, ColumnSpec, MachineProfile
from agent.vocabulary import OperatingPoint, Window
from firmware_bridge.errors import RecordingError
from training.export import WRITERS
from training.families import pca
from training.metrics import roc_auc, share_above

F64 = NDArray[np.float64]

WINDOW_SAMPLES = 1000
SAMPLE_RATE_HZ = 1000.0
SPEED_RPM = 2980.0  # direct on a 50 Hz line, two poles: the data carry no speed
WINDOW_PROBABILITY = 0.01
BANDS_HZ = ((10.0, 60.0), (60.0, 120.0), (120.0, 220.0), (220.0, 320.0), (320.0, 460.0))
FLOORS = {"vibration.kurtosis_ratio": 0.05, "vibration.crest_ratio": 0.06, "vibration.rms_m_s2": 0.1}
BURST_FEATURES = (
    *FLOORS,
    "spectrum.velocity_rms_mm_s",
    "spectrum.line_1x_mm_s",
    "spectrum.line_2x_mm_s",
    "spectrum.line_3x_mm_s",
    "envelope.rms_m_s2",
)


def profile() -> MachineProfile:
    """The one fixed configuration: what can be seen at 1 kHz without a speed signal."""
    columns = [ColumnSpec(feature=name, scale_floor=FLOORS.get(name, 0.15)) for name in BURST_FEATURES]
    columns += [
        ColumnSpec(feature="spectrum.band_rms_m_s2", parameters={"band": float(band)}, scale_floor=0.1)
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
    )


@dataclass(frozen=True, slots=True, eq=False)
class Recordings:
    """Feature values of all windows: shape (n_windows, n_columns), label 1 faulty, recording's name per window."""

    values: NDArray[np.float32]
    faulty: NDArray[np.bool_]
    recording: NDArray[np.str_]

    def of(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Values of some recordings."""
        return self.values[np.isin(self.recording, names)]


class Detector:
    """Baseline and model of some healthy windows, scored by an engine as on a gateway."""

    def __init__(self, features: FeatureSet, floors: Sequence[float], values: NDArray[np.float32], engine: str) -> None:
        self._transforms = [column.transform for column in features.columns]
        self._baseline = Baseline.fit(values, np.isfinite(values), self._transforms, floors)
        z, judged = self._baseline.refer(values, np.isfinite(values), self._transforms)
        graph = pca.fit(z, judged.astype(np.float32)).graph("motor_pump")
        self._runtime: Runtime = engine_module(engine).open_model(WRITERS[engine](graph))
        self._reference = reference_score(self._scores(values))

    def ratios(self, values: NDArray[np.float32]) -> F64:
        """Scores over the upper normal score of what it learned from. Shape (n_windows,)."""
        return self._scores(values) / self._reference

    def _scores(self, values: NDArray[np.float32]) -> F64:
        z, judged = self._baseline.refer(values, np.isfinite(values), self._transforms)
        mask = judged.astype(np.float32)
        return np.array([self._runtime.score(row, gaps)[0] for row, gaps in zip(z, mask, strict=True)])


def evaluate(folder: Path, root: Path, engine: str = "onnx") -> dict[str, Any]:
    """Judge every healthy recording once as the left-out one. `root` is not needed: the configuration is fixed here.

    Raises: RecordingError: no such recordings there, or fewer than two healthy ones.
    """
    features = feature_set_of(profile())
    floors = [column.scale_floor for column in profile().columns]
    data = load(folder, features)
    healthy = sorted(set(data.recording[~data.faulty].tolist()))
    if len(healthy) < 2:
        raise RecordingError(f"{folder}: {len(healthy)} healthy recordings; two are needed to leave one out")
    normal: list[F64] = []
    abnormal: list[F64] = []
    per_recording: dict[str, float] = {}
    for left_out in healthy:
        training = [name for name in healthy if name != left_out]
        threshold = _threshold(features, floors, data, training, engine)
        detector = Detector(features, floors, data.of(training), engine)
        normal.append(detector.ratios(data.of([left_out])) / threshold)
        abnormal.append(detector.ratios(data.values[data.faulty]) / threshold)
        per_recording[left_out] = _pct(normal[-1])
    of_faulty = np.mean([scores > 1.0 for scores in abnormal], axis=0)
    for name in sorted(set(data.recording[data.faulty].tolist())):
        per_recording[name] = round(100 * float(of_faulty[data.recording[data.faulty] == name].mean()), 2)
    scores, faulty_scores = np.concatenate(normal), np.concatenate(abnormal)
    return {
        "far_pct": _pct(scores),
        "detection_pct": _pct(faulty_scores),
        "auc": round(roc_auc(scores, faulty_scores), 4),
        "per_recording": per_recording,
    }


def _threshold(
    features: FeatureSet, floors: Sequence[float], data: Recordings, training: Sequence[str], engine: str
) -> float:
    """What one healthy window in a hundred exceeds, on windows later than those that a detector learned from."""
    parts = [data.of([name]) for name in training]
    early = np.concatenate([part[: 2 * len(part) // 3] for part in parts])
    late = np.concatenate([part[2 * len(part) // 3 :] for part in parts])
    return fit_tail(Detector(features, floors, early, engine).ratios(late)).quantile(WINDOW_PROBABILITY)


def load(folder: Path, features: FeatureSet) -> Recordings:
    """All windows of DIR/*.npz as features, by the agent's own code. Raises: RecordingError: not this layout."""
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise RecordingError(f"{folder}: holds no .npz with acc, lsb_step, label and recording")
    cores = Cores(features.plan_at)
    values, faulty, names = [], [], []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as stored:
                counts = stored["acc"] / stored["lsb_step"][:, None, :]
                labels, recordings = stored["label"], stored["recording"]
        except (OSError, ValueError, KeyError) as error:
            raise RecordingError(f"{path}: is not a motor_pump recording ({error})") from None
        for counted, label, name in zip(counts, labels, recordings, strict=True):
            for first in range(0, len(counted) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
                values.append(_vector(features, cores, counted[first : first + WINDOW_SAMPLES].T))
                faulty.append(bool(label))
                names.append(str(name))
    return Recordings(np.stack(values), np.array(faulty), np.array(names))


def _vector(features: FeatureSet, cores: Cores, samples: NDArray[np.floating]) -> NDArray[np.float32]:
    point = OperatingPoint(SPEED_RPM, 50.0)
    block = np.ascontiguousarray(samples, np.float32)
    window = Window("motor_pump", "file", ("x", "y", "z"), block, SAMPLE_RATE_HZ, 0, 0, 0, point)
    return features.compute(window, {}, Nameplate(SPEED_RPM, 50.0), cores)[0]


def _pct(scores: F64) -> float:
    return round(100 * share_above(scores, 1.0), 2)
