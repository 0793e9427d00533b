"""A broken promise between our own functions ends the agent, loudly: the supervisor starts it again."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import wait_until
from msgspec.structs import replace

from agent.app import App
from agent.config import SiteConfig, resolve
from agent.pipeline import Pipeline
from firmware_bridge.checked import load

ROOT = Path(__file__).resolve().parents[2]
HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS"
)


def test_a_stage_that_breaks_stops_the_agent_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alive but silent is the worst a watcher can be."""
    (tmp_path / "loop.csv").write_text(f"{HEADER}\n2026-03-09 10:00:00;0.02;0.04;1;0;70;26;230;32\n")
    path = ROOT / "config" / "recordings" / "skab.site.toml"
    config = load(path, SiteConfig)
    source = replace(config.sources[0], path=str(tmp_path / "loop.csv"))
    site = replace(config.site, data_dir=str(tmp_path / "data"))
    app = App(resolve(replace(config, sources=(source,), site=site), path, ROOT))

    def broken(*_: object) -> None:
        raise AssertionError("a promise was broken")

    monkeypatch.setattr(Pipeline, "step", broken)
    app.start()
    wait_until(lambda: app.failure, 10.0, "the broken stage to be noticed")
    app.wait(5.0)
    ledger = app.stop()
    assert ledger["failure"] == "pipeline: AssertionError: a promise was broken"
    assert ledger["health"] == {"state": "broken", "of": "pipeline", "since_s": 0.0}
