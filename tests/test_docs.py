"""The documentation is complete, and documents nothing that does not exist."""

import re
import tomllib
from functools import cache
from pathlib import Path

import click
import pytest
from sqlalchemy import URL

from catalog.app import create_app
from catalog.auth.audit import Audit
from catalog.cli import main
from catalog.errors import public_errors
from catalog.settings import REMOVED, SECRET_FIELDS, load_settings, variable_names
from tests.deployment import compose
from tests.engines import settings_for

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

# Variables of tests and scripts, not of the service.
NOT_SETTINGS = {
    *("CATALOG_TEST_MYSQL_URL", "CATALOG_TEST_NGINX", "CATALOG_TEST_PROMETHEUS"),
    *("CATALOG_TEST_MYSQLD", "CATALOG_TEST_REWRITE", "CATALOG_TEST_CHROMIUM"),
    # Variables of the stacks for Docker.
    *("CATALOG_CONFIGS", "CATALOG_GRAFANA_BIND", "CATALOG_IMAGE", "CATALOG_PROMETHEUS_BIND"),
}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(name: str) -> str:
    path = ROOT / name
    assert path.is_file(), f"{name} is missing"
    return path.read_text(encoding="utf-8")


def without_fences(page: Path) -> str:
    """Return a page without its code blocks, which may show variables of other programs."""
    fence = r"^( *)(`{3,}).*?^ *\2`*$"
    return re.sub(fence, "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors_of(page: Path) -> set[str]:
    """Return the fragments of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.*)$", without_fences(page), flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")
        repeated = sum(1 for each in found if re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", each))
        found.add(f"{anchor}-{repeated}" if repeated else anchor)
    return found


def first_cells(text: str) -> list[str]:
    """Return the code in the first column of a page's tables."""
    return re.findall(r"^\| `([^`|]+)` \|", text, flags=re.MULTILINE)


def routes() -> set[str]:
    """Return every route in the notation of the docs: ``DELETE /api/products/<id>``."""
    nowhere = URL.create("mysql+aiomysql", host="127.0.0.1", port=1, database="catalog")
    found = set()
    for rule in create_app(settings_for(nowhere)).url_map.iter_rules():
        path = re.sub(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>", lambda m: f"<{m[1] or m[2]}>", rule.rule)
        found |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


class TestSettings:
    @pytest.mark.parametrize("variable", variable_names().values())
    def test_setting_has_one_row_and_one_line(self, variable: str) -> None:
        rows = first_cells(read("docs/deployment/settings.md"))
        lines = re.findall(r"^#?([A-Z_]+)=", read(".env.example"), flags=re.MULTILINE)

        assert rows.count(variable) == 1, f"{variable}: a row in docs/deployment/settings.md"
        assert lines.count(variable) == 1, f"{variable}: a line {variable}= in .env.example"

    def test_only_existing_variables_are_documented(self) -> None:
        known = {*variable_names().values(), *NOT_SETTINGS, *compose.variables()}
        known |= {f"{variable_names()[field]}_FILE" for field in SECRET_FIELDS}
        texts = {name_of(page): without_fences(page) for page in PAGES}
        texts[".env.example"] = read(".env.example")

        for name, text in texts.items():
            # The changelog tells of former settings.
            allowed = known | REMOVED.keys() if name == "docs/changelog.md" else known
            named = set(re.findall(r"\b(?:CATALOG|ADMIN)_[A-Z][A-Z_]*[A-Z]\b", text))
            assert named <= allowed, name

    def test_values_in_the_example_are_the_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CATALOG_FAST_PATH", raising=False)
        defaults = load_settings()

        for name, value in re.findall(r"^#?([A-Z_]+)=(.*)$", read(".env.example"), re.MULTILINE):
            monkeypatch.setenv(name, value)

        assert load_settings() == defaults

    def test_values_in_the_table_are_the_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CATALOG_FAST_PATH", raising=False)
        defaults = load_settings()
        row = r"^\| `([A-Z_]+)` \| `([^`|]+)` \|"

        for name, value in re.findall(row, read("docs/deployment/settings.md"), re.MULTILINE):
            monkeypatch.setenv(name, value)

        assert load_settings() == defaults


class TestMigrations:
    def test_every_migration_has_a_row(self) -> None:
        versions = (ROOT / "catalog/migrations/versions").glob("[0-9]*.py")
        revisions = sorted(version.name[:4] for version in versions)

        rows = [cell for cell in first_cells(read("docs/data_model.md")) if cell.isdecimal()]

        assert rows == revisions


class TestErrors:
    def test_every_error_has_a_row_with_its_status(self) -> None:
        rows = re.findall(
            r"^\| `([a-z-]+)` \| (\d{3}) \|", read("docs/api_endpoints.md"), re.MULTILINE
        )

        assert sorted(rows) == sorted((kind.slug, str(kind.status)) for kind in public_errors())


class TestRoutes:
    def test_rows_are_exactly_the_routes(self) -> None:
        rows = {
            cell
            for cell in first_cells(read("docs/api_endpoints.md"))
            if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", cell)
        }

        assert rows == routes()

    def test_headings_describe_exactly_the_routes(self) -> None:
        headings = re.findall(r"^#+ (.*)$", read("docs/api_endpoints.md"), flags=re.MULTILINE)
        described = set(re.findall(r"`([A-Z]+ /[^`]*)`", "\n".join(headings)))

        assert described == routes()


# In the order of `catalog --help`.
COMMANDS = main.list_commands(click.Context(main))


class TestCommands:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_command_is_mentioned(self, command: str) -> None:
        mentioned = [name_of(page) for page in PAGES if f"catalog {command}" in page.read_text()]

        assert mentioned, f"`catalog {command}` stands neither in README.md nor in docs/"

    def test_only_existing_commands_are_mentioned(self) -> None:
        for page in PAGES:
            mentioned = set(re.findall(r"`catalog ([a-z][a-z-]*)[ `]", page.read_text()))
            assert mentioned <= set(COMMANDS), name_of(page)


class TestChecks:
    def test_every_check_of_lint_is_described(self) -> None:
        headings = re.findall(r'^say "([^"]+)"$', read("tests/lint.sh"), flags=re.MULTILINE)
        section = read("docs/contributing.md").partition("\n## Lint\n")[2].partition("\n## ")[0]
        items = "".join(re.findall(r"^- (.*?):", section, flags=re.MULTILINE))

        assert re.findall(r"\*\*(\w+)\*\*", items) == headings

    def test_folders_of_the_type_checker_are_named(self) -> None:
        folders = tomllib.loads(read("pyproject.toml"))["tool"]["mypy"]["files"]
        types = re.search(r"^- \*\*Types\*\*: (.*)$", read("docs/contributing.md"), re.MULTILINE)

        assert types
        assert re.findall(r"`(\w+)`", types[1]) == folders


class TestLayers:
    """The import chains in the overview are the contracts of import-linter."""

    @pytest.mark.parametrize(
        ("intro", "contract"),
        [
            (
                "Imports go in one direction, which a linter enforces:",
                "Packages import in one direction",
            ),
            ("Inside a feature:", "Modules of a feature import in one direction"),
        ],
    )
    def test_chain_is_the_contract(self, intro: str, contract: str) -> None:
        contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
        [layers] = [each["layers"] for each in contracts if each["name"] == contract]
        chain = re.search(rf"^{intro}\n\n`(.*)`$", read("docs/overview.md"), flags=re.MULTILINE)

        assert chain
        shown = [set(layer.split(", ")) for layer in chain[1].split(" → ")]
        assert shown == [set(re.findall(r"\w+", layer)) for layer in layers]


class TestLinks:
    @pytest.mark.parametrize("page", PAGES, ids=name_of)
    def test_links_have_existing_targets(self, page: Path) -> None:
        # Code spans contain no links.
        text = re.sub(r"`[^`\n]*`", "", without_fences(page))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, fragment = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.is_relative_to(ROOT), target
            assert file.exists(), target
            if fragment:
                assert fragment in anchors_of(file), target

    @pytest.mark.parametrize(
        "name",
        [
            *("overview", "api_endpoints", "data_model", "deployment", "sequence_flows"),
            *("contributing", "changelog", "adr/README"),
        ],
    )
    def test_promised_page_exists(self, name: str) -> None:
        assert read(f"docs/{name}.md").startswith("# ")


class TestSecurity:
    PAGE = "docs/security.md"

    def test_named_tests_exist(self) -> None:
        named = re.findall(r"(tests/[\w/]+\.py)((?:(?:, )?::\w+)*)", read(self.PAGE))

        assert len(named) > 50
        for path, members in named:
            source = read(path)
            for member in re.findall(r"::(\w+)", members):
                assert re.search(rf"^class {member}\b", source, re.MULTILINE), (path, member)

    def test_every_audit_event_is_listed(self) -> None:
        rows = re.findall(r"^\| (`[^|]+) \|", read(self.PAGE), flags=re.MULTILINE)
        listed = re.findall(r"`([a-z_]+)`", "".join(rows))

        for event in Audit:
            assert event.value in listed, event
