"""Run nginx with the shipped configuration, on free ports and with its own files.

Only addresses, paths and the entries of ``OWN`` differ from the shipped files.
"""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.engines import tied_to_us
from tests.server.service import Connection
from tests.support import until

SHIPPED = Path(__file__).parents[2] / "docker" / "nginx"
MODULE = "ngx_http_js_module.so"

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"))
NGINX = os.environ.get("CATALOG_TEST_NGINX") or shutil.which("nginx", path=_PATH)

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

SITES = {
    "bare metal": "catalog",
    "compose": "compose",
    "kubernetes": "../kubernetes/base/nginx",
}
"""Deployments of nginx, and the folder of the files that differ between them, relative to
the shared configuration."""

OWN = {
    # Unbuffered, so that tests can read each line at once.
    " buffer=64k flush=1s": "",
}
"""Replacements besides addresses and paths."""

RESOLVE_SINCE = (1, 27, 3)
"""The first release of nginx with ``resolve`` in ``server``; the images have a newer one."""

Edit = Callable[[str], str]

needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="nginx is not there: what clients see through it is not tested"
)


class Nginx:
    """A running nginx.

    Attributes:
        url: its address.
        folder: the folder of its files.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder

    def log(self) -> list[dict[str, Any]]:
        """Return the access log, one object a request."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]

    def answers(self) -> Counter[str]:
        """Count requests by cache status: ``HIT`` is from the cache, all else from the service."""
        return Counter(line["cache"] for line in self.log())

    async def source_of(self, request_id: str) -> str:
        """Return the cache status of a request: ``HIT``, or another one."""
        found: list[str] = await until(
            lambda: [line["cache"] for line in self.log() if line["request_id"] == request_id]
        )
        return found[0]

    def cached_files(self) -> int:
        """Return how many pages the cache has stored."""
        return sum(file.is_file() for file in (self.folder / "cache").rglob("*"))

    async def caching(self) -> None:
        """Wait for the first cache hit."""
        connection = await Connection.open(self.url)
        before = self.answers()["HIT"]
        async with asyncio.timeout(60):
            while self.answers()["HIT"] == before:
                await connection.get("/api/products?limit=1")
                await asyncio.sleep(0.01)
        await connection.close()


@cache
def nginx_version() -> tuple[int, ...]:
    """Return the version of nginx."""
    assert NGINX is not None
    told = subprocess.run([NGINX, "-v"], check=True, capture_output=True, text=True).stderr
    found = re.search(r"nginx/([\d.]+)", told)
    assert found is not None, told
    return tuple(map(int, found.group(1).split(".")))


@cache
def has_njs() -> bool:
    """Tell whether nginx has the njs module in a sufficient release."""
    with own_folder() as folder, free_ports(2) as (port, origin):
        write_site(folder, ("127.0.0.1:9",), port, origin)
        test = subprocess.run([*_command(folder), "-t"], check=False, capture_output=True)
    return test.returncode == 0


@asynccontextmanager
async def nginx(
    *urls: str,
    edit: Edit | None = None,
    folder: Path | None = None,
    site: str = "bare metal",
    shipped: Path = SHIPPED,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[Nginx]:
    """Run nginx in front of the service.

    Args:
        urls: of the service's instances, or of other nginx.
        edit: a change to each of its files.
        folder: of an earlier nginx, to keep its cache.
        site: one of ``SITES``.
        shipped: the folder with the configuration.
        variables: the service's variables that concern nginx too.
    """
    with own_folder() as new:
        folder = folder or new
        edit = edit or (str if has_njs() else without_njs)
        with free_ports(2) as (port, origin):
            upstreams = tuple(url.removeprefix("http://") for url in urls)
            write_site(folder, upstreams, port, origin, edit=edit, site=site, shipped=shipped)
            if variables is not None:
                (folder / "catalog" / "site.conf").write_text(site_conf(variables))
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(), *_command(folder), "-g", "daemon off;"
        )
        try:
            await until(lambda: process.returncode is not None or _is_up(folder, port))
            assert process.returncode is None, (folder / "error.log").read_text()
            yield Nginx(folder, port)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@contextmanager
