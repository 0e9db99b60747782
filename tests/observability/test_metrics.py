"""Metrics: events counted, labels, and agreement with the documentation."""

import asyncio
import re
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymysql.err import OperationalError
from quart import Quart
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.app import create_app
from catalog.auth.context import auth
from catalog.errors import DatabaseBusy, Overloaded
from catalog.http.context import app_state
from catalog.http.middleware.concurrency_limit import ConcurrencyLimit
from catalog.observability import metrics
from catalog.products.context import products
from catalog.settings import Rate, Settings
from tests.db.support import PATIENT, run_on
from tests.http.wire import Unanswered, exchange
from tests.numbers import Change, Numbers
from tests.support import Caller, at_once

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "monitoring.md"


@pytest.fixture
async def change(anyone: Caller) -> Change:
    return await Change.since_now(anyone)


class TestExposition:
    async def test_metrics_are_prometheus_text(self, anyone: Caller) -> None:
        answer = await anyone.get("/metrics")

        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert answer.headers["Cache-Control"] == "no-store"
        assert b"# TYPE catalog_http_requests_total counter\n" in answer.body

    async def test_metrics_are_openmetrics_on_request(self, anyone: Caller) -> None:
        accept = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.1"
        answer = await anyone.get("/metrics", headers={"Accept": accept})

        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.body.endswith(b"# EOF\n")

    async def test_metrics_do_not_use_the_database(self, anyone: Caller, app: Quart) -> None:
        await app_state(app).database.close()
        app_state(app).database.transaction = app_state(app).database.connection = None  # type: ignore[assignment, method-assign]  # any use fails

        assert (await anyone.get("/metrics")).status_code == 200

    async def test_series_exist_before_their_first_event(self, anyone: Caller) -> None:
        numbers = await Numbers.of(anyone)

        for name in ("logins", "shed", "rate_limited", "pages", "idempotency", "retries"):
            assert len(numbers.series(f"{name}_total")) > 1, name


