"""The login of a host application: its users are ours."""

from collections.abc import Callable

from bff.auth.identity import Identity, validate_user_id
from bff.auth.orgs import ORG
from bff.errors import Unauthorized
from bff.http.tracing import Fields


class HostLogin:
    """`user_id` is called in the request's context and returns the id of the user who is signed in, None if nobody is.

    With Flask-Login: `HostLogin(lambda: current_user.get_id())`. `org`: the organisation of all its users.
    """

    def __init__(self, user_id: Callable[[], str | None], org: str = "default") -> None:
        if not ORG.fullmatch(org):
            raise ValueError(f"{org!r} is not a valid organisation name.")
        self._user_id = user_id
        self._org = org

    def authenticate(self, headers: Fields, cookies: Fields) -> Identity:
        user_id = self._user_id()
        if user_id is None:
            raise Unauthorized
        return Identity(validate_user_id(user_id), self._org)
