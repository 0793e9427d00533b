"""Source: where measurements come from. The schemas of all kinds stand here, their code in sources/<kind>.py.

Loading a site file needs every schema and no library: pymodbus and paho are imported only when a site names their kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, cast

from msgspec import Meta, field

from firmware_bridge import sources
from firmware_bridge.broker import NO_SITE_FILE, BrokerKeys, Place
from firmware_bridge.checked import Table
from firmware_bridge.frames import MAX_CHUNK_BYTES
from firmware_bridge.jsonpath import JsonPath
from firmware_bridge.measurement import Channel, Measurement
from firmware_bridge.registry import module_named
from firmware_bridge.topics import check_filter
from firmware_bridge.units import suffix_of

DEFAULT_PORT = 502  # Modbus TCP, as IANA has it
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="1 to 64 of A-Z a-z 0-9 _ . -")]
FileStem = Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,64}$", description="a file's name without .toml")]
Host = Annotated[str, Meta(min_length=1, max_length=253, description="host name or address")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
MAX_TOPICS = 32  # of payload sensors on one connection; cloud brokers allow some 50 subscriptions


class Clock(Protocol):
    """Both clocks of the gateway: waits and durations use `monotonic_ns`, stamps that people read use `utc_ns`."""

    def utc_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class Source(Protocol):
    """One endpoint: a Modbus line, a broker, a recording. One thread of its own calls `read`, again and again.

    `read` yields what arrived within about `timeout_s` and returns; nothing to tell is an empty answer. It raises
    SourceLost where the whole endpoint cannot be reached; one dead device among living ones is Blocks of BAD_COMM.
    `counters` only grow; `troubles` says of each sensor that is not well what, why and what to do. Both are read by other
    threads.
    """

    name: str
    channels: tuple[Channel, ...]

    @property
    def counters(self) -> dict[str, int]: ...

    @property
    def troubles(self) -> dict[str, str]: ...

    def read(self, timeout_s: float) -> Iterable[Measurement]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source must know of its surroundings.

    Attributes:
        first_channel: the source's channel i is number first_channel + i of the process's channel table.
        gateway: makes the identity towards a broker unique in the site.
        place: where the source stands in the site file; its relative paths count from there.
    """

    config_dir: Path
    site: str
    first_channel: int
    clock: Clock
    gateway: str = ""
    place: Place = NO_SITE_FILE


class ModbusSensor(Table, frozen=True):
    """One device on a Modbus line."""

    name: Name
    device: Annotated[FileStem, Meta(description="a file of config/devices, without .toml")]
    unit_id: Annotated[int, Meta(ge=1, le=255, description="1 to 247; 255 for some TCP devices; 0 is a broadcast")]
    poll_interval_s: Annotated[
        float, Meta(ge=0.01, le=86400, description="a 9600-baud line of eight needs 1 s or more")
    ] = 1.0


class ModbusSpec(Table, frozen=True, tag="modbus", tag_field="kind"):
    """A Modbus endpoint: a TCP device, a gateway with a line of devices behind it, or a serial line. Read only."""

    name: Name
    sensors: Annotated[tuple[ModbusSensor, ...], Meta(min_length=1)]
    host: Host | None = None
    port: Port = DEFAULT_PORT
    framing: Annotated[
        Literal["tcp", "rtu"], Meta(description="rtu for a converter that passes serial frames on as they are")
    ] = "tcp"
    serial: Annotated[str | None, Meta(description="a port of this machine, best as /dev/serial/by-id/...")] = None
    baud_rate: Annotated[int, Meta(ge=300, le=1_000_000)] = 19200
    parity: Literal["even", "odd", "none"] = "even"
    stop_bits: Literal[1, 2] = 1
    timeout_s: Annotated[float, Meta(ge=0.05, le=30)] = 1.0

    def __post_init__(self) -> None:
        """Raises: ValueError: no place or two, two sensors of one name, or one device twice."""
        if (self.host is None) == (self.serial is None):
            raise ValueError('a modbus source has either  host = "192.0.2.10"  or  serial = "/dev/ttyUSB0"')
        _unique([sensor.name for sensor in self.sensors])
        seen: dict[tuple[int, str], str] = {}
        for sensor in self.sensors:
            other = seen.setdefault((sensor.unit_id, sensor.device), sensor.name)
            if other != sensor.name:
                raise ValueError(
                    f"{other} and {sensor.name} are the same device, unit {sensor.unit_id}; name it once, "
                    f"several machines may list one sensor"
                )

    @property
    def place(self) -> str:
        """Where it is, as a person says it."""
        return f"{self.host}:{self.port}" if self.host is not None else str(self.serial)


class Select(Table, frozen=True):
    """Which messages of a topic that carries many devices are this sensor's: those with `equals` at `path` (JSON)."""

    path: Annotated[str, Meta(max_length=200)]
    equals: bool | float | str

    def __post_init__(self) -> None:
        """Raises: ValueError: a path that is none."""
        JsonPath.parse(self.path)


