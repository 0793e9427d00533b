"""One loader for every TOML file of ours: a checked struct, or every problem at once with line, key and remedy.

msgspec stops at the first error and names no line, so tables are converted field by field here and a small index of the
file's own lines gives each key its place. A schema is a frozen `msgspec.Struct`; ranges and help texts sit in its
annotations (`Annotated[float, Meta(ge=0.05, description="...")]`), so the reference page is printed from the same source.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from firmware_bridge.errors import ConfigError, Problem

T = TypeVar("T", bound=msgspec.Struct)
MAX_FILE_BYTES = 1 << 20


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every schema: immutable, keywords only, unknown keys are errors."""


def load(path: Path | str, schema: type[T]) -> T:
    """Read a TOML file into `schema`.

    Raises: ConfigError: file missing, too large, not TOML, or any key wrong; lists all problems.
    """
    path = Path(path)
    text = _read(path)
    tree = _parse(path, text)
    problems: list[Problem] = []
    lines = line_index(text)
    value = _convert(tree, schema, "", lines, problems)
    if problems:
        raise ConfigError(path, sorted(problems, key=lambda problem: (problem.line, problem.key)))
    assert isinstance(value, schema)
    return value


def read_tree(path: Path | str) -> dict[str, Any]:
    """A TOML file as it is written, for checks that look across tables even where a schema found mistakes.

    Raises: ConfigError: file missing, too large, or not TOML.
    """
    path = Path(path)
    return _parse(path, _read(path))


def key_line(path: Path | str, key: str) -> int:
    """The line that `key` (such as machines[0].type) stands on, or its nearest table's; 0 where neither is found."""
    return _line(line_index(_read(Path(path))), key)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(
                path, [Problem(0, "file", f"is larger than {MAX_FILE_BYTES} bytes; this is not one of ours")]
            )
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(path, [Problem(0, "file", f"cannot be read ({error.strerror}); check the path")]) from None
    except UnicodeDecodeError:
        raise ConfigError(path, [Problem(0, "file", "is not text in UTF-8; save it as UTF-8")]) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = int(found[1]) if found else len(text.splitlines())
        what = re.sub(r" \(at .*\)$", "", str(error))
        hint = "text goes in quotes, a table in [brackets], a time or number without quotes"
        raise ConfigError(path, [Problem(line, "syntax", f"{what}; {hint}")]) from None
    except RecursionError:
        raise ConfigError(path, [Problem(0, "syntax", "is nested too deeply to be one of ours")]) from None


