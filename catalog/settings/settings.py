"""Settings and their sources: environment variables and secret files."""

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy import URL

from catalog.errors import SettingsInvalid
from catalog.errors.wording import broken_rule
from catalog.settings.process_environment import (
    COMMIT_VARIABLE,
    STACK_VARIABLES,
    WORKER_NUMBER_VARIABLE,
)
from catalog.settings.public_address import Origins, RootPath
from catalog.settings.removed import REMOVED, removed_variables
from catalog.settings.sources import (
    SECRET_FIELDS,
    AssignedPort,
    SecretFiles,
    Unreadable,
    Variables,
    variable_of,
)
from catalog.settings.values import (
    Bind,
    DatabaseTls,
    DatabaseUrl,
    Life,
    Limit,
    LimitsUrl,
    Listen,
    Networks,
    Rate,
    Secrets,
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

    drain_delay: Annotated[float, Field(ge=0, le=300)] = 1.0
    """Seconds between ``/readyz`` turning 503 and no longer accepting connections."""

    trusted_proxies: Networks = ()
    """Networks whose ``X-Forwarded-…`` and ``Forwarded`` are trusted, separated by commas."""

    root_path: RootPath = ""
    """Path under which the service is published, such as ``/shop``; empty means the root."""

    cors_origins: Origins = ()
    """Origins whose pages may use the API in browsers, separated by commas; ``*`` means all."""

    signup_limit: Limit = Rate(120, 60)
    """Attempted sign-ups per client address: ``120/minute``, or ``off``."""

    login_limit: Limit = Rate(600, 60)
    """Attempted log-ins per client address."""

    read_limit: Limit = None
    """Reads of ``/api/products`` per client address; unlimited by default."""

    write_limit: Limit = None
    """Writes to ``/api/products`` per client address; unlimited by default."""

    limits_url: LimitsUrl = None
    """Redis or Valkey that counts for all workers and instances; if unset, each counts alone."""

    database_pool_size: Annotated[int, Field(ge=1, le=256)] = 5
    """Connections per worker for reading, and as many for writing."""

    database_tls: DatabaseTls = "off"
    """TLS to the database: ``verify`` checks certificate and host name, ``require`` does not; the
    path of a PEM file verifies by the certificate authorities in it."""

    access_token_ttl: Life = timedelta(minutes=15)
    """Lifetime of an access token in seconds."""

    refresh_token_ttl: Life = timedelta(days=30)
    """Lifetime of a refresh token in seconds."""

    password_min_length: Annotated[int, Field(ge=8, le=128)] = 8
    """Shortest password that sign-up accepts, in characters."""

    password_memory_kib: Annotated[int, Field(ge=19456, le=4 * 1024 * 1024)] = 19456
    """Memory of one argon2id hash in KiB (OWASP: at least 19456)."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest severity that is logged."""

    access_log: Literal["all", "errors", "off"] = "all"
    """Which requests are logged: all, those answered with 400 and above, or none."""

    fast_path: Literal["on", "off"] = "on"
    """``off`` sends all requests through Quart: the same responses, but slower."""

    tracing: Literal["off", "otlp"] = "off"
    """``otlp`` sends OpenTelemetry traces where the ``OTEL_`` variables say; needs an extra."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the library's signature)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the same)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the same)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Files first: setting both is an error, which precedence of variables would hide.
        return (
            init_settings,
            SecretFiles(settings_cls),
            Variables(settings_cls),
            AssignedPort(settings_cls),
        )

    @field_validator("jwt_secret_key", mode="before")
    @classmethod
    def _strong_secret(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            if info.data.get("env") == "production":
                raise ValueError(
                    "is required in production; generate one with: openssl rand -hex 32"
                )
            return None
        secret = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        check_secret(secret)
        return value

    # The last one of these, so that it runs before the others.
    @field_validator("*", mode="before")
    @classmethod
    def _readable(cls, value: object) -> object:
        if isinstance(value, Unreadable):
            raise ValueError(value.message)
        return value

    def with_port(self, port: int) -> Self:
        """Return the settings with another port to listen on.

        Raises:
            SettingsInvalid: the service is to listen on a unix socket.
        """
        if self.bind.path:
            raise SettingsInvalid(["CATALOG_BIND is a unix socket, which has no port"])
        return self.model_copy(update={"bind": replace(self.bind, port=port)})

    @property
    def embedded(self) -> bool:
        """Whether the database is a local SQLite file."""
        return self.database_url.get_backend_name() == "sqlite"

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


def usable_cores() -> int:
    """Count the cores this process may use, which a container can restrict."""
    return len(os.sched_getaffinity(0))


def variable_names() -> dict[str, str]:
    """Return the environment variable of each field, by field name, in definition order."""
    return {name: variable_of(name, field) for name, field in Settings.model_fields.items()}


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the ``CATALOG_*`` variables that no setting uses: most likely misspelt.

    Not an error: Kubernetes gives every pod ``CATALOG_PORT`` and similar variables for a service
    that is called catalog. Former settings are errors instead (``load_settings``).
    """
    known = {COMMIT_VARIABLE, WORKER_NUMBER_VARIABLE, *REMOVED, *variable_names().values()}
    known |= STACK_VARIABLES | {f"{variable_names()[field]}_FILE" for field in SECRET_FIELDS}
    injected = ("CATALOG_SERVICE_", "CATALOG_PORT", "CATALOG_TEST_")
    return sorted(
        name
        for name in environment
        if name.startswith("CATALOG_") and name not in known and not name.startswith(injected)
    )


def load_settings(**overrides: object) -> Settings:
    """Read the settings, once, at an entry point.

    Args:
        **overrides: fields by name that win over the environment, such as command-line options.

    Raises:
        SettingsInvalid: lists every fault at once, a line each.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    faults = removed_variables()
    try:
        settings = Settings(**given)  # type: ignore[arg-type]  # checked by pydantic, not by name
    except ValidationError as error:
        names = variable_names()
        for fault in error.errors(include_url=False, include_input=False):
            field = str(fault["loc"][0])
            faults.append(f"{names.get(field, field)} {broken_rule(fault)}")
        raise SettingsInvalid(faults) from None
    if faults:
        raise SettingsInvalid(faults)
    return settings
