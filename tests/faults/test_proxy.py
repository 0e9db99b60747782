"""Tests of the fault proxy, against a server that echoes and one that sends unprompted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.faults.proxy import NONE, Fault, FaultProxy, Flow, proxied

SOON_SECONDS = 5.0
"""Time-out for operations that are immediate on an idle machine."""

QUIET_SECONDS = 0.2
"""Interval in which nothing may arrive."""


class Echo:
    """An echo server.

    Attributes:
        received: all bytes, over all connections.
        ends: how each connection ended: ``eof`` or ``reset``.
    """

    def __init__(self) -> None:
        self.received = b""
        self.ends: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
                await writer.drain()
            self.ends.append("eof")
        except ConnectionResetError:
            self.ends.append("reset")
        finally:
            # Send before closing: a half-closed client may still read.
            writer.write(b"bye")
            writer.close()

    async def ended(self, count: int = 1) -> list[str]:
        async with asyncio.timeout(SOON_SECONDS):
            while len(self.ends) < count:
                await asyncio.sleep(0.01)
        return self.ends


class Client:
    """Client end of a connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, size: int) -> bytes:
        async with asyncio.timeout(SOON_SECONDS):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Read until EOF."""
        async with asyncio.timeout(SOON_SECONDS):
            return await self.reader.read()

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with server:
        yield echo


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[FaultProxy]:
    async with proxied("127.0.0.1", echo.port) as proxy:
        yield proxy


class TestNoFault:
    async def test_bytes_pass_in_order_and_complete(self, proxy: FaultProxy) -> None:
        data = bytes(range(256)) * 8_000

        async with connected(proxy) as client:
            sending = asyncio.create_task(client.send(data))
            assert await client.receive(len(data)) == data
            await sending

    async def test_half_close_passes_and_pending_bytes_arrive(
        self, proxy: FaultProxy, echo: Echo
    ) -> None:
        async with connected(proxy) as client:
            await client.send(b"last words")
            client.writer.write_eof()

            assert await client.rest() == b"last wordsbye"
        assert await echo.ended() == ["eof"]

    async def test_unreachable_server_resets_the_client(self) -> None:
        async with proxied("127.0.0.1", 1) as nowhere, connected(nowhere) as client:
            with pytest.raises(ConnectionResetError):
                await client.rest()

    async def test_open_connections_are_counted(self, proxy: FaultProxy) -> None:
        async with connected(proxy) as client:
            await client.send(b"x")
            await client.receive(1)
            assert (proxy.open_connections, proxy.accepted) == (1, 1)
        async with asyncio.timeout(SOON_SECONDS):
            while proxy.open_connections:
                await asyncio.sleep(0.01)
        assert proxy.accepted == 1


class TestDelay:
    async def test_both_directions_are_delayed(self, proxy: FaultProxy) -> None:
        proxy.use(Fault.delay(0.1))

        async with connected(proxy) as client:
            began = time.monotonic()
            await client.send(b"x")
            await client.receive(1)

        assert time.monotonic() - began >= 0.2

    async def test_throughput_is_not_affected(self, proxy: FaultProxy) -> None:
        proxy.use(Fault.delay(0.1))

        async with connected(proxy) as client:
            began = time.monotonic()
            # Each in its own packet; one after the other they would take more than 2 s.
            for _ in range(20):
                await client.send(b"x")
                await asyncio.sleep(0.001)
            await client.receive(20)

        assert time.monotonic() - began < 1.5

    async def test_jitter_keeps_the_order(self, proxy: FaultProxy) -> None:
        proxy.use(Fault.delay(0.001, jitter=0.03))
        data = bytes(range(100))

        async with connected(proxy) as client:
            for byte in data:
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert await client.receive(100) == data


class TestBlackhole:
    async def test_bytes_are_accepted_and_discarded(self, proxy: FaultProxy, echo: Echo) -> None:
        proxy.use(Fault.blackhole())

        async with connected(proxy) as client:
            # More than the buffers of both sockets hold.
            async with asyncio.timeout(SOON_SECONDS):
                await client.send(bytes(20_000_000))
            assert await client.hears_nothing()

        assert echo.received == b""

    async def test_fault_applies_to_open_and_new_connections(self, proxy: FaultProxy) -> None:
        async with connected(proxy) as client:
            await client.send(b"x")
            await client.receive(1)
            proxy.use(Fault.blackhole())
            await client.send(b"x")
            assert await client.hears_nothing()

            proxy.heal()
            await client.send(b"y")
            assert await client.receive(1) == b"y"

    async def test_fault_spares_open_connections_if_asked(self, proxy: FaultProxy) -> None:
        async with connected(proxy) as old:
            await old.send(b"x")
            await old.receive(1)
            proxy.use(Fault.blackhole(), for_open=False)

            await old.send(b"y")
            assert await old.receive(1) == b"y"
            async with connected(proxy) as new:
                await new.send(b"x")
                assert await new.hears_nothing()

    async def test_connects_go_unanswered_until_listening(self, proxy: FaultProxy) -> None:
        proxy.ignore_connects()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                await asyncio.open_connection("127.0.0.1", proxy.port)

        await proxy.listen()

        async with connected(proxy) as client:
            await client.send(b"x")
            assert await client.receive(1) == b"x"

    async def test_client_eof_arrives_after_healing(self, proxy: FaultProxy, echo: Echo) -> None:
        proxy.use(Fault.blackhole())
        async with connected(proxy) as client:
            await client.send(b"lost")
        await asyncio.sleep(QUIET_SECONDS)
        assert echo.ends == []

        proxy.heal()

        assert await echo.ended() == ["eof"]
        assert echo.received == b""


class TestStall:
    async def test_bytes_are_held_until_healing(self, proxy: FaultProxy, echo: Echo) -> None:
        proxy.stall()

        async with connected(proxy) as client:
            await client.send(b"patience")
            assert await client.hears_nothing()
            assert echo.received == b""

            proxy.heal()
            assert await client.receive(8) == b"patience"


class TestDropAnswers:
    async def test_request_arrives_and_answer_is_dropped(
        self, proxy: FaultProxy, echo: Echo
    ) -> None:
        proxy.use(Fault.drop_answers())

        async with connected(proxy) as client:
            await client.send(b"request")
            assert await client.hears_nothing()

        assert echo.received == b"request"


class TestCutAfter:
    @pytest.mark.parametrize("size", [0, 1, 1000, 70_000])
    async def test_server_receives_bytes_up_to_the_cut(
        self, proxy: FaultProxy, echo: Echo, size: int
    ) -> None:
        proxy.use(Fault.cut_after(to_server=size))

        async with connected(proxy) as client:
            with suppress(OSError):
                await client.send(bytes(100_000))
            with suppress(OSError):
                await client.rest()
            await echo.ended()

        assert len(echo.received) == size

    @pytest.mark.parametrize("size", [1, 1000])
    async def test_client_receives_bytes_up_to_the_cut(self, proxy: FaultProxy, size: int) -> None:
        proxy.use(Fault.cut_after(to_client=size))

        async with connected(proxy) as client:
            await client.send(bytes(2000))
            assert len(await client.rest()) == size


class TestBandwidth:
    async def test_bandwidth_limits_throughput(self, proxy: FaultProxy) -> None:
        proxy.use(Fault(to_client=Flow(bytes_per_second=50_000)))

        async with connected(proxy) as client:
            began = time.monotonic()
            await client.send(bytes(20_000))
            await client.receive(20_000)

        assert time.monotonic() - began >= 0.35


class TestReset:
    async def test_both_ends_see_a_reset(self, proxy: FaultProxy, echo: Echo) -> None:
        async with connected(proxy) as client:
            await client.send(b"x")
            await client.receive(1)

            assert proxy.reset() == 1

            with pytest.raises(ConnectionResetError):
                await client.rest()
            assert await echo.ended() == ["reset"]

    async def test_cut_closes_without_reset(self, proxy: FaultProxy, echo: Echo) -> None:
        async with connected(proxy) as client:
            await client.send(b"x")
            await client.receive(1)

            proxy.cut()

            assert await client.rest() == b""
            assert await echo.ended() == ["eof"]


class TestHalfClose:
    async def test_client_sees_eof_and_can_still_send(self, proxy: FaultProxy, echo: Echo) -> None:
        async with connected(proxy) as client:
            await client.send(b"x")
            await client.receive(1)

            proxy.half_close("client")

            assert await client.rest() == b""
            await client.send(b"still here")
            async with asyncio.timeout(SOON_SECONDS):
                while echo.received != b"xstill here":
                    await asyncio.sleep(0.01)

    async def test_server_sees_eof_and_can_still_send(self, proxy: FaultProxy, echo: Echo) -> None:
        async with connected(proxy) as client:
            await client.send(b"x")
            await client.receive(1)

            proxy.half_close("server")

            assert await client.rest() == b"bye"
        assert await echo.ended() == ["eof"]


class TestRefuse:
    async def test_connections_are_refused_until_listening_again(self, proxy: FaultProxy) -> None:
        port = proxy.port
        async with connected(proxy) as client:
            await client.send(b"x")
            await client.receive(1)
            proxy.refuse()
            assert await client.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

        await proxy.listen()

        assert proxy.port == port
        async with connected(proxy) as client:
            await client.send(b"x")
            assert await client.receive(1) == b"x"


def test_default_is_no_fault() -> None:
    assert Fault() == NONE
