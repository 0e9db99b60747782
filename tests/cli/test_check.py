"""``catalog check``."""

import socket
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from catalog.auth.tokens.signing_keys import KeyRing
from catalog.migrations import head_revision
from tests.auth.tokens.signing_keys.pem import pem_of, private_key, public_pem_of
from tests.cli.commands import CommandLine
from tests.engines import SECRET, Engine, settings_for
from tests.support import Caller

OLD = "b1946ac92492d2347c6235b4d2611184f9f0a8a5d2c0d9be"
HEAD = head_revision()
NO_ADMIN = "FAULT administrator: There is none; run: catalog create-admin."


class TestSuccess:
    async def test_each_finding_is_a_line(
        self, catalog: CommandLine, admin: Caller, engine: Engine
    ) -> None:
        lines = (await catalog.output_of("check")).splitlines()

        middle = "data folder" if engine.name == "sqlite" else "connections"
        subjects = ["settings", "keys", "address", "database", middle, "schema", "administrator"]
        assert sorted(line.partition(":")[0] for line in lines) == sorted(
            f"OK {subject}" for subject in subjects
        )
        (database,) = [line for line in lines if line.startswith("OK database")]
        assert engine.version in database
        assert str(catalog.url.database) in database
        assert f"OK schema: at {HEAD}, as this release requires." in lines
        assert admin.user_id

    async def test_unknown_variables_are_warnings_only(
        self, catalog: CommandLine, admin: Caller
    ) -> None:
        result = await catalog.run("check", CATALOG_WORKER="2", CATALOG_BINDING="x")

        assert admin.user_id
        assert result.exit_code == 0
        assert result.stderr.splitlines() == [
            "WARNING settings: CATALOG_BINDING is not a setting of this release.",
            "WARNING settings: CATALOG_WORKER is not a setting of this release.",
        ]

    async def test_tracing_is_reported_if_enabled(
        self, catalog: CommandLine, admin: Caller
    ) -> None:
        lines = (await catalog.output_of("check", CATALOG_TRACING="otlp")).splitlines()

        assert admin.user_id
        assert "OK tracing: spans are exported as the OTEL_ variables say." in lines


