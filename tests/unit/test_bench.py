"""The plant of `hark bench` is one that its site file knows; the bench itself runs as `make bench`."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import load_site
from simulator import bench
from simulator.scenario import Plant, load_scenario

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("fault", ["", bench.FAULT])
def test_the_bench_watches_the_plant_that_it_starts(tmp_path, fault):
    site_file, scenario_file = tmp_path / "site.toml", tmp_path / "bench.toml"
    site_file.write_text(bench._site())
    scenario_file.write_text(bench._scenario() + fault)
    site, scenario = load_site(site_file, ROOT), load_scenario(scenario_file, ROOT)
    plant = Plant(scenario)
    assert site.config.site.name == scenario.site
    assert {machine.tag for machine in site.machines} == {
        tag for spec in scenario.sets for tag in (spec.motor, spec.pump)
    }
    assert {name for machine in site.machines for name in machine.burst_sensors} == set(plant.burst_sensors)
    devices = {device.name: device.device for spec in scenario.sets for device in spec.devices}
    sensors = {
        sensor.name: sensor.device
        for source in site.config.sources
        for sensor in source.sensors
        if sensor.name in devices
    }
    assert sensors == devices
