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

MAX_BUNDLE_BYTES = 120_000
MAX_GOLDEN_SCORE_X = 20.0  # faulty golden scores stay within this many thresholds, where float32 resolves the tolerance
GOLDEN_VECTORS_EACH = 8
HELD_WINDOWS = 100  # how long a fault is held until a model with a memory must have seen it
SCALE_STEPS = 40  # of a bisection: float64 has no more to give
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


@dataclass(frozen=True, slots=True, eq=False)
class GoldenVectors:
    """Vectors that are replayed at the door, each with the state that the model meets it with.

    Attributes:
        z, mask: shape (n_vectors, n_columns). faulty: shape (n_vectors,). state: shape (n_vectors, n_state).
    """

    z: F32
    mask: F32
    faulty: NDArray[np.bool_]
    state: F32


def golden_vectors(
    graph: Graph,
    healthy: tuple[F32, F32],
    faulty: tuple[F32, F32],
    threshold: float,
    starts: Sequence[int] = (0,),
) -> GoldenVectors:
    """Vectors that are replayed at the door: healthy from calm to lively, faulty above the threshold, one with gaps.

    Faulty vectors are scaled down to at most `MAX_GOLDEN_SCORE_X` thresholds, because beyond it float32 itself is
    coarser than the tolerance; all scores are distinct, so that a ranking exists. A model with a memory is shown each
    faulty vector again and again; what is kept is the moment at which it crosses the threshold.

    Args:
        healthy, faulty: z and mask, shape (n_windows, n_columns) each.
        starts: rows of `healthy` at which a sequence begins; see `Graph.run`.
    Raises: ExportRefused: the model does not tell a single faulty window from a healthy one.
    """
    z, mask = (np.asarray(part, np.float32) for part in healthy)
    outputs = graph.run(z, mask, starts)
    order = np.argsort(outputs["score"][:, 0], kind="stable")
    picks = order[np.linspace(0, len(order) - 1, GOLDEN_VECTORS_EACH).astype(int)]
    state = _before(outputs["next_state"], starts)[picks]
    bad_z, bad_mask, bad_state = _crossings(graph, faulty, threshold)
    bad = np.linspace(0, len(bad_z) - 1, GOLDEN_VECTORS_EACH).astype(int)
    bad_z, bad_mask, bad_state = bad_z[bad], bad_mask[bad], bad_state[bad]
    if not graph.n_state:
        bad_z = bad_z * _shrinkage(graph, bad_z, bad_mask, threshold)[:, None]
    all_z, all_mask = np.concatenate([z[picks], bad_z]), np.concatenate([mask[picks], bad_mask])
    all_state = np.concatenate([state, bad_state]).astype(np.float32)
    all_mask[-1, ::3] = 0.0
    all_z = np.where(all_mask > 0, all_z, np.float32(0.0))
    is_faulty = np.arange(len(all_z)) >= len(picks)
    scores = graph.step(all_z, all_mask, all_state)["score"][:, 0]
    _, distinct = np.unique(np.round(scores / (1e-3 * threshold)), return_index=True)
    keep = np.sort(distinct)
    return GoldenVectors(all_z[keep], all_mask[keep], is_faulty[keep], all_state[keep])


def _before(next_state: NDArray[np.float64], starts: Sequence[int]) -> F32:
    """The state that each window of a run was met with: the one that the window before left, zero at a start."""
    before = np.roll(next_state, 1, axis=0).astype(np.float32)
    before[list(starts)] = 0.0
    return before


def _crossings(graph: Graph, faulty: tuple[F32, F32], threshold: float) -> tuple[F32, F32, F32]:
    """The faulty vectors that the model sees, with the state in which each first scores above the threshold.

    Returns: z, mask (n_seen, n_columns), state (n_seen, n_state).
    """
    n_held = HELD_WINDOWS if graph.n_state else 1
    z, mask = (np.asarray(part, np.float32) for part in faulty)
    starts = range(0, n_held * len(z), n_held)
    outputs = graph.run(np.repeat(z, n_held, axis=0), np.repeat(mask, n_held, axis=0), starts)
    above = outputs["score"].reshape(len(z), n_held) > threshold
    seen = np.flatnonzero(above.any(axis=1))
    if not seen.size:
        raise ExportRefused("no faulty window scores above the threshold; train on more machines, or for fewer columns")
    first = seen * n_held + above[seen].argmax(axis=1)
    return z[seen], mask[seen], _before(outputs["next_state"], starts)[first]


def _shrinkage(graph: Graph, z: F32, mask: F32, threshold: float) -> F32:
    """By how much to scale each vector so that their scores spread from just above the threshold to the largest allowed.

    A quadratic score is scaled by a root. Where the score is of another shape and the root misses, the factor is bisected.
    Returns: shape (n_vectors,), at most 1.
    """
    targets = threshold * np.linspace(1.5, MAX_GOLDEN_SCORE_X, len(z))
    scores = graph.run(z, mask)["score"][:, 0]
    factors = np.minimum(1.0, np.sqrt(targets / scores)).astype(np.float32)
    reached = graph.run(z * factors[:, None], mask)["score"][:, 0]
    missed = (reached <= threshold) | (reached > 1.001 * MAX_GOLDEN_SCORE_X * threshold)
    if missed.any():
        factors[missed] = _bisected(graph, z[missed], mask[missed], targets[missed])
    return factors


def _bisected(graph: Graph, z: F32, mask: F32, targets: NDArray[np.float64]) -> F32:
    """The largest factor found at which each score is not above its target."""
    low, high = np.zeros(len(z)), np.ones(len(z))
    for _ in range(SCALE_STEPS):
        middle = (low + high) / 2
        is_over = graph.run(z * middle[:, None], mask)["score"][:, 0] > targets
        low, high = np.where(is_over, low, middle), np.where(is_over, middle, high)
    return low.astype(np.float32)


def export(
    folder: Path,
    graph: Graph,
    draft: Manifest,
    sources: Sequence[GoldenSource],
    vectors: GoldenVectors,
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
            shapes=Shapes.of(n_columns, graph.n_state),
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
    vectors: GoldenVectors,
    compute_features: ComputeFeatures,
    n_columns: int,
) -> Golden:
    bare = [source.window(n_columns) for source in sources]
    windows = tuple(replace(window, expected=np.asarray(compute_features(window), np.float32)) for window in bare)
    rows = zip(vectors.z, vectors.mask, vectors.state, strict=True)
    outputs = [graph.step(z[None], mask[None], state[None]) for z, mask, state in rows]
    return Golden(
        windows=windows,
        z=vectors.z,
        mask=vectors.mask,
        score=np.array([output["score"][0, 0] for output in outputs], np.float32),
        contributions=np.array([output["contributions"][0] for output in outputs], np.float32),
        faulty=vectors.faulty,
        state=vectors.state,
        next_state=np.array([output["next_state"][0] for output in outputs], np.float32),
    )


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
    asked = zip(golden.z, golden.mask, golden.state, strict=True)
    answers = [runtimes[first].score(z, mask, state) for z, mask, state in asked]
    by_first = replace(
        golden,
        score=np.array([answer.value for answer in answers], np.float32),
        contributions=np.array([answer.contributions for answer in answers], np.float32),
        next_state=np.array([answer.state for answer in answers], np.float32),
    )
    for kind in others:
        failure = score_disagreement(by_first, runtimes[kind], threshold)
        if failure:
            raise ExportRefused(f"engines {first} and {kind} differ: {failure}; the bundle is not written")


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
    if golden.state.shape[1]:
        arrays |= {"state": golden.state, "next_state": golden.next_state}
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
