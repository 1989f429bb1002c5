"""The authenticator of AUTH_MODE."""

from typing import TYPE_CHECKING

from bff.auth.anonymous import Anonymous
from bff.auth.identity import Authenticator
from bff.auth.orgs import Orgs
from bff.auth.proxy import Proxy
from bff.config.settings import Settings

if TYPE_CHECKING:
    from bff.auth.jwt import JWT


def create_authenticator(settings: Settings) -> Authenticator:
    """Raises SettingsError."""
    orgs = Orgs(settings.default_org, settings.org_map_file)
    if settings.auth_mode == "jwt":
        return _jwt(settings, orgs)
    if settings.auth_mode == "proxy":
        return Proxy(settings.auth_proxy_user_header, settings.auth_proxy_secret, orgs)
    return Anonymous(settings.signing_key(), orgs)


def _jwt(settings: Settings, orgs: Orgs) -> "JWT":
    from bff.auth.jwks import FixedKey, JWKSCache, Keys
    from bff.auth.jwt import JWT, Claims, JWKSParser, Key  # Imports a cryptography library, which only this mode needs.
    from bff.upstream.http import read_url, session_for

    keys: Keys[Key]
    if url := settings.auth_jwt_jwks_url:
        session, timeout = session_for(settings), settings.upstream_connect_seconds
        parse = JWKSParser()
        keys = JWKSCache(lambda: parse(read_url(session, url, timeout)))
    else:
        keys = FixedKey(Key(("HS256",), settings.auth_jwt_secret))
    claims = Claims(
        settings.auth_jwt_audience, settings.auth_jwt_issuer, settings.auth_jwt_user_claim, settings.auth_jwt_org_claim
    )
    return JWT(keys, claims, cookie=settings.auth_jwt_cookie, orgs=orgs)
