"""One open answer of bytes, read at a waiting place."""

import contextlib
import http.client
import re
from collections.abc import Iterator
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
"""A ValueError is a header that is none."""


class ByteStream:
    """One open answer. One greenlet or thread at a time has it, reads it, and closes it; others end its watch.

    Raises UpstreamError when it is encoded; while reading, UpstreamUnavailable when it is cut, UpstreamTimeout after
    `silence` seconds without a byte.
    """

    def __init__(self, response: requests.Response, silence: float) -> None:
        self._response = response
        self._silence = silence
        self._closed = False
        # urllib3 wraps http.client's response and keeps it under this name, which requests itself relies on. Doubles made
        # by `responses` have none of ours: their `read1` never waits.
        body = getattr(response.raw, "_original_response", response.raw)
        self._body = body if isinstance(body, NonBlockingResponse | InProcessResponse) else None
        # We ask for plain bytes: a few of compressed ones can be a gigabyte, and an unflushed stream of them is silence.
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            self.close()
            raise UpstreamError(detail="an answer with a Content-Encoding")

    @property
    def size(self) -> int | None:
        """Bytes, as it says itself; None where it does not."""
        said = self.header("Content-Length")
        framed = self.header("Transfer-Encoding")  # Which counts, where both are said.
        return int(said) if re.fullmatch("[0-9]{1,15}", said) and not framed else None

    def header(self, name: str) -> str:
        value: str = self._response.headers.get(name, "")
        return value

    def chunks(self, waiter: Waiter) -> Iterator[bytes]:
        """Its bytes as they come; b"" when `waiter` woke up and nothing had come."""
        heard = monotonic()
        while (chunk := self._read_available()) != b"":
            if chunk is not None:
                yield chunk
                heard = monotonic()  # Not before: while nobody listened it was not silent.
            elif monotonic() >= heard + self._silence:
                raise UpstreamTimeout(detail=f"silent for {self._silence} s")
            else:
                yield b""
            if self._body is not None and not self._body.ended:
                self._body.wait(waiter, heard + self._silence)

    def _read_available(self) -> bytes | None:
        try:
            return self._body.read_available() if self._body else self._response.raw.read1(READ_BYTES)
        except LIBRARY_ERRORS as error:
            raise UpstreamUnavailable(detail=f"an answer was cut: {error!r}") from error

    def close(self) -> None:
        """Idempotent. Its connection goes back to the pool if the answer has ended by now."""
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
