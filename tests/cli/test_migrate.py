"""``catalog migrate``."""

import re
from pathlib import Path

import pytest
from sqlalchemy import URL

from catalog.migrations import head_revision, history
from tests.cli.commands import CommandLine
from tests.engines import Engine

HEAD = head_revision()


async def tables_of(catalog: CommandLine) -> dict[str, str]:
    """Return the statements that would create the tables, in the engine's wording."""
    if catalog.url.get_backend_name() == "sqlite":
        rows = await catalog.query("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: " ".join(sql.split()) for name, sql in rows}
    names = await catalog.query("SHOW TABLES")
    tables = [(await catalog.query(f"SHOW CREATE TABLE {name}"))[0] for (name,) in names]
    return {name: re.sub(r" AUTO_INCREMENT=\d+", "", sql) for name, sql in tables}


class TestUp:
    async def test_empty_database_gets_every_table(self, fresh: CommandLine) -> None:
        output = await fresh.output_of("migrate")

        assert output == f"Migrated the database from base to {HEAD}.\n"
        assert {"users", "products"} <= (await tables_of(fresh)).keys()

    async def test_current_database_is_left_as_it_is(self, catalog: CommandLine) -> None:
        await catalog.output_of("seed", "--users=1", "--products=3")

        output = await catalog.output_of("migrate")

        assert output == f"Nothing to do: the database is at {HEAD}.\n"
        assert await catalog.query("SELECT COUNT(*) FROM products") == [(3,)]

    async def test_each_revision_can_be_the_target(self, fresh: CommandLine) -> None:
        before = "base"
        for revision in history():
            output = await fresh.output_of("migrate", revision)
            assert output == f"Migrated the database from {before} to {revision}.\n"
            before = revision

    async def test_down_to_a_newer_revision_is_refused(self, fresh: CommandLine) -> None:
        result = await fresh.run("migrate", HEAD, "--down")

        assert result.exit_code == 2
        assert f"The database is at base; {HEAD} is later, so it needs no --down." in result.stderr
        assert "users" not in await tables_of(fresh)

    async def test_newer_database_is_refused_and_left_alone(self, fresh: CommandLine) -> None:
        await fresh.output_of("migrate")
        await fresh.change("UPDATE alembic_version SET version_num = '9999'")

        for arguments in (["migrate"], ["migrate", "base", "--down"]):
            assert await fresh.faults_of(*arguments) == [
                "The service cannot start: "
                "The database is at revision 9999, which is newer than this release."
            ]
        assert "users" in await tables_of(fresh)


class TestDown:
    async def test_downgrade_without_consent_deletes_nothing(self, fresh: CommandLine) -> None:
        await fresh.output_of("migrate")
        await fresh.output_of("seed", "--users=1", "--products=3")

        result = await fresh.run("migrate", "base")

        assert result.exit_code == 2
        assert result.stderr.endswith(
            f"The database is at {HEAD}; downgrading to base deletes data. "
            "To do so anyway, add --down.\n"
        )
        assert await fresh.query("SELECT COUNT(*) FROM products") == [(3,)]

    async def test_downgrade_with_consent_can_be_reversed(self, fresh: CommandLine) -> None:
        await fresh.output_of("migrate")
        tables = await tables_of(fresh)

        down = await fresh.output_of("migrate", "base", "--down")
        left = await tables_of(fresh)
        up = await fresh.output_of("migrate")

        assert down == f"Migrated the database from {HEAD} to base.\n"
        assert left.keys() <= {"alembic_version", "sqlite_sequence"}
        assert up == f"Migrated the database from base to {HEAD}.\n"
        assert await tables_of(fresh) == tables

    async def test_downgrade_of_an_empty_database_does_nothing(self, fresh: CommandLine) -> None:
        output = await fresh.output_of("migrate", "base", "--down")

        assert output == "Nothing to do: the database is at base.\n"

    async def test_downgrade_passes_every_revision_step_by_step(self, fresh: CommandLine) -> None:
        await fresh.output_of("migrate")

        for above, revision in zip(history()[:0:-1], history()[-2::-1], strict=True):
            output = await fresh.output_of("migrate", revision, "--down")
            assert output == f"Migrated the database from {above} to {revision}.\n"


class TestSql:
    async def test_script_creates_the_same_tables(
        self, fresh: CommandLine, database_url: URL, engine: Engine
    ) -> None:
        script = await fresh.output_of("migrate", "--sql", f"--dialect={engine.name}")

        statements = re.sub(r"^--.*$", "", script, flags=re.MULTILINE).split(";\n")
        await fresh.change(*(statement for statement in statements if statement.strip()))

        assert await tables_of(fresh) == await tables_of(CommandLine(database_url))
        assert (await fresh.output_of("migrate")).startswith("Nothing to do")

    async def test_script_needs_no_database(self, nowhere: CommandLine) -> None:
        script = await nowhere.output_of("migrate", "--sql")

        assert "ENGINE=InnoDB" in script
        assert "utf8mb4_0900_bin" in script

    async def test_script_creates_no_file(self, tmp_path: Path) -> None:
        catalog = CommandLine(URL.create("sqlite", database=str(tmp_path / "data" / "new.db")))

        script = await catalog.output_of("migrate", "--sql")

        assert "AUTOINCREMENT" in script
        assert list(tmp_path.iterdir()) == []

    async def test_script_stops_at_the_target_revision(self, nowhere: CommandLine) -> None:
        script = await nowhere.output_of("migrate", history()[0], "--sql", "--dialect=sqlite")

        assert f"VALUES ('{history()[0]}')" in script
        assert "UPDATE alembic_version" not in script


class TestUsageError:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["9999"], f"must be one of base, {', '.join(history())} and head."),
            (["base", "--sql"], "--sql supports only upgrades from an empty database."),
            ([HEAD, "--sql", "--down"], "--sql supports only upgrades from an empty database."),
            (
                ["--dialect=mysql"],
                "--dialect requires --sql; otherwise the database determines it.",
            ),
            (["--sql", "--dialect=oracle"], "'oracle' is not one of"),
        ],
    )
    async def test_invalid_arguments_are_refused_with_the_reason(
        self, nowhere: CommandLine, arguments: list[str], message: str
    ) -> None:
        result = await nowhere.run("migrate", *arguments)

        assert result.exit_code == 2
        assert message in result.stderr
