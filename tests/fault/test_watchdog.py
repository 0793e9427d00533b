"""A stage that hangs in a real process: the process ends by itself, says why, and leaves a whole buffer."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import wait_until

from agent.watchdog import EXIT_STALLED

ROOT = Path(__file__).resolve().parents[2]
WATCHDOG_S = 1.5
END_WITHIN_S = 5.0  # after the hang: the bound, a look and the last words
HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS"
)
# The agent as it is; only the stage that is named hangs, once the file "hang" is there.
DRIVER = """
import json, logging, signal, sys, threading
from pathlib import Path
from msgspec.structs import replace
from agent.app import App, Inbox
from agent.config import SiteConfig, resolve
from agent.store import Store
from firmware_bridge.checked import load

root, folder, stage, watchdog_s = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
path = root / "config" / "recordings" / "skab.site.toml"
config = load(path, SiteConfig)
source = replace(config.sources[0], path=str(folder / "loop.csv"), speed=20.0)
site = replace(config.site, data_dir=str(folder / "data"))
write, take = Store.write, Inbox.take

def writing(*args, **keys):
    if stage == "store":
        hang_if_told()
    stored = write(*args, **keys)
    (folder / "stored").touch()
    return stored

def taking(*args, **keys):
    if stage == "pipeline and log":
        hang_if_told()
    return take(*args, **keys)

def hang_if_told():
    if (folder / "hang").exists():
        (folder / "hangs").touch()
        if stage == "pipeline and log":
            for handler in logging.getLogger().handlers:
                handler.acquire()
        threading.Event().wait()

Store.write, Inbox.take = writing, taking
app = App(resolve(replace(config, sources=(replace(source, name="loop"),), site=site), path, root), watchdog_s=watchdog_s)
signal.signal(signal.SIGTERM, lambda *_: app.request_stop())
app.start()
(folder / "started").touch()
app.wait(30.0)
print(json.dumps(app.stop()))
"""


@contextmanager
def agent(folder: Path, stage: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The agent on a recording of ten minutes at 20 times its speed, until it ends or the block does."""
    rows = [f"2026-03-09 10:{i // 60:02}:{i % 60:02};0.02;0.04;1;0;70;26;230;32" for i in range(600)]
    (folder / "loop.csv").write_text("\n".join([HEADER, *rows, ""]))
    driver = folder / "driver.py"
    driver.write_text(DRIVER)
    with (folder / "agent.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(driver), str(ROOT), str(folder), stage, str(WATCHDOG_S)], stdout=subprocess.PIPE,
            stderr=log, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **environment},
        )  # fmt: skip
    try:
        wait_until(lambda: (folder / "started").exists() or process.poll() is not None, 30.0, "the agent to start")
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("stage", ["store", "pipeline and log"])
def test_a_stage_that_hangs_ends_the_process_within_its_bound(tmp_path: Path, stage: str) -> None:
    """Alive and silent is the worst a watcher can be. Even a log that hangs with the stage does not keep it alive."""
    with agent(tmp_path, stage) as process:
        wait_until((tmp_path / "stored").exists, 10.0, "measurements on disk")
        (tmp_path / "hang").touch()
        wait_until((tmp_path / "hangs").exists, 5.0, "the stage to hang")
        began_s = time.monotonic()
        assert process.wait(30.0) == EXIT_STALLED
        took_s = time.monotonic() - began_s
    assert took_s < END_WITHIN_S
    log = (tmp_path / "agent.log").read_text()
    if stage != "pipeline and log":
        assert log.count("CRITICAL") == 1
        assert f"stage={stage} " in log
        assert "driver.py:" in log, "and where it stands"
        assert "hang_if_told" in log
    with sqlite3.connect(tmp_path / "data" / "buffer.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_process_that_was_stopped_goes_on_and_tells_systemd_its_life(tmp_path: Path) -> None:
    """SIGSTOP for longer than the bound is nobody's hang. READY when the sources are open, signs of life, and the end."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)

        def signs() -> int:
            while True:
                try:
                    heard.append(listener.recv(64).decode())
                except BlockingIOError:
                    return heard.count("WATCHDOG=1")

        spoken = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with agent(tmp_path, "none", **spoken) as process:
            wait_until(signs, 10.0, "signs of life")
            process.send_signal(signal.SIGSTOP)
            began_s = time.monotonic()
            before = signs()
            wait_until(
                lambda: time.monotonic() - began_s > 1.2 * WATCHDOG_S, 10.0, "the stop itself, which is the fault"
            )
            assert signs() == before, "a process that stands still says nothing"
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: signs() >= before + 3 or process.poll() is not None, 10.0, "signs of life again")
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=20)
            signs()
    assert process.returncode == 0
    assert (heard[0], heard[-1]) == ("READY=1", "STOPPING=1")
    assert json.loads(out)["health"] == {"state": "ok"}
