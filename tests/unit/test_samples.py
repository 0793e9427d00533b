"""Samples: a row a poll while they are young, a compressed chunk a sensor afterwards, and the same numbers all the way."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.samples import FOLD_EVERY_S, read_samples
from agent.store import PAGE_BYTES, Store
from firmware_bridge.chunks import MAX_VALUES, decode_chunk
from firmware_bridge.measurement import Block

N_SENSORS, N_POINTS = 5, 20
CHANNELS = [f"sensor-{sensor}.point_{point}_mm_s" for sensor in range(N_SENSORS) for point in range(N_POINTS)]
START_UTC_NS = 1_780_000_000_000_000_000


def opened(folder: Path, max_bytes: int = 64 << 20) -> Store:
    return Store.open(folder / "buffer.sqlite", gateway="demo/gw-01", channels=CHANNELS, max_bytes=max_bytes)


class Plant:
    """Five devices of twenty values, polled every second: three of four are registers of a tenth, the others noisy floats."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.steps = self.rng.integers(100, 900, (N_SENSORS, N_POINTS))
        self.second = 0

    def polls(self, seconds: int) -> list[Block]:
        made = []
        for _ in range(seconds):
            self.second += 1
            self.steps += self.rng.integers(-1, 2, self.steps.shape) * (self.rng.random(self.steps.shape) < 0.2)
            for sensor in range(N_SENSORS):
                values = (self.steps[sensor] / 10).astype(np.float32)
                values[15:] += self.rng.standard_normal(5).astype(np.float32)
                late_ns = round(abs(self.rng.normal(0, 1e5)))
                at_ns = self.second * 10**9 + late_ns
                channels = np.arange(sensor * N_POINTS, (sensor + 1) * N_POINTS, dtype=np.int32)
                quality = np.zeros(N_POINTS, np.uint8)
                if self.rng.random() < 0.01:
                    values[3], quality[3] = np.nan, 130
                made.append(Block(channels, values, quality, START_UTC_NS + at_ns, at_ns))
        return made


def folded(store: Store, now_s: float) -> int:
    """Steps of folding, as the store's thread takes them, until there is nothing more to do."""
    kept = 0
    for step in range(200):
        kept += store.fold_samples(now_s + step)
    return kept


def what_is_kept(folder: Path) -> dict[str, np.ndarray]:
    """Every value of every sensor in order of time, shape (n_polls, n_points), its quality in the last columns."""
    found: dict[str, list[np.ndarray]] = {}
    with sqlite3.connect(f"file:{folder / 'buffer.sqlite'}?mode=ro", uri=True) as reader:
        for series in read_samples(reader):
            times = series.utc_us[:, None].astype(np.float64)
            found.setdefault(series.sensor, []).append(np.hstack([times, series.values, series.quality]))
    return {sensor: np.concatenate(parts) for sensor, parts in found.items()}


