"""Character encodings of imported texts, decoded piece by piece."""

import codecs

_WINDOWS_1252 = "cp1252"

CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("utf-16", "utf-16le"), "utf-16-le"),
    "utf-16be": "utf-16-be",
    "us-ascii": "ascii",
    # Texts labelled ISO 8859-1 are written in its superset windows-1252 (WHATWG Encoding Standard,
    # section 4.2), which has the euro sign and typographic quotes.
    **dict.fromkeys(("iso-8859-1", "latin1", "windows-1252", "cp1252"), _WINDOWS_1252),
    **{f"iso-8859-{part}": f"iso8859-{part}" for part in (*range(2, 12), *range(13, 17))},
    **{f"windows-{page}": f"cp{page}" for page in (874, *range(1250, 1259)) if page != 1252},
    **{f"ibm{page}": f"cp{page}" for page in (437, 850, 852, 858, 866)},
    **{name: name for name in ("koi8-r", "koi8-u", "gbk", "gb18030", "big5", "euc-jp", "euc-kr")},
    **dict.fromkeys(("shift_jis", "shift-jis", "windows-31j"), "cp932"),
    **dict.fromkeys(("macintosh", "x-mac-roman"), "mac-roman"),
}
"""Python's codec of each charset that an import may be declared in.

All of them are stateless between characters, and decode a piece of 64 KiB in about a millisecond.
"""

CHECKED_BYTES = 64 * 1024
"""Bytes that are checked before anything is written, so that a text in another encoding than the
declared one is refused as a whole."""

_BYTE_ORDER_MARKS = (
    # First, because it begins with the mark of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MARK_BYTES = 4


class TextDecoder:
    """Incremental decoder of one text, which says where the text leaves its encoding.

    A byte order mark wins over the declared charset (WHATWG Encoding Standard, section 6), and is
    skipped.

    Args:
        codec: one of the codecs in ``CHARSETS``.

    Attributes:
        codec: the codec in use.
        invalid_at: the number of bytes before the first one that the encoding does not have; None
            while there is none.
    """

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self.invalid_at: int | None = None
        self._start: bytes | None = b""
        self._decoder = codecs.getincrementaldecoder(codec)()
        # Bytes before those that the decoder still holds back.
        self._decoded = 0
        self._held = 0

    def decode(self, piece: bytes, *, is_last: bool) -> tuple[str, str]:
        """Decode the next piece.

        Returns:
            the valid text; and the text from the first invalid byte of all pieces on, of which
            nothing but the line breaks is right.
        """
        if self._start is not None:
            self._start += piece
            if len(self._start) < _MARK_BYTES and not is_last:
                return "", ""
            piece, self._start = self._without_mark(self._start), None
        if self.invalid_at is not None:
            return "", self._decoder.decode(piece, is_last)
        size = self._held + len(piece)
        try:
            text = self._decoder.decode(piece, is_last)
        except UnicodeDecodeError as error:
            data = bytes(error.object)
            self.invalid_at = self._decoded + size - len(data) + error.start
            # Decoding with replacements is slow. All encodings but these have the line breaks of
            # ASCII, also inside of characters of several bytes.
            is_wide = self.codec.startswith(("utf-16", "utf-32"))
            codec = self.codec if is_wide else "latin-1"
            self._decoder = codecs.getincrementaldecoder(codec)("replace")
            rest = self._decoder.decode(data[error.start :], is_last)
            return data[: error.start].decode(self.codec), rest
        self._held = len(self._decoder.getstate()[0])
        self._decoded += size - self._held
        return text, ""

    def _without_mark(self, start: bytes) -> bytes:
        for mark, codec in _BYTE_ORDER_MARKS:
            if start.startswith(mark):
                self.codec = codec
                self._decoder = codecs.getincrementaldecoder(codec)()
                self._decoded = len(mark)
                return start[len(mark) :]
        return start
