"""Values of ``Accept`` and the media type of ``GET /api/products`` for each, cached or not.

The tests of every hop share this table.
"""

from typing import NamedTuple

from catalog.http.replies.negotiation import CSV, JSON, NDJSON


class AcceptCase(NamedTuple):
    """A value of ``Accept`` and the media type that it selects.

    Attributes:
        accept: the value, in one field line.
        media_type: of the response; None if it is 406 (RFC 9110, section 15.5.7).
    """

    accept: str
    media_type: str | None

    @property
    def status(self) -> int:
        return 200 if self.media_type else 406


_LONG = "a" * 200

ACCEPT_CASES: tuple[AcceptCase, ...] = tuple(
    AcceptCase(accept, media_type)
    for media_type, values in {
        JSON: (
            "",
            "   ",
            ",",
            ", ,",
            "*/*",
            "application/*",
            "application/json",
            "APPLICATION/JSON",
            "Application/Json; Charset=UTF-8",
            "application/json;charset=utf-8",
            "application/json;q=1",
            "application/json;q=1.000",
            "application/json;q=0.001",
            "application/json ; q=0.5",
            "application/json\t;\tq=0.5",
            ",application/json,",
            "text/html, application/json;q=0.1",
            "text/html,application/json",
            "text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8",
            "image/png, */*",
            "xapplication/json, */*",
            "text/csv;q=0.1, */*",
            "text/csv, application/json",
            "application/json;q=0.5, text/csv;q=0.4",
            "application/json, application/x-ndjson;q=0.9",
            'application/json;profile="a,b;q=0"',
            'application/json;profile="a\\",text/csv"',
            "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
            "application/problem+json",
            "application/problem+json, */*;q=0",
            "application/problem+json, */*",
            f"{_LONG}/{_LONG}, application/json",
        ),
        NDJSON: (
            "application/x-ndjson",
            "application/x-ndjson, */*;q=0.1",
            "application/x-ndjson, application/problem+json",
            "application/json;q=0, */*",
            "application/json;q=0.000, application/*",
            "application/json;q=0.1, application/x-ndjson;q=0.2",
        ),
        CSV: (
            "text/csv",
            "text/*",
            "TEXT/CSV; charset=utf-8",
            "text/csv, */*",
            "text/csv;q=high",
            "application/*;q=0, */*",
            "application/json;q=0.5, text/csv;q=0.6",
            "text/csv, application/problem+json",
        ),
        None: (
            "text/html",
            "text/html, image/png",
            "image/*",
            "foo/*/*",
            "*/*/*",
            "*/json",
            "*",
            "application",
            "application/",
            "/json",
            "json",
            "xapplication/json",
            "application/jsonx",
            "application/jsonp",
            "application/json-seq",
            "application/json/x",
            "application /json",
            "application/ json",
            "vnd.application/json",
            "text/application/json",
            "image/png;application/json",
            "image/png; application/json",
            "image/png;x=application/json",
            "image/png;x=*/*",
            "image/png;*/*",
            ";application/json",
            'image/png;x="application/json"',
            'image/png;x="a,application/json,b"',
            'image/png;x="a, */*',
            'image/png;x="\\",application/json,"',
            '"application/json"',
            "xapplication/*",
            "application/*x",
            "x*/*",
            "*/*x",
            "application/json;q=0",
            "application/json; q=0.0",
            "application/json;q=0.000",
            "application/json ;q=0",
            "application/json;charset=utf-8;q=0",
            "application/json; q=0.0, text/html",
            "application/problem+json;q=0",
            "application/json;q=0, application/problem+json",
            "*/*;q=0",
            "*/*; q=0.0",
            "image/png application/json",
            f"{_LONG}/{_LONG}",
        ),
    }.items()
    for accept in values
)
"""Cases for the tests of every hop."""
