"""Settings and their sources: environment variables and secret files."""

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
    """Configuration of the service, validated and frozen.

    Raises:
        pydantic.ValidationError: a setting is invalid; ``load_settings`` makes it readable.
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
    """``production`` requires a ``JWT_SECRET_KEY`` and refuses common passwords."""

    database_url: DatabaseUrl = Field(
        default=URL.create("sqlite+aiosqlite", database="var/catalog.db"),
        validation_alias="DATABASE_URL",
        repr=False,
    )
    """MySQL, MariaDB or SQLite: ``mysql://user:password@host:3306/catalog``, ``sqlite:///file``."""

    jwt_secret_key: SecretStr | None = Field(default=None, validation_alias="JWT_SECRET_KEY")
    """Signs tokens and cursors: at least 32 random bytes. Generated and kept in development."""

    jwt_previous_secret_keys: Secrets = ()
    """Former secrets that are still accepted, separated by commas."""

    jwt_private_key: SecretStr | None = None
    """Signs access tokens instead of the secret (PEM): RSA, EC on P-256 or Ed25519."""

    jwt_previous_public_keys: SecretStr | None = None
    """Public keys (PEM, one after the other) whose access tokens are still accepted."""

    admin_username: str = Field(default="admin", validation_alias="ADMIN_USERNAME")
    """Username of the administrator created at the first start."""

    admin_email: str = Field(default="admin@example.com", validation_alias="ADMIN_EMAIL")
    """The administrator's e-mail address."""

    admin_password: SecretStr | None = Field(default=None, validation_alias="ADMIN_PASSWORD")
    """The administrator's password; if unset, a random one is printed once."""

    bind: Listen = Bind("127.0.0.1", 8000)
    """Listening address: ``host:port``, ``[v6]:port`` or ``unix:/path``."""

    workers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: usable_cores())
    """Worker processes; one per core that the process may use."""

    graceful_timeout: Seconds = 25.0
    """Seconds for requests in flight to finish when the service stops."""

    drain_delay: Annotated[float, Field(ge=0, le=300)] = 1.0
    """Seconds between ``/readyz`` turning 503 and no longer accepting connections."""

    trusted_proxies: Networks = ()
    """Networks whose ``X-Forwarded-For`` and ``-Proto`` are trusted, separated by commas."""

    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 256 * 1024
    """Largest request body in bytes."""

    body_timeout: Seconds = 10.0
    """Seconds within which a request body must have arrived."""

    max_requests: Annotated[int, Field(ge=16, le=100_000)] = 1024
    """Requests in progress per worker; for reads a quarter of it. Beyond it they get 503."""

    response_timeout: Seconds = 8.0
    """Seconds within which a client must read some of a pending response, or is dropped."""

    response_buffer_bytes: Annotated[int, Field(ge=1024 * 1024, le=64 * 1024**3)] = 24 * 1024 * 1024
    """Bytes of responses buffered for clients per worker; beyond it large ones get 503."""

    signup_limit: Limit = Rate(120, 60)
    """Attempted sign-ups per client address: ``120/minute``, or ``off``."""

    login_limit: Limit = Rate(600, 60)
    """Attempted log-ins per client address."""

    refresh_limit: Limit = Rate(6000, 60)
    """Requested refreshes per client address."""

    read_limit: Limit = None
    """Reads of ``/api/products`` per client address; unlimited by default."""

    write_limit: Limit = None
    """Writes to ``/api/products`` per client address; unlimited by default."""

    limits_url: LimitsUrl = None
    """Redis or Valkey that counts for all workers and instances; if unset, each counts alone."""

    database_pool_size: Annotated[int, Field(ge=1, le=256)] = 5
    """Connections per worker for reading, and as many for writing."""

    database_pool_timeout: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Seconds to wait for a free connection before answering 503."""

    database_connect_timeout: Seconds = 3.0
    """Seconds for a new connection, TLS and authentication included."""

    database_timeout: Seconds = 5.0
    """Seconds that one write may take in the database, waiting and retries included."""

    database_read_timeout: Seconds = 2.0
    """Seconds that one read may take in the database, waiting and one retry included."""

    database_start_timeout: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """Seconds to wait for the database at start."""

    database_tls: Literal["off", "require", "verify"] = "off"
    """TLS to the database: ``verify`` checks certificate and host name, ``require`` does not."""

    database_tls_ca: Path | None = None
    """Certificate authority of the database's certificate (PEM); if unset, the system's."""

    access_token_ttl: Life = timedelta(minutes=15)
    """Lifetime of an access token in seconds."""

    refresh_token_ttl: Life = timedelta(days=30)
    """Lifetime of a refresh token in seconds."""

    session_ttl: Life = timedelta(days=90)
    """Seconds after which a session ends however often its refresh token was rotated."""

    sessions_per_account: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Live sessions per account; one more ends the least recently used one."""

    revocation_interval: Annotated[float, Field(ge=0.1, le=1.0)] = 0.5
    """Seconds between two polls of a worker for revocations."""

    change_retention: Life = timedelta(days=30)
    """Seconds for which changes to products can be followed."""

    idempotency_retention: Life = timedelta(days=1)
    """Seconds for which a repeated Idempotency-Key gets the first response."""

    password_min_length: Annotated[int, Field(ge=8, le=128)] = 8
    """Shortest password that sign-up accepts, in characters."""

    password_memory_kib: Annotated[int, Field(ge=19456, le=4 * 1024 * 1024)] = 19456
    """Memory of one argon2id hash in KiB (OWASP: at least 19456)."""

    password_passes: Annotated[int, Field(ge=2, le=100)] = 2
    """Passes of one argon2id hash over its memory."""

    password_queue: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Passwords queued for a core per worker; beyond it sign-in answers 503."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest severity that is logged."""

    log_format: Literal["json", "console"] = "json"
    """``json`` for machines, one object a line; ``console`` for people."""

    access_log: Literal["all", "errors", "off"] = "all"
    """Which requests are logged: all, those answered with 400 and above, or none."""

    fast_path: Literal["on", "off"] = "on"
    """Whether plain pages and creates are answered without the framework, alike but sooner."""

    tracing: Literal["off", "otlp"] = "off"
    """``otlp`` sends OpenTelemetry traces where the ``OTEL_`` variables say; needs an extra."""

    commit: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")] = "unknown"
    """Commit of this build; reported in metrics and traces."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the library's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the same)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Files first: setting both is an error, which precedence of variables would hide.
        return init_settings, _SecretFiles(settings_cls), env_settings

    @field_validator("jwt_secret_key", mode="before")
    @classmethod
    def _strong_secret(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, Unreadable):
            raise ValueError(value.message)
        if value is None:
            if info.data.get("env") == "production":
                raise ValueError(
                    "is required in production; generate one with: openssl rand -hex 32"
                )
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
            raise ValueError("must name an existing file")
        return value

    @property
    def embedded(self) -> bool:
        """Whether the database is a local SQLite file."""
        return self.database_url.get_backend_name() == "sqlite"

    @property
    def read_deadline(self) -> float:
        """Deadline of a read in seconds, at most that of a write."""
        return min(self.database_read_timeout, self.database_timeout)

    @property
    def refuse_guessable_passwords(self) -> bool:
        """Whether to refuse new passwords that are common or suggested by their account."""
        return self.env == "production"

    @property
    def data_dir(self) -> Path:
        """Directory of the service's own files: that of the SQLite file, else ``var``."""
        if self.embedded:
            return Path(str(self.database_url.database)).parent
        return Path("var")


