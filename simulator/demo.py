"""`hark demo`: the whole path on one machine, no sensor and no configuration needed.

It starts the plant, the agent and the collector as the separate processes that a site would run, around an embedded broker,
and watches them from outside, over MQTT, as anybody could. At the end it compares the alarms with the plant's ground truth
and the three ledgers (plant, agent, dataset) with each other.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import paho.mqtt.client as mqtt
import typer

from firmware_bridge.errors import HarkError, MissingExtra
from firmware_bridge.roots import find_root

SCENARIO = "demo"
STOP_TIMEOUT_S = 20.0
TABLE_INTERVAL_S = 1.0
CLEAR = "\x1b[H\x1b[2J"


class DemoFailed(HarkError):
    """A part of the demo did not start or did not stop; its own last words are in the message."""


def demo(
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object at the end and nothing else")] = False,
    engine: Annotated[str, typer.Option(help="onnx or tflite")] = "onnx",
    keep: Annotated[Path | None, typer.Option(help="keep buffer, dataset and logs in this folder")] = None,
    scenario: Annotated[str, typer.Option(help="a scenario of config/scenarios")] = SCENARIO,
    root: Annotated[Path | None, typer.Option(help="the folder that holds config/ and models/")] = None,
) -> int:
    """A simulated plant, the agent, growing faults and explained alarms, in under two minutes."""
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hark-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        summary = play(find_root(root), folder, scenario, engine, quiet=json_)
    print(json.dumps(summary, indent=None if json_ else 1) if json_ else _summary_lines(summary))
    return 0 if summary["passed"] else 1


def play(root: Path, folder: Path, scenario: str, engine: str, *, quiet: bool) -> dict[str, Any]:
    """Run the demo in `folder` and give its summary."""
    started = time.monotonic()
    with ExitStack() as stack:
        broker_port = stack.enter_context(embedded_broker())
        modbus_port = _free_port_pair()
        site = _site_file(root, folder, engine, broker_port, modbus_port)
        shop = ShopFloor(broker_port, live=not quiet and sys.stdout.isatty(), lines=not quiet)
        stack.callback(shop.close)
        dataset = folder / "dataset"
        collector = stack.enter_context(_part("data", "collect", dataset, "--port", broker_port, "--json", folder=folder))
        agent = stack.enter_context(_part("run", site, "--root", root, "--json", folder=folder))
        shop.wait_online(agent)
        plant = stack.enter_context(
            _part(
                "simulate", scenario, "--root", root, "--modbus-port", modbus_port, "--mqtt-port", broker_port,
                "--truth", folder / "truth.jsonl", "--json", folder=folder,
            )
        )  # fmt: skip
        while plant.process.poll() is None:
            agent.check()
            collector.check()
            shop.draw(time.monotonic() - started)
        plant_ledger = plant.finish()
        shop.wait_drained()
        agent_ledger = agent.finish()
        collector_ledger = collector.finish()
    truth = [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]
    return summarize(shop.events, truth, plant_ledger, agent_ledger, collector_ledger)


# ------------------------------------------------------------------------------------------------ what came of it
def summarize(
    events: list[dict[str, Any]],
    truth: list[dict[str, Any]],
    plant: dict[str, Any],
    agent: dict[str, Any],
    collector: dict[str, Any],
) -> dict[str, Any]:
    """Alarms against ground truth, and the ledgers against each other."""
    faults = [row for row in truth if row.get("record") == "fault"]
    raised = [event for event in events if event["trigger"] == "raise"]
    alarms, false_alarms, found = [], 0, set()
    for event in raised:
        fault = next((row for row in faults if _same(event, row)), None)
        if fault is None:
            false_alarms += 1
        else:
            found.add((fault["machine"], fault["fault"]))
        onset_s = fault["onset_utc_ns"] / 1e9 if fault else None
        alarms.append(
            {
                "machine": event["machine"],
                "fault": event["fault"],
                "confidence": event["confidence"],
                "onset": onset_s,
                "raised_at": event["utc_ns"] / 1e9,
                "delay_s": round(event["utc_ns"] / 1e9 - onset_s, 2) if onset_s else None,
                "text": event["text"],
                "false": fault is None,
            }
        )
    expected = {(row["machine"], row["fault"]) for row in faults}
    records = {
        "produced": agent["records"]["produced"],
        "stored": agent["records"]["stored"],
        "upstream": collector["keys"],
        "lost": agent["records"]["produced"] - collector["keys"],
        "duplicated": collector["rows"] - collector["keys"],
    }
    bursts = {"sent": plant["bursts"], "windowed": agent["windows"]}
    missed = sorted(f"{machine}: {fault}" for machine, fault in expected - found)
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


def _same(event: dict[str, Any], fault: dict[str, Any]) -> bool:
    """An alarm is right when it is about the machine and the fault that the plant has, and not before its onset."""
    return bool(
        event["machine"] == fault["machine"] and event["fault"] == fault["fault"] and event["utc_ns"] >= fault["onset_utc_ns"]
    )


def _summary_lines(summary: dict[str, Any]) -> str:
    latency, records = summary["latency_ms"], summary["records"]
    lines = ["", "Summary"]
    for alarm in summary["alarms"]:
        verdict = "FALSE ALARM" if alarm["false"] else f"found {alarm['delay_s']:.1f} s after its onset"
        lines.append(f"  {alarm['machine']:8} {alarm['fault']:22} {verdict}")
    lines += [f"  missed: {fault}" for fault in summary["missed"]]
    lines += [
        f"  false alarms {summary['false_alarms']}",
        f"  sensor to committed record: p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, budget {latency['budget']:.0f} ms",
        f"  records produced {records['produced']}, stored {records['stored']}, upstream {records['upstream']}, "
        f"lost {records['lost']}, duplicated {records['duplicated']}",
        f"  agent memory {summary['rss_mib']:.0f} MiB",
        "  " + ("everything as it should be" if summary["passed"] else "NOT as it should be"),
    ]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ the view from outside
@dataclass
class ShopFloor:
    """What anybody sees who subscribes to the broker: machine states and alarm events."""

    port: int
    live: bool
    lines: bool
    events: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    gateway: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._shown = 0
        self._seen: set[str] = set()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="hark-demo-view")
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe("hark/v1/#", qos=1)
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        parts = message.topic.split("/")
        if not message.payload or parts[3] == "sensor":
            return
        with self._lock:
            if parts[-1] == "state":
                state = json.loads(message.payload)
                self.states[parts[4]] = state
            elif parts[-1] == "status":
                self.gateway = json.loads(message.payload)
            elif parts[-1] == "event":
                record = json.loads(message.payload)
                if record["key"] not in self._seen:  # at least once on the wire, once by key here
                    self._seen.add(record["key"])
                    self.events.append(_flat(record["body"]))
        self._news.set()

    def wait_online(self, agent: Part) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.gateway.get("status") != "online":
            agent.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"the agent did not come online within {STOP_TIMEOUT_S:.0f} s\n{agent.last_words()}")
            self._news.wait(0.2)
            self._news.clear()

    def wait_drained(self) -> None:
        """Until the agent says that nothing waits for confirmation; at most STOP_TIMEOUT_S."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        asked = time.time_ns()
        while time.monotonic() < deadline:
            status = self.gateway
            if status.get("pending") == 0 and status.get("utc_ns", 0) > asked:
                return
            self._news.wait(0.2)
            self._news.clear()

    def draw(self, elapsed_s: float) -> None:
        """The table (on a terminal) or new alarms as lines (elsewhere), about once a second."""
        self._news.wait(TABLE_INTERVAL_S)
        self._news.clear()
        with self._lock:
            events, states = list(self.events), dict(self.states)
        if self.live:
            print(CLEAR + "\n".join(_table(elapsed_s, states, events)), flush=True)
        elif self.lines:
            if events[self._shown :] or int(elapsed_s) // 10 != getattr(self, "_tens", -1):
                self._tens = int(elapsed_s) // 10
                print("\n".join(_table(elapsed_s, states, events[self._shown :])), flush=True)
        self._shown = len(events)

    def close(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()


def _flat(body: dict[str, Any]) -> dict[str, Any]:
    fault = body.get("fault") or {}
    return {**body, "fault": fault.get("code", ""), "confidence": fault.get("confidence")}


def _table(elapsed_s: float, states: dict[str, dict[str, Any]], events: list[dict[str, Any]]) -> list[str]:
    lines = [f"Hark demo  {elapsed_s:3.0f} s", f"  {'machine':9}{'state':12}{'speed':>9}{'power':>9}{'vibration':>12}  watch"]
    for tag, state in sorted(states.items()):
        lines.append(
            f"  {tag:9}{state['state']:12}{_number(state, 'shaft_speed_rpm', 'rpm', 0):>9}{_number(state, 'active_power_kw', 'kW', 2):>9}"
            f"{_number(state, 'velocity_rms_mm_s', 'mm/s', 2):>12}  {state['watch']}"
        )
    for event in events:
        if event["trigger"] in ("raise", "update"):
            lines += ["", f"  >> {event['text']}"]
    return lines


def _number(state: dict[str, Any], name: str, unit: str, digits: int) -> str:
    value = state.get("values", {}).get(name)
    return "-" if value is None else f"{value:.{digits}f} {unit}"


# ------------------------------------------------------------------------------------------------ the parts
@dataclass
class Part:
    """One process of the demo; what it prints on stdout at its end is its ledger."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def check(self) -> None:
        if self.process.poll() not in (None, 0):
            raise DemoFailed(f"{self.name} stopped with exit code {self.process.returncode}\n{self.last_words()}")

    def last_words(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-12:])

    def finish(self) -> dict[str, Any]:
        """Ask it to stop, and read its ledger."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            out, _ = self.process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{self.name} did not stop within {STOP_TIMEOUT_S:.0f} s\n{self.last_words()}") from None
        if self.process.returncode != 0:
            raise DemoFailed(f"{self.name} ended with exit code {self.process.returncode}\n{self.last_words()}")
        return dict(json.loads(out.strip().splitlines()[-1]))