def line_index(text: str) -> dict[str, int]:
    """Each key's and table's line, by path: {"machines[0].type": 4}. Good for the TOML that people write by hand."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if header := re.match(r"(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$", line):
            table = _resolved(header[2], counts)
            if header[1] == "[[":
                index = counts.get(table, -1) + 1
                counts[table] = index
                for inner in [known for known in counts if known.startswith(f"{table}[{index}]")]:
                    del counts[inner]
                table = f"{table}[{index}]"
            lines.setdefault(table, number)
        elif assignment := re.match(r'((?:[\w-]+|"[^"]*")(?:\.(?:[\w-]+|"[^"]*"))*)\s*=', line):
            key = assignment[1].replace('"', "")
            lines.setdefault(f"{table}.{key}" if table else key, number)
    return lines


def _resolved(dotted: str, counts: Mapping[str, int]) -> str:
    """[machines.burst] below the second [[machines]] is machines[1].burst."""
    path = ""
    parts = [part.strip().strip('"') for part in dotted.split(".")]
    for position, part in enumerate(parts):
        path = f"{path}.{part}" if path else part
        if position < len(parts) - 1 and path in counts:
            path = f"{path}[{counts[path]}]"
    return path


def _line(lines: Mapping[str, int], key: str) -> int:
    while key:
        if key in lines:
            return lines[key]
        key = re.sub(r"(\.[^.\[\]]+|\[\d+\]|^[^.\[\]]+)$", "", key)
    return 0


def _convert(value: Any, kind: Any, key: str, lines: Mapping[str, int], problems: list[Problem]) -> Any:
    """`value` as `kind`; whatever does not fit is appended to `problems` and the rest is still looked at."""
    bare, union = _unwrapped(kind)
    if union:
        return _convert_union(value, kind, union, key, lines, problems)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return _convert_table(value, bare, key, lines, problems)
    origin = get_origin(bare)
    if origin is tuple and get_args(bare)[1:] == (...,) and isinstance(value, list):
        inner, before = get_args(bare)[0], len(problems)
        items = [_convert(item, inner, f"{key}[{i}]", lines, problems) for i, item in enumerate(value)]
        well = len(problems) == before
        return _checked(tuple(items), kind, key, value, lines, problems) if well and _is_plain(inner) else tuple(items)
    if origin is dict and isinstance(value, dict):
        inner = get_args(bare)[1]
        return {name: _convert(item, inner, f"{key}.{name}", lines, problems) for name, item in value.items()}
    return _checked(value, kind, key, value, lines, problems)


def _is_plain(kind: Any) -> bool:
    bare, union = _unwrapped(kind)
    return not union and not (isinstance(bare, type) and issubclass(bare, msgspec.Struct))


def _unwrapped(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    members = get_args(bare) if get_origin(bare) in (Union, UnionType) else ()
    return bare, tuple(member for member in members if member is not NoneType)


def _convert_union(
    value: Any, kind: Any, members: tuple[Any, ...], key: str, lines: Mapping[str, int], problems: list[Problem]
) -> Any:
    tables = [m for m in members if isinstance(m, type) and issubclass(m, msgspec.Struct)]
    if len(members) == 1 and not _is_plain(members[0]):
        return _convert(value, members[0], key, lines, problems)
    if tables and isinstance(value, dict):
        by_tag = {str(table.__struct_config__.tag): table for table in tables}
        field = str(tables[0].__struct_config__.tag_field)
        tag = value.get(field)
        if tag in by_tag:
            return _convert_table(value, by_tag[str(tag)], key, lines, problems)
        at = f"{key}.{field}" if key else field
        problems.append(Problem(_line(lines, at), at, _not_known(tag, sorted(by_tag))))
        return None
    return _checked(value, kind, key, value, lines, problems)


def _convert_table(
    value: Any, schema: type[msgspec.Struct], key: str, lines: Mapping[str, int], problems: list[Problem]
) -> Any:
    if not isinstance(value, dict):
        problems.append(Problem(_line(lines, key), key, f"is {_shown(value)}; write a table here, [{key}]"))
        return None
    before = len(problems)
    hints = get_type_hints(schema, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(schema)}
    tag_field = schema.__struct_config__.tag_field
    made: dict[str, Any] = {}
    for name, item in value.items():
        at = f"{key}.{name}" if key else name
        if name in fields:
            made[fields[name].name] = _convert(item, hints[fields[name].name], at, lines, problems)
        elif name != tag_field:
            problems.append(Problem(_line(lines, at), at, _not_known_key(name, sorted(fields))))
    for name, field in fields.items():
        if field.required and name not in value:
            at = f"{key}.{name}" if key else name
            problems.append(Problem(_line(lines, at), at, f"is missing{_describe(hints[field.name])}"))
    if len(problems) > before:
        return None
    try:
        return schema(**made)
    except ValueError as error:  # a schema's own __post_init__
        problems.append(Problem(_line(lines, key), key or "file", str(error)))
        return None


def _checked(value: Any, kind: Any, key: str, shown: Any, lines: Mapping[str, int], problems: list[Problem]) -> Any:
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        problems.append(Problem(_line(lines, key), f"{key} = {_shown(shown)}", _remedy(str(error), value, kind, key)))
        return None


def _remedy(message: str, value: Any, kind: Any, key: str) -> str:
    """msgspec's words turned into what to write instead."""
    name = re.sub(r"\[\d+\]$", "", key).rsplit(".", 1)[-1]
    if isinstance(value, str) and re.search(r"Expected `(int|float|int \| float|bool)`", message):
        return f"is text. Write it without quotes:  {name} = {value}"
    if "Invalid enum value" in message:
        return _not_known(value, _choices(kind))
    if limit := re.search(r"Expected `[^`]*` (>=|<=|>|<) (\S+)", message):
        how = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[limit[1]]
        return f"write {how} {limit[2]}{_describe(kind)}"
    if "matching regex" in message:
        return f"has letters that are not allowed here{_describe(kind)}"
    if expected := re.search(r"Expected `([^`]+)`(?:, got `([^`]+)`)?", message):
        words = {
            "str": "text in quotes",
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
            "array": "a list in [ ]",
            "object": "a table",
        }
        return f"write {words.get(expected[1], expected[1])}{_describe(kind)}"
    return message


def _choices(kind: Any) -> list[str]:
    bare, union = _unwrapped(kind)
    members = union or (bare,)
    return sorted(str(choice) for member in members for choice in get_args(member))


def _describe(kind: Any) -> str:
    for note in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
        if isinstance(note, msgspec.Meta) and note.description:
            return f" ({note.description})"
    return ""


def _not_known(value: Any, known: list[str]) -> str:
    close = difflib.get_close_matches(str(value), known, 1, 0.5)
    asked = f" Did you mean {close[0]!r}?" if close else ""
    return f"{'is missing' if value is None else 'not known'}.{asked}  ({', '.join(known)})"


def _not_known_key(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"no such key. Did you mean {close[0]!r}?" if close else f"no such key; here go {', '.join(known)}"


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
