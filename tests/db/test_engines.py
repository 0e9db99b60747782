"""Connections per purpose: session settings, TLS, and errors on connect."""

import asyncio
import gc
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.database import Database
from catalog.db.deadlines import DEADLINES, Deadlines
from catalog.db.engines import Purpose, create_engine
from catalog.errors import DatabaseUnavailable
from catalog.settings import Settings
from tests.certificates import self_signed
from tests.db.support import (
    PATIENT,
    Open,
    answer,
    on_mariadb,
    on_mysql,
    on_servers,
    on_sqlite,
    run_on,
)
from tests.engines import Engine, settings_for
from tests.faults.proxy import DatabaseProxy, relayed
from tests.support import until


async def scalar(
    settings: Settings, purpose: Purpose, statement: str, *, deadlines: Deadlines = DEADLINES
) -> Any:
    """Return the result of a statement on a connection made for a purpose."""
    engine = create_engine(settings, purpose, deadlines=deadlines)
    try:
        async with engine.connect() as connection:
            return await connection.scalar(text(statement))
    finally:
        await engine.dispose()


@on_sqlite
class TestSqlite:
    @pytest.mark.parametrize("purpose", Purpose, ids=lambda purpose: purpose.value)
    async def test_journal_is_wal_and_commits_are_synced(
        self, settings: Settings, purpose: Purpose
    ) -> None:
        assert await scalar(settings, purpose, "PRAGMA journal_mode") == "wal"
        assert await scalar(settings, purpose, "PRAGMA synchronous") == 2  # FULL
        assert await scalar(settings, purpose, "PRAGMA foreign_keys") == 1

    async def test_only_readers_are_read_only(self, settings: Settings) -> None:
        assert await scalar(settings, Purpose.READING, "PRAGMA query_only") == 1
        assert await scalar(settings, Purpose.PROBING, "PRAGMA query_only") == 1
        assert await scalar(settings, Purpose.WRITING, "PRAGMA query_only") == 0
        assert await scalar(settings, Purpose.MIGRATING, "PRAGMA query_only") == 0

    async def test_busy_timeout_is_shorter_than_the_deadline(self, database_url: URL) -> None:
        settings = settings_for(database_url)
        deadlines = Deadlines(read=2, write=3)

        for purpose, milliseconds in (
            (Purpose.READING, 1600),
            (Purpose.WRITING, 2400),
            (Purpose.MIGRATING, 60_000),
        ):
            pragma = "PRAGMA busy_timeout"
            assert await scalar(settings, purpose, pragma, deadlines=deadlines) == milliseconds

    async def test_writer_takes_the_lock_at_begin(
        self, settings: Settings, database_url: URL
    ) -> None:
        engine = create_engine(settings, Purpose.WRITING)
        other = sqlite3.connect(str(database_url.database), timeout=0, isolation_level=None)

        async with engine.connect() as connection, connection.begin():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")

        other.execute("BEGIN IMMEDIATE")
        other.close()
        await engine.dispose()

    async def test_connection_can_be_stopped_while_closing(self, settings: Settings) -> None:
        engine = create_engine(settings, Purpose.MIGRATING)
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, aiosqlite.Connection)

            # As when a task is cancelled, and once more while it cleans up.
            closing = asyncio.create_task(driver.close())
            await asyncio.sleep(0)
            stopped = driver.stop()
            assert stopped is not None
            await asyncio.wait_for(stopped, 10)
            closing.cancel()

            assert await asyncio.wait([closing], timeout=10) == ({closing}, set())

    async def test_missing_folder_is_unavailable(self, opened: Open, tmp_path: Path) -> None:
        database = opened(URL.create("sqlite", database=str(tmp_path / "missing" / "catalog.db")))

        with pytest.raises(DatabaseUnavailable):
            await run_on(database.connection(), answer)

    async def test_file_that_is_not_a_database_is_unavailable(
        self, opened: Open, tmp_path: Path
    ) -> None:
        (tmp_path / "letter").write_text("Dear database, " * 1000)
        database = opened(URL.create("sqlite", database=str(tmp_path / "letter")))

        with pytest.raises(DatabaseUnavailable):
            await run_on(database.connection(), answer)


