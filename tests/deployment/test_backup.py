"""The commands of docs/deployment/backup.md for MySQL and MariaDB, run as a reader would.

``CATALOG_TEST_MYSQLD`` may name a root folder with MySQL's clients, as in tests/faults/servers.py.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.code_blocks import blocks, run
from tests.engines import Engine, connected, migrate

PRODUCTS = 5

DUMPS = {"mariadb": "mariadb-dump", "mysql": "mysqldump"}
SHELLS = {"mariadb": "mariadb", "mysql": "mysql"}

_DATABASE = re.compile(r"\bcatalog(?=_restored|_lost)|(?<=')catalog(?=['.])|(?<=TO )catalog(?=\.)")


class Terminal:
    """A shell whose commands reach a server, under the names that the page uses.

    Args:
        engine: the server.
        url: of the database that the page calls ``catalog``.
        folder: in which commands run.
    """

    def __init__(self, engine: Engine, url: URL, folder: Path) -> None:
        self._folder = folder
        self._url = url
        self._server = f"mysql://{url.username}:{url.password or ''}@{url.host}:{url.port}"
        account = [
            f"--host={url.host}",
            f"--port={url.port}",
            f"--user={url.username}",
            f"--password={url.password or ''}",
        ]
        clients = {
            DUMPS[engine.name]: client_of(engine, DUMPS[engine.name]),
            # By the page, MariaDB's is used in its place.
            "mysql": client_of(engine, SHELLS[engine.name]),
            "catalog": [sys.executable, "-m", "catalog"],
        }
        options = {
            name: [] if name == "catalog" else ["--no-defaults", *account] for name in clients
        }
        self._functions = "\n".join(
            f'{name}() {{ {shlex.join([*command, *options[name]])} "$@"; }}'
            for name, command in clients.items()
        )

    def run(self, script: str) -> None:
        """Run commands of the page on the database."""
        script = _DATABASE.sub(str(self._url.database), script)
        script = script.replace("mysql://…", self._server)
        script = script.replace("-h db.example.com -u catalog -p catalog", str(self._url.database))
        run(f"{self._functions}\n{script}", self._folder)


def client_of(engine: Engine, name: str) -> list[str]:
    """Return the command of a client that belongs to the server."""
    given = os.environ.get("CATALOG_TEST_MYSQLD", "")
    if engine.name == "mysql" and Path(given).is_dir():
        return ["chroot", given, name]
    if found := shutil.which(name):
        told = subprocess.run([found, "--version"], check=True, capture_output=True, text=True)
        if ("MariaDB" in told.stdout) == (engine.name == "mariadb"):
            return [found]
    pytest.skip(f"{engine.name}'s own {name} is not there: its backup is not tested")


async def counts_of(url: URL) -> tuple[int, int]:
    """Return how many products there are, and how many of them are lost."""
    async with connected(url) as cursor:
        await cursor.execute("SELECT COUNT(*), SUM(name = 'Lost') FROM products")
        products, lost = await cursor.fetchone()
    return products, int(lost)


@pytest.mark.parametrize("engine", list(DUMPS), indirect=True)
class TestServerBackup:
    async def test_restore_beside_the_live_database_takes_the_place_of_its_tables(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        live = await engine.create_database(tmp_path)
        restored, lost = (
            live.set(database=f"{live.database}{end}") for end in ("_restored", "_lost")
        )
        terminal = Terminal(engine, live, tmp_path)
        back_up, restore = blocks("backup.md")[2:4]
        (dump,) = re.findall(rf"^{DUMPS[engine.name]} (?:.*\\\n)*.*$", back_up, re.MULTILINE)
        await migrate(live)
        seed = f"catalog seed --users 1 --products {PRODUCTS} --password 'correct horse battery'"
        terminal.run(f"DATABASE_URL=mysql://…/{live.database} {seed}")
        try:
            terminal.run(dump)
            async with connected(live) as cursor:
                await cursor.execute("UPDATE products SET name = 'Lost'")

            terminal.run(restore)

            assert await counts_of(live) == (PRODUCTS, 0)
            assert await counts_of(lost) == (PRODUCTS, PRODUCTS)
            terminal.run(f"DATABASE_URL=mysql://…/{live.database} catalog migrate")
        finally:
            async with connected(live) as cursor:
                for url in (live, restored, lost):
                    await cursor.execute(f"DROP DATABASE IF EXISTS {url.database}")
