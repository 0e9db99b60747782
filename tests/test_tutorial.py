"""The tutorial's commands and its program, run against a service as a reader would."""

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.server.service import Catalog
from tests.support import PASSWORD, until

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "tutorial.md").read_text(encoding="utf-8")

# All pages but the decisions, which have an index of their own.
PAGES = [
    *(path.name for path in DOCS.glob("*.md")),
    *(f"deployment/{path.name}" for path in (DOCS / "deployment").glob("*.md")),
]

THEIR_URL = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """Return the tutorial's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


class TestTutorial:
    async def test_mirror_prints_the_products_that_the_commands_create(
        self, tmp_path: Path
    ) -> None:
        commands = [block for block in blocks("bash") if "pip install" not in block]
        (program,) = blocks("python")
        assert PASSWORD in TEXT
        async with Catalog(tmp_path).start(CATALOG_ACCESS_LOG="all") as service:
            url = (await service.serving()).url
            await service.sign_up("ada")
            mirror = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", program.replace(THEIR_URL, url)),
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(DOCS.parent)},
            )
            assert mirror.stdout is not None
            # What is created after the mirror's export is a change that it is told.
            await until(lambda: service.logged("request", route="/api/products"))

            shell = await asyncio.create_subprocess_exec(
                *("bash", "-euo", "pipefail", "-c", "\n".join(commands).replace(THEIR_URL, url)),
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await shell.communicate()
            async with asyncio.timeout(60):
                line = await mirror.stdout.readline()
            mirror.kill()
            await mirror.wait()

        assert shell.returncode == 0, output.decode()
        assert output.decode().count('"name":"Reading chair"') == 2
        assert line.decode() == "created 1 - 1 products in the mirror\n"


class TestIndex:
    INDEX = (DOCS / "index.md").read_text(encoding="utf-8")

    def test_index_names_a_page_for_twenty_tasks_and_more(self) -> None:
        tasks = re.findall(r"^\| ([^|]+) \| .*\]\([^)]+\)", self.INDEX, re.MULTILINE)

        assert len(tasks) >= 20

    def test_every_page_is_linked_from_the_index(self) -> None:
        assert set(PAGES) - {"index.md"} <= set(re.findall(r"\]\(([a-z_/]+\.md)", self.INDEX))

    def test_every_page_is_in_the_navigation_of_the_site(self) -> None:
        navigation = (DOCS / "site" / "mkdocs.yml").read_text(encoding="utf-8")

        for page in PAGES:
            assert re.search(rf"[ :]{page}$", navigation, re.MULTILINE), page
