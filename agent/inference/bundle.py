"""Bundle: one released model folder, opened only when everything in it is what its manifest says and works here.

    manifest.json   identity: columns, feature digest, hashes, tail of the healthy scores, baselines, provenance
    model.onnx, model.tflite   the same float32 graph for two engines: z, mask -> score, contributions; a model with a
                    memory also has state -> next_state
    golden.npz      raw windows with their features, and vectors with their scores, replayed on this CPU at every start
    card.md         what the model is for and where it ends, for people

Nothing in a bundle is code: JSON, two graph formats and plain arrays (no pickles). Sizes are looked at before reading.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from msgspec.structs import astuple
from numpy.typing import NDArray

from agent.baseline import Baseline
from agent.decision.threshold import Tail
from agent.errors import BundleRefused
from agent.inference.runtime import MAX_MODEL_BYTES, Runtime, Scored, engine_module, read_limited
from agent.regression import Regression
from agent.vocabulary import F32, F64
from firmware_bridge.errors import HarkError

FORMAT = 1
MANIFEST, GOLDEN = "manifest.json", "golden.npz"
HASHED = ("model.onnx", "model.tflite", GOLDEN, "card.md")
MAX_MANIFEST_BYTES = 1 << 20
MAX_GOLDEN_UNPACKED_BYTES = 4 << 20
MAX_WINDOW_SAMPLES = 1 << 18
MAX_STATE_PER_COLUMN = 8  # what a machine's memory may hold; averages and sums need one value a column
HISS = b"golden windows"
FEATURE_TOLERANCE = 1e-4  # relative; float32 features differ by about 1e-6 between CPUs
SCORE_TOLERANCE = 1e-4  # share of the reference threshold; engines differ by about 1e-6
STATE_TOLERANCE = 1e-4  # of a robust standard deviation; one step's rounding is about 1e-6

Positive = Annotated[float, Meta(gt=0)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class ManifestColumn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column of the model's vector, in order."""

    name: str
    channel: str
    feature: str
    version: int
    transform: str
    scale_floor: float
    parameters: dict[str, float] = {}


class Shapes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Tensor shapes of the graph; `state` and `next_state` have one shape, which a model without memory does not name."""

    z: tuple[int, int]
    mask: tuple[int, int]
    score: tuple[int, int]
    contributions: tuple[int, int]
    state: tuple[int, int] | None = None

    @classmethod
    def of(cls, n_columns: int, n_state: int) -> Shapes:
        """The shapes of a model of this width; `n_state` 0: it has no memory."""
        return cls(
            z=(1, n_columns),
            mask=(1, n_columns),
            score=(1, 1),
            contributions=(1, n_columns),
            state=(1, n_state) if n_state else None,
        )

    @property
    def n_state(self) -> int:
        """Number of values that the model remembers."""
        return self.state[1] if self.state else 0


class StateRegression(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `agent.regression.Regression`: of speed, load and ambient temperature; a slope row per column."""

    centre: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    slope: tuple[tuple[float, float, float], ...]


class StateBaseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A baseline that travels with a site bundle, so that the agent need not learn; null where a column was absent."""

    location: tuple[float | None, ...]
    scale: tuple[float, ...]
    normal: tuple[float | None, ...]
    reference_score: Positive
    n_windows: Annotated[int, Meta(gt=0)]
    envelope_band_hz: tuple[float, float] | None = None
    regression: StateRegression | None = None

    def as_baseline(self, digest: str) -> Baseline:
        """The same as the agent's own word for it."""
        return Baseline(
            location=_floats(self.location),
            scale=_floats(self.scale),
            normal=_floats(self.normal),
            n_windows=self.n_windows,
            digest=digest,
            reference_score=self.reference_score,
            envelope_band_hz=self.envelope_band_hz,
            regression=None
            if self.regression is None
            else Regression(*(np.array(part, np.float64) for part in astuple(self.regression))),
        )


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where it comes from: enough to make it again."""

    source: str  # "simulator" or the dataset's tables with their versions
    data_version: str  # what the data's bytes hang on: the simulator's parameters, or Delta table versions
    seed: int
    code: str  # version and hash of the sources that made it; a commit cannot be named by a file that is part of it
    family: str
    settings: dict[str, float | int | str]
    libraries: dict[str, str]


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One figure of the card, measured on machines or days that were not trained on."""

    name: str
    value: float
    unit: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle's identity. Nothing in it comes from a wall clock, so that a rebuild is identical.

    `tail` is that of r = score / (reference score of the machine's own learning windows) over healthy machines that the
    model has not seen: a machine that is noisier than its kind brings its own yardstick. `reference_score` is stated where
    a score means the same on every machine (votes): thresholds are multiples of it then, whatever the learning windows scored.
    """

    format: int
    name: str
    machine_type: str
    version: str
    columns: tuple[ManifestColumn, ...]
    feature_digest: str
    shapes: Shapes
    files: dict[str, Sha256]
    tensors_sha256: Sha256
    tail: Tail
    healthy_contributions: tuple[Annotated[float, Meta(ge=0)], ...]  # mean over healthy windows, by column
    k: Annotated[int, Meta(ge=1)]
    m: Annotated[int, Meta(ge=1)]
    learn_windows: Annotated[int, Meta(ge=1)]
    false_alarms_per_machine_month: Positive
    reference_threshold: Positive
    reference_score: Positive | msgspec.UnsetType = msgspec.UNSET
    provenance: Provenance
    created_utc: str  # of the youngest data
    metrics: tuple[Metric, ...] = ()
    baselines: dict[str, dict[str, StateBaseline]] = {}  # machine -> state key -> baseline
    manifest_sha256: Sha256 = "0" * 64  # of all the rest; see `sealed`


class _FormatOnly(msgspec.Struct):
    format: int


@dataclass(frozen=True, slots=True, eq=False)
class GoldenWindow:
    """A raw window with the features that training's code made of it.

    Attributes:
        samples: shape (n_axes, n_samples), m/s2; no axes where the machine sends no bursts.
        tags: by column name. nameplate, point: numbers by name; what is not known is missing.
        expected: shape (n_columns,), features in physical units; NaN where absent.
    """

    axes: tuple[str, ...]
    samples: F32
    sample_rate_hz: float
    tags: Mapping[str, float]
    nameplate: Mapping[str, float]
    point: Mapping[str, float]
    expected: F32


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Everything that is replayed at the door: raw windows, and vectors healthy and faulty with their scores.

    A model with a memory is asked about each vector with the state that it had when it met it.

    Attributes:
        z, mask, contributions: shape (n_vectors, n_columns). score: shape (n_vectors,). faulty: shape (n_vectors,).
        state, next_state: shape (n_vectors, n_state), before and after the vector; no columns without a memory.
    """

    windows: tuple[GoldenWindow, ...]
    z: F32
    mask: F32
    score: F32
    contributions: F32
    faulty: NDArray[np.bool_]
    state: F32
    next_state: F32


ComputeFeatures = Callable[[GoldenWindow], F32]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """An opened, checked model: what the manifest says, and an engine that scores."""

    path: Path
    manifest: Manifest
    runtime: Runtime

    @property
    def golden(self) -> Golden:
        """What was replayed at the door, read again: a running agent would carry 0.6 MiB a model that it never looks at.

        Raises: BundleRefused: the file has changed since.
        """
        return read_golden(self.path / GOLDEN, _checked_file(self.path, self.manifest, GOLDEN), self.manifest.shapes)

    @property
    def label(self) -> str:
        """How alarms and logs name it."""
        return f"{self.manifest.name} {self.manifest.version}"

    def score(self, z: F32, mask: F32) -> tuple[float, F32]:
        """The score and contributions of one vector on its own; a model with a memory begins with an empty one."""
        alone = self.step(z, mask)
        return alone.value, alone.contributions

    def step(self, z: F32, mask: F32, state: F32 | None = None) -> Scored:
        """The next vector of a machine, with the state that its last one left; see `Runtime.score`."""
        return self.runtime.score(z, mask, state)

    def baseline(self, machine: str, state_key: str) -> Baseline | None:
        """The baseline that came with the bundle for one machine and state; None where the agent must learn it."""
        state = self.manifest.baselines.get(machine, {}).get(state_key)
        return state.as_baseline(self.manifest.feature_digest) if state else None


def open_bundle(
    path: Path,
    feature_set_digest: str,
    engine: str,
    compute_features: ComputeFeatures | None = None,
    own_columns: Sequence[ManifestColumn] = (),
) -> Bundle:
    """Open a bundle, or refuse it with one line that says which file, which check, expected and got, and what to do.

    Checked in this order: manifest readable and of a known format, hashes of all files, feature digest, the manifest's
    own hash, model loads,
    golden windows give the same features with this agent's own feature code, golden vectors give the same scores on
    this engine.

    Args:
        feature_set_digest: of the agent's own feature set for this machine.
        engine: "onnx" or "tflite".
        compute_features: the agent's feature code for one golden window; None skips that check (a tool that has no
            machine profile at hand).
        own_columns: the agent's columns, so that a refused digest can name what differs.
    Raises: BundleRefused, MissingExtra.
    """
    path = Path(path)
    manifest = read_manifest(path)
    contents = _checked_files(path, manifest)
    _check_digest(path, manifest, feature_set_digest, own_columns)
    _check_seal(path, manifest)
    golden = read_golden(path / GOLDEN, contents[GOLDEN], manifest.shapes)
    module = engine_module(engine)
    try:
        runtime: Runtime = module.open_model(contents[module.FILE_NAME])
    except BundleRefused as error:
        raise BundleRefused(f"{path}: {error}") from None
    if Shapes.of(*runtime.sizes) != manifest.shapes:
        expected, got = manifest.shapes, Shapes.of(*runtime.sizes)
        raise _refused(path / module.FILE_NAME, "tensor shapes", _sizes(expected), _sizes(got))
    if compute_features is not None:
        _check_features(path, manifest, golden, compute_features)
    _check_scores(path, manifest, golden, runtime)
    return Bundle(path, manifest, runtime)


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with its own hash in it, so that a number edited later is noticed. It proves no origin: not a signature."""
    bare = msgspec.structs.replace(manifest, manifest_sha256="0" * 64)
    digest = hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()
    return msgspec.structs.replace(manifest, manifest_sha256=digest)


def read_manifest(path: Path) -> Manifest:
    """A bundle's manifest, its own promises checked against each other.

    Raises: BundleRefused: unreadable, of another format, or inconsistent.
    """
    file = Path(path) / MANIFEST
    content = read_limited(file, MAX_MANIFEST_BYTES)
    try:
        stated = msgspec.json.decode(content, type=_FormatOnly).format
        if stated != FORMAT:
            raise _refused(file, "format", FORMAT, stated, "use a bundle exported for this agent, or update the agent")
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleRefused(f"{file}: is not a manifest ({error}); copy the whole bundle folder again") from None
    _check_consistent(file, manifest)
    return manifest


def _refused(file: Path | str, check: str, expected: object, got: object, remedy: str = "") -> BundleRefused:
    """The one shape of every refusal: file, check, expected and got, what to do."""
    return BundleRefused(f"{file}: {check}: expected {expected}, got {got}; {remedy or 'export the bundle again'}")


def _check_consistent(file: Path, manifest: Manifest) -> None:
    n_columns = len(manifest.columns)
    shapes = manifest.shapes
    if shapes != Shapes.of(n_columns, shapes.n_state):
        raise _refused(file, "shapes", f"(1, {n_columns}) for {n_columns} columns", shapes.z)
    if not 0 <= shapes.n_state <= MAX_STATE_PER_COLUMN * n_columns:
        raise _refused(file, "shape of the state", f"at most {MAX_STATE_PER_COLUMN} values a column", shapes.state)
    if set(manifest.files) != set(HASHED):
        raise _refused(file, "files", ", ".join(HASHED), ", ".join(sorted(manifest.files)))
    if manifest.k > manifest.m:
        raise _refused(file, "k of m", "k at most m", f"{manifest.k} of {manifest.m}")
    tail = manifest.tail
    if not (tail.location > 0 and tail.scale > 0 and 0 <= tail.shape < 1 and 0 < tail.exceedance_rate <= 1):
        raise _refused(file, "tail", "location and scale above 0, shape 0 to 1, a rate up to 1", tail)
    for machine, states in manifest.baselines.items():
        for state, baseline in states.items():
            sizes = {len(baseline.location), len(baseline.scale), len(baseline.normal)}
            if sizes != {n_columns} or not all(math.isfinite(scale) and scale > 0 for scale in baseline.scale):
                where = f"baseline of {machine}, {state}"
                raise _refused(file, where, f"{n_columns} columns, each with a scale above 0", f"sizes {sorted(sizes)}")


def _checked_files(path: Path, manifest: Manifest) -> dict[str, bytes]:
    """All files' bytes, each read once, so that what was hashed is what is loaded."""
    return {name: _checked_file(path, manifest, name) for name in HASHED}


def _checked_file(path: Path, manifest: Manifest, name: str) -> bytes:
    content = read_limited(path / name, MAX_MODEL_BYTES)
    got, expected = hashlib.sha256(content).hexdigest(), manifest.files[name]
    if got != expected:
        remedy = "this is not the file that was exported: copy the whole bundle folder again"
        raise _refused(path / name, "sha256", f"{expected[:12]}..", f"{got[:12]}..", remedy)
    return content


def _check_digest(path: Path, manifest: Manifest, own_digest: str, own_columns: Sequence[ManifestColumn]) -> None:
    if manifest.feature_digest == own_digest:
        return
    differences = column_differences(manifest.columns, own_columns) if own_columns else ""
    detail = f" ({differences})" if differences else ""
    got = f"{manifest.feature_digest[:12]}..{detail}"
    remedy = "train and export the bundle again with this agent's version and machine profile"
    raise _refused(path / MANIFEST, "feature digest", f"{own_digest[:12]}.. (this agent's)", got, remedy)


def _check_seal(path: Path, manifest: Manifest) -> None:
    own = sealed(manifest).manifest_sha256
    if own != manifest.manifest_sha256:
        remedy = "it was edited after the export: copy the whole bundle folder again"
        raise _refused(path / MANIFEST, "its own sha256", f"{manifest.manifest_sha256[:12]}..", f"{own[:12]}..", remedy)


def column_differences(bundle: Sequence[ManifestColumn], own: Sequence[ManifestColumn]) -> str:
    """Which columns differ and how, in words: at most five, then how many more."""
    own_by_name = {column.name: column for column in own}
    bundle_by_name = {column.name: column for column in bundle}
    found = [f"{name} only in the bundle" for name in bundle_by_name if name not in own_by_name]
    found += [f"{name} only in the agent" for name in own_by_name if name not in bundle_by_name]
    for name, theirs in bundle_by_name.items():
        ours = own_by_name.get(name)
        for what in ("feature", "version", "channel", "transform", "parameters"):
            if ours is not None and getattr(ours, what) != getattr(theirs, what):
                found.append(
                    f"{name}: {what} {getattr(theirs, what)} in the bundle, {getattr(ours, what)} in the agent"
                )
    if not found and [*bundle_by_name] != [*own_by_name]:
        found = ["the same columns in another order"]
    if not found:
        found = ["same columns; sample rate, window length or bands differ"]
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def read_golden(file: Path, content: bytes, sizes: Shapes) -> Golden:
    """The golden windows and vectors from the bytes of golden.npz.

    Args: sizes: of the model, as the manifest states them.

    Raises: BundleRefused: not an archive of plain arrays with the shapes that the manifest implies.
    """
    try:
        arrays = _arrays(content)
        description = msgspec.json.decode(arrays["windows_json"].tobytes(), type=list[dict[str, Any]])
        windows = tuple(
            GoldenWindow(
                axes=tuple(item["axes"]),
                samples=golden_samples(
                    arrays[f"period_{i}"], float(item["scale_m_s2"]), int(item["n_samples"]), int(item["noise_counts"])
                ),
                sample_rate_hz=float(item["sample_rate_hz"]),
                tags=item["tags"],
                nameplate=item["nameplate"],
                point=item["point"],
                expected=arrays["expected"][i].astype(np.float32),
            )
            for i, item in enumerate(description)
        )
        no_memory = np.zeros((len(arrays["score"]), 0), np.float32)
        golden = Golden(
            windows=windows,
            z=arrays["z"],
            mask=arrays["mask"],
            score=arrays["score"],
            contributions=arrays["contributions"],
            faulty=arrays["faulty"],
            state=arrays["state"] if sizes.state else no_memory,
            next_state=arrays["next_state"] if sizes.state else no_memory,
        )
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        msgspec.DecodeError,
    ) as error:
        raise BundleRefused(
            f"{file}: is not an archive of golden windows ({error}); copy the whole bundle folder again"
        ) from None
    n_vectors = len(golden.score)
    for wanted, tensors in (
        ((n_vectors, sizes.z[1]), (golden.z, golden.mask, golden.contributions)),
        ((n_vectors, sizes.n_state), (golden.state, golden.next_state)),
    ):
        wrong = [array for array in tensors if array.shape != wanted or array.dtype != np.float32]
        if wrong or not n_vectors:
            raise _refused(file, "shapes", f"float32 {wanted}", [(str(item.dtype), item.shape) for item in tensors])
    if not golden.faulty.any() or golden.faulty.all():
        raise _refused(file, "vectors", "healthy and faulty ones", "one kind only")
    return golden


