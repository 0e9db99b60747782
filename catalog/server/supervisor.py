"""Supervisor of ``catalog serve``: restarts workers, reloads on SIGHUP, stops on SIGTERM.

hypercorn's own multi-process mode stops the service when one worker dies, aborts requests on
shutdown, and leaves orphans when it is killed.
"""

import asyncio
import os
import signal
from contextlib import suppress

from catalog.errors import StartFailed
from catalog.observability.logs import logger
from catalog.server.metrics_files import MetricsFiles, metrics_files
from catalog.server.process import WorkerProcess
from catalog.server.sockets import Listeners, open_listeners
from catalog.server.worker_protocol import (
    LEAVING,
    READY,
    START_LIMIT_SECONDS,
    stop_limit,
)
from catalog.settings import Settings

log = logger("catalog.server")

# A worker that dies within this time of being ready is assumed to have bad code or settings.
PROOF_SECONDS = 2.0
# Early deaths in a row until the service gives up, and what each adds to the pause before the next
# attempt: 0, 0.1, 0.2 … seconds, so ten take 4.5 s and ten starts.
MAX_CRASHES = 10
PAUSE_STEP_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0
# Killed from outside, for instance by the out-of-memory killer: never a reason to give up.
KILLED_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


def supervise(settings: Settings) -> int:
    """Serve until stopped; return the exit status, 1 if requests were aborted.

    Raises:
        StartFailed: the service could not start, or its workers kept dying.
    """
    opened = open_listeners(settings.bind, settings.workers)
    with opened as listeners, metrics_files() as metrics:
        return asyncio.run(Supervisor(settings, listeners, metrics).run())


