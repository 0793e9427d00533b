"""The loop closed: what the agent sent up of a healthy plant becomes a bundle, and the agent runs it, on either engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from offline import Story, site_of_demo, tell

from agent.__main__ import run
from agent.inference.bundle import read_manifest
from agent.store import Store
from firmware_bridge.upstream import UpstreamRecord, encode_record, topic_record
from training.collect import Collector
from training.delta import Dataset

ROOT = Path(__file__).resolve().parents[2]
HEALTHY_S = 150.0
ONSET_S = 190.0
FAULT = f"""
[[faults]]
set = "a"
id = "bearing_outer_race"
place = "motor_de"
onset_s = {ONSET_S}
ramp_s = 25
peak = 0.8
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Healthy time of the demo's plant: agent, buffer, wire format, collector."""
    folder = tmp_path_factory.mktemp("collected")
    story = tell(site_of_demo(ROOT), "healthy", ROOT, seconds=HEALTHY_S)
    store = Store.open(folder / "buffer.sqlite", gateway="gw-01")
    collector = Collector(Dataset(folder / "dataset"), lambda topic, payload: None)
    for kept in store.write(story.records):
        identity = {"stream": kept.stream, "seq": kept.seq, "machine": kept.machine, "utc_ns": kept.utc_ns}
        record = UpstreamRecord(site="demo", gateway="gw-01", **identity, body=kept.body())
        collector.offer(topic_record("demo", "gw-01", kept.machine, kept.stream), encode_record(record))
    collector.flush()
    store.close()
    assert collector.ledger.written == len(story.records)
    return folder / "dataset"


@pytest.fixture(scope="module")
def bundle(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hark train DATASET`, as the data engineer types it."""
    out = tmp_path_factory.mktemp("trained") / "motor-site"
    assert run(["train", str(dataset), "--machine-type", "motor", "--out", str(out), "--root", str(ROOT)]) == 0
    return out


def alarms(story: Story, machine: str) -> list[tuple[str, str, int, str]]:
    return [(e.alarm_id, e.trigger, e.utc_ns, e.text) for e in story.events if e.machine == machine]


def test_the_bundle_carries_the_machines_own_normal(bundle: Path) -> None:
    """With it the agent watches from its first window on, and need not learn."""
    manifest = read_manifest(bundle)
    assert "running:10" in manifest.baselines["M-101A"]
    assert sum(file.stat().st_size for file in bundle.iterdir()) <= 100_000
    story = tell(site_of_demo(ROOT, bundles={"M-101A": bundle}), "healthy", ROOT, seconds=20.0)
    assert story.pipeline.watches["M-101A"].last_score is not None
    assert not [key for key in story.baselines if key[0] == "M-101A"]
    assert alarms(story, "M-101A") == []


def test_the_agent_finds_the_fault_with_it_and_both_engines_agree(bundle: Path, tmp_path: Path) -> None:
    """The same plant goes on after the training's time, and falls ill: same replay, same alarms, by identity and word."""
    text = (ROOT / "config" / "scenarios" / "healthy.toml").read_text()
    (tmp_path / "ill.toml").write_text(text + FAULT)
    by_engine = [
        tell(
            site_of_demo(ROOT, engine=engine, bundles={"M-101A": bundle}),
            str(tmp_path / "ill.toml"),
            ROOT,
            seconds=215.0,
        )
        for engine in ("onnx", "tflite")
    ]
    onnx, tflite = (alarms(story, "M-101A") for story in by_engine)
    assert onnx == tflite
    [(what, at_s)] = [(what, at_s) for machine, what, at_s in by_engine[0].raised() if machine == "M-101A"]
    assert what == "bearing_outer_race"
    assert ONSET_S <= at_s <= ONSET_S + 20.0
