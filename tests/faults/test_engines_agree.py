"""The same generated requests on every engine in lockstep: all answers must be equal.

Status, headers and bodies are compared after normalizing what may differ: times, tokens, tags and
ids, which an engine also consumes for rejected rows.
"""

import asyncio
import json
import re
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from quart import Quart
from sqlalchemy import text, update

from catalog.app import create_app
from catalog.auth.models import Role, User
from catalog.db.deadlines import Deadlines
from catalog.fastpath import dispatch
from catalog.fastpath.direct import DirectPath
from catalog.http.context import app_state
from tests import engines
from tests.engines import Engine, EngineMissing, settings_for
from tests.faults.figures import Figures
from tests.faults.generated_requests import Generator, Request
from tests.faults.scale import Scale
from tests.support import Caller, Response

pytestmark = pytest.mark.faults

SEED = 14
LIMITS = ("signup", "login", "read", "write")
FIRST_IDS = {"product": 5_000_000_000, "session": 6_000_000_000, "user": 7_000_000_000}
"""First ids, chosen so that ids can be told from all other numbers in an answer."""
SHOWN_DIFFERENCES = 20

_REFERENCE = re.compile(r"<<(\w+):(\w+)>>")
_ID = re.compile(r"(?<![\d.])(?:5|6|7)0000\d{5}(?![\d.])")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_TAG = re.compile(r'"((?:\d+-)?)[0-9a-f]{16}"')
# With a letter at least, unlike a price.
# The generator appends an x to some, which the refusal repeats.
_CHANGE = re.compile(r"\b(\d+)\.(?=\d*[A-Za-z])[0-9A-Za-z]{10}(x?)\b")
_CURSOR = re.compile(r'(cursor=\.?|"next_cursor":"\.?)([\w-]+)')
_SECONDS = re.compile(r'(?m)(^retry-after: |"revocations_age_seconds":)[\d.]+')
# The second that it is, and at the end of a period the number of requests left, may differ.
_LIMIT = re.compile(r'(?m)(^ratelimit: "\w+";)r=\d+;t=\d+')
_MAC_BYTES = 16

# Account of the caller ``last``: the newest one.
LAST = "last"
KEPT_ACCOUNTS = ("ada", "bob", "grace")


