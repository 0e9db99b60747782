"""The health check of the image."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deployment.compose import ROOT


@contextmanager
def answering(listener: socket.socket, answer: bytes) -> Iterator[list[bytes]]:
    """Answer one client; yields the requests it sent."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(1024))
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    with listener:
        listener.listen()
        thread.start()
        yield asked
        thread.join()


def ask(bind: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the health check as the image does."""
    return subprocess.run(
        [sys.executable, "-IS", ROOT / "docker" / "health.py"],
        env={"CATALOG_BIND": bind, **environment},
        check=False,
        capture_output=True,
        text=True,
    )


class TestHealth:
    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])  # noqa: S104 (asked, not bound)
    def test_health_check_requests_livez(self, host: str) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        with answering(listener, b"HTTP/1.1 200 \r\n\r\n") as asked:
            done = ask(f"{host}:{port}")

        assert done.returncode == 0, done.stderr
        assert asked[0].startswith(b"GET /livez HTTP/1.1\r\n")

    def test_health_check_requests_the_assigned_port(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        with answering(listener, b"HTTP/1.1 200 \r\n\r\n"):
            done = ask(PORT=f" {port}\r")

        assert done.returncode == 0, done.stderr

    def test_health_check_connects_to_a_unix_socket(self, tmp_path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))

        with answering(listener, b"HTTP/1.1 200 \r\n\r\n"):
            done = ask(f"unix:{tmp_path / 's'}")

        assert done.returncode == 0, done.stderr

    def test_status_other_than_200_fails_and_is_printed(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))

        with answering(listener, b"HTTP/1.1 503 \r\nRetry-After: 1\r\n\r\n"):
            done = ask(f"127.0.0.1:{listener.getsockname()[1]}")

        assert (done.returncode, done.stderr) == (1, "HTTP/1.1 503 \n")

    def test_refused_connection_fails_with_a_message(self) -> None:
        done = ask("127.0.0.1:1")

        assert done.returncode == 1
        assert done.stderr.startswith("The service does not answer: ")
        assert "Traceback" not in done.stderr
