"""Signing keys: their ids, the accepted formats, and the published key set."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr
from quart import Quart
from sqlalchemy import URL

from catalog.app import create_app
from catalog.auth.context import auth
from catalog.auth.keys import KeyRing, existing_secret, signing_secret
from catalog.errors import SettingsInvalid, StartFailed
from catalog.settings import Settings
from tests.auth.keys import ALGORITHMS, pem_of, private_key, public_pem_of
from tests.auth.test_tokens import GOOD, INVALID, verdict
from tests.engines import SECRET, settings_for
from tests.http.wire import app_without_database, holder_of_tokens
from tests.support import Caller, problem_of

NOWHERE = URL.create("sqlite+aiosqlite", database="/nonexistent/catalog.db")
NEW = "4c9b0e8ffd2f60a3f6d63b2d7b6f1f2c8a55d1c2b7e94f0a"
OLD = "b1946ac92492d2347c6235b4d2611184f9f0a8a5d2c0d9be"

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def settings_with(
    *, private: str | None = None, public: str | None = None, previous: tuple[str, ...] = ()
) -> Settings:
    return settings_for(
        NOWHERE,
        jwt_private_key=None if private is None else SecretStr(private),
        jwt_previous_public_keys=None if public is None else SecretStr(public),
        jwt_previous_secret_keys=tuple(SecretStr(each) for each in previous),
    )


def ring(secret: str = NEW, **keys: Any) -> KeyRing:
    return KeyRing(settings_with(**keys), secret)


def fault_of(**keys: str) -> str:
    with pytest.raises(SettingsInvalid) as refused:
        ring(**keys)
    (fault,) = refused.value.faults
    return fault


def public_pem_from(**members: str) -> str:
    """Convert a JSON Web Key to a public key in PEM."""
    key: Any = jwt.PyJWK(members).key
    raw: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw.decode()


class TestKeyId:
    def test_id_of_a_secret_is_the_same_on_every_instance(self) -> None:
        assert ring().for_access.kid == ring().for_access.kid

    def test_ids_of_different_keys_differ(self) -> None:
        kids = [ring(secret).for_access.kid for secret in (NEW, OLD, NEW + "x", NEW[:-1])]
        for algorithm in ALGORITHMS:
            for number in (1, 2):
                keys = ring(private=pem_of(private_key(algorithm, number)))
                kids.append(keys.for_access.kid)

        assert len(set(kids)) == len(kids)

    def test_id_of_a_secret_is_not_its_plain_hash(self) -> None:
        # A plain hash of the secret may exist elsewhere, for comparison or storage.
        kid = ring().for_access.kid

        assert kid not in jwt.utils.base64url_encode(sha256(NEW.encode()).digest()).decode()
        assert NEW[:4] not in kid

    @pytest.mark.parametrize(
        ("members", "thumbprint"),
        [
            (
                {
                    "kty": "RSA",
                    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aP"
                    "FFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7"
                    "_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvR"
                    "L5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBn"
                    "iIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
                    "e": "AQAB",
                },
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            ),
            (
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                },
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ],
        ids=["RFC 7638, section 3.1", "RFC 8037, appendix A.3"],
    )
    def test_id_of_a_public_key_is_its_standard_thumbprint(
        self, members: dict[str, str], thumbprint: str
    ) -> None:
        keys = ring(public=public_pem_from(**members))

        assert [key.kid for key in keys.previous] == [thumbprint]

    @pytest.mark.parametrize(("number", "name"), [(379, "x"), (43, "y")])
    def test_coordinate_with_leading_zeros_keeps_its_length(self, number: int, name: str) -> None:
        private = ec.derive_private_key(number, ec.SECP256R1())
        assert getattr(private.public_key().public_numbers(), name) < 2**248

        (key,) = ring(private=pem_of(private)).public_keys()

        assert key == {
            **jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True),
            **{name: key[name] for name in ("alg", "kid", "use")},
        }
        assert len(key["x"]) == len(key["y"]) == 43


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


def openssl_style(key: Any, encoding: PrivateFormat = PrivateFormat.PKCS8) -> str:
    raw: bytes = key.private_bytes(Encoding.PEM, encoding, NoEncryption())
    return raw.decode()


TRADITIONAL = PrivateFormat.TraditionalOpenSSL

# Accepted spellings of one key.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda pem: pem,
    "without the last newline": lambda pem: pem.rstrip("\n"),
    "escaped newlines": lambda pem: pem.replace("\n", "\\n"),
    "escaped carriage returns": lambda pem: pem.replace("\n", "\\r\\n"),
    "carriage returns": lambda pem: pem.replace("\n", "\r\n"),
    "quoted": lambda pem: '"' + pem.replace("\n", "\\n") + '"',
    "explained": lambda pem: f"The key of 2026\n\n{pem}\n\nand no other\n",
    "parameters before it": lambda pem: (
        f"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}"
    ),
}

UNFIT: dict[str, Callable[[], Any]] = {
    "RSA with 1024 bits": lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505 (is refused)
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "DSA": lambda: dsa.generate_private_key(key_size=1024),  # noqa: S505 (the same)
}


def damaged(pem: str) -> str:
    """Corrupt part of a key in PEM."""
    return pem[:60] + "AAAA" + pem[64:]


ENCRYPTED = private_key("ES256").private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"Geheim")
)


class TestPrivateKey:
    @pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
    @each_algorithm
    def test_key_is_read_in_each_spelling(
        self, algorithm: str, spell: Callable[[str], str]
    ) -> None:
        private = private_key(algorithm)

        assert ring(private=spell(pem_of(private))).for_access.kid == (
            ring(private=pem_of(private)).for_access.kid
        )

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_traditional_openssl_form_is_accepted(self, algorithm: str) -> None:
        pem = openssl_style(private_key(algorithm), TRADITIONAL)

        assert " PRIVATE KEY-----" in pem
        assert ring(private=pem).for_access.algorithm == algorithm

    @pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
    def test_unsupported_key_is_refused(self, make: Callable[[], Any]) -> None:
        assert fault_of(private=pem_of(make())) == (
            "CATALOG_JWT_PRIVATE_KEY must be RSA with 2048 to 4096 bits, EC on the curve P-256, "
            "or Ed25519"
        )

    def test_oversized_rsa_key_is_refused(self) -> None:
        # From openssl genrsa 5120. Larger keys block the event loop; only the size is checked.
        modulus = jwt.utils.base64url_encode((2**5120 - 1).to_bytes(640, "big")).decode()

        fault = fault_of(public=public_pem_from(kty="RSA", n=modulus, e="AQAB"))

        assert "RSA with 2048 to 4096 bits" in fault

    def test_encrypted_key_is_refused(self) -> None:
        assert fault_of(private=ENCRYPTED.decode()) == (
            "CATALOG_JWT_PRIVATE_KEY is encrypted; decrypt it with: openssl pkey -in KEY -out PLAIN"
        )

    @pytest.mark.parametrize(
        "text",
        [
            "x",
            "-----BEGIN PRIVATE KEY-----",
            pem_of(private_key("EdDSA"))[:-30],
            pem_of(private_key("EdDSA"))[30:],
            damaged(pem_of(private_key("RS256"))),
            damaged(pem_of(private_key("ES256"))),
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\n\udc80\n-----END PRIVATE KEY-----",
            public_pem_of(private_key("EdDSA")),
            pem_of(private_key("EdDSA")) + pem_of(private_key("EdDSA", 2)),
        ],
        ids=[
            *["text", "beginning", "no end", "no beginning", "damaged RSA", "damaged EC"],
            *["empty", "not UTF-8", "public", "two"],
        ],
    )
    def test_malformed_key_is_refused_without_repeating_it(self, text: str) -> None:
        fault = fault_of(private=text)

        assert fault.startswith("CATALOG_JWT_PRIVATE_KEY ")
        assert len(fault) < 130
        for line in text.splitlines():
            assert "-----" in line or len(line) < 2 or line not in fault

    def test_all_faults_are_reported_at_once(self) -> None:
        with pytest.raises(SettingsInvalid) as refused:
            ring(private="x", public="y")

        assert [fault.split()[0] for fault in refused.value.faults] == [
            "CATALOG_JWT_PRIVATE_KEY",
            "CATALOG_JWT_PREVIOUS_PUBLIC_KEYS",
        ]

    def test_service_does_not_start_with_a_malformed_key(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsInvalid, match="CATALOG_JWT_PRIVATE_KEY"):
            app_without_database(tmp_path, jwt_private_key=SecretStr("x"))


class TestPreviousPublicKeys:
    def test_keys_are_read_one_after_the_other(self) -> None:
        pems = [public_pem_of(private_key(each)) for each in ALGORITHMS]

        for text in ("".join(pems), "\n# Retired in May.\n".join(pems).replace("\n", "\\n")):
            assert [key.algorithm for key in ring(public=text).previous] == list(ALGORITHMS)

    def test_pkcs1_form_is_accepted(self) -> None:
        raw = private_key("RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)

        assert ring(public=raw.decode()).previous[0].algorithm == "RS256"

    @pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
    def test_unsupported_key_is_refused_by_its_number(self, make: Callable[[], Any]) -> None:
        fault = fault_of(public=public_pem_of(private_key("EdDSA")) + public_pem_of(make()))

        assert fault == (
            "CATALOG_JWT_PREVIOUS_PUBLIC_KEYS must be RSA with 2048 to 4096 bits, EC on the curve "
            "P-256, or Ed25519: see block 2"
        )

    @pytest.mark.parametrize(
        "text",
        [
            "x",
            pem_of(private_key("EdDSA")),
            public_pem_of(private_key("EdDSA")) + pem_of(private_key("EdDSA")),
            public_pem_of(private_key("EdDSA"))[:-20],
            public_pem_of(private_key("EdDSA")) + public_pem_of(private_key("ES256"))[:-20],
            damaged(public_pem_of(private_key("ES256"))),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ],
        ids=[
            *["text", "private", "public and private", "no end", "no end of the second"],
            *["damaged", "certificate"],
        ],
    )
    def test_malformed_key_is_refused_without_repeating_it(self, text: str) -> None:
        fault = fault_of(public=text)

        assert fault.startswith("CATALOG_JWT_PREVIOUS_PUBLIC_KEYS ")
        assert all(
            "-----" in line or line not in fault for line in text.splitlines() if line != "x"
        )

    def test_private_key_is_reported_as_misplaced(self) -> None:
        pem = public_pem_of(private_key("EdDSA")) + pem_of(private_key("EdDSA"))

        assert "only public keys, but block 2 is something else" in fault_of(public=pem)


ROTATE = {"rotate": True}
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
PATH = "/.well-known/jwks.json"


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

            kid = auth(app).keys.for_access.kid
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
            await ada.offer(f"Lamp {number}")
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


# Forks eight children, which block on a pipe until all of them have started.
EIGHT_AT_ONCE = """
import os, sys
from catalog.auth.keys import signing_secret
from catalog.settings import Settings

