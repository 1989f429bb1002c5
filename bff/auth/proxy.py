"""AUTH_MODE=proxy: a proxy in front of us signs users in and sends the user id in a header, with a shared secret."""

import hmac

from bff.auth.identity import Identity, validate_user_id
from bff.auth.orgs import Orgs
from bff.errors import Forbidden, Unauthorized
from bff.http import header_text
from bff.http.tracing import Fields


class Proxy:
    def __init__(self, user_header: str, secret: str, orgs: Orgs) -> None:
        self._user_header = user_header
        self._secret = secret.encode()
        self._orgs = orgs

    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        proxy_secret = headers.get("X-Proxy-Secret", "").encode("utf-8", "replace")
        if not hmac.compare_digest(proxy_secret, self._secret):
            raise Forbidden("This address is reached through its proxy only.")
        user_id = validate_user_id(_user_id(headers.get(self._user_header, "")))
        return Identity(user_id, self._orgs.org_of(user_id))


def _user_id(header: str) -> str:
    try:
        return header_text.decode(header)
    except UnicodeError:
        raise Unauthorized("This user id is not supported: it must be UTF-8.") from None
