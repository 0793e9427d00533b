"""Finds Modbus devices: hosts of a subnet, units behind an endpoint, what each is. Generators that tell their progress.

Nothing is printed here, and nothing but functions 1 to 4 and 43/14 leaves: all questions go through modbus_link.Link,
which has no others. On a serial line it listens first, and where another master talks it never sends a byte.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.commissioning.evidence import Sample
from firmware_bridge.commissioning.plausible import fit
from firmware_bridge.device import DeviceProfile, Span, Text
from firmware_bridge.errors import BridgeError
from firmware_bridge.modbus_link import BITS_PER_CHARACTER, Link, NoAnswer, Refused, SerialLine, serial_link
from firmware_bridge.poll import PATH_UNAVAILABLE, TARGET_SILENT
from firmware_bridge.registers import decode_text, plan_reads
from firmware_bridge.source import DEFAULT_PORT

U16 = NDArray[np.uint16]
LAST_UNIT = 247
FIRST_UNITS = 32  # an RS-485 line without repeaters has no more: a line's speed is looked for among them
FAR_UNITS = (173, 101, 247)  # who answers to all of these answers to every unit id
PROBE = Span(3, 0, 1)  # data or an exception: both are a sign of life
GATEWAY_CODES = (PATH_UNAVAILABLE, TARGET_SILENT)  # the gateway's own words: nobody there
FIRST_TIMEOUT_S = 0.2
LEAST_TIMEOUT_S = 0.1  # some devices take 60 to 100 ms, and their neighbours' speed says nothing of them
LONGEST_TIMEOUT_S = 3.0
CANARY_TIMEOUT_S = 1.5  # a gateway that says 0B says it after its own patience, mostly a second
PATIENCE = 4.0  # times the slowest answer so far
IDENTIFY_TIMEOUT_S = 0.5
MAX_SILENCES = 3  # a device that does not answer to unknown addresses is asked for no more maps after that many
FIT_AT_LEAST = 6.0  # nats: one value of 32 bits that a running machine would show
LISTEN_S = 5.0
CHARACTERS = 8 + 7  # of a probe and its answer on a serial line
MAX_HOSTS = 1024
CONNECTS_AT_ONCE = 32
CONNECT_TIMEOUT_S = 0.5
SERIAL_SETTINGS = (  # baud rate, parity, in the order of how often they are met
    (19200, "even"), (9600, "none"), (9600, "even"), (19200, "none"), (38400, "none"), (115200, "none"),
)  # fmt: skip


class LineTaken(BridgeError):
    """Another master talks on the serial line: whoever else sends there would garble its transactions."""

    hint = (
        "Two masters cannot share a line. Let Hark listen at a gateway or converter of its own (host = ...), or let the "
        "other master stop, then scan again."
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan is: `done` of `total` steps of like length; `doing` says what is looked at."""

    done: int
    total: int
    doing: str


@dataclass(frozen=True, slots=True)
class Match:
    """A known device file that the answers fit. `named`: the device said so itself; `score`: nats of its values."""

    device: str
    title: str
    named: bool
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class FoundUnit:
    """One device. `everywhere`: it answers to any unit id, as many TCP devices do. `matches`: best first."""

    unit_id: int
    identity: Mapping[str, str]
    matches: tuple[Match, ...]
    everywhere: bool = False


Step = Progress | FoundUnit


# ---------------------------------------------------------------------- hosts
def hosts_of(text: str) -> list[str]:
    """The addresses that `text` means: one host, or every host of a subnet.

    Raises: ValueError: a subnet that is none, or larger than a /22.
    """
    if "/" not in text:
        return [text]
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"{text} is no subnet ({error}); write it as 10.0.0.0/24") from None
    if network.num_addresses > MAX_HOSTS:
        raise ValueError(f"{text} has {network.num_addresses} addresses; scan at most a /22, {MAX_HOSTS} of them")
    return [str(address) for address in network.hosts()] or [str(network.network_address)]


def scan_hosts(hosts: Sequence[str], port: int = DEFAULT_PORT) -> Iterator[Progress | str]:
    """The hosts that accept a connection, each as it is found; at most CONNECTS_AT_ONCE are asked at a time."""
    with ThreadPoolExecutor(CONNECTS_AT_ONCE, "scan") as pool:
        answers = pool.map(lambda host: _accepts(host, port), hosts)
        for number, (host, accepts) in enumerate(zip(hosts, answers, strict=True), 1):
            if accepts:
                yield host
            yield Progress(number, len(hosts), f"{host}:{port}")


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


