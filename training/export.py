"""Export: a trained graph becomes a bundle's folder, or is refused. What the agent will check is checked here first."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.errors import BundleRefused
from agent.inference.bundle import (
    GOLDEN,
    HASHED,
    MANIFEST,
    ComputeFeatures,
    Golden,
    GoldenWindow,
    Manifest,
    Shapes,
    golden_samples,
    open_bundle,
    score_disagreement,
    sealed,
)
from agent.inference.runtime import Runtime, engine_module
from firmware_bridge.errors import HarkError
from training.card import card_text
from training.graph import Graph
from training.write_onnx import to_onnx
from training.write_tflite import to_tflite

F32 = NDArray[np.float32]
Writer = Callable[[Graph], bytes]
WRITERS: Mapping[str, Writer] = {"onnx": to_onnx, "tflite": to_tflite}

MAX_BUNDLE_BYTES = 100_000
MAX_GOLDEN_SCORE_X = 20.0  # faulty golden scores stay within this many thresholds, where float32 resolves the tolerance
GOLDEN_VECTORS_EACH = 8
PERIOD_SAMPLES = 1024
NOISE_COUNTS = 3000  # of 32000: a floor between the lines, a tenth of full scale


class ExportRefused(HarkError):
    """A model may not be shipped; the message says why and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class GoldenSource:
    """One raw window as it is stored: one period of int16 counts and what belongs to it.

    Attributes:
        period: shape (n_axes, n_period), int16 counts of `scale_m_s2`; repeated to `n_samples`.
    """

    axes: tuple[str, ...]
    period: NDArray[np.int16]
    scale_m_s2: float
    n_samples: int
    sample_rate_hz: float
    tags: Mapping[str, float]
    nameplate: Mapping[str, float]
    point: Mapping[str, float]

    def window(self, n_columns: int) -> GoldenWindow:
        """The same window as the agent will read it from the file; its features are not known yet."""
        return GoldenWindow(
            axes=self.axes,
            samples=golden_samples(self.period, self.scale_m_s2, self.n_samples, NOISE_COUNTS if self.axes else 0),
            sample_rate_hz=self.sample_rate_hz,
            tags=self.tags,
            nameplate=self.nameplate,
            point=self.point,
            expected=np.full(n_columns, np.nan, np.float32),
        )


def golden_period(samples: F32) -> tuple[NDArray[np.int16], float]:
    """The first samples of a window as int16 counts, and what a count means in m/s2. Shape (n_axes, PERIOD_SAMPLES)."""
    part = samples[:, :PERIOD_SAMPLES]
    scale_m_s2 = float(f"{max(float(np.abs(part).max()), 1e-6) / 32_000:.4g}")
    return np.round(part / scale_m_s2).astype(np.int16), scale_m_s2


def golden_vectors(
    graph: Graph, healthy: tuple[F32, F32], faulty: tuple[F32, F32], threshold: float
) -> tuple[F32, F32, NDArray[np.bool_]]:
    """Vectors that are replayed at the door: healthy from calm to lively, faulty above the threshold, one with gaps.

    Faulty vectors are scaled down to at most `MAX_GOLDEN_SCORE_X` thresholds, because beyond it float32 itself is
    coarser than the tolerance; all scores are distinct, so that a ranking exists.

    Args:
        healthy, faulty: z and mask, shape (n_windows, n_columns) each.
    Returns: z, mask (n_vectors, n_columns), and which are faulty (n_vectors,).
    Raises: ExportRefused: the model does not tell a single faulty window from a healthy one.
    """
    z, mask = (np.asarray(part, np.float32) for part in healthy)
    order = np.argsort(_scores(graph, z, mask), kind="stable")
    picks = order[np.linspace(0, len(order) - 1, GOLDEN_VECTORS_EACH).astype(int)]
    bad_z, bad_mask = (np.asarray(part, np.float32) for part in faulty)
    scores = _scores(graph, bad_z, bad_mask)
    above = np.flatnonzero(scores > threshold)
    if not above.size:
        raise ExportRefused("no faulty window scores above the threshold; train on more machines, or for fewer columns")
    bad = above[np.linspace(0, len(above) - 1, GOLDEN_VECTORS_EACH).astype(int)]
    targets = threshold * np.linspace(1.5, MAX_GOLDEN_SCORE_X, len(bad))
    shrink = np.minimum(1.0, np.sqrt(targets / scores[bad])).astype(np.float32)
    all_z = np.concatenate([z[picks], bad_z[bad] * shrink[:, None]])
    all_mask = np.concatenate([mask[picks], bad_mask[bad]])
    all_mask[-1, ::3] = 0.0
    all_z = np.where(all_mask > 0, all_z, np.float32(0.0))
    is_faulty = np.arange(len(all_z)) >= len(picks)
    _, distinct = np.unique(np.round(_scores(graph, all_z, all_mask) / (1e-3 * threshold)), return_index=True)
    keep = np.sort(distinct)
    return all_z[keep], all_mask[keep], is_faulty[keep]


