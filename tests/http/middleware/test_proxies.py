"""Client address and scheme behind trusted proxies."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from catalog.http.middleware.proxies import TrustedProxies
from tests.http.wire import Header, app_without_database, exchange

TRUSTED = [ip_network(text) for text in ("10.0.0.0/8", "192.168.7.9", "fd00::/8", "::1")]
STRANGER = "203.0.113.5"
PROXY = "10.1.2.3"


def forwarded(*values: str) -> list[Header]:
    return [(b"x-forwarded-for", value.encode("latin-1")) for value in values]


async def seen(
    peer: str | None, headers: Sequence[Header], *, scheme: str = "http"
) -> tuple[str | None, str]:
    """Return the client and the scheme seen by an app behind the middleware."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 (an ASGI app's signature)
        scopes.append(scope)

    async def nothing(*_: object) -> Any:
        raise AssertionError

    scope: Any = {
        "type": "http",
        "scheme": scheme,
        "client": (peer, 41000) if peer else None,
        "headers": headers,
    }
    before = {**scope}
    await TrustedProxies(app, TRUSTED)(scope, nothing, nothing)
    # Header fields are collected once and kept on the scope.
    assert {**scope, **before} == scope
    assert scope.keys() - before.keys() <= {"catalog.fields"}
    (scope,) = scopes
    return scope["client"] and scope["client"][0], scope["scheme"]


async def client(peer: str | None, *values: str) -> str | None:
    """Return the client address seen by an app behind the middleware."""
    return (await seen(peer, forwarded(*values)))[0]


class TestClient:
    async def test_forwarded_address_from_an_untrusted_peer_is_ignored(self) -> None:
        assert await client(STRANGER, "198.51.100.1") == STRANGER
        assert await client(STRANGER, PROXY) == STRANGER
        assert await client(STRANGER, f"198.51.100.1, {PROXY}") == STRANGER

    async def test_forwarded_address_from_a_proxy_is_used(self) -> None:
        assert await client(PROXY, STRANGER) == STRANGER

    async def test_right_most_untrusted_address_is_the_client(self) -> None:
        assert await client(PROXY, f"198.51.100.1, {STRANGER}") == STRANGER
        assert await client(PROXY, f"198.51.100.1, {STRANGER}, 10.9.9.9") == STRANGER
        assert await client(PROXY, f"127.0.0.1,10.0.0.1,{STRANGER},192.168.7.9,::1") == STRANGER

    async def test_repeated_headers_are_one_list(self) -> None:
        assert await client(PROXY, "198.51.100.1", STRANGER, "10.9.9.9") == STRANGER

    async def test_left_most_address_is_the_client_if_all_are_proxies(self) -> None:
        assert await client(PROXY, "10.0.0.7, 10.0.0.8") == "10.0.0.7"

    async def test_peer_is_the_client_without_a_forwarded_address(self) -> None:
        assert await client(PROXY) == PROXY
        assert await client(STRANGER) == STRANGER

    @pytest.mark.parametrize(
        "garbage",
        [
            "",
            " ",
            ",",
            ",,,",
            "unknown",
            "_hidden",
            "10.0.0",
            "010.0.0.1",
            "10.0.0.256",
            "203.0.113.5:8080",
            "[2001:db8::1]:443",
            "10.0.0.0/8",
            "::ffff:10.0.0.999",
            "<script>",
            "caf\xe9",
            "\x00",
            "1" * 5000,
        ],
        ids=lambda text: repr(text)[:24],
    )
    async def test_malformed_address_is_ignored(self, garbage: str) -> None:
        assert await client(PROXY, garbage) == PROXY
        # Anything left of it may be forged.
        assert await client(PROXY, f"198.51.100.1, {garbage}") == PROXY
        assert await client(PROXY, f"198.51.100.1, {garbage}, 10.9.9.9") == "10.9.9.9"
        assert await client(PROXY, f"{garbage}, {STRANGER}") == STRANGER

    async def test_ipv6_addresses_are_parsed(self) -> None:
        assert await client("fd00::7", "2001:db8::1") == "2001:db8::1"
        assert await client("fd00::7", "198.51.100.1, 2001:db8::1, fd12::1") == "2001:db8::1"
        assert await client("2001:db8::1", "fd00::7") == "2001:db8::1"

    async def test_ipv4_mapped_ipv6_address_is_trusted_as_the_ipv4_address(self) -> None:
        assert await client("::ffff:10.1.2.3", STRANGER) == STRANGER
        assert await client("::ffff:203.0.113.5", "198.51.100.1") == "::ffff:203.0.113.5"
        assert await client(PROXY, f"{STRANGER}, ::ffff:10.9.9.9") == STRANGER

    @pytest.mark.parametrize("peer", [None, "<local>"])
    async def test_unix_socket_peer_is_trusted(self, peer: str | None) -> None:
        assert await client(peer, f"198.51.100.1, {STRANGER}") == STRANGER

    async def test_other_peer_without_an_address_is_not_trusted(self) -> None:
        assert await client("testclient", STRANGER) == "testclient"

    @given(st.binary(max_size=64), st.binary(max_size=64))
    async def test_client_has_an_address_whatever_is_sent(
        self, first: bytes, second: bytes
    ) -> None:
        headers = [
            (b"x-forwarded-for", first),
            (b"x-forwarded-proto", second),
            (b"x-forwarded-for", second),
        ]

        address, scheme = await seen(PROXY, headers)

        assert ip_address(str(address))
        assert scheme in {"http", "https"}

    async def test_other_forwarding_headers_are_ignored(self) -> None:
        headers = [
            (b"forwarded", b"for=198.51.100.1;proto=https"),
            (b"x-real-ip", b"198.51.100.1"),
            (b"remote-addr", b"198.51.100.1"),
            (b"x-forwarded-host", b"evil.example"),
        ]

        assert await seen(PROXY, headers) == (PROXY, "http")


class TestScheme:
    @pytest.mark.parametrize(
        ("value", "scheme"),
        [
            (b"https", "https"),
            (b"HTTPS", "https"),
            (b" https ", "https"),
            (b"http", "http"),
            (b"https, http", "http"),
            (b"javascript", "http"),
            (b"wss", "http"),
            (b"\xff", "http"),
            (b"", "http"),
        ],
    )
    async def test_scheme_is_that_named_by_a_proxy(self, value: bytes, scheme: str) -> None:
        assert await seen(PROXY, [(b"x-forwarded-proto", value)]) == (PROXY, scheme)

    async def test_scheme_from_a_proxy_without_tls_is_http(self) -> None:
        headers = [(b"x-forwarded-proto", b"http")]

        assert await seen(PROXY, headers, scheme="https") == (PROXY, "http")

    async def test_scheme_from_an_untrusted_peer_is_ignored(self) -> None:
        headers = [(b"x-forwarded-proto", b"https")]

        assert await seen(STRANGER, headers) == (STRANGER, "http")


class TestInTheApp:
    @pytest.mark.parametrize(
        ("trusted", "logged"), [((), PROXY), ((ip_network(PROXY),), STRANGER)], ids=["no", "yes"]
    )
    async def test_trusted_proxies_are_read_from_the_settings(
        self, tmp_path: Path, trusted: tuple[Any, ...], logged: str
    ) -> None:
        app = app_without_database(tmp_path, trusted_proxies=trusted, access_log="all")

        with capture_logs() as logs:
            await exchange(
                app, "GET", "/openapi.json", headers=forwarded(STRANGER), client=(PROXY, 1)
            )

        assert [event["client"] for event in logs if event["event"] == "request"] == [logged]
