"""Listening sockets: addresses, and no take-over from a running instance."""

import errno
import signal
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from catalog.errors import StartFailed
from catalog.server.sockets import open_listeners
from catalog.settings import Bind
from tests.server.service import Catalog, Service


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class TestTcp:
    def test_port_0_becomes_the_same_port_for_every_slot(self) -> None:
        with open_listeners(Bind("127.0.0.1", 0), slots=3, timeout=10) as listeners:
            ports = {listener.getsockname()[1] for listener in listeners.sockets}

            assert ports == {listeners.bind.port}
            assert listeners.bind.port > 0
            assert len(listeners.sockets) == 3

    @pytest.mark.parametrize(
        ("host", "family"),
        [
            ("localhost", socket.AF_INET),
            ("0.0.0.0", socket.AF_INET),  # noqa: S104 (closed again at once)
            ("::1", socket.AF_INET6),
            ("::", socket.AF_INET6),
        ],
    )
    def test_host_is_a_name_or_an_address(self, host: str, family: socket.AddressFamily) -> None:
        if family is socket.AF_INET6 and not _has_ipv6():
            pytest.skip("the loopback has no IPv6 here, as in most containers")
        with open_listeners(Bind(host, 0), slots=2, timeout=10) as listeners:
            assert {listener.family for listener in listeners.sockets} == {family}

    def test_connection_is_refused_until_a_worker_is_ready(self) -> None:
        with (
            open_listeners(Bind("127.0.0.1", 0), slots=1, timeout=10) as listeners,
            socket.socket() as client,
            pytest.raises(ConnectionRefusedError),
        ):
            client.connect(("127.0.0.1", listeners.bind.port))

    @pytest.mark.parametrize("listening", [False, True])
    def test_second_instance_is_refused(self, listening: bool) -> None:
        with open_listeners(Bind("127.0.0.1", 0), slots=2, timeout=10) as listeners:
            if listening:
                listeners.sockets[0].listen()

            with (
                pytest.raises(StartFailed, match="the port is in use"),
                open_listeners(listeners.bind, slots=2, timeout=10),
            ):
                pytest.fail("It shares the port.")

    def test_port_is_free_again_at_once(self) -> None:
        with open_listeners(Bind("127.0.0.1", 0), slots=2, timeout=10) as listeners:
            listener = listeners.sockets[0]
            # hypercorn sets this before it listens; connections inherit it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.listen()
            with socket.create_connection(("127.0.0.1", listeners.bind.port)) as client:
                # The side that closes first has the connection in TIME_WAIT.
                listener.accept()[0].close()
                client.recv(1)

        with open_listeners(listeners.bind, slots=2, timeout=10) as again:
            assert again.bind == listeners.bind

    def test_client_that_reads_nothing_is_disconnected(self) -> None:
        with (
            open_listeners(Bind("127.0.0.1", 0), slots=1, timeout=1) as listeners,
            socket.socket() as client,
        ):
            listener = listeners.sockets[0]
            listener.listen()
            client.connect(listener.getsockname())
            connection, _ = listener.accept()
            # Without the option under test, this time-out would end the test.
            connection.settimeout(20)

            # More than the buffers of both ends hold.
            with connection, pytest.raises(TimeoutError) as end:
                connection.sendall(bytes(64 * 1024 * 1024))

        assert end.value.errno == errno.ETIMEDOUT

    @pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a" * 70])
    def test_foreign_host_is_reported(self, host: str) -> None:
        with (
            pytest.raises(StartFailed, match=f"Cannot listen on http://{host}:8000: "),
            open_listeners(Bind(host, 8000), slots=1, timeout=10),
        ):
            pytest.fail("It listens.")


class TestUnix:
    def test_group_may_connect_and_others_may_not(self, tmp_path: Path) -> None:
        path = tmp_path / "catalog.sock"

        with open_listeners(Bind(path=path), slots=2, timeout=10) as listeners:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert len(listeners.sockets) == 2

        assert not path.exists()

    def test_socket_in_use_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "catalog.sock"

        with open_listeners(Bind(path=path), slots=1, timeout=10):
            with (
                pytest.raises(StartFailed, match="the socket is in use"),
                open_listeners(Bind(path=path), slots=1, timeout=10),
            ):
                pytest.fail("It takes the socket.")

            assert path.is_socket()

    def test_other_file_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("precious")

        with (
            pytest.raises(StartFailed, match="not a socket"),
            open_listeners(Bind(path=path), slots=1, timeout=10),
        ):
            pytest.fail("It takes the path.")

        assert path.read_text() == "precious"

    def test_socket_of_a_successor_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "catalog.sock"

        with ExitStack() as successor:
            with open_listeners(Bind(path=path), slots=1, timeout=10) as listeners:
                listeners.close()
                successor.enter_context(open_listeners(Bind(path=path), slots=1, timeout=10))

            assert path.is_socket()


class TestService:
    async def test_second_instance_is_refused_and_the_first_keeps_serving(
        self, catalog: Catalog, shared_service: Service
    ) -> None:
        taken = shared_service.url.removeprefix("http://")

        async with catalog.start("--bind", taken) as second:
            code = await second.exit_code()

            assert code == 1
            assert second.text == (
                f"The service cannot start: Cannot listen on http://{taken}: the port is in use.\n"
            )

        assert (await shared_service.get("/livez")).status == 200

    async def test_stale_unix_socket_is_replaced(self, catalog: Catalog) -> None:
        path = catalog.folder / "catalog.sock"
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))

        async with catalog.start("--bind", f"unix:{path}", "--workers=2") as service:
            await service.serving()
            answer = await service.get("/livez")
            service.send_signal(signal.SIGTERM)
            code = await service.exit_code()

            assert service.url == f"unix:{path}"
            assert answer.status == 200
            assert code == 0
            assert not path.exists()
