"""The cell of `make tflite-runtime`: Python 3.11, NumPy 1, tflite-runtime 2.14 itself, and none of our extras.

Run by path in its own environment and left out of the normal run, because it needs NumPy 1 where everything else has 2.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from every_operation import FILE, every_operation, sequence

from agent.features import feature_set_of
from agent.inference.bundle import open_bundle
from agent.inference.golden import golden_features, manifest_columns
from agent.inference.runtimes import tflite
from agent.machine import load_machine_profile

ROOT = Path(__file__).resolve().parents[2]


def test_this_is_the_old_engine_and_not_its_successor() -> None:
    """Otherwise the cell would prove nothing."""
    assert importlib.util.find_spec("ai_edge_litert") is None
    assert importlib.util.find_spec("onnxruntime") is None
    assert np.__version__.startswith("1.")


@pytest.mark.parametrize("machine_type", ["motor", "pump"])
def test_the_shipped_bundle_passes_the_check_at_the_door(machine_type: str) -> None:
    """The same files: hashes, feature digest, golden windows and golden vectors, on tflite-runtime 2.14."""
    profile = load_machine_profile(ROOT / "config", machine_type)
    features = feature_set_of(profile)
    columns = manifest_columns(features, [column.scale_floor for column in profile.columns])
    bundle = open_bundle(
        ROOT / "models" / profile.bundle, features.digest, "tflite", golden_features(features), columns
    )
    assert bundle.runtime.engine == "tflite-runtime 2.14.0"
    scores = [bundle.score(z, mask)[0] for z, mask in zip(bundle.golden.z, bundle.golden.mask, strict=True)]
    limit = bundle.manifest.reference_threshold
    assert (
        max(abs(score - float(expected)) for score, expected in zip(scores, bundle.golden.score, strict=True))
        < 1e-4 * limit
    )
    assert all(score > limit for score, faulty in zip(scores, bundle.golden.faulty, strict=True) if faulty)


def test_a_model_with_a_memory_runs_here_too() -> None:
    """Every operation that the writer knows, over a sequence with gaps, against the reference in float64."""
    graph, runtime, state = every_operation(), tflite.open_model(FILE.read_bytes()), None
    z, mask = sequence()
    expected = graph.run(z, mask)
    for at in range(len(z)):
        score, contributions, state = runtime.score(z[at], mask[at], state)
        assert score == pytest.approx(expected["score"][at, 0], rel=1e-5, abs=1e-5)
        np.testing.assert_allclose(contributions, expected["contributions"][at], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state, expected["next_state"][at], rtol=1e-5, atol=1e-5)


def test_a_tampered_bundle_is_refused_here_too(tmp_path: Path) -> None:
    """The door is the same door."""
    from agent.errors import BundleRefused

    profile = load_machine_profile(ROOT / "config", "motor")
    source = ROOT / "models" / profile.bundle
    for item in source.iterdir():
        (tmp_path / item.name).write_bytes(item.read_bytes())
    tree = json.loads((tmp_path / "manifest.json").read_text())
    tree["files"]["model.tflite"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(BundleRefused, match=r"model\.tflite: sha256"):
        open_bundle(tmp_path, tree["feature_digest"], "tflite")
