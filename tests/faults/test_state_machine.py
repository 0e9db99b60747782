"""Model-based test of the API against tests/faults/api_model.py, random walks on every engine."""

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from quart import Quart
from sqlalchemy import update

from catalog.app import create_app
from catalog.auth.models import Role, User
from catalog.http.context import app_state
from catalog.products.bulk.formats.formula_guard import guarded
from tests import engines
from tests.engines import EngineMissing, settings_for
from tests.faults.api_model import FIELDS, Model
from tests.faults.figures import Figures
from tests.faults.scale import Scale
from tests.support import PASSWORD, Caller, Response

pytestmark = pytest.mark.faults

PATH = "/api/products"
LIMITS = ("signup", "login", "read", "write")

T = TypeVar("T")

_numbers = count(1)

WORDS = st.sampled_from(["desk", "lamp", "oak", "the", "q", "desktop", "Lamp", "24", "LED"])
PLAIN_NAMES = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NAMES = PLAIN_NAMES | ANY_TEXT.filter(lambda text: bool(text.strip()))
DESCRIPTIONS = st.none() | PLAIN_NAMES | ANY_TEXT
PRICES = (
    st.sampled_from([0.0, 5e-324, 0.1, 9.5, 9.99, 1e12, 131072.07])
    | st.floats(0, 1e12, allow_subnormal=True).map(lambda price: price + 0.0)
    | st.integers(0, 10**12)
)
NEW = st.fixed_dictionaries(
    {"name": NAMES, "price": PRICES}, optional={"description": DESCRIPTIONS}
)
CHANGES = st.fixed_dictionaries(
    {}, optional={"name": NAMES, "price": PRICES, "description": DESCRIPTIONS}
)
# Tokenizing other scripts and normal forms in searches is covered by test_engines_agree.
SORTS = st.sampled_from(
    [f"{sign}{key}" for key in ("id", "name", "price", "created_at") for sign in ("", "-")]
)
WHO = st.integers(0, 1)
ANY = st.integers(0, 10**6)


