"""How often a client address may ask: one decorator states it, and every answer tells.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10, a work in progress: what the
policy is in ``RateLimit-Policy``, what is left of it in ``RateLimit``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, ParamSpec, TypeVar, get_args

from quart import Quart, Response, g, request

from catalog.errors import TooManyRequests
from catalog.http.context import AppState, running
from catalog.http.limit_store import Count
from catalog.observability.metrics import RATE_LIMITED
from catalog.settings import Rate, Settings

P = ParamSpec("P")
T = TypeVar("T")

View = Callable[P, Awaitable[T]]
Client = tuple[str, int] | None
"""What ASGI calls a client: address and port."""

Policy = Literal["signup", "login", "refresh", "read", "write"]

POLICIES: tuple[Policy, ...] = get_args(Policy)
"""Each has its setting, ``<policy>_limit``; handlers with the same one share its counts."""

HEADERS = ("RateLimit-Policy", "RateLimit")
"""What the answers of a limited handler carry while its policy is on."""

_LIMIT_ATTRIBUTE = "catalog_limit"


def limited(policy: Policy) -> Callable[[View[P, T]], View[P, T]]:
    """Count each request against a policy before anything else is done for it."""

    def decorator(view: View[P, T]) -> View[P, T]:
        @wraps(view)
        async def limited_view(*args: P.args, **kwargs: P.kwargs) -> T:
            await _admit(policy)
            return await view(*args, **kwargs)

        setattr(limited_view, _LIMIT_ATTRIBUTE, policy)
        return limited_view

    return decorator


def limit_of(view: object) -> Policy | None:
    """The policy that a view states, whether it is on or off."""
    return getattr(view, _LIMIT_ATTRIBUTE, None)


def rate_of(settings: Settings, policy: Policy) -> Rate | None:
    """What a policy allows; None when it is off."""
    rate: Rate | None = getattr(settings, f"{policy}_limit")
    return rate


@dataclass(frozen=True, slots=True)
class Counted:
    """A request that was counted, and where its client stands."""

    policy: Policy
    rate: Rate
    count: Count

    def admit(self) -> None:
        """Let it through.

        Raises:
            TooManyRequests: it is beyond the limit.
        """
        if not self.count.admitted:
            RATE_LIMITED.labels(self.policy).inc()
            requests, seconds = self.rate.requests, self.rate.seconds
            raise TooManyRequests(
                f"One address may do this {requests} times in {seconds} seconds.",
                retry_after_seconds=self.count.reset_seconds,
            )

    def headers(self) -> dict[str, str]:
        """What the answer tells of it, whatever it is."""
        policy, rate, count = self.policy, self.rate, self.count
        return {
            "RateLimit-Policy": f'"{policy}";q={rate.requests};w={rate.seconds}',
            "RateLimit": f'"{policy}";r={count.remaining};t={count.reset_seconds}',
        }


async def count_request(state: AppState, policy: Policy, client: Client) -> Counted | None:
    """Count a request of a client; None while the policy is off."""
    rate = rate_of(state.settings, policy)
    if rate is None:
        return None
    who = network_of(client)
    # With the rate, because counts mean something else under another one.
    count = await state.limits.hit(rate, f"{policy}/{rate.requests}/{rate.seconds}/{who}")
    return Counted(policy, rate, count)


async def _admit(policy: Policy) -> None:
    g.counted = await count_request(running(), policy, request.scope.get("client"))
    if g.counted is not None:
        g.counted.admit()


def client_network() -> str:
    """Whom the request that is being handled counts for."""
    return network_of(request.scope.get("client"))


def network_of(client: Client) -> str:
    """Whom requests from an address count for.

    That is an IPv4 address, or the /64 of an IPv6 one, in which a client chooses freely. Who
    comes through a unix socket without a proxy's word for it is one client.
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


def configure_limits(app: Quart) -> None:
    """Let the answers of limited handlers tell where their client stands, errors included."""
    app.before_serving(_open)
    app.after_request(_tell)


async def _open() -> None:
    await running().limits.open()


async def _tell(response: Response) -> Response:
    counted: Counted | None = g.get("counted")
    if counted is not None:
        response.headers.update(counted.headers())
    return response
