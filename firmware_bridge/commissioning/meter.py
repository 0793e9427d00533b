"""A progress bar on standard error: how far, what is looked at, and how long it will still take. Only on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Self, TextIO

WIDTH = 24
EACH_S = 0.1  # between two drawings


class Meter:
    """Draws over one line and wipes it at the end; silent where nobody watches."""

    def __init__(self, what: str, out: TextIO | None = None) -> None:
        self._what = what
        self._out = out or sys.stderr
        self._shown = self._out.isatty()
        self._started_s = time.monotonic()
        self._drawn_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def step(self, done: int, total: int, doing: str) -> None:
        """How far it is now."""
        now_s = time.monotonic()
        if not self._shown or now_s - self._drawn_s < EACH_S:
            return
        self._drawn_s = now_s
        share = done / total if total else 0.0
        left = clock(round((now_s - self._started_s) * (1.0 - share) / share)) if share > 0 else "?"
        bar = "#" * round(WIDTH * share)
        line = f"{self._what} [{bar:<{WIDTH}}] {done}/{total}  {left} left  {doing}"
        self._draw(line)

    def clear(self) -> None:
        """Leave the line empty for what is printed next."""
        if self._drawn_s:
            self._draw("")
            self._out.write("\r")
            self._out.flush()

    def _draw(self, line: str) -> None:
        columns = shutil.get_terminal_size().columns - 1
        self._out.write("\r" + line[:columns].ljust(columns))
        self._out.flush()


def clock(seconds: int) -> str:
    """1:05 is a minute and five seconds."""
    return f"{seconds // 60}:{seconds % 60:02d}"
