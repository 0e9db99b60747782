"""Counter of the database's reads for lists."""

from typing import Any

import pytest

from catalog.products.changes import change_counter
from catalog.products.listing import page_reader


class Reads:
    """Counter of the database reads of pages, and of the position alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pages = self.positions = 0
        self._is_page = False
        read_pages, current_change = page_reader.read_pages, change_counter.current_change

        async def counted_page(*args: Any) -> Any:
            self.pages += 1
            self._is_page = True
            try:
                return await read_pages(*args)
            finally:
                self._is_page = False

        async def counted_position(connection: Any) -> Any:
            # On SQLite a page is read after its position.
            self.positions += not self._is_page
            return await current_change(connection)

        monkeypatch.setattr(page_reader, "read_pages", counted_page)
        monkeypatch.setattr(change_counter, "current_change", counted_position)

    def clear(self) -> None:
        self.pages = self.positions = 0
