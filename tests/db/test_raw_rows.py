"""Raw rows equal SQLAlchemy's, and a broken response costs only its connection."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymysql.err import Error
from sqlalchemy import ColumnElement, Select, bindparam, func, literal_column, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.columns import Timestamp
from catalog.db.database import Database
from catalog.db.raw_rows import TextQuery, _Result, read_texts
from catalog.db.read_connection import ReadConnection
from catalog.errors import DatabaseUnavailable
from tests.db.support import on_servers, run_on
from tests.support import until

Statement = Select[*tuple[Any, ...]]

# The numbers 1 to 900, on either server.
NUMBERS = text(
    "(WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 900)"
    " SELECT n FROM numbers) AS numbers"
)
NUMBER: ColumnElement[int] = literal_column("numbers.n")
PADDED: Statement = (
    select(func.concat("=", func.rpad(NUMBER, bindparam("size"), "é%'")))
    .select_from(NUMBERS)
    .order_by(NUMBER)
)
ECHO: Statement = select(func.concat("=", bindparam("value")))
NOTHING: Statement = select(func.concat("a")).where(text("1 = 0"))


async def echoed(database: Database, value: Any) -> str:
    ((found,),) = await run_on(database.connection(), read_texts, TextQuery(ECHO, {"value": value}))
    return found.decode().removeprefix("=")


@on_servers
class TestReadTexts:
    async def test_rows_of_any_length_match_sqlalchemy(self, database: Database) -> None:
        async def read(connection: ReadConnection, size: int) -> tuple[list[bytes], list[str]]:
            (found,) = await read_texts(connection, TextQuery(PADDED, {"size": size}))
            rows = await connection.execute(PADDED, {"size": size})
            return found, [row[0] for row in rows]

        for size in (0, 1, 120, 200, 250, 251, 252, 3000, 50_000):
            found, rows = await run_on(database.connection(), read, size)
            assert [each.decode() for each in found] == rows
            assert len(rows) == 900

    async def test_bound_values_round_trip_unchanged(self, database: Database) -> None:
        for value in ("", "'", '\\"', "%s %% %(x)s", "é\U0001f4a1", "a\r\n\x1a", "; DROP TABLE x"):
            assert await echoed(database, value) == value
        assert await echoed(database, -(2**63)) == str(-(2**63))
        assert float(await echoed(database, 0.1)) == 0.1

    async def test_values_of_other_types_are_bound_by_sqlalchemy(self, database: Database) -> None:
        at: Statement = select(func.concat(bindparam("at", type_=Timestamp())))
        values = {"at": datetime(2026, 11, 23, 1, 2, 3, 4, tzinfo=UTC)}

        found = await run_on(database.connection(), read_texts, TextQuery(at, values))

        assert found == [[b"2026-11-23 01:02:03.000004"]]

    async def test_empty_result_is_an_empty_list(self, database: Database) -> None:
        assert await run_on(database.connection(), read_texts, TextQuery(NOTHING, {})) == [[]]

    async def test_batched_statements_match_single_ones(self, database: Database) -> None:
        at: Statement = select(func.concat(bindparam("at", type_=Timestamp())))
        downwards = PADDED.order_by(None).order_by(NUMBER.desc())
        queries = [
            TextQuery(NOTHING, {}),
            TextQuery(ECHO, {"value": "') UNION ALL (SELECT '"}),
            *(TextQuery(PADDED.limit(limit), {"size": 9}) for limit in (3, 1, 900)),
            TextQuery(at, {"at": datetime(2026, 11, 23, tzinfo=UTC)}),
            TextQuery(downwards.limit(5), {"size": 300}),
            TextQuery(NOTHING, {}),
            TextQuery(downwards.limit(900), {"size": 2}),
            TextQuery(NOTHING, {}),
        ]

        together = await run_on(database.connection(), read_texts, *queries)
        alone = [(await run_on(database.connection(), read_texts, each))[0] for each in queries]

        assert together == alone
        assert [len(texts) for texts in together] == [0, 1, 3, 1, 900, 1, 5, 0, 900, 0]


WRONG: Statement = select(literal_column("missing"))
SLOW: Statement = select(func.concat("a", func.sleep(30)))
# Of this test's own database, because parallel tests share the server.
RUNNING = text(
    "SELECT count(*) FROM information_schema.processlist"
    " WHERE db = database() AND info LIKE '%sleep(30)%' AND info NOT LIKE '%processlist%'"
)


@on_servers
class TestFailures:
    async def test_server_error_is_raised_and_the_connection_is_kept(
        self, database: Database
    ) -> None:
        async def read(connection: ReadConnection) -> tuple[Any, Any]:
            own = TextQuery(select(func.concat(func.connection_id())), {})
            before = await read_texts(connection, own)
            with pytest.raises(DBAPIError) as refused:
                await read_texts(connection, own, TextQuery(WRONG, {}))
            assert refused.value.orig is not None
            assert refused.value.orig.args[0] == 1054
            assert not refused.value.connection_invalidated
            return before, await read_texts(connection, own)

        before, after = await run_on(database.connection(), read)
        assert before == after

    async def test_cancelled_read_leaves_no_rows_on_the_connection(
        self, database: Database
    ) -> None:
        slow = TextQuery(SLOW, {})

        async def count_running(connection: AsyncConnection) -> int:
            return int(await connection.scalar(RUNNING) or 0)

        async def are_running() -> bool:
            return await run_on(database.probe(within=30), count_running) == len(readers)

        readers = [
            asyncio.create_task(run_on(database.connection(), read_texts, slow)) for _ in range(5)
        ]
        await until(are_running)
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)

        for number in range(20):
            assert await echoed(database, number) == str(number)

    async def test_killed_connection_is_replaced(self, database: Database) -> None:
        async def read(connection: ReadConnection) -> list[list[bytes]]:
            own = await connection.scalar(select(func.connection_id()))

            async def kill(other: AsyncConnection) -> None:
                await other.execute(text(f"KILL {own}"))

            bodies.append(own)
            await run_on(database.probe(within=30), kill)
            return await read_texts(connection, TextQuery(ECHO, {"value": "there"}))

        bodies: list[Any] = []
        # The statement is repeated on a new connection, and not what came before it.
        assert await run_on(database.connection(), read) == [[b"=there"]]
        assert len(bodies) == 1

    async def test_slow_read_times_out(self, database: Database) -> None:
        async def read(connection: ReadConnection) -> None:
            # The server's own limit ends the sleep early on one engine, the query on the other.
            await connection.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
            async with asyncio.timeout(0.2):
                await read_texts(connection, TextQuery(SLOW, {}))

        with pytest.raises(DatabaseUnavailable):
            await run_on(database.connection(), read)
        assert await echoed(database, "there") == "there"


def packet(content: bytes, number: int = 0) -> bytes:
    return len(content).to_bytes(3, "little") + bytes([number % 256]) + content


def answer_of(*texts: bytes, end: bytes = b"\xfe\x00\x00\x02\x00") -> bytes:
    def value(content: bytes) -> bytes:
        length = len(content)
        if length < 251:
            return bytes([length]) + content
        width, mark = (2, 0xFC) if length < 1 << 16 else (3, 0xFD)
        return bytes([mark]) + length.to_bytes(width, "little") + content

    head = (b"\x01", b"\x03def column", b"\xfe\x00\x00\x02\x00")
    return b"".join(packet(each, n) for n, each in enumerate((*head, *map(value, texts), end)))


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


class TestResult:
    @pytest.mark.parametrize("size", [1, 2, 3, 7, 300, 1_000_000])
    def test_result_is_parsed_from_chunks_of_any_size(self, size: int) -> None:
        texts = [b"", b"\xfe\xff\x00", b"a" * 250, b"b" * 251, b"c" * 3000]
        result = _Result()

        ends = [result.feed(piece) for piece in pieces(answer_of(*texts), size)]

        assert ends == [False] * (len(ends) - 1) + [True]
        assert result.texts == texts

    def test_long_texts_are_complete(self) -> None:
        texts = [b"d" * 65_535, b"e" * 65_536, b"f" * 300_000]
        result = _Result()

        assert [result.feed(piece) for piece in pieces(answer_of(*texts), 65_536)][-1]
        assert result.texts == texts

    def test_truncated_result_is_an_error(self) -> None:
        result = _Result()
        result.feed(answer_of(b"a")[:-9])

        with pytest.raises(Error, match="Lost connection"):
            result.feed(b"")
        assert not result.is_over

    def test_error_packet_among_the_rows_is_raised(self) -> None:
        result = _Result()

        with pytest.raises(Error, match="interrupted"):
            result.feed(answer_of(b"a", end=b"\xff\x25\x05#70100interrupted"))
        assert result.is_over

    @pytest.mark.parametrize("content", [b"\xfb", b"\xfe" + bytes(8) + b"7"])
    def test_unsupported_packet_is_an_error(self, content: bytes) -> None:
        head = answer_of()[:-9]

        with pytest.raises(Error):
            _Result().feed(head + packet(content) + packet(b"\xfe\x00\x00\x02\x00"))