class Catalog(RuleBasedStateMachine):
    """Two owners and an administrator; the test sets ``app`` and ``loop``.

    Every step sends requests and compares the answers with the model's.

    Attributes:
        counts: of ``runs``, their ``steps`` and their ``requests``.
    """

    app: Quart
    loop: asyncio.AbstractEventLoop
    admin: Caller
    counts: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.counts["runs"] += 1
        self.model = Model()
        self.owners: list[Caller] = []
        self.passwords = [PASSWORD, PASSWORD]
        self.since = ""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the app's loop."""
        self.counts["requests"] += 1
        return self.loop.run_until_complete(work)

    def ask(
        self, caller: Caller, method: str, path: str, body: Any = None, **headers: str
    ) -> Response:
        """Send a request."""
        options: dict[str, Any] = {} if body is None else {"json": body}
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.run(caller.send(method, path, headers=fields, **options))

    def picked(self, number: int) -> int:
        """Return a product id, usually an existing one."""
        ids = [*self.model.products, *self.model.products, *self.model.gone, 2**63 - 1]
        return sorted(ids)[number % len(ids)]

    @initialize()
    def sign_up(self) -> None:
        number = next(_numbers)
        for name in ("ada", "bob"):
            self.owners.append(self.run(Caller.signed_up(self.app, f"{name}-{number}")))
        answer = self.ask(self.owners[0], "GET", f"{PATH}?limit=1")
        self.since = answer.headers["Catalog-Change"]

    @invariant()
    def count_step(self) -> None:
        """Count a step: invariants are checked after each of them."""
        self.counts["steps"] += 1

    @rule(who=WHO, new=NEW)
    def create(self, who: int, new: dict[str, Any]) -> None:
        answer = self.ask(self.owners[who], "POST", PATH, new)
        assert answer.status_code == 201, answer.body
        self.check_new(answer.json, who, new)
        self.model.create(answer.json)

    def check_new(self, product: dict[str, Any], who: int, new: dict[str, Any]) -> None:
        assert tuple(product) == FIELDS
        assert product["user_id"] == self.owners[who].user_id
        assert product["id"] not in self.model.products
        assert product["id"] not in self.model.gone
        assert product["version"] == 1
        assert product["created_at"] == product["updated_at"]
        given = {"description": None, **new}
        assert {name: product[name] for name in given} == given

    @rule(who=WHO, key=st.sampled_from("abc"), new=NEW)
    def create_under_a_key(self, who: int, key: str, new: dict[str, Any]) -> None:
        before = self.model.keys.get((who, key))
        answer = self.ask(self.owners[who], "POST", PATH, new, Idempotency_Key=key)
        if before is None:
            assert answer.status_code == 201, answer.body
            self.check_new(answer.json, who, new)
            self.model.create(answer.json)
            self.model.keys[who, key] = ({"description": None, **new}, answer.json)
        elif before[0] == {"description": None, **new}:
            assert answer.status_code == 201
            assert answer.headers["Idempotency-Replayed"] == "true"
            assert answer.json == before[1]
        else:
            assert answer.status_code == 422

    @rule(who=WHO, key=st.sampled_from("abc"))
    def repeat_under_a_key(self, who: int, key: str) -> None:
        if (who, key) in self.model.keys:
            self.create_under_a_key(who, key, self.model.keys[who, key][0])

    @rule(number=ANY)
    def read(self, number: int) -> None:
        product_id = self.picked(number)
        answer = self.ask(self.owners[0], "GET", f"{PATH}/{product_id}")
        if product_id in self.model.products:
            assert (answer.status_code, answer.json) == (200, self.model.products[product_id])
        else:
            assert answer.status_code == 404

    def refusal(self, who: int, product_id: int, tag: str | None) -> int | None:
        """Return the status that rejects a change, or None if it is allowed."""
        product = self.model.products.get(product_id)
        if product is None:
            return 404
        if who != 2 and product["user_id"] != self.owners[who].user_id:
            return 403
        return 412 if tag == "wrong" else None

    def tagged(self, product_id: int, tag: str | None) -> dict[str, str]:
        """Return the precondition header of a change."""
        if tag is None:
            return {}
        if tag == "wrong":
            return {"If_Match": '"1-0000000000000000"'}
        answer = self.ask(self.owners[0], "GET", f"{PATH}/{product_id}")
        return {"If_Match": answer.headers.get("ETag", '"none"')}

    def caller(self, who: int) -> Caller:
        return self.admin if who == 2 else self.owners[who]

    @rule(
        who=st.integers(0, 2),
        number=ANY,
        values=CHANGES,
        tag=st.sampled_from([None, "right", "wrong"]),
    )
    def change(self, who: int, number: int, values: dict[str, Any], tag: str | None) -> None:
        product_id = self.picked(number)
        refusal = self.refusal(who, product_id, tag)
        headers = self.tagged(product_id, tag)
        answer = self.ask(self.caller(who), "PATCH", f"{PATH}/{product_id}", values, **headers)
        if refusal is not None:
            assert answer.status_code == refusal, answer.body
            return
        assert answer.status_code == 200, answer.body
        self.model.change(product_id, values, answer.json["updated_at"])
        assert answer.json == self.model.products[product_id]

    @rule(who=st.integers(0, 2), number=ANY, tag=st.sampled_from([None, "right", "wrong"]))
    def delete(self, who: int, number: int, tag: str | None) -> None:
        product_id = self.picked(number)
        refusal = self.refusal(who, product_id, tag)
        headers = self.tagged(product_id, tag)
        answer = self.ask(self.caller(who), "DELETE", f"{PATH}/{product_id}", **headers)
        if refusal is not None:
            assert answer.status_code == refusal, answer.body
            return
        expected = {"message": f"Product {product_id} deleted.", "id": product_id}
        assert (answer.status_code, answer.json) == (200, expected)
        self.model.delete(product_id)

    def walk(self, caller: Caller, path: str) -> tuple[list[dict[str, Any]], int | None]:
        """Follow a list to its end; return its products, and the total if it was requested."""
        products: list[dict[str, Any]] = []
        total = None
        following: str | None = path
        while following:
            answer = self.ask(caller, "GET", following)
            assert answer.status_code == 200, answer.body
            products += answer.json["products"]
            total = answer.json.get("total", total)
            following = answer.json["next"]
        return products, total

    @rule(
        who=WHO,
        own=st.booleans(),
        limit=st.integers(1, 7),
        sort=SORTS,
        bounds=st.tuples(st.none() | PRICES, st.none() | PRICES),
        q=st.none() | st.sampled_from(["desk", "la", "oak desk", "LED l", "24"]),
        numbers=st.none() | st.lists(ANY, min_size=1, max_size=5),
        total=st.booleans(),
        shown=st.none() | st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4, unique=True),
    )
    def list_products(  # one parameter for each of the list's
        self,
        who: int,
        own: bool,
        limit: int,
        sort: str,
        bounds: tuple[float | None, float | None],
        q: str | None,
        numbers: list[int] | None,
        total: bool,
        shown: list[str] | None,
    ) -> None:
        owner = self.owners[who]
        ids = None if numbers is None else [self.picked(number) for number in numbers]
        if q is not None and not self.is_plain(owner):
            # Tokenizing other scripts is covered by test_engines_agree.
            q = None
        filters: dict[str, Any] = {"min_price": bounds[0], "max_price": bounds[1], "q": q}
        expected = self.model.page(user_id=owner.user_id or 0, sort=sort, ids=ids, **filters)
        if ids is not None:
            filters["ids"] = ",".join(map(str, ids))
        if shown is not None:
            filters["fields"] = ",".join(shown)
            expected_shown = [{name: each[name] for name in shown} for each in expected]
        else:
            expected_shown = expected
        if not own:
            filters["user_id"] = owner.user_id
        if total:
            filters["total"] = "true"
        given = {name: value for name, value in filters.items() if value is not None}
        query = urlencode({"limit": limit, "sort": sort, **given})
        path = f"{PATH}/my" if own else PATH
        products, counted = self.walk(owner, f"{path}?{query}")
        assert products == expected_shown
        assert counted == (len(expected) if total else None)

    def is_plain(self, owner: Caller) -> bool:
        """Tell whether all texts of an owner are ASCII words separated by blanks."""
        return all(
            f"{each['name']} {each['description'] or ''}".replace(" ", "").isalnum()
            and f"{each['name']}{each['description'] or ''}".isascii()
            for each in self.model.products.values()
            if each["user_id"] == owner.user_id
        )

    @rule(limit=st.integers(1, 50))
    def follow_changes(self, limit: int) -> None:
        found: list[tuple[str, int, int]] = []
        since, more = self.since, True
        position = int(since.partition(".")[0])
        while more:
            answer = self.ask(self.owners[0], "GET", f"{PATH}/changes?since={since}&limit={limit}")
            assert answer.status_code == 200, answer.body
            for each in answer.json["changes"]:
                position += 1
                assert each["position"] == position
                found.append((each["type"], each["id"], each["version"]))
                shown = None if each["type"] == "deleted" else self.model.products.get(each["id"])
                assert each["product"] == shown
            more, since = answer.json["more"], str(answer.json["position"])
        assert found == self.model.changes

    @rule(who=WHO, form=st.sampled_from(["application/x-ndjson", "text/csv"]), sort=SORTS)
    def export(self, who: int, form: str, sort: str) -> None:
        owner = self.owners[who]
        answer = self.ask(owner, "GET", f"{PATH}/my?sort={sort}", Accept=form)
        assert answer.status_code == 200, answer.body
        expected = self.model.page(user_id=owner.user_id or 0, sort=sort)
        text = answer.body.decode()
        if form == "text/csv":
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
            assert [(int(row["id"]), float(row["price"])) for row in rows] == [
                (each["id"], each["price"]) for each in expected
            ]
        else:
            # splitlines() would also split at other line boundaries.
            assert [json.loads(line) for line in text.split("\n")[:-1]] == expected

    @rule(
        who=WHO,
        news=st.lists(NEW | st.just({"name": "", "price": 1}), min_size=1, max_size=6),
        form=st.sampled_from(["application/x-ndjson", "text/csv"]),
        mode=st.sampled_from(["", "?atomic=true", "?dry_run=true"]),
    )
    def import_products(self, who: int, news: list[dict[str, Any]], form: str, mode: str) -> None:
        owner = self.owners[who]
        news = [{"description": None, **new} for new in news]
        if form == "text/csv":
            # CSV does not distinguish empty text from null.
            news = [{**new, "description": new["description"] or None} for new in news]
        data = text_of(news, form)
        answer = self.run(owner.post(f"{PATH}{mode}", data=data, headers={"Content-Type": form}))
        good = [new for new in news if new["name"]]
        if mode == "?atomic=true" and len(good) < len(news):
            assert answer.status_code == 422, answer.body
            assert answer.json["failed"] == len(news) - len(good)
            return
        assert answer.status_code == 200, answer.body
        report = answer.json
        assert (report["created"], report["failed"]) == (len(good), len(news) - len(good))
        if mode == "?dry_run=true" or not good:
            assert report["first_id"] is None
            return
        made, _ = self.walk(owner, f"{PATH}/my?sort=id")
        made = [each for each in made if report["first_id"] <= each["id"] <= report["last_id"]]
        assert len(made) == len(good)
        for product, new in zip(made, good, strict=True):
            self.check_new(product, who, new)
            self.model.create(product)

    # One rule for all of these: they hash passwords, and so take as long as fifty other steps.
    @rule(who=WHO, step=st.integers(0, 3))
    def use_account(self, who: int, step: int) -> None:
        if step == 0:
            self.change_password(who)
        elif step < 3:
            self.log_in(who, right=step == 1)
        elif len(self.model.changes) > 5:
            self.replace_account(who)

    def change_password(self, who: int) -> None:
        old, new = self.passwords[who], f"{PASSWORD} {next(_numbers)}"
        fields = {"current_password": old, "new_password": new}
        answer = self.ask(self.owners[who], "POST", "/api/auth/password", fields)
        assert answer.status_code == 204, answer.body
        self.passwords[who] = new

    def log_in(self, who: int, *, right: bool) -> None:
        me = self.ask(self.owners[who], "GET", "/api/auth/me").json
        password = self.passwords[who] if right else "no password of theirs"
        answer = self.run(self.owners[who].log_in(me["username"], password))
        # After ten wrong passwords, the right one is throttled, too.
        assert answer.status_code in ({200, 429} if right else {401, 429}), answer.body

    @rule(who=WHO)
    def end_other_sessions(self, who: int) -> None:
        owner = self.owners[who]
        sessions = self.ask(owner, "GET", "/api/auth/sessions").json["sessions"]
        assert [each["current"] for each in sessions].count(True) == 1
        for each in sessions:
            if not each["current"]:
                ended = self.ask(owner, "DELETE", f"/api/auth/sessions/{each['id']}")
                assert ended.status_code == 204
        left = self.ask(owner, "GET", "/api/auth/sessions").json["sessions"]
        assert [each["current"] for each in left] == [True]

    def replace_account(self, who: int) -> None:
        answer = self.ask(
            self.owners[who], "DELETE", "/api/auth/me", {"password": self.passwords[who]}
        )
        assert answer.status_code == 204, answer.body
        self.model.delete_owner(self.owners[who].user_id or 0)
        for key in [key for key in self.model.keys if key[0] == who]:
            del self.model.keys[key]
        self.owners[who] = self.run(Caller.signed_up(self.app, f"new-{next(_numbers)}"))
        self.passwords[who] = PASSWORD