class TestFaults:
    async def test_removed_settings_are_faults(self, catalog: CommandLine) -> None:
        faults = await catalog.faults_of(
            "check", CATALOG_BODY_TIMEOUT="60", CATALOG_PASSWORD_QUEUE="9"
        )

        assert faults == [
            "FAULT settings: CATALOG_BODY_TIMEOUT is no longer a setting: it is 10 seconds always.",
            "FAULT settings: CATALOG_PASSWORD_QUEUE is no longer a setting: "
            "it is 64 for each worker always.",
        ]

    async def test_missing_tracing_packages_are_a_fault(
        self, catalog: CommandLine, admin: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert admin.user_id
        monkeypatch.setitem(sys.modules, "catalog.http.middleware.tracing", None)

        (fault,) = await catalog.faults_of("check", CATALOG_TRACING="otlp")

        assert fault.startswith("FAULT tracing: CATALOG_TRACING needs packages: pip install")

    async def test_database_without_tables_is_a_fault(
        self, fresh: CommandLine, engine: Engine
    ) -> None:
        (fault,) = await fresh.faults_of("check")

        if engine.name == "sqlite":
            missing = f"There is no file {fresh.url.database}"
            assert fault == f"FAULT database: {missing}; run: catalog migrate."
        else:
            assert fault == "FAULT schema: The database has no tables yet; run: catalog migrate."

    async def test_newer_database_is_a_fault(self, fresh: CommandLine) -> None:
        await fresh.output_of("migrate")
        await fresh.change("UPDATE alembic_version SET version_num = '9999'")

        newer = "The database is at 9999, which is newer than this release"
        assert await fresh.faults_of("check") == [f"FAULT schema: {newer} (at {HEAD})."]

    @pytest.mark.parametrize(
        ("bind", "fault"),
        [
            ("192.0.2.1:80", "Cannot listen on http://192.0.2.1:80: Cannot assign requested"),
            ("nowhere.invalid:80", "Cannot listen on http://nowhere.invalid:80: "),
            ("unix:/nonexistent/s", "Cannot listen on unix:/nonexistent/s: its folder is missing"),
            ("unix:/dev/null", "Cannot listen on unix:/dev/null: the path exists and is not a"),
            (f"unix:/tmp/{'s' * 120}", "Cannot listen on unix:/tmp/sss"),
        ],
        ids=["not local", "unknown", "no folder", "no socket", "too long"],
    )
    async def test_address_that_the_start_would_refuse_is_a_fault(
        self, catalog: CommandLine, admin: Caller, bind: str, fault: str
    ) -> None:
        assert admin.user_id

        (found,) = await catalog.faults_of("check", CATALOG_BIND=bind)

        assert found.startswith(f"FAULT address: {fault}")

    async def test_address_in_use_is_no_fault(self, catalog: CommandLine, admin: Caller) -> None:
        assert admin.user_id
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

            lines = await catalog.output_of("check", CATALOG_BIND=f"127.0.0.1:{port}")

        assert f"OK address: http://127.0.0.1:{port}." in lines

    async def test_administrator_that_the_start_would_refuse_is_a_fault(
        self, fresh: CommandLine
    ) -> None:
        refused = {"ADMIN_USERNAME": "x", "ADMIN_EMAIL": "ada@home", "ADMIN_PASSWORD": "Geheim"}

        _, *faults = await fresh.faults_of("check", **refused)

        assert faults == [
            "FAULT administrator: The administrator's username must have 2 to 80 characters.",
            "FAULT administrator: The administrator's e-mail address is not an e-mail address.",
            "FAULT administrator: The administrator's password must have 8 to 128 characters.",
        ]

    async def test_administrator_of_the_settings_does_not_matter_once_there_is_one(
        self, catalog: CommandLine, admin: Caller
    ) -> None:
        assert admin.user_id

        assert await catalog.output_of("check", ADMIN_PASSWORD="short")

    async def test_missing_administrator_is_a_fault(
        self, catalog: CommandLine, ada: Caller
    ) -> None:
        assert ada.user_id
        assert await catalog.faults_of("check") == [NO_ADMIN]

    async def test_more_connections_than_the_server_allows_are_a_fault(
        self, catalog: CommandLine, admin: Caller, engine: Engine
    ) -> None:
        if engine.name == "sqlite":
            pytest.skip("SQLite has no connections to run out of.")
        assert admin.user_id
        limit = int((await catalog.query("SELECT @@max_connections"))[0][0])
        workers = 1 + limit // 500
        pool = ((limit - 10) // workers - 2) // 2
        settings = {"CATALOG_WORKERS": str(workers), "CATALOG_DATABASE_POOL_SIZE": str(pool)}

        enough = await catalog.output_of("check", **settings)
        settings["CATALOG_DATABASE_POOL_SIZE"] = str(pool + 1)
        (fault,) = await catalog.faults_of("check", **settings)

        assert f"open up to {workers * (2 * pool + 2)} of the server's {limit}." in enough
        assert fault == (
            f"FAULT connections: {workers} workers with CATALOG_DATABASE_POOL_SIZE={pool + 1} "
            f"open up to {workers * (2 * pool + 4)}, but max_connections is {limit} "
            "and 10 of them are reserved."
        )

    async def test_read_only_data_folder_is_a_fault(self, tmp_path: Path) -> None:
        # A folder cannot be created in place of a file, not even by root.
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "catalog.db"

        folder, database = await CommandLine(URL.create("sqlite", database=str(path))).faults_of(
            "check"
        )

        assert folder.startswith(f"FAULT data folder: {path.parent} is not writable: ")
        assert database.startswith("FAULT database: There is no file ")

    async def test_file_that_is_not_a_database_is_a_fault(self, tmp_path: Path) -> None:
        path = tmp_path / "catalog.db"
        path.write_bytes(b"no database " * 100)

        faults = await CommandLine(URL.create("sqlite", database=str(path))).faults_of("check")

        assert faults == ["FAULT database: The database is not available: file is not a database."]

    async def test_several_faults_are_reported_at_once(
        self, fresh: CommandLine, engine: Engine
    ) -> None:
        if engine.name == "sqlite":
            pytest.skip("Without a file there is nothing more to look at.")

        result = await fresh.run(
            "check",
            CATALOG_WORKERS="256",
            CATALOG_DATABASE_POOL_SIZE="256",
            CATALOG_WORKER="2",
        )

        assert result.exit_code == 1
        labels = [line.partition(":")[0] for line in result.stderr.splitlines()]
        assert labels == ["WARNING settings", "FAULT connections", "FAULT schema"]
        assert result.stdout.startswith("OK settings: ")

    async def test_tls_is_reported_and_its_absence_is_a_fault_if_required(
        self, catalog: CommandLine, engine: Engine
    ) -> None:
        if engine.name == "sqlite":
            pytest.skip("SQLite has no wire.")

        without = await catalog.run("check")
        required = await catalog.run("check", CATALOG_DATABASE_TLS="require")

        assert ", without TLS.\n" in without.stdout
        offers_none = "FAULT database: The database is not available: the server offers no TLS."
        assert (", TLSv1." in required.stdout) != (offers_none in required.stderr.splitlines())

    async def test_invalid_settings_are_reported_alone(self, nowhere: CommandLine) -> None:
        faults = await nowhere.faults_of(
            "check",
            DATABASE_URL="mssql://sa:pw@host/db",
            CATALOG_ENV="production",
            JWT_SECRET_KEY=None,
            CATALOG_WORKERS="0",
        )

        assert [fault[: fault.index(" ", 16)] for fault in faults] == [
            "FAULT settings: DATABASE_URL",
            "FAULT settings: JWT_SECRET_KEY",
            "FAULT settings: CATALOG_WORKERS",
        ]


class TestKeys:
    async def test_each_key_is_listed_with_its_algorithm_and_id(self, nowhere: CommandLine) -> None:
        private, public = private_key("EdDSA"), private_key("ES256")

        result = await nowhere.run(
            "check",
            CATALOG_JWT_PREVIOUS_SECRET_KEYS=OLD,
            CATALOG_JWT_PRIVATE_KEY=pem_of(private).replace("\n", "\\n"),
            CATALOG_JWT_PREVIOUS_PUBLIC_KEYS=public_pem_of(public),
        )

        settings = settings_for(
            nowhere.url,
            jwt_previous_secret_keys=(SecretStr(OLD),),
            jwt_private_key=SecretStr(pem_of(private)),
            jwt_previous_public_keys=SecretStr(public_pem_of(public)),
        )
        keys = KeyRing(settings, SECRET.get_secret_value())
        lines = [line for line in result.stdout.splitlines() if line.startswith("OK keys: ")]
        assert lines == [
            f"OK keys: EdDSA {keys.for_access.kid} signs access tokens.",
            f"OK keys: HS256 {keys.for_refresh.kid} signs refresh tokens.",
            f"OK keys: HS256 {keys.previous[0].kid} is still accepted.",
            f"OK keys: ES256 {keys.previous[1].kid} is still accepted.",
        ]
        for word in (OLD, SECRET.get_secret_value(), *pem_of(private).splitlines()):
            assert word not in result.output

    async def test_secret_alone_signs_all_tokens(self, nowhere: CommandLine) -> None:
        result = await nowhere.run("check")

        keys = KeyRing(settings_for(nowhere.url), SECRET.get_secret_value())
        assert f"OK keys: HS256 {keys.for_access.kid} signs all tokens.\n" in result.stdout

    async def test_secret_that_does_not_exist_yet_has_no_id(self, nowhere: CommandLine) -> None:
        result = await nowhere.run("check", JWT_SECRET_KEY=None)

        assert (
            "OK keys: a secret that the first start will generate signs all tokens.\n"
            in result.stdout
        )

    async def test_all_key_faults_are_reported_at_once(self, nowhere: CommandLine) -> None:
        faults = await nowhere.faults_of(
            "check",
            CATALOG_JWT_PRIVATE_KEY="s3kr1t-word",
            CATALOG_JWT_PREVIOUS_PUBLIC_KEYS="s3kr1t-word",
        )

        assert [fault[: fault.index(" ", 12)] for fault in faults[:2]] == [
            "FAULT keys: CATALOG_JWT_PRIVATE_KEY",
            "FAULT keys: CATALOG_JWT_PREVIOUS_PUBLIC_KEYS",
        ]
        assert "s3kr1t" not in "".join(faults)
        assert "127.0.0.1" in faults[2]

    async def test_unusable_stored_secret_is_a_fault(self, nowhere: CommandLine) -> None:
        Path("var").mkdir()
        Path("var/jwt_secret_key").write_text("short")

        faults = await nowhere.faults_of("check", JWT_SECRET_KEY=None)

        too_short = "The signing key in var/jwt_secret_key is too short; delete the file."
        assert faults[0] == f"FAULT keys: {too_short}"


class TestConfidentiality:
    async def test_secrets_are_never_shown(self, nowhere: CommandLine) -> None:
        word = "s3kr1t-word"
        unreachable = await nowhere.run("check", ADMIN_PASSWORD=f"{word}-admin")
        invalid = await nowhere.run(
            "check",
            DATABASE_URL=f"mssql://sa:{word}@host/db",
            JWT_SECRET_KEY=word,
            ADMIN_PASSWORD=f"{word}-admin",
        )

        assert "Can't connect" in unreachable.stderr
        assert "JWT_SECRET_KEY" in invalid.stderr
        for result in (unreachable, invalid):
            assert result.exit_code == 1
            assert word not in result.output

    async def test_password_refused_by_the_server_is_not_shown(
        self, catalog: CommandLine, engine: Engine
    ) -> None:
        if engine.name == "sqlite":
            pytest.skip("SQLite has no passwords.")
        url = catalog.url.set(username="nobody", password="s3kr1t-word")

        result = await CommandLine(url).run("check")

        assert result.stderr.startswith("FAULT database: The database is not available: Access")
        assert "s3kr1t" not in result.output

    async def test_check_leaves_no_files_behind(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "deep"
        catalog = CommandLine(URL.create("sqlite", database=str(folder / "catalog.db")))

        result = await catalog.run("check", JWT_SECRET_KEY=None)

        assert f"OK data folder: {folder} is writable." in result.stdout
        assert list(tmp_path.iterdir()) == []
