"""Sparkplug B 3.0: topics, and the few messages and names that host and edge node share. Pure.

Source: Eclipse Sparkplug 3.0.0, chapter 4 (topics) and 5 (commands); the ids (tck-id-...) are the specification's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from firmware_bridge.errors import FrameError
from firmware_bridge.sparkplug.wire import DataType, Metric, Payload, encode

NAMESPACE = "spBv1.0"
BD_SEQ = "bdSeq"  # which CONNECT a birth and a death belong to
NODE_CONTROL = "Node Control/"
REBIRTH = "Node Control/Rebirth"
ID = re.compile(r"[^+/#\x00]{1,128}")  # tck-id-topic-structure-namespace-valid-group-id; the length is ours
SEQ_MODULUS = 256


class Kind(StrEnum):
    """The message types of an edge node, as they stand in its topics."""

    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    NDATA = "NDATA"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    DDATA = "DDATA"
    DCMD = "DCMD"
    STATE = "STATE"


OF_DEVICES = frozenset({Kind.DBIRTH, Kind.DDEATH, Kind.DDATA, Kind.DCMD})
COMMANDS = frozenset({Kind.NCMD, Kind.DCMD, Kind.STATE})


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic says. `device` is "" in messages of the node itself; of a STATE only `node`, the host's id, is set."""

    group: str
    kind: Kind
    node: str
    device: str = ""


def topic_of(group: str, kind: Kind, node: str, device: str = "") -> str:
    """Where an edge node's message belongs: spBv1.0/{group}/{kind}/{node}[/{device}] (tck-id-topic-structure).

    Raises: ValueError: a name that is empty, too long or holds + / #, or a device where there must be none (or none where
        there must be one: tck-id-topic-structure-namespace-device-id-associated-message-types).
    """
    if bool(device) != (kind in OF_DEVICES):
        raise ValueError(f"{kind} {'needs a' if kind in OF_DEVICES else 'has no'} device")
    parts = [check_id(part) for part in (group, node, *([device] if device else []))]
    return "/".join([NAMESPACE, parts[0], kind, *parts[1:]])


def topic_state(host: str) -> str:
    """Where a host application says whether it is there: spBv1.0/STATE/{host} (tck-id-host-topic-phid-birth-topic)."""
    return f"{NAMESPACE}/{Kind.STATE}/{check_id(host)}"


def check_id(name: str) -> str:
    """`name` as one level of a topic. Raises: ValueError: empty, longer than 128, or with + / # in it."""
    if not ID.fullmatch(name):
        raise ValueError(f"{name!r} cannot stand in a Sparkplug topic; use 1 to 128 characters without + / #")
    return name


def parse_topic(topic: str) -> Topic:
    """The inverse of both builders.

    Raises: FrameError: not a Sparkplug B topic.
    """
    match topic.split("/"):
        case [space, Kind.STATE, host]:
            found = Topic("", Kind.STATE, host)
        case [space, group, kind, node] if kind in Kind.__members__ and kind not in OF_DEVICES:
            found = Topic(group, Kind(kind), node)
        case [space, group, kind, node, device] if kind in OF_DEVICES:
            found = Topic(group, Kind(kind), node, device)
        case _:
            raise FrameError(f"topic {topic[:120]!r} is not Sparkplug's; it is {NAMESPACE}/group/kind/node[/device]")
    if space != NAMESPACE or not all(ID.fullmatch(part) for part in topic.split("/")):
        raise FrameError(f"topic {topic[:120]!r} is not Sparkplug's; it is {NAMESPACE}/group/kind/node[/device]")
    return found


def rebirth_command(group: str, node: str, utc_ns: int) -> tuple[str, bytes]:
    """Topic and payload that ask an edge node for all its births (tck-id-operational-behavior-data-commands-ncmd-rebirth-*).

    No sequence number (tck-id-payloads-ncmd-seq); publish with QoS 0, not retained (tck-id-topics-ncmd-mqtt).
    """
    utc_ms = utc_ns // 1_000_000
    metric = Metric(name=REBIRTH, timestamp_ms=utc_ms, datatype=DataType.BOOLEAN, value=True)
    return topic_of(group, Kind.NCMD, node), encode(Payload(timestamp_ms=utc_ms, metrics=[metric]))


def bd_seq_of(payload: Payload) -> int | None:
    """The session that a birth or death of a node belongs to, or None where it does not say."""
    found = [metric.value for metric in payload.metrics if metric.name == BD_SEQ]
    return found[0] if found and type(found[0]) is int else None
