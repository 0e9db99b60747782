"""Whether the service in this container is alive, for Docker: exits with 0 if it is.

It asks /livez and not /readyz: what replaces unhealthy containers must leave the service alone
while its database is away. At a start the two say the same, because nothing listens before tables
and administrator are there. It runs every few seconds, so it imports next to nothing.
"""

import os
import socket

SECONDS = 4


def main() -> None:
    """Ask, and exit with 1 unless the answer is 200."""
    with _connection(os.environ.get("CATALOG_BIND") or "127.0.0.1:8000") as service:
        service.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = service.recv(64)
    if b" 200 " not in answer:
        raise SystemExit(answer.decode("latin-1").partition("\r\n")[0] or "no answer")


def _connection(bind: str) -> socket.socket:
    if bind.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(SECONDS)
        connection.connect(bind.removeprefix("unix:"))
        return connection
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    # Where it listens on every address, it does on this one.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return socket.create_connection((host, int(port)), SECONDS)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        raise SystemExit(f"The service does not answer: {error}") from None
