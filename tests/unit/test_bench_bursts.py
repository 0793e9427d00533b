"""The account of the bench's bursts: nothing is taken for counted that is not, and memory that grows is seen to grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.config import load_site
from simulator import bench_bursts
from simulator.bench_bursts import account, memory
from simulator.scenario import Plant, load_scenario
from simulator.stage import PartFailed

ROOT = Path(__file__).parents[2]
SENT = {"published": {"accel-m": 10, "accel-p": 10}, "chunks": 180, "dropped_queue": 0}


def ledger(**counts: int) -> dict[str, Any]:
    named = {f"bursts:{name}": n for name, n in counts.items()}
    return {
        "counts": named,
        "drops": {name: n for name, n in named.items() if name != "bursts:complete"},
        "windows": 20,
    }


@pytest.mark.parametrize(
    ("counts", "lost"),
    [
        ({"complete": 60}, 0),
        ({"complete": 57, "incomplete": 3, "inbox_dropped": 4}, 0),
        ({"complete": 58, "inbox_dropped": 6}, 2),  # all three chunks of both
        ({"complete": 56, "incomplete": 2, "inbox_dropped": 8}, 2),
    ],
)
def test_what_was_sent_is_complete_or_counted(counts: dict[str, int], lost: int) -> None:
    """A burst none of whose chunks came is in no burst counter; the messages that were dropped speak for it."""
    found = account(SENT, ledger(**counts))
    assert found["bursts_sent"] == 60 == found["bursts_complete"] + found["bursts_incomplete"] + found["bursts_lost"]
    assert found["bursts_lost"] == lost


@pytest.mark.parametrize("counts", [{"complete": 59}, {"complete": 58, "inbox_dropped": 5}, {"complete": 61}])
def test_a_sum_that_is_not_right_is_a_failure(counts: dict[str, int]) -> None:
    """A burst that vanished, or one that nobody sent."""
    with pytest.raises(PartFailed, match="does not add up"):
        account(SENT, ledger(**counts))


def test_a_leak_is_a_slope_and_warming_up_is_none() -> None:
    """40 MiB in the first minute and nothing after is flat; 1 MiB a minute is 60 MiB/h, of one core a fifth."""
    flat = [(float(t), 60.0 + min(t, 40), 0.2 * t) for t in range(600)]
    leak = [(t, rss + t / 60, used_s) for t, rss, used_s in flat]
    assert memory(flat, 60.0)["burst_rss_slope_mib_h"] == pytest.approx(0.0, abs=0.01)
    found = memory(leak, 60.0)
    assert found["burst_rss_slope_mib_h"] == pytest.approx(60.0)
    assert found["burst_cpu_pct"] == pytest.approx(20.0)
    assert (found["burst_rss_start_mib"], found["burst_rss_warm_mib"]) == (60.0, 101.0)
    assert "burst_rss_slope_mib_h" not in memory(leak[:30], 6.0), "half a minute has no slope"


def test_the_agent_watches_what_the_plant_sends_without_a_pause(tmp_path: Path) -> None:
    """Two machines, three axes, as many samples in a burst as in the time to the next."""
    site_file, scenario_file = tmp_path / "site.toml", tmp_path / "bursts.toml"
    site_file.write_text(bench_bursts.SITE.format(mqtt=1883, modbus=5020, version="5", engine="onnx"))
    scenario_file.write_text(bench_bursts.SCENARIO)
    site, scenario = load_site(site_file, ROOT), load_scenario(scenario_file, ROOT)
    sensors = Plant(scenario).burst_sensors
    assert {name for machine in site.machines for name in machine.burst_sensors} == set(sensors)
    assert site.config.site.name == scenario.site
    for burst in sensors.values():
        assert (burst.n_samples, len(burst.axes)) == (bench_bursts.SAMPLE_RATE_HZ, bench_bursts.N_AXES)
        assert burst.n_samples / burst.sample_rate_hz == burst.interval_s
