"""Response bytes waiting for slow clients are counted once per object, and bounded."""

import asyncio
from contextlib import ExitStack
from itertools import pairwise

import pytest

from catalog.errors import Overloaded
from catalog.http import response_buffers
from catalog.http.response_buffers import (
    LARGE_BYTES,
    PROGRESS_BYTES,
    SWEPT_AT_A_TIME,
    ResponseBuffers,
)
from tests.http.pipe import Pipe

TIMEOUT_SECONDS = 30.0


class TestResponseBuffers:
    async def test_page_sent_to_several_clients_counts_once(self) -> None:
        buffers = ResponseBuffers(max_bytes=10 * LARGE_BYTES, timeout=60)
        page = bytes(LARGE_BYTES)

        with ExitStack() as held:
            for _ in range(3):
                held.enter_context(buffers.holding(Pipe(LARGE_BYTES), [bytes(100), page]))
            assert LARGE_BYTES < buffers.held_bytes <= LARGE_BYTES + 300
        assert buffers.held_bytes == 0

    async def test_large_responses_are_rejected_when_the_buffers_are_full(self) -> None:
        buffers = ResponseBuffers(max_bytes=LARGE_BYTES, timeout=60)

        buffers.admit(LARGE_BYTES)
        with buffers.holding(Pipe(LARGE_BYTES), [bytes(LARGE_BYTES)]):
            buffers.admit(LARGE_BYTES - 1)
            with pytest.raises(Overloaded) as refusal:
                buffers.admit(LARGE_BYTES)
            with pytest.raises(Overloaded):
                buffers.admit()
        buffers.admit()

        assert refusal.value.headers["Retry-After"]

    async def test_stalled_client_is_dropped_and_steady_one_is_not(self) -> None:
        buffers = ResponseBuffers(max_bytes=10 * LARGE_BYTES, timeout=3)
        stalled, steady = Pipe(LARGE_BYTES), Pipe(LARGE_BYTES)

        with (
            buffers.holding(stalled, [bytes(LARGE_BYTES)]),
            buffers.holding(steady, [bytes(LARGE_BYTES)]),
        ):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not stalled.aborted.is_set():
                    steady.left -= PROGRESS_BYTES
                    await asyncio.sleep(0.05)

        assert not steady.aborted.is_set()

    async def test_young_responses_are_dropped_only_beyond_twice_the_bound(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(response_buffers, "GRACE_SECONDS", 3600.0)
        monkeypatch.setattr(response_buffers, "SWEEP_SECONDS", 0.01)
        full, overfull = (ResponseBuffers(max_bytes=LARGE_BYTES, timeout=3600) for _ in range(2))
        one, two, three = (Pipe(LARGE_BYTES) for _ in range(3))

        with ExitStack() as held:
            held.enter_context(full.holding(one, [bytes(LARGE_BYTES)]))
            for pipe in (two, three):
                held.enter_context(overfull.holding(pipe, [bytes(LARGE_BYTES)]))
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not two.aborted.is_set() and not three.aborted.is_set():
                    await asyncio.sleep(0.01)

        # Its clients were looked at before those of the other.
        assert not one.aborted.is_set()

    async def test_stalled_clients_are_dropped_in_portions(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(response_buffers, "SWEEP_SECONDS", 0.01)
        buffers = ResponseBuffers(max_bytes=LARGE_BYTES, timeout=0)
        pipes = [Pipe(1) for _ in range(3 * SWEPT_AT_A_TIME + 1)]

        with ExitStack() as held:
            for pipe in pipes:
                held.enter_context(buffers.holding(pipe, [bytes(1)]))
            counts = [0]
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while counts[-1] < len(pipes):
                    await asyncio.sleep(0)
                    counts.append(sum(pipe.aborted.is_set() for pipe in pipes))

        steps = [after - before for before, after in pairwise(counts)]
        assert max(steps) == SWEPT_AT_A_TIME

    async def test_slowest_client_is_dropped_when_the_buffers_are_full(self) -> None:
        buffers = ResponseBuffers(max_bytes=LARGE_BYTES, timeout=60)
        slow, quick = Pipe(LARGE_BYTES), Pipe(LARGE_BYTES)

        async with asyncio.timeout(TIMEOUT_SECONDS):
            with buffers.holding(quick, [bytes(LARGE_BYTES)]):
                quick.left -= LARGE_BYTES // 2
                with buffers.holding(slow, [bytes(LARGE_BYTES)]):
                    await slow.aborted.wait()
                    assert not quick.aborted.is_set()