class Instance:
    """The app on one engine, and a client's knowledge from its answers.

    Attributes:
        answered: counts of answers by method and status class (2 for 2xx, and so on).
    """

    def __init__(self, name: str, app: Quart) -> None:
        self.name = name
        self.answered: Counter[tuple[str, int]] = Counter()
        self._anyone = Caller(app)
        self._tokens: dict[str, dict[str, str]] = {}
        self._users: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._ids: dict[str, list[str]] = {kind: [] for kind in FIRST_IDS}
        self._nexts: list[str] = ["/api/products?limit=2"]
        self._tags: dict[str, str] = {}
        self._etags: list[str] = ['"none"']
        self._changes: list[str] = ["0"]

    def learn_account(self, name: str, answer: dict[str, Any]) -> None:
        """Record the tokens of an account that has signed up or logged in."""
        self._tokens[name] = answer
        self._users[name] = answer["id"] if "id" in answer else answer["user"]["id"]

    async def ask(self, number: int, request: Request) -> tuple[Response, str]:
        """Send a request; return the answer, and its normalized text for comparison."""
        path = self._referred(request.path)
        headers = {name: self._referred(value) for name, value in request.headers.items()}
        headers.setdefault("X-Request-ID", f"request-{number}")
        token = self._tokens.get(request.caller, {}).get("access_token", "")
        options: dict[str, Any] = {}
        if request.body is not None:
            # As every client over HTTP/1.1 does; without a length the fast path is not taken.
            headers.setdefault("Content-Length", str(len(request.body)))
            options["data"] = request.body
        answer = await self._anyone.send(
            request.method, path, token=token, headers=headers, **options
        )
        compared = self.comparable(answer, headers["X-Request-ID"])
        self._learn(request, answer)
        self.answered[request.method, answer.status_code // 100] += 1
        return answer, compared

    def _referred(self, given: str) -> str:
        """Resolve references with values from earlier answers."""

        def found(reference: re.Match[str]) -> str:
            kind, which = reference.groups()
            if kind in {"access", "refresh"}:
                return self._tokens.get(which, {}).get(f"{kind}_token", "none")
            if which == LAST:
                return str(self._users.get(LAST, 1))
            number = int(which)
            if kind == "tag":
                products = self._ids["product"]
                return self._tags.get(
                    products[number % len(products)] if products else "", '"none"'
                )
            if kind in self._ids:
                ids = self._ids[kind]
                return ids[number % len(ids)] if ids else "1"
            known = {"etag": self._etags, "change": self._changes}.get(kind, self._nexts)
            value = known[-1 - number % len(known)]
            if kind == "cursor":
                return parse_qs(urlsplit(value).query).get("cursor", ["none"])[0]
            return value

        return _REFERENCE.sub(found, given)

    def _learn(self, request: Request, answer: Response) -> None:
        headers = answer.headers
        if "ETag" in headers:
            self._etags.append(headers["ETag"])
        if "Catalog-Change" in headers:
            self._changes.append(headers["Catalog-Change"])
        if answer.headers.get("Content-Type") != "application/json":
            return
        body = answer.json
        if isinstance(body, dict) and answer.status_code < 300:
            if "ETag" in headers and "version" in body:
                self._tags[str(body["id"])] = headers["ETag"]
            if body.get("next"):
                self._nexts.append(body["next"])
            if request.path in {"/api/auth/signup", "/api/auth/login"}:
                user = body.get("user", body)
                # The newest account may get disabled or deleted; these are needed to the end.
                if user["username"] not in KEPT_ACCOUNTS:
                    self.learn_account(LAST, body)

    def comparable(self, answer: Response, request_id: str) -> str:
        """Return an answer as text, with everything that may differ normalized."""
        fields = sorted((name.lower(), value) for name, value in answer.headers.items())
        lines = [f"{name}: {value}" for name, value in fields if name != "content-length"]
        # Keep each byte of bodies that are not text.
        body = answer.body.decode("utf-8", "surrogateescape")
        whole = "\n".join([str(answer.status_code), *lines, "", body])
        if answer.headers["X-Request-ID"] != request_id:
            whole = whole.replace(answer.headers["X-Request-ID"], "<request id>")
        whole = _CURSOR.sub(lambda found: f"{found[1]}{_position_of(found[2])}", whole)
        whole = _TOKEN.sub("<token>", whole)
        whole = _TAG.sub(r'"\1<tag>"', whole)
        whole = _CHANGE.sub(r"\1.<history>\2", whole)
        # Ranks preserve the order and the equality of times.
        times = {time: rank for rank, time in enumerate(sorted(set(_TIME.findall(whole))))}
        whole = _TIME.sub(lambda time: f"<time {times[time[0]]}>", whole)
        whole = _SECONDS.sub(r"\1<seconds>", whole)
        whole = _LIMIT.sub(r"\1<left>", whole)
        return _ID.sub(lambda found: self._named(found[0]), whole)

    def _named(self, found: str) -> str:
        """Return an id's number in order of first appearance."""
        kind = next(kind for kind, first in FIRST_IDS.items() if str(first)[0] == found[0])
        if found not in self._numbers:
            self._numbers[found] = len(self._ids[kind])
            self._ids[kind].append(found)
        return f"<{kind} {self._numbers[found]}>"


def _position_of(cursor: str) -> str:
    """Return the content of a cursor without its signature, times normalized."""
    try:
        payload = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_MAC_BYTES:]
        position = json.loads(payload)
    except ValueError:
        return cursor
        # Microseconds since 1970, in this decade.
    parts = [
        "<time>" if str(part)[:2] in {"17", "18"} and len(str(part)) == 16 else part
        for part in position
    ]
    return f"<{json.dumps(parts)}>"


