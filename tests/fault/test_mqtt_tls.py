"""TLS with certificates on both sides, against a real broker that demands them: each mistake is one line that says which."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from helpers import wait_until

from agent.clock import SystemClock
from firmware_bridge.broker import BrokerKeys, Login, Place, login_of, tls_of
from firmware_bridge.errors import ConfigError, SourceLost
from firmware_bridge.source import MqttSensor, MqttSpec, SourceContext, open_source
from firmware_bridge.sources import mqtt
from firmware_bridge.sources.mqtt import MqttSource

CONFIG = Path(__file__).resolve().parents[2] / "config"
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "own")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "other", "somebody else")


@pytest.fixture(scope="module")
def tls_broker(mosquitto: Callable[..., Any], authority: Authority) -> Any:
    """Demands a client certificate of its authority."""
    return mosquitto(
        extra=listening(authority, *authority.certificate("broker", host=HOST), "require_certificate true")
    )


def listening(authority: Authority, cert: Path, key: Path, *more: str) -> str:
    return "\n".join([f"cafile {authority.ca_file}", f"certfile {cert}", f"keyfile {key}", *more])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """paho sleeps between two attempts, and so does its end."""
    monkeypatch.setattr(mqtt, "RECONNECT_S", (0.05, 0.05))


def source(port: int, folder: Path, **keys: Any) -> MqttSource:
    spec = MqttSpec(
        name="secure", host=HOST, port=port, timeout_s=0.5, sensors=(MqttSensor(name="accel"),),
        **{name: str(value) if isinstance(value, Path) else value for name, value in keys.items()},
    )  # fmt: skip
    place = Place(folder / "site.toml", "sources[0]")
    opened = open_source(spec, SourceContext(CONFIG, "demo", 0, SystemClock(), place=place))
    assert isinstance(opened, MqttSource)
    return opened


def lost(reader: MqttSource) -> str:
    """The one line that the engineer reads, once the cause is known."""
    found: list[str] = []

    def known() -> bool:
        try:
            list(reader.read(0.05))
        except SourceLost as error:
            found.append(str(error))
        return bool(found) and "no answer yet" not in found[-1]

    try:
        wait_until(known, 10.0, "the loss")
    finally:
        reader.close()
    assert "\n" not in found[-1]
    return found[-1]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_with_both_certificates_the_source_is_let_in(
    tls_broker: Any, authority: Authority, tmp_path: Path, version: str
) -> None:
    """The client's certificate is its identity."""
    cert, key = authority.certificate(f"gw-{version}")
    reader = source(tls_broker.port, tmp_path, ca_file=authority.ca_file, cert_file=cert, key_file=key, version=version)
    wait_until(lambda: list(reader.read(0.05)) or reader.counters["connects"], 10.0, "the connection")
    reader.close()


def test_a_client_without_certificate_is_told_to_write_one(
    tls_broker: Any, authority: Authority, tmp_path: Path
) -> None:
    """The broker only hangs up; the line says what it most likely wanted."""
    text = lost(source(tls_broker.port, tmp_path, ca_file=authority.ca_file))
    assert "If it asks for a client certificate, write cert_file and key_file; Hark goes on trying" in text


def test_a_client_certificate_of_a_stranger_is_called_that(
    tls_broker: Any, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    """Signed, but not by the authority that the broker trusts."""
    cert, key = stranger.certificate("gw-01")
    text = lost(source(tls_broker.port, tmp_path, ca_file=authority.ca_file, cert_file=cert, key_file=key))
    assert "Have cert_file signed by the authority it trusts; Hark goes on trying" in text


def test_a_broker_that_another_authority_signed_is_not_believed(
    tls_broker: Any, stranger: Authority, tmp_path: Path
) -> None:
    """Somebody who stands between us and the broker looks just so."""
    cert, key = stranger.certificate("gw-02")
    text = lost(source(tls_broker.port, tmp_path, ca_file=stranger.ca_file, cert_file=cert, key_file=key))
    assert re.search(
        r"\(the broker's certificate: .*(?:issuer|self-signed) certificate.*\); nothing arrives from accel\. ", text
    )
    assert "Write the authority that signed it in ca_file" in text


def test_without_ca_file_only_public_authorities_are_believed(tls_broker: Any, tmp_path: Path) -> None:
    """`tls = true` is for brokers in the cloud; a plant's own authority has to be named."""
    assert "Write the authority that signed it in ca_file" in lost(source(tls_broker.port, tmp_path, tls=True))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"host": HOST, "expired": True}, "certificate has expired); nothing arrives from accel. Renew it, or set this"),
        ({"host": "192.0.2.9"}, "(the broker's certificate: IP address mismatch, certificate is not valid for '127.0.0.1')"),
    ],
    ids=["expired", "another-name"],
)  # fmt: skip
def test_a_broker_whose_certificate_is_not_its_own_or_too_old(
    mosquitto: Callable[..., Any], authority: Authority, tmp_path: Path, made: dict[str, Any], says: str
) -> None:
    """Both happen every few years, at night; the line is all that the person on call has."""
    broker = mosquitto(extra=listening(authority, *authority.certificate(f"wrong-{len(says)}", **made)))
    try:
        assert says in lost(source(broker.port, tmp_path, ca_file=authority.ca_file))
    finally:
        broker.stop()


