"""Bytes of known length as a streamed HTTP response. Everything is closed however it ends."""

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

MAX_SECONDS: Final = 3600.0
"""For the whole download: a paused player reads slowly. Single reads have timeouts of their own."""

log = logging.getLogger(__name__)

Pieces = Callable[[Waiter], Iterator[bytes]]


class Download(Stream):
    """`pieces` is called with the stream's waiter and yields `length` bytes. `slot` is released and `close` called once.

    An incomplete download closes the connection, so that the browser neither waits for the rest nor accepts a truncated file.
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
        """`close` gets the outcome ("complete", an error code, or "aborted") and the number of bytes sent."""
        self._outcome, self._sent = "complete" if environ["REQUEST_METHOD"] == "HEAD" else "aborted", 0
        self._slot = slot
        cleanup = ExitStack()
        cleanup.callback(slot.release)
        cleanup.callback(lambda: close(self._outcome, self._sent))
        body = self._send(pieces, waiting.client_socket(environ), cleanup)
        super().__init__(body, cleanup.close, **options)
        self.headers["Content-Length"] = str(length)

    def _send(self, pieces: Pieces, sock: socket.socket | None, cleanup: ExitStack) -> Iterator[bytes]:
        waiter = waiting.new_waiter(sock, allow_half_open=False)
        deadline = monotonic() + MAX_SECONDS
        try:
            self._slot.attach(waiter)
            for piece in pieces(waiter):
                yield piece
                self._sent += len(piece)
                if monotonic() >= deadline:
                    raise ClientDisconnected
            self._outcome = "complete"
        except ClientDisconnected:
            pass  # The outcome stays "aborted".
        except ChatError as error:
            self._outcome = error.code
        except Exception:
            # Flask's error handlers no longer run here, and gunicorn ignores every OSError as a client disconnect.
            log.exception("a download broke")
        finally:
            if self._outcome != "complete":
                waiter.abort()
            waiter.close()
            cleanup.close()
