"""``catalog check``."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import click
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.app import tracing_classes
from catalog.auth.accounts import has_admin
from catalog.auth.service import check_admin
from catalog.auth.tokens.signing_keys import Key, KeyRing, existing_secret
from catalog.cli.base import EXPECTED, lines_of, run, settings_for_command
from catalog.cli.schema import schema_fault
from catalog.db.engines import Purpose, create_engine
from catalog.errors import OperatorError, SettingsInvalid, StartFailed
from catalog.migrations import current_revision
from catalog.server.sockets import address_fault
from catalog.settings import MIN_SECRET_BYTES, Settings, unknown_variables

SPARE_CONNECTIONS = 10
"""Connections of a server reserved for others: administrators, migrations, backups."""

QUORUM = 3
"""Nodes that a cluster needs to survive the loss of one."""


class Finding(NamedTuple):
    """Result of one check; a fault if something must be fixed."""

    subject: str
    message: str
    is_fault: bool = False


@click.command()
def check() -> None:
    """Check that the service can run with its settings; change nothing.

    Prints a line for each check: the settings, the ids of the keys that sign tokens, the address
    to listen on, the database, its schema and connections, and the administrator. Reports all
    faults at once and exits with 1 if there are any, so that a deployment can stop there. Misspelt
    CATALOG_ variables only cause a warning.
    """
    for name in unknown_variables():
        click.echo(f"WARNING settings: {name} is not a setting of this release.", err=True)
    faults = 0
    for finding in _collect():
        faults += finding.is_fault
        label = "FAULT" if finding.is_fault else "OK"
        click.echo(f"{label} {finding.subject}: {finding.message}", err=finding.is_fault)
    if faults:
        raise click.exceptions.Exit(1)


def _collect() -> list[Finding]:
    try:
        settings = settings_for_command()
    except SettingsInvalid as error:
        # Without settings the database is unknown.
        return [Finding("settings", f"{fault}.", True) for fault in error.faults]
    findings = [Finding("settings", f"valid, for {settings.env}."), *_look_at_keys(settings)]
    findings += [_look_at_address(settings), *_look_at_tracing(settings)]
    if settings.embedded or not settings.jwt_secret_key:
        findings.append(_look_at_folder(settings.data_dir))
    if settings.embedded and not Path(str(settings.database_url.database)).is_file():
        # Connecting would create it.
        missing = f"There is no file {settings.database_url.database}; run: catalog migrate."
        return [*findings, Finding("database", missing, True), *_look_at_admin(settings)]
    return findings + run(_look_inside(settings))


def _look_at_address(settings: Settings) -> Finding:
    fault = address_fault(settings.bind)
    return Finding("address", f"{fault or settings.bind.url}.", bool(fault))


def _look_at_admin(settings: Settings) -> list[Finding]:
    """Return what the start would refuse in the administrator that it would create."""
    try:
        check_admin(
            username=settings.admin_username,
            email=settings.admin_email,
            # Stands for the one that would be generated.
            password=settings.admin_password.get_secret_value()
            if settings.admin_password
            else token_hex(MIN_SECRET_BYTES),
            min_length=settings.password_min_length,
            refuse_guessable=settings.refuse_guessable_passwords,
        )
    except OperatorError as error:
        return [Finding("administrator", line, True) for line in error.detail.splitlines()]
    return []


async def _look_inside(settings: Settings) -> list[Finding]:
    findings = []
    engine = create_engine(settings, Purpose.READING)
    try:
        async with engine.connect() as connection:
            async for finding in _look_at_database(connection, settings):
                findings.append(finding)  # noqa: PERF401 (a comprehension would lose them at an error)
    except EXPECTED as error:
        findings += [Finding("database", f"{line}.", True) for line in lines_of(error)]
    finally:
        await engine.dispose()
    return findings


def _look_at_keys(settings: Settings) -> list[Finding]:
    try:
        secret = existing_secret(settings)
        # A throw-away secret: creating the one of the first start would leave a file behind.
        keys = KeyRing(settings, secret or token_hex(MIN_SECRET_BYTES))
    except (SettingsInvalid, StartFailed) as error:
        return [
            Finding("keys", f"{fault.rstrip('.')}.", True) for fault in error.detail.split("\n")
        ]

    def name(key: Key) -> str:
        if key.is_secret and secret is None:
            return "a secret that the first start will generate"
        return f"{key.algorithm} {key.kid}"

    if keys.for_access is keys.for_refresh:
        findings = [Finding("keys", f"{name(keys.for_access)} signs all tokens.")]
    else:
        findings = [
            Finding("keys", f"{name(keys.for_access)} signs access tokens."),
            Finding("keys", f"{name(keys.for_refresh)} signs refresh tokens."),
        ]
    return findings + [Finding("keys", f"{name(key)} is still accepted.") for key in keys.previous]


def _look_at_tracing(settings: Settings) -> list[Finding]:
    if settings.tracing == "off":
        return []
    try:
        tracing_classes()
    except SettingsInvalid as error:
        return [Finding("tracing", f"{fault}.", True) for fault in error.faults]
    return [Finding("tracing", "spans are exported as the OTEL_ variables say.")]


def _look_at_folder(folder: Path) -> Finding:
    # The first start creates missing directories.
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Finding("data folder", f"{folder} is writable.")
    except OSError as error:
        return Finding("data folder", f"{folder} is not writable: {error.strerror}.", True)


async def _look_at_database(
    connection: AsyncConnection, settings: Settings
) -> AsyncIterator[Finding]:
    url = settings.database_url
    if settings.embedded:
        version = await connection.scalar(text("SELECT sqlite_version()"))
        yield Finding("database", f"SQLite {version} in {url.database}.")
    else:
        yield await _describe_server(connection, settings)
        yield await _count_connections(connection, settings)
        async for finding in _look_at_cluster(connection):
            yield finding
    revision = await current_revision(connection)
    fault = schema_fault(revision)
    yield Finding("schema", f"{fault or f'at {revision}, as this release requires'}.", bool(fault))
    has_one = fault is None and await _has_admin(connection)
    if has_one:
        yield Finding("administrator", "exists.")
        return
    if fault is None:
        yield Finding("administrator", "There is none; run: catalog create-admin.", True)
    for finding in _look_at_admin(settings):
        yield finding


async def _describe_server(connection: AsyncConnection, settings: Settings) -> Finding:
    version = str(await connection.scalar(text("SELECT VERSION()")))
    product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    status = (
        await connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_version'"))
    ).one_or_none()
    tls = str(status[1]) if status and status[1] else "without TLS"
    url = settings.database_url
    place = url.query.get("unix_socket") or f"{url.host or 'localhost'}:{url.port or 3306}"
    return Finding("database", f"{product} {version} at {place}, {url.database}, {tls}.")


async def _count_connections(connection: AsyncConnection, settings: Settings) -> Finding:
    limit = int(str(await connection.scalar(text("SELECT @@max_connections"))))
    # Each worker has separate pools for reads and writes; health checks and the polling of
    # revocations have an additional connection each.
    needed = settings.workers * (2 * settings.database_pool_size + 2)
    sums = (
        f"{settings.workers} workers with CATALOG_DATABASE_POOL_SIZE={settings.database_pool_size} "
        f"open up to {needed}"
    )
    if needed > limit - SPARE_CONNECTIONS:
        return Finding(
            "connections",
            f"{sums}, but max_connections is {limit} and {SPARE_CONNECTIONS} of them are reserved.",
            True,
        )
    return Finding("connections", f"{sums} of the server's {limit}.")


async def _look_at_cluster(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """Yield findings on the cluster of a Galera node; none for any other server."""

    async def show(what: str) -> dict[str, str]:
        rows = await connection.execute(
            text(f"SHOW GLOBAL {what} WHERE Variable_name LIKE 'wsrep%'")
        )
        return {name.lower(): value for name, value in rows}

    variables = await show("VARIABLES")
    if variables.get("wsrep_on") != "ON":
        return
    status = await show("STATUS")
    size = int(status["wsrep_cluster_size"])
    node = f"{variables['wsrep_node_name']} is {status['wsrep_local_state_comment']}"
    if size < QUORUM:
        few = f"{node}, in a cluster of {size}: losing one more node would lose the quorum."
        yield Finding("cluster", few, True)
    else:
        yield Finding("cluster", f"{node}, one of {size} nodes.")
    for name, needed in (("binlog_format", "ROW"), ("innodb_autoinc_lock_mode", "2")):
        value = str(await connection.scalar(text(f"SELECT @@GLOBAL.{name}")))
        if value != needed:
            yield Finding("cluster", f"{name} is {value} and must be {needed} on Galera.", True)


async def _has_admin(connection: AsyncConnection) -> bool:
    async with AsyncSession(connection) as session:
        return await has_admin(session)
