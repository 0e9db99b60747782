"""Rules across modules: how the parts fit together, and the contents of a release."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from catalog import errors
from catalog.auth.guards import audience_of
from catalog.errors import CatalogError, public_errors
from catalog.http.limits import limit_of
from tests.http.wire import app_to_read
from tests.support import Caller, problem_of

ROOT = Path(__file__).parent.parent
LOCK_FILES = ("requirements.lock", "requirements-otel.lock", "tests/requirements.lock")


def requirements_of(lock_file: str) -> dict[str, list[str]]:
    """Return the lines that pin each package; a package may have several entries."""
    text = (ROOT / lock_file).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=\S)", text):
        if not entry.startswith("#"):
            found.setdefault(entry.partition("==")[0], []).append(entry)
    return found


def name_of(requirement: str) -> str:
    """Return the normalized name at the beginning of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def test_no_module_is_long() -> None:
    """Migrations may be: they repeat code that they must not import."""
    lengths = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in (ROOT / "catalog").rglob("*.py")
        if "migrations/versions" not in path.as_posix()
    }

    assert len(lengths) > 200
    assert {path: length for path, length in lengths.items() if length > 350} == {}


class TestLockFiles:
    @pytest.mark.parametrize("lock_file", LOCK_FILES)
    def test_every_requirement_is_one_version_with_hashes(self, lock_file: str) -> None:
        for entries in requirements_of(lock_file).values():
            for entry in entries:
                assert re.match(r"[a-z0-9.-]+==[\w.]+( ; [^\\]+)? \\\n", entry), entry
                assert "--hash=sha256:" in entry, entry

    @pytest.mark.parametrize("lock_file", LOCK_FILES)
    def test_package_index_is_left_to_the_machine(self, lock_file: str) -> None:
        text = (ROOT / lock_file).read_text(encoding="utf-8")

        assert not re.search(r"://|^\s*--(?!hash=)|^\s*#.*\s/", text, re.MULTILINE)

    def test_every_dependency_of_the_service_is_locked(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        wanted = project["project"]["dependencies"] + project["build-system"]["requires"]

        assert {name_of(requirement) for requirement in wanted} <= set(
            requirements_of("requirements.lock")
        )

    def test_every_tool_is_locked(self) -> None:
        lines = (ROOT / "tests/requirements.in").read_text(encoding="utf-8").splitlines()
        wanted = {name_of(line) for line in lines if not line.startswith("#")}

        assert wanted <= set(requirements_of("tests/requirements.lock"))

    def test_packages_of_the_client_are_locked_for_its_tests(self) -> None:
        wanted: set[str] = set()
        for place in (ROOT, ROOT / "catalog" / "client"):
            project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
            extra = project.get("optional-dependencies", {}).get("client")
            wanted |= {name_of(each) for each in extra or project["dependencies"]}

        assert wanted == {"httpx"} <= requirements_of("tests/requirements.lock").keys()

    def test_tools_share_the_versions_of_the_service(self) -> None:
        service, traced, tools = map(requirements_of, LOCK_FILES)

        for shipped in (service, traced):
            for name in shipped.keys() & tools.keys():
                assert {entry.split()[0] for entry in tools[name]} <= {
                    entry.split()[0] for entry in shipped[name]
                }

    def test_extra_only_adds_packages_to_the_service(self) -> None:
        service, traced = map(requirements_of, LOCK_FILES[:2])
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        extra = {name_of(each) for each in project["project"]["optional-dependencies"]["otel"]}

        assert extra <= traced.keys()
        assert not extra & service.keys()
        for name in service.keys() - {"setuptools"}:
            pinned, same = (
                [entry.partition("\n    # via")[0] for entry in lock[name]]
                for lock in (service, traced)
            )
            assert pinned == same


class TestPackage:
    def test_package_is_marked_as_typed(self) -> None:
        assert files("catalog").joinpath("py.typed").is_file()


def imports_of(path: Path) -> Iterator[str]:
    """Yield the full names of what a module imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


class TestSharedHelpers:
    def test_no_test_module_is_imported_by_another_module(self) -> None:
        for path in (ROOT / "tests").rglob("*.py"):
            if "node_modules" not in path.parts:
                for name in imports_of(path):
                    assert not re.match(r"tests\.([\w.]+\.)?test_", name), path


APP = app_to_read()
ERRORS = list(public_errors())
each_error = pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.slug)


class TestRoutes:
    @pytest.mark.parametrize("endpoint", sorted(APP.view_functions))
    def test_route_states_its_audience(self, endpoint: str) -> None:
        audience = audience_of(APP.view_functions[endpoint])

        assert audience in {"public", "access", "session", "admin", "refresh", "any"}

    def test_routes_of_all_accounts_are_for_administrators_only(self) -> None:
        for rule in APP.url_map.iter_rules():
            is_for_admins = audience_of(APP.view_functions[rule.endpoint]) == "admin"

            assert is_for_admins == rule.rule.startswith("/api/users"), rule

    def test_token_of_either_kind_is_accepted_by_log_out_only(self) -> None:
        for audience, paths in (("any", {"/api/auth/logout"}), ("refresh", {"/api/auth/refresh"})):
            found = {
                rule.rule
                for rule in APP.url_map.iter_rules()
                if audience_of(APP.view_functions[rule.endpoint]) == audience
            }

            assert found == paths

    def test_api_keys_are_accepted_for_products_and_the_own_account_only(self) -> None:
        found = {
            f"{method} {rule.rule}"
            for rule in APP.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
            if audience_of(APP.view_functions[rule.endpoint]) == "access"
        }

        assert found == {
            "GET /api/auth/me",
            "GET /api/products/my",
            "POST /api/products",
            "PATCH /api/products/<id:product_id>",
            "DELETE /api/products/<id:product_id>",
        }

    def test_every_route_has_a_view(self) -> None:
        assert {rule.endpoint for rule in APP.url_map.iter_rules()} == set(APP.view_functions)

    def test_public_routes_are_read_only_except_sign_up_and_log_in(self) -> None:
        public_writes = {
            rule.rule
            for rule in APP.url_map.iter_rules()
            if (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
            and audience_of(APP.view_functions[rule.endpoint]) == "public"
        }

        # The console's own check the origin, and have the session's token in a cookie.
        console = {f"/console/session{path}" for path in ("", "/account", "/refresh")}
        assert public_writes == {"/api/auth/signup", "/api/auth/login", *console}

    def test_limits_are_stated_by_these_routes_only(self) -> None:
        stated = {
            f"{method} {rule.rule}": policy
            for rule in APP.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
            if (policy := limit_of(APP.view_functions[rule.endpoint]))
        }

        assert stated == {
            "POST /api/auth/signup": "signup",
            "POST /api/auth/login": "login",
            "POST /api/auth/refresh": "refresh",
            "GET /api/auth/refresh": "refresh",
            "GET /api/products": "read",
            "GET /api/products/my": "read",
            "GET /api/products/changes": "read",
            "POST /api/products": "write",
            "GET /api/products/<id:product_id>": "read",
            "PATCH /api/products/<id:product_id>": "write",
            "DELETE /api/products/<id:product_id>": "write",
        }


class TestErrors:
    def test_slugs_are_unique(self) -> None:
        slugs = [kind.slug for kind in ERRORS]

        assert sorted(slugs) == sorted(set(slugs))

    @each_error
    def test_error_has_a_valid_slug_status_and_title(self, kind: type[CatalogError]) -> None:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.slug)
        assert 400 <= kind.status <= 599
        assert kind.title
        assert not kind.title.endswith(".")

    @each_error
    def test_error_is_in_the_drawing_of_the_family(self, kind: type[CatalogError]) -> None:
        drawing = errors.__doc__ or ""

        assert re.search(rf"[x-] {kind.__name__} \((\d+, )?{kind.slug}\)", drawing)

    @each_error
    async def test_error_is_explained_at_its_type(self, kind: type[CatalogError]) -> None:
        answer = await Caller(APP).get(f"/problems/{kind.slug}")

        assert answer.status_code == 200
        assert answer.json["type"] == f"/problems/{kind.slug}"
        assert (answer.json["code"], answer.json["status"]) == (kind.slug, kind.status)
        assert answer.json["title"] == kind.title
        assert answer.json["meaning"].endswith(".")

    async def test_unknown_slug_is_not_found(self) -> None:
        for slug in ("nonsense", "operator-error", "Not-Found", "__class__"):
            assert problem_of(await Caller(APP).get(f"/problems/{slug}")) == (404, "not-found")
