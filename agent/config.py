"""SiteConfig: the schema of a site's TOML file, and Site: the same with every name resolved.

`load_site` reads the site file, the device and machine files it names and the bearing table, and answers either with a Site
that can run or with every problem at once: file, line, key, and what to write instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agent.features import DataPlate, FeatureSet, Nameplate, feature_set_of
from agent.features.bearings import BearingOrders, bearing_orders, own_orders
from agent.features.speed import nominal_supply_hz
from agent.machine import MachineProfile, StateRule, load_machine_profile
from firmware_bridge.broker import BrokerKeys, Place
from firmware_bridge.checked import Table, key_line, load, read_tree
from firmware_bridge.errors import ConfigError, Problem
from firmware_bridge.measurement import Channel
from firmware_bridge.payload import BurstProfile, load_payloads, payload_names
from firmware_bridge.source import DEFAULT_PORT, AnySpec, Clock, ModbusSpec, MqttSpec, SourceContext, channels_of
from firmware_bridge.sources.replay import load_recording

TopicName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="letters, digits, _ . - only; it becomes part of a topic")
]
SparkplugId = Annotated[str, Meta(pattern=r"^[^+/#]{1,128}$", description="1 to 128 characters without + / #")]
Port = Annotated[int, Meta(ge=1, le=65535)]
MAX_CHOICES = 8  # listed beside a good guess


class SiteSection(Table, frozen=True):
    """Who this gateway is, and what it promises."""

    name: TopicName
    gateway: TopicName
    data_dir: str = "data"
    engine: Literal["onnx", "tflite"] = "onnx"
    latency_budget_ms: Annotated[float, Meta(gt=0, description="sensor to committed alarm")] = 100.0
    false_alarms_per_machine_month: Annotated[
        float, Meta(gt=0, description="false alarms per machine and month that you accept")
    ] = 0.5
    buffer_mib: Annotated[int, Meta(ge=16)] = 512


class UpstreamSection(BrokerKeys, frozen=True):
    """The broker that alarms, features and bursts go to."""

    host: str
    port: Port = 1883
    version: Literal["5", "3.1.1"] = "5"
    confirm: Annotated[
        Literal["collector", "broker"],
        Meta(description="what counts as delivered: written by `hark data collect`, or taken by the broker"),
    ] = "collector"


class SparkplugSection(BrokerKeys, frozen=True):
    """The broker of a SCADA system that reads this gateway as a Sparkplug B edge node, each machine as a device."""

    host: str
    group: SparkplugId
    port: Port = 1883
    node: Annotated[SparkplugId | None, Meta(description="left out: the gateway's name")] = None
    primary_host: Annotated[
        SparkplugId | None, Meta(description="host application without which nothing is published")
    ] = None
    version: Literal["5", "3.1.1"] = "5"


class DecisionSection(Table, frozen=True):
    """How scores become alarms: k of m, and how long a clear must last."""

    k: Annotated[int, Meta(ge=1)] = 3
    m: Annotated[int, Meta(ge=1)] = 5
    off_delay_s: Annotated[float, Meta(ge=0)] = 600.0
    deadband_ratio: Annotated[
        float, Meta(ge=0, lt=1, description="of the threshold, by which a score must be back before an alarm clears")
    ] = 0.1
    refractory_s: Annotated[
        float,
        Meta(ge=0, description="an alarm that comes back within this time clears only after so long without it"),
    ] = 86_400.0
    threshold_factor: (
        Annotated[
            float,
            Meta(
                gt=0, description="times the upper normal score; leave it out to have it from your false-alarm budget"
            ),
        ]
        | None
    ) = None
    smooth_s: Annotated[float, Meta(ge=0, description="time constant that scores are averaged with")] = 0.0
    least_standing_s: Annotated[
        float, Meta(ge=0, description="how long an alarm stands at least: a fault may come in bursts")
    ] = 0.0
    return_ratio: Annotated[
        float,
        Meta(ge=0, lt=1, description="an alarm is over at a sudden fall to this share of what it has been; 0: never"),
    ] = 0.0
    settle_s: Annotated[
        float, Meta(ge=0, description="how long after an alarm no other is raised: what it disturbed has to settle")
    ] = 0.0

    def __post_init__(self) -> None:
        if self.k > self.m:
            raise ValueError(f"k = {self.k} of m = {self.m} can never be reached; write k at most m")


class MachineSection(Table, frozen=True):
    """One machine and the sensors on it."""

    tag: TopicName
    type: str
    sensors: Annotated[tuple[str, ...], Meta(min_length=1)]
    places: dict[str, str] = {}
    rated_speed_rpm: Annotated[float, Meta(gt=0)] | None = None
    line_frequency_hz: (
        Annotated[
            float, Meta(gt=0, description="that the motor is made for; left out: 50 or 60, as its rated speed tells")
        ]
        | None
    ) = None
    bearings: dict[str, Any] = {}  # a designation, or own numbers: features/bearings.py checks them
    vanes: Annotated[int, Meta(ge=1)] | None = None
    assume_running: bool = False
    learn_windows: Annotated[int, Meta(ge=10, description="healthy windows that make a baseline")] = 200
    learn_from_most: Annotated[
        bool,
        Meta(
            description="leave odd learning windows out (a stop, a fault); not where load comes in steps nobody measures"
        ),
    ] = False
    running_in_h: Annotated[
        float,
        Meta(
            ge=0,
            description="running hours in which a new machine's vibration still falls: its baseline follows, downwards only, "
            "and for the first third only limits raise alarms",
        ),
    ] = 0.0
    decide_every_s: Annotated[float, Meta(gt=0, description="decisions of a machine without bursts")] = 10.0
    starting_s: Annotated[float, Meta(ge=0)] | None = None
    bundle: str | None = None
    nameplate: DataPlate = DataPlate()


class SiteConfig(Table, frozen=True):
    """A whole site file."""

    site: SiteSection
    sources: Annotated[tuple[AnySpec, ...], Meta(min_length=1)]
    machines: Annotated[tuple[MachineSection, ...], Meta(min_length=1)]
    upstream: UpstreamSection | None = None
    sparkplug: SparkplugSection | None = None
    decision: DecisionSection = DecisionSection()


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine with every name resolved.

    Attributes:
        roles: the machine's own channel names (place prefix applied) -> index in the site's channel table.
        burst_sensors: its sensors that send waveforms.
        sums: channels that are the root sum of squares of others: index -> indices of the axes.
    """

    spec: MachineSection
    profile: MachineProfile
    features: FeatureSet
    nameplate: Nameplate
    roles: Mapping[str, int]
    burst_sensors: tuple[str, ...]
    bundle_dir: Path
    sums: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return self.spec.tag

    @property
    def state_rule(self) -> StateRule:
        """How its operating state is read; a start that the site calls short has a short dwell too."""
        rule, starting_s = self.profile.state, self.spec.starting_s
        if starting_s is None:
            return rule
        return msgspec.structs.replace(rule, starting_s=starting_s, dwell_s=min(rule.dwell_s, starting_s))

    @property
    def scale_floors(self) -> list[float]:
        """Of its columns, in transformed units."""
        return [column.scale_floor for column in self.profile.columns]

    @property
    def scale_floor_ratios(self) -> list[float]:
        """Of its columns, of the learned level."""
        return [column.scale_floor_ratio for column in self.profile.columns]


