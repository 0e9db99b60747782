"""Migrations: upgrade, downgrade, interruption, concurrency, and equality with the models."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import URL, event, text
from sqlalchemy.exc import DBAPIError

# Imported so that Base.metadata is complete.
import catalog.products.models  # noqa: F401
from catalog import migrations
from catalog.db.columns import Base
from catalog.errors import StartFailed
from catalog.migrations import (
    LOCK_WAIT_SECONDS,
    ConcurrentMigration,
    Dialect,
    downgrade,
    exclusive,
    upgrade,
    upgrade_sql,
)
from tests.engines import Engine, settings_for
from tests.faults.proxy import relayed
from tests.migrations.connections import connected

# Seconds; a busy machine takes long, and waiting for the lock in vain longer.
SOON = LOCK_WAIT_SECONDS - 5

on_servers = pytest.mark.parametrize("engine", ["mariadb", "mysql"], indirect=True, scope="session")


async def schema_of(url: URL) -> dict[str, list[str]]:
    """Return the engine's own definition of each table and index, as lines."""
    found: dict[str, str]
    async with connected(url) as connection:
        if connection.dialect.name == "sqlite":
            statement = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            found = {row.name: row.sql for row in await connection.execute(text(statement))}
        else:
            names = list(await connection.scalars(text("SHOW TABLES")))
            found = {
                name: (await connection.execute(text(f"SHOW CREATE TABLE {name}"))).one()[1]
                for name in names
            }
    found.pop("alembic_version", None)
    found.pop("sqlite_sequence", None)
    return {name: _lines(sql) for name, sql in found.items()}


def _lines(sql: str) -> list[str]:
    sql = re.sub(r" AUTO_INCREMENT=\d+", "", sql)
    # SQLite keeps a column that was added later on the line of the column before it.
    sql = re.sub(r", (\w+ [A-Z]{4,})", r",\n\1", sql)
    lines = [line.strip().rstrip(",") for line in sql.splitlines()]
    # The order of the constraints after the columns does not matter.
    is_constraint = re.compile(r"CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN|KEY").match
    columns = [line for line in lines if line and not is_constraint(line)]
    return columns + sorted(line for line in lines if is_constraint(line))


async def migrate(url: URL, *steps: tuple[Callable[..., object], str]) -> None:
    async with exclusive(settings_for(url)) as connection:
        for step, revision in steps or [(upgrade, "head")]:
            result = step(connection, revision)
            assert asyncio.iscoroutine(result)
            await result


def script_for(engine: Engine) -> str:
    """Return the SQL script that the service prints for running by hand."""
    return upgrade_sql(dialect=cast("Dialect", engine.name))


def statements_of(sql: str) -> list[str]:
    """Split a script into statements, without comments."""
    sql = re.sub(r"^--.*$", "", sql, flags=re.MULTILINE)
    return [statement.strip() for statement in sql.split(";\n") if statement.strip()]


async def run(url: URL, *statements: str) -> None:
    async with connected(url) as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement.replace("%", "%%"))


@pytest.fixture
async def declared(engine: Engine, tmp_path: Path) -> AsyncIterator[dict[str, list[str]]]:
    """Yield the schema that the models create without any migration."""
    url = await engine.create_database(tmp_path)
    async with connected(url) as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield await schema_of(url)
    await engine.drop_database(url)


class TestUpgrade:
    async def test_upgrade_creates_the_schema_of_the_models(
        self, empty_database_url: URL, declared: dict[str, list[str]]
    ) -> None:
        await migrate(empty_database_url)

        assert {"users", "products"} <= declared.keys()
        assert await schema_of(empty_database_url) == declared

    async def test_upgrade_of_a_current_database_changes_nothing(
        self, empty_database_url: URL, declared: dict[str, list[str]]
    ) -> None:
        await migrate(empty_database_url)
        await run(
            empty_database_url,
            "INSERT INTO users VALUES (1, 'a', 'a', 'a', 'a', '', 'user', 0, '2026-01-01', NULL)",
        )

        await migrate(empty_database_url)

        async with connected(empty_database_url) as connection:
            assert await connection.scalar(text("SELECT username FROM users")) == "a"
        assert await schema_of(empty_database_url) == declared

    @pytest.mark.timeout(600)  # It migrates once for each statement, of which there are dozens.
    @on_servers  # On SQLite an upgrade is one transaction and is rolled back if killed.
    async def test_upgrade_killed_after_any_statement_can_be_rerun(
        self, engine: Engine, tmp_path: Path, declared: dict[str, list[str]]
    ) -> None:
        statements = statements_of(script_for(engine))
        assert len(statements) >= 5

        for done in range(1, len(statements)):
            url = await engine.create_database(tmp_path)
            await run(url, *statements[:done])

            await migrate(url)

            assert await schema_of(url) == declared, statements[done]
            await engine.drop_database(url)

    async def test_newer_database_is_left_unchanged(self, empty_database_url: URL) -> None:
        await migrate(empty_database_url)
        await run(empty_database_url, "UPDATE alembic_version SET version_num = '9999'")

        with pytest.raises(StartFailed, match=r"revision 9999, which is newer"):
            await migrate(empty_database_url)
        with pytest.raises(StartFailed, match=r"revision 9999, which is newer"):
            await migrate(empty_database_url, (downgrade, "base"))

        assert await schema_of(empty_database_url)

    async def test_unknown_revision_is_refused(self, empty_database_url: URL) -> None:
        with pytest.raises(StartFailed, match="9999"):
            await migrate(empty_database_url, (upgrade, "9999"))


