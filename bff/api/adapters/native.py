"""Our own words, those of docs/protocol.md: nothing lies between the relay and the wire."""

from typing import Final

from bff.api.adapters.base import ClientProtocol, ParsedRequest

NATIVE: Final = ClientProtocol(ParsedRequest)
