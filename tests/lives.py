"""Lives of the writer: begun quickly, ended by SIGKILL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from helpers import wait_until

WRITER = Path(__file__).with_name("store_writer.py")


class Nursery:
    """One process that has loaded everything and forks a life whenever it is asked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WRITER), "nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a life on a cut disk ends in I/O errors
            text=True,
        )
        self._pid = 0

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.end()
        self._process.kill()
        self._process.communicate(timeout=10)

    def begin(self, path: Path, acknowledgements: Path, seed: int, speed: float = 1.0) -> None:
        """Fork a life; it may not have opened its store yet."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), str(acknowledgements), seed, speed]) + "\n")
        self._process.stdin.flush()
        self._pid = int(self._process.stdout.readline())

    def end(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if not self._pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._pid = 0


def until_open(acknowledgements: Path) -> None:
    """The life has opened its store and said so."""
    wait_until(lambda: acknowledgements.exists() and acknowledgements.stat().st_size, 20.0, "the writer's first word")
