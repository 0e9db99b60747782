"""The running service against its own OpenAPI document, by property-based testing (schemathesis).

Requests are valid and invalid by the document, and every response must be one that it describes.
``CATALOG_TEST_EXAMPLES`` is the number of requests for each operation.
"""

import os
from pathlib import Path

import pytest

from tests.server.conformance import (
    ENDING,
    ROOT,
    bearing,
    options_for,
    put_to_the_test,
    sign_in,
)
from tests.server.service import Catalog

EXAMPLES = os.environ.get("CATALOG_TEST_EXAMPLES", "10")


@pytest.mark.timeout(600)
async def test_every_response_is_one_that_the_document_describes(
    catalog: Catalog, tmp_path: Path
) -> None:
    async with catalog.start("--workers=2") as service:
        url = (await service.serving()).url
        password = catalog.environment["ADMIN_PASSWORD"]
        tokens = await sign_in(url, "admin", password)
        ending = options_for("--exclude-operation-id", ENDING)
        runs = (
            (*bearing(tokens["access_token"]), *ending),
            tuple(options_for("--include-operation-id", ENDING)),
        )
        fresh_tokens = {
            "SCHEMATHESIS_HOOKS": "tests.server.fresh_tokens",
            "PYTHONPATH": str(ROOT),
            "CATALOG_TEST_URL": url,
            "CATALOG_TEST_PASSWORD": password,
            "CATALOG_TEST_ADMIN": "admin",
        }
        bulk_bodies = {"SCHEMATHESIS_HOOKS": "tests.server.bulk_bodies", "PYTHONPATH": str(ROOT)}
        for number, options in enumerate(runs):
            environment = fresh_tokens if number == 1 else bulk_bodies
            code, output = await put_to_the_test(
                tmp_path, url, *options, examples=EXAMPLES, **environment
            )
            assert code == 0, output

        assert not service.logged("request_failed"), "the log has the tracebacks"
