"""The stage on which the rooms meet as separate processes: an embedded broker, and `hark` verbs with their ledgers.

The demo and the live bench stand on it. Nothing here imports the agent: what is watched is watched over the wire.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from firmware_bridge.errors import HarkError

STOP_TIMEOUT_S = 20.0


class PartFailed(HarkError):
    """A part did not start or did not stop; its own last words are in the message."""


@dataclass
class Part:
    """One process of the demo; what it prints on stdout at its end is its ledger."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def check(self) -> None:
        if self.process.poll() not in (None, 0):
            raise PartFailed(f"{self.name} stopped with exit code {self.process.returncode}\n{self.last_words()}")

    def last_words(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-12:])

    def finish(self) -> dict[str, Any]:
        """Ask it to stop, and read its ledger."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            out, _ = self.process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PartFailed(f"{self.name} did not stop within {STOP_TIMEOUT_S:.0f} s\n{self.last_words()}") from None
        if self.process.returncode != 0:
            raise PartFailed(f"{self.name} ended with exit code {self.process.returncode}\n{self.last_words()}")
        return dict(json.loads(out.strip().splitlines()[-1]))


@contextmanager
def part(*words: object, folder: Path) -> Iterator[Part]:
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
def orderly_end() -> Iterator[None]:
    """SIGTERM ends a verb as Ctrl-C does, by unwinding: so its parts end with it, whoever stopped it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def answer(*words: object) -> dict[str, Any]:
    """What one `hark` verb prints with --json; exit code 1 (problem found) is an answer too.

    Raises: PartFailed: any other exit code.
    """
    command = [sys.executable, "-m", "agent", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise PartFailed(f"hark {words[0]} ended with exit code {done.returncode}\n{done.stderr[-1500:]}")
    return dict(json.loads(done.stdout))


class Watcher:
    """What anybody sees who subscribes to the broker: gateways' status, machines' states, alarm events, each once by key."""

    def __init__(self, port: int) -> None:
        self.events: list[dict[str, Any]] = []
        self.states: dict[str, dict[str, Any]] = {}
        self.gateway: dict[str, Any] = {}
        self.news = threading.Event()
        self._keys: set[str] = set()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="hark-watcher")
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"hark/v1/+/+/{kind}", 1) for kind in ("status", "+/state", "+/event")]
        )
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Watcher:
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        parts = message.topic.split("/")
        if not message.payload:
            return
        told = json.loads(message.payload)
        if parts[-1] == "status":
            self.gateway = told
        elif parts[-1] == "state":
            self.states = {**self.states, parts[4]: told}
        elif told["key"] not in self._keys:
            self._keys.add(told["key"])
            self.events.append(told)
        self.news.set()

    def wait(self, predicate: Callable[[], bool], timeout_s: float, what: str, *parts: Part) -> None:
        """Until something is so that is seen from here; the parts must live on meanwhile.

        Raises: PartFailed: a part ended, or the time is over.
        """
        deadline_s = time.monotonic() + timeout_s
        while not predicate():
            for one in parts:
                one.check()
            if time.monotonic() > deadline_s:
                words = "\n".join(one.last_words() for one in parts)
                raise PartFailed(f"waited {timeout_s:.0f} s for {what}\n{words}")
            self.news.wait(0.2)
            self.news.clear()


@contextmanager
def embedded_broker() -> Iterator[int]:
    """amqtt on a free port, in a thread of its own; production uses Mosquitto."""
    from amqtt.broker import Broker  # the extra [sim]; `hark` says so, by the verb that was called

    port = free_port()
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
        raise PartFailed("the embedded broker did not start within 10 s")
    try:
        yield port
    finally:
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


def site_with_ports(site: Path, text: str, broker_port: int, modbus_port: int, engine: str = "onnx") -> Path:
    """Write a site file's text with this run's ports in place of 1883 and 5020 upwards, and its engine."""

    def port(found: re.Match[str]) -> str:
        written = int(found[1])
        return f"port = {broker_port if written == 1883 else modbus_port + written - 5020}"

    text = re.sub(r"^port = (\d+)", port, text, flags=re.MULTILINE)
    site.write_text(text.replace('engine = "onnx"', f'engine = "{engine}"'), "utf-8")
    return site


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_port(port: int, owner: Part) -> None:
    """Until something listens on a port of this machine. Raises: PartFailed: its owner ended, or did not open it in time."""
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    pause = threading.Event()
    while time.monotonic() < deadline_s:
        owner.check()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        pause.wait(0.05)
    raise PartFailed(f"{owner.name} did not open port {port} within {STOP_TIMEOUT_S:.0f} s\n{owner.last_words()}")


LOWEST_PORT, EPHEMERAL_PORT = 20_000, 32_768  # Linux, net.ipv4.ip_local_port_range


def free_ports(n_ports: int) -> int:
    """The first of `n_ports` free neighbouring ports, below those that the kernel gives to outgoing connections: until they are
    taken nobody comes upon one by chance."""
    for _ in range(50):
        first = random.randrange(LOWEST_PORT, EPHEMERAL_PORT - n_ports)
        with suppress(OSError), ExitStack() as stack:
            for port in range(first, first + n_ports):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise PartFailed(f"no {n_ports} neighbouring free ports on this machine")
