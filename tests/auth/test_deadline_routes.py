"""Deadline of a request: that of one read or one write, whatever its view does."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import make_url

from catalog.app import create_app
from catalog.auth.routes.deadline import one_deadline
from catalog.db.deadlines import Deadlines, deadline
from catalog.http.context import app_state
from tests.engines import settings_for
from tests.support import handling

SERVER = make_url("mysql+aiomysql://catalog:secret@127.0.0.1:1/catalog")


@one_deadline
async def view() -> float:
    """Return when a unit of work ends that may take an hour, in seconds from now."""
    ends_at = deadline(3600).when()
    assert ends_at is not None
    return ends_at - asyncio.get_running_loop().time()


class TestOneDeadline:
    @pytest.mark.parametrize(
        ("method", "kind"),
        [("GET", "read"), ("HEAD", "read"), ("POST", "write"), ("DELETE", "write")],
    )
    async def test_work_ends_with_the_deadline_of_the_request(self, method: str, kind: str) -> None:
        app = create_app(settings_for(SERVER))
        deadlines = app_state(app).database.deadlines = Deadlines(read=10, write=20)

        with handling(app, method=method):
            left = await view()

        assert left == pytest.approx(getattr(deadlines, kind), abs=0.1)

    async def test_sqlite_has_no_request_deadline(self, tmp_path: Path) -> None:
        app = create_app(settings_for(make_url(f"sqlite+aiosqlite:///{tmp_path}/catalog.db")))

        with handling(app):
            assert await view() > 3000
