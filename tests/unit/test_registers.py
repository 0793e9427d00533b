"""Words to values: word order, scale, sentinels, plausibility, and the fewest reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from firmware_bridge.device import DeviceProfile, Example, Point, Text, channels, load_device
from firmware_bridge.device import Span as Read
from firmware_bridge.errors import ConfigError
from firmware_bridge.measurement import Quality
from firmware_bridge.registers import Decoder, decode_text, encode, encode_text, plan_reads


def point(name: str, address: int, kind: str = "uint16", **more: object) -> Point:
    return Point(name=name, address=address, type=kind, plausible=more.pop("plausible", (-1e9, 1e9)), **more)


def device(*points: Point, **more: object) -> DeviceProfile:
    said = {"vendor": "V", "model": "M", "title": "t", "source": "s", "sees": "all", "update_interval_s": 1.0}
    return DeviceProfile(**said, points=points, **more)


def decoded(profile: DeviceProfile, *answers: list[int] | None) -> tuple[np.ndarray, np.ndarray]:
    words = {i: None if answer is None else np.array(answer, np.uint16) for i, answer in enumerate(answers)}
    return Decoder(profile).decode(words)


@pytest.mark.parametrize(
    ("order", "words"),
    [("ABCD", [0x44B6, 0x9000]), ("CDAB", [0x9000, 0x44B6]), ("BADC", [0xB644, 0x0090]), ("DCBA", [0x0090, 0xB644])],
)
def test_1460_5_is_read_in_each_of_the_four_word_orders(order: str, words: list[int]) -> None:
    """float 1460.5 is 0x44B69000: worked by hand, the four shapes it takes on real devices."""
    values, quality = decoded(device(point("speed_rpm", 0, "float32", word_order=order)), words)
    assert values[0] == 1460.5
    assert quality[0] == Quality.GOOD


def test_a_real_sensor_s_registers_in_reverse_order_are_read() -> None:
    """Registers DA77 FB41 are 31.4335 (a device with DCBA, reported to pymodbus as issue 2616)."""
    values, _ = decoded(device(point("level_m", 0, "float32", word_order="DCBA")), [0xDA77, 0xFB41])
    assert values[0] == pytest.approx(31.4335, abs=1e-3)


@pytest.mark.parametrize("order", ["CDAB", "BADC", "DCBA"])
def test_a_running_speed_in_a_wrong_order_is_absurd_and_bad(order: str) -> None:
    """-2.5e-29, -2.9e-06 and 1.3e-38 are inside any range around zero: only their smallness gives them away."""
    profile = device(point("speed_rpm", 0, "float32", word_order=order, plausible=(-4000.0, 4000.0), smallest=1e-4))
    values, quality = decoded(profile, [0x44B6, 0x9000])
    assert quality[0] == Quality.BAD_RANGE
    assert np.isnan(values[0])


@pytest.mark.parametrize(
    ("kind", "words", "absent", "want"),
    [
        ("uint16", [0xFFFF], (), 65535.0),
        ("int16", [0xFFFF], (), -1.0),
        ("int16", [0x8000], (), -32768.0),
        ("uint32", [0xFFFF, 0xFFFE], (), 4294967294.0),
        ("int32", [0xFFFF, 0xFFFE], (), -2.0),
        ("int32", [0x8000, 0x0000], (0x80000000,), None),
        ("int16", [0x8000], (0x8000, 0x7FFF), None),
        ("uint32", [0xFFFF, 0xFFFF], (0xFFFFFFFF,), None),
        ("float32", [0x7FC0, 0x0000], (), None),
        ("float32", [0xFF80, 0x0000], (), None),
        ("float32", [0x8000, 0x0000], (), 0.0),
    ],
)
def test_each_type_reads_its_extremes_and_its_sentinels(
    kind: str, words: list[int], absent: tuple[int, ...], want: float | None
) -> None:
    """A sentinel is a bit pattern, not a value: 0x8000 is -32768 for one device and "not available" for the next."""
    values, quality = decoded(device(point("level_m", 0, kind, absent=absent, plausible=(-1e10, 1e10))), words)
    assert quality[0] == (Quality.GOOD if want is not None else Quality.BAD_SENTINEL)
    assert values[0] == pytest.approx(want) if want is not None else np.isnan(values[0])


@pytest.mark.parametrize(
    ("kind", "more", "words", "want"),
    [
        ("uint64", {}, [0x0000, 0x0001, 0x0000, 0x0002], 4294967298.0),
        ("int64", {"word_order": "CDAB"}, [0xFFFE, 0xFFFF, 0xFFFF, 0xFFFF], -2.0),
        ("float64", {}, [0x4096, 0xD200, 0x0000, 0x0000], 1460.5),
        ("float64", {"word_order": "DCBA"}, [0x0000, 0x0000, 0x00D2, 0x9640], 1460.5),
        ("bcd16", {}, [0x1460], 1460.0),
        ("bcd32", {"word_order": "CDAB"}, [0x5678, 0x1234], 12345678.0),
        ("bcd16", {}, [0x14A0], None),
        ("m10k32", {}, [0x0003, 0x0D80], 33456.0),
        ("m10k32", {}, [0xFFFD, 0xF280], -33456.0),
        ("uint16", {"bits": (8, 4)}, [0xA5FF], 5.0),
        ("uint16", {"bits": (15, 1)}, [0x8000], 1.0),
        ("uint16", {"bits": (0, 4), "absent": (0xFFFF,)}, [0xFFFF], None),
    ],
)
def test_the_rarer_types_are_read_as_their_manuals_say(
    kind: str, more: dict[str, object], words: list[int], want: float | None
) -> None:
    """64 bits, decimal digits, ten-thousands and fields of a status word, worked by hand."""
    values, quality = decoded(device(point("level_m", 0, kind, plausible=(-1e12, 1e12), **more)), words)
    assert quality[0] == (Quality.GOOD if want is not None else Quality.BAD_SENTINEL)
    assert values[0] == pytest.approx(want) if want is not None else np.isnan(values[0])


@pytest.mark.parametrize(("exponent", "want"), [(0xFFFE, 14.6), (0x0001, 14600.0), (0x8000, None), (0x0063, None)])
def test_a_scale_factor_s_register_is_a_power_of_ten(exponent: int, want: float | None) -> None:
    """SunSpec: 1460 with -2 beside it is 14.60; without a scale factor there is no value."""
    values, quality = decoded(device(point("power_w", 0, "int16", exponent_address=1)), [1460, exponent])
    assert quality[0] == (Quality.GOOD if want is not None else Quality.BAD_SENTINEL)
    assert values[0] == pytest.approx(want) if want is not None else np.isnan(values[0])


def test_a_text_is_its_letters_without_padding() -> None:
    """Makers pad with NUL or blanks, and some swap the two letters of a register."""
    text = Text(name="model", address=0, n_registers=4)
    assert decode_text([0x514D, 0x3330, 0x5654, 0x3200], text) == "QM30VT2"
    assert decode_text([0x4D51, 0x3033, 0x5456, 0x2032], msgspec.structs.replace(text, swapped=True)) == "QM30VT2"
    assert decode_text(encode_text("ACS580", text), text) == "ACS580"
    assert decode_text([0xFFFF, 0x0007], text) == ""


def test_a_failed_read_is_bad_comm_for_its_points_only() -> None:
    """One refused block must not take the rest of the device with it."""
    profile = device(point("a_v", 0), point("b_v", 10))
    values, quality = decoded(profile, [7], None)
    assert quality.tolist() == [Quality.GOOD, Quality.BAD_COMM]
    assert values[0] == 7.0
    assert np.isnan(values[1])


def test_the_last_good_words_never_shine_through_a_failed_read() -> None:
    """The decoder keeps one buffer; a stale word in it must not come out as a value."""
    decoder = Decoder(device(point("a_v", 0)))
    decoder.decode({0: np.array([7], np.uint16)})
    values, quality = decoder.decode({})
    assert quality[0] == Quality.BAD_COMM
    assert np.isnan(values[0])


def test_neighbours_share_a_read_and_gaps_split_it_unless_allowed() -> None:
    """Fewest requests that the device allows: each costs 20 ms on a 9600-baud line."""
    points = (point("c_v", 6), point("a_v", 0, "float32"), point("b_v", 2))
    assert plan_reads(device(*points)) == (Read(3, 0, 3), Read(3, 6, 1))
    assert plan_reads(device(*points, allow_gaps=True)) == (Read(3, 0, 7),)
    assert plan_reads(device(*points, allow_gaps=True, max_registers=4)) == (Read(3, 0, 3), Read(3, 6, 1))


def test_a_value_is_never_torn_between_two_reads() -> None:
    """Half of a 32-bit value from this second and half from the next is a number that never was."""
    points = tuple(point(f"p{i}_v", 2 * i, "float32") for i in range(5))
    assert plan_reads(device(*points, max_registers=3)) == tuple(Read(3, 2 * i, 2) for i in range(5))
    assert plan_reads(device(points[0], max_registers=1)) == (Read(3, 0, 1), Read(3, 1, 1)), "it gives no two at once"
    assert plan_reads(device(*points, max_registers=5)) == (Read(3, 0, 4), Read(3, 4, 4), Read(3, 8, 2))


def test_functions_are_read_apart_and_bits_come_as_words() -> None:
    """Coils, inputs and registers are four address spaces."""
    points = (point("run_ratio", 3, "bit", function=1, plausible=(0.0, 1.0)), point("a_v", 3, function=4))
    profile = device(*points)
    assert plan_reads(profile) == (Read(1, 3, 1), Read(4, 3, 1))
    values, _ = decoded(profile, [1], [9])
    assert values.tolist() == [1.0, 9.0]


def test_the_simulator_s_words_saturate_and_say_not_available() -> None:
    """A real sensor's register stops at its end; NaN leaves as the device's own sentinel."""
    profile = device(
        point("a_v", 0, "uint16", scale=0.001, absent=(0xFFFF,)),
        point("b_degc", 1, "int16", scale=0.01, absent=(0x8000,)),
        point("c_bar", 2, "float32", word_order="CDAB"),
    )
    high = encode(profile, {"a_v": 1e9, "b_degc": -1e9, "c_bar": float("inf")})
    assert high == {(3, 0): 0xFFFF, (3, 1): 0x8000, (3, 2): 0xFFFF, (3, 3): 0x7F7F}
    assert encode(profile, {"a_v": float("nan"), "c_bar": float("nan")}) == {(3, 0): 0xFFFF, (3, 2): 0, (3, 3): 0x7FC0}
    with pytest.raises(ValueError, match="no point 'd_v'"):
        encode(profile, {"d_v": 1.0})
    with pytest.raises(ValueError, match="no 'not available'"):
        encode(device(point("a_v", 0)), {"a_v": float("nan")})


def test_channels_carry_the_sensor_s_name_and_the_point_s_pace() -> None:
    """The agent judges a stuck value by how often the device renews it."""
    profile = device(point("a_v", 0, live=True), point("b_v", 1, update_interval_s=5.0))
    made = channels(profile, "meter-a")
    assert [(c.name, c.update_interval_s, c.live) for c in made] == [
        ("meter-a.a_v", 1.0, True),
        ("meter-a.b_v", 5.0, False),
    ]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: point("speed", 0), "ends in no unit"),
        (lambda: point("speed_rpm", 0, plausible=(5.0, 5.0)), "is no range"),
        (lambda: point("speed_rpm", 0, scale=0.0), "scale is not 0"),
        (lambda: point("speed_rpm", 0, "int16", absent=(0x10000,)), "does not fit into int16"),
        (lambda: device(point("a_v", 0), point("a_v", 1)), "a_v is there twice"),
        (lambda: device(point("a_v", 0), address_base=1), "outside the device's 65536"),
        (lambda: device(point("a_ratio", 0, "bit")), "functions 1 and 2 read type bit"),
        (lambda: point("a_ratio", 0, bits=(15, 2)), "is no field of uint16"),
        (lambda: point("a_ratio", 0, "int16", bits=(0, 1)), "is no field of int16"),
        (lambda: point("a_v", 0, "float32", exponent_address=4), "goes with whole numbers"),
        (lambda: point("a_v", 0, typical=(5.0, 2e9)), "no range within plausible"),
        (lambda: device(point("a_v", 0), texts=(Text(name="a_v", address=9, n_registers=2),)), "a_v is there twice"),
        (
            lambda: device(point("a_v", 0), texts=(Text(name="t", address=9, n_registers=2, function=1),)),
            "letters stand",
        ),
        (
            lambda: device(point("a_v", 0), examples=(Example(title="e", registers={"0": (1,)}),)),
            "a_v must stand in values",
        ),
    ],
)
def test_a_map_that_cannot_be_is_refused_with_its_reason(make: object, says: str) -> None:
    """The person who writes a device file is told what to write instead."""
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("function", ["5", "6", "15", "16", "22", "23"])
def test_a_writing_function_cannot_be_written_down(tmp_path: Path, root: Path, function: str) -> None:
    """The address space that tells the current also starts the motor."""
    text = (
        (root / "config/devices/keller_33x.toml").read_text("utf-8").replace("function = 3", f"function = {function}")
    )
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices/evil.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=rf"function = {function}: not known\..*\(1, 2, 3, 4\)"):
        load_device(tmp_path, "evil")


@pytest.mark.parametrize("name", ["nothing", "../machines/motor", ""])
def test_an_unknown_device_is_answered_with_the_known_ones(root: Path, name: str) -> None:
    """And a name is a name, never a path."""
    with pytest.raises(ConfigError, match="keller_33x"):
        load_device(root / "config", name)