def _arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz, its unpacked size looked at first; pickled objects are refused."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked_bytes = sum(item.file_size for item in archive.infolist())
        if unpacked_bytes > MAX_GOLDEN_UNPACKED_BYTES:
            raise ValueError(f"{unpacked_bytes} bytes unpacked, at most {MAX_GOLDEN_UNPACKED_BYTES}")
    with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


def golden_samples(period: NDArray[Any], scale_m_s2: float, n_samples: int, noise_counts: int) -> F32:
    """One stored period repeated to the length of a window, and hiss on top: seconds of signal in a few kilobytes.

    Without the hiss a periodic signal has nothing between its lines, and a ratio of a line to its floor would be made of
    rounding. The hiss is the stream of SHAKE128 (FIPS 202), the same everywhere and for ever; numpy.random would stay loaded
    for it, 2 MiB.

    Args:
        period: shape (n_axes, n_period), int16 counts of `scale_m_s2`. noise_counts: largest count of the hiss.
    Returns: shape (n_axes, n_samples), m/s2.
    Raises: ValueError: not such a period, or a length that no window has.
    """
    if period.dtype != np.int16 or period.ndim != 2 or not period.size or not 0 < n_samples <= MAX_WINDOW_SAMPLES:
        raise ValueError(f"period of {period.dtype} {period.shape} for {n_samples} samples")
    n_axes, n_period = period.shape
    counts = np.tile(period.astype(np.int64), (1, -(-n_samples // n_period)))[:, :n_samples]
    raw = np.frombuffer(hashlib.shake_128(HISS).digest(4 * n_axes * n_samples), "<u4").reshape(n_axes, n_samples)
    noise = raw.astype(np.int64) % (2 * max(noise_counts, 0) + 1) - max(noise_counts, 0)
    return np.asarray((counts + noise) * scale_m_s2, np.float32)


def _check_features(path: Path, manifest: Manifest, golden: Golden, compute_features: ComputeFeatures) -> None:
    names = [column.name for column in manifest.columns]
    for index, window in enumerate(golden.windows):
        got = np.asarray(compute_features(window), np.float64)
        expected = window.expected.astype(np.float64)
        if got.shape != expected.shape:
            raise _refused(path / GOLDEN, f"features of window {index}", expected.shape, got.shape)
        both_absent = np.isnan(got) & np.isnan(expected)
        close = np.abs(got - expected) <= FEATURE_TOLERANCE * np.maximum(np.abs(expected), 1e-6)
        wrong = np.flatnonzero(~(both_absent | close))
        if wrong.size:
            first = int(wrong[0])
            check = f"features of window {index}, {names[first]}"
            found = f"{got[first]:.6g} ({wrong.size} of {len(names)} columns differ)"
            remedy = "this agent or CPU computes features differently: export the bundle again with this version"
            raise _refused(path / GOLDEN, check, f"{expected[first]:.6g}", found, remedy)


def _check_scores(path: Path, manifest: Manifest, golden: Golden, runtime: Runtime) -> None:
    failure = score_disagreement(golden, runtime, manifest.reference_threshold)
    if failure:
        raise BundleRefused(
            f"{path / GOLDEN}: scores by {runtime.engine}: {failure}; do not run it here: export the bundle again"
        )


def score_disagreement(golden: Golden, runtime: Runtime, reference_threshold: float) -> str:
    """Replay the golden vectors; empty where all agree, else what differs: a value, a contribution or the ranking.

    The ranking is looked at beside the values: a broken quantisation answers with a plausible constant.
    Raises: HarkError: the engine itself failed.
    """
    tolerance = SCORE_TOLERANCE * reference_threshold
    scores = np.zeros(len(golden.score))
    for index, (z, mask, state) in enumerate(zip(golden.z, golden.mask, golden.state, strict=True)):
        try:
            score, contributions, next_state = runtime.score(z, mask, state)
        except HarkError:
            raise
        except Exception as error:  # whatever the engine throws on this CPU, this model may not run here
            return f"vector {index}: {type(error).__name__}: {str(error)[:120]}"
        checks = (
            ("", np.array([score]), golden.score[index : index + 1], tolerance),
            (", contribution", contributions, golden.contributions[index], tolerance),
            (", state", next_state, golden.next_state[index], STATE_TOLERANCE),
        )
        for what, got, expected, allowed in checks:
            failure = _apart(what, got, expected, allowed)
            if failure:
                return f"vector {index}{failure}"
        scores[index] = score
    if not np.array_equal(np.argsort(scores, kind="stable"), np.argsort(golden.score, kind="stable")):
        return "the golden vectors are ranked differently than when they were exported"
    return ""


def _apart(what: str, got: F32 | F64, expected: F32, tolerance: float) -> str:
    """The first value that is further off than allowed, in words; empty where there is none. NaN is far from everything."""
    if got.shape != expected.shape:
        return f"{what}: expected {expected.shape}, got {got.shape}"
    wrong = np.flatnonzero(~(np.abs(got - expected) <= tolerance))
    if not wrong.size:
        return ""
    first = int(wrong[0])
    where = f"{what} {first}" if what else ""
    return f"{where}: expected {float(expected[first]):.6g}, got {float(got[first]):.6g} (tolerance {tolerance:.2g})"


def _sizes(shapes: Shapes) -> str:
    return f"{shapes.z[1]} columns, {shapes.n_state} remembered"


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
