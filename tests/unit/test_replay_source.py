"""Replay: the same rows give the same blocks, and a wrong file is named to the cell."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from agent.clock import SystemClock
from agent.config import sensors_of
from firmware_bridge.errors import ConfigError, RecordingError
from firmware_bridge.measurement import Block, Quality
from firmware_bridge.source import ReplaySpec, SourceContext, channels_of, open_source
from firmware_bridge.sources.replay import ReplaySource, load_recording, recordings_in

CONFIG = Path(__file__).resolve().parents[2] / "config"
HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS"
)
ROWS = [
    "2020-03-09 10:14:33;0.027;0.040;1.33;0.0547;79.3;26.0;233.1;32.0",
    "2020-03-09 10:14:34;0.026;;nan;0.3826;79.5;26.0;236.0;32.0",
    "2020-03-09 10:14:36;0.026;0.040;1.35;-99;79.5;26.0;236.0;32.0",
]


def replay(path: Path, text: list[str], speed: float = 0.0, first: int = 0) -> ReplaySource:
    path.write_text("\n".join(text) + "\n", "utf-8")
    spec = ReplaySpec(name="skab", recording="skab", path=str(path), sensor="loop", speed=speed)
    opened = open_source(spec, SourceContext(CONFIG, "demo", first, SystemClock()))
    assert isinstance(opened, ReplaySource)
    return opened


def rows(source: ReplaySource) -> list[Block]:
    """Everything, without the wait that `read` makes after the last row."""
    made = []
    for block in source.read(0.2):
        assert isinstance(block, Block)
        made.append(block)
    return made


def test_a_row_is_a_block_with_the_recording_s_own_clocks(tmp_path: Path) -> None:
    """The missing second is a gap of two, on both clocks: replay decides as the live run did."""
    source = replay(tmp_path / "a.csv", [HEADER, *ROWS], first=10)
    made = rows(source)
    assert [b.utc_ns for b in made] == [1583748873 * 10**9, 1583748874 * 10**9, 1583748876 * 10**9]
    assert np.diff([b.monotonic_ns for b in made]).tolist() == [10**9, 2 * 10**9]
    assert made[0].channels.tolist() == list(range(10, 18))
    assert made[0].values == pytest.approx([0.027, 0.040, 1.33, 0.0547, 79.3, 26.0, 233.1, 32.0], rel=1e-6)
    assert source.finished
    assert [c.name for c in source.channels][:3] == [
        "loop.acceleration_rms_1_g",
        "loop.acceleration_rms_2_g",
        "loop.motor_current_a",
    ]


def mapping(folder: Path, times: str) -> Path:
    """A folder of configuration with one mapping, "rows", whose times are stated so."""
    (folder / "recordings").mkdir()
    column = '[[columns]]\ncolumn = "level"\npoint = "acceleration_rms_g"\nplausible = [0.0, 50.0]\n'
    (folder / "recordings" / "rows.toml").write_text(
        f'title = "t"\nlicence = "l"\ntime_column = "i"\n{times}\n{column}'
    )
    return folder


def test_an_index_is_a_time_where_the_mapping_says_how_long_a_row_is(tmp_path: Path) -> None:
    """Rigs write row numbers; the first may be 0, and a row that is missing is a gap."""
    config, path = mapping(tmp_path, "time_unit_s = 10.0"), tmp_path / "rows.csv"
    path.write_text("i,level\n0,0.1\n1,0.2\n3.5,0.3\n")
    spec = ReplaySpec(name="rows", recording="rows", path=str(path))
    source = open_source(spec, SourceContext(config, "demo", 0, SystemClock()))
    assert isinstance(source, ReplaySource)
    made = rows(source)
    assert [block.utc_ns for block in made] == [0, 10 * 10**9, 35 * 10**9]
    assert np.diff([block.monotonic_ns for block in made]).tolist() == [10 * 10**9, 25 * 10**9]
    path.write_text("i,level\none,0.1\n")
    with pytest.raises(RecordingError, match="line 2, column 'i': 'one' is not a number"):
        open_source(spec, SourceContext(config, "demo", 0, SystemClock()))


@pytest.mark.parametrize("times", ["", 'time_unit_s = 10.0\ntime_format = "%H:%M:%S"'])
def test_times_are_dates_or_numbers_and_never_both(tmp_path: Path, times: str) -> None:
    """Half a mapping would play a recording at the wrong speed."""
    with pytest.raises(ConfigError, match="write either time_format"):
        load_recording(mapping(tmp_path, times), "rows")


def test_an_empty_cell_is_not_available_and_an_absurd_one_is_out_of_range(tmp_path: Path) -> None:
    """As from a live sensor: no value, and why."""
    made = rows(replay(tmp_path / "a.csv", [HEADER, *ROWS]))
    assert made[1].quality.tolist() == [0, Quality.BAD_SENTINEL, Quality.BAD_SENTINEL, 0, 0, 0, 0, 0]
    assert made[2].quality[3] == Quality.BAD_RANGE
    assert np.isnan(made[2].values[3])


def test_the_same_file_gives_the_same_blocks_twice(tmp_path: Path) -> None:
    """Bit for bit, clocks and all."""
    runs = [rows(replay(tmp_path / "a.csv", [HEADER, *ROWS])) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert (one.utc_ns, one.monotonic_ns) == (other.utc_ns, other.monotonic_ns)
        assert one.values.tobytes() == other.values.tobytes()


def test_a_clock_that_steps_back_never_turns_the_monotonic_one(tmp_path: Path) -> None:
    """Summer time ends in somebody's recording; durations stay true."""
    source = replay(tmp_path / "a.csv", [HEADER, ROWS[1], ROWS[0], ROWS[2]])
    monotonic_ns = [b.monotonic_ns for b in rows(source)]
    assert monotonic_ns == sorted(monotonic_ns)
    assert source.counters["steps_back"] == 1