@dataclass(frozen=True, slots=True)
class Site:
    """A site that can run: the config, the process's channel table, its machines."""

    path: Path
    root: Path
    config: SiteConfig
    channels: tuple[Channel, ...]
    first_channels: tuple[int, ...]
    machines: tuple[Machine, ...]

    @property
    def data_dir(self) -> Path:
        """Where the gateway keeps its buffer; a relative path counts from the site file."""
        return (self.path.parent / self.config.site.data_dir).resolve()

    def context(self, position: int, clock: Clock) -> SourceContext:
        """What the source at `position` needs to be opened."""
        return SourceContext(
            config_dir=self.root / "config",
            site=self.config.site.name,
            first_channel=self.first_channels[position],
            clock=clock,
            gateway=self.config.site.gateway,
            place=self.place(f"sources[{position}]"),
        )

    def place(self, table: str) -> Place:
        """A table of the site file; the paths in it count from the file."""
        return Place(self.path, table)


def load_site(path: Path, root: Path) -> Site:
    """Read and resolve a site file.

    Args:
        root: the folder that holds config/ and models/.
    Raises: ConfigError: anything wrong in the site file or a file that it names; all problems at once.
    """
    tree = read_tree(path)
    try:
        config = load(path, SiteConfig)
    except ConfigError as error:
        check = _Check(path, list(error.problems))
        _check_names(tree, root / "config", check)
        raise ConfigError(path, check.in_order()) from None
    return resolve(config, path, root)


