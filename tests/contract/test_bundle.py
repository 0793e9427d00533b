"""A bundle is opened only when everything in it is what it says; each refusal is one line that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from bundles import golden_changed, replaced, rewritten, site_bundle

from agent.errors import BundleRefused
from agent.inference.bundle import HASHED, Bundle, open_bundle, read_manifest
from agent.inference.golden import golden_features, manifest_columns
from agent.inference.runtimes import tflite
from firmware_bridge.errors import MissingExtra
from training.train import Kind

ENGINES = ("onnx", "tflite")


@pytest.fixture(scope="module")
def kind(root: Path) -> Kind:
    return Kind.named(root, "motor")


@pytest.fixture(scope="module")
def original(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle for the whole file; tests that tamper take a copy."""
    return site_bundle(root, tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def opened(path: Path, kind: Kind, engine: str = "onnx") -> Bundle:
    columns = manifest_columns(kind.features, kind.floors)
    return open_bundle(path, kind.features.digest, engine, golden_features(kind.features), columns)


def refused(path: Path, kind: Kind, engine: str = "onnx") -> str:
    with pytest.raises(BundleRefused) as caught:
        opened(path, kind, engine)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("engine", ENGINES)
def test_an_untouched_bundle_opens_on_each_engine(original: Path, kind: Kind, engine: str) -> None:
    """And brings the baselines of the machines it was trained on."""
    bundle = opened(original, kind, engine)
    baseline = bundle.baseline("M-1", "running:10")
    assert baseline is not None
    assert baseline.digest == kind.features.digest
    assert np.isnan(baseline.location[5])
    assert baseline.reference_score > 0
    assert bundle.baseline("M-1", "running:5") is None


def test_a_model_without_memory_is_stepped_like_any_other(original: Path, kind: Kind) -> None:
    """One way through the agent for all models: what it remembers is nothing, and a vector on its own scores the same."""
    bundle = opened(original, kind)
    z, mask = bundle.golden.z[-2], bundle.golden.mask[-2]
    first = bundle.step(z, mask)
    again = bundle.step(z, mask, first.state)
    assert first.state.shape == (0,)
    assert first.value == again.value == bundle.score(z, mask)[0]
    assert b'"state"' not in (original / "manifest.json").read_bytes()


def test_both_engines_score_alike(original: Path, kind: Kind) -> None:
    """Within 1e-4 of the threshold on any vector, not only on the golden ones."""
    first, second = (opened(original, kind, engine) for engine in ENGINES)
    rng = np.random.default_rng(0)
    for _ in range(50):
        z = (3 * rng.standard_normal(len(kind.floors))).astype(np.float32)
        mask = np.ones_like(z)
        assert abs(first.score(z, mask)[0] - second.score(z, mask)[0]) < 1e-4 * first.manifest.reference_threshold


@pytest.mark.parametrize("name", HASHED)
def test_a_changed_byte_in_any_file_is_refused_by_its_hash(bundle: Path, kind: Kind, name: str) -> None:
    """The file is named; nothing of it was parsed."""
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    text = refused(bundle, kind)
    assert f"{name}: sha256: expected" in text
    assert "copy the whole bundle folder again" in text


def test_golden_windows_are_read_again_and_only_as_they_were(bundle: Path, kind: Kind) -> None:
    """A running agent does not carry them; whoever asks later gets what was replayed at the door, or a refusal."""
    kept = opened(bundle, kind)
    assert len(kept.golden.score) > 0
    with (bundle / "golden.npz").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleRefused, match=r"golden\.npz: sha256"):
        _ = kept.golden


@pytest.mark.parametrize("name", ["manifest.json", *HASHED])
def test_a_missing_an_empty_and_a_huge_file_are_refused(bundle: Path, kind: Kind, name: str) -> None:
    """Sizes are looked at before anything is read."""
    file = bundle / name
    file.write_bytes(b"")
    assert name in refused(bundle, kind)
    with file.open("wb") as sparse:
        sparse.truncate(1 << 30)
    assert "size: expected" in refused(bundle, kind)
    file.unlink()
    assert "missing" in refused(bundle, kind)


