"""The files that requests enter: their number, and those of a create as the overview names them."""

import re

import pytest

from tests.request_walk import ROOT, Walk, walks

# More than that, and a reader loses the way; a file less is a reason to lower the number.
MOST_FILES = {
    "create": 45,
    "product": 29,
    "change": 45,
    "page that is not cached": 35,
    "page that is cached": 29,
}


@pytest.fixture(scope="module")
async def found() -> dict[str, Walk]:
    """Return the walks of all requests."""
    return await walks()


@pytest.mark.parametrize("mode", ["on", "off"])
class TestWalks:
    @pytest.mark.parametrize("request_name", MOST_FILES)
    async def test_request_enters_few_files(
        self, found: dict[str, Walk], request_name: str, mode: str
    ) -> None:
        files = found[f"{request_name}, fast path {mode}"].files

        assert 10 < len(files) <= MOST_FILES[request_name], "\n".join(files)

    async def test_create_enters_the_documented_files_in_order(
        self, found: dict[str, Walk], mode: str
    ) -> None:
        overview = (ROOT.parent / "docs" / "overview.md").read_text()
        section = overview.partition("\n## Creating a product\n")[2].partition("\n## ")[0]
        named = dict.fromkeys(re.findall(r"\*\*`((?:auth|products)/[\w/]+\.py)`\*\*", section))

        assert list(named) == found[f"create, fast path {mode}"].features
