"""The harness runs nginx's configuration as it is shipped."""

import re
from pathlib import Path

import pytest

from tests.server.nginx import (
    OWN,
    RESOLVE_SINCE,
    SHIPPED,
    SITES,
    TEMPORARY,
    Edit,
    needs_cache,
    nginx,
    nginx_version,
    own_folder,
    write_site,
)
from tests.server.service import Connection, Service

PORT, ORIGIN, UPSTREAM = 8901, 8902, 8903

_TOKEN = re.compile(r"""#.*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|[^\s{};"'#][^\s{};]*""")
_ADDRESS = re.compile(r"(?<=http://)[\w.]+:\d+|^[\w.-]+:\d+$")
_PATH = re.compile(r"/(?:var|run|tmp)/[\w./-]+")

pytestmark = needs_cache


def directives(*files: Path) -> set[str]:
    """Return every directive with its enclosing blocks, without addresses and paths."""
    found = set()
    for file in files:
        blocks, words = [file.name], list[str]()
        for token in _TOKEN.findall(file.read_text()):
            if token[0] == "#":
                continue
            if token not in {"{", "}", ";"}:
                words.append(masked(token, of=words))
                continue
            if token == "}":
                assert not words, words
                blocks.pop()
            else:
                found.add(" > ".join((*blocks, " ".join(words))))
                if token == "{":
                    blocks.append(" ".join(words))
            words = []
        assert len(blocks) == 1, file
    return found


def masked(token: str, *, of: list[str]) -> str:
    """Replace an address or a path in a directive's word by a star."""
    if of in (["listen"], ["resolver"]):
        return "*"
    return _PATH.sub("*", _ADDRESS.sub("*", token))


def shipped(site: str) -> set[str]:
    own = [SHIPPED / SITES[site] / name for name in SITE_FILES]
    # Without variables, containers write the same site.conf as the shipped one.
    own = [file if file.exists() else SHIPPED / "catalog" / file.name for file in own]
    return directives(
        SHIPPED / "nginx.conf",
        *(file for file in (SHIPPED / "catalog").glob("*.conf") if file.name not in SITE_FILES),
        *own,
    )


SITE_FILES = {"listen.conf", "upstream.conf", "site.conf"}


def run(folder: Path, site: str, edit: Edit = str) -> set[str]:
    write_site(folder, (f"127.0.0.1:{UPSTREAM}",), PORT, ORIGIN, edit=edit, site=site)
    return directives(folder / "nginx.conf", *(folder / "catalog").glob("*.conf"))


def allowed(site: str) -> tuple[set[str], set[str]]:
    """Return the allowed differences: directives that are removed, and those that replace them."""
    (buffer,) = OWN
    log = "http.conf > access_log * catalog"
    gone, new = {log + buffer}, {log}
    if site == "bare metal":
        new |= {f"upstream.conf > {kind}_temp_path *" for kind in TEMPORARY}
    elif nginx_version() < RESOLVE_SINCE:
        server = "upstream.conf > upstream catalog > server *"
        gone.add(f"{server} resolve fail_timeout=1s")
        new.add(f"{server} fail_timeout=1s")
    return gone, new


@pytest.mark.parametrize("site", SITES)
class TestSites:
    def test_harness_runs_every_shipped_directive(self, site: str) -> None:
        with own_folder() as folder:
            ours = run(folder, site)

        gone, new = allowed(site)
        assert shipped(site) - ours == gone
        assert ours - shipped(site) == new

    @pytest.mark.parametrize("left_out", [" fail_timeout=1s", "keepalive 64;", " backlog=2048"])
    def test_comparison_finds_a_missing_directive(self, site: str, left_out: str) -> None:
        with own_folder() as folder:
            ours = run(folder, site, edit=lambda text: text.replace(left_out, ""))

        assert (shipped(site) - ours, ours - shipped(site)) != allowed(site)

    def test_scripts_differ_in_addresses_only(self, site: str) -> None:
        with own_folder() as folder:
            run(folder, site)
            for script in (SHIPPED / "catalog").glob("*.js"):
                ours = (folder / "catalog" / script.name).read_text()
                assert ours.replace(str(ORIGIN), "8090") == script.read_text()

    async def test_site_answers_through_nginx(self, service: Service, site: str) -> None:
        async with nginx(service.url, site=site) as proxy:
            await proxy.caching()
            connection = await Connection.open(proxy.url)
            answer = await connection.get("/api/products?limit=1")
            await connection.close()

        assert answer.status == 200