@contextmanager
def _part(*words: object, folder: Path) -> Iterator[Part]:
    name = "hark " + " ".join(str(word) for word in words[:2])
    log = folder / f"{words[0]}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", *map(str, words)], stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        yield Part(name, process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@contextmanager
def embedded_broker() -> Iterator[int]:
    """amqtt on a free port, in a thread of its own; production uses Mosquitto."""
    try:
        from amqtt.broker import Broker
    except ModuleNotFoundError:
        raise MissingExtra("hark demo", "amqtt", "sim") from None
    port = _free_port()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    broker: Any = None

    async def start() -> None:
        nonlocal broker
        broker = Broker(config, loop=loop)
        await broker.start()
        ready.set()

    def body() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=body, name="demo-broker", daemon=True)
    thread.start()
    if not ready.wait(10):
        raise DemoFailed("the embedded broker did not start within 10 s")
    try:
        yield port
    finally:
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


def _site_file(root: Path, folder: Path, engine: str, broker_port: int, modbus_port: int) -> Path:
    """The demo's site file with this run's ports."""
    text = (root / "config" / "site.demo.toml").read_text("utf-8")
    ports = {1883: broker_port, 5020: modbus_port, 5021: modbus_port + 1}
    text = re.sub(r"^port = (\d+)", lambda found: f"port = {ports[int(found[1])]}", text, flags=re.MULTILINE)
    site = folder / "site.toml"
    site.write_text(text.replace('engine = "onnx"', f'engine = "{engine}"'), "utf-8")
    shutil.rmtree(folder / "data", ignore_errors=True)
    return site


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _free_port_pair() -> int:
    """The first of two free neighbouring ports."""
    for _ in range(50):
        port = _free_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 1)):
            return port
    raise DemoFailed("no two neighbouring free ports on this machine")
