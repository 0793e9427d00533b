"""The BridgeError tree.

HarkError                 anything of ours that a person must read; carries hint, retryable and an exit code
├── ConfigError           a TOML file of ours is wrong; lists every problem at once       exit 2
├── MissingExtra          an optional package is not installed                            exit 2
└── BridgeError
    ├── SourceLost        no answer from a device or broker within its time               exit 3
    ├── FrameError        bytes that do not follow PROTOCOL.md; counted, never windowed   exit 1
    └── RecordingError    a recording's file does not hold what its mapping says          exit 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class HarkError(Exception):
    """One clear message: what failed, where, and what to do next (`hint`)."""

    retryable = False
    exit_code = 1
    hint = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in one file. `line` is 0 where the file has no such line (a missing key's table is named then)."""

    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = f"line {self.line:<4}" if self.line else "         "
        return f"  {where} {self.key}: {self.text}"


class ConfigError(HarkError):
    """A file of ours is wrong. Every problem at once, each with line, key and what to write instead."""

    exit_code = 2

    def __init__(self, path: Path | str, problems: Sequence[Problem]) -> None:
        self.path = Path(path)
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n".join([f"{path} has {count}:", *map(str, self.problems)]))


class MissingExtra(HarkError):
    """A verb or engine needs an optional package that is not installed."""

    exit_code = 2

    def __init__(self, what: str, package: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f'{what} needs the package {package}: pip install "hark-edge[{extra}]"')


class BridgeError(HarkError):
    """A device, a broker or a recording did not give what it should."""


class SourceLost(BridgeError):
    """No answer from the device within its timeout; the message itself says what to check."""

    retryable = True
    exit_code = 3


class FrameError(BridgeError):
    """Bytes that do not follow PROTOCOL.md."""


class RecordingError(BridgeError):
    """A recording does not hold what its mapping file says."""
