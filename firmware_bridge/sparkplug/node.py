"""Sparkplug B 3.0, the publisher's side: SparkplugNode says which messages an edge node sends, and in which order.

Pure: no I/O, time passed in; every call answers with the messages to publish now, in their order. The node is the gateway, a
device is a machine. Values are told by exception: births carry all of them with names and aliases, data what changed, by
alias. What changes while nobody can hear is kept, bounded, and told as historical after the next birth.
Source: Eclipse Sparkplug 3.0.0, chapters 4 to 6; the ids beside the rules (tck-id-...) are the specification's own.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from firmware_bridge.errors import FrameError
from firmware_bridge.sparkplug.topics import (
    BD_SEQ,
    REBIRTH,
    SEQ_MODULUS,
    Kind,
    check_id,
    parse_topic,
    topic_of,
    topic_state,
)
from firmware_bridge.sparkplug.wire import DataType, Metric, Payload, decode, encode

MAX_STATE_BYTES = 1024
MAX_METRICS_PER_MESSAGE = 500
DATATYPES = {bool: DataType.BOOLEAN, int: DataType.INT64, float: DataType.DOUBLE, str: DataType.STRING}
COUNTERS = ("births", "deaths", "data", "historical", "rebirths", "backlog_dropped", "metrics_refused", "ignored")

Scalar = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish. Only a death has QoS 1; nothing is ever retained (tck-id-topics-nbirth-mqtt and its like)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(slots=True)
class _Point:
    """One metric: its alias for life, its type for a session, and its newest value."""

    alias: int
    datatype: DataType
    value: Scalar = None
    utc_ms: int | None = None  # None until it is told for the first time


@dataclass(frozen=True, slots=True)
class _Past:
    """A value that nobody could hear when it was new."""

    device: str
    name: str
    value: Scalar
    utc_ms: int | None


class SparkplugNode:
    """One edge node and its devices; bounded in metrics and backlog, every drop counted in `counters`.

    The caller's part, in this order: `connecting` before every CONNECT (its message is the Will), CONNECT with Clean Session
    (or Clean Start and Session Expiry 0: tck-id-principles-persistence-clean-session-311 and -50), subscribe to
    `subscriptions`, then publish what `connected` gives; `received` for every message; `tell` and `device_lost` as things
    happen; `disconnected` when the connection is gone; `stop` before a DISCONNECT. Whenever `must_leave` is true after a call, its
    messages are followed by a DISCONNECT and a new connection. One thread at a time.

    Args:
        primary_host: id of the host application without which nothing is published; "" for none.
        last_bd_seq: of the CONNECT before this process, so that the count goes on; -1 where there was none.
        max_metrics: of the node and all its devices; more are refused.
        max_backlog: values kept for a host that is away; the oldest give way.
    """

    def __init__(
        self,
        group: str,
        node: str,
        *,
        primary_host: str = "",
        last_bd_seq: int = -1,
        max_metrics: int = 10_000,
        max_backlog: int = 10_000,
    ) -> None:
        self.group = check_id(group)
        self.node = check_id(node)
        self.bd_seq = last_bd_seq % SEQ_MODULUS
        self.born = False
        self.must_leave = False
        self.counters = dict.fromkeys(COUNTERS, 0)
        self._primary_host = primary_host
        self._host_utc_ms = -1  # of the newest STATE that counted
        self._host_online = False
        self._connected = False
        self._seq = 0
        self._max_metrics = max_metrics
        self._points: dict[str, dict[str, _Point]] = {"": {}}  # by device, "" is the node; the order of their births
        self._lost: set[str] = set()
        self._n_points = 0
        self._backlog: deque[_Past] = deque(maxlen=max_backlog)

    @property
    def subscriptions(self) -> list[tuple[str, int]]:
        """Topic and QoS of what the node listens to (tck-id-message-flow-edge-node-ncmd-subscribe).

        No DCMD: nothing of ours can be written to.
        """
        topics = [(topic_of(self.group, Kind.NCMD, self.node), 1)]
        return [*topics, (topic_state(self._primary_host), 1)] if self._primary_host else topics

    # ------------------------------------------------------------------ session
    def connecting(self) -> Message:
        """The Will of the CONNECT that is to be sent now: a new bdSeq every time, 255 is followed by 0.

        Source: tck-id-message-flow-edge-node-birth-publish-will-message-payload-bdSeq and its neighbours.
        """
        self.bd_seq = (self.bd_seq + 1) % SEQ_MODULUS
        return self._death()

    def connected(self, utc_ns: int) -> list[Message]:
        """The connection stands: all births, or nothing yet where the primary host is waited for.

        Source: tck-id-message-flow-edge-node-birth-publish-phid-wait.
        """
        self._connected = True
        return [] if self._primary_host else self._births(utc_ns)

    def disconnected(self) -> None:
        """The connection is gone; the broker tells the death."""
        self._connected = self._host_online = self.born = self.must_leave = False

    def stop(self) -> list[Message]:
        """The death, for a clean end: publish it and send a DISCONNECT at once.

        Source: tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath.
        """
        self.born = False
        return [self._death()] if self._connected else []

    def received(self, topic: str, payload: bytes, utc_ns: int) -> list[Message]:
        """A message that came in: a rebirth request, or what the primary host says of itself; all else is ignored, counted."""
        try:
            where = parse_topic(topic)
            if where.kind is Kind.STATE and where.node == self._primary_host:
                return self._host_says(*decode_state(payload), utc_ns)
            if where.kind is Kind.NCMD and (where.group, where.node) == (self.group, self.node):
                return self._commanded(decode(payload), utc_ns)
        except FrameError:
            pass
        self.counters["ignored"] += 1
        return []

    def _commanded(self, command: Payload, utc_ns: int) -> list[Message]:
        """Rebirth is the one command there is: all births at once, with the bdSeq of the connection that stands.

        Source: tck-id-operational-behavior-data-commands-rebirth-action-1 to -3.
        """
        asked = any(metric.name == REBIRTH and metric.value is True for metric in command.metrics)
        if not (asked and self.born):
            self.counters["ignored"] += 1
            return []
        self.counters["rebirths"] += 1
        return self._births(utc_ns)

    def _host_says(self, online: bool, host_utc_ms: int, utc_ns: int) -> list[Message]:
        """The primary host comes or goes; news older than the last does not count.

        Source: tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp, tck-id-operational-behavior-edge-node-
        termination-host-offline and -timestamp.
        """
        if host_utc_ms < self._host_utc_ms:
            self.counters["ignored"] += 1
            return []
        self._host_utc_ms, self._host_online = host_utc_ms, online
        if online:
            return self._births(utc_ns) if self._connected and not self.born else []
        if not self.born:
            return []
        self.must_leave = True
        return self.stop()

    # ------------------------------------------------------------------ values
    def tell(self, device: str, values: Mapping[str, Scalar], utc_ns: int) -> list[Message]:
        """All that is known of a device now ("" for the node itself); what is left out or not finite is not available.

        A name or type that is new makes a birth (of the device, or for the node of everything), anything else data by alias
        with what changed. A device that was lost is born again.
        Raises: ValueError: an integer of more than 64 bits, or a device's name that cannot stand in a topic.
        """
        points = self._points.setdefault(check_id(device) if device else "", {})
        back = device in self._lost or not points
        self._lost.discard(device)
        known = {name: _told(value) for name, value in {**dict.fromkeys(points), **values}.items()}
        new = [name for name, value in known.items() if self._fit(points, name, value)]
        changed = self._changed(points, known, utc_ns // 1_000_000)
        if not self.born:
            self._keep(device, points, changed)
            return []
        if new or back:
            return [self._birth(device, utc_ns)] if device else self._births(utc_ns)
        if not changed:
            return []
        self.counters["data"] += 1
        metrics = [_metric(points[name].value, points[name].utc_ms, alias=points[name].alias) for name in changed]
        return [self._message(Kind.DDATA if device else Kind.NDATA, device, metrics, utc_ns)]

    def device_lost(self, device: str, utc_ns: int) -> list[Message]:
        """The connection to a device is lost: its death, once (tck-id-operational-behavior-device-ddeath)."""
        if device in self._lost or not self._points.get(device):
            return []
        self._lost.add(device)
        if not self.born:
            return []
        self.counters["deaths"] += 1
        return [self._message(Kind.DDEATH, device, [], utc_ns)]

    def _fit(self, points: dict[str, _Point], name: str, value: Scalar) -> bool:
        """Makes room for a value; True where the last birth does not cover it."""
        datatype = DATATYPES.get(type(value), DataType.DOUBLE)
        point = points.get(name)
        if point is None:
            if self._n_points >= self._max_metrics:
                self.counters["metrics_refused"] += 1
                return False
            self._n_points += 1
            points[name] = _Point(self._n_points, datatype)
            return True
        if (
            value is None
            or point.datatype is datatype
            or (point.datatype, datatype) == (DataType.DOUBLE, DataType.INT64)
        ):
            return False
        point.datatype = datatype
        return True

    def _changed(self, points: dict[str, _Point], known: Mapping[str, Scalar], utc_ms: int) -> list[str]:
        """Takes the new values; the names of those that are news (tck-id-operational-behavior-data-publish-dbirth-change)."""
        changed = []
        for name, point in points.items():
            value = _as(known[name], point.datatype)
            if value != point.value or point.utc_ms is None:
                point.value, point.utc_ms = value, utc_ms
                changed.append(name)
        return changed

    def _keep(self, device: str, points: Mapping[str, _Point], names: Iterable[str]) -> None:
        for name in names:
            self.counters["backlog_dropped"] += len(self._backlog) == self._backlog.maxlen
            self._backlog.append(_Past(device, name, points[name].value, points[name].utc_ms))

    # ------------------------------------------------------------------ messages
    def _births(self, utc_ns: int) -> list[Message]:
        """NBIRTH with sequence 0, a DBIRTH for each device that is there, then what could not be told before.

        Source: tck-id-payloads-nbirth-seq, tck-id-topics-nbirth-*, tck-id-payloads-dbirth-order.
        """
        self.born = True
        self._seq = 0
        devices = [device for device, points in self._points.items() if device and points and device not in self._lost]
        births = [self._birth(device, utc_ns) for device in ["", *devices]]
        return [*births, *self._history(utc_ns)]

    def _birth(self, device: str, utc_ns: int) -> Message:
        self.counters["births"] += 1
        metrics = [
            _metric(point.value, point.utc_ms, name=name, alias=point.alias, datatype=point.datatype)
            for name, point in self._points[device].items()
        ]
        if device:
            return self._message(Kind.DBIRTH, device, metrics, utc_ns)
        utc_ms = utc_ns // 1_000_000
        # No alias for Rebirth: tck-id-operational-behavior-data-commands-rebirth-name-aliases.
        rebirth = Metric(name=REBIRTH, timestamp_ms=utc_ms, datatype=DataType.BOOLEAN, value=False)
        return self._message(Kind.NBIRTH, "", [self._session(utc_ms), rebirth, *metrics], utc_ns)

    def _history(self, utc_ns: int) -> list[Message]:
        """The backlog by device, oldest first, with the times at which it was measured (chapter 6, is_historical)."""
        past_of: dict[str, list[Metric]] = {}
        for past in self._backlog:
            if (metric := self._past(past)) is not None:
                past_of.setdefault(past.device, []).append(metric)
        self._backlog.clear()
        messages = []
        for device, metrics in past_of.items():
            if device in self._lost:
                self.counters["backlog_dropped"] += len(metrics)
                continue
            self.counters["historical"] += len(metrics)
            kind = Kind.DDATA if device else Kind.NDATA
            parts = [metrics[i : i + MAX_METRICS_PER_MESSAGE] for i in range(0, len(metrics), MAX_METRICS_PER_MESSAGE)]
            messages += [self._message(kind, device, part, utc_ns) for part in parts]
        return messages

    def _past(self, past: _Past) -> Metric | None:
        """A value of the past as data; None for the newest, which the birth has told already."""
        point = self._points[past.device][past.name]
        if past.utc_ms == point.utc_ms:
            return None
        return _metric(_as(past.value, point.datatype), past.utc_ms, alias=point.alias, is_historical=True)

    def _death(self) -> Message:
        """No sequence number and one metric, bdSeq (tck-id-topics-ndeath-payload, -seq); no time: a Will is written too early."""
        payload = Payload(metrics=[self._session(None)])
        return Message(topic_of(self.group, Kind.NDEATH, self.node), encode(payload), qos=1)

    def _session(self, utc_ms: int | None) -> Metric:
        return Metric(name=BD_SEQ, timestamp_ms=utc_ms, datatype=DataType.INT64, value=self.bd_seq)

    def _message(self, kind: Kind, device: str, metrics: list[Metric], utc_ns: int) -> Message:
        """The next message in the node's sequence, 0 to 255 and again (tck-id-payloads-sequence-num-incrementing)."""
        payload = Payload(timestamp_ms=utc_ns // 1_000_000, seq=self._seq, metrics=metrics)
        self._seq = (self._seq + 1) % SEQ_MODULUS
        return Message(topic_of(self.group, kind, self.node, device), encode(payload))


def decode_state(payload: bytes) -> tuple[bool, int]:
    """A host application's STATE: whether it is online, and since when (UTC, ms).

    Raises: FrameError: not {"online": true or false, "timestamp": milliseconds} (tck-id-host-topic-phid-birth-payload).
    """
    if len(payload) > MAX_STATE_BYTES:
        raise FrameError(f"sparkplug STATE of {len(payload)} bytes; at most {MAX_STATE_BYTES}")
    try:
        tree = json.loads(payload)
    except (ValueError, RecursionError):
        raise FrameError("sparkplug STATE is no JSON; a host of before 3.0 writes ONLINE or OFFLINE") from None
    if not isinstance(tree, dict) or type(tree.get("online")) is not bool or type(tree.get("timestamp")) is not int:
        raise FrameError('sparkplug STATE must be {"online": true or false, "timestamp": milliseconds}')
    return tree["online"], tree["timestamp"]


def _told(value: Scalar) -> Scalar:
    """A number that is none is not available."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as(value: Scalar, datatype: DataType) -> Scalar:
    """`value` as the last birth told its type; of another type it is not available."""
    if datatype is DataType.DOUBLE and type(value) is int:
        return float(value)
    return value if value is None or DATATYPES[type(value)] is datatype else None


def _metric(
    value: Scalar,
    utc_ms: int | None,
    *,
    alias: int,
    name: str = "",
    datatype: DataType = DataType.UNKNOWN,
    is_historical: bool = False,
) -> Metric:
    """In a birth with name and type; in data with neither (tck-id-payloads-alias-data-cmd-requirement, -metric-datatype-not-req).

    Null is said, not left out (tck-id-operational-behavior-data-publish-nbirth-values).
    """
    return Metric(
        name=name,
        alias=alias,
        timestamp_ms=utc_ms,
        datatype=datatype,
        value=value,
        is_historical=is_historical,
        is_null=value is None,
    )
