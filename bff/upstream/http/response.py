"""A response whose body can be read without blocking."""

import http.client
import io
import socket
from contextlib import closing
from typing import Any, Final, cast

from bff.http.waiting import Waiter
from bff.upstream.http.response_head import parse_head, read_head
from bff.upstream.http.response_wait import receive, receive_all

MAX_CHUNK_LINE_BYTES: Final = 1024


class NonBlockingResponse(http.client.HTTPResponse):
    """A response whose body is read as it arrives, without blocking.

    http.client's `read1` returns one HTTP chunk per call, blocks for the rest of a chunk's framing and does not tell whether
    it has more buffered. A stream must not block there: it also waits for its client and its deadlines.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._socket = sock
        self._is_head = kwargs.get("method") == "HEAD"
        self.ended = False
        self._buffered = b""
        self._framing = b""
        self._chunk_remaining = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def begin(self) -> None:
        assert isinstance(self.fp, io.BufferedReader)
        with closing(receive_all(self._socket)) as pieces:
            head, self._buffered = read_head(pieces)
        # From here on the socket is read directly. Dropping the reader's buffer saves 8 KiB per stream.
        connection = self.fp.detach()
        try:
            if not self._begin_well_formed(head):
                self.fp = io.BufferedReader(cast("io.RawIOBase", io.BytesIO(head)))
                super().begin()
        finally:
            self.fp = cast("io.BufferedReader", connection)  # Only to be closed; it is not read again.

    def _begin_well_formed(self, data: bytes) -> bool:
        """Sets what http.client's `begin` would. Returns whether it could."""
        head = parse_head(data)
        if head is None:
            return False
        length = head.first.get("content-length")
        if length is not None and not length.isdigit():
            return False
        self.version, self.status, self.reason = 11, head.status, head.reason
        self.code, self.headers = head.status, head.headers
        self.msg = head.headers
        self.chunked = head.first.get("transfer-encoding", "").lower() == "chunked"
        if self.chunked:
            self.chunk_left = None
        if head.status in {204, 304} or head.status < 200 or self._is_head:
            self.length = 0
        else:
            self.length = None if self.chunked or length is None else int(length)
        has_end = self.chunked or self.length is not None
        self.will_close = "close" in head.first.get("connection", "").lower() or not has_end
        return True

    @property
    def reusable(self) -> bool:
        """Whether the body was read to its exact end, so that the connection can be reused."""
        complete = self._framing == b"\r\n" if self.chunked else self.length == 0
        return self.ended and complete and not self._buffered and not self.will_close

    def wait(self, waiter: Waiter, deadline: float) -> None:
        waiter.wait(self, deadline)

    def read_available(self) -> bytes | None:
        """Bytes that have arrived: None if there are none, b"" at the end. Raises ConnectionError if the body is incomplete."""
        self.ended = self.ended or self.length == 0
        if self.ended:
            return b""
        data = self._receive()
        if data is None:
            return None
        if self.chunked:
            return self._decode_chunks(data)
        if self.length is None:
            self.ended = not data
        else:
            self._check_not_closed(data)
            self.will_close = self.will_close or len(data) > self.length  # Surplus bytes.
            data = data[: self.length]
            self.length -= len(data)
            self.ended = self.length == 0
        return data

    def _receive(self) -> bytes | None:
        """First what arrived together with the head, then what is on the socket."""
        data, self._buffered = self._buffered, b""
        return data or receive(self._socket)

    def _decode_chunks(self, data: bytes) -> bytes | None:
        self._check_not_closed(data)
        data = self._framing + data
        pieces, at, remaining = [], 0, self._chunk_remaining  # `remaining` includes the chunk's line end.
        while True:
            if remaining:
                pieces.append(data[at : at + max(0, remaining - 2)])
                step = min(remaining, len(data) - at)
                at, remaining = at + step, remaining - step
                if remaining:
                    break
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                break
            size = _chunk_size(data[at:line_end])
            at = line_end + 2
            if size == 0:
                self.ended = True
                break
            remaining = size + 2
        self._framing, self._chunk_remaining = data[at:], remaining
        if not self.ended and len(self._framing) > MAX_CHUNK_LINE_BYTES:
            raise ConnectionError("an invalid HTTP chunk")
        return b"".join(pieces) or (b"" if self.ended else None)

    def _check_not_closed(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("the connection closed in the middle of the body")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits.isalnum():
        raise ConnectionError("an invalid HTTP chunk")
    try:
        return int(digits, 16)
    except ValueError as error:
        raise ConnectionError("an invalid HTTP chunk") from error
