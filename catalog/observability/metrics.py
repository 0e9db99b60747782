"""Metrics, as listed in docs/monitoring.md and exposed at ``/metrics``.

Names and units follow Prometheus' conventions. Labels have few values, known in advance: the route
template instead of the path, the policy instead of the client. Known label values start at 0, so
that the first event shows as an increase.
"""

import platform
import re
from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    values,
)

from catalog.observability.shared_values import shared_value_class, value_of, values_of
from catalog.settings import SharedMetrics, shared_metrics

REGISTRY: Final = CollectorRegistry()


def _share(place: SharedMetrics | None) -> SharedMetrics | None:
    """Use shared values if there is room for their files, else values of this process alone."""
    # The library reads this when it creates a metric, so it is set before all of them. The
    # library's own choice would depend on the environment alone, and name files by process id.
    values.ValueClass = values.MutexValue
    if place is not None:
        try:
            values.ValueClass = shared_value_class(place)
        except OSError:
            return None
    return place


SHARED: Final = _share(shared_metrics())
"""Location of the metrics shared with other workers; None if this process counts alone."""

METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
"""Methods of RFC 9110 and RFC 5789; any other is counted as ``other``."""

OTHER: Final = "other"

GONE: Final = 499
"""Status, as in nginx, of a request whose client disconnected before the response began."""

DURATIONS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1),
    0.2,  # Latency target of reads: a share of requests can only be read at a bucket's bound.
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
BATCH_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)

Pool = Literal["read", "write"]
Shed = Literal[
    "reads",
    "writes",
    "heads",
    "bodies",
    "passwords",
    "pages",
    "imports",
    "exports",
    "followers",
    "responses",
]

# A series may outlive the process that created it, so its creation time is meaningless.
disable_created_metrics()


def _counter(name: str, meaning: str, label: str = "", known: Iterable[str] = ()) -> Counter:
    counter = Counter(f"catalog_{name}", meaning, [label] if label else [], registry=REGISTRY)
    for value in known:
        counter.labels(value)
    return counter


def _gauge(name: str, meaning: str, *labels: str, highest: bool = False) -> Gauge:
    """Create a gauge that is the sum, or the maximum, over the live workers."""
    mode: Literal["livemax", "livesum"] = "livemax" if highest else "livesum"
    return Gauge(f"catalog_{name}", meaning, labels, registry=REGISTRY, multiprocess_mode=mode)


def _histogram(name: str, meaning: str, *labels: str, buckets: Iterable[float]) -> Histogram:
    return Histogram(f"catalog_{name}", meaning, labels, registry=REGISTRY, buckets=tuple(buckets))


