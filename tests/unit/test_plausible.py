"""The ranking of register maps on closed cases: each mistake that people make, by itself, and what it must refuse to guess."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from firmware_bridge.commissioning.likelihood import ODD, Expectation, Laws
from firmware_bridge.commissioning.plausible import Ranking, fit, rank, shifted, spans_to_read
from firmware_bridge.commissioning.quantities import USUAL, relations, usual
from firmware_bridge.commissioning.remap import ORDERS, reordered
from firmware_bridge.device import DeviceProfile, Point, load_device
from firmware_bridge.registers import encode

CONFIG = Path(__file__).resolve().parents[2] / "config"
DRIVE = {
    "shaft_speed_rpm": 1460.5, "output_frequency_hz": 48.67, "motor_current_a": 11.93, "motor_torque_pct": 84.6,
    "dc_bus_v": 538.12, "motor_shaft_power_kw": 5.74,
}  # fmt: skip


def drive() -> DeviceProfile:
    return load_device(CONFIG, "abb_acs580")


def point(name: str, address: int, type_: str = "uint16", **more: Any) -> Point:
    given = {"plausible": (-1e6, 1e6)} | more
    return msgspec.convert({"name": name, "address": address, "type": type_} | given, Point)


def device(*points: Point, **more: Any) -> DeviceProfile:
    given = {"vendor": "v", "model": "m", "title": "t", "source": "s", "sees": "x", "update_interval_s": 1.0}
    return DeviceProfile(**(given | {"points": points} | more))


def ranked(written: DeviceProfile, true: DeviceProfile, *polls: dict[str, float]) -> Ranking:
    return rank(written, [encode(true, values) for values in polls])


@pytest.mark.parametrize("swap", [1, 2, 3])
def test_a_wrong_word_order_is_found_on_one_poll_of_a_drive(swap: int) -> None:
    """Integers: swapped words are absurd, swapped bytes are currents of 400 A that nobody would question one by one."""
    ranking = ranked(reordered(drive(), swap), drive(), DRIVE)
    assert ranking.best.word_order == "CDAB"
    assert ranking.best.changes == ('word_order = "CDAB"',)
    assert not ranking.ambiguous
    assert ranking.best.values == pytest.approx(DRIVE)


def test_all_four_orders_are_always_shown() -> None:
    """The engineer clicks the one that the panel shows; so each must be there, with its values."""
    ranking = ranked(drive(), drive(), DRIVE)
    assert {candidate.word_order for candidate in ranking.candidates} == set(ORDERS)
    assert ranking.best.as_written
    assert ranking.best.changes == ()


@pytest.mark.parametrize(("base", "step", "remedy"), [(1, 1, "every address -1"), (1, -1, "address_base = 0")])
def test_a_base_that_is_one_off_is_said_as_it_is_typed(base: int, step: int, remedy: str) -> None:
    """A manual that counts from 1 read as one that counts from 0 is the commonest mistake of all."""
    assert drive().address_base == base
    wrong = shifted(drive(), step)
    assert wrong is not None
    assert ranked(wrong, drive(), DRIVE).best.changes == (remedy,)


def test_scale_and_order_are_found_together() -> None:
    """Several mistakes in one map are the rule on a first attempt."""
    points = tuple(msgspec.structs.replace(p, scale=p.scale * 100) for p in drive().points)
    wrong = reordered(msgspec.structs.replace(drive(), points=points, examples=()), 1)
    best = ranked(wrong, drive(), DRIVE).best
    assert best.changes == ('word_order = "CDAB"', "every scale times 0.01")
    assert best.n_usual == best.n_told == 6
    assert best.n_usual_as_written == 0


def test_registers_in_inches_are_proposed_and_left_to_the_engineer() -> None:
    """0.06 mm/s RMS is a machine at rest or one in inches: a unit is never guessed silently, both values are shown."""
    vibration = device(
        point("velocity_rms_z_mm_s", 0, scale=0.0001, plausible=(0.0, 65.5)),
        point("velocity_rms_x_mm_s", 1, scale=0.0001, plausible=(0.0, 65.5)),
        point("temperature_degc", 2, "int16", scale=0.01, plausible=(-45.0, 130.0)),
    )
    inches = tuple(
        msgspec.structs.replace(p, scale=p.scale * 25.4) if "mm_s" in p.name else p for p in vibration.points
    )
    true = msgspec.structs.replace(vibration, points=inches)
    values = {"velocity_rms_z_mm_s": 1.42, "velocity_rms_x_mm_s": 1.13, "temperature_degc": 43.1}
    ranking = ranked(vibration, true, values)
    assert ranking.ambiguous
    assert "velocity_rms_x_mm_s is 0.0445 mm/s or 1.13 mm/s" in ranking.advice
    assert ranking.candidates[1].changes == (
        "velocity_rms_z_mm_s: scale = 0.00254  # its register holds in/s, not mm/s",
        "velocity_rms_x_mm_s: scale = 0.00254  # its register holds in/s, not mm/s",
    )


def test_fahrenheit_moves_scale_and_offset() -> None:
    """Of the unit slips it is the one with an offset, and the one that people make most."""
    written = device(point("temperature_degc", 0, "float32", plausible=(-40.0, 150.0), typical=(20.0, 60.0)))
    true = msgspec.structs.replace(
        written, points=(msgspec.structs.replace(written.points[0], scale=5 / 9, offset=-160 / 9),)
    )
    ranking = ranked(written, true, {"temperature_degc": 44.0})
    found = next(c for c in ranking.candidates if c.slips and c.slips[0].unit.holds == "°F")
    assert found.values["temperature_degc"] == pytest.approx(44.0)
    assert found.profile.points[0].offset == pytest.approx(-17.7777778)
    assert found.changes[0].startswith("temperature_degc: scale = 0.555556, offset = -17.7778")


def test_a_swapped_byte_shows_itself_by_how_the_value_moves() -> None:
    """0x04A9 is 11.93 A and 0xA904 is 432.68 A: both are currents. But one moves by 0.02 A, the other by 5 A at a time."""
    written = device(point("motor_current_a", 0, "uint32", scale=0.01, plausible=(0.0, 3000.0)))
    still = ranked(written, written, {"motor_current_a": 11.93})
    moving = ranked(written, written, *({"motor_current_a": 11.93 + 0.02 * i} for i in (0, 1, 3, 2, 4, 1)))

    def odds(ranking: Ranking) -> float:
        best = {candidate.swap: candidate.score for candidate in reversed(ranking.candidates) if not candidate.shift}
        return best[0] - best[2]

    assert odds(moving) > odds(still) + 10


@pytest.mark.parametrize(
    "values", [dict.fromkeys(DRIVE, 0.0), DRIVE | dict.fromkeys(DRIVE, 0.0) | {"dc_bus_v": 0.0}], ids=["all 0", "again"]
)
def test_a_machine_at_rest_is_not_guessed_at(values: dict[str, float]) -> None:
    """0 is 0 in every order: nothing may be decided before the machine runs."""
    ranking = ranked(drive(), drive(), values)
    assert ranking.ambiguous
    assert "let the machine run" in ranking.advice


def test_two_readings_that_fit_are_told_with_their_values() -> None:
    """'Refuse to start if two fit': the advice names the value to compare with the panel."""
    written = device(point("energy_kwh", 1, "uint32", plausible=(0.0, 1e7), typical=(500.0, 5e6)))
    ranking = rank(written, [{(3, 0): 0, (3, 1): 1, (3, 2): 2, (3, 3): 0}])
    assert ranking.ambiguous
    assert re.fullmatch(r"two readings fit; compare with the display: energy_kwh is \S+ kWh or \S+ kWh", ranking.advice)


def test_a_device_that_answers_nothing_is_not_ranked_by_hope() -> None:
    """Every address refused: the advice is about the unit id, not about word orders."""
    ranking = rank(drive(), [{}, {}])
    assert ranking.ambiguous
    assert ranking.advice == "the device answers none of these addresses; check the unit id and the device file"


def test_refused_neighbours_speak_for_the_base_that_is_answered() -> None:
    """A device that answers exactly the addresses of the map is read as written."""
    written = device(point("motor_current_a", 7, scale=0.1), point("dc_bus_v", 9, scale=0.1))
    samples = [encode(written, {"motor_current_a": 12.0, "dc_bus_v": 540.0})]
    best = rank(written, samples).best
    assert best.as_written
    assert not rank(written, samples).ambiguous


def test_one_dead_channel_costs_no_more_than_it_must() -> None:
    """A broken channel on a right map must not make another map look better."""
    meter = load_device(CONFIG, "eastron_sdm630")
    example = meter.examples[0].values
    ranking = ranked(meter, meter, dict(example) | {"current_l2_a": math.nan, "voltage_thd_l1_pct": 0.0})
    assert ranking.best.as_written
    assert not ranking.ambiguous


def test_status_bits_have_no_scale_and_no_vote_on_it() -> None:
    """`every scale times 10` is about quantities; a bit stays a bit."""
    written = device(
        point("run_ratio", 0, bits=[2, 1], plausible=(0.0, 1.0), typical=(0.5, 1.0)),
        point("motor_current_a", 1, scale=0.1, plausible=(0.0, 150.0)),
        point("mains_voltage_v", 2, scale=0.1, plausible=(0.0, 800.0), typical=(380.0, 490.0)),
        point("shaft_speed_rpm", 3, plausible=(0.0, 30000.0)),
        point("output_frequency_hz", 4, scale=0.1, plausible=(0.0, 500.0)),
    )
    values = {
        "run_ratio": 1.0, "motor_current_a": 11.9, "mains_voltage_v": 402.1, "shaft_speed_rpm": 1462.0,
        "output_frequency_hz": 50.0,
    }  # fmt: skip
    points = tuple(msgspec.structs.replace(p, scale=p.scale / 10) if p.bits is None else p for p in written.points)
    best = ranked(msgspec.structs.replace(written, points=points), written, values).best
    assert best.changes == ("every scale times 10",)
    assert best.profile.points[0].scale == 1.0
    assert best.n_told == 4


def test_a_shared_exponent_is_read_with_its_value() -> None:
    """SunSpec: 2304 with exponent -1 is 230.4 V, also while the base is being looked for."""
    meter = device(
        *(point(f"voltage_l{i}_v", i, exponent_address=4, plausible=(0.0, 1000.0)) for i in (1, 2, 3)),
        point("line_frequency_hz", 5, exponent_address=6, plausible=(40.0, 70.0)),
    )
    values = {"voltage_l1_v": 230.4, "voltage_l2_v": 231.1, "voltage_l3_v": 229.8, "line_frequency_hz": 50.0}
    wrong = shifted(meter, 1)
    assert wrong is not None
    best = ranked(wrong, meter, values).best
    assert best.shift == -1
    assert best.values == pytest.approx(values)


def test_the_kind_of_device_is_told_by_its_words() -> None:
    """`hark scan` asks each known profile whether these words are its own."""
    meter = load_device(CONFIG, "eastron_sdm630")
    words = encode(meter, meter.examples[0].values)
    assert fit(meter, [words]).score > 50
    assert fit(meter, [words]).reason == "12 of 12 values lie where running machines have them"
    holding = {(3, address): word for (_, address), word in words.items()}
    swapped = reordered(meter, 1)
    assert fit(swapped, [words]).score < 0
    assert fit(drive(), [holding | encode(drive(), DRIVE)]).score > 0
    assert fit(drive(), [holding]).score < 0


def test_what_is_read_is_the_map_and_one_address_to_each_side() -> None:
    """Two requests more per block, all of functions that only read; none below address 0."""
    spans = spans_to_read(device(point("motor_current_a", 0), point("dc_bus_v", 1)))
    assert {(s.function, s.address, s.count) for s in spans} == {(3, 0, 2), (3, 1, 2)}


def test_no_poll_is_a_programming_error_that_says_so() -> None:
    """A ranking of nothing would look like an answer."""
    with pytest.raises(ValueError, match="no poll"):
        rank(drive(), [])


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIG / "devices").glob("*.toml")))
def test_whatever_the_words_the_ranking_answers(name: str) -> None:
    """Noise, all ones, signalling NaNs, missing registers: a list with weights, never a warning or an infinity."""
    profile = load_device(CONFIG, name)
    rng = np.random.default_rng(7)
    places = [(span.function, a) for span in spans_to_read(profile) for a in range(span.address, span.end)]
    held = [place for place in places if rng.random() < 0.9]
    noise = [{place: int(rng.integers(1 << 16)) for place in held} for _ in range(3)]
    for samples in (noise, [dict.fromkeys(places, 0xFFFF)], [dict.fromkeys(places, 0x7F81)] * 2):
        ranking = rank(profile, samples)
        assert all(math.isfinite(candidate.score) for candidate in ranking.candidates)
        assert ranking.as_written in ranking.candidates
        assert ranking.best.profile.points


def test_words_borrowed_from_the_neighbour_are_not_taken_for_right_at_once() -> None:
    """CDAB one register lower reads each float with its neighbour's low word: right to a percent, and wrong."""
    probes = load_device(CONFIG, "moxa_iologik_e1260")
    values = {f"temperature_{i}_degc": 30.0 + 3.7 * i for i in range(6)}
    wrong = shifted(reordered(probes, 1), -1)
    assert wrong is not None
    words = encode(probes, values) | {(probes.function, probes.wire_address(probes.points[0]) - 1): 0}
    ranking = rank(wrong, [{(probes.function, address): word for (_, address), word in words.items()}])
    assert ranking.ambiguous
    assert ranking.advice == "two word orders give nearly the same values; read again when they have changed"


