"""The commissioning verbs: scan finds devices and topics, read shows what one says and what its map has wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from firmware_bridge.broker import BrokerKeys, Place
from firmware_bridge.checked import key_line, read_tree
from firmware_bridge.commissioning.live import LiveDevice, good, rows
from firmware_bridge.commissioning.meter import Meter
from firmware_bridge.commissioning.plausible import Ranking, fit
from firmware_bridge.commissioning.printed import (
    decoded,
    message_lines,
    payload_shown,
    proposal_lines,
    ranking_lines,
    table,
    topic_lines,
    unit_lines,
)
from firmware_bridge.commissioning.scan import (
    LAST_UNIT,
    SERIAL_SETTINGS,
    FoundUnit,
    Progress,
    UnitScan,
    hosts_of,
    scan_hosts,
    scan_line,
    site_lines,
)
from firmware_bridge.commissioning.sniff import SNIFF_S, Heard, Listener, payload_lines, sensor_lines, sniff
from firmware_bridge.device import DeviceProfile, load_device
from firmware_bridge.errors import ConfigError, Problem, SourceLost
from firmware_bridge.modbus_link import SerialLine, tcp_link
from firmware_bridge.mqtt_sensors import Sensors
from firmware_bridge.payload import load_payload, load_payloads, payload_names
from firmware_bridge.roots import find_root
from firmware_bridge.source import DEFAULT_PORT, AnySpec, ModbusSensor, ModbusSpec, MqttSensor, MqttSpec
from firmware_bridge.sources.modbus import link_of
from firmware_bridge.sources.mqtt import channels_of
from firmware_bridge.topics import unshared

scan = typer.Typer(help="find Modbus devices and MQTT topics, and what to write for them", add_completion=False)

Root = Annotated[Path | None, typer.Option(help="the folder that holds config/ and models/")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
CONNECT_S = 2.0
FOLLOW_S = 1.0
MQTT_WAIT_S = 60.0
READ_ONLY = "only functions 1 to 4 and 43/14 are sent, and nothing is written"


class Parity(StrEnum):
    """Of a serial line."""

    EVEN = "even"
    ODD = "odd"
    NONE = "none"


# ---------------------------------------------------------------------- scan modbus
@dataclass(slots=True)
class _Endpoint:
    """A host or a line, and who answers there. `place`: the keys that say so in a site file."""

    where: str
    place: Mapping[str, str | int]
    units: list[FoundUnit] = field(default_factory=list)

    @property
    def toml(self) -> list[str]:
        name = "line-" + "".join(letter if letter.isalnum() else "-" for letter in self.where).strip("-").lower()
        return site_lines(name[:64], self.place, self.units)


@scan.command("modbus")
def scan_modbus(
    target: Annotated[
        str, typer.Argument(help="host or host:port, a subnet up to a /22, or a serial port as /dev/ttyUSB0")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535)] = DEFAULT_PORT,
    units: Annotated[str, typer.Option(help="unit ids, such as 1-32,100")] = f"1-{LAST_UNIT}",
    rtu: Annotated[bool, typer.Option("--rtu", help="the host passes serial frames on as they are")] = False,
    baud: Annotated[int | None, typer.Option(help="of a serial line; left out: the usual ones in turn")] = None,
    parity: Annotated[Parity | None, typer.Option(help="of a serial line")] = None,
    json_: Json = False,
    root: Root = None,
) -> int:
    """Find the devices of a host, a subnet or a serial line, and what each is. Reads only."""
    asked = _unit_ids(units)
    profiles = _profiles(find_root(root) / "config")
    with Meter("scan") as meter:
        if target.startswith("/"):
            endpoints = _scan_line(target, _settings(baud, parity), asked, profiles, meter)
        else:
            target, port = _host_and_port(target, port)
            endpoints = _scan_hosts(_hosts(target), target, port, rtu, asked, profiles, meter)
    if json_:
        _print_json({"endpoints": [_as_dict(endpoint) for endpoint in endpoints]})
    else:
        print("\n".join(line for endpoint in endpoints for line in _endpoint_lines(endpoint)))
    return 0 if any(endpoint.units for endpoint in endpoints) else 1


def _unit_ids(text: str) -> list[int]:
    """1-3,100 as 1, 2, 3, 100."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()) or not 1 <= int(first) <= int(last or first) <= 255:
            raise typer.BadParameter(f"{text!r}: write unit ids from 1 to {LAST_UNIT}, such as 1-32,100")
        found += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(found))