@on_servers
class TestServer:
    @pytest.mark.parametrize("purpose", Purpose, ids=lambda purpose: purpose.value)
    async def test_session_is_in_utc_and_strict_mode(
        self, settings: Settings, purpose: Purpose
    ) -> None:
        modes = (await scalar(settings, purpose, "SELECT @@sql_mode")).split(",")

        assert await scalar(settings, purpose, "SELECT @@time_zone") == "+00:00"
        assert {"STRICT_TRANS_TABLES", "NO_ZERO_DATE"} <= set(modes)
        assert not {"NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "PIPES_AS_CONCAT"} & set(modes)

    @pytest.mark.parametrize("purpose", Purpose, ids=lambda purpose: purpose.value)
    async def test_text_is_utf8_on_the_wire(self, settings: Settings, purpose: Purpose) -> None:
        assert await scalar(settings, purpose, "SELECT @@character_set_client") == "utf8mb4"
        assert await scalar(settings, purpose, "SELECT @@character_set_results") == "utf8mb4"

    async def test_writers_use_read_committed(self, settings: Settings, engine: Engine) -> None:
        variable = {"mysql": "transaction_isolation", "mariadb": "tx_isolation"}[engine.name]

        isolation = await scalar(settings, Purpose.WRITING, f"SELECT @@{variable}")

        assert isolation == "READ-COMMITTED"

    async def test_only_readers_are_read_only(self, settings: Settings, engine: Engine) -> None:
        variable = {"mysql": "transaction_read_only", "mariadb": "tx_read_only"}[engine.name]

        assert await scalar(settings, Purpose.READING, f"SELECT @@{variable}") == 1
        assert await scalar(settings, Purpose.WRITING, f"SELECT @@{variable}") == 0
        assert await scalar(settings, Purpose.MIGRATING, f"SELECT @@{variable}") == 0

    async def test_lock_waits_and_statements_are_limited_by_the_deadline(
        self, database_url: URL, engine: Engine
    ) -> None:
        settings = settings_for(database_url)
        deadlines = Deadlines(read=4, write=8)
        limit = {
            "mysql": "SELECT @@max_execution_time / 1000",
            "mariadb": "SELECT @@max_statement_time",
        }[engine.name]

        for purpose, seconds in ((Purpose.READING, 4), (Purpose.WRITING, 8)):
            lock_wait = "SELECT @@innodb_lock_wait_timeout"
            waited = await scalar(settings, purpose, lock_wait, deadlines=deadlines)
            assert waited == seconds / 2
            assert float(await scalar(settings, purpose, limit, deadlines=deadlines)) == seconds

    async def test_migrations_have_no_statement_time_out(
        self, settings: Settings, engine: Engine
    ) -> None:
        limit = {"mysql": "max_execution_time", "mariadb": "max_statement_time"}[engine.name]

        assert await scalar(settings, Purpose.MIGRATING, f"SELECT @@{limit}") == 0

    async def test_wrong_password_is_unavailable_and_not_disclosed(
        self, opened: Open, database_url: URL
    ) -> None:
        database = opened(database_url.set(username="nobody", password="wrong"))

        with pytest.raises(DatabaseUnavailable) as refused:
            await run_on(database.connection(), answer)

        assert "nobody" not in refused.value.detail

    async def test_missing_database_is_unavailable(self, opened: Open, database_url: URL) -> None:
        database = opened(database_url.set(database="catalog_test_missing"))

        with pytest.raises(DatabaseUnavailable):
            await database.transaction(answer)

    async def test_refused_connection_is_unavailable(self, opened: Open, database_url: URL) -> None:
        database = opened(database_url.set(port=1))

        with pytest.raises(DatabaseUnavailable):
            await run_on(database.connection(), answer)


@on_servers
class TestCheckout:
    @pytest.mark.parametrize("purpose", [Purpose.READING, Purpose.WRITING, Purpose.WATCHING])
    @pytest.mark.parametrize("lose", [DatabaseProxy.cut, DatabaseProxy.reset])
    async def test_lost_idle_connection_is_replaced_without_a_statement(
        self, database_url: URL, purpose: Purpose, lose: Callable[[DatabaseProxy], object]
    ) -> None:
        async with relayed(database_url) as relay:
            engine = create_engine(settings_for(relay.url), purpose)
            async with engine.connect() as connection:
                assert await answer(connection) == 42
                driver: Any = (await connection.get_raw_connection()).driver_connection
                assert not driver.is_lost
            lose(relay)

            async def is_noticed() -> bool:
                return bool(driver.is_lost)

            await until(is_noticed)
            async with engine.connect() as connection:
                assert await answer(connection) == 42
            await engine.dispose()


def foreign_authority(folder: Path) -> Path:
    """Write the certificate of an authority that signed no server; return its path."""
    _, certificate = self_signed("Somebody else's authority", is_authority=True)
    path = folder / "ca.pem"
    path.write_bytes(certificate)
    return path


async def cipher(executor: AsyncConnection | AsyncSession) -> str:
    """Return the connection's cipher; empty for clear text."""
    row = (await executor.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))).one()
    return str(row[1])


