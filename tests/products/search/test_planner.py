"""Searches: every engine and every plan must find the same products."""

from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.columns import MAX_ID
from catalog.db.database import Database
from catalog.products import queries
from catalog.products.models import NewProduct
from catalog.products.schemas import Sort
from catalog.products.search import planner
from catalog.products.search.frequencies import MAX_INDEXED, unknown
from catalog.products.search.tokenizer import (
    BUCKET_IDS,
    BUCKETS,
    buckets_between,
    terms_of,
    text_of,
    tokens_of,
)
from catalog.products.seed_data import make_samples
from catalog.products.selection import Selection
from catalog.products.service import insert_products
from tests.db.support import run_on
from tests.products.listing.lists import LIST, MINE, SORTS, ids_of, in_order, walk
from tests.products.search.filling import fill
from tests.support import PASSWORD, Caller, fields_of, problem_of

LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"

# Keyed by letter, for the table of expected matches.
PRODUCTS = {
    "a": ("Oak desk lamp", "Warm light, 40 W, for the desk."),
    "b": ("LAMPSHADE", None),
    "c": ("Clamp", "Holds a lamp"),
    "d": ("Café table", "About 100% of it is steel_blue; it's “new”."),
    "e": ("Cafetière", "For coffee à la carte. C++ and C# welcome"),
    "f": ("Große Gießkanne", "aus Weißblech, 1½ l"),
    "g": ("Strasse", "A street map: GROSSE STRASSE"),
    "h": ("青い花瓶", "手作りの花瓶です"),
    "i": ("和紙ランプ", "東京都の職人"),
    "j": ("红色茶壶", "手工 tea 茶"),
    "k": ("작은 도자기 접시", "한국에서 만든"),
    "l": ("Синяя ваза", "Ёлка и ёж; из дерева"),
    "m": ("مصباح خشبي", "مُحَمَّد"),
    "n": ("Q", "q qq quiz"),
    "o": ("X-Y_Z", "x y z xx xxlamp"),
    "p": ("www.example.com", "The the THE: what will who? Be it as it is"),
    "q": (LONG, None),
    "r": ("\U0001f525\U0001f525", "\U0001fab4 only"),
    "s": ("No. 17, set of 2", "1,000 pieces; 3.14; 2026-11-23; \u0663"),
    "t": ("O'Brien's \"quoted\" back\\slash", "50%off `tick` (round) <angle> {curly} [square]"),
    "u": ("Ὀδυσσεύς", "ΣΟΦΟΣ"),
    "v": ("İstanbul I\u011fd\u0131r", "DIŞ"),
    "w": ("\uff26\uff35\uff2c\uff2c width \uff76\uff9e\uff97\uff7d", "ﬁne œuvre Ⅻ m²"),
    "x": ("הספר", "שָׁלוֹם"),
    "y": ("हिन्दी किताब", "ร้านกาแฟ"),
    "z": ("naïve co-operation", "e\u0301te\u0301 Ångström Ørsted Łódź"),
}