def test_plain_and_encrypted_ports_are_not_mixed_up(
    broker: Any, tls_broker: Any, authority: Authority, tmp_path: Path
) -> None:
    """1883 and 8883: the commonest slip of the finger."""
    assert "(no TLS on this port)" in lost(source(broker.port, tmp_path, ca_file=authority.ca_file))
    assert "If this port is for TLS, write ca_file or tls = true" in lost(source(tls_broker.port, tmp_path))


# ---------------------------------------------------------------------- the site file's keys


def place(folder: Path, **keys: str) -> Place:
    """A site file in `folder` with these keys in its only source."""
    path = folder / "site.toml"
    path.write_text("[[sources]]\n" + "".join(f'{name} = "{value}"\n' for name, value in keys.items()), "utf-8")
    return Place(path, "sources[0]")


@pytest.mark.parametrize(
    ("keys", "line", "says"),
    [
        ({"ca_file": "nowhere.pem"}, 2, "is no file of certificates (No such file or directory)"),
        ({"ca_file": "rubbish.pem"}, 2, "is no file of certificates (no certificate in it)"),
        ({"ca_file": "ca.pem", "cert_file": "nowhere.pem", "key_file": "gw.key"}, 3, "cannot be read (No such file"),
        ({"ca_file": "ca.pem", "cert_file": "gw.pem", "key_file": "nowhere.key"}, 4, "cannot be read (No such file"),
        ({"ca_file": "ca.pem", "cert_file": "gw.pem", "key_file": "rubbish.pem"}, 3, "do not make a certificate (not PEM"),
        ({"ca_file": "ca.pem", "cert_file": "gw.pem", "key_file": "other.key"}, 3, "(the key is not this certificate's)"),
        ({"username": "hark", "password_file": "nowhere"}, 3, "cannot be read (No such file or directory)"),
        ({"username": "hark", "password_env": "HARK_TEST_UNSET"}, 3, "is not set in the environment"),
        ({"username_env": "HARK_TEST_UNSET"}, 2, "is not set in the environment"),
        ({"password_file": "rubbish.pem"}, 2, "is the password of nobody; write username"),
    ],
)  # fmt: skip
def test_a_file_or_variable_that_does_not_serve_is_named_with_its_line(
    authority: Authority, tmp_path: Path, keys: dict[str, str], line: int, says: str
) -> None:
    """A relative path counts from the site file; the line is the site file's."""
    for name, of in (("ca.pem", authority.ca_file), ("gw.pem", "gw-10"), ("other.key", "gw-11")):
        made = of if isinstance(of, Path) else authority.certificate(f"{of}-{line}-{len(says)}")[name.endswith("key")]
        (tmp_path / name).write_bytes(made.read_bytes())
    (tmp_path / "gw.key").write_bytes(b"")
    (tmp_path / "rubbish.pem").write_text("hello", "utf-8")
    where = place(tmp_path, **keys)
    with pytest.raises(ConfigError) as refused:
        login_of(BrokerKeys(**keys), where), tls_of(BrokerKeys(**keys), where)
    (problem,) = refused.value.problems
    assert problem.line == line
    assert says in problem.text
    assert problem.key.startswith("sources[0].")


def test_user_and_password_come_from_files_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are never printed."""
    monkeypatch.setenv("HARK_TEST_USER", "from-env")
    monkeypatch.setenv("HARK_TEST_PASSWORD", "secret-1")
    (tmp_path / "password").write_text("secret-2\n", "utf-8")
    where = place(tmp_path)
    assert login_of(BrokerKeys(username_env="HARK_TEST_USER", password_file="password"), where) == Login(
        "from-env", "secret-2"
    )
    named = login_of(BrokerKeys(username="hark", password_env="HARK_TEST_PASSWORD"), where)
    assert named == Login("hark", "secret-1")
    assert "secret" not in repr(named)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"username": "a", "username_env": "B"}, "username and username_env are both there"),
        ({"username": "a", "password_file": "b", "password_env": "C"}, "password_file and password_env are both there"),
        ({"ca_file": "a", "cert_file": "b"}, "cert_file and key_file belong together"),
        ({"cert_file": "b", "key_file": "c"}, "cert_file needs TLS; write ca_file, or tls = true"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys: dict[str, str], says: str) -> None:
    """Half a login is none, and an unencrypted certificate is no proof."""
    with pytest.raises(ValueError, match=re.escape(says)):
        BrokerKeys(**keys)
