"""The loader of every TOML file of ours: all problems at once, each with its line, key and remedy."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from firmware_bridge.checked import Table, load
from firmware_bridge.errors import ConfigError


class Drive(Table, tag="drive", tag_field="kind"):
    name: str
    unit_id: Annotated[int, Meta(ge=1, le=247, description="as on the label")] = 1


class Sensor(Table, tag="sensor", tag_field="kind"):
    name: str
    poll_interval_s: Annotated[float, Meta(ge=0.05)] = 1.0


class Plant(Table):
    title: str
    rated_rpm: float
    mode: Literal["motor", "pump"] = "motor"
    parts: tuple[Drive | Sensor, ...] = ()
    places: dict[str, str] = {}


WRONG = """title = 5
mode = "pmup"
rated_rpm = "1480"
colour = "red"

[[parts]]
kind = "drive"
name = "d1"
unit_id = 400

[[parts]]
kind = "sensor"
name = "s1"
poll_intervall_s = 1

[[parts]]
kind = "senser"

[places]
s1 = 3
"""


def problems(tmp_path: Path, text: str) -> list[tuple[int, str, str]]:
    path = tmp_path / "plant.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, Plant)
    return [(problem.line, problem.key, problem.text) for problem in caught.value.problems]


def test_every_mistake_is_named_at_once_with_line_key_and_remedy(tmp_path: Path) -> None:
    """An engineer who mends one mistake at a time restarts eight times; here it is once."""
    found = {line: (key, text) for line, key, text in problems(tmp_path, WRONG)}
    assert sorted(found) == [1, 2, 3, 4, 9, 14, 17, 20]
    assert found[1] == ("title = 5", "write text in quotes")
    assert found[2][1] == "not known. Did you mean 'pump'?  (motor, pump)"
    assert found[3] == ('rated_rpm = "1480"', "is text. Write it without quotes:  rated_rpm = 1480")
    assert found[9] == ("parts[0].unit_id = 400", "write at most 247 (as on the label)")
    assert found[14][1] == "no such key. Did you mean 'poll_interval_s'?"
    assert found[17] == ("parts[2].kind", "not known. Did you mean 'sensor'?  (drive, sensor)")
    assert found[20] == ("places.s1 = 3", "write text in quotes")


def test_a_missing_key_is_named_at_its_table(tmp_path: Path) -> None:
    """There is no line for what is not there; the key says it."""
    assert (0, "rated_rpm", "is missing") in problems(tmp_path, 'title = "a"')
    assert (3, "parts[0].name", "is missing") in problems(
        tmp_path, 'title = "a"\nrated_rpm = 1\n[[parts]]\nkind = "drive"\n'
    )


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("title = \n", 1, "Invalid value"),
        ('title = "a"\ntitle = "b"\n', 2, "Cannot overwrite"),
        ("[places\n", 1, "Expected"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    """tomllib's own message carries the place; it is kept."""
    found = problems(tmp_path, text)
    assert found[0][0] == line
    assert says in found[0][2]


def test_a_file_that_is_missing_or_no_text_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml", Plant)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "binary.toml", Plant)


def test_a_right_file_becomes_its_struct(tmp_path: Path) -> None:
    path = tmp_path / "plant.toml"
    path.write_text('title = "a"\nrated_rpm = 1480\n[[parts]]\nkind = "sensor"\nname = "s"\n')
    assert load(path, Plant) == Plant(title="a", rated_rpm=1480.0, parts=(Sensor(name="s"),))


@given(st.text(max_size=200))
def test_no_text_ever_gives_anything_but_a_struct_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """The file is edited by hand at a cabinet; a traceback there helps nobody."""
    path = tmp_path_factory.mktemp("fuzz") / "plant.toml"
    path.write_text(text, "utf-8", errors="replace")
    with contextlib.suppress(ConfigError):
        load(path, Plant)
