"""Database servers to kill, freeze and fill up: MariaDB, and MySQL if one is configured.

``CATALOG_TEST_MYSQLD`` names a ``mysqld``, or a root folder that holds one and its libraries (which
requires root, for chroot).
"""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomysql
from sqlalchemy import URL

from tests.cluster.galera import free_ports
from tests.engines import EngineMissing, answering, connected, server_program, tied_to_us

NAMES = ("mariadb", "mysql")
DATA_MEGABYTES = 600
"""Size of the data's file system, where it can be limited."""

USER = PASSWORD = "catalog"

# Durability as in docker/mysql/conf.d/catalog.cnf, and little memory.
_SERVE = (
    "--bind-address=127.0.0.1",
    "--max-connections=200",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=128M",
    "--socket=socket",
    "--pid-file=pid",
)
_OWN = {
    "mariadb": ("--innodb-log-file-size=48M",),
    "mysql": (
        "--innodb-redo-log-capacity=64M",
        "--sync-binlog=1",
        "--mysqlx=OFF",
        "--secure-file-priv=NULL",
    ),
}


class DatabaseServer:
    """A server on its own port, whose data outlives its process.

    Attributes:
        name: one of ``NAMES``.
        version: known after the first start.
        has_small_disk: whether its data has its own file system, of ``DATA_MEGABYTES``.
        process: while it runs.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.version = ""
        self.has_small_disk = False
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = folder
        (self._port,) = free_ports(1)
        self._root: Path | None = None
        self._program, self._data = self._find()

    def _find(self) -> tuple[list[str], Path]:
        """Return the server's command and its data folder, as seen from outside a chroot.

        Raises:
            EngineMissing: the server is not installed.
        """
        if self.name == "mariadb":
            program = server_program("mariadbd")
            if program is None:
                raise EngineMissing("There is no mariadbd: apt-get install mariadb-server-core")
            return [program], self._folder / "data"
        given = os.environ.get("CATALOG_TEST_MYSQLD")
        if not given:
            raise EngineMissing(
                "CATALOG_TEST_MYSQLD is not set. Set it to a mysqld, or to a root folder with one,"
                " which is killed, frozen and filled up on data of its own"
            )
        if not Path(given).is_dir():
            return [given], self._folder / "data"
        self._root = Path(given)
        inside = f"catalog-faults-{secrets.token_hex(4)}"
        return ["chroot", given, "mysqld"], self._root / "tmp" / inside / "data"

    def _inside(self, path: Path) -> str:
        """Return a path as the server sees it."""
        return str(path if self._root is None else Path("/") / path.relative_to(self._root))

    @property
    def url(self) -> URL:
        """URL for the administrator, on the system database."""
        return URL.create("mysql+aiomysql", "root", "", "127.0.0.1", self._port, "mysql")

    def url_of(self, database: str) -> URL:
        """Return the URL of a database for the service's account."""
        return self.url.set(username=USER, password=PASSWORD, database=database)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    async def install(self) -> None:
        """Create the system tables, start the server and create the service's account."""
        self._data.mkdir(parents=True)
        (self._data.parent / "tmp").mkdir()
        size = f"size={DATA_MEGABYTES}m"
        mounting = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self._data)],
            check=False,
            capture_output=True,
        )
        self.has_small_disk = mounting.returncode == 0
        if self.name == "mariadb":
            install = server_program("mariadb-install-db")
            assert install
            options = ["--force", "--skip-test-db", "--auth-root-authentication-method=normal"]
            command = [install, *self._common(), *options]
        else:
            command = [*self._program, *self._common(), "--initialize-insecure"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment(),
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        await self.start()
        for host in ("%", "localhost"):
            account = f"'{USER}'@'{host}'"
            await self.run(
                f"CREATE USER {account} IDENTIFIED BY '{PASSWORD}'",
                f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES"
                f" ON `catalog%`.* TO {account}",
            )
        ((self.version,),) = await self.rows("SELECT VERSION()")

    def _common(self) -> list[str]:
        user = ["--user=root"] if os.geteuid() == 0 else []
        return ["--no-defaults", f"--datadir={self._inside(self._data)}", *user]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": self._inside(self._data.parent / "tmp")}

    async def start(self, *options: str) -> None:
        """Start the server on its existing data; wait until it answers."""
        assert self.process is None
        own = (*_SERVE, *_OWN[self.name], f"--port={self._port}", *options)
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*tied_to_us(), *self._program, *self._common(), *own],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for pytest, which then stops the server.
            )
        await answering(self.process, self.url)

    def kill(self) -> None:
        """Kill the server by SIGKILL, also while it is frozen."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def freeze(self) -> None:
        """Stop the process: connections stay open, new ones are accepted, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume a frozen process."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def run(self, *statements: str) -> None:
        async with connected(self.url) as cursor:
            for statement in statements:
                await cursor.execute(statement)

    async def rows(self, statement: str, database: str = "mysql") -> list[tuple[Any, ...]]:
        async with connected(self.url.set(database=database)) as cursor:
            await cursor.execute(statement)
            return list(await cursor.fetchall())

    async def revive(self) -> None:
        """Wait until the server accepts writes again; restart it if it has exited.

        InnoDB aborts when the disk is too full even for a roll-back.
        """
        assert self.process is not None
        probe = ("CREATE DATABASE IF NOT EXISTS probe", "DROP DATABASE probe")
        try:
            await self.run(*probe)
        except aiomysql.OperationalError:
            self.process.wait()
            self.process = None
            await self.start()
            await self.run(*probe)

    async def create_database(self) -> str:
        """Create an empty database; return its name."""
        name = f"catalog_{secrets.token_hex(4)}"
        await self.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return name

    async def end_sessions(self) -> None:
        """Kill the connections of the service's account."""
        async with connected(self.url) as cursor:
            await end_sessions(cursor)

    async def deadlocks(self) -> int:
        """Return the number of deadlocks since the start."""
        if self.name == "mariadb":
            ((_, count),) = await self.rows("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        else:
            ((count,),) = await self.rows(
                "SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'"
            )
        return int(count)

    def fill_disk(self) -> Path:
        """Use up the free disk space; return the file that does."""
        ballast = self._data / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (2**20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue
        return ballast

    def remove(self) -> None:
        """Kill the server and remove its data."""
        if self.process is not None:
            self.kill()
        if self.has_small_disk:
            subprocess.run(["umount", "--lazy", str(self._data)], check=True)
        shutil.rmtree(self._data.parent if self._root else self._data, ignore_errors=True)


async def end_sessions(cursor: Any, *spared: int) -> None:
    """Kill the connections of the service's account, except those with the spared ids."""
    # MySQL warns that SHOW PROCESSLIST is deprecated.
    await cursor.execute("SET max_error_count = 0")
    await cursor.execute("SHOW PROCESSLIST")
    for session, user, *_ in await cursor.fetchall():
        if user == USER and session not in spared:
            # The session may have ended in the meantime.
            with suppress(aiomysql.Error):
                await cursor.execute(f"KILL {session}")


@asynccontextmanager
async def database_server(name: str, folder: Path) -> AsyncIterator[DatabaseServer]:
    """Run a server for the duration of the block.

    Raises:
        EngineMissing: the server is not available here.
    """
    server = DatabaseServer(name, folder)
    try:
        await server.install()
        yield server
    finally:
        server.remove()


class Backup:
    """A logical backup, restored like mysqldump's files: drop, create, insert.

    Args:
        server: of the database.
        database: its name.
    """

    def __init__(self, server: DatabaseServer, database: str) -> None:
        self._server = server
        self._database = database
        self._copy = f"copy_{secrets.token_hex(4)}"
        self._tables: dict[str, str] = {}

    async def take(self) -> None:
        """Copy all tables."""
        async with connected(self._server.url.set(database=self._database)) as cursor:
            await cursor.execute("SHOW FULL TABLES WHERE table_type = 'BASE TABLE'")
            names = [row[0] for row in await cursor.fetchall()]
            await cursor.execute("SET max_error_count = 0")
            await cursor.execute(f"CREATE DATABASE {self._copy}")
            for name in names:
                await cursor.execute(f"SHOW CREATE TABLE {name}")
                self._tables[name] = (await cursor.fetchone())[1]
                await cursor.execute(f"CREATE TABLE {self._copy}.{name} LIKE {name}")
                await cursor.execute(f"INSERT INTO {self._copy}.{name} SELECT * FROM {name}")  # noqa: S608 (names from the schema)

    async def restore(self) -> None:
        """Replace all tables by their copies."""
        async with connected(self._server.url.set(database=self._database)) as cursor:
            # No warnings either: the definitions are the server's own output.
            await cursor.execute("SET foreign_key_checks = 0, max_error_count = 0")
            for name, definition in self._tables.items():
                await cursor.execute(f"DROP TABLE {name}")
                await cursor.execute(definition)
                await cursor.execute(f"INSERT INTO {name} SELECT * FROM {self._copy}.{name}")  # noqa: S608 (names from the schema)

    async def drop(self) -> None:
        """Remove the copy."""
        await self._server.run(f"DROP DATABASE {self._copy}")
