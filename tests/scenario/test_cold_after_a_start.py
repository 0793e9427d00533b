"""After a start a machine is cold: what its temperature says is left out until it has run long enough."""

from __future__ import annotations

from pathlib import Path

from agent.features import DataPlate
from training.protocols import simulator

ROOT = Path(__file__).resolve().parents[2]


def test_thermal_columns_wait_after_every_start_and_come_back() -> None:
    """Two days of a motor that stops now and then: absent while it warms up, present afterwards; nothing else waits."""
    told = simulator.live(
        ROOT, "onnx", simulator.FIRST_SEED, first_s=0.0, last_s=2 * simulator.DAY_S, keep_records=True
    )
    machine = next(one for one in simulator.site_of(ROOT, "onnx", DataPlate()).machines if one.tag == simulator.MOTOR)
    rise, level = (machine.features.names.index(name) for name in ("thermal.rise_k", "vibration.rms_m_s2"))
    warming = machine.state_rule.warming_s / simulator.BURST_S
    after_stop: list[int] = []  # by row: how many rows it has run since it was seen to stand; none before that
    rows = [record.payload for record in told.records if record.machine == simulator.MOTOR]
    for row in rows:
        if not row["state"].startswith("running"):
            after_stop.append(0)
        else:
            after_stop.append(after_stop[-1] + 1 if after_stop else 1_000)
    assert all(row["present"][level] for row, n in zip(rows, after_stop, strict=True) if n)
    cold = [row["present"][rise] for row, n in zip(rows, after_stop, strict=True) if 0 < n < warming]
    warm = [row["present"][rise] for row, n in zip(rows, after_stop, strict=True) if n > warming + 1]
    assert cold
    assert not any(cold)
    assert sum(warm) > 0.7 * len(warm)  # a short stop between two bursts is not among the rows
