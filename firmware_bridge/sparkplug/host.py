"""Sparkplug B 3.0, the subscriber's side: topics, and SparkplugHost, which turns an edge node's messages into values.

Pure: no I/O, time passed in. An edge node announces every metric in its births (NBIRTH, DBIRTH) and afterwards sends only
what changed, often by number (alias) alone; so a value means something only while the births before it are known and no
message is missing. SparkplugHost keeps that account. Payloads are coded by wire.py, the publisher's side is
node.py.
Source: Eclipse Sparkplug 3.0.0, chapters 4 to 6; the ids beside the rules (tck-id-...) are the specification's own.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from firmware_bridge.errors import FrameError
from firmware_bridge.measurement import Quality
from firmware_bridge.sparkplug.topics import (
    BD_SEQ,
    COMMANDS,
    NODE_CONTROL,
    SEQ_MODULUS,
    Kind,
    Topic,
    bd_seq_of,
    parse_topic,
    rebirth_command,
)
from firmware_bridge.sparkplug.wire import MAX_PAYLOAD_BYTES, DataType, Metric, Payload, Value, decode, typed

NUMERIC = frozenset({*range(DataType.UNKNOWN, DataType.STRING), DataType.DATETIME})
QUALITY_PROPERTY = "Quality"
# tck-id-payloads-propertyset-quality-value-value: good, bad, stale
QUALITIES = {192: Quality.GOOD, 0: Quality.BAD, 500: Quality.UNCERTAIN}
MAX_UTC_MS = (1 << 63) // 1_000_000  # what still counts as nanoseconds in 64 bits
MAX_WAITING_BYTES = MAX_PAYLOAD_BYTES  # of one node
MAX_DOUBLINGS = 6  # of the time between two requests to a node that rebirths do not help

COUNTERS = (
    "births",  # NBIRTH and DBIRTH
    "deaths",  # NDEATH and DDEATH that were believed
    "data",  # NDATA and DDATA
    "historical",  # updates from a publisher's buffer
    "stale",  # data without a birth before it, deaths of an earlier session
    "out_of_order",  # messages that came before their turn, and waited or were useless
    "missing",  # messages that never came
    "duplicates",
    "corrupt",
    "unknown_metrics",  # in no birth
    "rebirths_asked",
    "refused",  # beyond the number of nodes, devices or metrics
    "foreign",  # commands, host states and topics that are no edge node's
)


@dataclass(frozen=True, slots=True)
class Update:
    """What one message says of one edge node or device at one instant.

    Attributes:
        device: "" for the metrics of the edge node itself.
        values: metric name -> number; NaN where it is not available, booleans are 0 and 1; text, bytes, DataSet, Template and
            the node's own controls (bdSeq, Node Control/...) are left out.
        quality: one for every name in `values`.
        utc_ns: when the values were taken, by the publisher's clock; 0 where it does not say. Of a death: when it was heard.
        historical: sent late from the publisher's own buffer; it is no present value.
        death: the publisher or the device is gone; every metric is NaN and BAD_COMM.
    """

    group: str
    node: str
    device: str
    values: dict[str, float]
    quality: dict[str, Quality]
    utc_ns: int
    historical: bool = False
    death: bool = False


@dataclass(slots=True)
class _Device:
    """What the last birth of a device (or of the node itself) announced."""

    datatypes: dict[str, int]
    names: dict[int, str]  # by alias; an alias that was given twice is none

    @property
    def points(self) -> list[str]:
        """The metrics that are told as numbers."""
        return [name for name, datatype in self.datatypes.items() if datatype in NUMERIC and not _is_control(name)]


@dataclass(frozen=True, slots=True)
class _Message:
    """One message that counts in the node's sequence."""

    topic: Topic
    payload: Payload
    raw: bytes


@dataclass(slots=True)
class _Node:
    """The session of one edge node, as far as it was heard."""

    group: str
    name: str
    devices: dict[str, _Device] = field(default_factory=dict)  # "" is the node itself; there while it is born
    bd_seq: int | None = None
    next_seq: int = 0
    crcs: dict[int, int] = field(default_factory=dict)  # of the last message with each sequence number
    waiting: dict[int, tuple[Topic, bytes]] = field(default_factory=dict)  # by sequence number, not yet decoded
    waiting_since_ns: int = 0
    wants_rebirth: bool = False
    n_asked: int = 0  # in this session
    asked_ns: int | None = None

    @property
    def born(self) -> bool:
        return "" in self.devices


