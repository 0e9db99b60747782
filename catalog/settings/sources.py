"""Sources of settings: environment variables, the files of secrets, and ``PORT``."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource

MAX_PORT = 65535

SECRET_FIELDS = (
    "database_url",
    "jwt_secret_key",
    "jwt_previous_secret_keys",
    "jwt_private_key",
    "jwt_previous_public_keys",
    "admin_password",
    "limits_url",
)
"""Fields that also read ``<NAME>_FILE``."""

_EXACT = {"jwt_secret_key", "admin_password"}
"""Secrets in which a blank counts, so that one at an end is refused instead of cut."""

_OF_LINES = {"jwt_previous_secret_keys", "jwt_private_key", "jwt_previous_public_keys"}

# A byte order mark is no blank to Python.
_BLANKS = "\ufeff"

# C0, DEL and C1 (ISO 6429): editors and terminals do not show them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Placeholder for a value that cannot be used, until validation reports it."""

    message: str


class Variables(EnvSettingsSource):
    """Settings source that reads environment variables, without blanks around them."""

    def __call__(self) -> dict[str, Any]:
        """Return the values that are set; a blank one is not."""
        names = {_key(name, field): name for name, field in _fields(self.settings_cls)}
        values = super().__call__()
        cleaned = {key: clean(names.get(key, key), str(value)) for key, value in values.items()}
        return {key: value for key, value in cleaned.items() if value is not None}


class SecretFiles(PydanticBaseSettingsSource):
    """Settings source that reads secrets from the files that ``<NAME>_FILE`` variables name.

    Not the library's ``secrets_dir``: that one expects all files in one folder, strips blanks from
    passwords, ignores a missing file, and lets a variable win over a file silently.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of a field, or None, and the field's name."""
        name = variable_of(field_name, field)
        path = os.environ.get(f"{name}_FILE", "").strip()
        if not path or field_name not in SECRET_FIELDS:
            return None, field_name, False
        if os.environ.get(name):
            fault = Unreadable(f"and {name}_FILE are both set; keep one")
            return fault, field_name, False
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            fault = Unreadable(f"cannot be read from {name}_FILE: {reason}")
            return fault, field_name, False
        return clean(field_name, text), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values that were found."""
        found = {}
        for field_name, field in _fields(self.settings_cls):
            value, _, _ = self.get_field_value(field, field_name)
            if value is not None:
                found[_key(field_name, field)] = value
        return found


class AssignedPort(PydanticBaseSettingsSource):
    """Settings source that reads ``PORT``, by which platforms such as Cloud Run assign a port.

    They route to all addresses of the container, so the service listens on all of them.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 (the library's signature)
        """Return the address to listen on, or None, and the field's name."""
        port = clean(field_name, os.environ.get("PORT", ""))
        if not port or field_name != "bind":
            return None, field_name, False
        if not re.fullmatch("[0-9]{1,5}", str(port)) or int(str(port)) > MAX_PORT:
            fault = f"cannot be taken from PORT, which must be a number from 0 to {MAX_PORT}"
            return Unreadable(fault), field_name, False
        return f"0.0.0.0:{port}", field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the address to listen on, if it is set so."""
        value, name, _ = self.get_field_value(self.settings_cls.model_fields["bind"], "bind")
        return {name: value} if value is not None else {}


def clean(field_name: str, text: str) -> str | Unreadable | None:
    """Return a value without the blanks and line ends around it; None if nothing is left.

    Editors, ``echo`` and files with CRLF leave them there, and no setting has any at its ends.
    """
    value = text.strip(_BLANKS).strip("\r\n")
    if field_name in _EXACT:
        if value.strip() and value != value.strip():
            return Unreadable("begins or ends with a blank; remove it")
    else:
        value = value.strip().strip(_BLANKS)
        if field_name not in _OF_LINES and _CONTROL.search(value):
            return Unreadable("contains a line break or another control character")
    return value if value.strip() else None


def variable_of(field_name: str, field: FieldInfo) -> str:
    """Return the environment variable of a field."""
    return str(field.validation_alias or f"CATALOG_{field_name.upper()}")


def _key(field_name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or field_name)


def _fields(settings_cls: Any) -> list[tuple[str, FieldInfo]]:
    return list(settings_cls.model_fields.items())
