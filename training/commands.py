"""The data team's verbs: train, evaluate, data collect and check, model verify; each imports what it needs itself."""

from __future__ import annotations

import json as jsonlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from firmware_bridge.errors import HarkError
from firmware_bridge.roots import find_root

Root = Annotated[Path | None, typer.Option(help="folder that holds config/ and models/")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object instead of text")]

SIMULATED = ("motor", "pump")

data = typer.Typer(help="the dataset: collect it from the upstream broker, check it", add_completion=False)
model = typer.Typer(help="model bundles: verify one", add_completion=False)


class MqttVersion(StrEnum):
    """Of the broker's protocol."""

    V5 = "5"
    V311 = "3.1.1"


class UsageError(HarkError):
    """The command was called in a way that means nothing."""

    exit_code = 2


def train(
    dataset: Annotated[Path | None, typer.Argument(help="folder that `hark data collect` filled")] = None,
    generic: Annotated[
        str | None,
        typer.Option(help="a machine type: motor and pump are trained on simulated machines, others on nothing"),
    ] = None,
    machine_type: Annotated[str | None, typer.Option(help="which machines of the dataset")] = None,
    out: Annotated[Path | None, typer.Option(help="the bundle's folder")] = None,
    family: Annotated[list[str] | None, typer.Option(help="try this family only; may be repeated")] = None,
    budget_s: Annotated[
        float, typer.Option(min=0, help="seconds; no candidate is begun later. Not for --generic")
    ] = 120.0,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="processes")] = 1,
    report: Annotated[
        Path | None, typer.Option(help="HTML page; OUT.report.html by default, none for --generic")
    ] = None,
    false_alarms: Annotated[
        float, typer.Option(min=0.001, help="per machine and month: thresholds are set for it")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="of everything random")] = 1,
    root: Root = None,
    json: AsJson = False,
) -> int:
    """Train a model bundle from a collected dataset, or a generic one from simulated machines; the best candidate ships."""
    if (dataset is None) == (generic is None):
        raise UsageError("name a dataset folder, or --generic motor, and not both")
    if dataset is not None and machine_type is None:
        raise UsageError("which machines? add --machine-type motor")
    if out is None:
        raise UsageError("where to? add --out DIR")
    if generic is not None and generic not in SIMULATED:
        if family:
            raise UsageError(f"--generic {generic}: its model is not fitted; leave --family out")
        return _make_untrained(find_root(root), generic, out, false_alarms, seed, json)
    from training.card import board_document, board_lines
    from training.report import write_report
    from training.search import Effort
    from training.train import Recipe, train_generic, train_site

    recipe = Recipe(families=tuple(family or ()), false_alarms_per_machine_month=false_alarms, seed=seed)
    ends_s = time.monotonic() + budget_s
    with _progress() as progress:
        effort = Effort(out_of_time=lambda: time.monotonic() > ends_s, progress=progress, n_jobs=jobs)
        if generic is not None:
            trained = train_generic(find_root(root), "motor" if generic == "motor" else "pump", out, recipe, effort)
        else:
            assert dataset is not None
            assert machine_type is not None
            trained = train_site(find_root(root), dataset, machine_type, out, recipe, effort)
            report = report or out.parent / f"{out.name}.report.html"
    if report is not None:
        write_report(report, trained)
    manifest = trained.manifest
    total_bytes = sum(item.stat().st_size for item in out.iterdir())
    _say(
        json,
        {
            "bundle": str(out),
            "bytes": total_bytes,
            "columns": len(manifest.columns),
            "tensors_sha256": manifest.tensors_sha256,
            "baselines": sum(map(len, manifest.baselines.values())),
            "family": manifest.provenance.family,
            "chosen": trained.board.reason,
            "leaderboard": board_document(trained.board),
            "held_back": list(trained.board.folds),
            "metrics": {metric.name: metric.value for metric in manifest.metrics},
            "report": None if report is None else str(report),
        },
        [
            *board_lines(trained.board),
            "",
            f"{out}: {manifest.name} {manifest.version}, {len(manifest.columns)} columns, {total_bytes / 1000:.1f} kB",
            *([] if report is None else [f"{report}: leaderboard, curves and what became of the data"]),
        ],
    )
    return 0


