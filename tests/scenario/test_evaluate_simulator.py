"""The promises on simulated machines, at a size that every change can afford; `make quality` is the whole of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.protocols import simulator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def figures():
    """A varied set through learning, a healthy time, four faults and lost bursts."""
    return simulator.evaluate(None, ROOT, "onnx", simulator.SMALL)


def test_healthy_machines_that_live_raise_no_alarm(figures) -> None:
    """Starts, set points, nights and weather are no faults: no alarm in the time that a budget of one in two months allows."""
    assert figures["machines_without_baseline"] == 0
    assert figures["false_alarms"] == 0, figures["false_alarm_texts"]
    assert figures["machine_months"] > 0.25


def test_faults_are_found_early_and_named(figures) -> None:
    """The right machine, before half of the damage is done, and the true cause first."""
    assert figures["event_recall_pct"] == 100.0, figures["missed"]
    assert figures["top1_pct"] >= 80.0
    assert figures["top2_pct"] >= 92.0
    assert figures["median_severity_at_detection"] < 0.3


def test_a_sensor_that_fails_is_told_as_a_sensor(figures) -> None:
    """Whatever it measured: the machine is not accused, and not called healthy either."""
    assert figures["sensor_named_pct"] == 100.0, figures["sensor_not_named"]
    assert figures["sensor_machine_alarms"] == 0, figures["sensor_machine_alarm_texts"]


def test_every_alarm_says_what_where_and_what_to_do(figures) -> None:
    """Each fault's own text is in docs/alarm_texts.md; none is empty."""
    assert len(figures["texts"]) == len(simulator.SMALL.faults)
    assert all("Do" in text and "Alarm" in text for text in figures["texts"].values())
