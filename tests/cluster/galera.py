"""Three MariaDB Galera nodes behind HAProxy, as processes on loopback.

They run with the configuration shipped in docker/cluster; ports and folders are given on the
command line.
"""

import asyncio
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiomysql
from sqlalchemy import URL

from tests.engines import connected, server_program, tied_to_us
from tests.support import until

SHIPPED = Path(__file__).parents[2] / "docker" / "cluster"
PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")
PROGRAMS = ("mariadbd", "mariadb-install-db", "mariadb-backup", "socat", "haproxy")
NODES = 3
PASSWORD = "a long password"
START_SECONDS = 90.0

NOT_THERE = (aiomysql.OperationalError, aiomysql.InternalError, OSError)

_USERS = f"""\
FLUSH PRIVILEGES;
CREATE USER 'catalog'@'%' IDENTIFIED BY '{PASSWORD}';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `catalog%`.*
  TO 'catalog'@'%';
CREATE USER 'haproxy'@'%' WITH MAX_USER_CONNECTIONS 20;
CREATE USER 'tester'@'%';
GRANT ALL ON *.* TO 'tester'@'%';
"""


def missing() -> list[str]:
    """Return the required programs that are not installed."""
    found = [name for name in PROGRAMS if server_program(name) is None]
    return found if PROVIDER.exists() else [*found, str(PROVIDER)]


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _account() -> str:
    """Return the user of these processes, which logs in through the socket."""
    return pwd.getpwuid(os.geteuid()).pw_name


class Node:
    """One Galera node.

    Attributes:
        name: its name in the cluster and in HAProxy.
        process: its process; None while it is down.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.process: asyncio.subprocess.Process | None = None
        self.peers: list[Node] = []
        self._folder = folder
        self._log_begins = 0
        self.port, self.group_port, self._ist_port, self._sst_port = free_ports(4)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> URL:
        """URL with the credentials of a user who has all privileges."""
        return URL.create("mysql+aiomysql", "tester", "", "127.0.0.1", self.port, "mysql")

    @property
    def log(self) -> str:
        """Log output since its last start."""
        with (self._folder / "log").open(errors="replace") as log:
            log.seek(self._log_begins)
            return log.read()

    @property
    def caught_up_by(self) -> str:
        """``SST`` after a full copy, ``IST`` after an incremental state transfer."""
        found = re.findall(r"mariabackup ([IS]ST) completed on joiner", self.log)
        return found[-1] if found else "nothing"

    async def make_database(self) -> None:
        """Create the initial database, which the other nodes copy."""
        self._folder.mkdir(parents=True)
        (self._folder / "users.sql").write_text(_USERS)
        process = await asyncio.create_subprocess_exec(
            *(self._program("mariadb-install-db"), "--no-defaults", "--force", "--skip-test-db"),
            *(f"--datadir={self._folder / 'data'}", *self._user()),
            "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={_account()}",
            f"--extra-file={self._folder / 'users.sql'}",
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0

    async def start(self, *options: str, found: bool = False) -> None:
        """Start the node and wait until it is synced."""
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        (self._folder / "tmp").mkdir(exist_ok=True)
        if (self._folder / "data" / "mysql").exists():
            options = (*options, f"--wsrep-start-position={await self.position()}")
        if found:
            options = (*options, "--wsrep-new-cluster")
        await self.launch(*options)
        await self.serves()

    async def launch(self, *options: str) -> None:
        """Start the node without waiting and without recovering its position."""
        assert self.process is None
        with (self._folder / "log").open("ab") as log:
            self._log_begins = log.tell()
            self.process = await asyncio.create_subprocess_exec(
                *tied_to_us(),
                *self._command(),
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self._folder / "tmp")},
                start_new_session=True,
            )

    async def position(self) -> str:
        """Recover the replication position from the data itself."""
        process = await asyncio.create_subprocess_exec(
            *(*self._command(), "--wsrep-recover", "--skip-networking"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        found = re.findall(rb"Recovered position:? *(\S+)", output)
        assert found, output
        return str(found[-1].decode())

    def _command(self) -> list[str]:
        shipped = (SHIPPED / "galera.cnf").read_text()
        given = re.search(r'^wsrep_provider_options = "(.*)"$', shipped, re.MULTILINE)
        assert given
        members = ",".join(f"127.0.0.1:{node.group_port}" for node in (self, *self.peers))
        own = f"gmcast.listen_addr=tcp://127.0.0.1:{self.group_port}"
        own += f";ist.recv_addr=127.0.0.1:{self._ist_port}"
        return [
            self._program("mariadbd"),
            f"--defaults-file={SHIPPED / 'galera.cnf'}",
            *self._user(),
            f"--datadir={self._folder / 'data'}",
            f"--socket={self._folder / 'socket'}",
            f"--pid-file={self._folder / 'pid'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            f"--wsrep-cluster-address=gcomm://{members}",
            f"--wsrep-node-name={self.name}",
            f"--wsrep-node-address=127.0.0.1:{self.group_port}",
            f"--wsrep-sst-receive-address=127.0.0.1:{self._sst_port}",
            f"--wsrep-provider-options={given[1]};{own}",
            # The donor logs in as the user that runs the node.
            f"--wsrep-sst-auth={_account()}:",
        ]

    @staticmethod
    def _program(name: str) -> str:
        found = server_program(name)
        assert found
        return found

    @staticmethod
    def _user() -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    async def status(self) -> dict[str, str]:
        """Return the ``wsrep_`` status variables; empty if the node does not answer."""
        try:
            async with asyncio.timeout(2), connected(self.url) as cursor:
                await cursor.execute("SHOW GLOBAL STATUS LIKE 'wsrep%'")
                return dict(await cursor.fetchall())
        except (*NOT_THERE, TimeoutError):
            return {}

    async def serves(self, *, within: float = START_SECONDS) -> None:
        """Wait until the node is a synced member of the primary component."""
        async with asyncio.timeout(within):
            while (await self.status()).get("wsrep_local_state_comment") != "Synced":
                assert self.process is not None
                assert self.process.returncode is None, self.log[-4000:]
                await asyncio.sleep(0.05)

    async def rows(self, statement: str, database: str = "mysql") -> list[tuple[Any, ...]]:
        """Query the node after it has applied all that the others committed."""
        async with connected(self.url.set(database=database)) as cursor:
            await cursor.execute("SET wsrep_sync_wait = 1")
            await cursor.execute(statement)
            return list(await cursor.fetchall())

    async def run(self, statement: str) -> None:
        async with connected(self.url) as cursor:
            await cursor.execute(statement)

    @asynccontextmanager
    async def held_up(self) -> AsyncIterator[None]:
        """Block applying of replicated writes inside the block; they are still received."""
        async with connected(self.url) as cursor:
            await cursor.execute("FLUSH TABLES WITH READ LOCK")
            yield

    @property
    def may_found(self) -> bool:
        """Whether the node was the last to leave, so that it is safe to bootstrap from."""
        return "safe_to_bootstrap: 1" in (self._folder / "data" / "grastate.dat").read_text()

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        """Stop the node with a signal, and kill it after 60 s; idempotent."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            async with asyncio.timeout(60):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        self.process = None


