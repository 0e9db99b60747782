"""``Expect: 100-continue`` (RFC 9110, section 10.1.1)."""

from collections.abc import Awaitable, Callable
from typing import Any


class Continuing:
    """Application wrapper that sends 100 when the application asks for the body.

    So a request that is refused for its head gets the refusal alone, and its client need not send
    the body.

    Args:
        app: the wrapped application, as hypercorn calls it.
        send_continue: sends 100 if the client still waits for it.
    """

    def __init__(
        self, app: Callable[..., Awaitable[None]], send_continue: Callable[[], Awaitable[None]]
    ) -> None:
        self._app = app
        self._send_continue = send_continue

    async def __call__(self, scope: Any, receive: Any, send: Any, *workers: Any) -> None:
        """Serve one request."""

        async def continue_and_receive() -> Any:
            await self._send_continue()
            return await receive()

        await self._app(scope, continue_and_receive, send, *workers)
