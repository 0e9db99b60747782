"""Adapter: the framework sends what a reply says, and no more."""

import pytest

from catalog.http.adapter import CatalogApp
from catalog.http.replies.reply import Reply


@pytest.fixture
def app() -> CatalogApp:
    return CatalogApp("adapter")


class TestReply:
    async def test_response_has_what_the_reply_has(self, app: CatalogApp) -> None:
        reply = Reply(b"[1]", status=202, headers={"ETag": '"a"'})

        response = await app.make_response(reply)

        assert response.status_code == 202
        assert dict(response.headers) == {
            "Content-Length": "3",
            "Content-Type": "application/json",
            "ETag": '"a"',
        }
        assert response.response.data == b"[1]"  # type: ignore[union-attr]  # the framework's own

    async def test_response_without_content_has_no_type_and_no_length(
        self, app: CatalogApp
    ) -> None:
        response = await app.make_response(Reply(status=304, media_type=None))

        assert response.status_code == 304
        assert dict(response.headers) == {}
