"""Copies of errors: one for each request that shares a failed read."""

from copy import copy

from catalog.errors import Conflict
from catalog.errors.base import FieldError


def test_copy_is_equal() -> None:
    error = Conflict("taken", errors=[FieldError("pointer", "/name", "must be new")])

    copied = copy(error)

    assert (type(copied), copied.args) == (Conflict, ("taken",))
    assert (copied.detail, copied.errors) == (error.detail, error.errors)


def test_headers_and_members_of_a_copy_are_its_own() -> None:
    error = Conflict(headers={"Retry-After": "1"}, members={"owner": 7})
    copied = copy(error)

    copied.headers["Set-Cookie"] = "a=b"
    copied.members["owner"] = 8

    assert error.headers == {"Retry-After": "1"}
    assert error.members == {"owner": 7}