def what_was_given(blocks: list[Block]) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    for block in blocks:
        row = np.concatenate([[block.utc_ns // 1000], block.values, block.quality])
        found.setdefault(f"sensor-{block.channels[0] // N_POINTS}", []).append(row)
    return {sensor: np.stack(rows) for sensor, rows in found.items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


def test_folded_samples_are_the_ones_that_were_given(tmp_path: Path) -> None:
    """Young ones beside folded ones, bad values and times included, also for a reader who opens the file meanwhile."""
    store, plant = opened(tmp_path), Plant()
    given = plant.polls(120)
    store.write(given)
    assert store.fold_samples(0.0) == 0
    assert folded(store, FOLD_EVERY_S) == N_SENSORS
    later = plant.polls(30)
    store.write(later)
    assert store.stats()["polls"] == 30 * N_SENSORS
    assert store.stats()["records"] == {"sample": N_SENSORS}
    assert same(what_is_kept(tmp_path), what_was_given(given + later))
    store.close()


def test_thirty_days_of_a_hundred_tags_fit_into_the_stated_megabytes(tmp_path: Path) -> None:
    """Bytes of the file's own pages, for ten folds; 450 MB for 259.2 million samples are 1.74 bytes each."""
    store, plant = opened(tmp_path), Plant()
    empty = store.used_bytes()
    n_samples = 0
    for fold in range(3):
        for _ in range(10):
            store.write(plant.polls(60))
            n_samples += 60 * N_SENSORS * N_POINTS
        folded(store, (fold + 1) * (FOLD_EVERY_S + 300))
    assert store.stats()["polls"] == 0
    per_sample = (store.used_bytes() - empty) / n_samples
    assert 0.5 < per_sample < 1.74
    store.close()


def test_what_an_earlier_life_left_is_folded_first_and_nothing_is_mixed(tmp_path: Path) -> None:
    """The monotonic clock of another life has another zero."""
    plant = Plant()
    store = opened(tmp_path)
    first = plant.polls(20)
    store.write(first)
    store.close()
    store = opened(tmp_path)
    second = plant.polls(20)
    store.write(second)
    assert folded(store, 0.0) == 2 * N_SENSORS
    kept = what_is_kept(tmp_path)
    assert same({k: v[np.argsort(v[:, 0])] for k, v in kept.items()}, what_was_given(first + second))
    store.close()


def test_a_fold_that_is_cut_short_loses_nothing(tmp_path: Path) -> None:
    """Chunks are made over several steps; rows go in the transaction that keeps all of them."""
    store, plant = opened(tmp_path), Plant()
    given = plant.polls(20)
    store.write(given)
    store.fold_samples(0.0)
    store.fold_samples(FOLD_EVERY_S)
    store.fold_samples(FOLD_EVERY_S + 1)
    assert store.stats()["records"] == {}
    store.close()
    store = opened(tmp_path)
    assert same(what_is_kept(tmp_path), what_was_given(given))
    assert folded(store, 0.0) == N_SENSORS
    assert same(what_is_kept(tmp_path), what_was_given(given))
    store.close()


def test_polls_that_are_too_many_for_one_chunk_make_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor read fifty times a second."""
    monkeypatch.setattr("agent.samples.MAX_VALUES", 7 * N_POINTS)
    assert MAX_VALUES > 7 * N_POINTS
    store, plant = opened(tmp_path), Plant()
    given = plant.polls(20)
    store.write(given)
    store.fold_samples(0.0)
    assert folded(store, FOLD_EVERY_S) == 3 * N_SENSORS
    assert same(what_is_kept(tmp_path), what_was_given(given))
    store.close()


def test_chunks_go_before_anything_else_when_the_budget_is_reached_and_each_is_a_gap(tmp_path: Path) -> None:
    """Oldest first; polls that are not folded yet are younger."""
    store, plant = opened(tmp_path, max_bytes=300 * PAGE_BYTES), Plant()
    store.fold_samples(0.0)
    for fold in range(1, 12):
        store.write(plant.polls(200))
        folded(store, fold * 2 * FOLD_EVERY_S)
        assert store.used_bytes() <= 300 * PAGE_BYTES
    with sqlite3.connect(store.path) as reader:
        gaps = reader.execute("SELECT what, from_id, SUM(n) FROM gap GROUP BY what ORDER BY what").fetchall()
        kept = reader.execute("SELECT COUNT(*) FROM record WHERE stream = 'sample'").fetchone()[0]
    assert [gap[0] for gap in gaps] == ["sample"]
    assert gaps[0][1] == 1
    assert kept + gaps[0][2] == 11 * N_SENSORS
    store.close()


def test_rows_that_were_dropped_during_a_fold_are_not_kept_after_all(tmp_path: Path) -> None:
    """A gap that says they are lost must not be a lie."""
    store, plant = opened(tmp_path), Plant()
    store.write(plant.polls(100))
    store.fold_samples(0.0)
    store.fold_samples(FOLD_EVERY_S)
    dropped = store._drop_slice("sample", "1")
    folded(store, FOLD_EVERY_S + 2)
    assert store.stats()["gaps"] == dropped
    kept = sum(len(rows) for rows in what_is_kept(tmp_path).values())
    assert kept == 100 * N_SENSORS - dropped
    store.close()


def test_a_buffer_of_version_1_is_taken_over_with_its_samples(tmp_path: Path) -> None:
    """As the first release wrote it; a poll of that time has no monotonic stamp."""
    store = opened(tmp_path)
    store.write(Plant().polls(3))
    store.close()
    with sqlite3.connect(tmp_path / "buffer.sqlite") as old:
        for table, column in (
            ("record", "monotonic_ns"),
            ("record", "clock_set"),
            ("sample", "monotonic_ns"),
            ("sample", "boot"),
        ):
            old.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        old.execute("PRAGMA user_version=1")
    store = opened(tmp_path)
    assert store.stats()["polls"] == 3 * N_SENSORS
    assert folded(store, 0.0) == N_SENSORS
    assert same(what_is_kept(tmp_path), what_was_given(Plant().polls(3)))
    store.close()


def test_a_chunk_never_spans_the_moment_in_which_the_clock_was_set(tmp_path: Path) -> None:
    """Its samples are either all of a clock that could be right, or all to be corrected."""
    store = opened(tmp_path)
    channels, quality = np.arange(N_POINTS, dtype=np.int32), np.zeros(N_POINTS, np.uint8)
    values = np.ones(N_POINTS, np.float32)
    store.write([Block(channels, values, quality, at * 10**9, at * 10**9) for at in range(10)])
    store.write([Block(channels, values, quality, START_UTC_NS + at * 10**9, at * 10**9) for at in range(10, 15)])
    store.fold_samples(0.0)
    assert folded(store, FOLD_EVERY_S) == 2
    with sqlite3.connect(store.path) as reader:
        payloads = [payload for (payload,) in reader.execute("SELECT payload FROM record ORDER BY id")]
    chunks = [decode_chunk(msgspec.msgpack.decode(payload)["chunk"]) for payload in payloads]
    assert [(chunk.clock_set, len(chunk.series[0].utc_us)) for chunk in chunks] == [(False, 10), (True, 5)]
    store.close()


def test_polls_that_the_disk_has_damaged_do_not_stop_the_others(tmp_path: Path) -> None:
    """What cannot be folded must not end the agent at every start: it is a gap, and the other sensors' samples are kept."""
    store = opened(tmp_path)
    store.write(Plant().polls(20))
    store.close()
    with sqlite3.connect(tmp_path / "buffer.sqlite") as damaged:
        damaged.execute("UPDATE sample SET value = x'00' WHERE id = 1")
        damaged.execute("UPDATE channel_set SET names = '[' WHERE id = 2")
    store = opened(tmp_path)
    assert folded(store, 0.0) == N_SENSORS - 2
    assert store.stats()["polls"] == 0
    assert sorted(what_is_kept(tmp_path)) == [f"sensor-{sensor}" for sensor in range(2, N_SENSORS)]
    gaps = store._db.execute("SELECT what, reason FROM gap").fetchall()
    assert [what for what, _ in gaps] == ["poll", "poll"]
    assert all("damaged" in reason for _, reason in gaps)
    store.close()
