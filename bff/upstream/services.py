"""Addresses, keys and timeouts of the upstream services, broker and engine."""

from typing import Final, NamedTuple, Protocol, Self

from bff.config.settings import Settings

COALESCE_SECONDS: Final = 0.016
"""Events that arrive faster than a screen refreshes are sent together, one write per frame."""
CHECK_SECONDS: Final = 2.0
"""Timeout of a health check."""


class Service(Protocol):
    """A service's URL and API key: `Remote`, or `InProcessService`, which starts at its first request."""

    @property
    def url(self) -> str: ...
    @property
    def key(self) -> str: ...


class Remote(NamedTuple):
    url: str
    key: str

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"


class Timeouts(NamedTuple):
    """Seconds."""

    connect: float
    open: float
    """For everything before the first event: enqueuing the message and opening its stream, together."""
    silence: float
    """Between two reads of an open response."""
    engine: float
    """For a complete response that the engine does not stream."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            settings.upstream_connect_seconds,
            settings.upstream_open_seconds,
            settings.upstream_read_seconds,
            settings.engine_seconds,
        )
