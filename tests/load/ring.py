"""Starts and stops the servers to measure.

All run two workers on the same database and stay idle between their turns.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import click
from sqlalchemy import URL

from tests.engines import tied_to_us
from tests.load.contestants import (
    ACCOUNTS,
    BEHIND_NGINX,
    CATALOG,
    EARLIER,
    EARLIER_BEHIND_NGINX,
    FILE,
    HOT_PATH,
    LOGGING,
    PASSWORD,
    START_TIMEOUT_SECONDS,
    TOKEN_SECONDS,
    WORKERS,
    Contestant,
)
from tests.load.processes import with_descendants
from tests.load.stacks import PEERS
from tests.load.static_file import configure
from tests.load.tls import certify, listener
from tests.server.nginx import (
    NGINX,
    SHIPPED,
    free_ports,
    has_njs,
    nginx,
    own_folder,
    without_njs,
)
from tests.server.startup import write_startup

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_SECONDS = 20

# Another commit may have no such constant.
_WITHOUT_LIMITS = {"catalog.http.limits": 'globals().get("FIXED_RATES", {}).update(refresh=None)'}


@dataclass(frozen=True)
class Ring:
    """Common settings of all contestants.

    Attributes:
        database: where the tables are.
        secret: that signs tokens.
        peers_python: the interpreter with the peers' packages.
        folder: for logs.
        checkout: another commit of the service, in a folder; None for this one.
        title: name of the service in tables.
    """

    database: URL
    secret: str
    peers_python: str
    folder: Path
    checkout: Path | None = None
    title: str = "the service"

    def against(self, revision: str) -> "Ring":
        """Return a ring for another commit of the service.

        Args:
            revision: the commit; or a folder with another release, set up by its own build.sh.

        Raises:
            click.ClickException: there is no such commit.
        """
        if Path(revision).is_dir():
            return replace(self, checkout=Path(revision).resolve(), title="another release")
        folder = self.folder / "against"
        if not folder.exists():
            copy_commit(revision, folder)
        return replace(self, checkout=folder, title=f"the service at {revision}")

    @property
    def python(self) -> str:
        """The interpreter with the service's packages; a bare commit shares those of this one."""
        own = f"{self.checkout}/.venv/bin/python"
        return own if self.checkout is not None and Path(own).exists() else sys.executable

    def environment(self) -> dict[str, str]:
        """Return the service's environment: no rate limits, and long-lived tokens.

        Limits that are no settings are lifted by a module that its processes import first.
        """
        startup = write_startup(self.folder / "startup", _WITHOUT_LIMITS)
        return {
            # Drop all settings of the service from the caller's environment.
            **{name: value for name, value in os.environ.items() if not _is_setting(name)},
            "DATABASE_URL": self.database.render_as_string(hide_password=False),
            "JWT_SECRET_KEY": self.secret,
            "ADMIN_PASSWORD": PASSWORD,
            "CATALOG_ACCESS_TOKEN_TTL": str(TOKEN_SECONDS),
            # No peer writes an access log.
            "CATALOG_ACCESS_LOG": "off",
            "CATALOG_TRUSTED_PROXIES": "127.0.0.1",
            # The commit's package, and not the one that is installed.
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (startup, self.checkout)))),
            **{f"CATALOG_{kind}_LIMIT": "off" for kind in ("SIGNUP", "LOGIN", "READ", "WRITE")},
        }

    async def run_catalog(self, *command: str) -> None:
        """Run a command of the service to its end.

        Raises:
            click.ClickException: it failed; its output is above.
        """
        process = await asyncio.create_subprocess_exec(
            *(self.python, "-m", "catalog", *command),
            env=self.environment(),
            cwd=self.checkout,
            stdout=asyncio.subprocess.DEVNULL,
        )
        if await process.wait():
            raise click.ClickException(f"catalog {command[0]} failed.")

    async def fill(self, products: int) -> None:
        """Migrate the database, and add sample accounts and products."""
        await self.run_catalog("migrate")
        counts = ["--users", str(ACCOUNTS), "--products", str(products)]
        await self.run_catalog("seed", *counts, "--password", PASSWORD)

    @asynccontextmanager
    async def catalog(self, *, has_log: bool = False) -> AsyncIterator[Contestant]:
        """Run the service, by default without its access log, which no peer writes."""
        port = _free_port()
        command = f"{self.python} -m catalog serve --bind 127.0.0.1:{port} --workers {WORKERS}"
        name = (LOGGING if has_log else CATALOG) if self.checkout is None else EARLIER
        title = f"{self.title}, with its access log" if has_log else self.title
        log = {"CATALOG_ACCESS_LOG": "all"} if has_log else {}
        environment = {**self.environment(), **log}
        async with self._serving(
            command.split(), port, name, environment, folder=self.checkout
        ) as (pid, url):
            yield Contestant(name, title, url, (pid,))

    @asynccontextmanager
    async def behind_nginx(self, catalog: Contestant) -> AsyncIterator[Contestant]:
        """Run nginx in front of the service, with the shipped configuration."""
        with own_folder() as folder:
            port = _free_port()
            certify(folder)
            edit = partial(_as_shipped, tls=listener(folder, port))
            shipped = self.checkout / "docker" / "nginx" if self.checkout else SHIPPED
            async with nginx(catalog.url, edit=edit, shipped=shipped) as front:
                pid = int((front.folder / "nginx.pid").read_text())
                if has_njs():
                    await front.caching()
                yield Contestant(
                    EARLIER_BEHIND_NGINX if self.checkout else BEHIND_NGINX,
                    f"{catalog.title}, through nginx",
                    front.url,
                    (pid, *catalog.pids),
                    tls_url=f"https://127.0.0.1:{port}",
                )

    @asynccontextmanager
    async def file(self, front: Contestant) -> AsyncIterator[Contestant]:
        """Run an nginx that serves the first page as a static file."""
        with own_folder() as folder:
            with free_ports(2) as (port, tls_port):
                certify(folder)
                configure(folder, port, tls_port, front.url + HOT_PATH, workers=WORKERS)
            assert NGINX is not None
            command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]
            process = await asyncio.create_subprocess_exec(*tied_to_us(), *command)
            try:
                contestant = Contestant(
                    FILE,
                    "nginx, the page as a file",
                    f"http://127.0.0.1:{port}",
                    (process.pid,),
                    tls_url=f"https://127.0.0.1:{tls_port}",
                )
                await _answering(process, contestant.url)
                yield contestant
            finally:
                await _end(process)

    @asynccontextmanager
    async def peer(self, name: str) -> AsyncIterator[Contestant]:
        """Run a peer."""
        peer = PEERS[name]
        await asyncio.to_thread(peer.prepare, self.folder)
        own = {**peer.environment(self.database), "JWT_SECRET_KEY": self.secret}
        python = self.peers_python if peer.own_packages else sys.executable
        port = _free_port()
        command = peer.arguments(python, port=port, workers=WORKERS, folder=self.folder)
        async with self._serving(command, port, name, {**os.environ, **own}) as (pid, listens):
            yield Contestant(name, peer.title, listens, (pid,), self.secret)

    @asynccontextmanager
    async def _serving(
        self,
        command: Sequence[str],
        port: int,
        name: str,
        environment: Mapping[str, str],
        *,
        folder: Path | None = None,
    ) -> AsyncIterator[tuple[int, str]]:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(*tied_to_us(), *command),
                env=environment,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            await _answering(process, url, log)
            yield process.pid, url
        finally:
            await _end(process)


