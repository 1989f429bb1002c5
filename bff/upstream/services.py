"""The services behind us, broker and engine: where each is, and how long it may take. How they are reached is `transport`."""

from typing import Final, NamedTuple, Protocol, Self

from bff.config.settings import Settings

JOIN_SECONDS: Final = 0.016
"""Events that come faster than a screen shows them are told together, a frame's worth at once."""
CHECK_SECONDS: Final = 2.0
"""For the answer to whether it is there."""


class Service(Protocol):
    """Where a service is and the key it wants to see: a fixed address, or a neighbour that starts when it is asked for."""

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
    """All in seconds."""

    connect: float
    open: float
    """For everything before the first event: leaving the message and opening its stream, together."""
    silence: float
    engine: float
    """For the whole of an answer that the engine does not stream."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            settings.upstream_connect_seconds,
            settings.upstream_open_seconds,
            settings.upstream_read_seconds,
            settings.engine_seconds,
        )
