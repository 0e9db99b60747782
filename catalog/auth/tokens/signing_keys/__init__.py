"""Keys that sign and verify tokens, loaded once at start-up.

A token's ``kid`` selects its key, and the key alone determines the algorithm (RFC 8725, section
3.1); the token's ``alg`` never selects one.
"""

from catalog.auth.tokens.signing_keys.formats import Key
from catalog.auth.tokens.signing_keys.kept_secret import existing_secret, signing_secret
from catalog.auth.tokens.signing_keys.ring import KeyRing

__all__ = ["Key", "KeyRing", "existing_secret", "signing_secret"]
