"""The OpenAPI document: valid, complete and deterministic."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from quart import Quart
from quart_schema.openapi import QUART_SCHEMA_HIDDEN_ATTRIBUTE

from catalog.auth.guards import BEARER, audience_of
from catalog.errors import public_errors
from catalog.http.openapi import document_of
from catalog.http.replies.problems import MEDIA_TYPE
from tests.http.documented import check_value, hold_to_document
from tests.http.wire import app_to_read, app_without_database
from tests.support import Caller

APP = app_to_read()
DOCUMENT = document_of(APP)
OPERATIONS = {
    operation["operationId"]: operation
    for operations in DOCUMENT["paths"].values()
    for operation in operations.values()
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)

# Operations whose body is optional.
MAY_LACK_A_BODY = {"refresh_token"}


def path_of(rule: str) -> str:
    """Return a route's path in OpenAPI syntax."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def parts_of(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a part of the document, at any depth; examples count as values."""
    if isinstance(part, dict):
        yield part
        for name, child in part.items():
            if name not in {"example", "examples"}:
                yield from parts_of(child)
    elif isinstance(part, list):
        for child in part:
            yield from parts_of(child)


def schemas_with_examples() -> list[dict[str, Any]]:
    return [part for part in parts_of(DOCUMENT) if isinstance(part.get("examples"), list)]


def bodies_of(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the media types of an operation's request and responses, with their contents."""
    for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from holder.get("content", {}).items()


class TestDocument:
    def test_document_is_valid_openapi_3_1(self) -> None:
        assert DOCUMENT["openapi"].startswith("3.1.")
        assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []

    def test_routes_are_documented_or_marked_hidden(self) -> None:
        expected = {
            (path_of(rule.rule), method.lower())
            for rule in APP.url_map.iter_rules()
            for method in rule.methods or ()
            if method not in {"HEAD", "OPTIONS"}
            and not getattr(APP.view_functions[rule.endpoint], QUART_SCHEMA_HIDDEN_ATTRIBUTE, False)
        }

        documented = {(path, each) for path, item in DOCUMENT["paths"].items() for each in item}

        assert documented == expected

    def test_routes_under_api_are_all_documented(self) -> None:
        for rule in APP.url_map.iter_rules():
            assert not rule.rule.startswith("/api/") or path_of(rule.rule) in DOCUMENT["paths"]

    def test_document_is_built_once(self) -> None:
        assert document_of(APP) is DOCUMENT

    def test_document_is_the_same_in_every_app(self, tmp_path: Path) -> None:
        other = document_of(app_without_database(tmp_path))

        assert other is not DOCUMENT
        assert json.dumps(other) == json.dumps(DOCUMENT)

    def test_references_resolve(self) -> None:
        for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(DOCUMENT)):
            place: Any = DOCUMENT
            assert reference.startswith("#/")
            for name in reference.removeprefix("#/").split("/"):
                place = place[name]

    def test_public_errors_are_documented(self) -> None:
        text = json.dumps(DOCUMENT["paths"])
        # Not of any operation, since none exists for the method.
        without_operation = {"method-not-allowed"}
        # Of no operation either, since the head of the request is refused before routing.
        without_operation |= {"uri-too-long", "headers-too-large"}
        without_operation |= {"not-implemented", "version-not-supported"}
        # A base class, whose subclasses are documented instead.
        general = {"conflict"}

        for kind in public_errors():
            is_documented = f"`{kind.slug}`" in text
            assert is_documented or kind.slug in without_operation | general, kind.slug

    def test_codes_of_problems_are_enumerated(self) -> None:
        code = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]

        assert code["enum"] == sorted(kind.slug for kind in public_errors())

    def test_project_names_contact_licence_and_documentation(self) -> None:
        info = DOCUMENT["info"]

        assert info["contact"]["name"]
        assert info["contact"]["url"].startswith("https://")
        assert info["license"] == {"name": "MIT", "identifier": "MIT"}
        assert DOCUMENT["externalDocs"]["url"].startswith("https://")

    def test_tags_are_described_and_used(self) -> None:
        used = {tag for operation in OPERATIONS.values() for tag in operation["tags"]}

        assert {tag["name"] for tag in DOCUMENT["tags"]} == used
        assert all(tag["description"].endswith(".") for tag in DOCUMENT["tags"])

    def test_fields_of_bodies_have_no_defaults(self) -> None:
        # Generators of clients take a field with a default for one that is always there.
        for name, schema in DOCUMENT["components"]["schemas"].items():
            for field, part in schema.get("properties", {}).items():
                assert "default" not in part, f"{name}.{field}"

    def test_bounds_are_those_of_json_schema(self) -> None:
        # A bound beside an optional type stays in pydantic's own words, and bounds nothing.
        for part in parts_of(DOCUMENT["components"]["schemas"]):
            assert not part.keys() & {"ge", "gt", "le", "lt", "max_length", "min_length"}, part

    def test_operation_ids_are_unique(self) -> None:
        names = re.findall(r'"operationId": "([^"]*)"', json.dumps(DOCUMENT))

        assert sorted(names) == sorted(set(names))
        # They become names of methods: verb and noun, in any language's case.
        assert all(re.fullmatch("[a-z]+(_[a-z]+)+", name) for name in names)


