"""Bootstrap: alone, concurrently, and with a database that is not available yet."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog import migrations
from catalog.app import create_app
from catalog.auth.models import Role, User
from catalog.auth.normalization import fold
from catalog.bootstrap import DATABASE_START_SECONDS, prepare
from catalog.db.database import Database
from catalog.errors import OperatorError, StartFailed
from tests.db.support import Stopwatch, on_servers, on_sqlite, run_on
from tests.engines import migrate, settings_for
from tests.faults.proxy import relayed
from tests.support import PASSWORD, Caller

GIVEN = {"admin_username": "Grace", "admin_email": "grace@example.com", "admin_password": PASSWORD}

# Starts instances as processes at the same moment, and prints their outcomes.
_START = """
import asyncio, io, json, os, sys
from contextlib import asynccontextmanager, redirect_stdout
from catalog import migrations
from catalog import bootstrap
from catalog.db.engines import Purpose, create_engine
from catalog.settings import Settings, parse_database_url

url, count, locked = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "locked"
settings = Settings(database_url=parse_database_url(url), jwt_secret_key=sys.argv[4])

@asynccontextmanager
async def without_lock(settings):
    engine = create_engine(settings, Purpose.MIGRATING)
    async with engine.connect() as connection:
        yield connection
        await connection.commit()
    await engine.dispose()

if not locked:
    migrations.exclusive = without_lock
wait, go = os.pipe()
outputs = []
for _ in range(count):
    mine, theirs = os.pipe()
    if os.fork() == 0:
        os.close(go)
        os.read(wait, 1)
        said = io.StringIO()
        with redirect_stdout(said):
            try:
                asyncio.run(bootstrap.prepare(settings))
                error = None
            except BaseException as failure:
                error = repr(failure)
        os.write(theirs, json.dumps({"error": error, "said": said.getvalue()}).encode())
        os._exit(0)
    os.close(theirs)
    outputs.append(mine)
os.close(wait)
os.close(go)
for output in outputs:
    print(open(output, encoding="utf-8").read())
"""


async def start_at_once(url: URL, count: int, *, locked: bool = True) -> list[dict[str, Any]]:
    """Run concurrent processes that prepare one database, and return their outcomes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _START, url.render_as_string(hide_password=False), str(count)),
        *("locked" if locked else "free", "".join(chr(33 + n) for n in range(64))),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


async def admins(connection: AsyncConnection) -> int:
    statement = select(func.count()).select_from(User).where(User.role == Role.ADMIN)
    return await connection.scalar(statement) or 0


async def count_admins(url: URL) -> int:
    database = Database(settings_for(url))
    try:
        return await run_on(database.connection(), admins)
    finally:
        await database.close()