class Supervisor:
    """Owner of the sockets and the lifelines; it handles no requests that could make it fail.

    Each slot has one current worker. Retired workers finish their requests; a current worker that
    exits is replaced at once.
    """

    def __init__(self, settings: Settings, listeners: Listeners, metrics: MetricsFiles) -> None:
        self._settings = settings
        self._listeners = listeners
        self._metrics = metrics
        self._current: list[WorkerProcess | None] = [None] * len(listeners.sockets)
        self._alive: set[WorkerProcess] = set()
        self._tasks = asyncio.TaskGroup()
        self._stop = asyncio.Event()
        self._stop_signals = 0
        self._announced = False
        self._reloading = False
        self._reload_requested = False
        self._crashes = 0
        self._failure: StartFailed | None = None
        self._exit_status = 0

    async def run(self) -> int:
        """Start the workers, supervise them and stop them; return the exit status.

        Raises:
            StartFailed: a worker of the first generation cannot serve, or all keep dying.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGINT, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        async with self._tasks:
            for slot in range(len(self._current)):
                self._tasks.create_task(self._fill(slot))
            await self._stop.wait()
            for worker in self._alive:
                worker.terminate()
            # The workers now hold the last copies: once they stop accepting, connections are
            # refused instead of waiting in a queue without a worker.
            self._listeners.close()
            loop.call_later(stop_limit(self._settings), self._kill_stragglers)
            # Leaving the task group waits for the last worker's exit.
        if self._failure is not None:
            raise self._failure
        log.info("stopped", exit_status=self._exit_status)
        return self._exit_status

    # Workers: start, status, exit.

    async def _start(self, slot: int, *, prepare: bool) -> WorkerProcess | None:
        """Start a worker and watch it; log and return None if the system cannot start it."""
        place = self._metrics.take_place()
        try:
            worker = await WorkerProcess.start(
                slot,
                self._listeners.sockets[slot],
                workers=len(self._listeners.sockets),
                prepare=prepare,
                metrics=place,
            )
        except OSError as error:
            self._metrics.leave_place(place)
            log.error("worker_not_started", slot=slot, reason=error.strerror)
            if not self._announced:
                # The service has never served, so fail instead of retrying.
                self._give_up(f"A worker could not be started: {error.strerror}.")
            return None
        self._alive.add(worker)
        log.info("worker_started", slot=slot, worker=worker.pid)
        self._tasks.create_task(self._watch(worker))
        if self._stop.is_set():
            worker.terminate()
        return worker

    async def _fill(self, slot: int, *, pause: float = 0) -> None:
        """Start the next worker of a slot, with retries."""
        while not await self._stopped_within(pause):
            worker = await self._start(slot, prepare=not self._announced)
            if worker is not None:
                self._make_current(worker)
                return
            pause = MAX_PAUSE_SECONDS

    def _make_current(self, worker: WorkerProcess) -> None:
        retired, self._current[worker.slot] = self._current[worker.slot], worker
        if retired is not None:
            retired.release()

    async def _watch(self, worker: WorkerProcess) -> None:
        """Process a worker's status messages until it exits."""
        limit = asyncio.get_running_loop().call_later(START_LIMIT_SECONDS, worker.kill)
        async for word in worker.words():
            if word == READY:
                limit.cancel()
                self._on_ready(worker)
            elif word == LEAVING:
                # Most likely stopped from outside; its queue must not wait for its exit.
                worker.leaving = True
                self._replace(worker)
            else:
                worker.failure = word
        code = await worker.exit_code()
        limit.cancel()
        self._alive.discard(worker)
        self._metrics.leave_place(worker.metrics)
        self._on_exit(worker, code)

    def _on_ready(self, worker: WorkerProcess) -> None:
        worker.ready = True
        worker.came_up.set_result(True)
        log.info("worker_ready", slot=worker.slot, worker=worker.pid)
        asyncio.get_running_loop().call_later(PROOF_SECONDS, self._on_proven, worker)
        everyone = all(current is not None and current.ready for current in self._current)
        if everyone and not self._announced and not self._stop.is_set():
            self._announced = True
            url = self._listeners.bind.url
            log.info("serving", url=url, workers=len(self._current), pid=os.getpid())
            if self._reload_requested:
                self._reload_soon()

    def _on_proven(self, worker: WorkerProcess) -> None:
        if worker in self._alive:
            worker.proven = True
            self._crashes = 0

    def _on_exit(self, worker: WorkerProcess, code: int) -> None:
        cause = {"signal": signal.strsignal(-code)} if code < 0 else {"exit_code": code}
        if worker.leaving:
            log.info("worker_stopped", slot=worker.slot, worker=worker.pid, **cause)
        else:
            reason = worker.failure or None
            log.error("worker_died", slot=worker.slot, worker=worker.pid, reason=reason, **cause)
            self._metrics.count_restart()
        if self._stop.is_set() or worker is not self._current[worker.slot]:
            return
        if worker.failure and not self._announced:
            self._give_up(worker.failure)
        elif worker.proven or code in KILLED_FROM_OUTSIDE:
            self._replace(worker)
        else:
            self._replace(worker, pause=min(MAX_PAUSE_SECONDS, PAUSE_STEP_SECONDS * self._crashes))
            self._crashes += 1
            # While other workers serve, keep trying: a degraded service is better than none.
            if self._crashes >= MAX_CRASHES and not any(other.proven for other in self._alive):
                why = f": {worker.failure}" if worker.failure else "; the log above says why."
                self._give_up(f"{self._crashes} workers in a row crashed at start{why}")

    def _replace(self, worker: WorkerProcess, *, pause: float = 0) -> None:
        """Fill the slot of a worker that exited or is leaving; idempotent."""
        if worker is self._current[worker.slot] and not self._stop.is_set():
            self._current[worker.slot] = None
            self._tasks.create_task(self._fill(worker.slot, pause=pause))

    # Reload: SIGHUP.

    def _reload_soon(self) -> None:
        """Request a reload; signals during a reload or the start are coalesced into one."""
        self._reload_requested = True
        if self._announced and not self._reloading and not self._stop.is_set():
            self._reloading = True
            self._tasks.create_task(self._reload())

    async def _reload(self) -> None:
        while self._reload_requested and not self._stop.is_set():
            self._reload_requested = False
            log.info("reload_started")
            if await self._renew_all():
                log.info("reload_done")
        self._reloading = False

    async def _renew_all(self) -> bool:
        """Replace the workers slot by slot; stop at the first failure."""
        for slot in range(len(self._current)):
            if self._stop.is_set():
                return False
            worker = await self._start(slot, prepare=True)
            if worker is None or not await worker.came_up:
                if not self._stop.is_set():
                    log.error("reload_failed", slot=slot, reason=worker and worker.failure)
                return False
            self._make_current(worker)
        return True

    # Shutdown: SIGTERM and SIGINT.

    def _on_stop_signal(self) -> None:
        """Handle a stop signal: the first drains, the second skips the delay, the third kills."""
        self._stop_signals += 1
        if self._stop_signals == 1:
            log.info("stopping")
            self._stop.set()
        elif self._stop_signals == 2:
            # Not a kill yet: wrappers often forward a Ctrl-C that the terminal has already sent.
            log.info("drain_skipped")
            self._release_all()
        else:
            self._kill_stragglers()

    def _give_up(self, detail: str) -> None:
        if self._failure is None:
            self._failure = StartFailed(detail)
            self._stop.set()
            self._release_all()

    def _release_all(self) -> None:
        for worker in self._alive:
            worker.release()

    def _kill_stragglers(self) -> None:
        if self._alive:
            log.error("workers_killed", workers=[worker.pid for worker in self._alive])
            self._exit_status = 1
        for worker in self._alive:
            worker.kill()

    async def _stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return self._stop.is_set()
