"""Reads: the first page, random pages, single products, searches, and the first page over TLS."""

import json
import random
import re

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
from tests.load.workloads.turns import FEW, Turns, say
from tests.load.wrk import Script

PLACES = 5000
"""Number of random pages; a turn of some seconds requests few of them twice."""

CHANGES = 20
"""Number of changes in an answer."""

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
    await turns.rates("log", names, lambda _: wrk.page(HOT_PATH), usual=FEW)


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

    await turns.rates("changes", turns.with_accounts, some, usual=FEW)


async def search(turns: Turns) -> None:
    """Search for one word, and for two of the same product."""

    def searches(contestant: Contestant) -> Script:
        return wrk.random_pages(searches_of(contestant), turns.folder / "search.paths")

    await turns.rates("search", turns.services, searches, usual=FEW)


async def over_tls(turns: Turns) -> None:
    """Compare cached pages and the file, both served by nginx over TLS."""
    names = turns.present(BEHIND_NGINX, EARLIER_BEHIND_NGINX, FILE)
    await turns.rates("tls", names, lambda _: Streams(HOT_PATH), most=MOST_TLS_CONNECTIONS)


def random_pages_of(turns: Turns, contestant: Contestant) -> Script:
    """Return the script of random pages of a server, made once."""
    if contestant.name not in turns.scripts:
        say(f"Walking through {contestant.title}")
        paths = places_of(contestant, turns.options.products)
        file = turns.folder / f"{contestant.name}.paths"
        turns.scripts[contestant.name] = wrk.random_pages(paths, file)
    return turns.scripts[contestant.name]


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
        path = json.loads(contestant.ask(path))["next"]
        if path:
            paths.append(re.sub(r"\blimit=\d+", f"limit={LIMIT}", path))
    return paths
