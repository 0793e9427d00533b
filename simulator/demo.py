"""`hark demo`: the whole path on one machine, no sensor and no configuration needed.

It starts the plant, the agent and the collector as the separate processes that a site would run, around an embedded
broker, and watches them from outside, over MQTT, as anybody could. At the end it compares the alarms with the plant's
ground truth, and the three ledgers (plant, agent, dataset) with each other.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from firmware_bridge.roots import find_root
from simulator.scenario import load_scenario
from simulator.stage import (
    STOP_TIMEOUT_S,
    PartFailed,
    Watcher,
    answer,
    embedded_broker,
    free_ports,
    orderly_end,
    part,
    site_with_ports,
    wait_port,
)

SCENARIO = "demo"
TABLE_INTERVAL_S = 1.0
LINES_INTERVAL_S = 10.0  # where there is no terminal to redraw
CLEAR = "\x1b[H\x1b[2J"


def demo(
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object at the end and nothing else")] = False,
    engine: Annotated[str, typer.Option(help="onnx or tflite")] = "onnx",
    keep: Annotated[Path | None, typer.Option(help="keep buffer, dataset and logs in this folder")] = None,
    scenario: Annotated[str, typer.Option(help="a scenario of config/scenarios")] = SCENARIO,
    seconds: Annotated[float | None, typer.Option(help="of the plant's time, instead of the scenario's own")] = None,
    root: Annotated[Path | None, typer.Option(help="the folder that holds config/ and models/")] = None,
) -> int:
    """A simulated plant, the agent, growing faults and explained alarms, in under two minutes."""
    with orderly_end(), ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hark-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        found = find_root(root)
        length_s = load_scenario(scenario, found).duration_s if seconds is None else seconds
        summary = play(found, folder, scenario, engine, length_s, quiet=json_)
    print(json.dumps(summary, indent=None if json_ else 1) if json_ else _summary_lines(summary))
    return 0 if summary["passed"] else 1


def play(root: Path, folder: Path, scenario: str, engine: str, length_s: float, *, quiet: bool) -> dict[str, Any]:
    """Run the demo in `folder` and give its summary."""
    started = time.monotonic()
    with ExitStack() as stack:
        broker_port = stack.enter_context(embedded_broker())
        modbus_port = free_ports(2)
        site_text = (root / "config" / "site.demo.toml").read_text("utf-8")
        site = site_with_ports(folder / "site.toml", site_text, broker_port, modbus_port, engine)
        watcher = stack.enter_context(Watcher(broker_port))
        screen = Screen(watcher, quiet)
        dataset = folder / "dataset"
        collector = stack.enter_context(
            part("data", "collect", dataset, "--port", broker_port, "--mqtt", "3.1.1", "--json", folder=folder)
        )
        plant = stack.enter_context(
            part(
                *("simulate", scenario, "--root", root, "--modbus-port", modbus_port, "--mqtt-port", broker_port),
                *("--truth", folder / "truth.jsonl", "--duration", length_s + 3 * STOP_TIMEOUT_S, "--json"),
                folder=folder,
            )
        )
        wait_port(modbus_port, plant)
        plant_started = time.monotonic()
        agent = stack.enter_context(part("run", site, "--root", root, "--json", folder=folder))
        online = lambda: watcher.gateway.get("state") == "online"  # noqa: E731
        watcher.wait(online, STOP_TIMEOUT_S, "the agent to come online", agent, collector)
        while time.monotonic() - plant_started < length_s:
            for one in (agent, collector, plant):
                one.check()
            screen.draw(time.monotonic() - started)
        asked_ns = time.time_ns()
        drained = lambda: watcher.gateway.get("waiting") == 0 and watcher.gateway["utc_ns"] > asked_ns  # noqa: E731
        with suppress(PartFailed):  # the ledgers say what is missing
            watcher.wait(drained, STOP_TIMEOUT_S, "the outbox to empty", agent, collector)
        agent_ledger = agent.finish()
        plant_ledger = plant.finish()
        collector.finish()
        dataset_ledger = answer("data", "check", dataset)
    events = [_flat(event) for event in watcher.events]
    truth = [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]
    return summarize(events, truth, plant_ledger, agent_ledger, dataset_ledger, length_s)


# ------------------------------------------------------------------------------------------------ what came of it
def summarize(
    events: list[dict[str, Any]],
    truth: list[dict[str, Any]],
    plant: dict[str, Any],
    agent: dict[str, Any],
    dataset: dict[str, Any],
    length_s: float,
) -> dict[str, Any]:
    """Alarms against ground truth, and the ledgers against each other.

    An alarm is right when the plant has that fault in that machine and had it before the alarm; what it is called is what
    it was called last (an alarm that was raised with its cause unclear may be told again when the cause shows).
    """
    onset_s = {
        (row["machine"], row["fault"]): plant["started_utc_ns"] / 1e9 + row["onset_s"]
        for row in truth
        if row["fault"] and row["time_s"] <= length_s
    }
    told: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["trigger"] in ("raise", "escalate"):
            told.setdefault(event["id"], []).append(event)
    alarms = []
    for first, *later in told.values():
        last = later[-1] if later else first
        raised_at = first["utc_ns"] / 1e9
        onset = onset_s.get((last["machine"], last["fault"]), float("inf"))
        right = onset <= raised_at
        alarms.append(
            {
                **{name: last[name] for name in ("machine", "fault", "confidence")},
                "onset": onset if right else None,
                "raised_at": raised_at,
                "delay_s": round(raised_at - onset, 2) if right else None,
                "text": last["text"],
            }
        )
    false_alarms = sum(alarm["onset"] is None for alarm in alarms)
    found = {(alarm["machine"], alarm["fault"]) for alarm in alarms if alarm["onset"] is not None}
    judged = sum(
        one["records"] for one in dataset["sources"] if one["stream"] != "sample"
    )  # samples are not counted one by one
    records = {
        "produced": agent["records"]["produced"],
        "stored": agent["records"]["stored"],
        "upstream": judged,
        "lost": agent["records"]["produced"] - judged,
        "duplicated": dataset["duplicates"],
    }
    bursts = {"sent": sum(plant["bursts"]["published"].values()), "windowed": agent["windows"]}
    missed = sorted(f"{machine}: {fault}" for machine, fault in onset_s.keys() - found)
    passed = not (missed or false_alarms or records["lost"] or records["duplicated"])
    return {
        "passed": passed,
        "alarms": alarms,
        "missed": missed,
        "false_alarms": false_alarms,
        "latency_ms": agent["latency_ms"],
        "records": records,
        "bursts": bursts,
        "rss_mib": agent["rss_mib"],
    }


def _summary_lines(summary: dict[str, Any]) -> str:
    latency, records = summary["latency_ms"], summary["records"]
    lines = ["", "Summary"]
    for alarm in summary["alarms"]:
        verdict = "FALSE ALARM" if alarm["onset"] is None else f"found {alarm['delay_s']:.1f} s after its onset"
        lines.append(f"  {alarm['machine']:8} {alarm['fault']:22} {verdict}")
    lines += [f"  missed: {fault}" for fault in summary["missed"]]
    lines += [
        f"  false alarms {summary['false_alarms']}",
        f"  sensor to committed alarm: p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, "
        f"budget {latency['budget']:.0f} ms",
        f"  records produced {records['produced']}, stored {records['stored']}, upstream {records['upstream']}, "
        f"lost {records['lost']}, duplicated {records['duplicated']}",
        f"  agent memory {summary['rss_mib']:.0f} MiB",
        "  " + ("everything as it should be" if summary["passed"] else "NOT as it should be"),
    ]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ the view from outside
@dataclass
class Screen:
    """Draws what the watcher sees: a live table on a terminal, lines elsewhere, nothing with --json."""

    watcher: Watcher
    quiet: bool
    live: bool = field(default_factory=sys.stdout.isatty)
    _shown: int = 0
    _next_table_s: float = 0.0

    def draw(self, elapsed_s: float) -> None:
        """Once a second, or at once when something new is heard."""
        self.watcher.news.wait(TABLE_INTERVAL_S)
        self.watcher.news.clear()
        events = [_flat(event) for event in list(self.watcher.events)]
        fresh = events[self._shown :]
        if self.quiet:
            return
        if self.live:
            print(CLEAR + "\n".join(_table(elapsed_s, self.watcher.states, events)), flush=True)
        elif fresh or elapsed_s >= self._next_table_s:
            self._next_table_s = elapsed_s + LINES_INTERVAL_S
            print("\n".join(_table(elapsed_s, self.watcher.states, fresh)), flush=True)
        self._shown = len(events)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """What the demo needs of an alarm event."""
    body = record["body"]
    cause = body["fault"] or {}
    # sensor:<name>:stuck is the sensor's fault, limit:dry_run the limit's
    named = (
        f"sensor_{body['condition'].split(':')[-1]}" if body["class"] == "sensor" else body["condition"].split(":")[-1]
    )
    return {
        "id": body["id"],
        "machine": record["machine"],
        "utc_ns": record["utc_ns"],
        "trigger": body["trigger"],
        "fault": cause.get("code", named),
        "confidence": cause.get("confidence"),
        "text": body["text"]["en"],
    }


def _table(elapsed_s: float, states: dict[str, dict[str, Any]], events: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"Hark demo  {elapsed_s:3.0f} s",
        f"  {'machine':9}{'state':12}{'speed':>9}{'power':>9}{'vibration':>12}  watch",
    ]
    for tag, state in sorted(states.items()):
        speed = _number(state, "shaft_speed_rpm", "rpm", 0)
        power = _number(state, "active_power_kw", "kW", 2)
        vibration = _number(state, "velocity_rms_mm_s", "mm/s", 2)
        lines.append(f"  {tag:9}{state['state']:12}{speed:>9}{power:>9}{vibration:>12}  {state['watch']}")
    for event in events:
        if event["trigger"] in ("raise", "escalate"):
            lines += ["", f"  >> {event['text']}"]
    return lines


def _number(state: dict[str, Any], name: str, unit: str, digits: int) -> str:
    value = state.get("values", {}).get(name)
    return "-" if value is None else f"{value:.{digits}f} {unit}"
