"""JSON shapes of ``/api/auth``."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from catalog.auth.models import MAX_EMAIL, MAX_PASSWORD, MAX_USERNAME
from catalog.auth.names import MIN_USERNAME, checked_email, checked_username, composed
from catalog.http.schemas import WITHOUT_NUL_PATTERN, Id, RequestBody, ResponseBody, WithoutNul

MAX_LOGIN_NAME = 256
"""Longer than any username or address, so that a name too long is unknown and not invalid."""


Username = Annotated[
    str, Field(min_length=MIN_USERNAME, max_length=MAX_USERNAME), AfterValidator(checked_username)
]
Email = Annotated[str, Field(max_length=MAX_EMAIL), AfterValidator(checked_email)]


def _composed(password: object) -> object:
    # Before anything is counted: what one system sends as é another sends as e and an accent.
    return composed(password) if isinstance(password, str) else password


Password = Annotated[str, BeforeValidator(_composed), Field(max_length=MAX_PASSWORD), WithoutNul]


class SignUp(RequestBody):
    """A new account."""

    username: Username = Field(
        description="Unique without regard to case, width and Unicode form. Neither @ nor "
        "invisible characters; no space at its ends; letters of one script.",
        examples=["ada"],
    )
    email: Email = Field(
        description="Unique without regard to case; nothing is sent to it.",
        examples=["ada@example.com"],
        json_schema_extra={"format": "email"},
    )
    password: Password = Field(
        description="At least 8 characters unless the operator asks for more.",
        examples=["correct horse battery staple"],
        json_schema_extra={
            "format": "password",
            "minLength": 8,
            "pattern": WITHOUT_NUL_PATTERN,
        },
    )


class LogIn(RequestBody):
    """Credentials."""

    username: Annotated[str, Field(max_length=MAX_LOGIN_NAME), WithoutNul] = Field(
        description="The username or the e-mail address.",
        examples=["ada"],
        json_schema_extra={"pattern": WITHOUT_NUL_PATTERN},
    )
    password: Password = Field(
        examples=["correct horse battery staple"],
        json_schema_extra={"format": "password", "pattern": WITHOUT_NUL_PATTERN},
    )


class RefreshOptions(RequestBody):
    """What a refresh may ask for; nothing yet."""


class UserRead(ResponseBody):
    """An account as its owner sees it."""

    id: Id
    username: str
    email: str
    role: str = Field(examples=["user", "admin"])


class SignedUp(ResponseBody):
    """The new account, signed in."""

    id: Id
    username: str
    email: str
    access_token: str
    refresh_token: str


class SignedIn(ResponseBody):
    """Tokens and whose they are."""

    access_token: str
    refresh_token: str
    user: UserRead


class Refreshed(ResponseBody):
    """A new access token."""

    access_token: str
