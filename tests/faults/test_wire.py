"""Ambiguous requests get one answer, or none, directly and through nginx."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest

from tests.faults.figures import Figures
from tests.faults.probes import (
    INNER,
    INNER_ID,
    PROBES,
    Broken,
    Injected,
    Malformed,
    Probe,
    Smuggled,
    judge,
    messages,
    post,
    request,
    send,
)
from tests.faults.site import Site, site
from tests.server.nginx import needs_cache
from tests.server.service import Catalog, Connection

pytestmark = pytest.mark.faults

AT_ONCE = 16

Way = Literal["straight", "nginx"]


@pytest.fixture
async def running(catalog: Catalog) -> AsyncIterator[Site]:
    """Provide the service behind nginx, both with access logs."""
    environment = {"CATALOG_ACCESS_LOG": "all", "CATALOG_CORS_ORIGINS": "*"}
    catalog.definitions["catalog.http.middleware.request_body"] = "BODY_SECONDS = 2"
    async with site(catalog, **environment) as running:
        yield running


async def faults_of(url: str, probes: list[Probe]) -> tuple[list[str], Counter[int]]:
    """Send all probes; return the violations, and counts of the statuses."""
    places = asyncio.Semaphore(AT_ONCE)
    faults: list[str] = []
    statuses: Counter[int] = Counter()

    async def check(probe: Probe) -> None:
        async with places:
            data = await send(url, probe.data)
        try:
            statuses.update(message.status for message in judge(probe, data))
        except (Malformed, Smuggled, Injected, Broken) as fault:
            faults.append(f"{probe.name}: {fault!r} {data[:200]!r}")

    await asyncio.gather(*map(check, probes))
    return sorted(faults), statuses


@needs_cache
class TestProbes:
    @pytest.mark.parametrize("way", ["straight", "nginx"])
    async def test_probes_get_one_answer_or_none(
        self, running: Site, figures: Figures, way: Way
    ) -> None:
        url = running.service.url if way == "straight" else running.nginx.url

        faults, statuses = await faults_of(url, PROBES)
        connection = await Connection.open(url)
        after = await connection.get("/api/products?limit=1")
        await connection.close()

        check = f"{len(PROBES)} odd requests, {way}"
        figures.add(check, "wrongly answered", len(faults), limit="0")
        figures.add(check, "server errors", sum(n for s, n in statuses.items() if s == 500))
        assert faults == []
        assert after.status == 200
        # A line break in a log line would yield two lines, one of which is not JSON.
        assert running.service.text == ""
        assert not running.service.logged("event_loop_error")
        assert not [e for e in running.service.events if e.get("request_id") == INNER_ID]
        assert all("request_id" in line for line in running.nginx.log())
        assert running.errors_of_nginx() == []

    async def test_smuggled_requests_do_not_reach_the_service(self, running: Site) -> None:
        """A smuggled request may be answered to another client, so the service's log decides."""
        hidden = [probe for probe in PROBES if INNER in probe.data]

        for probe in hidden:
            await send(running.nginx.url, probe.data, quiet=0.1)
            await send(running.service.url, probe.data, quiet=0.1)
        connection = await Connection.open(running.service.url)
        await connection.get("/api/products?limit=1", "X-Request-ID: the-last")
        await running.service.event("request", request_id="the-last")
        await connection.close()

        assert len(hidden) > 30
        # Successful probes of /livez are not logged, but counted.
        livez = (await running.numbers()).total("http_requests_total", route="/livez")
        assert livez == 0


class Naive:
    """A minimal server with one of the faults that the checker must detect.

    Args:
        fault: name of the fault.
    """

    def __init__(self, fault: str) -> None:
        self._fault = fault

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                is_chunked = b"chunked" in head.lower()
                if self._fault == "prefers chunks" and is_chunked:
                    await reader.readuntil(b"0\r\n\r\n")
                elif self._fault != "ignores bodies" and length:
                    await reader.readexactly(int(length[1]))
                writer.write(self._answer(head))
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        identity = re.search(rb"(?i)x-request-id: ([^\r]*)", head)
        value = identity[1] if identity else b"none"
        status = b"500 Oops" if self._fault == "fails" else b"200 OK"
        if self._fault == "switches":
            status = b"101 Switching Protocols"
        if self._fault == "reflects":
            value = value.replace(b"\r", b"").replace(b"\n", b"\r\n")
        length = 1 if self._fault == "cuts bodies" else 0
        return b"HTTP/1.1 %b\r\nX-Request-ID: %b\r\nContent-Length: %d\r\n\r\n" % (
            status,
            value,
            length,
        )


class TestControls:
    """Negative controls of the checks above."""

    @pytest.mark.parametrize(
        ("fault", "found"),
        [
            ("prefers chunks", "Smuggled"),
            ("ignores bodies", "Smuggled"),
            ("reflects", "Injected"),
            ("fails", "Broken"),
            ("switches", "Broken"),
            ("cuts bodies", "Malformed"),
        ],
    )
    async def test_naive_server_is_detected(self, fault: str, found: str) -> None:
        inner = b"0\r\n\r\n" + INNER
        length = b"Content-Length: %d" % len(inner)
        probes = [
            Probe("both", post(length, b"Transfer-Encoding: chunked", body=inner)),
            Probe("reflected", request(b"X-Request-ID: a\nX-Injected: 1")),
        ]

        async with Naive(fault).serving() as url:
            faults, _ = await faults_of(url, probes)

        assert any(found in fault for fault in faults), faults

    async def test_sound_server_passes(self) -> None:
        async with Naive("none").serving() as url:
            faults, statuses = await faults_of(url, [Probe("plain", request())])

        assert (faults, statuses) == ([], Counter({200: 1}))

    @pytest.mark.parametrize(
        "data",
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nno field\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\rb\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nrubbish",
            b"<html></html>\r\n\r\n",
        ],
    )
    def test_malformed_answer_is_rejected(self, data: bytes) -> None:
        with pytest.raises(Malformed):
            messages(data, ["GET"])
