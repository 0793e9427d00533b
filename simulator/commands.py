"""The verb `hark simulate`: a scenario's plant on the wire, until its time is over or a signal ends it."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from firmware_bridge.roots import find_root
from simulator.plant_clock import PlantClock
from simulator.scenario import Plant, load_scenario
from simulator.serve_modbus import Endpoint, ModbusLine, ModbusServer, units_of
from simulator.serve_mqtt import BurstPublisher


class FramingName(StrEnum):
    """The framings of a TCP endpoint, as the command line has them."""

    tcp = "tcp"
    rtu = "rtu"


def simulate(  # a verb's options are its parameters
    scenario: Annotated[str, typer.Argument(help="a name in config/scenarios, or a path")],
    host: Annotated[str, typer.Option(help="address to serve Modbus TCP on")] = "127.0.0.1",
    modbus_port: Annotated[
        int, typer.Option(min=1, max=65000, help="of the first set; each further set has the next")
    ] = 5020,
    framing: Annotated[
        FramingName, typer.Option(help="of the TCP endpoints; rtu is what a transparent serial converter passes on")
    ] = FramingName.tcp,
    serial: Annotated[
        Path | None,
        typer.Option(help="serve RTU on pseudo-terminals instead, linked in this folder by their set's name"),
    ] = None,
    mqtt_host: Annotated[str, typer.Option(help="broker that the bursts are published to")] = "127.0.0.1",
    mqtt_port: Annotated[int, typer.Option(min=1, max=65535)] = 1883,
    truth: Annotated[Path | None, typer.Option(help="write the ground truth here, as JSON lines")] = None,
    speed: Annotated[float, typer.Option(min=0.01, max=1000.0, help="scenario seconds per second")] = 1.0,
    duration: Annotated[
        float | None, typer.Option(min=0.0, help="scenario seconds to serve, instead of the scenario's")
    ] = None,
    bursts: Annotated[bool, typer.Option(help="publish bursts; --no-bursts needs no broker")] = True,
    root: Annotated[Path | None, typer.Option(help="folder that holds config/")] = None,
    json_: Annotated[bool, typer.Option("--json", help="one JSON object at the end")] = False,
) -> int:
    """A simulated plant on the wire: Modbus devices (TCP or RTU) and MQTT burst sensors.

    Prints one line when everything serves, and a ledger of what was asked and sent at the end.
    """
    found = load_scenario(scenario, root)
    plant = Plant(found)
    length_s = found.duration_s if duration is None else duration
    if truth is not None:
        Plant(found).write_truth(truth, duration_s=length_s)
    with ExitStack() as stack:
        stop = _stop_on_signals(stack)
        clock = PlantClock(speed)
        servers: dict[str, Endpoint] = {}
        for i, name in enumerate(plant.sets):
            units = units_of(plant, name, clock, find_root(root) / "config")
            tcp = ModbusServer(units, host, modbus_port + i, framing=framing.value)
            servers[name] = stack.enter_context(ModbusLine(units, serial / name) if serial else tcp)
        publisher = stack.enter_context(BurstPublisher(plant, clock, mqtt_host, mqtt_port)) if bursts else None
        where = ", ".join(f"set {name} on {server.where}" for name, server in servers.items())
        if not json_:
            print(f"ready: {found.title}; Modbus {where}; bursts to {mqtt_host}:{mqtt_port}", flush=True)
        while not stop.is_set() and (left_s := clock.until_s(length_s)) > 0.0:
            stop.wait(min(left_s, 1.0))
        served_s = clock.t_s()
        started_utc_ns = clock.utc_ns(0.0)
    print(_ledger(found.title, started_utc_ns, served_s, servers, publisher, json_))
    return 0


def _stop_on_signals(stack: ExitStack) -> threading.Event:
    """An event that SIGTERM and SIGINT set; the handlers that were there come back afterwards."""
    stop = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, handler))
    return stop


def _ledger(
    title: str,
    started_utc_ns: int,
    served_s: float,
    servers: dict[str, Endpoint],
    publisher: BurstPublisher | None,
    as_json: bool,
) -> str:
    """What was asked and what was sent."""
    told: dict[str, Any] = {
        "scenario": title,
        "started_utc_ns": started_utc_ns,
        "served_s": round(served_s, 1),
        "modbus": {name: {"where": server.where, **server.ledger.counts()} for name, server in servers.items()},
        "bursts": asdict(publisher.ledger) if publisher else None,
    }
    if as_json:
        return json.dumps(told)
    lines = [f"served {told['served_s']} s of {title}"]
    for name, server in servers.items():
        counts = server.ledger
        lines.append(
            f"  set {name}: {counts.answered} polls answered, {counts.refused} refused, {counts.ignored} ignored"
        )
    if publisher:
        lines += [f"  {sensor}: {count} bursts published" for sensor, count in publisher.ledger.published.items()]
        dropped = sum(publisher.ledger.dropped_offline.values()) + sum(publisher.ledger.dropped_late.values())
        counts_ = publisher.ledger
        lines.append(f"  {counts_.acknowledged} of {counts_.chunks} messages confirmed, {dropped} bursts dropped")
    return "\n".join(lines)
