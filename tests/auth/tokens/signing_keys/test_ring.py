"""The key ring: signing and previous keys, their rotation, and the published key set."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from quart import Quart

from catalog.app import create_app
from catalog.auth.context import auth
from catalog.auth.tokens.signing_keys import KeyRing
from catalog.settings import Settings
from tests.auth.tokens.signing_keys.pem import ALGORITHMS, pem_of, private_key, public_pem_of
from tests.auth.tokens.signing_keys.rings import NEW, OLD, each_algorithm, ring, settings_with
from tests.auth.tokens.verdicts import GOOD, INVALID, verdict
from tests.engines import SECRET
from tests.http.wire import app_without_database, holder_of_tokens
from tests.support import Caller, problem_of

ROTATE = {"rotate": True}
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
PATH = "/.well-known/jwks.json"


class TestRing:
    def test_secret_alone_signs_both_kinds_of_token(self) -> None:
        keys = ring()

        assert keys.for_access is keys.for_refresh
        assert (keys.for_access.algorithm, keys.for_access.signer) == ("HS256", NEW.encode())
        assert keys.previous == []
        assert keys.public_keys() == []

    @each_algorithm
    def test_private_key_signs_access_tokens_only(self, algorithm: str) -> None:
        keys = ring(private=pem_of(private_key(algorithm)))

        assert keys.for_access.algorithm == algorithm
        assert not keys.for_access.is_secret
        assert keys.for_refresh.algorithm == "HS256"
        assert keys.previous == []

    def test_find_returns_a_key_by_its_exact_id(self) -> None:
        public = "".join(public_pem_of(private_key(each, 2)) for each in ALGORITHMS)
        keys = ring(private=pem_of(private_key("ES256")), public=public, previous=(OLD,))

        for key in (keys.for_access, keys.for_refresh, *keys.previous):
            assert keys.find(key.kid) is key
        assert [key.algorithm for key in keys.previous] == ["HS256", *ALGORITHMS]
        for kid in ("", "x", keys.for_access.kid.lower(), f"{keys.for_access.kid} ", NEW):
            assert keys.find(kid) is None

    def test_key_that_is_current_and_previous_counts_as_current(self) -> None:
        private = private_key("EdDSA")
        keys = ring(private=pem_of(private), public=public_pem_of(private), previous=(NEW, OLD))

        assert keys.secrets == (NEW.encode(), OLD.encode())
        assert [key.kid for key in keys.previous] == [ring(OLD).for_access.kid]
        assert keys.find(keys.for_access.kid) is keys.for_access
        assert len(keys.public_keys()) == 1

    def test_repr_contains_no_secret(self) -> None:
        settings = settings_with(
            private=pem_of(private_key("EdDSA")),
            public=public_pem_of(private_key("ES256")),
            previous=(OLD,),
        )
        keys = KeyRing(settings, NEW)
        shown = repr([settings, keys, keys.for_access, keys.for_refresh, keys.previous])

        assert keys.for_access.kid in shown
        for word in (NEW, OLD, "PRIVATE", pem_of(private_key("EdDSA")).splitlines()[1]):
            assert word not in shown


def app_with(folder: Path, **keys: Any) -> Quart:
    given = {
        name: SecretStr(each) if isinstance(each, str) else each for name, each in keys.items()
    }
    return app_without_database(folder, **given)


class TestPublishedKeys:
    async def test_key_set_is_empty_while_a_secret_signs(self, stranger: Caller) -> None:
        answer = await stranger.get(PATH)

        assert (answer.status_code, answer.body) == (200, b'{"keys":[]}')
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "public, max-age=300"

    async def test_matching_etag_gets_304(self, stranger: Caller) -> None:
        etag = (await stranger.get(PATH)).headers["ETag"]

        again = await stranger.get(PATH, headers={"If-None-Match": etag})

        assert (again.status_code, again.body) == (304, b"")
        assert again.headers["Cache-Control"] == "public, max-age=300"

    async def test_current_key_comes_first_and_no_private_member_is_published(
        self, tmp_path: Path
    ) -> None:
        public = "".join(public_pem_of(private_key(each, 2)) for each in ALGORITHMS)
        documents, etags = [], set()
        for algorithm in ALGORITHMS:
            app = app_with(
                tmp_path,
                jwt_private_key=pem_of(private_key(algorithm)),
                jwt_previous_public_keys=public,
                jwt_previous_secret_keys=(SecretStr(OLD),),
            )
            answer = await Caller(app).get(PATH)
            documents.append(answer.json["keys"])
            etags.add(answer.headers["ETag"])
            assert SECRET.get_secret_value() not in answer.body.decode()

            kid = auth(app).signing_keys.for_access.kid
            assert [key["alg"] for key in answer.json["keys"]] == [algorithm, *ALGORITHMS]
            assert answer.json["keys"][0]["kid"] == kid

        assert len(etags) == 3
        expected = {"use", "kid", "kty", "alg"}
        own = {"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}}
        for key in (key for document in documents for key in document):
            assert set(key) == expected | own[key["kty"]]
            assert not set(key) & PRIVATE_MEMBERS

    @each_algorithm
    async def test_stock_verifier_reads_the_key_set(self, tmp_path: Path, algorithm: str) -> None:
        app = app_with(tmp_path, jwt_private_key=pem_of(private_key(algorithm)))
        holder = await holder_of_tokens(app)
        token = str(holder.access_token)

        published = jwt.PyJWKSet.from_json((await Caller(app).get(PATH)).body.decode())
        key = published[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, key, algorithms=[algorithm], audience="catalog")

        assert claims["sub"] == "1"

    async def test_key_id_is_the_thumbprint(self, tmp_path: Path) -> None:
        app = app_with(tmp_path, jwt_private_key=pem_of(private_key("ES256")))

        (key,) = (await Caller(app).get(PATH)).json["keys"]

        members = {name: key[name] for name in ("crv", "kty", "x", "y")}
        text = json.dumps(members, sort_keys=True, separators=(",", ":"))
        digest = sha256(text.encode()).digest()
        assert key["kid"] == jwt.utils.base64url_encode(digest).decode()


def kid_of(token: str | None) -> str:
    kid: str = jwt.get_unverified_header(str(token))["kid"]
    return kid


async def verdicts(app: Quart, holder: Caller) -> tuple[tuple[int, str], tuple[int, str]]:
    """Return the responses of an app to a holder's access and refresh token."""
    return (
        await verdict(app, str(holder.access_token), "access"),
        await verdict(app, str(holder.refresh_token), "refresh"),
    )


