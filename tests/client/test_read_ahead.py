"""Bodies that are read ahead of a slow consumer."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any

import httpx
import pytest

from catalog.client import read_ahead
from catalog.client.read_ahead import ReadAhead

PIECES = [bytes([number]) * (number + 1) for number in range(200)]


class Source:
    """A body that counts the pieces that were read.

    Attributes:
        count: pieces that were read.
        fault: raised at the end.
    """

    def __init__(self, fault: Exception | None = None) -> None:
        self.count = 0
        self.fault = fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in PIECES:
            await asyncio.sleep(0)
            self.count += 1
            yield piece
        if self.fault is not None:
            raise self.fault


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """Hold little in memory, and return the temporary files that are made."""
    made: list[IO[bytes]] = []
    make = tempfile.TemporaryFile

    def record(**options: Any) -> IO[bytes]:
        made.append(make(**options))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", record)
    monkeypatch.setattr(read_ahead, "MEMORY_BYTES", 1000)
    monkeypatch.setattr(read_ahead, "_READ_BYTES", 300)
    return made


async def until_read(source: Source, count: int = len(PIECES)) -> None:
    async with asyncio.timeout(30):
        while source.count < count:
            await asyncio.sleep(0.001)


class TestReadAhead:
    async def test_body_is_read_to_its_end_while_the_consumer_pauses(
        self, files: list[IO[bytes]]
    ) -> None:
        source = Source()

        async with ReadAhead(aiter(source)) as body:
            pieces = aiter(body)
            taken = await anext(pieces)
            await until_read(source)
            async for piece in pieces:
                taken += piece

        assert taken == b"".join(PIECES)
        (file,) = files
        assert file.closed

    @pytest.mark.parametrize("every", [1, 3, 20])
    async def test_bytes_come_in_order_whatever_the_pace(
        self, every: int, files: list[IO[bytes]]
    ) -> None:
        taken, count = b"", 0

        async with ReadAhead(aiter(Source())) as body:
            async for piece in body:
                taken += piece
                count += 1
                if count % every == 0:
                    await asyncio.sleep(0.001)

        assert taken == b"".join(PIECES)
        assert all(file.closed for file in files)

    async def test_short_body_needs_no_file(
        self, monkeypatch: pytest.MonkeyPatch, files: list[IO[bytes]]
    ) -> None:
        monkeypatch.setattr(read_ahead, "MEMORY_BYTES", 1_000_000)
        source = Source()

        async with ReadAhead(aiter(source)) as body:
            await until_read(source)
            assert b"".join([piece async for piece in body]) == b"".join(PIECES)

        assert files == []

    async def test_error_comes_after_the_bytes_before_it(self) -> None:
        source = Source(httpx.ReadError("planned"))
        taken = b""

        async def take(body: ReadAhead) -> None:
            nonlocal taken
            async for piece in body:
                taken += piece

        async with ReadAhead(aiter(source)) as body:
            await until_read(source)
            with pytest.raises(httpx.ReadError, match="planned"):
                await take(body)

        assert taken == b"".join(PIECES)

    @pytest.mark.parametrize("count", [0, 1, 100, len(PIECES)])
    async def test_abandoned_body_leaves_neither_task_nor_file(
        self, count: int, files: list[IO[bytes]]
    ) -> None:
        source = Source(httpx.ReadError("planned"))
        before = asyncio.all_tasks()

        async with ReadAhead(aiter(source)) as body:
            await until_read(source, count)
            if count:
                await anext(aiter(body))

        assert all(file.closed for file in files)
        assert asyncio.all_tasks() == before

    async def test_error_of_the_consumer_removes_the_file(self, files: list[IO[bytes]]) -> None:
        source = Source()

        async def fail() -> None:
            async with ReadAhead(aiter(source)):
                await until_read(source)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()

        assert [file.closed for file in files] == [True]

    async def test_cancelled_consumer_removes_the_file(self, files: list[IO[bytes]]) -> None:
        source = Source()

        async def consume() -> None:
            async with ReadAhead(aiter(source)):
                await asyncio.Event().wait()

        consuming = asyncio.create_task(consume())
        await until_read(source)
        consuming.cancel()
        await asyncio.wait([consuming])

        assert consuming.cancelled()
        assert [file.closed for file in files] == [True]

    async def test_body_is_read_once_and_not_after_its_end(self) -> None:
        async with ReadAhead(aiter(Source())) as body:
            async for _ in body:
                pass
            with pytest.raises(httpx.StreamConsumed):
                await anext(aiter(body))
        async with ReadAhead(aiter(Source())) as body:
            pieces = aiter(body)
            await anext(pieces)
        with pytest.raises(httpx.StreamClosed):
            await anext(pieces)

    async def test_consumer_that_still_waits_at_the_end_is_woken(self) -> None:
        async def silence() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b"never"

        async def take() -> None:
            await anext(aiter(body))

        async with ReadAhead(silence()) as body:
            waiting = asyncio.create_task(take())
            await asyncio.sleep(0)

        with pytest.raises(httpx.StreamClosed):
            await asyncio.wait_for(waiting, 30)

    async def test_body_is_read_at_the_pace_of_the_consumer_without_a_disk(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(**_: Any) -> IO[bytes]:
            raise OSError("No space left on device")

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        source = Source()

        async with ReadAhead(aiter(source)) as body:
            pieces = aiter(body)
            taken = await anext(pieces)
            await until_read(source, 10)
            # Time to read on without the consumer, which must not happen and so is no event.
            await asyncio.sleep(0.05)
            # The sum of the first 45 sizes is above 1,000.
            assert source.count <= 46
            async for piece in pieces:
                taken += piece

        assert taken == b"".join(PIECES)
