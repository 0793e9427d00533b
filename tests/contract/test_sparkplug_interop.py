"""Sparkplug against what we did not write: Google's protoc reads and writes our payloads, and a broker carries a session.

The ids (tck-id-...) are those of the normative statements of Eclipse Sparkplug 3.0.0.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from helpers import wait_until
from msgspec.structs import replace
from paho.mqtt.enums import CallbackAPIVersion

from agent.app import App, sparkplug_of
from agent.clock import SystemClock
from agent.config import SiteConfig, SparkplugSection, load_site, resolve
from agent.notifiers.sparkplug import SparkplugBroker, SparkplugNotifier, last_bd_seq
from firmware_bridge.broker import BrokerKeys, Login
from firmware_bridge.checked import load
from firmware_bridge.errors import ConfigError
from firmware_bridge.sparkplug.node import SparkplugNode
from firmware_bridge.sparkplug.topics import bd_seq_of, rebirth_command
from firmware_bridge.sparkplug.wire import DataType, Metric, Payload, decode, encode

ROOT = Path(__file__).resolve().parents[2]
NOW_MS = 1_763_700_000_000


# ---------------------------------------------------------------------- protoc
def protoc(mode: str, given: bytes) -> bytes:
    binary = shutil.which("protoc")
    if binary is None:
        pytest.fail("this test needs an independent protobuf implementation: apt-get install protobuf-compiler")
    command = [binary, f"--{mode}=hark.sparkplug_b.Payload", f"--proto_path={ROOT / 'tests'}", "sparkplug_b.proto"]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


def metric(text: str) -> str:
    return f"metrics {{\n{text.rstrip()}\n}}\n"


EVERY_TYPE = Payload(
    timestamp_ms=NOW_MS,
    seq=0,
    metrics=[
        Metric(name="int8", datatype=DataType.INT8, value=-128),
        Metric(name="int16", alias=300, datatype=DataType.INT16, value=-2),
        Metric(name="int32", datatype=DataType.INT32, value=-(1 << 31)),
        Metric(name="int64", datatype=DataType.INT64, value=-1),
        Metric(name="uint32", datatype=DataType.UINT32, value=(1 << 32) - 1),
        Metric(name="uint64", datatype=DataType.UINT64, value=(1 << 64) - 1),
        Metric(name="float", datatype=DataType.FLOAT, value=1.5),
        Metric(name="double", timestamp_ms=NOW_MS, datatype=DataType.DOUBLE, value=-0.1),
        Metric(name="boolean", datatype=DataType.BOOLEAN, value=False),
        Metric(name="string", datatype=DataType.STRING, value="24 °C", properties={"Quality": 500, "unit": "°C"}),
        Metric(name="datetime", datatype=DataType.DATETIME, value=NOW_MS),
        Metric(name="bytes", datatype=DataType.BYTES, value=b"\x00\xff"),
        Metric(name="null", datatype=DataType.DOUBLE, is_null=True, is_historical=True),
    ],
)
AS_PROTOC_SEES_IT = (
    f"timestamp: {NOW_MS}\n"
    + metric('  name: "int8"\n  datatype: 1\n  int_value: 4294967168')
    + metric('  name: "int16"\n  alias: 300\n  datatype: 2\n  int_value: 4294967294')
    + metric('  name: "int32"\n  datatype: 3\n  int_value: 2147483648')
    + metric('  name: "int64"\n  datatype: 4\n  long_value: 18446744073709551615')
    + metric('  name: "uint32"\n  datatype: 7\n  int_value: 4294967295')
    + metric('  name: "uint64"\n  datatype: 8\n  long_value: 18446744073709551615')
    + metric('  name: "float"\n  datatype: 9\n  float_value: 1.5')
    + metric(f'  name: "double"\n  timestamp: {NOW_MS}\n  datatype: 10\n  double_value: -0.1')
    + metric('  name: "boolean"\n  datatype: 11\n  boolean_value: false')
    + metric(
        '  name: "string"\n  datatype: 12\n  properties {\n    keys: "Quality"\n    keys: "unit"\n'
        "    values {\n      type: 3\n      int_value: 500\n    }\n"
        '    values {\n      type: 12\n      string_value: "\\302\\260C"\n    }\n  }\n  string_value: "24 \\302\\260C"'
    )
    + metric(f'  name: "datetime"\n  datatype: 13\n  long_value: {NOW_MS}')
    + metric('  name: "bytes"\n  datatype: 17\n  bytes_value: "\\000\\377"')
    + metric('  name: "null"\n  datatype: 10\n  is_historical: true\n  is_null: true')
    + "seq: 0\n"
)


def test_protoc_reads_what_we_write() -> None:
    """Every field under its published number and type, nothing unknown: tck-id-payloads-metric-datatype-value and its like."""
    assert protoc("decode", encode(EVERY_TYPE)).decode() == AS_PROTOC_SEES_IT


def test_we_read_what_protoc_writes() -> None:
    """The other way, with another implementation's habits, and with fields that we step over."""
    assert decode(protoc("encode", AS_PROTOC_SEES_IT.encode())) == EVERY_TYPE
    text = (
        'uuid: "x" body: "y" seq: 255 metrics { alias: 1 is_transient: true int_value: 7 }'
        ' metrics { name: "set" datatype: 16 dataset_value { num_of_columns: 1 columns: "c" types: 3 } }'
    )
    found = decode(protoc("encode", text.encode()))
    assert found == Payload(seq=255, metrics=[Metric(alias=1, value=7), Metric(name="set", datatype=DataType.DATASET)])