@dataclass(frozen=True)
class Difference:
    """A request with different answers."""

    number: int
    request: Request
    answers: dict[str, str]

    def __str__(self) -> str:
        answers = "\n".join(
            f"--- {name}\n{answer[:3000]!r}" for name, answer in self.answers.items()
        )
        return f"Request {self.number}: {self.request!r:.3000}\n{answers}"


@asynccontextmanager
async def instance(
    name: str, engine: Engine, folder: Path, **overrides: Any
) -> AsyncIterator[Instance]:
    """Start the app on a new database, with two accounts and an administrator."""
    url = await engine.migrated_database(folder)
    free: dict[str, Any] = {f"{kind}_limit": None for kind in LIMITS}
    # Time-outs on a slow machine would look like differences.
    patient = {"access_token_ttl": 86400}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("catalog.app.DEADLINES", Deadlines(read=30, write=60))
        app = create_app(settings_for(url, access_log="off", **free, **patient, **overrides))
    async with app.test_app():
        await _begin_ids_at(app, engine, FIRST_IDS)
        one = Instance(name, app)
        for each in KEPT_ACCOUNTS:
            caller = Caller(app)
            one.learn_account(each, (await caller.sign_up(each)).json)

        async def promote(session: Any) -> None:
            await session.execute(
                update(User).where(User.username == "grace").values(role=Role.ADMIN)
            )

        await app_state(app).database.transaction(promote)
        one.learn_account("grace", (await Caller(app).log_in("grace")).json)
        yield one


async def _begin_ids_at(app: Quart, engine: Engine, first: dict[str, int]) -> None:
    async def begin(session: Any) -> None:
        for kind, number in first.items():
            table = f"{kind}s"
            if engine.name == "sqlite":
                await session.execute(
                    text("DELETE FROM sqlite_sequence WHERE name = :table"), {"table": table}
                )
                await session.execute(
                    text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :number)"),
                    {"table": table, "number": number},
                )
            else:
                await session.execute(text(f"ALTER TABLE {table} AUTO_INCREMENT = {number + 1}"))

    await app_state(app).database.transaction(begin)


async def differences_of(instances: list[Instance], requests: list[Request]) -> list[Difference]:
    """Send each request to all instances; return those with different answers or 5xx."""
    differences = []
    for number, request in enumerate(requests):
        answers = await asyncio.gather(*(each.ask(number, request) for each in instances))
        compared = {each.name: told for each, (_, told) in zip(instances, answers, strict=True)}
        failed = any(answer.status_code >= 500 for answer, _ in answers)
        if failed or len(set(compared.values())) > 1:
            differences.append(Difference(number, request, compared))
            if len(differences) == SHOWN_DIFFERENCES:
                break
    return differences


class Altering(Instance):
    """Negative control: one answer has a character changed."""

    altered = 0

    def comparable(self, answer: Response, request_id: str) -> str:
        whole = super().comparable(answer, request_id)
        if '"name":"' in whole and not self.altered:
            self.altered += 1
            return whole.replace('"name":"', '"name":" ', 1)
        return whole


class Dropping(Instance):
    """Negative control: one response lacks its entity tag."""

    has_dropped = False

    def comparable(self, answer: Response, request_id: str) -> str:
        whole = super().comparable(answer, request_id)
        if "\netag: " in whole and not self.has_dropped:
            self.has_dropped = True
            return re.sub(r"\netag: .*", "", whole)
        return whole


