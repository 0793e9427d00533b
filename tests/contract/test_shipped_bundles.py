"""The bundles in models/: they fit this tree's features and profiles, on both engines, or nobody has day one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.features import feature_set_of
from agent.inference.bundle import HASHED, MANIFEST, open_bundle
from agent.inference.golden import golden_features, manifest_columns
from agent.machine import load_machine_profile
from training.export import MAX_BUNDLE_BYTES

SHIPPED = ["motor", "pump", "temperature", "bearing_scalars"]


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
@pytest.mark.parametrize("machine_type", SHIPPED)
def test_a_shipped_bundle_passes_the_check_at_the_door(root: Path, machine_type: str, engine: str) -> None:
    """When this fails after a change of features or profiles: raise the version and run `make models`."""
    profile = load_machine_profile(root / "config", machine_type)
    features = feature_set_of(profile)
    columns = manifest_columns(features, [column.scale_floor for column in profile.columns])
    bundle = open_bundle(root / "models" / profile.bundle, features.digest, engine, golden_features(features), columns)
    assert bundle.manifest.columns == columns
    assert bundle.manifest.provenance.source.startswith(("simulator", "no data"))
    assert bundle.manifest.baselines == {}


@pytest.mark.parametrize("machine_type", SHIPPED)
def test_a_shipped_bundle_is_small_and_nothing_else_lies_in_it(root: Path, machine_type: str) -> None:
    """At most 100 kB."""
    folder = root / "models" / load_machine_profile(root / "config", machine_type).bundle
    assert {item.name for item in folder.iterdir()} == {MANIFEST, *HASHED}
    assert sum(item.stat().st_size for item in folder.iterdir()) <= MAX_BUNDLE_BYTES
