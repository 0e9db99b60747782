"""Following the changes: server-sent events that resume by themselves."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import httpx

from catalog.client.errors import (
    CatalogError,
    ChangesGone,
    ConnectionFailed,
    Refused,
    Unavailable,
)
from catalog.client.models import Change
from catalog.client.responses import change_of, parsed
from catalog.client.transport import Request, Transport, delay_before_repeat, lines_of

SILENCE_SECONDS = 40.0
"""The service sends a comment every 15 seconds; a connection that is silent for longer is dead."""

_PATH = "/api/products/changes"


class Following:
    """Changes of a catalog, over as many connections as it takes.

    Args:
        transport: sends the requests.
        start_over: brings the follower's copy up to date, and returns where to go on.
    """

    def __init__(
        self, transport: Transport, start_over: Callable[[], Awaitable[str]] | None
    ) -> None:
        self._transport = transport
        self._start_over = start_over

    async def changes(self, since: str | None) -> AsyncGenerator[Change, None]:
        """Yield the changes after ``since``, without end."""
        attempt = 0
        while True:
            try:
                if since is None:
                    since = await self._beginning()
                async for change in self._connection(since):
                    since = change.change
                    attempt = 0
                    yield change
            except ChangesGone:
                if self._start_over is None:
                    raise
                since = None
            except CatalogError as error:
                # Whatever may pass, however long it lasts: a follower has nothing else to do.
                delay = delay_before_repeat(error, attempt, is_repeatable=True)
                if delay is None:
                    raise
                await asyncio.sleep(delay)
                attempt += 1

    async def _beginning(self) -> str:
        if self._start_over is not None:
            return await self._start_over()
        request = Request("GET", "/api/products", is_public=True, params={"limit": 1})
        return change_of(await self._transport.send(request))

    async def _connection(self, since: str) -> AsyncIterator[Change]:
        """Yield the changes that one connection brings; it ends when the process behind it does."""
        request = Request(
            "GET",
            _PATH,
            is_public=True,
            params={"since": since},
            headers={"Accept": "text/event-stream", "Cache-Control": "no-cache"},
            timeout=httpx.Timeout(SILENCE_SECONDS),
        )
        async with self._transport.stream(request) as response:
            async for event in _events(lines_of(response.aiter_bytes())):
                yield event
        raise ConnectionFailed("The stream of changes has ended.")


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[Change]:
    """Parse server-sent events (HTML Standard, section 9.2.6) as the service sends them."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if fields.get("event") == "end":
            raise parsed(fields.get("data", ""), _end)
        if "data" in fields:
            yield parsed(fields["data"], partial(Change.from_json, change=fields.get("id")))
        fields = {}


def _end(reason: dict[str, Any]) -> CatalogError:
    """Return the error for which the service ends a stream."""
    if reason["code"] == "changes-gone":
        return ChangesGone(410, reason, None)
    kind = Unavailable if reason["code"] != "internal-error" else Refused
    return kind(503, reason, None)
