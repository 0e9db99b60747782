"""Every error is rendered as problem details and discloses no secrets."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from quart import Quart, abort
from structlog.testing import capture_logs
from werkzeug.exceptions import ImATeapot

from catalog.errors import (
    CatalogError,
    DatabaseBusy,
    DatabaseUnavailable,
    FieldError,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    public_errors,
)
from catalog.http.replies.problems import field_errors, json_pointer, problem, to_problem
from tests.http.wire import app_without_database, exchange
from tests.support import Caller, fields_of, problem_of

SECRET = "(1045, \"Access denied for user 'root'@'10.0.0.7'\")"


@pytest.fixture
def failing_app(tmp_path: Path) -> Quart:
    """Return an app with routes that fail in unexpected ways."""
    app = app_without_database(tmp_path)

    @app.get("/unforeseen")
    async def unforeseen() -> str:
        raise RuntimeError(SECRET)

    @app.get("/group")
    async def group() -> str:
        raise ExceptionGroup(SECRET, [ValueError(SECRET)])

    @app.get("/recursion")
    async def recursion() -> str:
        raise RecursionError(SECRET)

    @app.get("/aborted/<int:status>")
    async def aborted(status: int) -> str:
        abort(status, SECRET)

    @app.get("/teapot")
    async def teapot() -> str:
        raise ImATeapot

    @app.get("/overloaded")
    async def overloaded() -> str:
        raise Overloaded(retry_after_seconds=7)

    @app.get("/away")
    async def away() -> str:
        raise DatabaseUnavailable from ConnectionError(2003, "port 12345 refuses")

    @app.get("/busy")
    async def busy() -> str:
        raise DatabaseBusy

    @app.get("/faulty")
    async def faulty() -> str:
        raise InvalidRequest(
            errors=[
                FieldError("pointer", "/price", "must be one"),
                FieldError("parameter", "limit", "must be two"),
                FieldError("header", "If-Match", "must be three"),
            ]
        )

    return app


@pytest.fixture
def victim(failing_app: Quart) -> Caller:
    """Return a caller of the failing app."""
    return Caller(failing_app)


class TestUnexpectedErrors:
    @pytest.mark.parametrize("path", ["/unforeseen", "/group", "/recursion"])
    async def test_unexpected_error_is_a_bare_500(self, victim: Caller, path: str) -> None:
        answer = await victim.get(path)

        assert problem_of(answer) == (500, "internal-error")
        assert set(answer.json) == {"type", "title", "status", "detail", "code", "request_id"}

    @pytest.mark.parametrize("path", ["/unforeseen", "/group", "/recursion"])
    async def test_error_text_is_not_disclosed(self, victim: Caller, path: str) -> None:
        answer = await victim.get(path)

        everything = answer.body + str(answer.headers).encode()
        for part in (b"(1045", b"Access denied", b"Traceback", b"Error("):
            assert part not in everything

    async def test_traceback_is_logged(self, victim: Caller) -> None:
        with capture_logs() as logs:
            await victim.get("/unforeseen")

        (failure,) = [event for event in logs if event["event"] == "request_failed"]
        assert failure["log_level"] == "error"
        assert isinstance(failure["exc_info"], RuntimeError)

    async def test_repeated_503s_of_one_cause_are_logged_once(self, victim: Caller) -> None:
        with capture_logs() as logs:
            for _ in range(5):
                assert (await victim.get("/away")).status_code == 503
            assert (await victim.get("/busy")).status_code == 503

        lines = [event for event in logs if event["event"] == "request_refused"]
        assert [line["code"] for line in lines] == ["database-unavailable", "database-busy"]
        assert "2003" in lines[0]["cause"]

    async def test_next_request_is_served_after_an_unexpected_error(self, victim: Caller) -> None:
        await victim.get("/unforeseen")

        assert (await victim.get("/livez")).status_code == 200


class TestFrameworkErrors:
    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (400, (400, "malformed")),
            (404, (404, "not-found")),
            (406, (406, "not-acceptable")),
            (408, (408, "request-timeout")),
            (413, (413, "body-too-large")),
            (415, (415, "unsupported-media-type")),
            (500, (500, "internal-error")),
        ],
    )
    async def test_framework_error_is_a_problem(
        self, victim: Caller, status: int, expected: tuple[int, str]
    ) -> None:
        answer = await victim.get(f"/aborted/{status}")

        assert problem_of(answer) == expected
        assert b"(1045" not in answer.body

    async def test_unmapped_client_error_is_malformed(self, victim: Caller) -> None:
        assert problem_of(await victim.get("/teapot")) == (400, "malformed")

    @pytest.mark.parametrize(
        "path", ["/nowhere", "/api/nowhere", "/api/products/x/y", "/docs/nothing", "/../etc/passwd"]
    )
    async def test_unknown_path_is_not_found(self, stranger: Caller, path: str) -> None:
        assert problem_of(await stranger.get(path)) == (404, "not-found")

    async def test_hostile_path_is_not_found(self, bare_app: Quart) -> None:
        for path in ("/\x00", "/api/products/\ufffd", "/" + "x" * 10_000, "/docs/..%2f..%2fapp.py"):
            assert problem_of(await exchange(bare_app, "GET", path)) == (404, "not-found")


class TestProblem:
    async def test_headers_of_an_error_are_sent(self, victim: Caller) -> None:
        answer = await victim.get("/overloaded")

        assert problem_of(answer) == (503, "overloaded")
        assert answer.headers["Retry-After"] == "7"

    async def test_field_errors_are_reported_by_location(self, victim: Caller) -> None:
        answer = await victim.get("/faulty")

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/price", "limit", "If-Match"]
        assert [error["message"] for error in answer.json["errors"]] == [
            "price must be one.",
            "limit must be two.",
            "If-Match must be three.",
        ]

    @pytest.mark.parametrize("kind", list(public_errors()), ids=lambda kind: kind.slug)
    def test_problem_has_all_members(self, kind: type[CatalogError]) -> None:
        members = problem(kind(), "some-id")

        assert members == {
            "type": f"/problems/{kind.slug}",
            "title": kind.title,
            "status": kind.status,
            "detail": f"{kind.title}.",
            "code": kind.slug,
            "request_id": "some-id",
        }

    async def test_password_is_never_echoed(self, stranger: Caller) -> None:
        password = "hunter2-" + "x" * 200
        fields = {"username": "a", "email": password, "password": password, "hunter2": password}

        answer = await stranger.post("/api/auth/signup", json=fields)

        assert problem_of(answer) == (422, "invalid")
        assert b"hunter2-" not in answer.body


class TestJsonPointer:
    @pytest.mark.parametrize(
        ("location", "pointer"),
        [
            ((), ""),
            (("price",), "/price"),
            (("items", 3, "name"), "/items/3/name"),
            (("a/b",), "/a~1b"),
            (("m~n",), "/m~0n"),
            (("~1",), "/~01"),
            (("",), "/"),
        ],
    )
    def test_json_pointer_is_escaped(self, location: tuple[Any, ...], pointer: str) -> None:
        assert json_pointer(location) == pointer


class TestQueryErrors:
    def test_item_of_a_list_is_named_by_its_number(self) -> None:
        class Query(BaseModel):
            ids: list[int]

        with pytest.raises(ValidationError) as caught:
            Query.model_validate({"ids": [1, "x"]})
        (error,) = field_errors(caught.value, in_query=True)

        assert (error.place, error.name) == ("parameter", "ids")
        assert error.rule.startswith("has an item (number 2) that ")


class TestLog:
    @pytest.mark.parametrize(("error", "is_logged"), [(InternalError, True), (NotFound, False)])
    def test_failures_of_the_service_are_logged(
        self, error: type[CatalogError], is_logged: bool
    ) -> None:
        with capture_logs() as logs:
            to_problem(error())

        assert [line["event"] for line in logs] == ["request_refused"] * is_logged
