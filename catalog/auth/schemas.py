"""Request and response bodies of ``/api/auth``."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from catalog.auth.models import (
    MAX_EMAIL,
    MAX_KEY_NAME,
    MAX_PASSWORD,
    MAX_USERNAME,
    Role,
    Scope,
)
from catalog.auth.normalization import (
    MAX_PASSWORD_CODE_POINTS,
    MIN_USERNAME,
    checked_email,
    checked_username,
    composed,
)
from catalog.http.schemas import (
    TIME,
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


def _stripped(name: object) -> object:
    # Keyboards of telephones put a blank behind a completed word.
    return name.strip() if isinstance(name, str) else name


_SHOWN: dict[str, JsonValue] = {"format": "password", "pattern": WITHOUT_NUL_PATTERN}

# The bound stands before the validator that runs first: behind it, pydantic would count items.
Password = Annotated[
    str,
    Field(max_length=MAX_PASSWORD, json_schema_extra=_SHOWN),
    BeforeValidator(_composed),
    WithoutNul,
]

# The minimum length is a setting, which the service checks.
NewPassword = Annotated[Password, Field(json_schema_extra={**_SHOWN, "minLength": 8})]

AccessToken = Annotated[
    str,
    Field(
        description="For `Authorization: Bearer`; lives for minutes.",
        examples=["eyJhbGciOiJFZERTQSJ9.eyJ0eXBlIjoiYWNjZXNzIn0.dXRB3Vh1bzU"],
    ),
]
RefreshToken = Annotated[
    str,
    Field(
        description="Gets new access tokens; lives for days.",
        examples=["eyJhbGciOiJFZERTQSJ9.eyJ0eXBlIjoicmVmcmVzaCJ9.S1ZGblE3Zm5k"],
    ),
]


class SignUp(RequestBody):
    """A new account."""

    username: Username = Field(
        description="Unique regardless of case, width and Unicode form. Contains no @, no "
        "invisible characters, no leading or trailing space, and letters of one script only.",
        examples=["grace"],
    )
    email: Email = Field(
        description="Unique regardless of case; no mail is sent to it.",
        examples=["grace@example.com"],
    )
    password: NewPassword = Field(
        description="At least 8 characters, or more if the service is configured so.",
        examples=["correct horse battery staple"],
    )


class LogIn(RequestBody):
    """Credentials."""

    username: Annotated[
        str, Field(max_length=MAX_LOGIN_NAME), BeforeValidator(_stripped), WithoutNul
    ] = Field(
        description="The username or the e-mail address. Blanks around it do not count.",
        examples=["ada"],
        json_schema_extra={"pattern": WITHOUT_NUL_PATTERN},
    )
    password: Password = Field(examples=["correct horse battery staple"])


class RefreshOptions(RequestBody):
    """Options of a refresh."""

    # A factory, so that the OpenAPI document does not show the default: generators of clients take
    # a field with a default for one that is always sent.
    rotate: bool = Field(
        default_factory=bool,
        examples=[True],
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

    email: Email = Field(examples=["ada@example.org"])


class AccountDeletion(RequestBody):
    """The password, so that a token alone deletes nothing."""

    password: Password = Field(examples=["correct horse battery staple"])


_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(\.\d+)?(Z|[+-]\d{2}:\d{2})", re.ASCII | re.IGNORECASE
)


def _instant(value: object) -> object:
    if not isinstance(value, str):
        return value
    fault = "must be a time such as 2036-01-31T12:00:00Z"
    match = _RFC3339.fullmatch(value)
    if match is None:
        raise ValueError(fault)
    time, fraction, zone = match.groups("")
    try:
        # Microseconds are kept; what is beyond them is cut.
        return datetime.fromisoformat((time + fraction[:7] + zone).upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(fault) from None


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


class KeyCreate(RequestBody):
    """A new API key."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=MAX_KEY_NAME),
        AfterValidator(_not_blank),
        WithoutNul,
    ] = Field(
        description="What it is for.",
        examples=["nightly import"],
        json_schema_extra={"pattern": WITHOUT_NUL_PATTERN},
    )
    scope: Scope = Field(
        strict=False,  # JSON has no enumerations; any other text is still refused.
        description="`read`, or `write` for both.",
        examples=["write"],
    )
    expires_at: Annotated[datetime, BeforeValidator(_instant)] | None = Field(
        default_factory=lambda: None,
        description="When it ends by itself (RFC 3339, with an offset); never if null or absent.",
        examples=["2036-01-31T12:00:00Z"],
    )


