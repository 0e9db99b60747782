"""Everything that can be set, typed, read once from the environment and frozen.

Names are ``DATABASE_URL``, ``JWT_SECRET_KEY``, ``ADMIN_*`` and, for all else, ``CATALOG_*``. A
secret may come from a file instead, named by the same variable with ``_FILE`` behind it, as
container platforms mount them.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from catalog.errors import SettingsInvalid

MIN_SECRET_BYTES = 32
"""An HS256 key is at least as long as its hash (RFC 7518, section 3.2)."""

# Keys that stand in tutorials, in the documentation of token libraries and in RFCs: whoever
# guesses, guesses these first.
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
    """Where the service listens: ``host:port``, ``[v6]:port`` or ``unix:/path``."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read the form that people write.

        Raises:
            ValueError: it is none of the three forms, or the port is out of range.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise ValueError("must be host:port or unix:/path")
        if text.startswith("unix:"):
            path = Path(text.removeprefix("unix:"))
            if not path.is_absolute():
                raise ValueError("the path of a unix socket must be absolute: unix:/run/name.sock")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isascii() or not port.isdigit():
            raise ValueError("must be host:port, [address]:port or unix:/path")
        if int(port) > 65535:
            raise ValueError("the port must be from 0 to 65535")
        return cls(host=host, port=int(port))

    @property
    def url(self) -> str:
        """The address as a person would type it into a browser."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (compared, not bound)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests are admitted in how many seconds: ``600/minute``."""

    requests: int
    seconds: int

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Read the form that people write; None is ``off``.

        Raises:
            ValueError: it is neither, or the number is out of range.
        """
        if text is None or isinstance(text, cls):
            return text
        if text == "off":
            return None
        number, _, unit = str(text).partition("/")
        if not re.fullmatch("[0-9]{1,9}", number) or unit not in _SECONDS:
            raise ValueError("must be a number per second, minute, hour or day: 600/minute, or off")
        if not 1 <= int(number) <= 1_000_000:
            raise ValueError("must admit from 1 to 1000000 requests; off admits any number")
        return cls(int(number), _SECONDS[unit])


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands for a secret whose file could not be read, until validation can report it."""

    message: str