def test_speed_is_a_factor_of_real_time(tmp_path: Path) -> None:
    """Three seconds of recording at twenty times the speed are 0.15 s."""
    source = replay(tmp_path / "a.csv", [HEADER, *ROWS], speed=20.0)
    reading = source.read(5.0)
    next(reading)
    started_s = time.monotonic()
    next(reading)
    next(reading)
    assert 0.14 < time.monotonic() - started_s < 1.0


def test_read_returns_on_time_though_the_next_row_is_an_hour_away(tmp_path: Path) -> None:
    """The thread must stay able to stop."""
    source = replay(tmp_path / "a.csv", [HEADER, ROWS[0], ROWS[1].replace("10:14", "11:14")], speed=1.0)
    started_s = time.monotonic()
    assert len(rows(source)) == 1
    assert time.monotonic() - started_s < 0.5
    assert not source.finished


@pytest.mark.parametrize(
    ("says", "text"),
    [
        ("line 1: no column 'Voltage'", [HEADER.replace("Voltage", "Volts"), *ROWS]),
        ("line 1: column 'Extra' is not in the mapping", [HEADER + ";Extra", *ROWS]),
        ("line 1: no column 'datetime'; it has nothing", [""]),
        ("line 3: 3 cells under 9 columns", [HEADER, ROWS[0], "2020-03-09 10:14:34;1;2"]),
        ("line 2, column 'Current': '1,33' is not a number", [HEADER, ROWS[0].replace("1.33", "1,33")]),
        (
            "line 2, column 'datetime': '09.03.2020 10:14:33' is not a time",
            [HEADER, ROWS[0].replace("2020-03-09", "09.03.2020")],
        ),
    ],
)
def test_a_wrong_recording_is_named_by_file_line_and_column(tmp_path: Path, says: str, text: list[str]) -> None:
    """The rows before it are played."""
    path = tmp_path / "bad.csv"
    with pytest.raises(RecordingError, match=r"bad\.csv") as refused:
        rows(replay(path, text))
    assert says in str(refused.value)


def test_the_rows_before_a_wrong_one_are_played(tmp_path: Path) -> None:
    """An error at row 100,000 must not cost the 99,999 before it."""
    source = replay(tmp_path / "bad.csv", [HEADER, *ROWS, "broken"])
    made = []
    reading = source.read(1.0)
    made.extend(next(reading) for _ in range(3))
    with pytest.raises(RecordingError, match="line 5"):
        next(reading)
    assert len(made) == 3


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary", b"\x00" * 100])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    """Somebody drops the wrong file."""
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"a\.csv"):
        open_source(
            ReplaySpec(name="r", recording="skab", path=str(path)), SourceContext(CONFIG, "demo", 0, SystemClock())
        )


def test_a_missing_file_and_an_unknown_mapping_are_named(tmp_path: Path) -> None:
    """Before anything else starts."""
    context = SourceContext(CONFIG, "demo", 0, SystemClock())
    with pytest.raises(RecordingError, match=r"nowhere\.csv: cannot be read \(No such file"):
        open_source(ReplaySpec(name="r", recording="skab", path=str(tmp_path / "nowhere.csv")), context)
    with pytest.raises(ConfigError, match="skab"):
        channels_of(ReplaySpec(name="r", recording="nothing", path="x"), CONFIG)


def test_a_recording_is_silent_by_its_own_interval() -> None:
    """A row a second: after a gap it is believed again in seconds, not in the minutes that a row a minute would take."""
    (sensor,) = sensors_of(ReplaySpec(name="r", recording="skab", path="x"), CONFIG)
    assert sensor.interval_s == load_recording(CONFIG, "skab").sample_interval_s


@pytest.mark.parametrize("name", recordings_in(CONFIG))
def test_every_mapping_loads_and_names_a_machine_that_exists(name: str) -> None:
    """A recording is watched as a machine type; its labels are never channels."""
    recording = load_recording(CONFIG, name)
    assert recording.licence
    assert {column.column for column in recording.columns}.isdisjoint(recording.ignore)