def test_a_link_out_of_the_folder_is_refused(bundle: Path, kind: Kind, tmp_path: Path) -> None:
    """A bundle from somewhere else may not read this machine's files."""
    shutil.move(bundle / "card.md", tmp_path / "card.md")
    (bundle / "card.md").symlink_to(tmp_path / "card.md")
    assert "not a regular file" in refused(bundle, kind)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.update(format=2), "format: expected 1, got 2"),
        (lambda tree: tree.update(surprise=1), "is not a manifest"),
        (lambda tree: tree.pop("tail"), "is not a manifest"),
        (lambda tree: tree["tail"].update(scale=0.0), "tail: expected"),
        (lambda tree: tree["files"].pop("card.md"), "files: expected"),
        (lambda tree: tree["files"].update({"../x": "0" * 64}), "files: expected"),
        (lambda tree: tree["columns"].pop(), "shapes: expected"),
        (lambda tree: tree["shapes"].update(state=[1, 1 << 20]), "shape of the state: expected"),
        (lambda tree: tree.update(k=9), "k of m: expected"),
        (lambda tree: tree["baselines"]["M-1"]["running:10"]["scale"].pop(), "baseline of M-1, running:10"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    bundle: Path, kind: Kind, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    """Each with its own words."""
    rewritten(bundle, change)
    assert words in refused(bundle, kind)


def test_a_number_edited_in_the_manifest_is_refused(bundle: Path, kind: Kind) -> None:
    """A tail ten times as wide contradicts nothing else, and would silence every alarm."""
    content = (bundle / "manifest.json").read_text()
    tree = json.loads(content)
    (bundle / "manifest.json").write_text(json.dumps(tree, indent=4))
    opened(bundle, kind)  # another layout of the same content is no edit
    tree["tail"]["scale"] *= 10
    (bundle / "manifest.json").write_text(json.dumps(tree))
    text = refused(bundle, kind)
    assert "manifest.json: its own sha256: expected " in text
    assert text.endswith("it was edited after the export: copy the whole bundle folder again")


def test_a_manifest_that_is_not_json_is_refused(bundle: Path, kind: Kind) -> None:
    """Half a file, as a broken copy leaves it."""
    content = (bundle / "manifest.json").read_bytes()
    (bundle / "manifest.json").write_bytes(content[: len(content) // 2])
    assert "is not a manifest" in refused(bundle, kind)


def test_another_feature_version_is_refused_and_named(bundle: Path, kind: Kind) -> None:
    """The person learns which column's formula is another one, not only that a digest differs."""

    def older(tree: dict[str, Any]) -> None:
        tree["feature_digest"] = "e" * 64
        tree["columns"][0]["version"] = 7

    rewritten(bundle, older)
    text = refused(bundle, kind)
    assert "feature digest: expected" in text
    assert f"{kind.features.names[0]}: version 7 in the bundle, {kind.features.columns[0].version} in the agent" in text


def test_features_that_come_out_differently_here_are_refused(bundle: Path, kind: Kind) -> None:
    """Skew is caught at the door, on the device itself: one part in a thousand is too much."""

    def skew(arrays: dict[str, np.ndarray]) -> None:
        arrays["expected"][1, 0] *= 1.001

    golden_changed(bundle, skew)
    text = refused(bundle, kind)
    assert f"features of window 1, {kind.features.names[0]}: expected" in text


def test_a_column_that_is_absent_here_is_refused(bundle: Path, kind: Kind) -> None:
    """NaN is not close to a number."""

    def absent(arrays: dict[str, np.ndarray]) -> None:
        arrays["expected"][0, 1] = np.nan

    golden_changed(bundle, absent)
    assert "features of window 0" in refused(bundle, kind)


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_that_come_out_differently_here_are_refused(bundle: Path, kind: Kind, engine: str) -> None:
    """A broken engine, a broken CPU, or a model that is not the one that was judged."""
    limit = read_manifest(bundle).reference_threshold

    def skew(arrays: dict[str, np.ndarray]) -> None:
        arrays["score"][2] += 3e-4 * limit

    golden_changed(bundle, skew)
    assert "vector 2: expected" in refused(bundle, kind, engine)


def test_contributions_that_come_out_differently_are_refused(bundle: Path, kind: Kind) -> None:
    """The explanation is part of the promise."""
    limit = read_manifest(bundle).reference_threshold

    def skew(arrays: dict[str, np.ndarray]) -> None:
        arrays["contributions"][3, 1] += 3e-4 * limit

    golden_changed(bundle, skew)
    assert "vector 3, contribution 1: expected" in refused(bundle, kind)


def test_golden_vectors_without_a_faulty_one_are_refused(bundle: Path, kind: Kind) -> None:
    """A model that answers a constant passes any check on healthy vectors alone."""

    def healthy_only(arrays: dict[str, np.ndarray]) -> None:
        arrays["faulty"][:] = False

    golden_changed(bundle, healthy_only)
    assert "healthy and faulty" in refused(bundle, kind)


def test_a_pickle_in_the_golden_file_is_refused_unread(bundle: Path, kind: Kind) -> None:
    """No bundle runs code."""

    def pickled(arrays: dict[str, np.ndarray]) -> None:
        arrays["z"] = np.array([{"a": 1}], dtype=object)

    golden_changed(bundle, pickled)
    assert "is not an archive of golden windows" in refused(bundle, kind)


@pytest.mark.parametrize("engine", ENGINES)
def test_bytes_that_are_no_model_are_refused_by_name(bundle: Path, kind: Kind, engine: str) -> None:
    """Also when their hash is right: the engine's own words, in one line."""
    replaced(bundle, f"model.{engine}", b"\x1c\0\0\0TFL3" + b"not a model" * 9)
    assert f"model.{engine}" in refused(bundle, kind, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_other_engines_model_in_place_is_refused(bundle: Path, kind: Kind, engine: str) -> None:
    """A mixed-up copy."""
    other = ENGINES[1 - ENGINES.index(engine)]
    replaced(bundle, f"model.{engine}", (bundle / f"model.{other}").read_bytes())
    assert f"model.{engine}" in refused(bundle, kind, engine)


def test_an_unknown_engine_is_answered_with_the_known_ones(bundle: Path, kind: Kind) -> None:
    """The file's name is its registration."""
    assert "it has onnx, tflite" in refused(bundle, kind, "torch")


def test_a_missing_engine_is_answered_with_the_install_line(
    bundle: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base install has none."""
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r'pip install "hark-edge\[onnx\]"'):
        opened(bundle, kind, "onnx")
    monkeypatch.setattr(tflite, "PACKAGES", {"no_such_engine": "ai-edge-litert"})
    with pytest.raises(MissingExtra, match=r'pip install "hark-edge\[tflite\]"'):
        opened(bundle, kind, "tflite")


def test_tflite_runtime_beside_numpy_2_is_one_clear_error() -> None:
    """Its import succeeds and only the model fails to open, in three steps that name neither cause nor cure."""
    tflite.refuse_numpy_2("1.26.4")
    with pytest.raises(tflite.EngineMismatchError, match=r"cannot run with NumPy 2\.4\.6: pip install"):
        tflite.refuse_numpy_2("2.4.6")


def test_the_manifest_survives_its_own_encoding(original: Path) -> None:
    """Unknown keys are errors, so what export writes must be exactly what the agent knows."""
    manifest = read_manifest(original)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest)) == manifest