class TestDocumentation:
    async def test_documented_metrics_match_the_exposition(self, anyone: Caller) -> None:
        await anyone.get("/livez")
        numbers = await Numbers.of(anyone)
        told = {
            (
                family.name + ("_total" if family.type == "counter" else ""),
                family.type,
                frozenset(numbers.labels_of(family.name)),
            )
            for family in numbers.families
        }
        rows = re.findall(
            r"^\| `(catalog_\w+)` \| (counter|gauge|histogram) \| ([^|]+) \| [^|]+ \| [^|]+ \|$",
            DOCUMENTATION.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        documented = {
            (name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows
        }

        assert told == documented

    def test_documented_buckets_match_the_code(self) -> None:
        text = " ".join(DOCUMENTATION.read_text(encoding="utf-8").split())
        found = re.search(
            r"Buckets in seconds are ([\d., and]+); those of batch sizes ([\d, and]+)\.", text
        )

        assert found is not None
        seconds, sizes = (
            [float(each) for each in re.findall(r"\d+(?:\.\d+)?", part)] for part in found.groups()
        )
        assert tuple(seconds) == metrics.DURATIONS
        assert tuple(sizes) == metrics.BATCH_SIZES

    def test_label_values_are_documented(self) -> None:
        text = DOCUMENTATION.read_text(encoding="utf-8")
        for counter in (
            *(metrics.LOGINS, metrics.RATE_LIMITED, metrics.SHED, metrics.PAGES),
            metrics.IDEMPOTENCY,
        ):
            for family in counter.collect():
                for sample in family.samples:
                    for value in sample.labels.values():
                        assert f"`{value}`" in text, value


class TestRequests:
    async def test_requests_are_counted_by_route_template(
        self, ada: Caller, change: Change
    ) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]
        await ada.get(f"/api/products/{lamp}")
        await ada.get("/api/products/99999")
        await ada.delete(lamp)

        one = {"route": "/api/products/<id>"}
        assert await change.of("http_requests_total", method="GET", status="200", **one) == 1
        assert await change.of("http_requests_total", method="GET", status="404", **one) == 1
        assert await change.of("http_requests_total", method="DELETE", **one) == 1
        assert await change.of("http_request_duration_seconds_count", method="GET", **one) == 2

    async def test_fast_path_requests_are_counted(
        self, ada: Caller, anyone: Caller, change: Change
    ) -> None:
        for _ in range(3):
            assert (await anyone.get("/api/products")).status_code == 200
        assert (await ada.get("/api/products")).status_code == 200
        await ada.create_product("Lamp")

        where = {"route": "/api/products"}
        assert await change.of("http_requests_total", method="GET", status="200", **where) == 4
        assert await change.of("http_requests_total", method="POST", status="201", **where) == 1

    @pytest.mark.parametrize(
        ("method", "path", "headers", "route", "status"),
        [
            ("GET", "/nowhere", [], "other", 404),
            ("DELETE", "/livez", [], "/livez", 405),
            ("BREW", "/api/products/7", [], "/api/products/<id>", 405),
            (
                "POST",
                "/api/auth/login",
                [(b"content-length", b"999999999")],
                "/api/auth/login",
                413,
            ),
            (
                *("POST", "/api/products/7"),
                [(b"transfer-encoding", b"chunked"), (b"content-length", b"0")],
                *("/api/products/<id>", 400),
            ),
        ],
    )
    async def test_rejected_requests_are_counted(
        self,
        app: Quart,
        change: Change,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        route: str,
        status: int,
    ) -> None:
        answer = await exchange(app, method, path, headers=headers)

        assert answer.status_code == status
        label = method if method in metrics.METHODS else "other"
        counted = await change.of(
            "http_requests_total", method=label, route=route, status=str(status)
        )
        assert counted == 1

    async def test_client_disconnect_is_counted_as_499(self, app: Quart, change: Change) -> None:
        with pytest.raises(Unanswered):
            await exchange(
                app,
                *("POST", "/api/auth/login"),
                headers=[(b"content-length", b"10")],
                body=[b"{"],
                then="hangs up",
            )

        assert await change.of("http_requests_total", status="499", route="/api/auth/login") == 1

    async def test_request_is_counted_before_its_response_is_complete(self, app: Quart) -> None:
        labels = {"method": "GET", "route": "/livez", "status": "200"}
        name = "catalog_http_requests_total"
        before = metrics.REGISTRY.get_sample_value(name, labels) or 0
        counted = []

        def look(event: Any) -> None:
            # Quart sends the body first and its end in a separate event.
            if event.get("body"):
                counted.append(metrics.REGISTRY.get_sample_value(name, labels) or 0)

        await exchange(app, "GET", "/livez", on_send=look)

        assert counted == [before + 1]

    async def test_websocket_request_is_counted_as_403(self, app: Quart, change: Change) -> None:
        sent: list[str] = []

        async def receive() -> Any:
            """Return nothing."""

        async def send(message: Any) -> None:
            sent.append(message["type"])

        scope: Any = {"type": "websocket", "path": "/", "headers": [], "client": None}
        await app.asgi_app(scope, receive, send)

        assert sent == ["websocket.close"]
        assert await change.of("http_requests_total", route="other", status="403") == 1

    async def test_unexpected_error_is_counted_as_500(self, app: Quart, change: Change) -> None:
        @app.get("/unforeseen")
        async def unforeseen() -> str:
            raise RuntimeError

        answer = await exchange(app, "GET", "/unforeseen")

        assert answer.status_code == 500
        assert await change.of("http_requests_total", status="500", route="/unforeseen") == 1

    async def test_clients_cannot_create_series(self, app: Quart, anyone: Caller) -> None:
        async def ask(number: int) -> None:
            await exchange(app, f"M{number}", f"/{number}/x")
            await exchange(app, f"M{number}", "/api/products")
            await exchange(app, "GET", f"/api/products/{number}?{number}")
            await exchange(app, "GET", f"/api/products/x{number}")

        names = ("http_requests_total", "http_request_duration_seconds_bucket")
        await ask(1)
        # A scrape is counted when it is over: the first one of a process adds a series of its own.
        await Numbers.of(anyone)
        before = await Numbers.of(anyone)
        for number in range(2, 200):
            await ask(number)
        after = await Numbers.of(anyone)

        for name in names:
            assert before.series(name) == after.series(name)

    async def test_requests_in_progress_are_counted(self, app: Quart, anyone: Caller) -> None:
        waiting = asyncio.create_task(Caller(app).get("/api/products/changes?since=0&wait=25"))
        try:
            async with asyncio.timeout(20):
                while (numbers := await Numbers.of(anyone)).total("change_subscribers") < 1:
                    await asyncio.sleep(0.01)
        finally:
            waiting.cancel()

        # The scrape itself is the second.
        assert numbers.total("http_requests_in_progress") == 2

    async def test_unfinished_tasks_are_counted(self, anyone: Caller) -> None:
        release = asyncio.Event()
        before = (await Numbers.of(anyone)).total("event_loop_tasks")
        tasks = [asyncio.create_task(release.wait()) for _ in range(100)]

        during = (await Numbers.of(anyone)).total("event_loop_tasks")
        release.set()
        await asyncio.gather(*tasks)

        # Tolerance for the scrape and the service's own tasks.
        assert abs(during - before - 100) < 10

    def test_request_slower_than_all_buckets_is_counted(self) -> None:
        metrics.count_request("GET", "/slow", 200, 3600.0)

        samples = {
            sample.labels.get("le"): sample.value
            for family in metrics.REQUEST_SECONDS.collect()
            for sample in family.samples
            if sample.labels["route"] == "/slow"
        }
        assert (samples["10.0"], samples["+Inf"]) == (0, 1)

    @pytest.mark.parametrize(
        ("seconds", "bucket"),
        [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (10.0, "10.0")],
    )
    def test_bucket_includes_its_upper_bound(self, seconds: float, bucket: str) -> None:
        route = f"/bound/{seconds}"
        metrics.count_request("GET", route, 200, seconds)

        first = next(
            sample.labels["le"]
            for family in metrics.REQUEST_SECONDS.collect()
            for sample in family.samples
            if sample.labels["route"] == route and sample.value
        )
        assert first == bucket


class TestDomain:
    @pytest.mark.usefixtures("ada")
    async def test_log_ins_are_counted_by_result(self, anyone: Caller, change: Change) -> None:
        await anyone.log_in("ada")
        for _ in range(10):
            await anyone.log_in("ada", "not this one at all")
        answer = await anyone.log_in("ada")

        assert answer.status_code == 429
        assert await change.of("logins_total", result="succeeded") == 1
        assert await change.of("logins_total", result="failed") == 10
        assert await change.of("logins_total", result="throttled") == 1

    async def test_reused_refresh_tokens_are_counted(
        self, ada: Caller, change: Change, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.auth.tokens.session_state.GRACE", timedelta(days=-1))
        token = ada.refresh_token
        await ada.post("/api/auth/refresh", token=token, json={"rotate": True})
        answer = await ada.post("/api/auth/refresh", token=token, json={"rotate": True})

        assert answer.json["code"] == "token-reused"
        assert await change.of("refresh_reuse_total") == 1

    async def test_idempotent_creates_are_counted_by_result(
        self, ada: Caller, change: Change
    ) -> None:
        async def create(name: str) -> int:
            fields = {"name": name, "price": 1}
            headers = {"Idempotency-Key": "k"}
            return (await ada.post("/api/products", json=fields, headers=headers)).status_code

        assert [await create("Lamp"), await create("Lamp"), await create("Desk")] == [201, 201, 422]
        for result in ("first", "replayed", "mismatch"):
            assert await change.of("idempotency_total", result=result) == 1

    async def test_conflicting_idempotent_creates_are_counted(
        self, ada: Caller, change: Change
    ) -> None:
        async def create(_: int) -> object:
            fields = {"name": "Lamp", "price": 1}
            headers = {"Idempotency-Key": "twin"}
            return await ada.post("/api/products", json=fields, headers=headers)

        answers = await at_once(4, create)  # type: ignore[arg-type]
        conflicts = sum(answer.status_code == 409 for answer in answers)

        assert conflicts > 0
        assert await change.of("idempotency_total", result="conflict") == conflicts

    async def test_pages_are_counted_by_result(
        self, app: Quart, ada: Caller, anyone: Caller, change: Change
    ) -> None:
        await ada.create_product("Lamp")
        await anyone.get("/api/products")
        await anyone.get("/api/products")
        await at_once(8, lambda _: Caller(app).get("/api/products?limit=7"))

        miss, shared, hit = [
            await change.of("pages_total", result=result) for result in ("miss", "shared", "hit")
        ]
        assert hit >= 1
        assert miss >= 2
        assert shared >= 1
        assert miss + shared + hit == 10

    async def test_write_batches_and_position_are_exposed(
        self, ada: Caller, change: Change
    ) -> None:
        answers = await at_once(12, lambda number: ada.create_product(f"Lamp {number}"))
        numbers = await Numbers.of(ada)

        assert await change.of("write_batch_size_sum") == 12
        assert await change.of("write_batch_size_count") < 12
        highest = max(int(answer.headers["Catalog-Position"]) for answer in answers)
        assert numbers.total("position") >= highest

    async def test_pools_are_exposed(self, ada: Caller, change: Change, app: Quart) -> None:
        await ada.create_product("Lamp")
        await ada.get("/api/products")
        numbers = await Numbers.of(ada)

        assert numbers.total("db_pool_size", pool="read") == 5
        assert numbers.total("db_pool_size", pool="write") == app_state(app).database.max_writers
        assert numbers.total("db_pool_in_use") == 0
        for pool in ("read", "write"):
            assert await change.of("db_pool_wait_seconds_count", pool=pool) >= 1

    async def test_password_hashes_beyond_the_queue_are_counted_as_shed(
        self, app: Quart, change: Change
    ) -> None:
        passwords = auth(app).passwords
        hashing = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(80)]
        results = await asyncio.gather(*hashing, return_exceptions=True)
        refused = sum(isinstance(result, Overloaded) for result in results)

        assert refused > 0
        assert await change.of("shed_total", reason="passwords") == refused

    async def test_pool_waits_and_time_outs_are_counted(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.app.DEADLINES", replace(PATIENT, checkout=2.0))
        app = create_app(settings)
        async with app.test_app():
            caller = Caller(app)
            change = await Change.since_now(caller)
            database, done = app_state(app).database, asyncio.Event()

            async def read(_: AsyncConnection) -> None:
                await done.wait()

            size = settings.database_pool_size
            readers = [
                asyncio.create_task(run_on(database.connection(), read)) for _ in range(size + 1)
            ]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            numbers = await Numbers.of(caller)
            late = await asyncio.gather(readers.pop(), return_exceptions=True)
            done.set()
            await asyncio.gather(*readers)

            assert numbers.total("db_pool_in_use", pool="read") == size
            assert numbers.total("db_pool_waiting", pool="read") == 1
            assert isinstance(late[0], DatabaseBusy)
            assert await change.of("db_pool_timeouts_total", pool="read") == 1
            assert await change.of("db_pool_wait_seconds_count", pool="read") == size

    async def test_retries_are_counted_by_code(self, app: Quart, change: Change) -> None:
        deadlock = DBAPIError("", {}, OperationalError(1213, "Deadlock found"))
        lost = DBAPIError("", {}, OperationalError(2013, "Lost"), connection_invalidated=True)
        failures = [deadlock, deadlock, lost]

        async def work(_: AsyncSession) -> None:
            if failures:
                raise failures.pop()

        await app_state(app).database.transaction(work)

        assert await change.of("retries_total", code="1213") == 2
        assert await change.of("retries_total", code="lost") == 1

    async def test_rate_limited_requests_are_counted_by_policy(self, settings: Settings) -> None:
        app = create_app(settings.model_copy(update={"login_limit": Rate(1, 60)}))
        async with app.test_app():
            caller = Caller(app)
            change = await Change.since_now(caller)

            statuses = [(await caller.log_in("nobody")).status_code for _ in range(3)]

            assert statuses == [401, 429, 429]
            assert await change.of("rate_limited_total", policy="login") == 2
            assert await change.of("logins_total") == 1

    @pytest.mark.parametrize(
        ("method", "path", "reason"),
        [("GET", "/api/users", "reads"), ("DELETE", "/api/products", "writes")],
    )
    async def test_requests_beyond_the_concurrency_limit_are_counted_as_shed(
        self, app: Quart, change: Change, method: str, path: str, reason: str
    ) -> None:
        admission: Any = app.asgi_app
        while not isinstance(admission, ConcurrencyLimit):
            admission = getattr(admission, "_asgi_app", None) or admission._app
        admission._reads.most = admission._writes.most = 0

        answer = await Caller(app).send(method, f"{path}/7")

        assert answer.status_code == 503
        assert await change.of("shed_total", reason=reason) == 1
        where = {"method": method, "route": f"{path}/<id>"}
        assert await change.of("http_requests_total", status="503", **where) == 1

    @pytest.mark.parametrize("reason", ["imports", "exports"])
    async def test_imports_and_exports_beyond_capacity_are_counted_as_shed(
        self, app: Quart, change: Change, reason: str
    ) -> None:
        places = getattr(products(app), reason)
        places._free = 0

        with pytest.raises(Overloaded), places.taken():
            pass

        assert await change.of("shed_total", reason=reason) == 1

    async def test_event_loop_lag_is_measured(self, anyone: Caller) -> None:
        before = await Numbers.of(anyone)
        time.sleep(0.3)
        async with asyncio.timeout(20):
            while True:
                numbers = await Numbers.of(anyone)
                if numbers.total("event_loop_lag_seconds_count") > before.total(
                    "event_loop_lag_seconds_count"
                ):
                    break
                await asyncio.sleep(0.01)

        lag = numbers.total("event_loop_lag_seconds_sum")
        assert lag - before.total("event_loop_lag_seconds_sum") > 0.2

    async def test_build_info_and_workers_are_exposed(self, anyone: Caller) -> None:
        numbers = await Numbers.of(anyone)

        assert numbers.total("workers") == 1
        (labels,) = numbers.series("build_info")
        assert dict(labels)["commit"] == "unknown"