@on_servers
class TestSeveralNodes:
    """Nodes of a cluster, which do not share named locks; see also the tests of the cluster."""

    async def test_upgrade_that_lost_a_race_can_be_rerun(self, empty_database_url: URL) -> None:
        def overtake(_connection: object, cursor: Any, statement: str, *_: object) -> None:
            if statement.startswith("UPDATE alembic_version"):
                cursor.execute("UPDATE alembic_version SET version_num = '0002'")

        async with connected(empty_database_url) as connection:
            event.listen(connection.sync_connection, "before_cursor_execute", overtake)
            with pytest.raises(ConcurrentMigration):
                await upgrade(connection)
        async with connected(empty_database_url) as connection:
            await upgrade(connection)

            assert await migrations.current_revision(connection) == migrations.head_revision()


class TestDowngrade:
    async def test_upgrade_after_a_full_downgrade_restores_the_schema(
        self, empty_database_url: URL, declared: dict[str, list[str]]
    ) -> None:
        await migrate(empty_database_url)
        await migrate(empty_database_url, (downgrade, "base"))
        emptied = await schema_of(empty_database_url)
        await migrate(empty_database_url)

        assert emptied == {}
        assert await schema_of(empty_database_url) == declared

    async def test_revisions_are_reversible(
        self, empty_database_url: URL, declared: dict[str, list[str]]
    ) -> None:
        for revision in migrations.history():
            await migrate(empty_database_url, (upgrade, revision))
            before = await schema_of(empty_database_url)
            await migrate(empty_database_url, (downgrade, "-1"), (upgrade, "+1"))

            assert await schema_of(empty_database_url) == before

        assert await schema_of(empty_database_url) == declared


class TestSql:
    async def test_printed_sql_creates_the_same_schema(
        self, empty_database_url: URL, engine: Engine, declared: dict[str, list[str]]
    ) -> None:
        await run(empty_database_url, *statements_of(script_for(engine)))

        assert await schema_of(empty_database_url) == declared
        async with connected(empty_database_url) as connection:
            assert await migrations.current_revision(connection) == migrations.head_revision()


class TestHistory:
    def test_revisions_of_the_files_names_are_those_that_alembic_finds(self) -> None:
        folder = Path(str(migrations.__file__)).parent
        scripts = ScriptDirectory(str(folder)).walk_revisions()

        assert [script.revision for script in scripts] == [*reversed(migrations.history())]


class TestExclusive:
    async def test_lock_excludes_a_second_instance(self, empty_database_url: URL) -> None:
        async def other() -> None:
            async with exclusive(settings_for(empty_database_url)):
                pass

        async with exclusive(settings_for(empty_database_url)):
            waiting = asyncio.create_task(other())
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            assert not done

        await asyncio.wait_for(waiting, timeout=SOON)

    async def test_lock_does_not_exclude_other_databases(
        self, empty_database_url: URL, engine: Engine, tmp_path: Path
    ) -> None:
        url = await engine.create_database(tmp_path)

        async with (
            asyncio.timeout(SOON),
            exclusive(settings_for(empty_database_url)),
        ):
            await migrate(url)

        await engine.drop_database(url)

    async def test_lock_is_released_when_the_work_fails(self, empty_database_url: URL) -> None:
        async def fail() -> None:
            async with exclusive(settings_for(empty_database_url)) as connection:
                await connection.execute(text("SELECT * FROM nowhere"))

        with pytest.raises(DBAPIError):
            await fail()

        async with asyncio.timeout(SOON):
            await migrate(empty_database_url)

    @on_servers
    async def test_connection_loss_under_the_lock_is_reported_as_such(
        self, empty_database_url: URL
    ) -> None:
        async with relayed(empty_database_url) as relay:

            async def be_cut_off() -> None:
                async with exclusive(settings_for(relay.url)) as connection:
                    relay.cut()
                    await connection.execute(text("SELECT 1"))

            with pytest.raises(DBAPIError) as lost:
                await be_cut_off()

        assert lost.value.connection_invalidated
        async with asyncio.timeout(SOON):
            await migrate(empty_database_url)
