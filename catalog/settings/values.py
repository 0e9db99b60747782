"""Parsers for the textual forms of settings.

No error message repeats a value that is secret or contains a password.
"""

import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import PlainValidator, SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from catalog.settings.sources import MAX_PORT

MIN_SECRET_BYTES = 32
"""An HS256 key is at least as long as its hash (RFC 7518, section 3.2)."""

# Keys from tutorials, documentation of token libraries and RFCs: attackers try these first.
KNOWN_SECRETS = frozenset(
    {
        "a-string-secret-at-least-256-bits-long",
        "your-256-bit-secret-your-256-bit-secret",
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "super-secret-key-change-me-in-production",
        "change-me-change-me-change-me-change-me",
        "changemechangemechangemechangeme",
        "this-is-a-very-long-secret-key-for-testing",
        "0123456789abcdef0123456789abcdef",
        "01234567890123456789012345678901",
        "12345678901234567890123456789012",
        "abcdefghijklmnopqrstuvwxyz123456",
        "abcdefghijklmnopqrstuvwxyz012345",
    }
)

_MYSQL_SCHEMES = {
    "mysql",
    "mysql+pymysql",
    "mysql+aiomysql",
    "mariadb",
    "mariadb+aiomysql",
}
_SQLITE_SCHEMES = {"sqlite", "sqlite+aiosqlite"}


@dataclass(frozen=True, slots=True)
class Bind:
    """Listening address: ``host:port``, ``[v6]:port`` or ``unix:/path``."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: object) -> Self:
        """Parse the textual form.

        Raises:
            ValueError: the text has none of the three forms, or the port is out of range.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise ValueError("must be host:port or unix:/path")
        if text.startswith("unix:"):
            path = Path(text.removeprefix("unix:"))
            if not path.is_absolute():
                raise ValueError("must name a unix socket by an absolute path: unix:/run/name.sock")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isascii() or not port.isdigit():
            raise ValueError("must be host:port, [address]:port or unix:/path")
        if len(port) > 5 or int(port) > MAX_PORT:
            raise ValueError(f"must have a port from 0 to {MAX_PORT}")
        return cls(host=host, port=int(port))

    @property
    def url(self) -> str:
        """The address as typed into a browser."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (compared, not bound)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True, slots=True)
class Rate:
    """Rate limit, requests per number of seconds: ``600/minute``."""

    requests: int
    seconds: int

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Parse the textual form; ``off`` gives None.

        Raises:
            ValueError: the text has neither form, or the number is out of range.
        """
        if text is None or isinstance(text, cls):
            return text
        if text == "off":
            return None
        number, _, unit = str(text).partition("/")
        if not re.fullmatch("[0-9]{1,9}", number) or unit not in _SECONDS:
            raise ValueError("must be off or a number per second, minute, hour or day: 600/minute")
        if not 1 <= int(number) <= 1_000_000:
            raise ValueError("must allow 1 to 1000000 requests; off allows any number")
        return cls(int(number), _SECONDS[unit])


def parse_database_url(text: object) -> URL:
    """Parse a database URL and convert it to the scheme of the drivers in use.

    Existing ``.env`` files hold ``mysql://`` and ``mysql+pymysql://``.

    Raises:
        ValueError: unknown scheme or option; never repeats the URL, which contains a password.
    """
    if isinstance(text, SecretStr):
        text = text.get_secret_value()
    try:
        url = text if isinstance(text, URL) else make_url(str(text))
    except (ArgumentError, ValueError):
        raise ValueError("is not a URL such as mysql://user:password@host:3306/catalog") from None
    if url.drivername in _SQLITE_SCHEMES:
        return _sqlite_url(url)
    if url.drivername in _MYSQL_SCHEMES:
        _check_at_signs(str(text), url)
        return _mysql_url(url)
    raise ValueError(
        "must begin with mysql://, mysql+pymysql://, mysql+aiomysql://, mariadb:// or sqlite://"
    )


def _check_at_signs(text: str, url: URL) -> None:
    # What follows an @ in a password would be taken for the host and appear in messages.
    if text.count("@") > 1 or any("@" in str(part) for part in (url.host, url.database)):
        raise ValueError(
            "is ambiguous; percent-encode special characters in the user and the password, "
            "such as @ as %40 and / as %2F"
        )


def _sqlite_url(url: URL) -> URL:
    if url.query:
        raise ValueError("takes no options with SQLite")
    if url.host:
        raise ValueError("has a host; a SQLite file is sqlite:///relative or sqlite:////absolute")
    if url.database in {None, "", ":memory:"}:
        raise ValueError("must name a file; workers cannot share a SQLite database in memory")
    return url.set(drivername="sqlite+aiosqlite")