def test_protoc_reads_a_whole_session_of_the_node() -> None:
    """Births, data, deaths and commands as they are sent: none holds a field that the published definition does not."""
    node = SparkplugNode("plant", "gw-01")
    node.tell("M-1", {"State": "running", "Score": 0.5, "Alarm/Count": 0}, NOW_MS * 1_000_000)
    messages = [
        node.connecting(),
        *node.connected(NOW_MS * 1_000_000),
        *node.tell("M-1", {"State": None, "Score": 0.25, "Alarm/Count": 2}, NOW_MS * 1_000_000),
        *node.device_lost("M-1", NOW_MS * 1_000_000),
    ]
    payloads = [message.payload for message in messages] + [rebirth_command("plant", "gw-01", NOW_MS * 1_000_000)[1]]
    texts = [protoc("decode", payload).decode() for payload in payloads]
    assert [protoc("encode", text.encode()) for text in texts] == payloads
    assert texts[0] == metric('  name: "bdSeq"\n  datatype: 4\n  long_value: 0')
    assert not any(line.strip()[0].isdigit() for text in texts for line in text.splitlines())


# ---------------------------------------------------------------------- a session over a broker
class Watcher:
    """A SCADA system that only listens: every Sparkplug message in the order in which the broker gives it."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, Payload]] = []
        self.retained = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: setattr(self, "ready", True)
        self.ready = False
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe("spBv1.0/#", 1)
        wait_until(lambda: self.ready, 5.0, "the watcher's subscription")

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        if "/STATE/" not in message.topic and "/NCMD/" not in message.topic:
            self.retained += message.retain
            self.messages.append((message.topic.removeprefix("spBv1.0/plant/"), decode(message.payload)))

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain)

    def topics(self) -> list[str]:
        return [topic for topic, _ in self.messages]

    def until(self, topic: str, count: int = 1, asks: Callable[[], object] = lambda: None) -> Payload:
        """The `count`th message of that topic; `asks` is called meanwhile, as the pipeline would."""
        wait_until(lambda: (asks(), self.topics().count(topic) >= count)[1], 10.0, f"{topic} among {self.topics()}")
        return [payload for heard, payload in self.messages if heard == topic][count - 1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def watcher(broker: Any) -> Iterator[Watcher]:
    made = Watcher(broker.port)
    yield made
    made.close()


def mapping(score: float = 0.4, alarms: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the pipeline says of a machine; the real thing is used by the last test."""
    told = [{"id": name, "code": "C", "severity": "high", "condition": name} for name in alarms]
    return {
        "v": 1, "machine": "M-1", "type": "pump", "utc_ns": NOW_MS * 1_000_000, "state": "running", "speed_bin": 10,
        "watch": "ok", "score_of_limit": score, "alarms": told, "values": {"pressure_bar": 2.5},
    }  # fmt: skip


