"""The console's static files."""

import gzip
import re
from pathlib import Path

import pytest

from catalog.ui import assets
from tests.db.support import on_sqlite
from tests.support import Caller, problem_of

FOLDER = Path(assets.__file__).parent / "static" / "console"
SCRIPTS = sorted(FOLDER.rglob("*.js"))
OURS = [script for script in SCRIPTS if "vendor" not in script.parts]

MAX_TRANSFERRED = 100_000
"""Bytes of all files that a page needs, compressed."""


def url_of(name: str, release: str | None = None) -> str:
    return f"{assets.PATH}/{release or assets.fingerprint()}/{name}"


@on_sqlite
class TestAssets:
    @pytest.mark.parametrize(
        ("name", "media_type"),
        [
            ("app.js", "text/javascript; charset=utf-8"),
            ("views/product.js", "text/javascript; charset=utf-8"),
            ("console.css", "text/css; charset=utf-8"),
            ("icon.svg", "image/svg+xml; charset=utf-8"),
        ],
    )
    async def test_asset_is_cacheable_until_a_release(
        self, anyone: Caller, name: str, media_type: str
    ) -> None:
        asset = await anyone.get(url_of(name))

        assert asset.body == (FOLDER / name).read_bytes()
        assert asset.headers["Content-Type"] == media_type
        assert "immutable" in asset.headers["Cache-Control"]
        assert asset.headers["Vary"] == "Accept-Encoding"

    async def test_asset_of_another_release_is_revalidated(self, anyone: Caller) -> None:
        asset = await anyone.get(url_of("app.js", "000000000000"))

        assert asset.status_code == 200
        assert asset.headers["Cache-Control"] == "no-cache"

    @pytest.mark.parametrize("accepted", ["gzip, br", "br;q=1.0, GZIP;q=0.8, *;q=0.1", "gzip;q=1"])
    async def test_browser_gets_compressed_bytes(self, anyone: Caller, accepted: str) -> None:
        plain = await anyone.get(url_of("app.js"))
        small = await anyone.get(url_of("app.js"), headers={"Accept-Encoding": accepted})

        assert small.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(small.body) == plain.body
        assert small.headers["ETag"] != plain.headers["ETag"]

    @pytest.mark.parametrize("accepted", ["gzip;q=0", "br, gzip; q=0.000", "xgzip", "identity"])
    async def test_client_that_refuses_gzip_gets_plain_bytes(
        self, anyone: Caller, accepted: str
    ) -> None:
        asset = await anyone.get(url_of("app.js"), headers={"Accept-Encoding": accepted})

        assert "Content-Encoding" not in asset.headers
        assert asset.body == (FOLDER / "app.js").read_bytes()

    async def test_matching_etag_gets_304(self, anyone: Caller) -> None:
        tag = (await anyone.get(url_of("app.js"))).headers["ETag"]

        again = await anyone.get(url_of("app.js"), headers={"If-None-Match": tag})

        assert (again.status_code, again.body) == (304, b"")

    @pytest.mark.parametrize("name", ["missing.js", "../console.py", "..%2fconsole.py", "views"])
    async def test_other_name_is_not_found(self, anyone: Caller, name: str) -> None:
        assert problem_of(await anyone.get(url_of(name))) == (404, "not-found")


class TestScripts:
    def test_page_transfers_little(self) -> None:
        files = [path for path in FOLDER.rglob("*.*") if path.suffix in {".js", ".css", ".svg"}]

        assert sum(len(gzip.compress(path.read_bytes())) for path in files) < MAX_TRANSFERRED

    @pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
    def test_imports_exist_beside_the_script(self, script: Path) -> None:
        pattern = r"""(?:\bfrom\s*|\bimport\s*\(?\s*)["']([^"'\n]+)["'](?=[;)])"""
        for name in re.findall(pattern, script.read_text()):
            assert name.startswith("."), name
            assert (script.parent / name).resolve().is_file(), name

    @pytest.mark.parametrize("script", OURS, ids=lambda script: script.name)
    def test_script_makes_no_markup_from_strings_and_asks_no_other_host(self, script: Path) -> None:
        text = script.read_text()

        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"https?://", text)


class TestVendored:
    def test_every_library_is_listed_with_its_licence(self) -> None:
        listed = (FOLDER / "vendor" / "VENDORED.txt").read_text()

        for path in (FOLDER / "vendor").iterdir():
            if path.suffix in {".js", ".css"}:
                line = re.search(rf"^{path.name} .*", listed, re.MULTILINE)
                assert line, path.name
                assert re.search(r"\d+\.\d+\.\d+ .*(MIT|Apache-2\.0) .*sha512-", line.group()), line
        assert len(list((FOLDER / "vendor").glob("LICENSE-*.txt"))) == 3
