"""Path expressions: where in a JSON message a value stands. A small subset of JSONPath (RFC 9535), parsed once, never evaluated.

    a.b[0].c                 members and elements; [-1] is the last
    ["odd key"].c            a member whose name has dots, blanks or brackets; in quotes as in JSON
    sensors[?name=="vib"].v  the elements of a list (or members of an object) whose member `name` is "vib"
    data[*].x                every element of a list, every member of an object

A leading $ may be written and means nothing. What is not there is no error: the path finds nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_PATH_LENGTH = 200
NAME = re.compile(r"""[^.\[\]"'\s*?=$]+""")
INDEX = re.compile(r"\[(-?\d{1,6})\]")
EACH = re.compile(r"\[\*\]")
QUOTED = re.compile(r'\[("(?:[^"\\]|\\.)*")\]')
WHERE = re.compile(r"""\[\?([^.\[\]"'\s*?=]+)==("(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false)\]""")
STEPS = 'write a.b, a[0], a["odd key"], a[*] or a[?name=="x"]'

Step = Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A parsed path. `single` is false where it may find more than one value ([*])."""

    text: str
    steps: tuple[Step, ...]
    single: bool

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """The path in `text`; "" is the message itself.

        Raises: ValueError: not of this subset; the message names the column.
        """
        if len(text) > MAX_PATH_LENGTH:
            raise ValueError(f"path of {len(text)} characters; at most {MAX_PATH_LENGTH}")
        steps: list[Step] = []
        single = True
        at = 1 if text.startswith("$") else 0
        while at < len(text):
            step, at, one = _next_step(text, at, first=not steps and at == 0)
            steps.append(step)
            single = single and one
        return cls(text, tuple(steps), single)

    def find(self, tree: Any) -> list[Any]:
        """Every value that the path leads to, in the message's own order; each node is visited once a step."""
        found = [tree]
        for step in self.steps:
            found = [inner for value in found for inner in step(value)]
        return found

    def last(self, tree: Any, missing: Any = None) -> Any:
        """The value that the path leads to; of several the last, because the newest reading stands last in a list."""
        found = self.find(tree)
        return found[-1] if found else missing


def _next_step(text: str, at: int, first: bool) -> tuple[Step, int, bool]:
    """The step that begins at `at`, where the next one begins, and whether it finds one value at most."""
    if text[at] == "[":
        return _bracket(text, at)
    start = at
    if not first:
        if text[at] != ".":
            raise _wrong(text, at, "a dot or a bracket is expected")
        start += 1
    name = NAME.match(text, start)
    if name is None:
        raise _wrong(text, start, "a name is expected")
    return _member(name[0]), name.end(), True


def _bracket(text: str, at: int) -> tuple[Step, int, bool]:
    if found := INDEX.match(text, at):
        return _element(int(found[1])), found.end(), True
    if found := EACH.match(text, at):
        return _inner, found.end(), False
    if found := QUOTED.match(text, at):
        return _member(_unquoted(text, at, found[1])), found.end(), True
    if found := WHERE.match(text, at):
        return _where(found[1], _unquoted(text, at, found[2])), found.end(), True
    raise _wrong(text, at, "this bracket is not understood")


def _unquoted(text: str, at: int, quoted: str) -> Any:
    try:
        return json.loads(quoted)
    except ValueError:
        raise _wrong(text, at, "the text in quotes is not as JSON writes it") from None


def _wrong(text: str, at: int, what: str) -> ValueError:
    return ValueError(f'path "{text}", column {at + 1}: {what}; {STEPS}')


def _member(name: str) -> Step:
    return lambda value: (value[name],) if isinstance(value, dict) and name in value else ()


def _element(index: int) -> Step:
    return lambda value: (value[index],) if isinstance(value, list) and -len(value) <= index < len(value) else ()


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _where(name: str, wanted: Any) -> Step:
    def step(value: Any) -> Iterable[Any]:
        return [inner for inner in _inner(value) if isinstance(inner, dict) and same(inner.get(name), wanted)]

    return step


def same(value: Any, wanted: Any) -> bool:
    """Equal in value and kind: 1 is 1.0, and neither is true or "1"."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
