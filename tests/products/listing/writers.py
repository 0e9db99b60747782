"""Random writes, while pages are read."""

import random
from typing import Any

import pytest

from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.recent_changes import RecentChanges
from catalog.products.models import ChangeType
from catalog.products.schemas import PATH
from tests.support import PASSWORD, Caller


class Writers:
    """Random writes of all kinds: of one account, while another one is deleted.

    Attributes:
        by_kind: ids of products by the kind of a change to them.
        random: their source.
    """

    def __init__(self, ada: Caller, bob: Caller, ids: list[int], seed: int) -> None:
        self.by_kind: dict[ChangeType, set[int]] = {kind: set() for kind in ChangeType}
        self.random = random.Random(seed)  # noqa: S311 (repeatable is what it must be)
        self._ada = ada
        self._bob = bob
        self._live = list(ids)
        self._leaving: list[int] = []

    async def write(self) -> None:
        """Do one of the writes."""
        write = self.random.choice([self._create, self._import, self._edit, self._edit, self._drop])
        await write()

    async def create_for_another(self) -> None:
        """Create products of the account that will be deleted."""
        self._leaving = [(await self._bob.create_product("Lamp")).json["id"] for _ in range(3)]

    async def delete_account(self) -> None:
        """Delete the other account."""
        await self._bob.send("DELETE", "/api/auth/me", json={"password": PASSWORD})
        self._note(ChangeType.DELETED, self._leaving)

    def hide(self, kind: ChangeType, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hide the changes of a kind from the caches of pages, for a negative control."""

        def affect(recent: RecentChanges, span: range, *, since: ChangeId) -> bool:
            changed = recent._product_ids[recent._changes.index(since) + 1 :]
            return any(each in span for each in changed if each not in self.by_kind[kind])

        monkeypatch.setattr(RecentChanges, "affect", affect)

    async def _create(self) -> None:
        created = await self._ada.create_product("Lamp")
        self._note(ChangeType.CREATED, [created.json["id"]])

    async def _import(self) -> None:
        lines = "\n".join('{"name": "Lamp", "price": 1}' for _ in range(10))
        headers = {"Content-Type": "application/x-ndjson"}
        answer = await self._ada.send("POST", PATH, headers=headers, data=lines)
        report = answer.json
        self._note(ChangeType.CREATED, range(report["first_id"], report["last_id"] + 1))

    async def _edit(self) -> None:
        chosen = self.random.sample(self._live, 3)
        price = self.random.random()
        lines = "\n".join(f'{{"id": {each}, "price": {price}}}' for each in chosen)
        headers = {"Content-Type": "application/x-ndjson"}
        answer = await self._ada.send("POST", f"{PATH}?mode=upsert", headers=headers, data=lines)
        assert answer.json["updated"] == 3, answer.json
        self._note(ChangeType.UPDATED, chosen)

    async def _drop(self) -> None:
        chosen = self._live.pop(self.random.randrange(len(self._live)))
        await self._ada.delete(chosen)
        self._note(ChangeType.DELETED, [chosen])

    def _note(self, kind: ChangeType, ids: Any) -> None:
        self.by_kind[kind].update(ids)
        if kind is ChangeType.CREATED:
            self._live += ids
