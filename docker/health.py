"""Health check of the container: exits with 0 if the service is alive.

It requests /livez and not /readyz, so that orchestrators which replace unhealthy containers leave
the service alone while its database is unavailable. During start-up the two agree, because the
service listens only once tables and administrator exist. The check runs every few seconds, so it
imports as little as possible.
"""

import os
import socket

SECONDS = 4


def main() -> None:
    """Send the request, and exit with 1 unless the response is 200."""
    port = os.environ.get("PORT", "").strip() or "8000"
    bind = os.environ.get("CATALOG_BIND", "").strip() or f"127.0.0.1:{port}"
    with _connection(bind) as service:
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
    # A service that listens on every address listens on loopback, too.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return socket.create_connection((host, int(port)), SECONDS)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        raise SystemExit(f"The service does not answer: {error}") from None
