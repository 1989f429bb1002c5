"""Decodes events from bytes."""

from collections.abc import Iterable

from bff.http.sse import MAX_EVENT_BYTES, Decoder, Event


def decoded(chunks: Iterable[bytes], max_event_bytes: int = MAX_EVENT_BYTES) -> list[Event]:
    decoder = Decoder(max_event_bytes)
    return [event for chunk in chunks for event in decoder.feed(chunk)]
