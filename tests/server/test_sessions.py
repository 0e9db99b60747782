"""Sessions across processes: concurrent rotation, and revocation known to every worker."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from sqlalchemy import update

from catalog.auth.models import LoginSession, SupersededToken
from catalog.auth.tokens.session_state import GRACE, hash_of
from catalog.db.columns import now
from catalog.db.database import Database
from tests.auth.rows import rows_of, run
from tests.engines import Engine, settings_for
from tests.server.service import Answer, Catalog, Connection, Service
from tests.support import PASSWORD

ROUNDS = 20
AT_ONCE = 50
LATEST_SECONDS = 6.0
"""The promise is 2 s, which tests/auth/tokens checks by a clock; a busy machine polls late."""


class Workers:
    """Two workers, connections to each, and their database.

    Attributes:
        connections: the connections to each worker, by its process id.
    """

    def __init__(self, service: Service, database: Database) -> None:
        self.database = database
        self.connections: dict[int, list[Connection]] = {pid: [] for pid in service.workers}
        self._service = service

    async def connect(self, count: int) -> None:
        """Open that many connections to each worker."""
        async with asyncio.timeout(30):
            while min(map(len, self.connections.values())) < count:
                # Concurrently, so that more than one worker is woken.
                opened = [await self._service.connect() for _ in range(count)]
                await asyncio.gather(*(each.get("/livez") for each in opened))
                for each in opened:
                    theirs = self.connections[self._worker_of(each)]
                    if len(theirs) < count:
                        theirs.append(each)
                    else:
                        await each.close()

    def _worker_of(self, connection: Connection) -> int:
        """Return the worker that has accepted a connection, from the kernel's tables."""
        ends = (int(self._service.url.rpartition(":")[2]), connection.port)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, *fields = line.split()
            if tuple(int(end.partition(":")[2], 16) for end in (local, remote)) == ends:
                socket = f"socket:[{fields[6]}]"
                break
        for pid in self.connections:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                if descriptor.is_symlink() and str(descriptor.readlink()) == socket:
                    return pid
        raise LookupError

    @property
    def pair(self) -> list[Connection]:
        """One connection to each worker."""
        return [theirs[0] for theirs in self.connections.values()]

    @property
    def all(self) -> list[Connection]:
        """All connections, alternating between the workers."""
        both = zip(*self.connections.values(), strict=True)
        return [connection for pair in both for connection in pair]


@pytest.fixture(scope="module")
async def workers(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Workers]:
    """Start two workers on a database of this engine, with 25 connections to each."""
    folder = tmp_path_factory.mktemp("sessions")
    url = await engine.create_database(folder)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.drop_database, url)
        service = await stack.enter_async_context(
            Catalog(folder).start(
                "--workers=2",
                DATABASE_URL=url.render_as_string(hide_password=False),
            )
        )
        database = Database(settings_for(url))
        stack.push_async_callback(database.close)
        workers = Workers(await service.serving(), database)
        await service.event("worker_ready", count=2)
        await workers.connect(AT_ONCE // 2)
        yield workers


async def sign_up(connection: Connection, username: str) -> dict[str, Any]:
    fields = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
    answer = await connection.ask("POST", "/api/auth/signup", body=fields)
    assert answer.status == 201, answer.body
    tokens: dict[str, Any] = json.loads(answer.body)
    return tokens


async def rotate(connection: Connection, token: str) -> Answer:
    return await connection.ask("POST", "/api/auth/refresh", token=token, body={"rotate": True})


async def seconds_until_refused(
    connection: Connection, access_token: str, *, code: str = "session-ended"
) -> float:
    """Return how many seconds a worker accepts a token before it refuses it with a code."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        while (
            answer := await connection.ask("GET", "/api/products/my", token=access_token)
        ).status == 200:
            await asyncio.sleep(0.02)
    assert code_of(answer) == (401, code)
    return time.monotonic() - began


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"]


def id_of(token: str) -> str:
    token_id: str = jwt.decode(token, options={"verify_signature": False})["jti"]
    return token_id


class TestRotation:
    async def test_concurrent_rotations_have_one_successor_and_theft_ends_the_session_everywhere(
        self, workers: Workers
    ) -> None:
        one, other = workers.pair
        ada = await sign_up(one, "ada")
        first = token = ada["refresh_token"]
        tokens = {token}
        for _ in range(ROUNDS):
            answers = await asyncio.gather(*(rotate(each, token) for each in workers.all))

            assert {answer.status for answer in answers} == {200}
            (token,) = {json.loads(answer.body)["refresh_token"] for answer in answers}
            tokens.add(token)
        assert [len(theirs) for theirs in workers.connections.values()] == [AT_ONCE // 2] * 2
        assert len(tokens) == ROUNDS + 1
        access_tokens = [json.loads(answer.body)["access_token"] for answer in answers]
        for connection in (one, other):
            answer = await connection.ask("GET", "/api/products/my", token=access_tokens[0])
            assert answer.status == 200

        stolen = SupersededToken.token_hash == hash_of(id_of(first))
        late = now() - GRACE - timedelta(seconds=1)
        await run(
            workers.database, update(SupersededToken).where(stolen).values(superseded_at=late)
        )
        replayed = await rotate(one, first)

        assert code_of(replayed) == (401, "token-reused")
        assert await seconds_until_refused(other, access_tokens[-1]) < LATEST_SECONDS
        answer = await one.ask("GET", "/api/products/my", token=access_tokens[-1])
        assert code_of(answer) == (401, "session-ended")
        for connection in (one, other):
            assert code_of(await rotate(connection, token)) == (401, "session-ended")
        rows = await rows_of(workers.database, LoginSession)
        ended = {row["user_id"] for row in rows if row["revoked_at"] is not None}
        assert ada["id"] in ended


class TestRevocation:
    async def test_session_ended_by_one_worker_is_refused_by_the_other_within_two_seconds(
        self, workers: Workers
    ) -> None:
        one, other = workers.pair
        access_token = (await sign_up(one, "bob"))["access_token"]
        for connection in (one, other):
            answer = await connection.ask("GET", "/api/products/my", token=access_token)
            assert answer.status == 200

        assert (await one.ask("POST", "/api/auth/logout", token=access_token)).status == 204

        answer = await one.ask("GET", "/api/products/my", token=access_token)
        assert code_of(answer) == (401, "session-ended")
        assert await seconds_until_refused(other, access_token) < LATEST_SECONDS

    async def test_key_revoked_by_one_worker_is_refused_by_the_other_within_two_seconds(
        self, workers: Workers
    ) -> None:
        one, other = workers.pair
        access_token = (await sign_up(one, "carol"))["access_token"]
        fields = {"name": "import", "scope": "read"}
        made = await one.ask("POST", "/api/auth/keys", token=access_token, body=fields)
        key = json.loads(made.body)
        for connection in (one, other):
            answer = await connection.ask("GET", "/api/products/my", token=key["key"])
            assert answer.status == 200

        path = f"/api/auth/keys/{key['id']}"
        assert (await one.ask("DELETE", path, token=access_token)).status == 204

        answer = await one.ask("GET", "/api/products/my", token=key["key"])
        assert code_of(answer) == (401, "token-invalid")
        taken = await seconds_until_refused(other, key["key"], code="token-invalid")
        assert taken < LATEST_SECONDS