def _host_and_port(target: str, default_port: int) -> tuple[str, int]:
    """The parts of 10.0.0.5:1502. Raises: BadParameter: what follows the colon is no port."""
    host, _, port = target.partition(":")
    if port and not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise typer.BadParameter(f"{target!r}: write it as host or host:port")
    return host, int(port or default_port)


def _hosts(target: str) -> list[str]:
    try:
        return hosts_of(target)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _settings(baud: int | None, parity: Parity | None) -> Sequence[tuple[int, str]]:
    """The line settings to try: those that agree with what is given, else what is given."""
    fitting = [s for s in SERIAL_SETTINGS if baud in (None, s[0]) and parity in (None, s[1])]
    if baud is not None and parity is not None:
        return [(baud, parity.value)]
    return fitting or [(baud or 19200, parity.value if parity else "even")]


def _profiles(config_dir: Path) -> dict[str, DeviceProfile]:
    """Every device file. Raises: ConfigError: one that is wrong."""
    names = sorted(found.stem for found in (config_dir / "devices").glob("*.toml"))
    return {name: load_device(config_dir, name) for name in names}


def _scan_hosts(
    hosts: Sequence[str], target: str, port: int, rtu: bool, units: Sequence[int],
    profiles: Mapping[str, DeviceProfile], meter: Meter,
) -> list[_Endpoint]:  # fmt: skip
    """Raises: SourceLost: nobody there."""
    there = list(hosts)
    if len(hosts) > 1:
        typer.echo(
            f"{target}: asks {len(hosts)} addresses for port {port}, then {len(units)} unit ids wherever somebody answers; "
            f"{READ_ONLY}",
            err=True,
        )
        there = []
        for step in scan_hosts(hosts, port):
            if isinstance(step, Progress):
                meter.step(step.done, step.total, step.doing)
            else:
                there.append(step)
    if not there:
        raise SourceLost(
            f"{target}: nobody takes connections on port {port}. Check the subnet, the port and the network"
        )
    return [_scan_host(host, port, rtu, units, profiles, meter) for host in there]


def _scan_host(
    host: str, port: int, rtu: bool, units: Sequence[int], profiles: Mapping[str, DeviceProfile], meter: Meter
) -> _Endpoint:
    place: dict[str, str | int] = {"host": host} | ({"port": port} if port != DEFAULT_PORT else {})
    endpoint = _Endpoint(f"{host}:{port}", place | ({"framing": "rtu"} if rtu else {}))
    link = tcp_link(host, port, CONNECT_S, rtu)
    try:
        _collect(UnitScan(link, profiles).run(units), endpoint, meter)
    except OSError as error:
        raise SourceLost(
            f"{endpoint.where}: no connection ({error.strerror or error}). Check power, cable, address and port; "
            f"hark scan modbus takes a whole subnet too, such as 10.0.0.0/24"
        ) from None
    finally:
        link.close()
    return endpoint


def _scan_line(
    device: str, settings: Sequence[tuple[int, str]], units: Sequence[int], profiles: Mapping[str, DeviceProfile],
    meter: Meter,
) -> list[_Endpoint]:  # fmt: skip
    endpoint = _Endpoint(device, {"serial": device})
    try:
        _collect(scan_line(device, settings, units, profiles), endpoint, meter)
    except OSError as error:
        raise SourceLost(
            f"{device}: cannot be opened ({error.strerror or error}). Check the adapter's cable, the name (ls "
            f"/dev/serial/by-id) and that no other program has it open"
        ) from None
    return [endpoint]


