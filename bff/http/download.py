"""Bytes of known length as an HTTP response: sent while they come, with everything closed whatever happens."""

import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from time import monotonic
from typing import Any, Final

from bff.errors import ChatError, ClientDisconnected
from bff.http import waiting
from bff.http.responses import Stream
from bff.http.streams import Slot
from bff.http.waiting import Waiter

LONGEST_SECONDS: Final = 3600.0
"""A player that is paused, or plays, takes its time; each slice is timed as well."""

log = logging.getLogger(__name__)

Pieces = Callable[[Waiter], Iterator[bytes]]


class Download(Stream):
    """`pieces` is given the waiting place and yields `length` bytes. `slot` is released and `close` called at the end, once.

    Whatever keeps the bytes from being whole hangs up: a browser must not wait for the rest, nor take it for all.
    """

    def __init__(
        self,
        pieces: Pieces,
        length: int,
        *,
        environ: Mapping[str, Any],
        slot: Slot,
        close: Callable[[str, int], None],
        **options: Any,
    ) -> None:
        """`close` is told how it ended ("complete", an error's code, or "aborted") and how many bytes were handed out."""
        self._ended, self._sent = "complete" if environ["REQUEST_METHOD"] == "HEAD" else "aborted", 0
        self._slot = slot
        over = ExitStack()
        over.callback(slot.release)
        over.callback(lambda: close(self._ended, self._sent))
        sending = self._sending(pieces, waiting.client_socket(environ), over)
        super().__init__(sending, over.close, **options)
        self.headers["Content-Length"] = str(length)

    def _sending(self, pieces: Pieces, sock: socket.socket | None, over: ExitStack) -> Iterator[bytes]:
        waiter = waiting.new_waiter(sock, allow_half_open=False)
        deadline = monotonic() + LONGEST_SECONDS
        try:
            self._slot.attach(waiter)
            for piece in pieces(waiter):
                yield piece
                self._sent += len(piece)
                if monotonic() >= deadline:
                    raise ClientDisconnected
            self._ended = "complete"
        except ClientDisconnected:
            pass  # Nobody is left to tell; the hanging up below says it.
        except ChatError as error:
            self._ended = error.code
        except Exception:
            # gunicorn takes any OSError for a browser that left, and Flask's handlers are past: this is the last chance.
            log.exception("a download broke")
        finally:
            if self._ended != "complete":
                waiter.abort()
            waiter.close()
            over.close()
