"""nginx that serves a page as a static file, with the headers that the service sends."""

import json
from pathlib import Path
from urllib.request import urlopen

from tests.load.tls import listener
from tests.server.nginx import TEMPORARY

_CONFIGURATION = """
worker_processes {workers};
worker_rlimit_nofile 65536;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 20480; }}
http {{
    {paths}
    default_type application/json;
    access_log {folder}/access.log combined buffer=64k flush=1s;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 15s;
    keepalive_requests 100000;
    open_file_cache max=2000 inactive=20s;
    open_file_cache_valid 60s;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        {tls}
        location = /api/products {{
            alias {folder}/page.json;
            {headers}
        }}
    }}
}}
"""

# Header fields that nginx sends with any file or that belong to one connection.
_OF_FILES = {"connection", "content-length", "content-type", "date", "etag", "server"}


def configure(folder: Path, port: int, tls_port: int, url: str, *, workers: int) -> None:
    """Configure nginx to serve the page at a URL, with equal headers and an access log."""
    with urlopen(url, timeout=5) as answer:  # noqa: S310 (our own)
        (folder / "page.json").write_bytes(answer.read())
        fields = [each for each in answer.headers.items() if each[0].lower() not in _OF_FILES]
    headers = "\n            ".join(
        f"add_header {name} {json.dumps(value.replace('$', ''))};" for name, value in fields
    )
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in TEMPORARY)
    (folder / "nginx.conf").write_text(
        _CONFIGURATION.format(
            workers=workers,
            folder=folder,
            port=port,
            tls=listener(folder, tls_port),
            headers=headers,
            paths=paths,
        )
    )
