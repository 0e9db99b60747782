"""The secret that signs tokens: from the settings, or generated once and kept on disk."""

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from catalog.errors import StartFailed
from catalog.settings import MIN_SECRET_BYTES, Settings


def signing_secret(settings: Settings) -> str:
    """Return the secret from the settings or, in development, one generated once and kept on disk.

    If several processes generate one concurrently, all return the one that was written first.

    Raises:
        StartFailed: the kept secret cannot be read or written.
    """
    secret = existing_secret(settings)
    if secret is not None:
        return secret
    path = _kept_at(settings)
    try:
        _keep(path, token_hex(MIN_SECRET_BYTES))
    except OSError as error:
        raise StartFailed(f"The signing key cannot be written to {path}: {error}.") from None
    return _kept_secret(path)


def existing_secret(settings: Settings) -> str | None:
    """Return the secret from the settings, or the one kept on disk if there is one already.

    Raises:
        StartFailed: the kept secret cannot be read.
    """
    if settings.jwt_secret_key is not None:
        return settings.jwt_secret_key.get_secret_value()
    path = _kept_at(settings)
    return _kept_secret(path) if path.exists() else None


def _kept_at(settings: Settings) -> Path:
    return settings.data_dir / "jwt_secret_key"


def _kept_secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartFailed(f"The signing key cannot be read from {path}: {error}.") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise StartFailed(f"The signing key in {path} is too short; delete the file.")
    return secret


def _keep(path: Path, secret: str) -> None:
    """Write a secret atomically, readable by this user only, unless the file exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
    try:
        # A link, unlike a rename, never replaces a file that another process wrote first.
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