def resolve(config: SiteConfig, path: Path, root: Path) -> Site:
    """Give every name in `config` its meaning. Raises: ConfigError, listing all that have none."""
    check = _Check(path)
    _check_names(msgspec.to_builtins(config), root / "config", check)
    channels: list[Channel] = []
    first_channels: list[int] = []
    burst_sensors: set[str] = set()
    for i, source in enumerate(config.sources):
        first_channels.append(len(channels))
        if not check.found_in(f"sources[{i}]"):
            with check.at(f"sources[{i}]"):
                channels.extend(channels_of(source, root / "config"))
                burst_sensors.update(sensor.name for sensor in sensors_of(source, root / "config") if sensor.burst)
    machines = []
    for i, spec in enumerate(config.machines):
        key = f"machines[{i}]"
        if not check.found_in(f"{key}.type"):
            with check.at(f"{key}.type", spec.type):
                machines.append(_machine(spec, root, channels, burst_sensors, check, key))
    check.done()
    return Site(path, root, config, tuple(channels), tuple(first_channels), tuple(machines))


def _check_names(tree: Mapping[str, Any], config_dir: Path, check: _Check) -> None:
    """Whether every name that a site file uses is there, once: sensors, devices, machines, types, bearings.

    Looks at the file's own tables and skips what has not the shape it should have, so that a wrong number somewhere hides no
    wrong name: a person mends the file once.
    """
    devices = sorted(file.stem for file in (config_dir / "devices").glob("*.toml"))
    payloads = payload_names(config_dir)
    types = sorted(file.stem for file in (config_dir / "machines").glob("*.toml"))
    sensors: list[tuple[str, Any]] = []
    complete = True
    for i, source in _tables(tree.get("sources")):
        if source.get("kind") == "replay":
            sensors.append((f"sources[{i}].sensor", source.get("sensor", "recording")))
            continue
        own = _tables(source.get("sensors"))
        complete = complete and bool(own)
        for j, sensor in own:
            key = f"sources[{i}].sensors[{j}]"
            sensors.append((f"{key}.name", sensor.get("name")))
            if isinstance(device := sensor.get("device"), str) and device not in devices:
                check.add(f"{key}.device", _unknown(device, devices), device)
            if isinstance(payload := sensor.get("payload"), str) and payload not in payloads:
                check.add(f"{key}.payload", _unknown(payload, payloads), payload)
    check.unique(sensors)
    _check_endpoints(tree, check)
    machines = _tables(tree.get("machines"))
    check.unique([(f"machines[{i}].tag", machine.get("tag")) for i, machine in machines])
    known = [name for _, name in sensors if isinstance(name, str)]
    for i, machine in machines:
        key = f"machines[{i}]"
        if complete:
            _check_sensors(machine, key, known, check)
        if isinstance(kind := machine.get("type"), str) and kind not in types:
            check.add(f"{key}.type", _unknown(kind, types), kind)
        bearings = machine.get("bearings")
        for place, bearing in bearings.items() if isinstance(bearings, Mapping) else ():
            _orders_of(bearing, config_dir, check, f"{key}.bearings.{place}")


