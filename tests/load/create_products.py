"""``POST /api/products`` against the obvious implementation; see ``contest.py``.

The service checks a token and the account, takes a position and writes the log with each product;
the obvious implementation does nothing but one ORM transaction a request.

    python -m tests.load.create_products --url mysql://catalog:catalog@127.0.0.1:3306/catalog
"""

import json
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import click

from tests.load.contest import Contestant, compete, environment_for, options, run_catalog

BODY = {"name": "Desk lamp", "price": 24.9, "description": "Warm light, oak foot, brass arm."}


@click.command()
@options
def main(url: str, **turns: Any) -> None:
    """Compare and print a table in Markdown."""
    run_catalog(environment_for(url), "migrate")
    with TemporaryDirectory() as folder:

        def prepare(contestant: Contestant) -> list[str]:
            script = Path(folder) / f"{contestant.name}.lua"
            script.write_text(_script(_token(contestant)))
            return ["-s", str(script), f"{contestant.url}/api/products"]

        compete(url, prepare, **turns)


def _script(token: str) -> str:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    lines = [f"wrk.headers[{name!r}] = {value!r}" for name, value in headers.items()]
    return "\n".join(['wrk.method = "POST"', f"wrk.body = {json.dumps(BODY)!r}", *lines])


def _token(contestant: Contestant) -> str:
    """Somebody's access token; the obvious implementation knows nobody."""
    if contestant.name != "catalog":
        return ""
    name = f"load-{secrets.token_hex(4)}"
    account = {"username": name, "email": f"{name}@example.com", "password": secrets.token_hex(16)}
    request = Request(  # noqa: S310 (our own)
        f"{contestant.url}/api/auth/signup",
        data=json.dumps(account).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urlopen(request) as answer:  # noqa: S310 (the same)
        return str(json.load(answer)["access_token"])


if __name__ == "__main__":
    main()
