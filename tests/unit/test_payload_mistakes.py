"""Every mistake of a payload file is one line: where, what is wrong, what to write. Golden, so that none gets worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_bridge.errors import ConfigError
from firmware_bridge.payload import load_payload

HEAD = """\
vendor = "V"
model = "M"
title = "t"
source = "s"
sees = "all"
format = "json"
update_interval_s = 1
"""
SCALARS = f"""{HEAD}
[[points]]
name = "level_pct"
path = "a.b"
plausible = [0, 100]

[[examples]]
title = "e"
payload = "{{}}"
values = {{ level_pct = 1 }}
"""
BURST = f"""{HEAD.replace("json", "burst_json")}
[burst]
unit = "g"
samples = {{ z = "d" }}
sample_rate_hz = 1000
"""
PACKETS = f"""{HEAD.replace("json", "packets")}
[burst]
unit = "g"
axes = "xyz"
first_byte = 4
sample_rate_hz = 1000
"""
METRICS = f"""{HEAD.replace("json", "sparkplug")}
[[points]]
name = "speed_rpm"
metric = "Speed"
plausible = [0, 3000]
"""
NUMBERS = f"""{HEAD.replace("json", "number")}
[[points]]
name = "level_pct"
plausible = [0, 100]
"""
FORMATS = "(json, number, burst_json, packets, sparkplug)"
STEPS = 'write a.b, a[0], a["odd key"], a[*] or a[?name=="x"]'
TIME = "[time]\n{}\n\n[[examples]]"
SECOND = '[0, 100]\n\n[[points]]\nname = "level_pct"\npath = "c"\nplausible = [0, 1]'

OF_SCALARS = {
    ("[[examples]]", "[[example]]"): "          example: no such key. Did you mean 'examples'?",
    ('"json"', '"jsn"'): f"line 6    format = \"jsn\": not known. Did you mean 'json'?  {FORMATS}",
    ('format = "json"\n', ""): f"          format: is missing.  {FORMATS}",
    ('"a.b"', '"a..b"'): f'line 9    points[0]: path "a..b", column 3: a name is expected; {STEPS}',
    ('"a.b"', '"a[*].b"'): (
        'line 9    points[0]: path "a[*].b" finds many values and one is meant; write [0], [-1] or [?name=="x"] for [*]'
    ),
    ('name = "level_pct"', 'name = "level"'): "line 9    points[0]: 'level' ends in no unit; end it in one of a, ",
    ('name = "level_pct"', 'name = "Level_pct"'): (
        'line 10   points[0].name = "Level_pct": has letters that are not allowed here (lower-case letters, digits and _)'
    ),
    ("plausible = [0, 100]\n", ""): "line 9    points[0].plausible: is missing",
    ("[0, 100]", "[100, 0]"): "line 9    points[0]: plausible = [100.0, 0.0] is no range; write [lowest, highest]",
    ("[0, 100]", "[0, 100]\nscale = 0"): (
        "line 9    points[0]: scale and offset are finite numbers, and scale is not 0"
    ),
    ("[0, 100]", '[0, 100]\ntopic = "a/#"'): (
        'line 9    points[0]: topic = "a/#"; write the last levels of the topic, such as emeter/0/power'
    ),
    ("[0, 100]", SECOND): "          file: level_pct is there twice; every point has its own name",
    ("{ level_pct", "{ levl_pct"): (
        "          file: example 'e': levl_pct must be a point and stand in values or quality, once"
    ),
    ("[[examples]]", TIME.format('path = "t"')): "line 14   time.format: is missing",
    ("[[examples]]", TIME.format('format = "iso"')): (
        "line 14   time: write one of path (JSON), offset (bytes) or level (of the topic)"
    ),
    ("[[examples]]", TIME.format('path = "t"\nformat = "unix"')): (
        'line 16   time.format = "unix": not known.  (iso, ms, ns, s, us)'
    ),
}
OF_BURSTS = {
    ("sample_rate_hz = 1000\n", ""): (
        "line 9    burst: write one of sample_rate_hz, sample_rate_at or sample_interval_at"
    ),
    ("{ z =", "{ q ="): 'line 9    burst: "q" are no axes; write x, y, z, several of them in their order, or "any"',
    ("{ z =", "{ any ="): ('line 9    burst: "any" and axis_at belong together: it is the axis that the message tells'),
    ("1000\n", '1000\nindex_at = { path = "i" }\n'): (
        "line 9    burst: parts need both index_at and count_at; a burst in one message has neither"
    ),
    ('{ z = "d" }', '{ any = "d" }\naxis_at = { path = "a" }'): (
        "line 9    burst: write burst_id_at or time: what was sampled together comes in several messages here"
    ),
    ("1000\n", "1000\nscale_at = { offset = 3 }\n"): (
        "line 9    burst: a JSON message has no offset; write path or level"
    ),
    ("{ z =", '{ xz = "c", z ='): "line 9    burst: xz, z name an axis twice; write each once",
    ('unit = "g"', 'unit = "mg"'): "line 10   burst.unit = \"mg\": not known. Did you mean 'g'?  (g, m_s2)",
}
OF_PACKETS = {
    ("1000\n", '1000\nscale_at = { path = "a" }\n'): (
        "line 9    burst: a binary message has no path; write offset or level"
    ),
    ("1000\n", '1000\nmatch = { 0 = "7" }\n'): (
        'line 9    burst: match: 0 = "7"; write bytes in hex by offset, such as 0 = "7f"'
    ),
    ("1000\n", '1000\nscale_at = { offset = 1, type = "float32", mask = 7 }\n'): (
        "line 14   burst.scale_at: mask keeps bits of a whole number; the type is a float"
    ),
    ('"xyz"', '"xx"'): 'line 9    burst: "xx" are no axes; write x, y, z, several of them in their order, or "any"',
}
OF_METRICS = {
    ("3000]", "3000]\nlive = true"): (
        "          file: speed_rpm: a metric that does not change is not sent again; leave live out"
    ),
    ('metric = "Speed"', 'metric = ""'): 'line 11   points[0].metric = "": ',
}
OF_NUMBERS = {
    ("100]", '100]\n\n[[points]]\nname = "b_v"\nplausible = [0, 1]'): (
        "          file: several numbers are told apart by their topics; give every point its topic"
    ),
    ("100]", '100]\npath = "a"'): "line 12   points[0].path: no such key; here go absent, live, name, offset, ",
}
TABLES = (
    (SCALARS, OF_SCALARS),
    (BURST, OF_BURSTS),
    (PACKETS, OF_PACKETS),
    (METRICS, OF_METRICS),
    (NUMBERS, OF_NUMBERS),
)
MISTAKES = [(text, *change, says) for text, table in TABLES for change, says in table.items()]


def payload_file(folder: Path, text: str) -> None:
    (folder / "payloads").mkdir()
    (folder / "payloads" / "mine.toml").write_text(text, "utf-8")


@pytest.mark.parametrize(
    "text", [text for text, _ in TABLES], ids=["json", "burst_json", "packets", "sparkplug", "number"]
)
def test_without_a_mistake_the_file_is_read(tmp_path: Path, text: str) -> None:
    """Otherwise the others would show nothing."""
    payload_file(tmp_path, text)
    assert load_payload(tmp_path, "mine").vendor == "V"


@pytest.mark.parametrize(("text", "old", "new", "says"), MISTAKES, ids=[says[:60] for *_, says in MISTAKES])
def test_a_mistake_is_one_line_with_its_remedy(tmp_path: Path, text: str, old: str, new: str, says: str) -> None:
    """Line, key, what is wrong and what to write."""
    assert text.count(old) == 1
    payload_file(tmp_path, text.replace(old, new))
    with pytest.raises(ConfigError) as refused:
        load_payload(tmp_path, "mine")
    assert len(refused.value.problems) == 1
    assert str(refused.value).splitlines()[1].startswith(f"  {says}")


def test_an_unknown_payload_is_answered_with_the_known_ones() -> None:
    """The name in the site file was misspelt."""
    with pytest.raises(ConfigError, match=r"payload 'shelly': not known; .* has gatech_arch_vibration, ifm_vvb001"):
        load_payload(Path(__file__).resolve().parents[2] / "config", "shelly")
