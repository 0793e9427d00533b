"""The gateway's verbs: run, check, replay. Each imports what it needs when it is called: `run` hands over to another process."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.live import Orders, opened, start_again, watch
from firmware_bridge.roots import find_root

if TYPE_CHECKING:
    from agent.pipeline import Pipeline
    from agent.vocabulary import AlarmEvent

Root = Annotated[Path | None, typer.Option(help="the folder that holds config/ and models/")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
SiteFile = Annotated[Path, typer.Argument(help="the site's TOML file")]


def run(
    context: typer.Context,
    site_file: SiteFile,
    json_: Json = False,
    root: Root = None,
    seconds: Annotated[float | None, typer.Option(help="stop by itself after this time")] = None,
) -> int:
    """Watch the machines of a site until told to stop (Ctrl-C or SIGTERM)."""
    orders = Orders(str(site_file), str(find_root(root)), json_, seconds)
    if context.obj:  # this process is ours
        start_again(orders)
    return watch(opened(orders), orders)


def check(
    site_file: SiteFile,
    json_: Json = False,
    root: Root = None,
    offline: Annotated[bool, typer.Option("--offline", help="the files only; ask no sensor and no broker")] = False,
) -> int:
    """Look at a site file, its models, sensors and brokers: every problem at once, with line and remedy."""
    from agent.check import check_site
    from agent.config import load_site

    site = load_site(site_file, find_root(root))
    findings = check_site(site, offline=offline)
    ok = all(finding.ok for finding in findings)
    if json_:
        print(json.dumps({"ok": ok, "findings": [finding.as_dict() for finding in findings]}))
    else:
        print("\n".join(str(finding) for finding in findings))
    return 0 if ok else max(finding.exit_code for finding in findings if not finding.ok)


def relearn(
    site_file: SiteFile,
    machine: Annotated[str, typer.Argument(help="its tag in the site file")],
    because: Annotated[str, typer.Option(help="what was done: sensor moved, bearing changed, other machine ...")],
    although_sick: Annotated[
        bool, typer.Option("--although-sick", help="learn it even if its vibration or a bearing looks bad already")
    ] = False,
    json_: Json = False,
    root: Root = None,
) -> int:
    """Have the agent learn a machine's normal anew, after a repair or when a sensor was moved."""
    from agent.config import load_site
    from agent.orders import OrderRefused, Relearn, give

    site = load_site(site_file, find_root(root))
    tags = [one.tag for one in site.machines]
    if machine not in tags:
        raise OrderRefused(f"{machine}: the site file has no such machine; it has {', '.join(tags)}")
    if not 3 <= len(because) <= 128:
        raise OrderRefused("--because: write what was done, in 3 to 128 characters")
    give(site.data_dir, Relearn(machine, because, although_sick))
    if json_:
        print(json.dumps({"machine": machine, "ordered": True}))
    else:
        print(
            f"{machine}: will be learned anew from its next {site.machines[tags.index(machine)].spec.learn_windows} windows"
        )
    return 0


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
    from agent.app import open_bundles, run_offline
    from agent.clock import SystemClock
    from agent.pipeline import Pipeline
    from agent.recording import site_for_recording
    from agent.store import Store
    from firmware_bridge.source import open_source

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
