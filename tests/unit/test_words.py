"""The message on the phone, letter by letter: any change of it is a change for people and must be meant."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from agent.clock import Moment
from agent.decision.alarm import AlarmBook, Condition
from agent.decision.sensorwatch import SensorFault
from agent.diagnosis import catalogue
from agent.notifiers import MachineName, alarm_message
from agent.notifiers.log import LogNotifier
from agent.notifiers.mqtt import MqttNotifier
from agent.vocabulary import AlarmClass, AlarmEvent, Cause, Evidence, Explanation, Forecast, Severity
from agent.words import Words

WORDS = Words("en", UTC)
ONSET_NS = int(datetime(2026, 11, 21, 14, 5, tzinfo=UTC).timestamp()) * 10**9
MINUTE_NS = 60 * 10**9

LINE = Evidence("envelope.bpfo_ratio", "outer-race envelope line", 14.03, 1.62, 4.13, "x", 0.61, 73.6)
POWER = Evidence("active_power_kw", "power", 2.1, 5.93, 3.56, "kW", 1.0)
STUCK = Evidence("vib-b: velocity_rms_z_mm_s", "sensor vib-b is stuck", 30.0, None, None, "s", 1.0)
MOTOR = MachineName("electric motor", "motor")
PARTS = {"bearing": "DE bearing 6308", "bearing_short": "DE bearing"}


def explanation(seen: Evidence, fault: str, confidence: float) -> Explanation:
    causes = (Cause(fault, WORDS.fault(fault, PARTS), confidence),) if fault else ()
    return Explanation(
        (seen,), causes, WORDS.action(fault, PARTS), catalogue()[fault].act_within_h, "all columns measured"
    )


WEAR = explanation(LINE, "bearing_outer_race", 0.82)
CASES = {
    "bearing": (
        Condition("M-101A", "model", AlarmClass.MODEL, Severity.HIGH, ONSET_NS, WEAR),
        "HIGH M-101A: outer-race wear of DE bearing 6308, 82 %. Outer-race envelope line at 73.6 Hz 14x (normal 1.6x, "
        "limit 4.1x), since 14:05. Do: within 24 h grease the DE bearing and listen; plan its change within 2 weeks. "
        "Alarm 0000",
    ),
    "unclear": (
        Condition(
            "M-101A", "model", AlarmClass.MODEL, Severity.LOW, ONSET_NS,
            replace(explanation(LINE, "bearing_outer_race", 0.59), action=WORDS.unclear_action("impacts"), act_within_h=None),
        ),
        "LOW M-101A: outer-race envelope line 8.7x normal, cause unclear. Outer-race envelope line at 73.6 Hz 14x "
        "(normal 1.6x, limit 4.1x), since 14:05. Do: listen to the bearings, grease them, and look again after 1 h. "
        "Alarm 0000",
    ),
    "limit": (
        Condition("P-101A", "limit:dry_run", AlarmClass.LIMIT, Severity.CRIT, ONSET_NS, explanation(POWER, "dry_run", 1.0)),
        "CRIT P-101A: dry run. Power 2.1 kW (normal 5.9 kW, limit 3.6 kW), since 14:05. Do: NOW stop the pump, prime it, "
        "inspect the seal. Alarm 0000",
    ),
    "sensor": (
        Condition(
            "M-101B", "sensor:vib-b:stuck", AlarmClass.SENSOR, Severity.NO_DATA, ONSET_NS,
            Explanation((STUCK,), (), WORDS.say("sensor_action", "silent"), None, "not fully watched"),
        ),
        "NO DATA M-101B: sensor vib-b is stuck since 14:05. Machine is NOT fully watched. Do: check sensor power and cable. "
        "Alarm 0000",
    ),
}  # fmt: skip


def at(after_ns: int) -> Moment:
    return Moment(ONSET_NS + after_ns, after_ns)


def raised(name: str) -> tuple[AlarmBook, AlarmEvent]:
    book = AlarmBook(WORDS.alarm_text)
    return book, book.raise_(replace(CASES[name][0], standing_s=60.0), at(MINUTE_NS))[0]


@pytest.mark.parametrize("name", CASES)
def test_the_message_is_golden(name: str) -> None:
    """Severity first, units always, no score and no word about models."""
    _, event = raised(name)
    assert event.text == CASES[name][1].replace("0000", event.code)
    assert not {"score", "model", "anomaly", "threshold"} & set(event.text.lower().split())


def test_the_end_of_an_alarm_asks_what_it_was() -> None:
    """The answer is training data."""
    book, event = raised("bearing")
    cleared = book.clear("M-101A", "model", at(155 * MINUTE_NS))[0]
    assert cleared.text == ("CLEAR M-101A: normal again 16:40 (lasted 2 h 35 min). Alarm 0000").replace(
        "0000", event.code
    )
    book, event = raised("bearing")
    taken = book.acknowledge(event.code, at(5 * MINUTE_NS))[0]
    assert taken.text == f"ACK M-101A: alarm {event.code} has been taken, 14:10."
    assert book.shelve(event.code, 60.0, at(0))[0].text == f"SHELVED M-101A: alarm {event.code}, 14:05."


def test_an_old_onset_is_told_with_its_date() -> None:
    """ "since 14:05" of yesterday would send somebody to look for the wrong thing."""
    assert WORDS.since(ONSET_NS, ONSET_NS + 24 * 60 * MINUTE_NS) == "2026-11-21 14:05"


@pytest.mark.parametrize(
    ("value", "normal", "limit", "unit", "said"),
    [
        (1462.4, 1460.1, None, "rpm", "speed 1462 rpm (normal 1460 rpm)"),
        (22.41, 21.92, None, "degC", "speed 22.4 degC (normal 21.9 degC)"),
        (0.000213, 0.0001, None, "g", "speed 0.00021 g (normal 0.0001 g)"),
        (99.6, 9.5, None, "x", "speed 100x (normal 9.5x)"),
        (-0.31, 0.52, 0.2, "bar", "speed -0.31 bar (normal 0.52 bar, limit 0.2 bar)"),
        (0.0, None, None, "kW", "speed 0 kW"),
    ],
)
def test_numbers_have_as_many_digits_as_it_takes_to_tell_them_apart(
    value: float, normal: float | None, limit: float | None, unit: str, said: str
) -> None:
    """ "22 (normal 22)" tells nobody anything, and nobody reads 1.4624e+03."""
    assert WORDS.evidence(Evidence("speed", "speed", value, normal, limit, unit, 1.0)) == said


def test_the_retained_alarm_is_complete_small_and_goes_with_the_alarm() -> None:
    """Below 2 kB; emptied when the alarm is over."""
    sent: list[tuple[str, bytes]] = []
    notifier = MqttNotifier("demo", "gw-01", {"M-101A": MOTOR}, lambda topic, payload: sent.append((topic, payload)))
    book, event = raised("bearing")
    notifier.notify(event)
    topic = f"hark/v1/demo/gw-01/M-101A/alarm/{event.alarm_id}"
    assert sent[0][0] == topic
    assert len(sent[0][1]) < 2000
    message = alarm_message(event, "demo", "gw-01", MOTOR)
    assert message["t_start"] == "2026-11-21T14:05:00Z"
    assert message["fault"] == {
        "code": "bearing_outer_race",
        "words": "outer-race wear of DE bearing 6308",
        "confidence": 0.82,
        "for": [],
        "against": [],
    }
    assert message["seen"][0]["frequency_hz"] == 73.6
    assert {
        "v",
        "id",
        "code",
        "state",
        "severity",
        "site",
        "gateway",
        "machine",
        "t",
        "why",
        "do",
        "text",
    } <= message.keys()
    for last in [
        *book.clear("M-101A", "model", at(MINUTE_NS)),
        *book.acknowledge(event.code, at(MINUTE_NS)),
    ]:
        notifier.notify(last)
    assert sent[1][1] != b""
    assert sent[2] == (topic, b"")


def test_the_shift_book_has_one_line_for_each_transition(caplog: pytest.LogCaptureFixture) -> None:
    """New and severe ones as warnings, the rest as information."""
    book, event = raised("bearing")
    with caplog.at_level("INFO"):
        for item in (event, *book.acknowledge(event.code, at(0))):
            LogNotifier().notify(item)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.messages[0].startswith("alarm: HIGH M-101A: outer-race wear")


# ---------------------------------------------------------------------------------------------- every message there can be
GSM_ALPHABET = set(  # GSM 03.38, the characters that take one place
    "@$_ !\"#%&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
LONGEST = 3 * 153  # three segments of a long message
FAR = Forecast("spectrum.velocity_rms_mm_s", 4.5, 70.0, 120.0, 216.0)
SPEED = Evidence("spectrum.velocity_rms_mm_s", "vibration velocity", 3.21, 1.02, 2.25, "mm/s", 0.5)


def text_of(explained: Explanation, name: str = "model", kind: AlarmClass = AlarmClass.MODEL) -> str:
    condition = Condition("M-101A-NORTH-1", name, kind, Severity.HIGH, ONSET_NS, explained, standing_s=60.0)
    return AlarmBook(WORDS.alarm_text).raise_(condition, at(MINUTE_NS))[0].text


@pytest.mark.parametrize("fault", catalogue().values(), ids=list(catalogue()))
def test_every_message_has_only_letters_that_every_phone_has_and_fits_into_three_parts(fault) -> None:
    """One letter of another alphabet halves what fits: each fault, with its longest runner-up, numbers and a forecast."""
    seen = Evidence("flow_m3_h:tag.level", "acceleration 2500 to 5000 Hz", 1234.5, 0.0312, 88.25, "m³/h", 0.6, 146.25)
    others = fault.confused_with or ("",)
    for other in others:
        causes = tuple(Cause(name, WORDS.fault(name, PARTS), 0.45) for name in (fault.id, other) if name)
        check = WORDS.tell_apart(fault.id, other, PARTS)
        for confidence, forecast in product((0.45, 0.75), (FAR, None)):
            first = replace(causes[0], confidence=confidence)
            explained = Explanation(
                (seen,),
                (first, *causes[1:]),
                WORDS.action(fault.id, PARTS),
                fault.act_within_h,
                "",
                "",
                check,
                forecast,
            )
            text = text_of(explained)
            assert set(text) <= GSM_ALPHABET, set(text) - GSM_ALPHABET
            assert len(text) <= LONGEST, (len(text), text)


@pytest.mark.parametrize("unit", ["m/s²", "m³/h", "°C", "µm", "×"])
def test_units_are_written_as_a_phone_can(unit: str) -> None:
    text = text_of(Explanation((replace(SPEED, unit=unit),), (), "look", None, ""))
    assert set(text) <= GSM_ALPHABET


def test_a_clear_cause_is_told_with_its_runner_up_and_the_check_between_them() -> None:
    """One line more only where the runner-up is worth it; an unclear one says how to find out."""
    causes = (
        Cause("lubrication", "lack of lubrication of DE bearing 6308", 0.62),
        Cause("bearing_outer_race", "outer-race wear", 0.3),
    )
    check = WORDS.tell_apart("lubrication", "bearing_outer_race", PARTS)
    clear = Explanation((LINE,), causes, WORDS.action("lubrication", PARTS), 72.0, "", "", check)
    assert "Do: within 3 days grease the DE bearing" in text_of(clear)
    assert f"Could also be outer-race wear; to tell, {check}. Alarm" in text_of(clear)
    unclear = replace(clear, causes=(replace(causes[0], confidence=0.5), causes[1]))
    assert f"To find out: {check}. Alarm" in text_of(unclear)
    surely = replace(clear, causes=(replace(causes[0], confidence=0.8), replace(causes[1], confidence=0.1)))
    assert check not in text_of(surely)


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (
            (72.0, 120.0, 216.0),
            "reaches the limit of 4.5 mm/s in 3 to 9 days, most likely 5, if operation stays as it is",
        ),
        ((5.0, 11.0, 30.0), "reaches the limit of 4.5 mm/s in 5 to 30 h, most likely 11, if operation stays as it is"),
        (
            (12.0, 30.0, 96.0),
            "reaches the limit of 4.5 mm/s in 0.5 to 4 days, most likely 1, if operation stays as it is",
        ),
        ((118.0, 120.0, 124.0), "reaches the limit of 4.5 mm/s in about 5 days, if operation stays as it is"),
    ],
)
def test_a_forecast_is_a_sentence_with_its_range(hours: tuple[float, float, float], words: str) -> None:
    """Never a single number without saying so, and never "model" or "percentile"."""
    assert WORDS.forecast(Forecast("spectrum.velocity_rms_mm_s", 4.5, *hours)) == words
    told = text_of(
        Explanation((SPEED,), (), "look", None, "", forecast=Forecast("spectrum.velocity_rms_mm_s", 4.5, *hours))
    )
    assert f"Do: look. Vibration velocity {words}. Alarm" in told


@pytest.mark.parametrize(
    ("value", "normal", "unit", "words"),
    [
        (3.1, 1.0, "mm/s", "it 3.1x normal"),
        (0.2, 1.3, "bar", "it 1.1 bar below normal"),
        (-3.0, 0.1, "m", "it 3.1 m below normal"),
        (21.0, 20.0, "m", "it 1 m above normal"),
        (2.0, None, "m", "it away from normal"),
        (0.4, 1.0, "x", "it away from normal"),
    ],
)
def test_what_was_seen_is_told_as_a_technician_would(value: float, normal: float | None, unit: str, words: str) -> None:
    """Times where it grew, a difference where it fell: "0.15x normal" is nobody's language."""
    assert WORDS.observation(Evidence("a", "it", value, normal, None, unit, 1.0)) == words


@pytest.mark.parametrize("kind", ["remounted", "another_machine", "serviced"])
def test_a_new_normal_is_asked_for_and_not_called_a_fault(kind: str) -> None:
    """What was seen, and the one command that confirms it."""
    action = WORDS.say("new_baseline_action", kind, machine="M-101A-NORTH-1")
    text = text_of(Explanation((SPEED,), (), action, None, ""), f"new_baseline:{kind}")
    assert WORDS.say("new_baseline", kind) in text
    assert "confirm with hark relearn M-101A-NORTH-1" in text
    assert "cause unclear" not in text
    assert set(text) <= GSM_ALPHABET


def test_every_sensor_fault_has_words_and_something_to_do() -> None:
    """A sensor that nobody can name is a sensor that nobody mends."""
    for fault in map(str, SensorFault):
        assert "vib-b" in WORDS.say("sensor", fault, sensor="vib-b")
        assert WORDS.say("sensor_action", fault)


def test_an_unknown_language_is_refused_with_the_way_to_add_it() -> None:
    """A missing file must not become a message without words."""
    with pytest.raises(LookupError, match=r"copy agent/words/en\.toml to xx\.toml"):
        Words("xx")