def own_folder() -> Iterator[Path]:
    """Make a folder that nginx's workers, which run as another user, can read, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def without_njs(text: str) -> str:
    """Remove the directives that need the njs module; nothing is cached then."""
    lines = r"^load_module [^;]*;|^ *(js_|proxy_cache|set )[^;]*;"
    text = text.replace("= @outage;", "=503 @problem;")
    return re.sub(lines, "", text, flags=re.MULTILINE)


def impatient(text: str) -> str:
    """Shorten the wait for an instance to two seconds, so that a test need not wait longer."""
    return text.replace("WAIT_MS = 30000", "WAIT_MS = 2000")


def without_position(text: str) -> str:
    """Leave the position out of the cache key, so that pages go stale: the control."""
    return text.replace('"$catalog_page_generation $catalog_encoding', '"$catalog_encoding')


def without_eras(text: str) -> str:
    """Take every change for the creation of a product: the control."""
    return text.replace("return token.length === TOKEN_LENGTH && ", "return true || ")


def without_polls(text: str) -> str:
    """Disable polling, so that for a minute nginx learns positions only from its own responses."""
    text = text.replace("MAX_AGE_MS = 200;", "MAX_AGE_MS = 60000;")
    return text.replace(
        "async function pollOnce(started) {", "async function pollOnce(started) { return;"
    )


def write_site(
    folder: Path,
    upstreams: tuple[str, ...],
    port: int,
    origin: int,
    *,
    edit: Edit = str,
    site: str = "bare metal",
    shipped: Path = SHIPPED,
) -> None:
    """Copy the shipped files of a site, with other addresses and paths."""
    own = {
        "127.0.0.1:8090": f"127.0.0.1:{origin}",
        "/var/cache/catalog": f"{folder}/cache",
        "/var/log/nginx": str(folder),
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "_temp_path /tmp/": f"_temp_path {folder}/",
        **OWN,
    }
    shutil.copytree(shipped, folder, dirs_exist_ok=True)
    for name in ("listen.conf", "upstream.conf", "site.conf"):
        # In containers site.conf is written at the start.
        if (shipped / SITES[site] / name).exists():
            shutil.copyfile(shipped / SITES[site] / name, folder / "catalog" / name)
    _replace(folder / "catalog" / "listen.conf", r"^listen \d+", f"listen 127.0.0.1:{port}")
    _replace(
        folder / "catalog" / "upstream.conf",
        r"^ *server \S+:8000( resolve)?(.*)$",
        "\n".join(rf"server {upstream}\1\2" for upstream in upstreams),
    )
    if site != "bare metal":
        # There is no resolver at 127.0.0.1, but the addresses need not be resolved.
        _replace(folder / "catalog" / "upstream.conf", r"^resolver \S+", "resolver 127.0.0.1")
    for file in folder.rglob("*.*"):
        if file.suffix in {".conf", ".js"}:
            text = file.read_text()
            for theirs, ours in own.items():
                text = text.replace(theirs, ours)
            if nginx_version() < RESOLVE_SINCE:
                text = re.sub(r"^(server .*) resolve\b", r"\1", text, flags=re.MULTILINE)
            file.write_text(edit(text))
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in TEMPORARY)
    upstream = (folder / "catalog" / "upstream.conf").read_text()
    if paths not in upstream:
        (folder / "catalog" / "upstream.conf").write_text(paths + upstream)
    if not (folder / "modules").is_symlink():
        (folder / "modules").symlink_to(_modules())


def site_conf(variables: Mapping[str, str]) -> str:
    """Return site.conf for the service's variables, as written in containers.

    Raises:
        subprocess.CalledProcessError: a variable is invalid.
    """
    command = ["sh", str(SHIPPED / "compose" / "site.sh")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=variables)
    return told.stdout


def _replace(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text(), flags=re.MULTILINE)
    assert count == 1, (file, pattern)
    file.write_text(text)


def _command(folder: Path) -> list[str]:
    assert NGINX is not None
    return [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _modules() -> Path:
    """Return the folder of this nginx's modules."""
    assert NGINX is not None
    beside = Path(NGINX).parent / "modules"
    if (beside / MODULE).exists():
        return beside
    told = subprocess.run([NGINX, "-V"], check=True, capture_output=True, text=True).stderr
    found = re.search(r"--modules-path=(\S+)", told)
    return Path(found.group(1)) if found else beside


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Reserve distinct free ports."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        yield [probe.getsockname()[1] for probe in probes]


def _is_up(folder: Path, port: int) -> bool:
    # It listens before it writes its pid.
    pid = folder / "nginx.pid"
    return pid.exists() and pid.read_text() != "" and _listens(port)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# At the end of the module, because it calls functions defined above.
needs_cache = pytest.mark.skipif(
    NGINX is None or not has_njs(),
    reason="nginx with its njs module, 0.8.5 or newer, is not there: the cache is not tested;"
    " CATALOG_TEST_NGINX may lead to one, with its modules in a folder `modules` beside it",
)
