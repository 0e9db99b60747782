"""Promises that no single module can keep: how the parts fit and what is shipped."""

import re
import tomllib
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
    """The locked packages by name, each with the lines that pin it; one may be there twice."""
    text = (ROOT / lock_file).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=\S)", text):
        if not entry.startswith("#"):
            found.setdefault(entry.partition("==")[0], []).append(entry)
    return found


def name_of(requirement: str) -> str:
    """The normal form of the name that a requirement begins with."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


class TestLockFiles:
    @pytest.mark.parametrize("lock_file", LOCK_FILES)
    def test_every_requirement_is_one_version_with_hashes(self, lock_file: str) -> None:
        for entries in requirements_of(lock_file).values():
            for entry in entries:
                assert re.match(r"[a-z0-9.-]+==[\w.]+( ; [^\\]+)? \\\n", entry), entry
                assert "--hash=sha256:" in entry, entry

    @pytest.mark.parametrize("lock_file", LOCK_FILES)
    def test_where_packages_come_from_is_left_to_the_machine(self, lock_file: str) -> None:
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

    def test_the_tools_run_beside_what_the_service_is_shipped_with(self) -> None:
        service, traced, tools = map(requirements_of, LOCK_FILES)

        for shipped in (service, traced):
            for name in shipped.keys() & tools.keys():
                assert {entry.split()[0] for entry in tools[name]} <= {
                    entry.split()[0] for entry in shipped[name]
                }

    def test_the_extra_adds_to_the_service_and_changes_nothing_of_it(self) -> None:
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
    def test_it_tells_type_checkers_that_it_is_typed(self) -> None:
        assert files("catalog").joinpath("py.typed").is_file()


APP = app_to_read()
ERRORS = list(public_errors())
each_error = pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.slug)


class TestRoutes:
    @pytest.mark.parametrize("endpoint", sorted(APP.view_functions))
    def test_each_states_who_may_call_it(self, endpoint: str) -> None:
        audience = audience_of(APP.view_functions[endpoint])

        assert audience in {"public", "access", "admin", "refresh", "any"}

    def test_everyones_accounts_are_for_administrators_alone(self) -> None:
        for rule in APP.url_map.iter_rules():
            is_for_admins = audience_of(APP.view_functions[rule.endpoint]) == "admin"

            assert is_for_admins == rule.rule.startswith("/api/users"), rule

    def test_a_token_of_either_kind_only_ends_its_session(self) -> None:
        for audience, paths in (("any", {"/api/auth/logout"}), ("refresh", {"/api/auth/refresh"})):
            found = {
                rule.rule
                for rule in APP.url_map.iter_rules()
                if audience_of(APP.view_functions[rule.endpoint]) == audience
            }

            assert found == paths

    def test_each_leads_to_a_view(self) -> None:
        assert {rule.endpoint for rule in APP.url_map.iter_rules()} == set(APP.view_functions)

    def test_what_writes_is_never_public_but_to_sign_in(self) -> None:
        public_writes = {
            rule.rule
            for rule in APP.url_map.iter_rules()
            if (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
            and audience_of(APP.view_functions[rule.endpoint]) == "public"
        }

        assert public_writes == {"/api/auth/signup", "/api/auth/login"}

    def test_these_state_a_limit(self) -> None:
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
    def test_each_slug_means_one_thing(self) -> None:
        slugs = [kind.slug for kind in ERRORS]

        assert sorted(slugs) == sorted(set(slugs))

    @each_error
    def test_each_is_fit_for_clients_to_branch_on(self, kind: type[CatalogError]) -> None:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.slug)
        assert 400 <= kind.status <= 599
        assert kind.title
        assert not kind.title.endswith(".")

    @each_error
    def test_each_stands_in_the_drawing_of_the_family(self, kind: type[CatalogError]) -> None:
        drawing = errors.__doc__ or ""

        assert re.search(rf"[x-] {kind.__name__} \((\d+, )?{kind.slug}\)", drawing)

    @each_error
    async def test_each_is_explained_where_its_type_leads(self, kind: type[CatalogError]) -> None:
        answer = await Caller(APP).get(f"/problems/{kind.slug}")

        assert answer.status_code == 200
        assert answer.json["type"] == f"/problems/{kind.slug}"
        assert (answer.json["code"], answer.json["status"]) == (kind.slug, kind.status)
        assert answer.json["title"] == kind.title
        assert answer.json["meaning"].endswith(".")

    async def test_no_other_is(self) -> None:
        for slug in ("nonsense", "operator-error", "Not-Found", "__class__"):
            assert problem_of(await Caller(APP).get(f"/problems/{slug}")) == (404, "not-found")
