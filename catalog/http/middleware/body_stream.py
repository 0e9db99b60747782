"""Streamed request bodies: of any size, read as they arrive."""

import asyncio
from collections.abc import AsyncIterator
from typing import NoReturn, Self

from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent

from catalog.errors import MalformedRequest, RequestTimeout
from catalog.http.request import Request

MALFORMED = "catalog.malformed"
"""Key of the event that ends a body which is no valid HTTP, such as one with a broken chunk."""


class BodyStream:
    """Iterator over the pieces of a body; each is received only on demand.

    When the client disconnects, a pending iteration blocks until the framework, which receives the
    disconnect through ``receive_rest``, cancels the handler.

    Args:
        receive: the server's channel.
        timeout: seconds until the next piece must have arrived.
    """

    def __init__(self, receive: ASGIReceiveCallable, *, timeout: float) -> None:
        self._receive = receive
        self._timeout = timeout
        self._over = asyncio.Event()
        self._is_gone = False
        self._is_handed_over = False

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to read."""
        return self._over.is_set()

    def __aiter__(self) -> Self:
        """Iterate over the pieces that are not read yet."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            RequestTimeout: the piece did not arrive in time.
            MalformedRequest: the body is no valid HTTP.
        """
        if self._is_gone:
            return await self._until_cancelled()
        if self.is_over:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._timeout):
                message = await self.receive()
        except TimeoutError:
            raise RequestTimeout("The next part of the body took too long to arrive.") from None
        if message["type"] == "http.request":
            refuse_malformed(message)
            return message["body"]
        return await self._until_cancelled()

    async def _until_cancelled(self) -> NoReturn:
        while True:
            await asyncio.Event().wait()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the server's next event of the body."""
        message = await self._receive()
        if message["type"] != "http.request":
            self.give_up()
        elif not message["more_body"]:
            self._over.set()
        return message

    def give_up(self) -> None:
        """End the stream: the client has disconnected, or has its response."""
        self._is_gone = True
        self._over.set()

    async def receive_rest(self) -> ASGIReceiveEvent:
        """Return to the framework an empty body, then the events that follow the real one."""
        if not self._is_handed_over:
            self._is_handed_over = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        if self._is_gone:
            return {"type": "http.disconnect"}
        return await self._receive()


def refuse_malformed(message: ASGIReceiveEvent) -> None:
    """Raise the fault of a body, if the event is one.

    Raises:
        MalformedRequest: the body is no valid HTTP.
    """
    if MALFORMED in message:
        raise MalformedRequest("The body is not valid HTTP.")


async def pieces_of(request: Request) -> AsyncIterator[bytes]:
    """Yield a body in pieces; of any size if its media type is streamed.

    Raises:
        RequestTimeout: the next piece did not arrive in time.
        MalformedRequest, BodyTooLarge: it cannot be decoded.
        Overloaded: a body that is not streamed was evicted to make room for others.
    """
    if request.stream is None:
        yield await request.decoded_body()
        return
    async for piece in request.stream:
        yield piece
