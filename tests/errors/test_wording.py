"""Wording of validation errors: each that a schema can raise names the field and its rule."""

import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import catalog.app  # noqa: F401 (imports every schema)
from catalog.errors import FieldError
from catalog.errors.wording import RULES, broken_rule
from catalog.http.replies.problems import field_errors
from catalog.http.schemas import QueryParameters, RequestBody
from catalog.settings import Settings

# Values of every type and at every bound of a field.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2.5, -2.5, 10**40, 1e300, float("nan"), float("inf")),
    *(
        "",
        " ",
        "a",
        "ab",
        "a" * 5000,
        "a" * 70_000,
        "\0",
        "a\0b",
        "\ud800",
        "x@",
        "@",
        "a@b.example",
    ),
    *(
        "5",
        "-5",
        "5.5",
        "0x5",
        "1_0",
        "9" * 30,
        "9" * 5000,
        "true",
        "yes",
        "nan",
        "5,6",
        "5,x",
        "5,,6",
    ),
    *(
        "id",
        "-id",
        "nope",
        "off",
        "on",
        "2026-11-23",
        "2026-13-45T00:00:00Z",
        "2026-11-23T09:30:00",
    ),
    *("2026-11-23T09:30:00Z", "1970-01-01T00:00:00Z", "e" + "\u0301" * 40, "paypa\u04cf", "٣5"),
    *([], ["5"], ["5", "x"], ["id"], ["nope"], [None], ["5"] * 1000, {}, {"a": 1}, [[]]),
]

JARGON = re.compile(
    r"input|pydantic|instance|dictionary|value error|parse|unable|type=|valid (?:string|number|int"
    r"|bool|list|tuple)|[A-Z][a-z]+[A-Z]|None|True|False|NoneType|\bstr\b|\bint\b|float|tuple|enum",
)


def schemas_below(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for schema in base.__subclasses__():
        yield schema
        yield from schemas_below(schema)


SCHEMAS = [*schemas_below(RequestBody), *schemas_below(QueryParameters)]


def inputs_for(schema: type[BaseModel]) -> Iterator[Any]:
    """Yield inputs with one field out of order at a time, and others than objects."""
    in_query = issubclass(schema, QueryParameters)
    if not in_query:
        yield from (None, [], "text", 5, True, [{}])
    yield from ({}, {"nope": "1"}, {"a/b~c": "1"}, {"": "1"})
    for field in schema.model_fields:
        for value in VALUES:
            # All parameters arrive as text.
            if isinstance(value, str) or not in_query:
                yield {field: value}


def errors_of(schema: type[BaseModel], given: Any) -> tuple[list[Any], list[FieldError]]:
    """Return pydantic's errors and ours."""
    try:
        schema.model_validate(given)
    except ValidationError as error:
        in_query = issubclass(schema, QueryParameters)
        return list(error.errors()), list(field_errors(error, in_query=in_query))
    return [], []


class TestSchemas:
    def test_schemas_of_every_feature_are_found(self) -> None:
        names = {schema.__name__ for schema in SCHEMAS}

        assert {"ProductCreate", "SignUp", "ListQuery", "BulkQuery", "UserChange"} <= names

    @pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
    def test_every_error_is_worded_by_field_and_rule(self, schema: type[BaseModel]) -> None:
        worded = 0
        for given in inputs_for(schema):
            for foreign, ours in zip(*errors_of(schema, given), strict=True):
                assert foreign["type"] in {*RULES, "value_error"}, foreign
                name = str(foreign["loc"][0]) if foreign["loc"] else "The "
                assert ours.message.startswith(name[:20]), ours
                assert ours.message.endswith("."), ours
                assert not JARGON.search(ours.rule), ours
                worded += 1
        assert worded

    @pytest.mark.parametrize(
        ("schema", "field", "size"), [("LogIn", "username", 257), ("LogIn", "password", 129)]
    )
    def test_length_of_a_text_is_counted_in_characters(
        self, schema: str, field: str, size: int
    ) -> None:
        (found,) = (each for each in SCHEMAS if each.__name__ == schema)
        errors = {error.name: error for error in errors_of(found, {field: "a" * size})[1]}

        expected = f"{field} must have at most {size - 1} characters."
        assert errors[f"/{field}"].message == expected

    @pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
    def test_text_has_no_items(self, schema: type[BaseModel]) -> None:
        if issubclass(schema, QueryParameters):
            return  # A list is a text there.
        for given in inputs_for(schema):
            for foreign, ours in zip(*errors_of(schema, given), strict=True):
                assert not (isinstance(foreign["input"], str) and "items" in ours.rule), ours

    def test_missing_field_is_named(self) -> None:
        (schema,) = (each for each in SCHEMAS if each.__name__ == "ProductCreate")

        assert [error.message for error in errors_of(schema, {})[1]] == [
            "name is missing.",
            "price is missing.",
        ]
        assert [error.message for error in errors_of(schema, [])[1]] == [
            "The body must be a JSON object."
        ]

    def test_item_of_a_list_is_named_by_its_number(self) -> None:
        (schema,) = (each for each in SCHEMAS if each.__name__ == "ListQuery")
        (error,) = errors_of(schema, {"ids": "5,x"})[1]

        assert error.message == "ids has an item (number 2) that must be a whole number."

    def test_bound_is_written_in_digits(self) -> None:
        (schema,) = (each for each in SCHEMAS if each.__name__ == "ProductCreate")
        (error,) = errors_of(schema, {"name": "Lamp", "price": 1e300})[1]

        assert error.message == "price must be at most 1000000000000."


class TestOtherErrors:
    def test_unforeseen_error_gets_a_plain_sentence(self) -> None:
        class Odd(BaseModel):
            amount: Decimal
            at: datetime
            choice: type[int]

        with pytest.raises(ValidationError) as refused:
            Odd.model_validate({"amount": {}, "at": "yesterday", "choice": str})

        rules = [broken_rule(error) for error in refused.value.errors()]
        assert rules == ["is not valid", RULES["datetime_parsing"], "is not valid"]

    def test_pointer_is_shown_as_the_name_that_was_sent(self) -> None:
        error = FieldError("pointer", "/a~1b~0c", "is not a known field")

        assert error.message == "a/b~c is not a known field."


class TestSettings:
    def test_every_error_of_a_setting_is_worded(self) -> None:
        for field in Settings.model_fields:
            for value in VALUES:
                try:
                    Settings(**{field: value})
                except ValidationError as refused:
                    for error in refused.errors():
                        if isinstance(value, str):  # As variables and options are.
                            assert error["type"] in {*RULES, "value_error"}, error
                        rule = broken_rule(error)
                        assert not JARGON.search(rule.replace("floating", "")), (field, rule)
                        assert rule.startswith(("must ", "is ", "has ", "takes ", "cannot ")), rule
