"""The envelope, the confirmation and the topics between gateway and collector."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from firmware_bridge import upstream
from firmware_bridge.errors import FrameError
from firmware_bridge.upstream import UpstreamRecord, decode_confirm, decode_record, encode_confirm, encode_record

RECORD = UpstreamRecord(
    site="demo",
    gateway="gw-01",
    stream="feature",
    seq=41,
    machine="M-101A",
    utc_ns=1_700_000_000 * 10**9,
    body={"score": 1.5},
)


def altered(**changes: object) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(encode_record(RECORD)) | changes)


def test_absent_feature_values_leave_as_null() -> None:
    """NaN is no JSON; the collector must not have to guess."""
    values = np.array([1.5, np.nan], np.float32)
    body = decode_record(encode_record(msgspec.structs.replace(RECORD, body={"values": values}))).body
    assert body["values"] == [1.5, None]


def test_burst_samples_stay_bytes() -> None:
    """Base64 would cost a third more of a metered line."""
    samples = np.arange(100, dtype="<i2").tobytes()
    record = msgspec.structs.replace(RECORD, stream="burst", body={"samples": samples, "scale_m_s2": 0.005})
    message = encode_record(record)
    assert len(message) < len(samples) + 200
    assert decode_record(message) == record


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (r"\$\.v", altered(v=2)),
        ("calls itself", altered(key="demo/gw-01/feature/42")),
        ("calls itself", altered(site="other")),
        (r"\$\.site", altered(site="a/b")),
        (r"\$\.machine", altered(machine="")),
        (r"\$\.stream", altered(stream="other")),
        (r"\$\.seq", altered(seq=-1)),
        (r"\$\.seq", altered(seq=True)),
        (r"\$\.body", altered(body=[])),
        ("PROTOCOL.md", b"{"),
        ("PROTOCOL.md", b"\xc1"),
        ("0 bytes", b""),
        ("nested too deeply", b'{"body":{"a":' + b"[" * 100_000),
    ],
)
def test_a_record_that_is_not_ours_is_refused_with_its_reason(says: str, message: bytes) -> None:
    """The collector counts it and goes on."""
    with pytest.raises(FrameError, match=says):
        decode_record(message)


def test_a_reader_ignores_fields_that_a_newer_gateway_adds() -> None:
    """Gateways are updated one by one, over months."""
    assert decode_record(altered(firmware="2.1")) == RECORD


def test_a_confirmation_goes_there_and_back() -> None:
    """Ranges hold their first and last number."""
    back = decode_confirm(encode_confirm("alarm", [(1, 40), (43, 43)]))
    assert (back.stream, back.ranges) == ("alarm", ((1, 40), (43, 43)))


@pytest.mark.parametrize(
    "message",
    [
        b'{"v":1,"stream":"alarm","ranges":[[5,4]]}',
        b'{"v":1,"stream":"alarm","ranges":[[-1,4]]}',
        b'{"v":1,"stream":"alarm","ranges":[[1]]}',
        b'{"v":2,"stream":"alarm","ranges":[]}',
        b'{"v":1,"stream":"other","ranges":[]}',
        b'{"v":1,"stream":"alarm","ranges":[' + b",".join([b"[1,1]"] * 1001) + b"]}",
        b"[" * 60_000,
        b" " * 70_000,
    ],
)
def test_a_confirmation_that_is_not_ours_confirms_nothing(message: bytes) -> None:
    """A wrong one would delete what was never stored."""
    with pytest.raises(FrameError, match="confirm"):
        decode_confirm(message)


def test_a_wrong_confirmation_is_not_even_built() -> None:
    """Backwards ranges and unknown streams are bugs of the collector."""
    with pytest.raises(ValueError, match="ranges"):
        encode_confirm("alarm", [(2, 1)])
    with pytest.raises(ValueError, match="stream"):
        encode_confirm("other", [])


@pytest.mark.parametrize("stream", upstream.STREAMS)
def test_record_topics_are_built_and_parsed_alike(stream: str) -> None:
    """The collector knows stream and machine before it opens the payload."""
    topic = upstream.topic_record("demo", "gw-01", "M-101A", stream)
    assert upstream.parse_record_topic(topic) == upstream.RecordTopic("demo", "gw-01", "M-101A", stream)


def test_the_sensors_level_is_no_gateway() -> None:
    """hark/v1/{site}/sensor/... belongs to firmware; a gateway of that name would collide with it."""
    with pytest.raises(ValueError, match="no gateway is called 'sensor'"):
        upstream.topic_status("demo", "sensor")
    for topic in (
        "hark/v1/demo/sensor/a/burst",
        "hark/v1/demo/gw/M/other",
        "hark/v1/demo/gw/M",
        "hark/v1/d/g/M A/burst",
    ):
        with pytest.raises(FrameError, match="topic"):
            upstream.parse_record_topic(topic)
