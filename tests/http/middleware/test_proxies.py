"""Client address and scheme behind trusted proxies."""

import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from catalog.http.middleware.forwarded import MAX_FORWARDED_BYTES, parse_forwarded
from catalog.http.middleware.proxies import TrustedProxies
from catalog.http.request import PREFIX, fields_of
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
    scope = await scope_behind(peer, headers, scheme=scheme)
    return scope["client"] and scope["client"][0], scope["scheme"]


async def client_of(peer: str, headers: Sequence[Header]) -> str | None:
    return (await seen(peer, headers))[0]


async def nothing(*_: object) -> Any:
    raise AssertionError


async def no_app(*_: object) -> None:
    """Stand in for an app whose answers do not matter."""


def scope_of(peer: str | None, headers: Sequence[Header], **others: Any) -> Any:
    return {
        "type": "http",
        "scheme": "http",
        "path": "/",
        "client": (peer, 41000) if peer else None,
        "headers": headers,
        **others,
    }


async def scope_behind(
    peer: str | None, headers: Sequence[Header], *, root_path: str = "", **others: Any
) -> Any:
    """Return the scope seen by an app behind the middleware."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 (an ASGI app's signature)
        scopes.append(scope)

    scope = scope_of(peer, headers, **others)
    before = {**scope}
    await TrustedProxies(app, TRUSTED, root_path)(scope, nothing, nothing)
    # Header fields are collected once and kept on the scope.
    assert {**scope, **before} == scope
    assert scope.keys() - before.keys() <= {"catalog.fields"}
    return scopes[0]


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
            "203.0.113.5:",
            "203.0.113.5:123456",
            "203.0.113.5:80:80",
            "203.0.113.5:x",
            "[2001:db8::1",
            "[2001:db8::1]443",
            "[unknown]:80",
            "fe80::1%eth0",
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

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("203.0.113.5:8080", "203.0.113.5"),
            ("203.0.113.5:_port", "203.0.113.5"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:DB8:0::1]", "2001:db8::1"),
            ("2001:db8::8080", "2001:db8::8080"),
            ("[::ffff:203.0.113.5]:80", "203.0.113.5"),
            ('"[2001:db8::1]:443"', "2001:db8::1"),
            (" 203.0.113.5:8080\t", "203.0.113.5"),
        ],
    )
    async def test_port_is_no_part_of_the_address(self, text: str, address: str) -> None:
        assert await client(PROXY, text) == address
        assert await client(PROXY, f"198.51.100.1, {text}, 10.9.9.9:4711") == address
        assert await client(PROXY, f"198.51.100.1:1, {text}") == address

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
        headers = [(b"x-real-ip", b"198.51.100.1"), (b"remote-addr", b"198.51.100.1")]

        assert await seen(PROXY, headers) == (PROXY, "http")


class TestForwarded:
    @pytest.mark.parametrize(
        ("lines", "outcome"),
        [
            ([f"for={STRANGER}"], (STRANGER, "http")),
            ([f"For={STRANGER};PROTO=HTTPS;by=10.0.0.1"], (STRANGER, "https")),
            ([f'proto=https;FOR="{STRANGER}:8080"'], (STRANGER, "https")),
            ([f"for={STRANGER}:8080"], (STRANGER, "http")),
            (['for="[2001:db8::1]:4711"'], ("2001:db8::1", "http")),
            (["for=[2001:db8::1]"], ("2001:db8::1", "http")),
            ([f'for="\\{STRANGER}"'], (STRANGER, "http")),
            # The element that names the client says how the client connected.
            ([f"for=198.51.100.1, for={STRANGER};proto=https, for=10.9.9.9"], (STRANGER, "https")),
            ([f"for={STRANGER};proto=https", "for=10.9.9.9;proto=http"], (STRANGER, "https")),
            ([f"for=198.51.100.1;proto=https,for={STRANGER};proto=http"], (STRANGER, "http")),
            (["for=10.0.0.7;proto=https, for=10.0.0.8"], ("10.0.0.7", "https")),
            ([f" for={STRANGER} ; proto=https ;"], (STRANGER, "https")),
            (["proto=https"], (PROXY, "https")),
            (['for=unknown, for="_gazonk"'], (PROXY, "http")),
            ([f"for={STRANGER}, for=unknown"], (PROXY, "http")),
            ([f"for={STRANGER}, for=unknown, for=10.9.9.9"], ("10.9.9.9", "http")),
            # The nearest proxy does not say for whom.
            ([f"for={STRANGER}, proto=https"], (PROXY, "https")),
            ([f"for={STRANGER},"], (PROXY, "http")),
            # A quote that the client has opened swallows the proxy's element.
            (['for="198.51.100.1', f"for={STRANGER}"], (PROXY, "http")),
            ([f"for={STRANGER};for=198.51.100.1"], (PROXY, "http")),
            ([f"for {STRANGER}"], (PROXY, "http")),
            (["for=" + "1" * 5000], (PROXY, "http")),
            ([""], (PROXY, "http")),
        ],
    )
    async def test_client_and_scheme_are_those_of_the_last_trusted_element(
        self, lines: list[str], outcome: tuple[str, str]
    ) -> None:
        assert await seen(PROXY, [(b"forwarded", line.encode()) for line in lines]) == outcome

    async def test_untrusted_peer_is_ignored(self) -> None:
        headers = [(b"forwarded", b"for=198.51.100.1;proto=https")]

        assert await seen(STRANGER, headers) == (STRANGER, "http")

    async def test_clients_that_differ_from_the_other_header_count_as_the_proxy(self) -> None:
        same = [(b"forwarded", f'for="{STRANGER}:81"'.encode()), *forwarded(f"{STRANGER}:80")]
        for others in ([b"for=198.51.100.1"], [b"for=unknown"], [b"garbage"]):
            differing = [*[(b"forwarded", each) for each in others], *forwarded(STRANGER)]
            assert await client_of(PROXY, differing) == PROXY

        assert await client_of(PROXY, same) == STRANGER
        assert await client_of(PROXY, [(b"forwarded", b"proto=https"), *forwarded(STRANGER)]) == (
            STRANGER
        )

    @given(st.binary(max_size=64), st.binary(max_size=64))
    async def test_client_has_an_address_whatever_is_sent(self, one: bytes, other: bytes) -> None:
        headers = [(b"forwarded", b"for=" + one), (b"forwarded", other)]

        address, scheme = await seen(PROXY, headers)

        assert ip_address(str(address))
        assert scheme in {"http", "https"}

    def test_header_beyond_the_longest_is_refused(self) -> None:
        longest = b"for=" + b"1" * (MAX_FORWARDED_BYTES - 4)

        assert parse_forwarded([longest]) == [{"for": longest[4:].decode()}]
        with pytest.raises(ValueError, match="too long"):
            parse_forwarded([longest + b"1"])

    def test_longest_header_is_parsed_at_once(self) -> None:
        for text in (b" " * 4096, b'"' * 4096, b"a=" * 2048, b'a="' + b"\\" * 4000, b"a;" * 2048):
            began = time.thread_time()
            with suppress(ValueError):
                parse_forwarded([text])
            # Quadratic time would be a hundred times as long.
            assert time.thread_time() - began < 1


class TestLog:
    @pytest.mark.parametrize(
        ("header", "value", "shown"),
        [
            ("X-Forwarded-For", "unknown", "unknown"),
            ("X-Forwarded-For", f"{STRANGER}, unix:", "unix:"),
            ("X-Forwarded-For", "x" * 5000, "x" * 100),
            ("X-Forwarded-Proto", "wss", "wss"),
            ("X-Forwarded-Host", "a b", "a b"),
            ("X-Forwarded-Prefix", "/../etc", "/../etc"),
            ("X-Forwarded-Prefix", "/api", "/api"),
            ("Forwarded", "for=_hidden", "_hidden"),
            ("Forwarded", "for", "for"),
        ],
    )
    async def test_unreadable_field_is_logged_once_for_each_proxy(
        self, header: str, value: str, shown: str
    ) -> None:
        fields = [(header.lower().encode(), value.encode())]
        middleware = TrustedProxies(no_app, TRUSTED)

        with capture_logs() as logs:
            for peer in (PROXY, PROXY, STRANGER, "10.9.9.9"):
                await middleware(scope_of(peer, fields), nothing, nothing)

        assert [event["proxy"] for event in logs] == [PROXY, "10.9.9.9"]
        assert {event["event"] for event in logs} == {"forwarded_unreadable"}
        assert {(event["header"], event["value"]) for event in logs} == {(header, shown)}

    async def test_readable_fields_are_not_logged(self) -> None:
        headers = [*forwarded(f"{STRANGER}:8080"), (b"x-forwarded-proto", b"https")]

        with capture_logs() as logs:
            await seen(PROXY, headers)

        assert logs == []


class TestHost:
    @pytest.mark.parametrize(
        ("value", "host"),
        [
            (b"shop.example", b"shop.example"),
            (b"shop.example:8443", b"shop.example:8443"),
            (b"[2001:db8::1]:8443", b"[2001:db8::1]:8443"),
            (b"evil.example, shop.example", b"shop.example"),
            (b"a/b", b"inner"),
            (b"user@shop.example", b"inner"),
            (b"x" * 300, b"inner"),
            (b"", b"inner"),
        ],
    )
    async def test_host_is_that_named_by_a_proxy(self, value: bytes, host: bytes) -> None:
        headers = [(b"host", b"inner"), (b"x-forwarded-host", value)]

        for peer, expected in ((PROXY, host), (STRANGER, b"inner")):
            scope = await scope_behind(peer, headers)
            assert fields_of(scope)[b"host"] == [expected]
            assert [value for name, value in scope["headers"] if name == b"host"] == [expected]


class TestPrefix:
    @pytest.mark.parametrize(
        ("value", "prefix"),
        [
            (b"/shop", "/shop"),
            (b"/shop/", "/shop"),
            (b"/a/b-c_d.e~f", "/a/b-c_d.e~f"),
            (b"/evil, /shop", "/shop"),
            (b"/", ""),
            (b"", ""),
            (b"shop", ""),
            (b"//evil.example", ""),
            (b"/a//b", ""),
            (b"/a/../b", ""),
            (b"/a/./b", ""),
            (b"/a?b", ""),
            (b"/a%2fb", ""),
            (b'/a"b', ""),
            (b"/caf\xe9", ""),
            (b"/api/v1", ""),
            (b"/" + b"x" * 300, ""),
        ],
    )
    async def test_prefix_is_that_named_by_a_proxy(self, value: bytes, prefix: str) -> None:
        headers = [(b"x-forwarded-prefix", value)]

        assert (await scope_behind(PROXY, headers)).get(PREFIX, "") == prefix
        assert PREFIX not in await scope_behind(STRANGER, headers)

    @pytest.mark.parametrize(
        ("path", "below"),
        [
            ("/shop/api/products", "/api/products"),
            ("/api/products", "/api/products"),
            ("/shop", "/"),
            ("/shop/", "/"),
            ("/", "/"),
            ("/shopping", "/shopping"),
            ("/shop/shop/x", "/shop/x"),
            ("/shop//api/products", "/api/products"),
            ("//shop/api/products", "/api/products"),
            ("//shop//", "/"),
        ],
    )
    async def test_path_has_the_prefix_or_not(self, path: str, below: str) -> None:
        headers = [(b"x-forwarded-prefix", b"/shop")]

        assert (await scope_behind(PROXY, headers, path=path))["path"] == below
        configured = await scope_behind(STRANGER, [], path=path, root_path="/shop")
        assert (configured["path"], configured[PREFIX]) == (below, "/shop")

    @pytest.mark.parametrize(
        ("path", "seen_as"),
        [("//x", "/x"), ("///x/y", "/x/y"), ("//", "/"), ("/x//y", "/x//y"), ("/x//", "/x//")],
    )
    async def test_slashes_before_the_path_are_one(self, path: str, seen_as: str) -> None:
        for peer in (PROXY, STRANGER, None):
            assert (await scope_behind(peer, [], path=path))["path"] == seen_as

    async def test_named_prefix_replaces_the_setting(self) -> None:
        headers = [(b"x-forwarded-prefix", b"/other")]

        behind = await scope_behind(PROXY, headers, path="/shop/x", root_path="/shop")
        assert (behind["path"], behind[PREFIX]) == ("/shop/x", "/other")
        direct = await scope_behind(STRANGER, headers, path="/shop/x", root_path="/shop")
        assert (direct["path"], direct[PREFIX]) == ("/x", "/shop")


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
