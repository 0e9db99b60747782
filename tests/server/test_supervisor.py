"""The supervisor of ``catalog serve``: dead workers, stop and reload."""

import asyncio
import os
import resource
import signal
import sqlite3

import pytest

from tests.server.processes import holders_of, is_running
from tests.server.service import Catalog, Clients, Service
from tests.support import until


def processor_seconds() -> float:
    """Return the CPU time of all waited-for children: their duration on an idle machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class TestDeadWorkers:
    async def test_killed_worker_is_replaced_while_the_others_serve(self, service: Service) -> None:
        clients = Clients(service, 8)
        await clients.more(50)
        victim = service.all_workers[0]

        os.kill(victim, signal.SIGKILL)
        died = await service.event("worker_died", worker=victim)
        await service.event("worker_ready", count=3)
        await clients.more(50)
        outcomes = await clients.stop()

        assert died["signal"] == "Killed"
        # Only requests on the dead worker's connections are lost, at most one a client.
        assert outcomes["failed"] <= 8
        assert len(service.workers) == 2

    async def test_worker_stopped_from_outside_is_replaced_before_it_has_drained(
        self, catalog: Catalog
    ) -> None:
        async with catalog.start() as service:
            await service.serving()
            busy = await service.connect()
            await busy.begin_sign_in()
            await service.get("/livez")

            os.kill(service.all_workers[0], signal.SIGTERM)
            await service.event("worker_ready", count=2)

            assert (await service.get("/livez")).status == 200
            assert (await busy.finish_sign_in()).status == 401

    async def test_killed_workers_do_not_count_as_failed_starts(self, catalog: Catalog) -> None:
        starts = catalog.folder / "starts"
        catalog.break_interpreters(
            f"open({str(starts)!r}, 'a').write('x')\n"
            f"    if len(open({str(starts)!r}).read()) < 15: os.kill(os.getpid(), signal.SIGKILL)"
        )

        async with catalog.start() as service:
            await service.serving()

            assert len(service.logged("worker_died")) == 14

    async def test_workers_that_always_exit_end_the_service_with_a_reason(
        self, catalog: Catalog
    ) -> None:
        catalog.break_interpreters("os._exit(3)")

        async with catalog.start() as service:
            code = await service.exit_code()

            assert code == 1
            assert len(service.logged("worker_died", exit_code=3)) == 10
            assert "The service cannot start: 10 workers in a row crashed" in service.text
            assert "Traceback" not in service.text

    async def test_killed_supervisor_leaves_no_orphans(self, service: Service) -> None:
        workers = service.workers
        idle = await service.connect()
        await idle.get("/livez")

        service.send_signal(signal.SIGKILL)

        assert len(workers) == 2
        await until(lambda: not any(map(is_running, workers)))
        assert await service.refuses()

    async def test_supervisor_killed_during_the_start_leaves_no_orphans(
        self, catalog: Catalog
    ) -> None:
        async with catalog.start() as service:
            await service.event("worker_started")

            service.send_signal(signal.SIGKILL)

            await until(lambda: not service.workers)

    # From the start of the new interpreter to just before it serves.
    @pytest.mark.parametrize("delay", [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    async def test_supervisor_killed_while_replacing_a_worker_leaves_no_orphans(
        self, catalog: Catalog, delay: float
    ) -> None:
        async with catalog.start() as service:
            await service.serving()
            os.kill(service.all_workers[0], signal.SIGKILL)
            await service.event("worker_started", count=2)
            await asyncio.sleep(delay)

            service.send_signal(signal.SIGKILL)

            await until(lambda: not service.workers)

    @pytest.mark.parametrize("module", ["catalog.server.worker", "catalog.app"])
    async def test_worker_that_is_importing_ends_with_the_supervisor(
        self, catalog: Catalog, module: str
    ) -> None:
        imports = catalog.folder / "imports"
        # The second worker does not get to its event loop in the time of this test.
        catalog.definitions[module] = (
            "import os, sys, time\n"
            "if 'catalog.server.start' in sys.orig_argv:\n"
            f"    open({str(imports)!r}, 'a').write('x')\n"
            f"    if os.path.getsize({str(imports)!r}) == 2: time.sleep(600)"
        )
        async with catalog.start() as service:
            await service.serving()
            os.kill(service.all_workers[0], signal.SIGKILL)
            await until(lambda: imports.stat().st_size == 2)

            service.send_signal(signal.SIGKILL)

            await until(lambda: not service.workers)


class TestStop:
    async def test_requests_in_flight_are_finished_and_new_ones_refused(
        self, service: Service
    ) -> None:
        busy = await service.connect()
        await busy.begin_sign_in()
        await service.get("/livez")

        service.send_signal(signal.SIGTERM)
        await service.event("stopping")
        while not await service.refuses():
            assert is_running(service.process.pid)
        answer = await busy.finish_sign_in()

        assert answer.status == 401
        assert answer.closes
        assert await service.exit_code() == 0
        assert service.text == ""

    async def test_clients_are_answered_or_refused_and_never_cut_off(
        self, catalog: Catalog
    ) -> None:
        async with catalog.start(CATALOG_DRAIN_DELAY="0.2") as service:
            await service.serving()
            clients = Clients(service, 16)
            await clients.more(100)

            service.send_signal(signal.SIGTERM)
            code = await service.exit_code()
            outcomes = await clients.stop()

            assert code == 0
            # The kernel may accept one more connection in the microseconds between the last check
            # of a socket's queue and its closing; 16 clients that reconnect all the time hit them
            # now and then.
            assert outcomes["failed"] <= 1
            assert set(outcomes) - {"failed"} == {"200", "refused"}

    async def test_service_is_unready_before_it_stops(self, catalog: Catalog) -> None:
        async with catalog.start(CATALOG_DRAIN_DELAY="300") as service:
            await service.serving()
            kept = await service.connect()
            before = await kept.get("/readyz")

            service.send_signal(signal.SIGTERM)
            while (new := await service.get("/readyz")).status == 200:
                assert is_running(service.process.pid)
            old = await kept.get("/livez")

            assert (before.status, before.closes) == (200, False)
            assert (new.status, new.closes) == (503, True)
            assert (old.status, old.closes) == (200, True)

    async def test_second_signal_skips_the_delay(self, catalog: Catalog) -> None:
        async with catalog.start(CATALOG_DRAIN_DELAY="300") as service:
            await service.serving()
            busy = await service.connect()
            await busy.begin_sign_in()

            service.send_signal(signal.SIGINT)
            await service.event("stopping")
            service.send_signal(signal.SIGINT)

            assert (await busy.finish_sign_in()).status == 401
            assert await service.exit_code() == 0

    async def test_third_signal_kills_with_a_non_zero_exit_code(self, catalog: Catalog) -> None:
        async with catalog.start() as service:
            await service.serving()
            busy = await service.connect()
            await busy.begin_sign_in()

            service.send_signal(signal.SIGINT)
            await service.event("stopping")
            service.send_signal(signal.SIGINT)
            await service.event("drain_skipped")
            service.send_signal(signal.SIGINT)

            assert await service.exit_code() == 1
            assert service.logged("workers_killed")

    async def test_worker_that_does_not_stop_is_killed(self, catalog: Catalog) -> None:
        catalog.definitions["catalog.server.worker_protocol"] = "GRACEFUL_SECONDS = 0.1"
        async with catalog.start() as service:
            await service.serving()
            os.kill(service.all_workers[0], signal.SIGSTOP)

            service.send_signal(signal.SIGTERM)

            assert await service.exit_code() == 1
            assert service.logged("workers_killed", workers=service.all_workers)

    async def test_signal_during_the_start_stops_the_service(self, catalog: Catalog) -> None:
        async with catalog.start() as service:
            await service.event("worker_started")

            service.send_signal(signal.SIGTERM)

            assert await service.exit_code() == 0
            assert not service.logged("serving")
            assert not service.logged("worker_died")
            assert service.text == ""

    async def test_worker_waiting_for_the_database_ends_with_the_wait_after_two_signals(
        self, catalog: Catalog
    ) -> None:
        path = catalog.folder / "catalog.db"
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        async with catalog.start() as service:
            worker = (await service.event("worker_started"))["worker"]
            await until(lambda: holders_of(f"{path}-wal", [worker]))

            service.send_signal(signal.SIGTERM)
            await service.event("stopping")
            service.send_signal(signal.SIGTERM)
            await service.event("drain_skipped")
            # The worker has received a signal, and its lifeline has ended.
            other.close()

            assert await service.exit_code() == 0
            assert not service.logged("event_loop_error")
            assert service.text == ""


class TestReload:
    async def test_reload_fails_no_request_and_replaces_every_worker(
        self, service: Service
    ) -> None:
        old = service.workers
        clients = Clients(service, 16)
        await clients.more(100)

        service.send_signal(signal.SIGHUP)
        await service.event("reload_done")
        await service.event("worker_stopped", count=2)
        await clients.more(100)
        outcomes = await clients.stop()

        assert set(outcomes) == {"200"}
        assert len(service.workers) == 2
        assert not service.workers & old

    async def test_failed_reload_keeps_the_old_workers(self, catalog: Catalog) -> None:
        secret = catalog.folder / "secret"
        secret.write_text(catalog.environment.pop("JWT_SECRET_KEY"))
        async with catalog.start(JWT_SECRET_KEY_FILE=str(secret)) as service:
            await service.serving()
            old = service.workers
            secret.write_text("short")

            service.send_signal(signal.SIGHUP)
            failed = await service.event("reload_failed")
            answer = await service.get("/livez")

            assert "JWT_SECRET_KEY must be at least 32 bytes" in failed["reason"]
            assert answer.status == 200
            assert service.workers == old

    async def test_signals_during_a_reload_are_merged_into_one_more(self, catalog: Catalog) -> None:
        async with catalog.start() as service:
            await service.event("worker_started")
            service.send_signal(signal.SIGHUP)
            await service.event("reload_started")
            for _ in range(5):
                service.send_signal(signal.SIGHUP)

            await service.event("reload_done", count=2)
            service.send_signal(signal.SIGTERM)

            assert await service.exit_code() == 0
            assert len(service.logged("reload_started")) == 2

    async def test_stop_as_a_new_worker_becomes_ready_ends_the_reload(
        self, catalog: Catalog
    ) -> None:
        starts = catalog.folder / "starts"
        # The third worker is the first new one; it becomes ready when the listeners are closed.
        catalog.break_interpreters(
            f"open({str(starts)!r}, 'a').write('x')\n"
            f"    if len(open({str(starts)!r}).read()) == 3:\n"
            "        signal.signal(signal.SIGTERM, lambda *_: None)\n"
            "        os.kill(os.getppid(), signal.SIGTERM)\n"
            "        signal.sigtimedwait({signal.SIGUSR1}, 0.5)\n"
            "        os.write(int(sys.argv[2].partition('=')[2]), b'\"ready\"\\n')\n"
            "        os._exit(0)"
        )
        async with catalog.start("--workers=2") as service:
            await service.serving()
            service.send_signal(signal.SIGHUP)

            assert await service.exit_code() == 0
            assert len(service.all_workers) == 3
            assert service.text == ""

    async def test_stop_during_a_reload_ends_the_service(self, catalog: Catalog) -> None:
        async with catalog.start() as service:
            await service.serving()
            service.send_signal(signal.SIGHUP)
            await service.event("worker_started", count=2)

            service.send_signal(signal.SIGTERM)

            assert await service.exit_code() == 0
            assert not service.logged("reload_failed")
            assert not service.workers


class TestStart:
    async def test_all_invalid_settings_are_reported_at_once(self, catalog: Catalog) -> None:
        before = processor_seconds()
        async with catalog.start(
            CATALOG_BIND="nowhere", CATALOG_DRAIN_DELAY="soon", JWT_SECRET_KEY="short"
        ) as service:
            code = await service.exit_code()

            assert code == 1
            assert "The settings are not valid" in service.text
            for name in ("CATALOG_BIND", "CATALOG_DRAIN_DELAY", "JWT_SECRET_KEY"):
                assert name in service.text
            assert "Traceback" not in service.text
            assert processor_seconds() - before < 2

    @pytest.mark.parametrize(
        "refused",
        [
            {"DATABASE_URL": "mysql://catalog:Geheim@127.0.0.1:1/shop"},
            {"DATABASE_URL": "mysql://catalog:p@Geheim@127.0.0.1:1/shop"},
            {"DATABASE_URL": "postgres://catalog:Geheim@127.0.0.1/shop"},
            {"JWT_SECRET_KEY": "Geheim"},
            {"CATALOG_JWT_PRIVATE_KEY": "-----BEGIN PRIVATE KEY-----\nGeheim"},
            {"CATALOG_JWT_PREVIOUS_SECRET_KEYS": "Geheim"},
            {"CATALOG_LIMITS_URL": "redis://:Geheim"},
            {"CATALOG_LIMITS_URL": "redis://:Geheim@127.0.0.1:1?x=1"},
            {"ADMIN_PASSWORD": "Geheim "},
            {"ADMIN_PASSWORD": "Geheim"},
        ],
        ids=lambda refused: "-".join(refused),
    )
    async def test_output_of_a_failed_start_holds_no_secret(
        self, catalog: Catalog, refused: dict[str, str]
    ) -> None:
        catalog.definitions["catalog.bootstrap"] = "DATABASE_START_SECONDS = 0.6"
        async with catalog.start(CATALOG_LOG_LEVEL="debug", **refused) as service:
            assert await service.exit_code() == 1

        assert "Geheim" not in f"{service.text}{service.events}"

    async def test_bootstrap_failure_is_reported_once(self, catalog: Catalog) -> None:
        async with catalog.start("--workers=2", ADMIN_PASSWORD="short") as service:
            code = await service.exit_code()

            assert code == 1
            assert service.text.startswith("The service cannot start: ")
            assert service.text.count("\n") == 1
            assert len(service.all_workers) == 2

    async def test_worker_started_later_does_not_wait_for_the_database(
        self, catalog: Catalog
    ) -> None:
        async with catalog.start() as service:
            await service.serving()
            (catalog.folder / "catalog.db").write_text("This is no database. " * 100)

            os.kill(service.all_workers[0], signal.SIGKILL)
            await service.event("worker_died")

            # The request waits in the listener's queue, which outlives workers.
            assert (await service.get("/livez")).status == 200
            assert (await service.get("/readyz")).status == 503
