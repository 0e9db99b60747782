"""Reads: the first page, random pages, single products, searches, and the first page over TLS."""

import json
import random
import re
import time
from urllib.error import HTTPError

from tests.load import wrk
from tests.load.contestants import (
    BEHIND_NGINX,
    CATALOG,
    EARLIER_BEHIND_NGINX,
    FILE,
    HOT_PATH,
    LIMIT,
    LOGGING,
    Contestant,
)
from tests.load.h2load import Streams
from tests.load.stacks import PEERS
from tests.load.workloads.turns import FEW, FEWEST, Turns, say
from tests.load.wrk import Script

PLACES = 5000
"""Number of random pages; a turn of some seconds requests few of them twice."""

CHANGES = 20
"""Number of changes in an answer."""

TIMEOUT_SECONDS = 20

SEARCHES = 500
"""Number of searches: one word each, and as many of two."""

MOST_TLS_CONNECTIONS = 512
"""Maximum; more connections would spend most of a turn on handshakes."""


async def hot(turns: Turns) -> None:
    """Request the first page, of all servers."""
    names = [name for name in turns.contestants if name != LOGGING]
    await turns.rates("hot", names, lambda _: wrk.page(HOT_PATH))


async def log(turns: Turns) -> None:
    """Request the first page with and without the access log."""
    names = turns.present(CATALOG, LOGGING)
    await turns.rates("log", names, lambda _: wrk.page(HOT_PATH), usual=FEWEST)


async def random_pages(turns: Turns) -> None:
    """Request pages all over the list."""
    await turns.rates("random", turns.direct, lambda each: random_pages_of(turns, each))


async def one(turns: Turns) -> None:
    """Request single products."""
    last = turns.options.products
    paths = [f"/api/products/{number}" for number in range(1, last, -(-last // PLACES))]
    script = wrk.random_pages(paths, turns.folder / "one.paths")
    await turns.rates("one", turns.editing, lambda _: script, usual=FEW)


async def changes(turns: Turns) -> None:
    """Request changes after random positions."""

    def some(contestant: Contestant) -> Script:
        last = turns.service_of(contestant).position() - CHANGES
        positions = range(0, max(last, 1), max(last // PLACES, 1))
        paths = [f"/api/products/changes?since={each}&limit={CHANGES}" for each in positions]
        return wrk.random_pages(paths, turns.folder / "changes.paths")

    await turns.rates("changes", turns.with_accounts, some, usual=FEWEST)


async def search(turns: Turns) -> None:
    """Search for one word, and for two of the same product."""

    def searches(contestant: Contestant) -> Script:
        return wrk.random_pages(searches_of(contestant), turns.folder / "search.paths")

    await turns.rates("search", turns.services, searches, usual=FEWEST)


async def over_tls(turns: Turns) -> None:
    """Compare cached pages and the file, both served by nginx over TLS."""
    names = turns.present(BEHIND_NGINX, EARLIER_BEHIND_NGINX, FILE)
    await turns.rates("tls", names, lambda _: Streams(HOT_PATH), most=MOST_TLS_CONNECTIONS)


def random_pages_of(turns: Turns, contestant: Contestant) -> Script:
    """Return the script of random pages of a server, made once for all with the same cursors."""
    name = "peers" if contestant.name in PEERS else turns.service_of(contestant).name
    if name not in turns.scripts:
        say(f"Walking through {contestant.title}")
        paths = places_of(contestant, turns.options.products)
        turns.scripts[name] = wrk.random_pages(paths, turns.folder / f"{name}.paths")
    return turns.scripts[name]


def searches_of(contestant: Contestant) -> list[str]:
    """Return paths of searches for words of names, each with at least one match."""
    listed = json.loads(contestant.ask("/api/products?limit=1000&fields=name"))["products"]
    names = [re.findall(r"[A-Za-z]{3,}", each["name"]) for each in listed]
    names = [words for words in names if len(words) > 1]
    chosen = random.Random(0)  # noqa: S311 (repeatable is what it must be)
    paths = []
    for _ in range(SEARCHES):
        first, second = chosen.sample(chosen.choice(names), 2)
        paths += [f"{HOT_PATH}&q={first}", f"{HOT_PATH}&q={first}+{second}"]
    return sorted(set(paths))


def places_of(contestant: Contestant, products: int) -> list[str]:
    """Return paths of pages all over the list, by the server's own cursors."""
    step = min(max(products // PLACES, 1), LIMIT)
    # The last pages have fewer products than the others.
    wanted = max(min(PLACES, products // step) - LIMIT // step, 1)
    paths: list[str] = []
    path = f"/api/products?limit={step}"
    while path and len(paths) < wanted:
        path = json.loads(_patiently(contestant, path))["next"]
        if path:
            paths.append(re.sub(r"\blimit=\d+", f"limit={LIMIT}", path))
    return paths


def _patiently(contestant: Contestant, path: str) -> bytes:
    """Return the body of the answer; ask again while a server sheds what an earlier turn left.

    Raises:
        OSError: it does not answer 200 in time.
    """
    for _ in range(TIMEOUT_SECONDS):
        try:
            return contestant.ask(path)
        except HTTPError as error:
            if error.code != 503:
                raise
        time.sleep(1)
    return contestant.ask(path)