class Instances:
    """Factory of service instances that differ in their keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, secret: str = NEW, *previous: str, **keys: str) -> Quart:
        return app_with(
            self._folder,
            jwt_secret_key=secret,
            jwt_previous_secret_keys=tuple(SecretStr(each) for each in previous),
            **keys,
        )


@pytest.fixture
def instance(tmp_path: Path) -> Instances:
    return Instances(tmp_path)


class TestRotation:
    async def test_tokens_of_the_old_secret_stay_valid_and_new_ones_use_the_new_secret(
        self, instance: Instances
    ) -> None:
        before, after = instance(OLD), instance(NEW, OLD)
        early, late = await holder_of_tokens(before), await holder_of_tokens(after)

        assert await verdicts(after, early) == (GOOD, GOOD)
        assert await verdicts(after, late) == (GOOD, GOOD)
        old, new = ring(OLD).for_access.kid, ring(NEW).for_access.kid
        assert (kid_of(early.access_token), kid_of(early.refresh_token)) == (old, old)
        assert (kid_of(late.access_token), kid_of(late.refresh_token)) == (new, new)

    async def test_token_of_a_removed_secret_is_invalid(self, instance: Instances) -> None:
        early = await holder_of_tokens(instance(OLD))

        assert await verdicts(instance(NEW), early) == (INVALID, INVALID)

    async def test_several_previous_secrets_are_accepted(self, instance: Instances) -> None:
        secrets = [f"{number}{OLD}" for number in range(5)]
        after = instance(NEW, *secrets)

        for secret in secrets:
            assert await verdicts(after, await holder_of_tokens(instance(secret))) == (GOOD, GOOD)

    async def test_rolling_upgrade_of_the_secret_refuses_no_token(
        self, instance: Instances
    ) -> None:
        steps = [instance(OLD), instance(OLD, OLD, NEW), instance(NEW, OLD, NEW), instance(NEW)]
        holders = [await holder_of_tokens(app) for app in steps[:3]]

        # During the upgrade, instances of two neighbouring steps serve side by side.
        for app, holder in [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2)]:
            assert await verdicts(steps[app], holders[holder]) == (GOOD, GOOD), (app, holder)
        # The order matters: the first instances do not know the new secret.
        assert await verdicts(steps[0], holders[2]) == (INVALID, INVALID)
        assert await verdicts(steps[3], holders[1]) == (INVALID, INVALID)

    async def test_rolling_upgrade_of_the_private_key_refuses_no_token(
        self, instance: Instances
    ) -> None:
        old, new = private_key("ES256"), private_key("ES256", 2)
        both = public_pem_of(old) + public_pem_of(new)
        steps = [
            instance(jwt_private_key=pem_of(old)),
            instance(jwt_private_key=pem_of(old), jwt_previous_public_keys=both),
            instance(jwt_private_key=pem_of(new), jwt_previous_public_keys=both),
            instance(jwt_private_key=pem_of(new)),
        ]
        holders = [await holder_of_tokens(app) for app in steps[:3]]

        for app, holder in [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2), (3, 2)]:
            assert await verdicts(steps[app], holders[holder]) == (GOOD, GOOD), (app, holder)
        assert await verdicts(steps[0], holders[2]) == (INVALID, GOOD)
        assert await verdicts(steps[3], holders[1]) == (INVALID, GOOD)

    async def test_algorithm_can_be_changed_and_changed_back(self, instance: Instances) -> None:
        walk = [None, *ALGORITHMS, "RS256", None, "EdDSA", "ES256", None]
        holders: list[Caller] = []
        previous: str | None = None
        for algorithm in walk:
            keys = {}
            if algorithm:
                keys["jwt_private_key"] = pem_of(private_key(algorithm))
            if previous:
                keys["jwt_previous_public_keys"] = public_pem_of(private_key(previous))
            app = instance(**keys)
            holders.append(await holder_of_tokens(app))

            header = jwt.get_unverified_header(str(holders[-1].access_token))
            assert header["alg"] == (algorithm or "HS256")
            for holder in holders[-2:]:
                assert await verdicts(app, holder) == (GOOD, GOOD)
            if len(holders) > 2 and walk[len(holders) - 3] not in {algorithm, previous, None}:
                assert await verdicts(app, holders[-3]) == (INVALID, GOOD)
            previous = algorithm

    async def test_refresh_token_of_the_old_key_gets_an_access_token_of_the_new_key(
        self, ada: Caller, settings: Settings
    ) -> None:
        keys = {
            "jwt_secret_key": SecretStr(NEW),
            "jwt_previous_secret_keys": (SECRET,),
            "jwt_private_key": SecretStr(pem_of(private_key("EdDSA"))),
        }
        after = create_app(settings.model_copy(update=keys))
        async with after.test_app():
            answer = await Caller(after).post("/api/auth/refresh", token=ada.refresh_token)
            token = answer.json["access_token"]
            mine = await Caller(after).get("/api/products/my", token=token)

        assert jwt.get_unverified_header(token)["alg"] == "EdDSA"
        assert mine.status_code == 200

    async def test_refresh_token_has_one_successor_on_every_instance(
        self, ada: Caller, settings: Settings
    ) -> None:
        keys = {"jwt_secret_key": SecretStr(NEW), "jwt_previous_secret_keys": (SECRET,)}
        after = create_app(settings.model_copy(update=keys))
        async with after.test_app():
            rotated = [
                (await each.post("/api/auth/refresh", token=ada.refresh_token, json=ROTATE)).json
                for each in (ada, Caller(after), ada)
            ]
            successors = [str(answer["refresh_token"]) for answer in rotated]
            once_more = await Caller(after).post("/api/auth/refresh", token=successors[0])

        assert successors[0] == successors[2]
        assert kid_of(successors[0]) == kid_of(ada.refresh_token)
        assert kid_of(successors[1]) == ring(NEW).for_refresh.kid
        # The tokens are signed by different keys and have the same claims.
        assert successors[0].split(".")[1] == successors[1].split(".")[1]
        assert once_more.status_code == 200

    async def test_cursor_stays_valid_across_a_rotation(
        self, ada: Caller, settings: Settings
    ) -> None:
        for number in range(3):
            await ada.create_product(f"Lamp {number}")
        page = (await ada.get("/api/products?limit=1", token="")).json
        keys = {"jwt_secret_key": SecretStr(NEW), "jwt_previous_secret_keys": (SECRET,)}
        during = create_app(settings.model_copy(update=keys))
        keys = {"jwt_secret_key": SecretStr(NEW), "jwt_previous_secret_keys": ()}
        after = create_app(settings.model_copy(update=keys))

        names = [page["products"][0]["name"]]
        async with during.test_app(), after.test_app():
            forgotten = await Caller(after).get(page["next"])
            page = (await Caller(during).get(page["next"])).json
            names.append(page["products"][0]["name"])
            # The next cursor is signed with the new secret already.
            page = (await Caller(after).get(page["next"])).json
            names.append(page["products"][0]["name"])

        assert problem_of(forgotten) == (400, "cursor-invalid")
        assert names == ["Lamp 2", "Lamp 1", "Lamp 0"]
