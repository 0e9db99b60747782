"""Run ``catalog serve`` as a process, and talk to it over real sockets."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Self

from tests.db.support import PATIENT
from tests.engines import tied_to_us
from tests.server import processes
from tests.server.startup import write_startup
from tests.support import PASSWORD, until

TIMEOUT_SECONDS = 60.0
"""Time-out for operations that take a second or two on an idle machine."""

END_SECONDS = 30.0
"""Time-out for the last output of killed processes."""

# Time-outs are included: they are subclasses of OSError since Python 3.11.
CONNECTION_FAILURES = (OSError, asyncio.IncompleteReadError)

ANSWER_SECONDS = 15.0
"""Time-out of a request by a client that must not wait for ever."""


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class Connection:
    """An HTTP/1.1 connection, with requests sent piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Self:
        if url.startswith("unix:"):
            return cls(*await asyncio.open_unix_connection(url.removeprefix("unix:")))
        host, _, port = url.removeprefix("http://").rpartition(":")
        return cls(*await asyncio.open_connection(host.strip("[]"), int(port)))

    @property
    def port(self) -> int:
        """The local port."""
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> Answer:
        """Read the next response.

        Raises:
            asyncio.IncompleteReadError: the connection ended before or inside it.
        """
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(head[0].split()[1]), headers, body)

    async def get(self, path: str, *fields: str) -> Answer:
        lines = [f"GET {path} HTTP/1.1", "Host: catalog", *fields, "", ""]
        await self.send("\r\n".join(lines).encode())
        return await self.answer()

    async def ask(
        self, method: str, path: str, *fields: str, token: str = "", body: Any = None
    ) -> Answer:
        """Send a whole request with a JSON body, and return the response."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: catalog", f"Content-Length: {len(content)}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if content:
            lines.append("Content-Type: application/json")
        await self.send("\r\n".join([*lines, *fields, "", ""]).encode() + content)
        return await self.answer()

    async def begin_sign_in(self) -> None:
        """Leave a request in flight: send its head and half of its body."""
        await self.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\n"
            b"Content-Type: application/json\r\nContent-Length: 46\r\n\r\n"
            b'{"username": "admin", '
        )

    async def finish_sign_in(self) -> Answer:
        await self.send(b'"password": "not-this"} ')
        return await self.answer()

    async def close(self) -> None:
        """Close the connection; idempotent."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Client:
    """Client that keeps its connection, and reconnects when it is closed."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._connection: Connection | None = None

    async def ask(self, method: str, path: str, *fields: str, body: Any = None) -> Answer | None:
        """Send a request once, and return the response, or None if the outcome is unknown."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._connection is None:
                    self._connection = await Connection.open(self._url)
                answer = await self._connection.ask(
                    method, path, *fields, token=self._token, body=body
                )
        except CONNECTION_FAILURES:
            await self.close()
            return None
        if answer.closes:
            await self.close()
        return answer

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


class Endpoint:
    """A service that accepts connections."""

    def __init__(self) -> None:
        self._connections: list[Connection] = []

    @property
    def url(self) -> str:
        """The address of the service."""
        raise NotImplementedError

    async def connect(self) -> Connection:
        """Open a connection, which is closed with the service at the latest."""
        connection = await Connection.open(self.url)
        self._connections.append(connection)
        return connection

    async def get(self, path: str) -> Answer:
        """Send one GET on a new connection."""
        connection = await self.connect()
        try:
            return await connection.get(path)
        finally:
            await connection.close()

    async def sign_up(self, username: str = "ada") -> str:
        """Create an account, and return an access token."""
        fields = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
        connection = await self.connect()
        answer = await connection.ask("POST", "/api/auth/signup", body=fields)
        await connection.close()
        assert answer.status == 201, answer.body
        return str(json.loads(answer.body)["access_token"])

    async def close_connections(self) -> None:
        """Close all that were opened; idempotent."""
        for connection in self._connections:
            await connection.close()