REQUESTS = Counter(
    "catalog_http_requests_total",
    "Requests answered.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
REQUEST_SECONDS = _histogram(
    "http_request_duration_seconds",
    "Time from the request's head to the end of its response.",
    *("method", "route"),
    buckets=DURATIONS,
)
REQUESTS_IN_PROGRESS = _gauge("http_requests_in_progress", "Requests in progress.")
REQUEST_BODY_BYTES = _gauge(
    "http_request_body_bytes", "Bytes held of request bodies that are incomplete."
)
RESPONSE_BUFFER_BYTES = _gauge(
    "http_response_buffer_bytes", "Bytes of responses that clients have not read yet."
)
STALLED_CLIENTS = _counter(
    "http_stalled_clients_total",
    "Connections dropped because their clients read nothing, or read slowest at the limit.",
)

POOL_SIZE = _gauge("db_pool_size", "Maximum number of connections.", "pool")
POOL_IN_USE = _gauge("db_pool_in_use", "Connections in use.", "pool")
POOL_WAITING = _gauge("db_pool_waiting", "Units of work waiting for a connection.", "pool")
POOL_TIMEOUTS = _counter(
    "db_pool_timeouts_total", "Time-outs while waiting for a connection.", "pool", ("read", "write")
)
POOL_WAIT_SECONDS = _histogram(
    "db_pool_wait_seconds", "Time spent waiting for a connection.", "pool", buckets=DURATIONS
)
RETRIES = _counter(
    "retries_total",
    "Transactions retried.",
    "code",
    ("1020", "1205", "1213", "lost", "outdated"),
)

LOGINS = _counter(
    "logins_total", "Log-in attempts.", "result", ("succeeded", "failed", "throttled")
)
REFRESH_REUSE = _counter("refresh_reuse_total", "Superseded refresh tokens that were reused.")
RATE_LIMITED = _counter(
    "rate_limited_total",
    "Requests rejected by a rate limit.",
    "policy",
    ("signup", "login", "refresh", "read", "write"),
)
SHED = _counter(
    "shed_total",
    "Requests shed because a capacity limit was reached.",
    "reason",
    Shed.__args__,  # type: ignore[attr-defined]  # of a Literal
)

LINES_DROPPED = _counter(
    "access_log_dropped_total", "Lines of the access log dropped because nothing took them in time."
)

PAGES = _counter("pages_total", "List pages requested.", "result", ("hit", "shared", "miss"))
WRITE_BATCH_SIZE = _histogram(
    "write_batch_size", "Writes of single products per transaction.", buckets=BATCH_SIZES
)
POSITION = _gauge("position", "Highest known position of a change.", highest=True)
FOLLOWERS = _gauge("change_subscribers", "Clients waiting for changes.")
EVENT_LOOP_TASKS = _gauge("event_loop_tasks", "Unfinished asyncio tasks.")
IDEMPOTENCY = _counter(
    "idempotency_total",
    "Creates with an Idempotency-Key.",
    "result",
    ("first", "replayed", "conflict", "mismatch"),
)

LOOP_LAG_SECONDS = _histogram(
    "event_loop_lag_seconds",
    "Delay of timer callbacks of the event loop, measured 20 times a second.",
    buckets=DURATIONS,
)

WORKERS = _gauge("workers", "Running worker processes.")
WORKER_RESTARTS = _counter("worker_restarts_total", "Workers that died and were replaced.")
BUILD_INFO = _gauge(
    "build_info",
    "Always 1; the labels identify the build.",
    "version",
    "commit",
    "python",
    highest=True,
)


class _Series:
    """Resolved metrics of one kind of request; the library's look-up costs more than counting."""

    __slots__ = ("_bounds", "_buckets", "_count", "_seconds")

    def __init__(self, method: str, route: str, status: int) -> None:
        self._count = value_of(REQUESTS.labels(method, route, status))
        self._seconds, self._buckets, self._bounds = values_of(
            REQUEST_SECONDS.labels(method, route)
        )

    def count(self, seconds: float) -> None:
        self._count.inc(1)
        self._seconds.inc(seconds)
        # The library searches buckets linearly, which is slow for requests beyond the first ones.
        self._buckets[bisect_left(self._bounds, seconds)].inc(1)


_series: dict[tuple[str, str, int], _Series] = {}


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a completed request.

    Args:
        method: method as the client sent it.
        route: route template in the framework's syntax.
        status: status code of the response.
        seconds: total duration.
    """
    series = _series.get((method, route, status))
    if series is None:
        # Unknown methods are folded into one key, so that clients cannot grow the cache.
        method = method if method in METHODS else OTHER
        key = method, route, status
        series = _series.setdefault(
            key, _series.get(key) or _Series(method, label_of(route), status)
        )
    series.count(seconds)


@lru_cache(256)
def label_of(route: str) -> str:
    """Return a route template in the documentation's form: ``/api/products/<id>``."""
    return re.sub(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>", lambda m: f"<{m[1] or m[2]}>", route)


def count_rejection(reason: Shed) -> None:
    """Count a request that is rejected by load shedding."""
    SHED.labels(reason).inc()


def count_dropped_lines(count: int) -> None:
    """Count lines of the access log that are dropped."""
    LINES_DROPPED.inc(count)


_page_hits = value_of(PAGES.labels("hit"))


def count_page_hit() -> None:
    """Count a cache hit of a page; resolved in advance, as it is the most frequent event."""
    _page_hits.inc(1)


class _Positions:
    """Highest change position known to this process."""

    def __init__(self) -> None:
        self.highest = 0

    def saw(self, position: int) -> None:
        """Record a committed position."""
        if position > self.highest:
            self.highest = position


_positions = _Positions()
observe_position = _positions.saw


class DatabaseMetrics:
    """Observer of the database that counts its events."""

    def __init__(self) -> None:
        self._waits = {pool: POOL_WAIT_SECONDS.labels(pool) for pool in ("read", "write")}

    def waited(self, pool: Pool, seconds: float) -> None:
        """Record that a unit of work got a connection after a wait."""
        self._waits[pool].observe(seconds)

    def timed_out(self, pool: Pool) -> None:
        """Count a unit of work that timed out waiting for a connection."""
        POOL_TIMEOUTS.labels(pool).inc()

    def expired(self) -> None:
        """Count a read that is rejected because it has waited too long for its batch."""
        count_rejection("reads")

    def retried(self, code: str) -> None:
        """Count a retry of a transaction by the engine's error number, ``lost`` or ``outdated``."""
        RETRIES.labels(code).inc()


def measure(
    *,
    in_progress: int,
    pools: Iterable[tuple[Pool, int, int, int]],
    followers: int,
    tasks: int,
    request_body_bytes: int,
    response_buffer_bytes: int,
) -> None:
    """Publish the gauges.

    Values that change with each request are sampled instead of being written each time.

    Args:
        in_progress: requests in progress.
        pools: for each pool its name, its size, its connections in use, and the units of work that
            wait for one.
        followers: clients that wait for changes.
        tasks: unfinished tasks of the event loop.
        request_body_bytes: bytes of incomplete request bodies.
        response_buffer_bytes: bytes of responses that clients have not received yet.
    """
    REQUESTS_IN_PROGRESS.set(in_progress)
    REQUEST_BODY_BYTES.set(request_body_bytes)
    RESPONSE_BUFFER_BYTES.set(response_buffer_bytes)
    for pool, size, in_use, waiting in pools:
        POOL_SIZE.labels(pool).set(size)
        POOL_IN_USE.labels(pool).set(in_use)
        POOL_WAITING.labels(pool).set(waiting)
    FOLLOWERS.set(followers)
    EVENT_LOOP_TASKS.set(tasks)
    POSITION.set(_positions.highest)


def set_build_info(commit: str) -> None:
    """Publish this worker and its build information."""
    WORKERS.set(1)
    BUILD_INFO.labels(version("catalog"), commit, platform.python_version()).set(1)
