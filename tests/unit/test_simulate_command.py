"""`hark simulate` as a person or a test starts it: a process with an exit code, one ready line and a ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from helpers import accepts, free_port

from simulator.modbus_frames import Adu, RtuFraming
from simulator.stage import free_ports

HARK = [sys.executable, "-m", "agent"]


def test_it_serves_until_its_time_is_over_and_tells_what_it_did(broker: Any, tmp_path: Path) -> None:
    """Ledger and truth are what a test compares the agent's own counts with."""
    truth = tmp_path / "truth.jsonl"
    options = ["--mqtt-port", str(broker.port), "--modbus-port", str(free_ports(2)), "--truth", str(truth), "--json"]
    done = subprocess.run(
        [*HARK, "simulate", "demo", "--duration", "6", "--speed", "3", *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["served_s"] >= 6.0
    assert set(told["modbus"]) == {"a", "b"}
    assert set(told["bursts"]["published"]) == {"accel-m101a", "accel-p101a", "accel-m101b", "accel-p101b"}
    assert told["bursts"]["acknowledged"] == told["bursts"]["chunks"] > 0
    rows = [json.loads(line) for line in truth.read_text().splitlines()]
    assert len(rows) == 7 * 4
    assert {"time_s", "machine", "state", "fault", "severity", "onset_s"} <= set(rows[0])


def test_a_signal_ends_it_in_order(tmp_path: Path) -> None:
    """systemd and Docker say SIGTERM: the ports are free afterwards and the ledger is still printed."""
    port = free_port()
    command = [*HARK, "simulate", "healthy", "--no-bursts", "--modbus-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        assert accepts("127.0.0.1", port)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "polls answered" in rest
    assert not accepts("127.0.0.1", port)


def test_serial_lines_stand_under_their_sets_names(tmp_path: Path) -> None:
    """A site file can name the path before the plant runs; unit 1 answers there in RTU, and the link goes with the plant."""
    command = [*HARK, "simulate", "demo", "--no-bursts", "--serial", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"set a on {tmp_path}/a, set b on {tmp_path}/b" in process.stdout.readline()
        fd = os.open(tmp_path / "b", os.O_RDWR | os.O_NOCTTY)
        os.write(fd, RtuFraming().framed(Adu(1, bytes([3, 0x14, 0x51, 0, 1]))))  # register 5201
        assert os.read(fd, 3) == bytes([1, 3, 2])
        os.close(fd)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=10)
    assert "set b: 1 polls answered" in rest
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_clear_line_and_an_exit_code() -> None:
    """2 for a scenario that is not there, 3 for a broker that is not; never a traceback."""
    unknown = subprocess.run([*HARK, "simulate", "demmo"], capture_output=True, text=True, timeout=30, check=False)
    assert unknown.returncode == 2
    assert "demo" in unknown.stderr
    options = ["--mqtt-port", str(free_port()), "--modbus-port", str(free_port())]
    offline = subprocess.run(
        [*HARK, "simulate", "demo", *options], capture_output=True, text=True, timeout=30, check=False
    )
    assert offline.returncode == 3
    assert "no MQTT broker" in offline.stderr
    assert "Traceback" not in unknown.stderr + offline.stderr