# Queries and the products that they find; None for a query without words.
FOUND: dict[str, str | None] = {}
# Prefixes of words, in any case and order, in name and description together.
FOUND |= {"lamp": "abc", "LAMP": "abc", "lam": "abc", "desk lamp": "a", "lamp oak": "a"}
FOUND |= {"amp": "", "clamp": "c", "lampshades": "", "light oak": "a", "lamp lamp lamp": "abc"}
FOUND |= {"clamp cafe": ""}
# One and two letters, and words that InnoDB's stopword list would leave out.
FOUND |= {"q": "nt", "qq": "n", "qqq": "", "x": "ow", "x y z": "o", "xx": "o", "xxlamp": "o"}
FOUND |= {"W": "aefpw", "the": "ap", "about": "d", "www": "p", "as it is": "p", "be": "p"}
FOUND |= {"of it": "d", "a": "cdefgptz", "to be or not": "", "will what who": "p", "com": "p"}
FOUND |= {"is": "dpv"}
# Accents, ligatures, width; spellings that Unicode's folding makes equal.
FOUND |= {"cafe": "de", "café": "de", "CAFÉ": "de", "cafe\u0301": "de", "cafetiere": "e"}
FOUND |= {"a la carte": "e", "grosse": "fg", "große": "fg", "GROẞE": "fg", "giesskanne": "f"}
FOUND |= {"giess": "f", "weißbl": "f", "strasse": "g", "straße": "g", "stra": "g", "naive": "z"}
FOUND |= {"ete": "z", "angstrom": "z", "orsted": "z", "ørsted": "z", "lodz": "z", "łodz": "z"}
FOUND |= {"istanbul": "v", "ISTANBUL": "v", "\u0131ğd\u0131r": "v", "igdir": "v", "full": "w"}
FOUND |= {"\uff46\uff55\uff4c\uff4c": "w", "ガラス": "w", "fine": "w", "oeuvre": "w", "œuvre": "w"}
FOUND |= {"xii": "w", "m2": "w", "ガ": "w", "カ": "", "οδυσσευς": "u", "σοφοσ": "u", "σοφός": "u"}
FOUND |= {"ΟΔΥΣ": "u"}
# Scripts without spaces: any run of their characters.
FOUND |= {
    "花瓶": "h",
    "花": "h",
    "瓶": "h",
    "青い花瓶": "h",
    "瓶花": "",
    "手作り": "h",
    "手": "hj",
    "ランプ": "i",
}
FOUND |= {
    "東京": "i",
    "京都": "i",
    "東京都": "i",
    "東都": "",
    "茶": "j",
    "茶壶": "j",
    "红色 tea": "j",
}
FOUND |= {"青い 職人": "", "กาแฟ": "y", "ร้าน": "y"}
# Other scripts: prefixes of words, as in Latin.
FOUND |= {
    "도자기": "k",
    "도": "k",
    "한": "k",
    "자기": "",
    "작은 접시": "k",
    "синяя": "l",
    "СИН": "l",
}
FOUND |= {"ваза дерева": "l", "ёж": "l", "еж": "l", "елка": "l", "مصباح": "m", "مص": "m"}
FOUND |= {"محمد": "m", "שלום": "x", "הספר": "x", "ספר": "", "हिन्दी": "y", "किताब": "y"}
# Punctuation separates words; the syntax of SQL and of the indexes has no meaning.
FOUND |= {"100%": "d", "%": None, "_": None, "la%p": "", "la_p": "", "steel_blue": "d"}
FOUND |= {"steel blue": "d", "blue_steel": "d", "x-y": "o", "y_z": "o", "o'brien": "t"}
FOUND |= {"o'brien's": "t", 'O"Brien': "t", "s": "dgst", "back\\slash": "t", "\\": None}
FOUND |= {"'": None, '"': None, '"quoted': "t", "'; DROP TABLE products": "", "+lamp": "abc"}
FOUND |= {"-lamp": "abc", "+lamp -desk": "a", '"desk lamp"': "a", '"lamp desk"': "a"}
FOUND |= {"lamp*": "abc", "*": None, "lam*p": "", "(lamp)": "abc", "~lamp": "abc"}
FOUND |= {"<lamp >desk": "a", "@2 lamp": "", "lamp@3": "", "lamp OR vase": ""}
FOUND |= {"lamp AND desk": "", "NOT lamp": "", "lamp NEAR desk": "", "words:lamp": ""}
FOUND |= {"name : lamp": "", "^lamp": "abc", "{lamp}": "abc", "lamp;": "abc", "c++": "cdeptz"}
FOUND |= {"c#": "cdeptz", "c": "cdeptz", "50%off": "t", "50 off": "t", "`tick`": "t"}
FOUND |= {"square]": "t", "“new”": "d", "…": None, "-": None}
# Numbers are words, too.
FOUND |= {"40": "a", "4": "a", "17": "s", "1": "dfs", "1,000": "s", "1000": "", "3.14": "s"}
FOUND |= {"2026-11-23": "s", "1½": "fs", "½": "fs", "\u0663": "s", "3": "s"}
# Longer than any token, emoji, spaces.
FOUND |= {LONG: "q", LONG[:79]: "q", f"{LONG}en": "q", "x" * 200: "", "donaudampf": "q"}
FOUND |= {LONG.upper(): "q", "\U0001f525": None, "\U0001f525 lamp": "abc", " lamp\t": "abc"}
FOUND |= {" ": None, "lamp\u00a0oak": "a", "co\u00adoperation": "", "co-op": "z"}
FOUND |= {"operation": "z", "1\ufe0f\u20e3": "dfs"}


@pytest.fixture
async def stocked(ada: Caller, database: Database) -> None:
    """Insert the products above, oldest first, at prices from 1 on."""
    new_products = [
        NewProduct(name, description, price, ada.user_id or 0)
        for price, (name, description) in enumerate(PRODUCTS.values(), 1)
    ]
    await database.transaction(insert_products, new_products)


def letters_of(products: list[dict[str, Any]]) -> str:
    """Return the products' letters in alphabetical order."""
    letters = {name: letter for letter, (name, _) in PRODUCTS.items()}
    return "".join(sorted(letters[product["name"]] for product in products))


