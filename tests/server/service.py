"""Runs ``catalog serve`` as a process of its own and talks to it over real sockets."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Self

from tests.engines import tied_to_us
from tests.server import processes
from tests.support import PASSWORD

PATIENCE_SECONDS = 30.0
"""For what takes a second or two on an idle machine."""

END_SECONDS = 10.0
"""For the last output of processes that were killed."""

# Time-outs among them: they are errors of the system since Python 3.11.
CONNECTION_FAILURES = (OSError, asyncio.IncompleteReadError)

ANSWER_SECONDS = 15.0
"""After which a client who must not wait for ever gives a request up."""


async def until(condition: Callable[[], Any], *, within: float = PATIENCE_SECONDS) -> Any:
    """Wait for something to become true, and return it.

    Raises:
        TimeoutError: it did not.
    """
    async with asyncio.timeout(within):
        while not (result := condition()):
            await asyncio.sleep(0.02)
    return result


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
    """One HTTP/1.1 connection, with requests sent piece by piece."""

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
        """The port of its end here."""
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
        """Send a whole request, its body as JSON."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: catalog", f"Content-Length: {len(content)}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if content:
            lines.append("Content-Type: application/json")
        await self.send("\r\n".join([*lines, *fields, "", ""]).encode() + content)
        return await self.answer()

    async def begin_sign_in(self) -> None:
        """Leave a request in flight: its head is sent, and half of its body."""
        await self.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\n"
            b"Content-Type: application/json\r\nContent-Length: 46\r\n\r\n"
            b'{"username": "admin", '
        )

    async def finish_sign_in(self) -> Answer:
        await self.send(b'"password": "not-this"} ')
        return await self.answer()

    async def close(self) -> None:
        """Close it; idempotent."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Client:
    """Keeps a connection while it lasts, and opens another when it does not."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._connection: Connection | None = None

    async def ask(self, method: str, path: str, *fields: str, body: Any = None) -> Answer | None:
        """Send a request once; None if nobody knows what came of it."""
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