class UserChange(RequestBody):
    """Changes that an administrator may make to an account; omitted fields stay as they are."""

    # The defaults never apply: only fields that were sent are read. They are factories, so that
    # the OpenAPI document does not show them.
    role: Role = Field(
        default_factory=lambda: Role.USER,
        strict=False,  # JSON has no enumerations; any other text is still refused.
        examples=["admin"],
    )
    disabled: bool = Field(
        default_factory=bool,
        description="A disabled account is signed out and cannot sign in.",
        examples=[False],
    )


class UserRead(ResponseBody):
    """An account as its owner sees it."""

    id: Id = Field(examples=[2])
    username: str = Field(examples=["ada"])
    email: str = Field(examples=["ada@example.com"])
    role: str = Field(description="`user` or `admin`.", examples=["user", "admin"])


class AccountRead(UserRead):
    """An account with its history."""

    disabled: bool = Field(examples=[False])
    created_at: Instant = Field(examples=[TIME])


class UserPage(ResponseBody):
    """Accounts, the newest first."""

    users: list[AccountRead]
    next: str | None = Field(
        description="The relative URL of the next page, or null at the end.",
        examples=["/api/users?cursor=0XQ5oTq0bUIvWYcH2Kc3_1sx&limit=1"],
    )
    next_cursor: str | None = Field(
        description="The `cursor` of the next page, or null at the end.",
        examples=["0XQ5oTq0bUIvWYcH2Kc3_1sx"],
    )


class SessionRead(ResponseBody):
    """A live session."""

    id: Id = Field(examples=[1])
    created_at: Instant = Field(examples=[TIME])
    last_used_at: Instant = Field(
        description="Last use of its refresh token, to the minute.", examples=[TIME]
    )
    expires_at: Instant = Field(
        description="Expiry, unless the refresh token is rotated before.",
        examples=["2026-12-23T09:30:00.000000Z"],
    )
    address: str = Field(description="Client address of the log-in.", examples=["192.0.2.7"])
    agent: str = Field(description="`User-Agent` of the log-in.", examples=["curl/8.14.1"])
    current: bool = Field(description="Whether it is the session of this request.", examples=[True])


class SessionList(ResponseBody):
    """The caller's live sessions, the last used one first."""

    sessions: list[SessionRead]


class KeyRead(ResponseBody):
    """An API key as its owner sees it."""

    id: Id = Field(examples=[1])
    name: str = Field(examples=["nightly import"])
    prefix: str = Field(description="The beginning of the key.", examples=["ck_9dKq3f"])
    scope: str = Field(examples=["write"])
    created_at: Instant = Field(examples=[TIME])
    last_used_at: Instant | None = Field(
        description="Last use, to some ten minutes; or null.", examples=[None]
    )
    expires_at: Instant | None = Field(
        description="When it ends by itself; or null.", examples=["2036-01-31T12:00:00.000000Z"]
    )


class KeyCreated(KeyRead):
    """A new API key, with the key itself, which no other response contains."""

    key: str = Field(
        description="Send it as `Authorization: Bearer`.",
        examples=["ck_9dKq3fYb7Xw0Rz5Tn2Vh8Lp4Jm6Gc1Sa3De5Fo7Ui9QyWk0ZNBA"],
    )


class KeyList(ResponseBody):
    """The caller's API keys, newest first."""

    keys: list[KeyRead]


class SignedUp(ResponseBody):
    """The new account, signed in."""

    id: Id = Field(examples=[3])
    username: str = Field(examples=["grace"])
    email: str = Field(examples=["grace@example.com"])
    access_token: AccessToken
    refresh_token: RefreshToken


class SignedIn(ResponseBody):
    """Tokens and their account."""

    access_token: AccessToken
    refresh_token: RefreshToken
    user: UserRead


class Refreshed(ResponseBody):
    """A new access token and, with `rotate`, a new refresh token."""

    access_token: AccessToken
    refresh_token: RefreshToken | SkipJsonSchema[None] = Field(
        default_factory=lambda: None, description="Only with `rotate`."
    )
