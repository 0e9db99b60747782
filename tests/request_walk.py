"""Report of the service's own files and functions that a request enters, in their order.

Run it with ``python -m tests.request_walk``. It serves requests in its own process on a new SQLite
database: one product created and one page read, each through the fast path and through the
framework. Code of the libraries is left out, and so is what runs beside the request.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import catalog
from catalog.app import create_app
from catalog.bootstrap import prepare
from catalog.fastpath.request_parser import parse
from catalog.fastpath.response_buffer import ResponseBuffer
from tests.engines import settings_for
from tests.support import Caller

ROOT = Path(catalog.__file__).parent

LAMP = b'{"name": "Lamp", "price": 24.9}'


class Walk:
    """Files that were entered, each with the names of its functions, in order."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, None]] = {}

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Record a call; a profile function (``sys.setprofile``)."""
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(ROOT)):
            name = str(Path(path).relative_to(ROOT))
            self.files.setdefault(name, {})[frame.f_code.co_qualname] = None

    @property
    def functions(self) -> int:
        """Number of functions entered."""
        return sum(map(len, self.files.values()))


async def walk_of(app: Any, request: bytes, status: int) -> Walk:
    """Answer a request, and return the walk.

    Raises:
        AssertionError: the request was answered otherwise.
    """
    walk = Walk()
    sys.setprofile(walk.note)
    try:
        message = parse(request)
        assert message is not None
        answer = ResponseBuffer(message.body, is_last=False)
        scope = {
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
        await app(scope, answer.receive, answer.take)
    finally:
        sys.setprofile(None)
    assert answer.status == status, answer.parts
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
            async with app.test_app():
                ada = await Caller.signed_up(app, "ada")
                bearer = f"Authorization: Bearer {ada.access_token}"
                create = request_of("POST", "/api/products", bearer, body=LAMP)
                await walk_of(app, create, 201)
                found[f"create, fast path {mode}"] = await walk_of(app, create, 201)
                page = request_of("GET", "/api/products?limit=7")
                found[f"page that is not cached, fast path {mode}"] = await walk_of(app, page, 200)
                found[f"page that is cached, fast path {mode}"] = await walk_of(app, page, 200)
    return found


def main() -> None:
    """Print the walks."""
    for name, walk in asyncio.run(walks()).items():
        lines = [f"{name}: {len(walk.files)} files, {walk.functions} functions"]
        lines += [f"  {path}: {', '.join(functions)}" for path, functions in walk.files.items()]
        sys.stdout.write("\n".join([*lines, "", ""]))


if __name__ == "__main__":
    main()
