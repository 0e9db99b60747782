"""The report of a request's way sees the files that it is known to pass, in their order."""

import pytest

from tests.request_walk import walks

CREATE = (
    *(
        "http/middleware/request_body.py",
        "fastpath/dispatch.py",
        "auth/guards.py",
    ),
    *("products/routes/products.py", "products/writes/queue.py", "products/writes/batch.py"),
    *("products/changes/change_log.py", "http/replies/reply.py"),
)


class TestWalks:
    @pytest.mark.parametrize("mode", ["on", "off"])
    async def test_create_passes_the_documented_files_in_order(self, mode: str) -> None:
        files = list((await walks())[f"create, fast path {mode}"].files)

        assert [path for path in files if path in CREATE] == list(CREATE)