@pytest.mark.usefixtures("stocked")
class TestFinding:
    async def test_every_engine_finds_the_same_products(self, anyone: Caller) -> None:
        assert len(FOUND) >= 60
        wrong = {}
        for q, letters in FOUND.items():
            answer = await anyone.get(f"{LIST}?q={quote(q)}&total=true")
            if letters is None:
                found = None
                assert (problem_of(answer), fields_of(answer)) == ((422, "invalid"), ["q"]), q
            else:
                found = letters_of(answer.json["products"])
                assert answer.json["total"] == len(found), q
            if found != letters:
                wrong[q] = (found, letters)

        assert wrong == {}

    async def test_every_plan_finds_the_same_products(self, database: Database) -> None:
        for q, letters in FOUND.items():
            terms = terms_of(q)
            for indexed in range(min(len(terms), MAX_INDEXED) + 1) if letters is not None else ():
                found = await by(database, indexed, Selection(terms=terms))
                assert letters_of(found) == letters, (indexed, q)

    async def test_filters_narrow_the_search(self, ada: Caller, bob: Caller) -> None:
        ids = {product["name"]: product["id"] for product in await everything(ada)}
        some = ",".join(str(ids[PRODUCTS[letter][0]]) for letter in "acz")
        cases = {
            f"{LIST}?q=lamp&min_price=2": "bc",
            f"{LIST}?q=lamp&min_price=1.5&max_price=2": "b",
            f"{LIST}?q=lamp&user_id={ada.user_id}": "abc",
            f"{LIST}?q=lamp&user_id={bob.user_id}": "",
            f"{LIST}?q=lamp&ids={some}": "ac",
            f"{LIST}?q=lamp&ids={some}&max_price=1&user_id={ada.user_id}": "a",
            f"{MINE}?q=lamp&max_price=2": "ab",
        }

        for path, letters in cases.items():
            for sort in SORTS:
                answer = await ada.get(f"{path}&sort={sort}&total=true")
                assert letters_of(answer.json["products"]) == letters, path
                assert answer.json["total"] == len(letters), path
        assert (await bob.get(f"{MINE}?q=lamp")).json["products"] == []

    async def test_search_reflects_creates_changes_and_deletes(self, ada: Caller) -> None:
        async def found(q: str) -> list[str]:
            return [p["name"] for p in (await ada.get(f"{LIST}?q={quote(q)}")).json["products"]]

        path = (await ada.create_product("Zebrawood stool", description="Solid.")).headers[
            "Location"
        ]
        assert await found("zebra") == await found("solid stool") == ["Zebrawood stool"]

        for change in ({"name": "Teak stool"}, {"price": 3}, {"description": "Zebra print."}):
            await ada.send("PATCH", path, json=change)
        assert await found("zebra") == await found("teak") == ["Teak stool"]
        assert await found("zebrawood") == await found("solid") == []

        await ada.send("PATCH", path, json={"description": None})
        assert await found("zebra") == []
        await ada.send("DELETE", path)
        assert await found("teak") == []

    async def test_products_of_a_deleted_account_are_not_found(
        self, ada: Caller, bob: Caller
    ) -> None:
        await bob.create_product("Zebrawood stool")
        await ada.create_product("Zebrawood bench")

        deleted = await bob.send("DELETE", "/api/auth/me", json={"password": PASSWORD})

        assert deleted.status_code == 204
        answer = await ada.get(f"{LIST}?q=zebra&total=true")
        assert (len(answer.json["products"]), answer.json["total"]) == (1, 1)

    async def test_cursor_is_valid_only_for_its_search(self, anyone: Caller) -> None:
        first = await anyone.get(f"{LIST}?q=lamp&limit=1&sort=name")
        _, _, cursor = first.json["next"].partition("?")
        others = ["", "&q=desk", "&q=lamps", "&q=lam", "&q=lamp+desk"]

        same = await anyone.get(f"{LIST}?{cursor.replace('q=lamp', 'q=LAMP')}")
        refused = [await anyone.get(f"{LIST}?{cursor.replace('&q=lamp', q)}") for q in others]

        assert dict(parse_qsl(cursor))["q"] == "lamp"
        assert [product["name"] for product in same.json["products"]] == ["LAMPSHADE"]
        assert [problem_of(answer) for answer in refused] == [(400, "cursor-invalid")] * len(others)

    async def test_query_beyond_the_limits_is_refused(self, anyone: Caller) -> None:
        fine = ["x" * 200, " ".join(f"w{n}" for n in range(32)), "漢" * 33]
        too_much = ["x" * 201, " ".join(f"w{n}" for n in range(33)), "nul\0"]
        too_much.append("".join(map(chr, range(0x4E00, 0x4E00 + 34))))

        for q in fine:
            assert (await anyone.get(f"{LIST}?q={quote(q)}")).json["products"] == []
        for q in too_much:
            answer = await anyone.get(f"{LIST}?q={quote(q)}")
            assert (problem_of(answer), fields_of(answer)) == ((422, "invalid"), ["q"]), q


