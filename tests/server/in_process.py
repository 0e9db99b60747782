"""The service in the process of its tests, over real sockets, without supervisor and workers.

A start takes 0.1 s of CPU time; that of ``catalog serve`` takes 2 s, because each of its processes
imports the service. For tests of what clients see, not of processes.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import hypercorn.asyncio.run
import hypercorn.protocol
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart

from catalog.app import begin_drain, create_app, direct_path
from catalog.bootstrap import prepare
from catalog.fastpath import http1
from catalog.fastpath.connection import PlainTCPServer
from catalog.http.context import app_state
from catalog.settings import Settings
from tests.server.service import Endpoint


class InProcess(Endpoint):
    """The service on the event loop of the tests."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._url = f"http://127.0.0.1:{port}"

    @property
    def url(self) -> str:
        return self._url


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[InProcess]:
    """Serve as a worker does, on any free port, after the bootstrap."""
    await prepare(settings)
    app = create_app(settings)
    stop = asyncio.Event()
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    with _protocol_of(app), socket.create_server(("127.0.0.1", 0)) as listener:
        config.bind = [f"fd://{listener.fileno()}"]
        task = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
        service = InProcess(listener.getsockname()[1])
        try:
            yield service
        finally:
            await service.close_connections()
            begin_drain(app)
            stop.set()
            await task
        # hypercorn has closed it.
        listener.detach()


@contextmanager
def _protocol_of(app: Quart) -> Iterator[None]:
    """Install the project's protocol for an app, and restore hypercorn's afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (http1.PlainH11Protocol, "direct"),
            (PlainTCPServer, "buffers"),
            (hypercorn.protocol, "H11Protocol"),
            (hypercorn.asyncio.run, "TCPServer"),
        ):
            patch.setattr(owner, name, None, raising=False)
        http1.install(direct_path(app), app_state(app).buffers)
        yield
