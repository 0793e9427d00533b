"""The gateway's verbs: run, check, replay."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.app import App, open_bundles, run_offline
from agent.check import check_site
from agent.clock import SystemClock
from agent.config import load_site
from agent.pipeline import Pipeline
from agent.recording import site_for_recording
from agent.store import Store
from agent.vocabulary import AlarmEvent
from firmware_bridge.roots import find_root
from firmware_bridge.source import open_source

Root = Annotated[Path | None, typer.Option(help="the folder that holds config/ and models/")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
SiteFile = Annotated[Path, typer.Argument(help="the site's TOML file")]


def run(
    site_file: SiteFile,
    json_: Json = False,
    root: Root = None,
    seconds: Annotated[float | None, typer.Option(help="stop by itself after this time")] = None,
) -> int:
    """Watch the machines of a site until told to stop (Ctrl-C or SIGTERM)."""
    _log_to_stderr()
    app = App(load_site(site_file, find_root(root)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: app.request_stop())
    app.start()
    app.wait(seconds)
    ledger = app.stop()
    print(json.dumps(ledger) if json_ else _ledger_lines(ledger), flush=True)
    return 1 if app.failure else 0


def check(
    site_file: SiteFile,
    json_: Json = False,
    root: Root = None,
    offline: Annotated[bool, typer.Option("--offline", help="the files only; ask no sensor and no broker")] = False,
) -> int:
    """Look at a site file, its models, sensors and brokers: every problem at once, with line and remedy."""
    site = load_site(site_file, find_root(root))
    findings = check_site(site, offline=offline)
    ok = all(finding.ok for finding in findings)
    if json_:
        print(json.dumps({"ok": ok, "findings": [finding.as_dict() for finding in findings]}))
    else:
        print("\n".join(str(finding) for finding in findings))
    return 0 if ok else max(finding.exit_code for finding in findings if not finding.ok)


def replay(
    recording: Annotated[Path, typer.Argument(help="a recording, such as a CSV file")],
    as_: Annotated[
        str | None,
        typer.Option("--recording", help="its mapping in config/recordings; found by its columns when left out"),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="onnx or tflite")] = None,
    buffer: Annotated[Path | None, typer.Option(help="keep the buffer of the replay in this file")] = None,
    json_: Json = False,
    root: Root = None,
) -> int:
    """Play a recording through the very same path and print its alarms, explained."""
    site = site_for_recording(recording, find_root(root), as_, engine)
    with ExitStack() as stack:
        store = None
        if buffer is not None:
            store = Store.open(
                buffer, gateway=site.config.site.gateway, channels=[channel.name for channel in site.channels]
            )
            stack.callback(store.close)
        pipeline = Pipeline(site, open_bundles(site), started_monotonic_ns=0)
        source = open_source(site.config.sources[0], site.context(0, SystemClock()))
        stack.callback(source.close)
        events: list[AlarmEvent] = []
        try:
            for outcome in run_offline(pipeline, _until_end(source), store):
                events.extend(outcome.events)
        finally:  # a recording that breaks off has been heard up to there
            if json_:
                print(json.dumps(_replay_summary(recording, events, pipeline)), flush=True)
            else:
                _print_replay(recording, events, pipeline)
    return 0


def _until_end(source: Any) -> Any:
    """A finite source's measurements."""
    while not source.finished:
        yield from source.read(timeout_s=1.0)


def _replay_summary(recording: Path, events: list[AlarmEvent], pipeline: Pipeline) -> dict[str, Any]:
    return {
        "recording": recording.name,
        "blocks": pipeline.counters["blocks"],
        "windows": pipeline.counters["windows"],
        "drops": {name: n for name, n in pipeline.drops().items() if n and name not in ("blocks", "windows")},
        "alarms": [
            {
                "id": event.alarm_id, "code": event.code, "machine": event.machine, "condition": event.condition,
                "trigger": event.trigger, "state": event.state, "onset_utc_ns": event.onset_utc_ns, "utc_ns": event.utc_ns,
                "text": event.text,
            }
            for event in events
        ],
    }  # fmt: skip


def _print_replay(recording: Path, events: list[AlarmEvent], pipeline: Pipeline) -> None:
    counted = Counter(event.trigger for event in events)
    print(f"{recording}: {pipeline.counters['blocks']} rows, {counted['raise']} alarms raised")
    for event in events:
        print(f"\n{event.text}")
        for evidence in event.explanation.evidence if event.trigger == "raise" else ():
            normal = "" if evidence.normal is None else f", normal {evidence.normal:.3g}"
            print(
                f"    {evidence.words}: {evidence.value:.3g} {evidence.unit}{normal}, {evidence.share:.0%} of what is abnormal"
            )


def _ledger_lines(ledger: dict[str, Any]) -> str:
    records, latency = ledger["records"], ledger["latency_ms"]
    waiting = ledger["outbox"]["pending"] + ledger["outbox"]["published"]
    lines = [
        f"records produced {records['produced']}, stored {records['stored']}, waiting {waiting}",
        f"sensor to committed alarm: p50 {latency['p50']} ms, p99 {latency['p99']} ms, budget {latency['budget']:.0f} ms",
        f"memory {ledger['rss_mib']} MiB",
    ]
    lines += [f"dropped: {name} {count}" for name, count in sorted(ledger["drops"].items())]
    return "\n".join(lines)


def _log_to_stderr() -> None:
    """journald adds the time; one line an event."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
