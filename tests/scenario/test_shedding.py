"""Over its latency budget the agent leaves out the model first, then the features; the protective limits always stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from offline import site_of_demo, tell

from agent.budget import LatencyBudget, Level

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("level", "feature_records", "limit_alarm"), [(Level.NO_MODEL, True, True), (Level.LIMITS_ONLY, False, True)]
)
def test_limits_are_never_shed(
    monkeypatch: pytest.MonkeyPatch, level: Level, feature_records: bool, limit_alarm: bool
) -> None:
    """A pump that runs dry destroys its seal in minutes, however busy the gateway is.

    The normal that the limit refers to is learned at full level first; then the load comes.
    """
    learned = tell(site_of_demo(ROOT), "dry_run", ROOT, seconds=50.0)
    made = LatencyBudget.__init__

    def loaded(self: LatencyBudget, *arguments: object) -> None:
        made(self, *arguments)  # type: ignore[arg-type]
        self.level = level

    monkeypatch.setattr(LatencyBudget, "__init__", loaded)
    story = tell(site_of_demo(ROOT), "dry_run", ROOT, seconds=80.0, baselines=learned.baselines)
    machines = {machine for machine, what, _ in story.raised() if what == "dry_run"}
    assert ("P-101A" in machines) == limit_alarm
    assert bool([record for record in story.records if record.stream == "feature"]) == feature_records
    assert not [event for event in story.events if event.condition == "model"]
    assert sum(story.pipeline.budget.shed.values()) > 50, "and what was left out is counted"
    assert any(name.startswith("shed_") for name in story.pipeline.drops())
