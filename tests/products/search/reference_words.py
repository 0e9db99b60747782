"""Reference tokenizer: words found step by step, to compare the fast ``tokenizer.py`` with.

Tokens of products that are stored already must not change, or a search no longer finds them.
"""

import unicodedata

import regex

MAX_LENGTH = 77

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

IGNORED = regex.compile(
    r"[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640"
    r"\u064b-\u065f\u0670\u06d6-\u06dc\u00ad\u200c\u200d\u2060\ufeff\u20d0-\u20ff"
    r"\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
)
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]"
RUNS = regex.compile(
    rf"[[\p{{L}}\p{{N}}]--{UNSPACED}][[\p{{L}}\p{{M}}\p{{N}}]--{UNSPACED}]*"
    rf"|[{UNSPACED}&&[\p{{L}}\p{{M}}\p{{N}}]]+",
    regex.VERSION1,
)
BEGINS_UNSPACED = regex.compile(UNSPACED, regex.VERSION1)
LATIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ħ": "h"}
    | {"\u0131": "i"}
)


def reference_text_of(text: str) -> str:
    """Return the words of a text, each once, with a space and the mark before every one."""
    words = dict.fromkeys(word for run in RUNS.findall(_folded(text)) for word in _words(run))
    return "".join(f" _{word}" for word in words)


def reference_terms_of(q: str) -> tuple[str, ...]:
    """Return the terms of a search."""
    found: list[str] = []
    for run in RUNS.findall(_folded(q)):
        words = _words(run)
        found += words[:-1] if len(words) > 1 else words
    return tuple(f"_{word}" for word in dict.fromkeys(found))


def _folded(text: str) -> str:
    bare = IGNORED.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFKC", bare.casefold().translate(LATIN))


def _words(run: str) -> list[str]:
    if not BEGINS_UNSPACED.match(run):
        return [_encoded(run)]
    return [_encoded(run[at : at + 2]) for at in range(len(run))]


def _encoded(word: str) -> str:
    encoded = ""
    for character in word:
        code = _code(character)
        if len(encoded) + len(code) > MAX_LENGTH:
            break
        encoded += code
    return encoded


def _code(character: str) -> str:
    if character.isascii():
        return "qq" if character == "q" else character
    number, code = ord(character), ""
    for _ in range(4):
        number, digit = divmod(number, 36)
        code = DIGITS[digit] + code
    return f"q{code}"
