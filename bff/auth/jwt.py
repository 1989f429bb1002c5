"""Who is asking, by a signed token (RFC 7519) that somebody else issued. The one door of PyJWT.

Which algorithm a token was signed with is our knowledge of the key, and never the token's word.
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
"""How far the issuer's clock may be from ours."""
TOKEN_MAX: Final = 8192
KEYS_MAX: Final = 100
RSA_BITS: Final = range(2048, 8193)
"""Fewer can be broken; more take the processor longer than a request may."""
ALGORITHMS: Final = {"RSA": "RS256", "EC": "ES256"}


class Key(NamedTuple):
    algorithm: str
    key: Any

    def __repr__(self) -> str:
        return f"Key({self.algorithm!r})"


class Claims(NamedTuple):
    """What a token must say, and where it says who its user is."""

    audience: str
    issuer: str
    user: str = "sub"
    org: str = "org"


class JWT:
    """The token is in `Authorization: Bearer`, or in a cookie where there is no such header."""

    def __init__(self, keys: Keys[Key], claims: Claims, *, cookie: str, orgs: Orgs) -> None:
        self._keys = keys
        self._claims = claims
        self._cookie = cookie
        self._orgs = orgs

    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        said = self._verified(self._token(headers, cookies))
        user_id, org = validate_user_id(said.get(self._claims.user)), said.get(self._claims.org)
        return Identity(user_id, self._orgs.org_of(user_id, org if isinstance(org, str) else ""))

    def _token(self, headers: Fields, cookies: Fields) -> str:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if not scheme and self._cookie:
            return cookies.get(self._cookie, "")
        return token.strip() if scheme.lower() == "bearer" else ""

    def _verified(self, token: str) -> dict[str, Any]:
        if not token or len(token) > TOKEN_MAX:
            raise Unauthorized
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.find(str(header.get("kid", "")))
            if key is None or "crit" in header:  # What is critical there we would have to understand.
                raise Unauthorized(detail="a token whose key or whose critical header nobody knows")
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._claims.audience or None,  # Then a token that names one is not for us either.
                issuer=self._claims.issuer or None,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            # Its text may repeat what the token says.
            raise Unauthorized(detail=f"a token was refused: {type(error).__name__}") from None


def keys_of(content: Mapping[str, Any]) -> dict[str, Key]:
    """The keys of a JSON Web Key Set (RFC 7517) that may sign tokens, by their names; others are left out.

    A symmetric key is never one of them: it would be public.
    """
    keys: dict[str, Key] = {}
    listed = content.get("keys")
    for jwk in listed[:KEYS_MAX] if isinstance(listed, list) else ():
        if isinstance(jwk, dict) and (key := _key_of(jwk)) is not None:
            keys.setdefault(str(jwk.get("kid", "")), key)
    return keys


def _key_of(jwk: dict[str, Any]) -> Key | None:
    algorithm = ALGORITHMS.get(str(jwk.get("kty")))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    if "d" in jwk or (algorithm == "ES256" and jwk.get("crv") != "P-256"):
        return None  # A private key that is published signs nothing any more.
    try:
        key = jwt.PyJWK(jwk, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS:
        return None
    return Key(algorithm, key)
