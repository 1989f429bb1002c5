"""Tickets: what lets `EventSource`, which can set no header, open one stream.

A ticket is signed and holds everything, so that any process can take it. That it opens one stream only is known to the
process that opened it: docs/security.md says what is left for somebody who steals one.
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
"""From its issue until it has opened its stream."""
REMEMBER_MOST: Final = 100_000
"""Some 40 MB. Then the oldest are forgotten, as if another process had seen them."""


class Redeemed(NamedTuple):
    identity: Identity
    first: bool
    """Whether it had opened no stream before, as far as this process knows."""


class Tickets:
    """A stream that breaks may be opened again until `stream_seconds` after its ticket's issue."""

    def __init__(self, secret_key: str, stream_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._signer = URLSafeSerializer(secret_key, salt="bff.auth.tickets")
        self._stream_seconds = stream_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """Where each was used first, and until when that matters."""

    def issue(self, identity: Identity) -> str:
        return str(self._signer.dumps([secrets.token_urlsafe(12), self._clock(), identity.user_id, identity.org]))

    def redeem(self, ticket: str, path: str, *, comes_back: bool) -> Redeemed:
        """`comes_back`: whether the reader has read of this stream before. Raises Unauthorized."""
        nonce, issued_at, user_id, org = self._read(ticket)
        now = self._clock()
        deadline = issued_at + (self._stream_seconds if comes_back else OPEN_SECONDS)
        with self._lock:
            opened, _ = self._opened.get(nonce, ("", 0.0))
            if now > deadline or (opened and (opened != path or not comes_back)):
                raise Unauthorized("This ticket is used up. Please ask for another one.")
            if not opened:
                self._forget(now)
                self._opened[nonce] = (path, issued_at + max(self._stream_seconds, OPEN_SECONDS))
        return Redeemed(Identity(user_id, org), first=not opened)

    def release(self, ticket: str) -> None:
        """What was redeemed for the first time opened no stream after all."""
        nonce = self._read(ticket)[0]
        with self._lock:
            self._opened.pop(nonce, None)

    def _read(self, ticket: str) -> Any:
        try:
            return self._signer.loads(ticket)
        except BadData:
            raise Unauthorized("This ticket is none of ours.") from None

    def _forget(self, now: float) -> None:
        """The first ones: they were opened first, and end about in that order."""
        while self._opened and (next(iter(self._opened.values()))[1] < now or len(self._opened) >= REMEMBER_MOST):
            self._opened.popitem(last=False)
