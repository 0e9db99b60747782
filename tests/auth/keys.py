"""Keys for tests: made once, because a new RSA key takes a while."""

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr

ALGORITHMS = ("RS256", "ES256", "EdDSA")


@cache
def private_key(algorithm: str, number: int = 1) -> Any:
    """A private key for an algorithm; another number is another key."""
    assert number
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def pem_of(key: Any) -> str:
    """A private key as ``openssl genpkey`` writes it."""
    raw: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return raw.decode()


def public_pem_of(key: Any) -> str:
    """The public half of a private key as ``openssl pkey -pubout`` writes it."""
    raw: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw.decode()


def secret(text: str) -> SecretStr:
    """A value as settings take it."""
    return SecretStr(text)
