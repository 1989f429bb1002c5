"""An open response, read as bytes arrive."""

import contextlib
import http.client
import re
from collections.abc import Iterator
from math import inf
from time import monotonic
from typing import Final

import requests
import urllib3

from bff.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from bff.http.waiting import Waiter
from bff.upstream.http.in_process import InProcessResponse
from bff.upstream.http.response import NonBlockingResponse
from bff.upstream.http.response_wait import READ_BYTES

LIBRARY_ERRORS: Final = (OSError, ValueError, http.client.HTTPException, urllib3.exceptions.HTTPError)
"""http.client raises ValueError for a malformed header."""


class ByteStream:
    """An open response. One greenlet or thread at a time reads and closes it; others cancel its waiter.

    Raises UpstreamError for a Content-Encoding; while reading, UpstreamUnavailable when the connection is lost,
    UpstreamTimeout after `silence` seconds without a byte.
    """

    def __init__(self, response: requests.Response, silence: float) -> None:
        self._response = response
        self._silence = silence
        self._closed = False
        self.deadline = inf
        """The moment (monotonic) at which reading ends with UpstreamTimeout, whatever arrives. May be changed while reading."""
        # urllib3 keeps http.client's response under this name, and requests relies on it. Responses mocked by `responses`
        # have none of ours; their `read1` never blocks.
        body = getattr(response.raw, "_original_response", response.raw)
        self._body = body if isinstance(body, NonBlockingResponse | InProcessResponse) else None
        vars(response).update(request=None, cookies=None)  # Unused from here on; they occupy 3 KiB of each open stream.
        # We request identity: a few compressed bytes can expand to a gigabyte, and a compressor may hold back events.
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            self.close()
            raise UpstreamError(detail="a response with a Content-Encoding")

    @property
    def size(self) -> int | None:
        """The declared length in bytes; None if there is none."""
        length = self.header("Content-Length")
        if self.header("Transfer-Encoding"):  # It overrides Content-Length.
            return None
        return int(length) if re.fullmatch("[0-9]{1,15}", length) else None

    def header(self, name: str) -> str:
        value: str = self._response.headers.get(name, "")
        return value

    def chunks(self, waiter: Waiter) -> Iterator[bytes]:
        """Bytes as they arrive; b"" when `waiter` woke up and nothing had arrived."""
        last_read = monotonic()
        while (chunk := self._read_available()) != b"":
            if chunk is not None:
                yield chunk
                last_read = monotonic()  # After the yield: the time that the consumer takes is not the upstream's silence.
            elif monotonic() >= last_read + self._silence:
                raise UpstreamTimeout(detail=f"silent for {self._silence} s")
            else:
                yield b""
            if monotonic() >= self.deadline:
                raise UpstreamTimeout(detail="the response did not end in time")
            if self._body is not None and not self._body.ended:
                self._body.wait(waiter, min(last_read + self._silence, self.deadline))

    def _read_available(self) -> bytes | None:
        try:
            return self._body.read_available() if self._body else self._response.raw.read1(READ_BYTES)
        except LIBRARY_ERRORS as error:
            raise UpstreamUnavailable(detail=f"the response was cut: {error!r}") from error

    def close(self) -> None:
        """Idempotent. Returns the connection to the pool if the response was read to its end."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(*LIBRARY_ERRORS):
            if self._body is not None:
                self._body.read_available()
                if self._body.reusable:
                    self._body.close()
                    self._response.raw.release_conn()
        self._response.close()