class _SecretFiles(PydanticBaseSettingsSource):
    """Settings source that reads secrets from the files that ``<NAME>_FILE`` variables name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = _variable(field_name, field)
        path = os.environ.get(f"{name}_FILE", "")
        if not path or field_name not in SECRET_FIELDS:
            return None, field_name, False
        if os.environ.get(name):
            return (
                Unreadable(f"and {name}_FILE are both set; keep one"),
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
    """Count the cores this process may use, which a container can restrict."""
    return len(os.sched_getaffinity(0))


def variable_names() -> dict[str, str]:
    """Return the environment variable of each field, by field name, in definition order."""
    return {name: _variable(name, field) for name, field in Settings.model_fields.items()}


def unknown_variables() -> list[str]:
    """Return the ``CATALOG_*`` variables that no setting uses: most likely misspelt.

    Not an error: Kubernetes gives every pod ``CATALOG_PORT`` and similar variables for a service
    that is called catalog.
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
    """Location of a worker's metrics.

    Attributes:
        folder: the instance's directory with the files of all its workers.
        number: the worker's number, which no other worker has at the same time.
    """

    folder: Path
    number: str


# prometheus-client and its tools read the first one.
_METRICS_FOLDER, _METRICS_NUMBER = "PROMETHEUS_MULTIPROC_DIR", "CATALOG_WORKER_NUMBER"


def environment_of_worker(metrics: SharedMetrics | None) -> dict[str, str]:
    """Return the environment of a worker with shared metrics, or with its own if None."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {_METRICS_FOLDER, _METRICS_NUMBER}
    }
    if metrics is None:
        return inherited
    return inherited | {_METRICS_FOLDER: str(metrics.folder), _METRICS_NUMBER: metrics.number}


def shared_metrics() -> SharedMetrics | None:
    """Return where this process shares metrics with others; None if it keeps its own."""
    folder, number = os.environ.get(_METRICS_FOLDER), os.environ.get(_METRICS_NUMBER)
    return SharedMetrics(Path(folder), number) if folder and number else None


def load_settings(**overrides: object) -> Settings:
    """Read the settings, once, at an entry point.

    Args:
        **overrides: fields by name that win over the environment, such as command-line options.

    Raises:
        SettingsInvalid: lists every fault at once, a line each.
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