def _orders_of(bearing: object, config_dir: Path, check: _Check, key: str) -> BearingOrders | None:
    """The orders of a site's bearing: the user's own numbers, or the table's by designation; None where either is wrong."""
    if isinstance(bearing, str):
        with check.at(key, bearing):
            return bearing_orders(config_dir, bearing)
        return None
    try:
        return own_orders(bearing)
    except ValueError as error:
        check.add(key, str(error))
        return None


def _check_endpoints(tree: Mapping[str, Any], check: _Check) -> None:
    """An endpoint does one transaction at a time, so it is one source."""
    seen: dict[tuple[object, object], str] = {}
    for i, source in _tables(tree.get("sources")):
        if source.get("kind") != "modbus":
            continue
        where = "serial" if source.get("serial") else "host"
        place = (source.get(where), source.get("port", DEFAULT_PORT) if where == "host" else None)
        if place[0] is not None and place in seen:
            text = f"is the place of {seen[place]} already; put all sensors of one endpoint into one source"
            check.add(f"sources[{i}].{where}", text, str(place[0]))
        seen.setdefault(place, f"sources[{i}]")


def _check_sensors(machine: Mapping[str, Any], key: str, known: list[str], check: _Check) -> None:
    for what in ("sensors", "places"):
        names = machine.get(what)
        for name in names if isinstance(names, Sequence | Mapping) and not isinstance(names, str) else ():
            if isinstance(name, str) and name not in known:
                check.add(f"{key}.{what}", f'"{name}": no source has a sensor of this name.{_choice(name, known)}')


def _tables(found: Any) -> list[tuple[int, Mapping[str, Any]]]:
    """The tables of a list with their places; whatever is none is left out."""
    items = found if isinstance(found, list | tuple) else ()
    return [(i, item) for i, item in enumerate(items) if isinstance(item, Mapping)]


def _machine(
    spec: MachineSection, root: Path, channels: list[Channel], burst_sensors: set[str], check: _Check, key: str
) -> Machine:
    profile = load_machine_profile(root / "config", spec.type)
    roles: dict[str, int] = {}
    for index, channel in enumerate(channels):
        if channel.sensor not in spec.sensors:
            continue
        place = spec.places.get(channel.sensor)
        role = f"{place}_{channel.point}" if place else channel.point
        if role in roles:
            check.add(
                f"{key}.places",
                f"{channel.sensor} and {channels[roles[role]].sensor} both give {role}; "
                f'name their places, such as  places = {{ "{channel.sensor}" = "suction" }}',
            )
        roles[role] = index
    sums = _sums(profile, roles, channels)
    orders = None
    for place, bearing in spec.bearings.items():
        if not check.found_in(f"{key}.bearings.{place}"):
            orders = orders or _orders_of(bearing, root / "config", check, f"{key}.bearings.{place}")
    nameplate = Nameplate(
        rated_speed_rpm=spec.rated_speed_rpm or float("nan"),
        bearing=orders,
        n_vanes=spec.vanes,
        line_frequency_hz=_line_frequency_hz(spec),
        data=spec.nameplate,
    )
    bundle_dir = (
        root / "models" / profile.bundle if spec.bundle is None else (check.path.parent / spec.bundle).resolve()
    )
    if not (bundle_dir / "manifest.json").is_file():
        check.add(f"{key}.bundle", f"{bundle_dir} holds no model bundle; leave bundle out to use the shipped one")
    bursts = tuple(name for name in spec.sensors if name in burst_sensors)
    return Machine(spec, profile, feature_set_of(profile), nameplate, roles, bursts, bundle_dir, sums)


def _sums(profile: MachineProfile, roles: dict[str, int], channels: list[Channel]) -> dict[int, tuple[int, ...]]:
    """The machine's sums of axes, as far as one of its sensors has the axes; each becomes a channel and a role of its own."""
    sums = {}
    for one in profile.sums:
        axes = tuple(roles[axis] for axis in one.axes if axis in roles)
        sensors = {channels[axis].sensor for axis in axes}
        if one.channel in roles or len(axes) < len(one.axes) or len(sensors) > 1:
            continue
        roles[one.channel] = len(channels)
        sums[len(channels)] = axes
        channels.append(replace(channels[axes[0]], point=one.channel))
    return sums


