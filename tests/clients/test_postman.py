"""The collection that Postman's converter makes of the document passes in newman."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.clients.tools import HERE, run_node
from tests.server.service import Service
from tests.support import PASSWORD

CONVERTER = "openapi-to-postmanv2/bin/openapi2postmanv2.js"
NEWMAN = "newman/bin/newman.js"


def requests_of(folder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the requests in a folder of a collection, at any depth."""
    for item in folder["item"]:
        if "item" in item:
            yield from requests_of(item)
        else:
            yield item


async def collection_of(folder: Path, options: str) -> dict[str, Any]:
    """Convert the document to a collection."""
    arguments = ("-s", "openapi.json", "-o", "collection.json", "-O", options)
    await run_node(folder, CONVERTER, *arguments)
    collection: dict[str, Any] = json.loads((folder / "collection.json").read_bytes())
    return collection


async def run_collection(folder: Path, *options: str) -> list[dict[str, Any]]:
    """Run the collection, and return its executions; newman fails if any request does."""
    report = folder / "report.json"
    reporting = ("--reporters=json", f"--reporter-json-export={report}")
    await run_node(folder, NEWMAN, "run", "collection.json", *reporting, *options)
    executions: list[dict[str, Any]] = json.loads(report.read_bytes())["run"]["executions"]
    return executions


class TestPostman:
    async def test_collection_has_the_address_of_the_service(
        self, folder: Path, service: Service
    ) -> None:
        collection = await collection_of(folder, "folderStrategy=Tags")

        variables = {each["key"]: each["value"] for each in collection["variable"]}
        executions = await run_collection(folder)

        assert variables["baseUrl"] == service.url
        assert len(executions) == len(list(requests_of(collection)))
        assert all(each["response"]["code"] < 500 for each in executions)

    async def test_examples_of_every_operation_succeed(
        self, folder: Path, service: Service
    ) -> None:
        async with httpx.AsyncClient(base_url=service.url) as client:
            # The account of the examples.
            account = {
                "username": "ada",
                "email": "ada@example.com",
                "password": "correct horse battery staple",
            }
            assert (await client.post("/api/auth/signup", json=account)).status_code == 201
        options = "folderStrategy=Tags,parametersResolution=Example,enableOptionalParameters=false"
        collection = await collection_of(folder, options)
        prepare = (HERE / "postman.js").read_text(encoding="utf-8").splitlines()
        collection["event"] = [{"listen": "prerequest", "script": {"exec": prepare}}]
        for item in requests_of(collection):
            for variable in item["request"]["url"].get("variable", []):
                variable["value"] = "{{" + variable["key"] + "}}"
        (folder / "collection.json").write_text(json.dumps(collection))

        executions = await run_collection(
            folder, "--env-var", "admin=admin", "--env-var", f"password={PASSWORD}"
        )

        statuses = {each["item"]["name"]: each["response"]["code"] for each in executions}
        assert len(statuses) == len(list(requests_of(collection)))
        assert {name: code for name, code in statuses.items() if not 200 <= code < 300} == {}
