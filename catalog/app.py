"""Composition root: the one module that imports every part and wires them together."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from hypercorn.typing import ASGIFramework
from quart import Quart
from quart_schema import Tag

from catalog import migrations, operations
from catalog.auth import routes as auth_routes
from catalog.auth.account_reader import AccountReader
from catalog.auth.context import Auth, auth
from catalog.auth.guards import BEARER
from catalog.auth.passwords import login_throttle
from catalog.auth.passwords.hashing import Passwords
from catalog.auth.session_reader import SessionReader
from catalog.auth.tokens import api_keys, sessions
from catalog.auth.tokens.api_key_cache import ApiKeyCache
from catalog.auth.tokens.jwt import Tokens
from catalog.auth.tokens.revocations import POLL_SECONDS as REVOCATION_SECONDS
from catalog.auth.tokens.revocations import Revocations
from catalog.auth.tokens.signing_keys import KeyRing, signing_secret
from catalog.concurrency.background_tasks import BackgroundTask
from catalog.concurrency.loop_lag import LoopLag
from catalog.db.database import Database
from catalog.db.deadlines import DEADLINES
from catalog.errors import SettingsInvalid
from catalog.fastpath.direct import DirectPath
from catalog.fastpath.dispatch import Dispatcher, Operation
from catalog.http.adapter import CatalogApp
from catalog.http.context import AppExtension, AppState, app_state
from catalog.http.limit_store import create_store
from catalog.http.middleware.concurrency_limit import (
    MAX_READS,
    MAX_WRITES,
    UNBOUNDED,
    ConcurrencyLimit,
)
from catalog.http.middleware.cors import Cors
from catalog.http.middleware.exchange import ExchangeMiddleware
from catalog.http.middleware.proxies import TrustedProxies
from catalog.http.middleware.request_body import BODY_SECONDS, MAX_BODY_BYTES, BoundedBodies
from catalog.http.openapi import configure_openapi
from catalog.http.pagination import Cursors
from catalog.http.replies.problems import handle_errors
from catalog.http.response_buffers import MAX_BUFFERED_BYTES, STALL_SECONDS, ResponseBuffers
from catalog.http.routing import configure_routing, routes_of
from catalog.http.validation import configure_validation
from catalog.observability import metrics
from catalog.observability.task_log import TaskLog
from catalog.products import idempotency, service
from catalog.products import routes as products_routes
from catalog.products.changes import change_log
from catalog.products.changes.change_reader import ChangeReader
from catalog.products.changes.feed import POLL_SECONDS, Feed
from catalog.products.context import Products, products
from catalog.products.listing.page_cache import PageCache
from catalog.products.listing.page_request import PageRequests
from catalog.products.listing.product_reader import ProductReader
from catalog.products.writes import BatchedWrites
from catalog.settings import Settings, build_commit
from catalog.ui import assets as ui_assets
from catalog.ui import console as ui_console
from catalog.ui import console_session
from catalog.ui import routes as ui_routes

if TYPE_CHECKING:
    from catalog.http.middleware.tracing import TracedRequests
    from catalog.observability.tracing import Tracing

GAUGE_SECONDS = 0.5
"""Interval at which each process publishes its gauges; the other processes read them there."""

SWEEP_SECONDS = 600
"""Interval at which each process deletes expired rows; reads ignore them before."""

LAST_USED_SECONDS = 60
"""Interval at which each process writes when API keys were last used."""

SWEPT_AT_ONCE = 1000
"""Rows of a kind that one sweep transaction deletes, so that its locks are held only briefly."""

MAX_BATCHED_READS = 4096
"""Reads in progress of an operation that reads up to 64 in a round trip. Those that wait cost only
some 6 KB of memory each; how long they may wait has a bound of its own."""

MAX_CHANGE_READS = 1024
"""Reads of the change feed in progress; up to 8 share a round trip."""

HOT_OPERATIONS = (
    # Pages are shared by their readers, and the number of different ones has a bound.
    Operation("product_lists.list_products", UNBOUNDED),
    Operation("product_lists.list_my_products", UNBOUNDED),
    Operation("product_changes.list_changes", MAX_CHANGE_READS, waits_with=b"wait"),
    Operation("products.read_product", MAX_BATCHED_READS),
    Operation("account.read_account", MAX_BATCHED_READS),
    Operation("sign_in.get_refreshed_token", MAX_BATCHED_READS),
    *map(
        Operation,
        (
            *("products.create_product", "products.change_product", "products.delete_product"),
            *("sign_in.refresh_token", "sign_in.log_out", "sign_in.log_out_everywhere"),
            *("account.change_account", "account.list_sessions", "account.end_session"),
            *("users.list_users", "users.read_user", "users.change_user"),
            "operations.check_liveness",
        ),
    ),
)
"""Operations that are answered without the framework: all that are short, but for those that hash
passwords, which end when the client disconnects."""

direct_path = AppExtension[DirectPath]("catalog.direct_path")
"""The direct path of an app, which answers its hot requests."""

_TAGS = (
    Tag("auth", "Sign up and in; tokens, sessions, and the caller's own account."),
    Tag("users", "All accounts, for administrators."),
    Tag("products", "Lists, single products, imports and exports, and the log of changes."),
    Tag("operations", "Health, and the public keys of access tokens."),
)


def create_app(settings: Settings) -> Quart:
    """Build the application; connections are opened on first use.

    Raises:
        StartFailed: there is no signing key and none can be created.
        SettingsInvalid: a key cannot be used.
    """
    keys = KeyRing(settings, signing_secret(settings))
    app = CatalogApp("catalog", static_folder=None)
    # ``BoundedBodies`` limits bodies before the framework sees them.
    app.config["MAX_CONTENT_LENGTH"] = None
    # The server detects stalled clients by their progress; the framework would only bound the
    # whole response.
    app.config["RESPONSE_TIMEOUT"] = None
    database = Database(settings, metrics.DatabaseMetrics(), deadlines=DEADLINES)
    app_state.attach(
        app,
        AppState(
            settings=settings,
            database=database,
            cursors=Cursors(*keys.secrets),
            limits=create_store(settings.limits_url),
            known_revisions=migrations.known_revisions(),
            head_revision=migrations.head_revision(),
            buffers=ResponseBuffers(max_bytes=MAX_BUFFERED_BYTES, timeout=STALL_SECONDS),
        ),
    )
    Tokens(app, keys, settings)
    revocations = Revocations(
        database,
        access_token_ttl=settings.access_token_ttl,
        # A COMMIT that is abandoned at the deadline may still take effect later, for instance when
        # a replica or the disk has acknowledged it; nothing bounds that time.
        lateness=3 * timedelta(seconds=database.deadlines.write),
    )
    cache = ApiKeyCache(database, revocations)
    readers = AccountReader(database), SessionReader(database)
    on_delete = service.delete_products_of
    auth.attach(app, Auth(keys, Passwords(settings), revocations, cache, *readers, on_delete))
    products.attach(app, _products(database, app_state(app).cursors))
    configure_routing(app)
    configure_validation(app)
    configure_openapi(app, tags=_TAGS, bearer=BEARER)
    handle_errors(app)
    blueprints = (*auth_routes.blueprints, *products_routes.blueprints)
    pages = (ui_console, console_session, ui_assets, ui_routes)
    for blueprint in (*blueprints, operations.blueprint, *(each.blueprint for each in pages)):
        app.register_blueprint(blueprint)
    tasks = _tasks(app)
    app.before_serving(partial(_open, app, tasks))
    app.after_serving(partial(_close, app, tasks))
    _wrap(app, settings)
    return app


def _products(database: Database, cursors: Cursors) -> Products:
    page_cache = PageCache(database)
    writes = BatchedWrites(database, page_cache)
    return Products(
        PageRequests(cursors),
        page_cache,
        ProductReader(database),
        ChangeReader(database),
        writes,
        Feed(database),
    )


def _wrap(app: Quart, settings: Settings) -> None:
    """Wrap the framework in middleware; the one added last sees a request first."""
    state = app_state(app)
    dispatcher = Dispatcher(app, HOT_OPERATIONS if settings.fast_path == "on" else ())
    admitted = ConcurrencyLimit(
        dispatcher,
        max_reads=MAX_READS,
        max_writes=MAX_WRITES,
        unlimited=(*operations.HEALTH, products_routes.WAITING),
        own_capacity=dispatcher.capacity_of,
    )
    bounded = BoundedBodies(
        admitted,
        max_bytes=MAX_BODY_BYTES,
        timeout=BODY_SECONDS,
        streamed=products_routes.STREAMED,
    )
    # Below the headers of all responses, and above all that refuses requests.
    cors = Cors(bounded, settings.cors_origins) if settings.cors_origins else None
    exchanges = ExchangeMiddleware(
        cors or bounded, app, quiet=operations.HEALTH, route_of=routes_of(app)
    )
    state.gauges.append(
        lambda: metrics.measure(
            in_progress=exchanges.in_progress,
            pools=state.database.pools,
            followers=products(app).feed.followers,
            tasks=len(asyncio.all_tasks()),
            request_body_bytes=bounded.waiting_bytes,
            response_buffer_bytes=state.buffers.held_bytes,
        )
    )
    metrics.set_build_info(build_commit())
    traced = _traced(app, exchanges, settings)
    proxies = TrustedProxies(traced or exchanges, settings.trusted_proxies, settings.root_path)
    direct = DirectPath(
        proxies,
        dispatcher=dispatcher,
        proxies=proxies,
        exchanges=exchanges,
        limit=admitted,
        cors=cors,
        root_path=settings.root_path,
        traced=None if traced is None else traced.traced,
    )
    direct_path.attach(app, direct)
    # The framework's documented way.
    app.asgi_app = direct if settings.fast_path == "on" else proxies  # type: ignore[method-assign]


def _traced(app: Quart, asgi_app: ASGIFramework, settings: Settings) -> "TracedRequests | None":
    """Wrap the application in request tracing, if it is enabled.

    Raises:
        SettingsInvalid: the packages for tracing are missing.
    """
    if settings.tracing == "off":
        return None
    traced_requests, tracing_of = tracing_classes()
    tracing = tracing_of(build_commit())
    tracing.watch(app_state(app).database.engines)
    app.after_serving(tracing.close)
    return traced_requests(asgi_app, tracing.tracer)


def tracing_classes() -> "tuple[type[TracedRequests], type[Tracing]]":
    """Import the classes that make spans: of requests, and of statements.

    Raises:
        SettingsInvalid: the packages for tracing are missing.
    """
    try:
        # Imported late: an optional extra must cost nothing where it is not used.
        from catalog.http.middleware.tracing import TracedRequests
        from catalog.observability.tracing import Tracing
    except ImportError as error:
        fault = f"CATALOG_TRACING needs packages: pip install 'catalog[otel]' ({error})"
        raise SettingsInvalid([fault]) from None
    return TracedRequests, Tracing


def _tasks(app: Quart) -> list[BackgroundTask | LoopLag]:
    """Create the background tasks that run while the app serves."""
    database, revocations = app_state(app).database, auth(app).revocations
    outdated: tuple[tuple[str, Callable[..., Awaitable[int]], dict[str, Any]], ...] = (
        ("sweep_sessions", sessions.sweep, {"kept_ended": revocations.kept}),
        ("sweep_api_keys", api_keys.sweep, {"kept_revoked": revocations.kept}),
        ("sweep_login_throttle", login_throttle.sweep, {}),
        ("sweep_changes", change_log.sweep, {"kept": change_log.RETENTION}),
        ("sweep_idempotency_keys", idempotency.sweep, {"kept": idempotency.RETENTION}),
    )
    sweeps = [
        BackgroundTask(
            partial(_sweep, partial(database.transaction, sweep, **options, limit=SWEPT_AT_ONCE)),
            TaskLog(name),
            interval_seconds=SWEEP_SECONDS,
            jitter=1,
        )
        for name, sweep, options in outdated
    ]
    refresh = BackgroundTask(
        revocations.poll,
        TaskLog("revocations"),
        interval_seconds=REVOCATION_SECONDS,
        at_once=True,
    )
    last_used = BackgroundTask(
        auth(app).api_key_cache.write_last_used,
        TaskLog("api_keys_last_used"),
        interval_seconds=LAST_USED_SECONDS,
        jitter=1,
    )
    poll = BackgroundTask(
        products(app).feed.poll, TaskLog("changes"), interval_seconds=POLL_SECONDS
    )
    gauges = BackgroundTask(
        partial(_measure, app), TaskLog("gauges"), interval_seconds=GAUGE_SECONDS, at_once=True
    )
    lag = LoopLag(metrics.LOOP_LAG_SECONDS.observe)
    return [refresh, last_used, poll, gauges, lag, *sweeps]


async def _measure(app: Quart) -> None:
    for measure in app_state(app).gauges:
        measure()


async def _sweep(portion: Callable[[], Awaitable[int]]) -> None:
    """Delete in batches, one transaction each, until a batch was not full."""
    while await portion() >= SWEPT_AT_ONCE:
        pass


async def _open(app: Quart, tasks: list[BackgroundTask | LoopLag]) -> None:
    app_state(app).access_log.open()
    await app_state(app).limits.open()
    for task in tasks:
        await task.start()


async def _close(app: Quart, tasks: list[BackgroundTask | LoopLag]) -> None:
    for task in tasks:
        await task.stop()
    await products(app).writes.close()
    await app_state(app).limits.close()
    await app_state(app).database.close()
    auth(app).passwords.close()
    await app_state(app).access_log.close()


def begin_drain(app: Quart) -> None:
    """Fail the readiness check, close each connection with its next response, and end streams."""
    app_state(app).draining = True
    products(app).feed.end()
