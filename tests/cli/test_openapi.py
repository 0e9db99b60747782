"""``catalog openapi``."""

import json
from pathlib import Path

from tests.cli.commands import CommandLine
from tests.support import Caller


class TestDocument:
    async def test_document_equals_the_served_one(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        served = (await anyone.get("/openapi.json", headers={"Host": "shop.example"})).json
        printed = json.loads(await catalog.output_of("openapi", "--server=http://shop.example"))

        assert printed["openapi"].startswith("3.1")
        assert printed == served

    async def test_server_is_by_default_where_the_service_listens(
        self, nowhere: CommandLine
    ) -> None:
        printed = json.loads(await nowhere.output_of("openapi"))

        assert [server["url"] for server in printed["servers"]] == ["http://127.0.0.1:8000"]

    async def test_document_is_written_to_a_file(
        self, nowhere: CommandLine, tmp_path: Path
    ) -> None:
        file = tmp_path / "openapi.json"

        nothing = await nowhere.output_of("openapi", f"--output={file}")

        assert nothing == ""
        assert file.read_text(encoding="utf-8") == await nowhere.output_of("openapi")

    async def test_unwritable_file_is_reported_on_one_line(
        self, nowhere: CommandLine, tmp_path: Path
    ) -> None:
        result = await nowhere.run("openapi", f"--output={tmp_path}/missing/openapi.json")

        assert result.exit_code in {1, 2}
        assert "No such file or directory" in result.stderr.splitlines()[-1]


class TestRequirements:
    async def test_command_needs_neither_database_nor_key_and_leaves_no_files(
        self, nowhere: CommandLine
    ) -> None:
        in_development = await nowhere.output_of("openapi", JWT_SECRET_KEY=None)
        in_production = await nowhere.output_of(
            "openapi", JWT_SECRET_KEY=None, CATALOG_ENV="production"
        )
        embedded = await nowhere.output_of("openapi", JWT_SECRET_KEY=None, DATABASE_URL=None)

        assert in_development == in_production == embedded
        assert list(Path.cwd().iterdir()) == []
