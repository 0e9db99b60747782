"""Change feed: long polls and followers, fed by one poller."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, cast

import orjson
import pytest
from quart import Quart
from quart import typing as quart_typing
from quart.testing import connections
from sqlalchemy import delete, event, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from catalog.app import begin_drain
from catalog.db.database import Database
from catalog.errors import CatalogError, ChangesGone, NotReady, Overloaded
from catalog.http.context import app_state
from catalog.http.response_buffers import MAX_BUFFERED_BYTES, SHARED_BYTES
from catalog.products.changes import feed as feed_module
from catalog.products.changes.change_counter import current_change
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.feed import WOKEN_AT_A_TIME, Feed
from catalog.products.context import products
from catalog.products.models import ChangeCounter, ProductChange
from tests.db.support import Stopwatch, run_on
from tests.http.pipe import Pipe
from tests.support import Caller, at_once, fields_of, problem_of, until

PATH = "/api/products/changes"
STREAM = {"Accept": "text/event-stream"}
START = ChangeId(0)


@pytest.fixture
def feed(app: Quart) -> Feed:
    return products(app).feed


class Follower:
    """Follower of the feed that records what it receives."""

    def __init__(self, feed: Feed, since: ChangeId = START) -> None:
        self.positions: list[int] = []
        self.heartbeats = 0
        self.ended: CatalogError | None = None
        self._task = asyncio.create_task(self._follow(feed, since))

    async def _follow(self, feed: Feed, since: ChangeId) -> None:
        try:
            async with aclosing(feed.follow(since)) as stretches:
                async for stretch in stretches:
                    self.positions += [entry.change.position for entry in stretch]
                    self.heartbeats += not stretch
        except CatalogError as error:
            self.ended = error

    def has(self, count: int) -> bool:
        return len(self.positions) == count

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


@asynccontextmanager
async def following(
    feed: Feed, count: int = 1, *, since: ChangeId = START
) -> AsyncIterator[list[Follower]]:
    followers = [Follower(feed, since) for _ in range(count)]
    try:
        yield followers
    finally:
        for follower in followers:
            await follower.stop()


class TestLongPoll:
    async def test_long_poll_answers_on_the_next_change(
        self, ada: Caller, anyone: Caller, feed: Feed
    ) -> None:
        waiting = asyncio.create_task(anyone.get(f"{PATH}?wait=25"))
        await until(lambda: feed._begin is not None and feed._waiting)
        assert not waiting.done()

        lamp = (await ada.create_product("Lamp")).json
        async with asyncio.timeout(20):
            answer = await waiting

        (change,) = answer.json["changes"]
        assert (change["position"], change["product"]) == (1, lamp)
        assert (answer.json["position"], answer.json["more"]) == (1, False)
        assert answer.headers["Catalog-Position"] == "1"

    async def test_long_poll_answers_empty_after_its_wait(self, anyone: Caller) -> None:
        answer = await anyone.get(f"{PATH}?wait=1")

        assert answer.json == {"changes": [], "position": 0, "change": "0", "more": False}

    async def test_long_poll_answers_at_once_if_there_are_changes(
        self, ada: Caller, anyone: Caller
    ) -> None:
        await at_once(3, lambda number: ada.create_product(f"Lamp {number}"))

        async with asyncio.timeout(20):
            answer = await anyone.get(f"{PATH}?wait=25&limit=2")

        assert [change["position"] for change in answer.json["changes"]] == [1, 2]
        assert answer.json["more"]

    async def test_drain_ends_a_long_poll(self, app: Quart, anyone: Caller, feed: Feed) -> None:
        waiting = asyncio.create_task(anyone.get(f"{PATH}?wait=25"))
        await until(lambda: feed._waiting)

        begin_drain(app)
        async with asyncio.timeout(20):
            answer = await waiting

        assert answer.json["changes"] == []


class TestFollow:
    async def test_follower_gets_past_and_new_changes(self, ada: Caller, feed: Feed) -> None:
        await at_once(5, lambda number: ada.create_product(f"Lamp {number}"))
        async with following(feed) as (follower,):
            await until(lambda: follower.positions == [1, 2, 3, 4, 5])

            await at_once(5, lambda number: ada.create_product(f"Stool {number}"))
            await until(lambda: len(follower.positions) == 10)

        assert follower.positions == [*range(1, 11)]

    async def test_follower_catches_up_over_several_reads(
        self, ada: Caller, feed: Feed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_module, "STRETCH", 4)
        await at_once(30, lambda number: ada.create_product(f"Lamp {number}"))
        async with following(feed, 3) as followers:
            await at_once(30, lambda number: ada.create_product(f"Stool {number}"))
            await until(lambda: all(len(each.positions) == 60 for each in followers))

        assert all(each.positions == [*range(1, 61)] for each in followers)

    async def test_followers_share_one_poller(
        self, ada: Caller, feed: Feed, database: Database
    ) -> None:
        statements = Counter[str]()

        def count(name: str, engine: AsyncEngine) -> None:
            event.listen(
                engine.sync_engine, "before_cursor_execute", lambda *_: statements.update([name])
            )

        count("read", database._read_engine)
        count("watch", database._watch_engine)
        async with following(feed, 200) as followers:
            await until(lambda: feed._begin is not None)
            await ada.create_product("Rug")
            # By then each follower has read the end of the log itself.
            await until(lambda: all(each.positions == [1] for each in followers))
            statements.clear()
            stopwatch = Stopwatch()
            await at_once(20, lambda number: ada.create_product(f"Lamp {number}"))
            await until(lambda: all(len(each.positions) == 21 for each in followers))

        assert statements["read"] < 30
        # About ten polls a second of one or two statements each, and the background tasks.
        assert statements["watch"] < 60 + 30 * stopwatch.seconds

    @pytest.mark.parametrize("polls", [False, True], ids=["followers", "polls"])
    async def test_waiters_are_woken_in_portions(
        self, ada: Caller, feed: Feed, *, polls: bool
    ) -> None:
        count = 4 * WOKEN_AT_A_TIME
        woken = 0

        async def follow() -> None:
            nonlocal woken
            if polls:
                await feed.wait(since=START, limit=10, seconds=60)
            else:
                async with aclosing(feed.follow(START)) as stretches:
                    await anext(stretches)
            woken += 1

        tasks = [asyncio.create_task(follow()) for _ in range(count)]
        await until(lambda: feed._begin is not None and len(feed._waiting) == count)
        creating = asyncio.create_task(ada.create_product("Lamp"))
        in_each_turn = []
        async with asyncio.timeout(60):
            while woken < count:
                before = woken
                await asyncio.sleep(0)
                in_each_turn.append(woken - before)
            await asyncio.gather(creating, *tasks)

        assert 0 < max(in_each_turn) <= WOKEN_AT_A_TIME

    async def test_poller_stops_without_followers(
        self, feed: Feed, ada: Caller, database: Database
    ) -> None:
        statements: list[str] = []
        event.listen(
            database._watch_engine.sync_engine,
            "before_cursor_execute",
            lambda *details: statements.append(details[2]),
        )
        async with following(feed) as (follower,):
            await ada.create_product("Lamp")
            await until(lambda: follower.positions and feed._begin is not None)
        assert any("change_counter" in statement for statement in statements)
        await until(lambda: feed._begin is None)

        statements.clear()
        for _ in range(3):
            await feed.poll()

        assert not any("change_counter" in statement for statement in statements)

    async def test_idle_feed_sends_heartbeats(
        self, feed: Feed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_module, "HEARTBEAT_SECONDS", 0.01)
        async with following(feed) as (follower,):
            await until(lambda: follower.heartbeats > 3)

    async def test_slow_follower_is_dropped_and_may_resume(
        self, ada: Caller, feed: Feed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_module, "KEPT_CHANGES", 10)
        monkeypatch.setattr(feed_module, "STRETCH", 3)
        seen: list[int] = []
        async with following(feed) as (quick,), aclosing(feed.follow(START)) as slow:
            await ada.create_product("Lamp")
            seen += [entry.change.position for entry in await anext(slow)]
            await until(lambda: feed._begin is not None and feed._head.position >= 1)
            await at_once(5, lambda number: ada.create_product(f"Lamp {number}"))
            await until(lambda: feed._head.position >= 6)
            seen += [entry.change.position for entry in await anext(slow)]
            await at_once(30, lambda number: ada.create_product(f"Stool {number}"))
            await until(lambda: feed._head.position >= 36)
            with pytest.raises(Overloaded):
                await anext(slow)
            await until(lambda: len(quick.positions) == 36)
            assert len(feed._entries) <= 10 + 3

        async with following(feed, since=ChangeId(seen[-1])) as (again,):
            await until(lambda: len(again.positions) == 36 - len(seen))
        assert seen + again.positions == [*range(1, 37)]

    async def test_kept_changes_are_bounded_in_bytes(
        self, ada: Caller, feed: Feed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_module, "KEPT_BYTES", 20_000)
        async with following(feed) as (follower,):
            await until(lambda: feed._begin is not None)
            for count in range(1, 11):
                await ada.create_product("Lamp", description="x" * 9_000)
                await until(partial(follower.has, count))

            assert feed._bytes <= 20_000 + 10_000

    async def test_followers_beyond_the_limit_are_refused(
        self, feed: Feed, anyone: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_module, "MAX_FOLLOWERS", 2)
        async with following(feed, 3) as followers:
            await until(lambda: any(each.ended for each in followers))
            answer = await anyone.get(f"{PATH}?wait=1")

        assert [type(each.ended) for each in followers].count(Overloaded) == 1
        assert problem_of(answer) == (503, "overloaded")

    async def test_restored_database_ends_the_follower(
        self, ada: Caller, feed: Feed, database: Database
    ) -> None:
        await at_once(3, lambda number: ada.create_product(f"Lamp {number}"))
        async with following(feed, since=ChangeId(3)) as (follower,):
            await until(lambda: feed._begin is not None)
            # The effect of restoring the database from a backup.
            await database.transaction(forget_two)
            await until(lambda: follower.ended)

        assert isinstance(follower.ended, ChangesGone)

    @pytest.mark.parametrize("token", ["", "known"])
    async def test_same_position_in_another_history_ends_the_follower(
        self, ada: Caller, feed: Feed, database: Database, token: str
    ) -> None:
        await at_once(3, lambda number: ada.create_product(f"Lamp {number}"))
        last = await run_on(database.connection(), current_change)
        since = last if token else ChangeId(last.position)
        async with following(feed, since=since) as (follower,), following(feed) as (other,):
            await until(lambda: feed._begin is not None and other.positions == [1, 2, 3])
            # By then a follower that began at a bare position knows its token.
            await ada.create_product("Stool")
            await until(lambda: (follower.positions, other.positions) == ([4], [1, 2, 3, 4]))
            await database.transaction(replace_last)
            await until(lambda: follower.ended and other.ended)

        assert (type(follower.ended), type(other.ended)) == (ChangesGone, ChangesGone)

    async def test_drain_ends_followers(self, app: Quart, feed: Feed) -> None:
        async with following(feed, 3) as followers:
            await until(lambda: len(feed._waiting) == 3)
            begin_drain(app)
            await until(lambda: all(each.ended for each in followers))

        assert {type(each.ended) for each in followers} == {NotReady}


async def forget_two(session: AsyncSession) -> None:
    await session.execute(delete(ProductChange).where(ProductChange.position > 1))
    await session.execute(update(ChangeCounter).values(position=1))


async def replace_last(session: AsyncSession) -> None:
    await session.execute(
        update(ProductChange).where(ProductChange.position == 4).values(token="other")
    )
    await session.execute(update(ChangeCounter).values(token="other"))


class LastEventId(NamedTuple):
    """The last event that a client has received, as it sends it."""

    headers: dict[str, str]
    parameter: str


async def received(connection: quart_typing.TestHTTPConnectionProtocol, part: bytes) -> bytes:
    """Receive pieces of a stream up to the first with a part, and return that one."""
    async with asyncio.timeout(60):
        while part not in (piece := await connection.receive()):
            pass
    return piece


class TestStream:
    async def test_stream_sends_changes_as_events(self, app: Quart, ada: Caller) -> None:
        lamp = (await ada.create_product("Lamp", description="two\nlines\r\n\r\nof text")).json
        async with app.test_client().request(PATH, headers=STREAM) as connection:
            await connection.send_complete()
            stream = b""
            while b"\n\ndata" not in stream and b"}\n\n" not in stream:
                stream += await connection.receive()
            headers = cast(connections.TestHTTPConnection, connection).headers
            await connection.disconnect()

        begin, first, _ = stream.split(b"\n\n", 2)
        # A comment: some clients take a block of fields without data for an empty event.
        assert begin == b":"
        retry, number, data = first.split(b"\n")
        assert retry == b"retry: 1000"
        assert number.startswith(b"id: 1.")
        assert orjson.loads(data.removeprefix(b"data: "))["product"] == lamp
        assert headers is not None
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-cache"
        assert headers["X-Accel-Buffering"] == "no"

    @pytest.mark.parametrize(
        "last",
        [
            LastEventId({"Last-Event-ID": "3"}, ""),
            LastEventId({}, "&lastEventId=3"),
            # As a polyfill's URL stays while a native client's header changes.
            LastEventId({"Last-Event-ID": "3"}, "&lastEventId=2"),
        ],
        ids=["header", "parameter", "both"],
    )
    async def test_stream_resumes_after_the_last_event_id(
        self, app: Quart, ada: Caller, last: LastEventId
    ) -> None:
        await at_once(5, lambda number: ada.create_product(f"Lamp {number}"))
        headers = {**STREAM, **last.headers}
        path = f"{PATH}?since=1{last.parameter}"
        async with app.test_client().request(path, headers=headers) as connection:
            await connection.send_complete()
            stream = b""
            while b"id: 5" not in stream:
                stream += await connection.receive()
            await connection.disconnect()

        assert b"id: 3" not in stream
        assert b"id: 4" in stream

    async def test_empty_last_event_id_is_absent(self, anyone: Caller) -> None:
        answer = await anyone.send("HEAD", f"{PATH}?since=0&lastEventId=", headers=STREAM)

        assert answer.status_code == 200

    @pytest.mark.parametrize("last", ["x", "-1", "1.", "1.x.y", "1.x y", "9" * 19, "9" * 20, "٣"])
    async def test_malformed_last_event_id_is_refused(self, anyone: Caller, last: str) -> None:
        answer = await anyone.get(PATH, headers={**STREAM, "Last-Event-ID": last})

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["Last-Event-ID"]

    async def test_stream_from_a_gone_position_is_refused(self, anyone: Caller) -> None:
        answer = await anyone.get(f"{PATH}?since=1", headers=STREAM)

        assert problem_of(answer) == (410, "changes-gone")

    async def test_head_sends_no_stream(self, anyone: Caller) -> None:
        answer = await anyone.send("HEAD", PATH, headers=STREAM)

        assert (answer.status_code, answer.body) == (200, b"")

    async def test_end_event_has_the_reason(self, app: Quart, anyone: Caller, feed: Feed) -> None:
        asking = asyncio.create_task(anyone.get(PATH, headers=STREAM))
        await until(lambda: feed._followers)

        begin_drain(app)
        async with asyncio.timeout(20):
            answer = await asking

        end = answer.body.decode().rstrip().splitlines()[-2:]
        assert end[0] == "event: end"
        assert orjson.loads(end[1].removeprefix("data: "))["code"] == "not-ready"

    async def test_followers_are_sent_the_same_object(self, app: Quart, ada: Caller) -> None:
        await ada.create_product("Lamp", description="x" * SHARED_BYTES)

        sent = []
        for _ in range(3):
            async with app.test_client().request(PATH, headers=STREAM) as connection:
                await connection.send_complete()
                sent.append(await received(connection, b"data: "))
                await connection.disconnect()

        assert len({id(events) for events in sent}) == 1

    async def test_full_buffers_end_a_stream_of_long_changes_only(
        self, app: Quart, ada: Caller, feed: Feed
    ) -> None:
        buffers = app_state(app).buffers
        async with app.test_client().request(PATH, headers=STREAM) as connection:
            await connection.send_complete()
            await connection.receive()
            await until(lambda: feed._begin is not None)
            with buffers.holding(Pipe(1), [bytes(MAX_BUFFERED_BYTES)]):
                await ada.create_product("Lamp")
                await received(connection, b"data: ")
                await ada.create_product("Stool", description="x" * SHARED_BYTES)
                end = await received(connection, b"data: ")
            await connection.disconnect()

        assert end.startswith(b"event: end\n")
        assert b'"overloaded"' in end

    async def test_disconnected_client_is_no_longer_counted_as_follower(
        self, app: Quart, feed: Feed
    ) -> None:
        async with app.test_client().request(PATH, headers=STREAM) as connection:
            await connection.send_complete()
            await connection.receive()
            await until(lambda: feed._followers == 1)
            await connection.disconnect()

        await until(lambda: feed._followers == 0)


class TestOutage:
    async def test_followers_survive_an_outage(
        self, ada: Caller, feed: Feed, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with following(feed) as (follower,):
            await ada.create_product("Lamp")
            await until(lambda: follower.positions == [1] and feed._begin is not None)

            failures = 0

            def fail(**_: Any) -> Any:
                nonlocal failures
                failures += 1
                raise ConnectionError

            with monkeypatch.context() as patch:
                patch.setattr(database, "watch", fail)
                await ada.create_product("Stool")
                before = failures
                await until(lambda: failures > before)
                assert follower.positions == [1]
            await until(lambda: follower.positions == [1, 2])

        assert (await run_on(database.connection(), current_change)).position == 2
