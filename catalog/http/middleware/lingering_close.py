"""Lingering close: a response to a client that may still be sending reaches it."""

import asyncio

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent

LINGER_SECONDS = 1.0
"""Time for which the input of a refused client is drained: a reset would overtake the response."""


def lingering(receive: ASGIReceiveCallable, send: ASGISendCallable) -> ASGISendCallable:
    """Return a ``send`` with lingering close, for a client that may still be sending.

    Closing a connection with unread input resets it, and the reset would overtake the response. So
    the end of the response is delayed by up to ``LINGER_SECONDS`` while the input is drained.
    Draining continues while the end is sent: the server reports the end through the queue that it
    puts the body in, and would wait forever for a place in a full queue.
    """

    async def send_lingering(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (b"connection", b"close")]
            await send({**message, "headers": headers})
        elif message["type"] != "http.response.body" or message.get("more_body", False):
            await send(message)
        else:
            await send({**message, "more_body": True})
            reading = asyncio.create_task(_read_over(receive))
            try:
                await asyncio.wait([reading], timeout=LINGER_SECONDS)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                reading.cancel()

    return send_lingering


async def _read_over(receive: ASGIReceiveCallable) -> None:
    more = True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message["more_body"]
