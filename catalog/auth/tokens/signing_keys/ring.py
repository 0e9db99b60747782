"""The service's keys: which sign, and which are still accepted while keys are rotated."""

from catalog.auth.tokens.signing_keys.formats import (
    Key,
    load_private_key,
    load_public_keys,
    secret_key,
)
from catalog.errors import SettingsInvalid
from catalog.settings import Settings


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
        secrets = [secret_key(each) for each in (secret, *previous)]
        faults = []
        private_key, public_keys = None, []
        if settings.jwt_private_key is not None:
            try:
                private_key = load_private_key(settings.jwt_private_key.get_secret_value())
            except ValueError as fault:
                faults.append(f"CATALOG_JWT_PRIVATE_KEY {fault}")
        if settings.jwt_previous_public_keys is not None:
            try:
                bundle = settings.jwt_previous_public_keys.get_secret_value()
                public_keys = load_public_keys(bundle)
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
        return [key.to_jwk() for key in self._keys.values() if not key.is_secret]
