"""Orders from a person at the gateway to the running agent: one small file each in the data folder, taken once a second.

The buffer has one writer and control shares no queue with data, so an order is a file of its own: written beside, then renamed,
so that it is there whole or not at all. An agent that does not run takes it at its next start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from firmware_bridge.errors import HarkError

log = logging.getLogger(__name__)

FOLDER = "orders"
MAX_ORDERS = 100  # waiting; more is not a person
MAX_BYTES = 4096


class Relearn(msgspec.Struct, frozen=True, tag="relearn", forbid_unknown_fields=True):
    """Learn a machine's normal anew."""

    machine: Annotated[str, Meta(min_length=1, max_length=64)]
    reason: Annotated[str, Meta(min_length=3, max_length=128)]
    although_sick: bool = False


class OrderRefused(HarkError):
    """It cannot be given; the message says why and what to do."""


def give(data_dir: Path, order: Relearn) -> None:
    """Leave an order for the agent of this data folder. Raises: OrderRefused."""
    folder = data_dir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if len(list(folder.iterdir())) >= MAX_ORDERS:
            raise OrderRefused(f"{folder}: {MAX_ORDERS} orders wait already; start the agent, or empty this folder")
        path = folder / f"{time.time_ns()}.json"
        beside = path.with_suffix(".part")
        beside.write_bytes(msgspec.json.encode(order))
        beside.replace(path)
    except OSError as error:
        raise OrderRefused(
            f"{folder}: cannot be written ({error.strerror}); give the order as the user whom the agent runs as"
        ) from None


def taken(data_dir: Path) -> Iterator[Relearn]:
    """The orders that wait, oldest first; each is gone once it was given out. One that cannot be read is said and put aside."""
    folder = data_dir / FOLDER
    try:
        paths = sorted(folder.glob("*.json"))[:MAX_ORDERS]
    except OSError:
        return
    for path in paths:
        try:
            content = path.read_bytes()[: MAX_BYTES + 1]
            order = msgspec.json.decode(content, type=Relearn)
        except (OSError, msgspec.DecodeError) as error:
            log.error("order not understood, removed: file=%s cause=%s", path, error)
            path.unlink(missing_ok=True)
            continue
        path.unlink(missing_ok=True)
        yield order