class MqttSensor(Table, frozen=True):
    """A sensor that publishes by itself.

    It speaks PROTOCOL.md: bursts, and the scalars named in `points` with what they can plausibly be. Or `payload` names
    the file that says what it publishes, and `topic` where; `select` and `root` find its part in messages of many devices.
    """

    name: Name
    payload: Annotated[
        FileStem | None, Meta(description="a file of config/payloads, without .toml; left out: PROTOCOL.md")
    ] = None
    topic: Annotated[str | None, Meta(description="where it publishes; + stands for one level, # for the rest")] = None
    select: Select | None = None
    root: Annotated[str, Meta(max_length=200, description="where in the message the file's paths count from")] = ""
    points: dict[str, tuple[float, float]] = field(default_factory=dict)
    update_interval_s: Annotated[float, Meta(gt=0, description="how often it publishes")] | None = None
    burst_interval_s: Annotated[float, Meta(gt=0, description="how often it sends a waveform")] = 600.0
    axes: Annotated[
        tuple[Literal["x", "y", "z"], ...],
        Meta(max_length=3, description="left out: learned from its first two bursts"),
    ] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError: a point without unit, an empty range, or keys that do not go together."""
        for point, (low, high) in self.points.items():
            suffix_of(point)
            if not low < high:
                raise ValueError(f"{point} = [{low}, {high}] is no range; write [lowest, highest]")
        JsonPath.parse(self.root)
        if self.payload is None:
            if self.topic is not None or self.select is not None or self.root:
                raise ValueError(
                    f"{self.name}: topic, select and root go with a payload; write payload, or leave them out"
                )
            return
        if self.topic is None:
            raise ValueError(f'{self.name}: topic is missing; write where it publishes, such as  topic = "plant/+/vib"')
        check_filter(self.topic)
        if self.points:
            raise ValueError(f"{self.name}: its points stand in the payload file; leave points out")


class MqttSpec(BrokerKeys, frozen=True, tag="mqtt", tag_field="kind"):
    """A broker that sensors publish to."""

    name: Name
    host: Host
    sensors: Annotated[tuple[MqttSensor, ...], Meta(min_length=1)]
    port: Port = 1883
    timeout_s: Annotated[Seconds, Meta(description="how long without the broker before it is called lost")] = 10.0
    version: Literal["5", "3.1.1"] = "5"
    max_packet_bytes: Annotated[int, Meta(ge=MAX_CHUNK_BYTES + 1024, le=16 << 20)] = 262_144
    session_expiry_s: Annotated[
        int, Meta(ge=0, le=86400, description="how long the broker keeps bursts for us; 0 for not at all")
    ] = 3600

    def __post_init__(self) -> None:
        """Raises: ValueError: two sensors of one name, a login or TLS that is not whole, or too many topics."""
        super().__post_init__()
        _unique([sensor.name for sensor in self.sensors])
        topics = {sensor.topic for sensor in self.sensors if sensor.topic is not None}
        if len(topics) > MAX_TOPICS:
            raise ValueError(
                f"{len(topics)} topics on one connection, at most {MAX_TOPICS}; write one with + or # and tell the sensors "
                f"apart with select, or name the broker in a second [[sources]]"
            )


class ReplaySpec(Table, frozen=True, tag="replay", tag_field="kind"):
    """A recording played as if it were live."""

    name: Name
    recording: Annotated[FileStem, Meta(description="a file of config/recordings, without .toml")]
    path: Annotated[str, Meta(description="the recording itself, a text file with columns")]
    sensor: Name = "recording"
    speed: Annotated[
        float, Meta(ge=0, description="1 is real time, 60 a minute in a second, 0 as fast as possible")
    ] = 0.0


AnySpec = ModbusSpec | MqttSpec | ReplaySpec


class _Kind(Protocol):
    """What every module of sources/ offers."""

    def channels_of(self, spec: AnySpec, config_dir: Path) -> tuple[Channel, ...]: ...

    def open(self, spec: AnySpec, context: SourceContext) -> Source: ...


def kind_of(spec: AnySpec) -> str:
    """The `kind` that the site file gave."""
    return str(spec.__struct_config__.tag)


def channels_of(spec: AnySpec, config_dir: Path) -> tuple[Channel, ...]:
    """The channels that the source will have, without opening it.

    Raises: ConfigError: a device or recording file that is missing or wrong.
    """
    return _module(spec).channels_of(spec, config_dir)


def open_source(spec: AnySpec, context: SourceContext) -> Source:
    """The source, opened: network sources connect at their first `read`, so a plant that is down is no reason to stop.

    Raises: ConfigError: a file it needs is missing or wrong. RecordingError: a recording that cannot be read.
    """
    return _module(spec).open(spec, context)


def _module(spec: AnySpec) -> _Kind:
    return cast(_Kind, module_named(sources, kind_of(spec)))


def _unique(names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"sensor {twice[0]!r} is there twice; every sensor has its own name")
