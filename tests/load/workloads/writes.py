"""Writes: creates, changes, deletes, and mixes of reads and creates."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from tests.load import wrk
from tests.load.contestants import HOT_PATH, Contestant
from tests.load.measured import Measured
from tests.load.workloads.pages import random_pages_of
from tests.load.workloads.turns import Turns
from tests.load.wrk import Script

DELETES_PER_SECOND = 6000
"""Products that are imported for each second of deletes: more than any server deletes."""


async def create(turns: Turns) -> None:
    """Create products."""
    await turns.rates("create", turns.direct, lambda each: wrk.create(turns.token(each)))


async def edit(turns: Turns) -> None:
    """Change the prices of an account's products; then delete products that are made for it."""

    def edits(contestant: Contestant) -> Script:
        file = turns.folder / "edit.paths"
        return wrk.edit(turns.own_paths(contestant), turns.token(contestant), file)

    def deletes(contestant: Contestant) -> Deletes:
        service = turns.service_of(contestant)
        return Deletes(service, turns.token(service), turns.token(contestant))

    await turns.rates("edit", turns.editing, edits)
    await turns.rates("delete", turns.editing, deletes)


async def mix(turns: Turns) -> None:
    """Request the first page, with occasional creates."""
    await turns.rates("mix", turns.behind_nginx, lambda each: wrk.mix(HOT_PATH, turns.token(each)))


async def deep_mix(turns: Turns) -> None:
    """Request random pages, with occasional creates."""

    def pages(contestant: Contestant) -> Script:
        return wrk.deep_mix(random_pages_of(turns, contestant), turns.token(contestant))

    await turns.rates("deep-mix", turns.behind_nginx, pages)


@dataclass(frozen=True)
class Deletes:
    """Deletes of products that are imported before each turn.

    Attributes:
        service: that imports them.
        importing_token: for the import.
        token: for the deletes, of the same account.
    """

    service: Contestant
    importing_token: str
    token: str
    path: str = "/api/products"

    async def put_on(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Measured:
        """Generate load; see ``Traffic``. It ends with 404 if the products did not suffice."""
        line = json.dumps(wrk.BODY).encode() + b"\n"
        body = line * (DELETES_PER_SECOND * seconds)
        told = json.loads(
            self.service.ask(
                self.path,
                body,
                media_type="application/x-ndjson",
                token=self.importing_token,
                timeout=300,
            )
        )
        ids = range(told["first_id"], told["last_id"] + 1)
        paths = [f"{self.path}/{number}" for number in ids]
        script = wrk.delete(paths, self.token, folder / "delete.paths")
        await contestant.quiet()
        return await replace(script).put_on(
            contestant, connections=connections, seconds=seconds, folder=folder
        )
