"""Product schemas: accepted values, refused values, and the fields at fault."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from catalog.http.pagination import MAX_CURSOR_LENGTH
from catalog.products.schemas import ListQuery, ProductCreate

VALID: dict[str, Any] = {"name": "Lamp", "price": 9.5}


def places_of(shape: type[ProductCreate | ListQuery], data: object) -> list[str]:
    """Return the paths of the fields that a schema refuses."""
    with pytest.raises(ValidationError) as refused:
        shape.model_validate(data)
    return [".".join(map(str, fault["loc"])) for fault in refused.value.errors()]


class TestProductCreate:
    def test_name_and_price_suffice(self) -> None:
        product = ProductCreate.model_validate(VALID)

        assert product.model_dump() == {
            "name": "Lamp",
            "price": 9.5,
            "description": None,
            "key": None,
        }

    @pytest.mark.parametrize(
        "name", ["x", " x ", "x" * 512, "\U0001f600" * 512, "\u200b", "\ufeff"]
    )
    def test_name_is_kept_unchanged(self, name: str) -> None:
        assert ProductCreate.model_validate({**VALID, "name": name}).name == name

    @pytest.mark.parametrize(
        "name",
        ["", " ", "\t", "\u00a0\u3000", "\x1c\x1f", "x" * 513, "nul\0", "\0", 5, None, True, ["x"]],
        ids=lambda name: ascii(name)[:12],
    )
    def test_blank_too_long_or_non_text_name_is_refused(self, name: object) -> None:
        assert places_of(ProductCreate, {**VALID, "name": name}) == ["name"]

    @pytest.mark.parametrize("description", [None, "", " ", "x" * 16_383, "\U0001f600" * 16_383])
    def test_description_may_be_missing_empty_or_long(self, description: str | None) -> None:
        product = ProductCreate.model_validate({**VALID, "description": description})

        assert product.description == description

    @pytest.mark.parametrize("description", ["x" * 16_384, "nul\0", 5, False, {}])
    def test_too_long_or_non_text_description_is_refused(self, description: object) -> None:
        assert places_of(ProductCreate, {**VALID, "description": description}) == ["description"]

    @pytest.mark.parametrize("price", [0, 0.0, 1, 5e-324, 0.1, 1e12, 10**12])
    def test_price_is_a_double_from_0_to_1e12(self, price: float) -> None:
        found = ProductCreate.model_validate({**VALID, "price": price}).price

        assert (type(found), found) == (float, price)

    @pytest.mark.parametrize("price", [-0.0, 0.0])
    def test_zero_price_has_no_sign(self, price: float) -> None:
        found = ProductCreate.model_validate({**VALID, "price": price}).price

        assert math.copysign(1, found) == 1

    @pytest.mark.parametrize(
        "price",
        [
            -1,
            -5e-324,
            1e12 + 1,
            10**12 + 1,
            10**400,
            math.inf,
            -math.inf,
            math.nan,
            "9.5",
            True,
            None,
        ],
        ids=lambda price: str(price)[:12],
    )
    def test_price_out_of_range_or_not_a_number_is_refused(self, price: object) -> None:
        assert places_of(ProductCreate, {**VALID, "price": price}) == ["price"]

    @pytest.mark.parametrize(
        "field", ["id", "user_id", "version", "created_at", "Name", "is_admin"]
    )
    def test_unknown_field_is_refused_by_name(self, field: str) -> None:
        assert places_of(ProductCreate, {**VALID, field: 1}) == [field]

    def test_all_errors_are_reported_together(self) -> None:
        assert places_of(ProductCreate, {"price": "x", "size": 1}) == ["name", "price", "size"]

    @pytest.mark.parametrize("body", [None, [], "Lamp", 5])
    def test_body_that_is_no_object_is_refused(self, body: object) -> None:
        assert places_of(ProductCreate, body) == [""]


class TestListQuery:
    def test_defaults_apply_to_an_empty_query(self) -> None:
        query = ListQuery.model_validate({})

        assert (query.limit, query.sort, query.total) == (100, "-id", False)
        assert (query.bom, query.guard) == (False, True)
        others = query.model_dump(exclude={"limit", "sort", "total", "bom", "guard"})
        assert set(others.values()) == {None}

    @pytest.mark.parametrize(("text", "limit"), [("1", 1), ("100", 100), ("1000", 1000)])
    def test_limit_is_parsed_from_digits(self, text: str, limit: int) -> None:
        assert ListQuery.model_validate({"limit": text}).limit == limit

    @pytest.mark.parametrize(
        "text",
        [
            "0",
            "1001",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "1e2",
            "1_0",
            "\uff11",
            "\u0661",
            "",
            "9" * 99,
        ],
    )
    def test_limit_out_of_range_or_not_in_digits_is_refused(self, text: str) -> None:
        assert places_of(ListQuery, {"limit": text}) == ["limit"]

    @pytest.mark.parametrize(
        ("text", "bound"),
        [
            ("0", 0),
            ("12.50", 12.5),
            ("-0", 0),
            ("1e3", 1000),
            ("2E-1", 0.2),
            ("1000000000000", 1e12),
        ],
    )
    def test_bound_of_the_price_is_a_json_number(self, text: str, bound: float) -> None:
        query = ListQuery.model_validate({"min_price": text, "max_price": text})

        assert (query.min_price, query.max_price) == (bound, bound)

    @pytest.mark.parametrize(
        "text",
        [
            *("", "-", "+1", ".5", "1.", "01", "1e", "1e+", "1_0", " 1", "1 ", "0x1", "1XX"),
            *("nan", "inf", "\u0661", "-1", "-1e-9", "1000000000000.1", "1e13", "1e999"),
            "0." + "1" * 39,
        ],
    )
    def test_bound_that_is_no_json_number_or_no_price_is_refused(self, text: str) -> None:
        assert places_of(ListQuery, {"min_price": text}) == ["min_price"]
        assert places_of(ListQuery, {"max_price": text}) == ["max_price"]

    def test_cursor_length_is_bounded(self) -> None:
        longest = "A" * MAX_CURSOR_LENGTH

        assert ListQuery.model_validate({"cursor": longest}).cursor == longest
        assert places_of(ListQuery, {"cursor": f"{longest}A"}) == ["cursor"]
