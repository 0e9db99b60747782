"""Keys that sign and verify tokens, loaded once at start-up.

A token's ``kid`` selects its key, and the key alone determines the algorithm (RFC 8725, section
3.1); the token's ``alg`` never selects one.
"""

import hmac
import os
import re
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from catalog.errors import SettingsInvalid, StartFailed
from catalog.settings import MIN_SECRET_BYTES, Settings

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

SYMMETRIC = "HS256"

MIN_RSA_BITS = 2048
"""Minimum of RFC 7518, section 3.3."""

MAX_RSA_BITS = 4096
"""A signature with a longer key blocks the event loop for tens of milliseconds."""

_FITTING = f"RSA with {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, EC on the curve P-256, or Ed25519"

_PEM_BLOCK = re.compile(r"-----BEGIN ([^-]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """Key that verifies tokens.

    Attributes:
        kid: the key's id, which tokens carry; reveals nothing about a secret.
        algorithm: the only algorithm that the key is used with.
        verifier: a secret's bytes, or a public key.
    """

    kid: str
    algorithm: str
    verifier: bytes | PublicKey = field(repr=False)

    @property
    def is_secret(self) -> bool:
        """Whether the key is symmetric, so that it signs as well as verifies."""
        return isinstance(self.verifier, bytes)


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey(Key):
    """Key that also signs tokens.

    Attributes:
        signer: the bytes of the same secret, or the private key.
    """

    signer: bytes | PrivateKey = field(repr=False)


class KeyRing:
    """Keys of the service: the signing keys, and the previous keys that are still accepted.

    Access tokens are signed with the private key if there is one. Refresh tokens are always
    signed with the secret: only this service reads them, and signing the same claims twice must
    give the same token, which ECDSA does not.

    Args:
        settings: the settings with the other keys.
        secret: the current secret, from ``signing_secret``.

    Attributes:
        for_access: the key that signs access tokens.
        for_refresh: the key that signs refresh tokens.
        secrets: all secrets, the current one first.

    Raises:
        SettingsInvalid: a key is unusable; the message never repeats any of it.
    """

    def __init__(self, settings: Settings, secret: str) -> None:
        previous = [key.get_secret_value() for key in settings.jwt_previous_secret_keys]
        secrets = [_secret_key(each) for each in (secret, *previous)]
        faults = []
        private_key, public_keys = None, []
        if settings.jwt_private_key is not None:
            try:
                private_key = _load_private_key(settings.jwt_private_key.get_secret_value())
            except ValueError as fault:
                faults.append(f"CATALOG_JWT_PRIVATE_KEY {fault}")
        if settings.jwt_previous_public_keys is not None:
            try:
                bundle = settings.jwt_previous_public_keys.get_secret_value()
                public_keys = _load_public_keys(bundle)
            except ValueError as fault:
                faults.append(f"CATALOG_JWT_PREVIOUS_PUBLIC_KEYS {fault}")
        if faults:
            raise SettingsInvalid(faults)
        self.for_refresh = secrets[0]
        self.for_access = private_key or secrets[0]
        # The first key of a kid wins: the current key may be listed among the previous ones too.
        self._keys: dict[str, Key] = {}
        for key in (self.for_access, *secrets, *public_keys):
            self._keys.setdefault(key.kid, key)
        # Deduplicated, since a secret may be listed twice.
        signers = (key.signer for key in secrets if isinstance(key.signer, bytes))
        self.secrets = tuple(dict.fromkeys(signers))

    @property
    def previous(self) -> list[Key]:
        """Keys that only verify."""
        signing = (self.for_access, self.for_refresh)
        return [key for key in self._keys.values() if key not in signing]

    def find(self, kid: str) -> Key | None:
        """Return the key with this id, or None."""
        return self._keys.get(kid)

    def public_keys(self) -> list[dict[str, str]]:
        """Return each public key as a JSON Web Key (RFC 7517), the current one first."""
        return [
            {
                **_members_of(key.verifier),
                "use": "sig",
                "alg": key.algorithm,
                "kid": key.kid,
            }
            for key in self._keys.values()
            if not isinstance(key.verifier, bytes)
        ]


def _separated(purpose: str) -> bytes:
    # Domain separation: the signing input of a token never contains a space.
    return f"catalog {purpose}".encode()


def _text_of(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _secret_key(secret: str) -> SigningKey:
    key = secret.encode()
    kid = _text_of(hmac.digest(key, _separated("kid 1"), sha256)[:16])
    return SigningKey(kid, SYMMETRIC, verifier=key, signer=key)


def _members_of(key: PublicKey) -> dict[str, str]:
    """Return the members of a JSON Web Key that define it (RFC 7518, section 6; RFC 8037)."""
    if isinstance(key, RSAPublicKey):
        rsa = key.public_numbers()
        return {"kty": "RSA", "n": _number(rsa.n), "e": _number(rsa.e)}
    if isinstance(key, EllipticCurvePublicKey):
        point = key.public_numbers()
        x, y = (_text_of(each.to_bytes(32, "big")) for each in (point.x, point.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    return {"kty": "OKP", "crv": "Ed25519", "x": _text_of(key.public_bytes_raw())}


def _number(value: int) -> str:
    return _text_of(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _thumbprint(key: PublicKey) -> str:
    """Return the JWK thumbprint of a public key (RFC 7638)."""
    return _text_of(sha256(orjson.dumps(_members_of(key), option=orjson.OPT_SORT_KEYS)).digest())


def _public_key(key: object) -> Key:
    """Wrap a public key of a supported type and size.

    Raises:
        ValueError: its type or size is not supported.
    """
    match key:
        case RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            algorithm = "RS256"
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            algorithm = "ES256"
        case Ed25519PublicKey():
            algorithm = "EdDSA"
        case _:
            raise ValueError(f"must be {_FITTING}")
    return Key(_thumbprint(key), algorithm, verifier=key)


def _blocks_of(text: str) -> list[tuple[str, bytes]]:
    """Return the blocks of a PEM text, each with its label (RFC 7468).

    Raises:
        ValueError: a block has no end.
    """
    # Environment files and most dashboards cannot hold a newline, so it may be written as \n.
    text = text.replace("\\r", "").replace("\\n", "\n")
    blocks = [(match[1], match[0].encode(errors="replace")) for match in _PEM_BLOCK.finditer(text)]
    if len(blocks) != text.count("-----BEGIN "):
        raise ValueError("is damaged: a PEM block has no END line")
    return blocks


def _load_private_key(text: str) -> SigningKey:
    """Load a private key.

    Raises:
        ValueError: it is unusable; gives the reason.
    """
    blocks = [block for label, block in _blocks_of(text) if label.endswith("PRIVATE KEY")]
    if len(blocks) != 1:
        raise ValueError(
            "must contain one private key in PEM; "
            "generate one with: openssl genpkey -algorithm ed25519"
        )
    try:
        private = load_pem_private_key(blocks[0], password=None)
    except TypeError:
        raise ValueError("is encrypted; decrypt it with: openssl pkey -in KEY -out PLAIN") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is damaged or of an unsupported type") from None
    if not isinstance(private, PrivateKey):
        raise ValueError(f"must be {_FITTING}")
    public = _public_key(private.public_key())
    return SigningKey(public.kid, public.algorithm, public.verifier, signer=private)


def _load_public_keys(text: str) -> list[Key]:
    """Load a bundle of public keys.

    Raises:
        ValueError: a key is unusable; gives its number and the reason.
    """
    blocks = _blocks_of(text)
    if not blocks:
        raise ValueError(
            "contains no public key in PEM; extract it with: openssl pkey -in KEY -pubout"
        )
    keys = []
    for number, (label, block) in enumerate(blocks, start=1):
        # A private key would serve as well, but must not be kept in this setting.
        if not label.endswith("PUBLIC KEY"):
            raise ValueError(
                f"must contain only public keys, but block {number} is something else; "
                "extract a public key with: openssl pkey -in KEY -pubout"
            )
        try:
            public = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError(
                f"has a key that is damaged or of an unsupported type in block {number}"
            ) from None
        try:
            keys.append(_public_key(public))
        except ValueError as fault:
            raise ValueError(f"{fault}: see block {number}") from None
    return keys


def signing_secret(settings: Settings) -> str:
    """Return the secret from the settings or, in development, one generated once and kept on disk.

    If several processes generate one concurrently, all return the one that was written first.

    Raises:
        StartFailed: the kept secret cannot be read or written.
    """
    secret = existing_secret(settings)
    if secret is not None:
        return secret
    path = _kept_at(settings)
    try:
        _keep(path, token_hex(MIN_SECRET_BYTES))
    except OSError as error:
        raise StartFailed(f"The signing key cannot be written to {path}: {error}.") from None
    return _kept_secret(path)


def existing_secret(settings: Settings) -> str | None:
    """Return the secret from the settings, or the one kept on disk if there is one already.

    Raises:
        StartFailed: the kept secret cannot be read.
    """
    if settings.jwt_secret_key is not None:
        return settings.jwt_secret_key.get_secret_value()
    path = _kept_at(settings)
    return _kept_secret(path) if path.exists() else None


def _kept_at(settings: Settings) -> Path:
    return settings.data_dir / "jwt_secret_key"


def _kept_secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartFailed(f"The signing key cannot be read from {path}: {error}.") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise StartFailed(f"The signing key in {path} is too short; delete the file.")
    return secret


def _keep(path: Path, secret: str) -> None:
    """Write a secret atomically, readable by this user only, unless the file exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
    try:
        # A link, unlike a rename, never replaces a file that another process wrote first.
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
