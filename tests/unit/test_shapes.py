"""What the messages of an unknown topic are, and which quantity each number in them may be."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from firmware_bridge.commissioning.shapes import MAX_QUANTITIES, Quantity, Shape, form_of, guess, joined
from firmware_bridge.jsonpath import JsonPath
from firmware_bridge.messages import Message
from firmware_bridge.payload import BurstProfile, SparkplugProfile, load_payload, payload_names
from firmware_bridge.sparkplug.wire import DataType, Metric, Payload, encode

CONFIG = Path(__file__).resolve().parents[2] / "config"

# name of a number, lowest, highest -> what it is, scale and offset to our unit
NAMES: list[tuple[str, float, float, str, float, float]] = [
    ("temperature", 34.1, 35.0, "temperature_degc", 1, 0),
    ("Temp", 41.0, 44.0, "temperature_degc", 1, 0),
    ("sensor.tempC", 41.0, 44.0, "temperature_degc", 1, 0),
    ("tempF", 104.0, 106.0, "temperature_degc", 5 / 9, -160 / 9),
    ("motorTemp", 108.0, 112.0, "temperature_degc", 5 / 9, -160 / 9),
    ("temp_K", 313.0, 315.0, "temperature_degc", 1, -273.15),
    ("bearing_temperature_de", 51.0, 52.0, "temperature_de_degc", 1, 0),
    ("sensor_data.x_velocity_mm_sec", 0.5, 4.5, "velocity_rms_x_mm_s", 1, 0),
    ("vRMS", 1.2, 1.3, "velocity_rms_mm_s", 1, 0),
    ("velocity_ips", 0.03, 0.05, "velocity_rms_mm_s", 25.4, 0),
    ("vibration", 1.2, 1.4, "velocity_rms_mm_s", 1, 0),
    ("severity", 2.2, 2.4, "velocity_rms_mm_s", 1, 0),
    ("sensor_data.x_rms_ACC_G", 0.01, 0.09, "acceleration_rms_x_g", 1, 0),
    ("aRMS_z", 0.11, 0.12, "acceleration_rms_z_g", 1, 0),
    ("accel_z_mg", 40.0, 50.0, "acceleration_rms_z_g", 1e-3, 0),
    ("acc_ms2", 1.1, 1.9, "acceleration_rms_g", 1 / 9.80665, 0),
    ("kurtosis", 3.0, 3.2, "kurtosis_ratio", 1, 0),
    ("crest_factor", 4.0, 4.4, "crest_ratio", 1, 0),
    ("a_voltage", 231.0, 232.0, "voltage_l1_v", 1, 0),
    ("voltage_l2", 229.0, 231.0, "voltage_l2_v", 1, 0),
    ("ENERGY.Voltage", 235.0, 235.0, "voltage_v", 1, 0),
    ("b_current", 2.2, 2.2, "current_l2_a", 1, 0),
    ("motor_amps", 11.9, 12.1, "current_a", 1, 0),
    ("current_mA", 810.0, 830.0, "current_a", 1e-3, 0),
    ("c_pf", 0.97, 0.97, "power_factor_l3_ratio", 1, 0),
    ("PowerFactor", 0.83, 0.84, "power_factor_ratio", 1, 0),
    ("ENERGY.Factor", 0.08, 0.9, "power_factor_ratio", 1, 0),
    ("total_act_power", 1.5, 1.6, "active_power_kw", 1, 0),
    ("power_W", 1533.0, 1540.0, "active_power_kw", 1e-3, 0),
    ("ENERGY.Total", 263.0, 264.0, "energy_kwh", 1, 0),
    ("a_freq", 50.0, 50.0, "frequency_l1_hz", 1, 0),
    ("rpm", 1460.0, 1462.0, "shaft_speed_rpm", 1, 0),
    ("speed", 1460.0, 1470.0, "shaft_speed_rpm", 1, 0),
    ("speed_hz", 24.0, 24.4, "shaft_speed_rpm", 60, 0),
    ("pressure", 3.1, 3.3, "pressure_bar", 1, 0),
    ("discharge_pressure_kPa", 310.0, 320.0, "pressure_bar", 0.01, 0),
    ("p_psi", 45.0, 46.0, "pressure_bar", 0.0689475729, 0),
    ("flow_lpm", 80.0, 90.0, "flow_m3_h", 0.06, 0),
    ("flow", 80.0, 90.0, "flow_m3_h", 1, 0),
    ("battery", 3.28, 3.3, "battery_v", 1, 0),
    ("battery_mV", 3280.0, 3300.0, "battery_v", 1e-3, 0),
    ("humidity", 40.0, 45.0, "level_pct", 1, 0),
    ("firmware", 7.0, 7.0, "", 1, 0),
    ("counter", 9.0, 100.0, "", 1, 0),
]  # fmt: skip


def test_nine_in_ten_names_are_understood_with_their_unit() -> None:
    """The rest is asked for; nothing is taken for what it is not without a word."""
    wrong = []
    for path, low, high, name, scale, offset in NAMES:
        found = guess(Quantity(path, low, high, high))
        if (found.name, found.scale, found.offset) != (
            name,
            pytest.approx(scale, rel=1e-6),
            pytest.approx(offset, rel=1e-6),
        ):
            wrong.append((path, found))
    assert len(NAMES) >= 40
    assert len(wrong) <= len(NAMES) // 10, wrong


def test_every_guess_says_why() -> None:
    """A proposal without its reason cannot be checked."""
    assert guess(Quantity("temp", 108.0, 112.0, 110.0)).reason == "its name says temperature; °F fits"
    assert guess(Quantity("power", 11.0, 12.0, 12.0)).reason == "its name says active_power; kW fits"
    assert "and so would W" in guess(Quantity("power", 310.0, 320.0, 312.0)).reason
    assert guess(Quantity("foo", 1.0, 2.0, 2.0)).reason == "nothing says what it is; it lies from 1 to 2"
    assert guess(Quantity("temp", 4000.0, 4100.0, 4000.0)).name == ""


def test_a_plain_number_is_named_by_its_topic() -> None:
    """Where every quantity has a topic of its own, the last level is its name."""
    assert guess(Quantity("", 11.9, 12.0, 12.0), "shellies/em3/emeter/1/current").name == "current_a"


@pytest.mark.parametrize(
    ("topic", "payload", "form"),
    [
        ("plant/temp", b" 41.5\n", "number"),
        ("plant/vib", b'{"v": 1.2}', "json"),
        ("plant/state", b"running", "text"),
        ("plant/raw", bytes(range(200, 250)), "binary"),
        ("hark/v1/site/sensor/acc/burst/x", b"HRKB", "burst"),
        ("hark/v1/site/sensor/acc/readings", b"{}", "readings"),
        ("spBv1.0/Plant/DDATA/Node/Drive", b"\x08\x01", "sparkplug"),
        ("plant/odd", b"", "text"),
    ],
)
def test_the_form_of_a_message(topic: str, payload: bytes, form: str) -> None:
    """By its topic where that is a contract, else by its bytes."""
    assert form_of(Message(topic, payload)) == form


def heard(*payloads: Any) -> Shape:
    shape = Shape()
    for payload in payloads:
        shape.add(Message("plant/x", payload if isinstance(payload, bytes) else json.dumps(payload).encode()))
    return shape


def test_numbers_are_followed_over_the_messages() -> None:
    """Range and last value, of numbers and of text that is a number; true, null and words are none."""
    shape = heard({"a": {"t": 41.0}, "b": "3.28", "on": True, "id": "x"}, {"a": {"t": 43.5}, "b": "3.30", "n": None})
    assert set(shape.quantities) == {"a.t", "b"}
    assert (shape.quantities["a.t"].low, shape.quantities["a.t"].high, shape.quantities["a.t"].n) == (41.0, 43.5, 2)
    assert shape.quantities["b"].as_text


@pytest.mark.parametrize(
    ("samples", "written"),
    [
        (list(range(64)), "numbers"),
        (base64.b64encode(bytes(range(256))).decode(), "base64"),
        (bytes(range(256)).hex(), "hex"),
    ],
)
def test_waveforms_are_told_from_numbers(samples: Any, written: str) -> None:
    """A list of many numbers is one burst, not many quantities."""
    shape = heard({"data": {"acc": samples}, "fs": 25600})
    assert shape.waveforms == {"data.acc": written}
    assert set(shape.quantities) == {"fs"}


def test_the_metrics_of_a_birth_are_numbers_too() -> None:
    """A Sparkplug birth names everything that its edge node has; what is no Sparkplug is counted as nothing."""
    metrics = [Metric(name="Drive/Speed", value=1460.0, datatype=DataType.DOUBLE), Metric(name="Drive/On", value=True)]
    shape = Shape()
    shape.add(Message("spBv1.0/Plant/DBIRTH/Line/Drive", encode(Payload(timestamp_ms=1, seq=0, metrics=metrics))))
    shape.add(Message("spBv1.0/Plant/DDATA/Line/Drive", b"\xff\xff"))
    assert list(shape.quantities) == ["Drive/Speed"]
    assert guess(shape.quantities["Drive/Speed"]).name == "shaft_speed_rpm"


@pytest.mark.parametrize(
    "tree", [{"odd key": 1.0}, {"em:0": {"a": 2.0}}, {"list": [{"x": 3.0}, 4.0]}, {"a.b": {'"': 5.0}}, [6.0]]
)
def test_every_path_leads_back_to_its_number(tree: Any) -> None:
    """What is proposed must be what the decoder reads."""
    for path, quantity in heard(tree).quantities.items():
        assert JsonPath.parse(path).find(tree) == [quantity.last]
    assert joined("", "a") == "a"


def test_hostile_messages_are_bounded() -> None:
    """A message with a thousand names must not fill the memory, nor one that is nested without end."""
    shape = heard({f"k{i}": i for i in range(1000)})
    assert len(shape.quantities) == MAX_QUANTITIES
    assert shape.n_left_out == 1000 - MAX_QUANTITIES
    assert heard(b'{"a":' * 50 + b"1" + b"}" * 50).quantities == {}
    assert heard(b'{"a":' * 100_000).form == "text"


def test_messages_of_known_products_have_a_form() -> None:
    """Every example of every payload file is seen as what its file says it is."""
    for name in payload_names(CONFIG):
        profile = load_payload(CONFIG, name)
        if isinstance(profile, BurstProfile | SparkplugProfile):
            continue
        for example in profile.examples:
            message = Message(example.topic or "a/b", example.payload.encode())
            assert form_of(message) == ("json" if message.payload[:1] == b"{" else "number"), f"{name}: {example.title}"
