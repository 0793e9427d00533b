"""The dataset on disk: one Delta table per stream, partitioned by site, machine and date, every key exactly once.

pandas, polars, DuckDB and Spark read it as it is. A key is written once although messages arrive at least once: known
keys are kept as ranges, and a commit fails when any other writer committed since they were read (optimistic
concurrency), so that several collectors may share one dataset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from agent.features import feature_set_of
from agent.machine import load_machine_profile
from firmware_bridge.chunks import decode_chunk
from firmware_bridge.errors import HarkError
from firmware_bridge.roots import find_root
from firmware_bridge.upstream import UpstreamRecord
from training.keys import RangeSet
from training.wire import AlarmBody, BaselineBody, BurstBody, ClockBody, FeatureBody, SampleBody, Source, source_of, utc

TABLES = {
    "alarm": "alarms",
    "clock": "clock_events",
    "baseline": "baseline_events",
    "feature": "features",
    "burst": "bursts",
    "sample": "samples",
}
PARTITION = ["site", "machine", "date"]
MAX_ATTEMPTS = 50  # other collectors may commit in between; each attempt sees what they wrote
COMPACT_AFTER_COMMITS = 50
MAX_UNNAMED = 1000

UTC_US = pa.timestamp("us", tz="UTC")
COMMON = [
    ("key", pa.string()),
    ("site", pa.string()),
    ("gateway", pa.string()),
    ("stream", pa.string()),
    ("seq", pa.int64()),
    ("machine", pa.string()),
    ("utc", UTC_US),
    ("utc_ns", pa.int64()),
    ("date", pa.string()),
    ("late", pa.bool_()),
    ("clock", pa.string()),  # "unset" where the time is of a clock that was not set; see clock_events
]
POINT = (
    "shaft_speed_rpm", "active_power_kw", "line_frequency_hz", "load", "ambient_degc", "envelope_low_hz", "envelope_high_hz",
)  # fmt: skip
SCHEMAS = {
    "alarm": pa.schema(
        [
            *COMMON,
            *(
                (name, pa.string())
                for name in ("alarm_id", "code", "condition", "alarm_class", "severity", "state", "text")
            ),
            ("fault", pa.string()),
            ("confidence", pa.float64()),
            ("onset_utc", UTC_US),
            ("body_json", pa.string()),
        ]
    ),
    "clock": pa.schema(
        [
            *COMMON,
            ("step_s", pa.float64()),
            ("from_utc", UTC_US),
            ("to_utc", UTC_US),
            ("from_utc_ns", pa.int64()),
            ("to_utc_ns", pa.int64()),
            ("set", pa.bool_()),
        ]
    ),
    "baseline": pa.schema(
        [
            *COMMON,
            ("what", pa.string()),
            ("state", pa.string()),
            ("n_windows", pa.int64()),
            ("reason", pa.string()),
            ("although_sick", pa.bool_()),
        ]
    ),
    "feature": pa.schema(
        [
            *COMMON,
            ("machine_type", pa.string()),
            ("state", pa.string()),
            ("digest", pa.string()),
            ("values", pa.list_(pa.float32())),
            ("present", pa.list_(pa.bool_())),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("burst_id", pa.int64()),
            *((name, pa.float64()) for name in POINT),
        ]
    ),
    "burst": pa.schema(
        [
            *COMMON,
            ("sensor", pa.string()),
            ("axis", pa.string()),
            ("sample_rate_hz", pa.float64()),
            ("scale_m_s2", pa.float64()),
            ("burst_id", pa.int64()),
            ("start_utc", UTC_US),
            ("alarm_id", pa.string()),
            ("samples", pa.binary()),
        ]
    ),
    # A row a chunk: n polls of some points. Values and quality stand poll after poll; quality is null where all of it is good.
    "sample": pa.schema(
        [
            *COMMON,
            ("sensor", pa.string()),
            ("boot", pa.int64()),
            ("points", pa.list_(pa.string())),
            ("utc_us", pa.list_(pa.int64())),
            ("monotonic_us", pa.list_(pa.int64())),
            ("values", pa.list_(pa.float32())),
            ("quality", pa.list_(pa.int16())),  # Delta has no unsigned numbers
        ]
    ),
}


class DatasetError(HarkError):
    """The dataset's folder cannot be read or written."""


