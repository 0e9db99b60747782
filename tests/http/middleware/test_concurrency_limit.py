"""Concurrency limit: excess requests are rejected at once, reads and writes separately."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from catalog.http.middleware.concurrency_limit import Capacity, ConcurrencyLimit
from tests.support import handling


class Work:
    """App behind an ``ConcurrencyLimit`` that responds once ``done`` is set."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.begin_early = False
        self.cheap = Capacity("reads", 3)
        self.answered: list[tuple[str, int]] = []
        self.admission = ConcurrencyLimit(
            self.app,
            max_reads=2,
            max_writes=2,
            unlimited=("/livez", "/waiting"),
            own_capacity=self.own_capacity,
        )

    def own_capacity(self, scope: Any) -> Capacity | None:
        return self.cheap if scope["path"] == "/waiting/cheap" else None

    async def app(self, scope: Any, _receive: Any, send: Callable[..., Any]) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if self.begin_early:
            await send(start)
        await self.done.wait()
        if scope["path"] == "/fails":
            raise RuntimeError
        if not self.begin_early:
            await send(start)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def ask(self, method: str, path: str = "/") -> tuple[int, dict[bytes, bytes], bytes]:
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        scope: Any = {"type": "http", "method": method, "path": path, "headers": []}
        with handling():
            await self.admission(scope, None, send)  # type: ignore[arg-type]  # never received
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return messages[0]["status"], dict(messages[0]["headers"]), body

    async def begin(self, *requests: tuple[str, str]) -> list[asyncio.Task[Any]]:
        tasks = [asyncio.create_task(self.ask(*request)) for request in requests]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks


class TestAdmission:
    async def test_reads_and_writes_are_limited_separately(self) -> None:
        work = Work()
        reads = await work.begin(("OPTIONS", "/"), ("HEAD", "/"))

        status, headers, body = await work.ask("GET")
        assert status == 503
        assert headers[b"retry-after"]
        assert json.loads(body)["code"] == "overloaded"

        writes = await work.begin(("POST", "/"), ("DELETE", "/"))
        assert not any(task.done() for task in writes)
        assert (await work.ask("PATCH"))[0] == 503

        work.done.set()
        answers = await asyncio.gather(*reads, *writes)
        assert [status for status, _, _ in answers] == [200] * 4

    async def test_operation_with_its_own_capacity_takes_no_place_of_others(self) -> None:
        work = Work()
        cheap = await work.begin(*[("GET", "/waiting/cheap")] * 3)

        status, headers, _ = await work.ask("GET", "/waiting/cheap")
        assert (status, b"retry-after" in headers) == (503, True)

        reads = await work.begin(("GET", "/"), ("GET", "/"))
        assert (await work.ask("GET"))[0] == 503

        work.done.set()
        answers = await asyncio.gather(*cheap, *reads)
        assert [status for status, _, _ in answers] == [200] * 5
        assert (await work.ask("GET", "/waiting/cheap"))[0] == 200

    async def test_slots_are_released_on_success_and_failure(self) -> None:
        work = Work()
        work.done.set()

        for path in ("/", "/fails") * 4:
            try:
                status, _, _ = await work.ask("GET", path)
            except RuntimeError:
                assert path == "/fails"
            else:
                assert (path, status) == ("/", 200)

    async def test_cancelled_requests_release_their_slots(self) -> None:
        work = Work()
        for task in await work.begin(("GET", "/"), ("GET", "/")):
            task.cancel()
        await asyncio.sleep(0)
        work.done.set()

        assert (await work.ask("GET"))[0] == 200

    async def test_exempt_paths_are_always_admitted(self) -> None:
        work = Work()
        busy = await work.begin(*[("POST", "/"), ("GET", "/")] * 2)
        waiting = await work.begin(("GET", "/livez"), ("GET", "/waiting"))
        work.done.set()

        answers = await asyncio.gather(*busy, *waiting)
        assert [status for status, _, _ in answers] == [200] * 6

    async def test_streaming_responses_hold_no_slot(self) -> None:
        work = Work()
        work.begin_early = True
        streams = await work.begin(*[("GET", "/")] * 10)
        work.done.set()

        answers = await asyncio.gather(*streams)
        assert [status for status, _, _ in answers] == [200] * 10
