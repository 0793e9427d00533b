"""A machine is learned anew when a person says so, and only then; what was said is kept for whoever trains."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from offline import START_MONOTONIC_NS, START_UTC_NS, site_of_demo, tell

from agent.clock import Moment
from agent.commands import relearn
from agent.decision.newbaseline import NEW_BASELINE
from agent.orders import OrderRefused, taken

ROOT = Path(__file__).resolve().parents[2]
AFTER = Moment(START_UTC_NS + 65 * 10**9, START_MONOTONIC_NS + 65 * 10**9)


def test_an_order_ends_what_stood_and_learning_begins_anew() -> None:
    """The bearing was changed: its alarm is over, its normal gone, and the data say from when on another machine runs."""
    story = tell(site_of_demo(ROOT), "demo", ROOT, seconds=65.0)
    pipeline = story.pipeline
    watch = pipeline.watches["M-101A"]
    assert watch.learning.baselines
    assert any(alarm.event.machine == "M-101A" and alarm.standing for alarm in pipeline.standing())
    outcome = pipeline.relearn("M-101A", "new drive end bearing", AFTER)
    assert not watch.learning.baselines
    assert outcome.forgotten == ["M-101A"]
    assert [event.trigger for event in outcome.events] == ["clear"]
    kept = [record.payload for record in outcome.records if record.stream == "baseline"]
    assert [(body["what"], body["reason"]) for body in kept] == [("relearn", "new drive end bearing")]
    assert pipeline.watches["P-101A"].learning.baselines, "nobody spoke of the pump"
    assert not any(alarm.event.condition.startswith(NEW_BASELINE) for alarm in pipeline.standing())


def test_the_command_leaves_an_order_or_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command at the gateway; a slip of the tag is answered with the tags there are."""
    site = Path(shutil.copy(ROOT / "config" / "site.demo.toml", tmp_path))
    assert relearn(site, "M-101A", because="sensor moved", root=ROOT) == 0
    assert "will be learned anew" in capsys.readouterr().out
    assert [(order.machine, order.reason) for order in taken(tmp_path / "data")] == [("M-101A", "sensor moved")]
    with pytest.raises(OrderRefused, match="it has M-101A, P-101A"):
        relearn(site, "M-101", because="sensor moved", root=ROOT)
    with pytest.raises(OrderRefused, match="3 to 128 characters"):
        relearn(site, "M-101A", because="x", root=ROOT)
