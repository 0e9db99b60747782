"""Random requests, valid, invalid and hostile; reproducible by seed.

Values known only from earlier answers (ids, cursors, tags, tokens) differ between engines. Requests
name them by references such as ``<<product:7>>``, which the sender resolves.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote, urlencode

from tests.support import PASSWORD

PATH = "/api/products"
JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"

WORDS = (
    *("desk", "Desk", "DESKS", "lamp", "the", "q", "24", "LED", "x86-64", "don't", "a_b", "C++"),
    *("stra\u00dfe", "STRASSE", "stra\u1e9ee", "\u0130stanbul", "istanbul", "\u0131s\u0131k"),
    *("caf\u00e9", "cafe\u0301", "cafe", "na\u00efve", "\u00c5ngstr\u00f6m"),
    *("A\u030angstro\u0308m", "\u212bngstr\u00f6m", "\ufb01ne", "fine"),
    *("\uff24\uff45\uff53\uff4b", "\uff11\uff12", "\u2460", "\u6771\u4eac\u90fd", "\u6771\u4eac"),
    *("\u4e2d\u6587\u5b57", "\u30ab\u30e1\u30e9", "\uff76\uff92\uff97"),
    *("\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", "\ud55c\uad6d\uc5b4"),
    *("\u1112\u1161\u11ab\u1100\u116e\u11a8", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd"),
    *("\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f", "\ufdfa"),
    *("\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03c3", "\u03c2", "\u0439", "\u0438\u0306"),
    *("\u043c\u043e\u0441\u043a\u0432\u0430", "\u0915\u094d\u0937", "\u0915\u094d\u200d\u0937"),
    *("\U0001d54f", "\U00020000\U0002a6d6", "\U0001f600", "\U0001f603"),
    *("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f", "\u2764"),
    *("\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "\u2603", "%", "_", "\\", "'", '"', "*"),
    *("+-", "@", "a" * 80, "ab\u0301\u0327\u0323", "\u00bd", "\u2126", "\u03a9", "\u01c5"),
    *("\u0149", "\u1e9b\u0323"),
)
"""Normal forms, widths, cases, scripts with and without spaces, joiners, emoji, signs."""

HOSTILE = (
    *("", " ", "\t", "\n", "\u00a0", "\u3000", "\u200b", "\u2028", "\u0085", "\ufeff"),
    *("\u202eabc", "\0", "a\0b", "\ud800", "\udfff\ud800", "\uffff", "\U0010ffff", "\ue000"),
    *("\u0301", "\u200d", "=1+1", "@SUM(A1)", "-1", "'; DROP TABLE products; --", "<script>"),
    *("%s%n", "{{7*7}}", "${x}", "a" * 512, "a" * 513, "\u00e9" * 512, "\U0001f600" * 512),
    *("\U0001f600" * 513, "e" + "\u0301" * 31),
)
"""White space, control characters, non-characters, markup and injection, lengths at the bounds."""

PRICES = (
    *("0", "-0", "-0.0", "0.0", "5e-324", "2.2250738585072014e-308", "1e-7", "0.1"),
    *("0.30000000000000004", "9.99", "9.990000000000000001", "131072.07", "16777217", "1e12"),
    *("999999999999.9999", "1E+3", "123456789012.34567", "4503599627370497.5e-4", "1e11", "100"),
    *("1e2", "100.0", "1000000000000.0001", "1000000000001", "1e13", "1.7976931348623157e308"),
    *("1e309", "-1", "-5e-324", "NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x10"),
    *("1_000", '"5"', "true", "null", "[]", "{}", "9" * 400, "1e-400", "1e400"),
)
"""JSON literals and malformed ones."""

NUMBERS = (
    *("0", "1", "-1", "2", "9223372036854775807", "9223372036854775808", "18446744073709551616"),
    *("01", "+1", "1.0", "1e2", " 1", "1 ", "\uff11", "\u0661", "", "abc", "0x1", "1_0"),
    "9" * 60,
)
"""Values in the place of an id or a limit."""

NAMES = (
    *("ada", "zo\u00eb", "stra\u00dfe", "\u03c3\u03af\u03c3\u03c5", "\u043c\u0438\u0448\u0430"),
    *("\u5f20\u4f1f\u4e3d", "jos\u00e9"),
)
FIELDS = (
    *("id", "name", "description", "price", "user_id", "version", "created_at", "updated_at"),
)
MEDIA_TYPES = (
    *("text/plain", "application/json; charset=latin-1", "application/JSON; charset=UTF-8", ""),
    *("application/merge-patch+json", "text/json", "application/xml", JSON, NDJSON, CSV),
)
ACCEPTED = (
    *("text/html", "*/*", "application/*;q=0.5", "image/png", "application/problem+json"),
    *("application/json;q=0", "text/csv, application/json;q=0.1", ";;", NDJSON),
)
SINCES = (
    *("<<change:0>>", "<<change:1>>", "<<change:5>>", "<<change:30>>", "<<change:0>>x", "-1"),
    *("9223372036854775807", "9223372036854775808", "1.", "1.x", "\uff11"),
)
USER_CHANGES: Sequence[dict[str, str]] = (
    *({"role": '"admin"'}, {"role": '"user"'}, {"disabled": "true"}, {"disabled": "false"}, {}),
    *({"role": '"root"'}, {"disabled": "1"}, {"role": "null"}),
    {"role": '"user"', "disabled": "false"},
)
PATHS = (
    *(PATH, f"{PATH}/", f"{PATH}/my", f"{PATH}/<<product:1>>", f"{PATH}/changes", "/api", "/"),
    *("/livez", "/readyz", "/api/auth/login", "/api/auth/me", "/api/users", "/api/products/1/2"),
    *("/API/products", "//api/products", "/api/products/%31", "/api/products/%00", "/api/%ff"),
    *("/openapi.json", "/docs", "/problems/not-found", "/problems/x", "/.well-known/jwks.json"),
    *("/api/products%2fmy", "/../etc"),
)
METHODS = (
    *("GET", "GET", "GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"),
    "get",
)
CREDENTIALS = (
    *("Bearer <<access:ada>>", "bearer <<access:bob>>", "Bearer <<access:ada>>=", ""),
    *("Bearer <<access:ada>>x", "Bearer <<refresh:ada>>", "Bearer", "Bearer  ", "Basic YTpi"),
    *("<<access:ada>>", "Bearer a.b.c", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."),
    "Bearer <<access:ada>>, Bearer x",
)
CALLERS = ("ada", "bob", "grace", "last")


@dataclass(frozen=True, slots=True)
class Request:
    """A request with unresolved references.

    Attributes:
        method: in capitals, most of the time.
        path: with the query.
        caller: account whose access token is sent; no token if empty.
        headers: further header fields.
        body: bytes of the body; None without one.
    """

    method: str
    path: str
    caller: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


def path_of(product: str) -> str:
    """Return the path of a product, given its id or a reference to it."""
    return f"{PATH}/{quote(product, safe='<>:')}"


class Generator:
    """Generator of random requests.

    Args:
        seed: equal seeds yield equal requests.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 (nothing is kept secret by it)
        self._made = 0

    def requests(self, count: int) -> list[Request]:
        """Return ``count`` requests; the first ones populate the catalog."""
        kinds: Sequence[tuple[Callable[[], Request], int]] = (
            (self.create, 16),
            (self.create_under_a_key, 6),
            (self.import_products, 7),
            (self.change, 9),
            (self.delete, 5),
            (self.read, 7),
            (self.list_products, 20),
            (self.follow, 6),
            (self.export, 3),
            (self.list_changes, 5),
            (self.sign_up, 5),
            (self.log_in, 2),
            (self.use_account, 5),
            (self.administer, 3),
            (self.stray, 6),
        )
        makers, weights = zip(*kinds, strict=True)
        first = [self.create() for _ in range(min(20, count))]
        others = self.random.choices(makers, weights, k=count - len(first))
        return first + [make() for make in others]

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def text(self) -> str:
        """Return some words, or a hostile text."""
        if self.chance(0.15):
            return self.random.choice(HOSTILE)
        if self.chance(0.1):
            points = (self.random.choice((0x80, 0x800, 0x3000, 0x110000)) for _ in range(6))
            return "".join(chr(self.random.randrange(point)) for point in points)
        words = self.random.choices(WORDS, k=self.random.randint(1, 4))
        text = self.random.choice((" ", " ", "  ", "-", "\n", "")).join(words)
        if self.chance(0.2):
            text = self.random.choice((" {}", "{} ", "{}\n", "{}\u00a0", "{}\u3000")).format(text)
        if self.chance(0.1):
            text = unicodedata.normalize(self.random.choice(("NFC", "NFD", "NFKC", "NFKD")), text)
        return text

    def price(self) -> str:
        """Return a price literal."""
        if self.chance(0.3):
            # The first 21 are valid.
            return PRICES[self.random.randrange(21)]
        if self.chance(0.15):
            return self.random.choice(PRICES)
        return repr(math.ldexp(self.random.random(), self.random.randint(-60, 39)))

    def id(self, kind: str = "product") -> str:
        """Return a reference to an id, or a value that is no id of anything."""
        if self.chance(0.12):
            return self.random.choice(NUMBERS)
        return f"<<{kind}:{self.random.randrange(10_000)}>>"

    def caller(self) -> str:
        return self.random.choices(("ada", "bob", "grace", "last", ""), (10, 6, 2, 2, 1))[0]

    def written(self, value: object) -> str:
        return json.dumps(value, ensure_ascii=self.chance(0.3))

    def product(self) -> str:
        """Return a product in JSON, usually a valid one."""
        members = {"name": self.written(self.text()), "price": self.price()}
        if self.chance(0.5):
            members["description"] = "null" if self.chance(0.2) else self.written(self.text())
        return self.object_of(members)

    def object_of(self, members: dict[str, str]) -> str:
        """Return literals as a JSON object, occasionally a malformed one."""
        pairs = [f'"{name}": {value}' for name, value in members.items()]
        if self.chance(0.06) and pairs:
            fault = self.random.randrange(5)
            if fault == 0:
                pairs.pop(self.random.randrange(len(pairs)))
            elif fault == 1:
                pairs.append(self.random.choice(pairs))
            elif fault == 2:
                pairs.append(
                    self.random.choice(('"is_admin": true', '"id": 7', '"": 1', '"n": {}'))
                )
            elif fault == 3:
                name = self.random.choice(list(members))
                value = self.random.choice(
                    ("1", "true", "[]", "{}", "null", '"x"', "[" * 40 + "]" * 40)
                )
                pairs[list(members).index(name)] = f'"{name}": {value}'
            else:
                pairs.insert(0, '"price": 1, "name": 2')
        return "{" + ", ".join(pairs) + "}"

    def bytes_of(self, text: str) -> bytes:
        """Encode a body, occasionally not in UTF-8 or truncated."""
        body = text.encode("utf-8", "surrogatepass")
        if not self.chance(0.05):
            return body
        at = self.random.randint(0, len(body))
        return self.random.choice(
            (
                b"\xef\xbb\xbf" + body,
                body[:at],
                body[:at]
                + self.random.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0"))
                + body[at:],
                text.encode("utf-16", "surrogatepass"),
                body + b" x",
                b"",
                b"[]",
                b"null",
            )
        )

    def headers(self, media_type: str = JSON) -> dict[str, str]:
        if self.chance(0.05):
            media_type = self.random.choice(MEDIA_TYPES)
        headers = {"Content-Type": media_type} if media_type else {}
        if self.chance(0.05):
            headers["Accept"] = self.random.choice(ACCEPTED)
        if self.chance(0.02):
            headers["X-Request-ID"] = self.random.choice(("a b", "x" * 129, "a.b_c-d", "\u00e9"))
        return headers

    def create(self) -> Request:
        body = self.bytes_of(self.product())
        return Request("POST", PATH, self.caller(), self.headers(), body)

    def create_under_a_key(self) -> Request:
        """Create under one of a few keys, with one of a few contents."""
        key = self.random.choice(("a", "b", "A", "a ", '"a"', "k" * 255))
        if self.chance(0.3):
            key = f"key-{self.random.randrange(100)}"
        if self.chance(0.06):
            key = self.random.choice(("k" * 256, "\u00e9", " "))
        name = self.random.choice(("one", "One", "one ", "\uff4fne", "\U0001f600", "\U0001f603"))
        body = self.object_of(
            {"name": json.dumps(name), "price": self.random.choice(("1", "1.0", "2"))}
        )
        headers = {**self.headers(), "Idempotency-Key": key}
        return Request("POST", PATH, self.caller(), headers, self.bytes_of(body))

    def import_products(self) -> Request:
        """Import several products in one of the bulk formats."""
        query = self.random.choice(("", "", "?atomic=true", "?dry_run=true", "?atomic=1&x=2"))
        count = self.random.randint(0, 8)
        if self.chance(0.5):
            ends = self.random.choice(("\n", "\n", "\r\n", "\n\n"))
            body = "".join(f"{self.product()}{ends}" for _ in range(count))
            return Request(
                "POST", f"{PATH}{query}", self.caller(), self.headers(NDJSON), self.bytes_of(body)
            )
        lines = [
            self.random.choice(
                ("name,price,description", "price,name", "name,price,x", "Name,Price")
            )
        ]
        for _ in range(count):
            cells = [self.text(), self.price(), self.text()][: self.random.choice((3, 3, 2, 1))]
            quoted = ['"{}"'.format(cell.replace('"', '""')) for cell in cells]
            if self.chance(0.1):
                quoted[-1] = quoted[-1][:-1]
            lines.append(",".join(quoted))
        body = self.random.choice(("\n", "\r\n")).join([*lines, ""])
        return Request(
            "POST", f"{PATH}{query}", self.caller(), self.headers(CSV), self.bytes_of(body)
        )

    def change(self) -> Request:
        members: dict[str, str] = {}
        if self.chance(0.5):
            members["name"] = self.written(self.text())
        if self.chance(0.5):
            members["price"] = self.price()
        if self.chance(0.4):
            members["description"] = self.random.choice(("null", '""', self.written(self.text())))
        product, headers = self.id(), self.headers()
        headers |= self.condition(product)
        body = self.bytes_of(self.object_of(members))
        return Request("PATCH", path_of(product), self.caller(), headers, body)

    def condition(self, product: str) -> dict[str, str]:
        """Return the precondition of a write, half of the time one that holds."""
        if not self.chance(0.3):
            return {}
        tag = product.replace("product", "tag")
        wrong = ("<<etag:0>>", '"x", <<etag:1>>', "*", '"1-0000000000000000"', "x", "")
        right = (tag, f"W/{tag}", f'"x", {tag}')
        return {"If-Match": self.random.choice(right if self.chance(0.5) else wrong)}

    def delete(self) -> Request:
        product = self.id()
        return Request("DELETE", path_of(product), self.caller(), self.condition(product))

    def read(self) -> Request:
        product, headers = self.id(), {}
        if self.chance(0.2):
            headers["If-None-Match"] = product.replace("product", "tag")
        method = self.random.choice(("GET", "GET", "HEAD"))
        return Request(method, path_of(product), self.caller(), headers)

    def query(self) -> str:
        """Return the query of a list request."""
        given: list[tuple[str, str]] = []

        def add(name: str, probability: float, make: Callable[[], str]) -> None:
            if self.chance(probability):
                given.append((name, make()))

        signs, keys = ("", "-"), ("id", "name", "price", "created_at")
        add("sort", 0.6, lambda: self.random.choice(signs) + self.random.choice(keys))
        add("limit", 0.7, lambda: str(self.random.randint(1, 8)))
        add(
            "q", 0.35, lambda: " ".join(self.random.choices(WORDS, k=self.random.choice((1, 1, 2))))
        )
        add("q", 0.03, self.text)
        add("min_price", 0.15, lambda: self.price().strip('"'))
        add("max_price", 0.15, lambda: self.price().strip('"'))
        add("ids", 0.1, lambda: ",".join(self.id() for _ in range(self.random.randint(1, 5))))
        add("fields", 0.1, lambda: ",".join(self.random.sample(FIELDS, self.random.randint(1, 4))))
        add("total", 0.2, lambda: self.random.choice(("true", "false")))
        add("user_id", 0.1, lambda: self.id("user"))
        add("cursor", 0.04, lambda: f"<<cursor:{self.random.randrange(50)}>>")
        add("cursor", 0.02, lambda: self.random.choice(("", "x", "A" * 5_000, "\u00e9")))
        add("limit", 0.04, lambda: self.random.choice((*NUMBERS, "1000", "1001")))
        add("sort", 0.03, lambda: self.random.choice(("price,-id", "", "--id", "Name", "rowid")))
        add("unknown", 0.02, self.text)
        query = urlencode(given, errors="surrogatepass", safe="<>:")
        return f"{query}&q=%ff%fe" if self.chance(0.01) else query

    def list_products(self) -> Request:
        path = self.random.choice((PATH, f"{PATH}/my"))
        headers = {"If-None-Match": "<<etag:0>>"} if self.chance(0.1) else self.headers("")
        return Request("GET", f"{path}?{self.query()}", self.caller(), headers)

    def follow(self) -> Request:
        """Follow a ``next`` link of an earlier answer."""
        return Request("GET", f"<<next:{self.random.randrange(8)}>>", self.caller())

    def export(self) -> Request:
        accept = self.random.choice((NDJSON, CSV))
        query = self.query().replace("limit=", "fields=id&limit=") if self.chance(0.1) else ""
        sort = self.random.choice(("", "sort=name", "sort=-price", "q=desk", "sort=created_at"))
        path = self.random.choice((PATH, f"{PATH}/my"))
        return Request("GET", f"{path}?{query or sort}", self.caller(), {"Accept": accept})

    def list_changes(self) -> Request:
        since = self.random.choice((str(self.random.randrange(200)), *SINCES))
        query = urlencode(
            {"since": since, "limit": self.random.choice(("1", "7", "50", "1000", "0", "x"))},
            safe="<>:",
        )
        return Request("GET", f"{PATH}/changes?{query}", self.caller())

    def name(self) -> str:
        """Return a name in one of several spellings, some of which normalize to the same name."""
        ending = self.random.choice(("", "1", "2", "\U0001f600", "\u2603"))
        name = f"{self.random.choice(NAMES)}{ending}"
        if self.chance(0.2):
            self._made += 1
            name = f"user{self._made}"
        changes: Sequence[Callable[[str], str]] = (
            str.upper,
            str.title,
            str.casefold,
            lambda text: f"{text} ",
            lambda text: f" {text}",
            lambda text: f"{text}\u00a0",
            lambda text: f"{text}\u200d",
            lambda text: unicodedata.normalize("NFD", text),
            lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
            lambda text: text.replace("i", "\u0131"),
            lambda text: text.replace("a", "\u0430"),
            lambda _: self.text(),
        )
        return self.random.choice(changes)(name) if self.chance(0.6) else name

    def sign_up(self) -> Request:
        self._made += 1
        address = (
            f"{self.name().strip() or 'x'}@example.com"
            if self.chance(0.3)
            else f"u{self._made}@example.com"
        )
        if self.chance(0.1):
            address = self.random.choice(
                (address.upper(), f"{address} ", "x", "a@b", "a@\u00fcber.de", self.text())
            )
        password = (
            PASSWORD if self.chance(0.9) else self.random.choice(("short", "p" * 129, self.text()))
        )
        body = self.object_of(
            {"username": self.written(self.name()), "email": self.written(address)}
            | {"password": self.written(password)}
        )
        return Request("POST", "/api/auth/signup", "", self.headers(), self.bytes_of(body))

    def log_in(self) -> Request:
        name = self.random.choice((self.name(), self.name(), "BOB", "bob@EXAMPLE.com", "\uff42ob"))
        password = PASSWORD if self.chance(0.8) else "no password of theirs"
        body = self.object_of({"username": self.written(name), "password": self.written(password)})
        return Request("POST", "/api/auth/login", "", self.headers(), self.bytes_of(body))

    def use_account(self) -> Request:
        """Read or change an account; only the newest account has its sessions ended."""
        kind = self.random.randrange(9)
        if kind == 0:
            return Request("GET", "/api/auth/me", self.caller(), self.headers(""))
        if kind == 1:
            return Request("GET", "/api/auth/sessions", self.random.choice(CALLERS))
        if kind == 2:
            return Request(
                "DELETE", f"/api/auth/sessions/{quote(self.id('session'), safe='<>:')}", "last"
            )
        if kind == 3:
            address = self.random.choice(
                ("ada@example.com", "bob@example.com", "BOB@example.com", self.text())
            )
            body = self.bytes_of(self.object_of({"email": self.written(address)}))
            return Request(
                "PATCH", "/api/auth/me", self.random.choice(CALLERS), self.headers(), body
            )
        if kind == 4:
            members = {
                "current_password": self.written(PASSWORD),
                "new_password": self.written(PASSWORD),
            }
            body = self.bytes_of(self.object_of(members))
            return Request("POST", "/api/auth/password", "last", self.headers(), body)
        if kind == 5:
            body = self.bytes_of(self.object_of({"password": self.written(PASSWORD)}))
            return Request("DELETE", "/api/auth/me", "last", self.headers(), body)
        if kind == 6:
            path = self.random.choice(("/api/auth/logout", "/api/auth/logout-all"))
            return Request("POST", path, "last", self.headers(""))
        headers = {
            **self.headers(),
            "Authorization": f"Bearer <<refresh:{self.random.choice(CALLERS)}>>",
        }
        if kind == 7:
            return Request("GET", "/api/auth/refresh", "", headers)
        rotate = self.random.choice((b"", b"{}", b'{"rotate": true}', b'{"rotate": 1}', b"[]"))
        headers["Authorization"] = "Bearer <<refresh:last>>"
        return Request("POST", "/api/auth/refresh", "", headers, rotate)

    def administer(self) -> Request:
        caller = "grace" if self.chance(0.8) else self.caller()
        path = f"/api/users/{quote(self.id('user'), safe='<>:')}"
        kind = self.random.randrange(4)
        if kind == 0:
            return Request(
                "GET",
                f"/api/users?{urlencode({'limit': self.random.choice(('2', '9', *NUMBERS))})}",
                caller,
            )
        if kind == 1:
            return Request("GET", path, caller)
        # The accounts that the run relies on must survive.
        path = "/api/users/<<user:last>>"
        if kind == 2:
            return Request("DELETE", f"{path}/sessions", caller)
        members = self.random.choice(USER_CHANGES)
        body = self.bytes_of(self.object_of(members))
        return Request("PATCH", path, caller, self.headers(), body)

    def stray(self) -> Request:
        """Send an unknown path, a wrong method or an invalid token."""
        path, method = self.random.choice(PATHS), self.random.choice(METHODS)
        token = self.random.choice(CREDENTIALS)
        headers = {"Authorization": token} if token else {}
        body = self.bytes_of(self.product()) if method in {"PUT", "POST", "PATCH"} else None
        return Request(method, path, "", {**self.headers(), **headers}, body)
