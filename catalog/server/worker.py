"""Worker process, started only by the supervisor through ``start.py``.

It inherits the listening socket and two pipes. To the status pipe it writes the messages of
``worker_protocol.py``. The lifeline carries nothing: it closes when the supervisor releases it or
dies, even if killed, so no worker outlives its supervisor for longer than its requests take.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from socket import socket
from typing import Any

import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config

from catalog.app import begin_drain, create_app, direct_path
from catalog.bootstrap import prepare
from catalog.errors import OperatorError
from catalog.fastpath import http1
from catalog.fastpath.request_head import MAX_HEAD_BYTES
from catalog.http.context import app_state
from catalog.observability import metrics
from catalog.observability.logs import configure_logging, logger
from catalog.server import lifeline
from catalog.server.sockets import BACKLOG
from catalog.server.worker_protocol import (
    GOODBYE_SECONDS,
    GRACEFUL_SECONDS,
    LAST_STEPS_SECONDS,
    LEAVING,
    READY,
)
from catalog.settings import Settings, load_settings

log = logger("catalog.server")

# Longer than the 60 s for which nginx and most load balancers keep idle connections, so that they
# never send a request on one that is just being closed. Incomplete heads have a time-out of their
# own.
KEEP_ALIVE_SECONDS = 75
# hypercorn's default of 1,000 would make a busy client reconnect every second.
KEEP_ALIVE_REQUESTS = 1_000_000
# Applied even after a long drain, for connections that the kernel accepted just before the end.
SETTLE_SECONDS = 0.1

HUNG_UP = (ConnectionError, TimeoutError)

GC_OBJECTS = 10_000
"""Objects created and not yet released after which garbage is collected, which takes 1 ms."""

GC_YOUNG_RUNS = 2
GC_OLD_RUNS = 40
"""Collections after which the objects that survived one are searched, too, and of these, those
after which all are. Requests in progress survive, and what is cyclic of them waits: up to 20,000
objects with the default of 10. All are searched about as often as by default, 10 times 10."""

ACCEPTS = 64
"""Connections accepted in one iteration of the loop; that many take some 20 ms."""


class ServingLoop(uvloop.Loop):
    """Event loop that accepts connections in batches, and can stop accepting before it closes any.

    libuv accepts one connection per iteration, and a busy iteration may take 20 ms: of several
    hundred clients that connect at once, the last would wait for seconds.

    hypercorn does not expose its listening servers. It closes them in one step with all idle
    connections, and requests in flight on those are lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self._listening: list[tuple[asyncio.AbstractServer, socket, Any]] = []
        # The event loop holds only weak references to tasks.
        self._connecting: set[asyncio.Task[Any]] = set()

    # ``Any``: twenty parameters that are only passed on.
    async def create_server(  # type: ignore[override]  # always with a socket
        self, protocol_factory: Any, *args: Any, sock: socket, **kwargs: Any
    ) -> Any:
        """Create a server whose pending connections are accepted in batches."""

        def make_protocol() -> Any:
            self.call_soon(self._accept_waiting, sock, protocol_factory)
            return protocol_factory()

        server = await super().create_server(make_protocol, *args, sock=sock, **kwargs)
        self._listening.append((server, sock, protocol_factory))
        return server

    def _accept_waiting(self, listener: socket, protocol_factory: Any) -> None:
        """Accept the connections that are queued behind the one that libuv has accepted."""
        for connection in accepted(listener, ACCEPTS - 1):
            task = self.create_task(self.connect_accepted_socket(protocol_factory, connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def stop_accepting(self) -> None:
        """Close this process's copies of the listening sockets."""
        for server, listener, protocol_factory in self._listening:
            # The kernel has already accepted these connections. If they were closed with the
            # socket, clients could not know whether their requests were processed.
            waiting = list(accepted(listener, BACKLOG))
            server.close()
            for connection in waiting:
                await self.connect_accepted_socket(protocol_factory, connection)


def accepted(listener: socket, most: int) -> Iterator[socket]:
    """Accept and yield at most ``most`` queued connections of a non-blocking socket."""
    with suppress(OSError):
        for _ in range(most):
            yield listener.accept()[0]


class Worker:
    """Server process with a graceful shutdown that loses no request.

    On SIGTERM it keeps accepting for ``drain_delay``, so that load balancers see it unready before
    connections are refused. When the supervisor closes the lifeline, because another worker has
    replaced this one or the supervisor is dead, it stops accepting at once.
    """

    def __init__(self, options: Namespace, settings: Settings) -> None:
        self._options = options
        self._settings = settings
        self._app = create_app(settings)
        # Before the event loop runs, because it takes some 50 ms.
        gc.collect()
        http1.install(direct_path(self._app), app_state(self._app).buffers)
        self._serving = False
        self._told = asyncio.Event()
        self._released = asyncio.Event()

    async def run(self, loop: ServingLoop) -> None:
        """Bootstrap if requested, serve, and drain.

        Raises:
            OperatorError: the bootstrap failed.
            asyncio.CancelledError: stopped before it served.
        """
        starting = asyncio.current_task()

        def stop() -> None:
            # Cancel only once: a second cancellation would interrupt the cleanup.
            if not self._serving and not self._told.is_set() and starting is not None:
                starting.cancel()
            self._told.set()

        def end_of_lifeline() -> None:
            loop.remove_reader(self._options.lifeline_fd)
            self._released.set()
            stop()

        loop.set_exception_handler(report_loop_error)
        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_signal_handler(signal.SIGINT, stop)
        # If sent to all processes of the service, SIGHUP is meant for the supervisor: a reload.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        loop.add_reader(self._options.lifeline_fd, end_of_lifeline)
        lifeline.hand_over()

        if self._options.prepare:
            await prepare(self._settings)
        await serve(self._app, self._config(), shutdown_trigger=lambda: self._drained(loop))

    async def _drained(self, loop: ServingLoop) -> None:
        """Return when connections may be closed; called once they are being accepted."""
        self._serving = True
        # What is loaded by now stays for good. The garbage collector would search it again and
        # again, which took a fifth of the time of a cached page.
        gc.freeze()
        # By default the collector runs whenever 700 more objects are alive. The requests in
        # progress alone have several thousand, and little of what they leave is cyclic.
        gc.set_threshold(GC_OBJECTS, GC_YOUNG_RUNS, GC_OLD_RUNS)
        send_status(self._options.status_fd, READY)
        await self._told.wait()

        begin_drain(self._app)
        send_status(self._options.status_fd, LEAVING)
        drain_began = loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_delay):
                await self._released.wait()
        await loop.stop_accepting()
        drained = loop.time() - drain_began
        await asyncio.sleep(max(SETTLE_SECONDS, GOODBYE_SECONDS - drained))

    def _config(self) -> Config:
        config = Config()
        config.bind = [f"fd://{self._options.listener_fd}"]
        config.backlog = BACKLOG
        config.keep_alive_timeout = KEEP_ALIVE_SECONDS
        config.keep_alive_max_requests = KEEP_ALIVE_REQUESTS
        config.h11_max_incomplete_size = MAX_HEAD_BYTES
        config.graceful_timeout = GRACEFUL_SECONDS
        config.shutdown_timeout = LAST_STEPS_SECONDS
        config.include_server_header = False
        # hypercorn's default logger would bypass the configured handlers.
        config.errorlog = logging.getLogger("hypercorn.error")
        return config


def report_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log errors that no task awaited, except clients' disconnects."""
    error = context.get("exception")
    if isinstance(error, BaseExceptionGroup):
        error = error.split(HUNG_UP)[1]
        if error is None:
            return
    if not isinstance(error, HUNG_UP):
        log.error("event_loop_error", message=context.get("message"), exc_info=error)


def send_status(status_fd: int, text: str) -> None:
    """Send a status message to the supervisor, if it is still alive."""
    with suppress(BrokenPipeError):
        os.write(status_fd, json.dumps(text).encode() + b"\n")


def main() -> None:
    """Run the worker; exit with 1 if it could not start."""
    parser = ArgumentParser()
    for pipe in ("--listener-fd", "--status-fd", "--lifeline-fd"):
        parser.add_argument(pipe, type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args()

    try:
        settings = load_settings(workers=options.workers)
        configure_logging(settings)
        if metrics.SHARED is None:
            log.warning("metrics_not_shared", reason="There is no room for this worker's files.")
        loop = ServingLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner, suppress(asyncio.CancelledError):
            runner.run(Worker(options, settings).run(loop))
    except OperatorError as error:
        # Not printed here: every worker of a generation would print the same.
        send_status(options.status_fd, error.detail)
        sys.exit(1)