class TestServed:
    async def test_document_is_served(self, stranger: Caller) -> None:
        answer = await stranger.get("/openapi.json")

        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert {**answer.json, "servers": None} == {**DOCUMENT, "servers": None}

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("shop.example", "http://shop.example"),
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("[::1]:8000", "http://[::1]:8000"),
            ("shop.example/path", "/"),
            ("user@shop.example", "/"),
            ('"><script>', "/"),
            ("", "/"),
        ],
    )
    async def test_server_is_the_one_that_the_client_asked(
        self, stranger: Caller, host: str, url: str
    ) -> None:
        answer = await stranger.get("/openapi.json", headers={"Host": host})

        assert [server["url"] for server in answer.json["servers"]] == [url]

    async def test_matching_etag_is_not_modified(self, stranger: Caller) -> None:
        etag = (await stranger.get("/openapi.json")).headers["ETag"]

        again = await stranger.get("/openapi.json", headers={"If-None-Match": etag})
        other = await stranger.get("/openapi.json", headers={"If-None-Match": '"other"'})

        assert (again.status_code, again.body) == (304, b"")
        assert again.headers["ETag"] == etag
        assert other.status_code == 200


class TestOperations:
    @each_operation
    def test_operation_has_summary_and_tags(self, operation: dict[str, Any]) -> None:
        assert operation["summary"].endswith(".")
        assert operation["tags"]

    @each_operation
    def test_operation_and_its_parts_are_described(self, operation: dict[str, Any]) -> None:
        described = [operation, *operation["parameters"]]
        if "requestBody" in operation:
            described.append(operation["requestBody"])
        for response in operation["responses"].values():
            described += [response, *response["headers"].values()]

        for part in described:
            assert part.get("$ref") or part["description"].endswith((".", "`")), part
            assert part.get("$ref") or part["description"] == part["description"].strip()

    @each_operation
    def test_bodies_have_examples(self, operation: dict[str, Any]) -> None:
        for media_type, content in bodies_of(operation):
            if content["schema"] == {"type": "string"}:
                assert content["example"].strip(), media_type
                if media_type == "application/x-ndjson":
                    assert all(map(orjson.loads, content["example"].splitlines()))
            else:
                check_value(content["example"], content["schema"], DOCUMENT)

    @each_operation
    def test_lists_in_the_query_are_separated_by_commas(self, operation: dict[str, Any]) -> None:
        for parameter in operation["parameters"]:
            if parameter["schema"].get("type") == "array":
                name = parameter["name"]

                assert (parameter["style"], parameter["explode"]) == ("form", False)
                # Both notations are documented.
                assert re.search(rf"`{name}=\w+,\w+`", parameter["description"])
                assert re.search(rf"`{name}=\w+&{name}=\w+`", parameter["description"])

    @each_operation
    def test_request_body_is_required(self, operation: dict[str, Any]) -> None:
        if "requestBody" in operation:
            is_optional = operation["operationId"] in MAY_LACK_A_BODY

            assert operation["requestBody"]["required"] is not is_optional
            assert operation["requestBody"]["content"]

    def test_optional_request_bodies_are_documented(self) -> None:
        for name in MAY_LACK_A_BODY:
            assert OPERATIONS[name]["requestBody"]["required"] is False

    @each_operation
    def test_operation_documents_a_success_and_describes_all_responses(
        self, operation: dict[str, Any]
    ) -> None:
        assert any(status.startswith("2") for status in operation["responses"])
        for status, response in operation["responses"].items():
            assert response["description"]
            assert response["headers"]["X-Request-ID"]
            assert ("content" in response) == (status not in {"204", "304"})

    @each_operation
    def test_errors_are_problems(self, operation: dict[str, Any]) -> None:
        errors = {s: r for s, r in operation["responses"].items() if int(s) >= 400}

        assert {"400", "408", "413", "500", "503"} <= set(errors)
        for response in errors.values():
            assert list(response["content"]) == [MEDIA_TYPE]
            assert re.search(r"^- `[a-z-]+`: ", response["description"], re.MULTILINE)

    @each_operation
    def test_errors_document_their_headers(self, operation: dict[str, Any]) -> None:
        owed = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}
        for status, header in owed.items():
            response = operation["responses"].get(status)

            assert response is None or header in response["headers"]

    @each_operation
    def test_parameters_have_a_schema(self, operation: dict[str, Any]) -> None:
        for parameter in operation["parameters"]:
            assert parameter["schema"]
            if parameter["in"] == "path":
                assert parameter["required"] is True

    def test_admin_operations_document_forbidden(self) -> None:
        found = set()
        for endpoint, view in APP.view_functions.items():
            if audience_of(view) == "admin":
                operation = OPERATIONS[endpoint.partition(".")[2]]
                found.add(operation["operationId"])

                assert "`forbidden`" in operation["responses"]["403"]["description"]
        assert found >= {"list_users", "read_user", "change_user"}

    def test_operations_without_content_have_204_as_their_only_success(self) -> None:
        for name in ("log_out", "log_out_everywhere", "end_session", "change_password"):
            successes = [each for each in OPERATIONS[name]["responses"] if each.startswith("2")]

            assert successes == ["204"]

    def test_security_matches_the_guards(self) -> None:
        for rule in APP.url_map.iter_rules():
            for method in {"get", "post", "put", "patch", "delete"}:
                operation = DOCUMENT["paths"].get(path_of(rule.rule), {}).get(method)
                if operation is None or method.upper() not in (rule.methods or ()):
                    continue
                is_public = audience_of(APP.view_functions[rule.endpoint]) == "public"

                assert operation["security"] == ([] if is_public else [{BEARER: []}])
                assert is_public or "401" in operation["responses"]


