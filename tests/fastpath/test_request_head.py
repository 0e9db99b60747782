"""Targets of requests: origin-form and absolute-form mean the same."""

import h11
import pytest

from catalog.errors import HeadersTooLarge, MalformedRequest, UriTooLong
from catalog.fastpath.request_head import MAX_FIELDS, MAX_HEAD_BYTES, check_size, head_of


def request(target: bytes, host: bytes = b"catalog") -> h11.Request:
    return h11.Request(method=b"GET", target=target, headers=[(b"Host", host), (b"Accept", b"*/*")])


class TestHeadOf:
    @pytest.mark.parametrize(
        ("target", "host", "path"),
        [
            (b"/api/products?q=%zz", b"catalog", b"/api/products?q=%zz"),
            (b"//other/api", b"catalog", b"//other/api"),
            (b"http://other/api/products?limit=1", b"other", b"/api/products?limit=1"),
            (b"HTTPS://other:8000/livez", b"other:8000", b"/livez"),
            (b"http://[::1]:80/livez", b"[::1]:80", b"/livez"),
            (b"http://other", b"other", b"/"),
            (b"http://other?q=1", b"other", b"/?q=1"),
        ],
    )
    def test_target_is_read_in_origin_form(self, target: bytes, host: bytes, path: bytes) -> None:
        head = head_of(request(target))

        assert head.target == path
        assert [value for name, value in head.headers if name == b"host"] == [host]
        assert (b"accept", b"*/*") in head.headers

    @pytest.mark.parametrize(
        "target",
        [
            *(b"*", b"livez", b"?q=1", b"catalog:80", b"http:/livez", b"http:///livez"),
            *(b"http://user@other/", b"http://other:x/", b"http://o ther/".replace(b" ", b"<")),
            *(b"/%", b"/%0", b"/%zz", b"/a%00b", b"http://other/%zz"),
        ],
    )
    def test_other_target_is_refused(self, target: bytes) -> None:
        with pytest.raises(MalformedRequest):
            head_of(request(target))

    @pytest.mark.parametrize(
        "host",
        [
            *(
                b"catalog",
                b"catalog:8000",
                b"catalog:",
                b"Shop.example.com",
                b"a_b",
                b"xn--bcher-kva",
            ),
            *(b"127.0.0.1:80", b"[::1]", b"[2001:DB8::1]:443", b"%2Frun%2Fcatalog.sock"),
        ],
    )
    def test_host_is_a_name_or_an_address(self, host: bytes) -> None:
        assert (b"host", host) in head_of(request(b"/livez", host)).headers

    @pytest.mark.parametrize(
        "host",
        [
            *(b"", b"a b", b"a\tb", b"a,b c", b"a/b", b"http://a", b"u@a", b"a?b", b"a#b", b"a:x"),
            *(b":80", b"a:80:80", b"::1", b"[::1", b"[::1]x", b'"a"', b"a\\b", b"b\xfccher"),
        ],
    )
    @pytest.mark.parametrize("target", [b"/livez", b"http://other/livez"])
    def test_other_host_is_refused(self, host: bytes, target: bytes) -> None:
        with pytest.raises(MalformedRequest):
            head_of(request(target, host))


class TestCheckSize:
    LINE = b"GET / HTTP/1.1\r\n"

    @pytest.mark.parametrize("end", [b"\r\n", b"\n"])
    def test_fields_of_a_head_are_counted_to_its_end(self, end: bytes) -> None:
        most = self.LINE + (b"a:" + end) * MAX_FIELDS
        for head in (most, most + end, most + end + b"x\n" * 5000):
            check_size(head)
        for head in (most + b"a:" + end, most + b"a:" + end + end):
            with pytest.raises(HeadersTooLarge):
                check_size(head)

    @pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"])
    def test_bytes_of_a_head_are_counted_to_its_end(self, end: bytes) -> None:
        begin = self.LINE + b"a:"
        most = begin + b" " * (MAX_HEAD_BYTES - len(begin + end))
        for head in (most, most + end, most + end + b"x" * 100_000):
            check_size(head)
        for head in (most + b" " + end, most + b" " * (len(end) + 1)):
            with pytest.raises(HeadersTooLarge):
                check_size(head)

    def test_request_line_without_end_is_too_long(self) -> None:
        with pytest.raises(UriTooLong):
            check_size(b"GET /" + b"a" * MAX_HEAD_BYTES)