def export(
    folder: Path,
    graph: Graph,
    draft: Manifest,
    sources: Sequence[GoldenSource],
    vectors: tuple[F32, F32, NDArray[np.bool_]],
    *,
    compute_features: ComputeFeatures,
    writers: Mapping[str, Writer] = WRITERS,
) -> Manifest:
    """Write a bundle's folder. The manifest is written last, so a half-written folder is no bundle.

    Args:
        draft: the manifest without shapes, hashes and files, which are filled in here.
        sources: raw golden windows. vectors: from `golden_vectors`.
        compute_features: the agent's feature code for one golden window.
    Returns: the manifest as written.
    Raises: ExportRefused: engines disagree, the bundle is too large, or the agent's own check at the door fails.
    """
    models = {kind: write(graph) for kind, write in writers.items()}
    golden = _golden(graph, sources, vectors, compute_features, len(draft.columns))
    _refuse_disagreement(golden, models, draft.reference_threshold)
    contents = {engine_module(kind).FILE_NAME: content for kind, content in models.items()}
    contents[GOLDEN] = _npz(golden, sources)
    contents["card.md"] = card_text(draft).encode()
    n_columns = len(draft.columns)
    manifest = sealed(
        msgspec.structs.replace(
            draft,
            shapes=Shapes(z=(1, n_columns), mask=(1, n_columns), score=(1, 1), contributions=(1, n_columns)),
            tensors_sha256=graph.tensors_sha256(),
            files={name: hashlib.sha256(contents[name]).hexdigest() for name in HASHED},
        )
    )
    encoded = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"
    total_bytes = len(encoded) + sum(map(len, contents.values()))
    if total_bytes > MAX_BUNDLE_BYTES and not manifest.baselines:
        raise ExportRefused(f"the bundle has {total_bytes} bytes, at most {MAX_BUNDLE_BYTES}; use fewer columns")
    _write(Path(folder), contents, encoded)
    for kind in writers:
        try:
            open_bundle(folder, manifest.feature_digest, kind, compute_features)
        except BundleRefused as error:
            (Path(folder) / MANIFEST).unlink()
            raise ExportRefused(f"what was written would be refused: {error}") from None
    return manifest


def _golden(
    graph: Graph,
    sources: Sequence[GoldenSource],
    vectors: tuple[F32, F32, NDArray[np.bool_]],
    compute_features: ComputeFeatures,
    n_columns: int,
) -> Golden:
    bare = [source.window(n_columns) for source in sources]
    windows = tuple(replace(window, expected=np.asarray(compute_features(window), np.float32)) for window in bare)
    z, mask, faulty = vectors
    outputs = [graph.evaluate({"z": row[None], "mask": gaps[None]}) for row, gaps in zip(z, mask, strict=True)]
    score = np.array([output["score"][0, 0] for output in outputs], np.float32)
    contributions = np.array([output["contributions"][0] for output in outputs], np.float32)
    return Golden(windows, np.asarray(z, np.float32), np.asarray(mask, np.float32), score, contributions, faulty)


def _refuse_disagreement(golden: Golden, models: Mapping[str, bytes], threshold: float) -> None:
    """Each engine against the float64 reference, and the engines against each other."""
    runtimes: dict[str, Runtime] = {}
    for kind, content in models.items():
        try:
            runtimes[kind] = engine_module(kind).open_model(content)
        except BundleRefused as error:
            raise ExportRefused(f"engine {kind} cannot load what was written for it: {error}") from None
        failure = score_disagreement(golden, runtimes[kind], threshold)
        if failure:
            raise ExportRefused(f"engine {kind} differs from the reference: {failure}; the bundle is not written")
    first, *others = runtimes
    answers = [runtimes[first].score(z, mask) for z, mask in zip(golden.z, golden.mask, strict=True)]
    by_first = replace(
        golden,
        score=np.array([score for score, _ in answers], np.float32),
        contributions=np.array([contributions for _, contributions in answers], np.float32),
    )
    for kind in others:
        failure = score_disagreement(by_first, runtimes[kind], threshold)
        if failure:
            raise ExportRefused(f"engines {first} and {kind} differ: {failure}; the bundle is not written")


def _scores(graph: Graph, z: F32, mask: F32) -> NDArray[np.float64]:
    """Scores of many vectors by the reference. Shape (n_vectors,)."""
    return graph.evaluate({"z": z, "mask": mask})["score"][:, 0]


def _npz(golden: Golden, sources: Sequence[GoldenSource]) -> bytes:
    """golden.npz, uncompressed and without times: the same arrays give the same bytes on every machine."""
    described = [
        {
            "axes": source.axes,
            "scale_m_s2": source.scale_m_s2,
            "n_samples": source.n_samples,
            "noise_counts": NOISE_COUNTS if source.axes else 0,
            "sample_rate_hz": source.sample_rate_hz,
            "tags": source.tags,
            "nameplate": source.nameplate,
            "point": source.point,
        }
        for source in sources
    ]
    n_columns = golden.z.shape[1]
    arrays = {
        "windows_json": np.frombuffer(msgspec.json.encode(described, order="sorted"), np.uint8),
        "expected": np.array([window.expected for window in golden.windows], np.float32).reshape(-1, n_columns),
        "z": golden.z,
        "mask": golden.mask,
        "score": golden.score,
        "contributions": golden.contributions,
        "faulty": golden.faulty,
    } | {f"period_{index}": source.period for index, source in enumerate(sources)}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return content.getvalue()


def _write(folder: Path, contents: Mapping[str, bytes], manifest: bytes) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = sorted(item.name for item in folder.iterdir() if item.name not in {*HASHED, MANIFEST})
        if strangers:
            raise ExportRefused(f"{folder}: holds {strangers[0]}, which is no part of a bundle; name an empty folder")
        (folder / MANIFEST).unlink(missing_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        (folder / MANIFEST).write_bytes(manifest)
    except OSError as error:
        raise ExportRefused(
            f"{folder}: cannot be written ({error.strerror}); check --out and its permissions"
        ) from None
