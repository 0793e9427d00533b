"""docs/quality.md: what `hark evaluate` measured last, beside what was aimed at; written by `hark evaluate PROTOCOL --docs`.

The figures of each protocol are kept in docs/quality/<protocol>.json, so that the page can be written anew from all of them
when one was measured again. Nothing in it is typed by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER, PAGE, TEXTS_PAGE = "docs/quality", "docs/quality.md", "docs/alarm_texts.md"
N_TEXTS = 20


@dataclass(frozen=True, slots=True)
class Aim:
    """A bar: a figure of a protocol that is to be at least, at most, or between."""

    key: str
    words: str
    least: float = -math.inf
    most: float = math.inf
    unit: str = ""

    def holds(self, value: float | None) -> bool:
        return value is not None and self.least <= value <= self.most

    def __str__(self) -> str:
        if math.isinf(self.most):
            return f">= {self.least:g} {self.unit}".rstrip()
        if math.isinf(self.least):
            return f"<= {self.most:g} {self.unit}".rstrip()
        return f"{self.least:g} to {self.most:g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Protocol:
    """One evaluation as the page tells it."""

    title: str
    what: str
    aims: tuple[Aim, ...]


PROTOCOLS: Mapping[str, Protocol] = {
    "skab": Protocol(
        "SKAB: a closed water loop, scalars at 1 Hz",
        "Every run on its own: learn on its first 400 rows, judge every later row causally. Published best without tuning to runs: "
        "F1 0.76 at 12.8 % (Conv-AE), NAB 27 (MSCRED).",
        (
            Aim("f1", "F1 of all scored rows", least=0.84),
            Aim("far_pct", "false alarms of normal rows", most=12, unit="%"),
            Aim("nab_standard", "change points, NAB standard profile", least=32),
            Aim("runs_missed", "runs without a right alarm", most=0),
            Aim("median_delay_s", "median delay", most=40, unit="s"),
            Aim("false_episodes_per_h", "false episodes per normal hour", most=3),
        ),
    ),
    "motor_pump": Protocol(
        "motor_pump: 45 kW motors with pumps, three axes at 1 kHz",
        "Healthy windows only are learned from, the threshold too; each healthy recording of the machine is left out in turn. "
        "Then an unseen machine is put in its place.",
        (
            Aim("detection_pct", "faulty windows above the threshold", least=95, unit="%"),
            Aim("far_pct", "left-out healthy windows above it", most=1, unit="%"),
            Aim("unseen_fault_alarms", "fault alarms of an unseen machine", most=0),
            Aim("new_baseline_after_s", 'until "new baseline needed" is said', most=60, unit="s"),
            Aim("relearned_far_pct", "its windows above the threshold after 30 s of learning", most=2, unit="%"),
        ),
    ),
    "femto": Protocol(
        "FEMTO: bearings run to failure under overload",
        "Useful: the first alarm held for a minute comes after half of life and two minutes before its end.",
        (
            Aim("useful_pct", "useful alarms of all bearings", least=80, unit="%"),
            Aim("missed", "bearings missed", most=0),
            Aim("healthy_alarm_share", "snapshots of the first half in alarm", most=0.005),
            Aim("median_lead_min", "median lead of the useful ones", least=10, unit="min"),
            Aim("interval_coverage", "time to the end within the 80 % interval", least=0.70, most=0.90),
        ),
    ),
    "bearings-cwru": Protocol(
        "CWRU: naming the damaged part of a bearing",
        "One call for each recording, nothing learned.",
        (
            Aim("right_pct", "named right", least=85, unit="%"),
            Aim("wrong_pct", "named wrong", most=8, unit="%"),
            Aim("unsure_pct", "unsure", most=12, unit="%"),
        ),
    ),
    "bearings-mfpt": Protocol(
        "MFPT: inner or outer race",
        "One call for each recording, nothing learned.",
        (Aim("right_pct", "named right", least=100, unit="%"),),
    ),
    "nab": Protocol(
        "NAB machine temperature",
        "One temperature every five minutes, four windows, at the agent's own threshold; 0 is saying nothing, 100 perfect.",
        (Aim("standard", "NAB standard profile", least=70),),
    ),
    "simulator": Protocol(
        "Simulator: twelve varied motors with pumps, months of their lives",
        "Every parameter within 30 %, seeds not used in training; starts, set points, days, seasons, sensor noise. No evidence for "
        "real machines: it shows that budget, states, sensors and causes hang together.",
        (
            Aim("machine_months", "healthy machine-months judged", least=17),
            Aim("false_alarms_per_machine_month", "false alarms per machine-month", most=0.5),
            Aim("upper95", "its 95 % Poisson limit", most=1.0),
            Aim("event_recall_pct", "fault runs found", least=95, unit="%"),
            Aim("top1_pct", "true cause ranked first", least=80, unit="%"),
            Aim("top2_pct", "true cause among the first two", least=92, unit="%"),
            Aim("sensor_named_pct", "sensor faults told as such", least=95, unit="%"),
            Aim("sensor_machine_alarms", "machine alarms from sensor faults", most=0),
            Aim("slow_ramp_found_after_days", "unbalance that grows for 60 days, found after", most=30, unit="d"),
            Aim(
                "slow_ramp_found_by_rolling_54h", "the same found by a baseline that forgets in 54 h (1 is yes)", most=0
            ),
        ),
    ),
}


def name_of(protocol: str, folder: Path | None) -> str:
    """Under which a protocol's figures are kept: with the set's own name where it is for several."""
    return f"{protocol}-{folder.resolve().name}" if protocol == "bearings" and folder is not None else protocol


def keep(name: str, figures: Mapping[str, Any], root: Path) -> None:
    """Keep a protocol's figures and write the page anew. Texts of alarms among them go onto a page of their own."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in figures.items() if isinstance(value, int | float | None)}
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", "utf-8")
    (root / PAGE).write_text(page(folder), "utf-8")
    if texts := figures.get("texts"):
        (root / TEXTS_PAGE).write_text(texts_page(texts), "utf-8")


