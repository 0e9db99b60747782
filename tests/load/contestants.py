"""Servers to measure: the service, nginx in front of it, its peers, and nginx with a static page.

All run two workers on the same database and stay idle between their turns.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

import click
import jwt
from sqlalchemy import URL

from catalog.auth.seed_data import username_of
from tests.engines import tied_to_us
from tests.load.stacks import PEERS
from tests.load.tls import certify, listener
from tests.server.nginx import (
    NGINX,
    SHIPPED,
    TEMPORARY,
    free_ports,
    has_njs,
    nginx,
    own_folder,
    without_njs,
)
from tests.server.processes import GONE

WORKERS = 2
START_PATIENCE_SECONDS = 60
STOP_PATIENCE_SECONDS = 20
QUIET_PATIENCE_SECONDS = 20
PASSWORD = "correct horse battery staple"
LIMIT = 100
HOT_PATH = f"/api/products?limit={LIMIT}"
TOKEN_SECONDS = 86_400

CATALOG = "catalog"
BEHIND_NGINX = "catalog-nginx"
FILE = "nginx-file"
EARLIER = "earlier"
EARLIER_BEHIND_NGINX = "earlier-nginx"
COUNTERPARTS = {CATALOG: EARLIER, BEHIND_NGINX: EARLIER_BEHIND_NGINX}
"""Another release of each server, for comparison."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contestant:
    """A running server.

    Attributes:
        name: ``CATALOG``, ``BEHIND_NGINX``, their ``COUNTERPARTS``, ``FILE`` or one of ``PEERS``.
        title: name in tables.
        url: base URL.
        pids: of its processes, whose descendants count, too.
        secret: that signs its tokens.
        tls_url: base URL over TLS, if it has one.
    """

    name: str
    title: str
    url: str
    pids: tuple[int, ...]
    secret: str = ""
    tls_url: str = ""

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes so far."""
        return sum(map(cpu_seconds, self.pids))

    def token(self) -> str:
        """Return a token of the first sample account, for creates."""
        if self.name not in PEERS or self.name == "obvious":
            body = {"username": username_of(1), "password": PASSWORD}
            return str(json.loads(self.ask("/api/auth/login", body))["access_token"])
        claims = {"sub": "1", "exp": int(time.time()) + TOKEN_SECONDS}
        return jwt.encode(claims, self.secret, "HS256")

    def ask(self, path: str, body: object = None) -> bytes:
        """Send one request; return the body of the answer.

        Raises:
            OSError: there was no answer, or an error status.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = Request(self.url + path, data, headers)  # noqa: S310 (our own)
        with urlopen(request, timeout=5) as answer:  # noqa: S310 (the same)
            content: bytes = answer.read()
        return content

    async def quiet(self) -> None:
        """Wait until the server has finished all earlier work."""
        deadline = time.monotonic() + QUIET_PATIENCE_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            await asyncio.sleep(0.25)
            now = self.cpu_seconds()
            if now - before <= 0.03:
                return
            before = now


@dataclass(frozen=True)
class Ring:
    """Common settings of all contestants.

    Attributes:
        database: where the tables are.
        secret: that signs tokens.
        peers_python: the interpreter with the peers' packages.
        folder: for logs.
        checkout: a clone of another release of the service, set up; None for this one.
    """

    database: URL
    secret: str
    peers_python: str
    folder: Path
    checkout: Path | None = None

    @property
    def python(self) -> str:
        """The interpreter with the service's packages."""
        return sys.executable if self.checkout is None else f"{self.checkout}/.venv/bin/python"

    def environment(self) -> dict[str, str]:
        """Return the service's environment: no rate limits, and long-lived tokens."""
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

    @asynccontextmanager
    async def catalog(self) -> AsyncIterator[Contestant]:
        """Run the service."""
        port = _free_port()
        command = f"{self.python} -m catalog serve --bind 127.0.0.1:{port} --workers {WORKERS}"
        name, title = CATALOG, "the service"
        if self.checkout is not None:
            name, title = EARLIER, "an earlier release"
        async with self._serving(
            command.split(), port, name, self.environment(), folder=self.checkout
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
                _configure_file(folder, port, tls_port, front.url + HOT_PATH)
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


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants so far."""
    ticks = 0
    for each in _with_descendants(pid):
        # The process may exit while it is read.
        with suppress(*GONE):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_SECOND


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    children: list[str] = []
    with suppress(*GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text().split()
    for child in children:
        yield from _with_descendants(int(child))


def _free_port() -> int:
    with free_ports(1) as (port,):
        return port


def _is_setting(name: str) -> bool:
    """Tell whether an environment variable is a setting of the service."""
    return name.startswith(("CATALOG_", "ADMIN_", "JWT_", "DATABASE_URL"))


async def _answering(process: Process, url: str, log: Path | None = None) -> None:
    """Wait until a started server answers."""
    deadline = time.monotonic() + START_PATIENCE_SECONDS
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
        await asyncio.wait_for(process.wait(), STOP_PATIENCE_SECONDS)
    except TimeoutError:
        for pid in _with_descendants(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()


def _as_shipped(text: str, *, tls: str) -> str:
    """Restore the buffered access log, which tests disable, and add a TLS listener."""
    text = text.replace("access.log catalog;", "access.log catalog buffer=64k flush=1s;")
    text = text.replace("include catalog/listen.conf;", f"include catalog/listen.conf;\n{tls}")
    return text if has_njs() else without_njs(text)


_FILE_CONFIGURATION = """
worker_processes {workers};
worker_rlimit_nofile 65536;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 20480; }}
http {{
    {paths}
    default_type application/json;
    access_log {folder}/access.log combined buffer=64k flush=1s;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 15s;
    keepalive_requests 100000;
    open_file_cache max=2000 inactive=20s;
    open_file_cache_valid 60s;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        {tls}
        location = /api/products {{
            alias {folder}/page.json;
            {headers}
        }}
    }}
}}
"""

# Header fields that nginx sends with any file or that belong to one connection.
_OF_FILES = {"connection", "content-length", "content-type", "date", "etag", "server"}


def _configure_file(folder: Path, port: int, tls_port: int, url: str) -> None:
    """Configure nginx to serve the page at a URL, with equal headers and an access log."""
    with urlopen(url, timeout=5) as answer:  # noqa: S310 (our own)
        (folder / "page.json").write_bytes(answer.read())
        fields = [each for each in answer.headers.items() if each[0].lower() not in _OF_FILES]
    headers = "\n            ".join(
        f"add_header {name} {json.dumps(value.replace('$', ''))};" for name, value in fields
    )
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in TEMPORARY)
    (folder / "nginx.conf").write_text(
        _FILE_CONFIGURATION.format(
            workers=WORKERS,
            folder=folder,
            port=port,
            tls=listener(folder, tls_port),
            headers=headers,
            paths=paths,
        )
    )