# ---------------------------------------------------------------------- units
class Patience:
    """How long to wait for an answer: short, and learned from what came.

    Args:
        line_s: what the bytes of a question and its answer take on a serial line.
    """

    def __init__(self, line_s: float = 0.0) -> None:
        self._line_s = line_s
        self._least_s = 0.0  # a gateway that waits for the silent ones, and answers come late before it has given up
        self._slowest_s: float | None = None
        self._n_asked = 0

    @property
    def timeout_s(self) -> float:
        """For the next question."""
        usual_s = FIRST_TIMEOUT_S if self._slowest_s is None else PATIENCE * self._slowest_s
        if self._slowest_s is None and self._n_asked >= FIRST_UNITS:
            usual_s = LEAST_TIMEOUT_S
        return max(self._least_s, min(max(usual_s, LEAST_TIMEOUT_S), FIRST_TIMEOUT_S) + self._line_s)

    def asked(self) -> None:
        """One question."""
        self._n_asked += 1

    def answered(self, after_s: float) -> None:
        """A device's answer."""
        self._slowest_s = max(self._slowest_s or 0.0, after_s - self._line_s)

    def gave_up(self, after_s: float) -> None:
        """A gateway's word that nobody is there; before it comes, the next question only waits in its queue."""
        self._least_s = min(max(self._least_s, 1.5 * after_s), LONGEST_TIMEOUT_S)

    def too_short(self) -> None:
        """An answer came after its time."""
        self._least_s = min(2.0 * self.timeout_s, LONGEST_TIMEOUT_S)


class UnitScan:
    """Which units answer behind one endpoint, and what they are.

    A unit is there when it answers at all, be it by refusing; 0A and 0B are the gateway's own words and nobody's sign of
    life. Where late answers showed that we waited too short, the silent units are asked again.

    Args:
        profiles: the known device files, by their names. line_s: what a question and its answer take on a serial line.
    """

    def __init__(self, link: Link, profiles: Mapping[str, DeviceProfile], line_s: float = 0.0) -> None:
        self._link = link
        self._profiles = profiles
        self._patience = Patience(line_s)
        self._n_late = 0

    def run(self, units: Sequence[int]) -> Iterator[Step]:
        """Each device as it is found, and progress after every unit.

        Raises: OSError: the endpoint cannot be reached.
        """
        if self._link.ids and len(units) > FIRST_UNITS:
            yield Progress(0, len(units), "whether it answers to every unit id")
            if all(self._is_there(unit, CANARY_TIMEOUT_S) for unit in FAR_UNITS):
                yield self._looked_at(units[0], everywhere=True)
                return
        silent = yield from self._pass(units)
        if silent and self._n_late:
            yield from self._pass(silent)

    def _pass(self, units: Sequence[int]) -> Generator[Step, None, list[int]]:
        """Asks each once; gives back who was silent."""
        silent = []
        for number, unit in enumerate(units, 1):
            if self._is_there(unit):
                yield self._looked_at(unit)
            else:
                silent.append(unit)
            yield Progress(number, len(units), f"unit {unit}")
        return silent

    def _is_there(self, unit: int, timeout_s: float | None = None) -> bool:
        for _ in range(2):  # bytes without sense are asked for once more
            try:
                self._ask(unit, PROBE, timeout_s)
            except Refused as refused:
                return refused.code not in GATEWAY_CODES
            except NoAnswer as silence:
                if not silence.garbled:
                    return False
            else:
                return True
        return False

    def _ask(self, unit: int, read: Span, timeout_s: float | None = None) -> U16:
        """One question, and what its answer teaches of how long to wait."""
        self._link.connect()
        n_late = self._link.late
        started_s = time.monotonic()
        try:
            words = self._link.ask(unit, read, timeout_s or self._patience.timeout_s)
        except Refused as refused:
            told = self._patience.gave_up if refused.code in GATEWAY_CODES else self._patience.answered
            told(time.monotonic() - started_s)
            raise
        finally:
            self._patience.asked()
            if self._link.late > n_late:
                self._n_late += 1
                self._patience.too_short()
        self._patience.answered(time.monotonic() - started_s)
        return words

    def _looked_at(self, unit: int, everywhere: bool = False) -> FoundUnit:
        identity = self._identified(unit)
        return FoundUnit(unit, identity, tuple(self._matches(unit, identity)), everywhere)

    def _identified(self, unit: int) -> Mapping[str, str]:
        """What the device says of itself; most say nothing, and some are silent when they are asked."""
        try:
            self._link.connect()
            return self._link.identify(unit, IDENTIFY_TIMEOUT_S)
        except (Refused, NoAnswer):
            return {}

    def _matches(self, unit: int, identity: Mapping[str, str]) -> list[Match]:
        """The device files that fit, best first. Who says its name is held against that one alone."""
        named = {name: profile for name, profile in self._profiles.items() if is_named(profile, identity)}
        words = _Words(lambda read: self._ask(unit, read))
        found = []
        for name, profile in (named or self._profiles).items():
            match = _matched(name, profile, words, name in named)
            if match is not None:
                found.append(match)
        return sorted(found, key=lambda match: (not match.named, -match.score))


