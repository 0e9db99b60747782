"""What Docker asks to find out whether a container lives."""

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
    """Gives one client an answer; what it asked for."""
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


def ask(bind: str) -> subprocess.CompletedProcess[str]:
    """Ask in the way of the image."""
    return subprocess.run(
        [sys.executable, "-IS", ROOT / "docker" / "health.py"],
        env={"CATALOG_BIND": bind},
        check=False,
        capture_output=True,
        text=True,
    )


class TestHealth:
    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])  # noqa: S104 (asked, not bound)
    def test_it_asks_whether_the_process_lives(self, host: str) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        with answering(listener, b"HTTP/1.1 200 \r\n\r\n") as asked:
            done = ask(f"{host}:{port}")

        assert done.returncode == 0, done.stderr
        assert asked[0].startswith(b"GET /livez HTTP/1.1\r\n")

    def test_a_unix_socket_will_do(self, tmp_path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))

        with answering(listener, b"HTTP/1.1 200 \r\n\r\n"):
            done = ask(f"unix:{tmp_path / 's'}")

        assert done.returncode == 0, done.stderr

    def test_another_answer_is_told(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))

        with answering(listener, b"HTTP/1.1 503 \r\nRetry-After: 1\r\n\r\n"):
            done = ask(f"127.0.0.1:{listener.getsockname()[1]}")

        assert (done.returncode, done.stderr) == (1, "HTTP/1.1 503 \n")

    def test_nobody_there_is_told(self) -> None:
        done = ask("127.0.0.1:1")

        assert done.returncode == 1
        assert done.stderr.startswith("The service does not answer: ")
        assert "Traceback" not in done.stderr
