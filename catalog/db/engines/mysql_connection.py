"""Fence around aiomysql: raises every connection fault as a driver error."""

import asyncio
import struct
from collections.abc import Awaitable
from contextlib import suppress

import aiomysql
from pymysql.constants import COMMAND, CR

_GOODBYE = struct.pack("<iB", 1, COMMAND.COM_QUIT)

_FAULTS = (
    # The socket's: reset or closed; uvloop raises on writes to a closed transport.
    *(OSError, EOFError, RuntimeError),
    # The driver's, on a truncated packet or after another task has closed the connection.
    *(AssertionError, AttributeError, LookupError, struct.error),
)


class MysqlConnection(aiomysql.Connection):  # type: ignore[misc]  # the library is untyped
    """Driver connection that raises every connection fault as a driver error.

    The driver lets some faults through untranslated, and SQLAlchemy takes those for bugs: it
    neither invalidates the connection nor reports it as lost. Error 2006 means that the statement
    was not sent, 2013 that its answer did not arrive.

    The overridden methods are private ones of aiomysql 0.3; tests/test_private_attributes.py fails
    when they change.
    """

    async def _connect(self) -> None:
        try:
            await super()._connect()
        except (*_FAULTS, aiomysql.InternalError, aiomysql.InterfaceError) as error:
            raise aiomysql.OperationalError(
                CR.CR_CONN_HOST_ERROR, f"no connection: {error!r}"
            ) from error
        except asyncio.CancelledError:
            # The driver closes after errors only: a cancelled TLS handshake would stay open.
            self.close()
            raise

    def _ensure_alive(self) -> None:
        if self._writer is None:
            reason = self._close_reason or "Not connected"
            raise aiomysql.OperationalError(CR.CR_SERVER_GONE_ERROR, reason)

    def _write_bytes(self, data: bytes) -> None:
        try:
            self._writer.write(data)
        except _FAULTS as error:
            self.close()
            raise aiomysql.OperationalError(CR.CR_SERVER_GONE_ERROR, repr(error)) from error

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        await self._translated(super()._read_query_result(unbuffered))

    async def _read_ok_packet(self) -> None:
        await self._translated(super()._read_ok_packet())

    async def _translated(self, reading: Awaitable[None]) -> None:
        try:
            await reading
        except _FAULTS as error:
            raise self._lost(error) from error
        except aiomysql.InternalError as error:
            # Without a number it is the driver's own: unexpected packets.
            if isinstance(error.args[0], int):
                raise
            raise self._lost(error) from error

    @property
    def is_lost(self) -> bool:
        """Whether the peer has closed or reset the connection, as far as the event loop knows."""
        if self._writer is None or self._writer.is_closing():
            return True
        return self._reader.at_eof() or self._reader.exception() is not None

    def send_query(self, statement: bytes) -> Awaitable[None]:
        """Send a statement, whose answer ``read_some`` reads.

        Raises:
            aiomysql.OperationalError: the connection is lost.
        """
        sending: Awaitable[None] = self._execute_command(COMMAND.COM_QUERY, statement)
        return sending

    async def read_some(self, size: int) -> bytes:
        """Read available data, at most ``size`` bytes; empty at the end of the stream.

        Raises:
            aiomysql.OperationalError: the connection is lost.
        """
        try:
            data: bytes = await self._reader.read(size)
        except _FAULTS as error:
            raise self._lost(error) from error
        return data

    def _lost(self, error: Exception) -> aiomysql.OperationalError:
        self.close()
        return aiomysql.OperationalError(CR.CR_SERVER_LOST, repr(error))

    async def ensure_closed(self) -> None:
        """Send COM_QUIT and close, without waiting for a server that may not read."""
        if self._writer is None:
            return
        transport = self._writer.transport
        if transport.get_write_buffer_size():
            transport.abort()
        with suppress(aiomysql.OperationalError):
            self._write_bytes(_GOODBYE)
        self.close()
        # TLS would wait for the server's own goodbye. In the next turn, since uvloop sends at the
        # end of this one.
        asyncio.get_running_loop().call_soon(transport.abort)
