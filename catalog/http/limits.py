"""Rate limits per client address: a decorator declares the policy, every response reports it.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10, a work in progress:
``RateLimit-Policy`` holds the policy, ``RateLimit`` what is left of it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, ParamSpec, TypeVar, get_args

from catalog.errors import TooManyRequests
from catalog.http.context import AppState, app_state
from catalog.http.limit_store import Count
from catalog.http.request import Client, current_request
from catalog.observability.metrics import RATE_LIMITED
from catalog.settings import Rate, Settings

P = ParamSpec("P")
T = TypeVar("T")

View = Callable[P, Awaitable[T]]
Policy = Literal["signup", "login", "refresh", "read", "write"]

POLICIES: tuple[Policy, ...] = get_args(Policy)
"""Each has its setting, ``<policy>_limit``, or a fixed rate; handlers with the same policy share
its counts."""

HEADERS = ("RateLimit-Policy", "RateLimit")
"""Headers on the responses of a limited handler while its policy is on."""

FIXED_RATES: dict[Policy, Rate | None] = {"refresh": Rate(6000, 60)}
"""Rates that are no settings. A refresh needs a token, so nothing can be guessed by repeating it,
and the rate is what thousands of clients behind one address need."""

_LIMIT_ATTRIBUTE = "catalog_limit"


def limited(policy: Policy) -> Callable[[View[P, T]], View[P, T]]:
    """Count each request against a policy before any other work is done for it."""

    def decorator(view: View[P, T]) -> View[P, T]:
        @wraps(view)
        async def limited_view(*args: P.args, **kwargs: P.kwargs) -> T:
            state = app_state()
            if rate_of(state.settings, policy) is not None:
                await _admit(state, policy)
            return await view(*args, **kwargs)

        setattr(limited_view, _LIMIT_ATTRIBUTE, policy)
        return limited_view

    return decorator


def limit_of(view: object) -> Policy | None:
    """Return the policy that a view declares, whether it is on or off."""
    return getattr(view, _LIMIT_ATTRIBUTE, None)


def rate_of(settings: Settings, policy: Policy) -> Rate | None:
    """Return the rate that a policy allows; None when it is off."""
    if policy in FIXED_RATES:
        return FIXED_RATES[policy]
    rate: Rate | None = getattr(settings, f"{policy}_limit")
    return rate


@dataclass(frozen=True, slots=True)
class Counted:
    """A counted request and the state of its client's limit."""

    policy: Policy
    rate: Rate
    count: Count

    def admit(self) -> None:
        """Admit the request.

        Raises:
            TooManyRequests: the request is beyond the limit.
        """
        if not self.count.admitted:
            RATE_LIMITED.labels(self.policy).inc()
            requests, seconds = self.rate.requests, self.rate.seconds
            raise TooManyRequests(
                f"The limit is {requests} requests per address in {seconds} seconds.",
                retry_after_seconds=self.count.reset_seconds,
            )

    def headers(self) -> dict[str, str]:
        """Return the rate limit headers of the response, whatever its status."""
        policy, rate, count = self.policy, self.rate, self.count
        return {
            "RateLimit-Policy": f'"{policy}";q={rate.requests};w={rate.seconds}',
            "RateLimit": f'"{policy}";r={count.remaining};t={count.reset_seconds}',
        }


async def count_request(state: AppState, policy: Policy, client: Client) -> Counted | None:
    """Count a client's request; return None while the policy is off."""
    rate = rate_of(state.settings, policy)
    if rate is None:
        return None
    who = network_of(client)
    # The key holds the rate, because counts under different rates are not comparable.
    count = await state.limits.hit(rate, f"{policy}/{rate.requests}/{rate.seconds}/{who}")
    return Counted(policy, rate, count)


async def _admit(state: AppState, policy: Policy) -> None:
    request = current_request()
    counted = await count_request(state, policy, request.client)
    if counted is not None:
        # Sent with the response, whatever its status.
        request.limit_headers = counted.headers()
        counted.admit()


def client_network() -> str:
    """Return the network that the current request counts for."""
    return network_of(current_request().client)


def network_of(client: Client) -> str:
    """Return the network that requests from an address count for.

    That is an IPv4 address, or the /64 of an IPv6 address, within which a client chooses freely.
    All requests through a unix socket without a forwarded address count as one client, ``local``.
    """
    try:
        address = ip_address(client[0] if client else "")
    except ValueError:
        return "local"
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