class Dataset:
    """A folder of Delta tables that holds every key once. One thread uses it."""

    def __init__(self, folder: Path) -> None:
        """Open or begin a dataset; the keys that it holds are read. Raises: DatasetError."""
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(
                f"{folder}: cannot be made ({error.strerror}); check --out and its permissions"
            ) from None
        self._tables: dict[str, DeltaTable] = {}
        self._held: dict[str, dict[Source, RangeSet]] = {}
        self._n_commits: dict[str, int] = dict.fromkeys(TABLES, 0)
        self._columns = _read_columns(self.folder)
        self._unnamed: set[str] = set()  # digests that neither a record nor a profile here explains
        for stream in TABLES:
            self._load(stream)

    def held(self, source: Source) -> RangeSet:
        """The sequences held of one site, gateway and stream."""
        return self._held[source[2]].setdefault(source, RangeSet())

    def append(self, stream: str, records: Sequence[UpstreamRecord]) -> tuple[int, int]:
        """Commit the records of one stream that are not held yet, in one transaction.

        Returns: how many were written, how many were there already.
        Raises: DatasetError: cannot be written; nothing of it counts as held then.
        """
        for _ in range(MAX_ATTEMPTS):
            fresh = self._fresh(records)
            if not fresh or self._committed(stream, fresh):
                for record in fresh:
                    self.held(source_of(record)).add(record.seq)
                return len(fresh), len(records) - len(fresh)
            self._load(stream)
        raise DatasetError(
            f"{self.folder / TABLES[stream]}: other writers kept committing; start fewer collectors on it"
        )

    def close(self) -> None:
        """Join the many small files of a long run into few; readers are not disturbed."""
        for stream, table in self._tables.items():
            if self._n_commits[stream] >= COMPACT_AFTER_COMMITS:
                try:
                    table.update_incremental()
                    table.optimize.compact()
                except CommitFailedError:
                    continue  # another collector is at work; the next one to stop does it
                self._n_commits[stream] = 0

    def _fresh(self, records: Sequence[UpstreamRecord]) -> list[UpstreamRecord]:
        by_key = {record.key: record for record in records if record.seq not in self.held(source_of(record))}
        return list(by_key.values())

    def _committed(self, stream: str, fresh: Sequence[UpstreamRecord]) -> bool:
        """Write one transaction; False when another writer was quicker."""
        path = self.folder / TABLES[stream]
        if stream == "feature":
            self._keep_columns(fresh)
        rows = [ROWS[stream](record) for record in fresh]
        data = pa.Table.from_pylist(rows, schema=SCHEMAS[stream])
        try:
            write_deltalake(
                self._tables[stream],
                data,
                mode="append",
                schema_mode="merge",  # a dataset of an earlier version gets the columns that it lacks
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except CommitFailedError:
            return False
        except OSError as error:
            raise DatasetError(f"{path}: cannot be written ({error}); check space and permissions") from None
        self._n_commits[stream] += 1
        return True

    def _load(self, stream: str) -> None:
        """Read what stands in a stream's table now; the table is made where there is none.

        It is made before the first record, because an append to a path, unlike one to an opened version of a table, does
        not notice that somebody else was quicker.
        """
        path = self.folder / TABLES[stream]
        table = open_table(self.folder, stream)
        if table is None:
            try:
                table = DeltaTable.create(str(path), SCHEMAS[stream], mode="ignore", partition_by=PARTITION)
            except (OSError, CommitFailedError) as error:
                raise DatasetError(f"{path}: cannot be made ({error}); check space and permissions") from None
        self._tables[stream] = table
        self._held[stream] = {}
        for source, seqs in sequences(table, stream).items():
            self._held[stream][source] = RangeSet(seqs)

    def _keep_columns(self, records: Sequence[UpstreamRecord]) -> None:
        """Names of a digest's columns, once per digest, beside the tables."""
        before = len(self._columns)
        for record in records:
            digest, machine_type = record.body["digest"], record.body.get("machine_type", "")
            if digest in self._columns or digest in self._unnamed:
                continue
            names = record.body.get("columns") or profile_columns(machine_type, digest)
            if names:
                self._columns[digest] = {"machine_type": machine_type, "columns": names}
            elif len(self._unnamed) < MAX_UNNAMED:
                self._unnamed.add(digest)
        if len(self._columns) > before:
            staged = self.folder / "columns.json.new"
            staged.write_text(json.dumps(self._columns, indent=1, sort_keys=True), "utf-8")
            staged.replace(self.folder / "columns.json")


def open_table(folder: Path, stream: str) -> DeltaTable | None:
    """The Delta table of a stream, or None where nothing was written yet. Raises: DatasetError."""
    path = Path(folder) / TABLES[stream]
    if not path.is_dir():
        return None
    try:
        return DeltaTable(str(path))
    except TableNotFoundError:
        return None
    except Exception as error:  # delta-rs has no common base for a damaged log
        raise DatasetError(f"{path}: is not a Delta table that can be read ({str(error)[:200]})") from None


def sequences(table: DeltaTable | None, stream: str) -> dict[Source, list[int]]:
    """Sequence numbers by (site, gateway, stream), ascending, doubles included."""
    found: dict[Source, list[np.ndarray]] = {}
    if table is None:
        return {}
    for batch in table.to_pyarrow_dataset().to_batches(columns=["site", "gateway", "seq"]):
        frame = pa.table(batch).group_by(["site", "gateway"]).aggregate([("seq", "list")])
        for row in frame.to_pylist():
            found.setdefault((row["site"], row["gateway"], stream), []).append(np.asarray(row["seq_list"], np.int64))
    return {source: np.sort(np.concatenate(parts)).tolist() for source, parts in found.items()}


def profile_columns(machine_type: str, digest: str) -> list[str]:
    """Column names from this installation's own machine profile; empty where its digest is another one."""
    if not machine_type:
        return []
    try:
        features = feature_set_of(load_machine_profile(find_root() / "config", machine_type))
    except HarkError:
        return []
    return list(features.names) if features.digest == digest else []


def _read_columns(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        loaded: dict[str, dict[str, Any]] = json.loads((folder / "columns.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise DatasetError(f"{folder / 'columns.json'}: is not JSON; delete it, agents send the names again") from None
    return loaded


def _common(record: UpstreamRecord) -> dict[str, Any]:
    moment = utc(record.utc_ns)
    return {
        "key": record.key,
        "site": record.site,
        "gateway": record.gateway,
        "stream": record.stream,
        "seq": record.seq,
        "machine": record.machine,
        "utc": moment,
        "utc_ns": record.utc_ns,
        "date": moment.strftime("%Y-%m-%d"),
        "late": record.late,
        "clock": record.body.get("clock"),
    }


def _body_json(body: Mapping[str, Any]) -> str:
    return msgspec.json.encode(body).decode()


def _alarm_row(record: UpstreamRecord) -> dict[str, Any]:
    body = msgspec.convert(record.body, AlarmBody)
    fault = body.fault or {}
    row = {name: getattr(body, name) for name in ("code", "condition", "alarm_class", "severity", "state")}
    return (
        _common(record)
        | row
        | {
            "alarm_id": body.id,
            "onset_utc": body.t_start,
            "fault": fault.get("code"),
            "confidence": fault.get("confidence"),
            "text": body.text if isinstance(body.text, str) else next(iter(body.text.values()), ""),
            "body_json": _body_json(record.body),
        }
    )


def _clock_row(record: UpstreamRecord) -> dict[str, Any]:
    body = msgspec.convert(record.body, ClockBody)
    row = {"step_s": body.step_s, "from_utc_ns": body.from_utc_ns, "to_utc_ns": body.to_utc_ns, "set": body.set}
    return _common(record) | row | {"from_utc": utc(body.from_utc_ns), "to_utc": utc(body.to_utc_ns)}


def _baseline_row(record: UpstreamRecord) -> dict[str, Any]:
    return _common(record) | msgspec.structs.asdict(msgspec.convert(record.body, BaselineBody))


def _feature_row(record: UpstreamRecord) -> dict[str, Any]:
    body = msgspec.convert(record.body, FeatureBody)
    row = {
        "machine_type": body.machine_type,
        "state": body.state,
        "digest": body.digest,
        "values": body.values,
        "present": [bool(flag) for flag in body.present],
        "score": body.score,
        "threshold": body.threshold,
        "burst_id": body.burst_id,
    }
    return _common(record) | row | {name: body.point.get(name) for name in POINT}


def _burst_row(record: UpstreamRecord) -> dict[str, Any]:
    body = msgspec.convert(record.body, BurstBody)
    row = {
        name: getattr(body, name) for name in ("sensor", "axis", "sample_rate_hz", "scale_m_s2", "burst_id", "alarm_id")
    }
    return _common(record) | row | {"start_utc": utc(body.start_utc_ns), "samples": body.samples}


def _sample_row(record: UpstreamRecord) -> dict[str, Any]:
    chunk = decode_chunk(msgspec.convert(record.body, SampleBody).chunk)
    (series,) = chunk.series
    return _common(record) | {
        "sensor": series.sensor,
        "boot": chunk.boot,
        "clock": None if chunk.clock_set else "unset",
        "points": list(series.points),
        "utc_us": series.utc_us,
        "monotonic_us": series.monotonic_us,
        "values": series.values.ravel(),
        "quality": series.quality.ravel() if series.quality.any() else None,
    }


ROWS: dict[str, Callable[[UpstreamRecord], dict[str, Any]]] = {
    "alarm": _alarm_row,
    "clock": _clock_row,
    "baseline": _baseline_row,
    "feature": _feature_row,
    "burst": _burst_row,
    "sample": _sample_row,
}
