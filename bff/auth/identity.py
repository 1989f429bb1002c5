"""Who is asking. A mode turns a request's headers and cookies into an `Identity`, or raises Unauthorized.

Nothing else in a request says who somebody is: a user, an org or a client id in a body has no effect.
"""

import hmac
import re
import secrets
from typing import Final, NamedTuple, Protocol

from itsdangerous import BadSignature, URLSafeSerializer

from bff.auth.orgs import Orgs
from bff.errors import Forbidden, Unauthorized
from bff.http.tracing import Fields

COOKIE: Final = "chat_user"
USER_ID_MAX_BYTES: Final = 256
"""As UTF-8. Percent-encoded twice, as in the address of a spoken answer, that still fits into a request line of 4 KiB."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Identity(NamedTuple):
    user_id: str
    org: str
    new_cookie: str = ""
    """What the browser shall bring next time; "" when it already brought it."""

    @property
    def owner(self) -> str:
        """Whose something is that we keep: the same user in another org is somebody else. An org has no slash."""
        return f"{self.org}/{self.user_id}"


class Authenticator(Protocol):
    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        """Raises Unauthorized, or Forbidden for a request that did not come the way it must."""


class Anonymous:
    """Each browser is a user of its own, by a signed cookie."""

    def __init__(self, secret_key: str, orgs: Orgs) -> None:
        self._signer = URLSafeSerializer(secret_key, salt="bff.auth.identity.anonymous")
        self._orgs = orgs

    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        try:
            user_id = self._signer.loads(cookies.get(COOKIE, ""))
        except BadSignature:
            user_id = f"anonymous-{secrets.token_hex(16)}"
            return Identity(user_id, self._orgs.org_of(user_id), new_cookie=str(self._signer.dumps(user_id)))
        return Identity(validate_user_id(user_id), self._orgs.org_of(user_id))


class Proxy:
    """A proxy in front of us has signed the user in, says so in a header, and proves itself with a secret."""

    def __init__(self, user_header: str, secret: str, orgs: Orgs) -> None:
        self._user_header = user_header
        self._secret = secret.encode()
        self._orgs = orgs

    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        proof = headers.get("X-Proxy-Secret", "").encode("utf-8", "replace")
        if not hmac.compare_digest(proof, self._secret):
            raise Forbidden("This address is reached through its proxy only.")
        user_id = validate_user_id(_as_utf8(headers.get(self._user_header, "")))
        return Identity(user_id, self._orgs.org_of(user_id))


def validate_user_id(user_id: object) -> str:
    """A user id that every service behind us can take: `.` and `..` would change the path it becomes a segment of."""
    if not isinstance(user_id, str) or not user_id.strip():
        raise Unauthorized
    if user_id in {".", ".."} or _CONTROL.search(user_id) or len(user_id.encode()) > USER_ID_MAX_BYTES:
        raise Unauthorized("This user id is not supported.")
    return user_id


def _as_utf8(header: str) -> str:
    """`header` as WSGI has it: bytes as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        raise Unauthorized("This user id is not supported: it must be UTF-8.") from None