def _line_frequency_hz(spec: MachineSection) -> float:
    if spec.line_frequency_hz is not None:
        return spec.line_frequency_hz
    return nominal_supply_hz(spec.rated_speed_rpm) if spec.rated_speed_rpm else float("nan")


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"not known.{_choice(name, known)}"


def _choice(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, 1, 0.5)
    if close and len(names) > MAX_CHOICES:
        return f" Did you mean {close[0]!r}?"
    return f"{f' Did you mean {close[0]!r}?' if close else ''}  ({', '.join(names) or 'there is none'})"


class _Check:
    """Collects the problems of one site file, each with the line its key stands on."""

    def __init__(self, path: Path, problems: list[Problem] | None = None) -> None:
        self.path = path
        self.problems = problems or []

    def add(self, key: str, text: str, shown: str | None = None) -> None:
        line = key_line(self.path, key) if self.path.is_file() else 0
        self.problems.append(Problem(line, key if shown is None else f'{key} = "{shown}"', text))

    def at(self, key: str, shown: str | None = None) -> _At:
        return _At(self, key, shown)

    def found_in(self, key: str) -> bool:
        """Whether something below `key` is known to be wrong already."""
        return any(re.match(rf"{re.escape(key)}(?![\w\[])", problem.key) for problem in self.problems)

    def unique(self, named: list[tuple[str, Any]]) -> None:
        seen: dict[str, str] = {}
        for key, name in named:
            if not isinstance(name, str):
                continue
            if name in seen:
                line = key_line(self.path, seen[name]) if self.path.is_file() else 0
                where = f"line {line}, {seen[name]}" if line else seen[name]
                self.add(key, f"is used already ({where}); give each its own name", name)
            seen.setdefault(name, key)

    def in_order(self) -> list[Problem]:
        """As they stand in the file."""
        return sorted(self.problems, key=lambda problem: problem.line)

    def done(self) -> None:
        if self.problems:
            raise ConfigError(self.path, self.in_order())


@dataclass(slots=True)
class _At:
    """Turns what goes wrong inside it into a problem at `key`, and lets the check go on."""

    check: _Check
    key: str
    shown: str | None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, ConfigError):
            return False
        for problem in error.problems:
            line = f", line {problem.line}" if problem.line else ""
            self.check.add(self.key, f"{error.path.name}{line}, {problem.key}: {problem.text}", self.shown)
        return True


@dataclass(frozen=True, slots=True)
class SensorInfo:
    """What the agent must know of a sensor without opening its source: how often it is heard, and whether by bursts."""

    name: str
    interval_s: float
    burst: bool
    axes: tuple[str, ...] = ()


def sensors_of(spec: AnySpec, config_dir: Path) -> list[SensorInfo]:
    """The sensors behind one source.

    Raises: ConfigError: a payload or recording file that is missing or wrong.
    """
    if isinstance(spec, ModbusSpec):
        return [SensorInfo(sensor.name, sensor.poll_interval_s, burst=False) for sensor in spec.sensors]
    if not isinstance(spec, MqttSpec):
        return [SensorInfo(spec.sensor, load_recording(config_dir, spec.recording).sample_interval_s, burst=False)]
    payloads = load_payloads(config_dir, [sensor.payload for sensor in spec.sensors])
    infos = []
    for sensor in spec.sensors:
        profile = payloads.get(sensor.payload or "")
        interval_s = sensor.update_interval_s or (profile.update_interval_s if profile is not None else 1.0)
        if isinstance(profile, BurstProfile) or (profile is None and not sensor.points):
            infos.append(SensorInfo(sensor.name, sensor.burst_interval_s, burst=True, axes=sensor.axes))
        else:
            infos.append(SensorInfo(sensor.name, interval_s, burst=False))
    return infos
