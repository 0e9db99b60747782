"""``Expect: 100-continue``: the body of a refused head is never asked for."""

import gzip
import json

import pytest

from tests.server.service import Service
from tests.support import PASSWORD


class TestExpect:
    async def test_100_is_sent_when_the_body_is_read(self, shared_service: Service) -> None:
        connection = await shared_service.connect()
        body = b'{"username": "unknown", "password": "wrong horse"}'

        await connection.send(
            b"POST /api/auth/login HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send(body)

        assert (await connection.answer()).status == 401

    @pytest.mark.parametrize(
        ("start", "fields", "status"),
        [
            ("POST /api/products", "Content-Type: application/json", 401),
            ("POST /api/products", "Content-Type: text/csv", 401),
            ("PATCH /api/products/1", "Content-Type: application/json", 401),
            ("POST /api/auth/login", "Content-Type: text/plain", 415),
            ("POST /api/auth/login", "Content-Length: 300000", 413),
            ("POST /api/auth/login", "Content-Encoding: br", 415),
            ("POST /api/nothing", "Content-Type: application/json", 404),
            ("POST /livez", "Content-Type: application/json", 405),
            ("PUT /api/auth/login", "Content-Type: application/json", 405),
        ],
    )
    async def test_refused_head_gets_no_100(
        self, shared_service: Service, start: str, fields: str, status: int
    ) -> None:
        connection = await shared_service.connect()
        length = "" if "Length" in fields else "Content-Length: 30\r\n"

        await connection.send(
            f"{start} HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
            f"{length}{fields}\r\n\r\n".encode()
        )
        answer = await connection.answer()

        assert (answer.status, answer.closes) == (status, True)
        assert await connection.reader.read() == b""

    async def test_body_after_100_is_bounded_and_decoded(self, shared_service: Service) -> None:
        token = await shared_service.sign_up("expecting")
        product = gzip.compress(b'{"name": "Lamp", "price": 1}')
        bodies = {product: 201, b"no gzip": 400, gzip.compress(b" " * 300_000): 413}
        for body, status in bodies.items():
            connection = await shared_service.connect()

            await connection.send(
                b"POST /api/products HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
                b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
                b"Authorization: Bearer %b\r\nTransfer-Encoding: chunked\r\n\r\n" % token.encode()
            )
            assert (await connection.answer()).status == 100
            await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

            assert (await connection.answer()).status == status

    async def test_compressed_log_in_to_the_console_is_read(self, shared_service: Service) -> None:
        await shared_service.sign_up("expecting_console")
        body = gzip.compress(
            json.dumps({"username": "expecting_console", "password": PASSWORD}).encode()
        )
        connection = await shared_service.connect()

        await connection.send(
            b"POST /console/session HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n"
            b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
            b"Sec-Fetch-Site: same-origin\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert (await connection.answer()).status == 100
        await connection.send(body)
        answer = await connection.answer()

        assert answer.status == 200, answer.body
