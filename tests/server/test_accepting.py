"""Simultaneous connections are accepted in batches, and not one in each turn of the loop."""

import asyncio
import socket
from contextlib import ExitStack

import pytest
import uvloop

from catalog.server.worker import ACCEPTS, ServingLoop

CLIENTS = 300


async def turns_until_all_are_accepted() -> int:
    """Return the number of loop turns until all waiting connections are served."""
    loop = asyncio.get_running_loop()
    served = turns = 0

    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.close()

    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener, ExitStack() as crowd:
        for _ in range(CLIENTS):
            # The kernel completes the handshake for a listening socket.
            crowd.enter_context(socket.create_connection(listener.getsockname()))
        listener.setblocking(False)
        server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve), sock=listener
        )
        async with asyncio.timeout(60):
            while served < CLIENTS:
                await asyncio.sleep(0)
                turns += 1
        server.close()
        listener.detach()
    return turns


class TestAccepting:
    @pytest.mark.parametrize(
        ("kind", "is_quick"), [(ServingLoop, True), (uvloop.Loop, False)], ids=["ours", "uvloops"]
    )
    def test_many_connections_are_accepted_in_a_few_turns(
        self, kind: type[uvloop.Loop], is_quick: bool
    ) -> None:
        with asyncio.Runner(loop_factory=kind) as runner:
            turns = runner.run(turns_until_all_are_accepted())

        assert (turns < 10 * CLIENTS / ACCEPTS) == is_quick, turns
