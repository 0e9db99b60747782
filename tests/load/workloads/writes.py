"""Writes: creates, changes, deletes, and mixes of reads and creates."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

import click

from tests.load import wrk
from tests.load.clients import threads_for
from tests.load.contestants import HOT_PATH, Contestant
from tests.load.measured import Measured
from tests.load.workloads.pages import random_pages_of
from tests.load.workloads.turns import FEW, Turns, say
from tests.load.wrk import Script
from tests.server.service import Connection

DELETES_PER_SECOND = 6000
"""Products that are imported at first for each second of deletes; twice as many for a server that
deletes all of them."""

LEAST_EDITED = 1000
"""Products that are changed; twice the connections, if that is more."""

TAG_READERS = 16

FILLING_SECONDS = 4
"""Seconds of random pages before each turn that measures them through a cache. Between turns nginx
drops all pages, because no requests arrive; a page is cached at its second request."""


async def create(turns: Turns) -> None:
    """Create products."""
    await turns.rates("create", turns.direct, lambda each: wrk.create(turns.token(each)))


async def edit(turns: Turns) -> None:
    """Change the prices of an account's products; then delete products that are made for it."""
    made: dict[str, range] = {}

    def edits(contestant: Contestant) -> Edits:
        service = turns.service_of(contestant)
        if service.name not in made:
            count = max(LEAST_EDITED, 2 * max(turns.options.connections or FEW))
            made[service.name] = _make(service, turns.token(service), count)
        return Edits(made[service.name], turns.token(contestant))

    def deletes(contestant: Contestant) -> Deletes:
        service = turns.service_of(contestant)
        return Deletes(service, turns.token(service), turns.token(contestant))

    await turns.rates("edit", turns.editing, edits, usual=FEW)
    await turns.rates("delete", turns.editing, deletes, usual=FEW)


async def mix(turns: Turns) -> None:
    """Request the first page, with occasional creates."""
    await turns.rates("mix", turns.behind_nginx, lambda each: wrk.mix(HOT_PATH, turns.token(each)))


async def deep_mix(turns: Turns) -> None:
    """Request random pages, with occasional creates."""

    def pages(contestant: Contestant) -> Script:
        return wrk.deep_mix(random_pages_of(turns, contestant), turns.token(contestant))

    await turns.rates("deep-mix", turns.behind_nginx, pages, lead_seconds=FILLING_SECONDS)


class Prepared(ABC):
    """Traffic that is prepared before each turn."""

    @abstractmethod
    async def script(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Script:
        """Return what to send, when the contestant is idle again."""

    async def put_on(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Measured:
        """Generate load; see ``Traffic``."""
        script = await self.script(
            contestant, connections=connections, seconds=seconds, folder=folder
        )
        return await script.put_on(
            contestant, connections=connections, seconds=seconds, folder=folder
        )


@dataclass(frozen=True)
class Edits(Prepared):
    """Changes of products, each with the entity tag of the answer before.

    Attributes:
        ids: of the products.
        token: of their owner.
    """

    ids: range
    token: str
    path: str = "/api/products"

    async def script(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Script:
        """Return the changes, with the current tags: each server has its own."""
        del seconds
        tags = await _tags_of(contestant, self.ids[: max(2 * connections, LEAST_EDITED)])
        await contestant.quiet()
        file, threads = folder / "edit.tags", threads_for(connections)
        return wrk.edit(tags, self.token, file, threads=threads)


async def _tags_of(contestant: Contestant, ids: Sequence[int]) -> dict[int, str]:
    """Return the entity tags of products.

    Raises:
        click.ClickException: a product could not be read.
    """
    tags: dict[int, str] = {}
    waiting = iter(ids)

    async def read() -> None:
        connection = await Connection.open(contestant.url)
        try:
            for number in waiting:
                answer = await connection.get(f"/api/products/{number}")
                if answer.status != 200:
                    raise click.ClickException(f"Product {number} is answered {answer.status}.")
                tags[number] = answer.headers["etag"]
        finally:
            await connection.close()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(TAG_READERS):
                group.create_task(read())
    except* (click.ClickException, OSError, EOFError) as failures:
        raise click.ClickException(f"Tags could not be read: {failures.exceptions[0]}") from None
    return tags


def _make(service: Contestant, token: str, count: int) -> range:
    """Import equal products of an account, and return their ids."""
    body = count * (json.dumps(wrk.BODY).encode() + b"\n")
    told = json.loads(
        service.ask(
            "/api/products", body, media_type="application/x-ndjson", token=token, timeout=300
        )
    )
    return range(told["first_id"], told["last_id"] + 1)


@dataclass
class Deletes(Prepared):
    """Deletes of products that are imported before each turn.

    Attributes:
        service: that imports them.
        importing_token: for the import.
        token: for the deletes, of the same account.
        per_second: products that are imported for each second of the next turn.
    """

    service: Contestant
    importing_token: str
    token: str
    path: str = "/api/products"
    per_second: int = DELETES_PER_SECOND
    _last: Sequence[str] = ()

    async def put_on(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Measured:
        """Generate load, again and with more products if they have run out; see ``Traffic``."""
        while True:
            measured = await super().put_on(
                contestant, connections=connections, seconds=seconds, folder=folder
            )
            await contestant.quiet()
            if all([await asyncio.to_thread(_exists, self.service, each) for each in self._last]):
                return measured
            say(f"{contestant.title} has deleted all: again, with more")
            self.per_second *= 2

    async def script(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Script:
        """Return the deletes. They end with 404 if the products do not suffice."""
        ids = await asyncio.to_thread(
            _make, self.service, self.importing_token, self.per_second * seconds
        )
        await contestant.quiet()
        paths, threads = [f"{self.path}/{number}" for number in ids], threads_for(connections)
        # Of each thread.
        self._last = paths[-threads:]
        return wrk.delete(paths, self.token, folder / "delete.paths", threads=threads)


def _exists(service: Contestant, path: str) -> bool:
    """Tell whether a product exists.

    Raises:
        OSError: the service does not answer.
    """
    try:
        service.ask(path)
    except HTTPError as error:
        if error.code != 404:
            raise
        return False
    return True
