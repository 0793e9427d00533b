"""Made-up gateways and what is trained from them: records as they stand on the wire, a stored dataset, a bundle.

And ways to tamper with a bundle, so that only the check behind its hashes can find it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.inference.bundle import Manifest, read_manifest, sealed
from agent.inference.golden import golden_features, manifest_columns
from firmware_bridge.registry import module_named
from firmware_bridge.upstream import UpstreamRecord, encode_record, topic_record
from training import families
from training.collect import Collector
from training.delta import Dataset
from training.export import export, golden_vectors
from training.train import Kind, Recipe, golden_sources, synthetic_faults, train_site

SITE, GATEWAY = "plant", "gw-01"
START_NS = 1_790_000_000_000_000_000
Message = tuple[str, bytes]


def message(
    stream: str, seq: int, body: dict[str, Any], machine: str = "M-1", gateway: str = GATEWAY, utc_ns: int = 0
) -> Message:
    """Topic and payload of one record."""
    record = UpstreamRecord(
        site=SITE,
        gateway=gateway,
        stream=stream,  # type: ignore[arg-type]
        seq=seq,
        machine=machine,
        utc_ns=utc_ns or START_NS + seq * 10**10,
        body=body,
    )
    return topic_record(SITE, gateway, machine, stream), encode_record(record)


def feature_body(values: np.ndarray, digest: str = "d" * 64, state: str = "running:10") -> dict[str, Any]:
    """The body of one vector; NaN is absent."""
    return {
        "machine_type": "motor",
        "state": state,
        "digest": digest,
        "values": [None if np.isnan(value) else float(value) for value in values],
        "present": [int(not np.isnan(value)) for value in values],
        "score": None,
        "threshold": None,
        "burst_id": None,
        "point": {"shaft_speed_rpm": 1470.0, "active_power_kw": 5.5, "line_frequency_hz": None},
    }


def alarm_body(alarm_id: str, state: str, t_start: str) -> dict[str, Any]:
    """The body of one transition of one alarm."""
    return {
        "v": 1,
        "id": alarm_id,
        "code": "A-1",
        "state": state,
        "condition": "model",
        "class": "model",
        "severity": "high",
        "t_start": t_start,
        "fault": {"code": "unbalance", "words": "unbalance", "confidence": 0.9},
        "text": {"en": "Motor M-1: unbalance"},
    }


def healthy_vectors(kind: Kind, n_windows: int, seed: int) -> np.ndarray:
    """Values of a machine that is well: log columns vary by a share, linear ones by an amount; column 5 is absent.

    Columns move together through three causes (load, speed, weather), the same for every machine.
    """
    rng = np.random.default_rng(seed)
    n_columns = len(kind.transforms)
    loadings = np.random.default_rng(99).standard_normal((3, n_columns))
    noise = rng.standard_normal((n_windows, 3)) @ loadings + 0.7 * rng.standard_normal((n_windows, n_columns))
    is_log = np.array([transform == "log" for transform in kind.transforms])
    level = 1.0 + np.arange(n_columns) / 10
    values = np.where(is_log, level * np.exp(0.1 * noise), level + 0.2 * noise).astype(np.float32)
    values[:, 5] = np.nan
    return values


def enough_windows(kind: Kind) -> int:
    """Of each of two machines, so that a covariance of the type's columns may be fitted to a quarter of them."""
    return 5 * len(kind.floors)


def healthy_messages(kind: Kind, n_windows: int) -> Iterator[Message]:
    """Two motors, taken in turns as a gateway does; all through the same stream's sequence."""
    vectors = {machine: healthy_vectors(kind, n_windows, seed) for seed, machine in enumerate(("M-1", "M-2"))}
    for at in range(n_windows):
        for place, (machine, values) in enumerate(vectors.items()):
            yield message("feature", 2 * at + place, feature_body(values[at], kind.features.digest), machine)


def stored(folder: Path, messages: Iterator[Message]) -> Path:
    """A dataset that holds these messages."""
    collector = Collector(Dataset(folder), lambda topic, payload: None)
    for topic, payload in messages:
        collector.offer(topic, payload)
    collector.flush()
    assert collector.ledger.malformed == 0
    return folder


def site_bundle(root: Path, folder: Path) -> Path:
    """A small bundle, trained through the whole way: dataset -> baselines -> matrix -> tail -> export."""
    kind = Kind.named(root, "motor")
    dataset = stored(folder / "dataset", healthy_messages(kind, enough_windows(kind)))
    train_site(root, dataset, "motor", folder / "bundle", Recipe(("pca",)))
    return folder / "bundle"


def family_bundle(root: Path, kind: Kind, family: str, folder: Path) -> Manifest:
    """A bundle of any family on made-up healthy deviations; what is not the model's is taken from the shipped manifest."""
    rng = np.random.default_rng(11)
    z = rng.standard_normal((300, len(kind.floors))).astype(np.float32)
    healthy = (z, np.ones_like(z))
    graph = (
        module_named(families, family)
        .fit(families.Healthy(*healthy, names=kind.features.names))
        .graph(kind.profile.type)
    )
    threshold = 2.0 * float(np.quantile(graph.run(*healthy)["score"], 0.95))
    draft = msgspec.structs.replace(
        read_manifest(root / "models" / kind.profile.bundle),
        columns=manifest_columns(kind.features, kind.floors),
        feature_digest=kind.features.digest,
        reference_threshold=threshold,
    )
    vectors = golden_vectors(graph, healthy, synthetic_faults(healthy, 1), threshold)
    compute = golden_features(kind.features)
    return export(folder, graph, draft, golden_sources(kind), vectors, compute_features=compute)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and seal it again, so that the check behind its own hash has to find it."""
    tree = json.loads((path / "manifest.json").read_text())
    change(tree)
    content = json.dumps(tree).encode()
    with suppress(msgspec.ValidationError):
        content = msgspec.json.encode(sealed(msgspec.json.decode(content, type=Manifest)))
    (path / "manifest.json").write_bytes(content)


def replaced(path: Path, name: str, content: bytes) -> None:
    """Replace a file and its hash, so that only the checks behind the hash can find it."""
    (path / name).write_bytes(content)
    rewritten(path, lambda tree: tree["files"].update({name: hashlib.sha256(content).hexdigest()}))


def golden_changed(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change the golden arrays and all hashes that know them."""
    with np.load(path / "golden.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    change(arrays)
    np.savez(path / "changed.npz", **arrays)
    content = (path / "changed.npz").read_bytes()
    (path / "changed.npz").unlink()
    replaced(path, "golden.npz", content)
