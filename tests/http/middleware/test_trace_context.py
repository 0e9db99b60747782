"""Parsing of ``traceparent`` according to W3C Trace Context."""

import pytest

from catalog.http.middleware.trace_context import trace_id_of

TRACE, PARENT = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"


class TestTraceIdOf:
    @pytest.mark.parametrize(
        "value",
        [
            b"00-%b-%b-01" % (TRACE, PARENT),
            b"00-%b-%b-00" % (TRACE, PARENT),
            b"00-%b-%b-ff" % (TRACE, PARENT),
            b"01-%b-%b-01" % (TRACE, PARENT),
            b"cc-%b-%b-01-what-the-future-will-be-like" % (TRACE, PARENT),
        ],
        ids=repr,
    )
    def test_valid_header_yields_the_trace_id(self, value: bytes) -> None:
        assert trace_id_of(value) == TRACE.decode()

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"nonsense",
            b"ff-%b-%b-01" % (TRACE, PARENT),
            b"00-%b-%b-01" % (b"0" * 32, PARENT),
            b"00-%b-%b-01" % (TRACE, b"0" * 16),
            b"00-%b-%b-01" % (TRACE.upper(), PARENT),
            b"00-%b-%b-01-more" % (TRACE, PARENT),
            b"00-%b-%b-01-" % (TRACE, PARENT),
            b"01-%b-%b-01.more" % (TRACE, PARENT),
            b"00-%b-%b" % (TRACE, PARENT),
            b"00-%b-%b-1" % (TRACE, PARENT),
            b"00-%b-%b-01" % (TRACE[:-1], PARENT),
            b"00-%b-%b-01" % (TRACE, PARENT + b"0"),
            b"00-%b-%b-01\n" % (TRACE, PARENT),
            b"00-%b-%b-\xff\xff" % (TRACE, PARENT),
        ],
        ids=repr,
    )
    def test_invalid_header_yields_none(self, value: bytes) -> None:
        assert trace_id_of(value) is None
