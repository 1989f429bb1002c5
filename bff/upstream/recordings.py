"""A spoken answer: where the engine keeps it, which part of it is wanted, and its bytes on their way."""

import re
import tempfile
from collections.abc import Callable, Iterator
from time import monotonic
from typing import IO, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from bff.auth.identity import Identity
from bff.errors import InvalidRequest, NotFound, RangeNotSatisfiable, UpstreamError, UpstreamTimeout
from bff.http.waiting import Waiter
from bff.upstream.http import ByteStream
from bff.upstream.messages import AUDIO_MAX_BYTES

PREFIXES: Final = ("/api/v1/audio/", "/api/v1/voice-submissions/")
DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
URL_MAX: Final = 2048
SPOOL_BYTES: Final = 256 * 1024
READ_BYTES: Final = 64 * 1024


class Address(NamedTuple):
    path: str
    """On the engine, encoded by us: nothing of the URL that was asked for goes there as it came."""
    file: str
    """Its name, of `[A-Za-z0-9._-]`."""


def address(url: str, engine_url: str, who: Identity) -> Address:
    """Raises InvalidRequest for whatever is no spoken answer of this engine's, NotFound for somebody else's.

    The URL's origin is compared as text with the one that is known: what two parsers could understand differently (user
    names, odd schemes, other spellings of a host) is another origin.
    """
    origin, path = _split(url)
    if origin not in _origins(engine_url):
        raise InvalidRequest("The url is not one of the assistant's.")
    path = path.removeprefix(urlsplit(engine_url).path)
    prefix = next((prefix for prefix in PREFIXES if path.startswith(prefix)), "")
    segments = [_decoded(segment) for segment in path.removeprefix(prefix).split("/")]
    if not prefix or len(segments) != 4:
        raise InvalidRequest("The url is not that of a spoken answer.")
    kind, org, user_id, file = segments
    if not _is_name(kind) or not _is_name(file):
        raise InvalidRequest("The url is not that of a spoken answer.")
    if (org, user_id) != (who.org, who.user_id):
        raise NotFound
    return Address(prefix + "/".join(quote(segment, safe="") for segment in segments), re.sub(r"[^A-Za-z0-9._-]+", "_", file))


def _split(url: str) -> tuple[str, str]:
    match = re.fullmatch(r"(https?://[^/?#\\@]+)(/[^?#\\]*)", url)
    if match is None or len(url) > URL_MAX or not url.isprintable():
        raise InvalidRequest("The url is not one of the assistant's.")
    return match[1], match[2]


def _origins(engine_url: str) -> set[str]:
    """Its one origin as a setting or an engine may spell it: a host in capitals, a default port that is written out."""
    parts = urlsplit(engine_url)
    port = f":{DEFAULT_PORTS[parts.scheme]}"
    host = parts.netloc.removesuffix(port)
    hosts = {host, host.lower()} | ({host + port, host.lower() + port} if parts.port in {None, int(port[1:])} else set())
    return {f"{parts.scheme}://{spelling}" for spelling in hosts}


def _decoded(segment: str) -> str:
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("The url is not that of a spoken answer.") from None


def _is_name(segment: str) -> bool:
    return segment not in {"", ".", ".."} and segment.isprintable() and not re.search(r"[/\\]", segment)


class Part(NamedTuple):
    start: int
    stop: int


def part(wanted: str, size: int) -> Part | None:
    """What a `Range` header asks for of `size` bytes; None for all of them, as for what is no single range of bytes.

    Raises RangeNotSatisfiable.
    """
    match = re.fullmatch(r"bytes=([0-9]{0,15})-([0-9]{0,15})", wanted.strip())
    if match is None or match[0].endswith("=-"):
        return None
    first, last = match[1], match[2]
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise RangeNotSatisfiable
    return Part(start, stop)


class Recording:
    """An open spoken answer of known size. Whoever opened it closes it."""

    def __init__(self, source: ByteStream, deadline: float, waiter: Waiter) -> None:
        """One that does not say its size is fetched first, until `deadline` (monotonic): players show a duration by it.

        Raises UpstreamError for one of more than AUDIO_MAX_BYTES, an UpstreamFailure, and whatever ends `waiter`.
        """
        self._source = source
        self._spool: IO[bytes] | None = None
        try:
            self.size = self._spooled(deadline, waiter) if source.size is None else source.size
            _check_size(self.size)
        except BaseException:
            self.close()
            raise

    @property
    def content_type(self) -> str:
        """One that no browser runs, whatever the engine says."""
        said = self._source.header("Content-Type").partition(";")[0].strip().lower()
        return said if re.fullmatch(r"(audio|video)/[a-z0-9.+-]{1,64}", said) else "application/octet-stream"

    @property
    def etag(self) -> str:
        said = self._source.header("ETag")
        return said if re.fullmatch(r'(W/)?"[\x21\x23-\x7e]{1,128}"', said) else ""

    @property
    def max_age(self) -> int:
        """Seconds for which the engine lets it be kept; 0 where it does not say, or does not let."""
        said = self._source.header("Cache-Control").lower()
        match = re.search(r"\bmax-age=([0-9]{1,9})\b", said)
        return int(match[1]) if match and not re.search(r"no-(store|cache)", said) else 0

    def pieces(self, wanted: Part) -> Callable[[Waiter], Iterator[bytes]]:
        return lambda waiter: self._read_spool(wanted) if self._spool is not None else self._read(wanted, waiter)

    def _read(self, wanted: Part, waiter: Waiter) -> Iterator[bytes]:
        at = 0
        for chunk in self._source.chunks(waiter):
            if piece := chunk[max(0, wanted.start - at) : max(0, wanted.stop - at)]:
                yield piece
            at += len(chunk)
            if at >= wanted.stop:
                return
        if at < wanted.stop:
            raise UpstreamError(detail="a recording that is shorter than it said")

    def _read_spool(self, wanted: Part) -> Iterator[bytes]:
        assert self._spool is not None
        self._spool.seek(wanted.start)
        for at in range(wanted.start, wanted.stop, READ_BYTES):
            yield self._spool.read(min(READ_BYTES, wanted.stop - at))

    def _spooled(self, deadline: float, waiter: Waiter) -> int:
        self._spool = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - `close` closes it
        waiter.wake_at = deadline
        for chunk in self._source.chunks(waiter):
            self._spool.write(chunk)
            _check_size(self._spool.tell())
            if monotonic() >= deadline:
                raise UpstreamTimeout(detail="a recording that took too long")
        return self._spool.tell()

    def close(self) -> None:
        self._source.close()
        if self._spool is not None:
            self._spool.close()


def _check_size(size: int) -> None:
    if size > AUDIO_MAX_BYTES:
        raise UpstreamError(detail="a recording of too many bytes")