async def everything(caller: Caller) -> list[dict[str, Any]]:
    products: list[dict[str, Any]] = (await caller.get(f"{LIST}?limit=1000")).json["products"]
    return products


COUNT = 2 * planner.NEAR + 200


class TestWalking:
    """Walks over search results: every match once and in order, whatever the plan."""

    @pytest.fixture
    async def products(self, ada: Caller, bob: Caller, database: Database) -> list[dict[str, Any]]:
        """Insert more products than the planner samples, in every bucket; return them oldest first.

        Half of them have consecutive ids; the ids of the others are far apart.
        """
        assert ada.user_id
        assert bob.user_id
        ids = [*range(1, COUNT // 2), *range(COUNT // 2, 2 * BUCKETS * BUCKET_IDS, 12_345)]
        (new_products,) = make_samples(COUNT, owner_ids=[ada.user_id, bob.user_id], seed=1)
        rows: list[dict[str, Any]] = []
        words: list[dict[str, Any]] = []
        for product_id, new_product in zip(ids, new_products, strict=False):
            owned = {"user_id": new_product.owner_id, "created_at": new_product.created_at}
            rows.append({**new_product._asdict(), **owned, "id": product_id})
            text = text_of(new_product.name, new_product.description)
            words.append({"product_id": product_id, "words": tokens_of(text, product_id)})
        for row in rows:
            del row["owner_id"], row["words"]

        await fill(database, rows, words)
        pages = await walk(ada, LIST, sort="id", limit=1000)
        return [product for page in pages for product in page.json["products"]]

    async def test_common_and_rare_words_are_found_in_every_sort(
        self, ada: Caller, products: list[dict[str, Any]]
    ) -> None:
        shares = {}
        for q in ("w", "made", "oak", "lamp", "花瓶", "oak stool", "zzz"):
            terms = terms_of(q)
            kept = [
                product
                for product in products
                if all(t in text_of(product["name"], product["description"]) for t in terms)
            ]
            shares[q] = len(kept)
            for sort in SORTS:
                pages = await walk(ada, LIST, q=q, sort=sort, limit=100)
                assert ids_of(pages) == in_order(kept, sort), (q, sort)
            pages = await walk(ada, LIST, q=q, limit=100, total="true")
            assert {page.json["total"] for page in pages} == {len(kept)}, q
            mine = [product for product in kept if product["user_id"] == ada.user_id]
            pages = await walk(ada, MINE, q=q, sort="price", limit=100, min_price=5)
            assert ids_of(pages) == in_order([p for p in mine if p["price"] >= 5], "price")

        assert max(shares.values()) > 0.6 * len(products)
        assert [count for count in shares.values() if 0 < count < 0.01 * len(products)]
        assert shares["zzz"] == 0

    @pytest.mark.parametrize("sort", ["id", "-id", "price", "-price", "name"])
    @pytest.mark.parametrize(("max_bytes", "found"), [(7, 2), (8, 3), (11, 3), (1000, 5)])
    async def test_page_ends_with_the_product_that_exceeds_its_bytes(
        self,
        ada: Caller,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        sort: Sort,
        max_bytes: int,
        found: int,
    ) -> None:
        # The sample holds two of the six products, with four bytes each.
        monkeypatch.setattr(planner, "NEAR", 2)
        new_products = [
            NewProduct("Lamp", None, float(price), ada.user_id or 0) for price in range(6)
        ]
        await database.transaction(insert_products, new_products)

        rows = await run_on(
            database.connection(),
            planner.find,
            Selection(sort=sort, terms=terms_of("lamp")),
            after=None,
            limit=5,
            max_bytes=max_bytes,
        )

        assert len(rows) == found


async def by(database: Database, indexed: int, selection: Selection) -> list[dict[str, Any]]:
    """Return a first page of a hundred products, with some terms looked up in the index."""

    async def find(connection: AsyncConnection) -> list[dict[str, Any]]:
        statement = queries.found(
            sort=selection.sort,
            filters=selection.filters,
            resumed=False,
            terms=len(selection.terms),
            indexed=indexed,
            bounded=False,
        )
        terms = unknown(selection.terms)
        sought = terms.sought_in(buckets_between(1, MAX_ID), indexed)
        values = {**selection.values, **terms.values, "sought": sought, "limit": 100}
        rows = await connection.execute(statement, values)
        return [queries.members_of(row) for row in rows]

    return await run_on(database.connection(), find)