class TestEngines:
    async def test_engines_give_equal_responses(
        self,
        running_engine: Callable[[str], Awaitable[Engine]],
        tmp_path: Path,
        scale: Scale,
        figures: Figures,
    ) -> None:
        requests = Generator(SEED).requests(scale.generated_requests)
        missing = {}
        async with AsyncExitStack() as stack:
            instances = []
            for name in engines.NAMES:
                try:
                    engine = await running_engine(name)
                except EngineMissing as reason:
                    missing[name] = str(reason)
                    continue
                started = await stack.enter_async_context(instance(name, engine, tmp_path))
                instances.append(started)
            if len(instances) < 2:
                pytest.skip(" ".join(missing.values()))

            differences = await differences_of(instances, requests)

        names = ", ".join(each.name for each in instances)
        answered = instances[0].answered
        accepted = sum(count for (_, status), count in answered.items() if status == 2)
        figures.add(f"engines agree ({names})", "requests", len(requests))
        figures.add(f"engines agree ({names})", "of them answered by 2xx", accepted)
        figures.add(f"engines agree ({names})", "differences", len(differences), limit="0")
        assert not differences, "\n\n".join(map(str, differences))
        # Equal rejections alone prove little.
        assert all(answered[method, 2] for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"))

    async def test_altered_body_is_detected(
        self, running_engine: Callable[[str], Awaitable[Engine]], tmp_path: Path
    ) -> None:
        requests = Generator(SEED).requests(60)
        engine = await running_engine("sqlite")
        async with (
            instance("one", engine, tmp_path) as one,
            instance("other", engine, tmp_path) as other,
        ):
            other.__class__ = Altering

            differences = await differences_of([one, other], requests)

        assert len(differences) == 1
        assert '"name":"' in differences[0].answers["one"]


def count_calls(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, counts: Counter[str]
) -> None:
    """Count the calls of a function or method by its name."""
    method = getattr(owner, name)

    async def counted(*args: Any) -> Any:
        counts[name] += 1
        return await method(*args)

    monkeypatch.setattr(owner, name, counted)


def as_hot(request: Request) -> Request:
    """Return a list as anonymous clients ask for it most often, and other requests as they are."""
    if request.method == "GET" and request.path.partition("?")[0] == "/api/products":
        kept = {name: value for name, value in request.headers.items() if name != "Accept"}
        return replace(request, caller="", headers=kept)
    return request


class TestFastPath:
    async def test_framework_alone_gives_the_same_answers(
        self,
        running_engine: Callable[[str], Awaitable[Engine]],
        tmp_path: Path,
        scale: Scale,
        figures: Figures,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        taken: Counter[str] = Counter()
        # Directly, or behind the middleware if the body arrives later.
        count_calls(monkeypatch, DirectPath, "_respond", taken)
        count_calls(monkeypatch, dispatch, "send_reply", taken)
        generated = Generator(SEED + 1).requests(scale.fast_path_requests)
        requests = [as_hot(each) if number % 2 else each for number, each in enumerate(generated)]
        engine = await running_engine("sqlite")
        async with (
            instance("on", engine, tmp_path, fast_path="on") as fast,
            instance("off", engine, tmp_path, fast_path="off") as framework,
        ):
            differences = await differences_of([fast, framework], requests)

        figures.add("fast path and framework agree", "requests", len(requests))
        figures.add("fast path and framework agree", "of them on the fast path", taken.total())
        figures.add("fast path and framework agree", "differences", len(differences), limit="0")
        assert not differences, "\n\n".join(map(str, differences))
        assert taken.total()

    async def test_header_that_one_of_them_drops_is_a_difference(
        self, running_engine: Callable[[str], Awaitable[Engine]], tmp_path: Path
    ) -> None:
        engine = await running_engine("sqlite")
        async with (
            instance("on", engine, tmp_path, fast_path="on") as fast,
            instance("off", engine, tmp_path, fast_path="off") as framework,
        ):
            fast.__class__ = Dropping

            differences = await differences_of([fast, framework], Generator(SEED).requests(60))

        assert len(differences) == 1
        assert "etag: " in differences[0].answers["off"]