class Service:
    """A running ``catalog serve`` and what it says.

    Attributes:
        events: what it has logged so far, one object a line.
        text: all else it has written to its outputs.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.text = ""
        self._connections: list[Connection] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.text += line.decode()

    def logged(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Events of that name with those fields, in order."""
        return [
            event
            for event in self.events
            if event.get("event") == name and fields.items() <= event.items()
        ]

    async def event(self, name: str, *, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until an event has been logged that many times, and return the last of them.

        Raises:
            TimeoutError: it was not; tells what was, and what the service's processes do.
        """
        try:
            found: list[dict[str, Any]] = await until(
                lambda: len(events := self.logged(name, **fields)) >= count and events
            )
        except TimeoutError:
            raise TimeoutError(f"{name} was not logged. {await self._autopsy()}") from None
        return found[-1]

    async def serving(self) -> Self:
        """Wait until it serves."""
        await self.event("serving")
        return self

    @property
    def url(self) -> str:
        url: str = self.logged("serving")[0]["url"]
        return url

    @property
    def workers(self) -> set[int]:
        """Workers that were ever started and still run."""
        return {pid for pid in self.all_workers if processes.is_running(pid)}

    @property
    def all_workers(self) -> list[int]:
        return [event["worker"] for event in self.logged("worker_started")]

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self, *, within: float = PATIENCE_SECONDS) -> int:
        """Wait for its exit and for the last of its output.

        Raises:
            TimeoutError: they did not come; tells what its processes do instead.
        """
        try:
            async with asyncio.timeout(within):
                return await self._ended()
        except TimeoutError:
            raise TimeoutError(f"It did not end. {await self._autopsy()}") from None

    async def _ended(self) -> int:
        code = await self.process.wait()
        # Waiting must not take it along when the time is over.
        await asyncio.shield(self._reading)
        return code

    async def _autopsy(self) -> str:
        """End it; tell what it has logged, what its processes wait for, and where in the code."""
        alive = processes.of_session(self.process.pid)
        states = [processes.describe(pid) for pid in alive]
        for pid in alive:
            with suppress(ProcessLookupError):
                # Python then writes down where each of its threads is; see ``Catalog.start``.
                os.kill(pid, signal.SIGABRT)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._ended()
        return "\n".join(["Its processes:", *states, "Its log:", *map(str, self.events), self.text])

    async def connect(self) -> Connection:
        """Open a connection, which ends with the service at the latest."""
        connection = await Connection.open(self.url)
        self._connections.append(connection)
        return connection

    async def get(self, path: str) -> Answer:
        """Ask once, on a connection of its own."""
        connection = await self.connect()
        try:
            return await connection.get(path)
        finally:
            await connection.close()

    async def sign_up(self, username: str = "ada") -> str:
        """Make an account; returns an access token of it."""
        fields = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
        connection = await self.connect()
        answer = await connection.ask("POST", "/api/auth/signup", body=fields)
        await connection.close()
        assert answer.status == 201, answer.body
        return str(json.loads(answer.body)["access_token"])

    async def refuses(self) -> bool:
        """Whether nobody listens any more."""
        try:
            connection = await self.connect()
        except OSError:
            return True
        await connection.close()
        return False

    async def end(self) -> None:
        """Kill whatever is left of it.

        Raises:
            TimeoutError: a process that is none of its own holds its output; tells which.
        """
        try:
            async with asyncio.timeout(END_SECONDS):
                # Again, for what a process has started that was not killed yet.
                while alive := processes.of_session(self.process.pid):
                    for pid in alive:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    await asyncio.sleep(0.005)
                for connection in self._connections:
                    await connection.close()
                await self._ended()
        except TimeoutError:
            raise TimeoutError(f"Its output does not end. {self._let_go_of_output()}") from None

    def _let_go_of_output(self) -> str:
        """Stop reading it, and tell who still has its other end."""
        transport = self.process._transport  # type: ignore[attr-defined]  # no other way to it
        pipe = transport.get_pipe_transport(1).get_extra_info("pipe")
        holders = processes.holders_of(str(Path(f"/proc/self/fd/{pipe.fileno()}").readlink()))
        self._reading.cancel()
        transport.close()
        return "\n".join(["It is held by:", *map(processes.describe, holders)])


class Catalog:
    """How to start the service: an environment, and a folder for its files."""

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
            # Requests in flight are those whose body is not complete.
            "CATALOG_BODY_TIMEOUT": "60",
            # All of them come from one address.
            "CATALOG_SIGNUP_LIMIT": "off",
            "CATALOG_LOGIN_LIMIT": "off",
            "CATALOG_REFRESH_LIMIT": "off",
        }

    @asynccontextmanager
    async def start(self, *options: str, **environment: str) -> AsyncIterator[Service]:
        """Start it; kill it, and all that it has started, at the end."""
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(),
            *(sys.executable, "-m", "catalog", "serve", *options),
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **self.environment, **environment},
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

    def break_interpreters(self, code: str) -> None:
        """Run code in each worker's interpreter before anything else, as a bad installation may."""
        folder = self.folder / "broken"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(
            f"import os, signal, sys\nif 'catalog.server.start' in sys.orig_argv:\n    {code}\n"
        )
        self.environment["PYTHONPATH"] = str(folder)


class Clients:
    """Clients that keep their connections and ask again and again, until told to stop.

    They ask for what goes each of the two ways through the server in turn.

    Attributes:
        outcomes: how often each status came, ``refused`` for no connection and ``failed`` for no
            whole answer.
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
            # The product is under test here, not the machine: leave it some of the processor.
            await asyncio.sleep(0.01)
        if connection is not None:
            await connection.close()

    async def more(self, count: int) -> None:
        """Wait for that many more answers."""
        goal = self.outcomes["200"] + count
        await until(lambda: self.outcomes["200"] >= goal)

    async def stop(self) -> Counter[str]:
        self._stopped = True
        await asyncio.gather(*self._tasks)
        return self.outcomes
