"""Made-up gateways and what is trained from them: records as they stand on the wire, a stored dataset, a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.upstream import UpstreamRecord, encode_record, topic_record
from training.collect import Collector
from training.delta import Dataset
from training.train import Kind, Recipe, train_site

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
    dataset = stored(folder / "dataset", healthy_messages(kind, 120))
    train_site(root, dataset, "motor", folder / "bundle", Recipe())
    return folder / "bundle"
