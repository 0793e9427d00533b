"""The process that `hark run` goes on as: the agent, without what only its start needs.

An agent lives for months and would carry along what read its command line (typer, which brings pydantic: 10 MiB) and, from its
very first start, what made its tables (sqlite-utils: 4 MiB). So the process starts itself again: the same command line,
process id and open streams (`execve`), its orders as they were understood in the environment. Neither is imported then.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from agent.app import App

VARIABLE = "HARK_RUN_ORDERS"


@dataclass(frozen=True, slots=True)
class Orders:
    """What `hark run` was told, checked. `seconds`: stop by itself after this time; None for never."""

    site_file: str
    root: str
    json: bool
    seconds: float | None


def start_again(orders: Orders) -> NoReturn:
    """This very command once more, and in its environment what to do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, {**os.environ, VARIABLE: json.dumps(asdict(orders))})


def orders_given() -> Orders | None:
    """What this process was started again for; None where it was not. Taken out of the environment: it is for nobody else."""
    written = os.environ.pop(VARIABLE, None)
    return None if written is None else Orders(**json.loads(written))


def resident(orders: Orders) -> int:
    """Watch in a process of its own. Gives the exit code.

    Raises: HarkError.
    """
    app = opened(orders)
    if app.made_tables:
        app.close_unstarted()
        start_again(orders)
    return watch(app, orders)


def opened(orders: Orders) -> App:
    """The agent with everything checked and nothing started.

    Raises: HarkError.
    """
    from agent.app import App
    from agent.config import load_site

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return App(load_site(Path(orders.site_file), Path(orders.root)))


def watch(app: App, orders: Orders) -> int:
    """Watch until told to stop, and say what was done. Gives the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: app.request_stop())
    app.start()
    app.wait(orders.seconds)
    ledger = app.stop()
    print(json.dumps(ledger) if orders.json else _ledger_lines(ledger), flush=True)
    return 1 if app.failure else 0


def _ledger_lines(ledger: Mapping[str, Any]) -> str:
    records, latency = ledger["records"], ledger["latency_ms"]
    waiting = ledger["outbox"]["pending"] + ledger["outbox"]["published"]
    health = ledger["health"]
    of = f" ({health['of']})" if "of" in health else ""
    lines = [
        f"records produced {records['produced']}, stored {records['stored']}, waiting {waiting}",
        f"sensor to committed alarm: p50 {latency['p50']} ms, p99 {latency['p99']} ms, budget {latency['budget']:.0f} ms",
        f"memory {ledger['rss_mib']} MiB",
        f"health {health['state']}{of}" + (f", for {health['since_s']:.0f} s" if "since_s" in health else ""),
    ]
    lines += [f"dropped: {name} {count}" for name, count in sorted(ledger["drops"].items())]
    return "\n".join(lines)