class TestFirstStart:
    async def test_schema_and_administrator_exist_afterwards(self, empty_database_url: URL) -> None:
        settings = settings_for(empty_database_url, **GIVEN)

        await prepare(settings)

        app = create_app(settings)
        async with app.test_app():
            assert (await Caller(app).get("/readyz")).status_code == 200
            grace = await Caller(app).log_in("grace@example.com")
            assert grace.json["user"]["username"] == "Grace"
            assert grace.json["user"]["role"] == "admin"

    async def test_generated_password_is_shown_once_and_works(
        self, empty_database_url: URL, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = settings_for(empty_database_url)

        await prepare(settings)
        first = capsys.readouterr().out
        await prepare(settings)
        second = capsys.readouterr().out

        (line,) = [line for line in first.splitlines() if "Password, shown only now" in line]
        password = line.rpartition(" ")[2]
        assert password not in second
        app = create_app(settings)
        async with app.test_app():
            assert (await Caller(app).log_in("admin", password)).status_code == 200
        assert len(password) >= 20

    async def test_given_password_is_never_shown(
        self, empty_database_url: URL, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await prepare(settings_for(empty_database_url, **GIVEN))

        captured = capsys.readouterr()
        assert PASSWORD not in captured.out + captured.err

    async def test_second_start_creates_no_second_administrator(
        self, empty_database_url: URL
    ) -> None:
        await prepare(settings_for(empty_database_url, **GIVEN))
        await prepare(settings_for(empty_database_url, admin_username="other"))

        assert await count_admins(empty_database_url) == 1

    async def test_taken_name_does_not_prevent_the_start(self, empty_database_url: URL) -> None:
        await migrate(empty_database_url)
        database = Database(settings_for(empty_database_url))

        async def sign_up(session: AsyncSession) -> None:
            names = {"username": "GRACE", "username_key": fold("GRACE")}
            session.add(User(**names, email="x", email_key="x", password_hash=""))

        await database.transaction(sign_up)

        await prepare(settings_for(empty_database_url, **GIVEN))

        assert await run_on(database.connection(), admins) == 0
        await database.close()

    @on_sqlite
    async def test_all_faults_of_an_invalid_administrator_are_reported(
        self, empty_database_url: URL
    ) -> None:
        settings = settings_for(
            empty_database_url, admin_username="x", admin_email="nowhere", admin_password="short"
        )

        with pytest.raises(OperatorError) as refused:
            await prepare(settings)

        assert len(refused.value.detail.splitlines()) == 3
        assert "short" not in refused.value.detail

    @on_sqlite
    async def test_common_password_is_refused_in_production(self, empty_database_url: URL) -> None:
        common = {**GIVEN, "admin_password": "Sunshine"}

        with pytest.raises(OperatorError, match="one of the 3,000 most common") as refused:
            await prepare(settings_for(empty_database_url, **common, env="production"))
        await prepare(settings_for(empty_database_url, **common))

        assert "Sunshine" not in refused.value.detail
        # With an administrator the password is not checked any more.
        await prepare(settings_for(empty_database_url, **common, env="production"))

    @on_sqlite
    async def test_folder_of_the_database_is_created(self, empty_database_url: URL) -> None:
        file = Path(str(empty_database_url.database))
        url = empty_database_url.set(database=str(file.parent / "var" / "data" / file.name))

        await prepare(settings_for(url, **GIVEN))

        assert await count_admins(url) == 1


class TestConcurrentStarts:
    async def test_all_starts_succeed_and_create_one_administrator(
        self, empty_database_url: URL
    ) -> None:
        outcomes = await start_at_once(empty_database_url, 4)

        said = "".join(outcome["said"] for outcome in outcomes)
        assert [outcome["error"] for outcome in outcomes] == [None] * 4
        assert said.count("Password, shown only now") == 1
        assert "waiting_for_database" not in said
        assert await count_admins(empty_database_url) == 1

    @on_servers
    async def test_control_starts_without_the_lock_conflict(self, empty_database_url: URL) -> None:
        outcomes = await start_at_once(empty_database_url, 4, locked=False)

        # They retry, so that most of them succeed in the end.
        assert any(outcome["error"] or "waiting_for_" in outcome["said"] for outcome in outcomes)


class TestStart:
    async def test_newer_database_is_refused(self, empty_database_url: URL) -> None:
        settings = settings_for(empty_database_url, **GIVEN)
        await prepare(settings)
        async with migrations.exclusive(settings) as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

        with pytest.raises(StartFailed, match="revision 9999, which is newer than this release"):
            await prepare(settings)

    @on_servers
    async def test_start_waits_for_an_unavailable_database(self, empty_database_url: URL) -> None:
        async with relayed(empty_database_url) as relay:
            relay.refuse()
            starting = asyncio.create_task(prepare(settings_for(relay.url, **GIVEN)))
            refused = await asyncio.wait([starting], timeout=0.2)
            await relay.listen()
            await asyncio.wait_for(starting, timeout=60)

        assert refused[1] == {starting}
        assert await count_admins(empty_database_url) == 1

    @on_servers
    async def test_start_waits_for_a_database_lost_halfway(self, empty_database_url: URL) -> None:
        async with relayed(empty_database_url) as relay:
            starting = asyncio.create_task(prepare(settings_for(relay.url, **GIVEN)))
            # Cut the connections at increasing intervals, at any step, until the start completes.
            for waits in range(1, 8):
                await asyncio.wait([starting], timeout=0.03 * waits)
                relay.cut()
            await asyncio.wait_for(starting, timeout=60)

        assert await count_admins(empty_database_url) == 1

    @on_servers
    async def test_wait_for_the_database_times_out(
        self, empty_database_url: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.bootstrap.DATABASE_START_SECONDS", 0.1)
        settings = settings_for(empty_database_url.set(port=1))

        with pytest.raises(StartFailed, match="cannot be used"):
            await prepare(settings)

    @on_servers
    async def test_refused_credentials_or_database_end_the_wait(
        self, empty_database_url: URL
    ) -> None:
        stopwatch = Stopwatch()

        for url in (
            empty_database_url.set(username="nobody", password="wrong"),
            empty_database_url.set(database="catalog_test_missing"),
        ):
            with pytest.raises(StartFailed) as refused:
                await prepare(settings_for(url))
            assert "wrong" not in refused.value.detail

        assert stopwatch.seconds < DATABASE_START_SECONDS / 2

    async def test_file_that_is_not_a_database_ends_the_wait(self, tmp_path: Path) -> None:
        notes = tmp_path / "notes.txt"
        notes.write_text("These are notes, and many of them. " * 200)
        settings = settings_for(URL.create("sqlite+aiosqlite", database=str(notes)))
        stopwatch = Stopwatch()

        with pytest.raises(StartFailed, match=r"cannot be used: file is not a database\."):
            await prepare(settings)

        assert stopwatch.seconds < DATABASE_START_SECONDS / 2

    @on_sqlite
    async def test_database_file_is_private_to_its_owner(self, empty_database_url: URL) -> None:
        await prepare(settings_for(empty_database_url, **GIVEN))

        files = Path(str(empty_database_url.database)).parent.glob("*.db*")
        assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
