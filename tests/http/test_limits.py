"""Rate limits: identity of clients, response headers, and rejections."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from quart import Quart
from structlog.testing import capture_logs

from catalog.http.context import app_state
from catalog.http.limit_store import CircuitBreaker, MemoryStore
from catalog.http.limit_store.redis import RedisStore
from catalog.http.limits import FIXED_RATES, POLICIES, limit_of, network_of, rate_of
from catalog.http.openapi import document_of
from catalog.settings import Rate
from tests.http.redis_server import RedisServer
from tests.http.wire import JSON, Header, app_without_database, exchange, holder_of_tokens
from tests.numbers import Change
from tests.support import Caller, Response, problem_of

LOGIN = "/api/auth/login"
REFRESH = "/api/auth/refresh"

# Long enough that a window hardly ever ends during a test.
FEW = Rate(3, 3600)


@pytest.fixture
def make_app(tmp_path: Path) -> Callable[..., Quart]:
    """Return a factory of apps without a database, with the given limits."""

    def make(**overrides: Any) -> Quart:
        return app_without_database(tmp_path, **overrides)

    return make


@asynccontextmanager
async def started(app: Quart, redis: RedisServer | None = None) -> AsyncIterator[Quart]:
    """Start an app; with a Redis, let it count there, with a time-out of 10 s."""
    if redis is not None:
        shared = RedisStore(redis.url, timeout_seconds=10)
        app_state(app).limits = CircuitBreaker(shared, MemoryStore(), probe_interval_seconds=0.05)
    async with app.test_app():
        yield app


async def log_in(
    app: Quart,
    client: tuple[str, int] | None = ("192.0.2.1", 50000),
    headers: Iterable[Header] = (),
) -> Response:
    """Send a log-in that is rejected before any query."""
    return await exchange(app, "POST", LOGIN, headers=[JSON, *headers], body=[b"{}"], client=client)


async def statuses(app: Quart, count: int, **options: Any) -> list[int]:
    """Return the sorted statuses of ``count`` concurrent log-ins."""
    answers = await asyncio.gather(*(log_in(app, **options) for _ in range(count)))
    return sorted(answer.status_code for answer in answers)


def standing(answer: Response) -> tuple[str, str]:
    """Return the policy and the remaining count of a response, without the seconds, which vary."""
    name, remaining, seconds = answer.headers["RateLimit"].split(";")
    assert 1 <= int(seconds.removeprefix("t=")) <= 86400
    return answer.headers["RateLimit-Policy"], f"{name};{remaining}"


class TestResponses:
    async def test_response_states_the_remaining_requests(
        self, make_app: Callable[..., Quart]
    ) -> None:
        app = make_app(login_limit=FEW)

        answers = [await log_in(app) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [422] * 3
        assert [standing(answer) for answer in answers] == [
            ('"login";q=3;w=3600', '"login";r=2'),
            ('"login";q=3;w=3600', '"login";r=1'),
            ('"login";q=3;w=3600', '"login";r=0'),
        ]

    async def test_rejection_is_a_problem_with_retry_after(
        self, make_app: Callable[..., Quart]
    ) -> None:
        app = make_app(login_limit=FEW)
        await statuses(app, 3)
        change = await Change.since_now(Caller(app))

        refused = await log_in(app)

        assert problem_of(refused) == (429, "rate-limited")
        assert standing(refused) == ('"login";q=3;w=3600', '"login";r=0')
        # Retry-After must not be earlier than the reset (draft -10, section 5).
        assert refused.headers["RateLimit"].endswith(f";t={refused.headers['Retry-After']}")
        assert refused.json["detail"] == "The limit is 3 requests per address in 3600 seconds."
        assert await change.of("rate_limited_total", policy="login") == 1

    async def test_request_is_admitted_after_retry_after(
        self, make_app: Callable[..., Quart]
    ) -> None:
        app = make_app(login_limit=Rate(2, 1))
        while (refused := await log_in(app)).status_code != 429:
            pass

        await asyncio.sleep(int(refused.headers["Retry-After"]) + 0.05)

        assert (await log_in(app)).status_code == 422

    async def test_success_states_the_limit(self, app: Quart) -> None:
        signed_up = await Caller(app).sign_up("ada")

        assert signed_up.status_code == 201
        assert standing(signed_up) == ('"signup";q=120;w=60', '"signup";r=119')

    async def test_database_failure_states_the_limit(self, make_app: Callable[..., Quart]) -> None:
        failed = await Caller(make_app()).log_in("ada")

        assert failed.status_code == 503
        assert standing(failed) == ('"login";q=600;w=60', '"login";r=599')

    async def test_unlimited_route_has_no_limit_headers(
        self, make_app: Callable[..., Quart]
    ) -> None:
        app = make_app(login_limit=None)

        answers = [await log_in(app), await Caller(app).get("/livez")]
        answers += [await Caller(app).get("/api/products?limit=0")]

        for answer in answers:
            assert not {"RateLimit", "RateLimit-Policy"} & set(answer.headers.keys())

    async def test_disabled_limit_admits_any_number(self, make_app: Callable[..., Quart]) -> None:
        assert await statuses(make_app(login_limit=None), 50) == [422] * 50


class TestCounting:
    async def test_concurrent_requests_are_admitted_up_to_the_limit(
        self, make_app: Callable[..., Quart]
    ) -> None:
        app = make_app(login_limit=Rate(20, 3600))

        assert await statuses(app, 60) == [422] * 20 + [429] * 40

    async def test_limit_is_checked_before_authentication(
        self, make_app: Callable[..., Quart], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(FIXED_RATES, "refresh", FEW)
        app = make_app()

        answers = [await Caller(app).post(REFRESH) for _ in range(4)]

        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]

    async def test_refresh_by_get_and_post_shares_a_limit(
        self, make_app: Callable[..., Quart], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(FIXED_RATES, "refresh", FEW)
        app = make_app()

        answers = [
            await Caller(app).send(method, REFRESH)
            for method in ("GET", "POST", "HEAD", "POST", "GET")
        ]

        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]

    async def test_policies_are_counted_separately(
        self, make_app: Callable[..., Quart], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(FIXED_RATES, "refresh", FEW)
        app = make_app(login_limit=FEW, signup_limit=FEW)
        await statuses(app, 4)

        answers = [
            await exchange(app, "POST", path, headers=[JSON], body=[b"{}"])
            for path in (LOGIN, "/api/auth/signup", REFRESH)
        ]

        assert [answer.status_code for answer in answers] == [429, 422, 401]

    async def test_reads_and_writes_are_limited_separately(
        self, make_app: Callable[..., Quart]
    ) -> None:
        app = make_app(read_limit=FEW, write_limit=Rate(1, 3600))
        ada = await holder_of_tokens(app)

        reads = [await ada.get("/api/products?limit=0") for _ in range(4)]
        writes = [await ada.post("/api/products", json={}) for _ in range(2)]

        assert [answer.status_code for answer in reads] == [422, 422, 422, 429]
        assert [answer.status_code for answer in writes][1:] == [429]
        assert standing(reads[0])[0] == '"read";q=3;w=3600'
        assert standing(writes[0])[0] == '"write";q=1;w=3600'

    async def test_options_is_not_counted(self, make_app: Callable[..., Quart]) -> None:
        app = make_app(login_limit=Rate(1, 3600))

        for _ in range(3):
            assert (await Caller(app).send("OPTIONS", LOGIN)).status_code == 204


class TestClients:
    @pytest.mark.parametrize(
        ("address", "network"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::1", "::/64"),
            ("<local>", "local"),
            ("", "local"),
        ],
    )
    def test_client_is_an_ipv4_address_or_an_ipv6_network(self, address: str, network: str) -> None:
        assert network_of((address, 50000)) == network

    def test_unix_socket_peers_are_one_client(self) -> None:
        assert network_of(None) == network_of(("<local>", 0)) == "local"

    @pytest.mark.parametrize(
        ("first", "second", "same"),
        [
            ("192.0.2.1", "192.0.2.2", False),
            ("192.0.2.1", "::ffff:192.0.2.1", True),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", True),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
            ("<local>", "<local>", True),
        ],
    )
    async def test_addresses_share_a_limit_if_they_are_one_client(
        self, make_app: Callable[..., Quart], first: str, second: str, same: bool
    ) -> None:
        app = make_app(login_limit=FEW)

        await statuses(app, 3, client=(first, 50000))

        assert (await log_in(app, (second, 60000))).status_code == (429 if same else 422)

    async def test_forged_forwarded_address_does_not_reset_the_limit(
        self, make_app: Callable[..., Quart]
    ) -> None:
        app = make_app(login_limit=FEW)

        answers = [
            await log_in(app, headers=[(b"x-forwarded-for", f"198.51.100.{n}".encode())])
            for n in range(4)
        ]

        assert [answer.status_code for answer in answers] == [422, 422, 422, 429]

    async def test_client_is_the_address_named_by_a_trusted_proxy(
        self, make_app: Callable[..., Quart]
    ) -> None:
        app = make_app(login_limit=Rate(1, 3600), trusted_proxies="10.0.0.0/8")
        proxy = ("10.0.0.1", 50000)

        # The client can forge everything left of the address that the proxy adds.
        answers = [
            await log_in(app, proxy, [(b"x-forwarded-for", claimed)])
            for claimed in (b"198.51.100.1", b"198.51.100.2", b"203.0.113.9, 198.51.100.1")
        ]

        assert [answer.status_code for answer in answers] == [422, 422, 429]


class TestDocument:
    def responses_of(self, app: Quart, path: str, method: str) -> dict[str, Any]:
        responses: dict[str, Any] = document_of(app)["paths"][path][method]["responses"]
        return responses

    @pytest.mark.parametrize(
        ("path", "method"),
        [("/api/auth/signup", "post"), (LOGIN, "post"), (REFRESH, "post"), (REFRESH, "get")],
    )
    def test_document_has_the_rejection_and_the_headers(
        self, make_app: Callable[..., Quart], path: str, method: str
    ) -> None:
        responses = self.responses_of(make_app(), path, method)

        assert "`rate-limited`" in responses["429"]["description"]
        assert "Retry-After" in responses["429"]["headers"]
        for response in responses.values():
            assert {"RateLimit", "RateLimit-Policy"} <= set(response["headers"])

    def test_document_omits_disabled_limits(self, make_app: Callable[..., Quart]) -> None:
        by_default = self.responses_of(make_app(), "/api/products", "get")
        when_on = self.responses_of(make_app(read_limit=FEW), "/api/products", "get")

        assert "429" not in by_default
        assert "RateLimit" not in by_default["200"]["headers"]
        assert "429" in when_on
        assert "RateLimit" in when_on["200"]["headers"]


class TestPolicies:
    def test_policies_have_a_setting_each(self, make_app: Callable[..., Quart]) -> None:
        settings = app_state(make_app()).settings

        rates = {policy: rate_of(settings, policy) for policy in POLICIES}

        assert rates == {
            "signup": Rate(120, 60),
            "login": Rate(600, 60),
            "refresh": Rate(6000, 60),
            "read": None,
            "write": None,
        }

    def test_policies_are_all_used(self, make_app: Callable[..., Quart]) -> None:
        views = make_app().view_functions.values()

        assert {limit_of(view) for view in views} == {*POLICIES, None}


class TestSharedStore:
    async def test_instances_share_a_limit(
        self, make_app: Callable[..., Quart], redis: RedisServer
    ) -> None:
        limit = Rate(20, 3600)
        async with (
            started(make_app(login_limit=limit), redis) as one,
            started(make_app(login_limit=limit), redis) as other,
        ):
            both = await asyncio.gather(statuses(one, 30), statuses(other, 30))

        assert sorted(both[0] + both[1]) == [422] * 20 + [429] * 40

    async def test_requests_are_answered_when_the_store_is_killed(
        self, make_app: Callable[..., Quart], redis: RedisServer
    ) -> None:
        async with started(make_app(login_limit=Rate(20, 3600)), redis) as app:
            with capture_logs() as logs:
                before = await statuses(app, 10)
                asking = asyncio.gather(*(log_in(app) for _ in range(30)))
                await asyncio.sleep(0)
                redis.kill()
                during = [answer.status_code for answer in await asking]
                after = await statuses(app, 30)
                await redis.start()
                async with asyncio.timeout(30):
                    while not any(log["event"] == "rate_limit_store_recovered" for log in logs):
                        await asyncio.sleep(0.02)
                again = await statuses(app, 30)

        assert before == [422] * 10
        assert set(during) | set(after) <= {422, 429}
        # Local limits: at least the limit, at most that plus what the shared store admitted.
        assert 20 <= during.count(422) + after.count(422) <= 20 + 10
        assert again == [422] * 20 + [429] * 10
        events = [log["event"] for log in logs if "store" in log["event"]]
        assert events == ["rate_limit_store_unavailable", "rate_limit_store_recovered"]

    async def test_service_starts_without_the_store(
        self, make_app: Callable[..., Quart], redis: RedisServer
    ) -> None:
        redis.kill()

        with capture_logs() as logs:
            async with started(make_app(login_limit=FEW, limits_url=redis.url)) as app:
                at_start = [log["event"] for log in logs]
                answers = await statuses(app, 10)

        assert answers == [422] * 3 + [429] * 7
        assert "rate_limit_store_unavailable" in at_start
        assert [log["event"] for log in logs].count("rate_limit_store_unavailable") == 1

    async def test_service_disconnects_from_the_store_on_shutdown(
        self, make_app: Callable[..., Quart], redis: RedisServer
    ) -> None:
        async def connections() -> int:
            return int((await redis.ask("INFO", "clients"))["connected_clients"])

        alone = await connections()
        async with started(make_app(limits_url=redis.url)) as app:
            await log_in(app)
            serving = await connections()

        assert serving == alone + 1
        assert await connections() == alone
