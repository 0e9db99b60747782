"""Clients that popular generators make of the document complete a journey.

They sign up, log in, create, list some by their ids, page by cursor, change with ``If-Match``,
delete and log out. The journeys in TypeScript are type-checked first, in strict mode.
"""

import json
import shutil
import sys
from pathlib import Path

from tests.clients.tools import JOURNEYS, NODE, PYTHON_GENERATOR, run, run_node
from tests.server.service import Service

OUTCOME = {
    "listed": ["Chair", "Lamp"],
    "fields": ["id", "name"],
    "walked": 3,
    "patched": 19.5,
    "stale": "precondition-failed",
    "deleted": True,
    "logged_out": 204,
    "after": "session-ended",
}


async def typescript_journey(folder: Path, service: Service, name: str) -> dict[str, object]:
    """Type-check, bundle and run a journey, and return its outcome."""
    shutil.copy(JOURNEYS / f"{name}.ts", folder / "journey.ts")
    shutil.copy(JOURNEYS / "tsconfig.json", folder)
    await run_node(folder, "typescript/bin/tsc", "--project", "tsconfig.json")
    await run_node(
        *(folder, "esbuild/bin/esbuild", "journey.ts", "--bundle", "--platform=node"),
        *("--format=esm", "--outfile=journey.mjs", "--log-level=warning"),
    )
    return await outcome_of(folder, service, NODE, "journey.mjs", name=name)


async def outcome_of(
    folder: Path, service: Service, *command: str | Path, name: str
) -> dict[str, object]:
    """Run a journey, and return what it prints."""
    username = name.replace("_", "-")
    code, output = await run(folder, *command, CATALOG_URL=service.url, CATALOG_USERNAME=username)
    assert code == 0, output
    outcome: dict[str, object] = json.loads(output.splitlines()[-1])
    return outcome


class TestJourneys:
    async def test_openapi_fetch_completes_the_journey(
        self, folder: Path, service: Service
    ) -> None:
        script = "openapi-typescript/bin/cli.js"
        await run_node(folder, script, "openapi.json", "--output=generated/schema.d.ts")

        assert await typescript_journey(folder, service, "openapi_fetch") == OUTCOME

    async def test_hey_api_completes_the_journey(self, folder: Path, service: Service) -> None:
        script = "@hey-api/openapi-ts/bin/run.js"
        await run_node(folder, script, "--input=openapi.json", "--output=generated")

        assert await typescript_journey(folder, service, "hey_api") == OUTCOME

    async def test_orval_completes_the_journey(self, folder: Path, service: Service) -> None:
        shutil.copy(JOURNEYS / "orval.config.mjs", folder)
        await run_node(folder, "orval/dist/bin/orval.mjs", "--config=orval.config.mjs")

        assert await typescript_journey(folder, service, "orval") == OUTCOME

    async def test_openapi_python_client_completes_the_journey(
        self, folder: Path, service: Service
    ) -> None:
        code, output = await run(
            *(folder, PYTHON_GENERATOR, "generate", "--path=openapi.json"),
            *("--meta=none", "--output-path=generated"),
            PATH=f"{Path(sys.executable).parent}",
        )
        assert code == 0, output
        shutil.copy(JOURNEYS / "openapi_python.py", folder / "journey.py")

        outcome = await outcome_of(
            folder, service, sys.executable, "journey.py", name="openapi_python"
        )

        assert outcome == OUTCOME

    async def test_body_that_lacks_a_required_field_is_not_compiled(self, folder: Path) -> None:
        script = "openapi-typescript/bin/cli.js"
        await run_node(folder, script, "openapi.json", "--output=generated/schema.d.ts")
        journey = (JOURNEYS / "openapi_fetch.ts").read_text(encoding="utf-8")
        (folder / "journey.ts").write_text(journey.replace("{ name, price: 24.9 }", "{ name }"))
        shutil.copy(JOURNEYS / "tsconfig.json", folder)

        code, output = await run(folder, NODE, "node_modules/typescript/bin/tsc")

        assert code != 0
        assert "'price' is missing" in output
