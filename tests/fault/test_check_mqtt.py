"""`hark check` on sensors that publish by themselves: silence of a slow one is no fault, a wrong path is, and each says why."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from agent.__main__ import run
from agent.check import _for_a_look
from firmware_bridge.source import MqttSensor, MqttSpec

SITE = """
[site]
name = "s"
gateway = "g"
data_dir = "data"
[[sources]]
kind = "mqtt"
name = "plant"
host = "{host}"
port = {port}
"""
SENSOR = """
[[sources.sensors]]
name = "{name}"
payload = "shelly_pro_3em"
topic = "{name}/em:0"
update_interval_s = {interval_s}
{more}
"""
MACHINE = """
[[machines]]
tag = "M-1"
type = "motor"
sensors = ["good"]
"""
# what each sensor publishes, how often it should, what else its table says, and what is told of it
SENSORS = {
    "good": ('{"total_act_power": 1533, "a_voltage": 230}', 1, "", "ok      sensor good: voltage_l1_v 230, active_power_kw 1.533"),
    "slow": (
        None, 600, "",
        "ok      sensor slow: subscribed; nothing of it on slow/em:0 in 3 s, it publishes every 600 s",
    ),
    "dead": (
        None, 1, "",
        "PROBLEM sensor dead: nothing of it on dead/em:0 in 3 s; check its power, its topic and its own login at the broker",
    ),
    "path": (
        "1533", 1, "",
        "PROBLEM sensor path: nothing of it on path/em:0 in 3 s, but messages without its values; check select, root and the "
        "paths of its payload",
    ),
    "root": (
        '{"a_voltage": 230}', 1, 'root = "elsewhere"',
        "PROBLEM sensor root: nothing of it on root/em:0 in 3 s, but messages without its values; check select, root and the "
        "paths of its payload",
    ),
    "text": (
        "{", 1, "",
        "PROBLEM sensor text: its messages are dropped: message is no JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1); check its payload file",
    ),
    "number": (
        '{"a_voltage": "n/a"}', 1, "",
        "PROBLEM sensor number: voltage_l1_v BAD: no numbers; check the paths in the payload file against a message; good: none",
    ),
    "range": (
        '{"a_voltage": 23000, "b_voltage": 230}', 1, "",
        "PROBLEM sensor range: voltage_l1_v BAD_RANGE: impossible values; check scale and plausible in the payload file, or the "
        "range in points; good: voltage_l2_v 230",
    ),
}  # fmt: skip


@contextmanager
def publishing(broker: Any, messages: Mapping[str, str]) -> Iterator[None]:
    """The same messages, by topic, every 50 ms."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect(broker.host, broker.port)
    client.loop_start()
    stop = threading.Event()

    def body() -> None:
        while not stop.wait(0.05):
            for topic, payload in messages.items():
                client.publish(topic, payload, 1)

    thread = threading.Thread(target=body)
    thread.start()
    yield
    stop.set()
    thread.join()
    client.disconnect()
    client.loop_stop()


def test_each_sensor_is_told_what_is_wrong_with_it_and_nothing_else(
    broker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commissioning is done with this command and a cup of coffee; three seconds must not blame a ten-minute sensor."""
    path = tmp_path / "site.toml"
    tables = [SENSOR.format(name=name, interval_s=s, more=more) for name, (_, s, more, _) in SENSORS.items()]
    path.write_text(SITE.format(host=broker.host, port=broker.port) + "".join(tables) + MACHINE, "utf-8")
    with publishing(broker, {f"{name}/em:0": text for name, (text, *_) in SENSORS.items() if text is not None}):
        code = run(["check", str(path)])
    lines = [line for line in capsys.readouterr().out.splitlines() if " sensor " in line]
    assert lines == [says for *_, says in SENSORS.values()]
    assert code == 3, "one sensor does not answer"


def test_a_look_takes_no_share_of_the_running_agents_messages() -> None:
    """A shared subscription gives each message to one of its group: `hark check` must not be one of them."""
    sensor = MqttSensor(name="s", payload="tasmota_energy", topic="$share/hark/tele/+/SENSOR")
    looked = _for_a_look(MqttSpec(name="b", host="h", sensors=(sensor,)))
    assert isinstance(looked, MqttSpec)
    assert [sensor.topic for sensor in looked.sensors] == ["tele/+/SENSOR"]
    assert looked.session_expiry_s == 0


def test_an_unknown_payload_is_told_with_the_line_of_the_site_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an unknown device is."""
    path = tmp_path / "site.toml"
    sensor = SENSOR.format(name="good", interval_s=1, more="").replace("pro_3em", "pro3em")
    path.write_text(SITE.format(host="h", port=1883) + sensor + MACHINE, "utf-8")
    assert run(["check", str(path)]) == 2
    told = capsys.readouterr().err.splitlines()[1]
    assert told.startswith('  line 14   sources[0].sensors[0].payload = "shelly_pro3em": not known. Did you mean')
