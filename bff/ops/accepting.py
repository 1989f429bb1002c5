"""How many new connections gevent's servers accept before open ones have their turn again."""

from time import monotonic
from typing import Any, Final

from gevent.baseserver import BaseServer

MIN_ACCEPTS_PER_SECOND: Final = 100
"""A process whose open streams keep it busy still accepts as many, which takes a quarter of its time."""
MAX_ACCEPTS: Final = 20


def limit_accepts() -> None:
    """Accepts one connection in each turn of the event loop, or more if turns take long. By default gevent accepts up to 100.

    Starting a stream takes some milliseconds, so with many connections in one turn, all open streams wait for as long as
    hundreds of events would take; more clients connect meanwhile, so that it takes as long the next time.
    """
    BaseServer.max_accept = _AcceptsPerTurn()


class _AcceptsPerTurn:
    """gevent reads the number in each turn in which a connection waits.

    gunicorn sets it to 1 if several processes accept from one socket: another one may take what a busy process leaves.
    """

    def __get__(self, server: Any, owner: object) -> int:
        if server is None:
            return 1
        now = monotonic()
        elapsed = now - vars(server).get("accepted_at", now)
        server.accepted_at = now
        return max(1, min(MAX_ACCEPTS, int(elapsed * MIN_ACCEPTS_PER_SECOND)))
