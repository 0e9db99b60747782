"""Which names are one name, and which are none: usernames and e-mail addresses; and passwords.

Uniqueness is decided by a unique index over the folded name, so that it does not depend on what
an engine's collation takes for equal.
"""

import unicodedata

from email_validator import EmailNotValidError, validate_email

from catalog.auth.models import MAX_EMAIL, MAX_USERNAME

MIN_USERNAME = 3

_MAX_LOCAL_PART = 64
"""Octets before the @ (RFC 5321, section 4.5.3.1.1)."""

# Control, format (bidi and zero-width among them), surrogate, private, unassigned, line and
# paragraph separators.
_REFUSED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters by category, but drawn as nothing.
_INVISIBLE = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800", "\u034f", "\u17b4", "\u17b5"}


def fold(name: str) -> str:
    """The form under which names are compared: a compatibility caseless match.

    The Unicode Standard, section 3.13.5, D146, composed at the end to keep it short. Folding can
    undo the normal form and normalizing can bring capitals back, hence both twice.
    """
    for form in ("NFD", "NFKD"):
        name = unicodedata.normalize(form, name).casefold()
    return unicodedata.normalize("NFKC", name)


def composed(password: str) -> str:
    """The form in which passwords are compared and counted: NFC (RFC 8265, section 4.2.2).

    The same keys give different code points on different systems.
    """
    return unicodedata.normalize("NFC", password)


def checked_username(name: str) -> str:
    """A username as it was given, if it may be one.

    Raises:
        ValueError: too short or long, also once folded; invisible or misleading characters; an
            ``@``, which tells an e-mail address from a username at sign-in.
    """
    if not MIN_USERNAME <= len(name) <= MAX_USERNAME or len(fold(name)) > MAX_USERNAME:
        raise ValueError(f"must have {MIN_USERNAME} to {MAX_USERNAME} characters")
    if _is_misleading(name):
        raise ValueError("must not hold control, bidi, zero-width or other invisible characters")
    if fold(name) != fold(name).strip() or "  " in fold(name):
        raise ValueError("must not begin or end with a space or hold two in a row")
    if len(fold(name)) < MIN_USERNAME:
        raise ValueError(f"must have {MIN_USERNAME} to {MAX_USERNAME} characters")
    if "@" in fold(name):
        raise ValueError("must not hold an @")
    return name


def checked_email(address: str) -> str:
    """An e-mail address as it was given, if it is one (RFC 5321; nothing is looked up).

    Raises:
        ValueError: it is not, or it is longer than 120 characters.
    """
    if len(address) > MAX_EMAIL or len(fold(address)) > MAX_EMAIL:
        raise ValueError(f"must have at most {MAX_EMAIL} characters")
    if _is_misleading(address):
        raise ValueError("must not hold control, bidi, zero-width or other invisible characters")
    if len(address.rpartition("@")[0].encode()) > _MAX_LOCAL_PART:
        raise ValueError(f"must have at most {_MAX_LOCAL_PART} octets before the @")
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError("is not an e-mail address") from error
    return address


def _is_misleading(text: str) -> bool:
    return any(
        unicodedata.category(character) in _REFUSED_CATEGORIES
        or character in _INVISIBLE
        or "\ufe00" <= character <= "\ufe0f"
        for character in text
    )
