"""Programs that sign in with API keys."""

from typing import Any

from quart import Quart

from tests.support import Caller, Response

PATH = "/api/auth/keys"


async def make(caller: Caller, **fields: Any) -> Response:
    """Request an API key."""
    return await caller.post(PATH, json={"name": "import", "scope": "write", **fields})


async def program_of(caller: Caller, app: Quart | None = None, **fields: Any) -> Caller:
    """Return a program that signs in with a new API key of the caller."""
    made = await make(caller, **fields)
    assert made.status_code == 201, made.body
    program = Caller(app or caller.app)
    program.access_token = made.json["key"]
    program.user_id = caller.user_id
    return program