# ---------------------------------------------------------------------- the tables and the arithmetic
def test_a_device_file_is_believed_before_the_table() -> None:
    """`typical` is what its maker or its user knows."""
    assert usual(point("motor_current_a", 0, typical=(1.0, 5.0))) == ((1.0, 5.0),)
    assert usual(point("motor_current_a", 0, plausible=(0.0, 150.0))) == ((1.5, 200.0),)
    assert usual(point("level_x", 0, plausible=(0.0, 9.0))) == ((0.0, 9.0),)


def test_every_usual_range_is_one() -> None:
    """A typo here would turn the ranking round without a sound."""
    assert [pattern for pattern, ranges in USUAL if not ranges or any(not low < high for low, high in ranges)] == []


@pytest.mark.parametrize("bounds", [(0.4, 6.0), (0.0, 50.0), (15.0, 80.0), (-5.0, 60.0)])
def test_the_density_of_a_quantity_is_one(bounds: tuple[float, float]) -> None:
    """Over ln |value| it integrates to 1 but for what lies beyond the plausible; else odds would be no odds."""
    expected = Expectation(point("flow_x", 0, typical=bounds, plausible=(-1e5, 1e5)), 1)
    size = np.linspace(math.log(1e-8), math.log(1e5), 200_001)
    both = np.exp(expected.log_density(np.exp(size))) + np.exp(expected.log_density(-np.exp(size)))
    assert np.trapezoid(both, size) == pytest.approx(1.0, abs=0.05)


def test_no_value_can_cost_more_than_odd() -> None:
    """One strange value among twelve must not outvote the eleven."""
    expected = Expectation(point("motor_current_a", 0, plausible=(0.0, 100.0)), 1)
    cost = expected.log_odds(np.array([[5000.0], [math.nan]]), np.ones((2, 1)), np.zeros(1))
    assert cost == pytest.approx([ODD])


def test_laws_hold_break_and_keep_silent() -> None:
    """Peak below RMS breaks a law, a missing value silences it, and 0 A at 60 kW breaks it too."""
    points = (point("velocity_rms_z_mm_s", 0), point("velocity_peak_z_mm_s", 1))
    laws = Laws(relations(points), 2)
    sizes = np.log(np.array([[1.0, 2.0], [2.0, 1.0], [np.nan, 1.0]]))
    held, broken, silent = laws.score(sizes)
    assert held > 0 > broken
    assert silent == 0
    with np.errstate(divide="ignore"):
        assert laws.score(np.log(np.array([[0.0, 1.0], [0.0, 0.0]]))) == pytest.approx([broken, 0.0])
