"""AUTH_MODE=jwt: a signed token (RFC 7519) of an identity provider names the user. Only this module imports PyJWT.

The algorithm of a signature follows from the key, never from the token's header.
"""

import logging
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
ALGORITHMS: Final = {
    ("RSA", "RSA"): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
"""By `kty` and curve (RFC 7518, RFC 8037). One key never verifies both signatures and MACs."""

log = logging.getLogger(__name__)


class Key(NamedTuple):
    algorithms: tuple[str, ...]
    key: Any

    def __repr__(self) -> str:
        return f"Key({self.algorithms!r})"


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
                algorithms=key.algorithms,
                audience=self._claims.audience or None,  # With None, PyJWT rejects a token that has an audience.
                issuer=self._claims.issuer or None,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            # Only the error's type: its text may repeat the token's content.
            raise Unauthorized(detail=f"a token was refused: {type(error).__name__}") from None


class KeySet(NamedTuple):
    keys: dict[str, Key]
    """By key id."""
    unusable: tuple[str, ...]
    """One sentence for each key that cannot verify signatures although it is published for that."""


class JWKSParser:
    """Parses a key set that is fetched again and again. Logs its unusable keys, once until they change."""

    def __init__(self) -> None:
        self._logged: tuple[str, ...] = ()

    def __call__(self, content: Mapping[str, Any]) -> dict[str, Key]:
        keys, unusable = parse_jwks(content)
        if unusable != self._logged:
            self._logged = unusable
            for message in unusable:
                log.warning("AUTH_JWT_JWKS_URL: %s", message)
        return keys


def parse_jwks(content: Mapping[str, Any]) -> KeySet:
    """The signing keys of a JSON Web Key Set (RFC 7517). Keys for other purposes than signatures are skipped.

    Symmetric keys are never accepted: a published one is public.
    """
    keys: dict[str, Key] = {}
    unusable = []
    jwks = content.get("keys")
    for jwk in jwks[:MAX_KEYS] if isinstance(jwks, list) else ():
        if isinstance(jwk, dict) and not _is_for_signatures(jwk):
            continue
        try:
            key_id, key = _parse_jwk(jwk)
            if key_id in keys:
                raise UnusableKey("has the id of another key")
            keys[key_id] = key
        except UnusableKey as error:
            unusable.append(f"The key {_describe(jwk)} {error}.")
    if isinstance(jwks, list) and len(jwks) > MAX_KEYS:
        unusable.append(f"Only the first {MAX_KEYS} of {len(jwks)} keys are used.")
    return KeySet(keys, tuple(unusable))


class UnusableKey(Exception):
    """Its text is a predicate, to follow the name of the key."""


def _is_for_signatures(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops")
    return jwk.get("use", "sig") == "sig" and (not isinstance(operations, list) or "verify" in operations)


def _parse_jwk(jwk: Any) -> tuple[str, Key]:
    """The key with its id. Raises UnusableKey."""
    if not isinstance(jwk, dict):
        raise UnusableKey("is not an object")
    if "d" in jwk:
        raise UnusableKey("is private, and compromised because it is published")
    algorithms = _algorithms(jwk)
    try:
        key = jwt.PyJWK(jwk, algorithms[0]).key
    except (jwt.PyJWTError, ValueError, TypeError):
        raise UnusableKey("is incomplete or malformed") from None
    if isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS:
        raise UnusableKey(f"has {key.key_size} bits instead of {RSA_BITS[0]} to {RSA_BITS[-1]}")
    return str(jwk.get("kid", "")), Key(algorithms, key)


def _algorithms(jwk: Mapping[str, Any]) -> tuple[str, ...]:
    """What the key may verify: its `alg` if it names one, else all that its type and curve allow. Raises UnusableKey."""
    family = str(jwk.get("kty"))
    if family != "RSA":
        family = str(jwk.get("crv"))
    algorithms = ALGORITHMS.get((str(jwk.get("kty")), family), ())
    if not algorithms:
        raise UnusableKey("has an unsupported type or curve")
    named = jwk.get("alg")
    if named is not None and named not in algorithms:
        raise UnusableKey(f"is for an algorithm other than {', '.join(algorithms)}")
    return algorithms if named is None else (named,)


def _describe(jwk: Any) -> str:
    """Id, type, curve and algorithm, as far as they are given. Never the key itself."""
    if not isinstance(jwk, dict):
        return "without fields"
    shown = [ascii(jwk[name])[:40] for name in ("kty", "crv", "alg") if isinstance(jwk.get(name), str)]
    return f"{ascii(jwk.get('kid', ''))[:80]} ({', '.join(shown)})"
