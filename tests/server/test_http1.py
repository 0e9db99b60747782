"""What HTTP/1.1 offers beyond requests is not taken up: no way around a proxy's rules."""

import pytest

from tests.server.service import Service


class TestHttp2:
    async def test_upgrade_is_ignored(self, shared_service: Service) -> None:
        connection = await shared_service.connect()
        fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")

        upgrade = await connection.get("/livez", *fields)
        then = await connection.get("/livez")

        assert (upgrade.status, upgrade.headers["content-type"]) == (200, "application/json")
        assert then.status == 200

    @pytest.mark.parametrize("version", ["2.0", "3.7"])
    async def test_other_versions_are_refused(self, shared_service: Service, version: str) -> None:
        connection = await shared_service.connect()

        await connection.send(f"PRI * HTTP/{version}\r\n\r\nSM\r\n\r\n".encode())
        answer = await connection.answer()

        assert answer.status == 505
        assert answer.closes
        assert await connection.reader.read() == b""


class TestRefusal:
    async def test_a_connection_ends_however_much_is_on_its_way(
        self, shared_service: Service
    ) -> None:
        connection = await shared_service.connect()

        await connection.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000
        )
        answer = await connection.answer()

        assert (answer.status, answer.closes) == (400, True)
        assert await connection.reader.read() == b""