def nginx_version() -> str | None:
    """Return nginx's version, or None if nginx is missing."""
    if NGINX is None:
        return None
    told = subprocess.run([NGINX, "-v"], check=True, capture_output=True, text=True).stderr
    return told.strip().rpartition("/")[2]


def _free_port() -> int:
    with free_ports(1) as (port,):
        return port


def copy_commit(revision: str, folder: Path) -> None:
    """Copy a commit of this repository into a folder.

    Raises:
        click.ClickException: there is no such commit.
    """
    archive = ["git", "-C", str(ROOT), "archive", "--format=tar", revision]
    packed = subprocess.run(archive, check=False, capture_output=True)
    if packed.returncode:
        raise click.ClickException(packed.stderr.decode().strip())
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], check=True, input=packed.stdout)


def _is_setting(name: str) -> bool:
    """Tell whether an environment variable is a setting of the service."""
    return name.startswith(("CATALOG_", "ADMIN_", "JWT_", "DATABASE_URL"))


async def _answering(process: Process, url: str, log: Path | None = None) -> None:
    """Wait until a started server answers."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            with urlopen(url + HOT_PATH, timeout=5):  # noqa: S310 (our own)
                return
        except OSError:
            if process.returncode is not None or time.monotonic() > deadline:
                said = log.read_text()[-2000:] if log else ""
                raise click.ClickException(f"{url} does not answer.\n{said}") from None
            await asyncio.sleep(0.1)


async def _end(process: Process) -> None:
    """Stop a server; kill it and its descendants after a time-out."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_SECONDS)
    except TimeoutError:
        for pid in with_descendants(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()


def _as_shipped(text: str, *, tls: str) -> str:
    """Restore the buffered access log, which tests disable, and add a TLS listener."""
    text = text.replace("access.log catalog;", "access.log catalog buffer=64k flush=1s;")
    text = text.replace("include catalog/listen.conf;", f"include catalog/listen.conf;\n{tls}")
    return text if has_njs() else without_njs(text)