class TestExamples:
    def test_document_has_examples(self) -> None:
        assert schemas_with_examples()

    def test_examples_match_their_schema(self) -> None:
        for schema in schemas_with_examples():
            for example in schema["examples"]:
                check_value(example, schema, DOCUMENT)

    @each_operation
    def test_body_of_examples_is_valid(self, operation: dict[str, Any]) -> None:
        content = operation.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        name = schema.get("$ref", "").rpartition("/")[2]
        schema = DOCUMENT["components"]["schemas"].get(name, schema)
        fields = schema.get("properties", {})

        body = {name: field["examples"][0] for name, field in fields.items() if "examples" in field}

        assert set(schema.get("required", [])) <= set(body)
        if schema:
            check_value(body, schema, DOCUMENT)


class TestHoldToDocument:
    """The response check under which the other tests of this folder run."""

    @pytest.fixture
    def app_with_secrets(self, tmp_path: Path) -> Quart:
        """Return an app for responses that its document does not describe."""
        app = app_without_database(tmp_path)
        hold_to_document(app)
        return app

    @pytest.mark.parametrize(
        ("status", "body", "media_type"),
        [
            (200, b'{"status": 7}', "application/json"),
            (200, b"{}", "application/json"),
            (200, b"alive", "text/plain"),
            (200, b"", "application/json"),
            (202, b'{"status": "alive"}', "application/json"),
            (404, b'{"status": "alive"}', "application/json"),
            (503, b'{"status": "alive"}', "application/json"),
        ],
    )
    async def test_undocumented_response_is_detected(
        self, app_with_secrets: Quart, status: int, body: bytes, media_type: str
    ) -> None:
        async def answer() -> tuple[bytes, int, dict[str, str]]:
            return body, status, {"Content-Type": media_type}

        app_with_secrets.view_functions["operations.check_liveness"] = answer

        with pytest.raises(AssertionError):
            await Caller(app_with_secrets).get("/livez")

    def test_validator_follows_references(self) -> None:
        schema = {"$ref": "#/components/schemas/Problem", "components": DOCUMENT["components"]}

        assert not OAS31Validator(schema).is_valid({"type": 5})
