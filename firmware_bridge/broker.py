"""How to be let in by a broker: login and TLS, the same keys for sensors' brokers and for the upstream one.

Secrets stand in files or in the environment, never in a site file. A relative path counts from the site file. The
broker's name is always checked against its certificate and TLS is 1.2 or newer; there is no key to switch that off.
`explained` turns what the network says into the cause and the remedy.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

from msgspec import Meta

from firmware_bridge.checked import Table, key_line
from firmware_bridge.errors import ConfigError, Problem

EnvName = Annotated[
    str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="the name of an environment variable")
]
READABLE = "write the path of a file that the user who runs hark can read"


class BrokerKeys(Table, frozen=True, kw_only=True):
    """Login and encryption, as a site file writes them."""

    username: str | None = None
    username_env: EnvName | None = None
    password_file: Annotated[str | None, Meta(description="a file that holds nothing but the password")] = None
    password_env: EnvName | None = None
    tls: Annotated[bool, Meta(description="true for a broker whose certificate a public authority signed")] = False
    ca_file: Annotated[str | None, Meta(description="turns TLS on; the authority that signed the broker")] = None
    cert_file: Annotated[str | None, Meta(description="this gateway's own certificate; needs key_file")] = None
    key_file: Annotated[str | None, Meta(description="its private key, without a password")] = None

    def __post_init__(self) -> None:
        """Raises: ValueError: two places for one secret, half of a pair, or a certificate without TLS."""
        for one, other in (("username", "username_env"), ("password_file", "password_env")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} and {other} are both there; write one of them")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; write both")
        if self.cert_file is not None and not self.encrypted:
            raise ValueError(
                "cert_file needs TLS; write ca_file, or tls = true where a public authority signed the broker"
            )

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return self.tls or self.ca_file is not None


@dataclass(frozen=True, slots=True)
class Place:
    """Where these keys stand: the site file and the table in it, such as sources[0]."""

    site_file: Path = Path("site.toml")
    table: str = "source"

    def path(self, written: str) -> Path:
        """A path of the site file; a relative one counts from there."""
        return self.site_file.parent / written

    def refuse(self, name: str, value: str, text: str) -> NoReturn:
        """Raises: ConfigError: one problem at this key of the site file."""
        key = f"{self.table}.{name}"
        line = key_line(self.site_file, key) if self.site_file.is_file() else 0
        raise ConfigError(self.site_file, [Problem(line, f'{key} = "{value}"', text)]) from None


NO_SITE_FILE = Place()


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are for the broker."""

    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        """Never the password."""
        return f"Login(username={self.username!r})"


def login_of(keys: BrokerKeys, place: Place) -> Login:
    """User and password from where the site file says.

    Raises: ConfigError: a file that cannot be read, an environment variable that is not set, or a password of nobody.
    """
    username = keys.username
    if keys.username_env is not None:
        username = _from_environment("username_env", keys.username_env, place)
    password = None
    if keys.password_env is not None:
        password = _from_environment("password_env", keys.password_env, place)
    elif keys.password_file is not None:
        password = _from_file("password_file", keys.password_file, place)
    if password is not None and username is None:
        name = "password_env" if keys.password_env is not None else "password_file"
        place.refuse(name, getattr(keys, name), "is the password of nobody; write username or username_env beside it")
    return Login(username, password)


def tls_of(keys: BrokerKeys, place: Place) -> ssl.SSLContext | None:
    """Encryption that trusts the named authority, else the system's, and shows our certificate where there is one.

    Raises: ConfigError: a file that cannot be read or holds no certificate.
    """
    if not keys.encrypted:
        return None
    try:
        context = ssl.create_default_context(cafile=str(place.path(keys.ca_file)) if keys.ca_file else None)
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "no certificate in it"
        place.refuse("ca_file", keys.ca_file or "", f"is no file of certificates ({why}); {READABLE}")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if keys.cert_file is not None and keys.key_file is not None:
        _load_certificate(context, keys.cert_file, keys.key_file, place)
    return context


def _load_certificate(context: ssl.SSLContext, cert_file: str, key_file: str, place: Place) -> None:
    for name, written in (("cert_file", cert_file), ("key_file", key_file)):
        _from_file(name, written, place)
    try:
        context.load_cert_chain(place.path(cert_file), place.path(key_file), password=_no_password)
    except ssl.SSLError as error:
        reason = "the key is not this certificate's" if "MISMATCH" in str(error.reason) else "not PEM, or encrypted"
        place.refuse(
            "cert_file", cert_file, f"and key_file do not make a certificate ({reason}); write the pair as PEM"
        )


def _no_password() -> str:
    """A key that asks for a password is refused instead of asking at a terminal that nobody watches."""
    return ""


def _from_file(name: str, written: str, place: Place) -> str:
    try:
        return place.path(written).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text in UTF-8"
        place.refuse(name, written, f"cannot be read ({why}); {READABLE}")


def _from_environment(name: str, variable: str, place: Place) -> str:
    value = os.environ.get(variable)
    if not value:
        place.refuse(name, variable, "is not set in the environment; set it for the service that runs hark")
    return value


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no connection, and what to do."""

    why: str
    do: str = "Check that the broker runs, its address and the login"

    def __str__(self) -> str:
        return self.why


def explained(error: BaseException, keys: BrokerKeys) -> Trouble:
    """Why a connection could not be made, TLS handshake included, as its cause and remedy."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_trouble(error.verify_message.rstrip("."))
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError) and keys.encrypted:
        return NO_TLS
    if isinstance(error, ssl.SSLError):
        said = str(error.reason or error).replace("_", " ").lower()
        if "alert" in said:
            return _unwanted(keys, said)
        return NO_TLS if "wrong version number" in said or "record layer" in said else Trouble(f"TLS: {said}")
    return Trouble(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def hung_up(keys: BrokerKeys, error: BaseException | None = None) -> Trouble:
    """A broker that ends the connection before it has let us in; `error` is what the socket said, if anything."""
    if keys.encrypted:  # with TLS 1.3 it looks at our certificate after the handshake
        said = str(error.reason).replace("_", " ").lower() if isinstance(error, ssl.SSLError) else ""
        return _unwanted(keys, said)
    remedy = 'If this port is for TLS, write ca_file or tls = true; a broker without MQTT 5 needs version = "3.1.1"'
    return Trouble("the broker hangs up", remedy)


def refused(reason: str, keys: BrokerKeys) -> Trouble:
    """A broker that answers, and does not let us in."""
    if "protocol version" in reason.lower():
        return Trouble(reason, 'Write version = "3.1.1"')
    if keys.cert_file is not None:
        return Trouble(reason, "Check the login, and what the broker allows to the name in cert_file")
    return Trouble(reason)


NO_TLS = Trouble("no TLS on this port", "Write the broker's TLS port, often 8883, or leave out tls and ca_file")


def _certificate_trouble(said: str) -> Trouble:
    why = f"the broker's certificate: {said}"
    if "expired" in said or "not yet valid" in said:
        return Trouble(why, "Renew it, or set this gateway's clock")
    if "mismatch" in said.lower():
        return Trouble(why, "Write the host as its certificate names it, or have one made for this address")
    return Trouble(why, "Write the authority that signed it in ca_file")


def _unwanted(keys: BrokerKeys, said: str) -> Trouble:
    """The broker does not like who we are, as far as TLS tells."""
    told = f": {said}" if said else ""
    if keys.cert_file is None:
        return Trouble(
            f"the broker hangs up{told}", "If it asks for a client certificate, write cert_file and key_file"
        )
    return Trouble(f"the broker refuses our certificate{told}", "Have cert_file signed by the authority it trusts")