def open_sockets() -> set[str]:
    """Return the sockets of this process."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        # One of them is that of the folder itself, which is closed by now.
        with suppress(FileNotFoundError):
            target = str(descriptor.readlink())
            found |= {target} if target.startswith("socket:") else set()
    return found


class TestTls:
    @on_mariadb  # The tests' MariaDB offers no TLS.
    @pytest.mark.parametrize("tls", ["require", "verify"])
    async def test_server_without_tls_is_refused_without_fallback_to_clear_text(
        self, opened: Open, tls: str
    ) -> None:
        database = opened(database_tls=tls)

        for asking in (run_on(database.connection(), answer), database.transaction(answer)):
            with pytest.raises(DatabaseUnavailable) as refused:
                await asking
            assert isinstance(refused.value.__cause__, DBAPIError)
            assert "offers no TLS" in str(refused.value.__cause__.orig)

    @on_mysql  # MySQL generates a self-signed certificate.
    async def test_require_encrypts_every_connection(self, opened: Open) -> None:
        database = opened(database_tls="require")

        assert await run_on(database.connection(), cipher)
        assert await database.transaction(cipher)
        assert await run_on(database.probe(within=0.9), cipher)

    @on_mysql
    async def test_connection_is_closed_without_the_server(self, settings: Settings) -> None:
        engine = create_engine(
            settings.model_copy(update={"database_tls": "require"}), Purpose.READING
        )
        before = open_sockets()
        async with engine.connect() as connection:
            assert await cipher(connection)

        await engine.dispose()
        # As many turns of the event loop as ``asyncio.run`` makes at its end.
        for _ in range(3):
            await asyncio.sleep(0)

        assert open_sockets() <= before

    @on_mysql
    async def test_off_uses_clear_text(self, database: Database) -> None:
        assert await run_on(database.connection(), cipher) == ""

    @on_mysql
    async def test_verify_refuses_a_certificate_of_another_authority(
        self, opened: Open, tmp_path: Path
    ) -> None:
        for tls in ("verify", foreign_authority(tmp_path)):
            database = opened(database_tls=tls)

            with pytest.raises(DatabaseUnavailable) as refused:
                await run_on(database.connection(), answer)
            assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value.__cause__)

    @on_mysql
    async def test_handshake_that_times_out_closes_its_connection(
        self, opened: Open, database_url: URL, recwarn: pytest.WarningsRecorder
    ) -> None:
        async def greet_and_fall_silent(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            host, port = str(database_url.host), database_url.port
            from_server, to_server = await asyncio.open_connection(host, port)
            writer.write(await from_server.read(4096))
            # Swallow the TLS request and the ClientHello, until the client disconnects.
            while await reader.read(4096):
                pass
            to_server.close()
            writer.close()

        async with await asyncio.start_server(greet_and_fall_silent, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            url = database_url.set(host="127.0.0.1", port=port)
            database = opened(url, database_tls="require", deadlines=replace(PATIENT, connect=1.5))

            with pytest.raises(DatabaseUnavailable):
                await run_on(database.connection(), answer)
            gc.collect()

        assert not [each for each in recwarn if "Unclosed connection" in str(each.message)]


class TestErrors:
    async def test_error_text_omits_bound_values(self, settings: Settings) -> None:
        engine = create_engine(settings, Purpose.WRITING)
        secret = {"hash": "$argon2id$secret"}

        with pytest.raises(DBAPIError) as refused:
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO nowhere VALUES (:hash)"), secret)
        await engine.dispose()

        assert secret["hash"] not in str(refused.value)


class TestProbes:
    @pytest.mark.parametrize("purpose", [Purpose.PROBING, Purpose.WATCHING])
    async def test_concurrent_probes_share_one_connection(
        self, settings: Settings, purpose: Purpose
    ) -> None:
        engine = create_engine(settings, purpose)

        async def ask() -> None:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

        await asyncio.gather(*(ask() for _ in range(10)))
        opened = engine.pool.checkedin()  # type: ignore[attr-defined]  # of QueuePool
        await engine.dispose()

        assert opened == 1