def publisher(port: int, folder: Path, version: Any = "5", primary_host: str = "") -> SparkplugNotifier:
    broker = SparkplugBroker("127.0.0.1", port, "hark-test", BrokerKeys(), Login(), version=version)
    kept = folder / "sparkplug.bdseq"
    node = SparkplugNode("plant", "gw-01", primary_host=primary_host, last_bd_seq=last_bd_seq(kept))
    return SparkplugNotifier(broker, node, {"M-1": ["vib", "drive"]}, SystemClock(), kept)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_session_in_the_order_of_the_specification(
    broker: Any, watcher: Watcher, tmp_path: Path, version: str
) -> None:
    """tck-id-topics-nbirth-bdseq-matching, -dbirth-order, -ddata-seq-inc, -rebirth-action-2, -intentional-disconnect-ndeath."""
    notifier = publisher(broker.port, tmp_path, version)
    notifier.state("M-1", mapping())
    notifier.start()
    nbirth = watcher.until("NBIRTH/gw-01")
    dbirth = watcher.until("DBIRTH/gw-01/M-1")
    assert (nbirth.seq, bd_seq_of(nbirth), dbirth.seq) == (0, 0, 1)
    names = {metric.name: metric for metric in dbirth.metrics}
    assert names["State"].value == "running"
    assert (names["Alarm/Active"].value, names["Values/pressure_bar"].value, names["Score"].value) == (False, 2.5, 0.4)
    notifier.state("M-1", mapping(score=0.9))
    data = watcher.until("DDATA/gw-01/M-1")
    assert (data.seq, [metric.alias for metric in data.metrics]) == (2, [names["Score"].alias])
    notifier.state("M-1", mapping(alarms=("sensor:vib:silent", "sensor:drive:silent")))
    assert watcher.until("DDEATH/gw-01/M-1").seq == 3
    notifier.state("M-1", mapping())
    assert watcher.until("DBIRTH/gw-01/M-1", 2).seq == 4
    watcher.publish(*rebirth_command("plant", "gw-01", NOW_MS * 1_000_000))
    again = watcher.until("NBIRTH/gw-01", 2)
    assert (again.seq, bd_seq_of(again), watcher.until("DBIRTH/gw-01/M-1", 3).seq) == (0, 0, 1)
    notifier.stop()
    assert bd_seq_of(watcher.until("NDEATH/gw-01")) == 0
    assert watcher.topics() == [
        "NBIRTH/gw-01", "DBIRTH/gw-01/M-1", "DDATA/gw-01/M-1", "DDEATH/gw-01/M-1", "DBIRTH/gw-01/M-1",
        "NBIRTH/gw-01", "DBIRTH/gw-01/M-1", "NDEATH/gw-01",
    ]  # fmt: skip
    assert watcher.retained == 0


KILLED = """
import sys, threading
sys.path[:0] = [{tests!r}, {contract!r}]
from pathlib import Path
from test_sparkplug_interop import mapping, publisher
notifier = publisher({port}, Path({folder!r}))
notifier.state("M-1", mapping())
notifier.start()
threading.Event().wait()
"""