class Service(Endpoint):
    """A running ``catalog serve`` and its output.

    Attributes:
        events: the log so far, one object a line.
        text: all other output.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.text = ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.text += line.decode()

    def logged(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the events with a name and fields, in order."""
        return [
            event
            for event in self.events
            if event.get("event") == name and fields.items() <= event.items()
        ]

    async def event(self, name: str, *, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until an event has been logged that many times, and return the last one.

        Raises:
            TimeoutError: it was not; the message has the log and the state of the processes.
        """
        try:
            found: list[dict[str, Any]] = await until(
                lambda: len(events := self.logged(name, **fields)) >= count and events
            )
        except TimeoutError:
            raise TimeoutError(f"{name} was not logged. {await self._autopsy()}") from None
        return found[-1]

    async def serving(self) -> Self:
        """Wait until the service serves."""
        await self.event("serving")
        return self

    @property
    def url(self) -> str:
        url: str = self.logged("serving")[0]["url"]
        return url

    @property
    def workers(self) -> set[int]:
        """The running workers."""
        return {pid for pid in self.all_workers if processes.is_running(pid)}

    @property
    def all_workers(self) -> list[int]:
        return [event["worker"] for event in self.logged("worker_started")]

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self, *, within: float = TIMEOUT_SECONDS) -> int:
        """Wait for the exit and the last of the output, and return the exit code.

        Raises:
            TimeoutError: it did not exit; the message has the log and the state of the processes.
        """
        try:
            async with asyncio.timeout(within):
                return await self._ended()
        except TimeoutError:
            raise TimeoutError(f"It did not end. {await self._autopsy()}") from None

    async def _ended(self) -> int:
        code = await self.process.wait()
        # Shielded, so that a time-out does not cancel the reader.
        await asyncio.shield(self._reading)
        return code

    async def _autopsy(self) -> str:
        """Kill the service; return its log, the state of its processes, and their stack traces."""
        alive = processes.of_session(self.process.pid)
        states = [processes.describe(pid) for pid in alive]
        for pid in alive:
            with suppress(ProcessLookupError):
                # The fault handler then writes the stack of each thread; see ``Catalog.start``.
                os.kill(pid, signal.SIGABRT)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._ended()
        return "\n".join(["Its processes:", *states, "Its log:", *map(str, self.events), self.text])

    async def refuses(self) -> bool:
        """Tell whether connections are refused."""
        try:
            connection = await self.connect()
        except OSError:
            return True
        await connection.close()
        return False

    async def end(self) -> None:
        """Kill the remaining processes.

        Raises:
            TimeoutError: a process of another session holds the output; the message names it.
        """
        try:
            async with asyncio.timeout(END_SECONDS):
                # Repeated, for children started after the list was read.
                while alive := processes.of_session(self.process.pid):
                    for pid in alive:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    await asyncio.sleep(0.005)
                await self.close_connections()
                await self._ended()
        except TimeoutError:
            raise TimeoutError(f"Its output does not end. {self._let_go_of_output()}") from None

    def _let_go_of_output(self) -> str:
        """Close the output, and describe the processes that still hold its other end."""
        transport = self.process._transport  # type: ignore[attr-defined]  # no other way to it
        pipe = transport.get_pipe_transport(1).get_extra_info("pipe")
        holders = processes.holders_of(str(Path(f"/proc/self/fd/{pipe.fileno()}").readlink()))
        self._reading.cancel()
        transport.close()
        return "\n".join(["It is held by:", *map(processes.describe, holders)])


_LONG_DEADLINES = {
    "catalog.db.deadlines": f"DEADLINES = {PATIENT!r}",
    "catalog.auth.tokens.revocations": f"READ_SECONDS = {PATIENT.read}",
    "catalog.operations": f"READINESS_SECONDS = {PATIENT.read}",
}


class Catalog:
    """The service's environment and folder, to start it with.

    Its database deadlines are ``PATIENT``, unless ``keep_deadlines`` is called.

    Attributes:
        folder: holds the database and the module that runs first in each process.
        environment: the service's variables.
        definitions: ``CONSTANT = value`` by module, for constants that are no settings: a test of
            whole processes cannot wait for each of them.
        command: runs the command line.
        working_folder: the folder in which the service is started; pytest's own by default.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "DATABASE_URL": f"sqlite:///{folder}/catalog.db",
            "JWT_SECRET_KEY": "".join(chr(33 + n) for n in range(64)),
            "ADMIN_PASSWORD": "correct horse battery staple",
            "CATALOG_BIND": "127.0.0.1:0",
            "CATALOG_WORKERS": "1",
            "CATALOG_DRAIN_DELAY": "0",
            "CATALOG_ACCESS_LOG": "off",
            # All requests come from one address.
            "CATALOG_SIGNUP_LIMIT": "off",
            "CATALOG_LOGIN_LIMIT": "off",
        }
        # Tests keep requests in flight by not completing their bodies.
        self.definitions = {
            "catalog.http.middleware.request_body": "BODY_SECONDS = 60",
            "catalog.http.limits": 'FIXED_RATES["refresh"] = None',
            **_LONG_DEADLINES,
        }
        self.command = [sys.executable, "-m", "catalog"]
        self.working_folder: Path | None = None
        self._sabotage = ""

    @asynccontextmanager
    async def start(self, *options: str, **environment: str) -> AsyncIterator[Service]:
        """Start the service; kill it and all its children at the end."""
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(),
            *(*self.command, "serve", *options),
            cwd=self.working_folder,
            env={
                **os.environ,
                "PYTHONFAULTHANDLER": "1",
                "PYTHONPATH": str(self._write_startup()),
                **self.environment,
                **environment,
            },
            start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        service = Service(process)
        try:
            yield service
        finally:
            await service.end()

    def keep_deadlines(self) -> None:
        """Let the service keep its own database deadlines, which a busy machine may exceed."""
        for module in _LONG_DEADLINES:
            del self.definitions[module]

    def break_interpreters(self, code: str) -> None:
        """Run code in each worker's interpreter before all else, as a broken installation may."""
        self._sabotage = (
            f"import os, signal\nif 'catalog.server.start' in sys.orig_argv:\n    {code}\n"
        )

    def _write_startup(self) -> Path:
        """Write the module that each interpreter imports first, and return its folder."""
        return write_startup(self.folder / "startup", self.definitions, self._sabotage)


