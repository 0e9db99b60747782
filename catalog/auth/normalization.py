"""Normalization and validation of usernames, e-mail addresses and passwords.

A unique index over the folded name decides uniqueness, so that it does not depend on an engine's
collation.
"""

import unicodedata

import email_validator
import regex
from email_validator import EmailNotValidError, validate_email

from catalog.auth.models import MAX_EMAIL, MAX_PASSWORD, MAX_USERNAME
from catalog.normal_forms import MAX_MARKS, Form, is_stream_safe, normalize

# The library refuses special-use domains (RFC 6761) unless they are taken from its list.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

MIN_USERNAME = 2

MAX_PASSWORD_CODE_POINTS = 4 * MAX_PASSWORD
"""Code points of a password as sent: a character of NFC decomposes to at most four."""

_MISLEADING = "must not contain control, bidi, zero-width or other invisible characters"

_MAX_LOCAL_PART = 64
"""Octets before the @ (RFC 5321, section 4.5.3.1.1)."""

# Control, format (bidi and zero-width among them), surrogate, private, unassigned, line and
# paragraph separators.
_REFUSED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Not refused by category, but rendered as nothing.
_INVISIBLE = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800", "\u034f", "\u17b4", "\u17b5"}

# RFC 5892, appendix A.1 and A.2: after a virama either joiner, and between letters of a cursive
# script the non-joiner. Elsewhere they are invisible.
_JOINERS = "\u200c\u200d"
_NEEDED_JOINER = regex.compile(
    r"(?<=\p{ccc=9})[\u200c\u200d]"
    r"|(?<=[\p{jt=L}\p{jt=D}]\p{jt=T}*)\u200c(?=\p{jt=T}*+[\p{jt=R}\p{jt=D}])"
)
_WITHOUT_JOINERS = str.maketrans("", "", _JOINERS)

# Scripts that one name may combine (UTS #39, section 5.2, "Highly Restrictive"), then each script
# of Unicode 16 alone, by ISO 15924 code.
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
    # Zyyy (common) covers digits, punctuation and emoji; Zinh (inherited from the letter before)
    # most accents. Script extensions (scx) list the scripts that use a character, where they are
    # more than one but not all.
    sets = "".join(rf"\p{{scx={code}}}" for code in f"{codes} Zyyy Zinh".split())
    # Possessive, because backtracking cannot help.
    return f"[{sets}]*+"


_ONE_WRITING_SYSTEM = regex.compile("|".join(map(_of_scripts, [*_TOGETHER, *_ALONE.split()])))


def fold(name: str) -> str:
    """Return the form in which names are compared: a compatibility caseless match.

    The Unicode Standard, section 3.13.5, D146, composed at the end to keep it short. Case folding
    can undo the normal form and normalization can restore capitals, hence both twice. Joiners do
    not count, because many fonts do not show them.
    """
    name = name.translate(_WITHOUT_JOINERS)
    forms: tuple[Form, ...] = ("NFD", "NFKD")
    for form in forms:
        name = normalize(form, name).casefold()
    return normalize("NFKC", name)


def composed(password: str) -> str:
    """Return a password in NFC, in which passwords are compared and counted.

    RFC 8265, section 4.2.2: the same keys produce different code points on different systems.
    """
    return normalize("NFC", password)


def check_marks(text: str) -> None:
    """Refuse text with too many combining marks in a row (UAX #15, Stream-Safe Text Format).

    Raises:
        ValueError: there are more than 30 marks in a row.
    """
    if not is_stream_safe(text):
        raise ValueError(f"must not contain more than {MAX_MARKS} combining marks in a row")


def checked_username(name: str) -> str:
    """Validate a username and return it unchanged.

    Raises:
        ValueError: too short or long, also once folded; invisible or misleading characters; an
            ``@``, which distinguishes e-mail addresses from usernames at sign-in; more than 30
            marks in a row; letters of several scripts or digits of several number systems.
    """
    # The length first, because it bounds the work of the other checks.
    if not MIN_USERNAME <= len(name) <= MAX_USERNAME:
        raise ValueError(f"must have {MIN_USERNAME} to {MAX_USERNAME} characters")
    check_marks(name)
    folded = fold(name)
    if len(folded) > MAX_USERNAME:
        raise ValueError(f"must have {MIN_USERNAME} to {MAX_USERNAME} characters")
    if _is_misleading(name):
        raise ValueError(_MISLEADING)
    if folded != folded.strip() or "  " in folded:
        raise ValueError("must not begin or end with a space or contain two in a row")
    if len(folded) < MIN_USERNAME:
        raise ValueError(f"must have {MIN_USERNAME} to {MAX_USERNAME} characters")
    if "@" in folded:
        raise ValueError("must not contain an @")
    # Checked on the folded name, so that all spellings of a name get the same result. This hides
    # nothing: folding moves no letter to another script, except that it moves letters common to
    # all scripts, such as the mathematical ones, to their own.
    if not folded.isascii():
        if not _ONE_WRITING_SYSTEM.fullmatch(folded):
            raise ValueError("must not mix letters of several scripts, some of which look alike")
        if len(_number_systems(folded)) > 1:
            raise ValueError("must not mix digits of several number systems")
    return name


def _number_systems(text: str) -> set[int]:
    """Return the code points of the zeros of a text's number systems, which identify them.

    UTS #39, section 5.3.
    """
    return {ord(each) - unicodedata.decimal(each) for each in text if each.isdecimal()}


def checked_email(address: str) -> str:
    """Validate an e-mail address and return it unchanged (RFC 5321; without look-ups).

    It may mix scripts: it is not shown to other users, and its domain decides what it may contain.
    Since no mail is sent, special-use domains (RFC 6761) such as ``.local`` are as good as others.

    Raises:
        ValueError: it is no e-mail address, is longer than 120 characters, or has more than 30
            marks in a row.
    """
    if len(address) > MAX_EMAIL:
        raise ValueError(f"must have at most {MAX_EMAIL} characters")
    check_marks(address)
    if len(fold(address)) > MAX_EMAIL:
        raise ValueError(f"must have at most {MAX_EMAIL} characters")
    if _is_misleading(address):
        raise ValueError(_MISLEADING)
    if len(address.rpartition("@")[0].encode()) > _MAX_LOCAL_PART:
        raise ValueError(f"must have at most {_MAX_LOCAL_PART} octets before the @")
    try:
        domain = validate_email(
            address, check_deliverability=False, globally_deliverable=False
        ).ascii_domain
    except EmailNotValidError as error:
        raise ValueError("is not an e-mail address") from error
    if not ("." in domain or domain.lower() == "localhost") or not domain[-1].isalpha():
        raise ValueError("is not an e-mail address")
    return address


def _is_misleading(text: str) -> bool:
    if not text.isascii() and any(joiner in text for joiner in _JOINERS):
        text = _NEEDED_JOINER.sub("", normalize("NFC", text))
    return any(
        unicodedata.category(character) in _REFUSED_CATEGORIES
        or character in _INVISIBLE
        or "\ufe00" <= character <= "\ufe0f"
        for character in text
    )