class ForgetfulModel(Model):
    def delete(self, product_id: int) -> None:
        """Keep the product."""


class Forgetful(Catalog):
    """Negative control: its model ignores deletions."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ForgetfulModel()


def text_of(news: list[dict[str, Any]], form: str) -> bytes:
    """Return products as a bulk file."""
    if form != "text/csv":
        return "".join(f"{json.dumps(new)}\n" for new in news).encode()
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["name", "price", "description"])
    for new in news:
        cells = [guarded(text) if text else "" for text in (new["name"], new["description"])]
        writer.writerow([cells[0], repr(float(new["price"])), cells[1]])
    return out.getvalue().encode()


async def open_app(engine: engines.Engine, folder: Path) -> tuple[Quart, Any, Caller]:
    """Start the app on a new database, with an administrator."""
    url = await engine.migrated_database(folder)
    free = {f"{kind}_limit": None for kind in LIMITS}
    # Deadlines are the subject of test_database: here they would tell how busy the machine is.
    configured = settings_for(url, access_log="off", **free)
    # The least memory that argon2 takes, and far below what the settings allow: hashing would take
    # as long as all else together. Bounds are not checked by model_copy.
    app = create_app(configured.model_copy(update={"password_memory_kib": 8}))
    database = app_state(app).database
    database.deadlines = replace(database.deadlines, read=30.0, write=30.0)
    serving = app.test_app()
    await serving.startup()
    admin = await Caller.signed_up(app, "grace")

    async def promote(session: Any) -> None:
        await session.execute(update(User).where(User.id == admin.user_id).values(role=Role.ADMIN))

    await app_state(app).database.transaction(promote)
    return app, serving, await Caller.logged_in(app, "grace")


def walk_randomly(
    machine: type[Catalog],
    name: str,
    folder: Path,
    *,
    runs: int,
    steps: int,
    phases: Sequence[Phase] = tuple(Phase),
) -> Counter[str]:
    """Run a machine on an engine in its own event loop; return the machine's counts.

    Raises:
        AssertionError: the API and the model differ; the steps are printed.
    """
    with asyncio.Runner() as runner:

        async def start() -> tuple[Any, Any]:
            context = engines.running(name, folder)
            return context, await context.__aenter__()

        context, engine = runner.run(start())
        try:
            machine.app, serving, machine.admin = runner.run(open_app(engine, folder))
            machine.loop = runner.get_loop()
            machine.counts = Counter()
            try:
                run_state_machine_as_test(
                    machine,
                    settings=settings(
                        max_examples=runs,
                        stateful_step_count=steps,
                        deadline=None,
                        derandomize=True,
                        phases=phases,
                        database=None,
                        suppress_health_check=list(HealthCheck),
                    ),
                )
            finally:
                runner.run(serving.shutdown())
        finally:
            runner.run(context.__aexit__(None, None, None))
    return machine.counts


class TestApi:
    @pytest.mark.parametrize("name", engines.NAMES)
    def test_answers_equal_those_of_the_model(
        self, name: str, tmp_path: Path, scale: Scale, figures: Figures
    ) -> None:
        try:
            counts = walk_randomly(
                Catalog, name, tmp_path, runs=scale.machine_runs, steps=scale.machine_steps
            )
        except EngineMissing as missing:
            pytest.skip(str(missing))

        check = f"state machine ({name})"
        figures.add(
            check, "runs without a divergence", counts["runs"], limit=f"{scale.machine_runs}"
        )
        figures.add(check, "steps", counts["steps"])
        figures.add(check, "requests", counts["requests"])
        assert counts["runs"] >= scale.machine_runs

    def test_wrong_model_diverges(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError):
            walk_randomly(
                # Without the shrinking phase, which takes a minute and is of no use here.
                Forgetful,
                "sqlite",
                tmp_path,
                runs=500,
                steps=30,
                phases=[Phase.generate],
            )
