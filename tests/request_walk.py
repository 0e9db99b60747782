"""Report of the service's own files and functions that a request enters, in their order.

Run it with ``python -m tests.request_walk``. It serves requests in its own process on a new SQLite
database, through the fast path and through the framework: a product is created, read and changed,
and a page is read, also from the cache. Code of the libraries is left out.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import catalog
from catalog.app import create_app, direct_path
from catalog.auth.context import auth
from catalog.bootstrap import prepare
from catalog.fastpath.request_parser import parse
from catalog.fastpath.response import Response
from tests.engines import settings_for
from tests.support import Caller

ROOT = Path(catalog.__file__).parent

PATH = "/api/products"
LAMP = b'{"name": "Lamp", "price": 24.9}'


class Walk:
    """Files that were entered, each with the names of its functions, in order."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, None]] = {}

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Record a call; a profile function (``sys.setprofile``)."""
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(str(ROOT)):
            return
        # Outside tasks run timers, which an earlier request may have set.
        if asyncio.current_task() is not None:
            name = str(Path(path).relative_to(ROOT))
            self.files.setdefault(name, {})[frame.f_code.co_qualname] = None

    @property
    def features(self) -> list[str]:
        """Files of products and accounts that were entered, in order."""
        return [path for path in self.files if path.startswith(("products/", "auth/"))]

    @property
    def functions(self) -> int:
        """Number of functions entered."""
        return sum(map(len, self.files.values()))


class Exchange:
    """A request that the server has parsed, and the status of its response."""

    def __init__(self, body: bytes) -> None:
        self._body = [body]
        self.status = 0

    async def receive(self) -> Any:
        """Return the body; later calls wait for a disconnect that never comes."""
        if not self._body:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self._body.pop(), "more_body": False}

    async def take(self, message: Any) -> None:
        """Note the status."""
        self.status = message.get("status", self.status)

    async def send(self, response: Response) -> None:
        """Make the head of a response of the fast path, and note its status."""
        response.head(is_last=False, keeps_old_alive=False)
        self.status = response.reply.status


async def walk_of(app: Any, request: bytes, status: int, *, is_fast: bool) -> Walk:
    """Answer a request, and return the walk.

    Raises:
        AssertionError: the request was answered otherwise.
    """
    walk = Walk()
    message = parse(request)
    assert message is not None
    scope: Any = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "method": message.method.decode(),
        "path": message.path.decode(),
        "query_string": message.query,
        "headers": message.fields,
    }
    exchange = Exchange(message.body)
    others = asyncio.all_tasks()
    sys.setprofile(walk.note)
    try:
        if is_fast:
            parse(request)
            direct = direct_path(app)
            found = direct.find(scope, message.body)
            assert found is not None
            await direct.answer(found, message.body, exchange.send)
        else:
            await app(scope, exchange.receive, exchange.take)
        # The work that goes on after the response is part of it, and not of the next walk.
        while begun := asyncio.all_tasks() - others:
            await asyncio.wait(begun)
    finally:
        sys.setprofile(None)
    assert exchange.status == status
    return walk


def request_of(method: str, path: str, *fields: str, body: bytes = b"") -> bytes:
    """Return a request as a client writes it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def walks() -> dict[str, Walk]:
    """Return the walk of each request by its name."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("on", "off"):
            url = f"sqlite+aiosqlite:///{folder}/{mode}.db"
            settings = settings_for(url, fast_path=mode, access_log="off")  # type: ignore[arg-type]
            await prepare(settings)
            app = create_app(settings)
            # No background task starts, so that none runs beside the requests.
            app.before_serving_funcs.clear()
            await auth(app).revocations.refresh()
            async with app.test_app():
                ada = await Caller.signed_up(app, "ada")
                bearer = f"Authorization: Bearer {ada.access_token}"
                create = request_of("POST", PATH, bearer, body=LAMP)
                page = request_of("GET", f"{PATH}?limit=7")
                # Once before it is traced, for what is opened and cached by the first request.
                await walk_of(app, create, 201, is_fast=mode == "on")
                await walk_of(app, request_of("GET", PATH), 200, is_fast=mode == "on")
                for name, request, status in (
                    ("create", create, 201),
                    ("product", request_of("GET", f"{PATH}/1"), 200),
                    ("change", request_of("PATCH", f"{PATH}/1", bearer, body=b'{"price": 7}'), 200),
                    ("page that is not cached", page, 200),
                    ("page that is cached", page, 200),
                ):
                    walk = await walk_of(app, request, status, is_fast=mode == "on")
                    found[f"{name}, fast path {mode}"] = walk
    return found


def main() -> None:
    """Print the walks, and a table of their sizes."""
    found = asyncio.run(walks())
    lines = []
    for name, walk in found.items():
        lines += [f"{name}:"]
        lines += [f"  {path}: {', '.join(functions)}" for path, functions in walk.files.items()]
        lines += [""]
    for name, walk in found.items():
        files, features = len(walk.files), len(walk.features)
        sizes = f"{files:3} files, {features:2} of features, {walk.functions:3} functions"
        lines.append(f"{sizes}: {name}")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
