"""AUTH_MODE=anonymous: each browser is a user of its own, identified by a signed cookie."""

import secrets

from itsdangerous import BadSignature, URLSafeSerializer

from bff.auth.identity import COOKIE, Identity, validate_user_id
from bff.auth.orgs import Orgs
from bff.http.tracing import Fields


class Anonymous:
    def __init__(self, secret_key: str, orgs: Orgs) -> None:
        # The salt is part of every cookie's signature: with another one, all users would be new ones.
        self._signer = URLSafeSerializer(secret_key, salt="bff.identity.anonymous")
        self._orgs = orgs

    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        try:
            user_id = self._signer.loads(cookies.get(COOKIE, ""))
        except BadSignature:
            user_id = f"anonymous-{secrets.token_hex(16)}"
            return Identity(user_id, self._orgs.org_of(user_id), new_cookie=str(self._signer.dumps(user_id)))
        user_id = validate_user_id(user_id)
        return Identity(user_id, self._orgs.org_of(user_id))
