"""The HTML pages: complete without internet access, and safe from injection."""

import re

import pytest
from quart import Quart

from tests.db.support import on_sqlite
from tests.support import Caller, Response, problem_of

# The pages are the same on every engine.
pytestmark = on_sqlite

PAGES = ("/", "/sign-in", "/docs")


def references_of(page: Response) -> list[str]:
    """Return the URLs that a page loads or links to."""
    return re.findall(r'(?:src|href|action)="([^"]*)"', page.body.decode())


def policy_of(page: Response) -> dict[str, str]:
    """Return a page's Content-Security-Policy by directive."""
    directives = page.headers["Content-Security-Policy"].split(";")
    return {name: rest for name, _, rest in (each.strip().partition(" ") for each in directives)}


class TestPages:
    @pytest.mark.parametrize("path", PAGES)
    async def test_all_references_are_local_and_exist(self, anyone: Caller, path: str) -> None:
        references = references_of(await anyone.get(path))

        assert len(references) >= 4
        for reference in references:
            assert reference.startswith("/"), reference
            assert not reference.startswith("//"), reference
            assert (await anyone.get(reference)).status_code == 200, reference

    async def test_page_of_an_error_has_its_style_sheet(self, anyone: Caller) -> None:
        page = await anyone.get("/nowhere", headers={"Accept": "text/html"})

        style_sheet, home = references_of(page)
        answer = await anyone.get(style_sheet)
        assert (answer.status_code, answer.headers["Content-Type"]) == (
            200,
            "text/css; charset=utf-8",
        )
        assert home == "/"

    @pytest.mark.parametrize("path", PAGES)
    async def test_page_is_html_with_revalidation(self, anyone: Caller, path: str) -> None:
        page = await anyone.get(path)

        assert page.status_code == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["Cache-Control"] == "no-cache"
        assert page.body.startswith(b"<!doctype html>")

    @pytest.mark.parametrize("path", PAGES)
    async def test_page_runs_own_scripts_only_and_cannot_be_framed(
        self, anyone: Caller, path: str
    ) -> None:
        page = await anyone.get(path)
        policy = policy_of(page)

        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["form-action"] in {"'none'", "'self'"}
        assert policy.get("script-src", "'self'") == "'self'"
        assert not re.search(rb"<script(?![^>]*\ssrc=)|\son\w+=|javascript:|<style", page.body)


class TestDocs:
    async def test_page_loads_this_services_document_only(self, anyone: Caller) -> None:
        script = (await anyone.get("/docs/docs.js")).body.decode()

        page = (await anyone.get("/docs")).body.decode()
        assert "dataset.document" in script
        assert 'data-document="/openapi.json"' in page
        assert not re.search(r"https?://", script)

    async def test_page_without_javascript_links_to_the_document(self, anyone: Caller) -> None:
        page = (await anyone.get("/docs")).body.decode()

        (hint,) = re.findall(r"<noscript>(.*?)</noscript>", page)
        assert 'href="/openapi.json"' in hint


class TestAssets:
    @pytest.mark.parametrize(
        ("name", "media_type"),
        [
            ("docs.js", "text/javascript"),
            ("swagger-ui-bundle.js", "text/javascript"),
            ("page.css", "text/css"),
            ("swagger-ui.css", "text/css"),
            ("favicon-32x32.png", "image/png"),
        ],
    )
    async def test_asset_has_its_media_type_and_is_cacheable(
        self, anyone: Caller, name: str, media_type: str
    ) -> None:
        asset = await anyone.get(f"/docs/{name}")

        assert asset.headers["Content-Type"].partition(";")[0] == media_type
        assert asset.headers["Cache-Control"] == "public, max-age=3600"
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
        assert asset.body

    async def test_matching_etag_gets_304(self, anyone: Caller) -> None:
        first = await anyone.get("/docs/docs.js")

        again = await anyone.get("/docs/docs.js", headers={"If-None-Match": first.headers["ETag"]})

        assert (again.status_code, again.body) == (304, b"")

    @pytest.mark.parametrize(
        "name",
        [
            "missing.js",
            "..%2froutes.py",
            "../routes.py",
            "%2e%2e/routes.py",
            "index.html",
            "docs.js/x",
        ],
    )
    async def test_other_name_is_not_found(self, anyone: Caller, name: str) -> None:
        assert problem_of(await anyone.get(f"/docs/{name}")) == (404, "not-found")

    async def test_no_static_folder_is_served(self, app: Quart) -> None:
        assert not [rule for rule in app.url_map.iter_rules() if rule.endpoint == "static"]
