"""Background tasks: repeated work that survives its failures."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from catalog.concurrency.background_tasks import BackgroundTask
from catalog.errors import CatalogError, DatabaseBusy, DatabaseUnavailable
from catalog.observability.task_log import TaskLog


class Work:
    """Work with scripted outcomes, one per run; it succeeds once they are used up.

    Attributes:
        times: number of runs.
    """

    def __init__(self, *outcomes: Exception | None) -> None:
        self.times = 0
        self._outcomes = list(outcomes)
        self._done = asyncio.Event()

    async def __call__(self) -> None:
        self.times += 1
        if not self._outcomes:
            self._done.set()
            return
        outcome = self._outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def done(self) -> None:
        """Wait for the first run after the scripted outcomes."""
        async with asyncio.timeout(30):
            await self._done.wait()


async def logged(*outcomes: Exception | None) -> list[EventDict]:
    """Return the log events of work with these outcomes, which succeeds at the end."""
    work = Work(*outcomes)
    periodic = BackgroundTask(work, TaskLog("chore"), interval_seconds=0)
    with capture_logs() as logs:
        await periodic.start()
        await work.done()
        await periodic.stop()
    return logs


class TestFailures:
    async def test_outage_logs_one_event_and_its_end_another(self) -> None:
        away: list[CatalogError] = [DatabaseUnavailable(), DatabaseBusy(), DatabaseUnavailable()]

        failing, recovered = await logged(None, *away, None, None)

        assert failing["event"] == "task_degraded"
        assert failing["log_level"] == "warning"
        assert (failing["task"], failing["code"]) == ("chore", "database-unavailable")
        assert recovered == {"event": "task_recovered", "log_level": "info", "task": "chore"}

    async def test_next_outage_is_logged_again(self) -> None:
        logs = await logged(DatabaseBusy(), None, DatabaseUnavailable())

        events = [log["event"] for log in logs]
        assert events == ["task_degraded", "task_recovered"] * 2

    async def test_driver_error_is_logged_as_the_cause(self) -> None:
        error = DatabaseUnavailable()
        error.__cause__ = OSError("no route to host")

        failing, _ = await logged(error)

        assert failing["cause"] == "OSError('no route to host')"

    async def test_bug_does_not_end_the_task_and_logs_its_traceback_once(self) -> None:
        bug = ValueError("not that")

        failed, recovered = await logged(*[bug] * 3)

        assert failed["event"] == "task_crashed"
        assert failed["log_level"] == "error"
        assert failed["exc_info"] is bug
        assert recovered["event"] == "task_recovered"

    async def test_different_bug_is_logged_too(self) -> None:
        logs = await logged(DatabaseBusy(), ValueError(), DatabaseBusy(), ValueError(), KeyError())

        assert [(log["event"], type(log.get("exc_info"))) for log in logs] == [
            ("task_degraded", type(None)),
            ("task_crashed", ValueError),
            ("task_crashed", KeyError),
            ("task_recovered", type(None)),
        ]

    async def test_success_is_not_logged(self) -> None:
        assert await logged(None, None) == []


class TestStart:
    async def test_first_run_ends_before_start_returns_with_at_once(self) -> None:
        work = Work()
        periodic = BackgroundTask(work, TaskLog("chore"), interval_seconds=3600, at_once=True)

        await periodic.start()

        assert work.times == 1
        await periodic.stop()

    async def test_task_continues_after_a_failed_first_run(self) -> None:
        work = Work(DatabaseUnavailable())
        periodic = BackgroundTask(work, TaskLog("chore"), interval_seconds=0, at_once=True)

        with capture_logs():
            await periodic.start()
            await work.done()
            await periodic.stop()

    async def test_first_run_waits_for_the_interval_by_default(self) -> None:
        work = Work()
        periodic = BackgroundTask(work, TaskLog("chore"), interval_seconds=3600)

        await periodic.start()
        await asyncio.sleep(0)
        await periodic.stop()

        assert work.times == 0


async def never(begun: asyncio.Event) -> None:
    begun.set()
    await asyncio.Event().wait()


async def unmoved(begun: asyncio.Event) -> None:
    """Turn the cancellation into an error, as code does that catches too much."""
    begun.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise DatabaseUnavailable from None


class TestStop:
    @pytest.mark.parametrize("work", [never, unmoved])
    async def test_stop_cancels_work_in_progress(
        self, work: Callable[[asyncio.Event], Awaitable[None]]
    ) -> None:
        begun = asyncio.Event()
        periodic = BackgroundTask(lambda: work(begun), TaskLog("chore"), interval_seconds=0)
        await periodic.start()
        await begun.wait()

        with capture_logs():
            async with asyncio.timeout(30):
                await periodic.stop()

    async def test_work_is_not_run_after_a_stop(self) -> None:
        work = Work()
        periodic = BackgroundTask(work, TaskLog("chore"), interval_seconds=0)
        await periodic.start()
        await work.done()

        await periodic.stop()
        await periodic.stop()

        times = work.times
        await asyncio.sleep(0.01)
        assert work.times == times

    async def test_stop_without_a_start_does_nothing(self) -> None:
        await BackgroundTask(Work(), TaskLog("chore"), interval_seconds=0).stop()