def _mysql_url(url: URL) -> URL:
    # The message does not repeat options: after an @ and a ? in a password that was not encoded,
    # the rest of the password is parsed as option names.
    if any(name.lower().startswith(("ssl", "tls")) for name in url.query):
        raise ValueError(
            "has an option for TLS; set CATALOG_DATABASE_TLS=verify (or require) or, for a "
            "private authority, CATALOG_DATABASE_TLS=/path/ca.pem instead"
        )
    if set(url.query) - {"charset", "unix_socket"}:
        raise ValueError("has an unknown option; charset and unix_socket are supported")
    if url.query.get("charset", "utf8mb4") != "utf8mb4":
        raise ValueError("must use charset=utf8mb4, or leave it out")
    if not url.database:
        raise ValueError("must name a database: mysql://user:password@host:3306/catalog")
    # aiomysql encodes passwords as Latin-1, so the server rejects others without a reason.
    if url.password is not None and not str(url.password).isascii():
        raise ValueError("has a password with non-ASCII characters, which the driver corrupts")
    return url.set(drivername="mysql+aiomysql", query={**url.query, "charset": "utf8mb4"})


def _parse_database_tls(value: object) -> str | Path:
    """Return ``off``, ``require`` or ``verify``, or the path of a file of authorities.

    Raises:
        ValueError: it is none of them, or the file holds no certificates.
    """
    if isinstance(value, str) and value in {"off", "require", "verify"}:
        return value
    path = value if isinstance(value, Path) else Path(str(value))
    if not path.is_absolute():
        raise ValueError("must be off, require, verify or the absolute path of a PEM file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError):  # ssl.SSLError is an OSError.
        raise ValueError("must name a readable PEM file with certificates") from None
    return path


def _parse_networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise ValueError("must be a list of networks such as 10.0.0.0/8,::1")
    networks = []
    for item in items:
        try:
            networks.append(ip_network(str(item).strip()))
        except ValueError:
            raise ValueError("must be a list of networks such as 10.0.0.0/8,::1") from None
    return tuple(networks)


def check_secret(secret: str) -> None:
    """Refuse a guessable signing secret.

    Raises:
        ValueError: the secret is guessable, or is a key of another kind.
    """
    try:
        size = len(secret.encode())
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    if size < MIN_SECRET_BYTES:
        raise ValueError(
            f"must be at least {MIN_SECRET_BYTES} bytes; generate one with: openssl rand -hex 32"
        )
    if secret in KNOWN_SECRETS or len(set(secret)) < 8:
        raise ValueError(
            "is a known example or too regular; generate one with: openssl rand -hex 32"
        )
    # Half of such a key is public, and the JWT library refuses to sign with similar text.
    if "BEGIN " in secret or secret.startswith(("ssh-", "ecdsa-", "{", "[")):
        raise ValueError("must be random text: a private key belongs in CATALOG_JWT_PRIVATE_KEY")


def _parse_secrets(value: object) -> tuple[SecretStr, ...]:
    if not isinstance(value, str):
        given = value if isinstance(value, Iterable) else ()
        secrets = [each if isinstance(each, SecretStr) else SecretStr(str(each)) for each in given]
    else:
        # Variables separate secrets by commas; files may hold one per line.
        pieces = [piece.strip() for piece in value.replace("\n", ",").split(",")]
        secrets = [SecretStr(piece) for piece in pieces if piece]
    for number, secret in enumerate(secrets, start=1):
        try:
            check_secret(secret.get_secret_value())
        except ValueError as fault:
            raise ValueError(f"has a key (number {number}) that {fault}") from None
    return tuple(secrets)


def _parse_limits_url(value: object) -> SecretStr | None:
    """Return the URL with a scheme that the client knows: Valkey speaks Redis's protocol."""
    if value is None:
        return None
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    # As for the database URL, no message repeats any of it.
    scheme, _, rest = text.partition("://")
    if scheme not in {"redis", "rediss", "valkey", "valkeys"}:
        raise ValueError("must begin with redis://, rediss://, valkey:// or valkeys://")
    try:
        url = urlsplit(f"//{rest}")
        named = bool(url.hostname) and url.port != 0
    except ValueError:
        named = False
    if not named:
        raise ValueError("is not a URL such as redis://:password@host:6379/0")
    if url.query or url.fragment:
        raise ValueError("takes no options; percent-encode characters such as ? or # in a password")
    if not re.fullmatch("/?[0-9]{0,6}", url.path):
        raise ValueError("may name a database by its number only: redis://host:6379/0")
    return SecretStr(f"{scheme.replace('valkey', 'redis')}://{rest}")


def _parse_life(value: object) -> timedelta:
    try:
        life = value if isinstance(value, timedelta) else timedelta(seconds=float(str(value)))
    except (ValueError, OverflowError):
        raise ValueError("must be a number of seconds") from None
    if not timedelta(seconds=1) <= life <= timedelta(days=366):
        raise ValueError("must be from 1 second to 366 days (31622400)")
    return life


Life = Annotated[timedelta, PlainValidator(_parse_life)]
Limit = Annotated[Rate | None, PlainValidator(Rate.parse)]
Listen = Annotated[Bind, PlainValidator(Bind.parse)]
DatabaseUrl = Annotated[URL, PlainValidator(parse_database_url)]
DatabaseTls = Annotated[str | Path, PlainValidator(_parse_database_tls)]
LimitsUrl = Annotated[SecretStr | None, PlainValidator(_parse_limits_url)]
Secrets = Annotated[tuple[SecretStr, ...], PlainValidator(_parse_secrets)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], PlainValidator(_parse_networks)]
