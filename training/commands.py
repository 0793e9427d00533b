"""The data team's verbs: train, evaluate, data collect and check, model verify; each imports what it needs itself."""

from __future__ import annotations

import json as jsonlib
import signal
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from firmware_bridge.errors import HarkError
from firmware_bridge.roots import find_root

Root = Annotated[Path | None, typer.Option(help="folder that holds config/ and models/")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object instead of text")]

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
    generic: Annotated[str | None, typer.Option(help="motor or pump: train on simulated machines instead")] = None,
    machine_type: Annotated[str | None, typer.Option(help="which machines of the dataset")] = None,
    out: Annotated[Path | None, typer.Option(help="the bundle's folder")] = None,
    false_alarms: Annotated[float, typer.Option(min=0.001, help="per machine and month, for the card's figures")] = 0.5,
    seed: Annotated[int, typer.Option(help="of everything random")] = 1,
    root: Root = None,
    json: AsJson = False,
) -> int:
    """Train a model bundle from a collected dataset, or a generic one from simulated machines."""
    if (dataset is None) == (generic is None):
        raise UsageError("name a dataset folder, or --generic motor, and not both")
    if dataset is not None and machine_type is None:
        raise UsageError("which machines? add --machine-type motor")
    if out is None:
        raise UsageError("where to? add --out DIR")
    if generic is not None and generic not in ("motor", "pump"):
        raise UsageError(f"--generic {generic}: the simulator has motor and pump")
    from training.train import Recipe, train_generic, train_site

    recipe = Recipe(false_alarms_per_machine_month=false_alarms, seed=seed)
    if generic is not None:
        manifest = train_generic(find_root(root), "motor" if generic == "motor" else "pump", out, recipe)
    else:
        assert dataset is not None
        assert machine_type is not None
        manifest = train_site(find_root(root), dataset, machine_type, out, recipe)
    total_bytes = sum(item.stat().st_size for item in out.iterdir())
    figures = {metric.name: metric.value for metric in manifest.metrics}
    _say(
        json,
        {
            "bundle": str(out),
            "bytes": total_bytes,
            "columns": len(manifest.columns),
            "tensors_sha256": manifest.tensors_sha256,
            "baselines": sum(map(len, manifest.baselines.values())),
            "metrics": figures,
        },
        [
            f"{out}: {manifest.name} {manifest.version}, {len(manifest.columns)} columns, {total_bytes / 1000:.1f} kB",
            *(f"  {name}: {value:g}" for name, value in figures.items()),
        ],
    )
    return 0


def evaluate(
    protocol: Annotated[str, typer.Argument(help="bearings, motor_pump or skab")],
    folder: Annotated[Path, typer.Argument(help="the recordings, in that protocol's layout")],
    engine: Annotated[str, typer.Option(help="onnx or tflite")] = "onnx",
    root: Root = None,
    json: AsJson = False,
) -> int:
    """Judge the whole path on labelled recordings of real machines."""
    from firmware_bridge.registry import module_named
    from training import protocols

    try:
        module = module_named(protocols, protocol)
    except LookupError as error:
        raise UsageError(str(error.args[0])) from None
    figures: dict[str, Any] = module.evaluate(folder, find_root(root), engine)
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
