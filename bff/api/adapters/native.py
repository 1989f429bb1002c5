"""Our own protocol (docs/protocol.md): the relay's events are sent unchanged."""

from typing import Final

from bff.api.adapters.base import ClientProtocol, ParsedRequest

NATIVE: Final = ClientProtocol(ParsedRequest)