def test_a_killed_gateway_s_will_tells_its_death_and_the_next_session_counts_on(
    broker: Any, watcher: Watcher, tmp_path: Path
) -> None:
    """tck-id-payloads-ndeath-will-message, -ndeath-bdseq, -will-message-payload-bdSeq: also over a restart of the process."""
    script = KILLED.format(
        tests=str(ROOT / "tests"), contract=str(Path(__file__).parent), port=broker.port, folder=str(tmp_path)
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
        assert bd_seq_of(watcher.until("NBIRTH/gw-01")) == 0
        watcher.until("DBIRTH/gw-01/M-1")
        process.send_signal(signal.SIGKILL)
    death = watcher.until("NDEATH/gw-01")
    assert (bd_seq_of(death), death.seq, len(death.metrics)) == (0, None, 1)
    notifier = publisher(broker.port, tmp_path)
    notifier.start()
    assert bd_seq_of(watcher.until("NBIRTH/gw-01", 2)) == 1
    notifier.stop()
    assert bd_seq_of(watcher.until("NDEATH/gw-01", 2)) == 1


def test_a_broker_that_restarts_is_told_everything_again(broker: Any, tmp_path: Path) -> None:
    """A new connection is a new session: births with the next bdSeq, and what changed meanwhile as history."""
    notifier = publisher(broker.port, tmp_path)
    node = notifier._node
    notifier.start()
    wait_until(lambda: node.born, 5.0, "the first births")
    broker.stop(kill=True)
    wait_until(lambda: not node.born, 5.0, "the loss to be noticed")
    for step in range(3):
        notifier.state("M-1", mapping(score=float(step)) | {"utc_ns": (NOW_MS + step) * 1_000_000})
    broker.start()
    wait_until(lambda: node.counters["historical"], 10.0, "the history")
    watcher = Watcher(broker.port)
    watcher.publish(*rebirth_command("plant", "gw-01", NOW_MS * 1_000_000))
    assert bd_seq_of(watcher.until("NBIRTH/gw-01")) == 1
    assert {metric.name: metric.value for metric in watcher.until("DBIRTH/gw-01/M-1").metrics}["Score"] == 2.0
    notifier.stop()
    watcher.close()


def host_state(online: bool, at_ms: int) -> bytes:
    return json.dumps({"online": online, "timestamp": at_ms}).encode()


def test_without_its_primary_host_a_node_is_silent(broker: Any, watcher: Watcher, tmp_path: Path) -> None:
    """tck-id-operational-behavior-edge-node-termination-host-offline and -reconnect, ...-birth-publish-phid-wait."""
    notifier = publisher(broker.port, tmp_path, primary_host="scada")

    def goes_on() -> None:
        notifier.state("M-1", mapping())

    notifier.start()
    watcher.publish("spBv1.0/STATE/scada", host_state(True, 1000), retain=True)
    assert bd_seq_of(watcher.until("NBIRTH/gw-01", asks=goes_on)) == 0
    watcher.publish("spBv1.0/STATE/scada", host_state(False, 2000), retain=True)
    assert bd_seq_of(watcher.until("NDEATH/gw-01", asks=goes_on)) == 0
    wait_until(lambda: (goes_on(), last_bd_seq(tmp_path / "sparkplug.bdseq") == 1)[1], 10.0, "the next connection")
    watcher.publish("spBv1.0/STATE/scada", host_state(True, 3000), retain=True)
    assert bd_seq_of(watcher.until("NBIRTH/gw-01", 2, goes_on)) == 1
    assert watcher.topics().count("NDEATH/gw-01") == 1
    notifier.stop()
    assert bd_seq_of(watcher.until("NDEATH/gw-01", 2)) == 1


def test_a_broker_that_does_not_answer_never_holds_the_agent_up(tmp_path: Path) -> None:
    """The pipeline's thread hands over and goes on; nothing grows without end."""
    notifier = publisher(1, tmp_path)
    notifier.start()
    for i in range(12_000):
        notifier.state("M-1", mapping(score=float(i)))
    assert notifier.dropped["sparkplug_backlog"] > 0
    notifier.stop()


def test_while_the_socket_stands_still_the_newest_waits_and_the_sequence_holds(
    broker: Any, watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is not handed over takes no number and is not forgotten: the next one carries what it would have told."""
    notifier = publisher(broker.port, tmp_path)
    notifier.state("M-1", mapping())
    notifier.start()
    watcher.until("DBIRTH/gw-01/M-1")
    with monkeypatch.context() as patch:
        patch.setattr("agent.notifiers.sparkplug.MAX_UNWRITTEN", 0)
        notifier.state("M-1", mapping(score=5.0))
    assert notifier.dropped["sparkplug_held_back"] == 1
    for score in (5.0, *range(6, 60)):
        notifier.state("M-1", mapping(score=float(score)))
    assert watcher.until("DDATA/gw-01/M-1").metrics[0].value == 5.0
    assert watcher.until("DDATA/gw-01/M-1", 55).seq == 56
    wait_until(lambda: notifier._n_handed == notifier._n_written, 5.0, "every message to be counted as written")
    notifier.stop()


# ---------------------------------------------------------------------- in the agent
HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS"
)


def test_the_agent_is_an_edge_node(broker: Any, watcher: Watcher, tmp_path: Path) -> None:
    """From the site file to SCADA: the table [sparkplug] alone makes every machine a device with its values."""
    (tmp_path / "loop.csv").write_text(f"{HEADER}\n2026-03-09 10:00:00;0.02;0.04;1;0;70;26;230;32\n")
    path = ROOT / "config" / "recordings" / "skab.site.toml"
    config = load(path, SiteConfig)
    source = replace(config.sources[0], path=str(tmp_path / "loop.csv"))
    site = replace(config.site, data_dir=str(tmp_path / "data"))
    section = SparkplugSection(host="127.0.0.1", port=broker.port, group="plant", node="gw-01")
    app = App(resolve(replace(config, sources=(source,), site=site, sparkplug=section), path, ROOT))
    tag = config.machines[0].tag
    app.start()
    wanted = f"DBIRTH/gw-01/{tag}"
    wait_until(
        lambda: any(
            m.name.startswith("Values/") for topic, p in watcher.messages if topic == wanted for m in p.metrics
        ),
        15.0,
        "the machine's values",
    )
    ledger = app.stop()
    assert ledger["failure"] == ""
    watcher.until("NDEATH/gw-01")
    assert watcher.topics()[0] == "NBIRTH/gw-01"


SECTION = '[sparkplug]\nhost = "192.0.2.30"\ngroup = "Plant 1"\n'


def site_with(tmp_path: Path, section: str) -> Path:
    text = (ROOT / "config" / "site.example.toml").read_text("utf-8")
    (tmp_path / "site.toml").write_text(text.replace("[decision]", f"{section}\n[decision]"))
    return tmp_path / "site.toml"


def test_the_site_file_names_the_broker_and_the_node(tmp_path: Path) -> None:
    """The node is the gateway where nothing else is said; the login has the same keys as every broker's."""
    site = load_site(site_with(tmp_path, SECTION), ROOT)
    assert site.config.sparkplug is not None
    notifier = sparkplug_of(site, site.config.sparkplug, SystemClock())
    assert (notifier._node.group, notifier._node.node) == ("Plant 1", "gw-01")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('group = "a/b"', "without + / #"),
        ('grup = "a"', "group"),
        ('password_file = "missing.txt"\nusername = "u"', "cannot be read"),
        ('cert_file = "c.pem"', "key_file belong together"),
    ],
)
def test_a_mistake_in_the_table_is_one_clear_error(tmp_path: Path, line: str, told: str) -> None:
    """File, line, key, and what to write instead."""
    text = SECTION.replace('group = "Plant 1"\n', "") + line if line.startswith("gr") else SECTION + line
    with pytest.raises(ConfigError, match=f"(?s)line .*sparkplug.*{told.replace('+', '[+]')}"):
        sparkplug_of(site := load_site(site_with(tmp_path, text), ROOT), site.config.sparkplug, SystemClock())
