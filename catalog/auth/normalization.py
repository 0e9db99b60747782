"""Which names are one name, and which are none: usernames and e-mail addresses; and passwords.

Uniqueness is decided by a unique index over the folded name, so that it does not depend on what
an engine's collation takes for equal.
"""

import unicodedata

import regex
from email_validator import EmailNotValidError, validate_email

from catalog.auth.models import MAX_EMAIL, MAX_PASSWORD, MAX_USERNAME
from catalog.normal_forms import MAX_MARKS, Form, is_stream_safe, normalize

MIN_USERNAME = 3

MAX_PASSWORD_CODE_POINTS = 4 * MAX_PASSWORD
"""Code points of a password as it is sent: no character of NFC is decomposed to more than four."""

_MAX_LOCAL_PART = 64
"""Octets before the @ (RFC 5321, section 4.5.3.1.1)."""

# Control, format (bidi and zero-width among them), surrogate, private, unassigned, line and
# paragraph separators.
_REFUSED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters by category, but drawn as nothing.
_INVISIBLE = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800", "\u034f", "\u17b4", "\u17b5"}

# Scripts that one name may hold side by side (UTS #39, section 5.2, "Highly Restrictive"), then
# each script of Unicode 16 by itself, by its code in ISO 15924.
_TOGETHER = ("Latn Hani Hira Kana", "Latn Hani Bopo", "Latn Hani Hang")
_ALONE = """
    Cyrl Grek Arab Hebr Deva Thai Armn Geor
    Adlm Aghb Ahom Armi Avst Bali Bamu Bass Batk Beng Bhks Brah Brai Bugi Buhd Cakm Cans Cari Cham
    Cher Chrs Copt Cpmn Cprt Diak Dogr Dsrt Dupl Egyp Elba Elym Ethi Gara Glag Gong Gonm Goth Gran
    Gujr Gukh Guru Hano Hatr Hluw Hmng Hmnp Hung Ital Java Kali Kawi Khar Khmr Khoj Kits Knda Krai
    Kthi Lana Laoo Lepc Limb Lina Linb Lisu Lyci Lydi Mahj Maka Mand Mani Marc Medf Mend Merc Mero
    Miao Mlym Modi Mong Mroo Mtei Mult Mymr Nagm Nand Narb Nbat Newa Nkoo Nshu Ogam Olck Onao Orkh
    Orya Osge Osma Ougr Palm Pauc Perm Phag Phli Phlp Phnx Prti Rjng Rohg Runr Samr Sarb Saur Sgnw
    Shaw Shrd Sidd Sind Sinh Sogd Sogo Sora Soyo Sund Sunu Sylo Syrc Tagb Takr Tale Talu Taml Tang
    Tavt Telu Tfng Tglg Thaa Tibt Tirh Tnsa Todr Toto Tutg Ugar Vaii Vith Wara Wcho Xpeo Xsux Yezi
    Yiii Zanb
"""


def _of_scripts(codes: str) -> str:
    # Zyyy, common to all, is what digits, punctuation and emoji are; Zinh, inherited from the
    # letter before, most accents. Script extensions (scx) say which scripts use a character,
    # where that is more than one but not all.
    sets = "".join(rf"\p{{scx={code}}}" for code in f"{codes} Zyyy Zinh".split())
    # Possessive: there is no point in giving characters back.
    return f"[{sets}]*+"


_ONE_WRITING_SYSTEM = regex.compile("|".join(map(_of_scripts, [*_TOGETHER, *_ALONE.split()])))


def fold(name: str) -> str:
    """The form under which names are compared: a compatibility caseless match.

    The Unicode Standard, section 3.13.5, D146, composed at the end to keep it short. Folding can
    undo the normal form and normalizing can bring capitals back, hence both twice.
    """
    forms: tuple[Form, ...] = ("NFD", "NFKD")
    for form in forms:
        name = normalize(form, name).casefold()
    return normalize("NFKC", name)


def composed(password: str) -> str:
    """The form in which passwords are compared and counted: NFC (RFC 8265, section 4.2.2).

    The same keys give different code points on different systems.
    """
    return normalize("NFC", password)


def check_marks(text: str) -> None:
    """Refuse text that stacks accents without end (UAX #15, Stream-Safe Text Format).

    Raises:
        ValueError: more than 30 marks follow one another.
    """
    if not is_stream_safe(text):
        raise ValueError(f"must not hold more than {MAX_MARKS} combining marks in a row")


def checked_username(name: str) -> str:
    """A username as it was given, if it may be one.

    Raises:
        ValueError: too short or long, also once folded; invisible or misleading characters; an
            ``@``, which tells an e-mail address from a username at sign-in; more than 30 marks
            in a row; letters of several scripts or digits of several number systems.
    """
    # Counted before anything is made of it.
    if not MIN_USERNAME <= len(name) <= MAX_USERNAME:
        raise ValueError(f"must have {MIN_USERNAME} to {MAX_USERNAME} characters")
    check_marks(name)
    folded = fold(name)
    if len(folded) > MAX_USERNAME:
        raise ValueError(f"must have {MIN_USERNAME} to {MAX_USERNAME} characters")
    if _is_misleading(name):
        raise ValueError("must not hold control, bidi, zero-width or other invisible characters")
    if folded != folded.strip() or "  " in folded:
        raise ValueError("must not begin or end with a space or hold two in a row")
    if len(folded) < MIN_USERNAME:
        raise ValueError(f"must have {MIN_USERNAME} to {MAX_USERNAME} characters")
    if "@" in folded:
        raise ValueError("must not hold an @")
    # The folded name is judged, so that all spellings of a name are judged alike. It hides
    # nothing: folding takes no letter into another script, but letters that are common to all
    # scripts as they are, such as the mathematical ones, into theirs.
    if not folded.isascii():
        if not _ONE_WRITING_SYSTEM.fullmatch(folded):
            raise ValueError("must not mix letters of several scripts, some of which look alike")
        if len(_number_systems(folded)) > 1:
            raise ValueError("must not mix digits of several number systems")
    return name


def _number_systems(text: str) -> set[int]:
    """The zeros of the decimal digits in a text, which tell their systems apart.

    UTS #39, section 5.3.
    """
    return {ord(each) - unicodedata.decimal(each) for each in text if each.isdecimal()}


def checked_email(address: str) -> str:
    """An e-mail address as it was given, if it is one (RFC 5321; nothing is looked up).

    It may mix scripts: nobody but its owner is shown it, and what it holds is up to the domain.

    Raises:
        ValueError: it is not, or it is longer than 120 characters, or has more than 30 marks in a
            row.
    """
    if len(address) > MAX_EMAIL:
        raise ValueError(f"must have at most {MAX_EMAIL} characters")
    check_marks(address)
    if len(fold(address)) > MAX_EMAIL:
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