class Clients:
    """Clients that keep their connections and repeat requests until stopped.

    They alternate between a request for the general parser and one for the fast parser.

    Attributes:
        outcomes: the number of each status, of ``refused`` connections, and of ``failed`` requests
            without a whole response.
    """

    def __init__(self, service: Service, count: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._service = service
        self._stopped = False
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(count)]

    async def _ask(self) -> None:
        connection = None
        paths = cycle(("/livez", "/api/products"))
        while not self._stopped:
            try:
                connection = connection or await self._service.connect()
                answer = await connection.get(next(paths))
                self.outcomes[str(answer.status)] += 1
                closed = answer.closes
            except ConnectionRefusedError:
                self.outcomes["refused"] += 1
                closed = True
            except CONNECTION_FAILURES:
                self.outcomes["failed"] += 1
                closed = True
            if closed and connection is not None:
                await connection.close()
                connection = None
            # Leave some processor time to the service, which is under test here.
            await asyncio.sleep(0.01)
        if connection is not None:
            await connection.close()

    async def more(self, count: int) -> None:
        """Wait for that many more responses with 200."""
        goal = self.outcomes["200"] + count
        await until(lambda: self.outcomes["200"] >= goal)

    async def stop(self) -> Counter[str]:
        self._stopped = True
        await asyncio.gather(*self._tasks)
        return self.outcomes
