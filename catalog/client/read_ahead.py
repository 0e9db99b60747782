"""Bodies read ahead of their consumer, as fast as the service sends them.

The service drops clients that read nothing for 8 s, and a consumer may need far longer for what it
has got already.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from threading import Lock
from typing import IO, Final, Self

import httpx

MEMORY_BYTES = 4 * 1024 * 1024
"""Unread bytes held in memory, some ten thousand products; more go to a temporary file."""

_READ_BYTES: Final = 256 * 1024


class ReadAhead:
    """A body whose consumer may take its time; use it in ``async with``, which reads it.

    Without a place for temporary files, it is read no faster than it is consumed.

    Args:
        pieces: the pieces of the body.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._file = _TemporaryFile()
        # All of these are newer than the bytes in the file.
        self._memory: deque[bytes] = deque()
        self._held_bytes = 0
        self._changed = asyncio.Condition()
        self._is_ended = self._is_closed = self._is_consumed = False

    async def __aenter__(self) -> Self:
        """Begin to read."""
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop reading, and remove the temporary file."""
        self._is_closed = True
        self._reading.cancel()
        try:
            # Also retrieves an error that the consumer has not come to.
            await asyncio.gather(self._reading, return_exceptions=True)
            async with self._changed:
                self._changed.notify_all()
        finally:
            await self._file.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces, once, and raise the error that ended them, if any."""
        if self._is_consumed:
            raise httpx.StreamConsumed
        self._is_consumed = True
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        """Return the next bytes; none at the end."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._memory or self._file.unread or self._is_ended or self._is_closed
            )
            if self._is_closed:
                raise httpx.StreamClosed
            if self._file.unread:
                return await self._file.read(_READ_BYTES)
            if self._memory:
                piece = self._memory.popleft()
                self._held_bytes -= len(piece)
                self._changed.notify_all()
                return piece
        await self._reading
        return b""

    async def _read(self) -> None:
        try:
            async for piece in self._pieces:
                if piece:
                    await self._hold(piece)
        finally:
            async with self._changed:
                self._is_ended = True
                self._changed.notify_all()

    async def _hold(self, piece: bytes) -> None:
        async with self._changed:
            self._memory.append(piece)
            self._held_bytes += len(piece)
            self._changed.notify_all()
            if self._held_bytes < MEMORY_BYTES:
                return
            if await self._file.append(b"".join(self._memory)):
                self._memory.clear()
                self._held_bytes = 0
            else:
                await self._changed.wait_for(lambda: self._held_bytes < MEMORY_BYTES)


class _TemporaryFile:
    """Queue of bytes in a file that is made when it is needed; its work is done in threads.

    Attributes:
        unread: bytes in it.
    """

    def __init__(self) -> None:
        self.unread = 0
        self._end = 0
        self._file: IO[bytes] | None = None
        self._is_usable = True
        # A cancelled wait for a thread does not end its work, which the next one must not meet.
        self._lock = Lock()

    async def append(self, data: bytes) -> bool:
        """Append bytes; return whether there was room for them."""
        if self._is_usable:
            try:
                await asyncio.to_thread(self._write, data)
            except OSError:
                # A full disk, or a file system that is read-only.
                self._is_usable = False
        return self._is_usable

    def _write(self, data: bytes) -> None:
        with self._lock:
            if not self._is_usable:
                return
            file = self._opened()
            file.seek(self._end)
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            self._end += len(data)
            self.unread += len(data)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            # Unbuffered, so that an error leaves nothing behind that is written later.
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (see ``close``)
        return self._file

    async def read(self, size: int) -> bytes:
        """Return the oldest bytes, up to that many."""
        return await asyncio.to_thread(self._take, size)

    def _take(self, size: int) -> bytes:
        with self._lock:
            file = self._opened()
            file.seek(self._end - self.unread)
            data = file.read(min(size, self.unread))
            self.unread -= len(data)
            if not self.unread:
                # The next bytes replace those that were read.
                self._end = 0
            return data

    async def close(self) -> None:
        """Remove the file, also if the caller is cancelled meanwhile."""
        closing = asyncio.get_running_loop().run_in_executor(None, self._close)
        await asyncio.shield(closing)

    def _close(self) -> None:
        with self._lock:
            self._is_usable = False
            if self._file is not None:
                self._file.close()
