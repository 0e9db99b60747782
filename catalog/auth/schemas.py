"""Request and response bodies of ``/api/auth``."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from catalog.auth.models import MAX_EMAIL, MAX_PASSWORD, MAX_USERNAME, Role
from catalog.auth.normalization import (
    MAX_PASSWORD_CODE_POINTS,
    MIN_USERNAME,
    checked_email,
    checked_username,
    composed,
)
from catalog.http.schemas import (
    WITHOUT_NUL_PATTERN,
    Id,
    Instant,
    RequestBody,
    ResponseBody,
    WithoutNul,
)

MAX_LOGIN_NAME = 256
"""More than any username or address has: an overlong name is unknown rather than invalid."""


Username = Annotated[
    str, Field(min_length=MIN_USERNAME, max_length=MAX_USERNAME), AfterValidator(checked_username)
]
Email = Annotated[
    str,
    Field(max_length=MAX_EMAIL, json_schema_extra={"format": "email"}),
    AfterValidator(checked_email),
]


def _composed(password: object) -> object:
    # Before characters are counted: what one system sends as é another sends as e and an accent.
    # Skipped for text that is too long in any case.
    if isinstance(password, str) and len(password) <= MAX_PASSWORD_CODE_POINTS:
        return composed(password)
    return password


_SHOWN: dict[str, JsonValue] = {"format": "password", "pattern": WITHOUT_NUL_PATTERN}

Password = Annotated[
    str,
    BeforeValidator(_composed),
    Field(max_length=MAX_PASSWORD, json_schema_extra=_SHOWN),
    WithoutNul,
]

# The minimum length is a setting, which the service checks.
NewPassword = Annotated[Password, Field(json_schema_extra={**_SHOWN, "minLength": 8})]


class SignUp(RequestBody):
    """A new account."""

    username: Username = Field(
        description="Unique regardless of case, width and Unicode form. Contains no @, no "
        "invisible characters, no leading or trailing space, and letters of one script only.",
        examples=["ada"],
    )
    email: Email = Field(
        description="Unique regardless of case; no mail is sent to it.",
        examples=["ada@example.com"],
    )
    password: NewPassword = Field(
        description="At least 8 characters, or more if the service is configured so.",
        examples=["correct horse battery staple"],
    )


class LogIn(RequestBody):
    """Credentials."""

    username: Annotated[str, Field(max_length=MAX_LOGIN_NAME), WithoutNul] = Field(
        description="The username or the e-mail address.",
        examples=["ada"],
        json_schema_extra={"pattern": WITHOUT_NUL_PATTERN},
    )
    password: Password = Field(examples=["correct horse battery staple"])


class RefreshOptions(RequestBody):
    """Options of a refresh."""

    rotate: bool = Field(
        default=False,
        description="Also replace the refresh token with a successor. Reusing the old token within "
        "30 seconds returns the same successor; reusing it later ends the session.",
    )


class PasswordChange(RequestBody):
    """Another password for the account that is signed in."""

    current_password: Password = Field(examples=["correct horse battery staple"])
    new_password: NewPassword = Field(
        description="The same rules as at sign-up.", examples=["staple battery horse correct"]
    )


class AccountChange(RequestBody):
    """Changes that an account's owner may make to it."""

    email: Email = Field(examples=["ada@example.com"])


class AccountDeletion(RequestBody):
    """The password, so that a token alone deletes nothing."""

    password: Password = Field(examples=["correct horse battery staple"])


class UserChange(RequestBody):
    """Changes that an administrator may make to an account; omitted fields stay as they are."""

    # The defaults never apply: only fields that were sent are read. They are factories, so that
    # the OpenAPI document does not show them.
    role: Role = Field(
        default_factory=lambda: Role.USER,
        strict=False,  # JSON has no enumerations; any other text is still refused.
    )
    disabled: bool = Field(
        default_factory=bool, description="A disabled account is signed out and cannot sign in."
    )


class UserRead(ResponseBody):
    """An account as its owner sees it."""

    id: Id
    username: str
    email: str
    role: str = Field(examples=["user", "admin"])


class AccountRead(UserRead):
    """An account with its history."""

    disabled: bool
    created_at: Instant


class UserPage(ResponseBody):
    """Accounts, the newest first."""

    users: list[AccountRead]
    next: str | None = Field(description="The relative URL of the next page, or null at the end.")


class SessionRead(ResponseBody):
    """A live session."""

    id: Id
    created_at: Instant
    last_used_at: Instant = Field(description="Last use of its refresh token, to the minute.")
    expires_at: Instant = Field(description="Expiry, unless the refresh token is rotated before.")
    address: str = Field(description="Client address of the log-in.")
    agent: str = Field(description="`User-Agent` of the log-in.")
    current: bool = Field(description="Whether it is the session of this request.")


class SessionList(ResponseBody):
    """The caller's live sessions, the last used one first."""

    sessions: list[SessionRead]


class SignedUp(ResponseBody):
    """The new account, signed in."""

    id: Id
    username: str
    email: str
    access_token: str
    refresh_token: str


class SignedIn(ResponseBody):
    """Tokens and their account."""

    access_token: str
    refresh_token: str
    user: UserRead


class Refreshed(ResponseBody):
    """A new access token and, when it was asked to rotate, a new refresh token."""

    access_token: str
    refresh_token: str | SkipJsonSchema[None] = Field(default_factory=lambda: None)