class _Words:
    """What one unit holds, each stretch asked for once; after some silences it is asked no more."""

    def __init__(self, ask: Callable[[Span], U16]) -> None:
        self._ask = ask
        self._answers: dict[Span, U16 | None] = {}
        self._n_silences = 0

    def read(self, span: Span) -> U16 | None:
        """The words; None where they are refused or not answered."""
        if span not in self._answers and self._n_silences < MAX_SILENCES:
            self._answers[span] = None
            try:
                self._answers[span] = self._ask(span)
            except Refused:
                pass
            except NoAnswer:
                self._n_silences += 1
        return self._answers.get(span)

    def sample(self, profile: DeviceProfile) -> Sample:
        """One poll of a map: what of it is answered."""
        answers = [(span, self.read(span)) for span in plan_reads(profile)]
        return {
            (span.function, span.address + i): int(word)
            for span, words in answers
            if words is not None
            for i, word in enumerate(words)
        }


def is_named(profile: DeviceProfile, identity: Mapping[str, str]) -> bool:
    """Whether a device says of itself that it is one of these: the file's own words for it, else vendor and model."""
    said = " ".join(identity.values()).lower()
    return all(word.lower() in said for word in profile.identification or (profile.vendor, profile.model))


def _matched(name: str, profile: DeviceProfile, words: _Words, named: bool) -> Match | None:
    """How far one device file fits."""
    said = next((text for text in profile.texts if text.equals and _says(text, profile, words)), None)
    sample = words.sample(profile)
    if not sample and not named and said is None:
        return None
    found = fit(profile, [sample])
    named_by = "it says so itself; " if named else f'its {said.name} is "{said.equals}"; ' if said is not None else ""
    if not named_by and found.score < FIT_AT_LEAST:
        return None
    doubt = "; hark read shows what its map has wrong" if 2 * found.n_usual <= found.n_told else ""
    return Match(name, profile.title, bool(named_by), found.score, f"{named_by}{found.reason}{doubt}")


def _says(text: Text, profile: DeviceProfile, words: _Words) -> bool:
    letters = words.read(profile.text_span(text))
    return letters is not None and decode_text(map(int, letters), text) == text.equals


# ---------------------------------------------------------------------- serial lines
def scan_line(
    device: str,
    settings: Sequence[tuple[int, str]],
    units: Sequence[int],
    profiles: Mapping[str, DeviceProfile],
    listen_s: float = LISTEN_S,
) -> Iterator[Step | SerialLine]:
    """Listens, then asks the units with each of the settings; the first that anybody answers to is told and kept.

    Raises: LineTaken: bytes were heard, nothing was sent. OSError: no such port, or not ours.
    """
    yield from _silent_line(device, listen_s)
    first = [unit for unit in units if unit <= FIRST_UNITS] or list(units)
    for baud_rate, parity in settings:
        line = SerialLine(device, baud_rate, parity)
        link = serial_link(line)
        scan = UnitScan(link, profiles, CHARACTERS * BITS_PER_CHARACTER / baud_rate)
        asked = units if len(settings) == 1 else first
        heard = False
        try:
            for step in scan.run(asked):
                if isinstance(step, FoundUnit) and not heard:
                    heard = True
                    yield line
                yield step
            if heard:
                yield from scan.run([unit for unit in units if unit not in set(asked)])
                return
        finally:
            link.close()


def _silent_line(device: str, listen_s: float) -> Iterator[Progress]:
    """Hears at any speed: a byte at the wrong one is garbled, and a byte all the same.

    Raises: LineTaken: somebody talks.
    """
    link = serial_link(SerialLine(device, *SERIAL_SETTINGS[1]))
    link.connect()
    try:
        n_slices = math.ceil(listen_s)
        for number in range(n_slices):
            if link.listen(listen_s / n_slices):
                raise LineTaken(f"{device}: another master talks on this line; nothing was sent")
            yield Progress(number + 1, n_slices, "listening")
    finally:
        link.close()


# ---------------------------------------------------------------------- what to write
def site_lines(name: str, place: Mapping[str, str | int], units: Sequence[FoundUnit]) -> list[str]:
    """The lines of a site file for what was found: one source, its devices below it."""
    lines = ["[[sources]]", 'kind = "modbus"', f'name = "{name}"']
    lines += [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in place.items()]
    for unit in units:
        lines.append("")
        if not unit.matches:
            lines.append(f"# unit {unit.unit_id} answers; no file of config/devices fits it")
            continue
        device = unit.matches[0].device
        lines += ["[[sources.sensors]]", f'name = "{device.split("_")[-1]}-{unit.unit_id}"']
        lines += [f'device = "{device}"   # {unit.matches[0].reason}', f"unit_id = {unit.unit_id}"]
    return lines