class SparkplugHost:
    """The account of all edge nodes behind one broker; bounded in nodes, devices, metrics, bytes and time.

    Never raises on what a node sends. The caller subscribes to `spBv1.0/{group}/+/{node}/#` with QoS 1 (deaths have it), hands
    every message that is not retained to `add`, calls `expire` about once a second, publishes what `requests` gives while it
    is connected, and calls `expect` when its connection stands and `lost` when it is gone. One thread at a time. `last_error` is
    the newest reason for "corrupt" or "refused".

    A value is told under the device of its topic and the name of its birth, never by guess: an alias counts within the births
    of its own device only (aliases are unique in the whole node, tck-id-payloads-alias-uniqueness, so nothing is lost by it).
    After a message that never came, what follows is told in its order, and a rebirth is asked for.
    At an NBIRTH the devices are told as dead until their own DBIRTH, as the specification has them stale (chapter 4, NBIRTH).

    Args:
        reorder_s: how long a message waits for one before it (tck-id-operational-behavior-host-reordering-param).
        rebirth_interval_s: at most one request a node in this time; it doubles, up to 64 times, for every request of one
            session, so that a node whom births do not help is not kept busy with them.
    """

    def __init__(
        self,
        reorder_s: float = 2.0,
        rebirth_interval_s: float = 10.0,
        max_nodes: int = 64,
        max_devices: int = 256,
        max_metrics: int = 20_000,
    ) -> None:
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.last_error = ""
        self._reorder_ns = round(reorder_s * 1e9)
        self._interval_ns = round(rebirth_interval_s * 1e9)
        self._max_nodes = max_nodes
        self._max_devices = max_devices
        self._max_metrics = max_metrics
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._waiting: dict[tuple[str, str], _Node] = {}  # those with messages that wait for one before them
        self._now = (0, 0)  # UTC and monotonic, of the last message

    @property
    def n_metrics(self) -> int:
        """Metrics that births have announced and that are alive."""
        return sum(len(device.datatypes) for node in self._nodes.values() for device in node.devices.values())

    def add(self, topic: str, payload: bytes, utc_ns: int, monotonic_ns: int) -> list[Update]:
        """Take one message; everything that it makes known, in order (messages that waited for it included)."""
        self._now = (utc_ns, monotonic_ns)
        updates = self.expire(monotonic_ns)
        try:
            where = parse_topic(topic)
        except FrameError:
            self.counters["foreign"] += 1
            return updates
        if where.kind in COMMANDS:
            self.counters["foreign"] += 1
            return updates
        try:
            message = _Message(where, decode(payload), payload)
        except FrameError as error:
            self.counters["corrupt"] += 1
            self.last_error = f"{topic[:120]}: {error}"
            return updates
        node = self._node(where)
        if node is None:
            self._refuse(f"{topic[:120]}: more than {self._max_nodes} edge nodes")
        elif where.kind is Kind.NBIRTH:
            updates += self._node_birth(node, message)
        elif where.kind is Kind.NDEATH:
            updates += self._node_death(node, message)
        elif not node.born:  # what it says cannot be understood, by nobody who joined late
            self.counters["stale"] += 1
            node.wants_rebirth = True
        else:
            updates += self._in_turn(node, message)
        return updates

    def expire(self, monotonic_ns: int) -> list[Update]:
        """What waited in vain for a message before it: told now, and a rebirth asked for.

        Source: tck-id-operational-behavior-host-reordering-rebirth.
        """
        updates = []
        for node in list(self._waiting.values()):
            if monotonic_ns - node.waiting_since_ns >= self._reorder_ns:
                updates += self._give_up(node)
        return updates

    def requests(self, monotonic_ns: int) -> list[tuple[str, bytes]]:
        """Rebirth commands to publish now, as (topic, payload): QoS 0, not retained."""
        utc_ns = self._now[0] + max(monotonic_ns - self._now[1], 0)
        commands = []
        for node in self._nodes.values():
            pause_ns = self._interval_ns << min(max(node.n_asked - 1, 0), MAX_DOUBLINGS)
            if node.wants_rebirth and (node.asked_ns is None or monotonic_ns - node.asked_ns >= pause_ns):
                node.wants_rebirth = False
                node.asked_ns = monotonic_ns
                node.n_asked += 1
                self.counters["rebirths_asked"] += 1
                commands.append(rebirth_command(node.group, node.name, utc_ns))
        return commands

    def expect(self, group: str, node: str) -> None:
        """A node that we listen to: its births are asked for, where they are not known.

        To be called when our connection stands. A node that tells by exception may otherwise say nothing for hours.
        """
        account = self._node(Topic(group, Kind.NBIRTH, node))
        if account is not None and not account.born:
            account.wants_rebirth = True

    def lost(self, utc_ns: int) -> list[Update]:
        """Our own broker is gone: every live metric is BAD_COMM, and every node must be born again.

        Source: chapter 5, host session establishment ("... MUST be updated to a STALE data quality if ...").
        """
        return [update for node in self._nodes.values() for update in self._end_session(node, utc_ns)]

    # ------------------------------------------------------------------ sessions
    def _node(self, where: Topic) -> _Node | None:
        """The node's account, a new one if need be; one that is neither born nor just asked gives way when there are too many."""
        key = (where.group, where.node)
        if key not in self._nodes:
            if len(self._nodes) >= self._max_nodes:
                idle = next((key for key, node in self._nodes.items() if self._is_idle(node)), None)
                if idle is None:
                    return None
                del self._nodes[idle]
            self._nodes[key] = _Node(*key)
        return self._nodes[key]

    def _is_idle(self, node: _Node) -> bool:
        return not node.born and (node.asked_ns is None or self._now[1] - node.asked_ns >= self._interval_ns)

    def _node_birth(self, node: _Node, message: _Message) -> list[Update]:
        """A session begins, or (same bdSeq) begins to be told again; its sequence starts here."""
        bd_seq = bd_seq_of(message.payload)
        if bd_seq != node.bd_seq:
            node.n_asked = 0
        node.bd_seq, node.wants_rebirth = bd_seq, False
        self._forget_order(node)
        self._count_turn(node, message)
        devices = [name for name in node.devices if name]
        return [
            *(self._dead(node, name, node.devices.pop(name).points) for name in devices),
            *self._birth(node, message),
        ]

    def _node_death(self, node: _Node, message: _Message) -> list[Update]:
        """The will of the session that is alive; the will of an earlier one came late and says nothing about this one.

        Source: tck-id-operational-behavior-edge-node-termination-host-action-ndeath-*, tck-id-payloads-ndeath-bdseq.
        """
        bd_seq = bd_seq_of(message.payload)
        if not node.born or (None not in (bd_seq, node.bd_seq) and bd_seq != node.bd_seq):
            self.counters["stale"] += 1
            return []
        self.counters["deaths"] += 1
        return self._end_session(node, self._now[0])

    def _end_session(self, node: _Node, utc_ns: int) -> list[Update]:
        updates = [self._dead(node, name, device.points, utc_ns) for name, device in node.devices.items()]
        self._forget_order(node)
        node.devices = {}
        node.n_asked = 0
        return [update for update in updates if update.values]

    def _forget_order(self, node: _Node) -> None:
        self._waiting.pop((node.group, node.name), None)
        node.waiting = {}
        node.crcs = {}

    def _birth(self, node: _Node, message: _Message) -> list[Update]:
        """Takes the metrics that a birth announces, and tells their values and what is no longer announced."""
        name = message.topic.device
        before = node.devices.pop(name, None)
        announced = _announced(message.payload.metrics)
        gone = [point for point in before.points if point not in announced.datatypes] if before else []
        updates = [self._dead(node, name, gone)] if gone else []
        if len(node.devices) > self._max_devices:
            self._refuse(f"{node.name}: more than {self._max_devices} devices")
        elif self.n_metrics + len(announced.datatypes) > self._max_metrics:
            self._refuse(f"{node.name}: more than {self._max_metrics} metrics in all")
        else:
            self.counters["births"] += 1
            node.devices[name] = announced
            updates += self._told(node, message)
        return updates

    def _refuse(self, why: str) -> None:
        self.counters["refused"] += 1
        self.last_error = why

    # ------------------------------------------------------------------ sequence
    def _in_turn(self, node: _Node, message: _Message) -> list[Update]:
        """A message in the node's sequence: told at once, kept until the one before it comes, or too late.

        Source: tck-id-payloads-sequence-num-incrementing, tck-id-operational-behavior-host-reordering-start and -success.
        """
        seq = _seq_of(message)
        ahead = (seq - node.next_seq) % SEQ_MODULUS
        if ahead == 0:
            return self._take(node, message)
        if seq in node.waiting or (ahead >= SEQ_MODULUS // 2 and node.crcs.get(seq) == zlib.crc32(message.raw)):
            self.counters["duplicates"] += 1
            return []
        self.counters["out_of_order"] += 1
        if ahead >= SEQ_MODULUS // 2:  # behind, and not what was heard then: a session that we do not know
            node.wants_rebirth = True
            return []
        if not node.waiting:
            node.waiting_since_ns = self._now[1]
            self._waiting[node.group, node.name] = node
        node.waiting[seq] = (message.topic, message.raw)
        if sum(len(raw) for _, raw in node.waiting.values()) > MAX_WAITING_BYTES:
            return self._give_up(node)
        return []

    def _take(self, node: _Node, message: _Message) -> list[Update]:
        """The message whose turn it is, and those that waited for it."""
        self._count_turn(node, message)
        updates = self._process(node, message)
        while (next_one := node.waiting.pop(node.next_seq, None)) is not None:
            message = _Message(next_one[0], decode(next_one[1]), next_one[1])
            self._count_turn(node, message)
            updates += self._process(node, message)
        if node.waiting:  # for another one now
            node.waiting_since_ns = self._now[1]
        else:
            self._waiting.pop((node.group, node.name), None)
        return updates

    def _give_up(self, node: _Node) -> list[Update]:
        """Tell all that waits, in its order, and ask for the births again."""
        updates = []
        while node.waiting:
            ahead = min((seq - node.next_seq) % SEQ_MODULUS for seq in node.waiting)
            self.counters["missing"] += ahead
            topic, raw = node.waiting.pop((node.next_seq + ahead) % SEQ_MODULUS)
            updates += self._take(node, _Message(topic, decode(raw), raw))
        node.wants_rebirth = True
        return updates

    def _count_turn(self, node: _Node, message: _Message) -> None:
        seq = _seq_of(message)
        node.crcs[seq] = zlib.crc32(message.raw)
        node.next_seq = (seq + 1) % SEQ_MODULUS

    # ------------------------------------------------------------------ values
    def _process(self, node: _Node, message: _Message) -> list[Update]:
        """A message in its turn."""
        device = message.topic.device
        if message.topic.kind is Kind.DBIRTH:
            return self._birth(node, message)
        if device not in node.devices:
            self.counters["stale"] += 1
            node.wants_rebirth = True
            return []
        if message.topic.kind is Kind.DDEATH:
            self.counters["deaths"] += 1
            return [self._dead(node, device, node.devices.pop(device).points)]
        self.counters["data"] += 1
        return self._told(node, message)

    def _told(self, node: _Node, message: _Message) -> list[Update]:
        """The values of one message, one Update for each time at which they were taken."""
        device = node.devices[message.topic.device]
        updates: dict[tuple[int, bool], Update] = {}
        for metric in message.payload.metrics:
            name = metric.name or device.names.get(-1 if metric.alias is None else metric.alias, "")
            datatype = metric.datatype or device.datatypes.get(name, DataType.UNKNOWN)
            if name not in device.datatypes:
                self.counters["unknown_metrics"] += 1
                node.wants_rebirth = True
            elif datatype in NUMERIC and not isinstance(metric.value, str | bytes) and not _is_control(name):
                utc_ms = metric.timestamp_ms or message.payload.timestamp_ms or 0
                key = (utc_ms * 1_000_000 if utc_ms < MAX_UTC_MS else 0, metric.is_historical)
                if key not in updates:
                    updates[key] = Update(node.group, node.name, message.topic.device, {}, {}, *key)
                updates[key].values[name], updates[key].quality[name] = _judged(metric, datatype)
        self.counters["historical"] += sum(update.historical for update in updates.values())
        return list(updates.values())

    def _dead(self, node: _Node, device: str, points: list[str], utc_ns: int | None = None) -> Update:
        return Update(
            node.group,
            node.name,
            device,
            dict.fromkeys(points, math.nan),
            dict.fromkeys(points, Quality.BAD_COMM),
            self._now[0] if utc_ns is None else utc_ns,
            death=True,
        )


def _seq_of(message: _Message) -> int:
    """Left out means 0: clients made from a proto3 copy of the definition do not send zeros."""
    return (message.payload.seq or 0) % SEQ_MODULUS


def _is_control(name: str) -> bool:
    return name == BD_SEQ or name.startswith(NODE_CONTROL)


def _announced(metrics: Iterable[Metric]) -> _Device:
    """The names, types and aliases of a birth; an alias that stands for two names stands for none."""
    device = _Device({}, {})
    for metric in metrics:
        if not metric.name:
            continue
        device.datatypes[metric.name] = metric.datatype
        if metric.alias is not None:
            known = device.names.setdefault(metric.alias, metric.name)
            device.names[metric.alias] = metric.name if known == metric.name else ""
    return device


def _judged(metric: Metric, datatype: int) -> tuple[float, Quality]:
    """Value and quality; without a number, or by the publisher's own word, it is not available."""
    code = metric.properties.get(QUALITY_PROPERTY, 192)
    quality = QUALITIES.get(code, Quality.UNCERTAIN) if isinstance(code, int) else Quality.UNCERTAIN
    value = math.nan if metric.is_null else _number(typed(metric.value, datatype))
    if not math.isfinite(value) and quality < Quality.BAD:
        quality = Quality.BAD_SENTINEL
    return (value if quality < Quality.BAD else math.nan), quality


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
