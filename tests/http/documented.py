"""Validation of every response in a test against the OpenAPI document."""

import json
import re
from typing import Any

from openapi_schema_validator import OAS31Validator
from quart import Quart
from werkzeug.exceptions import HTTPException

from catalog.http.context import app_state
from catalog.http.openapi import document_of
from catalog.http.replies.problems import MEDIA_TYPE

_documents: dict[object, dict[str, Any]] = {}


def document(app: Quart) -> dict[str, Any]:
    """Return an app's document, built once for all apps with the same views and limits.

    Building it takes longer than most tests.
    """
    limits = {name: rate for name, rate in app_state(app).settings if name.endswith("_limit")}
    key = frozenset((*app.view_functions.items(), *limits.items()))
    if key not in _documents:
        _documents[key] = document_of(app)
    return _documents[key]


def hold_to_document(app: Quart) -> None:
    """Wrap the app so that an undocumented response fails the test."""
    inner = app.asgi_app

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = b""

        async def noting(message: Any) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body += message["body"]
            await send(message)

        await inner(scope, receive, noting)
        if start:
            _check(app, scope["method"], scope["path"], start, body)

    app.asgi_app = checked  # type: ignore[method-assign]  # documented by Quart


def _check(app: Quart, method: str, path: str, start: dict[str, Any], body: bytes) -> None:
    operation = _operation(app, method, path)
    status = str(start["status"])
    if operation is None or status == "500":
        # No operation, or a server error, which the test itself must assert.
        return
    asked = f"{method} {path}"
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    assert status in operation["responses"], f"{asked} may not answer {status}: {body[:300]!r}"
    response = operation["responses"][status]
    missing = {name for name in response["headers"] if name.lower() not in headers}
    # A request may be rejected before the rate limit counts it, for example for its size.
    optional = {"Catalog-Batch-Position", "Idempotency-Replayed", "Link"}
    optional |= {"RateLimit", "RateLimit-Policy"}
    assert not missing - optional, f"{asked}: {status} without {missing}"
    if method == "HEAD" or not body:
        assert method == "HEAD" or "content" not in response, f"{asked}: {status} without a body"
        return
    media_type = headers["content-type"].partition(";")[0]
    content = {name.partition(";")[0]: each for name, each in response["content"].items()}
    assert media_type in content, f"{asked}: {status} may not be {media_type}"
    value = json.loads(body)
    schema = content[media_type]["schema"]
    check_value(value, schema, document(app))
    if media_type == MEDIA_TYPE:
        codes = re.findall(r"^- `([a-z-]+)`:", response["description"], re.MULTILINE)
        assert value["code"] in codes, f"{asked} does not document {status} {value['code']}"


def _operation(app: Quart, method: str, path: str) -> dict[str, Any] | None:
    """Return the documented operation of a request; None if the route is unknown or hidden."""
    matched = "GET" if method == "HEAD" else method
    try:
        rule, _ = app.url_map.bind("").match(path, matched, return_rule=True)
    except HTTPException:
        return None
    documented = document(app)["paths"].get(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
    operation: dict[str, Any] | None = documented.get(matched.lower())
    return operation


def check_value(value: object, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Assert that a value matches a schema of the document."""
    whole = {**schema, "components": document["components"]}
    faults = [
        f"{error.json_path}: {error.message}" for error in OAS31Validator(whole).iter_errors(value)
    ]
    assert not faults, faults