settings = Settings(database_url=sys.argv[1])
gate, opener = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        os.close(opener)
        os.read(gate, 1)
        os.write(1, signing_secret(settings).encode() + b"\\n")
        os._exit(0)
os.close(opener)
for _ in range(8):
    assert os.wait()[1] == 0
"""


class TestSigningSecret:
    @staticmethod
    def settings(folder: Path) -> Settings:
        url = URL.create("sqlite+aiosqlite", database=str(folder / "catalog.db"))
        return Settings(database_url=url)

    def test_secret_from_the_settings_is_used(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path).model_copy(update={"jwt_secret_key": SECRET})

        assert signing_secret(settings) == SECRET.get_secret_value()
        assert list(tmp_path.iterdir()) == []

    def test_secret_is_created_once_and_readable_by_its_owner_alone(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path / "var")

        first = signing_secret(settings)
        second = signing_secret(settings)

        (file,) = (tmp_path / "var").iterdir()
        assert first == second == file.read_text()
        assert len(bytes.fromhex(first)) == 32
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_file_mode_does_not_depend_on_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            signing_secret(self.settings(tmp_path))
        finally:
            os.umask(before)

        assert stat.S_IMODE((tmp_path / "jwt_secret_key").stat().st_mode) == 0o600

    def test_each_folder_has_its_own_secret(self, tmp_path: Path) -> None:
        secrets = {signing_secret(self.settings(tmp_path / name)) for name in "abc"}

        assert len(secrets) == 3

    @pytest.mark.parametrize("attempt", range(10))
    def test_threads_that_start_at_once_share_the_secret(
        self, tmp_path: Path, attempt: int
    ) -> None:
        settings = self.settings(tmp_path / str(attempt))
        ready = Barrier(8)

        def start(_: int) -> str:
            ready.wait()
            return signing_secret(settings)

        with ThreadPoolExecutor(8) as threads:
            secrets = set(threads.map(start, range(8)))

        assert len(secrets) == 1
        assert [file.name for file in (tmp_path / str(attempt)).iterdir()] == ["jwt_secret_key"]

    def test_processes_that_start_at_once_share_the_secret(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", EIGHT_AT_ONCE, f"sqlite:///{tmp_path}/catalog.db"]

        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout

        assert output.splitlines() == [(tmp_path / "jwt_secret_key").read_text()] * 8
        assert [file.name for file in tmp_path.iterdir()] == ["jwt_secret_key"]

    @pytest.mark.parametrize(
        "content",
        [b"", b"short", b"\xff" * 64, b"\n" * 64],
        ids=["empty", "short", "binary", "blank"],
    )
    def test_file_without_a_valid_secret_is_not_used(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "jwt_secret_key").write_bytes(content)

        with pytest.raises(StartFailed):
            signing_secret(self.settings(tmp_path))

    def test_folder_that_is_a_file_is_reported_as_not_writable(self, tmp_path: Path) -> None:
        (tmp_path / "var").write_text("a file")

        with pytest.raises(StartFailed, match="cannot be written"):
            signing_secret(self.settings(tmp_path / "var"))

    def test_trailing_newline_is_not_part_of_the_secret(self, tmp_path: Path) -> None:
        (tmp_path / "jwt_secret_key").write_text("k" * 40 + "\n")

        assert signing_secret(self.settings(tmp_path)) == "k" * 40

    def test_existing_secret_creates_none(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path)

        assert existing_secret(settings) is None
        assert list(tmp_path.iterdir()) == []
        made = signing_secret(settings)
        assert existing_secret(settings) == made
