"""Who sends a request. An `Authenticator` turns its headers and cookies into an `Identity`, or raises Unauthorized.

Nothing else in a request identifies its user: a user, an org or a client id in a body has no effect.
"""

import re
import unicodedata
from typing import Final, NamedTuple, Protocol

from bff.errors import Unauthorized
from bff.http.tracing import Fields

COOKIE: Final = "chat_user"
"""The name of the cookie that `Identity.new_cookie` is the value of."""
MAX_USER_ID_BYTES: Final = 256
"""In UTF-8. Percent-encoded twice, as in the URL of a recording, it still fits into a request line of 4 KiB."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Identity(NamedTuple):
    user_id: str
    org: str
    new_cookie: str = ""
    """The cookie value to set for a new anonymous user; "" if there is nothing to set."""

    @property
    def owner(self) -> str:
        """The owner of stored objects. Unique, since an org contains no slash: the same user id in two orgs is two owners."""
        return f"{self.org}/{self.user_id}"


class Authenticator(Protocol):
    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        """Raises Unauthorized, or Forbidden if the request did not come through the expected proxy."""


def validate_user_id(user_id: object) -> str:
    """Returns it normalized: see `normalize`.

    Raises Unauthorized for a user id that could not be a segment of an upstream's URL path: for example `.` and `..`.
    """
    if not isinstance(user_id, str) or not user_id.strip():
        raise Unauthorized
    user_id = normalize(user_id)
    if user_id in {".", ".."} or _CONTROL.search(user_id) or len(user_id.encode()) > MAX_USER_ID_BYTES:
        raise Unauthorized("This user id is not supported.")
    return user_id


def normalize(user_id: str) -> str:
    """To Unicode's NFC (https://unicode.org/reports/tr15/): user ids are compared in this form.

    The same name may be composed (U+00E9) where one identity provider sends it and decomposed (`e`, U+0301) where another does.
    """
    return unicodedata.normalize("NFC", user_id)
