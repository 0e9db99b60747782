"""Stacks that the service is measured against, and how each is started."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import URL

HERE = Path(__file__).parent / "peers"

_GO_PATH = "/usr/share/gocode"
"""Where Debian's packages of Go put their sources."""


@dataclass(frozen=True)
class Peer:
    """Another stack.

    Attributes:
        title: name in tables.
        driver: of its database URL.
        command: module and arguments, with the fields ``{port}`` and ``{workers}``.
        packages: whose versions are reported.
        own_packages: whether it needs packages that the service does not have.
        edits: whether it also reads and changes single products.
        has_accounts: whether it also has the caller's own things, and the changes.
        runtime: what runs it.
    """

    title: str
    driver: str
    command: str
    packages: tuple[str, ...]
    own_packages: bool = True
    edits: bool = False
    has_accounts: bool = False
    runtime: Literal["python", "go", "node"] = "python"

    def is_missing(self) -> str | None:
        """Return what is missing to run it here; None if nothing is."""
        if self.runtime == "python" or shutil.which(self.runtime):
            return None
        return f"{self.runtime} is not there"

    def prepare(self, folder: Path) -> None:
        """Compile it, or install its packages, if its runtime asks for that.

        Raises:
            subprocess.CalledProcessError: it cannot be done here.
        """
        if self.runtime == "go":
            # Packages of the distribution are found by path, not by module.
            environment = {"GO111MODULE": "off", "GOPATH": _GO_PATH, "GOFLAGS": ""}
            command = ["go", "build", "-o", str(folder / "go-peer"), str(HERE / "go" / "main.go")]
            subprocess.run(command, check=True, env={**os.environ, **environment})
        if self.runtime == "node":
            subprocess.run(["npm", "--prefix", HERE / "node", "ci", "--silent"], check=True)

    def arguments(self, python: str, *, port: int, workers: int, folder: Path) -> Sequence[str]:
        """Return the command that starts it on a port."""
        command = self.command.format(port=port, workers=workers, folder=folder, here=HERE)
        return command.split() if self.runtime != "python" else [python, "-m", *command.split()]

    def environment(self, database: URL) -> dict[str, str]:
        """Return the variables that name the database, as its driver wants it."""
        address = f"{database.host}:{database.port or 3306}"
        account, name = f"{database.username}:{database.password or ''}", database.database
        match self.runtime:
            case "go":
                return {"GO_DATABASE": f"{account}@tcp({address})/{name}?parseTime=true"}
            case "node":
                return {"NODE_DATABASE": f"mysql://{account}@{address}/{name}"}
            case _:
                url = database.set(drivername=f"mysql+{self.driver}")
                return {"DATABASE_URL": url.render_as_string(hide_password=False)}


# Its default backlog of 1,024 would leave 512 requests per worker waiting outside.
_GRANIAN = (
    "granian --interface asgi --workers {workers} --loop uvloop --http 1 --no-ws"
    " --backlog 2048 --log-level warning --port {port}"
)

PEERS = {
    "obvious": Peer(
        "Quart, the obvious way",
        "aiomysql",
        # A longer backlog than its default of 100, as the other servers have by default.
        "hypercorn -w {workers} -k asyncio -b 127.0.0.1:{port} --backlog 2048"
        " tests.load.peers.obvious:app",
        ("quart", "hypercorn", "sqlalchemy", "aiomysql"),
        own_packages=False,
    ),
    "flask": Peer(
        "Flask on gunicorn",
        "pymysql",
        "gunicorn -w {workers} -k sync -b 127.0.0.1:{port} --no-control-socket"
        " tests.load.peers.flask_app:app",
        ("flask", "gunicorn", "sqlalchemy", "pymysql"),
    ),
    "fastapi": Peer(
        "FastAPI on uvicorn",
        "asyncmy",
        "uvicorn --workers {workers} --loop uvloop --http httptools --no-access-log"
        " --log-level warning --port {port} tests.load.peers.fastapi_app:app",
        ("fastapi", "uvicorn", "uvloop", "httptools", "sqlalchemy", "asyncmy"),
    ),
    "litestar": Peer(
        "Litestar on granian",
        "asyncmy",
        f"{_GRANIAN} tests.load.peers.litestar_app:app",
        ("litestar", "granian", "uvloop", "msgspec", "sqlalchemy", "asyncmy"),
        edits=True,
        has_accounts=True,
    ),
    "blacksheep": Peer(
        "BlackSheep on granian",
        "asyncmy",
        f"{_GRANIAN} tests.load.peers.blacksheep_app:app",
        ("blacksheep", "granian", "uvloop", "msgspec", "sqlalchemy", "asyncmy"),
        edits=True,
        has_accounts=True,
    ),
    "fastify": Peer(
        "Node: Fastify, mysql2",
        "mysql2",
        "node {here}/node/main.mjs {port} {workers}",
        ("fastify", "mysql2"),
        edits=True,
        runtime="node",
    ),
    "go": Peer(
        "Go: net/http, go-sql-driver",
        "go-sql-driver",
        # One process, whose threads use all cores.
        "{folder}/go-peer {port}",
        (),
        edits=True,
        runtime="go",
    ),
}

PYTHON_PEERS = {name for name, peer in PEERS.items() if peer.runtime == "python"}

_VERSIONS = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"


def versions_of(peer: Peer, peers_python: str) -> str:
    """Return a peer's packages with their versions."""
    if peer.runtime == "go":
        return subprocess.check_output(["go", "version"], text=True).strip()
    if peer.runtime == "node":
        packages = json.loads((HERE / "node" / "package.json").read_text())["dependencies"]
        node = subprocess.check_output(["node", "--version"], text=True).strip()
        return ", ".join([f"node {node}", *(f"{name} {packages[name]}" for name in peer.packages)])
    python = peers_python if peer.own_packages else sys.executable
    printed = subprocess.check_output([python, "-c", _VERSIONS, *peer.packages], text=True)
    return ", ".join(map(" ".join, zip(peer.packages, printed.split(), strict=True)))