def parse_database_url(text: object) -> URL:
    """Turn the URL that people have into the one that the drivers here understand.

    ``mysql://`` and ``mysql+pymysql://`` are what existing ``.env`` files hold.

    Raises:
        ValueError: unknown scheme or option; never repeats the URL, which holds a password.
    """
    if isinstance(text, _Unreadable):
        raise ValueError(text.message)
    if isinstance(text, SecretStr):
        text = text.get_secret_value()
    try:
        url = text if isinstance(text, URL) else make_url(str(text))
    except (ArgumentError, ValueError):
        raise ValueError("is not a URL such as mysql://user:password@host:3306/catalog") from None
    if url.drivername in _SQLITE_SCHEMES:
        return _sqlite_url(url)
    if url.drivername in _MYSQL_SCHEMES:
        return _mysql_url(url)
    raise ValueError(
        "must begin with mysql://, mysql+pymysql://, mysql+aiomysql://, mariadb:// or sqlite://"
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
    # Options are not repeated: behind an @ and a ? in a password that was not encoded, the rest of
    # the password passes for their names.
    if any(name.lower().startswith(("ssl", "tls")) for name in url.query):
        raise ValueError(
            "has an option for TLS; set CATALOG_DATABASE_TLS=verify (or require) and, for a "
            "private authority, CATALOG_DATABASE_TLS_CA=/path/ca.pem instead"
        )
    if set(url.query) - {"charset", "unix_socket"}:
        raise ValueError("has an option that is not known; charset and unix_socket are")
    if url.query.get("charset", "utf8mb4") != "utf8mb4":
        raise ValueError("must use charset=utf8mb4, or leave it out")
    if not url.database:
        raise ValueError("must name a database: mysql://user:password@host:3306/catalog")
    # aiomysql sends passwords as Latin-1, so that anything else is denied without a reason.
    if url.password is not None and not str(url.password).isascii():
        raise ValueError("has a password with characters outside ASCII, which the driver garbles")
    return url.set(drivername="mysql+aiomysql", query={**url.query, "charset": "utf8mb4"})


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


def _check_secret(secret: str) -> None:
    """Refuse a signing secret that can be guessed.

    Raises:
        ValueError: it can, or it is a key of another kind.
    """
    try:
        size = len(secret.encode())
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    if size < MIN_SECRET_BYTES:
        raise ValueError(f"must be at least {MIN_SECRET_BYTES} bytes: openssl rand -hex 32")
    if secret in KNOWN_SECRETS or len(set(secret)) < 8:
        raise ValueError("is a known example or too regular; make one: openssl rand -hex 32")
    # Half of such a key is public, and the JWT library signs with no text that looks like one.
    if "BEGIN " in secret or secret.startswith(("ssh-", "ecdsa-", "{", "[")):
        raise ValueError("must be random text: a private key belongs in CATALOG_JWT_PRIVATE_KEY")


def _parse_secrets(value: object) -> tuple[SecretStr, ...]:
    if isinstance(value, _Unreadable):
        raise ValueError(value.message)
    if not isinstance(value, str):
        given = value if isinstance(value, Iterable) else ()
        secrets = [each if isinstance(each, SecretStr) else SecretStr(str(each)) for each in given]
    else:
        # A variable separates by commas; in a file each may have a line of its own.
        pieces = [piece.strip() for piece in value.replace("\n", ",").split(",")]
        secrets = [SecretStr(piece) for piece in pieces if piece]
    for number, secret in enumerate(secrets, start=1):
        try:
            _check_secret(secret.get_secret_value())
        except ValueError as fault:
            raise ValueError(f"has a key, number {number}, that {fault}") from None
    return tuple(secrets)


def _parse_limits_url(value: object) -> SecretStr | None:
    """The URL under the names that the client knows: Valkey speaks Redis's protocol."""
    if isinstance(value, _Unreadable):
        raise ValueError(value.message)
    if value is None:
        return None
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    # As with the database's, no message repeats any of it.
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
        raise ValueError("takes no options; a character such as ? or # in a password is encoded")
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
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Secrets = tuple[SecretStr, ...]
Networks = tuple[IPv4Network | IPv6Network, ...]


class Settings(BaseSettings):
    """What the service was told, checked and frozen.

    Raises:
        pydantic.ValidationError: something is wrong; ``load_settings`` makes it readable.
    """

    model_config = SettingsConfigDict(
        env_prefix="CATALOG_",
        env_ignore_empty=True,
        enable_decoding=False,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
    )

    # First, because the rules of other fields depend on it.
    env: Literal["development", "production"] = "development"
    """``production`` wants a ``JWT_SECRET_KEY`` and refuses common passwords."""

    database_url: Annotated[URL, PlainValidator(parse_database_url)] = Field(
        default=URL.create("sqlite+aiosqlite", database="var/catalog.db"),
        validation_alias="DATABASE_URL",
        repr=False,
    )
    """MySQL, MariaDB or SQLite: ``mysql://user:password@host:3306/catalog``, ``sqlite:///file``."""

    jwt_secret_key: SecretStr | None = Field(default=None, validation_alias="JWT_SECRET_KEY")
    """Signs tokens and cursors: at least 32 bytes, random. Made and kept in development."""

    jwt_previous_secret_keys: Annotated[Secrets, PlainValidator(_parse_secrets)] = ()
    """Secrets that signed once and are still accepted, separated by commas."""

    jwt_private_key: SecretStr | None = None
    """Signs access tokens instead of the secret (PEM): RSA, EC on P-256 or Ed25519."""

    jwt_previous_public_keys: SecretStr | None = None
    """Public keys (PEM, one after the other) whose access tokens are still accepted."""

    admin_username: str = Field(default="admin", validation_alias="ADMIN_USERNAME")
    """The administrator made at the first start."""

    admin_email: str = Field(default="admin@example.com", validation_alias="ADMIN_EMAIL")
    """The administrator's e-mail address."""

    admin_password: SecretStr | None = Field(default=None, validation_alias="ADMIN_PASSWORD")
    """The administrator's password; without it a random one is printed once."""

    bind: Annotated[Bind, PlainValidator(Bind.parse)] = Bind("127.0.0.1", 8000)
    """Where to listen: ``host:port``, ``[v6]:port`` or ``unix:/path``."""

    workers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: usable_cores())
    """Worker processes; one per core that the process may use."""

    graceful_timeout: Seconds = 25.0
    """Seconds that requests in flight get to finish when the service stops."""

    drain_delay: Annotated[float, Field(ge=0, le=300)] = 1.0
    """Seconds between ``/readyz`` turning 503 and no longer accepting connections."""

    trusted_proxies: Annotated[Networks, PlainValidator(_parse_networks)] = ()
    """Networks whose ``X-Forwarded-For`` and ``-Proto`` are believed, separated by commas."""

    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 256 * 1024
    """Largest request body in bytes."""

    body_timeout: Seconds = 10.0
    """Seconds within which a request body must have arrived."""

    response_timeout: Seconds = 30.0
    """Seconds within which a client must have taken its answer."""

    signup_limit: Limit = Rate(120, 60)
    """Sign-ups that one client address may try: ``120/minute``, or ``off``."""

    login_limit: Limit = Rate(600, 60)
    """Log-ins that one client address may try."""

    refresh_limit: Limit = Rate(6000, 60)
    """Refreshes that one client address may ask for."""

    read_limit: Limit = None
    """Reads of ``/api/products`` from one client address; not limited unless told."""

    write_limit: Limit = None
    """Writes to ``/api/products`` from one client address; not limited unless told."""

    limits_url: Annotated[SecretStr | None, PlainValidator(_parse_limits_url)] = None
    """Redis or Valkey that counts for all workers and instances; without it each counts alone."""

    database_pool_size: Annotated[int, Field(ge=1, le=256)] = 5
    """Connections of one worker for reading, and as many for writing."""

    database_pool_timeout: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Seconds to wait for a free connection before answering 503."""

    database_connect_timeout: Seconds = 3.0
    """Seconds for a new connection, TLS and sign-in included."""

    database_timeout: Seconds = 5.0
    """Seconds that one unit of work may take in the database."""

    database_start_timeout: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """Seconds to wait for the database at start."""

    database_tls: Literal["off", "require", "verify"] = "off"
    """TLS to the database: ``verify`` checks certificate and host name, ``require`` does not."""

    database_tls_ca: Path | None = None
    """Certificate authority of the database's certificate (PEM); without it the system's."""

    access_token_ttl: Life = timedelta(minutes=15)
    """Life of an access token in seconds."""

    refresh_token_ttl: Life = timedelta(days=30)
    """Life of a refresh token in seconds."""

    session_ttl: Life = timedelta(days=90)
    """Seconds after which a session ends however often its refresh token was rotated."""

    sessions_per_account: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Sessions an account may have; one more ends the one that was not used for longest."""

    revocation_interval: Annotated[float, Field(ge=0.1, le=1.0)] = 0.5
    """Seconds between two looks of a worker at which sessions have ended."""

    password_min_length: Annotated[int, Field(ge=8, le=128)] = 8
    """Shortest password that sign-up accepts, in characters."""

    password_memory_kib: Annotated[int, Field(ge=19456, le=4 * 1024 * 1024)] = 19456
    """Memory of one argon2id hash in KiB (OWASP: at least 19456)."""

    password_passes: Annotated[int, Field(ge=2, le=100)] = 2
    """Passes of one argon2id hash over its memory."""

    password_queue: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Passwords that may wait for a core in one worker; beyond it sign-in answers 503."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe event that is logged."""

    log_format: Literal["json", "console"] = "json"
    """``json`` for machines, one object a line; ``console`` for people."""

    access_log: Literal["all", "errors", "off"] = "all"
    """Which requests are logged: all, those answered with 400 and above, or none."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the library's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the same)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Files before variables: whoever sets both is to hear of it, which a variable would hide.
        return init_settings, _SecretFiles(settings_cls), env_settings

    @field_validator("jwt_secret_key", mode="before")
    @classmethod
    def _strong_secret(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, _Unreadable):
            raise ValueError(value.message)
        if value is None:
            if info.data.get("env") == "production":
                raise ValueError("is required in production; make one with: openssl rand -hex 32")
            return None
        secret = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        _check_secret(secret)
        return value

    @field_validator("admin_password", "jwt_private_key", "jwt_previous_public_keys", mode="before")
    @classmethod
    def _readable(cls, value: object) -> object:
        if isinstance(value, _Unreadable):
            raise ValueError(value.message)
        return value

    @field_validator("database_tls_ca")
    @classmethod
    def _existing_authority(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("names no file")
        return value

    @property
    def embedded(self) -> bool:
        """Whether the database is a SQLite file of this machine."""
        return self.database_url.get_backend_name() == "sqlite"

    @property
    def refuse_guessable_passwords(self) -> bool:
        """Whether new passwords must not be common ones, nor what their account suggests."""
        return self.env == "production"

    @property
    def data_dir(self) -> Path:
        """Where the service keeps files of its own: beside the SQLite file, else ``var``."""
        if self.embedded:
            return Path(str(self.database_url.database)).parent
        return Path("var")


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads secrets from the files that ``<NAME>_FILE`` variables name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = _variable(field_name, field)
        path = os.environ.get(f"{name}_FILE", "")
        if not path or field_name not in SECRET_FIELDS:
            return None, field_name, False
        if os.environ.get(name):
            return (
                _Unreadable(f"is set, and so is {name}_FILE: keep one"),
                field_name,
                False,
            )
        try:
            # Editors and `echo` end files with a newline that is not part of the secret.
            value = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            return (
                _Unreadable(f"cannot be read from {name}_FILE: {reason}"),
                field_name,
                False,
            )
        return value or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {}
        for field_name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, field_name)
            if value is not None:
                found[str(field.validation_alias or key)] = value
        return found


SECRET_FIELDS = (
    "database_url",
    "jwt_secret_key",
    "jwt_previous_secret_keys",
    "jwt_private_key",
    "jwt_previous_public_keys",
    "admin_password",
    "limits_url",
)
"""Fields that also read ``<NAME>_FILE``."""


def usable_cores() -> int:
    """Cores this process may run on, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def variable_names() -> dict[str, str]:
    """The environment variable of each field, by field name, in the order of definition."""
    return {name: _variable(name, field) for name, field in Settings.model_fields.items()}


def unknown_variables() -> list[str]:
    """``CATALOG_*`` variables that mean nothing here: most likely misspelt.

    Not a fault: Kubernetes gives every pod ``CATALOG_PORT`` and the like for a service that is
    called catalog.
    """
    known = set(variable_names().values())
    known |= {f"{variable_names()[field]}_FILE" for field in SECRET_FIELDS}
    injected = ("CATALOG_SERVICE_", "CATALOG_PORT", "CATALOG_TEST_")
    return sorted(
        name
        for name in os.environ
        if name.startswith("CATALOG_") and name not in known and not name.startswith(injected)
    )


def load_settings(**overrides: object) -> Settings:
    """Read the environment, once, at an entry point.

    Args:
        **overrides: fields by name that win over the environment, such as command-line options.

    Raises:
        SettingsInvalid: with every fault at once, a line each.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # checked by pydantic, not by name
    except ValidationError as error:
        names = variable_names()
        faults = []
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            field = str(fault["loc"][0]) if fault["loc"] else ""
            message = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{names.get(field, field)} {message[0].lower()}{message[1:]}")
        raise SettingsInvalid(faults) from None


def _variable(field_name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"CATALOG_{field_name.upper()}")
