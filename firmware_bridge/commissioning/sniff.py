"""Listens to a broker without being a part of it: which topics there are, what they carry, and what to write for it.

Subscribes and never publishes; the session is clean and leaves nothing behind. Topics, messages and bytes kept are bounded
and what goes beyond is counted.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from firmware_bridge.broker import (
    NO_SITE_FILE,
    BrokerKeys,
    Place,
    Trouble,
    explained,
    hung_up,
    login_of,
    refused,
    tls_of,
)
from firmware_bridge.bursts import BurstDecoder
from firmware_bridge.commissioning.scan import Progress
from firmware_bridge.commissioning.shapes import Guess, Shape, guess
from firmware_bridge.errors import FrameError, SourceLost
from firmware_bridge.frames import parse_sensor_topic
from firmware_bridge.measurement import Quality
from firmware_bridge.messages import MAX_JSON_BYTES, Message, Part
from firmware_bridge.mqtt_client import BoundedClient
from firmware_bridge.payload import BurstProfile, JsonProfile, NumberProfile, PayloadProfile
from firmware_bridge.scalars import JsonDecoder, NumberDecoder
from firmware_bridge.sources.mqtt import Inbox

MAX_TOPICS = 2000
MAX_TOPIC_LENGTH = 1024
MAX_SHOWN_BYTES = 200
CONNECT_S = 5.0
KEEPALIVE_S = 30
SNIFF_S = 60.0
LOOK_S = 0.5
USUAL_INTERVALS_S = (0.1, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0)
_Fits = Callable[[Message], bool]


class Listener:
    """A connection to a broker that only hears.

    Args:
        filters: topic filters; "#" for everything but the broker's own.
    Raises: SourceLost: no broker there, or it does not let us in. ConfigError: a secret or certificate cannot be read.
    """

    def __init__(
        self, host: str, port: int, keys: BrokerKeys, filters: Sequence[str] = ("#",), place: Place = NO_SITE_FILE
    ) -> None:
        self.n_dropped = 0
        self.n_too_large = 0
        self._where = f"{host}:{port}"
        self._keys = keys
        self._filters = filters
        self._inbox = Inbox()
        self._connected: bool | None = None
        self._trouble = Trouble("no answer yet")
        login, tls = login_of(keys, place), tls_of(keys, place)
        self._client = client = BoundedClient(
            CallbackAPIVersion.VERSION2,
            client_id=f"hark-scan-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv311,
            clean_session=True,
            max_packet_bytes=MAX_JSON_BYTES,
        )
        client.connect_timeout = CONNECT_S
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        if login.username is not None:
            client.username_pw_set(login.username, login.password)
        if tls is not None:
            client.tls_set_context(tls)
        client.connect_async(host, port, KEEPALIVE_S)
        client.loop_start()
        self._wait_for_connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye; the broker keeps nothing of us."""
        self._client.disconnect()
        self._client.loop_stop()

    def messages(self, seconds: float) -> Iterator[Message | None]:
        """What arrives until the time is over; None about twice a second while nothing does.

        Raises: SourceLost: the broker went away.
        """
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            yield self._inbox.get(min(left_s, LOOK_S))
            if not self._connected:
                raise SourceLost(f"the broker at {self._where} went away ({self._trouble}). {self._trouble.do}")

    def _wait_for_connection(self) -> None:
        end_s = time.monotonic() + CONNECT_S
        while self._connected is None and time.monotonic() < end_s:
            self._inbox.get(0.05)
        if not self._connected:
            self._client.disconnect()  # its thread ends by itself; nobody waits for it
            raise SourceLost(f"no broker at {self._where} ({self._trouble}). {self._trouble.do}")

    # paho's thread from here on; each of these only sets what is looked at above

    def _on_connect(self, client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._trouble, self._connected = refused(str(reason), self._keys), False
        else:
            client.subscribe([(topic, 0) for topic in self._filters])
            self._connected = True
        self._inbox.wake()

    def _on_connect_fail(self, _client: Any, _userdata: Any) -> None:
        error = sys.exc_info()[1]  # paho calls this from its except clause and tells nothing
        self._trouble = explained(error, self._keys) if error is not None else Trouble("cannot connect")
        self._connected = False
        self._inbox.wake()

    def _on_disconnect(self, client: Any, _userdata: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        if self._connected is not False:
            self._trouble = hung_up(self._keys, client.network_error)
        self._connected = False
        self._inbox.wake()

    def _on_message(self, client: Any, _userdata: Any, message: Any) -> None:
        if client.is_cut:
            self.n_too_large += 1
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.n_dropped += 1
            return
        stamped = Message(topic, bytes(message.payload), time.time_ns(), time.monotonic_ns(), message.retain)
        self.n_dropped += self._inbox.put(stamped)


# ---------------------------------------------------------------------- what was heard
@dataclass(slots=True)
class TopicHeard:
    """One topic. `rate_hz` is None while it is not known: a single message, or one that the broker had kept."""

    topic: str
    shape: Shape = field(default_factory=Shape)
    n: int = 0
    n_retained: int = 0
    smallest_bytes: int = 0
    largest_bytes: int = 0
    last: bytes = b""
    first_ns: int = 0
    last_ns: int = 0

    def add(self, message: Message) -> None:
        """One message; `again` says that the broker had kept it for us."""
        size = len(message.payload)
        self.smallest_bytes = size if not self.n + self.n_retained else min(self.smallest_bytes, size)
        self.largest_bytes = max(self.largest_bytes, size)
        self.last = message.payload[:MAX_SHOWN_BYTES]
        self.shape.add(message)
        if message.again:
            self.n_retained += 1
            return
        self.first_ns = self.first_ns or message.monotonic_ns
        self.last_ns = message.monotonic_ns
        self.n += 1

    @property
    def rate_hz(self) -> float | None:
        """Messages a second."""
        passed_s = (self.last_ns - self.first_ns) / 1e9
        return (self.n - 1) / passed_s if self.n > 1 and passed_s > 0 else None

    @property
    def guesses(self) -> list[tuple[str, Guess]]:
        """What each number may be, by its path."""
        return [(path, guess(quantity, self.topic)) for path, quantity in self.shape.quantities.items()]


@dataclass(slots=True)
class Heard:
    """Everything that was heard. `payloads`: topic -> the payload files that its messages fit."""

    topics: dict[str, TopicHeard] = field(default_factory=dict)
    payloads: dict[str, list[str]] = field(default_factory=dict)
    n_messages: int = 0
    n_beyond: int = 0  # messages of topics beyond MAX_TOPICS, or with a name too long


def sniff(
    listener: Listener, profiles: dict[str, PayloadProfile], seconds: float = SNIFF_S
) -> Iterator[Progress | Heard]:
    """Listens, telling how far it is; what was heard comes last.

    Raises: SourceLost: the broker went away.
    """
    heard = Heard()
    known = {name: decoder for name, profile in profiles.items() if (decoder := _decoder(profile)) is not None}
    started_s = told_s = time.monotonic()
    for message in listener.messages(seconds):
        if message is not None:
            _take(heard, message, known)
        if time.monotonic() - told_s >= LOOK_S:
            told_s = time.monotonic()
            passed = min(round(told_s - started_s), round(seconds))
            yield Progress(passed, round(seconds), f"{len(heard.topics)} topics, {heard.n_messages} messages")
    yield heard


def _take(heard: Heard, message: Message, known: dict[str, _Fits]) -> None:
    heard.n_messages += 1
    if message.topic not in heard.topics:
        if len(heard.topics) >= MAX_TOPICS or len(message.topic) > MAX_TOPIC_LENGTH:
            heard.n_beyond += 1
            return
        heard.topics[message.topic] = TopicHeard(message.topic)
        heard.payloads[message.topic] = [name for name, fits in known.items() if fits(message)]
    heard.topics[message.topic].add(message)


def _decoder(profile: PayloadProfile) -> _Fits | None:
    """Whether a message is as a payload file says; None for formats that one message cannot show."""
    if isinstance(profile, BurstProfile):
        burst = BurstDecoder(profile, Part())
        return lambda message: _quietly(lambda: bool(burst.decode(message)))
    if isinstance(profile, JsonProfile):
        return _scalars_fit(JsonDecoder(profile, Part()), min(2, len(profile.points)))
    if isinstance(profile, NumberProfile) and all(point.topic for point in profile.points):
        return _scalars_fit(NumberDecoder(profile), 1)
    return None


def _scalars_fit(decoder: JsonDecoder | NumberDecoder, at_least: int) -> _Fits:
    def fits(message: Message) -> bool:
        found = decoder.decode(message)
        return found is not None and not found.n_bad and int((found.quality == Quality.GOOD).sum()) >= at_least

    return lambda message: _quietly(lambda: fits(message))


def _quietly(fits: Callable[[], bool]) -> bool:
    try:
        return fits()
    except FrameError:
        return False


# ---------------------------------------------------------------------- what to write
def payload_lines(heard: TopicHeard) -> list[str]:
    """A payload file for a topic of numbers or JSON, to be checked by whoever knows the sensor; empty for other forms."""
    if heard.shape.form not in ("json", "number"):
        return []
    said = [
        'vendor = "?"',
        'model = "?"',
        f'title = "what publishes on {heard.topic}"',
        'source = "?"',
        'sees = "?"',
        f'format = "{heard.shape.form}"',
        f"update_interval_s = {_interval_s(heard):g}",
    ]
    taken: set[str] = set()
    for path, proposal in heard.guesses:
        where = f"path = {json.dumps(path)}" if heard.shape.form == "json" else ""
        if not proposal.name or proposal.name in taken:
            reason = proposal.reason if not proposal.name else f"{proposal.name} is there already; {proposal.reason}"
            said += ["", f"# {where or heard.topic}: {reason}"]
            continue
        taken.add(proposal.name)
        said += ["", "[[points]]", f'name = "{proposal.name}"   # {proposal.reason}: check it']
        said += [where] if where else []
        said += [f"scale = {proposal.scale:g}"] if proposal.scale != 1.0 else []
        said += [f"offset = {proposal.offset:g}"] if proposal.offset else []
        said.append(f"plausible = [{proposal.plausible[0]}, {proposal.plausible[1]}]")
    return said if taken else []


def sensor_lines(heard: TopicHeard, payload: str) -> list[str]:
    """The lines of a site file for one sensor on this topic."""
    if heard.shape.form in ("burst", "readings"):
        topic = parse_sensor_topic(heard.topic)
        return ["[[sources.sensors]]", f'name = "{topic.sensor}"   # speaks PROTOCOL.md, on site {topic.site}']
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", heard.topic).strip("-")[-64:]
    return ["[[sources.sensors]]", f'name = "{name}"', f'payload = "{payload}"', f'topic = "{heard.topic}"']


def _interval_s(heard: TopicHeard) -> float:
    """How often it publishes, rounded up to what people write; a minute while that is not known."""
    interval_s = 1.0 / heard.rate_hz if heard.rate_hz else 60.0
    return next((usual for usual in USUAL_INTERVALS_S if usual >= 0.9 * interval_s), interval_s)