class Proxy:
    """HAProxy with the shipped configuration."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.admin = folder / "admin"

    async def ask(self, command: str) -> str:
        """Send a command to the admin socket and return the answer."""
        reader, writer = await asyncio.open_unix_connection(str(self.admin))
        writer.write(f"{command}\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.decode()

    async def states(self) -> dict[str, str]:
        """Return the state of each node as HAProxy sees it, such as UP or DOWN."""
        lines = (await self.ask("show stat -1 4 -1")).splitlines()
        names = lines[0].lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
        return {row["svname"]: row["status"] for row in rows}


class Cluster:
    """Nodes and the proxy in front of them."""

    def __init__(self, nodes: list[Node], proxy: Proxy) -> None:
        self.nodes = nodes
        self.proxy = proxy

    def url(self, database: str, node: Node | None = None) -> str:
        """Return the database URL for the service, through the proxy or directly to a node."""
        port = self.proxy.port if node is None else node.port
        return f"mysql://catalog:{quote(PASSWORD)}@127.0.0.1:{port}/{database}"

    async def create_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"catalog_{secrets.token_hex(4)}"
        await (await self.writer()).run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return name

    async def status(self, name: str) -> int:
        """Sum a status counter over all nodes."""
        return sum([int((await node.status())[name]) for node in self.nodes])

    async def writer(self) -> Node:
        """Return the node that a new connection through the proxy reaches."""
        url = self.nodes[0].url.set(port=self.proxy.port)

        async def ask() -> str | None:
            try:
                async with asyncio.timeout(2), connected(url) as cursor:
                    await cursor.execute("SELECT @@wsrep_node_name")
                    return str((await cursor.fetchone())[0])
            except (*NOT_THERE, TimeoutError):
                return None

        async with asyncio.timeout(30):
            while (name := await ask()) is None:
                await asyncio.sleep(0.05)
        return next(node for node in self.nodes if node.name == name)

    async def complete(self) -> None:
        """Start stopped nodes; wait until all are members and up for the proxy."""
        for node in self.nodes:
            if node.process is None:
                await node.start()
            await node.serves()
        async with asyncio.timeout(30):
            while not await self._is_whole():
                await asyncio.sleep(0.05)

    async def _is_whole(self) -> bool:
        sizes = [(await node.status()).get("wsrep_cluster_size") for node in self.nodes]
        states = await self.proxy.states()
        up = all(states[node.name].startswith("UP") for node in self.nodes)
        return up and sizes == [str(NODES)] * NODES


@asynccontextmanager
async def galera(folder: Path) -> AsyncIterator[Cluster]:
    """Run a cluster inside the block."""
    nodes = [Node(f"db{number + 1}", folder / f"db{number + 1}") for number in range(NODES)]
    for node in nodes:
        node.peers = [other for other in nodes if other is not node]
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for node in nodes:
            stack.push_async_callback(node.end, signal.SIGKILL)
        await nodes[0].make_database()
        await nodes[0].start(found=True)
        for node in nodes[1:]:
            await node.start()
        proxy = await stack.enter_async_context(_haproxy(folder, nodes))
        cluster = Cluster(nodes, proxy)
        await cluster.complete()
        yield cluster


@asynccontextmanager
async def _haproxy(folder: Path, nodes: list[Node]) -> AsyncIterator[Proxy]:
    program = server_program("haproxy")
    assert program
    (port,) = free_ports(1)
    proxy = Proxy(folder, port)
    own = {f"CATALOG_DB{number}": node.address for number, node in enumerate(nodes, 1)}
    with (folder / "haproxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(*tied_to_us(), program, "-db", "-f", str(SHIPPED / "haproxy.cfg")),
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                **own,
                "CATALOG_DB_BIND": f"127.0.0.1:{port}",
                "CATALOG_DB_ADMIN": str(proxy.admin),
            },
        )
    try:
        await until(lambda: process.returncode is not None or proxy.admin.exists())
        assert process.returncode is None, (folder / "haproxy.log").read_text()
        yield proxy
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
