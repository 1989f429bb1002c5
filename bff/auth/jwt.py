"""AUTH_MODE=jwt: a signed token (RFC 7519) of an identity provider names the user. Only this module imports PyJWT.

The algorithm of a signature follows from the key, never from the token's header.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from bff.auth.identity import Identity, validate_user_id
from bff.auth.jwks import Keys
from bff.auth.orgs import Orgs
from bff.errors import Unauthorized
from bff.http.tracing import Fields

LEEWAY_SECONDS: Final = 30
"""Tolerated difference between the issuer's clock and ours."""
MAX_TOKEN_CHARACTERS: Final = 8192
MAX_KEYS: Final = 100
RSA_BITS: Final = range(2048, 8193)
"""Shorter keys can be broken; longer ones take too much CPU time per request."""
ALGORITHMS: Final = {"RSA": "RS256", "EC": "ES256"}


class Key(NamedTuple):
    algorithm: str
    key: Any

    def __repr__(self) -> str:
        return f"Key({self.algorithm!r})"


class Claims(NamedTuple):
    """The required audience and issuer ("" for any), and the names of the claims that hold the user id and the org."""

    audience: str
    issuer: str
    user: str = "sub"
    org: str = "org"


class JWT:
    """The token is sent as `Authorization: Bearer`, or in a cookie if there is no such header."""

    def __init__(self, keys: Keys[Key], claims: Claims, *, cookie: str, orgs: Orgs) -> None:
        self._keys = keys
        self._claims = claims
        self._cookie = cookie
        self._orgs = orgs

    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        payload = self._verify(self._token(headers, cookies))
        user_id, org = validate_user_id(payload.get(self._claims.user)), payload.get(self._claims.org)
        return Identity(user_id, self._orgs.org_of(user_id, org if isinstance(org, str) else ""))

    def _token(self, headers: Fields, cookies: Fields) -> str:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if not scheme and self._cookie:
            return cookies.get(self._cookie, "")
        return token.strip() if scheme.lower() == "bearer" else ""

    def _verify(self, token: str) -> dict[str, Any]:
        if not token or len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthorized
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.find(str(header.get("kid", "")))
            if key is None or "crit" in header:  # RFC 7515, 4.1.11: reject critical extensions that are not understood.
                raise Unauthorized(detail="the token has an unknown key or a critical header")
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._claims.audience or None,  # With None, PyJWT rejects a token that has an audience.
                issuer=self._claims.issuer or None,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            # Only the error's type: its text may repeat the token's content.
            raise Unauthorized(detail=f"a token was refused: {type(error).__name__}") from None


def parse_jwks(content: Mapping[str, Any]) -> dict[str, Key]:
    """The signing keys of a JSON Web Key Set (RFC 7517) by key id; unusable ones are skipped.

    Symmetric keys are never accepted: a published one is public.
    """
    keys: dict[str, Key] = {}
    jwks = content.get("keys")
    for jwk in jwks[:MAX_KEYS] if isinstance(jwks, list) else ():
        if isinstance(jwk, dict) and (key := _parse_jwk(jwk)) is not None:
            keys.setdefault(str(jwk.get("kid", "")), key)
    return keys


def _parse_jwk(jwk: dict[str, Any]) -> Key | None:
    algorithm = ALGORITHMS.get(str(jwk.get("kty")))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    if "d" in jwk or (algorithm == "ES256" and jwk.get("crv") != "P-256"):
        return None  # "d": a private key, which is compromised once published.
    try:
        key = jwt.PyJWK(jwk, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS:
        return None
    return Key(algorithm, key)