def _collect(steps: Iterator[Progress | FoundUnit | SerialLine], endpoint: _Endpoint, meter: Meter) -> None:
    for step in steps:
        if isinstance(step, Progress):
            meter.step(step.done, step.total, f"{endpoint.where}, {step.doing}")
        elif isinstance(step, FoundUnit):
            endpoint.units.append(step)
        else:
            endpoint.where = str(step)
            endpoint.place = {"serial": step.device, "baud_rate": step.baud_rate, "parity": step.parity}


def _endpoint_lines(endpoint: _Endpoint) -> Iterator[str]:
    yield endpoint.where
    if not endpoint.units:
        yield "  no unit answers; check the unit ids on the labels, wiring and termination, and a gateway's own settings"
        return
    for unit in endpoint.units:
        yield from unit_lines(unit)
    yield from ("", "# for the site file", *endpoint.toml)


def _as_dict(endpoint: _Endpoint) -> dict[str, Any]:
    return {"where": endpoint.where, "place": endpoint.place, "units": endpoint.units, "toml": endpoint.toml}


# ---------------------------------------------------------------------- scan mqtt
@scan.command("mqtt")
def scan_mqtt(
    broker: Annotated[str, typer.Argument(help="host or host:port")],
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="how long to listen")] = SNIFF_S,
    topic: Annotated[str, typer.Option(help="only these topics, such as plant/#")] = "#",
    username: Annotated[str | None, typer.Option()] = None,
    password_file: Annotated[Path | None, typer.Option(help="a file that holds nothing but the password")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="turns TLS on; the authority that signed the broker")] = None,
    json_: Json = False,
    root: Root = None,
) -> int:
    """Listen to a broker: topics, what they carry, how often, which quantity each number may be. Publishes nothing."""
    config_dir = find_root(root) / "config"
    keys = BrokerKeys(
        username=username,
        password_file=str(password_file) if password_file else None,
        ca_file=str(ca_file) if ca_file else None,
    )
    host, port = _host_and_port(broker, 8883 if ca_file else 1883)
    heard = Heard()
    with (
        Listener(host, port, keys, [topic], Place(Path.cwd() / "-")) as listener,
        Meter("scan") as meter,
    ):
        for step in sniff(listener, load_payloads(config_dir, payload_names(config_dir)), seconds):
            if isinstance(step, Progress):
                meter.step(step.done, step.total, step.doing)
            else:
                heard = step
    lost = {"beyond": heard.n_beyond, "dropped": listener.n_dropped, "too_large": listener.n_too_large}
    if json_:
        _print_json({"broker": broker, "seconds": seconds, "topics": _topics(heard), "left_out": lost})
    else:
        print("\n".join([*topic_lines(heard), *proposal_lines(heard)]) or f"{broker}: nothing in {seconds:g} s")
        for what, count in lost.items():
            if count:
                print(f"left out, {what}: {count} messages")
    return 0 if heard.topics else 1


def _topics(heard: Heard) -> list[dict[str, Any]]:
    return [
        {
            "topic": topic.topic, "form": topic.shape.form, "messages": topic.n, "retained": topic.n_retained,
            "rate_hz": topic.rate_hz, "bytes": [topic.smallest_bytes, topic.largest_bytes],
            "last": payload_shown(topic.last), "waveforms": topic.shape.waveforms, "payloads": heard.payloads[topic.topic],
            "quantities": [
                {"path": path, "low": number.low, "high": number.high, "last": number.last, "guess": proposal}
                for (path, proposal), number in zip(topic.guesses, topic.shape.quantities.values(), strict=True)
            ],
            "toml": _topic_toml(heard, topic.topic),
        }
        for topic in sorted(heard.topics.values(), key=lambda t: t.topic)
    ]  # fmt: skip


def _topic_toml(heard: Heard, topic: str) -> list[str]:
    known, found = heard.payloads[topic], heard.topics[topic]
    if known or found.shape.form in ("burst", "readings"):
        return sensor_lines(found, known[0] if known else "")
    return payload_lines(found)