def page(folder: Path) -> str:
    """The page, from what is kept in `folder`."""
    lines = [
        "# How good it is",
        "",
        "What `hark evaluate PROTOCOL DIR` measured last, beside what is aimed at. One fixed causal configuration for each kind of",
        "data, nothing set for a single recording; the whole path of the agent, and no detector beside it. The recordings are",
        "public and not part of this repository. Where an aim is missed it says so.",
        "",
    ]
    for name, protocol in PROTOCOLS.items():
        path = folder / f"{name}.json"
        if path.is_file():
            lines += _section(name, protocol, json.loads(path.read_text("utf-8")))
    return "\n".join(lines)


def _section(name: str, protocol: Protocol, figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {protocol.title}"
    yield protocol.what
    yield ""
    yield f"`hark evaluate {name.partition('-')[0]}{'' if name == 'simulator' else ' DIR'}`"
    yield ""
    yield "| figure | measured | aim | |"
    yield "|---|---|---|---|"
    for aim in protocol.aims:
        value = figures.get(aim.key)
        shown = "none" if value is None else f"{value:g} {aim.unit}".rstrip()
        yield f"| {aim.words} | {shown} | {aim} | {'' if aim.holds(value) else '**missed**'} |"
    aims = {aim.key for aim in protocol.aims}
    others = [f"{key} {value:g}" for key, value in sorted(figures.items()) if key not in aims and value is not None]
    yield ""
    if others:
        yield f"Besides: {', '.join(others)}."
        yield ""


def texts_page(texts: Mapping[str, str]) -> str:
    """Texts as they reach a phone, each under what was really the matter."""
    chosen = list(texts.items())[:N_TEXTS]
    lines = [
        "# What an alarm reads like",
        "",
        "Alarms of `hark evaluate simulator`, one of each fault: what was the matter, and what the technician was told.",
        "",
    ]
    for truth, text in chosen:
        lines += [f"**{truth}**", "", f"> {text}", ""]
    return "\n".join(lines)
