"""Who is calling, when a proxy calls on a client's behalf."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from catalog.http.proxies import TrustedProxies
from tests.http.wire import Header, app_without_database, exchange

TRUSTED = [ip_network(text) for text in ("10.0.0.0/8", "192.168.7.9", "fd00::/8", "::1")]
STRANGER = "203.0.113.5"
PROXY = "10.1.2.3"


def forwarded(*values: str) -> list[Header]:
    return [(b"x-forwarded-for", value.encode("latin-1")) for value in values]


async def seen(
    peer: str | None, headers: Sequence[Header], *, scheme: str = "http"
) -> tuple[str | None, str]:
    """The client and the scheme that an app behind the middleware sees."""
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
    assert scope == before, "the server's own scope was changed"
    (scope,) = scopes
    return scope["client"] and scope["client"][0], scope["scheme"]


async def client(peer: str | None, *values: str) -> str | None:
    """The address that is taken for the client's."""
    return (await seen(peer, forwarded(*values)))[0]


class TestClient:
    async def test_a_stranger_is_not_believed(self) -> None:
        assert await client(STRANGER, "198.51.100.1") == STRANGER
        assert await client(STRANGER, PROXY) == STRANGER
        assert await client(STRANGER, f"198.51.100.1, {PROXY}") == STRANGER

    async def test_a_proxy_is_believed(self) -> None:
        assert await client(PROXY, STRANGER) == STRANGER

    async def test_the_right_most_that_is_no_proxy_wins(self) -> None:
        assert await client(PROXY, f"198.51.100.1, {STRANGER}") == STRANGER
        assert await client(PROXY, f"198.51.100.1, {STRANGER}, 10.9.9.9") == STRANGER
        assert await client(PROXY, f"127.0.0.1,10.0.0.1,{STRANGER},192.168.7.9,::1") == STRANGER

    async def test_several_headers_are_one_list(self) -> None:
        assert await client(PROXY, "198.51.100.1", STRANGER, "10.9.9.9") == STRANGER

    async def test_proxies_alone_leave_the_first_of_them(self) -> None:
        assert await client(PROXY, "10.0.0.7, 10.0.0.8") == "10.0.0.7"

    async def test_without_a_list_it_is_the_peer(self) -> None:
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
    async def test_garbage_is_nobody(self, garbage: str) -> None:
        assert await client(PROXY, garbage) == PROXY
        # What stands left of it may be anyone's invention.
        assert await client(PROXY, f"198.51.100.1, {garbage}") == PROXY
        assert await client(PROXY, f"198.51.100.1, {garbage}, 10.9.9.9") == "10.9.9.9"
        assert await client(PROXY, f"{garbage}, {STRANGER}") == STRANGER

    async def test_ipv6(self) -> None:
        assert await client("fd00::7", "2001:db8::1") == "2001:db8::1"
        assert await client("fd00::7", "198.51.100.1, 2001:db8::1, fd12::1") == "2001:db8::1"
        assert await client("2001:db8::1", "fd00::7") == "2001:db8::1"

    async def test_an_ipv4_address_mapped_into_ipv6_is_that_address(self) -> None:
        assert await client("::ffff:10.1.2.3", STRANGER) == STRANGER
        assert await client("::ffff:203.0.113.5", "198.51.100.1") == "::ffff:203.0.113.5"
        assert await client(PROXY, f"{STRANGER}, ::ffff:10.9.9.9") == STRANGER

    @pytest.mark.parametrize("peer", [None, "<local>"])
    async def test_a_unix_socket_is_trusted(self, peer: str | None) -> None:
        assert await client(peer, f"198.51.100.1, {STRANGER}") == STRANGER

    async def test_another_peer_without_an_address_is_not(self) -> None:
        assert await client("testclient", STRANGER) == "testclient"

    @given(st.binary(max_size=64), st.binary(max_size=64))
    async def test_whatever_is_sent_the_client_has_an_address(
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

    async def test_other_headers_of_the_kind_mean_nothing(self) -> None:
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
    async def test_a_proxy_tells_it(self, value: bytes, scheme: str) -> None:
        assert await seen(PROXY, [(b"x-forwarded-proto", value)]) == (PROXY, scheme)

    async def test_a_proxy_without_tls_tells_that_too(self) -> None:
        headers = [(b"x-forwarded-proto", b"http")]

        assert await seen(PROXY, headers, scheme="https") == (PROXY, "http")

    async def test_a_stranger_is_not_believed(self) -> None:
        headers = [(b"x-forwarded-proto", b"https")]

        assert await seen(STRANGER, headers) == (STRANGER, "http")


class TestInTheApp:
    @pytest.mark.parametrize(
        ("trusted", "logged"), [((), PROXY), ((ip_network(PROXY),), STRANGER)], ids=["no", "yes"]
    )
    async def test_settings_say_whom_to_trust(
        self, tmp_path: Path, trusted: tuple[Any, ...], logged: str
    ) -> None:
        app = app_without_database(tmp_path, trusted_proxies=trusted, access_log="all")

        with capture_logs() as logs:
            await exchange(
                app, "GET", "/openapi.json", headers=forwarded(STRANGER), client=(PROXY, 1)
            )

        assert [event["client"] for event in logs if event["event"] == "request"] == [logged]
