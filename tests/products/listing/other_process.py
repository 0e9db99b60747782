"""Pages that another process has cached, compared with those in the database."""

from urllib.parse import parse_qsl, urlsplit

import orjson
from quart import Quart

from catalog.db.database import Database
from catalog.products.listing.page_cache import PageCache, RenderedPage
from tests.products.listing.page_requests import page_request


class Other:
    """Page cache of another process, whose writes it does not see."""

    def __init__(self, app: Quart, database: Database) -> None:
        self._app = app
        self._database = database
        self.pages = PageCache(database)

    async def read(self, **given: str) -> RenderedPage:
        """Return a page, from the cache if it is current."""
        return await self.pages.read(page_request(self._app, **given))

    async def read_anew(self, **given: str) -> RenderedPage:
        """Return the page as it is in the database."""
        return await PageCache(self._database).read(page_request(self._app, **given))

    async def walk(self, count: int, **given: str) -> list[dict[str, str]]:
        """Return the parameters of consecutive pages after the first one."""
        found = []
        for _ in range(count):
            page = await self.read(**given)
            given = dict(parse_qsl(urlsplit(orjson.loads(page.body)["next"]).query))
            found.append(given)
        return found