def _make_untrained(root: Path, machine_type: str, out: Path, false_alarms: float, seed: int, json: bool) -> int:
    from training.train import Recipe
    from training.untrained import make_untrained

    recipe = Recipe(false_alarms_per_machine_month=false_alarms, seed=seed)
    manifest = make_untrained(root, machine_type, out, recipe)
    total_bytes = sum(item.stat().st_size for item in out.iterdir())
    told = {
        "bundle": str(out),
        "bytes": total_bytes,
        "columns": len(manifest.columns),
        "tensors_sha256": manifest.tensors_sha256,
        "family": manifest.provenance.family,
        "settings": manifest.provenance.settings,
    }
    size = f"{len(manifest.columns)} columns, {total_bytes / 1000:.1f} kB"
    _say(json, told, [f"{out}: {manifest.name} {manifest.version}, {size}; nothing was fitted"])
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error, on a terminal only: what is done now, and how much of it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:32}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def evaluate(
    protocol: Annotated[str, typer.Argument(help="skab, for example; an unknown one is answered with all")],
    folder: Annotated[
        Path | None, typer.Argument(help="the recordings, in that protocol's layout; the simulator needs none")
    ] = None,
    engine: Annotated[str, typer.Option(help="onnx or tflite")] = "onnx",
    docs: Annotated[bool, typer.Option("--docs", help="keep the figures and rewrite docs/quality.md")] = False,
    root: Root = None,
    json: AsJson = False,
) -> int:
    """Judge the whole path on labelled recordings of real machines, or on months of simulated ones."""
    from firmware_bridge.registry import module_named
    from training import protocols, quality

    try:
        module = module_named(protocols, protocol)
    except LookupError as error:
        raise UsageError(str(error.args[0])) from None
    if folder is None and protocol != "simulator":
        raise UsageError(f"where are the recordings? hark evaluate {protocol} DIR")
    at = find_root(root)
    figures: dict[str, Any] = module.evaluate(folder, at, engine)
    if docs:
        quality.keep(quality.name_of(protocol, folder), figures, at)
    _say(json, figures, [f"{name}: {value}" for name, value in figures.items()])
    return 0


@data.command()
def collect(
    out: Annotated[Path, typer.Argument(help="the dataset's folder")],
    host: Annotated[str, typer.Option(help="upstream broker")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 1883,
    site: Annotated[str, typer.Option(help="one site, or + for all")] = "+",
    username: Annotated[str | None, typer.Option()] = None,
    password_file: Annotated[Path | None, typer.Option(help="file whose first line is the password")] = None,
    ca_file: Annotated[str | None, typer.Option(help="certificate authority, turns TLS on")] = None,
    mqtt: Annotated[MqttVersion, typer.Option(help="3.1.1 for a broker that knows no MQTT 5")] = MqttVersion.V5,
    client_id: Annotated[str | None, typer.Option(help="the session's name; by default from --out and --site")] = None,
    flush_interval_s: Annotated[float, typer.Option(min=0.05)] = 1.0,
    flush_records: Annotated[int, typer.Option(min=1, max=10_000)] = 500,
    json: AsJson = False,
) -> int:
    """Write what gateways send up into a Delta dataset, every key once, until stopped (Ctrl-C or SIGTERM)."""
    from training.collect import Address, as_json, default_client_id
    from training.collect import collect as run

    address = Address(
        host=host,
        port=port,
        username=username,
        password=_first_line(password_file),
        ca_file=ca_file,
        client_id=client_id or default_client_id(out, site),
        version=mqtt.value,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ledger = as_json(run(address, out, site, stop, flush_interval_s=flush_interval_s, flush_records=flush_records))
    _say(json, ledger, [" ".join(f"{name} {count}" for name, count in ledger.items())])
    return 0


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(help="the dataset's folder")],
    json: AsJson = False,
) -> int:
    """Count keys, gaps and duplicates of every gateway and stream; exit code 1 when there are any."""
    from training.check import check_dataset

    found = check_dataset(folder)
    lines = [
        f"{one['site']}/{one['gateway']}/{one['stream']}: {one['records']} records, {one['missing']} missing, "
        f"{one['duplicates']} doubled"
        for one in found["sources"]
    ]
    total = f"records {found['records']}, missing {found['missing']}, doubled {found['duplicates']}"
    _say(json, found, [*lines, total])
    return 1 if found["missing"] or found["duplicates"] else 0


@model.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="the bundle's folder")],
    engine: Annotated[str, typer.Option(help="onnx or tflite")] = "onnx",
    root: Root = None,
    json: AsJson = False,
) -> int:
    """Run the check at the door on a bundle: hashes, feature digest, golden windows on this engine and CPU."""
    from agent.features import feature_set_of
    from agent.inference.bundle import open_bundle, read_manifest
    from agent.inference.golden import golden_features, manifest_columns
    from agent.machine import load_machine_profile

    manifest = read_manifest(folder)
    profile = load_machine_profile(find_root(root) / "config", manifest.machine_type)
    features = feature_set_of(profile)
    columns = manifest_columns(features, [column.scale_floor for column in profile.columns])
    opened = open_bundle(folder, features.digest, engine, golden_features(features), columns)
    _say(
        json,
        {
            "bundle": opened.label,
            "engine": opened.runtime.engine,
            "golden_windows": len(opened.golden.windows),
            "golden_vectors": len(opened.golden.score),
            "ok": True,
        },
        [f"{folder}: {opened.label} is whole and right on {opened.runtime.engine}"],
    )
    return 0


@model.callback()
def _model() -> None:
    """Keeps `verify` a sub-command although it is the only one."""


def _first_line(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8").splitlines()[0]
    except (OSError, IndexError):
        raise UsageError(f"--password-file {path}: cannot be read, or is empty") from None


def _say(as_json: bool, found: dict[str, Any], lines: list[str]) -> None:
    print(jsonlib.dumps(found) if as_json else "\n".join(lines))
    sys.stdout.flush()
