"""A response's body, taken as it comes: all that has arrived, without waiting for more."""

import http.client
import io
import socket
from contextlib import closing
from typing import Any, Final, cast

from bff.http.waiting import Waiter
from bff.upstream.http.response_head import read_head
from bff.upstream.http.response_wait import receive, received

CHUNK_LINE_MAX: Final = 1024


class NonBlockingResponse(http.client.HTTPResponse):
    """A response whose body can be taken as it comes, without waiting for more.

    http.client's own `read1` gives one HTTP chunk a call, waits for the rest of a chunk's framing, and cannot be asked
    whether it holds more: a stream that also watches its browser and its clock must never be caught in there.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._socket = sock
        self.ended = False
        self._ahead = b""
        self._framing = b""
        self._left_in_chunk = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def begin(self) -> None:
        assert isinstance(self.fp, io.BufferedReader)
        with closing(received(self._socket)) as pieces:
            head, self._ahead = read_head(pieces)
        # From here on the socket is read directly: without the reader's buffer a stream takes 8 KiB less.
        connection = self.fp.detach()
        self.fp = io.BufferedReader(cast("io.RawIOBase", io.BytesIO(head)))
        try:
            super().begin()
        finally:
            self.fp = cast("io.BufferedReader", connection)  # To be closed one day; it is never read again.

    @property
    def reusable(self) -> bool:
        """Whether it was read to its very end, so that its connection may serve again."""
        complete = self._framing == b"\r\n" if self.chunked else self.length == 0
        return self.ended and complete and not self._ahead and not self.will_close

    def wait(self, waiter: Waiter, deadline: float) -> None:
        waiter.wait(self, deadline)

    def read_available(self) -> bytes | None:
        """What has come: None when nothing has, b"" at the end. Raises ConnectionError when it was cut."""
        self.ended = self.ended or self.length == 0
        if self.ended:
            return b""
        data = self._receive()
        if data is None:
            return None
        if self.chunked:
            return self._without_framing(data)
        if self.length is None:
            self.ended = not data
        else:
            self._check_cut(data)
            self.will_close = self.will_close or len(data) > self.length  # It says what nobody asked for.
            data = data[: self.length]
            self.length -= len(data)
            self.ended = self.length == 0
        return data

    def _receive(self) -> bytes | None:
        """What came together with the head, then what has come since."""
        data, self._ahead = self._ahead, b""
        return data or receive(self._socket)

    def _without_framing(self, data: bytes) -> bytes | None:
        self._check_cut(data)
        data = self._framing + data
        pieces, at, left = [], 0, self._left_in_chunk  # `left` counts the chunk's own line end.
        while True:
            if left:
                pieces.append(data[at : at + max(0, left - 2)])
                step = min(left, len(data) - at)
                at, left = at + step, left - step
                if left:
                    break
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                break
            size = _chunk_size(data[at:line_end])
            at = line_end + 2
            if size == 0:
                self.ended = True
                break
            left = size + 2
        self._framing, self._left_in_chunk = data[at:], left
        if not self.ended and len(self._framing) > CHUNK_LINE_MAX:
            raise ConnectionError("no HTTP chunk")
        return b"".join(pieces) or (b"" if self.ended else None)

    def _check_cut(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("cut in the middle of the body")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits.isalnum():
        raise ConnectionError("no HTTP chunk")
    try:
        return int(digits, 16)
    except ValueError as error:
        raise ConnectionError("no HTTP chunk") from error
