"""Fixtures for every test: a real MQTT broker (mosquitto) that a test may stop and start."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import accepts, free_port, wait_until

with contextlib.suppress(ImportError):  # the cell of tflite-runtime has none
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)  # a busy machine is no counterexample
    settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent


class Broker:
    """One mosquitto on its own port, which `start` after `stop` takes again; sessions outlive it with `persistence`."""

    host = "127.0.0.1"

    def __init__(self, binary: str, folder: Path, persistence: bool, extra: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._config = folder / "mosquitto.conf"
        self._command = [binary, "-c", str(self._config)]
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} {self.host}",
            "user root",  # else mosquitto, started by root, becomes a user who cannot write here
            "allow_anonymous true",
            "max_inflight_messages 20",
            "max_queued_messages 10000",
            f"persistence {'true' if persistence else 'false'}",
            f"persistence_location {folder}/",
            extra,
        ]
        self._config.write_text("\n".join(lines) + "\n", "utf-8")

    def start(self) -> None:
        """Run it and wait until it answers."""
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(lambda: accepts(self.host, self.port), 10.0, f"mosquitto on port {self.port}, log in {self._folder}")

    def stop(self, kill: bool = False) -> None:
        """End it, politely or (`kill`) as a power cut would; harmless when it is not running."""
        if self._process is None:
            return
        self._process.kill() if kill else self._process.terminate()
        self._process.wait(10.0)
        self._process = None


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Broker]]:
    """Factory of running brokers: `broker = mosquitto(persistence=True, extra="max_packet_size 4096")`."""
    binary = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if binary is None:
        pytest.fail("these tests need a real broker: apt-get install mosquitto")
    made: list[Broker] = []

    def make(persistence: bool = False, extra: str = "") -> Broker:
        broker = Broker(binary, tmp_path_factory.mktemp("mosquitto"), persistence, extra)
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def broker(mosquitto: Callable[..., Broker]) -> Iterator[Broker]:
    """A fresh running broker for one test."""
    made = mosquitto()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository: config/, models/ and the rooms stand below it."""
    return ROOT
