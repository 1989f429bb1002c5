"""Signed tickets, each of which opens one stream for `EventSource`, which cannot send an `Authorization` header.

A ticket contains all that is needed to verify it, so any process accepts it. Only the process that redeemed a ticket knows
that it is used: docs/security.md describes what a stolen ticket allows.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from itsdangerous import BadData, URLSafeSerializer

from bff.auth.identity import Identity
from bff.errors import Unauthorized

OPEN_SECONDS: Final = 30
"""A ticket must open its stream within this time after its issue."""
MAX_REMEMBERED: Final = 100_000
"""Some 40 MB. Beyond it the oldest are forgotten, as if another process had redeemed them."""


class Redeemed(NamedTuple):
    identity: Identity
    first: bool
    """Whether this process had not seen the ticket before."""


class Tickets:
    """A broken stream can be reopened with the same ticket until `stream_seconds` after the ticket's issue."""

    def __init__(self, secret_key: str, stream_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._signer = URLSafeSerializer(secret_key, salt="bff.auth.tickets")
        self._stream_seconds = stream_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._redeemed: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """By nonce: the path that the ticket opened, and when to forget it."""

    def issue(self, identity: Identity) -> str:
        return str(self._signer.dumps([secrets.token_urlsafe(12), self._clock(), identity.user_id, identity.org]))

    def redeem(self, ticket: str, path: str, *, resumable: bool) -> Redeemed:
        """`resumable`: whether the client resumes the stream, with a `Last-Event-ID`. Raises Unauthorized."""
        nonce, issued_at, user_id, org = self._load(ticket)
        now = self._clock()
        deadline = issued_at + (self._stream_seconds if resumable else OPEN_SECONDS)
        with self._lock:
            opened_path, _ = self._redeemed.get(nonce, ("", 0.0))
            if now > deadline or (opened_path and (opened_path != path or not resumable)):
                raise Unauthorized("This ticket has been used. Please request another one.")
            if not opened_path:
                self._make_room(now)
                self._redeemed[nonce] = (path, issued_at + max(self._stream_seconds, OPEN_SECONDS))
        return Redeemed(Identity(user_id, org), first=not opened_path)

    def release(self, ticket: str) -> None:
        """Undoes a first redemption, after which no stream was opened."""
        nonce = self._load(ticket)[0]
        with self._lock:
            self._redeemed.pop(nonce, None)

    def _load(self, ticket: str) -> Any:
        try:
            return self._signer.loads(ticket)
        except BadData:
            raise Unauthorized("This ticket is not valid.") from None

    def _make_room(self, now: float) -> None:
        """Drops the oldest tickets: the expired ones, and as many as exceed MAX_REMEMBERED."""
        while self._redeemed and (next(iter(self._redeemed.values()))[1] < now or len(self._redeemed) >= MAX_REMEMBERED):
            self._redeemed.popitem(last=False)