# ---------------------------------------------------------------------- read
def read(
    site_file: Annotated[Path | None, typer.Argument(help="the site's TOML file")] = None,
    name: Annotated[
        str | None, typer.Argument(help="a sensor of it, or a machine's tag for all of its sensors")
    ] = None,
    device: Annotated[str | None, typer.Option(help="a file of config/devices, instead of a site file")] = None,
    host: Annotated[str | None, typer.Option(help="with --device: a Modbus TCP host")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = DEFAULT_PORT,
    rtu: Annotated[bool, typer.Option("--rtu", help="the host passes serial frames on as they are")] = False,
    serial: Annotated[str | None, typer.Option(help="with --device: a serial port instead of a host")] = None,
    baud: Annotated[int, typer.Option(help="of the serial line")] = 19200,
    parity: Annotated[Parity, typer.Option(help="of the serial line")] = Parity.EVEN,
    unit: Annotated[int, typer.Option(min=1, max=255, help="with --device: the unit id")] = 1,
    follow: Annotated[bool, typer.Option("--follow", help="again and again, until Ctrl-C")] = False,
    polls: Annotated[int | None, typer.Option(min=1, help="stop after so many")] = None,
    json_: Json = False,
    root: Root = None,
) -> int:
    """Show what a sensor says now, raw and decoded, and what its map has wrong. Reads only."""
    config_dir = find_root(root) / "config"
    times = polls or (None if follow else 1)
    if device is not None:
        spec = _valid(
            lambda: ModbusSpec(
                name="read", sensors=(ModbusSensor(name=device, device=device, unit_id=unit),), host=host, port=port,
                framing="rtu" if rtu else "tcp", serial=serial, baud_rate=baud, parity=parity.value,
            )
        )  # fmt: skip
        return _read_modbus(spec, spec.sensors[0], config_dir, times, json_)
    if site_file is None or name is None:
        raise typer.BadParameter("write a site file and a sensor of it, or --device, --host (or --serial) and --unit")
    tree = read_tree(site_file)
    names = _sensors_of_machine(tree, name)
    if not names:
        return _read_sensor(site_file, tree, name, config_dir, times, json_)
    code, done = 0, 0
    while times is None or done < times:
        if done:
            time.sleep(FOLLOW_S)
        done += 1
        code = max(_read_or_say(site_file, tree, sensor, config_dir, json_) for sensor in names)
    return code


def _sensors_of_machine(tree: Mapping[str, Any], tag: str) -> list[str]:
    """The sensors that the site file names for a machine; empty where no machine has this tag."""
    machines = [machine for machine in tree.get("machines", []) if machine.get("tag") == tag]
    return [str(sensor) for machine in machines for sensor in machine.get("sensors", [])]


def _read_or_say(site_file: Path, tree: Mapping[str, Any], sensor: str, config_dir: Path, json_: bool) -> int:
    """One of several: one that says nothing does not hide the others."""
    try:
        return _read_sensor(site_file, tree, sensor, config_dir, 1, json_)
    except SourceLost as lost:
        _print_json({"sensor": sensor, "lost": str(lost)}) if json_ else print(f"{sensor}: {lost}")
        return lost.exit_code


def _read_sensor(
    site_file: Path, tree: Mapping[str, Any], sensor: str, config_dir: Path, times: int | None, json_: bool
) -> int:
    place, found = _sensor_of(site_file, tree, sensor)
    if isinstance(found, ModbusSpec):
        return _read_modbus(found, next(s for s in found.sensors if s.name == sensor), config_dir, times, json_)
    if isinstance(found, MqttSpec):
        site = str(tree.get("site", {}).get("name", ""))
        return _read_mqtt(found, sensor, site, config_dir, place, times, json_)
    raise typer.BadParameter(f"{sensor} is a recording; play it with  hark replay")


def _valid(make: Callable[[], ModbusSpec]) -> ModbusSpec:
    try:
        return make()
    except ValueError as error:
        raise typer.BadParameter(str(error).replace("a modbus source has", "write")) from None


def _sensor_of(site_file: Path, tree: Mapping[str, Any], sensor: str) -> tuple[Place, AnySpec]:
    """The source that has this sensor.

    Raises: ConfigError: no such sensor, or a source that is wrong.
    """
    known: list[str] = []
    for position, table_ in enumerate(tree.get("sources", [])):
        key = f"sources[{position}]"
        try:
            spec: AnySpec = msgspec.convert(table_, AnySpec)
        except msgspec.ValidationError as error:
            text = f"{error}; hark check names every mistake"
            raise ConfigError(site_file, [Problem(key_line(site_file, key), key, text)]) from None
        names = [s.name for s in spec.sensors] if isinstance(spec, ModbusSpec | MqttSpec) else [spec.sensor]
        if sensor in names:
            return Place(site_file, key), spec
        known += names
    text = f"not known; it has {', '.join(known) or 'none'}"
    raise ConfigError(site_file, [Problem(0, f"sensor {sensor!r}", text)])


# ---------------------------------------------------------------------- read: Modbus
def _read_modbus(spec: ModbusSpec, sensor: ModbusSensor, config_dir: Path, times: int | None, json_: bool) -> int:
    link = link_of(spec)
    device = LiveDevice(link, spec, sensor, load_device(config_dir, sensor.device))
    code, done = 0, 0
    try:
        while times is None or done < times:
            if done:
                time.sleep(min(sensor.poll_interval_s, device.profile.update_interval_s))
            done += 1
            code = _read_once(device, sensor, json_, with_ranking=times == 1)
    finally:
        link.close()
    return code


def _read_once(device: LiveDevice, sensor: ModbusSensor, json_: bool, with_ranking: bool) -> int:
    sample = device.poll()
    found, fitting = rows(device.profile, sample), fit(device.profile, [sample])
    fine = good(found) and fitting.n_usual == fitting.n_told
    ranking = device.ranking() if with_ranking and not fine else None
    if json_:
        _print_json({"sensor": device.name, "device": sensor.device, "where": device.where, "points": found,
                     "ranking": _ranking(ranking)})  # fmt: skip
    else:
        print("\n".join([device.where, *table(found)]))
        if ranking is not None:
            print("\n".join(["", *ranking_lines(device.name, ranking)]))
    right = ranking is None or (ranking.best.as_written and not ranking.ambiguous)
    return 0 if good(found) and right else 1


def _ranking(ranking: Ranking | None) -> dict[str, Any] | None:
    if ranking is None:
        return None
    return {
        "ambiguous": ranking.ambiguous,
        "advice": ranking.advice,
        "candidates": [
            {
                "changes": candidate.changes, "word_order": candidate.word_order, "weight": candidate.weight,
                "reason": candidate.reason, "values": candidate.values,
            }
            for candidate in ranking.candidates
        ],
    }  # fmt: skip


# ---------------------------------------------------------------------- read: MQTT
def _read_mqtt(
    spec: MqttSpec, sensor: str, site: str, config_dir: Path, place: Place, times: int | None, json_: bool
) -> int:
    mine: MqttSensor = next(s for s in spec.sensors if s.name == sensor)
    alone = msgspec.structs.replace(spec, sensors=(mine,))
    channels = [channel.point for channel in channels_of(alone, config_dir)]
    payloads = {mine.payload: load_payload(config_dir, mine.payload)} if mine.payload else {}
    sensors = Sensors(alone, site, 0, payloads)
    told = 0
    with Listener(spec.host, spec.port, spec, [unshared(topic) for topic in sensors.filters], place) as listener:
        for message in listener.messages(MQTT_WAIT_S if times is not None else float("inf")):
            if message is None:
                continue
            found = [decoded(measurement, channels) for measurement in sensors.hear(message)]
            said = {"sensor": sensor, "topic": message.topic, "payload": payload_shown(message.payload), "decoded": found,
                    "trouble": sensors.tally.troubles.get(sensor, "")}  # fmt: skip
            if json_:
                _print_json(said)
            else:
                print("\n".join(message_lines(said)))
            told += 1
            if told == times:
                return 0 if found else 1
    raise SourceLost(
        f"{sensor}: no message on {', '.join(sensors.filters)} in {MQTT_WAIT_S:.0f} s. Check that it publishes there: "
        f"hark scan mqtt {spec.host}:{spec.port}"
    )


def _print_json(value: Any) -> None:
    """NaN as null."""
    print(msgspec.json.encode(value).decode(), flush=True)
