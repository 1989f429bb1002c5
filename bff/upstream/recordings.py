"""Voice recordings of replies: checks their URLs, parses byte ranges, and streams their bytes from the engine."""

import re
import tempfile
from collections.abc import Callable, Iterator
from time import monotonic
from typing import IO, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from bff.auth.identity import Identity, normalize
from bff.errors import InvalidRequest, NotFound, RangeNotSatisfiable, UpstreamError, UpstreamTimeout
from bff.http.waiting import Waiter
from bff.upstream.http import ByteStream
from bff.upstream.messages import AUDIO_MAX_BYTES

PREFIXES: Final = ("/api/v1/audio/", "/api/v1/voice-submissions/")
DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
MAX_URL_LENGTH: Final = 2048
SPOOL_BYTES: Final = 256 * 1024
READ_BYTES: Final = 64 * 1024


class Address(NamedTuple):
    path: str
    """On the engine, percent-encoded by us; nothing of the requested URL is forwarded unchecked."""
    file: str
    """A file name of `[A-Za-z0-9._-]`."""


def address(url: str, engine_url: str, who: Identity) -> Address:
    """Where the engine has the recording at `url`. Raises InvalidRequest for any other URL, NotFound for another user's.

    The URL's origin is compared as text with the engine's: anything that two parsers could read differently (user names,
    unusual schemes, other spellings of a host) counts as another origin.
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
    if not _is_file_name(kind) or not _is_file_name(file):
        raise InvalidRequest("The url is not that of a spoken answer.")
    if (org, normalize(user_id)) != (who.org, who.user_id):
        raise NotFound
    return Address(prefix + "/".join(quote(segment, safe="") for segment in segments), re.sub(r"[^A-Za-z0-9._-]+", "_", file))


def _split(url: str) -> tuple[str, str]:
    match = re.fullmatch(r"(https?://[^/?#\\@]+)(/[^?#\\]*)", url)
    if match is None or len(url) > MAX_URL_LENGTH or not url.isprintable():
        raise InvalidRequest("The url is not one of the assistant's.")
    return match[1], match[2]


def _origins(engine_url: str) -> set[str]:
    """The spellings of the engine's origin: host in upper or lower case, default port written out or not."""
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


def _is_file_name(segment: str) -> bool:
    return segment not in {"", ".", ".."} and segment.isprintable() and not re.search(r"[/\\]", segment)


class Part(NamedTuple):
    start: int
    stop: int


def part(header: str, size: int) -> Part | None:
    """Parses a `Range` header for a file of `size` bytes. None means the whole file: no header, or no single byte range.

    Raises RangeNotSatisfiable.
    """
    # Units are case-insensitive: RFC 9110, section 14.1.
    match = re.fullmatch(r"(?i:bytes)=([0-9]{0,15})-([0-9]{0,15})", header.strip())
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
    """An open recording of known size. Its opener closes it."""

    def __init__(self, source: ByteStream, deadline: float, waiter: Waiter) -> None:
        """A recording of unknown size is downloaded first, until `deadline` (monotonic): players need it for the duration.

        Raises UpstreamError for more than AUDIO_MAX_BYTES, an UpstreamFailure, and the reason if `waiter` is cancelled.
        """
        self._source = source
        self._spool: IO[bytes] | None = None
        try:
            self.size = self._download(deadline, waiter) if source.size is None else source.size
            _check_size(self.size)
        except BaseException:
            self.close()
            raise

    @property
    def content_type(self) -> str:
        """Never a type that browsers execute, whatever the engine sends."""
        value = self._source.header("Content-Type").partition(";")[0].strip().lower()
        return value if re.fullmatch(r"(audio|video)/[a-z0-9.+-]{1,64}", value) else "application/octet-stream"

    @property
    def etag(self) -> str:
        value = self._source.header("ETag")
        return value if re.fullmatch(r'(W/)?"[\x21\x23-\x7e]{1,128}"', value) else ""

    @property
    def max_age(self) -> int:
        """Seconds of the engine's Cache-Control; 0 if there are none or it forbids caching."""
        value = self._source.header("Cache-Control").lower()
        match = re.search(r"\bmax-age=([0-9]{1,9})\b", value)
        return int(match[1]) if match and not re.search(r"no-(store|cache)", value) else 0

    def pieces(self, part: Part) -> Callable[[Waiter], Iterator[bytes]]:
        return lambda waiter: self._read_spool(part) if self._spool is not None else self._read(part, waiter)

    def _read(self, part: Part, waiter: Waiter) -> Iterator[bytes]:
        at = 0
        for chunk in self._source.chunks(waiter):
            if piece := chunk[max(0, part.start - at) : max(0, part.stop - at)]:
                yield piece
            at += len(chunk)
            if at >= part.stop:
                return
        if at < part.stop:
            raise UpstreamError(detail="a recording shorter than its Content-Length")

    def _read_spool(self, part: Part) -> Iterator[bytes]:
        assert self._spool is not None
        self._spool.seek(part.start)
        for at in range(part.start, part.stop, READ_BYTES):
            yield self._spool.read(min(READ_BYTES, part.stop - at))

    def _download(self, deadline: float, waiter: Waiter) -> int:
        self._spool = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - `close` closes it
        waiter.wake_at = deadline
        for chunk in self._source.chunks(waiter):
            self._spool.write(chunk)
            _check_size(self._spool.tell())
            if monotonic() >= deadline:
                raise UpstreamTimeout(detail="downloading a recording took too long")
        return self._spool.tell()

    def close(self) -> None:
        self._source.close()
        if self._spool is not None:
            self._spool.close()


def _check_size(size: int) -> None:
    if size > AUDIO_MAX_BYTES:
        raise UpstreamError(detail=f"a recording of more than {AUDIO_MAX_BYTES} bytes")
