"""The settings, and how they are read from the environment."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy import URL

from catalog.errors import SettingsInvalid
from catalog.settings.values import (
    Bind,
    DatabaseUrl,
    Life,
    Limit,
    LimitsUrl,
    Listen,
    Networks,
    Rate,
    Seconds,
    Secrets,
    Unreadable,
    check_secret,
)


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

    database_url: DatabaseUrl = Field(
        default=URL.create("sqlite+aiosqlite", database="var/catalog.db"),
        validation_alias="DATABASE_URL",
        repr=False,
    )
    """MySQL, MariaDB or SQLite: ``mysql://user:password@host:3306/catalog``, ``sqlite:///file``."""

    jwt_secret_key: SecretStr | None = Field(default=None, validation_alias="JWT_SECRET_KEY")
    """Signs tokens and cursors: at least 32 bytes, random. Made and kept in development."""

    jwt_previous_secret_keys: Secrets = ()
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

    bind: Listen = Bind("127.0.0.1", 8000)
    """Where to listen: ``host:port``, ``[v6]:port`` or ``unix:/path``."""

    workers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: usable_cores())
    """Worker processes; one per core that the process may use."""

    graceful_timeout: Seconds = 25.0
    """Seconds that requests in flight get to finish when the service stops."""

    drain_delay: Annotated[float, Field(ge=0, le=300)] = 1.0
    """Seconds between ``/readyz`` turning 503 and no longer accepting connections."""

    trusted_proxies: Networks = ()
    """Networks whose ``X-Forwarded-For`` and ``-Proto`` are believed, separated by commas."""

    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 256 * 1024
    """Largest request body in bytes."""

    body_timeout: Seconds = 10.0
    """Seconds within which a request body must have arrived."""

    max_requests: Annotated[int, Field(ge=16, le=100_000)] = 1024
    """Requests that one worker has in progress; of reads a quarter. Beyond it they get 503."""

    response_timeout: Seconds = 8.0
    """Seconds within which a client must take something of what waits for it, or is dropped."""

    response_buffer_bytes: Annotated[int, Field(ge=1024 * 1024, le=64 * 1024**3)] = 24 * 1024 * 1024
    """Bytes of answers that may wait for clients in one worker; beyond it large ones get 503."""

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

    limits_url: LimitsUrl = None
    """Redis or Valkey that counts for all workers and instances; without it each counts alone."""

    database_pool_size: Annotated[int, Field(ge=1, le=256)] = 5
    """Connections of one worker for reading, and as many for writing."""

    database_pool_timeout: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Seconds to wait for a free connection before answering 503."""

    database_connect_timeout: Seconds = 3.0
    """Seconds for a new connection, TLS and sign-in included."""

    database_timeout: Seconds = 5.0
    """Seconds that one write may take in the database, waiting and repetitions included."""

    database_read_timeout: Seconds = 2.0
    """Seconds that one read may take in the database, waiting and a second try included."""

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

    change_retention: Life = timedelta(days=30)
    """Seconds for which changes to products can be followed."""

    idempotency_retention: Life = timedelta(days=1)
    """Seconds for which a repeated Idempotency-Key gets the first answer."""

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

    tracing: Literal["off", "otlp"] = "off"
    """``otlp`` sends OpenTelemetry traces where the ``OTEL_`` variables say; needs an extra."""

    commit: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")] = "unknown"
    """What this build was made from; metrics and traces tell it."""

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
        if isinstance(value, Unreadable):
            raise ValueError(value.message)
        if value is None:
            if info.data.get("env") == "production":
                raise ValueError("is required in production; make one with: openssl rand -hex 32")
            return None
        secret = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        check_secret(secret)
        return value

    @field_validator("admin_password", "jwt_private_key", "jwt_previous_public_keys", mode="before")
    @classmethod
    def _readable(cls, value: object) -> object:
        if isinstance(value, Unreadable):
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
    def read_deadline(self) -> float:
        """Seconds that a read may take: no more than a write may."""
        return min(self.database_read_timeout, self.database_timeout)

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
                Unreadable(f"is set, and so is {name}_FILE: keep one"),
                field_name,
                False,
            )
        try:
            # Editors and `echo` end files with a newline that is not part of the secret.
            value = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            return (
                Unreadable(f"cannot be read from {name}_FILE: {reason}"),
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


class SharedMetrics(NamedTuple):
    """Where a worker counts.

    Attributes:
        folder: that of its instance, where all workers' files are.
        number: the worker's own, which no other has at the same time.
    """

    folder: Path
    number: str


# The first is what prometheus-client and its tools look for.
_METRICS_FOLDER, _METRICS_NUMBER = "PROMETHEUS_MULTIPROC_DIR", "CATALOG_WORKER_NUMBER"


def environment_of_worker(metrics: SharedMetrics | None) -> dict[str, str]:
    """The environment for a worker that counts there, or by itself."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {_METRICS_FOLDER, _METRICS_NUMBER}
    }
    if metrics is None:
        return inherited
    return inherited | {_METRICS_FOLDER: str(metrics.folder), _METRICS_NUMBER: metrics.number}


def shared_metrics() -> SharedMetrics | None:
    """Where this process counts together with others; None if it counts by itself."""
    folder, number = os.environ.get(_METRICS_FOLDER), os.environ.get(_METRICS_NUMBER)
    return SharedMetrics(Path(folder), number) if folder and number else None


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
